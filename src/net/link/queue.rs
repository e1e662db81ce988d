//! What waits to leave on a link: bounded in messages and bytes, never blocking those that add,
//! woken once a batch.
//!
//! A tenant's messages have room as [`Shares`] has it. A part of the room is for small messages
//! only, and another part for those that are no tenant's, such as the error that takes the place of
//! a result without room: it always fits.
//!
//! A worker's large answers leave one at a time, behind all small ones that have come meanwhile: an
//! answer belongs to its request and to no place in a row, and a small one is not to wait for other
//! tenants' megabytes. Everything else leaves in the order in which it came, as a master's requests
//! have to.
//!
//! A queue of our own rather than a channel, because the writer takes everything that waits at
//! once, and because the byte bound and the end of the link must be decided under the same lock as
//! the adding. What waits are frames already: small messages share a buffer, so that a batch of
//! them is one write and no allocation each.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use tungstenite::protocol::Role;

use super::frames::{self, FrameKind, Key, Keys, OutPart};
use crate::base::primitives::MutexGuard;
use crate::base::shared_bytes::OutMessage;
use crate::base::spare;
use crate::base::sync::{Lock, Signal};
use crate::wire::data::{Shares, TenantId};

/// A payload up to here is small: it is copied into a buffer that it shares with others. A larger
/// one is not copied.
const JOINED_BYTES: usize = 16 * 1024;

/// A buffer with so much in it takes no more: what one write carries, about.
const BUFFER_BYTES: usize = 128 * 1024;

/// Of large answers so many bytes leave together, and one at least.
const LARGE_TOGETHER_BYTES: usize = 1024 * 1024;

/// Limit: bytes of replies (pongs) that wait; more are dropped, as a peer that does not read them
/// has no use for them.
const REPLIES_BYTES: usize = 64 * 1024;

/// Why a message was not taken; nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The link has ended.
    Closed,
    /// Too much waits already: the peer reads too slowly.
    Full,
    /// It is larger than a message may be.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed => f.write_str("the link has ended"),
            SendError::Full => f.write_str("too much waits to be sent already"),
            SendError::TooLarge { bytes, limit } => {
                write!(f, "{bytes} bytes are more than the {limit} that a message may have")
            }
        }
    }
}

impl std::error::Error for SendError {}

/// What the writer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenFrames {
    /// Write everything that waited; it is in the [`Batch`].
    Batch,
    /// Nothing came until the time given, or the pulse is wanted at once.
    Nothing,
    /// What is in the batch is the last that is to leave, with a close of this code after it.
    Closing(u16),
    /// The peer has ended the link: what is in the batch are replies of the protocol, and is the
    /// last that leaves.
    Finishing,
    /// Write nothing more.
    Aborted,
}

/// Everything that waited, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whole frames; of a large one the parts.
    pub(super) frames: VecDeque<OutPart>,
    /// How many of them are messages.
    pub(super) messages: usize,
    /// Whose messages were to be told of when they have left.
    pub(super) told: Vec<TenantId>,
    /// An empty buffer that the writer has no use for, for the frames to come.
    pub(super) spare: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct OutQueue {
    state: Lock<QueueState>,
    changed: Signal,
    max_messages: usize,
    max_bytes: usize,
    /// Tenants' messages are answers, of which small ones leave before large ones.
    is_worker: bool,
}

#[derive(Debug, Default)]
struct QueueState {
    batch: Batch,
    /// Answers that leave behind those of the batch.
    large: VecDeque<Large>,
    /// The last buffer of the batch takes more frames.
    is_joinable: bool,
    /// Frames that the reader's side of the protocol made: a pong, or the reply to a close.
    replies: Vec<u8>,
    /// Messages and pings that wait, and the bytes of their payloads, by whose they are.
    waiting: usize,
    bytes: Shares,
    spare: Vec<u8>,
    keys: Keys,
    end: QueueEnd,
    reader_done: bool,
    writer_waits: bool,
    beat_now: bool,
    turn: WriteTurn,
    /// The writer waits for the end of a caller's turn.
    writer_wants_turn: bool,
    /// A caller has left something unwritten in the `SocketWriter`.
    is_unflushed: bool,
}

