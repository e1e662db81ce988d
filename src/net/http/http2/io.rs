//! The socket of an HTTP/2 connection as `h2` wants it, and what wakes its thread.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::sync::Lock;
use crate::net::stream::Stream;

/// Wakes the connection's thread, from any other.
pub(super) struct Alarm {
    is_woken: AtomicBool,
    wake: UnixStream,
    woken: UnixStream,
    stream: Arc<Stream>,
    traffic: Arc<SocketTraffic>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            // It never blocks; if the pipe is full, the thread is woken by what is in it.
            let _ = (&self.wake).write(&[1]);
        }
    }
}

impl Alarm {
    /// Waits for the socket, as far as it was found wanting, or for a wake-up.
    ///
    /// # Blocks
    /// Until one of them, or `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let mut flags = PollFlags::IN;
        if self.traffic.is_write_blocked.load(Ordering::Relaxed) {
            flags |= PollFlags::OUT;
        }
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let mut waited =
            [PollFd::new(&*self.stream, flags), PollFd::new(&self.woken, PollFlags::IN)];
        // A signal, if it fails: then it is polled once too often.
        let _ = poll(&mut waited, timeout.as_ref());
        let is_woken = !waited[1].revents().is_empty();
        // Before the pipe is emptied: a wake-up from here on writes to it again.
        self.is_woken.store(false, Ordering::SeqCst);
        if is_woken {
            let _ = (&self.woken).read(&mut [0; 64]);
        }
    }
}

/// What goes over the socket, as far as deadlines and patience depend on it.
#[derive(Default)]
pub(super) struct SocketTraffic {
    is_write_blocked: AtomicBool,
    /// Bytes that were read since a request went on.
    wasted: AtomicU64,
    times: Lock<Times>,
}

#[derive(Default)]
struct Times {
    /// When the socket first took nothing more.
    unsent_since: Option<Instant>,
    /// When something first came in since a request went on.
    begun_since: Option<Instant>,
}

impl SocketTraffic {
    /// Everything is tried anew.
    pub(super) fn begin(&self) {
        self.is_write_blocked.store(false, Ordering::Relaxed);
    }

    /// A request came, went on or ended.
    pub(super) fn count_progress(&self) {
        self.wasted.store(0, Ordering::Relaxed);
        self.times.lock().begun_since = None;
    }

    /// Bytes of a body arrived: they and their frames are none that were wasted.
    pub(super) fn count_body(&self, bytes: usize) {
        let with_frames = 2 * bytes as u64;
        let less = |wasted: u64| Some(wasted.saturating_sub(with_frames));
        let _ = self.wasted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    pub(super) fn wasted(&self) -> u64 {
        self.wasted.load(Ordering::Relaxed)
    }

    pub(super) fn unsent_since(&self) -> Option<Instant> {
        self.times.lock().unsent_since
    }

    pub(super) fn begun_since(&self) -> Option<Instant> {
        self.times.lock().begun_since
    }

    fn count_read(&self, bytes: usize) {
        self.wasted.fetch_add(bytes as u64, Ordering::Relaxed);
        self.times.lock().begun_since.get_or_insert_with(Instant::now);
    }

    fn count_write(&self, result: &io::Result<usize>) {
        let is_blocked = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        let mut times = self.times.lock();
        if is_blocked {
            self.is_write_blocked.store(true, Ordering::Relaxed);
            times.unsent_since.get_or_insert_with(Instant::now);
        } else {
            times.unsent_since = None;
        }
    }
}

/// The socket, with what was read of it before.
pub(super) struct Http2Socket {
    stream: Arc<Stream>,
    read_ahead: Vec<u8>,
    traffic: Arc<SocketTraffic>,
}

/// A socket for `h2`, and the alarm of the thread that polls it.
///
/// # Errors
/// Descriptors have run out, or the peer is gone.
pub(super) fn open(
    stream: Arc<Stream>,
    read_ahead: Vec<u8>,
    traffic: Arc<SocketTraffic>,
) -> io::Result<(Arc<Alarm>, Http2Socket)> {
    let (wake, woken) = UnixStream::pair()?;
    for end in [&wake, &woken] {
        end.set_nonblocking(true)?;
    }
    stream.set_nonblocking(true)?;
    let socket = Http2Socket { stream: stream.clone(), read_ahead, traffic: traffic.clone() };
    let is_woken = AtomicBool::new(false);
    Ok((Arc::new(Alarm { is_woken, wake, woken, stream, traffic }), socket))
}

/// `Pending` if the socket would block: what it waits for is waited for by [`Alarm::wait`], and not
/// by a waker.
fn ready(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        Err(error) if error.kind() == ErrorKind::Interrupted => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl AsyncRead for Http2Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let bytes = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead[..bytes]);
            self.read_ahead.drain(..bytes);
            self.traffic.count_read(bytes);
            return Poll::Ready(Ok(()));
        }
        let got = ready((&*self.stream).read(buffer.initialize_unfilled()));
        got.map_ok(|bytes| {
            self.traffic.count_read(bytes);
            buffer.advance(bytes);
        })
    }
}

impl AsyncWrite for Http2Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = (&*self.stream).write(bytes);
        self.traffic.count_write(&result);
        ready(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = (&*self.stream).write_vectored(slices);
        self.traffic.count_write(&result);
        ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It fails only if the peer has gone.
        let _ = self.stream.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
