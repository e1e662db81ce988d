//! A worker in a process of its own (or somebody else's), with one supervision loop (`super-I`).
//!
//! The loop feeds the state machine in `supervisor` with what happened to the child and its link, and carries out what
//! it decides. It is the one thread that spawns the child, and it lives as long as the handle. Dispatches do not pass
//! through it: they take the [`Router`] straight to the link.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::error::DispatchError;
use crate::link::{CloseCause, close_code};
use crate::mesophyll::{LinkObserver, MesophyllServerConn};
use crate::model::{Answer, Cancelled, CreateEvent, Job, TenantId, Ticket};
use crate::random;
use crate::thread::{self, OwnedThread, ThreadExit};
use crate::wire::message::Health;
use crate::worker_like::WorkerLike;

use super::child::{Child, ChildSpec, describe};
use super::route::Router;
use super::supervisor::{Action, Event, Kind, Policy, State, Supervisor};

/// Limit: notes waiting for the loop. There are a handful for each connection and child; a link whose note finds no room
/// is closed, and its worker connects again.
const NOTES_MAX: usize = 1024;

/// Between the end of a child's output and its being reaped, where nothing else tells of its end; a child that closed its
/// output but lives is looked at again after this.
const REAP_PAUSE: Duration = Duration::from_millis(20);

/// Limit: ends of one worker's links that are logged in a minute.
const LINK_ENDS_TOLD_A_MINUTE: u32 = 10;

/// How a worker process is run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The worker's number.
    pub worker_id: usize,
    /// How to start it; `None`: somebody else does.
    pub child: Option<ChildSpec>,
    /// When to restart it and when to give up.
    pub policy: Policy,
}

/// What an operator sees of a worker.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    /// The worker's number.
    pub id: usize,
    /// Where it is in its life.
    pub state: State,
    /// Its process, if it is ours and runs.
    pub pid: Option<u32>,
    /// Since when the process runs.
    pub started: Option<Instant>,
    /// How long ago its last heartbeat came.
    pub heartbeat_age: Option<Duration>,
    /// Dispatches that left and wait for their answers.
    pub in_flight: usize,
    /// Dispatches that wait for the worker.
    pub waiting: usize,
    /// What it last said of itself.
    pub health: Option<Health>,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last process ended.
    pub last_exit: Option<String>,
}

/// A worker behind a link, and the loop that keeps it running.
pub struct WorkerProcessHandle {
    shared: Arc<Shared>,
    supervision: Mutex<Option<OwnedThread>>,
}

struct Shared {
    id: usize,
    router: Router,
    notes_tx: Sender<Note>,
    status: Mutex<Status>,
    on_change: Box<dyn Fn() + Send + Sync>,
}

/// What the loop shows to the outside.
struct Status {
    state: State,
    pid: Option<u32>,
    started: Option<Instant>,
    conn: Option<MesophyllServerConn>,
    health: Option<Health>,
    restarts: u64,
    last_exit: Option<String>,
}

/// What the loop is told.
enum Note {
    Connected(MesophyllServerConn),
    Ready(MesophyllServerConn),
    Disconnected(MesophyllServerConn, CloseCause),
    ChildEnded(u64),
    /// End for good; the sender is dropped when the process is gone.
    End(Event, Sender<()>),
}

