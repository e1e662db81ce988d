//! What waits to leave on a link: bounded in messages and bytes, never blocking those who add, woken once a batch.
//!
//! A queue of our own rather than a channel, because the writer takes everything that waits at once, and because the
//! byte bound and the end of the link must be decided under the same lock as the adding.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// What the writer is to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A binary message.
    Message(Vec<u8>),
    /// A text message.
    Text(String),
    /// Frames that the reader's side of the protocol made: a pong, or the reply to a close.
    Frames(Vec<u8>),
    /// A ping that carries this number.
    Ping(u64),
}

impl Outgoing {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Outgoing::Text(text) => text.len(),
            Outgoing::Message(bytes) | Outgoing::Frames(bytes) => bytes.len(),
            Outgoing::Ping(_) => 0,
        }
    }
}

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

/// What the writer got from a wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Everything that waited, in order.
    Batch(VecDeque<Outgoing>),
    /// Nothing came until the time given, or the pulse is wanted at once.
    Nothing,
    /// This is the last that is to leave, with a close of this code after it.
    Closing(VecDeque<Outgoing>, u16),
    /// The peer has ended the link: of this only frames of the protocol are still to leave.
    Finishing(VecDeque<Outgoing>),
    /// Write nothing more.
    Aborted,
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
    items: VecDeque<Outgoing>,
    bytes: usize,
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
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
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

    pub(super) fn push(&self, item: Outgoing) -> Result<(), SendError> {
        let mut state = self.lock();
        if state.end != End::Open {
            return Err(SendError::Closed);
        }
        // A message of the largest size must fit an empty queue, whatever the bounds.
        let full = state.items.len() >= self.max_messages || state.bytes + item.bytes() > self.max_bytes;
        if full && !state.items.is_empty() {
            return Err(SendError::Full);
        }
        state.bytes += item.bytes();
        state.items.push_back(item);
        // Woken once a batch: a writer that is busy looks again by itself.
        if std::mem::take(&mut state.writer_waits) {
            drop(state);
            self.changed.notify_one();
        }
        Ok(())
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
        Ok(Some(CallersTurn { queue: self, leaves_some: false }))
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
        (state.items.len(), state.bytes)
    }

    /// What the writer is to do; until it comes back, it is its turn to write.
    ///
    /// # Blocks
    /// Until something waits, the link ends, or `until`; for the end of a caller's turn, which does not block.
    pub(super) fn take(&self, until: Instant) -> Taken {
        let mut state = self.wait_for_turn(self.lock());
        loop {
            match state.end {
                End::Aborted => return Taken::Aborted,
                End::Closing(code) => return Taken::Closing(state.drain(), code),
                End::Finishing => return Taken::Finishing(state.drain()),
                End::Open if !state.items.is_empty() || state.is_unflushed => return Taken::Batch(state.drain()),
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
    fn has_work(&self) -> bool {
        !self.items.is_empty() || self.is_unflushed || self.beat_now || self.end != End::Open
    }

    /// Everything for the writer, who also flushes.
    fn drain(&mut self) -> VecDeque<Outgoing> {
        (self.bytes, self.is_unflushed) = (0, false);
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(len: usize) -> Outgoing {
        Outgoing::Message(vec![0; len])
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_batch_is_everything_that_waits_in_order() {
        let queue = OutQueue::new(8, 100);
        queue.push(message(1)).expect("room");
        queue.push(message(2)).expect("room");
        assert_eq!(queue.take(soon()), Taken::Batch(VecDeque::from([message(1), message(2)])));
        assert_eq!(queue.take(Instant::now()), Taken::Nothing);
    }

    #[test]
    fn a_full_queue_refuses_at_once_by_messages_and_by_bytes() {
        let by_messages = OutQueue::new(1, 100);
        by_messages.push(message(1)).expect("room");
        assert_eq!(by_messages.push(message(1)), Err(SendError::Full));
        let by_bytes = OutQueue::new(10, 100);
        by_bytes.push(message(99)).expect("room");
        assert_eq!(by_bytes.push(message(2)), Err(SendError::Full));
        by_bytes.push(message(1)).expect("still room for one byte");
    }

    #[test]
    fn one_message_of_any_size_fits_an_empty_queue() {
        OutQueue::new(1, 10).push(message(1000)).expect("the only one");
    }

    #[test]
    fn closing_lets_what_waits_leave_and_aborting_does_not() {
        let queue = OutQueue::new(8, 100);
        queue.push(message(1)).expect("room");
        queue.close(1000);
        assert_eq!(queue.push(message(1)), Err(SendError::Closed));
        assert_eq!(queue.take(soon()), Taken::Closing(VecDeque::from([message(1)]), 1000));
        queue.abort();
        assert_eq!(queue.take(soon()), Taken::Aborted);
    }

    #[test]
    fn a_waiting_writer_is_woken_by_a_message_and_by_the_end() {
        let queue = std::sync::Arc::new(OutQueue::new(8, 100));
        let writer_queue = queue.clone();
        let (taken_tx, taken_rx) = crossbeam_channel::unbounded();
        let writer = crate::thread::spawn("writer", move || {
            for _ in 0..2 {
                taken_tx.send(writer_queue.take(Instant::now() + Duration::from_secs(60))).expect("the test listens");
            }
        })
        .expect("spawn");
        queue.push(message(3)).expect("room");
        let wait = Duration::from_secs(10);
        assert_eq!(taken_rx.recv_timeout(wait), Ok(Taken::Batch(VecDeque::from([message(3)]))));
        queue.reader_done();
        assert_eq!(taken_rx.recv_timeout(wait), Ok(Taken::Finishing(VecDeque::new())));
        writer.join();
    }

    #[test]
    fn a_callers_turn_is_had_by_one_and_only_while_nothing_is_before_it() {
        let queue = OutQueue::new(8, 100);
        let turn = queue.callers_turn().expect("open").expect("free");
        assert!(queue.callers_turn().expect("open").is_none(), "another caller's");
        queue.push(message(1)).expect("room");
        drop(turn);
        assert!(queue.callers_turn().expect("open").is_none(), "a message waits");
        assert_eq!(queue.take(soon()), Taken::Batch(VecDeque::from([message(1)])));
        assert!(queue.callers_turn().expect("open").is_none(), "the writer's");
        assert_eq!(queue.take(Instant::now()), Taken::Nothing);
        assert!(queue.callers_turn().expect("open").is_none(), "the writer runs its pulse, and may write");
        queue.close(1000);
        assert!(queue.callers_turn().is_err());
    }

    #[test]
    fn what_a_caller_leaves_the_writer_gets_though_nothing_is_queued() {
        let queue = OutQueue::new(8, 100);
        queue.callers_turn().expect("open").expect("free").leave_rest_to_writer();
        assert!(queue.callers_turn().expect("open").is_none(), "the rest goes first");
        assert_eq!(queue.take(soon()), Taken::Batch(VecDeque::new()));
    }

    #[test]
    fn a_writer_whose_pulse_is_due_has_its_turn_before_the_next_caller() {
        let queue = std::sync::Arc::new(OutQueue::new(8, 100));
        let turn = queue.callers_turn().expect("open").expect("free");
        let writers_queue = queue.clone();
        let writer = crate::thread::spawn("writer", move || writers_queue.take(Instant::now())).expect("spawn");
        while !queue.lock().writer_wants_turn {
            std::thread::yield_now();
        }
        drop(turn);
        assert!(queue.callers_turn().expect("open").is_none(), "whether the writer has it yet or not");
        assert_eq!(writer.join(), Some(Taken::Nothing));
    }

    #[test]
    fn a_writer_that_wants_its_turn_waits_for_the_end_of_a_callers() {
        let queue = std::sync::Arc::new(OutQueue::new(8, 100));
        let turn = queue.callers_turn().expect("open").expect("free");
        let (taken_tx, taken_rx) = crossbeam_channel::unbounded();
        let writers_queue = queue.clone();
        let writer = crate::thread::spawn("writer", move || {
            taken_tx.send(writers_queue.take(soon())).expect("the test listens");
        })
        .expect("spawn");
        while !queue.lock().writer_wants_turn {
            std::thread::yield_now();
        }
        queue.push(message(1)).expect("room");
        queue.close(1000);
        assert!(taken_rx.try_recv().is_err(), "it does not write now");
        drop(turn);
        let taken = taken_rx.recv_timeout(Duration::from_secs(10));
        assert_eq!(taken, Ok(Taken::Closing(VecDeque::from([message(1)]), 1000)));
        writer.join();
    }
}
