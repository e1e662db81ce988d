//! What the threads of one stream share: its events, and how they are handed over and answered.
//!
//! The reader hands over what comes, the link's clock what has been held and ends what is overdue,
//! and the answers come on the threads of workers' links. None of them blocks.

use std::sync::Arc;
use std::time::Instant;

use super::open_events::{HeldEvent, NotTakenIn, OpenEvent, OpenEvents};
use crate::api::event_door::{EventDoor, EventTaken, EventTerms};
use crate::api::event_line::{
    AnswerOf, EventLine, LineOutcome, LineTerms, STOPS, WantedAnswer, not_begun, stopped,
};
use crate::api::served_links::ServedLink;
use crate::base::error::DispatchError;
use crate::base::limits::EVENT_RETRY_EVERY;
use crate::base::sync::Lock;
use crate::dispatch::worker_like::{next_request_id, no_worker_in_time};
use crate::dispatch::{Answer, AnswerTaker, DispatchResult, Job, RequestId};
use crate::net::link::{CloseCause, LinkSender, SendError, WeakLinkSender, close_code};
use crate::wire::data::TenantId;
use crate::wire::json;

/// One stream, as its threads see it.
pub(super) struct StreamEvents {
    /// Answers to come keep this, and are to keep no link that has ended.
    pub(super) link: WeakLinkSender,
    pub(super) door: EventDoor,
    pub(super) terms: LineTerms,
    pub(super) state: Lock<StreamState>,
}

#[derive(Default)]
pub(super) struct StreamState {
    open: OpenEvents,
    /// Answers that have been taken out and not been queued yet: before that the link stays open.
    sending: usize,
    is_closing: bool,
    /// Nothing is waited for any more.
    is_ended: bool,
    /// The link has ended.
    is_abandoned: bool,
    /// When the clock looks next.
    beat_at: Option<Instant>,
}

impl StreamEvents {
    fn take_event(self: &Arc<Self>, id: u64, line: EventLine) {
        let (request_id, whose) = (next_request_id(), AnswerOf("id", Some(id)));
        let EventLine { tenant, job, until, want, key } = line;
        if let Some((outcome, refusal)) = whose.of_claim(self.door.claim(key.as_ref())) {
            self.door.count(outcome);
            return self.say(refusal);
        }
        let event = OpenEvent { id, tenant, until, want, key: key.clone() };
        if let Some((outcome, kind, text)) = self.enter(request_id, event, job) {
            self.door.release(key.as_ref());
            self.door.count(outcome);
            self.say(whose.error(kind, false, text));
        }
    }

    /// Takes an event in and hands it over, or holds it; otherwise says why not.
    fn enter(
        self: &Arc<Self>,
        request_id: RequestId,
        event: OpenEvent,
        job: Job,
    ) -> Option<(LineOutcome, &'static str, &'static str)> {
        let OpenEvent { tenant, until, want, .. } = event;
        let key = event.key.clone();
        let must_wait = {
            let mut state = self.state.lock();
            if state.is_closing {
                return Some((LineOutcome::Stopped, "not_sent", STOPS));
            }
            match state.open.take_in(request_id, event) {
                Ok(()) => {}
                Err(NotTakenIn::NoCredit) => {
                    let why = "there is no credit: too many events are unanswered";
                    return Some((LineOutcome::NoCredit, "busy", why));
                }
                Err(NotTakenIn::RepeatedId) => {
                    let why = "another event with this id is unanswered";
                    return Some((LineOutcome::BadInput, "bad_input", why));
                }
            }
            state.open.holds(tenant)
        };
        let job = if must_wait {
            Some(job)
        } else {
            self.offer(tenant, HeldEvent { request_id, job, until, want, key })
        };
        let mut state = self.state.lock();
        let mut look_at = until;
        if let Some(job) = job {
            look_at = until.min(Instant::now() + EVENT_RETRY_EVERY);
            if !state.open.hold(request_id, tenant, job) {
                let has_ended = state.open.end(request_id).is_none();
                let why = "its tenant has no room, and too much is held already";
                return (!has_ended).then_some((LineOutcome::HeldFull, "busy", why));
            }
        }
        if state.beat_at.is_some_and(|beat_at| look_at < beat_at) {
            state.beat_at = Some(look_at);
            drop(state);
            self.beat_now();
        }
        None
    }

