//! What the pool was asked for and how it ended, by worker: counts by kind and outcome, and how
//! long it took.
//!
//! Every job passes here twice: where it enters ([`AdmittingPool`](crate::pool::AdmittingPool)) it
//! gets an [`Observed`], and where it ends, in any layer, that calls [`Traffic::ended`], with
//! tenant, name, error and duration in hand. Owned by the master; written from every thread that
//! has an answer. The locks there (a worker's unanswered jobs, the busiest tenants, the last
//! errors) are held for a few steps in memory, never across something that blocks.

use std::time::Instant;

use crate::base::error::DispatchError;
use crate::base::labels::{Grid, labels};
use crate::base::limits::{
    PENDING_MAX, TENANT_UNANSWERED_MAX, TENANT_UNHEARD_MAX, UNANSWERED_BYTES,
};
use crate::base::metrics::Counter;
use crate::base::sync::Lock;
use crate::dispatch::{JobKind, Observed, Observer};
use crate::wire::data::sharding::{Shard, ShardSet, worker_for};
use crate::wire::data::{Shares, TenantId};

use super::recent_errors::RecentErrors;
use crate::dispatch::busiest::Busiest;

labels! {
    /// How a job ended, as a label: one for each [`DispatchError`], and one for success.
    Outcome {
        /// It was answered; an event that the tenant is not subscribed to is, too.
        Ok = "ok",
        /// The template failed.
        Script = "script",
        /// A queue was full.
        Busy = "busy",
        /// Its deadline passed, or its caller went away, after it may have left.
        Deadline = "deadline",
        /// No worker came in time, or it has failed.
        NoWorker = "no_worker",
        /// The link would not take it.
        NotSent = "not_sent",
        /// The worker went away before it answered.
        OutcomeUnknown = "outcome_unknown",
        /// The tenant is banned.
        Banned = "banned",
        /// The tenant is quarantined.
        Quarantined = "quarantined",
        /// The tenant is another master's now.
        NotOwner = "not_owner",
        /// The event or its answer is too large for a message.
        TooLarge = "too_large",
        /// The event cannot be understood.
        BadInput = "bad_input",
    }
}

impl Outcome {
    /// What became of a job.
    pub fn of(outcome: Result<(), &DispatchError>) -> Self {
        match outcome {
            Ok(()) => Outcome::Ok,
            Err(DispatchError::Script(_)) => Outcome::Script,
            Err(DispatchError::Busy(_)) => Outcome::Busy,
            Err(DispatchError::Deadline { .. }) => Outcome::Deadline,
            Err(DispatchError::NoWorker(_)) => Outcome::NoWorker,
            Err(DispatchError::NotSent(_)) => Outcome::NotSent,
            Err(DispatchError::OutcomeUnknown(_)) => Outcome::OutcomeUnknown,
            Err(DispatchError::Banned) => Outcome::Banned,
            Err(DispatchError::Quarantined) => Outcome::Quarantined,
            Err(DispatchError::NotOwner) => Outcome::NotOwner,
            Err(DispatchError::TooLarge { .. }) => Outcome::TooLarge,
            Err(DispatchError::BadInput(_)) => Outcome::BadInput,
        }
    }
}

/// The traffic of one worker's tenants.
#[derive(Debug, Default)]
pub struct WorkerTraffic {
    ended: Grid<JobKind, Outcome>,
    /// Jobs that were admitted and have not ended.
    unanswered: Lock<Shares>,
}

impl WorkerTraffic {
    /// The jobs that ended, and how long they took from when they were asked for.
    pub fn ended(&self) -> &Grid<JobKind, Outcome> {
        &self.ended
    }

    fn admit(&self, job: &Observed, bytes: usize) -> Result<(), DispatchError> {
        let tenant = job.tenant;
        let max = match job.kind {
            JobKind::EventNowait => TENANT_UNHEARD_MAX,
            _ => TENANT_UNANSWERED_MAX,
        };
        let mut unanswered = self.unanswered.lock();
        let held = unanswered.held(tenant).pieces;
        if held >= max {
            return Err(DispatchError::Busy(format!(
                "{held} events of this tenant are not answered yet"
            )));
        }
        let is_full = held + unanswered.total().pieces >= PENDING_MAX;
        if is_full || !unanswered.has_room(tenant, bytes, UNANSWERED_BYTES) {
            return Err(DispatchError::Busy(
                "its worker has as much to do as it may have".to_owned(),
            ));
        }
        unanswered.add(Some(tenant), bytes);
        Ok(())
    }

    fn free(&self, job: &Observed) {
        if let Some(bytes) = job.holds {
            self.unanswered.lock().remove(Some(job.tenant), bytes);
        }
    }
}

/// The traffic of a pool.
#[derive(Debug)]
pub struct Traffic {
    workers: Vec<WorkerTraffic>,
    busiest: Busiest,
    errors: RecentErrors,
    /// Events that were for no tenant, by [`EventRules`](crate::pool::EventRules).
    pub skipped: Counter,
}

