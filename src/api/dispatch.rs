//! `POST /i/dispatch-event/…`: an event for a tenant, and its answer.
//!
//! The event's data is streamed from JSON text into MessagePack, and the answer back; neither
//! becomes a tree.

use std::time::Instant;

use super::admission::Permit;
use super::error::{ApiError, Code};
use super::request::{Fields, deadline, tenant};
use super::{Api, Call, InternalEndpoint, flag, token};
use crate::base::error::DispatchError;
use crate::base::limits::{API_BODY_MAX_BYTES, EVENT_ENVELOPE_BYTES, MESSAGE_MAX_BYTES};
use crate::dispatch::Job;
use crate::dispatch::worker_like;
use crate::net::http::{Body, Response};
use crate::wire::data::{CreateEvent, EncodedJson, EncodedValue, EventData, TenantId};
use crate::wire::json;

/// Says in an answer which is null that the tenant is not subscribed to the event; else it is not
/// there.
pub(super) const SUBSCRIBED: &str = "Mesophyll-Subscribed";

pub(super) fn dispatch_event(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let is_nowait = flag(call.head, "nowait")?;
    let patience = deadline(call)?.unwrap_or(api.config.default_deadline);
    let (permit, bytes) = api.read_body(Some(tenant), body, API_BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"name": …, "data": …}"#)?;
    let (name, data) = (fields.name()?, fields.json("data")?);
    let author = author(call, &mut fields)?;
    fields.finish()?;
    drop(bytes);
    let event = event_of(name, author, data, 0)?;
    let deadline = Instant::now() + patience;
    if is_nowait {
        api.pool.dispatch_event_nowait(tenant, event, deadline)?;
        return Ok(Response::json(202, "{}").holding(permit));
    }
    let (value, is_subscribed) = api.wait_for(call, tenant, Job::Dispatch(event), deadline)?;
    let response = answer(&value, permit)?;
    Ok(if is_subscribed { response } else { response.with_header(SUBSCRIBED, "false") })
}

/// A tenant's answer.
pub(super) fn answer(value: &EncodedValue, mut permit: Permit) -> Result<Response, ApiError> {
    let text = answer_text(value, &mut permit)?;
    Ok(Response::json(200, text).holding(permit))
}

/// A tenant's answer as JSON. Many large ones at once may find no room; then the caller learns that
/// much.
pub(super) fn answer_text(value: &EncodedValue, permit: &mut Permit) -> Result<String, ApiError> {
    if permit.expect_answer(2 * value.as_bytes().len()).is_err() {
        return Err(ApiError::new(
            Code::Busy,
            "it ran, but too many large answers are under way to keep its own",
        )
        .sent());
    }
    let text = json::value_to_json(value).map_err(|_| {
        ApiError::new(Code::InternalError, "the answer cannot be written as JSON").sent()
    })?;
    permit.settle_answer(text.len());
    Ok(text)
}

/// The author of an event: the caller, or a user that the caller names and may act for.
pub(super) fn author(call: &Call<'_>, fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(caller) = call.caller else { return Ok(None) };
    let author = author_of(caller, fields)?;
    if author != caller.user_id {
        log::debug!(request_id = call.id.as_str(); "{:?} ({}): {author} via {}", call.head, call.id, caller.user_id);
    }
    Ok(Some(author.to_string()))
}

/// As [`author`], of a caller.
pub(super) fn author_of(
    caller: InternalEndpoint,
    fields: &mut Fields<'_>,
) -> Result<u64, ApiError> {
    const WHAT: &str = "a user's id, a decimal number as a string";
    let named: Option<String> = fields.optional("author", WHAT)?;
    let Some(named) = named else { return Ok(caller.user_id) };
    let author = token::decimal(&named)
        .map_err(|_| ApiError::bad_request(format!("the field \"author\" is not {WHAT}")))?;
    if author != caller.user_id && !caller.acts_as_any {
        let message = "the token is for its own user only: `mesophyll token --act-as-any` mints one that may name \
            another user as the author";
        return Err(ApiError::new(Code::Restricted, message));
    }
    Ok(author)
}

/// An event; `beside` is what its message holds besides it.
pub(super) fn event_of(
    name: String,
    author: Option<String>,
    data: EncodedJson,
    beside: usize,
) -> Result<CreateEvent, ApiError> {
    let event = CreateEvent { name, author, data: EventData::Json(data) };
    let bytes = event.bytes() + beside + EVENT_ENVELOPE_BYTES;
    if bytes > MESSAGE_MAX_BYTES {
        return Err(DispatchError::TooLarge { bytes, limit: MESSAGE_MAX_BYTES }.into());
    }
    Ok(event)
}

impl Api {
    /// Has a job done. Beside its value it says whether the tenant is subscribed to the event, as
    /// far as the worker says it.
    ///
    /// # Blocks
    /// Until the answer or the deadline; the wake-up is the shutdown of the API.
    pub(super) fn wait_for(
        &self,
        call: &Call<'_>,
        tenant: TenantId,
        job: Job,
        deadline: Instant,
    ) -> Result<(EncodedValue, bool), DispatchError> {
        let request_id = call.id.request_id();
        let pending = worker_like::start_as(&*self.pool, tenant, request_id, job, deadline);
        // The end of the API ends it.
        let wait = self.waits.begin(request_id, pending.slot());
        if wait.is_none()
            || (!pending.slot().wait_until_answered(deadline) && self.waits.are_over())
        {
            return Err(DispatchError::OutcomeUnknown(
                "the master stopped before an answer came".to_owned(),
            ));
        }
        let slot = pending.slot().clone();
        pending.finish().map(|value| (value, !slot.is_unsubscribed()))
    }
}
