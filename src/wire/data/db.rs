//! An operation of a worker's tenant on the database and its answer: one type for the way from a
//! template to a store and back.

use super::{
    DbCall, GlobalKeyValueOp, GlobalKv, KeyValueOp, KvRecord, PartialGlobalKv,
    PublicGlobalKeyValueOp, TenantId, TenantState, Timer, TimerOp,
};
use crate::base::error::DbError;

/// What a worker's tenant asks of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbOp {
    /// Of the tenant's records.
    Kv(TenantId, KeyValueOp),
    /// Of the global entries that everybody reads, by a tenant; workers of another make do not say
    /// by which.
    Public(Option<TenantId>, PublicGlobalKeyValueOp),
    /// Of the tenant's own global entries.
    Global(TenantId, GlobalKeyValueOp),
    /// Replaces the tenant's state.
    SetTenantState(TenantId, TenantState),
    /// Of the tenant's timers.
    Timer(TenantId, TimerOp),
}

/// What a [`DbOp`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbAnswer {
    /// To a change.
    Done,
    /// To Get.
    Record(Option<KvRecord>),
    /// To ListScopes.
    Scopes(Vec<String>),
    /// To Find.
    Records(Vec<KvRecord>),
    /// To a Find of global entries.
    Entries(Vec<PartialGlobalKv>),
    /// To a Get of a global entry.
    Entry(Option<Box<GlobalKv>>),
    /// To the end of a timer: whether there was one.
    Cancelled(bool),
    /// To a List of timers.
    Timers(Vec<Timer>),
}

impl DbOp {
    /// Which operation it is.
    pub fn call(&self) -> DbCall {
        match self {
            DbOp::Kv(_, KeyValueOp::Get { .. }) => DbCall::Get,
            DbOp::Kv(_, KeyValueOp::ListScopes) => DbCall::ListScopes,
            DbOp::Kv(_, KeyValueOp::Set { .. }) => DbCall::Set,
            DbOp::Kv(_, KeyValueOp::Delete { .. }) => DbCall::Delete,
            DbOp::Kv(_, KeyValueOp::Find { .. }) => DbCall::Find,
            DbOp::Public(_, PublicGlobalKeyValueOp::Find { .. }) => DbCall::GlobalFind,
            DbOp::Public(_, PublicGlobalKeyValueOp::Get { .. }) => DbCall::GlobalGet,
            DbOp::Global(_, GlobalKeyValueOp::Create { .. }) => DbCall::GlobalCreate,
            DbOp::Global(_, GlobalKeyValueOp::Delete { .. }) => DbCall::GlobalDelete,
            DbOp::SetTenantState(..) => DbCall::SetTenantState,
            DbOp::Timer(_, TimerOp::Set { .. }) => DbCall::TimerSet,
            DbOp::Timer(_, TimerOp::Cancel { .. }) => DbCall::TimerCancel,
            DbOp::Timer(_, TimerOp::List) => DbCall::TimerList,
        }
    }

    /// The tenant for which it is made, as far as that is said.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            DbOp::Kv(tenant, _)
            | DbOp::Global(tenant, _)
            | DbOp::SetTenantState(tenant, _)
            | DbOp::Timer(tenant, _) => Some(*tenant),
            DbOp::Public(_, PublicGlobalKeyValueOp::Get { id: Some(id), .. }) => Some(*id),
            DbOp::Public(tenant, _) => *tenant,
        }
    }
}

impl DbAnswer {
    /// The answer to a Get.
    ///
    /// # Errors
    /// `Internal`: it is the answer to another operation.
    pub fn into_record(self) -> Result<Option<KvRecord>, DbError> {
        match self {
            DbAnswer::Record(record) => Ok(record),
            _ => Err(DbError::Internal("the answer to a Get is a record".to_owned())),
        }
    }
}
