//! What a worker shows of itself, to those that look at it and those that wait for a change.

use std::time::Instant;

use crate::base::primitives::MutexGuard;
use crate::base::sync::{Lock, Signal};

use super::process::handle::{RestartError, WorkerReport};
use super::process::recycle::Recycle;
use super::process::supervisor::{Restarts, State};

/// A worker's status; `W` is the way to the worker. Called from any thread.
pub(super) struct Board<W> {
    status: Lock<WorkerStatus<W>>,
    changed: Signal,
    on_change: Box<dyn Fn() + Send + Sync>,
}

/// Where a worker is in its life.
#[derive(Debug, Clone)]
pub(super) struct WorkerStatus<W> {
    /// Without what only the worker's own link or threads tell.
    pub(super) report: WorkerReport,
    /// The way to the worker, while there is one.
    pub(super) worker: Option<W>,
    /// The limits of this process.
    pub(super) recycle: Recycle,
    /// When the loop last came round. Without it there is no loop: it has not begun, has ended for
    /// good, or the worker needs none.
    pub(super) polled_at: Option<Instant>,
}

impl<W: Clone> Board<W> {
    /// `on_change` is called whenever the state was changed; it must not block.
    pub(super) fn new(
        id: usize,
        state: State,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let report = WorkerReport {
            id,
            state,
            pid: None,
            started: None,
            heartbeat_age: None,
            in_flight: 0,
            waiting: 0,
            health: None,
            restarts: Restarts::default(),
            last_exit: None,
            version: None,
            host: None,
            sandbox: None,
            retires: false,
            needs_restart: false,
            is_handed_out: false,
            sandbox_kills: 0,
        };
        let recycle = Recycle::default();
        let status = WorkerStatus { report, worker: None, recycle, polled_at: None };
        let (changed, on_change) = (Signal::new(), Box::new(on_change));
        Self { status: Lock::new(status), changed, on_change }
    }

    /// The status as it is; it does not change while the caller holds it.
    pub(super) fn status(&self) -> MutexGuard<'_, WorkerStatus<W>> {
        self.status.lock()
    }

    /// The way to the worker, while there is one.
    pub(super) fn worker(&self) -> Option<W> {
        self.status().worker.clone()
    }

    /// Changes the status, and tells those that wait for a change or watch the state.
    pub(super) fn publish(&self, change: impl FnOnce(&mut WorkerStatus<W>)) {
        let is_another = {
            let mut status = self.status();
            let before = status.report.state;
            change(&mut status);
            status.report.state != before
        };
        self.changed.notify_all();
        if is_another {
            (self.on_change)();
        }
    }

    /// # Blocks
    /// Until the status fulfils the condition, or the deadline.
    pub(super) fn wait_until(
        &self,
        deadline: Instant,
        condition: impl Fn(&WorkerStatus<W>) -> bool,
    ) -> WorkerStatus<W> {
        self.changed.wait_until(self.status(), deadline, |status| condition(status)).clone()
    }

    /// Waits until the worker is ready after more restarts than these. `about_exit` stands before
    /// how it ended last, in an error.
    ///
    /// # Blocks
    /// Until it is, or stays away, or the deadline.
    ///
    /// # Errors
    /// It is not ready again.
    pub(super) fn wait_until_restarted(
        &self,
        restarts: u64,
        deadline: Instant,
        about_exit: &str,
    ) -> Result<(), RestartError> {
        let WorkerReport { id, state, restarts: now, last_exit, .. } = self
            .wait_until(deadline, |WorkerStatus { report, .. }| match report.state {
                State::Ready => report.restarts.total() > restarts,
                State::Dead | State::Failed | State::Stopped => true,
                State::Starting | State::Connected | State::Draining => false,
            })
            .report;
        if state == State::Ready && now.total() > restarts {
            return Ok(());
        }
        let exit = last_exit.map(|exit| format!("{about_exit}{exit}")).unwrap_or_default();
        Err(RestartError::NotReady(format!("worker {id} is {state}{exit}")))
    }
}

impl<W> WorkerStatus<W> {
    /// Why this process is to be recycled.
    pub(super) fn recycle_reason(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.report.started?);
        self.recycle.reason(self.report.health.as_ref(), age)
    }
}
