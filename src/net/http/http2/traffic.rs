//! What goes over the socket of an HTTP/2 connection, as far as deadlines and patience depend on
//! it. Used by the connection's thread alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::PollFlags;

use crate::base::limits::HTTP2_WASTED_BYTES;
use crate::base::sync::Lock;

/// What a client says first, head and all.
const PREFACE_BYTES: usize = 24;

const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Figures of one socket.
#[derive(Default)]
pub(super) struct SocketTraffic {
    /// The last read found nothing more.
    is_read_empty: AtomicBool,
    is_write_blocked: AtomicBool,
    /// Bytes that were read since a request went on.
    wasted: AtomicU64,
    /// Bytes of bodies, in both directions.
    carried: AtomicU64,
    watched: Lock<Watched>,
}

#[derive(Default)]
struct Watched {
    frames: FrameWatch,
    /// When the socket first took nothing more.
    unsent_since: Option<Instant>,
    /// When the peer began what it has not said to its end.
    begun_since: Option<Instant>,
}

impl SocketTraffic {
    /// What the socket is to be waited for. A peer that sends is not read from while it takes
    /// nothing, and what it has sent must not keep the thread awake.
    pub(super) fn awaited(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.is_read_empty.load(Ordering::Relaxed));
        flags.set(PollFlags::OUT, self.is_write_blocked.load(Ordering::Relaxed));
        flags
    }

    /// From here on only what comes in matters, until nothing does.
    pub(super) fn begin_to_linger(&self) {
        self.is_read_empty.store(true, Ordering::Relaxed);
        self.is_write_blocked.store(false, Ordering::Relaxed);
    }

    /// A request came or ended.
    pub(super) fn count_progress(&self) {
        self.wasted.store(0, Ordering::Relaxed);
    }

    /// Bytes of a body went on: they and their frames, or those that make room for them, are none
    /// that were wasted.
    pub(super) fn count_body(&self, bytes: usize) {
        self.carried.fetch_add(bytes as u64, Ordering::Relaxed);
        let with_frames = 2 * bytes as u64;
        let less = |wasted: u64| Some(wasted.saturating_sub(with_frames));
        let _ = self.wasted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Whether the peer has sent more than it may that brings no request further.
    pub(super) fn is_waste(&self) -> bool {
        self.wasted.load(Ordering::Relaxed) > HTTP2_WASTED_BYTES
    }

    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    pub(super) fn unsent_since(&self) -> Option<Instant> {
        self.watched.lock().unsent_since
    }

    pub(super) fn begun_since(&self) -> Option<Instant> {
        self.watched.lock().begun_since
    }

    /// What was read; `None` if there was nothing.
    pub(super) fn count_read(&self, bytes: Option<&[u8]>) {
        self.is_read_empty.store(bytes.is_none(), Ordering::Relaxed);
        let Some(bytes) = bytes else { return };
        self.wasted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut watched = self.watched.lock();
        if watched.frames.follow(bytes) {
            watched.begun_since = None;
        }
        if watched.frames.is_within() {
            watched.begun_since.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn count_write(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Ordering::Relaxed);
        let mut watched = self.watched.lock();
        if is_blocked {
            watched.unsent_since.get_or_insert_with(Instant::now);
        } else {
            watched.unsent_since = None;
        }
    }
}

/// Follows what a client says from frame to frame, by their heads alone.
struct FrameWatch {
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// Bytes that are left of a frame, or of the preface.
    left: usize,
    /// The fields of a request have begun and not ended.
    is_in_block: bool,
}

impl Default for FrameWatch {
    fn default() -> Self {
        Self { head: [0; 9], head_bytes: 0, left: PREFACE_BYTES, is_in_block: false }
    }
}

impl FrameWatch {
    /// Goes on; true if something was said to its end.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        while !bytes.is_empty() {
            let part = bytes.len().min(self.left);
            (self.left, bytes) = (self.left - part, &bytes[part..]);
            let part = bytes.len().min(FRAME_HEAD_BYTES - self.head_bytes);
            self.head[self.head_bytes..][..part].copy_from_slice(&bytes[..part]);
            (self.head_bytes, bytes) = (self.head_bytes + part, &bytes[part..]);
            if self.head_bytes == FRAME_HEAD_BYTES {
                let [high, middle, low, kind, flags, ..] = self.head;
                self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                if kind == HEADERS || kind == CONTINUATION {
                    self.is_in_block = flags & END_HEADERS == 0;
                }
                self.head_bytes = 0;
            }
            has_ended |= self.head_bytes == 0 && !self.is_in_block && bytes.len() >= self.left;
        }
        has_ended
    }

    /// Whether something was begun and not said to its end.
    fn is_within(&self) -> bool {
        self.left > 0 || self.head_bytes > 0 || self.is_in_block
    }
}
