//! Clients by the thousand: connections that say nothing, half a request, or a byte now and then,
//! first on one port and then on the other. Workers and dispatches go on meanwhile.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use mesophyll::base::limits::HTTP_CONNECTIONS_MAX;
use serde_json::Value;

use crate::support::DEADLINE;
use crate::support::binary::{Master, token, try_post};
use crate::support::process::{descriptors, memory_peak, workers_of};

/// On each port, one port at a time; fewer if this process may not have so many descriptors.
const CONNECTIONS: u64 = 10_000;

/// Descriptors for everything else in this process, other tests too.
const RESERVED: u64 = 4000;

/// Threads that open them.
const CLIENTS: u64 = 8;

/// Real events that must be served while connections come as fast as they can, and as many when
/// none comes any more.
const SERVED: u64 = 20;

/// What the clients of a flood have done, and what became of those who came with real events
/// meanwhile.
#[derive(Default)]
struct Flood {
    opened: AtomicU64,
    /// Clients that open no more.
    settled: AtomicU64,
    answered: AtomicU64,
    /// Who found the port full, and knows that nothing was done.
    refused: AtomicU64,
}

impl Flood {
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Opens connections of each kind, so many and until enough real events were served, and keeps
    /// that many; then sends a byte for each slow one now and then.
    fn client(&self, address: SocketAddr, count: u64) {
        let slow = b"GET /livez HTTP/1.1\r\nHost: x\r\nA-Header: of many, many, many, many, many, many letters";
        let until = Instant::now() + DEADLINE;
        let mut sockets = Vec::new();
        for number in 0.. {
            if number >= count && (self.answered() >= SERVED || Instant::now() > until) {
                break;
            }
            let socket = TcpStream::connect(address);
            // A master that is behind with accepting refuses nobody; this machine may run out of
            // ports.
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
            if number < count {
                sockets.push(socket);
            } else {
                sockets[(number % count) as usize] = socket;
            }
        }
        self.settled.fetch_add(1, Ordering::SeqCst);
        for byte in &slow[1..] {
            for socket in sockets.iter_mut().skip(3).step_by(4) {
                let _ = socket.write(&[*byte]);
            }
            let _ = never::<()>().recv_timeout(Duration::from_millis(50));
        }
    }
}

/// Counts again and again, a new connection each time, until told to stop and served often enough
/// since the last connection came; says how often it was answered and refused since then. Whoever
/// finds the port full may be refused; all others must be served.
fn count(master: &Master, flood: &Flood, done: &AtomicBool) -> (u64, u64) {
    let until = Instant::now() + 2 * DEADLINE;
    let mut settled = None;
    loop {
        let so_far = (flood.answered(), flood.refused.load(Ordering::SeqCst));
        if settled.is_none() && flood.settled.load(Ordering::SeqCst) == CLIENTS {
            settled = Some(so_far);
        }
        let since =
            settled.map_or((0, 0), |(answered, refused)| (so_far.0 - answered, so_far.1 - refused));
        let is_enough = done.load(Ordering::SeqCst) && since.0 >= SERVED;
        if is_enough || Instant::now() > until {
            return since;
        }
        let answer = try_post(
            master.api(),
            "/i/dispatch-event/guild/1",
            &token(7),
            r#"{"name":"COUNT","data":null}"#,
        );
        match answer {
            Ok((200, count)) => {
                let answered = flood.answered.fetch_add(1, Ordering::SeqCst) + 1;
                assert_eq!(count.parse::<u64>().ok(), Some(answered), "nothing is lost or doubled");
            }
            Ok((503, body)) => {
                let body: Value = serde_json::from_str(&body).expect("JSON");
                assert_eq!(body["sent"], false, "{body}");
                flood.refused.fetch_add(1, Ordering::SeqCst);
            }
            Ok((status, body)) => panic!("{status}: {body}"),
            // The connection ended before a word of an answer: it was displaced before its request
            // was read.
            Err(_) => drop(flood.refused.fetch_add(1, Ordering::SeqCst)),
        }
    }
}

fn flood(address_of: fn(&Master) -> SocketAddr) {
    // Two at once would take the descriptors of each other, and of all other tests.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let connections = CONNECTIONS.min(descriptors().saturating_sub(RESERVED));
    let master = Master::start(&["--workers", "2"]);
    master.wait_ready();
    let workers = workers_of(master.pid());
    let (before, lines) =
        (memory_peak(master.pid()), master.running.stderr_so_far().lines().count());
    let (flood, done) = (Flood::default(), AtomicBool::new(false));
    let (answered, refused) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| flood.client(address_of(&master), connections / CLIENTS)))
            .collect();
        let counting = scope.spawn(|| count(&master, &flood, &done));
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        done.store(true, Ordering::SeqCst);
        counting.join().expect("it counts")
    });
    let opened = flood.opened.load(Ordering::SeqCst);
    assert!(
        opened > 4 * HTTP_CONNECTIONS_MAX as u64 && opened >= connections * 9 / 10,
        "{opened} of {connections}"
    );
    let while_they_came = flood.answered() - answered;
    assert!(while_they_came >= SERVED, "{while_they_came} were served while connections came");
    assert!(
        answered >= SERVED && answered > refused,
        "{answered} served, {refused} refused when none came any more"
    );
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
fn ten_thousand_clients_of_the_workers_port_harm_no_worker() {
    flood(Master::listen);
}
