//! What an operator can see and do of a worker of either kind.

use std::fmt;
use std::time::{Duration, Instant};

use crate::dispatch::worker_like::WorkerLike;
use crate::wire::data::TenantId;
use crate::wire::data::sharding::ShardSet;

use super::process::handle::{RestartError, WorkerReport};
use super::process::supervisor::Cause;
use super::vms::Vms;

/// A worker that an operator can look at, end and start anew.
pub trait Managed: WorkerLike {
    /// What there is to see of it.
    fn report(&self) -> WorkerReport;

    /// Asks which of these tenants have a VM on it; does not wait for the answer.
    fn query_vms(&self, tenants: &[TenantId]) -> Vms;

    /// When its supervision loop last came round, which it does every second at least; `None` for a
    /// worker without one.
    fn supervised_at(&self) -> Option<Instant>;

    /// Starts the worker anew: one that is ready answers first what it has in flight, while new
    /// dispatches wait; one that failed, or was stopped, gets another chance. Does not wait for
    /// that; [`Managed::wait_until_restarted`] does, with the number that this returns.
    ///
    /// # Blocks
    /// Until it has begun, which is at once unless the machine stalls.
    ///
    /// # Errors
    /// See [`RestartError`].
    fn restart(&self, cause: Cause) -> Result<u64, RestartError>;

    /// Waits until a worker that was to be restarted is ready again; `restarts` is what
    /// [`Managed::restart`] returned.
    ///
    /// # Blocks
    /// Until it is ready, it is known not to be, or `deadline`.
    ///
    /// # Errors
    /// Why it is not ready.
    fn wait_until_restarted(&self, restarts: u64, deadline: Instant) -> Result<(), RestartError>;

    /// Ends the worker at once; it stays stopped until it is restarted. An external worker's link
    /// is closed.
    ///
    /// # Blocks
    /// Until it has ended; a few seconds at most.
    ///
    /// # Errors
    /// See [`RestartError`].
    fn kill_until_restart(&self) -> Result<(), RestartError>;

    /// Its tenants are those of exactly these shards from now on: it closes the VMs of those that
    /// it had, and starts those that it had not. A worker that is away is told when it is back.
    fn serve_shards(&self, served: &ShardSet);

    /// Ends jobs of tenants of these shards, which are not served any more: what waits for the
    /// worker and has a caller is handed back as `NotOwner`. If it `is_over`, so is what has none,
    /// and the outcome of what the worker has is unknown.
    fn leave_shards(&self, shards: &ShardSet, is_over: bool);

    /// Logs how many events without a waiter are lost when the process ends now.
    fn log_abandoned(&self);

    /// How long a restart may take before it counts as failed.
    fn restart_timeout(&self) -> Duration;

    /// Ends the worker gracefully and for good: what is in flight may be answered until
    /// `drain_until`.
    ///
    /// # Blocks
    /// Until it has ended, or `deadline`; true if it has.
    fn stop(&self, drain_until: Instant, deadline: Instant) -> bool;
}

impl fmt::Debug for dyn Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Managed({})", self.id())
    }
}
