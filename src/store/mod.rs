//! Where tenants' states and records are kept: the [`Store`] trait, its implementations, and
//! [`DbState`] with the rules.
//!
//! A store does what it is told, atomically and durably; what may be asked of it is decided before,
//! in `rules.rs` and [`DbState`], so that all stores refuse alike. Stores read no clock and draw no
//! random numbers: both come with the operation, so that equal operations give equal answers.
//! Called from any thread.

pub mod backup;
mod figures;
pub mod global;
mod host_rules;
pub mod lease;
mod measured;
pub mod memory;
mod message_rules;
pub mod pattern;
mod permit;
#[cfg(feature = "postgres")]
pub mod postgres;
mod quota_warnings;
pub mod redb;
pub mod rules;
pub mod schedule;
pub mod shop;
pub mod shop_patterns;
mod state;
mod states;
mod template_history;
mod tenant_rates;
pub mod timers;
mod url;

use std::sync::Arc;

pub use figures::{EmbeddedFigures, QueueFigures, ServerFigures, StoreFigures};
pub use measured::{Operation, OperationFigures, OperationResult};
pub use state::{Caller, DbOptions, DbState, ShopListener, ShopNews};
pub use states::{StateListener, TemplateListener};
pub use tenant_rates::{RateKind, RateLimit, RateLimits, RateRefusal};
pub(crate) use url::masked;
pub use url::{InvalidStoreUrl, OpenError, StoreUrl};

use serde::Serialize;

use crate::base::error::DbError;
use crate::base::limits::{
    KV_FIND_MAX_BYTES, KV_FIND_MAX_RECORDS, KV_QUOTA_BYTES, KV_QUOTA_RECORDS, POSTGRES_CONNECTIONS,
    WARNED_LEFT_SHARE, WARNED_QUOTA_BYTES, WARNED_QUOTA_RECORDS,
};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    EncodedValue, KvRecord, PartialGlobalKv, Scopes, TenantId, TenantState, Timer, Timestamp,
};
use backup::Export;
use global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use lease::HeldShards;
use pattern::Pattern;
use shop::ShopLook;
use timers::{DueTimers, TimerPlace, TimerRun};

/// Keeps tenants' states and records.
///
/// Acknowledged means synced: when a write returns `Ok`, the change outlives the process and the
/// machine's power (but for `memory:`, whose whole contents end with the process). Every write is
/// atomic. What callers pass has been checked against the rules.
///
/// # Errors
/// Of every operation: `Busy` and `Unavailable`, nothing was done · `OutcomeUnknown`, a write may
/// have been made or not · `Internal`, what is stored cannot be read. Others are named where they
/// occur.
///
/// # Blocks
/// A read until the disk answers; a write until it is synced, at most `STORE_WRITE_TIMEOUT`.
pub trait Store: Send + Sync {
    /// The states of all tenants of some shards that have one or are banned, in no order.
    ///
    /// # Errors
    /// See [`Store`].
    fn tenant_states(&self, of: &ShardSet) -> Result<Vec<(TenantId, StoredState)>, DbError>;

    /// The state of one tenant, if anything is stored of it.
    ///
    /// # Errors
    /// See [`Store`].
    fn tenant_state(&self, tenant: TenantId) -> Result<Option<StoredState>, DbError>;

    /// Replaces a tenant's state; its standing stays as it is.
    ///
    /// # Errors
    /// See [`Store`].
    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<Revision, DbError>;

    /// The record with this key and exactly these scopes.
    ///
    /// # Errors
    /// See [`Store`].
    fn kv_get(
        &self,
        tenant: TenantId,
        key: &str,
        scopes: &Scopes,
    ) -> Result<Option<KvRecord>, DbError>;

    /// The scopes of all the tenant's records, sorted, distinct.
    ///
    /// # Errors
    /// See [`Store`].
    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError>;

    /// Creates or replaces a record; answers how the tenant's usage grew by it, if it did and that
    /// is known.
    ///
    /// # Errors
    /// See [`Store`]; `Refused` if it would exceed the quota.
    fn kv_set(&self, tenant: TenantId, set: KvSet) -> Result<Option<UsageGrowth>, DbError>;

    /// Deletes a record; one that is not there is no error.
    ///
    /// # Errors
    /// See [`Store`].
    fn kv_delete(&self, tenant: TenantId, key: String, scopes: Scopes) -> Result<(), DbError>;

