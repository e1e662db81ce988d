//! Where a link's bytes leave: messages become frames, and frames go into the socket.
//!
//! The writer thread uses it for what is queued, and a caller for a lone message; the queue says whose turn it is, so nobody
//! waits for the lock around it. What the socket does not take is kept, and leaves first with the next flush.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::LinkStats;

/// What one write carries at most; what is more takes several.
const COALESCE_BYTES: usize = 128 * 1024;

/// The writing half of a link's connection.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: WebSocket<WriteHalf>,
}

/// How far something got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It left, or is kept to leave with what follows.
    Done,
    /// The socket has no room: some is kept, and [`Outlet::flush`] is to be tried again.
    Stuck,
}

impl Outlet {
    /// Over this socket; a write that gets nowhere comes back after `look`.
    pub(super) fn new(socket: Arc<TcpStream>, role: Role, look: Duration) -> io::Result<Self> {
        socket.set_write_timeout(Some(look))?;
        let half = WriteHalf { socket, stats: Arc::default(), may_wait: true, was_short: false };
        let config = WebSocketConfig::default().read_buffer_size(0).write_buffer_size(COALESCE_BYTES);
        Ok(Self { socket: WebSocket::from_raw_socket(half, role, Some(config)) })
    }

    /// From now on counts in these figures.
    pub(super) fn count_in(&mut self, stats: Arc<LinkStats>) {
        self.socket.get_mut().stats = stats;
    }

    /// Keeps a message to leave with those that follow, or writes what has come together.
    ///
    /// # Blocks
    /// While the socket has no room, up to the `look`; as all but [`Outlet::write_at_once`].
    ///
    /// # Errors
    /// The connection is broken; as for all others.
    pub(super) fn write(&mut self, message: Message) -> Result<Progress, Error> {
        if matches!(message, Message::Binary(_) | Message::Text(_)) {
            self.socket.get_ref().stats.sent_messages.inc();
        }
        progress(self.socket.write(message))
    }

    /// Writes frames that are whole already; says how many bytes of them left. Nothing may be kept.
    pub(super) fn write_frames(&mut self, frames: &[u8]) -> Result<usize, Error> {
        match self.socket.get_mut().write(frames) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => Ok(written?),
        }
    }

    /// Writes what is kept.
    pub(super) fn flush(&mut self) -> Result<Progress, Error> {
        progress(self.socket.flush())
    }

    /// Says goodbye with a code.
    pub(super) fn close(&mut self, code: u16) -> Result<Progress, Error> {
        progress(self.socket.close(Some(CloseFrame { code: code.into(), reason: "".into() })))
    }

    /// Writes a message, and what is kept before it, as far as the socket has room; never blocks.
    pub(super) fn write_at_once(&mut self, message: Vec<u8>) -> Result<Progress, Error> {
        self.socket.get_mut().may_wait = false;
        let written = self.write(Message::binary(message)).and_then(|_| self.flush());
        self.socket.get_mut().may_wait = true;
        written
    }
}

/// tungstenite keeps what the stream below did not take.
fn progress(written: Result<(), Error>) -> Result<Progress, Error> {
    match written {
        Ok(()) => Ok(Progress::Done),
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(Progress::Stuck),
        Err(error) => Err(error),
    }
}

/// The stream under the WebSocket object that writes.
#[derive(Debug)]
struct WriteHalf {
    socket: Arc<TcpStream>,
    stats: Arc<LinkStats>,
    /// Whether a write may wait for room. Not the socket's own mode, which the reader shares.
    may_wait: bool,
    /// The last write got only part of its way. Then the next one says so instead of writing: a peer that drains a byte at a time
    /// must not keep the writer from looking at its clock.
    was_short: bool,
}

impl Read for WriteHalf {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        // The reader's object reads; this one is never asked to.
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.was_short) {
            return Err(ErrorKind::WouldBlock.into());
        }
        // Without NOSIGNAL, as std has it too, a peer that has gone would be a SIGPIPE.
        let flags = if self.may_wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
        loop {
            match send(&*self.socket, bytes, flags).map_err(io::Error::from) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(len) => {
                    self.stats.sent_bytes.add(len as u64);
                    self.was_short = len < bytes.len();
                    return Ok(len);
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
