//! The peer is what it says: its master takes our worker, and our master takes its worker.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesophyll::dispatch::Job;
use mesophyll::dispatch::worker_like::{WorkerLike, start};
use mesophyll::protocol::{MesophyllDbClient, MesophyllServer, ServerConfig};
use mesophyll::store::{DbOptions, DbState, open};
use mesophyll::wire;
use mesophyll::wire::data::{
    DbAnswer, DbOp, EncodedJson, KeyValueOp as OurKeyValueOp, KhronosValue as OurKhronosValue,
    Scopes, TenantId, TenantState,
};

use super::asked::{Kind, Load, Size};
use super::events::{Ours, Theirs};
use super::messages::Talker;
use super::ours;
use super::pair::Role;
use crate::peer::db::{DbClient, Store};
use crate::peer::master::Master;
use crate::peer::runtime;
use crate::peer::types::{Id, KeyValueOp, KhronosValue, Snowflake};
use crate::peer::worker::{Config, Handler, run};
use crate::serve::TOKEN;
use crate::store::plain_postgres::Database;

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

/// Needs PostgreSQL, as the peer keeps records nowhere else.
#[test]
fn our_client_keeps_values_in_the_peers_database() {
    let Some(database) = Database::new().expect("a database") else {
        eprintln!("SKIPPED: set MESOPHYLL_TEST_POSTGRES_URL to a server");
        return;
    };
    let runtime = runtime().expect("a runtime");
    let store = runtime.block_on(Store::open(database.url())).expect("the peer's store");
    let (_master, address) =
        runtime.block_on(Master::start(1, TOKEN, Some(store))).expect("a master");
    let client = MesophyllDbClient::new(&address.to_string(), 0, TOKEN);
    let tenant = TenantId::Guild(7 << 22);
    let ask = |op| client.ask(&DbOp::Kv(tenant, op));
    let (scopes, key) = (Scopes::new(["kept"]), || "key".to_owned());
    let get = || ask(OurKeyValueOp::Get { scopes: scopes.clone(), key: key() });
    assert_eq!(get(), Ok(DbAnswer::Record(None)));
    let text = OurKhronosValue::Text("x".repeat(1000));
    let value = wire::pack::value::encode(&text);
    let set = OurKeyValueOp::Set { scopes: scopes.clone(), key: key(), value: value.clone() };
    assert_eq!(ask(set), Ok(DbAnswer::Done));
    let record = get().and_then(DbAnswer::into_record).expect("an answer").expect("a record");
    assert_eq!((record.key, record.value), (key(), value));
}

/// A master of ours with the worker of the peer's, which has said that it is alive.
struct OurMaster {
    server: MesophyllServer,
    db: Arc<DbState>,
    handled: Arc<AtomicU64>,
    runtime: tokio::runtime::Runtime,
}

impl OurMaster {
    fn with(handler: impl FnOnce(&str) -> Handler) -> Self {
        let store = open(&"memory:".parse().expect("a URL")).expect("a store");
        let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let idents = vec![(0, TOKEN.to_owned())];
        let server = MesophyllServer::new_with(listener, db.clone(), ServerConfig::new(1), idents);
        let server = server.expect("a server");
        let runtime = runtime().expect("a runtime");
        let master = server.local_addr().to_string();
        let handled = Arc::new(AtomicU64::new(0));
        let handler = {
            let _guard = runtime.enter();
            handler(&master)
        };
        let config = Config { master, worker: 0, token: TOKEN.to_owned() };
        runtime.spawn(run(config, handler, handled.clone()));
        wait_until(|| server.get_connection(0).is_some());
        Self { server, db, handled, runtime }
    }

    fn client(master: &str) -> DbClient {
        DbClient::new(master, 0, TOKEN).expect("a client")
    }
}

impl Drop for OurMaster {
    fn drop(&mut self) {
        self.server.shutdown(Instant::now() + Duration::from_secs(5));
    }
}

