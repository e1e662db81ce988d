//! One TLS connection that a thread reads while others write.
//!
//! The session (no I/O) is under a lock that is never held in a system call. A reader blocks in the
//! socket alone; a writer holds the output, so that records leave in the order in which they were
//! encrypted, and not the session: while a peer does not read, the reader goes on. Which thread
//! writes, and how long it waits, is the business of what is above, as over a plain socket.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use rustls::Connection;

use super::words;
use crate::base::sync::Lock;
use crate::net::stream::Stream;

/// What is read of the socket at once: two records.
const READ_BYTES: usize = 32 * 1024;

/// Limit: bytes that a write takes at once, as they are kept encrypted until they have left.
const WRITE_BYTES: usize = 256 * 1024;

/// Limit: bytes of a buffer that is kept for what is written next.
const SPARE_BYTES: usize = 64 * 1024;

/// See the module's description.
pub struct TlsStream {
    socket: Arc<Stream>,
    session: Lock<Connection>,
    input: Lock<TlsInput>,
    output: Lock<TlsOutput>,
}

/// What has come and has not been read.
struct TlsInput {
    cipher: Box<[u8]>,
    plain: Vec<u8>,
    read: usize,
    /// The peer has said that nothing more comes.
    is_at_end: bool,
    /// It has ended, and the peer had not said so.
    is_cut: bool,
}

/// What has been encrypted and has not left.
#[derive(Default)]
struct TlsOutput {
    bytes: Vec<u8>,
    left: usize,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsStream({:?})", self.socket)
    }
}

impl TlsStream {
    /// Does the handshake over a socket, whose timeouts are unset afterwards.
    ///
    /// # Blocks
    /// Until it is done, or `deadline`; `shutdown` of the socket is the wake-up.
    ///
    /// # Errors
    /// `InvalidData` with what is wrong with the peer or its certificate, `TimedOut`, or what the
    /// socket says.
    pub(super) fn handshake(
        socket: Arc<Stream>,
        mut session: Connection,
        deadline: Instant,
    ) -> io::Result<Self> {
        // What waits to be sent is bounded by what is above.
        session.set_buffer_limit(None);
        let done = exchange(&socket, &mut session, deadline).map_err(words::in_place);
        if done.is_err() && session.wants_write() {
            // The peer is told why, if there is room.
            let mut alert = Vec::new();
            while session.wants_write() && session.write_tls(&mut alert).is_ok() {}
            let _ = send(&*socket, &alert, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        done?;
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        let cipher = vec![0; READ_BYTES].into_boxed_slice();
        let mut input =
            TlsInput { cipher, plain: Vec::new(), read: 0, is_at_end: false, is_cut: false };
        // What came with the end of the handshake.
        take_plain(&mut input.plain, &mut session)?;
        let (input, output) = (Lock::new(input), Lock::default());
        Ok(Self { socket, session: Lock::new(session), input, output })
    }

    /// The socket under it.
    pub fn socket(&self) -> &Stream {
        &self.socket
    }

    /// The certificate that the peer showed, in DER.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let session = self.session.lock();
        session.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    /// Reads what has come; 0 is the end.
    ///
    /// # Blocks
    /// As one read of the socket does, and on nothing else but a moment's computing.
    ///
    /// # Errors
    /// `Interrupted` if what came is no whole record yet: a peer that sends one byte by byte does
    /// not keep the caller from its clock. `InvalidData` if it is no TLS, else what the socket
    /// says.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut input = self.input.lock();
        let got = input.give(buffer);
        if got > 0 || input.is_at_end || buffer.is_empty() {
            return Ok(got);
        }
        self.fill(&mut input)?;
        let got = input.give(buffer);
        if got > 0 || input.is_at_end { Ok(got) } else { Err(ErrorKind::Interrupted.into()) }
    }

    /// Whether what was read ended without the peer having said that it would: it may be cut short.
    pub fn is_cut(&self) -> bool {
        self.input.lock().is_cut
    }

    /// Reads the socket once, and decrypts what came.
    fn fill(&self, input: &mut TlsInput) -> io::Result<()> {
        let read = (&*self.socket).read(&mut input.cipher)?;
        // Without a close_notify it ends as well: what is above says when it is whole.
        input.is_cut = read == 0;
        input.is_at_end = input.is_cut;
        let wants_write = {
            let mut session = self.session.lock();
            let mut bytes = &input.cipher[..read];
            while !bytes.is_empty() {
                // After a close_notify it takes nothing: the peer's last word was said.
                if session.read_tls(&mut bytes)? == 0 {
                    input.is_at_end = true;
                    break;
                }
                let state = session.process_new_packets();
                let state = state
                    .map_err(|error| io::Error::new(ErrorKind::InvalidData, words::of(&error)));
                input.is_at_end |= state.as_ref().is_ok_and(|state| state.peer_has_closed());
                if let Err(error) = state {
                    drop(session);
                    self.answer();
                    return Err(error);
                }
                // All of it, or the next round would find no room.
                take_plain(&mut input.plain, &mut session)?;
            }
            session.wants_write()
        };
        if wants_write {
            self.answer();
        }
        Ok(())
    }

    /// Sends what the protocol itself has to say, such as the answer to a change of keys, as far as
    /// there is room and no other thread writes: a reader must not wait. Else it leaves before what
    /// is written next.
    fn answer(&self) {
        let Some(mut output) = self.output.try_lock() else { return };
        // Of a peer that asks and takes nothing no more answers are made; the session keeps one.
        if output.bytes.len() - output.left > SPARE_BYTES {
            return;
        }
        if output.encrypt(&mut self.session.lock(), &[]).is_ok() {
            // What is wrong with the socket is found by the next that uses it.
            let _ = output.send(&self.socket, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    /// Takes some bytes and sends them, as far as there is room for what they become: the rest
    /// leaves with the next write, or with [`TlsStream::flush`].
    ///
    /// # Blocks
    /// As the socket does with these flags.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room, and nothing was taken; else what the socket says.
    pub fn write(&self, slices: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        let mut output = self.output.lock();
        output.send(&self.socket, flags)?;
        let taken = output.encrypt(&mut self.session.lock(), slices)?;
        match output.send(&self.socket, flags) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(error)
            }
            _ => Ok(taken),
        }
    }

    /// Sends what was taken and has not left.
    ///
    /// # Blocks
    /// As the socket does with these flags.
    ///
    /// # Errors
    /// `WouldBlock` if some of it has not left yet; else what the socket says.
    pub fn flush(&self, flags: SendFlags) -> io::Result<()> {
        self.output.lock().send(&self.socket, flags)
    }

    /// Ends the connection, in one direction or both; the peer is told as far as there is room.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            // Without waiting for another thread that uses it.
            if let Some(mut session) = self.session.try_lock() {
                session.send_close_notify();
            }
            self.answer();
        }
        self.socket.shutdown(how)
    }
}

