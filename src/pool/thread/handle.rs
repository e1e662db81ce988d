//! A worker in this process, as the rest of the master sees it: one that can be drained, ended and
//! started anew.
//!
//! A thread cannot be restarted from outside; but a [`WorkerThread`] can be told to end, and
//! another be made in its place. Meanwhile dispatches wait as they do for a worker process. A
//! thread of its own (`anew-I`) does that, owned by the handle; it blocks on what is in flight and
//! on the old worker's end, which have deadlines, and ends early when the handle does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::error::DispatchError;
use crate::base::sync::{Lock, Signal};
use crate::base::thread::{self, OwnedThread, ThreadExit};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, Cancelled, Refused, Request, RequestId};
use crate::feeds::Feeds;
use crate::protocol::LocalWorker;
use crate::wire::data::TenantId;
use crate::wire::data::sharding::ShardSet;
use crate::wire::message::Health;

use crate::pool::WorkerThread;
use crate::pool::board::{Board, WorkerStatus};
use crate::pool::managed::Managed;
use crate::pool::observe::nowait_failures::NowaitFailures;
use crate::pool::process::handle::{RestartError, WorkerReport};
use crate::pool::process::supervisor::{Cause, State};
use crate::pool::route::{DispatchTarget, Router};
use crate::pool::vms::Vms;

/// Limit: for the old worker to end and the new one to be made.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a waiter looks whether the handle ends.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// Makes the worker: its runtime runs and its tenant states are loaded.
pub type MakeWorker = dyn Fn() -> io::Result<WorkerThread> + Send + Sync;

/// A worker on OS threads of this process, and what is needed to start it anew.
pub struct WorkerThreadHandle {
    shared: Arc<ThreadShared>,
    anew: Lock<Option<OwnedThread>>,
}

struct ThreadShared {
    id: usize,
    /// What is in flight when it is restarted has so long to finish.
    drain_timeout: Duration,
    make: Box<MakeWorker>,
    router: Router<Gate>,
    nowait_failures: NowaitFailures,
    board: Board<Gate>,
    /// The shards whose tenants it has, if it was ever told: held while a worker is told.
    shards: Lock<Option<ShardSet>>,
    is_ending: AtomicBool,
}

/// The way to one [`WorkerThread`], which counts what is in flight and can be shut.
#[derive(Clone)]
struct Gate(Arc<GateInner>);

struct GateInner {
    worker: WorkerThread,
    state: Lock<GateState>,
    is_drained: Signal,
}

#[derive(Default)]
struct GateState {
    is_sealed: bool,
    in_flight: usize,
}

impl WorkerThreadHandle {
    /// Makes the worker. When it is restarted, what it has in flight may take `drain_timeout` to be
    /// answered. `on_change` is called whenever its state changed; it must not block.
    ///
    /// # Blocks
    /// As `make` does: until its tenant states are loaded.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn start(
        id: usize,
        drain_timeout: Duration,
        make: Box<MakeWorker>,
        feeds: Option<Arc<Feeds>>,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let gate = Gate::new(make()?);
        let router = Router::new();
        router.to_link(gate.clone(), Instant::now());
        let board = Board::new(id, State::Ready, on_change);
        board.publish(|status| status.begin(gate));
        let shared = Arc::new(ThreadShared {
            id,
            drain_timeout,
            make,
            router,
            nowait_failures: NowaitFailures::new(id, feeds),
            board,
            shards: Lock::default(),
            is_ending: AtomicBool::new(false),
        });
        Ok(Arc::new(Self { shared, anew: Lock::new(None) }))
    }

    /// A tenant's own template may have changed. One that is being started reads templates when
    /// they are needed.
    pub fn reload_template(&self, tenant: TenantId) {
        if let Some(gate) = self.shared.board.worker() {
            gate.0.worker.reload_template(tenant);
        }
    }
}

impl Managed for WorkerThreadHandle {
    fn report(&self) -> WorkerReport {
        // No loop supervises it, but `api-history` asks for reports every five seconds.
        self.shared.nowait_failures.log_lost(Instant::now());
        let WorkerStatus { report, worker: gate, .. } = self.shared.board.status().clone();
        // What it says of its process is the master's own, which is not to be counted twice.
        let health = |gate: &Gate| Health { process: None, ..gate.0.worker.health() };
        WorkerReport {
            pid: gate.as_ref().map(|_| std::process::id()),
            version: gate.as_ref().map(|_| env!("CARGO_PKG_VERSION").to_owned()),
            in_flight: gate.as_ref().map_or(0, |gate| gate.0.state.lock().in_flight),
            waiting: self.shared.router.waiting(),
            health: gate.as_ref().map(health),
            ..report
        }
    }

    fn query_vms(&self, tenants: &[TenantId]) -> Vms {
        let gate = self.shared.board.worker();
        let has_vm = |gate: Gate| tenants.iter().map(|id| gate.0.worker.has_vm(*id)).collect();
        Vms::Known(gate.map(has_vm).unwrap_or_default())
    }

    fn supervised_at(&self) -> Option<Instant> {
        None
    }

