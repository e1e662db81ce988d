//! A link between a master and a worker, in virtual time: the master's end is what
//! `MesophyllServerConn` is in the product, around the same map of pending requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::error::DispatchError;
use crate::base::sync::Lock;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, Cancelled, DispatchResult, Job, Refused, Request, RequestId};
use crate::net::link::{CloseCause, Pending, Registered, close_code};
use crate::pool::route::{DispatchTarget, Router};
use crate::wire::data::TenantId;

use super::planted::Planted;

/// What a master sends.
#[derive(Debug, Clone)]
pub(super) enum ToWorker {
    Dispatch(TenantId, usize),
    Drop(TenantId, usize),
    Cancel(usize),
    Retire,
}

/// What a worker sends.
#[derive(Debug, Clone)]
pub(super) enum ToMaster {
    Ready,
    Heartbeat,
    Stuck,
    Answer(usize, DispatchResult),
}

struct SentJob {
    tenant: TenantId,
    is_drop: bool,
    answer: Answer,
}

struct ConnState {
    worker: usize,
    generation: u64,
    pending: Pending<SentJob>,
    max: usize,
    /// What leaves with the end of this step.
    out: Lock<Vec<ToWorker>>,
    out_max: usize,
    end: Lock<Option<CloseCause>>,
    planted: Option<Planted>,
}

/// The master's end of a link.
#[derive(Clone)]
pub(super) struct SimConn(Arc<ConnState>);

fn not_sent() -> DispatchError {
    DispatchError::NotSent("the worker's link has ended".to_owned())
}

impl SimConn {
    /// One that takes so many requests, and so many messages in a step.
    pub(super) fn new(
        worker: usize,
        generation: u64,
        max: usize,
        out_max: usize,
        planted: Option<Planted>,
    ) -> Self {
        let (pending, out, end) = (Pending::new(max), Lock::default(), Lock::default());
        Self(Arc::new(ConnState { worker, generation, pending, max, out, out_max, end, planted }))
    }

    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }

    pub(super) fn cause(&self) -> Option<CloseCause> {
        self.0.end.lock().clone()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.0.pending.len()
    }

    /// Drops find room beyond what others may have.
    pub(super) fn has_too_many(&self) -> bool {
        let mut count = 0;
        self.0.pending.for_each(|_, sent| count += usize::from(!sent.is_drop));
        count > self.0.max
    }

    /// Whose requests wait for their answers.
    pub(super) fn tenants_in_flight(&self) -> BTreeSet<TenantId> {
        let mut tenants = BTreeSet::new();
        self.0.pending.for_each(|_, sent| {
            tenants.insert(sent.tenant);
        });
        tenants
    }

    pub(super) fn seal(&self) {
        self.0.pending.seal();
    }

    pub(super) fn take_out(&self) -> Vec<ToWorker> {
        std::mem::take(&mut *self.0.out.lock())
    }

    /// Its end is known from here on; the first cause sticks.
    pub(super) fn abort(&self, cause: CloseCause) {
        self.0.end.lock().get_or_insert(cause);
    }

    pub(super) fn close(&self, code: u16) {
        self.abort(CloseCause::ClosedByUs(code));
        self.fail_pending(&CloseCause::ClosedByUs(code));
    }

    pub(super) fn retire(&self) {
        let _ = self.push(ToWorker::Retire);
        self.close(close_code::GOING_AWAY);
    }

    pub(super) fn fail_pending(&self, cause: &CloseCause) {
        if self.0.planted == Some(Planted::EndedLinkKeepsItsRequests) {
            return;
        }
        let (waiting, cause) = self.0.pending.close(cause.clone());
        for waiting in waiting {
            let text = format!("the worker went away before it answered: {cause}");
            waiting.answer.send(Err(DispatchError::OutcomeUnknown(text)));
        }
    }

    /// An answer arrives.
    pub(super) fn answered(&self, request: usize, result: DispatchResult) {
        let mut id = request as u64;
        if self.0.planted == Some(Planted::AnswersGoToTheFirst) {
            let mut first = u64::MAX;
            self.0.pending.for_each(|id, _| first = first.min(id));
            id = first;
        }
        if let Some(waiting) = self.0.pending.take(id) {
            waiting.answer.send(result);
        }
    }

    fn push(&self, message: ToWorker) -> Result<(), DispatchError> {
        if self.cause().is_some() {
            return Err(not_sent());
        }
        let mut out = self.0.out.lock();
        if out.len() >= self.0.out_max {
            return Err(DispatchError::Busy("too much waits to be sent".to_owned()));
        }
        out.push(message);
        Ok(())
    }
}