    /// The records whose scopes contain all of `scopes` and whose key matches, ordered by key, then
    /// scopes.
    ///
    /// # Errors
    /// See [`Store`]; `Refused` if there are more than `limits` allow.
    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: &Scopes,
        pattern: &Pattern,
        limits: FindLimits,
    ) -> Result<Vec<KvRecord>, DbError>;

    /// How much the tenant's records take of its quota.
    ///
    /// # Errors
    /// See [`Store`].
    fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError>;

    /// For each of some tenants whether it has a state or any record.
    ///
    /// # Errors
    /// See [`Store`].
    fn are_known(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError>;

    /// Sets whether a tenant's dispatches are refused; its state stays as it is.
    ///
    /// # Errors
    /// See [`Store`].
    fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<Revision, DbError>;

    /// The entries that a filter lets through, ordered by scope, then key, then version, without
    /// their long texts.
    ///
    /// # Errors
    /// See [`Store`]; `Refused` if there are more than `limits` allow.
    fn global_find(
        &self,
        filter: &GlobalFilter,
        limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError>;

    /// One entry, in any review state.
    ///
    /// # Errors
    /// See [`Store`].
    fn global_get(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError>;

    /// Creates an entry.
    ///
    /// # Errors
    /// See [`Store`]; `Conflict` if it exists; `Refused` if its owner would exceed the quota.
    fn global_create(&self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError>;

    /// Deletes an entry of a tenant's own, or of any owner if none is given. Purchases of it stay.
    ///
    /// # Errors
    /// See [`Store`]; `NotFound`; `Forbidden` if it is another's.
    fn global_delete(&self, at: GlobalAddress, owner: Option<TenantId>) -> Result<(), DbError>;

    /// Changes what staff may change about an entry.
    ///
    /// # Errors
    /// See [`Store`]; `NotFound`; `Refused` if this entry cannot have that.
    fn global_change(
        &self,
        at: GlobalAddress,
        change: GlobalChange,
        now: Timestamp,
    ) -> Result<(), DbError>;

    /// Notes that a tenant purchased an entry; a second time changes nothing.
    ///
    /// # Errors
    /// See [`Store`]; `NotFound`.
    fn global_purchase(
        &self,
        tenant: TenantId,
        at: GlobalAddress,
        now: Timestamp,
    ) -> Result<(), DbError>;

    /// Whether a tenant purchased an entry.
    ///
    /// # Errors
    /// See [`Store`].
    fn global_is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> Result<bool, DbError>;

    /// The changes of entries since a look; `None`: there was none. Each change of an entry is
    /// noted with it.
    ///
    /// # Errors
    /// See [`Store`].
    fn shop_changes(&self, since: Option<i64>) -> Result<ShopLook, DbError>;

    /// The record with this key and this only scope of each tenant of some shards that has one, in
    /// no order.
    ///
    /// # Errors
    /// See [`Store`].
    fn records_of_all(
        &self,
        of: &ShardSet,
        key: &str,
        scope: &str,
    ) -> Result<Vec<(TenantId, EncodedValue)>, DbError>;

    /// A tenant's timers, in the order in which they are due.
    ///
    /// # Errors
    /// See [`Store`].
    fn timers(&self, tenant: TenantId) -> Result<Vec<Timer>, DbError>;

    /// Makes a timer; one with this id stays as it is.
    ///
    /// # Errors
    /// See [`Store`]; `Refused` if there is no room for it.
    fn timer_set(&self, tenant: TenantId, timer: Timer) -> Result<(), DbError>;

    /// Ends a timer; whether there was one.
    ///
    /// # Errors
    /// See [`Store`].
    fn timer_cancel(&self, tenant: TenantId, id: String) -> Result<bool, DbError>;

    /// The timers of some shards that are due by `until`, behind a place, in the order of their
    /// places, at most `max`; and when the first one is due after `until`.
    ///
    /// # Errors
    /// See [`Store`].
    fn timers_due(
        &self,
        of: &ShardSet,
        behind: Option<&TimerPlace>,
        until: Timestamp,
        max: usize,
    ) -> Result<DueTimers, DbError>;

    /// Notes that runs are over: their timers are due next, or gone. A timer that is not there any
    /// more, or due at another time, stays as it is.
    ///
    /// # Errors
    /// See [`Store`].
    fn timers_ran(&self, runs: Vec<TimerRun>) -> Result<(), DbError>;

    /// How many timers there are of some shards.
    ///
    /// # Errors
    /// See [`Store`].
    fn timers_count(&self, of: &ShardSet) -> Result<u64, DbError>;

    /// Everything, as it is at this moment, while others go on writing.
    ///
    /// # Blocks
    /// Until the snapshot is there, and at each step until the next of it is read.
    ///
    /// # Errors
    /// See [`Store`]; those of a later step are items of the export.
    fn export(&self) -> Result<Export, DbError>;

    /// What there is to count of its inside. Called while it is in use; does not block.
    fn figures(&self) -> StoreFigures {
        StoreFigures::default()
    }

    /// Finishes what was begun, releases the files and answers `Unavailable` from then on. A second
    /// call does nothing.
    ///
    /// # Blocks
    /// Until the writes under way are synced.
    fn close(&self);
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Connections to a database server, each with a thread of its own. An embedded store has none.
    pub connections: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { connections: POSTGRES_CONNECTIONS }
    }
}

/// As [`open_with`], with the usual options.
///
/// # Errors
/// Why it cannot be used; see [`OpenError`].
pub fn open(url: &StoreUrl) -> Result<Arc<dyn Store>, OpenError> {
    open_with(url, StoreOptions::default(), Arc::default())
}

/// Opens a store; a file that is not there yet is created, a database's tables must be there (see
/// [`migrate`]). A database that masters share refuses what a tenant writes through a master that
/// does not hold its shard.
///
/// # Blocks
/// Until the store is ready to serve.
///
/// # Errors
/// Why it cannot be used; see [`OpenError`].
pub fn open_with(
    url: &StoreUrl,
    options: StoreOptions,
    held: Arc<HeldShards>,
) -> Result<Arc<dyn Store>, OpenError> {
    match url {
        StoreUrl::Memory => Ok(Arc::new(memory::MemoryStore::new())),
        StoreUrl::Redb(path) => Ok(Arc::new(redb::RedbStore::open(path)?)),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => Ok(Arc::new(postgres::PostgresStore::open(url, options, held)?)),
        #[cfg(not(feature = "postgres"))]
        StoreUrl::Postgres(_) => {
            let _ = (options, held);
            Err(NOT_BUILT)
        }
    }
}

/// Checks that a store of this kind is built in and that its URL can be understood, without
/// touching it.
///
/// # Errors
/// [`OpenError::NotBuilt`] or [`OpenError::BadUrl`].
pub fn check_url(url: &StoreUrl) -> Result<(), OpenError> {
    match url {
        StoreUrl::Memory | StoreUrl::Redb(_) => Ok(()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => postgres::check_url(url),
        #[cfg(not(feature = "postgres"))]
        StoreUrl::Postgres(_) => Err(NOT_BUILT),
    }
}

/// How masters over this store agree on each shard's holder; `None`: it has one master only.
///
/// # Errors
/// [`OpenError::BadUrl`].
#[cfg(feature = "postgres")]
pub fn coordination(url: &StoreUrl) -> Result<Option<lease::ConnectCoordination>, OpenError> {
    match url {
        StoreUrl::Memory | StoreUrl::Redb(_) => Ok(None),
        StoreUrl::Postgres(url) => postgres::coordination(url).map(Some),
    }
}

/// What a migration found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrated {
    /// Tables were missing and were made.
    Made,
    /// Nothing: all tables were there.
    Nothing,
}

/// Creates or upgrades the tables of a database; an embedded store needs that never.
///
/// # Blocks
/// Until the server is done.
///
/// # Errors
/// Why it could not; see [`OpenError`]. Then nothing was changed.
pub fn migrate(url: &StoreUrl) -> Result<Migrated, OpenError> {
    match url {
        StoreUrl::Memory | StoreUrl::Redb(_) => Ok(Migrated::Nothing),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => postgres::migrate(url),
        #[cfg(not(feature = "postgres"))]
        StoreUrl::Postgres(_) => Err(NOT_BUILT),
    }
}

/// What a build without a store that masters can share says where one is asked for.
pub const NOT_BUILT: OpenError =
    OpenError::NotBuilt("this program was built without the PostgreSQL store (feature `postgres`)");

/// The place of a set among the sets of one tenant's state: a later one has a higher revision, as
/// long as the store is open.
///
/// Two callers that set the same state learn here whose state was the last, which their own order
/// of return does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// A tenant's state with what only staff may change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredState {
    /// The state, if it was ever set.
    pub state: Option<TenantState>,
    /// Whether the tenant's dispatches are refused.
    pub standing: Standing,
}

/// Whether a tenant's dispatches are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// They are.
    #[default]
    Good,
    /// They are refused.
    Banned,
}

