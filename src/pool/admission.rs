//! The edge of a pool: banned and quarantined tenants are refused before anything of theirs is
//! queued or sent, and so is what has no room in its tenant's queue, so that no worker has to
//! refuse it later. Everything that is asked for is counted in [`Traffic`], refused or not.
//!
//! Deliberately in front of the pool and not in it: a worker on another host may be the async
//! reference's, which knows of no bans. What was sent before a ban is ended by dropping the tenant,
//! as the ban's route does. Owned by the master; calls come from any thread.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::base::error::DispatchError;
use crate::cluster::ShardTable;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{
    Answer, Cancelled, Delivery, Job, JobKind, Observed, Refused, Request, RequestId,
};
use crate::store::{DbState, Standing};
use crate::wire::data::TenantId;

use super::event_rules::EventRules;
use super::observe::quarantine::Quarantine;
use super::observe::traffic::Traffic;

/// A pool behind the bans of a database and the quarantine.
pub struct AdmittingPool {
    pool: Arc<dyn WorkerLike>,
    db: Arc<DbState>,
    quarantine: Arc<Quarantine>,
    traffic: Arc<Traffic>,
    /// `None`: every tenant is this master's.
    shards: Option<Arc<ShardTable>>,
    rules: EventRules,
}

impl AdmittingPool {
    /// Puts the bans of `db` and the quarantine in front of `pool`; what it is asked for is counted
    /// in `traffic`.
    pub fn new(
        pool: Arc<dyn WorkerLike>,
        db: Arc<DbState>,
        quarantine: Arc<Quarantine>,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self { pool, db, quarantine, traffic, shards: None, rules: EventRules::default() }
    }

    /// The same for a master that has only the tenants of some shards.
    pub fn with_shards(self, shards: Option<Arc<ShardTable>>) -> Self {
        Self { shards, ..self }
    }

    /// The same, with these rules for events.
    pub fn with_rules(self, rules: EventRules) -> Self {
        Self { rules, ..self }
    }

    /// Ends what was handed over just now, if its tenant was banned meanwhile: making a large event
    /// into a message takes milliseconds, in which a ban and its drop may have gone by.
    fn end_if_banned(&self, tenant: TenantId, deadline: Instant) {
        if self.db.standing(tenant) == Standing::Banned {
            let answer = Answer::callback(|_| ());
            self.pool.submit(Request::new(tenant, Job::DropTenant, deadline, answer));
        }
    }

    /// # Errors
    /// `NotOwner`: another master has the tenant, or none at the moment.
    fn check_owner(&self, tenant: TenantId) -> Result<(), DispatchError> {
        match &self.shards {
            Some(shards) if !shards.serves(tenant) => Err(DispatchError::NotOwner),
            _ => Ok(()),
        }
    }

    fn admit(&self, job: &mut Observed, bytes: usize) -> Result<(), DispatchError> {
        // What is known here of another master's tenant is old.
        self.check_owner(job.tenant)?;
        match self.db.standing(job.tenant) {
            Standing::Good if self.quarantine.holds(job.tenant) => {
                return Err(DispatchError::Quarantined);
            }
            Standing::Good => self.traffic.admit(job, bytes)?,
            Standing::Banned => return Err(DispatchError::Banned),
        }
        // Again, as it is counted now: a hand-over ends the serving, and then waits for what is
        // counted.
        self.check_owner(job.tenant)
    }

    /// Hands a request over that its tenant may have, counted from here to its end.
    fn submit_admitted(&self, mut request: Request) -> Result<(), Box<Refused>> {
        let Request { tenant, ref job, deadline, .. } = request;
        let (kind, now) = (JobKind::of(&request), Instant::now());
        let mut observed = Observed::new(self.traffic.clone(), tenant, kind, job.name(), now);
        // Dropping a VM runs nothing of the tenant's, and is how a ban is made to end what runs.
        let is_drop = matches!(job, Job::DropTenant);
        let admitted = if is_drop { Ok(()) } else { self.admit(&mut observed, job.bytes()) };
        request.answer.observe(observed);
        if let Err(error) = admitted {
            return Err(request.refused(error));
        }
        self.pool.try_submit(request)?;
        if !is_drop {
            self.end_if_banned(tenant, deadline);
        }
        Ok(())
    }
}

impl fmt::Debug for AdmittingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmittingPool")
    }
}

impl WorkerLike for AdmittingPool {
    fn id(&self) -> usize {
        self.pool.id()
    }

    fn len(&self) -> usize {
        self.pool.len()
    }

    fn try_submit(&self, mut request: Request) -> Result<(), Box<Refused>> {
        // The rules are for events from outside: a tenant named its timers itself.
        if request.delivery == Delivery::Always {
            return self.submit_admitted(request);
        }
        let Job::Dispatch(event) = &mut request.job else { return self.submit_admitted(request) };
        if self.rules.skips(event) {
            self.traffic.skipped.inc();
            request.answer.send_not_subscribed();
            return Ok(());
        }
        let old = self.rules.rename(event);
        self.submit_admitted(request).map_err(|mut refused| {
            // It comes back whole, and is renamed again if it is tried again.
            if let (Some(old), Job::Dispatch(event)) = (old, &mut refused.request.job) {
                event.name = old;
            }
            refused
        })
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.pool.cancel(tenant, request_id)
    }

