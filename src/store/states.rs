//! The states of all tenants in memory, always those that the store acknowledged last, and the
//! listener that is notified of changes.
//!
//! Every dispatch and every starting worker asks for states, so they are not read from the store
//! each time. Owned by [`super::DbState`]; called from any thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::measured::Measured;
use super::{Operation, Revision, Standing, StoredState};
use crate::base::sync::{Lock, SharedLock};
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{ON_STARTUP, TenantId, TenantState};

/// Hears of every state that was set. Called in the order of the sets; must not block, and must not
/// ask [`super::DbState`].
pub type StateListener = Box<dyn Fn(TenantId, &TenantState) + Send + Sync>;

/// Hears of every tenant whose own template may have changed, before who changed it is answered;
/// must not block, and must not ask [`super::DbState`].
pub type TemplateListener = Box<dyn Fn(TenantId) + Send + Sync>;

/// All states.
#[derive(Default)]
pub(super) struct States {
    /// Read often; written only while [`States::listener`] is held.
    cached: SharedLock<HashMap<TenantId, Cached>>,
    /// Held while a change is published, so that the cache and the listener see changes in one
    /// order.
    listener: Lock<Option<StateListener>>,
    doubts: Lock<Doubts>,
    has_doubts: AtomicBool,
}

/// Tenants of which the store may hold something else than the cache does, after a write of unknown
/// outcome.
#[derive(Default)]
struct Doubts {
    /// How many there ever were; each tenant carries the number of its last one.
    counted: u64,
    tenants: HashMap<TenantId, u64>,
}

/// Of a tenant's state, and of its standing.
type Revisions = (Revision, Revision);

#[derive(Clone, Default)]
pub(super) struct Cached {
    pub(super) state: Option<Arc<TenantState>>,
    pub(super) standing: Standing,
    state_revision: Revision,
    standing_revision: Revision,
}

impl Cached {
    /// The state as the tenant's worker gets it: a banned tenant is not started with its worker,
    /// which knows of no bans.
    fn for_worker(&self) -> Option<Arc<TenantState>> {
        let state = self.state.as_ref()?;
        if self.standing == Standing::Good || !state.events.contains(ON_STARTUP) {
            return Some(Arc::clone(state));
        }
        let mut state = TenantState::clone(state);
        state.events.remove(ON_STARTUP);
        Some(Arc::new(state))
    }

    fn revisions(&self) -> Revisions {
        (self.state_revision, self.standing_revision)
    }
}

impl States {
    /// What was published of some shards, to be asked before the store is.
    pub(super) fn revisions(&self, of: &ShardSet) -> HashMap<TenantId, Revisions> {
        let cached = self.cached.read();
        let known = cached.iter().filter(|(tenant, _)| of.contains(Shard::of(**tenant)));
        known.map(|(tenant, cached)| (*tenant, cached.revisions())).collect()
    }

    /// Takes over what the store holds, unless something was published since.
    pub(super) fn load(
        &self,
        stored: Vec<(TenantId, StoredState)>,
        before: &HashMap<TenantId, Revisions>,
    ) {
        for (tenant, stored) in stored {
            self.settle(tenant, stored, before.get(&tenant).copied().unwrap_or_default());
        }
    }

    /// Forgets the tenants of some shards, and the doubts about them.
    pub(super) fn forget(&self, of: &ShardSet) {
        let _listener = self.listener.lock();
        let is_kept = |tenant: &TenantId| !of.contains(Shard::of(*tenant));
        self.cached.write().retain(|tenant, _| is_kept(tenant));
        let mut doubts = self.doubts.lock();
        doubts.tenants.retain(|tenant, _| is_kept(tenant));
        self.has_doubts.store(!doubts.tenants.is_empty(), Ordering::Release);
    }

    pub(super) fn listen(&self, listener: StateListener) {
        *self.listener.lock() = Some(listener);
    }

    pub(super) fn get(&self, tenant: TenantId) -> Cached {
        let cached = self.cached.read();
        cached.get(&tenant).cloned().unwrap_or_default()
    }

    /// The states of some tenants, all as they are at one moment.
    pub(super) fn of(
        &self,
        wanted: impl Fn(TenantId) -> bool,
    ) -> Vec<(TenantId, Arc<TenantState>)> {
        let cached = self.cached.read();
        let wanted = cached.iter().filter(|(tenant, _)| wanted(**tenant));
        wanted.filter_map(|(tenant, cached)| Some((*tenant, cached.for_worker()?))).collect()
    }

