//! Connections to PostgreSQL that break at a chosen moment: what may be tried again is, what may
//! have been made is said so.
//!
//! Between the store and the real server stands a proxy that cuts a connection before or after a
//! message with certain bytes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mesophyll::base::error::DbError;
use mesophyll::base::limits::POSTGRES_FRESH;
use mesophyll::store::lease::{HeldShards, MasterId};
use mesophyll::store::{self, DbOptions, DbState, StoreOptions, StoreUrl};
use mesophyll::wire::data::sharding::Shard;
use mesophyll::wire::data::{EncodedValue, Scopes, TenantId};
use postgres::{Client, NoTls};

use crate::support::db::{Typed, text};
use crate::support::postgres::{Locale, Schema, is_there, on};
use crate::support::process::eventually;
use crate::support::skip::skipped;
#[cfg(feature = "luau")]
use crate::support::{
    TempDir,
    binary::Master,
    process::{is_gone, workers_of},
};

const CONNECTIONS: usize = 7;

/// Without it a tenant's usage is counted, and its next set is a transaction of several exchanges.
const UNCOUNT: &str = "DELETE FROM mesophyll_usage";

/// As the `postgres` crate sends it. (A transaction begins with `READ COMMITTED`.)
const COMMIT: &[u8] = b"COMMIT\0";

/// When a connection is cut, once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server never sees the message.
    Before(&'static [u8]),
    /// The server has acted on the message, and its answer is lost.
    AnswerTo(&'static [u8]),
    /// From this message on nothing passes either way, and both ends stay open: a machine that
    /// hangs and goes on acknowledging.
    Silence(&'static [u8]),
}

#[derive(Default)]
struct Wires {
    next_cut: Option<Cut>,
    cuts: u32,
    open: Vec<TcpStream>,
    /// Who connects is accepted, and hears nothing.
    is_mute: bool,
    /// So many have been since.
    unheard: usize,
    /// How often the server was ready for the next query.
    exchanges: usize,
}

/// The way to the server.
struct Proxy {
    wires: Arc<Mutex<Wires>>,
    address: SocketAddr,
}

impl Proxy {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Self { wires: Arc::default(), address: listener.local_addr().expect("bound") };
        let wires = Arc::clone(&proxy.wires);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut open = wires.lock().expect("a lock");
                if open.is_mute {
                    open.unheard += 1;
                    open.open.push(client);
                    continue;
                }
                drop(open);
                let server = TcpStream::connect(&server).expect("the server is there");
                join(client, server, &wires);
            }
        });
        proxy
    }

    /// One before a schema's server, and the schema's URL through it.
    fn before(schema: &Schema) -> (Self, String) {
        let proxy = Self::to(host_of(schema));
        let url = through(schema, proxy.address);
        (proxy, url)
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("no panic under this lock")
    }

    fn cut(&self, cut: Cut) {
        self.wires().next_cut = Some(cut);
    }

    /// Waits until the cut was made.
    fn cuts(&self) -> u32 {
        eventually("the cut is made", || self.wires().next_cut.is_none().then_some(()));
        self.wires().cuts
    }

    /// Cuts every connection that there is.
    fn cut_all(&self) -> usize {
        let open = std::mem::take(&mut self.wires().open);
        open.iter().filter(|socket| socket.shutdown(Shutdown::Both).is_ok()).count()
    }
}

/// The address of a schema's server.
fn host_of(schema: &Schema) -> String {
    let (_, rest) = schema.url().split_once("://").expect("a URL");
    let (authority, _) = rest.split_once('/').expect("a database");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.contains(':') { host.to_owned() } else { format!("{host}:5432") }
}

/// The URL of a schema, through what stands before its server.
fn through(schema: &Schema, address: SocketAddr) -> String {
    let (scheme, rest) = schema.url().split_once("://").expect("a URL");
    let (authority, rest) = rest.split_once('/').expect("a database");
    let user = authority.rsplit_once('@').map_or("postgres", |(user, _)| user);
    format!("{scheme}://{user}@{address}/{rest}")
}

