//! A socket whose every read and write ends by a given instant, however the peer dribbles.
//!
//! A socket's own timeouts bound one call: a peer that sends a byte in each never trips them. So
//! what is left of the deadline is computed anew before each call. Owned by one connection's
//! thread; the server keeps a reference, only to shut the socket down.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::stream::{Stream, is_again};

/// A connection with deadlines.
pub(super) struct Socket {
    stream: Arc<Stream>,
    // The timeouts that the kernel has now: setting one costs a system call, so one that serves is
    // left alone.
    read_armed: Option<Duration>,
    write_armed: Option<Duration>,
}

impl Socket {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, read_armed: None, write_armed: None }
    }

    /// The connection itself, for another framing.
    #[cfg(feature = "http2")]
    pub(super) fn stream(&self) -> Arc<Stream> {
        Arc::clone(&self.stream)
    }

    /// Reads some bytes; 0 is the end.
    ///
    /// # Blocks
    /// Until bytes come or `deadline`; the wake-up is `shutdown` on the socket.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, else what the socket says.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = left_until(deadline)?;
            if !serves(self.read_armed, left) {
                self.stream.set_read_timeout(Some(left))?;
                self.read_armed = Some(left);
            }
            match (&*self.stream).read(buffer) {
                Err(error) if is_again(&error) => {}
                result => return result,
            }
        }
    }

    /// Writes both slices whole, in one system call where the socket has room.
    ///
    /// # Blocks
    /// Until all is handed to the kernel or `deadline`; the wake-up is `shutdown` on the socket.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, else what the socket says. Part may have been written: the
    /// connection is lost.
    pub(super) fn write_all(
        &mut self,
        first: &[u8],
        second: &[u8],
        deadline: Instant,
    ) -> io::Result<()> {
        let mut slices = [IoSlice::new(first), IoSlice::new(second)];
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // drops empty slices at the front
        while !rest.is_empty() {
            let left = left_until(deadline)?;
            if !serves(self.write_armed, left) {
                self.stream.set_write_timeout(Some(left))?;
                self.write_armed = Some(left);
            }
            match (&*self.stream).write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if is_again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.flush(deadline)
    }

    /// Over TLS some of what was taken may still wait for room.
    fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            match (&*self.stream).flush() {
                Err(error) if is_again(&error) => {}
                result => return result,
            }
            let left = left_until(deadline)?;
            if !serves(self.write_armed, left) {
                self.stream.set_write_timeout(Some(left))?;
                self.write_armed = Some(left);
            }
        }
    }

    /// The certificate that the peer showed.
    pub(super) fn peer_certificate(&self) -> Option<Arc<[u8]>> {
        self.stream.peer_certificate().map(Arc::from)
    }

    /// Whether the peer has gone, or will send nothing more.
    pub(super) fn is_at_end(&self) -> bool {
        self.stream.is_at_end()
    }

    /// Says that nothing more will be written.
    pub(super) fn finish_writing(&self) {
        // It fails only if the peer has gone, which is as good.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Hands the plain socket over, without timeouts. The server must have given up its reference.
    ///
    /// # Errors
    /// The socket is gone, or still referenced and out of descriptors for a copy.
    pub(super) fn into_stream(self) -> io::Result<Stream> {
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)?;
        Arc::try_unwrap(self.stream).or_else(|stream| stream.try_clone())
    }
}

fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether a timeout that is set already will do: not past the deadline, and not so short that we
/// would spin.
fn serves(armed: Option<Duration>, left: Duration) -> bool {
    armed.is_some_and(|armed| armed <= left && armed >= left / 2)
}
