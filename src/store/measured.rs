//! A store whose operations are counted and timed, whichever store it is:
//! [`DbState`](super::DbState) has its store in one and reaches it no other way.
//!
//! Deliberately below the rules: an operation that they refuse never comes here. Written by the
//! threads that ask the store, read by any thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Store, StoreFigures};
use crate::base::error::DbError;
use crate::base::metrics::{Buckets, Counter, Histogram};

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

    fn record(&self, operation: Operation, place: usize, took: Duration) {
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

    /// Asks the store for something, and counts it.
    ///
    /// # Blocks
    /// As the store does.
    ///
    /// # Errors
    /// See [`Store`].
    pub(super) fn ask<T>(
        &self,
        operation: Operation,
        ask: impl FnOnce(&dyn Store) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let began = Instant::now();
        let result = ask(&*self.store);
        self.figures.record(operation, place_of(&result), began.elapsed());
        result
    }

    /// The store's figures of its inside.
    pub(super) fn store_figures(&self) -> StoreFigures {
        self.store.figures()
    }

    /// Closes the store; blocks as [`Store::close`].
    pub(super) fn close(&self) {
        self.store.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::global::GlobalAddress;
    use crate::store::memory::MemoryStore;
    use crate::wire::data::{Scopes, TenantId};

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
        let scopes = Scopes::new(["s"]);
        let at = GlobalAddress { scope: "s".to_owned(), key: "k".to_owned(), version: 1 };
        let found =
            measured.ask(Operation::KvGet, |store| store.kv_get(TenantId::Guild(1), "k", &scopes));
        assert_eq!(found, Ok(None));
        let deleted = measured.ask(Operation::GlobalDelete, |store| store.global_delete(at, None));
        assert!(matches!(deleted, Err(DbError::NotFound(_))));
        assert_eq!(measured.operations().results(Operation::KvGet), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            measured.operations().results(Operation::GlobalDelete),
            [0, 0, 0, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(measured.operations().took(Operation::GlobalDelete).count(), 1);
        assert_eq!(measured.operations().took(Operation::KvSet).count(), 0);
    }
}
