//! The server: its listener with an acceptor thread, and a thread per connection, all of them owned
//! and joined here. A connection that another part has made (the broker's) is served like one that
//! was accepted.
//!
//! A connection gets a place, and a thread, when its peer says something; until then the acceptor
//! keeps it. When every place is taken, it displaces the one that has been waiting longest for its
//! peer, so that a thousand connections that say nothing or half of a head cannot keep out one that
//! speaks. Only when every place is answering a request is a new one refused with 503.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
#[cfg(feature = "http2")]
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Handler;
use super::connection::{Connection, TOO_MANY};
use super::registry::{ConnectionSlot, Doing, NotAdmitted, Registry};
use super::response::full_text;
use super::socket::Socket;
use crate::base::limits;
use crate::base::metrics::Counter;
use crate::base::sync::{CountedPermit, Lock};
use crate::base::thread::{self, OwnedThread};
use crate::base::throttle::Throttle;
use crate::net::stream::tls::TlsServer;
use crate::net::stream::{Peer, Stream};

/// How long the acceptor waits after an error of `accept` that would come again at once, such as
/// too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limit: refused connections whose peers may still be reading; the oldest is closed for a new one.
const REFUSED_KEPT: usize = 32;

/// At most one warning in this time about what a flood makes happen for each connection.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The bounds of one server; the defaults are those of `limits.rs`.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Headers of a request, at most [`limits::HTTP_HEADERS_MAX`].
    pub headers: usize,
    /// From a request's first byte (or the connect) to the end of its head.
    pub head_timeout: Duration,
    /// For a whole body.
    pub body_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// For a whole response.
    pub write_timeout: Duration,
    /// After which a peer that does not take its answer may lose its connection to a new one.
    pub stalled_after: Duration,
    /// For the peer to read the last response.
    pub linger_timeout: Duration,
    /// Of an unwanted body, to keep the connection.
    pub drain_bytes: u64,
    /// Connections at once.
    pub connections: usize,
    /// Whether bodies of requests may come in chunks; else that is 411.
    pub takes_chunks: bool,
    /// Connections of each listener whose peers have said nothing yet.
    pub silent: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_bytes: limits::HTTP_HEAD_MAX_BYTES,
            headers: limits::HTTP_HEADERS_MAX,
            head_timeout: limits::HTTP_HEAD_TIMEOUT,
            body_timeout: limits::HTTP_BODY_TIMEOUT,
            idle_timeout: limits::HTTP_IDLE_TIMEOUT,
            write_timeout: limits::HTTP_WRITE_TIMEOUT,
            stalled_after: limits::HTTP_STALLED_AFTER,
            linger_timeout: limits::HTTP_LINGER_TIMEOUT,
            drain_bytes: limits::HTTP_DRAIN_BYTES,
            connections: limits::HTTP_CONNECTIONS_MAX,
            takes_chunks: false,
            silent: limits::HTTP_SILENT_MAX,
        }
    }
}

/// What a server has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpStats {
    /// Connections now.
    pub open: u64,
    /// Connections that got a place.
    pub accepted: u64,
    /// Connections that made room for a newer one.
    pub displaced: u64,
    /// Connections that were refused with 503.
    pub refused: u64,
    /// Connections that ended before there was TLS on them.
    pub handshakes_failed: u64,
    /// Requests that reached the handler.
    pub requests: u64,
    /// Requests over HTTP/2 that were refused unread.
    pub streams_refused: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    accepted: Counter,
    displaced: Counter,
    refused: Counter,
    handshakes_failed: Counter,
    pub(super) requests: Counter,
    pub(super) streams_refused: Counter,
}

/// What the threads of one server share.
pub(super) struct HttpShared {
    /// How the names of its threads begin.
    name: String,
    pub(super) limits: HttpLimits,
    tls: Option<Arc<TlsServer>>,
    no_tls: Throttle,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) registry: Registry,
    pub(super) counters: Counters,
    /// Threads of all HTTP/2 connections that run handlers.
    #[cfg(feature = "http2")]
    pub(super) helpers: Arc<AtomicUsize>,
    /// How often threads of HTTP/2 connections had something to do.
    #[cfg(all(test, feature = "http2"))]
    pub(super) http2_turns: AtomicUsize,
}

