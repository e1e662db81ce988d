//! A line of JSON that is an event for a tenant, and the line of its answer, as a request with many
//! events and a stream have them.

use std::fmt;
use std::time::{Duration, Instant};

use super::InternalEndpoint;
use super::dispatch::{author_of, event_of};
use super::error::ApiError;
use super::event_keys::{EventKey, KeyClaim};
use super::request::{Fields, deadline_in};
use crate::base::error::DispatchError;
use crate::base::labels::{OutcomeCounters, labels};
use crate::base::limits::EVENT_KEY_MAX_BYTES;
use crate::dispatch::Job;
use crate::wire::data::TenantId;
use crate::wire::json::failure_to_json;

/// Limit: an id of a caller's, the largest that every JSON reader keeps exact.
pub const STREAM_ID_MAX: u64 = 1 << 53;

/// What the lines of a caller are read with.
#[derive(Debug, Clone, Copy)]
pub struct LineTerms {
    /// The caller, by its token; `None`: the listener asks for none.
    pub caller: Option<InternalEndpoint>,
    /// Of a line that names no deadline.
    pub default_deadline: Duration,
}

/// What a line asks for.
#[derive(Debug)]
pub struct EventLine {
    /// Whose event it is.
    pub tenant: TenantId,
    /// The event.
    pub job: Job,
    /// By then it is to be answered.
    pub until: Instant,
    /// Which answer.
    pub want: WantedAnswer,
    pub(super) key: Option<EventKey>,
}

/// What a caller wants to hear of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedAnswer {
    /// What the tenant answers.
    Result,
    /// That it is in its tenant's queue.
    Ack,
    /// Nothing, unless it was not taken.
    Nothing,
}

labels! {
    /// What became of a line here, as a label.
    LineOutcome {
        /// It became a job, of whose end `mesophyll_dispatches_total` tells.
        HandedOver = "handed_over",
        /// It is no event, or repeats the id of one that is unanswered.
        BadInput = "bad_input",
        /// An event with its key was taken before.
        Duplicate = "duplicate",
        /// An event with its key waits, or too many callers use keys.
        KeyBusy = "key_busy",
        /// As many events of its stream are unanswered as may be.
        NoCredit = "no_credit",
        /// Its stream holds as much as it may.
        HeldFull = "held_full",
        /// Until its deadline there was no room, or it was beyond its caller's rate.
        NoRoom = "no_room",
        /// The master stopped before it was handed over.
        Stopped = "stopped",
        /// Its caller went away before it was handed over.
        Abandoned = "abandoned",
        /// It was handed over, and its caller could not be told the answer.
        AnswerLost = "answer_lost",
    }
}

/// What became of the lines of all streams and requests.
pub(super) type LineOutcomes = OutcomeCounters<LineOutcome>;

/// Takes a line apart.
///
/// # Errors
/// It is no JSON object.
pub(super) fn fields(line: &[u8]) -> Result<Fields<'_>, ApiError> {
    Fields::of(line, r#"{"tenant": …, "name": …, "data": …}"#)
}

impl LineTerms {
    /// Reads a line of a stream: the event and its id. Pure, but for the clock.
    ///
    /// # Errors
    /// The line is none: the answer that says why.
    pub fn stream_line(&self, text: &str) -> Result<(u64, EventLine), String> {
        let refusal = |id, error| AnswerOf("id", id).refusal(&error);
        let mut fields = fields(text.as_bytes()).map_err(|error| refusal(None, error))?;
        match fields.whole::<u64>("id", "a whole number from 0 to 2^53") {
            Ok(id) if id <= STREAM_ID_MAX => {
                let line = self.read(fields).map_err(|error| refusal(Some(id), error))?;
                Ok((id, line))
            }
            Ok(_) => Err(refusal(None, ApiError::bad_request("the field \"id\" is above 2^53"))),
            Err(error) => Err(refusal(None, error)),
        }
    }

