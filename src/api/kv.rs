//! `POST /i/kv/…`: staff's way to a tenant's records. What is closed to scripts (scopes that start
//! with `#`, and `template`) is open here.

use super::error::ApiError;
use super::request::{Fields, tenant};
use super::{Api, Call, text};
use crate::base::error::DbError;
use crate::base::limits::{API_DB_BODY_MAX_BYTES, KV_FIND_MAX_BYTES};
use crate::net::http::{Body, Response};
use crate::wire::data::{DbAnswer, KeyValueOp, KvRecord, Scopes};

pub(super) fn kv(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let (mut permit, bytes) = api.read_body(None, body, API_DB_BODY_MAX_BYTES)?;
    let op = op(&bytes)?;
    drop(bytes);
    if matches!(op, KeyValueOp::Find { .. } | KeyValueOp::ListScopes) {
        permit.expect_answer(KV_FIND_MAX_BYTES)?;
    }
    match api.db.kv(tenant, op)? {
        DbAnswer::Done => Ok(Response::empty(204).holding(permit)),
        DbAnswer::Record(record) => Ok(text::answer(200, &record)?.holding(permit)),
        DbAnswer::Records(records) => {
            permit.settle_answer(records.iter().map(memory_of).sum());
            text::list(records, permit)
        }
        DbAnswer::Scopes(scopes) => {
            permit
                .settle_answer(scopes.iter().map(|scope| scope.len() + size_of::<String>()).sum());
            text::list(scopes, permit)
        }
        DbAnswer::Entries(_)
        | DbAnswer::Entry(_)
        | DbAnswer::Cancelled(_)
        | DbAnswer::Timers(_) => {
            Err(DbError::Internal("that is no answer about a tenant's records".to_owned()).into())
        }
    }
}

/// About how much memory a record takes.
fn memory_of(record: &KvRecord) -> usize {
    let scopes: usize = record.scopes.iter().map(|scope| scope.len() + size_of::<String>()).sum();
    size_of::<KvRecord>()
        + record.id.len()
        + record.key.len()
        + record.value.as_bytes().len()
        + scopes
}

fn op(text: &[u8]) -> Result<KeyValueOp, ApiError> {
    let mut fields = Fields::of(text, r#"{"op": "get", "key": …, "scopes": […]}"#)?;
    let op = match fields.text("op")?.as_str() {
        "get" => KeyValueOp::Get {
            key: fields.text("key")?,
            scopes: Scopes::new(fields.texts("scopes")?),
        },
        "set" => KeyValueOp::Set {
            key: fields.text("key")?,
            scopes: Scopes::new(fields.texts("scopes")?),
            value: fields.value("value")?,
        },
        "delete" => KeyValueOp::Delete {
            key: fields.text("key")?,
            scopes: Scopes::new(fields.texts("scopes")?),
        },
        "find" => KeyValueOp::Find {
            query: fields.text("pattern")?,
            scopes: Scopes::new(fields.optional_texts("scopes")?),
        },
        "list_scopes" => KeyValueOp::ListScopes,
        _ => return Err(ApiError::bad_request("\"op\" is get, set, delete, find or list_scopes")),
    };
    fields.finish()?;
    Ok(op)
}
