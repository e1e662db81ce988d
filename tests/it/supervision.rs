//! A supervised child that is any program: what it gets, what becomes of its end, and of dispatches
//! meanwhile.
//!
//! The children are shell one-liners, so no link ever comes up: a worker as broken as can be.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use mesophyll::base::error::DispatchError;
use mesophyll::base::limits;
use mesophyll::dispatch::worker_like::{WorkerLike, start};
use mesophyll::dispatch::{Answer, Job, Request};
use mesophyll::pool::process::supervisor::{Cause, Policy, State};
use mesophyll::pool::{
    ChildSpec, Managed, ProcessConfig, Program, RestartError, Spawner, WorkerProcessHandle,
};
use mesophyll::protocol::{MesophyllServer, ServerConfig};
use mesophyll::store::{DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::{CreateEvent, EncodedJson, EncodedValue, EventData, TenantId};
use mesophyll::wire::message::{ClientMessage, Incoming, RETIRE_EXTENSION, Ready, ServerMessage};

use rustix::process::Signal;
use tungstenite::{Message, WebSocket};

use crate::support::process::{eventually, is_gone, signal};
use crate::support::{DEADLINE, TempDir};

const TENANT: TenantId = TenantId::Guild(1);
const TOKEN: &str = "the token of this worker";

/// A master of one worker whose links last though the peers at their ends are silent: none of them
/// here beats its heart.
pub(crate) fn patient_server() -> ServerConfig {
    ServerConfig { heartbeat_interval: DEADLINE, ..ServerConfig::new(1) }
}

/// A policy that tries again at once.
pub(crate) fn hasty() -> Policy {
    Policy {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        ..Policy::default()
    }
}

/// How to start a program as a worker.
pub(crate) fn child(program: &str, args: &[&str]) -> ChildSpec {
    ChildSpec {
        program: Program::at(Path::new(program)),
        args: args.iter().map(Into::into).collect(),
        token: TOKEN.to_owned(),
        variables: Vec::new(),
        broker: None,
        is_hosted: false,
        memory: None,
        spawner: Spawner::start().expect("its threads"),
    }
}

/// A worker whose process runs this shell script, and a channel that tells of its changes.
fn worker(script: &str, policy: Policy) -> (Arc<WorkerProcessHandle>, Receiver<()>) {
    let child = child("/bin/sh", &["-c", script]);
    let (changes_tx, changes_rx) = unbounded();
    let config = ProcessConfig::new(3, Some(child), policy);
    let on_change = move || changes_tx.send(()).unwrap_or_default();
    (WorkerProcessHandle::start(config, on_change).expect("a loop"), changes_rx)
}

fn event() -> CreateEvent {
    CreateEvent { name: "E".to_owned(), author: None, data: EventData::Json(EncodedJson::null()) }
}

fn dispatch(worker: &WorkerProcessHandle, patience: Duration) -> DispatchError {
    worker
        .dispatch_event(TENANT, event(), Instant::now() + patience)
        .expect_err("nobody is there to answer")
}

fn wait_for(worker: &WorkerProcessHandle, changes_rx: &Receiver<()>, state: State) {
    while worker.report().state != state {
        changes_rx
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("never {state}: {:?}", worker.report()));
    }
}

fn pid(worker: &WorkerProcessHandle) -> u32 {
    eventually("the child runs", || worker.report().pid)
}

/// Reads a file that a child writes in one go.
pub(crate) fn read(path: &Path) -> String {
    eventually("the child has written its file", || {
        std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })
}

