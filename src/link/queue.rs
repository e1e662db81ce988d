//! What waits to leave on a link: bounded in messages and bytes, never blocking those who add, woken once a batch.
//!
//! A queue of our own rather than a channel, because the writer takes everything that waits at once, and because the
//! byte bound and the end of the link must be decided under the same lock as the adding. What waits are frames already: small
//! messages share a buffer, so that a batch of them is one write and no allocation each.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use tungstenite::protocol::Role;

use super::frames::{self, FrameKind, Key, Keys};

/// A payload up to here is copied into a buffer that it shares with others; a larger one is not copied.
const JOINED_BYTES: usize = 16 * 1024;

/// A buffer with so much in it takes no more: what one write carries, about.
const BUFFER_BYTES: usize = 128 * 1024;

/// Limit: bytes of replies (pongs) that wait; more are dropped, as a peer that does not read them has no use for them.
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
pub(super) enum Taken {
    /// Write everything that waited; it is in the [`Batch`].
    Batch,
    /// Nothing came until the time given, or the pulse is wanted at once.
    Nothing,
    /// What is in the batch is the last that is to leave, with a close of this code after it.
    Closing(u16),
    /// The peer has ended the link: what is in the batch are replies of the protocol, and is the last that leaves.
    Finishing,
    /// Write nothing more.
    Aborted,
}

