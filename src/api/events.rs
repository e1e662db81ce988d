//! `POST /i/dispatch-events`: many events in one request, a line of JSON for each, and a line for
//! each answer as it comes.
//!
//! Runs on the connection's thread, which hands the lines over in their order, so that a tenant
//! gets its events in it, and waits for the answers. No more than so many are under way at once:
//! a caller with many lines waits instead of being refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::admission::Permit;
use super::dispatch::answer_text;
use super::error::ApiError;
use super::event_door::{EventDoor, EventTaken, EventTerms};
use super::event_keys::{EventKey, EventKeys};
use super::event_line::{
    self, AnswerOf, EventLine, LineOutcome, LineTerms, WantedAnswer, not_begun, stopped,
};
use super::waits::Waits;
use super::{Api, Call, GATHER_BYTES};
use crate::base::error::DispatchError;
use crate::base::limits::{API_BODY_MAX_BYTES, API_EVENTS_UNDER_WAY, EVENT_RETRY_EVERY};
use crate::dispatch::worker_like::next_request_id;
use crate::dispatch::{Answer, DispatchResult, RequestId};
use crate::net::http::{Body, Response};
use crate::wire::data::{EncodedValue, TenantId};

/// How often is looked whether the API has ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
        door: EventDoor::of(api, call.caller),
        waits: api.waits.clone(),
        terms: LineTerms { caller: call.caller, default_deadline: api.config.default_deadline },
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
    door: EventDoor,
    waits: Arc<Waits>,
    terms: LineTerms,
    lines: Vec<u8>,
    /// So many bytes of the lines have been read.
    read: usize,
    number: u64,
    /// One that found no room: before it has been taken, or its deadline, no other is read.
    held: Option<(u64, EventLine)>,
    under_way: BTreeMap<LinePlace, LineUnderWay>,
    /// Lines that were given up, whose answers are still to come.
    given_up: usize,
    answers_tx: Sender<(LinePlace, DispatchResult)>,
    answers_rx: Receiver<(LinePlace, DispatchResult)>,
    permit: Permit,
}

/// When a line is given up, and its number.
type LinePlace = (Instant, u64);

/// A line whose answer is awaited.
struct LineUnderWay {
    tenant: TenantId,
    id: RequestId,
    want: WantedAnswer,
    has_key: bool,
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
            self.start(line.0, line.1, &mut text);
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
    fn next_line(&mut self, text: &mut String) -> Option<(u64, EventLine)> {
        while self.read < self.lines.len() && text.len() < GATHER_BYTES {
            let rest = &self.lines[self.read..];
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let line = rest[..end].trim_ascii();
            let is_empty = line.is_empty();
            let parsed = event_line::fields(line).and_then(|fields| self.terms.read(fields));
            self.read = (self.read + end + 1).min(self.lines.len());
            self.number += 1;
            let whose = AnswerOf("line", Some(self.number));
            match parsed {
                _ if is_empty => {}
                Err(error) => {
                    self.door.count(LineOutcome::BadInput);
                    write(text, &whose.refusal(&error));
                }
                Ok(line) => match whose.of_claim(self.door.claim(line.key.as_ref())) {
                    None => return Some((self.number, line)),
                    Some((outcome, refusal)) => {
                        self.door.count(outcome);
                        write(text, &refusal);
                    }
                },
            }
        }
        None
    }