    fn kill(&self) {
        self.pool.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::observe::traffic::Outcome;
    use super::*;
    use crate::base::sync::Lock;
    use crate::store::DbOptions;
    use crate::store::memory::MemoryStore;
    use crate::wire::data::sharding::{Shard, ShardSet};
    use crate::wire::data::{CreateEvent, EncodedJson, EncodedValue, EventData};

    /// Answers everything and notes whose it was and what it is; bans its tenant if it has a
    /// database to do so.
    #[derive(Default)]
    struct Noting {
        seen: Lock<Vec<(TenantId, JobKind)>>,
        names: Lock<Vec<String>>,
        bans_in: Option<Arc<DbState>>,
    }

    impl Noting {
        fn take(&self) -> Vec<(TenantId, JobKind)> {
            std::mem::take(&mut *self.seen.lock())
        }
    }

    impl WorkerLike for Noting {
        fn id(&self) -> usize {
            0
        }

        fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
            if let Some(db) = &self.bans_in {
                db.set_standing(request.tenant, Standing::Banned).expect("set");
            }
            let seen = (request.tenant, JobKind::of(&request));
            self.seen.lock().push(seen);
            self.names.lock().push(request.job.name().to_owned());
            request.answer.send(Ok(EncodedValue::null()));
            Ok(())
        }

        fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
            Cancelled::Unknown
        }