/// A record to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvSet {
    /// Its key.
    pub key: String,
    /// Its scopes.
    pub scopes: Scopes,
    /// Its new value.
    pub value: EncodedValue,
    /// Its id, should it be new.
    pub fresh_id: String,
    /// When this happens.
    pub now: Timestamp,
    /// What the tenant may have in all.
    pub quota: Quota,
}

/// What one tenant may have in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Records.
    pub records: u64,
    /// Bytes of keys, scopes and values.
    pub bytes: u64,
}

impl Quota {
    /// As much as there is room for: what a backup holds was within another store's quota.
    pub const UNLIMITED: Self = Self { records: u64::MAX, bytes: u64::MAX };
}

impl Default for Quota {
    fn default() -> Self {
        Self { records: KV_QUOTA_RECORDS, bytes: KV_QUOTA_BYTES }
    }
}

/// What one tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes of keys, scopes and values.
    pub bytes: u64,
}

/// What a set made of a tenant's usage, where that grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageGrowth {
    before: Usage,
    after: Usage,
}

impl UsageGrowth {
    /// The growth from one usage to another; nothing if it is none.
    pub fn of(before: Usage, after: Usage) -> Option<Self> {
        let grew = after.records > before.records || after.bytes > before.bytes;
        grew.then_some(Self { before, after })
    }