/// Carries bytes both ways until either end closes or a cut comes.
fn join(client: TcpStream, server: TcpStream, wires: &Arc<Mutex<Wires>>) {
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("set");
        wires.lock().expect("a lock").open.push(socket.try_clone().expect("cloned"));
    }
    let (from_client, to_server) =
        (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
    let asks = Arc::clone(wires);
    let is_silent = Arc::new(AtomicBool::new(false));
    let silences = Arc::clone(&is_silent);
    let answers = Arc::clone(wires);
    std::thread::spawn(move || {
        carry(from_client, to_server, |asked| take_cut(&asks, asked), &silences)
    });
    std::thread::spawn(move || {
        carry(server, client, |said| count_exchanges(&answers, said), &is_silent)
    });
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    look: impl Fn(&[u8]) -> Option<Cut>,
    is_silent: &AtomicBool,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(got @ 1..) = from.read(&mut bytes) {
        let bytes = &bytes[..got];
        match look(bytes) {
            Some(Cut::Silence(_)) => is_silent.store(true, Ordering::SeqCst),
            None => {}
            Some(Cut::Before(_)) => break,
            Some(Cut::AnswerTo(_)) => {
                // Nothing comes back from now on; the message goes through, and so does the
                // server's own end.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.write_all(bytes);
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
        if !is_silent.load(Ordering::SeqCst) && to.write_all(bytes).is_err() {
            break;
        }
    }
    if is_silent.load(Ordering::SeqCst) {
        // The table of what is open keeps both ends.
        return;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn take_cut(wires: &Mutex<Wires>, bytes: &[u8]) -> Option<Cut> {
    let mut wires = wires.lock().expect("a lock");
    let (Cut::Before(sought) | Cut::AnswerTo(sought) | Cut::Silence(sought)) = wires.next_cut?;
    if !bytes.windows(sought.len()).any(|window| window == sought) {
        return None;
    }
    wires.cuts += 1;
    wires.next_cut.take()
}

fn count_exchanges(wires: &Mutex<Wires>, bytes: &[u8]) -> Option<Cut> {
    let ready = bytes.windows(5).filter(|window| window == b"Z\0\0\0\x05").count();
    wires.lock().expect("a lock").exchanges += ready;
    None
}

/// A message of the protocol, from its length on, with its type if it has one.
fn message(from: &mut TcpStream, has_type: bool) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; if has_type { 5 } else { 4 }];
    from.read_exact(&mut message)?;
    let length = u32::from_be_bytes(message[message.len() - 4..].try_into().expect("four bytes"));
    let begun = message.len();
    message.resize(begun + length as usize - 4, 0);
    from.read_exact(&mut message[begun..])?;
    Ok(message)
}

/// Everything that the server says until it is ready for a query; it is in no transaction then if
/// this ends with `I`.
fn until_ready(server: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let said = message(server, true)?;
        all.extend_from_slice(&said);
        if said[0] == b'Z' {
            return Ok(all);
        }
    }
}

/// Where a pooler takes the next session from.
#[derive(Clone, Copy)]
enum Order {
    LastUsedFirst,
    TakingTurns,
}

/// The sessions of a pooler in transaction mode: after each transaction of a client they are any
/// client's.
struct Pool {
    server: String,
    idle: Mutex<VecDeque<TcpStream>>,
    order: Order,
}

impl Pool {
    fn greet(&self, startup: &[u8]) -> std::io::Result<(TcpStream, Vec<u8>)> {
        let mut server = TcpStream::connect(&self.server)?;
        server.write_all(startup)?;
        let greeting = until_ready(&mut server)?;
        Ok((server, greeting))
    }

    fn take(&self, startup: &[u8]) -> std::io::Result<TcpStream> {
        let idle = self.idle.lock().expect("a lock").pop_front();
        idle.map_or_else(|| Ok(self.greet(startup)?.0), Ok)
    }

    fn put_back(&self, server: TcpStream) {
        let mut idle = self.idle.lock().expect("a lock");
        match self.order {
            Order::LastUsedFirst => idle.push_front(server),
            Order::TakingTurns => idle.push_back(server),
        }
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let startup = message(&mut client, false)?;
        // A session that only says how a server greets.
        client.write_all(&self.greet(&startup)?.1)?;
        let mut held = None;
        loop {
            let asked = message(&mut client, true)?;
            if asked[0] == b'X' {
                return Ok(());
            }
            let mut server = held.take().map_or_else(|| self.take(&startup), Ok)?;
            server.write_all(&asked)?;
            if !matches!(asked[0], b'Q' | b'S') {
                held = Some(server);
                continue;
            }
            let said = until_ready(&mut server)?;
            client.write_all(&said)?;
            if said.last() == Some(&b'I') { self.put_back(server) } else { held = Some(server) }
        }
    }
}

#[test]
fn a_pooler_in_transaction_mode_is_found_out_at_the_start() {
    let test = "a_pooler_in_transaction_mode_is_found_out_at_the_start";
    if !is_there(test) {
        return;
    }
    let schema = Schema::migrated(Locale::Utf8);
    if schema.url().split('@').next().is_some_and(|user| user.matches(':').count() > 1) {
        return skipped(test, "the stand-in for a pooler signs in without a password");
    }
    for (order, others) in [
        (Order::LastUsedFirst, 0),
        (Order::LastUsedFirst, 3),
        (Order::TakingTurns, 0),
        (Order::TakingTurns, 3),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = through(&schema, listener.local_addr().expect("bound"));
        let pool = Arc::new(Pool { server: host_of(&schema), idle: Mutex::default(), order });
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let pool = Arc::clone(&pool);
                std::thread::spawn(move || pool.serve(client));
            }
        });
        let mut clients: Vec<Client> =
            (0..others).map(|_| Client::connect(&url, NoTls).expect("it works")).collect();
        // As many sessions as clients were in a transaction at once.
        clients
            .iter_mut()
            .for_each(|client| client.batch_execute("BEGIN; SELECT 1").expect("begun"));
        clients.iter_mut().for_each(|client| client.batch_execute("COMMIT").expect("committed"));
        let url = StoreUrl::Postgres(url);
        for refused in [store::open(&url).err(), store::migrate(&url).err()] {
            let refused =
                refused.unwrap_or_else(|| panic!("opened with {others} others")).to_string();
            assert!(refused.contains("pool_mode=session"), "{refused}");
        }
    }
}