    /// The tenants of some shards whose own state names an event, but for banned ones.
    pub(super) fn subscribed_to(&self, event: &str, of: &ShardSet) -> Vec<TenantId> {
        let names = |state: &Arc<TenantState>| state.events.contains(event);
        let cached = self.cached.read();
        let subscribed = cached.iter().filter(|(tenant, cached)| {
            cached.standing == Standing::Good
                && of.contains(Shard::of(**tenant))
                && cached.state.as_ref().is_some_and(names)
        });
        subscribed.map(|(tenant, _)| *tenant).collect()
    }

    /// Makes a stored state the one that everybody sees, unless a later one is already.
    pub(super) fn publish_state(&self, tenant: TenantId, state: TenantState, revision: Revision) {
        let listener = self.listener.lock();
        let before = self.get(tenant);
        if before.state_revision < revision {
            let state = Some(Arc::new(state));
            self.put(
                tenant,
                Cached { state, state_revision: revision, ..before },
                listener.as_ref(),
            );
        }
    }

    /// Makes a stored standing the one that counts, unless a later one does already.
    pub(super) fn publish_standing(
        &self,
        tenant: TenantId,
        standing: Standing,
        revision: Revision,
    ) {
        let listener = self.listener.lock();
        let before = self.get(tenant);
        if before.standing_revision < revision {
            let cached = Cached { standing, standing_revision: revision, ..before };
            // Its worker may have the state of a banned tenant.
            let is_lifted = cached.standing == Standing::Good;
            self.put(tenant, cached, listener.as_ref().filter(|_| is_lifted));
        }
    }

    fn put(&self, tenant: TenantId, cached: Cached, listener: Option<&StateListener>) {
        let state = cached.for_worker();
        self.cached.write().insert(tenant, cached);
        if let (Some(listener), Some(state)) = (listener, state) {
            listener(tenant, &state);
        }
    }

    /// Notes that a write about a tenant had an unknown outcome.
    pub(super) fn doubt(&self, tenant: TenantId) {
        let mut doubts = self.doubts.lock();
        doubts.counted += 1;
        let number = doubts.counted;
        doubts.tenants.insert(tenant, number);
        self.has_doubts.store(true, Ordering::Release);
    }

    /// Asks the store what became of the writes in doubt, once it answers again.
    ///
    /// # Blocks
    /// On the store, if there are doubts.
    pub(super) fn settle_doubts(&self, store: &Measured) {
        self.settle_all(store, |_| true);
    }

    /// The same of one tenant only, for a caller that asks of no other: a dispatch waits for the
    /// store if its own tenant is in doubt.
    ///
    /// # Blocks
    /// On the store, if the tenant is in doubt.
    pub(super) fn settle_doubt(&self, store: &Measured, tenant: TenantId) {
        self.settle_all(store, |doubted| doubted == tenant);
    }

    fn settle_all(&self, store: &Measured, is_asked: impl Fn(TenantId) -> bool) {
        if !self.has_doubts.load(Ordering::Acquire) {
            return;
        }
        let doubts: Vec<_> =
            self.doubts.lock().tenants.iter().map(|(tenant, number)| (*tenant, *number)).collect();
        for (tenant, number) in doubts.into_iter().filter(|(tenant, _)| is_asked(*tenant)) {
            let before = self.get(tenant).revisions();
            // Not yet open again: the next caller asks.
            let asked = store.ask(Operation::TenantState, |store| store.tenant_state(tenant));
            let Ok(stored) = asked else { return };
            self.settle(tenant, stored.unwrap_or_default(), before);
            let mut doubts = self.doubts.lock();
            // Unless there is a newer doubt by now.
            if doubts.tenants.get(&tenant) == Some(&number) {
                doubts.tenants.remove(&tenant);
            }
            self.has_doubts.store(!doubts.tenants.is_empty(), Ordering::Release);
        }
    }

