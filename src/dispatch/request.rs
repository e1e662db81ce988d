//! A request: a job for a tenant with its one answer, as one value that travels to a worker.

use std::time::Instant;

use super::{Answer, Job, RequestId};
use crate::base::error::DispatchError;
use crate::dispatch::worker_like::next_request_id;
use crate::wire::data::TenantId;

/// A job on its way to its tenant's worker. It comes back whole, as [`Refused`], from a worker that
/// does not take it.
#[derive(Debug)]
pub struct Request {
    /// The tenant.
    pub tenant: TenantId,
    /// Names the request, to cancel it.
    pub id: RequestId,
    /// What the tenant is asked to do.
    pub job: Job,
    /// How long the job may wait for a worker that is not ready. From then on the caller that waits
    /// for the answer enforces it, with [`cancel`](super::worker_like::WorkerLike::cancel).
    pub deadline: Instant,
    /// Where the answer goes.
    pub answer: Answer,
    /// Whether the tenant's subscriptions decide about it.
    pub delivery: Delivery,
}

/// Whether a tenant's subscriptions decide about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// They do: one that the tenant is not subscribed to is answered null.
    #[default]
    IfSubscribed,
    /// The tenant gets it in any case: it asked for it in another way.
    Always,
}

impl Request {
    /// A request under a new id.
    pub fn new(tenant: TenantId, job: Job, deadline: Instant, answer: Answer) -> Self {
        let (id, delivery) = (next_request_id(), Delivery::default());
        Self { tenant, id, job, deadline, answer, delivery }
    }

    /// The same for the tenant, also if it is not subscribed to the event.
    pub fn to_tenant(self) -> Self {
        Self { delivery: Delivery::Always, ..self }
    }

    /// The request as one that is not taken, for this reason.
    pub fn refused(self, error: DispatchError) -> Box<Refused> {
        Box::new(Refused { request: self, error })
    }
}

/// A request that was not taken: nothing was sent, and its answer is still to be sent.
#[derive(Debug)]
pub struct Refused {
    /// The request, whole.
    pub request: Request,
    /// Why. A link that has ended refuses with `NotSent`: the request may be tried elsewhere.
    pub error: DispatchError,
}

impl Refused {
    /// Answers the request with the reason.
    pub fn answer(self) {
        self.request.answer.send(Err(self.error));
    }
}
