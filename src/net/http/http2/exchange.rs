//! One request of an HTTP/2 connection between the thread of its handler, which blocks, and the
//! thread of the connection, which does not.

use std::any::Any;
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
    /// The peer waits for `100 Continue`, and is to get it.
    pub(super) is_invited: bool,
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
    /// The rest of the answer cannot be made.
    pub(super) is_broken: bool,
    /// Until when the peer has to have taken the answer; none before there is one.
    pub(super) deadline: Option<Instant>,
    /// How much longer it has with each piece.
    pub(super) time_of_a_piece: Option<Duration>,
    /// The peer has all, or nothing more can reach it.
    pub(super) is_over: bool,
    /// Kept until then.
    held: Option<Box<dyn Any + Send>>,
}

impl ExchangeState {
    /// The answer goes on.
    pub(super) fn renew(&mut self) {
        if let Some(time) = self.time_of_a_piece {
            self.deadline = Some(Instant::now() + time);
        }
    }
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
        state.pieces.clear();
        let held = state.held.take();
        drop(state);
        drop(held);
        self.notify();
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    /// The rest of an answer cannot be made.
    pub(super) fn break_off(&self) {
        self.tell(|state| state.is_broken = true);
    }

    /// Answers. `timeout` is for all of the answer to be made and taken, or, if it is unhurried,
    /// for each piece.
    ///
    /// # Blocks
    /// If the answer is made in pieces, until the last was made, or the peer is gone, or the time
    /// is over, which the connection's thread sees.
    pub(super) fn answer(&self, head: Parts, response: Response, is_head: bool, timeout: Duration) {
        let is_unhurried = response.is_unhurried();
        let Response { body, held, .. } = response;
        let (whole, pieces) = match body {
            _ if is_head => (Vec::new(), None),
            ResponseBody::Bytes(bytes) => (bytes, None),
            ResponseBody::Chunked(pieces) => (Vec::new(), Some(pieces)),
        };
        let unwanted = self.tell(|state| {
            if state.is_over {
                return held;
            }
            (state.head, state.is_answered, state.held) = (Some(head), true, held);
            state.deadline = Some(Instant::now() + timeout);
            state.time_of_a_piece = is_unhurried.then_some(timeout);
            state.is_whole = pieces.is_none();
            if !whole.is_empty() {
                state.pieces.push_back(whole.into());
            }
            None
        });
        drop(unwanted);
        if let Some(pieces) = pieces {
            self.send_pieces(pieces);
        }
    }

    fn send_pieces(&self, pieces: Box<dyn Iterator<Item = Vec<u8>> + Send>) {
        let has_room = |state: &mut ExchangeState| {
            let waiting: usize = state.pieces.iter().map(Bytes::len).sum();
            state.is_over || waiting < HTTP2_SEND_BYTES
        };
        for piece in pieces {
            if piece.is_empty() {
                if self.is_over() {
                    return;
                }
                continue;
            }
            drop(self.changed.wait_until(self.state.lock(), None, has_room));
            let is_over = self.tell(|state| {
                if !state.is_over {
                    state.pieces.push_back(piece.into());
                    state.renew();
                }
                state.is_over
            });
            if is_over {
                return;
            }
        }
        self.tell(|state| state.is_whole = true);
    }
}

/// The body of a request, for its handler.
pub(super) struct RequestBody<'x> {
    pub(super) exchange: &'x Exchange,
    /// As the head tells it; a body without a length is measured as it comes.
    pub(super) length: Option<u64>,
    pub(super) awaits_invitation: bool,
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
        if std::mem::take(&mut self.awaits_invitation) {
            self.exchange.tell(|state| state.is_invited = true);
        }
        loop {
            let has_more = |state: &mut ExchangeState| {
                !state.received.is_empty() || state.body_end.is_some() || state.is_over
            };
            let mut state =
                self.exchange.changed.wait_until(self.exchange.state.lock(), deadline, has_more);
            let part = std::mem::take(&mut state.received);
            let (end, is_over) = (state.body_end, state.is_over);
            drop(state);
            if part.is_empty() {
                return match end {
                    Some(end) => end.map(|()| body),
                    None if is_over => Err(BodyError::Disconnected),
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
            // Where nothing more is to come, no room is needed.
            if end.is_none() {
                self.exchange.tell(|state| state.taken += part.len());
            }
        }
    }
}