    /// Reads the fields of an event, which must be all that are left.
    ///
    /// # Errors
    /// What is wrong with the line; nothing is done.
    pub(super) fn read(&self, mut fields: Fields<'_>) -> Result<EventLine, ApiError> {
        let tenant: TenantId = fields.text("tenant")?.parse().map_err(|error| {
            ApiError::bad_request(format!("the field \"tenant\" names none: {error}"))
        })?;
        let (name, data) = (fields.name()?, fields.json("data")?);
        let author = self.caller.map(|caller| author_of(caller, &mut fields)).transpose()?;
        let patience = deadline_in(&mut fields)?.unwrap_or(self.default_deadline);
        let want = wanted_answer(&mut fields)?;
        let key = self.key(tenant, &mut fields)?;
        fields.finish()?;
        let job = Job::Dispatch(event_of(name, author.map(|author| author.to_string()), data, 0)?);
        Ok(EventLine { tenant, job, until: Instant::now() + patience, want, key })
    }

    fn key(&self, tenant: TenantId, fields: &mut Fields<'_>) -> Result<Option<EventKey>, ApiError> {
        let Some(text) = fields.optional::<String>("key", "a string")? else { return Ok(None) };
        if text.is_empty() || text.len() > EVENT_KEY_MAX_BYTES {
            return Err(ApiError::bad_request(format!(
                "the field \"key\" has 1 to {EVENT_KEY_MAX_BYTES} bytes"
            )));
        }
        let user_id = self.caller.map_or(0, |caller| caller.user_id);
        Ok(Some(EventKey { user_id, tenant, text: text.into() }))
    }
}

fn wanted_answer(fields: &mut Fields<'_>) -> Result<WantedAnswer, ApiError> {
    match fields.optional::<String>("want", "a string")?.as_deref() {
        None | Some("result") => Ok(WantedAnswer::Result),
        Some("ack") => Ok(WantedAnswer::Ack),
        Some("none") => Ok(WantedAnswer::Nothing),
        Some(_) => Err(ApiError::bad_request(r#"the field "want" is "result", "ack" or "none""#)),
    }
}

/// Why nothing more is taken, and streams end.
pub(super) const STOPS: &str = "the master stops";

/// What becomes of an event that was not handed over when the master stops.
pub(super) fn not_begun() -> DispatchError {
    DispatchError::NotSent(STOPS.to_owned())
}

/// What became of an event that may run still when the master stops.
pub(super) fn stopped() -> DispatchError {
    DispatchError::OutcomeUnknown("the master stopped before an answer came".to_owned())
}

/// Whose answer a line is: `"line":7` or `"id":7`; null if that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerOf(pub(super) &'static str, pub(super) Option<u64>);

impl AnswerOf {
    /// What the event came to, as JSON text.
    pub(super) fn ok(self, value: &str) -> String {
        format!("{{{self},\"ok\":{value}}}")
    }

    pub(super) fn error(self, kind: &str, sent: bool, message: &str) -> String {
        format!("{{{self},\"error\":{}}}", failure_to_json(kind, sent, message))
    }

    pub(super) fn dispatch_error(self, error: &DispatchError) -> String {
        self.error(error.kind(), error.sent(), &error.to_string())
    }

    /// Of a line that was refused before anything was done.
    pub(super) fn refusal(self, error: &ApiError) -> String {
        self.error(error.kind(), false, error.message())
    }

    /// Of an event whose key does not let it be handed over.
    pub(super) fn of_claim(self, claim: KeyClaim) -> Option<(LineOutcome, String)> {
        let (outcome, text) = match claim {
            KeyClaim::First => return None,
            KeyClaim::Again => {
                let text = "an event with this key was taken before, and may have run";
                return Some((LineOutcome::Duplicate, self.error("duplicate", true, text)));
            }
            KeyClaim::Waits => (LineOutcome::KeyBusy, "an event with this key waits to be taken"),
            KeyClaim::NoRoom => (LineOutcome::KeyBusy, "too many callers use keys at once"),
        };
        Some((outcome, self.error("busy", false, text)))
    }
}

impl fmt::Display for AnswerOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerOf(label, Some(number)) => write!(f, "\"{label}\":{number}"),
            AnswerOf(label, None) => write!(f, "\"{label}\":null"),
        }
    }
}