        fn kill(&self) {}
    }

    #[test]
    fn what_is_handed_over_during_a_ban_is_ended_after_it() {
        let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
            .expect("an empty store");
        let db = Arc::new(db);
        let noting = Arc::new(Noting { bans_in: Some(db.clone()), ..Noting::default() });
        let pool =
            AdmittingPool::new(noting.clone(), db, Arc::default(), Arc::new(Traffic::new(1)));
        let by = Instant::now() + Duration::from_secs(60);
        for tenant in [1, 2].map(TenantId::Guild) {
            let kind = if tenant.snowflake() == 1 {
                drop(pool.dispatch_event(tenant, event(), by));
                JobKind::Event
            } else {
                pool.dispatch_event_nowait(tenant, event(), by).expect("handed over");
                JobKind::EventNowait
            };
            assert_eq!(noting.take(), [(tenant, kind), (tenant, JobKind::Drop)]);
        }
    }

    fn event() -> CreateEvent {
        CreateEvent {
            name: "E".to_owned(),
            author: None,
            data: EventData::Json(EncodedJson::null()),
        }
    }

    #[test]
    fn a_refused_event_comes_back_under_its_own_name() {
        let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
            .expect("an empty store");
        let (db, noting) = (Arc::new(db), Arc::new(Noting::default()));
        let mut rules = EventRules::default();
        rules.aliases.extend([("E", "F"), ("F", "G")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let pool =
            AdmittingPool::new(noting, db.clone(), Arc::default(), Arc::new(Traffic::new(1)))
                .with_rules(rules);
        let (tenant, by) = (TenantId::Guild(1), Instant::now() + Duration::from_secs(60));
        db.set_standing(tenant, Standing::Banned).expect("set");
        let answer = Answer::callback(|_| ());
        let request = Request::new(tenant, Job::Dispatch(event()), by, answer);
        let refused = pool.try_submit(request).expect_err("banned");
        assert_eq!(refused.request.job.name(), "E", "renamed when it is tried again, and once");
    }

    #[test]
    fn what_a_tenant_asked_for_is_under_no_rules_for_events() {
        let (noting, traffic) = (Arc::new(Noting::default()), Arc::new(Traffic::new(1)));
        for rules in [
            EventRules { skipped: ["E".to_owned()].into(), ..EventRules::default() },
            EventRules {
                aliases: [("E".to_owned(), "F".to_owned())].into(),
                ..EventRules::default()
            },
        ] {
            let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
                .expect("an empty store");
            let pool =
                AdmittingPool::new(noting.clone(), Arc::new(db), Arc::default(), traffic.clone())
                    .with_rules(rules);
            let by = Instant::now() + Duration::from_secs(60);
            let request = || {
                let answer = Answer::callback(|_| ());
                Request::new(TenantId::Guild(1), Job::Dispatch(event()), by, answer)
            };
            pool.try_submit(request()).expect("taken or skipped");
            pool.try_submit(request().to_tenant()).expect("taken");
        }
        assert_eq!(*noting.names.lock(), ["E", "F", "E"], "the first one was skipped");
        assert_eq!(traffic.skipped.get(), 1);
    }

    #[test]
    fn a_banned_tenant_reaches_no_worker_until_it_is_lifted() {
        let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
            .expect("an empty store");
        let (db, noting) = (Arc::new(db), Arc::new(Noting::default()));
        let traffic = Arc::new(Traffic::new(1));
        let pool = AdmittingPool::new(noting.clone(), db.clone(), Arc::default(), traffic.clone());
        let (banned, other) = (TenantId::Guild(1), TenantId::User(1));
        let by = Instant::now() + Duration::from_secs(60);
        db.set_standing(banned, Standing::Banned).expect("set");
        assert_eq!(pool.dispatch_event(banned, event(), by), Err(DispatchError::Banned));
        assert_eq!(pool.run_script(banned, "s", "", event(), by), Err(DispatchError::Banned));
        assert_eq!(pool.dispatch_event_nowait(banned, event(), by), Err(DispatchError::Banned));
        assert_eq!(noting.take(), []);
        assert!(!DispatchError::Banned.sent());
        assert!(pool.dispatch_event(other, event(), by).is_ok());
        assert_eq!(pool.drop_tenant(banned, by), Ok(()));
        assert_eq!(noting.take(), [(other, JobKind::Event), (banned, JobKind::Drop)]);
        db.set_standing(banned, Standing::Good).expect("set");
        assert!(pool.dispatch_event(banned, event(), by).is_ok());
        assert_eq!(noting.take(), [(banned, JobKind::Event)]);
        let counted = |kind, outcome| traffic.workers()[0].ended().count(kind, outcome);
        assert_eq!(
            (counted(JobKind::Event, Outcome::Banned), counted(JobKind::Event, Outcome::Ok)),
            (1, 2)
        );
        assert_eq!(
            (
                counted(JobKind::Script, Outcome::Banned),
                counted(JobKind::EventNowait, Outcome::Banned)
            ),
            (1, 1)
        );
        assert_eq!(
            (counted(JobKind::Drop, Outcome::Ok), traffic.workers()[0].ended().total()),
            (1, 6)
        );
    }

    #[test]
    fn what_another_master_has_is_refused_and_counts_as_ended() {
        let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
            .expect("an empty store");
        let (db, noting, traffic) =
            (Arc::new(db), Arc::new(Noting::default()), Arc::new(Traffic::new(1)));
        let (quarantine, shards) =
            (Arc::new(Quarantine::new(1)), Arc::new(ShardTable::new(Arc::default(), || ())));
        let (here, there) = (TenantId::Guild(1 << 22), TenantId::Guild(2 << 22));
        // What this master thinks of it is not the answer.
        quarantine.died(0, "killed by signal 11", 1, &[there].into(), Instant::now());
        shards.serve(&Shard::new(1).into_iter().collect());
        let pool = AdmittingPool::new(noting.clone(), db, quarantine, traffic.clone())
            .with_shards(Some(shards));
        let by = Instant::now() + Duration::from_secs(60);
        assert_eq!(pool.dispatch_event(there, event(), by), Err(DispatchError::NotOwner));
        assert_eq!(pool.dispatch_event_nowait(there, event(), by), Err(DispatchError::NotOwner));
        assert_eq!(pool.run_script(there, "s", "", event(), by), Err(DispatchError::NotOwner));
        assert_eq!(noting.take(), []);
        assert!(!traffic.has_unanswered(&ShardSet::full()));
        assert_eq!(traffic.workers()[0].ended().total(), 3);
        // Its VM may be here still, and nothing of it runs.
        assert_eq!(pool.drop_tenant(there, by), Ok(()));
        assert!(pool.dispatch_event(here, event(), by).is_ok());
        assert_eq!(noting.take(), [(there, JobKind::Drop), (here, JobKind::Event)]);
    }

    #[test]
    fn a_quarantined_tenant_reaches_no_worker_until_lifted() {
        let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default())
            .expect("an empty store");
        let (noting, quarantine) = (Arc::new(Noting::default()), Arc::new(Quarantine::new(1)));
        let traffic = Arc::new(Traffic::new(1));
        let pool =
            AdmittingPool::new(noting.clone(), Arc::new(db), quarantine.clone(), traffic.clone());
        let (tenant, by) = (TenantId::Guild(1), Instant::now() + Duration::from_secs(60));
        quarantine.died(0, "killed by signal 11", 1, &[tenant].into(), Instant::now());
        assert_eq!(pool.dispatch_event(tenant, event(), by), Err(DispatchError::Quarantined));
        assert_eq!(
            pool.dispatch_event_nowait(tenant, event(), by),
            Err(DispatchError::Quarantined)
        );
        assert_eq!(pool.run_script(tenant, "s", "", event(), by), Err(DispatchError::Quarantined));
        assert_eq!(noting.take(), []);
        quarantine.lift(tenant);
        assert!(pool.dispatch_event(tenant, event(), by).is_ok());
        assert!(pool.dispatch_event_nowait(tenant, event(), by).is_ok());
        let counted = |kind, outcome| traffic.workers()[0].ended().count(kind, outcome);
        for (kind, refused) in
            [(JobKind::Event, 1), (JobKind::EventNowait, 1), (JobKind::Script, 1)]
        {
            assert_eq!(counted(kind, Outcome::Quarantined), refused, "{kind:?}");
        }
        assert_eq!(
            (counted(JobKind::EventNowait, Outcome::Ok), traffic.workers()[0].ended().total()),
            (1, 5)
        );
    }
}
