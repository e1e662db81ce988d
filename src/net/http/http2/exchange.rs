//! One request of an HTTP/2 connection between the thread of its handler, which blocks, and the
//! thread of the connection, which does not.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;

use crate::base::limits::HTTP2_SEND_BYTES;
use crate::base::sync::{Lock, Signal};
use crate::net::http::body::{BodyError, BodySource};
use crate::net::http::response::{Response, ResponseBody};

/// What both threads know of a request. The handler's thread waits for `changed`, that of the
/// connection is woken by the waker.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) state: Lock<ExchangeState>,
    changed: Signal,
}

#[derive(Default)]
pub(super) struct ExchangeState {
    pub(super) waker: Option<Waker>,
    /// What has arrived of the body and was not taken. Limit: the window of a stream.
    pub(super) received: Vec<u8>,
    /// Bytes that were taken since the peer was told.
    pub(super) taken: usize,
    /// The body has ended so.
    pub(super) body_end: Option<Result<(), BodyError>>,
    /// The answer's head, from when it is there until it is sent.
    pub(super) head: Option<Parts>,
    pub(super) is_answered: bool,
    /// Of the answer's body. Limit: one piece more than [`HTTP2_SEND_BYTES`].
    pub(super) pieces: VecDeque<Bytes>,
    /// No piece is to come.
    pub(super) is_whole: bool,
    /// The peer has all, or nothing more can reach it.
    pub(super) is_over: bool,
    /// It took too long to reach the peer.
    pub(super) is_given_up: bool,
}

impl Exchange {
    /// Changes what the connection's thread looks at, and wakes it.
    fn tell<T>(&self, change: impl FnOnce(&mut ExchangeState) -> T) -> T {
        let mut state = self.state.lock();
        let value = change(&mut state);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        value
    }

    /// Wakes the handler's thread, after a change of what it waits for.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Nothing reaches the peer, or comes from it, any more.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.body_end.get_or_insert(Err(BodyError::Disconnected));
        drop(state);
        self.notify();
    }

    /// Answers without waiting for the peer; for what is refused on the connection's own thread.
    pub(super) fn refuse(&self, head: Parts, body: Vec<u8>) {
        self.tell(|state| {
            (state.head, state.is_answered, state.is_whole) = (Some(head), true, true);
            state.pieces.push_back(body.into());
        });
    }

    /// Answers, and keeps what the answer holds until it was sent. `timeout` is for all of it, or,
    /// if it is unhurried, for each piece.
    ///
    /// # Blocks
    /// Until the peer has taken the answer, or is gone, or the time is over.
    pub(super) fn answer(&self, head: Parts, response: Response, is_head: bool, timeout: Duration) {
        let is_unhurried = response.is_unhurried();
        let whole = Instant::now() + timeout;
        let deadline = || if is_unhurried { Instant::now() + timeout } else { whole };
        let Response { body, held: _held, .. } = response;
        self.tell(|state| (state.head, state.is_answered) = (Some(head), true));
        let pieces: Box<dyn Iterator<Item = Vec<u8>>> = match body {
            _ if is_head => Box::new(std::iter::empty()),
            ResponseBody::Bytes(bytes) => Box::new(std::iter::once(bytes)),
            ResponseBody::Chunked(pieces) => pieces,
        };
        let has_room = |state: &mut ExchangeState| {
            let waiting: usize = state.pieces.iter().map(Bytes::len).sum();
            state.is_over || waiting < HTTP2_SEND_BYTES
        };
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let state = self.changed.wait_until(self.state.lock(), deadline(), has_room);
            if state.is_over {
                return;
            }
            drop(state);
            self.tell(|state| state.pieces.push_back(piece.into()));
        }
        self.tell(|state| state.is_whole = true);
        let is_over = |state: &mut ExchangeState| state.is_over;
        if !self.changed.wait_until(self.state.lock(), deadline(), is_over).is_over {
            self.tell(|state| state.is_given_up = true);
        }
    }
}

/// The body of a request, for its handler.
pub(super) struct RequestBody<'x> {
    pub(super) exchange: &'x Exchange,
    /// As the head tells it; a body without a length is measured as it comes.
    pub(super) length: Option<u64>,
    pub(super) timeout: Duration,
}

impl BodySource for RequestBody<'_> {
    fn announced(&self) -> Option<u64> {
        Some(self.length.unwrap_or(0))
    }

    fn read(
        &mut self,
        max_bytes: usize,
        room: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Vec<u8>, BodyError> {
        let deadline = Instant::now() + self.timeout;
        let mut body = Vec::new();
        loop {
            let has_more =
                |state: &mut ExchangeState| !state.received.is_empty() || state.body_end.is_some();
            let mut state =
                self.exchange.changed.wait_until(self.exchange.state.lock(), deadline, has_more);
            let part = std::mem::take(&mut state.received);
            let end = state.body_end;
            drop(state);
            if part.is_empty() {
                return match end {
                    Some(end) => end.map(|()| body),
                    None => Err(BodyError::Timeout),
                };
            }
            if body.len() + part.len() > max_bytes {
                return Err(BodyError::TooLarge);
            }
            // Room for what was announced is the caller's to have.
            if self.length.is_none() && !room(part.len() as u64) {
                return Err(BodyError::NoRoom);
            }
            body.extend_from_slice(&part);
            self.exchange.tell(|state| state.taken += part.len());
        }
    }
}