    /// Takes over what the store was found to hold, unless something was published since: that is
    /// later, or the same.
    fn settle(&self, tenant: TenantId, stored: StoredState, before: Revisions) {
        let listener = self.listener.lock();
        let cached = self.get(tenant);
        if cached.revisions() == before {
            let state = stored.state.map(Arc::new);
            self.put(
                tenant,
                Cached { state, standing: stored.standing, ..cached },
                listener.as_ref(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;
    use crate::wire::data::EncodedJson;

    const TENANT: TenantId = TenantId::Guild(1);

    fn state(event: &str) -> TenantState {
        TenantState { events: [event.to_owned()].into(), data: EncodedJson::null() }
    }

    fn memory() -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }

    fn measured(store: &Arc<dyn Store>) -> Measured {
        Measured::new(Arc::clone(store))
    }

    fn event(states: &States) -> Option<String> {
        states.get(TENANT).state.and_then(|state| state.events.first().cloned())
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let states = States::default();
        states.publish_state(TENANT, state("NEW"), Revision(2));
        states.publish_state(TENANT, state("OLD"), Revision(1));
        assert_eq!(event(&states).as_deref(), Some("NEW"));
        states.publish_standing(TENANT, Standing::Banned, Revision(3));
        states.publish_standing(TENANT, Standing::Good, Revision(1));
        assert_eq!(
            (event(&states).as_deref(), states.get(TENANT).standing),
            (Some("NEW"), Standing::Banned)
        );
    }

    #[test]
    fn a_write_of_unknown_outcome_is_looked_up_in_the_store() {
        let store = memory();
        let states = States::default();
        let heard = Arc::new(Lock::new(Vec::new()));
        let hear = Arc::clone(&heard);
        states.listen(Box::new(move |_, state| hear.lock().push(state.clone())));
        // It was made, and its answer was lost.
        store.set_tenant_state(TENANT, state("MADE")).expect("set");
        store.set_standing(TENANT, Standing::Banned).expect("set");
        states.doubt(TENANT);
        assert_eq!(event(&states), None);
        states.settle_doubts(&measured(&store));
        assert_eq!(
            (event(&states).as_deref(), states.get(TENANT).standing),
            (Some("MADE"), Standing::Banned)
        );
        assert_eq!(*heard.lock(), [state("MADE")]);
        // Settled once and for all.
        store.set_tenant_state(TENANT, state("LATER")).expect("set");
        states.settle_doubts(&measured(&store));
        assert_eq!(event(&states).as_deref(), Some("MADE"));
    }

    #[test]
    fn a_doubt_about_one_tenant_is_nothing_to_another() {
        let store = memory();
        let states = States::default();
        let other = TenantId::Guild(2);
        for tenant in [TENANT, other] {
            store.set_standing(tenant, Standing::Banned).expect("set");
            states.doubt(tenant);
        }
        states.settle_doubt(&measured(&store), TenantId::Guild(3));
        assert_eq!(states.get(TENANT).standing, Standing::Good);
        states.settle_doubt(&measured(&store), TENANT);
        assert_eq!(
            (states.get(TENANT).standing, states.get(other).standing),
            (Standing::Banned, Standing::Good)
        );
        states.settle_doubts(&measured(&store));
        assert_eq!(states.get(other).standing, Standing::Banned);
    }

    #[test]
    fn what_was_published_since_the_read_is_not_overwritten() {
        let states = States::default();
        let heard = Arc::new(Lock::new(Vec::new()));
        let hear = Arc::clone(&heard);
        states.listen(Box::new(move |tenant, state| hear.lock().push((tenant, state.clone()))));
        let (other, banned) = (TenantId::User(2), TenantId::User(3));
        let of: ShardSet = [Shard::of(TENANT)].into_iter().collect();
        let stored = |event: &str, standing| StoredState { state: Some(state(event)), standing };
        let before = states.revisions(&of);
        states.publish_state(TENANT, state("NEW"), Revision(1));
        let read = [
            (TENANT, stored("OLD", Standing::Good)),
            (other, stored("READ", Standing::Good)),
            (banned, stored(ON_STARTUP, Standing::Banned)),
        ];
        states.load(read.to_vec(), &before);
        assert_eq!(event(&states).as_deref(), Some("NEW"));
        let nothing = TenantState { events: [].into(), ..state("") };
        assert_eq!(
            *heard.lock(),
            [(TENANT, state("NEW")), (other, state("READ")), (banned, nothing)],
            "a banned tenant is not to be started"
        );
        // What another master has done meanwhile counts when the shard comes back.
        states.doubt(TENANT);
        states.forget(&of);
        assert_eq!((event(&states), states.of(|_| true).len()), (None, 0));
        assert!(!states.has_doubts.load(Ordering::Acquire));
        states.load(read.to_vec(), &states.revisions(&of));
        assert_eq!(event(&states).as_deref(), Some("OLD"));
    }

    #[test]
    fn a_doubt_stays_while_the_store_does_not_answer() {
        let store = memory();
        store.close();
        let states = States::default();
        states.doubt(TENANT);
        states.settle_doubts(&measured(&store));
        let again = memory();
        again.set_tenant_state(TENANT, state("MADE")).expect("set");
        states.settle_doubts(&measured(&again));
        assert_eq!(event(&states).as_deref(), Some("MADE"));
    }
}