#[test]
fn a_child_gets_its_token_and_the_allow_list_and_nothing_else() {
    let folder = TempDir::new();
    let file = folder.path().join("environment");
    let script =
        format!("/usr/bin/env | sort > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let (worker, _changes_rx) = worker(&script, hasty());
    let text = read(&file);
    // What a shell sets by itself.
    let own = ["PWD", "SHLVL", "_", "OLDPWD"];
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let foreign = |name: &&str| {
        !own.contains(name) && !["PATH", "TZ", "LANG", "RUST_BACKTRACE"].contains(name)
    };
    assert_eq!(names.into_iter().filter(foreign).collect::<Vec<_>>(), ["MESOPHYLL_CLIENT_TOKEN"]);
    assert!(text.contains(&format!("MESOPHYLL_CLIENT_TOKEN={TOKEN}\n")));
    worker.kill();
}

#[test]
fn a_child_that_keeps_ending_makes_the_worker_failed() {
    let folder = TempDir::new();
    let file = folder.path().join("starts");
    let (worker, changes_rx) =
        worker(&format!("echo start >> {}; exit 7", file.display()), hasty());
    wait_for(&worker, &changes_rx, State::Failed);
    let report = worker.report();
    assert_eq!(std::fs::read_to_string(&file).expect("a file").lines().count(), 5);
    assert_eq!(
        (report.restarts.total(), report.last_exit.as_deref(), report.pid),
        (4, Some("exit code 7"), None)
    );
    let before = Instant::now();
    assert!(matches!(dispatch(&worker, DEADLINE), DispatchError::NoWorker(_)));
    let nowait = worker.dispatch_event_nowait(TENANT, event(), before + DEADLINE);
    assert!(matches!(nowait, Err(DispatchError::NoWorker(_))));
    assert!(before.elapsed() < DEADLINE / 2, "it fails at once, not at its deadline");
}

#[test]
fn a_program_that_cannot_be_started_is_a_failure_like_any_other() {
    let child = child("/nowhere/mesophyll", &[]);
    let (changes_tx, changes_rx) = unbounded();
    let config = ProcessConfig::new(0, Some(child), hasty());
    let worker =
        WorkerProcessHandle::start(config, move || changes_tx.send(()).unwrap_or_default())
            .expect("a loop");
    wait_for(&worker, &changes_rx, State::Failed);
    let last_exit = worker.report().last_exit.expect("a reason");
    assert!(last_exit.starts_with("could not be started: "), "{last_exit}");
    assert!(!format!("{:?}", worker.report()).contains(TOKEN));
}

#[test]
fn what_waits_when_a_worker_fails_for_good_fails_with_it() {
    let folder = TempDir::new();
    let gate = folder.path().join("gate");
    // The last start waits until the dispatch below waits, too.
    let script = format!("read line < {}; exit 1", gate.display());
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo").success());
    let policy = Policy { failures_in_window: 1, ..hasty() };
    let (worker, changes_rx) = worker(&script, policy);
    let pending = start(&*worker, TENANT, Job::Dispatch(event()), Instant::now() + DEADLINE);
    assert_eq!(worker.report().waiting, 1);
    std::fs::write(&gate, "go\n").expect("the child reads");
    assert!(matches!(pending.wait(), Err(DispatchError::NoWorker(_))));
    wait_for(&worker, &changes_rx, State::Failed);
}

#[test]
fn a_kill_ends_and_reaps_the_child_for_good() {
    let (worker, _changes_rx) = worker("exec sleep 600", hasty());
    let pid = pid(&worker);
    worker.kill();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "not even a zombie is left");
    let report = worker.report();
    assert_eq!((report.state, report.pid, report.restarts.total()), (State::Stopped, None, 0));
    assert!(matches!(dispatch(&worker, DEADLINE), DispatchError::NoWorker(_)));
    worker.kill();
}

#[test]
fn a_panic_of_the_supervision_leaves_no_child() {
    let folder = TempDir::new();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 600", file.display());
    let (changes_tx, changes_rx) = unbounded();
    let has_panicked = AtomicBool::new(false);
    let config = ProcessConfig::new(0, Some(child("/bin/sh", &["-c", &script])), hasty());
    let pid_file = file.clone();
    let on_change = move || {
        // Called by the supervision loop; the first time when its child runs.
        if !has_panicked.swap(true, Ordering::SeqCst) {
            read(&pid_file);
            panic!("on purpose");
        }
        changes_tx.send(()).unwrap_or_default();
    };
    let worker = WorkerProcessHandle::start(config, on_change).expect("a loop");
    let pending = start(&*worker, TENANT, Job::Dispatch(event()), Instant::now() + DEADLINE);
    wait_for(&worker, &changes_rx, State::Failed);
    assert!(matches!(pending.wait(), Err(DispatchError::NoWorker(_))), "what waited is answered");
    assert!(matches!(dispatch(&worker, DEADLINE), DispatchError::NoWorker(_)));
    let pid: u32 = read(&file).trim().parse().expect("a pid");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "not even a zombie is left");
    assert_eq!(worker.report().pid, None);
    worker.kill();
}

