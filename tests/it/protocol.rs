//! A master's server and workers' clients over real sockets: correlation, deadlines, replacement,
//! silence, garbage.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mesophyll::base::error::DispatchError;
use mesophyll::dispatch::worker_like::{WorkerLike, start};
use mesophyll::dispatch::{Answer, Delivery, Job, MessageDoor, Request, RequestId};
use mesophyll::net::link::{CloseCause, LinkLimits, close_code};
use mesophyll::pool::{Subscriptions, WorkerDb, WorkerThread};
use mesophyll::protocol::{
    ClientConfig, ClientEnd, LinkObserver, MesophyllClient, MesophyllDbClient, MesophyllServer,
    MesophyllServerConn, Outbox, ServerConfig,
};
use mesophyll::store::{DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::{
    CreateEvent, EncodedJson, EventData, KhronosValue, TenantId, TenantState,
};
use mesophyll::wire::message::{ClientMessage, Health, Incoming, Ready, ServerMessage};
use mesophyll::wire::pack::value::decode;
use tungstenite::{Message, WebSocket};

use crate::support::DEADLINE;
use crate::support::stand_in::{StandInRuntime, Told};

mod broker;
mod feeds;
mod full_link;
mod logs;
mod messages;
mod nowait;
mod retire;
mod shards;
mod subscribed;

const TENANT: TenantId = TenantId::Guild(1 << 22);

/// What a master is told of its workers' links.
#[derive(Debug)]
enum Note {
    Connected,
    Ready(MesophyllServerConn),
    Health,
    Disconnected(CloseCause),
}

struct Notes(Sender<Note>);

impl LinkObserver for Notes {
    fn connected(&self, _: &MesophyllServerConn) {
        let _ = self.0.send(Note::Connected);
    }

    fn ready(&self, conn: &MesophyllServerConn) {
        let _ = self.0.send(Note::Ready(conn.clone()));
    }

    fn health(&self, _: &MesophyllServerConn, _: Health) {
        let _ = self.0.send(Note::Health);
    }

    fn disconnected(&self, _: &MesophyllServerConn, cause: &CloseCause) {
        let _ = self.0.send(Note::Disconnected(cause.clone()));
    }
}

/// A server with one worker id, watched.
struct Master {
    server: MesophyllServer,
    db: Arc<DbState>,
    notes_rx: Receiver<Note>,
    _observer: Arc<dyn LinkObserver>,
}

impl Master {
    fn start(heartbeat: Duration) -> Self {
        Self::with(ServerConfig { heartbeat_interval: heartbeat, ..ServerConfig::new(1) })
    }

    fn with(config: ServerConfig) -> Self {
        let store = mesophyll::store::open(&StoreUrl::Memory).expect("a store");
        let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let server = MesophyllServer::new(listener, db.clone(), config).expect("a server");
        let (notes_tx, notes_rx) = unbounded();
        let observer: Arc<dyn LinkObserver> = Arc::new(Notes(notes_tx));
        server.observe(0, &observer);
        Self { server, db, notes_rx, _observer: observer }
    }

    /// Waits for a note that `want` picks something from, and forgets those before it.
    fn wait_for<T>(&self, mut want: impl FnMut(Note) -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            let note = self.notes_rx.recv_deadline(until).expect("the note comes");
            if let Some(found) = want(note) {
                return found;
            }
        }
    }

    fn wait_ready(&self) -> MesophyllServerConn {
        self.wait_for(|note| if let Note::Ready(conn) = note { Some(conn) } else { None })
    }

    fn wait_disconnected(&self) -> CloseCause {
        self.wait_for(|note| if let Note::Disconnected(cause) = note { Some(cause) } else { None })
    }

    fn url(&self, query: &str) -> String {
        format!("ws://{}/ws?{query}", self.server.local_addr())
    }

    fn token(&self) -> String {
        self.server.get_token_for_worker(0).expect("a token").to_owned()
    }

    /// A peer by hand, after its handshake.
    fn raw_peer(&self) -> WebSocket<TcpStream> {
        let socket = TcpStream::connect(self.server.local_addr()).expect("connect");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let url = self.url(&format!("id=0&token={}", self.token()));
        tungstenite::client::client(url, socket).expect("a handshake").0
    }
}