/// Everything that waited, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whole frames; of a large one header and payload are apart.
    pub(super) frames: VecDeque<Vec<u8>>,
    /// How many of them are messages.
    pub(super) messages: usize,
    /// An empty buffer that the writer has no use for, for the frames to come.
    pub(super) spare: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct OutQueue {
    state: Mutex<State>,
    changed: Condvar,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct State {
    batch: Batch,
    /// The last buffer of the batch takes more frames.
    is_joinable: bool,
    /// Frames that the reader's side of the protocol made: a pong, or the reply to a close.
    replies: Vec<u8>,
    /// Messages and pings that wait, and the bytes of their payloads.
    waiting: usize,
    bytes: usize,
    spare: Vec<u8>,
    keys: Keys,
    end: End,
    reader_done: bool,
    writer_waits: bool,
    beat_now: bool,
    turn: Turn,
    /// The writer waits for the end of a caller's turn.
    writer_wants_turn: bool,
    /// A caller has left something unwritten in the outlet.
    is_unflushed: bool,
}

/// Who writes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
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
        let mut state = self.queue.lock();
        state.turn = Turn::Nobody;
        state.is_unflushed |= self.leaves_some;
        if state.writer_wants_turn || (state.writer_waits && state.has_work()) {
            state.writer_waits = false;
            drop(state);
            self.queue.changed.notify_one();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Closing(u16),
    Finishing,
    Aborted,
}

impl OutQueue {
    pub(super) fn new(role: Role, max_messages: usize, max_bytes: usize) -> Self {
        let state = State {
            batch: Batch::default(),
            is_joinable: false,
            replies: Vec::new(),
            waiting: 0,
            bytes: 0,
            spare: Vec::new(),
            keys: Keys::new(role),
            end: End::Open,
            reader_done: false,
            writer_waits: false,
            beat_now: false,
            turn: Turn::Nobody,
            writer_wants_turn: false,
            is_unflushed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), max_messages, max_bytes }
    }

    /// Queues a message or a ping.
    pub(super) fn push(&self, kind: FrameKind, mut payload: Vec<u8>) -> Result<(), SendError> {
        let bytes = payload.len();
        let mut state = self.lock();
        self.has_room(&state, bytes)?;
        let key = state.keys.next();
        if bytes > JOINED_BYTES {
            if let Some(key) = key {
                // Not under the lock: of a message of the largest size it is milliseconds of work.
                drop(state);
                frames::mask(&mut payload, key);
                state = self.lock();
                self.has_room(&state, bytes)?;
            }
            frames::append_header(state.joinable(), kind, key, bytes);
            state.batch.frames.push_back(payload);
            state.is_joinable = false;
        } else {
            frames::append(state.joinable(), kind, key, &payload);
        }
        state.waiting += 1;
        state.bytes += bytes;
        state.batch.messages += usize::from(kind != FrameKind::Ping);
        self.wake_writer(state);
        Ok(())
    }

    /// Queues frames of the protocol's own; not those that find no room.
    pub(super) fn push_replies(&self, replies: &[u8]) {
        let mut state = self.lock();
        if state.end == End::Open && state.replies.len() + replies.len() <= REPLIES_BYTES {
            state.replies.extend_from_slice(replies);
            self.wake_writer(state);
        }
    }

    fn has_room(&self, state: &State, bytes: usize) -> Result<(), SendError> {
        if state.end != End::Open {
            return Err(SendError::Closed);
        }
        // A message of the largest size must fit an empty queue, whatever the bounds.
        let full = state.waiting >= self.max_messages || state.bytes + bytes > self.max_bytes;
        if full && !state.batch.frames.is_empty() { Err(SendError::Full) } else { Ok(()) }
    }

    /// Woken once a batch: a writer that is busy looks again by itself.
    fn wake_writer(&self, mut state: MutexGuard<'_, State>) {
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
        let mut state = self.lock();
        if state.end != End::Open {
            return Err(SendError::Closed);
        }
        // Nor before the writer, if its pulse is due: callers in turn could keep it from that for long.
        if state.turn != Turn::Nobody || state.writer_wants_turn || state.has_work() {
            return Ok(None);
        }
        state.turn = Turn::Caller;
        Ok(Some(CallersTurn { queue: self, key: state.keys.next(), leaves_some: false }))
    }

    /// A key for a frame that does not pass through the queue.
    pub(super) fn next_key(&self) -> Option<Key> {
        self.lock().keys.next()
    }

    /// Ends the queue with a close frame, unless it has ended.
    pub(super) fn close(&self, code: u16) {
        self.end(End::Closing(code));
    }

    /// Ends the queue at once, whatever it was doing.
    pub(super) fn abort(&self) {
        self.end(End::Aborted);
    }

    /// Lets the writer run its pulse at once.
    pub(super) fn beat_now(&self) {
        self.lock().beat_now = true;
        self.changed.notify_one();
    }

    /// The reader will read no more: ends the queue, unless it has ended, and frees a writer that waits for this.
    pub(super) fn reader_done(&self) {
        self.lock().reader_done = true;
        self.end(End::Finishing);
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end == End::Open || end == End::Aborted {
            state.end = end;
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().end != End::Open
    }

    pub(super) fn len(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting, state.bytes)
    }

    /// What the writer is to do; until it comes back, it is its turn to write. What it is to write is put into `batch`, which must be
    /// empty.
    ///
    /// # Blocks
    /// Until something waits, the link ends, or `until`; for the end of a caller's turn, which does not block.
    pub(super) fn take(&self, until: Instant, batch: &mut Batch) -> Taken {
        let mut state = self.wait_for_turn(self.lock());
        if state.spare.capacity() == 0 {
            state.spare = std::mem::take(&mut batch.spare);
        }
        loop {
            match state.end {
                End::Aborted => return Taken::Aborted,
                End::Closing(code) => {
                    state.drain(batch);
                    return Taken::Closing(code);
                }
                End::Finishing => {
                    batch.frames.push_back(std::mem::take(&mut state.replies));
                    return Taken::Finishing;
                }
                End::Open if state.has_something() => {
                    state.drain(batch);
                    return Taken::Batch;
                }
                End::Open => {}
            }
            if std::mem::take(&mut state.beat_now) {
                return Taken::Nothing;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Nothing;
            }
            state.turn = Turn::Nobody;
            state.writer_waits = true;
            state = self.wait(state, until);
            state.writer_waits = false;
            state = self.wait_for_turn(state);
        }
    }

    /// Blocks: for the end of a caller's turn.
    fn wait_for_turn<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.writer_wants_turn = true;
        while state.turn == Turn::Caller {
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.writer_wants_turn = false;
        state.turn = Turn::Writer;
        state
    }

    /// # Blocks
    /// Until the reader has ended, the link is aborted, or `until`.
    pub(super) fn wait_for_reader(&self, until: Instant) {
        let mut state = self.lock();
        while !state.reader_done && state.end != End::Aborted && Instant::now() < until {
            state = self.wait(state, until);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Instant) -> MutexGuard<'a, State> {
        let left = until.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }

    // A panic while the lock was held cannot leave the queue half changed, so poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Something is to be written.
    fn has_something(&self) -> bool {
        !self.batch.frames.is_empty() || !self.replies.is_empty() || self.is_unflushed
    }

    fn has_work(&self) -> bool {
        self.has_something() || self.beat_now || self.end != End::Open
    }

    /// The buffer for the next frame.
    fn joinable(&mut self) -> &mut Vec<u8> {
        let is_joinable = self.is_joinable && self.batch.frames.back().is_some_and(|last| last.len() < BUFFER_BYTES);
        if !is_joinable {
            self.batch.frames.push_back(std::mem::take(&mut self.spare));
            self.is_joinable = true;
        }
        // There is a last one now.
        let last = self.batch.frames.len() - 1;
        &mut self.batch.frames[last]
    }

    /// Everything for the writer, who also flushes.
    fn drain(&mut self, batch: &mut Batch) {
        (self.waiting, self.bytes, self.is_unflushed, self.is_joinable) = (0, 0, false, false);
        std::mem::swap(&mut self.batch.frames, &mut batch.frames);
        batch.messages = std::mem::take(&mut self.batch.messages);
        if !self.replies.is_empty() {
            // A peer may ask for a pong and then for more, and take it that the answers come in that order.
            batch.frames.push_front(std::mem::take(&mut self.replies));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn queue(max_messages: usize, max_bytes: usize) -> OutQueue {
        OutQueue::new(Role::Server, max_messages, max_bytes)
    }

    fn push(queue: &OutQueue, len: usize) -> Result<(), SendError> {
        queue.push(FrameKind::Binary, vec![7; len])
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// What the writer is to do, and the lengths of the payloads that it is to write.
    fn take(queue: &OutQueue, until: Instant) -> (Taken, Vec<usize>) {
        let mut batch = Batch::default();
        let taken = queue.take(until, &mut batch);
        (taken, lengths(&batch))
    }

    fn lengths(batch: &Batch) -> Vec<usize> {
        let bytes: Vec<u8> = batch.frames.iter().flatten().copied().collect();
        let mut socket = tungstenite::protocol::frame::FrameSocket::new(&bytes[..]);
        std::iter::from_fn(|| socket.read(None).expect("whole frames")).map(|frame| frame.payload().len()).collect()
    }

    #[test]
    fn a_batch_is_everything_that_waits_in_order_and_small_messages_share_a_buffer() {
        let queue = queue(8, 10 * JOINED_BYTES);
        for len in [1, 2, JOINED_BYTES + 1, 3, 4, JOINED_BYTES] {
            push(&queue, len).expect("room");
        }
        assert_eq!(queue.len(), (6, 2 * JOINED_BYTES + 11));
        let mut batch = Batch::default();
        assert_eq!(queue.take(soon(), &mut batch), Taken::Batch);
        assert_eq!(lengths(&batch), [1, 2, JOINED_BYTES + 1, 3, 4, JOINED_BYTES]);
        assert_eq!((batch.frames.len(), batch.messages), (3, 6));
        assert_eq!(take(&queue, Instant::now()), (Taken::Nothing, vec![]));
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn a_client_masks_what_it_sends_large_or_small() {
        let queue = OutQueue::new(Role::Client, 8, 10 * JOINED_BYTES);
        for len in [5, JOINED_BYTES + 5] {
            push(&queue, len).expect("room");
        }
        let mut batch = Batch::default();
        assert_eq!(queue.take(soon(), &mut batch), Taken::Batch);
        let bytes: Vec<u8> = batch.frames.iter().flatten().copied().collect();
        let mut socket = tungstenite::protocol::frame::FrameSocket::new(&bytes[..]);
        for len in [5, JOINED_BYTES + 5] {
            let frame = socket.read(None).expect("in order").expect("whole");
            let key = frame.header().mask.expect("a key");
            let payload = frame.payload().iter().zip(key.iter().cycle());
            assert_eq!(payload.map(|(byte, key)| byte ^ key).collect::<Vec<_>>(), vec![7; len]);
        }
    }

    #[test]
    fn a_full_queue_refuses_at_once_by_messages_and_by_bytes() {
        let by_messages = queue(1, 100);
        push(&by_messages, 1).expect("room");
        assert_eq!(push(&by_messages, 1), Err(SendError::Full));
        let by_bytes = queue(10, 100);
        push(&by_bytes, 99).expect("room");
        assert_eq!(push(&by_bytes, 2), Err(SendError::Full));
        push(&by_bytes, 1).expect("still room for one byte");
    }

    #[test]
    fn one_message_of_any_size_fits_an_empty_queue() {
        push(&queue(1, 10), 1000).expect("the only one");
        push(&OutQueue::new(Role::Client, 1, 10), JOINED_BYTES + 1).expect("the only one");
    }

    #[test]
    fn replies_leave_before_what_waits_are_bounded_and_alone_leave_at_the_end() {
        let queue = queue(8, 100);
        push(&queue, 3).expect("room");
        queue.push_replies(b"\x8a\x01x");
        assert_eq!(take(&queue, soon()), (Taken::Batch, vec![1, 3]));
        queue.push_replies(&vec![0; REPLIES_BYTES + 1]);
        assert_eq!(take(&queue, Instant::now()), (Taken::Nothing, vec![]));
        push(&queue, 3).expect("room");
        queue.push_replies(b"\x88\x00");
        queue.reader_done();
        assert_eq!(take(&queue, soon()), (Taken::Finishing, vec![0]));
    }

    #[test]
    fn closing_lets_what_waits_leave_and_aborting_does_not() {
        let queue = queue(8, 100);
        push(&queue, 1).expect("room");
        queue.close(1000);
        assert_eq!(push(&queue, 1), Err(SendError::Closed));
        assert_eq!(take(&queue, soon()), (Taken::Closing(1000), vec![1]));
        queue.abort();
        assert_eq!(take(&queue, soon()), (Taken::Aborted, vec![]));
    }

    #[test]
    fn a_waiting_writer_is_woken_by_a_message_and_by_the_end() {
        let queue = std::sync::Arc::new(queue(8, 100));
        let writer_queue = queue.clone();
        let (taken_tx, taken_rx) = crossbeam_channel::unbounded();
        let writer = crate::thread::spawn("writer", move || {
            for _ in 0..2 {
                let until = Instant::now() + Duration::from_secs(60);
                taken_tx.send(take(&writer_queue, until)).expect("the test listens");
            }
        })
        .expect("spawn");
        push(&queue, 3).expect("room");
        let wait = Duration::from_secs(10);
        assert_eq!(taken_rx.recv_timeout(wait), Ok((Taken::Batch, vec![3])));
        queue.reader_done();
        assert_eq!(taken_rx.recv_timeout(wait), Ok((Taken::Finishing, vec![])));
        writer.join();
    }

    #[test]
    fn a_callers_turn_is_had_by_one_and_only_while_nothing_is_before_it() {
        let queue = queue(8, 100);
        let turn = queue.callers_turn().expect("open").expect("free");
        assert!(queue.callers_turn().expect("open").is_none(), "another caller's");
        push(&queue, 1).expect("room");
        drop(turn);
        assert!(queue.callers_turn().expect("open").is_none(), "a message waits");
        assert_eq!(take(&queue, soon()), (Taken::Batch, vec![1]));
        assert!(queue.callers_turn().expect("open").is_none(), "the writer's");
        assert_eq!(take(&queue, Instant::now()), (Taken::Nothing, vec![]));
        assert!(queue.callers_turn().expect("open").is_none(), "the writer runs its pulse, and may write");
        queue.close(1000);
        assert!(queue.callers_turn().is_err());
    }

    #[test]
    fn what_a_caller_leaves_the_writer_gets_though_nothing_is_queued() {
        let queue = queue(8, 100);
        queue.callers_turn().expect("open").expect("free").leave_rest_to_writer();
        assert!(queue.callers_turn().expect("open").is_none(), "the rest goes first");
        assert_eq!(take(&queue, soon()), (Taken::Batch, vec![]));
    }

    #[test]
    fn a_writer_whose_pulse_is_due_has_its_turn_before_the_next_caller() {
        let queue = std::sync::Arc::new(queue(8, 100));
        let turn = queue.callers_turn().expect("open").expect("free");
        let writers_queue = queue.clone();
        let writer = crate::thread::spawn("writer", move || take(&writers_queue, Instant::now())).expect("spawn");
        while !queue.lock().writer_wants_turn {
            std::thread::yield_now();
        }
        drop(turn);
        assert!(queue.callers_turn().expect("open").is_none(), "whether the writer has it yet or not");
        assert_eq!(writer.join(), Some((Taken::Nothing, vec![])));
    }

    #[test]
    fn a_writer_that_wants_its_turn_waits_for_the_end_of_a_callers() {
        let queue = std::sync::Arc::new(queue(8, 100));
        let turn = queue.callers_turn().expect("open").expect("free");
        let (taken_tx, taken_rx) = crossbeam_channel::unbounded();
        let writers_queue = queue.clone();
        let writer = crate::thread::spawn("writer", move || {
            taken_tx.send(take(&writers_queue, soon())).expect("the test listens");
        })
        .expect("spawn");
        while !queue.lock().writer_wants_turn {
            std::thread::yield_now();
        }
        push(&queue, 1).expect("room");
        queue.close(1000);
        assert!(taken_rx.try_recv().is_err(), "it does not write now");
        drop(turn);
        let taken = taken_rx.recv_timeout(Duration::from_secs(10));
        assert_eq!(taken, Ok((Taken::Closing(1000), vec![1])));
        writer.join();
    }
}
