//! [`DbState`]: the database as everybody above a store sees it, with the rules, the quotas and the
//! tenant states at hand.
//!
//! Deliberately the same for a worker in this process and for one that asks over HTTP: whatever may
//! be refused is refused here. What is about the shop is in `global.rs`. Owned by the master;
//! called from any thread.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::backup::Export;
use super::global::GlobalAddress;
use super::measured::Measured;
use super::message_rules::{MessageRules, MessageRulesCache};
use super::quota_warnings::QuotaWarnings;
use super::shop::ShopLook;
use super::shop_patterns::ShopPatterns;
use super::states::{StateListener, States, TemplateListener};
use super::template_history::TemplateHistory;
use super::tenant_rates::{RateLimits, TenantRates};
use super::timers::{TimerDesk, TimerNews};
use super::{
    FindLimits, KvSet, OpenError, Operation, OperationFigures, Quota, Standing, Store,
    StoreFigures, Usage, rules,
};
use crate::base::clock::ScriptClock;
use crate::base::error::DbError;
use crate::base::metrics::Counter;
use crate::base::random;
use crate::base::sync::SharedLock;
use crate::wire::data::sharding::{ShardSet, worker_for};
use crate::wire::data::{
    DbAnswer, DbOp, EncodedValue, KeyValueOp, MESSAGE_RULES_KEY, MESSAGE_RULES_SCOPE,
    PublicGlobalKeyValueOp, SHOP_WATCH_KEY, SHOP_WATCH_SCOPE, Scopes, TenantId, TenantState,
    Timestamp,
};

/// What there is to see to for the watchers of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShopNews {
    /// An entry was changed here, or may have been.
    Changed,
    /// A tenant may watch something else from now on.
    Watching(TenantId),
    /// The tenants of these shards are this master's now.
    Came(ShardSet),
    /// They are another's.
    Went(ShardSet),
}

/// Hears of all of that, before the caller that changed it is answered; must not block, and must
/// not ask [`DbState`].
pub type ShopListener = Box<dyn Fn(ShopNews) + Send + Sync>;

/// What an operator may change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DbOptions {
    /// What each tenant may have.
    pub quota: Quota,
    /// Where priced entries are bought; `{scope}`, `{key}` and `{version}` in it are replaced.
    pub purchase_url: Option<String>,
    /// What each tenant may ask for a second.
    pub rates: RateLimits,
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

/// A store and the rules for using it.
pub struct DbState {
    store: Measured,
    options: DbOptions,
    states: States,
    template_listener: SharedLock<Option<TemplateListener>>,
    template_history: TemplateHistory,
    message_rules: MessageRulesCache,
    shop_listener: SharedLock<Option<ShopListener>>,
    timer_desk: TimerDesk,
    tenant_rates: TenantRates,
    quota_warnings: QuotaWarnings,
    unrecorded: Counter,
    clock: ScriptClock,
}

/// What is to be told of a record's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WatchedRecord {
    Nothing,
    Template,
    MessageRules,
    ShopPatterns,
}

impl WatchedRecord {
    fn of(key: &str, scopes: &Scopes) -> Self {
        if rules::is_template(key, scopes) {
            WatchedRecord::Template
        } else if rules::is_message_rules(key, scopes) {
            WatchedRecord::MessageRules
        } else if rules::is_shop_patterns(key, scopes) {
            WatchedRecord::ShopPatterns
        } else {
            WatchedRecord::Nothing
        }
    }
}

