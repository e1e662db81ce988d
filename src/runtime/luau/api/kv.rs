//! `ctx.KV`: the tenant's own records.

use mlua::{IntoLua, Lua, Table, Value};

use super::{CallArgs, CallError, CallReply, PreparedCall, refuse, texts};
use crate::base::limits::{
    KV_KEY_MAX_BYTES, KV_SCOPE_MAX_BYTES, KV_SCOPES_MAX, KV_VALUE_MAX_BYTES,
};
use crate::runtime::luau::convert::values::Time;
use crate::runtime::luau::convert::{ConvertError, ToLuau, value_from_luau};
use crate::runtime::luau::io::texts_bytes;
use crate::runtime::luau::locks::{LockMode, RecordKey};
use crate::wire::data::{DbOp, KeyValueOp, KvRecord, Scopes, TenantId, Timestamp};

/// Scopes that scripts read only: the tenant's template, and what the worker keeps for it.
const TEMPLATE_SCOPE: &str = "template";
const WORKER_SCOPE_PREFIX: char = '#';

pub(super) fn get(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    Ok(read(tenant, address(args)?, LockMode::Read, CallReply::Value))
}

pub(super) fn get_record(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let record = address(args)?;
    Ok(read(tenant, record.clone(), LockMode::Read, CallReply::Record(record)))
}

/// The first half of an update.
pub(super) fn update(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let record = writable(address(args)?)?;
    Ok(read(tenant, record.clone(), LockMode::Write, CallReply::UpdateValue(record)))
}

fn read(tenant: TenantId, record: RecordKey, mode: LockMode, reply: CallReply) -> PreparedCall {
    let (key, scopes) = record.clone();
    let op = DbOp::Kv(tenant, KeyValueOp::Get { scopes, key });
    PreparedCall::new(op, reply, 0).locking(record, mode)
}

pub(super) fn set(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let record = writable((key(args)?, scopes(args.value(2))?))?;
    set_record(args.lua, tenant, record, args.value(1))
}

/// The second half of an update: as a set, under the lock that the update has.
///
/// # Errors
/// The value cannot be stored.
pub(in crate::runtime::luau) fn update_set(
    lua: &Lua,
    tenant: TenantId,
    record: RecordKey,
    value: &Value,
) -> Result<PreparedCall, CallError> {
    Ok(PreparedCall { lock: None, ..set_record(lua, tenant, record, value)? })
}

fn set_record(
    lua: &Lua,
    tenant: TenantId,
    record: RecordKey,
    value: &Value,
) -> Result<PreparedCall, CallError> {
    let value = value_from_luau(lua, value, KV_VALUE_MAX_BYTES)?;
    let ((key, scopes), bytes) = (record.clone(), value.as_bytes().len());
    let op = DbOp::Kv(tenant, KeyValueOp::Set { scopes, key, value });
    Ok(PreparedCall::new(op, CallReply::Whole, bytes).locking(record, LockMode::Write))
}

pub(super) fn delete(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let record = writable(address(args)?)?;
    let (key, scopes) = record.clone();
    let op = DbOp::Kv(tenant, KeyValueOp::Delete { scopes, key });
    Ok(PreparedCall::new(op, CallReply::Whole, 0).locking(record, LockMode::Write))
}

pub(super) fn find(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    // An escaped key is twice as long.
    let query = args.text(0, "the pattern", 2 * KV_KEY_MAX_BYTES)?;
    let scopes = scopes(args.value(1))?;
    let bytes = query.len() + texts_bytes(scopes.as_slice());
    let op = DbOp::Kv(tenant, KeyValueOp::Find { scopes, query });
    Ok(PreparedCall::new(op, CallReply::Whole, bytes))
}

pub(super) fn list_scopes(tenant: TenantId) -> PreparedCall {
    PreparedCall::new(DbOp::Kv(tenant, KeyValueOp::ListScopes), CallReply::Whole, 0)
}

/// `value, exists`
pub(super) fn value(
    to_luau: &mut ToLuau<'_>,
    record: Option<&KvRecord>,
) -> Result<Vec<Value>, ConvertError> {
    let value = record.map(|record| to_luau.value(&record.value)).transpose()?;
    Ok(vec![value.unwrap_or(Value::Nil), Value::Boolean(record.is_some())])
}

pub(super) fn record(to_luau: &mut ToLuau<'_>, record: &KvRecord) -> Result<Table, ConvertError> {
    let table = to_luau.table(0, 7)?;
    table.raw_set("id", to_luau.text(&record.id)?)?;
    table.raw_set("key", to_luau.text(&record.key)?)?;
    table.raw_set("value", to_luau.value(&record.value)?)?;
    table.raw_set("scopes", to_luau.list_of(&record.scopes, ToLuau::text)?)?;
    table.raw_set("exists", true)?;
    table.raw_set("created_at", time(to_luau, record.created_at)?)?;
    table.raw_set("last_updated_at", time(to_luau, record.last_updated_at)?)?;
    Ok(table)
}

pub(super) fn record_or_none(
    to_luau: &mut ToLuau<'_>,
    (key, scopes): &RecordKey,
    found: Option<&KvRecord>,
) -> Result<Table, ConvertError> {
    if let Some(found) = found {
        return record(to_luau, found);
    }
    let table = to_luau.table(0, 3)?;
    table.raw_set("key", to_luau.text(key)?)?;
    table.raw_set("scopes", to_luau.list_of(scopes.as_slice(), ToLuau::text)?)?;
    table.raw_set("exists", false)?;
    Ok(table)
}

fn time(to_luau: &ToLuau<'_>, time: Option<Timestamp>) -> Result<Value, ConvertError> {
    match time {
        Some(time) => Ok(Time(time).into_lua(to_luau.lua())?),
        None => Ok(Value::Nil),
    }
}

fn address(args: &CallArgs<'_>) -> Result<RecordKey, CallError> {
    Ok((key(args)?, scopes(args.value(1))?))
}

fn key(args: &CallArgs<'_>) -> Result<String, CallError> {
    args.text(0, "the key", KV_KEY_MAX_BYTES)
}

/// A list of scopes. Whether it has too many is for the store to say; here it only is of bounded
/// size.
fn scopes(value: &Value) -> Result<Scopes, CallError> {
    Ok(Scopes::new(texts(value, "the scopes", 2 * KV_SCOPES_MAX, "a scope", KV_SCOPE_MAX_BYTES)?))
}

/// A record that a script may write.
fn writable(record: RecordKey) -> Result<RecordKey, CallError> {
    let read_only =
        |scope: &&String| scope.starts_with(WORKER_SCOPE_PREFIX) || *scope == TEMPLATE_SCOPE;
    match record.1.as_slice().iter().find(read_only) {
        Some(scope) => refuse(format!("the scope \"{scope}\" is read-only to scripts")),
        None => Ok(record),
    }
}
