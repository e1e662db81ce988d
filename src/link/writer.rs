//! The writing half of a link: one thread that owns everything that leaves, and runs the link's clock.
//!
//! What is queued leaves in one write where it fits. A batch has a total deadline, because a socket's write timeout is
//! per call: a peer that drains a byte at a time never trips it. A partial write kills the link.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::queue::{Outgoing, Taken};
use super::{CloseCause, LinkSender, Pulse};
use crate::thread::{self, OwnedThread};

/// What one write carries at most; a batch that is larger takes several.
const COALESCE_BYTES: usize = 128 * 1024;

/// How long a peer gets to answer a close before the socket is shut.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How often a write that does not get on looks at the clock: the link's pulse must not stand still with it, or a peer that
/// takes nothing would be given as long as a batch may take before its silence is noticed.
const STALL_LOOK: Duration = Duration::from_millis(100);

/// Starts the writer thread.
pub(super) fn spawn(
    name: &str,
    link: LinkSender,
    socket: TcpStream,
    role: Role,
    pulse: Box<dyn Pulse>,
) -> io::Result<OwnedThread> {
    let write_timeout = link.shared.limits.write_timeout;
    // A quarter, so that the total deadline below is overrun by a quarter at most.
    socket.set_write_timeout(Some((write_timeout / 4).clamp(Duration::from_millis(1), STALL_LOOK)))?;
    let clock = Clock { link: link.clone(), pulse, next_beat: Instant::now() };
    let half = WriteHalf { socket, clock, deadline: Instant::now(), timed_out: false };
    let config = WebSocketConfig::default().read_buffer_size(0).write_buffer_size(COALESCE_BYTES);
    let writer = Writer { link: link.clone(), socket: WebSocket::from_raw_socket(half, role, Some(config)) };
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
    socket: WebSocket<WriteHalf>,
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
        self.clock().beat();
        loop {
            let next_beat = self.clock().next_beat;
            let written = match self.link.shared.queue.take(next_beat) {
                Taken::Batch(batch) => self.write(batch),
                Taken::Nothing => {
                    self.clock().beat();
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
            self.clock().beat_if_due();
        }
    }

    fn clock(&mut self) -> &mut Clock {
        &mut self.socket.get_mut().clock
    }

    fn write(&mut self, batch: VecDeque<Outgoing>) -> Result<(), CloseCause> {
        self.start_deadline();
        for item in batch {
            let written = match item {
                Outgoing::Message(message) => self.socket.write(Message::binary(message)),
                Outgoing::Text(text) => self.socket.write(Message::text(text)),
                Outgoing::Ping => self.socket.write(Message::Ping(Vec::new().into())),
                // Whole frames already; what tungstenite has buffered goes first.
                Outgoing::Frames(frames) => {
                    self.socket.flush().and_then(|()| Ok(self.socket.get_mut().write_all(&frames)?))
                }
            };
            written.map_err(|error| self.cause_of(&error))?;
        }
        self.socket.flush().map_err(|error| self.cause_of(&error))
    }

    fn write_close(&mut self, code: u16) -> Result<(), CloseCause> {
        self.start_deadline();
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.close(Some(frame)).map_err(|error| self.cause_of(&error))
    }

    fn start_deadline(&mut self) {
        self.socket.get_mut().deadline = Instant::now() + self.link.shared.limits.write_timeout;
    }

    fn cause_of(&self, error: &tungstenite::Error) -> CloseCause {
        if self.socket.get_ref().timed_out { CloseCause::SlowPeer } else { CloseCause::Broken(error.to_string()) }
    }
}

/// The stream under the writer's WebSocket object: it only writes, and not beyond the deadline.
struct WriteHalf {
    socket: TcpStream,
    clock: Clock,
    deadline: Instant,
    timed_out: bool,
}

impl Read for WriteHalf {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        // The reader's object reads; this one is never asked to.
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self.socket.write(bytes) {
                // The socket's own timeout: nothing left in that time.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
                Err(error) if error.kind() == ErrorKind::Interrupted => None,
                Err(error) => return Err(error),
                Ok(len) => Some(len),
            };
            let all = written == Some(bytes.len());
            if !all && Instant::now() >= self.deadline {
                self.timed_out = true;
                return Err(ErrorKind::TimedOut.into());
            }
            if !all {
                // May end the link, and then the next write fails.
                self.clock.beat_if_due();
            }
            if let Some(len) = written {
                return Ok(len);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // Ends the connection also for clones of this socket.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
