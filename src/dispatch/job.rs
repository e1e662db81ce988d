//! A request to a tenant and its one answer.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::{JobKind, Observed, Slot};
use crate::base::error::DispatchError;
use crate::wire::data::{CreateEvent, EncodedValue, TenantId};

/// What a tenant answers, or why it did not.
pub type DispatchResult = Result<EncodedValue, DispatchError>;

/// What a tenant can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Run the tenant's template on an event.
    Dispatch(CreateEvent),
    /// Run a script in the tenant's VM.
    RunScript {
        /// Name shown in errors.
        name: String,
        /// Luau source.
        code: String,
        /// What `ctx:event()` returns.
        event: CreateEvent,
    },
    /// Cancel what runs, close the VM and free its memory; answers null.
    DropTenant,
}

impl Job {
    /// What it is called in the log: the event's or script's name.
    pub fn name(&self) -> &str {
        match self {
            Job::Dispatch(event) => &event.name,
            Job::RunScript { name, .. } => name,
            Job::DropTenant => "drop",
        }
    }

    /// How much memory it holds, as far as its sender decides: what queues of jobs are bounded by.
    pub fn bytes(&self) -> usize {
        match self {
            Job::Dispatch(event) => event.bytes(),
            Job::RunScript { name, code, event } => name.len() + code.len() + event.bytes(),
            Job::DropTenant => 0,
        }
    }
}

/// Names a submitted job, to cancel it: unique among the jobs of one worker that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// As it stands in logs.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a job was doing when it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited for a worker to be ready: nothing was run.
    Waiting,
    /// It had been handed to a worker.
    Sent,
    /// No such job: it has been answered, or never was.
    Unknown,
}

/// Where the answer of a job goes, exactly once.
///
/// Invariant: an `Answer` that is dropped unsent answers `OutcomeUnknown`, so no caller waits for
/// ever.
#[must_use = "a dropped Answer tells its waiter that the outcome is unknown"]
pub struct Answer {
    target: Option<AnswerTarget>,
    observed: Option<Observed>,
    is_subscribed: bool,
}

enum AnswerTarget {
    Slot(Arc<Slot>),
    Channel(Sender<DispatchResult>),
    Callback(Box<dyn FnOnce(DispatchResult, bool) + Send>),
    Taker(TenantId, RequestId, Arc<dyn AnswerTaker>),
    Watcher(TenantId, Arc<dyn EventWatcher>),
    Nobody,
}

/// Takes the answers to many jobs: as a callback does, without one being made for each.
pub trait AnswerTaker: Send + Sync {
    /// The answer to this job of the tenant's, and whether the tenant is subscribed to the event.
    /// Called once for each, on the thread that has the answer: it must not block.
    fn take(&self, tenant: TenantId, id: RequestId, result: DispatchResult, is_subscribed: bool);
}

/// Is told how events end whose callers do not wait for them.
pub trait EventWatcher: Send + Sync {
    /// An event of the tenant has ended. Called once for each, on the thread that has the answer:
    /// it must not block.
    fn ended(&self, tenant: TenantId, result: DispatchResult);
}

impl Answer {
    /// Puts the answer where one thread waits for it.
    pub fn slot(slot: Arc<Slot>) -> Self {
        Self::to(AnswerTarget::Slot(slot))
    }

    /// Sends the answer into a channel with room for it (`bounded(1)`); never blocks.
    pub fn channel(answer_tx: Sender<DispatchResult>) -> Self {
        Self::to(AnswerTarget::Channel(answer_tx))
    }

    /// Hands the answer to what takes those of many jobs.
    pub fn taken(tenant: TenantId, id: RequestId, taker: Arc<dyn AnswerTaker>) -> Self {
        Self::to(AnswerTarget::Taker(tenant, id, taker))
    }

    /// Calls back with the answer, on the thread that has it. The callback must not block.
    pub fn callback(callback: impl FnOnce(DispatchResult) + Send + 'static) -> Self {
        Self::callback_with_subscription(move |result, _| callback(result))
    }

    /// As [`Answer::callback`], for a callback that is also told whether the tenant is subscribed
    /// to the event.
    pub fn callback_with_subscription(
        callback: impl FnOnce(DispatchResult, bool) + Send + 'static,
    ) -> Self {
        Self::to(AnswerTarget::Callback(Box::new(callback)))
    }

