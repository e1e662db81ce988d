//! A worker in a process of its own (or an external one), as the rest of the master sees it.
//!
//! Its supervision loop (`super-I`, in `supervision`) keeps the process running. Dispatches do not
//! pass through the loop: they take the [`Router`] straight to the link. Calls come from any
//! thread.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, TrySendError, bounded};

use crate::base::sync::Lock;
use crate::base::thread::{self, OwnedThread, ThreadExit};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Cancelled, Refused, Request, RequestId};
use crate::feeds::Feeds;
use crate::net::lifeline::Sign;
use crate::net::link::{CloseCause, close_code};
use crate::protocol::{InFlight, LinkObserver, MesophyllServerConn};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{Sandbox, TenantId};
use crate::wire::message::Health;

use super::child::ChildSpec;
use super::recycle::Recycle;
use super::supervision::Supervision;
use super::supervisor::{Cause, Event, Kind, Policy, Restarts, State, Supervisor, Why};
use crate::pool::board::{Board, WorkerStatus};
use crate::pool::managed::Managed;
use crate::pool::observe::nowait_failures::NowaitFailures;
use crate::pool::observe::quarantine::Quarantine;
use crate::pool::route::Router;
use crate::pool::vms::Vms;

/// Limit: notes waiting for the loop. There are a handful for each connection and child; a link
/// whose note finds no room is closed, and its worker connects again. Their places are made at
/// once, for each worker.
const NOTES_MAX: usize = 64;

/// Limit: for the loop to take an operator's wish. It never blocks for long.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a worker process is run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The worker's number.
    pub worker_id: usize,
    /// How to start it; `None`: it is started from outside.
    pub child: Option<ChildSpec>,
    /// When to restart it and when to give up.
    pub policy: Policy,
    /// When to start it anew though it is well.
    pub recycle: Recycle,
    /// Where its deaths are noted, and which tenants may not run on it.
    pub quarantine: Arc<Quarantine>,
    /// Where the authors of its tenants read of events that were lost.
    pub feeds: Option<Arc<Feeds>>,
}

impl ProcessConfig {
    /// One that is not recycled, with a quarantine of its own.
    pub fn new(worker_id: usize, child: Option<ChildSpec>, policy: Policy) -> Self {
        let (recycle, quarantine) = (Recycle::default(), Arc::default());
        Self { worker_id, child, policy, recycle, quarantine, feeds: None }
    }
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
    pub restarts: Restarts,
    /// How its last process ended.
    pub last_exit: Option<String>,
    /// Its version; `None` while it has not named one.
    pub version: Option<String>,
    /// The machine that it runs on; `None` while it has not named one.
    pub host: Option<String>,
    /// What confines its process; `None` while it has not said so.
    pub sandbox: Option<Sandbox>,
    /// Whether it ends when it is told to over its link, so that its host starts it anew.
    pub retires: bool,
    /// Whether it passes over what it was told, so that only a restart has it read that.
    pub needs_restart: bool,
    /// Whether it is connected through the broker.
    pub is_handed_out: bool,
    /// Its processes that their sandbox has ended.
    pub sandbox_kills: u64,
}

/// Why a worker is not restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartError {
    /// It is started from outside.
    External,
    /// The master stops, or the worker is not supervised any more.
    Ending,
    /// It was not ready again: it failed, an operator stopped it, or it took too long. The text
    /// says which.
    NotReady(String),
}

