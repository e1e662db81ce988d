//! The peer is what it says: its master takes our worker, and our master takes its worker.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesophyll::dispatch::worker_like::WorkerLike;
use mesophyll::protocol::{MesophyllServer, ServerConfig};
use mesophyll::store::{DbOptions, DbState, open};

use super::asked::{Kind, Load, Size};
use super::events::{Ours, Theirs};
use super::ours;
use super::pair::Role;
use crate::peer::master::Master;
use crate::peer::runtime;
use crate::peer::worker::{Config, Handler, run};
use crate::serve::TOKEN;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

const LOAD: Load =
    Load { kind: Kind::Flight, size: Size::TwoK, in_flight: 1, tenants: 7, lasting: SOON };

fn wait_until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "it never came");
        std::thread::yield_now();
    }
}

#[test]
fn the_peers_master_takes_a_worker_of_ours() {
    let runtime = runtime().expect("a runtime");
    let (master, address) = runtime.block_on(Master::start(1, TOKEN, None)).expect("a master");
    let role = Role {
        address: address.to_string(),
        token: TOKEN.to_owned(),
        worker: 0,
        workers: 1,
        is_luau: false,
    };
    let handled = Arc::new(AtomicU64::new(0));
    let worker = ours::Worker::start(&role, handled.clone()).expect("a worker");
    wait_until(|| master.is_ready());
    let events = Theirs::new(&LOAD);
    for number in 0..20 {
        let answer =
            runtime.block_on(master.dispatch_event(events.tenant(number), events.event(number)));
        assert!(events.is_echo(number, &answer.expect("an answer")));
    }
    assert_eq!(handled.load(Ordering::Relaxed), 20);
    worker.stop();
}

#[test]
fn our_master_takes_a_worker_of_the_peers() {
    let store = open(&"memory:".parse().expect("a URL")).expect("a store");
    let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let idents = vec![(0, TOKEN.to_owned())];
    let server =
        MesophyllServer::new_with(listener, db, ServerConfig::new(1), idents).expect("a server");
    let runtime = runtime().expect("a runtime");
    let config = Config {
        master: server.local_addr().to_string(),
        worker: 0,
        token: TOKEN.to_owned(),
        reads_states: false,
    };
    let handled = Arc::new(AtomicU64::new(0));
    runtime.spawn(run(config, Handler::Echo, handled.clone()));
    wait_until(|| server.get_connection(0).is_some());
    let conn = server.get_connection(0).expect("a connection");
    let events = Ours::new(&LOAD);
    for number in 0..20 {
        let answer =
            conn.dispatch_event(events.tenant(number), events.event(number), Instant::now() + SOON);
        assert!(events.is_echo(number, &answer.expect("an answer")));
    }
    assert_eq!(handled.load(Ordering::Relaxed), 20);
    server.shutdown(Instant::now() + Duration::from_secs(5));
}