    /// What to tell the tenant's owner, of each part of the quota of which it takes more and only
    /// little is left.
    pub fn warnings(self, quota: Quota) -> Vec<(QuotaPart, String)> {
        let mut warnings = Vec::new();
        let mut look = |part, (before, after, max): (u64, u64, u64), smallest, text: String| {
            let warned_at = max - max / u64::from(WARNED_LEFT_SHARE);
            if after > before && after >= warned_at && max >= smallest {
                warnings.push((part, text));
            }
        };
        let (Usage { records, bytes }, before) = (self.after, self.before);
        let text = format!(
            "warning: the tenant has {records} of at most {} records; one beyond that is refused",
            quota.records
        );
        let of_records = (before.records, records, quota.records);
        look(QuotaPart::Records, of_records, WARNED_QUOTA_RECORDS, text);
        let text = format!(
            "warning: the tenant's records have {bytes} of at most {} bytes; a set beyond that is \
             refused",
            quota.bytes
        );
        let of_bytes = (before.bytes, bytes, quota.bytes);
        look(QuotaPart::Bytes, of_bytes, WARNED_QUOTA_BYTES, text);
        warnings
    }
}

/// What of a tenant's has a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaPart {
    /// How many records there are.
    Records,
    /// Their bytes.
    Bytes,
}

impl Usage {
    /// The usage after a record of `old` bytes (none: there was no record) was set to `new` bytes.
    ///
    /// A tenant that is over its quota (it was lowered) may still replace records by ones that are
    /// no larger.
    ///
    /// # Errors
    /// `Refused`: it would be more than the quota.
    pub fn after_set(self, old: Option<u64>, new: u64, quota: Quota) -> Result<Self, DbError> {
        // What takes nothing is not counted.
        let records = self.records + u64::from(old.is_none() && new > 0);
        let bytes = (self.bytes + new).saturating_sub(old.unwrap_or(0));
        if records > quota.records && old.is_none() && new > 0 {
            return Err(DbError::Refused(format!(
                "a tenant has at most {} records",
                quota.records
            )));
        }
        if bytes > quota.bytes && bytes > self.bytes {
            return Err(DbError::Refused(format!(
                "a tenant's records have at most {} bytes",
                quota.bytes
            )));
        }
        Ok(Self { records, bytes })
    }

    /// The usage with one more record of so many bytes, without a look at the quota.
    pub fn with(self, bytes: u64) -> Self {
        Self { records: self.records + u64::from(bytes > 0), bytes: self.bytes + bytes }
    }

    /// The usage after a record of `old` bytes was deleted.
    pub fn after_delete(self, old: u64) -> Self {
        let counted = u64::from(old > 0);
        Self {
            records: self.records.saturating_sub(counted),
            bytes: self.bytes.saturating_sub(old),
        }
    }
}