    fn restart(&self, cause: Cause) -> Result<u64, RestartError> {
        // Held to the end, so that of two at once one begins.
        let mut anew = self.anew.lock();
        if self.shared.is_ending.load(Ordering::SeqCst) {
            return Err(RestartError::Ending);
        }
        let restarts = self.shared.board.status().report.restarts.total();
        if anew.as_ref().is_some_and(|thread| !thread.wait_until(Instant::now())) {
            return Ok(restarts);
        }
        log::info!(worker = self.shared.id; "worker {} is restarted: {}", self.shared.id, cause.told());
        // Before any caller waits for the end of it.
        let gate = self.shared.begin_restart();
        let (shared, ended) = (self.shared.clone(), self.shared.clone());
        let thread = thread::spawn_watched(
            format!("anew-{}", self.shared.id),
            move || shared.replace(gate, cause),
            move |exit| {
                if let ThreadExit::Panicked(_) = exit {
                    ended.fail("its restart failed, which is a bug".to_owned());
                }
            },
        );
        match thread {
            Ok(thread) => *anew = Some(thread),
            Err(error) => self.shared.fail(format!("there is no thread to restart it: {error}")),
        }
        Ok(restarts)
    }

    fn wait_until_restarted(&self, restarts: u64, deadline: Instant) -> Result<(), RestartError> {
        self.shared.board.wait_until_restarted(restarts, deadline, "; ")
    }

    fn kill_until_restart(&self) -> Result<(), RestartError> {
        let anew = self.anew.lock();
        if self.shared.is_ending.load(Ordering::SeqCst) {
            return Err(RestartError::Ending);
        }
        if anew.as_ref().is_some_and(|thread| !thread.wait_until(Instant::now())) {
            return Err(RestartError::NotReady("it is being restarted".to_owned()));
        }
        self.shared.end("killed by an operator");
        Ok(())
    }

    fn serve_shards(&self, served: &ShardSet) {
        let mut shards = self.shared.shards.lock();
        *shards = Some(*served);
        if let Some(gate) = self.shared.board.worker() {
            gate.0.worker.serve_shards(served);
        }
    }

    fn leave_shards(&self, shards: &ShardSet, is_over: bool) {
        self.shared.router.hand_back(shards, is_over);
        if let Some(gate) = self.shared.board.worker().filter(|_| is_over) {
            gate.0.worker.drop_shards(shards);
        }
    }

    fn log_abandoned(&self) {
        self.shared.nowait_failures.log_abandoned();
    }

    fn restart_timeout(&self) -> Duration {
        self.shared.drain_timeout + REPLACE_TIMEOUT
    }

    fn stop(&self, drain_until: Instant, _deadline: Instant) -> bool {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        let anew = self.anew.lock().take();
        // It notices that the handle ends.
        drop(anew);
        self.shared.router.to_nobody("its worker was stopped");
        if let Some(gate) = self.shared.board.worker() {
            self.shared.board.publish(|status| status.report.state = State::Draining);
            gate.seal();
            gate.wait_until_drained(drain_until, || false);
        }
        self.shared.end("stopped");
        true
    }
}

impl WorkerLike for WorkerThreadHandle {
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
        let now = Instant::now();
        self.stop(now, now);
    }
}

impl Drop for WorkerThreadHandle {
    fn drop(&mut self) {
        self.kill();
    }
}

impl ThreadShared {
    /// Dispatches wait from now on; returns the worker that is to be replaced, if there is one.
    fn begin_restart(&self) -> Option<Gate> {
        self.router.to_queue();
        let mut status = self.board.status();
        status.report.state =
            if status.worker.is_some() { State::Draining } else { State::Starting };
        status.worker.clone()
    }

    /// Blocks: until nothing is in flight, the old worker has ended and the new one is made; see
    /// the constants.
    fn replace(&self, gate: Option<Gate>, cause: Cause) {
        if let Some(gate) = gate {
            gate.seal();
            let until = Instant::now() + self.drain_timeout;
            gate.wait_until_drained(until, || self.is_ending.load(Ordering::SeqCst));
            // Dispatches that wait may have come to their deadlines meanwhile.
            self.router.expire(Instant::now());
            if self.is_ending.load(Ordering::SeqCst) {
                return;
            }
            gate.kill();
            self.nowait_failures.log_all_lost();
            self.board.publish(|status| {
                status.leave(State::Starting, format!("ended ({})", cause.told()))
            });
        }
        match (self.make)() {
            Ok(worker) => {
                let gate = Gate::new(worker);
                let shards = self.shards.lock();
                if let Some(served) = &*shards {
                    gate.0.worker.serve_shards(served);
                }
                self.board.publish(|status| {
                    status.begin(gate.clone());
                    status.report.restarts.count(cause);
                });
                drop(shards);
                self.router.to_link(gate, Instant::now());
            }
            Err(error) => self.fail(format!("could not be started: {error}")),
        }
    }

