//! `ctx.GlobalKV`: the shop's entries.

use mlua::{IntoLua, Table, Value};

use super::rules::{changing, reading};
use super::{
    CallArgs, CallError, CallReply, PreparedCall, field, kind, only_fields, refuse, text, version,
};
use crate::base::limits::{DB_BODY_MAX_BYTES, KV_KEY_MAX_BYTES, KV_SCOPE_MAX_BYTES};
use crate::runtime::luau::convert::values::{Time, Wide};
use crate::runtime::luau::convert::{ConvertError, ToLuau, json_from_luau, whole};
use crate::runtime::luau::locks::RecordKey;
use crate::wire::data::{
    CreateGlobalKv, DbOp, GlobalKeyValueOp, GlobalKv, GlobalKvData, KhronosValue, PartialGlobalKv,
    PublicGlobalKeyValueOp, SHOP_WATCH_KEY, SHOP_WATCH_SCOPE, Scopes, TenantId,
};

/// What one field of a new entry may take: all of them together must fit into a request.
const FIELD_MAX_BYTES: usize = DB_BODY_MAX_BYTES / 4;

/// What a new entry has.
const FIELDS: [&str; 8] =
    ["key", "version", "short", "long", "public_metadata", "scope", "public_data", "data"];

pub(super) fn find(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let query = args.text(0, "the query", 2 * KV_KEY_MAX_BYTES)?;
    let scope = args.text(1, "the scope", KV_SCOPE_MAX_BYTES)?;
    let bytes = query.len() + scope.len();
    let op = DbOp::Public(Some(tenant), PublicGlobalKeyValueOp::Find { query, scope });
    Ok(PreparedCall::new(op, CallReply::Whole, bytes))
}

pub(super) fn get(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let (key, version, scope) = address(args)?;
    let bytes = key.len() + scope.len();
    let id = Some(tenant);
    let op = DbOp::Public(id, PublicGlobalKeyValueOp::Get { key, version, scope, id });
    Ok(PreparedCall::new(op, CallReply::Whole, bytes))
}

pub(super) fn create(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let table = args.table(0, "the entry")?;
    only_fields(table, "the entry", &FIELDS)?;
    let field = |name| field(table, name);
    let long = match field("long")? {
        Value::Nil => None,
        long => Some(text(&long, "long", FIELD_MAX_BYTES)?),
    };
    let public_data = match field("public_data")? {
        Value::Nil => false,
        Value::Boolean(public) => public,
        other => return refuse(format!("public_data must be a boolean, not {}", kind(&other))),
    };
    let entry = CreateGlobalKv {
        key: text(&field("key")?, "key", KV_KEY_MAX_BYTES)?,
        version: version(&field("version")?)?,
        short: text(&field("short")?, "short", FIELD_MAX_BYTES)?,
        public_metadata: json_from_luau(args.lua, &field("public_metadata")?, FIELD_MAX_BYTES)?,
        scope: text(&field("scope")?, "scope", KV_SCOPE_MAX_BYTES)?,
        public_data,
        long,
        data: json_from_luau(args.lua, &field("data")?, FIELD_MAX_BYTES)?,
    };
    let texts = entry.key.len()
        + entry.short.len()
        + entry.scope.len()
        + entry.long.as_ref().map_or(0, String::len);
    let bytes = texts + entry.public_metadata.as_bytes().len() + entry.data.as_bytes().len();
    let op = DbOp::Global(tenant, GlobalKeyValueOp::Create { entry });
    Ok(PreparedCall::new(op, CallReply::Whole, bytes))
}

pub(super) fn delete(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let (key, version, scope) = address(args)?;
    let bytes = key.len() + scope.len();
    let op = DbOp::Global(tenant, GlobalKeyValueOp::Delete { key, version, scope });
    Ok(PreparedCall::new(op, CallReply::Whole, bytes))
}