/// A large answer: its frame in parts, the bytes of its payload, and whose it is.
#[derive(Debug)]
struct Large {
    beginning: Vec<u8>,
    rest: Vec<OutPart>,
    bytes: usize,
    tenant: TenantId,
}

/// Whose turn it is to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum WriteTurn {
    #[default]
    Nobody,
    Writer,
    Caller,
}

/// A caller's turn to write: nothing leaves but what it writes, until this is dropped.
#[derive(Debug)]
pub(super) struct CallersTurn<'q> {
    queue: &'q OutQueue,
    /// What the frame that it writes is to be masked with.
    pub(super) key: Option<Key>,
    leaves_some: bool,
}

impl CallersTurn<'_> {
    /// Not all of it has left: the writer does the rest, before anything else.
    pub(super) fn leave_rest_to_writer(mut self) {
        self.leaves_some = true;
    }
}

impl Drop for CallersTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.turn = WriteTurn::Nobody;
        state.is_unflushed |= self.leaves_some;
        if state.writer_wants_turn || (state.writer_waits && state.has_work()) {
            state.writer_waits = false;
            drop(state);
            self.queue.changed.notify_one();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum QueueEnd {
    #[default]
    Open,
    Closing(u16),
    Finishing,
    Aborted,
}

impl OutQueue {
    pub(super) fn new(role: Role, max_messages: usize, max_bytes: usize) -> Self {
        let state = QueueState { keys: Keys::new(role), ..QueueState::default() };
        let is_worker = role == Role::Client;
        Self { state: Lock::new(state), changed: Signal::new(), max_messages, max_bytes, is_worker }
    }

    /// Queues a message, of this tenant or of none, or a ping.
    pub(super) fn push(
        &self,
        kind: FrameKind,
        owner: Option<TenantId>,
        message: impl Into<OutMessage>,
    ) -> Result<(), SendError> {
        self.push_told(kind, owner, None, message.into())
    }

    /// As [`OutQueue::push`]; the link's pulse is told, of this tenant, when the message has left.
    pub(super) fn push_told(
        &self,
        kind: FrameKind,
        owner: Option<TenantId>,
        told: Option<TenantId>,
        message: OutMessage,
    ) -> Result<(), SendError> {
        let bytes = message.len();
        let mut state = self.state.lock();
        self.has_room(&state, owner, bytes)?;
        let key = state.keys.next();
        if bytes <= JOINED_BYTES {
            let payload = message.into_vec();
            frames::append(state.joinable(), kind, key, &payload);
            spare::give_back(payload);
        } else if let Some(tenant) = owner.filter(|_| self.is_worker) {
            let mut beginning = Vec::new();
            let rest = frames::append_large(&mut beginning, kind, key, message);
            state.large.push_back(Large { beginning, rest, bytes, tenant });
        } else {
            let rest = frames::append_large(state.joinable(), kind, key, message);
            state.batch.frames.extend(rest);
            state.is_joinable = false;
        }
        state.waiting += 1;
        state.bytes.add(owner, bytes);
        state.batch.messages += usize::from(kind != FrameKind::Ping);
        state.batch.told.extend(told);
        self.wake_writer(state);
        Ok(())
    }

    /// Queues frames of the protocol's own; not those that find no room.
    pub(super) fn push_replies(&self, replies: &[u8]) {
        let mut state = self.state.lock();
        if state.end == QueueEnd::Open && state.replies.len() + replies.len() <= REPLIES_BYTES {
            state.replies.extend_from_slice(replies);
            self.wake_writer(state);
        }
    }

    fn has_room(
        &self,
        state: &QueueState,
        owner: Option<TenantId>,
        bytes: usize,
    ) -> Result<(), SendError> {
        if state.end != QueueEnd::Open {
            return Err(SendError::Closed);
        }
        let reserve = self.max_bytes / 4;
        let has_room = match owner {
            Some(_) if state.waiting >= self.max_messages => false,
            Some(tenant) if bytes > JOINED_BYTES => {
                state.bytes.has_room(tenant, bytes, self.max_bytes)
            }
            Some(tenant) => state.bytes.has_room(tenant, bytes, self.max_bytes + reserve),
            None => state.bytes.total().bytes + bytes <= self.max_bytes + 2 * reserve,
        };
        // A message of the largest size must fit an empty queue, with any bounds.
        if has_room || state.waiting == 0 { Ok(()) } else { Err(SendError::Full) }
    }

    /// Woken once a batch: a writer that is busy looks again by itself.
    fn wake_writer(&self, mut state: MutexGuard<'_, QueueState>) {
        if std::mem::take(&mut state.writer_waits) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Lets the caller write by itself, if nothing is before it; it must not block.
    ///
    /// # Errors
    /// The link has ended.
    pub(super) fn callers_turn(&self) -> Result<Option<CallersTurn<'_>>, SendError> {
        let mut state = self.state.lock();
        if state.end != QueueEnd::Open {
            return Err(SendError::Closed);
        }
        // Nor before the writer, if its pulse is due: callers in turn could keep it from that for
        // long.
        if state.turn != WriteTurn::Nobody || state.writer_wants_turn || state.has_work() {
            return Ok(None);
        }
        state.turn = WriteTurn::Caller;
        Ok(Some(CallersTurn { queue: self, key: state.keys.next(), leaves_some: false }))
    }

    /// A key for a frame that does not pass through the queue.
    pub(super) fn next_key(&self) -> Option<Key> {
        self.state.lock().keys.next()
    }

    /// Ends the queue with a close frame, unless it has ended.
    pub(super) fn close(&self, code: u16) {
        self.end(QueueEnd::Closing(code));
    }

    /// Ends the queue at once, in every state.
    pub(super) fn abort(&self) {
        self.end(QueueEnd::Aborted);
    }

    /// Lets the writer run its pulse at once.
    pub(super) fn beat_now(&self) {
        self.state.lock().beat_now = true;
        self.changed.notify_one();
    }

    /// The reader will read no more: ends the queue, unless it has ended, and frees a writer that
    /// waits for this.
    pub(super) fn reader_done(&self) {
        self.state.lock().reader_done = true;
        self.end(QueueEnd::Finishing);
    }

    fn end(&self, end: QueueEnd) {
        let mut state = self.state.lock();
        if state.end == QueueEnd::Open || end == QueueEnd::Aborted {
            state.end = end;
        }
        // Handles on the link may be kept for long after it, and this can be megabytes.
        let never_leaves = match state.end {
            QueueEnd::Finishing | QueueEnd::Aborted => state.take_all(),
            QueueEnd::Open | QueueEnd::Closing(_) => Default::default(),
        };
        drop(state);
        self.changed.notify_one();
        drop(never_leaves);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().end != QueueEnd::Open
    }

    pub(super) fn len(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.waiting, state.bytes.total().bytes)
    }

    /// What the writer is to do; until it comes back, it is its turn to write. What it is to write
    /// is put into `batch`, which must be empty.
    ///
    /// # Blocks
    /// Until something waits, the link ends, or `until`; for the end of a caller's turn, which does
    /// not block.
    pub(super) fn take(&self, until: Instant, batch: &mut Batch) -> TakenFrames {
        let mut state = self.wait_for_turn(self.state.lock());
        if state.spare.capacity() == 0 {
            state.spare = std::mem::take(&mut batch.spare);
        }
        loop {
            match state.end {
                QueueEnd::Aborted => return TakenFrames::Aborted,
                QueueEnd::Closing(code) => {
                    state.drain(batch, usize::MAX);
                    return TakenFrames::Closing(code);
                }
                QueueEnd::Finishing => {
                    batch.frames.push_back(OutPart::Frames(std::mem::take(&mut state.replies)));
                    return TakenFrames::Finishing;
                }
                // Before what waits, or while there is always something the pulse would not run
                // before it is due.
                QueueEnd::Open if state.beat_now => {
                    state.beat_now = false;
                    return TakenFrames::Nothing;
                }
                QueueEnd::Open if state.has_something() => {
                    state.drain(batch, LARGE_TOGETHER_BYTES);
                    return TakenFrames::Batch;
                }
                QueueEnd::Open => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return TakenFrames::Nothing;
            }
            state.turn = WriteTurn::Nobody;
            state.writer_waits = true;
            state = self.changed.wait(state, until);
            state.writer_waits = false;
            state = self.wait_for_turn(state);
        }
    }

    /// Blocks: for the end of a caller's turn.
    fn wait_for_turn<'a>(
        &self,
        mut state: MutexGuard<'a, QueueState>,
    ) -> MutexGuard<'a, QueueState> {
        state.writer_wants_turn = true;
        state = self.changed.wait_until(state, None, |state| state.turn != WriteTurn::Caller);
        state.writer_wants_turn = false;
        state.turn = WriteTurn::Writer;
        state
    }

    /// # Blocks
    /// Until the reader has ended, the link is aborted, or `until`.
    pub(super) fn wait_for_reader(&self, until: Instant) {
        drop(self.changed.wait_until(self.state.lock(), until, |state| {
            state.reader_done || state.end == QueueEnd::Aborted
        }));
    }
}

