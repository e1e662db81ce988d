//! A worker in this process: tenants' VMs behind a [`TemplateRuntime`], with the subscriptions that
//! filter their events.
//!
//! The same in a worker process (behind a `MesophyllClient`) and in thread-pool mode (behind the
//! pool). Owns the runtime; calls come from a link's reader thread or from callers' threads, and
//! none of them blocks but `kill`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::error::{DbError, DispatchError};
use crate::base::process_figures::ProcessFigures;
use crate::base::sync::{Lock, SharedLock};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Cancelled, Delivery, Job, Refused, Request, RequestId};
use crate::protocol::LocalWorker;
use crate::runtime::{TemplateRuntime, TenantDb, TenantStates};
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{Dropped, EncodedJson, IdMap, ON_STARTUP, TenantId, TenantState};
use crate::wire::message::Health;

use super::startup::Startup;
use crate::pool::observe::nowait_failures::NowaitFailures;

/// The name that stands for every event.
const EVERYTHING: &str = "*";

/// Which events start a tenant's template: its state says, or the defaults if it has none.
#[derive(Debug)]
pub struct Subscriptions {
    default: Arc<TenantState>,
    states: SharedLock<TenantStateMap>,
}

#[derive(Debug, Default)]
struct TenantStateMap {
    current: IdMap<TenantId, Arc<TenantState>>,
    /// While all states are being read: what was pushed meanwhile. It is newer than what the
    /// reading brings, which may have left the database before.
    pushed: Option<IdMap<TenantId, Arc<TenantState>>>,
}

impl Subscriptions {
    /// `default_events`: what tenants without a state are subscribed to; `*` is everything.
    pub fn new(default_events: BTreeSet<String>) -> Self {
        let default = TenantState { events: default_events, data: EncodedJson::null() };
        Self { default: Arc::new(default), states: SharedLock::default() }
    }

    /// Whether this event starts the tenant's template.
    pub fn wants(&self, tenant: TenantId, event: &str) -> bool {
        match self.states.read().current.get(&tenant) {
            Some(state) => state.events.contains(event),
            None => self.default.events.contains(event) || self.default.events.contains(EVERYTHING),
        }
    }

    /// The tenants whose own state names this event.
    pub(super) fn subscribed_to(&self, event: &str) -> Vec<TenantId> {
        let states = self.states.read();
        let named = states.current.iter().filter(|(_, state)| state.events.contains(event));
        named.map(|(tenant, _)| *tenant).collect()
    }

    /// Forgets the states of tenants that moved away.
    fn forget(&self, is_gone: impl Fn(TenantId) -> bool) {
        let mut states = self.states.write();
        states.current.retain(|tenant, _| !is_gone(*tenant));
        if let Some(pushed) = &mut states.pushed {
            pushed.retain(|tenant, _| !is_gone(*tenant));
        }
    }

    /// Reads all states anew with `read`; what is pushed meanwhile goes before what was read.
    /// Returns how many there are.
    ///
    /// # Errors
    /// Those of `read`; then the states stay as they are.
    fn reload<E>(
        &self,
        read: impl FnOnce() -> Result<HashMap<TenantId, TenantState>, E>,
    ) -> Result<u64, E> {
        self.states.write().pushed = Some(IdMap::default());
        let states = read();
        let mut held = self.states.write();
        let pushed = held.pushed.take();
        held.current =
            states?.into_iter().map(|(tenant, state)| (tenant, Arc::new(state))).collect();
        held.current.extend(pushed.into_iter().flatten());
        Ok(held.current.len() as u64)
    }
}

impl TenantStates for Subscriptions {
    fn get(&self, tenant: TenantId) -> Arc<TenantState> {
        self.states.read().current.get(&tenant).unwrap_or(&self.default).clone()
    }

    fn put(&self, tenant: TenantId, state: TenantState) {
        let state = Arc::new(state);
        let mut states = self.states.write();
        if let Some(pushed) = &mut states.pushed {
            pushed.insert(tenant, state.clone());
        }
        states.current.insert(tenant, state);
    }
}

/// A worker on OS threads of this process.
pub struct WorkerThread {
    id: usize,
    // First, so that it ends before the runtime that it uses.
    startup: Lock<Startup>,
    /// What it was told last, if it was ever told.
    served: Lock<Option<ShardSet>>,
    runtime: Arc<dyn TemplateRuntime>,
    subscriptions: Arc<Subscriptions>,
    db: Arc<dyn TenantDb>,
    executors: u64,
    /// Before that no event can be filtered.
    is_loaded: AtomicBool,
    nowait_failures: NowaitFailures,
}

impl WorkerThread {
    /// A worker over a runtime that runs already, sharing `subscriptions` with it. It answers
    /// `busy` until [`LocalWorker::load_tenant_states`] has succeeded once.
    pub fn new(
        id: usize,
        runtime: Box<dyn TemplateRuntime>,
        executors: u64,
        subscriptions: Arc<Subscriptions>,
        db: Arc<dyn TenantDb>,
    ) -> Self {
        let runtime: Arc<dyn TemplateRuntime> = Arc::from(runtime);
        let startup = Startup::new(id, runtime.clone(), subscriptions.clone(), db.clone());
        Self {
            id,
            startup: Lock::new(startup),
            served: Lock::default(),
            runtime,
            subscriptions,
            db,
            executors,
            is_loaded: AtomicBool::new(false),
            nowait_failures: NowaitFailures::new(id, None),
        }
    }