impl WorkerLike for SimConn {
    fn id(&self) -> usize {
        self.0.worker
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        let Request { tenant, id, job, deadline, answer, delivery } = request;
        let refused = |job, SentJob { answer, .. }: SentJob, error| {
            Request { tenant, id, job, deadline, answer, delivery }.refused(error)
        };
        let is_drop = matches!(job, Job::DropTenant);
        let is_unbounded = is_drop || self.0.planted == Some(Planted::LinksHaveNoBound);
        let max = if is_unbounded { usize::MAX } else { self.0.max };
        match self.0.pending.register_within(max, id.0, SentJob { tenant, is_drop, answer }) {
            Registered::Waiting(_) => {}
            Registered::Closed(sent, _) | Registered::Sealed(sent) => {
                return Err(refused(job, sent, not_sent()));
            }
            Registered::Full(sent) | Registered::Duplicate(sent) => {
                let text = "too many dispatches wait for this worker already".to_owned();
                return Err(refused(job, sent, DispatchError::Busy(text)));
            }
        }
        let request = usize::try_from(id.0).expect("a place in the books");
        let message = match is_drop {
            true => ToWorker::Drop(tenant, request),
            false => ToWorker::Dispatch(tenant, request),
        };
        let sent = match (self.push(message), self.0.planted) {
            (Ok(()), Some(Planted::LinksRefuseWhatLeft)) => {
                Err(DispatchError::Busy("though it left".to_owned()))
            }
            (sent, _) => sent,
        };
        let Err(error) = sent else { return Ok(()) };
        match self.0.pending.take(id.0) {
            Some(sent) => Err(refused(job, sent, error)),
            None => Ok(()),
        }
    }

    fn cancel(&self, _: TenantId, id: RequestId) -> Cancelled {
        let Some(waiting) = self.0.pending.take(id.0) else { return Cancelled::Unknown };
        let _ = self.push(ToWorker::Cancel(usize::try_from(id.0).expect("a place in the books")));
        waiting.answer.send(Err(DispatchError::Deadline { sent: true }));
        Cancelled::Sent
    }

    fn kill(&self) {
        self.close(close_code::GOING_AWAY);
    }
}

impl DispatchTarget for SimConn {
    fn takes_dispatches(&self) -> bool {
        self.cause().is_none() && self.0.pending.is_open()
    }
}

/// A worker as its master's pool sees it: what `WorkerProcessHandle` is in the product.
pub(super) struct SimHandle {
    pub(super) id: usize,
    pub(super) router: Router<SimConn>,
}

impl WorkerLike for SimHandle {
    fn id(&self) -> usize {
        self.id
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        self.router.try_submit(request)
    }

    fn cancel(&self, tenant: TenantId, id: RequestId) -> Cancelled {
        self.router.cancel(tenant, id)
    }

    fn kill(&self) {}
}

/// One direction of a link: in order, until it is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) last: Duration,
    /// What would arrive later is lost.
    pub(super) lost_after: Duration,
}

impl Default for Way {
    fn default() -> Self {
        Self { last: Duration::ZERO, lost_after: Duration::MAX }
    }
}

impl Way {
    /// When a message arrives that is sent now; `None`: never.
    pub(super) fn arrives(&mut self, at: Duration) -> Option<Duration> {
        self.last = self.last.max(at);
        (self.last <= self.lost_after).then_some(self.last)
    }
}

impl SimLink {
    pub(super) fn is_whole(&self) -> bool {
        let is_cut = self.to_worker.lost_after.min(self.to_master.lost_after) < Duration::MAX;
        self.has_master_end && self.has_worker_end && !is_cut && !self.is_closing
    }
}

/// A link, with both its ends.
pub(super) struct SimLink {
    pub(super) conn: SimConn,
    pub(super) master: (usize, u64),
    pub(super) worker: usize,
    pub(super) process: usize,
    pub(super) to_worker: Way,
    pub(super) to_master: Way,
    /// Notes of one link reach the supervision loop in order.
    pub(super) noted: Duration,
    pub(super) heard_at: Duration,
    pub(super) is_closing: bool,
    pub(super) has_master_end: bool,
    pub(super) has_worker_end: bool,
    /// The dispatch that left last.
    pub(super) last_dispatch: Option<ToWorker>,
}
