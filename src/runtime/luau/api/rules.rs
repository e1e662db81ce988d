//! A tenant's record that is a map from names to lists of texts, which calls of `ctx` change: whose
//! messages it receives, and what it watches of the shop.

use super::{CallReply, PreparedCall};
use crate::base::error::DbError;
use crate::runtime::TenantDb;
use crate::runtime::luau::locks::{LockMode, RecordKey};
use crate::wire::data::{DbAnswer, DbCall, DbOp, KeyValueOp, KhronosValue, TenantId};
use crate::wire::pack::value;

/// A pair of the map.
pub(super) type Rule = (KhronosValue, KhronosValue);

/// Reads the record.
pub(super) fn reading(tenant: TenantId, (key, scopes): RecordKey) -> PreparedCall {
    let record = (key.clone(), scopes.clone());
    let op = DbOp::Kv(tenant, KeyValueOp::Get { scopes, key });
    PreparedCall::new(op, CallReply::Value, 0).locking(record, LockMode::Read)
}

/// Reads the record, changes it and writes it, under its lock.
pub(super) fn changing(
    tenant: TenantId,
    (key, scopes): RecordKey,
    bytes: usize,
    change: impl FnOnce(&mut Vec<Rule>) -> Result<(), DbError> + Send + 'static,
) -> PreparedCall {
    let record = (key.clone(), scopes.clone());
    let work = move |db: &dyn TenantDb| -> Result<DbAnswer, DbError> {
        let get = KeyValueOp::Get { scopes: scopes.clone(), key: key.clone() };
        let old = db.ask(DbOp::Kv(tenant, get))?.into_record()?;
        let mut rules = match old.map(|record| value::decode(&record.value)) {
            Some(Ok(KhronosValue::Map(rules))) => rules,
            _ => Vec::new(),
        };
        change(&mut rules)?;
        let value = value::encode(&KhronosValue::Map(rules));
        db.ask(DbOp::Kv(tenant, KeyValueOp::Set { scopes, key, value }))
    };
    let call = PreparedCall::with_work(DbCall::Set, CallReply::Whole, bytes, work);
    call.locking(record, LockMode::Write)
}