    /// Has these of the tenants told that the worker has started.
    fn start_up(&self, is_new: impl Fn(TenantId) -> bool) {
        if let Err(error) = self.startup.lock().start(is_new) {
            log::error!(worker = self.id; "worker {}: no thread for its {ON_STARTUP} events: {error}", self.id)
        }
    }

    /// Ends what runs and waits of the tenants of these shards; those that are running have an
    /// unknown outcome.
    pub fn drop_shards(&self, shards: &ShardSet) {
        self.runtime.drop_shards(shards);
    }

    fn run(&self, request: Request) {
        let Request { tenant, id, job, answer, delivery, .. } = request;
        if !self.is_loaded.load(Ordering::Acquire) {
            return answer.send(Err(DispatchError::Busy(
                "the worker is still loading the tenant states".to_owned(),
            )));
        }
        match &job {
            Job::Dispatch(event)
                if delivery == Delivery::IfSubscribed
                    && !self.subscriptions.wants(tenant, &event.name) =>
            {
                answer.send_not_subscribed();
            }
            _ => {
                if matches!(job, Job::DropTenant) {
                    self.startup.lock().forget(tenant);
                }
                self.runtime.submit(tenant, id, job, answer);
            }
        }
    }
}

impl WorkerLike for WorkerThread {
    fn id(&self) -> usize {
        self.id
    }

    fn try_submit(&self, mut request: Request) -> Result<(), Box<Refused>> {
        self.nowait_failures.watch(&mut request);
        self.run(request);
        Ok(())
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.runtime.cancel(tenant, request_id)
    }

    fn kill(&self) {
        self.startup.lock().stop();
        self.runtime.shutdown();
    }
}

impl LocalWorker for WorkerThread {
    fn load_tenant_states(&self) -> Result<u64, DbError> {
        let count = self.subscriptions.reload(|| self.db.tenant_states())?;
        if self.is_loaded.swap(true, Ordering::AcqRel) {
            // A link was lost, and with it perhaps the news of a changed template.
            self.runtime.templates_in_doubt();
        } else {
            self.start_up(|_| true);
        }
        Ok(count)
    }

    fn update_tenant_state(&self, tenant: TenantId, state: TenantState) {
        self.subscriptions.put(tenant, state);
    }

    fn serve_shards(&self, served: &ShardSet) {
        let before = self.served.lock().replace(*served);
        let before = before.unwrap_or_default();
        let gone = before.without(served);
        let is_gone = |tenant| gone.contains(Shard::of(tenant));
        if !gone.is_empty() {
            self.startup.lock().forget_all(is_gone);
            self.subscriptions.forget(is_gone);
            self.runtime.drop_shards(&gone);
        }
        let new = served.without(&before);
        self.start_up(|tenant| new.contains(Shard::of(tenant)));
    }

    fn reload_template(&self, tenant: TenantId) {
        self.runtime.template_changed(tenant);
    }

    fn has_vm(&self, tenant: TenantId) -> bool {
        self.runtime.has_vm(tenant)
    }

    fn executors(&self) -> u64 {
        self.executors
    }

    fn health(&self) -> Health {
        let (mut stats, process) = (self.runtime.stats(), ProcessFigures::read());
        *stats.figures.dropped_mut(Dropped::StartupEvent) += self.startup.lock().dropped();
        let ms =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Health {
            stalest_executor_ms: ms(stats.stalest_executor),
            in_flight: stats.in_flight,
            vms: stats.vms,
            events: stats.events,
            longest: stats.longest.map(|(tenant, event, since)| (tenant, event, ms(since))),
            memory_bytes: process.resident_bytes,
            figures: Some(Box::new(stats.figures)),
            process: Some(process),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_tenant_without_a_state_has_the_defaults() {
        let subscriptions = Subscriptions::new(names(&["INTERACTION_CREATE"]));
        let tenant = TenantId::Guild(1);
        assert!(subscriptions.wants(tenant, "INTERACTION_CREATE"));
        assert!(!subscriptions.wants(tenant, "MESSAGE_CREATE"));
        let state = TenantState { events: names(&["MESSAGE_CREATE"]), data: EncodedJson::null() };
        subscriptions.put(tenant, state);
        assert!(!subscriptions.wants(tenant, "INTERACTION_CREATE"));
        assert!(subscriptions.wants(tenant, "MESSAGE_CREATE"));
        assert!(subscriptions.wants(TenantId::User(1), "INTERACTION_CREATE"));
    }

    #[test]
    fn a_pushed_state_is_not_overwritten_by_an_older_one() {
        let subscriptions = Subscriptions::new(names(&["*"]));
        let tenant = TenantId::Guild(1);
        let state =
            |event: &str| TenantState { events: names(&[event]), data: EncodedJson::null() };
        let read = || {
            // The answer has left the database with the old state when the new one is pushed.
            let answer =
                HashMap::from([(tenant, state("OLD")), (TenantId::Guild(2), state("OTHER"))]);
            subscriptions.put(tenant, state("NEW"));
            Ok::<_, ()>(answer)
        };
        assert_eq!(subscriptions.reload(read), Ok(2));
        assert!(subscriptions.wants(tenant, "NEW"));
        assert!(!subscriptions.wants(tenant, "OLD"));
        // The next reading is newer than that push.
        assert_eq!(
            subscriptions.reload(|| Ok::<_, ()>(HashMap::from([(tenant, state("NEWER"))]))),
            Ok(1)
        );
        assert!(subscriptions.wants(tenant, "NEWER"));
    }

    #[test]
    fn a_star_among_the_defaults_is_everything() {
        let subscriptions = Subscriptions::new(names(&["*"]));
        assert!(subscriptions.wants(TenantId::Guild(1), "ANYTHING"));
    }
}
