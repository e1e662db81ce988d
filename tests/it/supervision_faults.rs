//! Workers that hang, flap, fall silent or die in the middle: what their supervision makes of it.
//!
//! Each worker is two things here: a process that is ours to signal (a shell one-liner), and a link
//! that the test itself holds, so that it can say whatever a broken worker might.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use mesophyll::base::error::DispatchError;
use mesophyll::dispatch::Job;
use mesophyll::dispatch::worker_like::{WorkerLike, start};
use mesophyll::pool::process::supervisor::{Cause, Policy, State};
use mesophyll::pool::{
    Managed, ProcessConfig, Quarantine, Recycle, RestartError, WorkerProcessHandle, WorkerReport,
};
use mesophyll::protocol::{MesophyllServer, ServerConfig};
use mesophyll::store::{DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::{CreateEvent, EncodedJson, EncodedValue, EventData, TenantId};
use mesophyll::wire::message::{
    ClientMessage, FinishedEvents, Health, Incoming, NOWAIT_EXTENSION, Ready, ServerMessage,
};
use rustix::process::Signal;
use tungstenite::{Message, WebSocket};

use crate::supervision::{child, hasty, patient_server, read};
use crate::support::process::{eventually, is_gone, signal};
use crate::support::{DEADLINE, TempDir};

const CULPRIT: TenantId = TenantId::Guild(1);
const NEIGHBOUR: TenantId = TenantId::Guild(2);

/// A worker whose process is a `sleep`, with everything around it.
struct Broken {
    server: MesophyllServer,
    worker: Arc<WorkerProcessHandle>,
    quarantine: Arc<Quarantine>,
    changes_rx: Receiver<()>,
}

impl Broken {
    fn new(policy: Policy) -> Self {
        Self::with(policy, Recycle::default(), patient_server())
    }

    fn with(policy: Policy, recycle: Recycle, server: ServerConfig) -> Self {
        Self::of("exec sleep 600", policy, recycle, server)
    }

    fn of(script: &str, policy: Policy, recycle: Recycle, server: ServerConfig) -> Self {
        let store = mesophyll::store::open(&StoreUrl::Memory).expect("a store");
        let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = MesophyllServer::new(listener, db, server).expect("a server");
        let quarantine = Arc::new(Quarantine::default());
        let (changes_tx, changes_rx) = unbounded();
        let config = ProcessConfig {
            worker_id: 0,
            child: Some(child("/bin/sh", &["-c", script])),
            policy,
            recycle,
            quarantine: quarantine.clone(),
            feeds: None,
        };
        let on_change = move || changes_tx.send(()).unwrap_or_default();
        let worker = WorkerProcessHandle::start(config, on_change).expect("a loop");
        server.observe(0, &worker.observer());
        Self { server, worker, quarantine, changes_rx }
    }

    /// Waits until the worker is as wanted.
    fn wait(&self, what: &str, is_so: impl Fn(&WorkerReport) -> bool) -> WorkerReport {
        loop {
            let report = self.worker.report();
            if is_so(&report) {
                return report;
            }
            self.changes_rx
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|_| panic!("never {what}: {report:?}"));
        }
    }

    /// A link for the process that runs, and the process.
    fn connect(&self) -> (Peer, u32) {
        let (peer, pid) = self.link();
        self.wait("ready", |report| report.state == State::Ready);
        (peer, pid)
    }

    /// As [`Broken::connect`], where the worker need not stay ready until somebody looks.
    fn link(&self) -> (Peer, u32) {
        let pid = self
            .wait("started", |report| report.state == State::Starting && report.pid.is_some())
            .pid;
        let socket = TcpStream::connect(self.server.local_addr()).expect("connect");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let token = self.server.get_token_for_worker(0).expect("a token");
        let url = format!("ws://{}/ws?id=0&token={token}", self.server.local_addr());
        let mut peer = Peer(tungstenite::client::client(url, socket).expect("a handshake").0);
        let extensions = vec![NOWAIT_EXTENSION.to_owned()];
        peer.say(&ClientMessage::Ready(Ready { extensions, ..Ready::default() }));
        (peer, pid.expect("it runs"))
    }

    /// Puts events of these tenants in flight: each has reached the worker, and none is answered.
    fn in_flight(&self, peer: &mut Peer, tenants: &[TenantId]) {
        for tenant in tenants {
            self.worker
                .dispatch_event_nowait(*tenant, event("RUNS"), Instant::now() + DEADLINE)
                .expect("sent");
            peer.next_dispatch();
        }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.worker.kill();
        self.server.shutdown(Instant::now() + DEADLINE);
    }
}

