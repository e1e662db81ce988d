//! The [`WorkerLike`] trait: what every kind of worker, and a pool of them, can do.
//!
//! Implemented by `WorkerThread` (VMs in this process), `WorkerProcessHandle` (a child process behind a link) and
//! `WorkerPool` (either, by the sharding formula). Calls come from any thread.

use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::error::DispatchError;
use crate::model::{Answer, Cancelled, CreateEvent, DispatchResult, EncodedValue, Job, TenantId, Ticket};

/// A worker, or a pool of workers.
#[allow(clippy::len_without_is_empty)] // A pool is never empty: its configuration asks for at least one worker.
pub trait WorkerLike: Send + Sync {
    /// The worker's number; a pool answers 0.
    fn id(&self) -> usize;

    /// How many workers it stands for.
    fn len(&self) -> usize;

    /// Hands a job over and returns at once; `answer` gets the result, exactly once, on whichever thread has it.
    ///
    /// `deadline` says how long the job may wait for a worker that is not ready; who waits for the answer enforces it
    /// from then on, with [`WorkerLike::cancel`].
    fn submit(&self, tenant: TenantId, job: Job, deadline: Instant, answer: Answer) -> Ticket;

    /// Gives a job up: a queued one is dropped, a running one ends as cancelled, and its `Answer` no longer counts.
    fn cancel(&self, tenant: TenantId, ticket: Ticket) -> Cancelled;

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
    ) -> Result<(), DispatchError>;

    /// Starts a job and returns a handle to wait on, so that one thread can have thousands in flight.
    fn start(&self, tenant: TenantId, job: Job, deadline: Instant) -> PendingDispatch<'_, Self>
    where
        Self: Sized,
    {
        start(self, tenant, job, deadline)
    }

    /// Runs the tenant's template on an event and waits for its result.
    ///
    /// # Blocks
    /// Until the answer or `deadline`.
    ///
    /// # Errors
    /// Why there is no result; see [`DispatchError`].
    fn dispatch_event(&self, tenant: TenantId, event: CreateEvent, deadline: Instant) -> DispatchResult {
        start(self, tenant, Job::Dispatch(event), deadline).wait()
    }

    /// Runs a script in the tenant's VM and waits for its result; blocks and errors as [`WorkerLike::dispatch_event`].
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

    /// Closes the tenant's VM and waits until that is done; blocks and errors as [`WorkerLike::dispatch_event`].
    ///
    /// # Errors
    /// Why it is not known to be closed; see [`DispatchError`].
    fn drop_tenant(&self, tenant: TenantId, deadline: Instant) -> Result<(), DispatchError> {
        start(self, tenant, Job::DropTenant, deadline).wait().map(drop)
    }
}

/// As [`WorkerLike::start`], for `dyn WorkerLike` too.
pub fn start<W: WorkerLike + ?Sized>(
    worker: &W,
    tenant: TenantId,
    job: Job,
    deadline: Instant,
) -> PendingDispatch<'_, W> {
    let (answer_tx, answer_rx) = bounded(1);
    let ticket = worker.submit(tenant, job, deadline, Answer::channel(answer_tx));
    PendingDispatch { worker, tenant, ticket, answer_rx, deadline, done: false }
}

/// A job under way. Dropping it gives the job up.
#[must_use = "dropping it cancels the job"]
pub struct PendingDispatch<'w, W: WorkerLike + ?Sized> {
    worker: &'w W,
    tenant: TenantId,
    ticket: Ticket,
    answer_rx: Receiver<DispatchResult>,
    deadline: Instant,
    done: bool,
}

impl<W: WorkerLike + ?Sized> PendingDispatch<'_, W> {
    /// Waits for the answer.
    ///
    /// # Blocks
    /// Until the answer or the deadline given at the start.
    ///
    /// # Errors
    /// Why there is no result; see [`DispatchError`].
    pub fn wait(mut self) -> Result<EncodedValue, DispatchError> {
        let answer = self.answer_rx.recv_deadline(self.deadline);
        self.done = answer.is_ok();
        match answer {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.done = true;
                match self.worker.cancel(self.tenant, self.ticket) {
                    Cancelled::Waiting => {
                        Err(DispatchError::NoWorker("no worker was ready before the deadline".to_owned()))
                    }
                    Cancelled::Sent => Err(DispatchError::Deadline { sent: true }),
                    // The answer came between the deadline and here.
                    Cancelled::Unknown => {
                        self.answer_rx.try_recv().unwrap_or(Err(DispatchError::Deadline { sent: true }))
                    }
                }
            }
            // An `Answer` answers when it is dropped, so its channel cannot close without one.
            Err(RecvTimeoutError::Disconnected) => {
                Err(DispatchError::OutcomeUnknown("the worker went away".to_owned()))
            }
        }
    }

    /// The channel on which the answer arrives, for `select!`.
    pub fn answer_rx(&self) -> &Receiver<DispatchResult> {
        &self.answer_rx
    }
}

impl<W: WorkerLike + ?Sized> Drop for PendingDispatch<'_, W> {
    fn drop(&mut self) {
        if !self.done {
            self.worker.cancel(self.tenant, self.ticket);
        }
    }
}