impl fmt::Display for RestartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartError::External => f.write_str(
                "somebody else starts this worker, and has to restart it: it does not end when it \
                 is told to, or is away",
            ),
            RestartError::Ending => {
                f.write_str("the master stops, or this worker's supervision has ended")
            }
            RestartError::NotReady(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RestartError {}

/// A worker behind a link, and the loop that keeps it running.
pub struct WorkerProcessHandle {
    shared: Arc<ProcessShared>,
    supervision: Lock<Option<OwnedThread>>,
}

/// What the handle, the loop and the link's threads share.
pub(super) struct ProcessShared {
    pub(super) id: usize,
    pub(super) router: Router<MesophyllServerConn>,
    pub(super) recycle: Recycle,
    pub(super) quarantine: Arc<Quarantine>,
    policy: Policy,
    kind: Kind,
    pub(super) nowait_failures: NowaitFailures,
    pub(super) notes_tx: Sender<Note>,
    pub(super) board: Board<MesophyllServerConn>,
    shards: Lock<ToldShards>,
    /// What was in flight when the link of this generation ended.
    lost: Lock<Option<(u64, Vec<InFlight>)>>,
    /// The worker ends for good: it is not restarted any more.
    is_ending: AtomicBool,
}

/// The shards whose tenants the worker has, and the link that was told last, or was ready when
/// there was nothing to tell.
#[derive(Default)]
struct ToldShards {
    served: Option<ShardSet>,
    conn: Option<MesophyllServerConn>,
}

impl ToldShards {
    fn tell(&self) {
        if let (Some(served), Some(conn)) = (&self.served, &self.conn) {
            conn.serve_shards(served);
        }
    }
}

/// What the loop is told.
pub(super) enum Note {
    Connected(MesophyllServerConn),
    Ready(MesophyllServerConn),
    Disconnected(MesophyllServerConn, CloseCause),
    ChildEnded(u64),
    /// How the child of that number is, which is hosted.
    Sign(u64, Sign),
    /// Its health asks for something.
    CheckHealth,
    /// An operator's wish; the sender is dropped when it has been taken in.
    Wish(Event, Sender<()>),
    /// End for good; the sender is dropped when the process is gone.
    End(Event, Sender<()>),
}

impl WorkerProcessHandle {
    /// Starts the supervision loop, which starts the process. `on_change` is called whenever the
    /// worker's state changed, on the loop's thread; it must not block.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        config: ProcessConfig,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let (notes_tx, notes_rx) = bounded(NOTES_MAX);
        let kind = match &config.child {
            None => Kind::External,
            Some(child) if child.is_hosted => Kind::Hosted,
            Some(_) => Kind::Child,
        };
        let supervisor = Supervisor::new(kind, config.policy);
        let shared = Arc::new(ProcessShared {
            id: config.worker_id,
            router: Router::new(),
            recycle: config.recycle,
            quarantine: config.quarantine,
            policy: config.policy,
            kind,
            nowait_failures: NowaitFailures::new(config.worker_id, config.feeds),
            notes_tx,
            board: Board::new(config.worker_id, supervisor.state(), on_change),
            shards: Lock::default(),
            lost: Lock::new(None),
            is_ending: AtomicBool::new(false),
        });
        let supervision = Supervision::new(shared.clone(), config.child, supervisor, notes_rx);
        let owner = shared.clone();
        let thread = thread::spawn_watched(
            format!("super-{}", config.worker_id),
            move || supervision.run(),
            move |exit| owner.supervision_ended(&exit),
        )?;
        Ok(Arc::new(Self { shared, supervision: Lock::new(Some(thread)) }))
    }

    /// What the server tells of this worker's connections.
    pub fn observer(&self) -> Arc<dyn LinkObserver> {
        self.shared.clone()
    }

    /// Blocks: until the loop has taken the wish in, at most twice [`NOTE_TIMEOUT`].
    fn wish(&self, event: Event) -> Result<(), RestartError> {
        if self.shared.is_ending.load(Ordering::SeqCst) {
            return Err(RestartError::Ending);
        }
        let (taken_tx, taken_rx) = bounded(0);
        let note = Note::Wish(event, taken_tx);
        self.shared.notes_tx.send_timeout(note, NOTE_TIMEOUT).map_err(|_| RestartError::Ending)?;
        // So that a caller that looks at the worker afterwards sees what became of the wish and not
        // what was before it.
        let _ = taken_rx.recv_timeout(NOTE_TIMEOUT);
        Ok(())
    }

    fn end(&self, event: Event, deadline: Instant) -> bool {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        let (gone_tx, gone_rx) = bounded(0);
        // A loop that has ended drops the note, and with it the sender: then the process is gone
        // already.
        let _ = self.shared.notes_tx.send_deadline(Note::End(event, gone_tx), deadline);
        let gone = matches!(gone_rx.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected));
        if gone {
            let thread = self.supervision.lock().take();
            drop(thread);
        }
        gone
    }
}