/// The next message that a peer by hand is sent; it answers pings meanwhile.
fn next_message(peer: &mut WebSocket<TcpStream>) -> Vec<u8> {
    loop {
        if let Message::Binary(message) = peer.read().expect("a frame") {
            return message.to_vec();
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.server.shutdown(Instant::now() + Duration::from_secs(5));
    }
}

/// A worker of ours with a stand-in runtime.
struct Worker {
    client: Option<MesophyllClient>,
    told_rx: Receiver<Told>,
    subscriptions: Arc<Subscriptions>,
}

impl Worker {
    fn start(master: &Master) -> Self {
        Self::with_outbox(master, Outbox::default())
    }

    fn with_outbox(master: &Master, outbox: Outbox) -> Self {
        let address = master.server.local_addr().to_string();
        let (runtime, told_rx) = StandInRuntime::new();
        let subscriptions = Arc::new(Subscriptions::new(BTreeSet::from(["*".to_owned()])));
        let db = Arc::new(WorkerDb::mesophyll(
            MesophyllDbClient::new(&address, 0, &master.token()),
            outbox.clone(),
        ));
        let worker = WorkerThread::new(0, Box::new(runtime), 1, subscriptions.clone(), db);
        let config = ClientConfig {
            master: address.into(),
            worker_id: 0,
            workers: 1,
            token: master.token(),
            link_limits: LinkLimits::default(),
            sandbox: None,
            host: None,
            outbox,
        };
        let client = MesophyllClient::start(config, Arc::new(worker)).expect("a client");
        Self { client: Some(client), told_rx, subscriptions }
    }

    fn told(&self) -> Told {
        self.told_rx.recv_timeout(DEADLINE).expect("the runtime is told")
    }

    fn ended(&self) -> ClientEnd {
        self.client
            .as_ref()
            .expect("a client")
            .ended_rx()
            .recv_timeout(DEADLINE)
            .expect("the client ends")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            client.stop();
        }
    }
}

fn master_and_worker() -> (Master, Worker, MesophyllServerConn) {
    let master = Master::start(Duration::from_secs(5));
    let worker = Worker::start(&master);
    let conn = master.wait_ready();
    (master, worker, conn)
}

fn event(name: &str, data: EncodedJson) -> CreateEvent {
    CreateEvent { name: name.to_owned(), author: None, data: EventData::Json(data) }
}

fn named(name: &str) -> CreateEvent {
    event(name, EncodedJson::null())
}

fn far() -> Instant {
    Instant::now() + DEADLINE
}

fn dispatch(conn: &MesophyllServerConn, name: &str) -> Result<KhronosValue, DispatchError> {
    conn.dispatch_event(TENANT, named(name), far()).map(|value| decode(&value).expect("a value"))
}

fn text(text: &str) -> KhronosValue {
    KhronosValue::Text(text.to_owned())
}

#[test]
fn answers_find_the_dispatches_that_they_belong_to() {
    let (_master, _worker, conn) = master_and_worker();
    let names: Vec<String> = (0..2000).map(|number| format!("EVENT_{number}")).collect();
    let pending: Vec<_> = names
        .iter()
        .map(|name| start(&conn, TENANT, mesophyll::dispatch::Job::Dispatch(named(name)), far()))
        .collect();
    for (name, pending) in names.iter().zip(pending) {
        assert_eq!(decode(&pending.wait().expect("an answer")), Ok(text(name)));
    }
    assert_eq!(conn.in_flight(), 0);
}

