//! The socket of an HTTP/2 connection as `h2` wants it, and what wakes its thread.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::traffic::SocketTraffic;
use crate::net::stream::{Stream, is_again};

/// Wakes the connection's thread, from any other; from itself it is a word to go on.
pub(super) struct Alarm {
    thread: std::thread::ThreadId,
    /// It was woken by itself since it last began to go on.
    goes_on: AtomicBool,
    is_woken: AtomicBool,
    wake: UnixStream,
    woken: UnixStream,
    stream: Arc<Stream>,
    traffic: Arc<SocketTraffic>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if std::thread::current().id() == self.thread {
            self.goes_on.store(true, Ordering::Relaxed);
        } else if !self.is_woken.swap(true, Ordering::SeqCst) {
            // It never blocks; if the pipe is full, the thread is woken by what is in it.
            let _ = (&self.wake).write(&[1]);
        }
    }
}

impl Alarm {
    /// Whether its own thread has woken it since this was last asked.
    pub(super) fn take_goes_on(&self) -> bool {
        self.goes_on.swap(false, Ordering::Relaxed)
    }

    /// Waits for the socket, as far as it was found wanting, or for a wake-up.
    ///
    /// # Blocks
    /// Until one of them, or `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let flags = self.traffic.awaited();
        let mut waited =
            [PollFd::new(&*self.stream, flags), PollFd::new(&self.woken, PollFlags::IN)];
        // A signal, if it fails: then it is polled once too often.
        let _ = poll(&mut waited, timeout.as_ref());
        if !waited[1].revents().is_empty() {
            let _ = (&self.woken).read(&mut [0; 64]);
            // Only now that the pipe is empty: a wake-up in between would leave it empty with the
            // mark set, and each later one would be lost. What woke before is seen by what is
            // polled next.
            self.is_woken.store(false, Ordering::SeqCst);
        }
    }
}

/// The socket, with what was read of it before.
pub(super) struct Http2Socket {
    stream: Arc<Stream>,
    read_ahead: Vec<u8>,
    traffic: Arc<SocketTraffic>,
}

/// A socket for `h2`, and the alarm of the thread that polls it, which is the calling one.
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
    let (goes_on, is_woken) = (AtomicBool::new(false), AtomicBool::new(false));
    let thread = std::thread::current().id();
    Ok((Arc::new(Alarm { thread, goes_on, is_woken, wake, woken, stream, traffic }), socket))
}

/// `Pending` if the socket would block: what it waits for is waited for by [`Alarm::wait`], and not
/// by a waker.
fn ready(call: impl FnOnce() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    match call() {
        Err(error) if is_again(&error) => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl AsyncRead for Http2Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Else what reads might never come to an end, and nothing would look.
        if self.traffic.is_waste() {
            return Poll::Pending;
        }
        if !self.read_ahead.is_empty() {
            let bytes = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead[..bytes]);
            self.traffic.count_read(Some(&self.read_ahead[..bytes]));
            self.read_ahead.drain(..bytes);
            return Poll::Ready(Ok(()));
        }
        let unfilled = buffer.initialize_unfilled();
        let got = ready(|| (&*self.stream).read(unfilled));
        self.traffic.count_read(match &got {
            Poll::Ready(Ok(bytes)) => Some(&unfilled[..*bytes]),
            Poll::Ready(Err(_)) => Some(&[]),
            Poll::Pending => None,
        });
        got.map_ok(|bytes| buffer.advance(bytes))
    }
}

impl AsyncWrite for Http2Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready(|| (&*self.stream).write(bytes));
        self.traffic.count_write(result.is_pending());
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready(|| (&*self.stream).write_vectored(slices));
        self.traffic.count_write(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready(|| (&*self.stream).flush().map(|()| 0));
        if result.is_pending() {
            self.traffic.count_write(true);
        }
        result.map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It fails only if the peer has gone.
        let _ = self.stream.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::thread::spawn;

    /// Fails within some rounds if a wake-up may leave the mark set and the pipe empty.
    #[test]
    fn no_wake_up_is_lost_while_the_alarm_goes_off() {
        let (stream, _peer) = UnixStream::pair().expect("a pair");
        let traffic = Arc::<SocketTraffic>::default();
        let (alarm, _socket) = io_of(stream, traffic).expect("descriptors");
        for round in 0..300 {
            let wakers: Vec<_> = (0..2)
                .map(|_| {
                    let alarm = alarm.clone();
                    spawn("wakes", move || (0..50).for_each(|_| alarm.clone().wake()))
                        .expect("a thread")
                })
                .collect();
            while !wakers.iter().all(|waker| waker.wait_until(Instant::now())) {
                alarm.wait(Some(Instant::now() + Duration::from_micros(50)));
            }
            drop(wakers);
            let last = alarm.clone();
            spawn("wakes", move || last.wake()).expect("a thread").join();
            let deadline = Instant::now() + Duration::from_secs(20);
            alarm.wait(Some(deadline));
            assert!(Instant::now() < deadline, "round {round}: its thread sleeps on");
        }
    }

    #[test]
    fn its_own_thread_is_told_to_go_on_and_not_woken() {
        let (stream, _peer) = UnixStream::pair().expect("a pair");
        let (alarm, _socket) = io_of(stream, Arc::default()).expect("descriptors");
        alarm.clone().wake();
        assert!((&alarm.woken).read(&mut [0]).is_err(), "nothing is in the pipe");
        assert_eq!([alarm.take_goes_on(), alarm.take_goes_on()], [true, false]);
    }

    fn io_of(
        stream: UnixStream,
        traffic: Arc<SocketTraffic>,
    ) -> io::Result<(Arc<Alarm>, Http2Socket)> {
        open(Arc::new(stream.into()), Vec::new(), traffic)
    }
}
