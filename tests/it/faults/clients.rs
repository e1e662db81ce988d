//! Clients by the thousand: connections that say nothing, half a request, or a byte now and then, first on one port and then on the
//! other. Workers and dispatches go on meanwhile.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::never;
use mesophyll::limits::HTTP_CONNECTIONS_MAX;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::support::binary::{Master, token, try_post};
use crate::support::process::{memory_peak, workers_of};

/// On each port; fewer if this process may not have so many descriptors.
const CONNECTIONS: u64 = 10_000;

/// Descriptors for everything else in this process, other tests too.
const RESERVED: u64 = 4000;

/// Threads that open them.
const CLIENTS: u64 = 8;

/// Lets this process have as many descriptors as it may, and says how many connections that is.
fn connections() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit anybody may");
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS.min(most.saturating_sub(RESERVED))
}

/// What the clients of a flood have done.
#[derive(Default)]
struct Flood {
    opened: AtomicU64,
    is_over: AtomicBool,
}

impl Flood {
    /// Opens connections of each kind and keeps them all until the flood is over, with a byte for each slow one now and then.
    fn client(&self, address: SocketAddr, count: u64) {
        let slow = b"GET /livez HTTP/1.1\r\nHost: x\r\nA-Header: of many, many, many, many, many, many letters";
        let mut sockets = Vec::new();
        for number in 0..count {
            let socket = TcpStream::connect(address);
            // A master that is behind with accepting refuses nobody; this machine may run out of ports.
            let Ok(mut socket) = socket else { break };
            self.opened.fetch_add(1, Ordering::SeqCst);
            // Whoever was displaced meanwhile cannot write.
            let _ = match number % 4 {
                0 => Ok(0),
                1 => socket.write(b"GET /livez HTT"),
                2 => {
                    socket.write(b"POST /i/dispatch-event/guild/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
                }
                _ => socket.write(&slow[..1]),
            };
            sockets.push(socket);
        }
        for byte in &slow[1..] {
            for socket in sockets.iter_mut().skip(3).step_by(4) {
                let _ = socket.write(&[*byte]);
            }
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let _ = never::<()>().recv_timeout(Duration::from_millis(50));
        }
    }
}

/// What those got who came with real events meanwhile.
#[derive(Debug, Default)]
struct Served {
    answered: u64,
    refused: u64,
}

/// Counts again and again, a new connection each time, until told to stop. Whoever finds the port full may be refused, and knows
/// that nothing was done; all others must be served.
fn count(master: &Master, done: &AtomicBool) -> Served {
    let mut served = Served::default();
    while !done.load(Ordering::SeqCst) || served.answered == 0 {
        let answer = try_post(master.api(), "/i/dispatch-event/guild/1", &token(7), r#"{"name":"COUNT","data":null}"#);
        match answer {
            Ok((200, count)) => {
                served.answered += 1;
                assert_eq!(count.parse::<u64>().ok(), Some(served.answered), "nothing is lost or doubled");
            }
            Ok((503, body)) => {
                let body: Value = serde_json::from_str(&body).expect("JSON");
                assert_eq!(body["sent"], false, "{body}");
                served.refused += 1;
            }
            Ok((status, body)) => panic!("{status}: {body}"),
            // The connection ended before a word of an answer: it was displaced before its request was read.
            Err(_) => served.refused += 1,
        }
    }
    served
}

fn flood(address_of: fn(&Master) -> SocketAddr) {
    let connections = connections();
    let master = Master::start(&["--workers", "2"]);
    master.wait_ready();
    let workers = workers_of(master.pid());
    let (before, lines) = (memory_peak(master.pid()), master.running.stderr_so_far().lines().count());
    let (flood, done) = (Flood::default(), AtomicBool::new(false));
    let served = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| flood.client(address_of(&master), connections / CLIENTS))).collect();
        let counting = scope.spawn(|| count(&master, &done));
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        done.store(true, Ordering::SeqCst);
        counting.join().expect("it counts")
    });
    let opened = flood.opened.load(Ordering::SeqCst);
    assert!(opened > 4 * HTTP_CONNECTIONS_MAX as u64 && opened >= connections * 9 / 10, "{opened} of {connections}");
    assert!(served.answered > served.refused, "{served:?}");
    assert_eq!(workers_of(master.pid()), workers, "a worker was lost");
    let grown = memory_peak(master.pid()).saturating_sub(before);
    // A thread for each of the connections that may be there at once.
    assert!(grown <= 64 * 1024, "the master grew by {grown} KiB");
    let log = master.running.stderr_so_far();
    assert!(log.lines().count() - lines < 20, "{log}");
    master.stop().0.expect(0, "");
}

#[test]
fn ten_thousand_clients_of_the_internal_api_keep_nobody_out() {
    flood(Master::api);
}

#[test]
fn ten_thousand_clients_of_the_worker_facing_port_harm_no_worker() {
    flood(Master::listen);
}
