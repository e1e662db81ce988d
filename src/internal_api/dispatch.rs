//! `POST /i/dispatch-event/…`: an event for a tenant, and its answer.
//!
//! The event's data is streamed from JSON text into MessagePack, and the answer back; neither becomes a tree.

use std::time::{Duration, Instant};

use crossbeam_channel::Select;

use super::error::{ApiError, Code};
use super::object::{self, Members};
use super::{Api, Call, flag, shortened};
use crate::error::DispatchError;
use crate::http::{Body, BodyError, Response};
use crate::limits::{
    API_BODY_MAX_BYTES, DISPATCH_DEADLINE_MAX, EVENT_ENVELOPE_BYTES, EVENT_NAME_MAX_BYTES, MESSAGE_MAX_BYTES,
};
use crate::model::{CreateEvent, DispatchResult, EncodedJson, EventData, Job, TenantId};
use crate::wire::json;
use crate::worker_like;

pub(super) fn dispatch_event(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let is_nowait = flag(call.head, "nowait")?;
    let patience = deadline(call)?.unwrap_or(api.default_deadline);
    let bytes = body.announced_bytes()?;
    if bytes > API_BODY_MAX_BYTES as u64 {
        return Err(BodyError::TooLarge.into());
    }
    let Some(permit) = api.admission.admit(bytes) else {
        return Err(ApiError::new(Code::Busy, "too many requests are under way"));
    };
    let event = event(call, &body.read_to_end(API_BODY_MAX_BYTES)?)?;
    let deadline = Instant::now() + patience;
    if is_nowait {
        api.pool.dispatch_event_nowait(tenant, event, deadline)?;
        return Ok(Response::json(202, "{}").holding(permit));
    }
    let value = api.wait_for(tenant, Job::Dispatch(event), deadline)?;
    let text = json::value_to_json(&value)
        .map_err(|_| ApiError::new(Code::InternalError, "the answer cannot be written as JSON"))?;
    Ok(Response::json(200, text).holding(permit))
}

impl Api {
    /// Has a job done.
    ///
    /// # Blocks
    /// Until the answer or the deadline; the wake-up is the shutdown of the API.
    fn wait_for(&self, tenant: TenantId, job: Job, deadline: Instant) -> DispatchResult {
        let pending = worker_like::start(&*self.pool, tenant, job, deadline);
        let mut select = Select::new();
        select.recv(pending.answer_rx());
        let stop = select.recv(&self.stop_rx);
        if select.ready_deadline(deadline) == Ok(stop) && pending.answer_rx().is_empty() {
            return Err(DispatchError::OutcomeUnknown("the master stopped before an answer came".to_owned()));
        }
        drop(select);
        // The answer is there, or the deadline is over: this does not wait.
        pending.wait()
    }
}

/// The tenant that the path names; its short form is a guild's.
fn tenant(call: &Call<'_>) -> Result<TenantId, ApiError> {
    let param = |name| call.params.get(name);
    let (kind, id) = match param("guild_id") {
        Some(id) => ("guild", id),
        None => (param("tenant_type").unwrap_or_default(), param("tenant_id").unwrap_or_default()),
    };
    TenantId::from_parts(kind, id).map_err(|_| {
        ApiError::bad_request("a tenant is named by its type, guild or user, and its id, a decimal number below 2^64-1")
    })
}

fn deadline(call: &Call<'_>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = call.head.query("deadline_ms") else { return Ok(None) };
    let millis = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let deadline = millis.map(Duration::from_millis);
    match deadline.filter(|deadline| !deadline.is_zero() && *deadline <= DISPATCH_DEADLINE_MAX) {
        Some(deadline) => Ok(Some(deadline)),
        None => Err(ApiError::bad_request(format!(
            "deadline_ms is a number from 1 to {}",
            DISPATCH_DEADLINE_MAX.as_millis()
        ))),
    }
}

/// The event that a body describes, on behalf of the caller.
fn event(call: &Call<'_>, body: &[u8]) -> Result<CreateEvent, ApiError> {
    let members = object::members(body)
        .map_err(|_| ApiError::bad_request("the body must be a JSON object with \"name\" and \"data\""))?;
    let [name, data] = take(&members, ["name", "data"])?;
    let name = event_name(name)?;
    let data = match data {
        None => EncodedJson::null(),
        Some(text) => json::event_data_from_json(text)
            .map_err(|error| ApiError::bad_request(format!("\"data\" is not acceptable JSON: {error}")))?,
    };
    let author = call.caller.map(|caller| caller.user_id.to_string());
    let event = CreateEvent { name, author, data: EventData::Json(data) };
    let bytes = event.bytes() + EVENT_ENVELOPE_BYTES;
    if bytes > MESSAGE_MAX_BYTES {
        return Err(DispatchError::TooLarge { bytes, limit: MESSAGE_MAX_BYTES }.into());
    }
    Ok(event)
}

/// The values of the known members; any other member is an error that names it.
fn take<'t, const N: usize>(
    members: &Members<'t>,
    known: [&'static str; N],
) -> Result<[Option<&'t [u8]>; N], ApiError> {
    let mut values = [None; N];
    for (name, value) in members {
        let at = known.iter().position(|known| known == name);
        let at = at.ok_or_else(|| ApiError::bad_request(format!("unknown field {:?}", shortened(name))))?;
        if values[at].replace(*value).is_some() {
            return Err(ApiError::bad_request(format!("the field {name:?} is repeated")));
        }
    }
    Ok(values)
}

fn event_name(text: Option<&[u8]>) -> Result<String, ApiError> {
    let text = text.ok_or_else(|| ApiError::bad_request("the field \"name\" is missing"))?;
    let name: String =
        serde_json::from_slice(text).map_err(|_| ApiError::bad_request("the field \"name\" is not a string"))?;
    if name.is_empty() || name.len() > EVENT_NAME_MAX_BYTES {
        return Err(ApiError::bad_request(format!("\"name\" must have 1 to {EVENT_NAME_MAX_BYTES} bytes")));
    }
    Ok(name)
}
