//! What a worker's tenants send by themselves, over the link that there is to the master.
//!
//! Called from a worker's I/O threads, which wait for the answer here, and from executors for what
//! has none; the link's reader thread brings the answers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use super::script_lines::ScriptLines;
use crate::base::answer::AnswerSender;
use crate::base::labels::Label as _;
use crate::base::limits::{HOST_ANSWER_WAIT_MAX, MESSAGE_ANSWER_MAX, PENDING_MAX};
use crate::base::sync::Lock;
use crate::dispatch::HostAnswer;
use crate::dispatch::worker_like::next_request_id;
use crate::net::link::{CloseCause, LinkSender, Pending, Registered, SendError, close_code};
use crate::wire::data::{
    EncodedJson, EncodedValue, HostCall, HostError, HostOutcome, HostResult, MessageOutcome,
    TenantId, TenantMessage,
};
use crate::wire::message::ClientMessage;

/// A worker's way to its master for what its tenants send. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<OutboxShared>);

#[derive(Debug, Default)]
struct OutboxShared {
    state: Lock<OutboxState>,
    script_lines: ScriptLines,
}

#[derive(Debug, Default)]
struct OutboxState {
    way: Option<Arc<OutboxLink>>,
    is_closed: bool,
}

#[derive(Debug)]
struct OutboxLink {
    link: LinkSender,
    waiting: Pending<AnswerSender<MessageOutcome>>,
    calls: Pending<OpenHostCall>,
    calls_looked: Lock<Instant>,
}

/// How often overdue calls are looked for.
const CALLS_LOOKED_EVERY: Duration = Duration::from_secs(1);

impl OutboxLink {
    /// Ends calls that a master has not answered: an older one does not know them.
    fn give_up_overdue(&self, now: Instant) {
        {
            let mut looked = self.calls_looked.lock();
            if now.saturating_duration_since(*looked) < CALLS_LOOKED_EVERY {
                return;
            }
            *looked = now;
        }
        drop(self.calls.take_where(|call| call.1 <= now));
    }
}

/// A call to a host process that waits for its answer, and until when.
struct OpenHostCall(Option<HostAnswer>, Instant);

impl OpenHostCall {
    fn end(mut self, result: HostResult) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl Drop for OpenHostCall {
    /// The link has ended, or no answer came: the call may have been carried out.
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(HostError::new(HostOutcome::Unknown)));
        }
    }
}

impl fmt::Debug for OpenHostCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenHostCall")
    }
}

impl Outbox {
    /// Sends a tenant's message; without a link it is `Busy`.
    ///
    /// # Blocks
    /// Until the master's answer, for 8 s at most; the end of the link wakes it.
    pub fn send(&self, message: TenantMessage) -> MessageOutcome {
        let Some(way) = self.0.state.lock().way.clone() else { return MessageOutcome::Busy };
        let (from, id) = (message.from, next_request_id().0);
        let (answer_tx, answer) = AnswerSender::new();
        let Registered::Waiting(_) = way.waiting.register(id, answer_tx) else {
            return MessageOutcome::Busy;
        };
        let sent = way.link.send_alone(from, ClientMessage::send_message(message, id).encode());
        let outcome = match sent {
            Ok(()) => answer
                .take_by(Instant::now() + MESSAGE_ANSWER_MAX)
                .unwrap_or(MessageOutcome::Unknown),
            Err(SendError::TooLarge { .. }) => MessageOutcome::TooLarge,
            Err(SendError::Closed | SendError::Full) => MessageOutcome::Busy,
        };
        way.waiting.take(id);
        outcome
    }

    /// Hands in a tenant's call to a host process; its master answers by the call's deadline. Never
    /// blocks.
    pub fn call_host(&self, call: HostCall, answer: HostAnswer) {
        let refused = |outcome| Err(HostError::new(outcome));
        let Some(way) = self.0.state.lock().way.clone() else {
            return answer(refused(HostOutcome::Busy));
        };
        let (from, id) = (call.from, next_request_id().0);
        let until = Instant::now() + HOST_ANSWER_WAIT_MAX;
        match way.calls.register(id, OpenHostCall(Some(answer), until)) {
            Registered::Waiting(_) => {}
            Registered::Closed(call, _)
            | Registered::Sealed(call)
            | Registered::Full(call)
            | Registered::Duplicate(call) => return call.end(refused(HostOutcome::Busy)),
        }
        let outcome = match way.link.send_for(from, ClientMessage::host_call(call, id).encode()) {
            Ok(()) => return,
            Err(SendError::TooLarge { .. }) => HostOutcome::TooLarge,
            Err(SendError::Closed | SendError::Full) => HostOutcome::Busy,
        };
        if let Some(call) = way.calls.take(id) {
            call.end(refused(outcome));
        }
    }

