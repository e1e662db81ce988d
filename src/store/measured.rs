//! A store whose operations are counted and timed, whichever store it is:
//! [`DbState`](super::DbState) has its store in one and reaches it no other way.
//!
//! Deliberately below the rules: an operation that they refuse never comes here. Written by the
//! threads that ask the store, read by any thread.

use std::sync::Arc;
use std::time::Instant;

use super::{Store, StoreFigures};
use crate::base::error::DbError;
use crate::base::labels::{Grid, labels};

labels! {
    /// What a store is asked to do, as a label: one for each method of [`Store`] that asks or
    /// changes something, and one more for what staff looks for among all entries.
    #[allow(missing_docs)] // Named like the methods.
    Operation {
        TenantStates = "tenant_states",
        TenantState = "tenant_state",
        SetTenantState = "set_tenant_state",
        SetStanding = "set_standing",
        KvGet = "kv_get",
        KvListScopes = "kv_list_scopes",
        KvSet = "kv_set",
        KvDelete = "kv_delete",
        KvFind = "kv_find",
        KvUsage = "kv_usage",
        AreKnown = "are_known",
        GlobalFind = "global_find",
        GlobalList = "global_list",
        GlobalGet = "global_get",
        GlobalCreate = "global_create",
        GlobalDelete = "global_delete",
        GlobalChange = "global_change",
        GlobalPurchase = "global_purchase",
        GlobalIsPurchased = "global_is_purchased",
        ShopChanges = "shop_changes",
        RecordsOfAll = "records_of_all",
        Timers = "timers",
        TimerSet = "timer_set",
        TimerCancel = "timer_cancel",
        TimersDue = "timers_due",
        TimersRan = "timers_ran",
        TimersCount = "timers_count",
        Export = "export",
    }
}

labels! {
    /// What came of an operation: success, or a [`DbError`].
    #[allow(missing_docs)] // Named like the errors.
    OperationResult {
        Ok = "ok",
        Refused = "refused",
        Forbidden = "forbidden",
        Conflict = "conflict",
        NotFound = "not_found",
        Busy = "busy",
        Unavailable = "unavailable",
        NotOwner = "not_owner",
        OutcomeUnknown = "outcome_unknown",
        Internal = "internal",
    }
}

impl OperationResult {
    fn of<T>(result: &Result<T, DbError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(DbError::Refused(_)) => Self::Refused,
            Err(DbError::Forbidden(_)) => Self::Forbidden,
            Err(DbError::Conflict(_)) => Self::Conflict,
            Err(DbError::NotFound(_)) => Self::NotFound,
            Err(DbError::Busy(_)) => Self::Busy,
            Err(DbError::Unavailable(_)) => Self::Unavailable,
            Err(DbError::NotOwner(_)) => Self::NotOwner,
            Err(DbError::OutcomeUnknown(_)) => Self::OutcomeUnknown,
            Err(DbError::Internal(_)) => Self::Internal,
        }
    }
}

/// What a store was asked, how that ended, and how long it took.
pub type OperationFigures = Grid<Operation, OperationResult>;

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
        self.figures.record(operation, OperationResult::of(&result), began.elapsed());
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
    fn an_operation_is_counted_with_what_came_of_it() {
        let measured = Measured::new(Arc::new(MemoryStore::new()));
        let scopes = Scopes::new(["s"]);
        let at = GlobalAddress { scope: "s".to_owned(), key: "k".to_owned(), version: 1 };
        let found =
            measured.ask(Operation::KvGet, |store| store.kv_get(TenantId::Guild(1), "k", &scopes));
        assert_eq!(found, Ok(None));
        let deleted = measured.ask(Operation::GlobalDelete, |store| store.global_delete(at, None));
        assert!(matches!(deleted, Err(DbError::NotFound(_))));
        let counts =
            |kind| OperationResult::ALL.map(|result| measured.operations().count(kind, result));
        assert_eq!(counts(Operation::KvGet), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counts(Operation::GlobalDelete), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(measured.operations().took(Operation::GlobalDelete).count(), 1);
        assert_eq!(measured.operations().took(Operation::KvSet).count(), 0);
    }
}
