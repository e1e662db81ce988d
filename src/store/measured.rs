//! A store whose operations are counted and timed, whichever store it is: what
//! [`DbState`](super::DbState) puts around its own.
//!
//! Deliberately below the rules: what they refuse never comes here. Written by whoever asks the
//! store, read by anybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backup::Export;
use super::global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use super::pattern::Pattern;
use super::{
    FindLimits, KvSet, Quota, Revision, Standing, Store, StoreFigures, StoredState, Usage,
};
use crate::base::error::DbError;
use crate::base::metrics::{Buckets, Counter, Histogram};
use crate::wire::data::{KvRecord, PartialGlobalKv, Scopes, TenantId, TenantState, Timestamp};

/// What a store is asked to do, as a label: one for each method of [`Store`] that asks or changes
/// something.
#[allow(missing_docs)] // Named like the methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    TenantStates,
    TenantState,
    SetTenantState,
    SetStanding,
    KvGet,
    KvListScopes,
    KvSet,
    KvDelete,
    KvFind,
    KvUsage,
    KvHaveRecords,
    GlobalFind,
    GlobalList,
    GlobalGet,
    GlobalCreate,
    GlobalDelete,
    GlobalChange,
    GlobalPurchase,
    GlobalIsPurchased,
    Export,
}

impl Operation {
    /// Every operation with its name as a label.
    pub const ALL: [(Operation, &'static str); 20] = [
        (Operation::TenantStates, "tenant_states"),
        (Operation::TenantState, "tenant_state"),
        (Operation::SetTenantState, "set_tenant_state"),
        (Operation::SetStanding, "set_standing"),
        (Operation::KvGet, "kv_get"),
        (Operation::KvListScopes, "kv_list_scopes"),
        (Operation::KvSet, "kv_set"),
        (Operation::KvDelete, "kv_delete"),
        (Operation::KvFind, "kv_find"),
        (Operation::KvUsage, "kv_usage"),
        (Operation::KvHaveRecords, "kv_have_records"),
        (Operation::GlobalFind, "global_find"),
        (Operation::GlobalList, "global_list"),
        (Operation::GlobalGet, "global_get"),
        (Operation::GlobalCreate, "global_create"),
        (Operation::GlobalDelete, "global_delete"),
        (Operation::GlobalChange, "global_change"),
        (Operation::GlobalPurchase, "global_purchase"),
        (Operation::GlobalIsPurchased, "global_is_purchased"),
        (Operation::Export, "export"),
    ];
}

/// What came of an operation, as labels: success, and each [`DbError`].
pub const RESULTS: [&str; 9] = [
    "ok",
    "refused",
    "forbidden",
    "conflict",
    "not_found",
    "busy",
    "unavailable",
    "outcome_unknown",
    "internal",
];

/// The place among [`RESULTS`].
fn place_of<T>(result: &Result<T, DbError>) -> usize {
    match result {
        Ok(_) => 0,
        Err(DbError::Refused(_)) => 1,
        Err(DbError::Forbidden(_)) => 2,
        Err(DbError::Conflict(_)) => 3,
        Err(DbError::NotFound(_)) => 4,
        Err(DbError::Busy(_)) => 5,
        Err(DbError::Unavailable(_)) => 6,
        Err(DbError::OutcomeUnknown(_)) => 7,
        Err(DbError::Internal(_)) => 8,
    }
}

/// What a store was asked and how that ended.
#[derive(Debug, Default)]
pub struct OperationFigures {
    operations: [OneOperation; Operation::ALL.len()],
}

#[derive(Debug, Default)]
struct OneOperation {
    results: [Counter; RESULTS.len()],
    took: Histogram,
}

impl OperationFigures {
    /// How often an operation had each of [`RESULTS`].
    pub fn results(&self, operation: Operation) -> [u64; RESULTS.len()] {
        std::array::from_fn(|place| self.operations[operation as usize].results[place].get())
    }

    /// How long it took, whatever came of it.
    pub fn took(&self, operation: Operation) -> Buckets {
        self.operations[operation as usize].took.snapshot()
    }

    fn note(&self, operation: Operation, place: usize, took: Duration) {
        let figures = &self.operations[operation as usize];
        figures.results[place].inc();
        figures.took.observe(took);
    }
}

/// A store that is counted.
pub(super) struct Measured {
    store: Arc<dyn Store>,
    figures: OperationFigures,
}

impl Measured {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, figures: OperationFigures::default() }
    }

    pub(super) fn operations(&self) -> &OperationFigures {
        &self.figures
    }

    fn timed<T>(
        &self,
        operation: Operation,
        ask: impl FnOnce(&dyn Store) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let began = Instant::now();
        let result = ask(&*self.store);
        self.figures.note(operation, place_of(&result), began.elapsed());
        result
    }
}

