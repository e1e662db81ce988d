//! `POST /i/dispatch-events`: many events in one request, a line of JSON for each, and a line for
//! each answer as it comes.
//!
//! Runs on the connection's thread, which hands the lines over in their order, so that a tenant
//! gets its events in it, and waits for the answers. No more than so many are under way at once:
//! a caller with many lines waits instead of being refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::admission::Permit;
use super::dispatch::{answer_text, author_of, event_of};
use super::error::ApiError;
use super::request::{Fields, deadline_in};
use super::waits::Waits;
use super::{Api, Call, GATHER_BYTES, InternalEndpoint};
use crate::base::error::DispatchError;
use crate::base::limits::{API_BODY_MAX_BYTES, API_EVENTS_UNDER_WAY};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, DispatchResult, Job, Refused, Request, RequestId};
use crate::net::http::{Body, Response};
use crate::wire::data::TenantId;
use crate::wire::json::failure_to_json;

/// How often is looked whether the API has ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often one that found no room is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(20);

pub(super) fn dispatch_events(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let (permit, lines) = api.read_body(None, body, API_BODY_MAX_BYTES)?;
    if lines.is_empty() {
        return Err(ApiError::bad_request(
            "the body has a line of JSON for each event, and has none",
        ));
    }
    let (answers_tx, answers_rx) = bounded(API_EVENTS_UNDER_WAY);
    let events = EventLines {
        pool: api.pool.clone(),
        waits: api.waits.clone(),
        caller: call.caller,
        default_deadline: api.config.default_deadline,
        lines: lines.into_owned(),
        read: 0,
        number: 0,
        held: None,
        under_way: BTreeMap::new(),
        given_up: 0,
        answers_tx,
        answers_rx,
        permit,
    };
    Ok(Response::chunked(200, "application/x-ndjson", events).live())
}

/// The lines of a request, and what came of them. Dropped, because the caller has gone, it gives
/// up what is under way.
struct EventLines {
    pool: Arc<dyn WorkerLike>,
    waits: Arc<Waits>,
    caller: Option<InternalEndpoint>,
    default_deadline: Duration,
    lines: Vec<u8>,
    /// So many bytes of the lines have been read.
    read: usize,
    number: u64,
    /// One that found no room: before it has been taken, or its deadline, no other is read.
    held: Option<EventLine>,
    under_way: BTreeMap<LinePlace, (TenantId, RequestId)>,
    /// Lines that were given up, whose answers are still to come.
    given_up: usize,
    answers_tx: Sender<(LinePlace, DispatchResult)>,
    answers_rx: Receiver<(LinePlace, DispatchResult)>,
    permit: Permit,
}

/// When a line is given up, and its number.
type LinePlace = (Instant, u64);

/// What a line asks for.
struct EventLine {
    place: LinePlace,
    tenant: TenantId,
    job: Job,
    want: WantedAnswer,
}

/// What a caller wants to hear of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedAnswer {
    /// What the tenant answers.
    Result,
    /// That it is in its tenant's queue.
    Ack,
    /// Nothing, unless it was not taken.
    Nothing,
}

impl Iterator for EventLines {
    type Item = Vec<u8>;

    /// # Blocks
    /// Until there is an answer, or for [`LOOK_EVERY`], so that a caller that has gone is noticed.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut text = String::new();
        while text.len() < GATHER_BYTES
            && self.under_way.len() + self.given_up < API_EVENTS_UNDER_WAY
        {
            let Some(line) = self.held.take().or_else(|| self.next_line(&mut text)) else { break };
            self.start(line, &mut text);
            if self.held.is_some() {
                break;
            }
        }
        self.take_answers(&mut text);
        let is_read = self.held.is_none() && self.read == self.lines.len();
        let is_over = is_read && self.under_way.is_empty() && text.is_empty();
        (!is_over).then(|| text.into_bytes())
    }
}

impl EventLines {
    /// The next line that is an event; those before it that are none are answered.
    fn next_line(&mut self, text: &mut String) -> Option<EventLine> {
        while self.read < self.lines.len() && text.len() < GATHER_BYTES {
            let rest = &self.lines[self.read..];
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let line = rest[..end].trim_ascii();
            let parsed = (!line.is_empty()).then(|| self.parse(self.number + 1, line));
            self.read = (self.read + end + 1).min(self.lines.len());
            self.number += 1;
            match parsed {
                None => {}
                Some(Ok(line)) => return Some(line),
                Some(Err(error)) => {
                    write_error(text, self.number, error.kind(), false, error.message());
                }
            }
        }
        None
    }

