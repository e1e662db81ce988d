//! What staff sees and decides about a tenant: its state, its standing, what it uses; and which
//! guilds are known.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::{ApiError, Code};
use super::request::{self, Fields, Whole, tenant};
use super::{Api, Call, text};
use crate::base::error::DispatchError;
use crate::base::limits::{API_DB_BODY_MAX_BYTES, DISPATCH_DEADLINE, LIVE_TENANTS_TIMEOUT};
use crate::dispatch::Job;
use crate::net::http::{Body, Response};
use crate::store::{Quota, Standing, Usage, rules};
use crate::wire::data::{KeyValueOp, Scopes, TenantId, TenantState};

/// The key and the scope of a tenant's own template (docs/templates.md).
const TEMPLATE: (&str, &str) = ("main", "template");

pub(super) fn get_state(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let permit = api.admit_without_body(body)?;
    match api.db.tenant_state(tenant) {
        Some(state) => Ok(text::answer(200, &*state)?.holding(permit)),
        None => Err(ApiError::new(
            Code::NotFound,
            "the tenant has no state: the default events apply to it",
        )),
    }
}

/// The worker of the tenant hears of it from the database itself.
pub(super) fn put_state(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let (permit, bytes) = api.read_body(None, body, API_DB_BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"events": […], "data": …}"#)?;
    let events = fields.texts("events")?;
    let data = fields.json("data")?;
    fields.finish()?;
    rules::check_event_count(events.len())?;
    let state = TenantState { events: events.into_iter().collect(), data };
    api.db.set_tenant_state(tenant, &state)?;
    Ok(Response::empty(204).holding(permit))
}

/// Everything about a tenant in one answer.
#[derive(Serialize)]
struct Shown<'a> {
    tenant: String,
    banned: bool,
    quarantined: bool,
    state: Option<&'a TenantState>,
    default_events: &'a [String],
    template: bool,
    usage: Usage,
    quota: Quota,
}

pub(super) fn show(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let permit = api.admit_without_body(body)?;
    let (key, scope) = TEMPLATE;
    let get = KeyValueOp::Get { scopes: Scopes::new([scope]), key: key.to_owned() };
    let state = api.db.tenant_state(tenant);
    let shown = Shown {
        tenant: tenant.to_string(),
        banned: api.db.standing(tenant) == Standing::Banned,
        quarantined: api.ready.operator().quarantine().holds(tenant),
        state: state.as_deref(),
        default_events: &api.config.default_events,
        template: api.db.kv(tenant, get)?.into_record()?.is_some(),
        usage: api.db.kv_usage(tenant)?,
        quota: api.db.quota(),
    };
    Ok(text::answer(200, &shown)?.holding(permit))
}

/// Bans a tenant or lifts the ban. A ban also ends what the tenant has running.
pub(super) fn ban(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let (permit, bytes) = api.read_body(None, body, API_DB_BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"banned": true}"#)?;
    let is_banned = fields.typed("banned", "true or false")?;
    fields.finish()?;
    api.db.set_standing(tenant, if is_banned { Standing::Banned } else { Standing::Good })?;
    if is_banned {
        // The ban counts already; what runs has ended when it is answered. Where no worker is,
        // nothing runs.
        let patience = api.config.default_deadline.min(DISPATCH_DEADLINE);
        match api.wait_for(call, tenant, Job::DropTenant, Instant::now() + patience) {
            Ok(_) | Err(DispatchError::NoWorker(_)) => {}
            // Where the tenant is now, all of it can be done again.
            Err(DispatchError::NotOwner) => return Err(DispatchError::NotOwner.into()),
            Err(error) => return Err(ApiError::from(error).sent()),
        }
    }
    Ok(Response::empty(204).holding(permit))
}

/// A guild's id, as JSON writes it in one way or the other.
#[derive(Deserialize)]
#[serde(untagged)]
enum GuildId {
    Text(String),
    Number(Whole),
}

pub(super) fn guilds_exist(
    api: &Api,
    _call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let (permit, bytes) = api.read_body(None, body, API_DB_BODY_MAX_BYTES)?;
    let ids: Vec<GuildId> = request::list(&bytes, "the body", "ids of guilds, strings or numbers")?;
    drop(bytes);
    let guild = |id: &GuildId| {
        let text = match id {
            GuildId::Text(text) => TenantId::from_parts("guild", text),
            GuildId::Number(Whole(number)) => TenantId::from_parts("guild", &number.to_string()),
        };
        text.map_err(|_| ApiError::bad_request("a guild's id is a decimal number below 2^64-1"))
    };
    let guilds = ids.iter().map(guild).collect::<Result<Vec<_>, _>>()?;
    let mut known = api.db.are_known(&guilds)?;
    add_live(api, &guilds, &mut known);
    text::list(known.into_iter().map(u8::from).collect(), permit)
}

/// Notes the guilds that have a VM, of those that the store does not know. What the workers do not
/// say in time is no error: the store's answer stands.
fn add_live(api: &Api, guilds: &[TenantId], known: &mut [bool]) {
    let places: Vec<usize> = (0..guilds.len()).filter(|place| !known[*place]).collect();
    let unknown: Vec<TenantId> = places.iter().map(|place| guilds[*place]).collect();
    let live = api.ready.operator().have_vms(&unknown, Instant::now() + LIVE_TENANTS_TIMEOUT);
    for (place, live) in places.into_iter().zip(live) {
        known[place] = live;
    }
}

pub(super) fn threads_count(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    Ok(Response::json(200, api.pool.len().to_string()))
}
