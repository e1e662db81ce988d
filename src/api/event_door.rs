//! Where the events of streams, and of requests with many, go: to their tenant's worker, or to the
//! master that has the tenant.

use std::sync::Arc;
use std::time::Instant;

use super::cluster::{EventForwarder, EventToForward};
use super::event_keys::{EventKey, EventKeys, KeyClaim};
use super::event_line::{LineOutcome, LineOutcomes, WantedAnswer};
use super::{Api, InternalEndpoint, OVER_RATE};
use crate::base::error::DispatchError;
use crate::base::rates::Rates;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, Delivery, Job, Refused, Request, RequestId};
use crate::wire::data::TenantId;

/// What events are handed over with.
#[derive(Clone)]
pub(super) struct EventDoor {
    pool: Arc<dyn WorkerLike>,
    forwarder: Arc<EventForwarder>,
    pub(super) keys: Arc<EventKeys>,
    outcomes: Arc<LineOutcomes>,
    /// Of the caller, whose user it is.
    rate: Option<(Arc<Rates<u64>>, u64)>,
}

/// How an event is handed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventTerms<'e> {
    pub(super) tenant: TenantId,
    pub(super) id: RequestId,
    pub(super) deadline: Instant,
    pub(super) want: WantedAnswer,
    pub(super) key: Option<&'e EventKey>,
}

/// What became of an event that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventTaken {
    /// It is in its tenant's queue, and nothing else is to come.
    InQueue,
    /// Its answer comes.
    Awaited,
}

impl EventDoor {
    pub(super) fn of(api: &Api, caller: Option<InternalEndpoint>) -> Self {
        let rate = api.rates.clone().zip(caller.map(|caller| caller.user_id));
        let (forwarder, keys) = (api.event_forwarder.clone(), api.event_keys.clone());
        Self { pool: api.pool.clone(), forwarder, keys, outcomes: api.event_lines.clone(), rate }
    }

    /// Counts a line that came to this.
    pub(super) fn count(&self, outcome: LineOutcome) {
        self.outcomes.add(outcome, 1);
    }

    /// Remembers the key of an event, if it has one.
    pub(super) fn claim(&self, key: Option<&EventKey>) -> KeyClaim {
        key.map_or(KeyClaim::First, |key| self.keys.claim(key, Instant::now()))
    }

    /// Forgets the key of an event that was not sent: it may come again.
    pub(super) fn release(&self, key: Option<&EventKey>) {
        key.into_iter().for_each(|key| self.keys.release(key));
    }

    /// Hands an event over; `answer` makes where its answer goes, if one is to come.
    ///
    /// # Errors
    /// Why it was not taken, and the job: one for which there is no room counts as none yet, and is
    /// kept by its caller or [counted](Self::count) as what it came to.
    pub(super) fn offer(
        &self,
        event: EventTerms<'_>,
        job: Job,
        answer: impl Fn() -> Answer,
    ) -> Result<EventTaken, Box<(Job, DispatchError)>> {
        if let Some((rates, user_id)) = &self.rate
            && !rates.admits(*user_id, Instant::now())
        {
            return Err(Box::new((job, DispatchError::Busy(OVER_RATE.to_owned()))));
        }
        let taken = self.hand_over(event, job, answer);
        if let (Err(_), Some((rates, user_id))) = (&taken, &self.rate) {
            rates.give_back(*user_id);
        }
        if !taken.as_ref().is_err_and(|refused| matches!(refused.1, DispatchError::Busy(_))) {
            self.count(LineOutcome::HandedOver);
        }
        taken
    }

    /// Gives up an event that was handed over: to give it up is to answer it, if it has not been.
    pub(super) fn cancel(&self, tenant: TenantId, id: RequestId) {
        if !self.forwarder.cancel(tenant, id) {
            self.pool.cancel(tenant, id);
        }
    }

    fn hand_over(
        &self,
        EventTerms { tenant, id, deadline, want, key }: EventTerms<'_>,
        job: Job,
        answer: impl Fn() -> Answer,
    ) -> Result<EventTaken, Box<(Job, DispatchError)>> {
        let is_awaited = want == WantedAnswer::Result;
        let delivery = Delivery::default();
        let of = |job, answer| Request { tenant, id, job, deadline, answer, delivery };
        // Behind those of the tenant that are on their way to another master.
        let (job, local) = if self.forwarder.has(tenant) {
            (job, None)
        } else {
            let local = if is_awaited { answer() } else { Answer::unawaited() };
            match self.pool.try_submit(of(job, local)) {
                Ok(()) => {
                    key.into_iter().for_each(|key| self.keys.taken(key));
                    return Ok(if is_awaited { EventTaken::Awaited } else { EventTaken::InQueue });
                }
                Err(refused) => {
                    let Refused { request: Request { job, answer, .. }, error } = *refused;
                    if !matches!(error, DispatchError::NotOwner) {
                        end(answer, &error);
                        return Err(Box::new((job, error)));
                    }
                    (job, Some(answer))
                }
            }
        };
        let event = EventToForward { request: of(job, answer()), is_awaited, key: key.cloned() };
        match self.forwarder.submit(event) {
            Ok(()) => {
                local.into_iter().for_each(|local| end(local, &DispatchError::NotOwner));
                Ok(EventTaken::Awaited)
            }
            Err(refused) => {
                let Refused { request: Request { job, answer, .. }, error } = *refused;
                // What becomes of the event here is what becomes of it there.
                local.into_iter().chain([answer]).for_each(|answer| end(answer, &error));
                Err(Box::new((job, error)))
            }
        }
    }
}

/// Ends an answer that its caller gets another way, unless the event is offered again.
fn end(answer: Answer, error: &DispatchError) {
    match error {
        DispatchError::Busy(_) => answer.hand_back(),
        _ => answer.refuse(error),
    }
}
