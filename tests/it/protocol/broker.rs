//! Connections that are handed out: a worker lives on them alone, and has its share of them and no
//! other worker's.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use mesophyll::base::error::DbError;
use mesophyll::base::limits::BROKER_CONNECTIONS;
use mesophyll::base::thread::{self, OwnedThread};
use mesophyll::net::broker::{Ask, Broker, HandOut};
use mesophyll::net::stream::Stream;
use mesophyll::protocol::{Dial, Outbox};
use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::support::Random;

/// The channel between a master and the worker 0, with the threads of both ends.
struct Channel {
    broker: Arc<Broker>,
    // Before the threads, which end with it.
    worker_end: UnixStream,
    _threads: [OwnedThread; 2],
}

impl Channel {
    fn new(master: &Arc<Master>) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let hand_out = HandOut::new(ours).expect("a channel");
        let worker_end = theirs.try_clone().expect("a descriptor");
        let broker = Arc::new(Broker::new(theirs.into()));
        let (serves, takes) = (master.clone(), broker.clone());
        let serve = move || {
            let serve = |stream| serves.server.serve_worker(0, stream);
            loop {
                poll(&mut [PollFd::new(&hand_out, PollFlags::IN)], None).expect("an ask");
                if !hand_out.answer(&serve) {
                    return;
                }
            }
        };
        let take = move || while takes.receive().expect("a socket") {};
        let threads = [
            thread::spawn("serves", serve).expect("a thread"),
            thread::spawn("takes", take).expect("a thread"),
        ];
        Self { broker, worker_end, _threads: threads }
    }

    fn connect(&self) -> Stream {
        let stream = self.broker.connect(Ask::Database, DEADLINE).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    }

    /// What is answered to these bytes, to its end.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The master may have closed it before it has read all.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        // A reset: it was closed with something unread. Never that the time was over.
        assert!(ended.is_ok_and(|_| true) || !answer.is_empty() || bytes.len() > 100);
        String::from_utf8_lossy(&answer).chars().take(12).collect()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let _ = self.worker_end.shutdown(std::net::Shutdown::Both);
    }
}

fn master(workers: usize) -> Arc<Master> {
    Arc::new(Master::with(ServerConfig::new(workers)))
}

#[test]
fn a_worker_connects_again_through_the_broker() {
    let master = master(1);
    let channel = Channel::new(&master);
    let (runtime, _told_rx) = StandInRuntime::new();
    let subscriptions = Arc::new(Subscriptions::new(BTreeSet::from(["*".to_owned()])));
    let dial = Dial::Broker(channel.broker.clone());
    let db_client = MesophyllDbClient::over(&dial, 0, &master.token());
    let db = Arc::new(WorkerDb::mesophyll(db_client, Outbox::default()));
    let worker = WorkerThread::new(0, Box::new(runtime), 1, subscriptions, db);
    let config = ClientConfig {
        master: dial,
        worker_id: 0,
        workers: 1,
        token: master.token(),
        link_limits: LinkLimits::default(),
        sandbox: None,
        host: None,
        outbox: Outbox::default(),
    };
    let client = MesophyllClient::start(config, Arc::new(worker)).expect("a client");
    let first = master.wait_ready();
    assert!(first.is_handed_out());
    first.close(close_code::GOING_AWAY);
    let second = master.wait_ready();
    assert!(second.generation() > first.generation() && second.is_handed_out());
    client.stop();
}

#[test]
fn a_handed_out_connection_still_needs_its_own_token() {
    let master = master(2);
    let channel = Channel::new(&master);
    let tokens = [0, 1].map(|id| master.server.get_token_for_worker(id).expect("a token"));
    let ask = |id: usize, token: &str| {
        let head = format!("GET /db/tenant-states?id={id}&token={token} HTTP/1.1\r\nHost: x\r\n");
        channel.answer(format!("{head}Connection: close\r\n\r\n").as_bytes())
    };
    assert_eq!(ask(0, tokens[0]), "HTTP/1.1 200");
    assert_eq!(ask(0, tokens[1]), "HTTP/1.1 401");
    assert_eq!(ask(1, tokens[1]), "HTTP/1.1 401", "it is another worker's connection");
    assert_eq!(ask(0, ""), "HTTP/1.1 401");
    let mut random = Random::new(7);
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..random.below(3000)).map(|_| random.below(256) as u8).collect();
        let said = channel.answer(&bytes);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    assert_eq!(ask(0, tokens[0]), "HTTP/1.1 200");
}

#[test]
fn a_worker_has_its_share_of_connections_and_no_more() {
    let master = master(1);
    let channel = Channel::new(&master);
    let share = BROKER_CONNECTIONS.1;
    let mut taken: Vec<Stream> = (0..share).map(|_| channel.connect()).collect();
    for _ in 0..10 {
        let refused = channel.broker.connect(Ask::Database, DEADLINE).expect_err("no place");
        assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    }
    let db = MesophyllDbClient::over(&Dial::Broker(channel.broker.clone()), 0, &master.token());
    assert!(matches!(db.tenant_states(), Err(DbError::Busy(_))), "it is told so");
    // The port has its own places.
    let mut outside = std::net::TcpStream::connect(master.server.local_addr()).expect("a place");
    outside.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    outside.read_exact(&mut [0; 12]).expect("an answer");
    taken.pop();
    let until = Instant::now() + DEADLINE;
    while db.tenant_states().is_err() {
        assert!(Instant::now() < until, "a place that is free is had again");
    }
}