    fn fail(&self, why: String) {
        log::error!(worker = self.id; "worker {}: {why}", self.id);
        self.board.publish(|status| status.leave(State::Failed, why));
        self.router.to_nobody("its worker has failed");
    }

    fn end(&self, how: &str) {
        self.router.to_nobody("its worker was stopped");
        let gate = self.board.status().worker.take();
        if let Some(gate) = &gate {
            gate.kill();
        }
        self.nowait_failures.log_all_lost();
        self.board.publish(|status| {
            (status.report.state, status.report.started) = (State::Stopped, None);
            if gate.is_some() {
                status.report.last_exit = Some(how.to_owned());
            }
        });
    }
}

impl WorkerStatus<Gate> {
    fn begin(&mut self, gate: Gate) {
        (self.report.state, self.report.started) = (State::Ready, Some(Instant::now()));
        self.worker = Some(gate);
    }

    fn leave(&mut self, state: State, last_exit: String) {
        (self.report.state, self.report.started, self.worker) = (state, None, None);
        self.report.last_exit = Some(last_exit);
    }
}

impl Gate {
    fn new(worker: WorkerThread) -> Self {
        Self(Arc::new(GateInner { worker, state: Lock::default(), is_drained: Signal::new() }))
    }

    /// Takes no more dispatches.
    fn seal(&self) {
        self.0.state.lock().is_sealed = true;
    }

    /// Waits until nothing is in flight, or until then. Ends early when `gives_up` says so, at
    /// which it looks now and then.
    fn wait_until_drained(&self, until: Instant, gives_up: impl Fn() -> bool) {
        let mut state = self.0.state.lock();
        while state.in_flight > 0 && Instant::now() < until && !gives_up() {
            state = self.0.is_drained.wait(state, until.min(Instant::now() + POLL_PAUSE));
        }
    }

    fn answered(&self) {
        let mut state = self.0.state.lock();
        state.in_flight -= 1;
        if state.is_sealed && state.in_flight == 0 {
            self.0.is_drained.notify_all();
        }
    }
}

impl WorkerLike for Gate {
    fn id(&self) -> usize {
        self.0.worker.id()
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        {
            let mut state = self.0.state.lock();
            if state.is_sealed {
                let ends = DispatchError::NotSent("the worker is about to end".to_owned());
                return Err(request.refused(ends));
            }
            state.in_flight += 1;
        }
        let (gate, mut answer) = (self.clone(), request.answer);
        let counted = Answer::callback_with_subscription(move |result, is_subscribed| {
            if !is_subscribed {
                answer.mark_not_subscribed();
            }
            answer.send(result);
            gate.answered();
        });
        self.0.worker.try_submit(Request { answer: counted, ..request })
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.0.worker.cancel(tenant, request_id)
    }

    /// Takes no more dispatches, and ends the worker.
    fn kill(&self) {
        self.seal();
        self.0.worker.kill();
    }
}

impl DispatchTarget for Gate {
    fn takes_dispatches(&self) -> bool {
        !self.0.state.lock().is_sealed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crossbeam_channel::never;

    use super::*;
    use crate::dispatch::{Job, MessageDoor};
    use crate::pool::{Subscriptions, WorkerDb};
    use crate::runtime::{RuntimeStats, TemplateRuntime};
    use crate::store::memory::MemoryStore;
    use crate::store::{DbOptions, DbState};
    use crate::wire::data::{CreateEvent, EncodedJson, EventData};

    /// Has no room.
    struct Full;

    impl TemplateRuntime for Full {
        fn submit(&self, _: TenantId, _: RequestId, _: Job, answer: Answer) {
            answer.send(Err(DispatchError::Busy("full".to_owned())));
        }

        fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
            Cancelled::Unknown
        }

        fn stats(&self) -> RuntimeStats {
            RuntimeStats::default()
        }

        fn shutdown(&self) {}
    }

    #[test]
    fn a_loss_in_this_process_is_logged_when_a_report_is_due() {
        let make = || {
            let subscriptions = Arc::new(Subscriptions::new(BTreeSet::from(["*".to_owned()])));
            let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
                .expect("an empty store");
            let db = Arc::new(WorkerDb::direct(Arc::new(db), 0, 1, MessageDoor::default()));
            let worker = WorkerThread::new(0, Box::new(Full), 1, subscriptions, db);
            worker.load_tenant_states().expect("states");
            Ok(worker)
        };
        let handle = WorkerThreadHandle::start(0, Duration::ZERO, Box::new(make), None, || ())
            .expect("it starts");
        let event = CreateEvent {
            name: "E".to_owned(),
            author: None,
            data: EventData::Json(EncodedJson::null()),
        };
        let taken = handle.dispatch_event_nowait(TenantId::Guild(1), event, Instant::now());
        taken.expect("it is taken");
        assert!(handle.shared.nowait_failures.has_lost());
        let until = Instant::now() + Duration::from_secs(30);
        while handle.shared.nowait_failures.has_lost() && Instant::now() < until {
            handle.report();
            let _ = never::<()>().recv_timeout(POLL_PAUSE);
        }
        assert!(!handle.shared.nowait_failures.has_lost());
    }
}
