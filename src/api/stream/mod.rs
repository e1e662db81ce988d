//! `GET /i/stream`: events and their answers over one WebSocket, a JSON text for each, with
//! credits instead of a connection for each event that is under way.

mod events;
mod open_events;

use std::sync::Arc;

use self::events::StreamEvents;
use super::error::ApiError;
use super::event_door::EventDoor;
use super::event_line::LineTerms;
use super::{Api, Call};
use crate::base::limits::{MESSAGE_MAX_BYTES, STREAM_CREDITS, STREAM_QUEUE_BYTES};
use crate::base::sync::Lock;
use crate::net::http::{Body, Response};
use crate::net::link::LinkLimits;

pub(super) fn stream(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let terms = LineTerms { caller: call.caller, default_deadline: api.config.default_deadline };
    let door = EventDoor::of(api, call.caller);
    let limits = LinkLimits {
        queue_messages: 2 * STREAM_CREDITS,
        queue_bytes: STREAM_QUEUE_BYTES,
        ..LinkLimits::default()
    };
    api.streams.open(api, call, body, limits, move |link| {
        let hello = format!(
            "{{\"hello\":{{\"credits\":{STREAM_CREDITS},\"max_bytes\":{MESSAGE_MAX_BYTES}}}}}"
        );
        // The queue of a new link is empty.
        let _ = link.send_text(hello);
        Arc::new(StreamEvents { link: link.downgrade(), door, terms, state: Lock::default() })
    })
}