#[test]
fn our_master_takes_a_worker_of_the_peers() {
    let master = OurMaster::with(|_| Handler::Echo);
    let conn = master.server.get_connection(0).expect("a connection");
    let events = Ours::new(&LOAD);
    for number in 0..20 {
        let answer =
            conn.dispatch_event(events.tenant(number), events.event(number), Instant::now() + SOON);
        assert!(events.is_echo(number, &answer.expect("an answer")));
    }
    assert_eq!(master.handled.load(Ordering::Relaxed), 20);
}

/// Its client speaks HTTP/2 only, and has one connection for all of its calls.
#[test]
fn the_peers_worker_keeps_values_in_our_database() {
    let master = OurMaster::with(|address| Handler::Keep(OurMaster::client(address)));
    let conn = master.server.get_connection(0).expect("a connection");
    let events = Ours::new(&LOAD);
    let pending: Vec<_> = (0..64)
        .map(|number| {
            let job = Job::Dispatch(events.event(number));
            start(&conn, events.tenant(number), job, Instant::now() + SOON)
        })
        .collect();
    for (number, pending) in (0..).zip(pending) {
        assert!(events.is_echo(number, &pending.wait().expect("an answer")), "{number}");
    }
    assert_eq!(master.handled.load(Ordering::Relaxed), 64);
}

#[test]
fn the_peers_client_reads_our_states_and_refusals() {
    let master = OurMaster::with(|_| Handler::Echo);
    let events = BTreeSet::from(["MESSAGE_CREATE".to_owned()]);
    let state = TenantState { events, data: EncodedJson::null() };
    master.db.set_tenant_state(TenantId::Guild(7), &state).expect("set");
    let client = {
        let _guard = master.runtime.enter();
        OurMaster::client(&master.server.local_addr().to_string())
    };
    let (id, kept) = (Id::Guild(Snowflake(7)), vec!["kept".to_owned()]);
    let states = master.runtime.block_on(client.tenant_states()).expect("states");
    let events = states.get(&id).map(|state| state.events.clone());
    assert_eq!(events, Some(vec!["MESSAGE_CREATE".to_owned()]));
    let none = master.runtime.block_on(client.kv_get(id, kept.clone(), "no".to_owned()));
    assert_eq!(none, Ok(None));
    // A value of 300 KiB is more than a record may have; one of 3 MiB more than a body.
    for (bytes, status) in [(300 << 10, "422"), (3 << 20, "413")] {
        let value = KhronosValue::Text("x".repeat(bytes));
        let set = KeyValueOp::Set { scopes: kept.clone(), key: "big".to_owned(), value };
        let refused = master.runtime.block_on(client.kv(id, &set)).expect_err("too large");
        assert!(refused.contains(status), "{refused}");
    }
    // The connection is as good as before.
    let none = master.runtime.block_on(client.kv_get(id, kept, "big".to_owned()));
    assert_eq!(none, Ok(None));
}

#[test]
fn messages_of_one_worker_reach_the_other() {
    for is_luau in [false, true] {
        let (master, tokens) = ours::start_master(2, None, None, None).expect("a master");
        let address = master.listen_addr().expect("a port").to_string();
        let mut talkers: Vec<_> = (0..)
            .zip(tokens)
            .map(|(worker, token)| {
                let role = Role { address: address.clone(), token, worker, workers: 2, is_luau };
                Talker::start(&role).expect("a worker")
            })
            .collect();
        ours::wait_ready(&master).expect("ready");
        let load = Load { in_flight: 4, lasting: Duration::from_millis(50), ..LOAD };
        let done = talkers[0].run(load).expect("a turn").done;
        assert!(done > 0);
        if !is_luau {
            wait_until(|| talkers[1].handled() == done);
            assert_eq!(talkers[0].handled(), 0);
        }
        talkers.into_iter().for_each(Talker::stop);
        master.stop(Instant::now() + Duration::from_secs(5), |_| {});
    }
}
