//! `POST /i/message/…`: a message for a tenant, of staff or of another master's tenant; and the way
//! of messages to other masters, which is that of any request for a tenant.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{ApiError, Code};
use super::request::{Fields, deadline, tenant};
use super::{Api, Call, text};
use crate::base::error::DispatchError;
use crate::base::labels::Label as _;
use crate::base::limits::{
    MESSAGE_BODY_MAX_BYTES, TENANT_MESSAGE_MAX_BYTES, TENANT_MESSAGE_TOPIC_MAX_BYTES,
};
use crate::net::http::{Body, Response, ResponseBody};
use crate::wire::data::{MessageOutcome, TenantId, TenantMessage};
use crate::wire::json;

/// A tenant's message as masters tell it each other.
#[derive(Serialize)]
struct Forwarded<'m> {
    from: String,
    depth: u64,
    topic: &'m str,
    data: &'m RawValue,
}

/// What became of a message.
#[derive(Serialize, Deserialize)]
struct SentMessage {
    outcome: String,
}

pub(super) fn message(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let to = tenant(call)?;
    let patience = deadline(call)?.unwrap_or(api.config.default_deadline);
    let (permit, bytes) = api.read_body(Some(to), body, MESSAGE_BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"topic": …, "data": …}"#)?;
    let (topic, data) = (fields.text("topic")?, fields.json("data")?);
    let sender = if call.is_of_master { sender(&mut fields)? } else { None };
    fields.finish()?;
    if topic.len() > TENANT_MESSAGE_TOPIC_MAX_BYTES
        || data.as_bytes().len() > TENANT_MESSAGE_MAX_BYTES
    {
        let text = format!(
            "a topic has at most {TENANT_MESSAGE_TOPIC_MAX_BYTES} bytes, and the data \
             {TENANT_MESSAGE_MAX_BYTES} as MessagePack"
        );
        return Err(ApiError::new(Code::TooLarge, text));
    }
    let messages = api.ready.messages();
    let outcome = match sender {
        None => {
            messages.bring_from_staff(to, &topic, &data, Instant::now() + patience)?;
            MessageOutcome::Accepted
        }
        Some((from, depth)) => {
            let message = TenantMessage { from, to, topic, data, depth };
            messages.bring(&message).ok_or(DispatchError::NotOwner)?
        }
    };
    let answer = SentMessage { outcome: outcome.as_str().to_owned() };
    Ok(text::answer(202, &answer)?.holding(permit))
}

/// The tenant whose message another master forwards, and its depth; staff has none.
fn sender(fields: &mut Fields<'_>) -> Result<Option<(TenantId, u64)>, ApiError> {
    let from: Option<String> = fields.optional("from", "a tenant")?;
    let Some(from) = from else { return Ok(None) };
    let from = from.parse().map_err(|_| ApiError::bad_request("\"from\" is not a tenant"))?;
    Ok(Some((from, fields.whole("depth", "a number")?)))
}

impl Api {
    /// Has a message of a tenant of this master taken where its receiver is.
    ///
    /// # Blocks
    /// Until it was, or `deadline`; the wake-up is the end of the API.
    pub(super) fn forward_message(
        &self,
        message: &TenantMessage,
        deadline: Instant,
    ) -> MessageOutcome {
        let Some(body) = message_body(message) else { return MessageOutcome::Busy };
        let (kind, snowflake) = (message.to.kind().as_str(), message.to.snowflake());
        let path = format!("/i/message/{kind}/{snowflake}");
        match self.ask_as_master(&path, None, body, deadline) {
            Ok(response) => outcome_of(&response),
            Err(error) if error.was_sent() => MessageOutcome::Unknown,
            Err(_) => MessageOutcome::Busy,
        }
    }
}

fn message_body(message: &TenantMessage) -> Option<Vec<u8>> {
    let TenantMessage { from, topic, data, depth, .. } = message;
    let data = RawValue::from_string(json::json_from_encoded(data).ok()?).ok()?;
    let body = Forwarded { from: from.to_string(), depth: *depth, topic, data: &data };
    serde_json::to_vec(&body).ok()
}

/// What an answer of this or another master says.
fn outcome_of(response: &Response) -> MessageOutcome {
    let ResponseBody::Bytes(bytes) = &response.body else { return MessageOutcome::Unknown };
    let named = serde_json::from_slice::<SentMessage>(bytes).ok();
    match named.and_then(|answer| MessageOutcome::of_name(answer.outcome.as_bytes())) {
        Some(outcome) if response.status == 202 => outcome,
        // No room, or no worker: nothing was done.
        _ if response.status == 503 => MessageOutcome::Busy,
        _ => MessageOutcome::Unknown,
    }
}
