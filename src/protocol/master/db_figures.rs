//! What workers ask of `/db/*`: counts by operation and class of status, and how long it took until
//! the answer was made.
//!
//! Owned by the server; written by the connections' threads. What the store does of it is counted
//! in `store/`.

use std::time::Duration;

use crate::base::metrics::{Buckets, Counter, Histogram};
use crate::wire::data::{GlobalKeyValueOp, KeyValueOp, PublicGlobalKeyValueOp};

/// What was asked for, as a label.
#[allow(missing_docs)] // Named like the operations of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbRequest {
    TenantStates,
    SetTenantState,
    KvGet,
    KvListScopes,
    KvSet,
    KvDelete,
    KvFind,
    GlobalFind,
    GlobalGet,
    GlobalCreate,
    GlobalDelete,
    /// It was refused before anybody knew.
    Unread,
}

impl DbRequest {
    /// Every kind with its name as a label.
    pub const ALL: [(DbRequest, &'static str); 12] = [
        (DbRequest::TenantStates, "tenant_states"),
        (DbRequest::SetTenantState, "set_tenant_state"),
        (DbRequest::KvGet, "kv_get"),
        (DbRequest::KvListScopes, "kv_list_scopes"),
        (DbRequest::KvSet, "kv_set"),
        (DbRequest::KvDelete, "kv_delete"),
        (DbRequest::KvFind, "kv_find"),
        (DbRequest::GlobalFind, "global_find"),
        (DbRequest::GlobalGet, "global_get"),
        (DbRequest::GlobalCreate, "global_create"),
        (DbRequest::GlobalDelete, "global_delete"),
        (DbRequest::Unread, "unread"),
    ];
}

impl From<&KeyValueOp> for DbRequest {
    fn from(op: &KeyValueOp) -> Self {
        match op {
            KeyValueOp::Get { .. } => DbRequest::KvGet,
            KeyValueOp::ListScopes => DbRequest::KvListScopes,
            KeyValueOp::Set { .. } => DbRequest::KvSet,
            KeyValueOp::Delete { .. } => DbRequest::KvDelete,
            KeyValueOp::Find { .. } => DbRequest::KvFind,
        }
    }
}

impl From<&PublicGlobalKeyValueOp> for DbRequest {
    fn from(op: &PublicGlobalKeyValueOp) -> Self {
        match op {
            PublicGlobalKeyValueOp::Find { .. } => DbRequest::GlobalFind,
            PublicGlobalKeyValueOp::Get { .. } => DbRequest::GlobalGet,
        }
    }
}

impl From<&GlobalKeyValueOp> for DbRequest {
    fn from(op: &GlobalKeyValueOp) -> Self {
        match op {
            GlobalKeyValueOp::Create { .. } => DbRequest::GlobalCreate,
            GlobalKeyValueOp::Delete { .. } => DbRequest::GlobalDelete,
        }
    }
}

/// Classes of statuses, as labels.
pub const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

/// Figures of all workers' requests.
#[derive(Debug, Default)]
pub struct DbFigures {
    requests: [OneRequest; DbRequest::ALL.len()],
}

#[derive(Debug, Default)]
struct OneRequest {
    classes: [Counter; CLASSES.len()],
    took: Histogram,
}

impl DbFigures {
    /// How many requests were answered with each of [`CLASSES`].
    pub fn classes(&self, request: DbRequest) -> [u64; CLASSES.len()] {
        std::array::from_fn(|place| self.requests[request as usize].classes[place].get())
    }

    /// From when their heads were there to when their answers were made.
    pub fn took(&self, request: DbRequest) -> Buckets {
        self.requests[request as usize].took.snapshot()
    }

    pub(super) fn note(&self, request: DbRequest, status: u16, took: Duration) {
        let figures = &self.requests[request as usize];
        figures.classes[usize::from(status / 100 >= 4) + usize::from(status / 100 >= 5)].inc();
        figures.took.observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_the_class_of_its_status() {
        assert!(
            DbRequest::ALL
                .iter()
                .enumerate()
                .all(|(place, (request, _))| *request as usize == place)
        );
        let figures = DbFigures::default();
        for status in [200, 204, 400, 422, 422, 500, 503] {
            figures.note(DbRequest::KvSet, status, Duration::from_millis(1));
        }
        assert_eq!(figures.classes(DbRequest::KvSet), [2, 3, 2]);
        assert_eq!(figures.classes(DbRequest::Unread), [0, 0, 0]);
        assert_eq!(figures.took(DbRequest::KvSet).count(), 7);
    }
}