    /// Hands an event over; gives its job back if there is no room.
    fn offer(self: &Arc<Self>, tenant: TenantId, event: HeldEvent) -> Option<Job> {
        let HeldEvent { request_id, job, until, want, key } = event;
        let answer = || Answer::taken(tenant, request_id, self.clone());
        let key = key.as_ref();
        let event = EventTerms { tenant, id: request_id, deadline: until, want, key };
        match self.door.offer(event, job, answer) {
            Ok(EventTaken::Awaited) => None,
            Ok(EventTaken::InQueue) => {
                self.finish(request_id, true, taken);
                None
            }
            Err(refused) => {
                let (job, error) = *refused;
                if !matches!(error, DispatchError::Busy(_)) {
                    self.finish_with(request_id, &error);
                } else if Instant::now() < until {
                    return Some(job);
                } else if self.finish_with(request_id, &error) {
                    self.door.count(LineOutcome::NoRoom);
                }
                None
            }
        }
    }

    /// Hands over what has been held, as far as there is room now.
    fn offer_held(self: &Arc<Self>) {
        let tenants = self.state.lock().open.held_tenants();
        for tenant in tenants {
            loop {
                let first = self.state.lock().open.first_held(tenant);
                let Some(event) = first else { break };
                let request_id = event.request_id;
                let back = self.offer(tenant, event);
                let mut state = self.state.lock();
                match back {
                    Some(job) => break state.open.put_back(request_id, tenant, job),
                    None => state.open.let_go(request_id, tenant),
                }
            }
        }
        if self.state.lock().is_abandoned {
            // It was, while one was offered.
            self.abandon();
        }
    }

    /// Ends what is overdue.
    fn expire(&self, now: Instant) {
        loop {
            let first = {
                let open = &self.state.lock().open;
                let first = open.first_deadline().filter(|(until, _)| *until <= now);
                first.and_then(|(_, id)| Some((id, open.place(id)?)))
            };
            let Some((request_id, (tenant, is_held))) = first else { return };
            if is_held {
                if self.finish_with(request_id, &no_worker_in_time()) {
                    self.door.count(LineOutcome::NoRoom);
                }
            } else {
                self.door.cancel(tenant, request_id);
                self.finish_with(request_id, &DispatchError::Deadline { sent: true });
            }
        }
    }

    fn finish_with(&self, request_id: RequestId, error: &DispatchError) -> bool {
        self.finish(request_id, error.sent(), |whose, _| Some(whose.dispatch_error(error)))
    }

    /// Ends an event and answers it; false: it has ended before.
    fn finish(
        &self,
        request_id: RequestId,
        is_sent: bool,
        text: impl FnOnce(AnswerOf, WantedAnswer) -> Option<String>,
    ) -> bool {
        let event = {
            let mut state = self.state.lock();
            let Some(event) = state.open.end(request_id) else { return false };
            state.sending += 1;
            event
        };
        self.answer_ended(&event, is_sent, text);
        true
    }

    /// Answers an event that has ended and counts as one that is being sent.
    fn answer_ended(
        &self,
        event: &OpenEvent,
        is_sent: bool,
        text: impl FnOnce(AnswerOf, WantedAnswer) -> Option<String>,
    ) {
        if !is_sent {
            self.door.release(event.key.as_ref());
        }
        let whose = AnswerOf("id", Some(event.id));
        if let Some(text) = text(whose, event.want) {
            self.answer(event.tenant, whose, text);
        }
        let mut state = self.state.lock();
        state.sending -= 1;
        let (is_over, looks_soon) = (state.is_over(), state.open.holds(event.tenant));
        drop(state);
        if is_over {
            self.close();
        } else if looks_soon {
            // There may be room for the next one of this tenant.
            self.beat_now();
        }
    }

    /// Answers an event that has run; one without room among the answers has its caller told.
    fn answer(&self, tenant: TenantId, whose: AnswerOf, text: String) {
        let link = self.link.upgrade();
        let sent = link.map_or(Err(SendError::Closed), |link| link.send_text_for(tenant, text));
        if sent.is_err() {
            self.door.count(LineOutcome::AnswerLost);
        }
        match sent {
            Ok(()) | Err(SendError::Closed) => {}
            Err(SendError::Full) => {
                let text = "it was taken, but too much waits to be sent to keep its answer";
                self.say(whose.error("busy", true, text));
            }
            Err(SendError::TooLarge { bytes, limit }) => {
                let text = format!("the answer is too large: {bytes} bytes of at most {limit}");
                self.say(whose.error("script", true, &text));
            }
        }
    }