impl HttpShared {
    fn stats(&self) -> HttpStats {
        let counters = &self.counters;
        HttpStats {
            open: self.registry.open() as u64,
            accepted: counters.accepted.get(),
            displaced: counters.displaced.get(),
            refused: counters.refused.get(),
            handshakes_failed: counters.handshakes_failed.get(),
            requests: counters.requests.get(),
            streams_refused: counters.streams_refused.get(),
        }
    }

    /// Gives a connection a place and a thread; `permit` goes with the thread.
    ///
    /// # Blocks
    /// At most a second, while another connection makes room.
    fn admit(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        peer: Peer,
        permit: Option<CountedPermit>,
    ) -> Result<(), NotAdmitted> {
        let admitted = self.registry.admit(stream, |id, slot| {
            let (stream, shared) = (Arc::clone(stream), Arc::clone(self));
            thread::spawn(format!("{}-{}", self.name, id % 1_000_000), move || {
                // Here, so that a peer that has its answer finds itself counted.
                shared.counters.accepted.inc();
                let _leave = Leave { shared: Arc::clone(&shared), id, _permit: permit };
                if let Some(stream) = shared.secured(stream, peer, &slot) {
                    Connection::new(Socket::new(stream), peer, id, slot, shared).run();
                }
            })
        });
        let counters = &self.counters;
        match &admitted {
            Ok(is_displacing) => counters.displaced.add(u64::from(*is_displacing)),
            Err(_) => counters.refused.inc(),
        }
        admitted.map(drop)
    }
}

impl HttpShared {
    /// The connection as its requests come over it: over TLS if the server speaks that, and the
    /// connection is none of this host's; `None` if there is no handshake.
    ///
    /// # Blocks
    /// For the handshake, as long as for the head of a request.
    fn secured(
        &self,
        stream: Arc<Stream>,
        peer: Peer,
        slot: &ConnectionSlot,
    ) -> Option<Arc<Stream>> {
        let (Some(tls), Peer::Tcp(_)) = (&self.tls, peer) else { return Some(stream) };
        // It makes room for another as one that is slow with its head does.
        if !slot.enter(Doing::Waiting, self.registry.now_us()) {
            return None;
        }
        match tls.accept(stream, Instant::now() + self.limits.head_timeout) {
            Ok(stream) => Some(Arc::new(stream)),
            Err(error) => {
                self.counters.handshakes_failed.inc();
                if let Some(count) = self.no_tls.record(Instant::now()) {
                    log::info!(
                        "{}: {count} connections without TLS, the last of {peer}: {error}",
                        self.name
                    );
                }
                None
            }
        }
    }
}

/// A look at a server's figures, such as for its own handler to show them.
pub struct HttpWatch(Weak<HttpShared>);

impl HttpWatch {
    /// The figures; `None` once the server is gone.
    pub fn stats(&self) -> Option<HttpStats> {
        self.0.upgrade().map(|shared| shared.stats())
    }
}

/// A running server. Dropping it shuts it down at once.
pub struct HttpServer {
    shared: Arc<HttpShared>,
    local_addr: SocketAddr,
    acceptor: Lock<Option<OwnedThread>>,
    /// Closed, it wakes the acceptor, which has the other end.
    wake: UnixStream,
}

