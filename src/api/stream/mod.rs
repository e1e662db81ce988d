//! `GET /i/stream`: events and their answers over one WebSocket, a JSON text for each, with
//! credits instead of a connection for each event that is under way.
//!
//! Streams run on two threads of their link each, which `served_links` owns, and have places of
//! their own beside those of requests.

mod events;
mod open_events;

use std::sync::Arc;
use std::time::Instant;

use self::events::StreamEvents;
use super::error::{ApiError, Code};
use super::event_door::EventDoor;
use super::event_line::LineTerms;
use super::served_links::ServedLink;
use super::{Api, Call};
use crate::base::limits::{
    MESSAGE_MAX_BYTES, STREAM_CREDITS, STREAM_PING_EVERY, STREAM_QUEUE_BYTES, STREAM_SILENCE_MAX,
    STREAMS_MAX,
};
use crate::base::shared_bytes::Received;
use crate::base::sync::{CountedPermit, Lock};
use crate::net::http::{Body, Response};
use crate::net::link::{
    self, CloseCause, LinkHandler, LinkLimits, LinkSender, Pulse, Service, close_code,
};

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