/// A database that is reached through a proxy.
struct Proxied {
    db: DbState,
    /// No other test's: a tenant's lock is the whole database's, which tests share.
    tenant: TenantId,
    proxy: Proxy,
    schema: Schema,
}

impl Proxied {
    fn new(connections: usize) -> Self {
        Self::fenced(connections, Arc::default())
    }

    fn fenced(connections: usize, held: Arc<HeldShards>) -> Self {
        let schema = Schema::migrated(Locale::Utf8);
        let (proxy, url) = Proxy::before(&schema);
        let options = StoreOptions { connections };
        let store = store::open_with(&StoreUrl::Postgres(url), options, held).expect("opened");
        let db = DbState::new(store, DbOptions::default()).expect("readable");
        static COUNT: AtomicU64 = AtomicU64::new(1000);
        let tenant = TenantId::Guild(COUNT.fetch_add(2, Ordering::Relaxed));
        Self { db, tenant, proxy, schema }
    }

    fn set(&self, key: &str, value: &str) -> Result<(), DbError> {
        self.db.kv_set(self.tenant, Scopes::new(["s"]), key.to_owned(), text(value))
    }

    fn get(&self, key: &str) -> Option<EncodedValue> {
        self.db
            .kv_get(self.tenant, Scopes::new(["s"]), key)
            .expect("readable")
            .map(|record| record.value)
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        self.db.close();
    }
}

/// Waits until no connection is fresh any more.
fn not_fresh() {
    let since = Instant::now();
    eventually("time passes", || (since.elapsed() > POSTGRES_FRESH).then_some(()));
}

#[test]
fn a_set_of_a_known_row_is_one_exchange_with_a_fence_too() {
    if !is_there("a_set_of_a_known_row_is_one_exchange_with_a_fence_too") {
        return;
    }
    let held = Arc::new(HeldShards::default());
    let it = Proxied::fenced(1, Arc::clone(&held));
    let exchanges = |value| {
        let before = it.proxy.wires().exchanges;
        it.set("k", value).expect("set");
        it.proxy.wires().exchanges - before
    };
    // Counts the usage, and prepares the statements.
    assert!(exchanges("first") > 5);
    assert_eq!((exchanges("again"), exchanges("longer")), (2, 1));
    not_fresh();
    assert_eq!((exchanges("later"), exchanges("shorter")), (2, 1));
    // What changes no size is a statement of its own, which is prepared once.
    assert_eq!((exchanges("evenly!"), exchanges("as even")), (2, 1));
    let (shard, master) = (Shard::of(it.tenant), MasterId::random());
    on(
        it.schema.url(),
        &format!("UPDATE mesophyll_shard SET owner = '{master}', epoch = 7 WHERE shard = {shard}"),
    );
    held.set(master, [(shard, 7)]);
    assert_eq!(exchanges("equal"), 1);
    held.set(master, [(shard, 6)]);
    assert!(matches!(it.set("k", "never"), Err(DbError::NotOwner(_))));
    assert_eq!((held.refusals(), it.get("k")), (1, Some(text("equal"))));
}

