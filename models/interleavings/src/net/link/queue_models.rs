//! The outgoing queue of a link: its writer, callers that write themselves, and its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use tungstenite::protocol::Role;

use super::frames::{self, FrameKind, OutPart};
use super::queue::{Batch, OutQueue, SendError, TakenFrames};
use crate::base::primitives::atomic::{AtomicBool, Ordering};
use crate::base::primitives::once_in;
use crate::base::sync::{Lock, Signal};
use crate::check::{Model, far, spawn};
use crate::wire::data::TenantId;

pub fn models() -> Vec<Model> {
    vec![
        Model { name: "queue: all leaves", run: all_leaves, is_tiny: false },
        Model { name: "queue: end", run: end, is_tiny: false },
        Model { name: "queue: pulse", run: pulse, is_tiny: false },
    ]
}

/// A message: of which sender, and which of that sender's.
type Message = [u8; 2];

/// What the model has of a link: its queue, and a socket that notices two that write at once.
struct Link {
    queue: OutQueue,
    is_written: AtomicBool,
    /// What a caller could not write, as in the link's `SocketWriter`.
    unflushed: Mutex<Vec<u8>>,
    left: Lock<Vec<u8>>,
    changed: Signal,
    beats: Lock<usize>,
    has_aborted: AtomicBool,
}

impl Link {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: OutQueue::new(Role::Server, 100, 10_000),
            is_written: AtomicBool::new(false),
            unflushed: Mutex::default(),
            left: Lock::default(),
            changed: Signal::new(),
            beats: Lock::new(0),
            has_aborted: AtomicBool::new(false),
        })
    }

    /// Writes, with what was left before it; of a caller's frame nothing if the socket is full.
    fn write(&self, frames: &[u8], is_full: bool) {
        assert!(!self.is_written.swap(true, Ordering::SeqCst), "two write at once");
        let mut unflushed = std::mem::take(&mut *self.unflushed.lock().expect("no panic"));
        unflushed.extend_from_slice(frames);
        if is_full {
            *self.unflushed.lock().expect("no panic") = unflushed;
        } else {
            self.left.lock().extend(unflushed);
            self.changed.notify_all();
        }
        self.is_written.store(false, Ordering::SeqCst);
    }

    /// As `LinkSender::send_alone` and `LinkSender::send`.
    fn send(&self, message: Message, is_alone: bool) -> Result<(), SendError> {
        let turn = if is_alone { self.queue.callers_turn()? } else { None };
        let Some(turn) = turn else {
            return self.queue.push(FrameKind::Binary, Some(TenantId::Guild(1)), message.to_vec());
        };
        let mut frame = Vec::new();
        frames::append(&mut frame, FrameKind::Binary, turn.key, &message);
        let is_full = once_in(2);
        self.write(&frame, is_full);
        if is_full {
            turn.leave_rest_to_writer();
        }
        Ok(())
    }

    /// As the writer's thread.
    fn run_writer(&self) -> TakenFrames {
        let mut batch = Batch::default();
        loop {
            let until = if once_in(8) { Instant::now() } else { far() };
            let taken = self.queue.take(until, &mut batch);
            match taken {
                TakenFrames::Nothing => {
                    *self.beats.lock() += 1;
                    self.changed.notify_all();
                    continue;
                }
                TakenFrames::Aborted => return taken,
                TakenFrames::Batch | TakenFrames::Closing(_) | TakenFrames::Finishing => {}
            }
            let mut frames = Vec::new();
            for part in batch.frames.drain(..) {
                let OutPart::Frames(bytes) = part else { panic!("all are small") };
                frames.extend(bytes);
            }
            self.write(&frames, false);
            if taken != TakenFrames::Batch {
                if matches!(taken, TakenFrames::Closing(_)) {
                    self.queue.wait_for_reader(far());
                }
                return taken;
            }
        }
    }

    /// What has left, by sender.
    fn left(&self) -> HashMap<u8, Vec<u8>> {
        let mut left: HashMap<u8, Vec<u8>> = HashMap::new();
        for frame in self.left.lock().chunks(4) {
            let [0x82, 2, sender, number] = frame else { panic!("no frame: {frame:?}") };
            left.entry(*sender).or_default().push(*number);
        }
        left
    }
}

const SENDERS: u8 = 2;
const MESSAGES: u8 = 2;

/// Sends as one sender; returns what was taken.
fn send_all(link: &Link, sender: u8) -> Vec<u8> {
    let is_taken = |number: &u8| link.send([sender, *number], once_in(2)).is_ok();
    (0..MESSAGES).filter(is_taken).collect()
}

/// Everything that is taken leaves by itself: once, each sender's in order, and one that writes at
/// a time.
fn all_leaves() {
    let link = Link::new();
    let writes = link.clone();
    let writer = spawn(move || writes.run_writer());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let link = link.clone();
            spawn(move || send_all(&link, sender))
        })
        .collect();
    for sender in senders {
        assert_eq!(sender.join().expect("an end"), [0, 1], "there is room");
    }
    let all = usize::from(SENDERS * MESSAGES) * 4;
    drop(link.changed.wait_until(link.left.lock(), None, |left| left.len() >= all));
    assert!((0..SENDERS).all(|sender| link.left()[&sender] == [0, 1]), "{:?}", link.left());
    link.queue.close(1000);
    link.queue.reader_done();
    assert_eq!(writer.join().expect("an end"), TakenFrames::Closing(1000));
}

/// An end at any moment: nothing is taken after it, the writer ends, and what was taken before a
/// close has left; before another end it may be lost, and is not sent twice or out of order.
fn end() {
    let link = Link::new();
    let writes = link.clone();
    let writer = spawn(move || writes.run_writer());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let link = link.clone();
            spawn(move || send_all(&link, sender))
        })
        .collect();
    let is_abort = once_in(2);
    if is_abort {
        link.queue.abort();
    } else {
        link.queue.close(1000);
    }
    assert!(link.send([9, 0], once_in(2)) == Err(SendError::Closed), "it has ended");
    if once_in(2) {
        link.queue.close(1001);
    }
    link.queue.reader_done();
    let taken: Vec<_> = senders.into_iter().map(|sender| sender.join().expect("an end")).collect();
    let expected = if is_abort { TakenFrames::Aborted } else { TakenFrames::Closing(1000) };
    assert_eq!(writer.join().expect("an end"), expected, "the first end sticks");
    let left = link.left();
    for (sender, taken) in (0..SENDERS).zip(taken) {
        let left = left.get(&sender).map(Vec::as_slice).unwrap_or_default();
        assert!(left == taken || is_abort && taken.starts_with(left), "{left:?} of {taken:?}");
    }
}

/// A pulse that is wanted at once comes, also beside callers that write.
fn pulse() {
    let link = Link::new();
    let writes = link.clone();
    let writer = spawn(move || writes.run_writer());
    let sends = link.clone();
    let sender = spawn(move || send_all(&sends, 0));
    let before = *link.beats.lock();
    link.queue.beat_now();
    drop(link.changed.wait_until(link.beats.lock(), None, |beats| *beats > before));
    sender.join().expect("an end");
    link.queue.reader_done();
    assert_eq!(writer.join().expect("an end"), TakenFrames::Finishing);
}