    /// An answer to such a call.
    pub(super) fn host_answered(&self, request_id: u64, result: Result<EncodedValue, String>) {
        let Some(way) = self.0.state.lock().way.clone() else { return };
        if let Some(call) = way.calls.take(request_id) {
            call.end(result.map_err(|text| HostError::of_text(&text)));
        }
    }

    /// Sends what a tenant publishes, within its share of the link's room. Never blocks.
    ///
    /// # Errors
    /// There is no link, or no room.
    pub fn publish(
        &self,
        from: TenantId,
        topic: String,
        data: EncodedJson,
    ) -> Result<(), SendError> {
        let way = self.0.state.lock().way.clone().ok_or(SendError::Closed)?;
        way.link.send_for(from, ClientMessage::PublishFeed { from, topic, data }.encode())
    }

    /// Tells the master of a line of the tenant's scripts, or that one is missing; at the latest
    /// when there is a link again. Never blocks.
    pub fn log(&self, tenant: TenantId, line: Option<(Level, String)>) {
        let is_news = self.0.script_lines.add(tenant, line);
        // Without a link the next one begins with it.
        if is_news && let Some(way) = self.0.state.lock().way.clone() {
            way.link.beat_now();
        }
    }

    /// Tells the master of the lines that wait, before what is sent next.
    pub(super) fn tell_lines(&self, link: &LinkSender) {
        self.0.script_lines.tell(link);
    }

    /// The same as the link is closed, with how many are missing.
    pub(super) fn tell_all_lines(&self, link: &LinkSender) {
        self.0.script_lines.tell_all(link);
    }

    /// How many lines found no room here.
    pub(super) fn lines_lost(&self) -> u64 {
        self.0.script_lines.lost()
    }

    /// The same as [`Outbox::tell_lines`] for the link's writer: when to do so again.
    pub(super) fn beat(&self, now: Instant) -> Option<Instant> {
        let way = self.0.state.lock().way.clone()?;
        way.give_up_overdue(now);
        self.0.script_lines.beat(&way.link, now)
    }

    /// Ends every wait, and lets none begin.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        end(state.way.take(), &CloseCause::ClosedByUs(close_code::GOING_AWAY));
    }

    /// What is sent goes over this link from now on.
    pub(super) fn connect(&self, link: &LinkSender) {
        let mut state = self.0.state.lock();
        if !state.is_closed {
            state.way.get_or_insert_with(|| {
                let (waiting, calls) = (Pending::new(PENDING_MAX), Pending::new(PENDING_MAX));
                let calls_looked = Lock::new(Instant::now());
                Arc::new(OutboxLink { link: link.clone(), waiting, calls, calls_looked })
            });
        }
    }

    /// The link has ended: what was sent over it may have been accepted.
    pub(super) fn disconnect(&self, cause: &CloseCause) {
        end(self.0.state.lock().way.take(), cause);
    }

    /// An answer of the master. An outcome that this version does not know is unknown.
    pub(super) fn answered(&self, request_id: u64, result: Result<EncodedValue, String>) {
        let Some(way) = self.0.state.lock().way.clone() else { return };
        let outcome = match result {
            Ok(_) => MessageOutcome::Accepted,
            Err(kind) => {
                MessageOutcome::of_name(kind.as_bytes()).unwrap_or(MessageOutcome::Unknown)
            }
        };
        if let Some(answer_tx) = way.waiting.take(request_id) {
            answer_tx.send(outcome);
        }
    }
}

fn end(way: Option<Arc<OutboxLink>>, cause: &CloseCause) {
    if let Some(way) = way {
        // Without their senders, those that wait learn it.
        drop(way.waiting.close(cause.clone()));
        drop(way.calls.close(cause.clone()));
    }
}