impl Store for Measured {
    fn tenant_states(&self) -> Result<Vec<(TenantId, StoredState)>, DbError> {
        self.timed(Operation::TenantStates, |store| store.tenant_states())
    }

    fn tenant_state(&self, tenant: TenantId) -> Result<Option<StoredState>, DbError> {
        self.timed(Operation::TenantState, |store| store.tenant_state(tenant))
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<Revision, DbError> {
        self.timed(Operation::SetTenantState, |store| store.set_tenant_state(tenant, state))
    }

    fn kv_get(
        &self,
        tenant: TenantId,
        key: &str,
        scopes: &Scopes,
    ) -> Result<Option<KvRecord>, DbError> {
        self.timed(Operation::KvGet, |store| store.kv_get(tenant, key, scopes))
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        self.timed(Operation::KvListScopes, |store| store.kv_list_scopes(tenant))
    }

    fn kv_set(&self, tenant: TenantId, set: KvSet) -> Result<(), DbError> {
        self.timed(Operation::KvSet, |store| store.kv_set(tenant, set))
    }

    fn kv_delete(&self, tenant: TenantId, key: String, scopes: Scopes) -> Result<(), DbError> {
        self.timed(Operation::KvDelete, |store| store.kv_delete(tenant, key, scopes))
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: &Scopes,
        pattern: &Pattern,
        limits: FindLimits,
    ) -> Result<Vec<KvRecord>, DbError> {
        self.timed(Operation::KvFind, |store| store.kv_find(tenant, scopes, pattern, limits))
    }

    fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        self.timed(Operation::KvUsage, |store| store.kv_usage(tenant))
    }

    fn kv_have_records(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError> {
        self.timed(Operation::KvHaveRecords, |store| store.kv_have_records(tenants))
    }

    fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<Revision, DbError> {
        self.timed(Operation::SetStanding, |store| store.set_standing(tenant, standing))
    }

    fn global_find(
        &self,
        scope: &str,
        pattern: &Pattern,
        limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        self.timed(Operation::GlobalFind, |store| store.global_find(scope, pattern, limits))
    }

    fn global_list(
        &self,
        filter: &GlobalFilter,
        limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        self.timed(Operation::GlobalList, |store| store.global_list(filter, limits))
    }

    fn global_get(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError> {
        self.timed(Operation::GlobalGet, |store| store.global_get(at))
    }

    fn global_create(&self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError> {
        self.timed(Operation::GlobalCreate, |store| store.global_create(entry, quota))
    }

    fn global_delete(&self, at: GlobalAddress, owner: Option<TenantId>) -> Result<(), DbError> {
        self.timed(Operation::GlobalDelete, |store| store.global_delete(at, owner))
    }

    fn global_change(
        &self,
        at: GlobalAddress,
        change: GlobalChange,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.timed(Operation::GlobalChange, |store| store.global_change(at, change, now))
    }

    fn global_purchase(
        &self,
        tenant: TenantId,
        at: GlobalAddress,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.timed(Operation::GlobalPurchase, |store| store.global_purchase(tenant, at, now))
    }

    fn global_is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> Result<bool, DbError> {
        self.timed(Operation::GlobalIsPurchased, |store| store.global_is_purchased(tenant, at))
    }

    fn export(&self) -> Result<Export, DbError> {
        self.timed(Operation::Export, |store| store.export())
    }

    fn figures(&self) -> StoreFigures {
        self.store.figures()
    }

    fn close(&self) {
        self.store.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn operations_stand_in_the_order_of_their_places() {
        assert!(
            Operation::ALL
                .iter()
                .enumerate()
                .all(|(place, (operation, _))| *operation as usize == place)
        );
    }

    #[test]
    fn an_operation_is_counted_with_what_came_of_it() {
        let measured = Measured::new(Arc::new(MemoryStore::new()));
        let scopes = Scopes::new(vec!["s".to_owned()]);
        let at = GlobalAddress { scope: "s".to_owned(), key: "k".to_owned(), version: 1 };
        assert_eq!(measured.kv_get(TenantId::Guild(1), "k", &scopes), Ok(None));
        assert!(matches!(measured.global_delete(at, None), Err(DbError::NotFound(_))));
        assert_eq!(measured.operations().results(Operation::KvGet), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            measured.operations().results(Operation::GlobalDelete),
            [0, 0, 0, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(measured.operations().took(Operation::GlobalDelete).count(), 1);
        assert_eq!(measured.operations().took(Operation::KvSet).count(), 0);
    }
}