    /// Hands a line over; one that finds no room is held.
    fn start(&mut self, number: u64, line: EventLine, text: &mut String) {
        let EventLine { tenant, job, until, want, key } = line;
        let place = (until, number);
        if self.waits.are_over() {
            self.door.release(key.as_ref());
            self.door.count(LineOutcome::Stopped);
            return self.write_result(text, number, Err(not_begun()));
        }
        let (id, has_key) = (next_request_id(), key.is_some());
        self.under_way.insert(place, LineUnderWay { tenant, id, want, has_key });
        let (answers_tx, keys) = (&self.answers_tx, &self.door.keys);
        let answer = || {
            let (answers_tx, keys, key) = (answers_tx.clone(), keys.clone(), key.clone());
            // There is room for all that are not answered, and each is answered once. A caller that
            // has gone repeats what has a key.
            Answer::callback(move |result| {
                release_unsent(&keys, key.as_ref(), result.as_ref().err());
                let _ = answers_tx.try_send((place, result));
            })
        };
        let event = EventTerms { tenant, id, deadline: until, want, key: key.as_ref() };
        match self.door.offer(event, job, answer) {
            Ok(EventTaken::Awaited) => {}
            Ok(EventTaken::InQueue) => self.finish(place, Ok(EncodedValue::null()), text),
            Err(refused) => {
                let (job, error) = *refused;
                self.under_way.remove(&place);
                let is_busy = matches!(error, DispatchError::Busy(_));
                if is_busy && Instant::now() < until {
                    self.held = Some((number, EventLine { tenant, job, until, want, key }));
                } else {
                    if is_busy {
                        self.door.count(LineOutcome::NoRoom);
                    }
                    release_unsent(&self.door.keys, key.as_ref(), Some(&error));
                    self.write_result(text, number, Err(error));
                }
            }
        }
    }

    /// Writes the answers that are there, and waits for one if there is nothing else to write.
    fn take_answers(&mut self, text: &mut String) {
        let pause = if self.held.is_some() { EVENT_RETRY_EVERY } else { LOOK_EVERY };
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
            Some(LineUnderWay { want, .. }) if want != WantedAnswer::Result && result.is_ok() => {
                if want == WantedAnswer::Ack {
                    write(text, &AnswerOf("line", Some(place.1)).ok("true"));
                }
            }
            Some(_) => match result {
                // It was given up because the master stops.
                Err(DispatchError::Deadline { sent: true }) if self.waits.are_over() => {
                    self.write_result(text, place.1, Err(stopped()));
                }
                result => self.write_result(text, place.1, result),
            },
            // One that was given up has been answered.
            None => self.given_up = self.given_up.saturating_sub(1),
        }
    }

    /// The first one's deadline is over, or the API is.
    fn give_up_first(&mut self, text: &mut String) {
        let Some((&place, line)) = self.under_way.first_key_value() else { return };
        self.door.cancel(line.tenant, line.id);
        while let Ok((place, result)) = self.answers_rx.try_recv() {
            self.finish(place, result, text);
        }
        if self.under_way.remove(&place).is_none() {
            return;
        }
        self.given_up += 1;
        let error = match self.waits.are_over() {
            true => stopped(),
            false => DispatchError::Deadline { sent: true },
        };
        self.write_result(text, place.1, Err(error));
    }

    /// Writes how a line ended.
    fn write_result(&mut self, text: &mut String, number: u64, result: DispatchResult) {
        let whose = AnswerOf("line", Some(number));
        let answer = match result.map(|value| answer_text(&value, &mut self.permit)) {
            Ok(Ok(value)) => whose.ok(&value),
            Ok(Err(error)) => {
                self.door.count(LineOutcome::AnswerLost);
                whose.error("busy", true, error.message())
            }
            Err(error) => whose.dispatch_error(&error),
        };
        write(text, &answer);
    }
}

impl Drop for EventLines {
    fn drop(&mut self) {
        // One with a key runs on: its caller may repeat it, and learns that it is a double.
        for line in self.under_way.values() {
            self.door.count(LineOutcome::AnswerLost);
            if !line.has_key {
                self.door.cancel(line.tenant, line.id);
            }
        }
        // What follows was never handed over.
        if let Some((_, line)) = self.held.take() {
            self.door.release(line.key.as_ref());
            self.door.count(LineOutcome::Abandoned);
        }
        let unread = self.lines[self.read..].split(|byte| *byte == b'\n');
        for _ in unread.filter(|line| !line.trim_ascii().is_empty()) {
            self.door.count(LineOutcome::Abandoned);
        }
    }
}

/// Forgets the key of an event that was not sent: it may come again.
fn release_unsent(keys: &EventKeys, key: Option<&EventKey>, error: Option<&DispatchError>) {
    if let (Some(key), Some(error)) = (key, error)
        && !error.sent()
    {
        keys.release(key);
    }
}

fn write(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