#[test]
fn dropping_the_handle_ends_the_child() {
    let (worker, _changes_rx) = worker("exec sleep 600", hasty());
    let pid = pid(&worker);
    drop(worker);
    assert!(is_gone(pid));
}

#[test]
fn a_child_that_ignores_term_is_killed_after_its_grace() {
    let folder = TempDir::new();
    let file = folder.path().join("ready");
    // It waits for the end of its stdin, which the supervisor holds open.
    let script = format!("trap '' TERM; echo ready > {}; read nothing", file.display());
    let policy = Policy { term_grace: Duration::from_millis(200), ..hasty() };
    let (worker, _changes_rx) = worker(&script, policy);
    read(&file);
    let pid = pid(&worker);
    assert!(worker.stop(Instant::now(), Instant::now() + DEADLINE));
    assert!(is_gone(pid));
    assert_eq!(worker.report().last_exit.as_deref(), Some("killed by signal 9"));
}

#[test]
fn a_childs_leftovers_hold_up_no_end_and_no_start() {
    let folder = TempDir::new();
    let file = folder.path().join("left");
    // The process that is left behind holds the child's stdout, stderr and stdin.
    let script = format!("sleep 600 & echo $! >> {}; exit 1", file.display());
    let (worker, changes_rx) = worker(&script, hasty());
    wait_for(&worker, &changes_rx, State::Failed);
    let left = std::fs::read_to_string(&file).expect("a file");
    let left: Vec<u32> = left.lines().map(|pid| pid.parse().expect("a pid")).collect();
    let running = left.iter().filter(|pid| !is_gone(**pid)).count();
    left.iter().for_each(|pid| signal(*pid, Signal::KILL));
    assert_eq!((left.len(), running), (5, 5), "they ran all the time");
    let before = Instant::now();
    drop(worker);
    assert!(before.elapsed() < DEADLINE / 2);
}

#[test]
fn a_child_that_obeys_term_ends_in_its_own_way() {
    let folder = TempDir::new();
    let file = folder.path().join("ready");
    let script = format!("trap 'exit 5' TERM; echo ready > {}; read nothing", file.display());
    let (worker, _changes_rx) = worker(&script, Policy { term_grace: DEADLINE, ..hasty() });
    read(&file);
    assert!(worker.stop(Instant::now(), Instant::now() + DEADLINE));
    assert_eq!(worker.report().last_exit.as_deref(), Some("exit code 5"));
}

#[test]
fn a_child_that_never_connects_is_ended_and_started_again() {
    let policy = Policy { boot_timeout: Duration::from_millis(100), ..hasty() };
    let (worker, changes_rx) = worker("exec sleep 600", policy);
    wait_for(&worker, &changes_rx, State::Failed);
    let report = worker.report();
    assert_eq!(report.restarts.total(), 4);
    assert_eq!(report.last_exit.as_deref(), Some("killed by signal 15 (it was not ready in time)"));
}

#[test]
fn a_dispatch_for_an_absent_worker_ends_unsent() {
    let (worker, _changes_rx) = worker("exec sleep 600", Policy::default());
    let before = Instant::now();
    let error = dispatch(&worker, Duration::from_millis(300));
    assert!(matches!(error, DispatchError::NoWorker(_)) && !error.sent(), "{error}");
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(worker.report().waiting, 0, "nothing of it is kept");
    worker.kill();
}

#[test]
fn an_event_that_nobody_waits_for_is_forgotten_at_its_deadline() {
    let (worker, _changes_rx) = worker("exec sleep 600", Policy::default());
    let deadline = Instant::now() + Duration::from_millis(500);
    worker.dispatch_event_nowait(TENANT, event(), deadline).expect("it waits");
    let waiting = worker.report().waiting;
    assert!(waiting == 1 || Instant::now() >= deadline, "{waiting} before its deadline");
    eventually("it is forgotten", || (worker.report().waiting == 0).then_some(()));
    assert!(Instant::now() >= deadline, "not before its deadline");
    worker.kill();
}

