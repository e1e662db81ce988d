//! [`DbState`]: the database as everybody above a store sees it, with the rules, the quotas and the tenant states at hand.
//!
//! Deliberately the same for a worker in this process and for one that asks over HTTP: whatever may be refused is refused
//! here. Tenant states are kept in memory, because every dispatch and every starting worker asks for them. Owned by the
//! master; called from any thread.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::{FindLimits, KvSet, OpenError, Quota, Revision, Store, StoredState, Usage, rules};
use crate::error::DbError;
use crate::model::{EncodedValue, KeyValueOp, KvRecord, Scopes, TenantId, TenantState, Timestamp};
use crate::random;
use crate::sharding::worker_for;

/// What an operator may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DbOptions {
    /// What each tenant may have.
    pub quota: Quota,
}

/// The worker that asks: only the tenants that belong to it are its business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its number.
    pub worker_id: usize,
    /// How many workers there are.
    pub workers: usize,
}

impl Caller {
    /// Whether the tenant belongs to this worker.
    pub fn owns(self, tenant: TenantId) -> bool {
        worker_for(tenant, self.workers) == self.worker_id
    }

    /// Checks that the tenant belongs to this worker.
    ///
    /// # Errors
    /// `Forbidden`: it does not.
    pub fn check_owns(self, tenant: TenantId) -> Result<(), DbError> {
        if self.owns(tenant) {
            Ok(())
        } else {
            Err(DbError::Forbidden("the tenant does not belong to this worker".to_owned()))
        }
    }
}

/// What a [`KeyValueOp`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvAnswer {
    /// To Get.
    Record(Option<KvRecord>),
    /// To ListScopes.
    Scopes(Vec<String>),
    /// To Find.
    Records(Vec<KvRecord>),
    /// To Set and Delete.
    Done,
}

/// Hears of every state that was set. Called in the order of the sets; must not block, and must not ask [`DbState`].
pub type StateListener = Box<dyn Fn(TenantId, &TenantState) + Send + Sync>;

/// A store and the rules for using it.
pub struct DbState {
    store: Arc<dyn Store>,
    options: DbOptions,
    /// Read often, written by [`DbState::publish`] only.
    states: RwLock<HashMap<TenantId, Cached>>,
    /// Held while a state is published, so that the cache and the listener see states in one order.
    listener: Mutex<Option<StateListener>>,
    /// Tenants of whose state the store may hold another than the cache does, after a set of unknown outcome.
    doubtful: Mutex<Doubts>,
    has_doubts: AtomicBool,
}

#[derive(Default)]
struct Doubts {
    /// How many there ever were; each tenant carries the number of its last one.
    counted: u64,
    tenants: HashMap<TenantId, u64>,
}

#[derive(Clone)]
struct Cached {
    state: Arc<TenantState>,
    banned: bool,
    revision: Revision,
}