impl DbState {
    /// Takes over a store and reads all tenant states.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(store: Arc<dyn Store>, options: DbOptions) -> Result<Self, OpenError> {
        let db = Self::without_states(store, options);
        db.load_shards(&ShardSet::full())
            .map_err(|error| OpenError::Unavailable(error.to_string()))?;
        Ok(db)
    }

    /// Takes over a store of which no tenant is this master's yet.
    pub fn without_states(store: Arc<dyn Store>, options: DbOptions) -> Self {
        Self {
            store: Measured::new(store),
            tenant_rates: TenantRates::new(&options.rates),
            options,
            states: States::default(),
            template_listener: SharedLock::default(),
            template_history: TemplateHistory::default(),
            message_rules: MessageRulesCache::default(),
            shop_listener: SharedLock::default(),
            timer_desk: TimerDesk::default(),
            quota_warnings: QuotaWarnings::default(),
            unrecorded: Counter::default(),
            clock: ScriptClock::default(),
        }
    }

    /// Reads the states of the tenants of some shards, and notifies the listener of each.
    ///
    /// # Blocks
    /// On the store.
    ///
    /// # Errors
    /// See [`Store`]; nothing has changed then.
    pub fn load_shards(&self, of: &ShardSet) -> Result<(), DbError> {
        let before = self.states.revisions(of);
        let stored = self.store.ask(Operation::TenantStates, |store| store.tenant_states(of))?;
        self.states.load(stored, &before);
        // What another master has written meanwhile is not known here.
        self.message_rules.forget_all();
        self.tell_shop(ShopNews::Came(*of));
        self.timer_desk.tell(TimerNews::Came(*of));
        Ok(())
    }

    /// Forgets the states of the tenants of some shards, which are another master's now.
    pub fn forget_shards(&self, of: &ShardSet) {
        self.states.forget(of);
        self.message_rules.forget_all();
        self.tell_shop(ShopNews::Went(*of));
        self.timer_desk.tell(TimerNews::Went(*of));
    }

    /// Has records and entries carry the time of this clock, where it is not the system's.
    pub fn with_clock(self, clock: ScriptClock) -> Self {
        Self { clock, ..self }
    }

    pub(super) fn clock(&self) -> &ScriptClock {
        &self.clock
    }

    /// Errors of tenants that this master did not get into their records.
    pub fn unrecorded(&self) -> &Counter {
        &self.unrecorded
    }

    pub(super) fn quota_warnings(&self) -> &QuotaWarnings {
        &self.quota_warnings
    }

    pub(super) fn timer_desk(&self) -> &TimerDesk {
        &self.timer_desk
    }

    pub(super) fn tenant_rates(&self) -> &TenantRates {
        &self.tenant_rates
    }

    /// The date by the clock of records.
    pub fn now(&self) -> Timestamp {
        Timestamp::of(self.clock.date())
    }

    pub(super) fn store(&self) -> &Measured {
        &self.store
    }

    pub(super) fn options(&self) -> &DbOptions {
        &self.options
    }

    /// The listener for every state that is set from now on.
    pub fn on_tenant_state(&self, listener: StateListener) {
        self.states.listen(listener);
    }

    /// The listener for every tenant whose own template may have changed from now on.
    pub fn on_template(&self, listener: TemplateListener) {
        *self.template_listener.write() = Some(listener);
    }

    /// The listener for what concerns the watchers of the shop from now on.
    pub fn on_shop(&self, listener: ShopListener) {
        *self.shop_listener.write() = Some(listener);
    }

    fn tell_shop(&self, news: ShopNews) {
        if let Some(listener) = &*self.shop_listener.read() {
            listener(news);
        }
    }

    /// The result of a change of the shop. The listener is notified if it may have been made.
    pub(super) fn shop_changed(&self, changed: Result<(), DbError>) -> Result<(), DbError> {
        if matches!(changed, Ok(()) | Err(DbError::OutcomeUnknown(_))) {
            self.tell_shop(ShopNews::Changed);
        }
        changed
    }

    /// The changes of the shop's entries since a look.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn shop_changes(&self, since: Option<i64>) -> Result<ShopLook, DbError> {
        self.store.ask(Operation::ShopChanges, |store| store.shop_changes(since))
    }

    /// The tenants of some shards that watch the shop, and what. What another program wrote there
    /// and is none of ours counts as nothing.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn shop_watchers(&self, of: &ShardSet) -> Result<Vec<(TenantId, ShopPatterns)>, DbError> {
        let (key, scope) = (SHOP_WATCH_KEY, SHOP_WATCH_SCOPE);
        let records = self
            .store
            .ask(Operation::RecordsOfAll, |store| store.records_of_all(of, key, scope))?;
        let patterns = |value| ShopPatterns::of(&value).unwrap_or_default();
        Ok(records.into_iter().map(|(tenant, value)| (tenant, patterns(value))).collect())
    }

    /// What a tenant watches of the shop.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn shop_patterns(&self, tenant: TenantId) -> Result<ShopPatterns, DbError> {
        let (scopes, key) = (Scopes::new([SHOP_WATCH_SCOPE]), SHOP_WATCH_KEY.to_owned());
        let record = self.kv(tenant, KeyValueOp::Get { scopes, key })?.into_record()?;
        let patterns = record.map(|record| ShopPatterns::of(&record.value).unwrap_or_default());
        Ok(patterns.unwrap_or_default())
    }

    /// The tenant's state, if it has one.
    ///
    /// # Blocks
    /// On the store, if a write about the tenant had an unknown outcome and no reader has looked
    /// since.
    pub fn tenant_state(&self, tenant: TenantId) -> Option<Arc<TenantState>> {
        self.states.settle_doubt(&self.store, tenant);
        self.states.get(tenant).state
    }

    /// Whether the tenant's dispatches are refused; blocks as [`DbState::tenant_state`].
    pub fn standing(&self, tenant: TenantId) -> Standing {
        self.states.settle_doubt(&self.store, tenant);
        self.states.get(tenant).standing
    }

    /// The states of all tenants that belong to a worker, as they are at this moment.
    pub fn tenant_states(&self, caller: Caller) -> Vec<(TenantId, Arc<TenantState>)> {
        self.states.settle_doubts(&self.store);
        self.states.of(|tenant| caller.owns(tenant))
    }

    /// The tenants of some shards whose own state names an event, but for banned ones.
    pub fn subscribed_to(&self, event: &str, of: &ShardSet) -> Vec<TenantId> {
        self.states.subscribed_to(event, of)
    }

    /// Replaces a tenant's state and notifies the listener.
    ///
    /// # Blocks
    /// As a write to a [`Store`].
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`Store`].
    pub fn set_tenant_state(&self, tenant: TenantId, state: &TenantState) -> Result<(), DbError> {
        let state = rules::check_tenant_state(state)?;
        self.states.settle_doubts(&self.store);
        let revision = self.or_doubt(
            tenant,
            self.store.ask(Operation::SetTenantState, |store| {
                store.set_tenant_state(tenant, state.clone())
            }),
        )?;
        self.states.publish_state(tenant, state, revision);
        Ok(())
    }

    /// What each tenant may have.
    pub fn quota(&self) -> Quota {
        self.options.quota
    }

    /// For each of some tenants whether it has a state or a record, also of another master's.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn are_known(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError> {
        self.store.ask(Operation::AreKnown, |store| store.are_known(tenants))
    }

    /// For staff: sets whether a tenant's dispatches are refused.
    ///
    /// # Blocks
    /// As a write to a [`Store`].
    ///
    /// # Errors
    /// See [`Store`].
    pub fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<(), DbError> {
        self.states.settle_doubts(&self.store);
        let revision = self.or_doubt(
            tenant,
            self.store.ask(Operation::SetStanding, |store| store.set_standing(tenant, standing)),
        )?;
        self.states.publish_standing(tenant, standing, revision);
        Ok(())
    }

    fn or_doubt<T>(&self, tenant: TenantId, result: Result<T, DbError>) -> Result<T, DbError> {
        if matches!(result, Err(DbError::OutcomeUnknown(_))) {
            self.states.doubt(tenant);
        }
        result
    }

    /// Carries out an operation of a worker's tenant.
    ///
    /// # Blocks
    /// As the operation on a [`Store`].
    ///
    /// # Errors
    /// `Forbidden`: the tenant does not belong to the worker; `Busy`: it asks too much; else as the
    /// operation itself.
    pub fn ask(&self, caller: Caller, op: DbOp) -> Result<DbAnswer, DbError> {
        op.tenant().map_or(Ok(()), |tenant| caller.check_owns(tenant))?;
        self.admit_op(caller, &op)?;
        match op {
            DbOp::Kv(_, op) if rules::writes_what_is_not_its_own(&op) => {
                Err(rules::refused("no worker writes records of this scope"))
            }
            DbOp::Kv(tenant, op) => self.kv(tenant, op),
            DbOp::Public(_, PublicGlobalKeyValueOp::Find { query, scope }) => {
                self.global_find(&query, &scope).map(DbAnswer::Entries)
            }
            DbOp::Public(_, PublicGlobalKeyValueOp::Get { key, version, scope, id }) => {
                let entry = self.global_get(id, &GlobalAddress { scope, key, version })?;
                Ok(DbAnswer::Entry(entry.map(Box::new)))
            }
            DbOp::Global(tenant, op) => self.global(tenant, op).map(|()| DbAnswer::Done),
            DbOp::SetTenantState(tenant, state) => {
                self.set_tenant_state(tenant, &state).map(|()| DbAnswer::Done)
            }
            DbOp::Timer(tenant, op) => self.timers(tenant, op),
        }
    }

    /// Carries out an operation on a tenant's records, whatever worker the tenant belongs to.
    ///
    /// # Blocks
    /// As the operation on a [`Store`].
    ///
    /// # Errors
    /// `Refused` by a rule, the quota, or because too many records match; else see [`Store`].
    pub fn kv(&self, tenant: TenantId, mut op: KeyValueOp) -> Result<DbAnswer, DbError> {
        rules::check_kv(&mut op)?;
        match op {
            KeyValueOp::Get { scopes, key } => self
                .store
                .ask(Operation::KvGet, |store| store.kv_get(tenant, &key, &scopes))
                .map(DbAnswer::Record),
            KeyValueOp::ListScopes => self
                .store
                .ask(Operation::KvListScopes, |store| store.kv_list_scopes(tenant))
                .map(DbAnswer::Scopes),
            KeyValueOp::Find { scopes, query } => {
                let pattern = rules::check_pattern(&query)?;
                let find = |store: &dyn Store| {
                    store.kv_find(tenant, &scopes, &pattern, FindLimits::default())
                };
                self.store.ask(Operation::KvFind, find).map(DbAnswer::Records)
            }
            KeyValueOp::Set { scopes, key, value } => self.set_record(tenant, scopes, key, value),
            KeyValueOp::Delete { scopes, key } => {
                let watched = WatchedRecord::of(&key, &scopes);
                let _replacing = (watched == WatchedRecord::Template)
                    .then(|| self.template_history.keep(&self.store, tenant, None, self.now()))
                    .transpose()?;
                let written = self
                    .store
                    .ask(Operation::KvDelete, |store| store.kv_delete(tenant, key, scopes));
                self.written(tenant, watched, written)
            }
        }
    }

    fn set_record(
        &self,
        tenant: TenantId,
        scopes: Scopes,
        key: String,
        value: EncodedValue,
    ) -> Result<DbAnswer, DbError> {
        let fresh_id = format!("{:016x}{:016x}", random::u64(), random::u64());
        let watched = WatchedRecord::of(&key, &scopes);
        let _replacing = match watched {
            WatchedRecord::ShopPatterns => {
                ShopPatterns::of(&value)?;
                None
            }
            WatchedRecord::Template => {
                rules::check_template(&value)?;
                Some(self.template_history.keep(&self.store, tenant, Some(&value), self.now())?)
            }
            WatchedRecord::Nothing | WatchedRecord::MessageRules => None,
        };
        // A tenant at its quota has its errors recorded too; how much they take is bounded.
        let is_errors = rules::is_errors(&key, &scopes);
        let quota = if is_errors { Quota::UNLIMITED } else { self.options.quota };
        let set = KvSet { key, scopes, value, fresh_id, now: self.now(), quota };
        let written = self.store.ask(Operation::KvSet, |store| store.kv_set(tenant, set));
        let growth = written.as_ref().ok().copied().flatten().filter(|_| !is_errors);
        let answer = self.written(tenant, watched, written.map(drop));
        if let Some(growth) = growth {
            self.warn_of_quota(tenant, growth);
        }
        answer
    }

    /// The answer to a write. Listeners are notified of what may have changed, and rules of
    /// messages that may have are forgotten.
    fn written(
        &self,
        tenant: TenantId,
        watched: WatchedRecord,
        written: Result<(), DbError>,
    ) -> Result<DbAnswer, DbError> {
        if matches!(written, Ok(()) | Err(DbError::OutcomeUnknown(_))) {
            match watched {
                WatchedRecord::Nothing => {}
                WatchedRecord::Template => {
                    if let Some(listener) = &*self.template_listener.read() {
                        listener(tenant);
                    }
                }
                WatchedRecord::MessageRules => self.message_rules.forget(tenant),
                WatchedRecord::ShopPatterns => self.tell_shop(ShopNews::Watching(tenant)),
            }
        }
        written.map(|()| DbAnswer::Done)
    }

    /// Whether a tenant receives messages of another on a topic.
    ///
    /// # Blocks
    /// As a reading of a [`Store`], unless the tenant's rules were read lately.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn allows_message(
        &self,
        receiver: TenantId,
        from: TenantId,
        topic: &str,
    ) -> Result<bool, DbError> {
        let read = Instant::now();
        let generation = match self.message_rules.get(receiver, read) {
            Ok(rules) => return Ok(rules.allow(from, topic)),
            Err(generation) => generation,
        };
        let (scopes, key) = (Scopes::new([MESSAGE_RULES_SCOPE]), MESSAGE_RULES_KEY.to_owned());
        let record = self.kv(receiver, KeyValueOp::Get { scopes, key })?.into_record()?;
        let rules = record.map(|record| MessageRules::of(&record.value)).unwrap_or_default();
        let rules = Arc::new(rules);
        self.message_rules.keep(receiver, &rules, generation, read);
        Ok(rules.allow(from, topic))
    }

    /// How much of its quota the tenant uses.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        self.store.ask(Operation::KvUsage, |store| store.kv_usage(tenant))
    }

    /// Everything in the store as it is at this moment; blocks as [`Store::export`].
    ///
    /// # Errors
    /// See [`Store`].
    pub fn export(&self) -> Result<Export, DbError> {
        self.store.ask(Operation::Export, |store| store.export())
    }

    /// What the store was asked and how that ended.
    pub fn operations(&self) -> &OperationFigures {
        self.store.operations()
    }

    /// The store's figures of its inside.
    pub fn store_figures(&self) -> StoreFigures {
        self.store.store_figures()
    }

    /// Closes the store; blocks as [`Store::close`].
    pub fn close(&self) {
        self.store.close();
    }
}

impl fmt::Debug for DbState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DbState")
    }
}

#[cfg(test)]
mod tests;
