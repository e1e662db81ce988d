//! Answers of events that nobody waits for: a failure is told to the operator, since nobody else learns of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::DispatchError;
use crate::model::{Answer, CreateEvent, Job, Observed, TenantId};
use crate::worker_like::next_ticket;

use super::route::{Refused, Router, Target};

/// Counts the failures of one worker's events that nobody waited for. Cheap to clone; called from any thread.
#[derive(Debug, Clone)]
pub(super) struct Unseen {
    worker_id: usize,
    failures: Arc<AtomicU64>,
}

impl Unseen {
    pub(super) fn new(worker_id: usize) -> Self {
        Self { worker_id, failures: Arc::default() }
    }

    /// Hands such an event to its worker's router; what becomes of it is told to nobody but the operator and `observed`.
    ///
    /// # Errors
    /// Why the router did not take it; nothing was sent.
    pub(super) fn submit<T: Target>(
        &self,
        router: &Router<T>,
        tenant: TenantId,
        event: CreateEvent,
        deadline: Instant,
        observed: Option<Box<Observed>>,
    ) -> Result<(), DispatchError> {
        let answer = self.answer(tenant, observed);
        let taken = router.submit(tenant, next_ticket(), Job::Dispatch(event), deadline, answer);
        taken.map_err(|Refused(answer, error)| {
            answer.refuse(&error);
            error
        })
    }

    /// The answer of such an event.
    pub(super) fn answer(&self, tenant: TenantId, observed: Option<Box<Observed>>) -> Answer {
        let Unseen { worker_id, failures } = self.clone();
        Answer::callback(move |result| {
            let Err(error) = result else { return };
            let count = failures.fetch_add(1, Ordering::Relaxed) + 1;
            // Rate-limited by powers of two, and without the text, which a script may have written.
            if count.is_power_of_two() {
                let kind = error.kind();
                log::warn!(worker = worker_id, tenant:% = tenant;
                    "worker {worker_id}: {count} events that nobody waited for failed, the last one for {tenant}: {kind}"
                );
            }
        })
        .observed(observed)
    }
}