impl Managed for WorkerProcessHandle {
    fn report(&self) -> WorkerReport {
        let WorkerStatus { report, worker: conn, .. } = self.shared.board.status().clone();
        WorkerReport {
            version: conn.as_ref().and_then(MesophyllServerConn::version),
            host: conn.as_ref().and_then(MesophyllServerConn::host),
            sandbox: conn.as_ref().and_then(MesophyllServerConn::sandbox),
            retires: conn.as_ref().is_some_and(MesophyllServerConn::retires),
            needs_restart: conn.as_ref().is_some_and(MesophyllServerConn::needs_restart),
            is_handed_out: conn.as_ref().is_some_and(MesophyllServerConn::is_handed_out),
            heartbeat_age: conn.as_ref().map(MesophyllServerConn::heartbeat_age),
            in_flight: conn.as_ref().map_or(0, MesophyllServerConn::in_flight),
            waiting: self.shared.router.waiting(),
            ..report
        }
    }

    fn query_vms(&self, tenants: &[TenantId]) -> Vms {
        let conn = self.shared.board.worker();
        conn.and_then(|conn| conn.query_vms(tenants.to_vec()))
            .map_or(Vms::Known(vec![]), Vms::Asked)
    }

    fn supervised_at(&self) -> Option<Instant> {
        self.shared.board.status().polled_at
    }

    fn restart(&self, cause: Cause) -> Result<u64, RestartError> {
        let report = self.report();
        let is_ours = self.shared.kind != Kind::External;
        if !is_ours && report.state != State::Stopped && !report.retires {
            return Err(RestartError::External);
        }
        self.wish(Event::Restart(Why::new(cause, cause.told())))?;
        Ok(report.restarts.total())
    }

    fn wait_until_restarted(&self, restarts: u64, deadline: Instant) -> Result<(), RestartError> {
        self.shared.board.wait_until_restarted(restarts, deadline, "; its last process: ")
    }

    fn kill_until_restart(&self) -> Result<(), RestartError> {
        self.wish(Event::Kill)?;
        self.shared
            .board
            .wait_until(Instant::now() + NOTE_TIMEOUT, |WorkerStatus { report, .. }| {
                report.state == State::Stopped && report.pid.is_none()
            });
        Ok(())
    }

    fn stop(&self, drain_until: Instant, deadline: Instant) -> bool {
        self.end(Event::Stop { drain_until }, deadline)
    }

    fn serve_shards(&self, served: &ShardSet) {
        let mut shards = self.shared.shards.lock();
        shards.served = Some(*served);
        shards.tell();
    }

    fn leave_shards(&self, shards: &ShardSet, is_over: bool) {
        self.shared.router.hand_back(shards, is_over);
        let conn = self.shared.shards.lock().conn.clone();
        if let Some(conn) = conn.filter(|_| is_over) {
            conn.end_shards(shards);
        }
    }

    fn log_abandoned(&self) {
        self.shared.nowait_failures.log_abandoned();
    }

    fn restart_timeout(&self) -> Duration {
        let policy = &self.shared.policy;
        policy.drain_timeout + policy.term_grace * 3 + policy.boot_timeout
    }
}

impl WorkerLike for WorkerProcessHandle {
    fn id(&self) -> usize {
        self.shared.id
    }

    fn try_submit(&self, mut request: Request) -> Result<(), Box<Refused>> {
        self.shared.nowait_failures.watch(&mut request);
        self.shared.router.try_submit(request)
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.shared.router.cancel(tenant, request_id)
    }

    fn kill(&self) {
        self.end(Event::Kill, Instant::now() + Duration::from_secs(5));
    }
}

