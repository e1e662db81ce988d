//! `POST /i/global-kv`: staff's side of the shop: looking at entries that wait for a review,
//! deciding about them, publishing and removing. `POST /i/purchase/…`: notes that a tenant paid.

use serde::Serialize;

use super::error::{ApiError, Code};
use super::request::{Fields, Whole, tenant};
use super::{Api, Call, text};
use crate::base::limits::{API_DB_BODY_MAX_BYTES, KV_FIND_MAX_BYTES};
use crate::net::http::{Body, Response};
use crate::store::global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use crate::wire::data::{CreateGlobalKv, EncodedJson, PartialGlobalKv};

/// What can be asked.
enum StaffOp {
    List(GlobalFilter),
    Get(GlobalAddress),
    Create { owner_id: Option<String>, entry: CreateGlobalKv },
    Change(GlobalAddress, GlobalChange),
    Delete(GlobalAddress),
}

pub(super) fn global_kv(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let (mut permit, bytes) = api.read_body(None, body, API_DB_BODY_MAX_BYTES)?;
    let op = op(&bytes)?;
    drop(bytes);
    match op {
        StaffOp::List(filter) => {
            permit.expect_answer(KV_FIND_MAX_BYTES)?;
            let entries = api.db.global_list(&filter)?;
            permit.settle_answer(entries.iter().map(memory_of).sum());
            return text::list(entries, permit);
        }
        StaffOp::Get(at) => {
            let entry = api.db.global_entry(&at)?;
            let entry =
                entry.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such entry"))?;
            let GlobalEntry { partial, data } = &entry;
            let whole = WholeEntry { partial, long: &partial.long, data };
            return Ok(text::answer(200, &whole)?.holding(permit));
        }
        StaffOp::Create { owner_id, entry } => {
            // A caller that names no owner publishes as the user of the token.
            let caller = call.caller.map(|caller| caller.user_id.to_string());
            api.db.add_staff_entry(&owner_id.or(caller).unwrap_or_default(), entry)?;
        }
        StaffOp::Change(at, change) => api.db.global_change(at, change)?,
        StaffOp::Delete(at) => api.db.global_remove(at)?,
    }
    Ok(Response::empty(204).holding(permit))
}

pub(super) fn purchase(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let (permit, bytes) = api.read_body(None, body, API_DB_BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"scope": …, "key": …, "version": 1}"#)?;
    let at = address(&mut fields)?;
    fields.finish()?;
    api.db.global_purchase(tenant, at)?;
    Ok(Response::empty(204).holding(permit))
}

fn op(text: &[u8]) -> Result<StaffOp, ApiError> {
    let mut fields = Fields::of(text, r#"{"op": "list", "review_state": "pending"}"#)?;
    let op = match fields.text("op")?.as_str() {
        "list" => StaffOp::List(GlobalFilter::new(
            fields.optional("review_state", "a string")?,
            fields.optional("scope", "a string")?,
            fields.optional::<String>("pattern", "a string")?.as_deref(),
        )?),
        "get" => StaffOp::Get(address(&mut fields)?),
        "create" => StaffOp::Create {
            owner_id: fields.optional("owner_id", "a string")?,
            entry: new_entry(&mut fields)?,
        },
        "review" => StaffOp::Change(
            address(&mut fields)?,
            GlobalChange::Review(fields.text("review_state")?),
        ),
        "price" => {
            let at = address(&mut fields)?;
            const WHAT: &str = "a whole number or null";
            let price: Option<Whole> = fields.typed("price", WHAT)?;
            let price = price.map(|Whole(price)| i64::try_from(price)).transpose();
            let price = price
                .map_err(|_| ApiError::bad_request(format!("the field \"price\" is not {WHAT}")))?;
            StaffOp::Change(at, GlobalChange::Price(price))
        }
        "delete" => StaffOp::Delete(address(&mut fields)?),
        _ => {
            return Err(ApiError::bad_request(
                "\"op\" is list, get, create, review, price or delete",
            ));
        }
    };
    fields.finish()?;
    Ok(op)
}

fn address(fields: &mut Fields<'_>) -> Result<GlobalAddress, ApiError> {
    Ok(GlobalAddress {
        scope: fields.text("scope")?,
        key: fields.text("key")?,
        version: fields.whole("version", "a whole number of 32 bits")?,
    })
}

fn new_entry(fields: &mut Fields<'_>) -> Result<CreateGlobalKv, ApiError> {
    let GlobalAddress { scope, key, version } = address(fields)?;
    Ok(CreateGlobalKv {
        key,
        version,
        short: fields.text("short")?,
        public_metadata: fields.json("public_metadata")?,
        scope,
        public_data: fields.optional("public_data", "true or false")?.unwrap_or(false),
        long: fields.optional("long", "a string")?,
        data: fields.json("data")?,
    })
}

/// About how much memory an entry of a list takes.
fn memory_of(entry: &PartialGlobalKv) -> usize {
    size_of::<PartialGlobalKv>()
        + entry.short.len()
        + entry.scope.len()
        + entry.public_metadata.as_bytes().len()
}

/// An entry with all that it has.
#[derive(Serialize)]
struct WholeEntry<'e> {
    #[serde(flatten)]
    partial: &'e PartialGlobalKv,
    long: &'e Option<String>,
    data: &'e EncodedJson,
}
