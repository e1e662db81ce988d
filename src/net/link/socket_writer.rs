//! Where a link's bytes leave: frames go into the socket, as many in one write as there are.
//!
//! The writer thread uses it for what is queued, and a caller for a lone message; the queue says
//! whose turn it is, so no thread waits for the lock around it. What the socket does not take is
//! kept, and leaves first with the next flush.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SendFlags;

use super::LinkStats;
use super::frames::{self, OutPart};
use crate::net::stream::Stream;

/// Limit: bytes of a buffer that is kept for the next frames; a larger one was for a large message.
const SPARE_BYTES: usize = 256 * 1024;

/// Limit: bytes that are masked at once, right before they leave, so that they are in a processor's
/// cache still.
const MASKED_BYTES: usize = 128 * 1024;

/// The writing half of a link's connection.
#[derive(Debug)]
pub(super) struct SocketWriter {
    socket: Arc<Stream>,
    stats: Arc<LinkStats>,
    /// In order; of the first one so many bytes have left.
    kept: VecDeque<OutPart>,
    left: usize,
    /// Of the first one, what is masked already and has not left whole, and where it begins there.
    masked: Vec<u8>,
    masked_from: usize,
    spare: Vec<u8>,
}

/// How far something got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteProgress {
    /// Everything has left.
    Done,
    /// The socket has no room: some is kept, and [`SocketWriter::flush`] is to be tried again.
    Stuck,
}

/// Whether a write may wait for room. Not the socket's own mode, which the reader shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Up to the `poll_pause`, then it is stuck.
    Waits,
    None,
}

impl SocketWriter {
    /// Over this socket; a write that gets nowhere comes back after `poll_pause`.
    pub(super) fn new(socket: Arc<Stream>, poll_pause: Duration) -> io::Result<Self> {
        socket.set_write_timeout(Some(poll_pause))?;
        Ok(Self {
            socket,
            stats: Arc::default(),
            kept: VecDeque::new(),
            left: 0,
            masked: Vec::new(),
            masked_from: 0,
            spare: Vec::new(),
        })
    }

    /// From now on counts in these figures.
    pub(super) fn count_in(&mut self, stats: Arc<LinkStats>) {
        self.stats = stats;
    }

    /// Takes frames to leave with the next flush, and after what is kept; empties `frames`. So many
    /// of them are messages.
    pub(super) fn keep(&mut self, frames: &mut VecDeque<OutPart>, messages: usize) {
        self.stats.sent_messages.add(messages as u64);
        self.kept.append(frames);
    }

    /// As [`SocketWriter::keep`], for one message.
    pub(super) fn keep_one(&mut self, frame: Vec<u8>) {
        self.stats.sent_messages.inc();
        self.kept.push_back(OutPart::Frames(frame));
    }

    /// An empty buffer, to make frames in.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Writes what is kept.
    ///
    /// # Blocks
    /// As it may.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self, patience: Patience) -> io::Result<WriteProgress> {
        while let Some(first) = self.kept.front() {
            let len = first.len();
            if self.left < len {
                let is_last = self.kept.len() == 1;
                let (bytes, more) = match first {
                    OutPart::Frames(bytes) => (&bytes[self.left..], !is_last),
                    OutPart::Payload(bytes, None) => (&bytes[self.left..], !is_last),
                    OutPart::Payload(bytes, Some(key)) => {
                        if self.left >= self.masked_from + self.masked.len() {
                            self.masked.clear();
                            self.masked_from = self.left;
                            let piece = &bytes[self.left..len.min(self.left + MASKED_BYTES)];
                            let key = frames::turned(*key, self.left);
                            frames::append_masked(&mut self.masked, Some(key), piece);
                        }
                        let end = self.masked_from + self.masked.len();
                        (&self.masked[self.left - self.masked_from..], !is_last || end < len)
                    }
                };
                match write(&self.socket, bytes, patience, more) {
                    Ok(written) => {
                        self.stats.sent_bytes.add(written as u64);
                        self.left += written;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(WriteProgress::Stuck);
                    }
                    Err(error) => return Err(error),
                }
                // A peer that drains a byte at a time must not keep the writer from looking at its
                // clock, nor must one that takes piece after piece slowly.
                if self.left < len {
                    return Ok(WriteProgress::Stuck);
                }
            }
            (self.left, self.masked) = (0, Vec::new());
            self.masked_from = 0;
            self.spare = match self.kept.pop_front() {
                Some(OutPart::Frames(spare)) if spare.capacity() <= SPARE_BYTES => spare,
                _ => Vec::new(),
            };
            self.spare.clear();
        }
        match self.socket.flush_with(flags(patience)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(WriteProgress::Stuck),
            flushed => flushed.map(|()| WriteProgress::Done),
        }
    }
}

/// Without NOSIGNAL, as std has it too, a peer that has gone would be a SIGPIPE.
fn flags(patience: Patience) -> SendFlags {
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, patience == Patience::None);
    flags
}

fn write(socket: &Stream, bytes: &[u8], patience: Patience, more: bool) -> io::Result<usize> {
    // With MORE, the header of a large message does not wake the peer before the message is there.
    let mut flags = flags(patience);
    flags.set(SendFlags::MORE, more);
    loop {
        match socket.send(bytes, flags) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}