    /// Says what must be heard: a caller that leaves no room for it does not read.
    fn say(&self, text: String) {
        if let Some(link) = self.link.upgrade()
            && link.send_text(text) == Err(SendError::Full)
        {
            link.abort(CloseCause::SlowPeer);
        }
    }

    fn beat_now(&self) {
        self.link.upgrade().iter().for_each(LinkSender::beat_now);
    }

    fn close(&self) {
        self.link.upgrade().iter().for_each(|link| link.close(close_code::GOING_AWAY));
    }

    /// The link has ended. What was handed over runs on; what is held never runs.
    fn abandon(&self) {
        let mut state = self.state.lock();
        (state.is_closing, state.is_abandoned) = (true, true);
        let held = state.open.end_held();
        drop(state);
        for event in &held {
            self.door.release(event.key.as_ref());
            self.door.count(LineOutcome::Abandoned);
        }
    }
}

impl StreamState {
    /// Whether nothing more is to be said.
    fn is_over(&self) -> bool {
        self.is_closing && self.sending == 0 && self.open.is_empty()
    }
}

impl ServedLink for StreamEvents {
    /// Does what a line asks for, and answers it unless its tenant does.
    fn take_line(self: Arc<Self>, text: &str) {
        match self.terms.stream_line(text) {
            Ok((id, line)) => self.take_event(id, line),
            Err(refusal) => {
                self.door.count(LineOutcome::BadInput);
                self.say(refusal);
            }
        }
    }

    fn look(self: Arc<Self>, now: Instant, at: Instant) -> Instant {
        self.expire(now);
        self.offer_held();
        let mut state = self.state.lock();
        let retry_at = state.open.holds_any().then(|| now + EVENT_RETRY_EVERY);
        let deadline = state.open.first_deadline().map(|(until, _)| until);
        let next = [retry_at, deadline].into_iter().flatten().fold(at, Instant::min);
        state.beat_at = Some(next);
        next
    }

    fn gone(&self, cause: &CloseCause) {
        let level = match cause {
            CloseCause::Silent | CloseCause::SlowPeer => log::Level::Info,
            _ => log::Level::Debug,
        };
        let user = self.terms.caller.map_or(0, |caller| caller.user_id);
        log::log!(level, "a stream of user {user} has ended: {cause}");
        self.abandon();
    }

    /// Tells the caller that the stream ends once all is answered, and takes nothing more.
    fn say_goodbye(&self, reason: &str) {
        let is_over = {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.is_closing, true) {
                return;
            }
            self.say(format!("{{\"goodbye\":{{\"reason\":\"{reason}\"}}}}"));
            state.is_over()
        };
        if is_over {
            self.close();
        }
    }

    /// Answers all that is unanswered, as nothing more can come.
    fn end(&self) {
        let held = {
            let mut state = self.state.lock();
            (state.is_closing, state.is_ended) = (true, true);
            // All at once: the end of any other makes room, and none of them is to run now.
            let held = state.open.end_held();
            state.sending += held.len();
            held
        };
        let error = not_begun();
        for event in held {
            self.door.count(LineOutcome::Stopped);
            self.answer_ended(&event, false, |whose, _| Some(whose.dispatch_error(&error)));
        }
        loop {
            let first = {
                let open = &self.state.lock().open;
                open.first_deadline().and_then(|(_, id)| Some((id, open.place(id)?.0)))
            };
            let Some((request_id, tenant)) = first else { break };
            self.door.cancel(tenant, request_id);
            self.finish_with(request_id, &stopped());
        }
        // An answer that is being sent closes it after itself.
        if self.state.lock().is_over() {
            self.close();
        }
    }
}

impl AnswerTaker for StreamEvents {
    fn take(&self, _: TenantId, id: RequestId, result: DispatchResult, _is_subscribed: bool) {
        // One that has ended before is answered.
        let _ = match result {
            // It was given up because the master stops.
            Err(DispatchError::Deadline { sent: true }) if self.state.lock().is_ended => {
                self.finish_with(id, &stopped())
            }
            Err(error) => self.finish_with(id, &error),
            Ok(value) => self.finish(id, true, |whose, want| {
                if want != WantedAnswer::Result {
                    return taken(whose, want);
                }
                Some(match json::value_to_json(&value) {
                    Ok(text) => whose.ok(&text),
                    Err(_) => whose.error("script", true, "the answer cannot be written as JSON"),
                })
            }),
        };
    }
}

/// The answer to an event that is in its tenant's queue.
fn taken(whose: AnswerOf, want: WantedAnswer) -> Option<String> {
    (want == WantedAnswer::Ack).then(|| whose.ok("true"))
}