/// The worker's end of a link.
struct Peer(WebSocket<TcpStream>);

impl Peer {
    fn say(&mut self, message: &ClientMessage) {
        self.0.send(Message::binary(message.encode())).expect("sent");
    }

    fn next_dispatch(&mut self) -> (TenantId, String, Option<u64>) {
        loop {
            let message = self.0.read().expect("a frame").into_data();
            if let Ok(Incoming::Message(ServerMessage::DispatchEvent {
                id,
                event,
                req_id: request_id,
            })) = ServerMessage::decode(&message)
            {
                return (id, event.name, request_id);
            }
        }
    }

    fn answer(&mut self, request_id: Option<u64>) {
        self.say(&ClientMessage::DispatchResponse {
            req_id: request_id.expect("one that is waited for"),
            result: Ok(EncodedValue::null()),
        });
    }

    /// Waits until the master has ended the link.
    fn wait_closed(mut self) {
        while self.0.read().is_ok() {}
    }
}

fn event(name: &str) -> CreateEvent {
    CreateEvent { name: name.to_owned(), author: None, data: EventData::Json(EncodedJson::null()) }
}

fn hanging(ms: u64) -> ClientMessage {
    let longest = Some((CULPRIT, "LOOP".to_owned(), ms));
    ClientMessage::Health(Health { stalest_executor_ms: ms, longest, ..Health::default() })
}

#[test]
fn a_hung_executor_ends_its_worker_and_blames_the_tenant() {
    let broken = Broken::new(hasty());
    for round in 1..=3 {
        let (mut peer, pid) = broken.connect();
        broken.in_flight(&mut peer, &[CULPRIT, NEIGHBOUR]);
        peer.say(&hanging(29_999));
        peer.say(&hanging(31_000));
        let report = broken.wait("restarted", |report| report.restarts.total() == round);
        assert!(is_gone(pid));
        let expected = "killed by signal 15 (an executor has not come back to its loop for 31 s; it has been running LOOP of \
                        guild:1 for 31 s)";
        assert_eq!(report.last_exit.as_deref(), Some(expected));
        assert_eq!(broken.quarantine.holds(CULPRIT), round == 3);
        peer.0.close(None).unwrap_or_default();
    }
    assert!(!broken.quarantine.holds(NEIGHBOUR), "only who it hung in is to blame");
}

#[test]
fn a_worker_that_hangs_in_its_drain_is_not_waited_for() {
    let broken = Broken::new(Policy { drain_timeout: DEADLINE, ..hasty() });
    for round in 1..=3 {
        let (mut peer, pid) = broken.connect();
        broken.in_flight(&mut peer, &[CULPRIT, NEIGHBOUR]);
        let restarts = broken.worker.restart(Cause::Operator).expect("it is restarted");
        broken.wait("draining", |report| report.state == State::Draining);
        assert!(!broken.quarantine.holds(CULPRIT));
        let said = Instant::now();
        peer.say(&hanging(31_000));
        broken.wait("restarted", |report| report.restarts.total() == restarts + 1);
        assert!(is_gone(pid) && said.elapsed() < DEADLINE / 2, "it was waited for");
        assert_eq!(broken.quarantine.holds(CULPRIT), round == 3);
    }
    assert!(!broken.quarantine.holds(NEIGHBOUR), "only who it hung in is to blame");
}