impl DbState {
    /// Takes over a store and reads all tenant states.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(store: Arc<dyn Store>, options: DbOptions) -> Result<Self, OpenError> {
        let states = store.tenant_states().map_err(|error| OpenError::Unavailable(error.to_string()))?;
        let cached = |stored: StoredState| Cached {
            state: Arc::new(stored.state),
            banned: stored.banned,
            revision: Revision::default(),
        };
        Ok(Self {
            store,
            options,
            states: RwLock::new(states.into_iter().map(|(tenant, stored)| (tenant, cached(stored))).collect()),
            listener: Mutex::default(),
            doubtful: Mutex::default(),
            has_doubts: AtomicBool::new(false),
        })
    }

    /// Who is to hear of every state that is set from now on.
    pub fn on_tenant_state(&self, listener: StateListener) {
        *self.lock_listener() = Some(listener);
    }

    /// The tenant's state, if it has one.
    pub fn tenant_state(&self, tenant: TenantId) -> Option<Arc<TenantState>> {
        self.settle_doubts();
        self.cached(tenant).map(|cached| cached.state)
    }

    /// Whether the tenant's dispatches are refused.
    pub fn is_banned(&self, tenant: TenantId) -> bool {
        self.cached(tenant).is_some_and(|cached| cached.banned)
    }

    /// The states of all tenants that belong to a worker, as they are at this moment.
    pub fn tenant_states(&self, caller: Caller) -> Vec<(TenantId, Arc<TenantState>)> {
        self.settle_doubts();
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let own = states.iter().filter(|(tenant, _)| caller.owns(**tenant));
        own.map(|(tenant, cached)| (*tenant, Arc::clone(&cached.state))).collect()
    }

    /// Replaces a tenant's state and tells the listener.
    ///
    /// # Blocks
    /// As a write to a [`Store`].
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`Store`].
    pub fn set_tenant_state(&self, tenant: TenantId, state: &TenantState) -> Result<(), DbError> {
        let state = rules::check_tenant_state(state)?;
        self.settle_doubts();
        match self.store.set_tenant_state(tenant, state.clone()) {
            Ok(revision) => {
                self.publish(tenant, state, revision);
                Ok(())
            }
            Err(error) => {
                if matches!(error, DbError::OutcomeUnknown(_)) {
                    self.doubt(tenant);
                }
                Err(error)
            }
        }
    }

    /// Carries out an operation of `/db/kv`; blocks and errors as the operation itself.
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`Store`].
    pub fn kv(&self, tenant: TenantId, op: KeyValueOp) -> Result<KvAnswer, DbError> {
        match op {
            KeyValueOp::Get { scopes, key } => self.kv_get(tenant, &Scopes::new(scopes), &key).map(KvAnswer::Record),
            KeyValueOp::ListScopes => self.kv_list_scopes(tenant).map(KvAnswer::Scopes),
            KeyValueOp::Set { scopes, key, value } => {
                self.kv_set(tenant, Scopes::new(scopes), key, &value).map(|()| KvAnswer::Done)
            }
            KeyValueOp::Delete { scopes, key } => {
                self.kv_delete(tenant, Scopes::new(scopes), key).map(|()| KvAnswer::Done)
            }
            KeyValueOp::Find { scopes, query } => {
                self.kv_find(tenant, &Scopes::new(scopes), &query).map(KvAnswer::Records)
            }
        }
    }

    /// The record with exactly these scopes.
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`Store`].
    pub fn kv_get(&self, tenant: TenantId, scopes: &Scopes, key: &str) -> Result<Option<KvRecord>, DbError> {
        rules::check_key(key)?;
        rules::check_scopes(scopes)?;
        self.store.kv_get(tenant, key, scopes)
    }

    /// All scopes of the tenant's records, sorted, distinct.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        self.store.kv_list_scopes(tenant)
    }

    /// Creates or replaces the record with exactly these scopes.
    ///
    /// # Errors
    /// `Refused` by a rule or the quota; else see [`Store`].
    pub fn kv_set(&self, tenant: TenantId, scopes: Scopes, key: String, value: &EncodedValue) -> Result<(), DbError> {
        rules::check_key(&key)?;
        rules::check_scopes(&scopes)?;
        let value = rules::check_value(value)?;
        let fresh_id = format!("{:016x}{:016x}", random::u64(), random::u64());
        let set = KvSet { key, scopes, value, fresh_id, now: Timestamp::now(), quota: self.options.quota };
        self.store.kv_set(tenant, set)
    }

    /// Deletes the record with exactly these scopes; one that is not there is no error.
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`Store`].
    pub fn kv_delete(&self, tenant: TenantId, scopes: Scopes, key: String) -> Result<(), DbError> {
        rules::check_key(&key)?;
        rules::check_scopes(&scopes)?;
        self.store.kv_delete(tenant, key, scopes)
    }

    /// The records whose scopes contain all of `scopes` and whose key matches, ordered by key, then scopes.
    ///
    /// # Errors
    /// `Refused` by a rule or because too many match; else see [`Store`].
    pub fn kv_find(&self, tenant: TenantId, scopes: &Scopes, pattern: &str) -> Result<Vec<KvRecord>, DbError> {
        rules::check_asked_scopes(scopes)?;
        let pattern = rules::check_pattern(pattern)?;
        self.store.kv_find(tenant, scopes, &pattern, FindLimits::default())
    }

    /// How much of its quota the tenant uses.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        self.store.kv_usage(tenant)
    }

    /// Closes the store; blocks as [`Store::close`].
    pub fn close(&self) {
        self.store.close();
    }

    fn cached(&self, tenant: TenantId) -> Option<Cached> {
        self.states.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    fn lock_listener(&self) -> MutexGuard<'_, Option<StateListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a stored state the one that everybody sees, unless a later one is already.
    fn publish(&self, tenant: TenantId, state: TenantState, revision: Revision) {
        let listener = self.lock_listener();
        let before = self.cached(tenant);
        if before.as_ref().is_some_and(|before| before.revision >= revision) {
            return;
        }
        let banned = before.is_some_and(|before| before.banned);
        self.put(tenant, Cached { state: Arc::new(state), banned, revision }, listener.as_ref());
    }

    fn put(&self, tenant: TenantId, cached: Cached, listener: Option<&StateListener>) {
        let state = Arc::clone(&cached.state);
        self.states.write().unwrap_or_else(PoisonError::into_inner).insert(tenant, cached);
        if let Some(listener) = listener {
            listener(tenant, &state);
        }
    }

    fn lock_doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self, tenant: TenantId) {
        let mut doubtful = self.lock_doubts();
        doubtful.counted += 1;
        let number = doubtful.counted;
        doubtful.tenants.insert(tenant, number);
        self.has_doubts.store(true, Ordering::Release);
    }

    /// Asks the store what became of sets whose outcome was unknown, once it answers again.
    fn settle_doubts(&self) {
        if !self.has_doubts.load(Ordering::Acquire) {
            return;
        }
        let tenants: Vec<(TenantId, u64)> =
            self.lock_doubts().tenants.iter().map(|(key, value)| (*key, *value)).collect();
        for (tenant, number) in tenants {
            let before = self.cached(tenant).map(|cached| cached.revision);
            // Not yet open again: the next caller asks.
            let Ok(stored) = self.store.tenant_state(tenant) else { return };
            self.settle(tenant, stored, before);
            let mut doubtful = self.lock_doubts();
            // Unless there is a newer doubt by now.
            if doubtful.tenants.get(&tenant) == Some(&number) {
                doubtful.tenants.remove(&tenant);
            }
            self.has_doubts.store(!doubtful.tenants.is_empty(), Ordering::Release);
        }
    }

    /// Takes over what the store was found to hold, unless a set was published since: that is later, or the same.
    fn settle(&self, tenant: TenantId, stored: Option<StoredState>, before: Option<Revision>) {
        let listener = self.lock_listener();
        if self.cached(tenant).map(|cached| cached.revision) == before
            && let Some(StoredState { state, banned }) = stored
        {
            let cached = Cached { state: Arc::new(state), banned, revision: before.unwrap_or_default() };
            self.put(tenant, cached, listener.as_ref());
        }
    }
}