impl WorkerProcessHandle {
    /// Starts the supervision loop, which starts the process. `on_change` is called whenever the worker's state
    /// changed, on the loop's thread; it must not block.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(config: ProcessConfig, on_change: impl Fn() + Send + Sync + 'static) -> io::Result<Arc<Self>> {
        let (notes_tx, notes_rx) = bounded(NOTES_MAX);
        let kind = if config.child.is_some() { Kind::Child } else { Kind::External };
        let supervisor = Supervisor::new(kind, config.policy);
        let shared = Arc::new(Shared {
            id: config.worker_id,
            router: Router::new(),
            notes_tx,
            status: Mutex::new(Status::new(supervisor.state())),
            on_change: Box::new(on_change),
        });
        let supervision = Supervision {
            shared: shared.clone(),
            spec: config.child,
            supervisor,
            notes_rx,
            child: None,
            spawns: 0,
            child_ended: false,
            conn: None,
            link_ends: LinkEnds::default(),
            waiting_for_end: Vec::new(),
        };
        let owner = shared.clone();
        let thread = thread::spawn_watched(
            format!("super-{}", config.worker_id),
            move || supervision.run(),
            move |exit| owner.supervision_ended(&exit),
        )?;
        Ok(Arc::new(Self { shared, supervision: Mutex::new(Some(thread)) }))
    }

    /// What the server tells of this worker's connections.
    pub fn observer(&self) -> Arc<dyn LinkObserver> {
        self.shared.clone()
    }

    /// Where the worker is in its life.
    pub fn state(&self) -> State {
        self.shared.status().state
    }

    /// What an operator sees of it.
    pub fn report(&self) -> WorkerReport {
        let status = self.shared.status();
        WorkerReport {
            id: self.shared.id,
            state: status.state,
            pid: status.pid,
            started: status.started,
            heartbeat_age: status.conn.as_ref().map(MesophyllServerConn::heartbeat_age),
            in_flight: status.conn.as_ref().map_or(0, MesophyllServerConn::in_flight),
            waiting: self.shared.router.waiting(),
            health: status.health.clone(),
            restarts: status.restarts,
            last_exit: status.last_exit.clone(),
        }
    }

    /// Ends the worker gracefully and for good: TERM, then KILL; joins the loop.
    ///
    /// # Blocks
    /// Until the process was reaped, or `deadline`; true if it is gone.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.end(Event::Stop, deadline)
    }

    fn end(&self, event: Event, deadline: Instant) -> bool {
        let (gone_tx, gone_rx) = bounded(0);
        // A loop that has ended drops the note, and with it the sender: then the process is gone already.
        let _ = self.shared.notes_tx.send_deadline(Note::End(event, gone_tx), deadline);
        let gone = matches!(gone_rx.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected));
        if gone {
            let thread = self.supervision.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            drop(thread);
        }
        gone
    }
}

impl WorkerLike for WorkerProcessHandle {
    fn id(&self) -> usize {
        self.shared.id
    }

    fn len(&self) -> usize {
        1
    }

    fn submit(&self, tenant: TenantId, ticket: Ticket, job: Job, deadline: Instant, answer: Answer) {
        self.shared.router.submit(tenant, ticket, job, deadline, answer);
    }

    fn cancel(&self, tenant: TenantId, ticket: Ticket) -> Cancelled {
        self.shared.router.cancel(tenant, ticket)
    }

    fn kill(&self) {
        self.end(Event::Kill, Instant::now() + Duration::from_secs(5));
    }

    fn dispatch_event_nowait(
        &self,
        tenant: TenantId,
        event: CreateEvent,
        deadline: Instant,
    ) -> Result<(), DispatchError> {
        self.shared.router.submit_nowait(tenant, event, deadline)
    }
}

impl fmt::Debug for WorkerProcessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerProcessHandle({})", self.shared.id)
    }
}

impl Drop for WorkerProcessHandle {
    fn drop(&mut self) {
        if self.supervision.get_mut().is_ok_and(|thread| thread.is_some()) {
            self.kill();
        }
    }
}

impl Status {
    fn new(state: State) -> Self {
        Self { state, pid: None, started: None, conn: None, health: None, restarts: 0, last_exit: None }
    }
}

impl Shared {
    // Only plain values are changed under this lock, so poison means nothing here.
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Called at the end of the loop, on its thread. After a panic nobody looks after the worker any more; its process was
    /// killed and reaped with what the loop owned.
    fn supervision_ended(&self, exit: &ThreadExit) {
        if let ThreadExit::Panicked(_) = exit {
            {
                let mut status = self.status();
                status.state = State::Failed;
                (status.pid, status.started, status.conn) = (None, None, None);
                status.last_exit = Some("its supervision failed, which is a bug".to_owned());
            }
            self.router.to_nobody("its worker's supervision failed");
            (self.on_change)();
        }
    }

    /// Called from a link's threads: never blocks.
    fn note(&self, note: Note) {
        match self.notes_tx.try_send(note) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(Note::Connected(conn) | Note::Ready(conn))) => conn.close(close_code::GOING_AWAY),
            // The loop looks after the child and a closed link at its next turn anyway.
            Err(TrySendError::Full(_)) => log::warn!("worker {}: its supervision falls behind", self.id),
        }
    }
}

impl LinkObserver for Shared {
    fn connected(&self, conn: &MesophyllServerConn) {
        self.note(Note::Connected(conn.clone()));
    }