#[test]
fn scripts_drops_and_errors_come_back_as_what_they_are() {
    let (_master, _worker, conn) = master_and_worker();
    let ran = conn.run_script(TENANT, "test", "return 1", named("E"), far()).expect("a result");
    assert_eq!(decode(&ran), Ok(text("ran return 1")));
    assert_eq!(conn.drop_tenant(TENANT, far()), Ok(()));
    assert_eq!(dispatch(&conn, "FAIL"), Err(DispatchError::Script("as asked".to_owned())));
    assert_eq!(dispatch(&conn, "BUSY"), Err(DispatchError::Busy("as asked".to_owned())));
    let big = dispatch(&conn, "BIG").expect_err("no message has room for it");
    assert!(matches!(&big, DispatchError::Script(text) if text.contains("too large")), "{big:?}");
    assert_eq!(dispatch(&conn, "AFTER"), Ok(text("AFTER")));
}

#[test]
fn an_event_of_ten_mebibytes_arrives_whole() {
    let (_master, worker, conn) = master_and_worker();
    let json = |bytes: usize| {
        mesophyll::wire::json::event_data_from_json(format!("\"{}\"", "x".repeat(bytes)).as_bytes())
            .expect("JSON")
    };
    let answer =
        conn.dispatch_event(TENANT, event("ECHO", json(10 << 20)), far()).expect("an answer");
    assert_eq!(decode(&answer), Ok(KhronosValue::Integer((10 << 20) + 5)));
    let refused = conn.dispatch_event(TENANT, event("ECHO", json(20 << 20)), far());
    assert!(matches!(refused, Err(DispatchError::TooLarge { .. })), "{refused:?}");
    assert_eq!(worker.told(), Told::Submitted(TENANT, "ECHO".to_owned()));
    assert_eq!(dispatch(&conn, "AFTER"), Ok(text("AFTER")));
}

#[test]
fn a_deadline_ends_the_wait_and_cancels_the_event_at_the_worker() {
    let (_master, worker, conn) = master_and_worker();
    let ended =
        conn.dispatch_event(TENANT, named("HOLD"), Instant::now() + Duration::from_millis(50));
    assert_eq!(ended, Err(DispatchError::Deadline { sent: true }));
    assert_eq!(worker.told(), Told::Submitted(TENANT, "HOLD".to_owned()));
    assert!(matches!(worker.told(), Told::Cancelled(TENANT, RequestId(_))));
    assert_eq!(conn.in_flight(), 0);
    assert_eq!(dispatch(&conn, "AFTER"), Ok(text("AFTER")));
    // The answer of the cancelled event came before that of `AFTER`, and nobody waited for it.
    assert_eq!(conn.late_answers(), 1);
}

#[test]
fn dropping_a_pending_dispatch_gives_it_up() {
    let (_master, worker, conn) = master_and_worker();
    let pending = start(&conn, TENANT, mesophyll::dispatch::Job::Dispatch(named("HOLD")), far());
    assert_eq!(conn.in_flight(), 1);
    drop(pending);
    assert_eq!(conn.in_flight(), 0);
    assert_eq!(worker.told(), Told::Submitted(TENANT, "HOLD".to_owned()));
    assert!(matches!(worker.told(), Told::Cancelled(TENANT, RequestId(_))));
}

#[test]
fn a_newer_connection_replaces_the_older_for_good() {
    let (master, worker, first) = master_and_worker();
    let pending = start(&first, TENANT, mesophyll::dispatch::Job::Dispatch(named("HOLD")), far());
    assert_eq!(worker.told(), Told::Submitted(TENANT, "HOLD".to_owned()));
    let newer = Worker::start(&master);
    let second = master.wait_ready();
    assert!(matches!(pending.wait(), Err(DispatchError::OutcomeUnknown(_))));
    assert_eq!(worker.ended(), ClientEnd::Replaced);
    drop(worker);
    assert!(second.generation() > first.generation());
    let current = master.server.get_connection(0).expect("the newer one");
    assert_eq!(current.generation(), second.generation());
    assert_eq!(dispatch(&current, "E"), Ok(text("E")));
    assert_eq!(newer.told(), Told::Submitted(TENANT, "E".to_owned()));
}