    /// An answer that no caller waits for: only its [`Observed`] and its worker learn of it.
    pub fn unawaited() -> Self {
        Self::to(AnswerTarget::Nobody)
    }

    /// As [`Answer::unawaited`], of an event of this tenant, which is watched.
    pub fn watched(tenant: TenantId, watcher: Arc<dyn EventWatcher>) -> Self {
        Self::to(AnswerTarget::Watcher(tenant, watcher))
    }

    /// Whether a caller waits for the answer.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.target, Some(AnswerTarget::Nobody | AnswerTarget::Watcher(..)))
    }

    /// Has an answer watched that no caller waits for, unless it is watched already.
    pub fn watch(&mut self, tenant: TenantId, watcher: impl FnOnce() -> Arc<dyn EventWatcher>) {
        if matches!(self.target, Some(AnswerTarget::Nobody)) {
            self.target = Some(AnswerTarget::Watcher(tenant, watcher()));
        }
    }

    fn to(target: AnswerTarget) -> Self {
        Self { target: Some(target), observed: None, is_subscribed: true }
    }

    /// Says beside the answer that the tenant is not subscribed to the event, so that nothing was
    /// run.
    pub fn mark_not_subscribed(&mut self) {
        self.is_subscribed = false;
    }

    /// Answers that the tenant is not subscribed to the event, with null.
    pub fn send_not_subscribed(mut self) {
        self.mark_not_subscribed();
        self.send(Ok(EncodedValue::null()));
    }

    /// Has this job told of when it is answered, however that comes about.
    pub fn observe(&mut self, observed: Observed) {
        self.observed = Some(observed);
    }

    /// The name of the job, if it is observed.
    pub fn name(&self) -> Option<&str> {
        self.observed.as_ref().map(|observed| observed.name())
    }

    /// What was asked for, if the job is observed.
    pub fn kind(&self) -> Option<JobKind> {
        self.observed.as_ref().map(|observed| observed.kind)
    }

    /// When the job was asked for, if it is observed.
    pub fn since(&self) -> Option<Instant> {
        self.observed.as_ref().map(|observed| observed.since)
    }

    /// Delivers the answer.
    pub fn send(mut self, result: DispatchResult) {
        self.deliver(result);
    }

    /// Lets go of it unsent: the waiter is told of this error in another way.
    pub fn refuse(mut self, error: &DispatchError) {
        self.target = None;
        if let Some(observed) = self.observed.take() {
            observed.ended(Err(error));
        }
    }

    /// Lets go of it unsent, as its job was not taken and is kept to be offered again.
    pub fn hand_back(mut self) {
        self.target = None;
        if let Some(observed) = self.observed.take() {
            observed.handed_back();
        }
    }

    fn deliver(&mut self, result: DispatchResult) {
        if let Some(observed) = self.observed.take() {
            observed.ended(result.as_ref().map(drop));
        }
        match self.target.take() {
            Some(AnswerTarget::Slot(slot)) => slot.put(result, self.is_subscribed),
            // A waiter that has gone away needs no answer.
            Some(AnswerTarget::Channel(answer_tx)) => drop(answer_tx.try_send(result)),
            Some(AnswerTarget::Callback(callback)) => callback(result, self.is_subscribed),
            Some(AnswerTarget::Taker(tenant, id, taker)) => {
                taker.take(tenant, id, result, self.is_subscribed);
            }
            Some(AnswerTarget::Watcher(tenant, watcher)) => watcher.ended(tenant, result),
            Some(AnswerTarget::Nobody) | None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.target.is_some() {
            self.deliver(Err(DispatchError::OutcomeUnknown("the worker went away".to_owned())));
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    #[test]
    fn a_dropped_answer_still_answers() {
        let (answer_tx, answer_rx) = bounded(1);
        drop(Answer::channel(answer_tx));
        assert!(matches!(answer_rx.try_recv(), Ok(Err(DispatchError::OutcomeUnknown(_)))));
    }

    #[test]
    fn an_answer_is_delivered_once() {
        let (answer_tx, answer_rx) = bounded(2);
        Answer::callback(move |result| answer_tx.send(result).expect("room"))
            .send(Ok(EncodedValue::null()));
        assert_eq!(answer_rx.recv(), Ok(Ok(EncodedValue::null())));
        assert!(answer_rx.recv().is_err());
    }
}