    fn ready(&self, conn: &MesophyllServerConn) {
        self.note(Note::Ready(conn.clone()));
    }

    fn health(&self, _conn: &MesophyllServerConn, health: Health) {
        self.status().health = Some(health);
    }

    fn disconnected(&self, conn: &MesophyllServerConn, cause: &CloseCause) {
        self.note(Note::Disconnected(conn.clone(), cause.clone()));
    }
}

/// The supervision loop's own state.
struct Supervision {
    shared: Arc<Shared>,
    spec: Option<ChildSpec>,
    supervisor: Supervisor,
    notes_rx: Receiver<Note>,
    child: Option<Child>,
    /// Tells the watch of a child from that of an earlier one.
    spawns: u64,
    /// The child has ended, or at least its output: it is about to be reaped.
    child_ended: bool,
    conn: Option<MesophyllServerConn>,
    link_ends: LinkEnds,
    waiting_for_end: Vec<Sender<()>>,
}

impl Supervision {
    fn run(mut self) {
        self.step(Event::Tick);
        loop {
            let note = match self.next_wake() {
                Some(wake) => self.notes_rx.recv_deadline(wake),
                None => self.notes_rx.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match note {
                Ok(note) => self.on_note(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.reap();
            self.check_link();
            self.shared.router.expire(Instant::now());
            self.step(Event::Tick);
            if !self.waiting_for_end.is_empty() && self.child.is_none() {
                return;
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let reap = (self.child.is_some() && self.child_ended).then(|| now + REAP_PAUSE);
        let expire = self.shared.router.expire(now);
        // A dispatch that starts to wait while the loop sleeps finds it awake within a second: its caller enforces its
        // deadline by itself, this only tidies up after `nowait` events.
        let tidy = (self.supervisor.state() != State::Ready).then(|| now + Duration::from_secs(1));
        [self.supervisor.due(), reap, expire, tidy].into_iter().flatten().min()
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Connected(conn) => {
                // Notes of two connections may cross; only the newest counts.
                if self.conn.as_ref().is_none_or(|current| current.generation() < conn.generation()) {
                    self.conn = Some(conn);
                    self.step(Event::Connected);
                }
            }
            Note::Ready(conn) if self.is_current(&conn) => self.step(Event::Ready),
            Note::Disconnected(conn, cause) if self.is_current(&conn) => {
                self.log_link_end(&cause);
                self.conn = None;
                self.step(Event::Disconnected);
            }
            Note::ChildEnded(spawn) if spawn == self.spawns => self.child_ended = true,
            Note::Ready(_) | Note::Disconnected(..) | Note::ChildEnded(_) => {}
            Note::End(event, gone_tx) => {
                self.waiting_for_end.push(gone_tx);
                self.step(event);
            }
        }
    }

    fn log_link_end(&mut self, cause: &CloseCause) {
        let id = self.shared.id;
        match self.link_ends.note(Instant::now()) {
            Told::Plainly => log::info!("worker {id}: {cause}"),
            Told::ForTheLastTime => {
                log::warn!(
                    "worker {id}: {cause}; its links end again and again, and no more of it is logged for a minute"
                );
            }
            Told::Quietly => log::debug!("worker {id}: {cause}"),
        }
    }

    fn is_current(&self, conn: &MesophyllServerConn) -> bool {
        self.conn.as_ref().is_some_and(|current| current.generation() == conn.generation())
    }

    /// Reaps the child if it has ended.
    fn reap(&mut self) {
        let Some(child) = &mut self.child else { return };
        let how = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => describe(status),
            Err(error) => format!("cannot be waited for: {error}"),
        };
        self.tell_end(&how);
        self.step(Event::Exited(how));
    }

    /// Lets go of a child that was reaped. One that nobody wanted to end is told with what it said last.
    fn tell_end(&mut self, how: &str) {
        let Some(child) = self.child.take() else { return };
        let (id, pid) = (self.shared.id, child.pid());
        let last_lines = child.last_lines();
        if self.supervisor.state() == State::Stopped {
            log::info!("worker {id} (pid {pid}) ended: {how}");
        } else if last_lines.is_empty() {
            log::warn!("worker {id} (pid {pid}) ended: {how}; it printed nothing");
        } else {
            let text = last_lines.iter().map(|line| format!("\n    {line}")).collect::<String>();
            let count = last_lines.len();
            log::warn!("worker {id} (pid {pid}) ended: {how}; the last {count} lines that it printed:{text}");
        }
    }

    /// Notices the end of a link whose note found no room.
    fn check_link(&mut self) {
        if self.conn.as_ref().is_some_and(MesophyllServerConn::is_closed) {
            self.conn = None;
            self.step(Event::Disconnected);
        }
    }

    fn step(&mut self, event: Event) {
        let before = self.supervisor.state();
        let actions = self.supervisor.step(event, Instant::now(), jitter());
        for action in actions {
            self.carry_out(action);
        }
        self.publish();
        if self.supervisor.state() != before {
            log::debug!("worker {}: {before} → {}", self.shared.id, self.supervisor.state());
            (self.shared.on_change)();
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Spawn => self.spawn(),
            Action::Terminate => {
                if let Some(child) = &self.child {
                    child.terminate();
                }
            }
            Action::Kill => {
                if let Some(child) = &mut self.child {
                    child.kill();
                }
            }
            Action::CloseLink => {
                if let Some(conn) = self.conn.take() {
                    conn.close(close_code::GOING_AWAY);
                }
            }
            Action::RouteToLink => {
                if let Some(conn) = &self.conn {
                    self.shared.router.to_link(conn.clone());
                }
            }
            Action::RouteToQueue => self.shared.router.to_queue(),
            Action::RouteToNobody(reason) => {
                log::debug!("worker {}: {reason}", self.shared.id);
                self.shared.router.to_nobody(&reason);
            }
            Action::Ended => {}
        }
    }

    fn spawn(&mut self) {
        let Some(spec) = &self.spec else { return };
        self.spawns += 1;
        self.child_ended = false;
        let spawn = self.spawns;
        let notes_tx = self.shared.notes_tx.clone();
        // Blocks only while the loop is behind by a thousand notes; the loop joins this thread only after the note.
        let on_end = move || drop(notes_tx.send_timeout(Note::ChildEnded(spawn), Duration::from_secs(1)));
        match Child::spawn(spec, self.shared.id, on_end) {
            Ok(child) => {
                log::info!("worker {} started as pid {}", self.shared.id, child.pid());
                self.child = Some(child);
                self.step(Event::Spawned);
            }
            Err(error) => self.step(Event::SpawnFailed(error.to_string())),
        }
    }

    fn publish(&self) {
        let mut status = self.shared.status();
        let pid = self.child.as_ref().map(Child::pid);
        if status.pid != pid {
            status.pid = pid;
            status.started = pid.map(|_| Instant::now());
            status.health = None;
        }
        status.state = self.supervisor.state();
        status.conn = self.conn.clone();
        status.restarts = self.supervisor.restarts();
        status.last_exit = self.supervisor.last_exit().map(str::to_owned);
    }
}

/// A number in 0.0..1.0, to spread restarts.
fn jitter() -> f64 {
    // 53 bits are what an f64 holds exactly.
    (random::u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Counts the ends of links, so that a peer that connects and goes a thousand times a second does not fill the log.
#[derive(Debug, Default)]
struct LinkEnds {
    since: Option<Instant>,
    count: u32,
}

/// How the end of a link is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Plainly,
    ForTheLastTime,
    Quietly,
}

impl LinkEnds {
    fn note(&mut self, now: Instant) -> Told {
        if self.since.is_none_or(|since| now.duration_since(since) > Duration::from_secs(60)) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        match self.count {
            count if count < LINK_ENDS_TOLD_A_MINUTE => Told::Plainly,
            LINK_ENDS_TOLD_A_MINUTE => Told::ForTheLastTime,
            _ => Told::Quietly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_ends_again_and_again_is_told_a_few_times_a_minute() {
        let start = Instant::now();
        let mut ends = LinkEnds::default();
        let told: Vec<Told> = (0..1000).map(|_| ends.note(start)).collect();
        let lines = told.iter().filter(|told| **told != Told::Quietly).count();
        assert_eq!(lines, LINK_ENDS_TOLD_A_MINUTE as usize);
        assert_eq!(told[lines - 1], Told::ForTheLastTime);
        assert_eq!(ends.note(start + Duration::from_secs(61)), Told::Plainly);
    }
}