    fn parse(&self, number: u64, line: &[u8]) -> Result<EventLine, ApiError> {
        let mut fields = Fields::of(line, r#"{"tenant": …, "name": …, "data": …}"#)?;
        let tenant: TenantId = fields.text("tenant")?.parse().map_err(|error| {
            ApiError::bad_request(format!("the field \"tenant\" names none: {error}"))
        })?;
        let (name, data) = (fields.name()?, fields.json("data")?);
        let author = self.caller.map(|caller| author_of(caller, &mut fields)).transpose()?;
        let patience = deadline_in(&mut fields)?.unwrap_or(self.default_deadline);
        let want = match fields.optional::<String>("want", "a string")?.as_deref() {
            None | Some("result") => WantedAnswer::Result,
            Some("ack") => WantedAnswer::Ack,
            Some("none") => WantedAnswer::Nothing,
            Some(_) => {
                let text = r#"the field "want" is "result", "ack" or "none""#;
                return Err(ApiError::bad_request(text));
            }
        };
        fields.finish()?;
        let job = Job::Dispatch(event_of(name, author.map(|author| author.to_string()), data, 0)?);
        Ok(EventLine { place: (Instant::now() + patience, number), tenant, job, want })
    }

    /// Hands a line over; one that finds no room is held.
    fn start(&mut self, line: EventLine, text: &mut String) {
        let EventLine { place, tenant, job, want } = line;
        if self.waits.are_over() {
            let error = DispatchError::NotSent("the master stops".to_owned());
            return write_result(text, place.1, Err(error), &mut self.permit);
        }
        let answer = if want == WantedAnswer::Result {
            let answers_tx = self.answers_tx.clone();
            // There is room for all that are not answered, and each is answered once.
            Answer::callback(move |result| drop(answers_tx.try_send((place, result))))
        } else {
            Answer::unawaited()
        };
        let request = Request::new(tenant, job, place.0, answer);
        if want == WantedAnswer::Result {
            self.under_way.insert(place, (tenant, request.id));
        }
        let Err(refused) = self.pool.try_submit(request) else {
            if want == WantedAnswer::Ack {
                let _ = writeln!(text, "{{\"line\":{},\"ok\":true}}", place.1);
            }
            return;
        };
        self.under_way.remove(&place);
        let Refused { request: Request { job, answer, .. }, error } = *refused;
        answer.refuse(&error);
        if matches!(error, DispatchError::Busy(_)) && Instant::now() < place.0 {
            self.held = Some(EventLine { place, tenant, job, want });
        } else {
            write_result(text, place.1, Err(error), &mut self.permit);
        }
    }

    /// Writes the answers that are there, and waits for one if there is nothing else to write.
    fn take_answers(&mut self, text: &mut String) {
        let pause = if self.held.is_some() { RETRY_EVERY } else { LOOK_EVERY };
        let until = Instant::now() + pause;
        while text.len() < GATHER_BYTES {
            let first = self.under_way.first_key_value().map(|((deadline, _), _)| *deadline);
            // One that was given up has its place until it is answered.
            let is_full = self.given_up == API_EVENTS_UNDER_WAY && self.read < self.lines.len();
            if first.is_none() && self.held.is_none() && !is_full {
                return;
            }
            let now = Instant::now();
            if first.is_some_and(|first| first <= now || self.waits.are_over()) {
                self.give_up_first(text);
                continue;
            }
            // What there is to say is said at once.
            let until = if text.is_empty() { first.map_or(until, |at| at.min(until)) } else { now };
            match self.answers_rx.recv_deadline(until) {
                Ok((place, result)) => self.finish(place, result, text),
                Err(_) if first.is_some_and(|first| first <= until) && text.is_empty() => {}
                Err(_) => return,
            }
        }
    }

    fn finish(&mut self, place: LinePlace, result: DispatchResult, text: &mut String) {
        match self.under_way.remove(&place) {
            Some(_) => write_result(text, place.1, result, &mut self.permit),
            // One that was given up has been answered.
            None => self.given_up = self.given_up.saturating_sub(1),
        }
    }

    /// The first one's deadline is over, or the API is.
    fn give_up_first(&mut self, text: &mut String) {
        let Some((&place, &(tenant, id))) = self.under_way.first_key_value() else { return };
        if !self.waits.are_over() {
            // To give it up is to answer it, if no answer has come before.
            self.pool.cancel(tenant, id);
            while let Ok((place, result)) = self.answers_rx.try_recv() {
                self.finish(place, result, text);
            }
        }
        if self.under_way.remove(&place).is_none() {
            return;
        }
        self.given_up += 1;
        let error = if self.waits.are_over() {
            self.pool.cancel(tenant, id);
            DispatchError::OutcomeUnknown("the master stopped before an answer came".to_owned())
        } else {
            DispatchError::Deadline { sent: true }
        };
        write_result(text, place.1, Err(error), &mut self.permit);
    }
}

impl Drop for EventLines {
    fn drop(&mut self) {
        for (tenant, id) in self.under_way.values() {
            self.pool.cancel(*tenant, *id);
        }
    }
}

fn write_result(text: &mut String, number: u64, result: DispatchResult, permit: &mut Permit) {
    match result.map(|value| answer_text(&value, permit)) {
        Ok(Ok(value)) => {
            let _ = writeln!(text, "{{\"line\":{number},\"ok\":{value}}}");
        }
        Ok(Err(error)) => write_error(text, number, "busy", true, error.message()),
        Err(error) => write_error(text, number, error.kind(), error.sent(), &error.to_string()),
    }
}

fn write_error(text: &mut String, number: u64, kind: &str, sent: bool, message: &str) {
    let failure = failure_to_json(kind, sent, message);
    let _ = writeln!(text, "{{\"line\":{number},\"error\":{failure}}}");
}