impl fmt::Debug for DbState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DbState")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EncodedJson;
    use crate::store::memory::MemoryStore;

    fn state(events: &[&str]) -> TenantState {
        TenantState { events: events.iter().map(|name| (*name).to_owned()).collect(), data: EncodedJson::null() }
    }

    fn db() -> DbState {
        DbState::new(Arc::new(MemoryStore::new()), DbOptions::default()).expect("an empty store")
    }

    #[test]
    fn a_worker_owns_what_the_formula_gives_it() {
        let tenant = TenantId::Guild(5 << 22);
        assert_eq!(Caller { worker_id: 2, workers: 3 }.check_owns(tenant), Ok(()));
        assert!(matches!(Caller { worker_id: 1, workers: 3 }.check_owns(tenant), Err(DbError::Forbidden(_))));
    }

    #[test]
    fn a_worker_sees_the_states_of_its_own_tenants() {
        let db = db();
        for number in 0..10_u64 {
            db.set_tenant_state(TenantId::User(number << 22), &state(&["A"])).expect("set");
        }
        let mut seen = 0;
        for worker_id in 0..3 {
            let caller = Caller { worker_id, workers: 3 };
            let states = db.tenant_states(caller);
            assert!(states.iter().all(|(tenant, _)| caller.owns(*tenant)));
            seen += states.len();
        }
        assert_eq!(seen, 10);
    }

    #[test]
    fn the_listener_hears_of_each_state_as_it_is_stored() {
        let db = db();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&heard);
        db.on_tenant_state(Box::new(move |tenant, state| {
            hear.lock().expect("not poisoned").push((tenant, state.clone()));
        }));
        let tenant = TenantId::Guild(1);
        db.set_tenant_state(tenant, &state(&["B", "A"])).expect("set");
        assert!(db.set_tenant_state(tenant, &state(&["\0"])).is_err());
        let heard = heard.lock().expect("not poisoned");
        assert_eq!(*heard, [(tenant, state(&["A", "B"]))]);
        assert_eq!(db.tenant_state(tenant), Some(Arc::new(state(&["A", "B"]))));
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let db = db();
        let tenant = TenantId::Guild(1);
        db.publish(tenant, state(&["NEW"]), Revision(2));
        db.publish(tenant, state(&["OLD"]), Revision(1));
        assert_eq!(db.tenant_state(tenant), Some(Arc::new(state(&["NEW"]))));
    }

    #[test]
    fn states_are_read_from_the_store_at_the_start() {
        let store = Arc::new(MemoryStore::new());
        let tenant = TenantId::User(7);
        store.set_tenant_state(tenant, state(&["A"])).expect("set");
        let db = DbState::new(store, DbOptions::default()).expect("readable");
        assert_eq!(db.tenant_state(tenant), Some(Arc::new(state(&["A"]))));
    }
}
