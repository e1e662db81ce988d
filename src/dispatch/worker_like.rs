//! The [`WorkerLike`] trait: what every kind of worker, and a pool of them, can do.
//!
//! Implemented by `WorkerThread` (VMs in this process), `WorkerThreadHandle` (one that can be
//! started anew), `MesophyllServerConn` (a link), `WorkerProcessHandle` (a supervised process
//! behind links), `WorkerPool` (all of a master's, by the sharding formula) and `AdmittingPool`
//! (the same without banned tenants). Also makes request ids. Calls come from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::base::error::DispatchError;
use crate::base::random;
use crate::dispatch::{
    Answer, Cancelled, Delivery, DispatchResult, Job, Refused, Request, RequestId, Slot,
};
use crate::wire::data::{CreateEvent, TenantId};

/// A worker, or a pool of workers.
// A pool is never empty: its configuration asks for at least one worker.
#[allow(clippy::len_without_is_empty)]
pub trait WorkerLike: Send + Sync {
    /// The worker's number; a pool answers 0.
    fn id(&self) -> usize;

    /// How many workers it stands for.
    fn len(&self) -> usize {
        1
    }

    /// Hands a request over and returns at once; its answer gets the result, exactly once, on the
    /// thread that has it.
    ///
    /// # Errors
    /// The request was not taken, and nothing was sent; it comes back whole.
    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>>;

    /// As [`WorkerLike::try_submit`], but a request that is not taken is answered so.
    fn submit(&self, request: Request) {
        if let Err(refused) = self.try_submit(request) {
            refused.answer();
        }
    }

    /// Gives a job up: a queued one is dropped, a running one ends as cancelled, and its `Answer`
    /// no longer counts.
    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled;

    /// Ends the worker at once and for good; what is pending is answered with an error.
    ///
    /// # Blocks
    /// Until a process was killed and waited for, or threads joined: seconds at most.
    fn kill(&self);

    /// Hands an event over without waiting for its result.
    ///
    /// # Errors
    /// Why it was not taken.
    fn dispatch_event_nowait(
        &self,
        tenant: TenantId,
        event: CreateEvent,
        deadline: Instant,
    ) -> Result<(), DispatchError> {
        let answer = Answer::unawaited();
        self.submit_unawaited(Request::new(tenant, Job::Dispatch(event), deadline, answer))
    }

    /// Hands a request over whose answer no caller waits for.
    ///
    /// # Errors
    /// Why it was not taken.
    fn submit_unawaited(&self, request: Request) -> Result<(), DispatchError> {
        self.try_submit(request).map_err(|refused| {
            let Refused { request, error } = *refused;
            request.answer.refuse(&error);
            error
        })
    }

    /// Runs the tenant's template on an event and waits for its result.
    ///
    /// # Blocks
    /// Until the answer or `deadline`.
    ///
    /// # Errors
    /// Why there is no result; see [`DispatchError`].
    fn dispatch_event(
        &self,
        tenant: TenantId,
        event: CreateEvent,
        deadline: Instant,
    ) -> DispatchResult {
        start(self, tenant, Job::Dispatch(event), deadline).wait()
    }

    /// Runs a script in the tenant's VM and waits for its result; blocks and errors as
    /// [`WorkerLike::dispatch_event`].
    ///
    /// # Errors
    /// Why there is no result; see [`DispatchError`].
    fn run_script(
        &self,
        tenant: TenantId,
        name: &str,
        code: &str,
        event: CreateEvent,
        deadline: Instant,
    ) -> DispatchResult {
        let job = Job::RunScript { name: name.to_owned(), code: code.to_owned(), event };
        start(self, tenant, job, deadline).wait()
    }

    /// Closes the tenant's VM and waits until that is done; blocks and errors as
    /// [`WorkerLike::dispatch_event`].
    ///
    /// # Errors
    /// Why it is not known to be closed; see [`DispatchError`].
    fn drop_tenant(&self, tenant: TenantId, deadline: Instant) -> Result<(), DispatchError> {
        start(self, tenant, Job::DropTenant, deadline).wait().map(drop)
    }
}

/// Starts a job and returns a handle to wait on, so that one thread can have thousands in flight.
pub fn start<W: WorkerLike + ?Sized>(
    worker: &W,
    tenant: TenantId,
    job: Job,
    deadline: Instant,
) -> PendingDispatch<'_, W> {
    start_as(worker, tenant, next_request_id(), job, deadline)
}

/// As [`start`], under a request id that was taken before.
pub fn start_as<W: WorkerLike + ?Sized>(
    worker: &W,
    tenant: TenantId,
    request_id: RequestId,
    job: Job,
    deadline: Instant,
) -> PendingDispatch<'_, W> {
    let slot = Arc::new(Slot::default());
    let answer = Answer::slot(slot.clone());
    let delivery = Delivery::default();
    worker.submit(Request { tenant, id: request_id, job, deadline, answer, delivery });
    PendingDispatch { worker, tenant, request_id, slot, deadline, is_over: false }
}

/// A request id that no other job of this process has: random at the start of the process, and
/// never the same again.
pub fn next_request_id() -> RequestId {
    static SEED: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.get_or_init(random::u64);
    // Distinct counts give distinct request ids.
    RequestId(random::mix(seed.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed))))
}

/// A job under way. Dropping it gives the job up.
#[must_use = "dropping it cancels the job"]
pub struct PendingDispatch<'w, W: WorkerLike + ?Sized> {
    worker: &'w W,
    tenant: TenantId,
    request_id: RequestId,
    slot: Arc<Slot>,
    deadline: Instant,
    /// It has its answer, or was given up.
    is_over: bool,
}

impl<W: WorkerLike + ?Sized> PendingDispatch<'_, W> {
    /// Waits for the answer.
    ///
    /// # Blocks
    /// Until the answer or the deadline given at the start.
    ///
    /// # Errors
    /// Why there is no result; see [`DispatchError`].
    pub fn wait(self) -> DispatchResult {
        self.slot.wait_until_answered(self.deadline);
        self.finish()
    }

    /// Takes the answer, or gives the job up if it is not there; never blocks. For a caller that
    /// has waited already.
    ///
    /// # Errors
    /// Why there is no result; see [`DispatchError`].
    pub fn finish(mut self) -> DispatchResult {
        self.is_over = true;
        if let Some(result) = self.slot.take() {
            return result;
        }
        match self.worker.cancel(self.tenant, self.request_id) {
            Cancelled::Waiting => Err(no_worker_in_time()),
            Cancelled::Sent => Err(DispatchError::Deadline { sent: true }),
            // The answer came between the look and here.
            Cancelled::Unknown => {
                self.slot.take().unwrap_or(Err(DispatchError::Deadline { sent: true }))
            }
        }
    }

    /// Where the answer arrives, for a caller that may have to stop waiting for it.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl<W: WorkerLike + ?Sized> Drop for PendingDispatch<'_, W> {
    fn drop(&mut self) {
        if !self.is_over {
            self.worker.cancel(self.tenant, self.request_id);
        }
    }
}

/// What a job gets whose deadline passed while it waited for a worker.
pub fn no_worker_in_time() -> DispatchError {
    DispatchError::NoWorker("no worker was ready before the deadline".to_owned())
}

/// What a job gets that ran, or may have, when its tenant became another master's.
pub fn handed_over() -> DispatchError {
    let text = "its tenant was handed over to another master before it ended";
    DispatchError::OutcomeUnknown(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn request_ids_do_not_repeat() {
        let request_ids: HashSet<RequestId> = (0..10_000).map(|_| next_request_id()).collect();
        assert_eq!(request_ids.len(), 10_000);
    }
}