#[test]
fn a_lost_worker_fails_its_pending_and_may_return() {
    let (master, worker, conn) = master_and_worker();
    let pending = start(&conn, TENANT, mesophyll::dispatch::Job::Dispatch(named("HOLD")), far());
    assert_eq!(worker.told(), Told::Submitted(TENANT, "HOLD".to_owned()));
    drop(worker);
    assert!(matches!(pending.wait(), Err(DispatchError::OutcomeUnknown(_))));
    assert!(matches!(master.wait_disconnected(), CloseCause::ClosedByPeer(close_code::GOING_AWAY)));
    assert!(matches!(dispatch(&conn, "E"), Err(DispatchError::NotSent(_))));
    assert!(master.server.get_connection(0).is_none());
    let _again = Worker::start(&master);
    assert_eq!(dispatch(&master.wait_ready(), "E"), Ok(text("E")));
}

#[test]
fn of_workers_connecting_at_once_the_last_one_counts() {
    let master = Master::start(Duration::from_secs(5));
    for round in 1..=50 {
        let peers: Vec<_> = std::thread::scope(|scope| {
            let connect = || {
                let mut peer = master.raw_peer();
                peer.read().expect("Hello, and then it is known");
                peer
            };
            let peers: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
            peers.into_iter().map(|peer| peer.join().expect("a peer")).collect()
        });
        let current = master.server.get_connection(0).expect("the last one");
        assert_eq!(current.generation(), 4 * round);
        drop(peers);
    }
}

#[test]
fn a_link_that_breaks_is_made_again_by_the_worker() {
    let (master, _worker, conn) = master_and_worker();
    conn.close(close_code::GOING_AWAY);
    let again = master.wait_ready();
    assert!(again.generation() > conn.generation());
    assert_eq!(dispatch(&again, "E"), Ok(text("E")));
}

#[test]
fn a_tenant_state_that_was_set_reaches_its_worker() {
    let (master, worker, conn) = master_and_worker();
    assert!(worker.subscriptions.wants(TENANT, "OTHER"));
    let state =
        TenantState { events: BTreeSet::from(["ONLY".to_owned()]), data: EncodedJson::null() };
    master.db.set_tenant_state(TENANT, &state).expect("set");
    // The message went ahead of this dispatch on the same link.
    assert_eq!(dispatch(&conn, "ONLY"), Ok(text("ONLY")));
    assert_eq!(dispatch(&conn, "OTHER"), Ok(KhronosValue::Null));
    assert_eq!(worker.told(), Told::Submitted(TENANT, "ONLY".to_owned()));
    assert!(worker.told_rx.is_empty());
}

#[test]
fn a_state_that_finds_no_room_ends_the_link() {
    let link_limits = LinkLimits { queue_bytes: 1 << 20, ..LinkLimits::default() };
    let master = Master::with(ServerConfig { link_limits, ..ServerConfig::new(1) });
    let mut peer = master.raw_peer();
    peer.send(Message::binary(ClientMessage::Heartbeat.encode())).expect("sent");
    let conn = master.wait_ready();
    let state = TenantState { events: BTreeSet::from(["E".to_owned()]), data: EncodedJson::null() };
    let (asked_tx, asked_rx) = unbounded();
    let (db, asked) = (master.db.clone(), state.clone());
    let answer = Answer::callback(move |result| {
        asked_tx.send((result, db.set_tenant_state(TENANT, &asked))).unwrap_or_default();
    });
    conn.submit(Request::new(TENANT, Job::Dispatch(named("E")), far(), answer));
    let (db, filled) = (master.db.clone(), conn.clone());
    let filler = std::thread::spawn(move || {
        let large = mesophyll::wire::json::event_data_from_json(
            format!("\"{}\"", "x".repeat(4 << 20)).as_bytes(),
        );
        let large = large.expect("JSON");
        while !filled.is_closed() {
            while filled.dispatch_event_nowait(TENANT, event("FILL", large.clone()), far()).is_ok()
            {
            }
            db.set_tenant_state(TENANT, &state).expect("set");
        }
    });
    // A peer that reads nothing at all.
    let (result, set) = asked_rx.recv_timeout(DEADLINE).expect("the link ends and no lock is held");
    assert!(matches!(result, Err(DispatchError::OutcomeUnknown(_))), "{result:?}");
    assert_eq!(set, Ok(()));
    filler.join().expect("it ends");
    assert_eq!(master.wait_disconnected(), CloseCause::SlowPeer);
    drop(peer);
}