impl Drop for WorkerProcessHandle {
    fn drop(&mut self) {
        if self.supervision.lock().is_some() {
            self.kill();
        }
    }
}

impl ProcessShared {
    /// What was in flight when the link of this generation ended, if it has.
    pub(super) fn take_lost(&self, generation: u64) -> Option<Vec<InFlight>> {
        let lost = self.lost.lock().take();
        lost.filter(|(of, _)| *of == generation).map(|(_, in_flight)| in_flight)
    }

    /// What a worker hangs in, if this is how it looks when it hangs.
    pub(super) fn hangs(&self, health: &Health) -> Option<String> {
        let stale = Duration::from_millis(health.stalest_executor_ms);
        if stale < self.policy.hang_timeout {
            return None;
        }
        let running = match &health.longest {
            Some((tenant, event, ms)) => {
                format!("it has been running {event} of {tenant} for {} s", ms / 1000)
            }
            None => "nothing of a tenant's runs there".to_owned(),
        };
        Some(format!(
            "an executor has not come back to its loop for {} s; {running}",
            stale.as_secs()
        ))
    }

    /// Called at the end of the loop, on its thread. After a panic the worker is not looked after
    /// any more; its process was killed and reaped with what the loop owned.
    fn supervision_ended(&self, exit: &ThreadExit) {
        self.board.publish(|status| status.polled_at = None);
        if let ThreadExit::Panicked(_) = exit {
            self.is_ending.store(true, Ordering::SeqCst);
            self.router.to_nobody("its worker's supervision failed");
            self.board.publish(|WorkerStatus { report, worker, .. }| {
                report.state = State::Failed;
                (report.pid, report.started, *worker) = (None, None, None);
                report.last_exit = Some("its supervision failed, which is a bug".to_owned());
            });
        }
    }

    /// Called from a link's threads: never blocks.
    fn notify(&self, note: Note) {
        match self.notes_tx.try_send(note) {
            Ok(()) | Err(TrySendError::Disconnected(_) | TrySendError::Full(Note::CheckHealth)) => {
            }
            Err(TrySendError::Full(Note::Connected(conn) | Note::Ready(conn))) => {
                conn.close(close_code::GOING_AWAY)
            }
            // The loop looks after the child and a closed link at its next turn anyway.
            Err(TrySendError::Full(_)) => {
                log::warn!(worker = self.id; "worker {}: its supervision falls behind", self.id)
            }
        }
    }
}

impl LinkObserver for ProcessShared {
    fn connected(&self, conn: &MesophyllServerConn) {
        self.notify(Note::Connected(conn.clone()));
    }

    fn ready(&self, conn: &MesophyllServerConn) {
        let mut shards = self.shards.lock();
        // That of a replaced link may come late.
        if shards.conn.as_ref().is_none_or(|other| other.generation() < conn.generation()) {
            shards.conn = Some(conn.clone());
            shards.tell();
        }
        drop(shards);
        self.notify(Note::Ready(conn.clone()));
    }

    fn health(&self, conn: &MesophyllServerConn, health: Health) {
        let asks = {
            let mut status = self.board.status();
            // That of an earlier process says nothing about this one.
            if status
                .worker
                .as_ref()
                .is_none_or(|current| current.generation() != conn.generation())
            {
                return;
            }
            let hangs = self.hangs(&health).is_some();
            status.report.health = Some(health);
            hangs || status.recycle_reason(Instant::now()).is_some()
        };
        if asks {
            self.notify(Note::CheckHealth);
        }
    }

    fn disconnected(&self, conn: &MesophyllServerConn, cause: &CloseCause) {
        let in_flight = conn.in_flight_events();
        let mut lost = self.lost.lock();
        // The end of a replaced link may be told after that of its successor, and says nothing
        // about it.
        if lost.as_ref().is_none_or(|(of, _)| *of < conn.generation()) {
            *lost = Some((conn.generation(), in_flight));
        }
        drop(lost);
        self.notify(Note::Disconnected(conn.clone(), cause.clone()));
    }
}