impl TlsInput {
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.plain[self.read..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        if self.read == self.plain.len() {
            self.plain.clear();
            self.read = 0;
        }
        len
    }
}

fn take_plain(plain: &mut Vec<u8>, session: &mut Connection) -> io::Result<()> {
    match session.reader().read_to_end(plain) {
        Ok(_) => Ok(()),
        // There is no more now; or the peer has ended it, which was seen.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::UnexpectedEof) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl TlsOutput {
    /// Encrypts as much as is taken at once, and what the session itself has to say.
    fn encrypt(&mut self, session: &mut Connection, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for slice in slices {
            let piece = &slice[..slice.len().min(WRITE_BYTES - taken)];
            session.writer().write_all(piece)?;
            taken += piece.len();
        }
        while session.wants_write() {
            session.write_tls(&mut self.bytes)?;
        }
        Ok(taken)
    }

    /// One write to the socket, so that the caller can look at its clock.
    fn send(&mut self, socket: &Stream, flags: SendFlags) -> io::Result<()> {
        if self.left < self.bytes.len() {
            self.left += loop {
                match send(socket, &self.bytes[self.left..], flags).map_err(io::Error::from) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    sent => break sent?,
                }
            };
        }
        if self.left < self.bytes.len() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.left = 0;
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_BYTES);
        Ok(())
    }
}

/// Blocks: until the handshake is done, or `deadline`.
fn exchange(socket: &Stream, session: &mut Connection, deadline: Instant) -> io::Result<()> {
    let mut io = Timed { socket, deadline };
    while session.is_handshaking() || session.wants_write() {
        session.complete_io(&mut io).map(drop)?;
    }
    Ok(())
}

/// A socket of which each call ends by a deadline.
struct Timed<'s> {
    socket: &'s Stream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        let mut socket = self.socket;
        socket.read(buffer).map_err(in_time)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        let mut socket = self.socket;
        socket.write(bytes).map_err(in_time)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket's timeout is said in two ways.
fn in_time(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}