#[test]
fn a_tenant_in_flight_at_three_deaths_is_quarantined() {
    let broken = Broken::new(hasty());
    let mut waits = None;
    for round in 1..=3 {
        let (mut peer, pid) = broken.connect();
        let tenants = if round == 2 { vec![CULPRIT] } else { vec![NEIGHBOUR, CULPRIT] };
        broken.in_flight(&mut peer, &tenants);
        assert!(!broken.quarantine.holds(CULPRIT));
        if round == 3 {
            // With its link away, one more of its events waits for the worker when that dies for
            // the last time.
            peer.0.get_ref().shutdown(std::net::Shutdown::Both).expect("open");
            broken.wait("away", |report| report.state == State::Starting);
            waits = Some(start(
                &*broken.worker,
                CULPRIT,
                Job::Dispatch(event("MORE")),
                Instant::now() + DEADLINE,
            ));
            assert_eq!(broken.worker.report().waiting, 1);
        }
        signal(pid, Signal::KILL);
        broken.wait("restarted", |report| report.restarts.total() == round);
    }
    assert_eq!(waits.expect("it was started").wait(), Err(DispatchError::Quarantined));
    let list = broken.quarantine.list();
    assert_eq!(list.iter().map(|(tenant, _)| *tenant).collect::<Vec<_>>(), [CULPRIT]);
    assert!(
        list[0].1.reason.contains("worker 0") && list[0].1.reason.contains("signal 9"),
        "{list:?}"
    );
}

#[test]
fn kills_and_restarts_by_operators_are_held_against_nobody() {
    let broken = Broken::new(Policy { drain_timeout: Duration::from_millis(50), ..hasty() });
    for round in 1..=4 {
        let (mut peer, pid) = broken.connect();
        broken.in_flight(&mut peer, &[CULPRIT]);
        if round % 2 == 0 {
            broken.worker.kill_until_restart().expect("it is killed");
            assert!(is_gone(pid));
        }
        broken.worker.restart(Cause::Operator).expect("it is restarted");
        broken.wait("restarted", |report| report.restarts.total() == round);
    }
    assert_eq!(broken.quarantine.list(), []);
}

#[test]
fn an_unsteady_link_of_a_live_process_fails_the_worker() {
    let broken = Broken::new(hasty());
    let mut links = 0;
    while broken.worker.report().state != State::Failed {
        let (peer, pid) = broken.connect();
        links += 1;
        drop(peer);
        broken.wait("noticed", |report| report.state != State::Ready);
        if broken.worker.report().pid != Some(pid) || links % 5 == 0 {
            broken.wait("ended", |report| report.pid != Some(pid));
            broken.wait("starting or failed", |report| {
                matches!(report.state, State::Starting | State::Failed)
            });
        }
    }
    assert_eq!((links, broken.worker.report().restarts.total()), (25, 4));
    let last_exit = broken.worker.report().last_exit.expect("it ended");
    assert!(last_exit.contains("its link was lost 5 times"), "{last_exit}");
    // An operator gives it another chance.
    broken.worker.restart(Cause::Operator).expect("it is restarted");
    let (mut peer, _) = broken.connect();
    broken.in_flight(&mut peer, &[NEIGHBOUR]);
}

#[test]
fn a_process_that_lives_but_is_silent_is_ended() {
    let server =
        ServerConfig { heartbeat_interval: Duration::from_millis(500), ..ServerConfig::new(1) };
    let broken = Broken::with(hasty(), Recycle::default(), server);
    // It waits for the link, so that it is sent as soon as that is up, however soon this thread may
    // look.
    broken
        .worker
        .dispatch_event_nowait(CULPRIT, event("RUNS"), Instant::now() + DEADLINE)
        .expect("it waits");
    let (mut peer, pid) = broken.link();
    peer.next_dispatch();
    let report = broken.wait("restarted", |report| report.restarts.total() == 1);
    assert!(is_gone(pid));
    assert_eq!(report.last_exit.as_deref(), Some("killed by signal 15 (it missed its heartbeats)"));
    peer.wait_closed();
}

