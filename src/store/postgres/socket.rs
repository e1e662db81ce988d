//! The bytes to and from a PostgreSQL server: a blocking socket on which every call has a deadline.
//!
//! What is put is gathered until it is sent, so that messages which belong together leave in one piece. Deliberately knows
//! nothing of what the messages mean. Owned by one [`super::client::Client`]; runs on the thread that uses that.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::error::Error;
use crate::limits::{POSTGRES_BUFFER_BYTES, POSTGRES_MESSAGE_MAX_BYTES};

/// How long the kernel waits at a time while the deadline is farther away: so that its timeout need not be set each time.
const WAIT: Duration = Duration::from_secs(1);

/// Either kind of connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(bytes),
            Stream::Unix(stream) => (&mut &*stream).read(bytes),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout);
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A connection's bytes.
pub(super) struct Socket {
    stream: Stream,
    /// What is put and not sent.
    outgoing: BytesMut,
    /// What was read and not taken.
    incoming: BytesMut,
    piece: Box<[u8]>,
    /// None: as long as it takes.
    deadline: Option<Instant>,
    /// The timeout that the kernel has now.
    armed: Option<Duration>,
}

impl Socket {
    pub(super) fn new(stream: Stream, deadline: Option<Instant>) -> Self {
        let piece = vec![0; POSTGRES_BUFFER_BYTES].into_boxed_slice();
        Self { stream, outgoing: BytesMut::new(), incoming: BytesMut::new(), piece, deadline, armed: None }
    }

    /// Until when each call may block, from now on.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Where messages are put.
    pub(super) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends everything that was put.
    ///
    /// # Blocks
    /// Until the kernel has it, at most until the deadline.
    ///
    /// # Errors
    /// The connection is of no use any more; the last byte was not sent.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            self.arm()?;
            match self.stream.write(&self.outgoing[sent..]) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(more) => sent += more,
                Err(error) if is_again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.clear();
        if self.outgoing.capacity() > POSTGRES_BUFFER_BYTES {
            self.outgoing = BytesMut::new();
        }
        Ok(())
    }

    /// The next message of the server.
    ///
    /// # Blocks
    /// Until it is there, at most until the deadline.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn message(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.parse()? {
                return Ok(message);
            }
            self.arm()?;
            match self.stream.read(&mut self.piece) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(got) => self.incoming.extend_from_slice(&self.piece[..got]),
                Err(error) if is_again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Message>, Error> {
        let announced = self.incoming.get(1..5).and_then(|length| length.try_into().ok()).map_or(0, u32::from_be_bytes);
        if announced > POSTGRES_MESSAGE_MAX_BYTES {
            return Err(Error::Strange("a message of the server is longer than any can be".to_owned()));
        }
        Ok(Message::parse(&mut self.incoming)?)
    }

    /// Whether nothing came unasked, neither words nor the end; does not block.
    pub(super) fn is_quiet(&self) -> bool {
        let peeked = recv(&self.stream, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.outgoing.is_empty()
            && self.incoming.is_empty()
            && peeked.is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }

    /// Sends some last bytes if the kernel takes them at once.
    pub(super) fn say_goodbye(&self, bytes: &[u8]) {
        // The end of the connection says the same.
        let _ = send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Lets the next call block no longer than it may.
    fn arm(&mut self) -> Result<(), Error> {
        let wait = match self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Err(Error::TimedOut),
            left => left.map_or(WAIT, |left| left.min(WAIT)),
        };
        if self.armed != Some(wait) {
            self.stream.set_timeouts(wait)?;
            self.armed = Some(wait);
        }
        Ok(())
    }
}

/// The call ended without a result: its timeout (which need not be the deadline), or a signal.
fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
