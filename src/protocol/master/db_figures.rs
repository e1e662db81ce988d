//! What workers ask of `/db/*`: counts by operation and class of status, and how long it took until
//! the answer was made.
//!
//! Owned by the server; written by the connections' threads. What the store does of it is counted
//! in `store/`.

use crate::base::labels::{Grid, labels};
use crate::wire::data::DbCall;

labels! {
    /// What was asked for, as a label.
    #[allow(missing_docs)] // Named like the operations of the protocol.
    DbRequest {
        TenantStates = "tenant_states",
        SetTenantState = "set_tenant_state",
        KvGet = "kv_get",
        KvListScopes = "kv_list_scopes",
        KvSet = "kv_set",
        KvDelete = "kv_delete",
        KvFind = "kv_find",
        GlobalFind = "global_find",
        GlobalGet = "global_get",
        GlobalCreate = "global_create",
        GlobalDelete = "global_delete",
        TimerSet = "timer_set",
        TimerCancel = "timer_cancel",
        TimerList = "timer_list",
        /// It was refused before its body was read.
        Unread = "unread",
    }
}

impl From<DbCall> for DbRequest {
    fn from(call: DbCall) -> Self {
        match call {
            DbCall::SetTenantState => DbRequest::SetTenantState,
            DbCall::Get => DbRequest::KvGet,
            DbCall::ListScopes => DbRequest::KvListScopes,
            DbCall::Set => DbRequest::KvSet,
            DbCall::Delete => DbRequest::KvDelete,
            DbCall::Find => DbRequest::KvFind,
            DbCall::GlobalFind => DbRequest::GlobalFind,
            DbCall::GlobalGet => DbRequest::GlobalGet,
            DbCall::GlobalCreate => DbRequest::GlobalCreate,
            DbCall::GlobalDelete => DbRequest::GlobalDelete,
            DbCall::TimerSet => DbRequest::TimerSet,
            DbCall::TimerCancel => DbRequest::TimerCancel,
            DbCall::TimerList => DbRequest::TimerList,
        }
    }
}

labels! {
    /// Classes of statuses.
    #[allow(missing_docs)] // Named like the classes.
    StatusClass {
        Success = "2xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }
}

impl From<u16> for StatusClass {
    fn from(status: u16) -> Self {
        match status {
            ..400 => StatusClass::Success,
            400..500 => StatusClass::ClientError,
            500.. => StatusClass::ServerError,
        }
    }
}

/// Figures of all workers' requests; each took from when its head was there to when its answer was
/// made.
pub type DbRequestFigures = Grid<DbRequest, StatusClass>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_is_counted_by_the_class_of_its_status() {
        let figures = DbRequestFigures::default();
        for status in [200, 204, 400, 422, 422, 500, 503] {
            figures.record(DbRequest::KvSet, status.into(), Duration::from_millis(1));
        }
        let counts = |request| StatusClass::ALL.map(|class| figures.count(request, class));
        assert_eq!(counts(DbRequest::KvSet), [2, 3, 2]);
        assert_eq!(counts(DbRequest::Unread), [0, 0, 0]);
        assert_eq!(figures.took(DbRequest::KvSet).count(), 7);
    }
}