#[test]
fn a_restart_finishes_events_and_lets_new_ones_wait() {
    let broken = Broken::new(hasty());
    let (mut old, pid) = broken.connect();
    let by = Instant::now() + DEADLINE;
    let first = start(&*broken.worker, CULPRIT, Job::Dispatch(event("FIRST")), by);
    let (_, name, request_id) = old.next_dispatch();
    assert_eq!(name, "FIRST");
    broken.in_flight(&mut old, &[CULPRIT, NEIGHBOUR]);
    let restarts = broken.worker.restart(Cause::Rolling).expect("it is restarted");
    broken.wait("draining", |report| report.state == State::Draining);
    let second = start(&*broken.worker, CULPRIT, Job::Dispatch(event("SECOND")), by);
    broken.worker.dispatch_event_nowait(CULPRIT, event("THIRD"), by).expect("it waits");
    assert_eq!((broken.worker.report().waiting, broken.worker.report().in_flight), (2, 3));
    assert!(!is_gone(pid), "it is not ended before it has answered");
    old.answer(request_id);
    assert_eq!(first.wait(), Ok(EncodedValue::null()));
    let finished = |tenant| FinishedEvents { tenant, ok: 1, failed: 0, busy: 0 };
    old.say(&ClientMessage::Finished(vec![finished(CULPRIT)]));
    let still = broken.worker.report();
    assert!((1..=2).contains(&still.in_flight) && still.state == State::Draining, "{still:?}");
    assert!(!is_gone(pid), "nor before it has told of every event");
    old.say(&ClientMessage::Finished(vec![finished(NEIGHBOUR)]));
    broken.wait("restarted", |report| report.restarts.total() == 1);
    assert!(is_gone(pid));
    let (mut new, _) = broken.connect();
    let (_, name, request_id) = new.next_dispatch();
    assert_eq!(name, "SECOND");
    new.answer(request_id);
    assert_eq!(second.wait(), Ok(EncodedValue::null()));
    assert_eq!(new.next_dispatch().1, "THIRD");
    broken.worker.wait_until_restarted(restarts, by).expect("it is ready");
    assert_eq!(
        broken.worker.report().last_exit.as_deref(),
        Some("killed by signal 15 (rolling restart)")
    );
    old.wait_closed();
}

#[test]
fn a_restart_whose_new_process_fails_is_told() {
    let folder = TempDir::new();
    let file = folder.path().join("broken");
    let script = format!("[ ! -e {} ] || exit 7; exec sleep 600", file.display());
    let broken = Broken::of(&script, hasty(), Recycle::default(), patient_server());
    let (_peer, _) = broken.connect();
    // From now on no process of it gets anywhere.
    std::fs::write(&file, "").expect("a file");
    let restarts = broken.worker.restart(Cause::Rolling).expect("it is restarted");
    let error = broken
        .worker
        .wait_until_restarted(restarts, Instant::now() + DEADLINE)
        .expect_err("it is not ready");
    assert!(
        matches!(&error, RestartError::NotReady(text) if text.ends_with("its last process: exit code 7")),
        "{error}"
    );
}

#[test]
fn a_restart_is_refused_once_the_worker_ends_for_good() {
    let broken = Broken::new(hasty());
    let (_peer, pid) = broken.connect();
    assert!(broken.worker.stop(Instant::now(), Instant::now() + DEADLINE));
    assert!(is_gone(pid));
    assert_eq!(broken.worker.restart(Cause::Operator), Err(RestartError::Ending));
    assert_eq!(broken.worker.kill_until_restart(), Err(RestartError::Ending));
}