impl HttpServer {
    /// Connections that wait for their peer.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.registry.waiting()
    }

    /// How often threads of HTTP/2 connections had something to do, and how many helpers they have.
    #[cfg(all(test, feature = "http2"))]
    pub(super) fn http2_figures(&self) -> (usize, usize) {
        let order = std::sync::atomic::Ordering::SeqCst;
        (self.shared.http2_turns.load(order), self.shared.helpers.load(order))
    }

    /// Starts to serve a listener. `name` starts the names of the threads; at most 6 bytes of it
    /// are seen.
    ///
    /// # Errors
    /// The listener is unusable, or there is no thread for it.
    pub fn start(
        listener: TcpListener,
        name: &str,
        limits: HttpLimits,
        handler: Arc<dyn Handler>,
    ) -> io::Result<HttpServer> {
        Self::start_over(listener, None, name, limits, handler)
    }

    /// As [`HttpServer::start`], over TLS and nothing else.
    ///
    /// # Errors
    /// As those of [`HttpServer::start`].
    pub fn start_over(
        listener: TcpListener,
        tls: Option<Arc<TlsServer>>,
        name: &str,
        limits: HttpLimits,
        handler: Arc<dyn Handler>,
    ) -> io::Result<HttpServer> {
        let local_addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        // Listening again only changes the length of the queue, which std fixes at 128.
        rustix::net::listen(&listener, limits::HTTP_BACKLOG)?;
        let registry = Registry::new(limits.connections, limits.stalled_after);
        let (name, counters) = (name.chars().take(6).collect(), Counters::default());
        let shared = Arc::new(HttpShared {
            name,
            limits,
            tls,
            no_tls: Throttle::default(),
            handler,
            registry,
            counters,
            #[cfg(feature = "http2")]
            helpers: Arc::default(),
            #[cfg(all(test, feature = "http2"))]
            http2_turns: AtomicUsize::new(0),
        });
        let (wake, woken) = UnixStream::pair()?;
        let acceptor = Acceptor {
            listener,
            woken,
            shared: Arc::clone(&shared),
            silent: VecDeque::new(),
            refused: VecDeque::new(),
            warned: None,
        };
        let thread = thread::spawn(format!("{}-accept", shared.name), move || acceptor.run())?;
        Ok(HttpServer { shared, local_addr, acceptor: Lock::new(Some(thread)), wake })
    }

    /// Serves a connection that was made in another way than by connecting, within the same bounds;
    /// false if there is no room. `permit` is let go of when its thread ends.
    ///
    /// # Blocks
    /// At most a second, while another connection makes room.
    pub fn serve(&self, stream: Stream, peer: Peer, permit: CountedPermit) -> bool {
        !self.shared.registry.is_stopping()
            && self.shared.admit(&Arc::new(stream), peer, Some(permit)).is_ok()
    }

    /// Where it listens with TCP.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Figures for metrics.
    pub fn stats(&self) -> HttpStats {
        self.shared.stats()
    }

    /// A look at its figures that does not own it.
    pub fn watch(&self) -> HttpWatch {
        HttpWatch(Arc::downgrade(&self.shared))
    }

    /// Stops accepting, closes every connection that waits for its peer, and lets requests under
    /// way be answered; true if all were before the deadline. The port is free afterwards.
    ///
    /// # Blocks
    /// Until the last request was answered, or `deadline`.
    pub fn drain(&self, deadline: Instant) -> bool {
        self.shared.registry.stop();
        self.stop_acceptor();
        // Those that were admitted between the two.
        self.shared.registry.stop();
        self.shared.registry.wait_until_empty(deadline)
    }

    /// Drains until the deadline, then closes every socket and joins every thread. A second call
    /// does nothing.
    ///
    /// # Blocks
    /// Until `deadline`, and beyond it for as long as a handler that is still running takes:
    /// the code that made it wait must end its wait.
    pub fn shutdown(&self, deadline: Instant) {
        let mut is_empty = self.drain(deadline);
        while !is_empty {
            self.shared.registry.shut_down_all();
            is_empty = self.shared.registry.wait_until_empty(Instant::now() + WARN_EVERY);
            if !is_empty {
                log::warn!(
                    "{}: {} handlers are still running",
                    self.local_addr,
                    self.shared.registry.open()
                );
            }
        }
        self.shared.registry.join_ended(0);
    }

    /// Wakes the acceptor and waits for its end.
    fn stop_acceptor(&self) {
        // It cannot fail but for being done already.
        let _ = self.wake.shutdown(Shutdown::Both);
        drop(self.acceptor.lock().take());
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shutdown(Instant::now());
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpServer({})", self.local_addr)
    }
}

/// The thread that accepts.
struct Acceptor {
    listener: TcpListener,
    woken: UnixStream,
    shared: Arc<HttpShared>,
    /// Whose peers have said nothing yet, the oldest first. Bound: [`HttpLimits::silent`].
    silent: VecDeque<(Instant, Stream, Peer)>,
    refused: VecDeque<Stream>,
    warned: Option<Instant>,
}

