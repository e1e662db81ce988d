//! A link's writer thread: takes what is queued and hands it to the socket, and runs the link's
//! clock.
//!
//! What is queued leaves in one write where it fits. A batch has a total deadline, because a
//! socket's write timeout is per call: a peer that drains a byte at a time never trips it. A
//! partial write kills the link.

use std::io;
use std::time::{Duration, Instant};

use super::frames::{self, FrameKind, OutPart};
use super::queue::{Batch, TakenFrames};
use super::socket_writer::{Patience, WriteProgress};
use super::{CloseCause, LinkSender, Pulse};
use crate::base::thread::{self, OwnedThread};

/// How long a peer gets to answer a close before the socket is shut.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How often a write that does not get on looks at the clock: the link's pulse must not stand still
/// with it, or a peer that takes nothing would be given as long as a batch may take before its
/// silence is noticed.
const STALL_LOOK: Duration = Duration::from_millis(100);

/// How often a write to this link looks at the clock: a quarter of its deadline at least, so that
/// it is overrun by that at most.
pub(super) fn poll_pause(write_timeout: Duration) -> Duration {
    (write_timeout / 4).clamp(Duration::from_millis(1), STALL_LOOK)
}

/// Starts the writer thread.
pub(super) fn spawn(
    name: &str,
    link: LinkSender,
    pulse: Box<dyn Pulse>,
) -> io::Result<OwnedThread> {
    let clock = Clock { link: link.clone(), pulse, next_beat: Instant::now() };
    let writer = WriterThread { link: link.clone(), clock };
    thread::spawn_watched(
        format!("{name}-wr"),
        move || {
            // Or the first message would be written alone, before its sender gets to the second
            // one.
            thread::give_way();
            writer.run();
        },
        move |_| {
            // However the writer ended, nothing can leave any more, so the reader must not wait
            // either.
            link.abort(CloseCause::Broken("the writer ended".to_owned()));
        },
    )
}

struct WriterThread {
    link: LinkSender,
    clock: Clock,
}

/// The link's pulse and when it is due.
struct Clock {
    link: LinkSender,
    pulse: Box<dyn Pulse>,
    next_beat: Instant,
}

impl Clock {
    fn beat(&mut self) {
        self.next_beat = self.pulse.beat(&self.link, Instant::now());
    }

    fn beat_if_due(&mut self) {
        if Instant::now() >= self.next_beat {
            self.beat();
        }
    }
}

impl WriterThread {
    fn run(mut self) {
        self.clock.beat();
        let mut batch = Batch::default();
        loop {
            let written = match self.link.shared.queue.take(self.clock.next_beat, &mut batch) {
                TakenFrames::Batch => self.write(&mut batch),
                TakenFrames::Nothing => {
                    self.clock.beat();
                    continue;
                }
                TakenFrames::Closing(code) => {
                    let goodbye =
                        self.write(&mut batch).and_then(|()| self.write_close(code, &mut batch));
                    if goodbye.is_ok() {
                        self.link.shared.queue.wait_for_reader(Instant::now() + CLOSE_GRACE);
                    }
                    return;
                }
                TakenFrames::Finishing => {
                    // The peer has ended the link: whether it takes the reply is its own affair.
                    let _ = self.write(&mut batch);
                    return;
                }
                TakenFrames::Aborted => return,
            };
            if let Err(cause) = written {
                self.link.abort(cause);
                return;
            }
            self.clock.beat_if_due();
        }
    }

    /// Blocks: until all of it has left, or the deadline of a batch. Meanwhile the clock goes on.
    fn write(&mut self, batch: &mut Batch) -> Result<(), CloseCause> {
        let link = self.link.clone();
        let mut socket_writer = link.socket_writer();
        let deadline = link.write_deadline();
        socket_writer.keep(&mut batch.frames, std::mem::take(&mut batch.messages));
        while socket_writer
            .flush(Patience::Waits)
            .map_err(|error| CloseCause::Broken(error.to_string()))?
            == WriteProgress::Stuck
        {
            if Instant::now() >= deadline {
                return Err(CloseCause::SlowPeer);
            }
            // May end the link, and then the next write fails.
            self.clock.beat_if_due();
        }
        batch.spare = socket_writer.buffer();
        drop(socket_writer);
        if !batch.told.is_empty() {
            self.clock.pulse.left(&batch.told);
            batch.told.clear();
        }
        Ok(())
    }

    fn write_close(&mut self, code: u16, batch: &mut Batch) -> Result<(), CloseCause> {
        let mut frame = Vec::new();
        frames::append(
            &mut frame,
            FrameKind::Close,
            self.link.shared.queue.next_key(),
            &code.to_be_bytes(),
        );
        batch.frames.push_back(OutPart::Frames(frame));
        self.write(batch)
    }
}