#[test]
fn more_dispatches_than_may_wait_for_a_worker_are_busy_at_once() {
    let (worker, _changes_rx) = worker("exec sleep 600", Policy::default());
    let deadline = Instant::now() + DEADLINE;
    let taken = |tenant| {
        let is_taken = |_: &_| worker.dispatch_event_nowait(tenant, event(), deadline).is_ok();
        (0..limits::WAITING_FOR_WORKER_MAX).take_while(is_taken).count()
    };
    let half = limits::WAITING_FOR_WORKER_MAX / 2;
    assert!((half - 10..=half).contains(&taken(TENANT)), "a half of the room is left to others");
    assert!(taken(TenantId::Guild(7)) > half / 3);
    assert!(matches!(dispatch(&worker, DEADLINE), DispatchError::Busy(_)));
    let nowait = worker.dispatch_event_nowait(TENANT, event(), deadline);
    assert!(matches!(nowait, Err(DispatchError::Busy(_))));
    worker.kill();
}

#[test]
fn bytes_that_wait_for_a_worker_are_bounded_too() {
    let (worker, _changes_rx) = worker("exec sleep 600", Policy::default());
    let large = EventData::RawValue("x".repeat(limits::MESSAGE_MAX_BYTES - 1024));
    let deadline = Instant::now() + DEADLINE;
    let event = || CreateEvent { name: "E".to_owned(), author: None, data: large.clone() };
    let taken = (0..100)
        .take_while(|_| worker.dispatch_event_nowait(TENANT, event(), deadline).is_ok())
        .count();
    assert_eq!(taken, limits::WAITING_FOR_WORKER_BYTES / 2 / limits::MESSAGE_MAX_BYTES);
    let nowait = worker.dispatch_event_nowait(TENANT, event(), deadline);
    assert!(matches!(nowait, Err(DispatchError::Busy(_))));
    let other = CreateEvent {
        name: "E".to_owned(),
        author: None,
        data: EventData::RawValue("x".repeat(1 << 20)),
    };
    worker
        .dispatch_event_nowait(TenantId::Guild(7), other, deadline)
        .expect("room for another tenant");
    worker.kill();
}

/// A worker that somebody else starts, behind a server of its own.
struct External {
    server: MesophyllServer,
    worker: Arc<WorkerProcessHandle>,
}

impl External {
    fn new() -> Self {
        let store = mesophyll::store::open(&StoreUrl::Memory).expect("a store");
        let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = MesophyllServer::new(listener, db, patient_server()).expect("a server");
        let config = ProcessConfig::new(0, None, Policy::default());
        let worker = WorkerProcessHandle::start(config, || {}).expect("a loop");
        server.observe(0, &worker.observer());
        Self { server, worker }
    }

    /// A peer that is ready.
    fn peer(&self) -> WebSocket<TcpStream> {
        self.peer_saying(&ClientMessage::Heartbeat)
    }

    fn peer_saying(&self, first: &ClientMessage) -> WebSocket<TcpStream> {
        let socket = TcpStream::connect(self.server.local_addr()).expect("connect");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let token = self.server.get_token_for_worker(0).expect("a token");
        let url = format!("ws://{}/ws?id=0&token={token}", self.server.local_addr());
        let mut peer = tungstenite::client::client(url, socket).expect("a handshake").0;
        peer.send(Message::binary(first.encode())).expect("sent");
        peer
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.worker.kill();
        self.server.shutdown(Instant::now() + DEADLINE);
    }
}