impl Traffic {
    /// Of a pool of so many workers; at least one.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| WorkerTraffic::default()).collect(),
            busiest: Busiest::new(Instant::now()),
            errors: RecentErrors::default(),
            skipped: Counter::default(),
        }
    }

    /// By worker, in order of their ids.
    pub fn workers(&self) -> &[WorkerTraffic] {
        &self.workers
    }

    /// The tenants with most of it.
    pub fn busiest(&self) -> &Busiest {
        &self.busiest
    }

    fn worker_of(&self, tenant: TenantId) -> &WorkerTraffic {
        &self.workers[worker_for(tenant, self.workers.len())]
    }

    /// Admits a job of so many bytes, if its worker has room for it: then the worker will take it.
    /// It takes its room until it has ended.
    ///
    /// # Errors
    /// `Busy`: too much of this tenant, or of all, is unanswered.
    pub(in crate::pool) fn admit(
        &self,
        job: &mut Observed,
        bytes: usize,
    ) -> Result<(), DispatchError> {
        self.worker_of(job.tenant).admit(job, bytes)?;
        job.holds = Some(bytes);
        Ok(())
    }

    /// Whether a job of a tenant of these shards was admitted and has not ended.
    pub fn has_unanswered(&self, shards: &ShardSet) -> bool {
        let is_of = |tenant| shards.contains(Shard::of(tenant));
        self.workers.iter().any(|worker| worker.unanswered.lock().holders().any(is_of))
    }

    /// How it failed lately.
    pub fn errors(&self) -> &RecentErrors {
        &self.errors
    }
}

impl Observer for Traffic {
    fn ended(&self, job: &Observed, outcome: Result<(), &DispatchError>) {
        let now = Instant::now();
        let took = now.saturating_duration_since(job.since);
        let ended = Outcome::of(outcome);
        let worker = self.worker_of(job.tenant);
        worker.free(job);
        worker.ended.record(job.kind, ended, took);
        self.busiest.record(job.tenant, took, now);
        if let Err(error) = outcome {
            self.errors.record(job.tenant, job.name(), ended.as_str(), error, now);
        }
    }

    fn handed_back(&self, job: &Observed) {
        self.worker_of(job.tenant).free(job);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::dispatch::Answer;
    use crate::wire::data::{EncodedValue, TenantId};

    #[test]
    fn a_tenants_queue_has_an_end_and_leaves_room_to_others() {
        let traffic = Arc::new(Traffic::new(1));
        let (greedy, other) = (TenantId::Guild(1), TenantId::User(1));
        let admit_as = |kind, tenant, bytes| {
            let mut job = Observed::new(traffic.clone(), tenant, kind, "E", Instant::now());
            traffic.admit(&mut job, bytes).map(|()| job)
        };
        let admit = |tenant, bytes| admit_as(JobKind::Event, tenant, bytes);
        let fill =
            |tenant, bytes| std::iter::from_fn(|| admit(tenant, bytes).ok()).collect::<Vec<_>>();
        let unawaited = || admit_as(JobKind::EventNowait, greedy, 100).ok();
        let mut small: Vec<_> = std::iter::from_fn(unawaited).collect();
        assert_eq!(small.len(), TENANT_UNHEARD_MAX);
        small.extend(fill(greedy, 100));
        assert_eq!(small.len(), TENANT_UNANSWERED_MAX);
        assert!(admit(greedy, 0).is_err());
        small.push(admit(other, 100).expect("room for another tenant"));
        let of = |tenant| Some(Shard::of(tenant)).into_iter().collect();
        assert!(traffic.has_unanswered(&of(greedy)));
        assert!(!traffic.has_unanswered(&of(TenantId::Guild(5 << 22))));
        small.swap_remove(0).ended(Ok(()));
        small.push(admit(greedy, 100).expect("its room is free again"));
        small.swap_remove(1).handed_back();
        let ended = traffic.workers()[0].ended().total();
        small.push(admit(greedy, 100).expect("so is that of one that was handed back"));
        assert_eq!(ended, 1, "it has not ended");
        small.into_iter().for_each(|job| job.ended(Err(&DispatchError::Banned)));
        assert!(!traffic.has_unanswered(&ShardSet::full()));
        let large = fill(greedy, UNANSWERED_BYTES / 64);
        assert_eq!(large.len(), 32, "a half of the bytes");
        assert!(!fill(other, UNANSWERED_BYTES / 64).is_empty());
    }

    #[test]
    fn an_answer_is_counted_once_however_it_ends() {
        let traffic = Arc::new(Traffic::new(2));
        let (first, second) = (TenantId::Guild(0), TenantId::Guild(1 << 22));
        let answer = |tenant, kind| {
            let observed = Observed::new(traffic.clone(), tenant, kind, "E", Instant::now());
            let mut answer = Answer::channel(bounded(1).0);
            answer.observe(observed);
            answer
        };
        answer(first, JobKind::Event).send(Ok(EncodedValue::null()));
        answer(first, JobKind::EventNowait).refuse(&DispatchError::Busy("full".to_owned()));
        drop(answer(second, JobKind::Script));
        let counts =
            |worker: usize, kind, outcome| traffic.workers()[worker].ended().count(kind, outcome);
        assert_eq!(counts(0, JobKind::Event, Outcome::Ok), 1);
        assert_eq!(counts(0, JobKind::EventNowait, Outcome::Busy), 1);
        assert_eq!(counts(1, JobKind::Script, Outcome::OutcomeUnknown), 1);
        let total = |worker: usize| traffic.workers()[worker].ended().total();
        assert_eq!((total(0), total(1)), (2, 1));
        assert_eq!(traffic.workers()[0].ended().took(JobKind::Event).count(), 1);
        let busiest: Vec<_> = traffic.busiest().report(9, Instant::now()).tenants;
        let events =
            |tenant| busiest.iter().find(|share| share.tenant == tenant).map(|share| share.events);
        assert_eq!((events(first), events(second)), (Some(2), Some(1)));
        let errors: Vec<_> =
            traffic.errors().list().into_iter().map(|error| (error.tenant, error.kind)).collect();
        assert_eq!(errors, [(second, "outcome_unknown"), (first, "busy")]);
    }
}
