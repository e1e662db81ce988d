//! `GET /i/stream`: events and their answers over one WebSocket, a JSON text for each, with
//! credits instead of a connection for each event that is under way.
//!
//! Streams run on two threads of their link each, which [`Streams`] owns, and have places of their
//! own beside those of requests.

mod events;
mod open_events;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use self::events::StreamEvents;
use super::error::{ApiError, Code};
use super::event_door::EventDoor;
use super::event_line::{LineTerms, STOPS};
use super::{Api, Call};
use crate::base::limits::{
    MESSAGE_MAX_BYTES, STREAM_CREDITS, STREAM_PING_EVERY, STREAM_QUEUE_BYTES, STREAM_SILENCE_MAX,
    STREAMS_MAX,
};
use crate::base::shared_bytes::Received;
use crate::base::sync::{CountedPermit, Lock};
use crate::net::http::{Body, Response};
use crate::net::link::{
    self, CloseCause, Link, LinkHandler, LinkLimits, LinkSender, Pulse, Service, close_code,
};

/// The streams of a master.
#[derive(Default)]
pub(super) struct Streams {
    taken: Arc<AtomicUsize>,
    opened: AtomicU64,
    state: Lock<StreamsState>,
}

#[derive(Default)]
struct StreamsState {
    open: Vec<(Link, Arc<dyn ServedLink>)>,
    is_stopping: bool,
}

/// What a link of [`Streams`] serves, as far as its end goes.
pub(super) trait ServedLink: Send + Sync {
    /// Tells the peer that it ends once all is answered.
    fn say_goodbye(&self, reason: &str);

    /// Answers what can be answered, and closes the link.
    fn end(&self);
}

/// What a stream needs of its master.
struct StreamParts {
    door: EventDoor,
    terms: LineTerms,
    place: CountedPermit,
}

pub(super) fn stream(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    drop(api.admit_without_body(body)?);
    let upgrade = link::accept(call.head.upgrade_headers()).map_err(|error| {
        ApiError::upgrade_required(format!("this route is a WebSocket: {error}"))
    })?;
    let place = CountedPermit::take(&api.streams.taken, STREAMS_MAX).ok_or_else(|| {
        ApiError::new(Code::Busy, format!("{STREAMS_MAX} streams are there already"))
    })?;
    let terms = LineTerms { caller: call.caller, default_deadline: api.config.default_deadline };
    let parts = StreamParts { door: EventDoor::of(api, call.caller), terms, place };
    let streams = api.streams.clone();
    Ok(Response::upgrade(move |socket, already_read| {
        let number = streams.next_number();
        let limits = LinkLimits {
            queue_messages: 2 * STREAM_CREDITS,
            queue_bytes: STREAM_QUEUE_BYTES,
            ..LinkLimits::default()
        };
        let name = format!("stream-{number}");
        streams.start(|served| {
            upgrade.start(&name, socket, already_read, &limits, |link| {
                let (service, events) = serve(link, parts);
                *served = Some(events as Arc<dyn ServedLink>);
                service
            })
        });
    }))
}

/// Whether a caller that went away is why a stream could not be started.
fn is_of_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Makes what serves a new link, and says hello.
fn serve(link: &LinkSender, parts: StreamParts) -> (Service, Arc<StreamEvents>) {
    let StreamParts { door, terms, place } = parts;
    let hello =
        format!("{{\"hello\":{{\"credits\":{STREAM_CREDITS},\"max_bytes\":{MESSAGE_MAX_BYTES}}}}}");
    // The queue of a new link is empty.
    let _ = link.send_text(hello);
    let events =
        Arc::new(StreamEvents { link: link.downgrade(), door, terms, state: Lock::default() });
    let handler = StreamHandler { events: events.clone() };
    let pulse = StreamPulse { events: events.clone(), ping_at: Instant::now(), _place: place };
    ((Box::new(handler), Box::new(pulse)), events)
}

impl Streams {
    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The number of one more.
    pub(super) fn next_number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps what `start` starts, and says what it serves.
    pub(super) fn start(
        &self,
        start: impl FnOnce(&mut Option<Arc<dyn ServedLink>>) -> io::Result<Link>,
    ) {
        let mut served = None;
        match (start(&mut served), served) {
            (Ok(link), Some(served)) => self.keep(link, served),
            // Never: what starts a link says what it serves.
            (Ok(_), None) => {}
            (Err(error), _) if is_of_caller(&error) => {
                log::debug!("the caller of a WebSocket has gone: {error}");
            }
            (Err(error), _) => log::warn!("a WebSocket could not be started: {error}"),
        }
    }

    /// Keeps a stream to be joined, and joins those that have ended.
    fn keep(&self, link: Link, events: Arc<dyn ServedLink>) {
        let (ended, is_stopping) = {
            let mut state = self.state.lock();
            let ended: Vec<_> = state.open.extract_if(.., |(link, _)| link.is_finished()).collect();
            state.open.push((link, events.clone()));
            (ended, state.is_stopping)
        };
        drop(ended);
        if is_stopping {
            events.say_goodbye(STOPS);
        }
    }

    /// Says goodbye on every stream, also on those that open later: what is in flight is answered.
    pub(super) fn say_goodbye(&self) {
        let open: Vec<_> = {
            let mut state = self.state.lock();
            state.is_stopping = true;
            state.open.iter().map(|(_, events)| events.clone()).collect()
        };
        open.iter().for_each(|events| events.say_goodbye(STOPS));
    }

    /// Waits for the streams to end, as far as they do by `deadline`.
    ///
    /// # Blocks
    /// Until `deadline` at most.
    pub(super) fn wait_until_answered(&self, deadline: Instant) {
        let open = std::mem::take(&mut self.state.lock().open);
        for (link, _) in &open {
            link.wait_until(deadline);
        }
        self.state.lock().open.extend(open);
    }

    /// Answers what is unanswered, ends the streams and joins their threads.
    ///
    /// # Blocks
    /// Until `deadline`; a caller that does not read by then is cut off.
    pub(super) fn end(&self, deadline: Instant) {
        let open = std::mem::take(&mut self.state.lock().open);
        open.iter().for_each(|(_, events)| events.end());
        open.into_iter().for_each(|(link, _)| link.join_until(deadline));
    }
}

struct StreamHandler {
    events: Arc<StreamEvents>,
}

impl LinkHandler for StreamHandler {
    /// A binary message is none of a stream's.
    fn on_message(&mut self, _: &LinkSender, _: Received<'_>) -> Result<(), u16> {
        Err(close_code::UNSUPPORTED)
    }

    fn on_text(&mut self, _: &LinkSender, text: &str) -> Result<(), u16> {
        self.events.take_line(text);
        Ok(())
    }

    fn on_closed(&mut self, cause: &CloseCause) {
        log::debug!("{:?}: {cause}", self.events.link.upgrade());
        self.events.abandon();
    }
}

/// A stream's clock: what is held or overdue, and whether the caller is there.
struct StreamPulse {
    events: Arc<StreamEvents>,
    ping_at: Instant,
    /// Until the writer has ended, which may try for long to write to a caller that does not read.
    _place: CountedPermit,
}

impl Pulse for StreamPulse {
    fn beat(&mut self, link: &LinkSender, now: Instant) -> Instant {
        if now >= self.ping_at {
            if now.saturating_duration_since(link.received_at()) > STREAM_SILENCE_MAX {
                link.abort(CloseCause::Silent);
            }
            link.ping();
            self.ping_at = now + STREAM_PING_EVERY;
        }
        self.events.look(now, self.ping_at)
    }
}