#[test]
fn a_worker_is_recycled_by_events_memory_and_age() {
    let health = |events, memory_bytes| {
        ClientMessage::Health(Health { events, memory_bytes, ..Health::default() })
    };
    let by_events = Recycle { events: Some(1000), ..Recycle::default() };
    let by_memory = Recycle { memory_bytes: Some(1 << 30), ..Recycle::default() };
    for (recycle, well, due, reason) in [
        (by_events, health(899, 1 << 40), health(1101, 0), "(recycled after 1101 events)"),
        (
            by_memory,
            health(1 << 40, 1 << 29),
            health(0, 2 << 30),
            "(recycled at 2048 MiB of memory)",
        ),
    ] {
        let broken = Broken::with(hasty(), recycle, patient_server());
        let (mut peer, _) = broken.connect();
        peer.say(&well);
        eventually("its health is known", || broken.worker.report().health.map(drop));
        assert_eq!(broken.worker.report().state, State::Ready);
        peer.say(&due);
        let report = broken.wait("recycled", |report| report.restarts.total() == 1);
        assert!(
            report.last_exit.as_deref().is_some_and(|exit| exit.ends_with(reason)),
            "{report:?}"
        );
    }
    let by_age = Recycle { age: Some(Duration::from_millis(300)), ..Recycle::default() };
    let begun = Instant::now();
    let broken = Broken::with(hasty(), by_age, patient_server());
    let (_peer, _) = broken.link();
    let report = broken.wait("recycled", |report| report.restarts.total() == 1);
    let exit = report.last_exit.as_deref().expect("it ended");
    let age = exit
        .split_once("(recycled after ")
        .and_then(|(_, age)| age.strip_suffix(" s)")?.parse::<u64>().ok());
    assert!(age.is_some_and(|age| age <= begun.elapsed().as_secs()), "{report:?}");
}

#[test]
fn a_worker_that_ignores_term_does_not_hold_up_its_restart() {
    let policy = Policy { term_grace: Duration::from_millis(200), ..hasty() };
    let folder = TempDir::new();
    let file = folder.path().join("ready");
    // It waits for the end of its stdin, which the supervisor holds open. The link does not tell
    // that the shell is as far as that.
    let script = format!("trap '' TERM; echo ready > {}; read nothing", file.display());
    let broken = Broken::of(&script, policy, Recycle::default(), patient_server());
    let (_peer, pid) = broken.connect();
    read(&file);
    let restarts = broken.worker.restart(Cause::Rolling).expect("it is restarted");
    let report = broken.wait("restarted", |report| report.restarts.total() == restarts + 1);
    assert!(is_gone(pid));
    assert_eq!(report.last_exit.as_deref(), Some("killed by signal 9 (rolling restart)"));
}

#[test]
fn a_worker_killed_while_it_starts_stays_away() {
    let broken = Broken::new(hasty());
    let starting = |report: &WorkerReport| report.state == State::Starting && report.pid.is_some();
    let pid = broken.wait("started", starting).pid.expect("it runs");
    broken.worker.kill_until_restart().expect("it is killed");
    assert!(is_gone(pid));
    assert_eq!(
        (broken.worker.report().state, broken.worker.report().restarts.total()),
        (State::Stopped, 0)
    );
    broken.worker.restart(Cause::Operator).expect("it is restarted");
    let pid = broken.wait("started again", starting).pid.expect("it runs");
    assert!(
        broken.worker.stop(Instant::now() + DEADLINE, Instant::now() + DEADLINE),
        "nothing is in flight: no drain"
    );
    assert!(is_gone(pid));
}

#[test]
fn a_worker_that_failed_is_waited_for_when_it_is_restarted() {
    let broken = Broken::new(Policy { failures_in_window: 1, ..hasty() });
    for _ in 0..20 {
        let (_peer, pid) = broken.connect();
        signal(pid, Signal::KILL);
        broken.wait("failed", |report| report.state == State::Failed);
        let restarts = broken.worker.restart(Cause::Operator).expect("it is restarted");
        // It is neither ready yet, nor failed any more.
        let at_once = broken.worker.wait_until_restarted(restarts, Instant::now());
        assert!(
            matches!(&at_once, Err(RestartError::NotReady(text)) if text.contains("is starting")),
            "{at_once:?}"
        );
        let (_peer, _) = broken.connect();
        broken
            .worker
            .wait_until_restarted(restarts, Instant::now() + DEADLINE)
            .expect("it is ready");
        broken.worker.kill_until_restart().expect("it is killed");
        broken.worker.restart(Cause::Operator).expect("it is restarted");
    }
}