impl Acceptor {
    /// Accepts until the server stops.
    ///
    /// # Blocks
    /// See [`Acceptor::wait`]. In the pause after an error; the wake-up is the registry's.
    fn run(mut self) {
        while !self.shared.registry.is_stopping() {
            for (stream, peer) in self.wait() {
                self.admit(stream, peer);
            }
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    // Not everywhere does a socket begin as blocking if its listener is not. It
                    // fails only if the peer has gone.
                    let _ = stream.set_nonblocking(false);
                    self.keep(stream.into(), peer.into());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The peer gave up while it waited; the next one need not suffer.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.warn(&format!("cannot accept connections: {error}"));
                    // Most likely descriptors ran out: one that is closed helps, and the pause
                    // keeps us from spinning.
                    self.refused.clear();
                    self.silent.pop_front();
                    let displaced = self.shared.registry.displace_or_pause(ACCEPT_PAUSE);
                    self.shared.counters.displaced.add(u64::from(displaced));
                }
            }
        }
    }

    /// Waits until a peer connects, and returns the connections on which something has arrived.
    ///
    /// # Blocks
    /// The wake-ups are the other end of `woken`, and the end of the patience with a silent peer.
    fn wait(&mut self) -> Vec<(Stream, Peer)> {
        let patience = self.shared.limits.head_timeout;
        let left = self.silent.front().map(|(since, ..)| patience.saturating_sub(since.elapsed()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut waited = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        waited.extend(self.silent.iter().map(|(_, stream, _)| PollFd::new(stream, PollFlags::IN)));
        // A signal, if it fails.
        let _ = poll(&mut waited, left.as_ref());
        let speaks: Vec<bool> = waited[2..].iter().map(|one| !one.revents().is_empty()).collect();
        let mut spoken = Vec::new();
        for ((since, stream, peer), speaks) in
            std::mem::take(&mut self.silent).into_iter().zip(speaks)
        {
            if speaks {
                spoken.push((stream, peer));
            } else if since.elapsed() < patience {
                self.silent.push_back((since, stream, peer));
            }
        }
        spoken
    }

    /// Keeps a new connection until its peer says something. It needs no thread for that, so there
    /// is room for many; of too many the oldest is told to come again.
    fn keep(&mut self, stream: Stream, peer: Peer) {
        self.silent.push_back((Instant::now(), stream, peer));
        if self.silent.len() > self.shared.limits.silent
            && let Some((_, stream, peer)) = self.silent.pop_front()
        {
            self.shared.counters.refused.inc();
            self.warn("too many connections say nothing: the oldest are refused");
            self.refuse(stream, peer);
        }
    }

    fn admit(&mut self, stream: Stream, peer: Peer) {
        // Without it a small response can wait 40 ms for an acknowledgement. It fails only if the
        // peer has gone.
        let _ = stream.set_nodelay();
        let stream = Arc::new(stream);
        match self.shared.admit(&stream, peer, None) {
            Ok(()) => return,
            Err(NotAdmitted::Full) => self.warn("every connection is busy: new ones are refused"),
            Err(NotAdmitted::NoThread(error)) => {
                self.warn(&format!("no thread for a connection: {error}"))
            }
        }
        if let Ok(stream) = Arc::try_unwrap(stream) {
            self.refuse(stream, peer);
        }
    }

    /// Answers 503 without blocking, and keeps the socket a while: closed at once with the peer's
    /// request unread, it would take the answer with it.
    fn refuse(&mut self, mut stream: Stream, peer: Peer) {
        if self.shared.tls.is_some() {
            // No answer can be read before a handshake, for which there is no thread.
            return;
        }
        let response = self.shared.handler.refuse(&TOO_MANY, peer);
        let is_written =
            stream.set_nonblocking(true).and_then(|()| stream.write_all(&full_text(response)));
        if is_written.is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
            if self.refused.len() >= REFUSED_KEPT {
                self.refused.pop_front();
            }
            self.refused.push_back(stream);
        }
    }

    fn warn(&mut self, text: &str) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            log::warn!("{}: {text}", self.shared.name);
        }
    }
}

/// Takes a connection out of the registry as the last act of its thread, also when that panics.
struct Leave {
    shared: Arc<HttpShared>,
    id: u64,
    _permit: Option<CountedPermit>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.registry.leave(self.id);
    }
}