#[test]
fn what_was_lost_before_the_commit_is_done_again_and_once() {
    if !is_there("what_was_lost_before_the_commit_is_done_again_and_once") {
        return;
    }
    let it = Proxied::new(1);
    it.set("k", "before").expect("set");
    // In the middle, where a statement is prepared that this connection has not used yet; and in
    // the first message.
    for (number, (cut, key)) in [
        (Cut::Before(b"UPDATE tenant_kv"), "k"),
        (Cut::AnswerTo(b"INSERT INTO tenant_kv"), "new"),
        (Cut::Before(b"BEGIN"), "k"),
        (Cut::AnswerTo(b"BEGIN"), "new"),
        // Before what commits by itself: where it is prepared.
        (Cut::Before(b"mesophyll_set("), "k"),
        (Cut::AnswerTo(b"mesophyll_set("), "new"),
    ]
    .into_iter()
    .enumerate()
    {
        match number {
            0..4 => on(it.schema.url(), UNCOUNT),
            _ => {
                assert!(it.proxy.cut_all() > 0);
                not_fresh();
            }
        }
        it.proxy.cut(cut);
        // Of another size each time: what changes none goes another way.
        let value = "x".repeat(number + 7);
        assert_eq!(it.set(key, &value), Ok(()));
        assert_eq!(it.proxy.cuts(), number as u32 + 1);
        assert_eq!(it.get(key), Some(text(&value)));
    }
    it.proxy.cut(Cut::Before(b"guild"));
    assert_eq!((it.get("k"), it.proxy.cuts()), (Some(text("xxxxxxxxxxx")), 7), "a read, too");
    assert_eq!(it.db.kv_usage(it.tenant).map(|usage| usage.records), Ok(2));
    assert_eq!(it.db.kv_find(it.tenant, Scopes::default(), "%").map(|found| found.len()), Ok(2));
}

#[test]
fn a_commit_that_nobody_answered_is_unknown_and_not_done_again() {
    if !is_there("a_commit_that_nobody_answered_is_unknown_and_not_done_again") {
        return;
    }
    // A transaction's, and those of statements that commit by themselves: the last one changes no
    // size.
    for (is_counted, [second, third], commits) in [
        (false, ["second", "the third"], [COMMIT; 2]),
        (true, ["second", "the third"], [&b"second"[..], b"the third"]),
        (true, ["2econ", "third"], [b"2econ", b"third"]),
    ] {
        let it = Proxied::new(1);
        it.set("k", "first").expect("set");
        if !is_counted {
            on(it.schema.url(), UNCOUNT);
        }
        // It was not made, which nobody here can know.
        it.proxy.cut(Cut::Before(commits[0]));
        let error = it.set("k", second).expect_err("cut");
        assert!(matches!(error, DbError::OutcomeUnknown(_)), "{error:?}");
        assert_eq!(it.get("k"), Some(text("first")));
        // It was made, which nobody here can know either.
        it.proxy.cut(Cut::AnswerTo(commits[1]));
        let error = it.set("k", third).expect_err("cut");
        assert!(matches!(error, DbError::OutcomeUnknown(_)), "{error:?}");
        eventually("the server has made it", || (it.get("k") == Some(text(third))).then_some(()));
        assert_eq!(it.proxy.cuts(), 2);
        it.set("k", "fourth").expect("service goes on");
        assert_eq!(it.db.kv_usage(it.tenant).map(|usage| usage.records), Ok(1));
    }
}