impl QueueState {
    /// Something is to be written.
    fn has_something(&self) -> bool {
        !self.batch.frames.is_empty()
            || !self.large.is_empty()
            || !self.replies.is_empty()
            || self.is_unflushed
    }

    fn has_work(&self) -> bool {
        self.has_something() || self.beat_now || self.end != QueueEnd::Open
    }

    /// The buffer for the next frame.
    fn joinable(&mut self) -> &mut Vec<u8> {
        let frames = &mut self.batch.frames;
        let is_joinable =
            self.is_joinable && frames.back().is_some_and(|last| last.len() < BUFFER_BYTES);
        if !(is_joinable && matches!(frames.back(), Some(OutPart::Frames(_)))) {
            frames.push_back(OutPart::Frames(std::mem::take(&mut self.spare)));
            self.is_joinable = true;
        }
        match frames.back_mut() {
            Some(OutPart::Frames(last)) => last,
            // Never: it is the last one, now at the latest.
            _ => &mut self.spare,
        }
    }

    /// Takes out all that waits, but the protocol's own replies.
    fn take_all(&mut self) -> (Batch, VecDeque<Large>) {
        self.waiting = 0;
        self.bytes.clear();
        (std::mem::take(&mut self.batch), std::mem::take(&mut self.large))
    }

    /// Everything for the writer, which also flushes; of large answers no more than so many bytes,
    /// or one.
    fn drain(&mut self, batch: &mut Batch, large_bytes: usize) {
        (self.is_unflushed, self.is_joinable) = (false, false);
        std::mem::swap(&mut self.batch.frames, &mut batch.frames);
        std::mem::swap(&mut self.batch.told, &mut batch.told);
        let mut taken = 0;
        while let Some(large) = self.large.pop_front() {
            if taken > 0 && taken + large.bytes > large_bytes {
                self.large.push_front(large);
                break;
            }
            taken += large.bytes;
            batch.frames.push_back(OutPart::Frames(large.beginning));
            batch.frames.extend(large.rest);
        }
        batch.messages = std::mem::take(&mut self.batch.messages) - self.large.len();
        self.batch.messages = self.large.len();
        self.waiting = self.large.len();
        self.bytes.clear();
        self.large.iter().for_each(|large| self.bytes.add(Some(large.tenant), large.bytes));
        if !self.replies.is_empty() {
            // A peer may ask for a pong and then for more, and take it that the answers come in
            // that order.
            batch.frames.push_front(OutPart::Frames(std::mem::take(&mut self.replies)));
        }
    }
}

#[cfg(test)]
mod tests;
