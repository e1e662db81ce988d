//! A link's writer thread: takes what is queued and hands it to the outlet, and runs the link's clock.
//!
//! What is queued leaves in one write where it fits. A batch has a total deadline, because a socket's write timeout is
//! per call: a peer that drains a byte at a time never trips it. A partial write kills the link.

use std::collections::VecDeque;
use std::io;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use tungstenite::{Error, Message};

use super::outlet::{Outlet, Progress};
use super::queue::{Outgoing, Taken};
use super::{CloseCause, LinkSender, Pulse};
use crate::thread::{self, OwnedThread};

/// How long a peer gets to answer a close before the socket is shut.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How often a write that does not get on looks at the clock: the link's pulse must not stand still with it, or a peer that
/// takes nothing would be given as long as a batch may take before its silence is noticed.
const STALL_LOOK: Duration = Duration::from_millis(100);

/// How often a write to this link looks at the clock: a quarter of its deadline at least, so that it is overrun by that at most.
pub(super) fn look(write_timeout: Duration) -> Duration {
    (write_timeout / 4).clamp(Duration::from_millis(1), STALL_LOOK)
}

/// Starts the writer thread.
pub(super) fn spawn(name: &str, link: LinkSender, pulse: Box<dyn Pulse>) -> io::Result<OwnedThread> {
    let clock = Clock { link: link.clone(), pulse, next_beat: Instant::now() };
    let writer = Writer { link: link.clone(), clock };
    thread::spawn_watched(
        format!("{name}-wr"),
        move || writer.run(),
        move |_| {
            // Whatever ended the writer: nothing can leave any more, so the reader must not wait either.
            link.abort(CloseCause::Broken("the writer ended".to_owned()));
        },
    )
}

struct Writer {
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

impl Writer {
    fn run(mut self) {
        self.clock.beat();
        loop {
            let next_beat = self.clock.next_beat;
            let written = match self.link.shared.queue.take(next_beat) {
                Taken::Batch(batch) => self.write(batch),
                Taken::Nothing => {
                    self.clock.beat();
                    continue;
                }
                Taken::Closing(batch, code) => {
                    let goodbye = self.write(batch).and_then(|()| self.write_close(code));
                    if goodbye.is_ok() {
                        self.link.shared.queue.wait_for_reader(Instant::now() + CLOSE_GRACE);
                    }
                    return;
                }
                Taken::Finishing(batch) => {
                    let replies = batch.into_iter().filter(|item| matches!(item, Outgoing::Frames(_))).collect();
                    // The peer has ended the link: whether it takes the reply is its own affair.
                    let _ = self.write(replies);
                    return;
                }
                Taken::Aborted => return,
            };
            if let Err(cause) = written {
                self.link.abort(cause);
                return;
            }
            self.clock.beat_if_due();
        }
    }

    fn write(&mut self, batch: VecDeque<Outgoing>) -> Result<(), CloseCause> {
        let link = self.link.clone();
        let mut turn = WriteTurn { outlet: link.outlet(), clock: &mut self.clock, deadline: link.write_deadline() };
        for item in batch {
            match item {
                Outgoing::Message(message) => turn.write(Message::binary(message))?,
                Outgoing::Text(text) => turn.write(Message::text(text))?,
                Outgoing::Ping(number) => turn.write(Message::Ping(number.to_be_bytes().to_vec().into()))?,
                Outgoing::Frames(frames) => turn.write_frames(&frames)?,
            }
        }
        turn.flush()
    }

    fn write_close(&mut self, code: u16) -> Result<(), CloseCause> {
        let link = self.link.clone();
        let mut turn = WriteTurn { outlet: link.outlet(), clock: &mut self.clock, deadline: link.write_deadline() };
        let closed = turn.outlet.close(code);
        turn.go_on(closed)
    }
}

/// One batch's way out, with its deadline; meanwhile the clock goes on.
struct WriteTurn<'w> {
    outlet: MutexGuard<'w, Outlet>,
    clock: &'w mut Clock,
    deadline: Instant,
}

impl WriteTurn<'_> {
    fn write(&mut self, message: Message) -> Result<(), CloseCause> {
        match self.outlet.write(message) {
            Ok(Progress::Done) => Ok(()),
            stuck => self.go_on(stuck),
        }
    }

    /// What is kept goes first.
    fn write_frames(&mut self, mut frames: &[u8]) -> Result<(), CloseCause> {
        self.flush()?;
        while !frames.is_empty() {
            let written = self.outlet.write_frames(frames).map_err(|error| broken(&error))?;
            frames = &frames[written..];
            if !frames.is_empty() {
                self.look()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CloseCause> {
        let flushed = self.outlet.flush();
        self.go_on(flushed)
    }

    /// Blocks: until what is kept has left, or the deadline.
    fn go_on(&mut self, mut progress: Result<Progress, Error>) -> Result<(), CloseCause> {
        while progress.map_err(|error| broken(&error))? == Progress::Stuck {
            self.look()?;
            progress = self.outlet.flush();
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), CloseCause> {
        if Instant::now() >= self.deadline {
            return Err(CloseCause::SlowPeer);
        }
        // May end the link, and then the next write fails.
        self.clock.beat_if_due();
        Ok(())
    }
}

fn broken(error: &Error) -> CloseCause {
    CloseCause::Broken(error.to_string())
}