#[test]
fn a_state_whose_commit_was_unknown_is_looked_up() {
    use mesophyll::wire::data::{EncodedJson, TenantState};
    if !is_there("a_state_whose_commit_was_unknown_is_looked_up") {
        return;
    }
    let it = Proxied::new(1);
    let state =
        |event: &str| TenantState { events: [event.to_owned()].into(), data: EncodedJson::null() };
    it.db.set_tenant_state(it.tenant, &state("OLD")).expect("set");
    it.proxy.cut(Cut::AnswerTo(COMMIT));
    assert!(matches!(
        it.db.set_tenant_state(it.tenant, &state("NEW")),
        Err(DbError::OutcomeUnknown(_))
    ));
    eventually("it is what the server has", || {
        let mut direct = Client::connect(it.schema.url(), NoTls).expect("a connection");
        let events: Vec<String> =
            direct.query_one("SELECT events FROM tenant_state", &[]).expect("a row").get(0);
        (events == ["NEW"]).then_some(())
    });
    assert_eq!(it.db.tenant_state(it.tenant).map(|state| (*state).clone()), Some(state("NEW")));
}

#[test]
fn a_ban_whose_commit_was_unknown_counts_once_the_server_has_it() {
    use mesophyll::store::Standing;
    if !is_there("a_ban_whose_commit_was_unknown_counts_once_the_server_has_it") {
        return;
    }
    let it = Proxied::new(1);
    it.proxy.cut(Cut::AnswerTo(COMMIT));
    assert!(matches!(
        it.db.set_standing(it.tenant, Standing::Banned),
        Err(DbError::OutcomeUnknown(_))
    ));
    assert_eq!(it.proxy.cuts(), 1);
    eventually("the server has it", || {
        let mut direct = Client::connect(it.schema.url(), NoTls).expect("a connection");
        direct
            .query_one("SELECT banned FROM tenant_state", &[])
            .ok()?
            .get::<_, bool>(0)
            .then_some(())
    });
    // Nobody has asked of the tenant's state, or set it; a dispatch asks of nothing else.
    assert_eq!(it.db.standing(it.tenant), Standing::Banned);
}

#[test]
fn a_pool_of_dead_connections_costs_nobody_an_error() {
    if !is_there("a_pool_of_dead_connections_costs_nobody_an_error") {
        return;
    }
    let it = Proxied::new(CONNECTIONS);
    let everybody = |round: u32| {
        std::thread::scope(|scope| {
            for caller in 0..2 * CONNECTIONS {
                let it = &it;
                scope.spawn(move || {
                    let (key, value) = (caller.to_string(), format!("{round} {caller}"));
                    it.set(&key, &value).expect("set");
                    assert_eq!(it.get(&key), Some(text(&value)));
                });
            }
        });
    };
    everybody(0);
    for round in 1..4 {
        // As after the server's restart: every connection is dead, and nobody knows it yet.
        assert!(it.proxy.cut_all() > 0);
        // Of one that was used this moment a set may have been on its way.
        not_fresh();
        everybody(round);
    }
}

#[test]
fn a_silent_server_is_away_until_it_answers() {
    if !is_there("a_silent_server_is_away_until_it_answers") {
        return;
    }
    // One thread: were it held for ever, nothing would serve again.
    let it = Proxied::new(1);
    it.set("k", "before").expect("set");
    it.proxy.wires().is_mute = true;
    assert!(it.proxy.cut_all() > 0);
    not_fresh();
    let asked = Instant::now();
    let error = it.set("k", "after").expect_err("nothing answers");
    assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
    // What is held is released by its own end only, and here that never comes.
    assert!(it.proxy.wires().unheard > 0 && asked.elapsed() < Duration::from_secs(20));
    it.proxy.wires().is_mute = false;
    eventually("it serves again", || it.set("k", "again").ok());
    assert_eq!(it.get("k"), Some(text("again")));
}

#[test]
fn a_slow_statement_is_unavailable_and_changes_nothing() {
    if !is_there("a_slow_statement_is_unavailable_and_changes_nothing") {
        return;
    }
    let it = Proxied::new(2);
    it.set("k", "before").expect("set");
    let mut other = Client::connect(it.schema.url(), NoTls).expect("a connection");
    let mut holds = other.transaction().expect("begun");
    holds.execute("LOCK TABLE tenant_kv IN ACCESS EXCLUSIVE MODE", &[]).expect("locked");
    let begun = Instant::now();
    let error = it.set("k", "after").expect_err("the table is locked");
    assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
    assert!(
        begun.elapsed() > Duration::from_secs(5),
        "it was the server's timeout, not another one"
    );
    holds.rollback().expect("rolled back");
    assert_eq!(it.get("k"), Some(text("before")));
    it.set("k", "after").expect("set");
}