#[test]
fn an_answer_to_what_has_waited_may_ask_the_worker_again() {
    let external = External::new();
    let (again_tx, again_rx) = unbounded();
    let asks = external.worker.clone();
    let answer = Answer::callback(move |result| {
        let in_flight = asks.report().waiting;
        again_tx.send((result, in_flight)).unwrap_or_default();
    });
    let mut large = event();
    large.data = EventData::RawValue("x".repeat(limits::MESSAGE_MAX_BYTES));
    let (job, deadline) = (Job::Dispatch(large), Instant::now() + DEADLINE);
    external.worker.submit(Request::new(TENANT, job, deadline, answer));
    let _peer = external.peer();
    let (result, waiting) = again_rx.recv_timeout(DEADLINE).expect("no lock is held");
    assert!(matches!(result, Err(DispatchError::TooLarge { .. })), "{result:?}");
    assert_eq!(waiting, 0);
}

#[test]
fn a_link_that_comes_up_takes_all_that_has_waited() {
    let external = External::new();
    let until = Instant::now() + DEADLINE;
    let mut taken = 0_usize;
    let large = EventData::RawValue("x".repeat(1024 * 1024));
    let event =
        |name: usize| CreateEvent { name: name.to_string(), author: None, data: large.clone() };
    while external.worker.dispatch_event_nowait(TENANT, event(taken), until).is_ok() {
        taken += 1;
    }
    assert!(taken > 10, "{taken}");
    let mut peer = external.peer();
    let mut next = 0;
    while next < taken {
        let message = peer.read().expect("a frame").into_data();
        if let Ok(Incoming::Message(ServerMessage::DispatchEvent { event, .. })) =
            ServerMessage::decode(&message)
        {
            assert_eq!(event.name, next.to_string());
            next += 1;
        }
    }
}

/// The next message that is none of the beats.
fn next(peer: &mut WebSocket<TcpStream>) -> ServerMessage {
    loop {
        let message = peer.read().expect("a frame").into_data();
        match ServerMessage::decode(&message) {
            Ok(Incoming::Message(ServerMessage::Hello { .. })) | Err(_) => {}
            Ok(Incoming::Message(message)) => return message,
            Ok(Incoming::Unknown(name)) => panic!("{name}"),
        }
    }
}

#[test]
fn an_external_worker_is_restarted_by_being_told_to_end() {
    let external = External::new();
    let ready = |extensions: &[&str]| {
        let extensions = extensions.iter().map(|name| (*name).to_owned()).collect();
        ClientMessage::Ready(Ready { extensions, ..Ready::default() })
    };
    let worker = &external.worker;
    let is_ready = || (worker.report().state == State::Ready).then_some(());
    let older = external.peer_saying(&ready(&[]));
    eventually("it is ready", is_ready);
    assert_eq!(worker.restart(Cause::Rolling), Err(RestartError::External));
    drop(older);
    eventually("it is away", || (worker.report().state == State::Starting).then_some(()));
    assert_eq!(worker.restart(Cause::Rolling), Err(RestartError::External));

    let mut peer = external.peer_saying(&ready(&[RETIRE_EXTENSION]));
    eventually("it is ready", is_ready);
    let until = Instant::now() + DEADLINE;
    let first = start(&**worker, TENANT, Job::Dispatch(event()), until);
    let ServerMessage::DispatchEvent { req_id: Some(req_id), .. } = next(&mut peer) else {
        panic!("an event")
    };
    let restarts = worker.restart(Cause::Rolling).expect("it ends when it is told to");
    assert_eq!(worker.report().state, State::Draining);
    // What comes now is the next one's.
    let second = start(&**worker, TENANT, Job::Dispatch(event()), until);
    let null = EncodedValue::null;
    let answer = ClientMessage::DispatchResponse { req_id, result: Ok(null()) };
    peer.send(Message::binary(answer.encode())).expect("sent");
    assert_eq!(next(&mut peer), ServerMessage::Retire);
    assert!(peer.read().is_ok_and(|message| message.is_close()));
    assert_eq!(first.wait(), Ok(null()));
    let mut again = external.peer_saying(&ready(&[RETIRE_EXTENSION]));
    worker.wait_until_restarted(restarts, until).expect("it is ready again");
    let ServerMessage::DispatchEvent { req_id: Some(req_id), .. } = next(&mut again) else {
        panic!("an event")
    };
    let answer = ClientMessage::DispatchResponse { req_id, result: Ok(null()) };
    again.send(Message::binary(answer.encode())).expect("sent");
    assert_eq!(second.wait(), Ok(null()));
}