#[test]
fn a_worker_tells_its_health_beside_its_heartbeats() {
    let master = Master::start(Duration::from_millis(800));
    let _worker = Worker::start(&master);
    let conn = master.wait_ready();
    for _ in 0..4 {
        master.wait_for(|note| matches!(note, Note::Health).then_some(()));
    }
    assert!(!conn.is_closed());
}

#[test]
fn a_peer_without_heartbeats_loses_its_link() {
    let master = Master::start(Duration::from_millis(100));
    let mut peer = master.raw_peer();
    let chatter = std::thread::spawn(move || {
        let answer =
            ClientMessage::DispatchResponse { req_id: 1, result: Err(String::new()) }.encode();
        // Until the master hangs up.
        while peer.send(Message::binary(answer.clone())).is_ok() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    assert_eq!(master.wait_disconnected(), CloseCause::Silent);
    chatter.join().expect("the peer");
}

#[test]
fn a_reference_worker_is_ready_at_its_first_heartbeat() {
    let master = Master::start(Duration::from_secs(5));
    let mut peer = master.raw_peer();
    let hello = peer.read().expect("a frame").into_data();
    assert_eq!(
        ServerMessage::decode(&hello),
        Ok(Incoming::Message(ServerMessage::Hello { heartbeat_interval_ms: 5000 }))
    );
    peer.send(Message::binary(ClientMessage::Heartbeat.encode())).expect("sent");
    let conn = master.wait_ready();
    let pending = start(&conn, TENANT, mesophyll::dispatch::Job::Dispatch(named("E")), far());
    let Ok(Incoming::Message(ServerMessage::DispatchEvent { req_id: Some(request_id), .. })) =
        ServerMessage::decode(&next_message(&mut peer))
    else {
        panic!("a dispatch was expected")
    };
    let answer = ClientMessage::DispatchResponse {
        req_id: request_id,
        result: Err("busy: not a kind here".to_owned()),
    };
    peer.send(Message::binary(answer.encode())).expect("sent");
    assert_eq!(pending.wait(), Err(DispatchError::Script("busy: not a kind here".to_owned())));
}

#[test]
fn a_worker_that_skips_changes_needs_a_restart() {
    let master = Master::start(Duration::from_secs(5));
    let state = TenantState { events: BTreeSet::from(["E".to_owned()]), data: EncodedJson::null() };
    let set = || master.db.set_tenant_state(TENANT, &state).expect("set");
    let mut peer = master.raw_peer();
    let beat = |peer: &mut WebSocket<TcpStream>| {
        peer.send(Message::binary(ClientMessage::Heartbeat.encode())).expect("sent");
    };
    beat(&mut peer);
    let conn = master.wait_ready();
    // It reads at its start how much to log, or never.
    master.server.set_log_level(log::max_level());
    assert!(!conn.needs_restart());
    set();
    assert!(conn.needs_restart());
    // Anew, and told before it is known that it skips everything.
    let mut peer = master.raw_peer();
    peer.read().expect("Hello, and then it is known");
    set();
    beat(&mut peer);
    let conn = master.wait_ready();
    assert!(conn.needs_restart());
    // One of ours reads what it is told.
    let worker = Worker::start(&master);
    let conn = master.wait_ready();
    set();
    assert!(!conn.needs_restart());
    drop(worker);
}

#[test]
fn garbage_is_skipped_until_sixteen_in_a_row() {
    let master = Master::start(Duration::from_secs(5));
    let mut peer = master.raw_peer();
    let mut send = |bytes: &[u8]| peer.send(Message::binary(bytes.to_vec())).expect("sent");
    send(&ClientMessage::Heartbeat.encode());
    let conn = master.wait_ready();
    for _ in 0..100 {
        send(b"\x81\xa7Unknown\x90");
    }
    for _ in 0..2 {
        for _ in 0..15 {
            send(b"\xc1 garbage");
        }
        send(&ClientMessage::Heartbeat.encode());
    }
    assert!(!conn.is_closed());
    for _ in 0..16 {
        send(b"\xc1 garbage");
    }
    assert_eq!(master.wait_disconnected(), CloseCause::ClosedByUs(close_code::UNDECODABLE));
}

#[test]
fn an_answer_that_does_not_decode_ends_its_request_at_once() {
    let master = Master::start(Duration::from_secs(5));
    let mut peer = master.raw_peer();
    peer.send(Message::binary(ClientMessage::Heartbeat.encode())).expect("sent");
    let conn = master.wait_ready();
    for rest in [
        &b"\x81\xa2Ok\x81\xa7Integer\xcb\x40\x16\x00\x00\x00\x00\x00\x00"[..],
        b"\xc1",
        b"\x81\xa2Ok",
    ] {
        let (answer_tx, answer_rx) = unbounded();
        let answer = Answer::channel(answer_tx);
        let request = Request::new(TENANT, Job::Dispatch(named("E")), far(), answer);
        conn.submit(Request { id: RequestId(0x77), ..request });
        let answer = [&b"\x81\xb0DispatchResponse\x92\x77"[..], rest].concat();
        peer.send(Message::binary(answer)).expect("sent");
        let result = answer_rx.recv_timeout(DEADLINE).expect("an answer");
        assert!(
            matches!(&result, Err(DispatchError::OutcomeUnknown(text)) if text.contains("decode")),
            "{result:?}"
        );
    }
    assert!(!conn.is_closed());
}

#[test]
fn a_server_that_stops_while_workers_connect_joins_every_link() {
    for _ in 0..100 {
        let master = Master::start(Duration::from_secs(5));
        let url = master.url(&format!("id=0&token={}", master.token()));
        let socket = TcpStream::connect(master.server.local_addr()).expect("connect");
        // The peer may be shut out or get in; either way nothing may hang.
        let peer = std::thread::spawn(move || tungstenite::client::client(url, socket).is_ok());
        drop(master);
        peer.join().expect("the peer");
    }
}

/// The status that a handshake with this query is refused with.
fn refused_status(master: &Master, query: &str) -> u16 {
    let socket = TcpStream::connect(master.server.local_addr()).expect("connect");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    match tungstenite::client::client(master.url(query), socket) {
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            response.status().as_u16()
        }
        Ok(_) => 101,
        Err(error) => panic!("no HTTP answer: {error}"),
    }
}

#[test]
fn a_handshake_is_checked_in_the_order_of_the_protocol() {
    let master = Master::start(Duration::from_secs(5));
    let token = master.token();
    assert_eq!(token.len(), 64);
    let mut wrong = token.clone();
    wrong.replace_range(63.., if token.ends_with('a') { "b" } else { "a" });
    for (query, status) in [
        (String::new(), 400),
        (format!("id=x&token={token}"), 400),
        (format!("id=-1&token={token}"), 400),
        (format!("id=1&token={token}"), 404),
        ("id=1&token=wrong".to_owned(), 404),
        ("id=0".to_owned(), 401),
        (format!("id=0&token={wrong}"), 401),
        (format!("id=0&token={token}a"), 401),
        (format!("id=0&token={wrong}&workers=2"), 401),
        (format!("id=0&token={token}&workers=2"), 400),
        (format!("id=0&token={token}&workers=1"), 101),
        (format!("id=0&token={token}"), 101),
    ] {
        assert_eq!(refused_status(&master, &query), status, "{query}");
    }
}

#[test]
fn a_worker_that_is_refused_ends_and_says_why() {
    let master = Master::start(Duration::from_secs(5));
    let config = ClientConfig {
        master: master.server.local_addr().to_string().into(),
        worker_id: 0,
        workers: 2,
        token: master.token(),
        link_limits: LinkLimits::default(),
        sandbox: None,
        host: None,
        outbox: Outbox::default(),
    };
    let (runtime, _told) = StandInRuntime::new();
    let subscriptions = Arc::new(Subscriptions::new(BTreeSet::new()));
    let db = Arc::new(WorkerDb::direct(master.db.clone(), 0, 2, MessageDoor::default()));
    let worker = Arc::new(WorkerThread::new(0, Box::new(runtime), 1, subscriptions, db));
    let client = MesophyllClient::start(config, worker).expect("a client");
    let end = client.ended_rx().recv_timeout(DEADLINE).expect("it ends");
    assert!(
        matches!(&end, ClientEnd::Refused(why) if why.contains("400") && why.contains("1 workers")),
        "{end:?}"
    );
    client.stop();
}

#[test]
fn a_worker_says_which_tenants_have_a_vm() {
    let master = Master::start(Duration::from_secs(5));
    let worker = Worker::start(&master);
    let conn = master.wait_ready();
    let tenants = vec![TenantId::Guild(1), TenantId::User(1), TenantId::Guild(2)];
    let query = conn.query_vms(tenants.clone()).expect("it can be asked");
    assert_eq!(query.wait(Instant::now() + DEADLINE), Some(vec![true, false, true]));
    assert_eq!((conn.vm_queries(), conn.late_answers()), (0, 0));
    drop(worker);
    // The master may not know yet that it is gone, and ask in vain.
    let gone = conn.query_vms(tenants.clone());
    assert_eq!(gone.and_then(|query| query.wait(Instant::now() + DEADLINE)), None);
    // One of another make says nothing of the kind.
    let mut peer = master.raw_peer();
    peer.send(Message::binary(ClientMessage::Heartbeat.encode())).expect("sent");
    let conn = master.wait_ready();
    assert!(conn.query_vms(tenants.clone()).is_none());
    // An older one of ours neither.
    let ready = Ready { version: "older".to_owned(), ..Ready::default() };
    peer.send(Message::binary(ClientMessage::Ready(ready).encode())).expect("sent");
    peer.send(Message::binary(ClientMessage::Health(Health::default()).encode())).expect("sent");
    master.wait_for(|note| matches!(note, Note::Health).then_some(()));
    assert!(conn.query_vms(tenants).is_none());
}

#[test]
fn an_unanswered_query_ends_with_its_deadline_or_link() {
    let master = Master::start(DEADLINE);
    let mut peer = master.raw_peer();
    let ready = Ready { version: "ours".to_owned(), live_tenants: true, ..Ready::default() };
    peer.send(Message::binary(ClientMessage::Ready(ready).encode())).expect("sent");
    let conn = master.wait_ready();
    let ask = || conn.query_vms(vec![TENANT, TenantId::Guild(5)]).expect("it can be asked");
    let (late, wrong, failed, last) = (ask(), ask(), ask(), ask());
    let mut asked = || loop {
        match ServerMessage::decode(&next_message(&mut peer)) {
            Ok(Incoming::Message(ServerMessage::LiveTenants { req_id: request_id, ids })) => {
                assert_eq!(ids, [TENANT, TenantId::Guild(5)]);
                break request_id;
            }
            Ok(Incoming::Message(ServerMessage::Hello { .. })) => {}
            other => panic!("{other:?}"),
        }
    };
    let ids = [asked(), asked(), asked()];
    assert_eq!(conn.vm_queries(), 4);
    assert_eq!(late.wait(Instant::now()), None);
    assert_eq!((conn.vm_queries(), conn.in_flight()), (3, 0));
    let yes =
        |count| Ok(mesophyll::wire::pack::value::encode(&KhronosValue::Buffer(vec![1; count])));
    let mut answer = |request_id, result| {
        let message = ClientMessage::DispatchResponse { req_id: request_id, result };
        peer.send(Message::binary(message.encode())).expect("sent");
    };
    answer(ids[0], yes(2));
    answer(ids[1], yes(3));
    answer(ids[2], Err("script: no".to_owned()));
    assert_eq!(wrong.wait(Instant::now() + DEADLINE), None, "it was asked for two");
    assert_eq!(failed.wait(Instant::now() + DEADLINE), None);
    assert_eq!((conn.vm_queries(), conn.late_answers()), (1, 1));
    drop(peer);
    assert_eq!(last.wait(Instant::now() + DEADLINE), None);
    assert_eq!(conn.vm_queries(), 0);
}
