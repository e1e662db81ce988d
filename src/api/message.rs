//! `POST /i/message/…`: a message for a tenant, of staff or of another master's tenant; and the way
//! of messages to other masters, which is that of any request for a tenant.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{ApiError, Code};
use super::request::{Fields, deadline, tenant};
use super::request_id::RequestName;
use super::routes::ROUTES;
use super::{Api, Call, text, token};
use crate::base::error::DispatchError;
use crate::base::labels::Label as _;
use crate::base::limits::{
    MESSAGE_BODY_MAX_BYTES, TENANT_MESSAGE_MAX_BYTES, TENANT_MESSAGE_TOPIC_MAX_BYTES,
};
use crate::net::http::router::{self, Found};
use crate::net::http::{Body, Method, RequestHead, Response, ResponseBody};
use crate::wire::data::{MessageOutcome, TenantId, TenantMessage};
use crate::wire::json;

/// For how many seconds the token is good with which a master forwards a message. Those that carry
/// it need it for the message's deadline, by clocks that may differ.
const TOKEN_SECONDS: u64 = 120;

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
        let answer = match self.message_request(message) {
            Some((head, body)) => self.ask_as_master(&head, &body, deadline),
            None => return MessageOutcome::Busy,
        };
        match answer {
            Ok(response) => outcome_of(&response),
            Err(error) if error.was_sent() => MessageOutcome::Unknown,
            Err(_) => MessageOutcome::Busy,
        }
    }

    /// The request that another master would make.
    fn message_request(&self, message: &TenantMessage) -> Option<(RequestHead, Vec<u8>)> {
        let TenantMessage { from, to, topic, data, depth } = message;
        let data = RawValue::from_string(json::json_from_encoded(data).ok()?).ok()?;
        let body = Forwarded { from: from.to_string(), depth: *depth, topic, data: &data };
        let body = serde_json::to_vec(&body).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let token = token::mint(&self.config.secret, 0, now + TOKEN_SECONDS);
        let (kind, snowflake) = (to.kind().as_str(), to.snowflake());
        let head = format!(
            "POST /i/message/{kind}/{snowflake} HTTP/1.1\r\nHost: master\r\n\
             Authorization: Internal {token}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Some((RequestHead::parse(head, ([127, 0, 0, 1], 0).into()).ok()?, body))
    }

    fn ask_as_master(
        &self,
        head: &RequestHead,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Response, ApiError> {
        let unavailable = || ApiError::new(Code::Unavailable, "there is no other master");
        let cluster = self.ready.cluster().ok_or_else(unavailable)?;
        let Found::Route(route, params) = router::find(ROUTES, Method::Post, head.path()) else {
            return Err(unavailable());
        };
        let kind = route.handler.tenant.ok_or_else(unavailable)?;
        let id = RequestName::of(head);
        let until = Some(deadline);
        let mut call = Call { head, id: &id, params, caller: None, until, is_of_master: true };
        self.answer_for_tenant(cluster, route, kind, &mut call, &mut Body::from_bytes(body))
    }
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