pub(super) fn watch(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let (scope, pattern) = watched_pattern(args)?;
    let bytes = 2 * (scope.len() + pattern.len());
    Ok(changing(tenant, watch_record(), bytes, move |watched| {
        let (scope, pattern) = (KhronosValue::Text(scope), KhronosValue::Text(pattern));
        match watched.iter_mut().find(|(known, _)| *known == scope) {
            Some((_, KhronosValue::List(patterns))) if patterns.contains(&pattern) => {}
            Some((_, KhronosValue::List(patterns))) => patterns.push(pattern),
            // How many there may be is the store's to say.
            _ => watched.push((scope, KhronosValue::List(vec![pattern]))),
        }
        Ok(())
    }))
}

pub(super) fn unwatch(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let (scope, pattern) = watched_pattern(args)?;
    Ok(changing(tenant, watch_record(), 0, move |watched| {
        let (scope, pattern) = (KhronosValue::Text(scope), KhronosValue::Text(pattern));
        watched.retain_mut(|(known, patterns)| match patterns {
            KhronosValue::List(patterns) if *known == scope => {
                patterns.retain(|known| *known != pattern);
                !patterns.is_empty()
            }
            _ => true,
        });
        Ok(())
    }))
}

pub(super) fn watched(tenant: TenantId) -> PreparedCall {
    reading(tenant, watch_record())
}

fn watch_record() -> RecordKey {
    (SHOP_WATCH_KEY.to_owned(), Scopes::new([SHOP_WATCH_SCOPE]))
}

fn watched_pattern(args: &CallArgs<'_>) -> Result<(String, String), CallError> {
    let scope = args.text(0, "the scope", KV_SCOPE_MAX_BYTES)?;
    Ok((scope, args.text(1, "the pattern", 2 * KV_KEY_MAX_BYTES)?))
}

fn address(args: &CallArgs<'_>) -> Result<(String, i32, String), CallError> {
    let key = args.text(0, "the key", KV_KEY_MAX_BYTES)?;
    Ok((key, version(args.value(1))?, args.text(2, "the scope", KV_SCOPE_MAX_BYTES)?))
}

/// An entry without its data.
pub(super) fn partial(
    to_luau: &mut ToLuau<'_>,
    entry: &PartialGlobalKv,
) -> Result<Table, ConvertError> {
    let lua = to_luau.lua();
    let table = to_luau.table(0, 14)?;
    for (name, value) in [
        ("key", &entry.key),
        ("owner_id", &entry.owner_id),
        ("owner_type", &entry.owner_type),
        ("short", &entry.short),
        ("scope", &entry.scope),
        ("review_state", &entry.review_state),
    ] {
        table.raw_set(name, to_luau.text(value)?)?;
    }
    if let Some(long) = &entry.long {
        table.raw_set("long", to_luau.text(long)?)?;
    }
    table.raw_set("version", whole(entry.version))?;
    if let Some(price) = entry.price {
        table.raw_set("price", Wide::luau(price, lua)?)?;
    }
    table.raw_set("public_metadata", to_luau.json(&entry.public_metadata)?)?;
    table.raw_set("public_data", entry.public_data)?;
    table.raw_set("created_at", Time(entry.created_at).into_lua(lua)?)?;
    table.raw_set("last_updated_at", Time(entry.last_updated_at).into_lua(lua)?)?;
    Ok(table)
}

/// An entry with its data, or nil.
pub(super) fn entry(
    to_luau: &mut ToLuau<'_>,
    entry: Option<&GlobalKv>,
) -> Result<Value, ConvertError> {
    let Some(entry) = entry else { return Ok(Value::Nil) };
    let data = to_luau.table(0, 3)?;
    match &entry.data {
        GlobalKvData::Value { data: json, opaque } => {
            data.raw_set("type", "Value")?;
            data.raw_set("opaque", *opaque)?;
            // What is opaque exists, and that is all a script learns.
            if !opaque {
                data.raw_set("data", to_luau.json(json)?)?;
            }
        }
        GlobalKvData::PurchaseRequired { purchase_url } => {
            data.raw_set("type", "PurchaseRequired")?;
            data.raw_set("purchase_url", to_luau.text(purchase_url)?)?;
        }
    }
    let table = partial(to_luau, &entry.partial)?;
    table.raw_set("data", data)?;
    Ok(Value::Table(table))
}
