//! What a worker shows of itself, to those that look at it and those that wait for a change.

use std::sync::MutexGuard;
use std::time::Instant;

use crate::base::sync::{Lock, Signal};
use crate::wire::message::Health;

use super::process::handle::{RestartError, WorkerReport};
use super::process::recycle::Recycle;
use super::process::supervisor::{Restarts, State};

/// A worker's status; `W` is the way to the worker. Called from any thread.
pub(super) struct Board<W> {
    id: usize,
    status: Lock<WorkerStatus<W>>,
    changed: Signal,
}

/// Where a worker is in its life.
#[derive(Debug, Clone)]
pub(super) struct WorkerStatus<W> {
    pub(super) state: State,
    pub(super) pid: Option<u32>,
    pub(super) started: Option<Instant>,
    /// The way to the worker, while there is one.
    pub(super) worker: Option<W>,
    pub(super) health: Option<Health>,
    /// The limits of this process.
    pub(super) recycle: Recycle,
    pub(super) restarts: Restarts,
    pub(super) last_exit: Option<String>,
    /// When the loop last came round. Without it there is no loop: it has not begun, has ended for
    /// good, or the worker needs none.
    pub(super) polled_at: Option<Instant>,
}

impl<W: Clone> Board<W> {
    pub(super) fn new(id: usize, state: State) -> Self {
        let status = WorkerStatus {
            state,
            pid: None,
            started: None,
            worker: None,
            health: None,
            recycle: Recycle::default(),
            restarts: Restarts::default(),
            last_exit: None,
            polled_at: None,
        };
        Self { id, status: Lock::new(status), changed: Signal::new() }
    }

    /// The status as it is; it does not change while the caller holds it.
    pub(super) fn status(&self) -> MutexGuard<'_, WorkerStatus<W>> {
        self.status.lock()
    }

    /// The way to the worker, while there is one.
    pub(super) fn worker(&self) -> Option<W> {
        self.status().worker.clone()
    }

    /// Changes the status, and wakes the callers that wait for a change.
    pub(super) fn publish(&self, change: impl FnOnce(&mut WorkerStatus<W>)) {
        change(&mut self.status());
        self.changed.notify_all();
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
        let status = self.wait_until(deadline, |status| match status.state {
            State::Ready => status.restarts.total() > restarts,
            State::Dead | State::Failed | State::Stopped => true,
            State::Starting | State::Connected | State::Draining => false,
        });
        if status.state == State::Ready && status.restarts.total() > restarts {
            return Ok(());
        }
        let exit = status.last_exit.map(|exit| format!("{about_exit}{exit}")).unwrap_or_default();
        Err(RestartError::NotReady(format!("worker {} is {}{exit}", self.id, status.state)))
    }
}

impl<W> WorkerStatus<W> {
    /// Why this process is to be recycled.
    pub(super) fn recycle_reason(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.started?);
        self.recycle.reason(self.health.as_ref(), age)
    }

    /// A report without what only the worker's own link or threads tell.
    pub(super) fn report(self, id: usize) -> WorkerReport {
        WorkerReport {
            id,
            state: self.state,
            pid: self.pid,
            started: self.started,
            heartbeat_age: None,
            in_flight: 0,
            waiting: 0,
            health: self.health,
            restarts: self.restarts,
            last_exit: self.last_exit,
            version: None,
        }
    }
}