/// What one record takes of its tenant's quota; 0: it is not counted.
pub fn charge(key: &str, scopes: &Scopes, value_bytes: usize) -> u64 {
    if rules::is_replaced_template(scopes) {
        return 0;
    }
    let scopes: usize = scopes.as_slice().iter().map(String::len).sum();
    (key.len() + scopes + value_bytes) as u64
}

/// How much one Find may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FindLimits {
    /// Records.
    pub records: usize,
    /// Bytes of the answer.
    pub bytes: usize,
}

impl Default for FindLimits {
    fn default() -> Self {
        Self { records: KV_FIND_MAX_RECORDS, bytes: KV_FIND_MAX_BYTES }
    }
}

impl FindLimits {
    /// What a record's id, times and lengths take in an answer, at most; so an answer within the
    /// limit is one in fact.
    const RECORD_OVERHEAD_BYTES: usize = 128;

    /// Counts one more record.
    ///
    /// # Errors
    /// `Refused`: it is one too many.
    pub fn take(
        &mut self,
        key: &str,
        scopes: &[String],
        value_bytes: usize,
    ) -> Result<(), DbError> {
        let scopes: usize = scopes.iter().map(String::len).sum();
        let bytes = key.len() + scopes + value_bytes + Self::RECORD_OVERHEAD_BYTES;
        match (self.records.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(records), Some(bytes)) => {
                *self = Self { records, bytes };
                Ok(())
            }
            _ => Err(DbError::Refused(
                "too many records match: narrow the pattern or the scopes".to_owned(),
            )),
        }
    }
}

impl FindLimits {
    /// Counts one more global entry.
    ///
    /// # Errors
    /// `Refused`: it is one too many.
    pub fn take_entry(&mut self, entry: &PartialGlobalKv) -> Result<(), DbError> {
        let texts =
            entry.scope.len() + entry.short.len() + entry.review_state.len() + entry.owner_id.len();
        self.take(&entry.key, &[], texts + entry.public_metadata.as_bytes().len())
    }
}

/// When a record was last set: `now`, but always later than before, even if the clock goes back.
fn touched(before: Option<Timestamp>, now: Timestamp) -> Timestamp {
    match before {
        Some(before) if before >= now => {
            Timestamp::from_unix_micros(before.unix_micros() + 1).unwrap_or(before)
        }
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_counts_what_would_be_not_what_is() {
        let quota = Quota { records: 2, bytes: 100 };
        let usage = Usage { records: 1, bytes: 60 };
        assert_eq!(usage.after_set(None, 40, quota), Ok(Usage { records: 2, bytes: 100 }));
        assert!(matches!(usage.after_set(None, 41, quota), Err(DbError::Refused(_))));
        assert_eq!(usage.after_set(Some(60), 100, quota), Ok(Usage { records: 1, bytes: 100 }));
        assert!(matches!(usage.after_set(Some(60), 101, quota), Err(DbError::Refused(_))));
        let full = Usage { records: 2, bytes: 2 };
        assert!(matches!(full.after_set(None, 1, quota), Err(DbError::Refused(_))));
        assert_eq!(full.after_delete(2), Usage { records: 1, bytes: 0 });
    }

    #[test]
    fn a_tenant_over_a_lowered_quota_may_still_shrink() {
        let quota = Quota { records: 1, bytes: 10 };
        let usage = Usage { records: 5, bytes: 50 };
        assert_eq!(usage.after_set(Some(10), 10, quota), Ok(usage));
        assert_eq!(usage.after_set(Some(10), 9, quota), Ok(Usage { records: 5, bytes: 49 }));
        assert!(usage.after_set(Some(10), 11, quota).is_err());
    }

    #[test]
    fn times_of_one_record_always_move_on() {
        let at = |micros| Timestamp::from_unix_micros(micros).expect("in range");
        assert_eq!(touched(None, at(5)), at(5));
        assert_eq!(touched(Some(at(4)), at(5)), at(5));
        assert_eq!(touched(Some(at(5)), at(5)), at(6));
        assert_eq!(touched(Some(at(9)), at(5)), at(10));
    }

    #[test]
    fn an_answer_within_the_limit_is_within_it_once_encoded() {
        let mut limits = FindLimits { records: 2, bytes: 1000 };
        let scopes = ["s".repeat(100)];
        assert!(limits.take(&"k".repeat(100), &scopes, 400).is_ok());
        assert!(limits.take("k", &scopes, 400).is_err(), "bytes");
        assert!(limits.take("k", &[], 1).is_ok());
        assert!(limits.take("k", &[], 1).is_err(), "records");
    }
}