/// How many connections wait for a transaction, or for one that waits for it.
fn held_up_by(holder: i32, observer: &mut Client) -> i64 {
    let sql = "WITH RECURSIVE held (pid) AS (
            SELECT $1::int UNION SELECT held_up.pid FROM held_up JOIN held ON held.pid = ANY (held_up.by)
        ), held_up (pid, by) AS (SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity)
        SELECT count(*) - 1 FROM held";
    observer.query_one(sql, &[&holder]).expect("counted").get(0)
}

#[test]
fn a_tenant_whose_writes_wait_holds_up_no_other() {
    const WRITERS: usize = 64;
    if !is_there("a_tenant_whose_writes_wait_holds_up_no_other") {
        return;
    }
    let it = Proxied::new(CONNECTIONS);
    let (loud, quiet) = (it.tenant, TenantId::Guild(it.tenant.snowflake() + 1));
    let set = |tenant, key: &str, value: &str| {
        it.db.kv_set(tenant, Scopes::new(["s"]), key.to_owned(), text(value))
    };
    let get = |tenant, key: &str| {
        let record = it.db.kv_get(tenant, Scopes::new(["s"]), key).expect("readable");
        record.map(|record| record.value)
    };
    set(loud, "k", "before").expect("set");
    let mut outside = Client::connect(it.schema.url(), NoTls).expect("a connection");
    let mut observer = Client::connect(it.schema.url(), NoTls).expect("a connection");
    let holder: i32 = outside.query_one("SELECT pg_backend_pid()", &[]).expect("a row").get(0);
    let mut holds = outside.transaction().expect("begun");
    holds.execute("SELECT 1 FROM tenant_kv WHERE key = 'k' FOR UPDATE", &[]).expect("locked");
    let begun = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (set, begun) = (&set, &begun);
            scope.spawn(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                let result = set(loud, "k", &writer.to_string());
                assert!(matches!(result, Ok(()) | Err(DbError::Unavailable(_))), "{result:?}");
            });
        }
        eventually("the writers wait", || {
            (begun.load(Ordering::SeqCst) == WRITERS && held_up_by(holder, &mut observer) > 0)
                .then_some(())
        });
        for number in 0..20_u32 {
            set(quiet, "meanwhile", &number.to_string()).expect("another tenant's write");
            assert_eq!(get(quiet, "meanwhile"), Some(text(&number.to_string())));
        }
        // Its own reads are answered as well: they do not wait for a lock.
        assert_eq!(get(loud, "k"), Some(text("before")));
        // One that has waited for too long has given up, and its successor may not wait yet.
        assert!(held_up_by(holder, &mut observer) <= 1, "one connection waits, and no more");
        holds.rollback().expect("rolled back");
    });
    set(loud, "k", "after").expect("set");
    assert_eq!(it.db.kv_usage(loud).map(|usage| usage.records), Ok(1));
}

/// docs/shutdown.md: what hangs longer than 15 s after the stop's timeout is not waited for.
#[cfg(feature = "luau")]
#[test]
fn a_store_that_does_not_close_lets_a_master_end() {
    if !is_there("a_store_that_does_not_close_lets_a_master_end") {
        return;
    }
    let schema = Schema::migrated(Locale::Utf8);
    let (proxy, url) = Proxy::before(&schema);
    let args = ["--store", &url, "--workers", "1", "--stop-timeout", "1s"];
    let master = Master::start_in(TempDir::new(), &args);
    master.wait_ready();
    static COUNT: AtomicU64 = AtomicU64::new(900_001);
    let tenant = format!("guild/{}", COUNT.fetch_add(2, Ordering::Relaxed));
    assert_eq!(master.dispatch(&tenant, "COUNT", "1").0, 200);
    // The value that is set, whichever statement does it.
    proxy.cut(Cut::Silence(b"{\"Integer\":2}"));
    assert_eq!(master.dispatch_with(&tenant, "COUNT", "1", "?nowait=true").0, 202);
    assert_eq!(proxy.cuts(), 1);
    let workers = workers_of(master.pid());
    let (ended, _) = master.stop();
    // The links until the store's timeout for who waits in it, the store itself after that.
    ended.expect(4, "stopping at once: still closing the ");
    assert!(workers.len() == 1 && workers.values().all(|pid| is_gone(*pid)), "{workers:?}");
}
