//! One HTTP/2 connection, by the crate `h2` without a runtime.
//!
//! The connection's own thread, the one that read the preface, polls all of it and blocks in
//! `poll(2)` on the socket and a wake pipe. What blocks runs elsewhere: each request's handler has
//! a thread of the connection's [`Helpers`], where it waits for its body and hands over its answer
//! ([`Exchange`]). So handlers of one connection run side by side, and heads, limits, places and
//! the stop are those of HTTP/1.1.

mod exchange;
mod helpers;
mod io;
mod stream;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection};

use super::registry::{ConnectionSlot, Doing};
use super::server::HttpShared;
use crate::base::limits;
use crate::net::stream::{Peer, Stream};
use helpers::Helpers;
use io::{Http2Socket, SocketTraffic};

/// A connection is going away for so long at most, once nothing is under way on it.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(100);

/// What a client says first, as far as it looks like the head of a request.
pub(super) const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What a connection and its requests share.
struct Shared {
    http: Arc<HttpShared>,
    peer: Peer,
    traffic: Arc<SocketTraffic>,
}

type Exchanging = Pin<Box<dyn Future<Output = Result<(), h2::Error>>>>;

/// The part of a connection that is polled.
struct Http2 {
    connection: Connection<Http2Socket, Bytes>,
    shared: Arc<Shared>,
    slot: Arc<ConnectionSlot>,
    // Before the threads that wait for them.
    exchanges: Vec<Exchanging>,
    helpers: Helpers,
    /// Requests that the peer took back, less those that it let be answered.
    taken_back: u32,
    /// Since when nothing is under way.
    idle_since: Instant,
    /// Since when it takes no more requests.
    leaving: Option<Instant>,
}

/// Serves a connection whose first bytes, `read_ahead`, begin with [`PREFACE_HEAD`], until it ends.
///
/// # Blocks
/// As long as the connection lives, and then until its handlers have ended.
pub(super) fn serve(
    stream: Arc<Stream>,
    read_ahead: Vec<u8>,
    peer: Peer,
    slot: Arc<ConnectionSlot>,
    http: Arc<HttpShared>,
) {
    // Until there is a request it may be displaced.
    if !slot.enter(Doing::Waiting, http.registry.now_us()) {
        return;
    }
    let traffic = Arc::new(SocketTraffic::default());
    let Ok((alarm, socket)) = io::open(stream, read_ahead, traffic.clone()) else { return };
    let waker = Waker::from(alarm.clone());
    let deadline = Instant::now() + http.limits.head_timeout;
    let shared = Arc::new(Shared { http, peer, traffic });
    let mut handshake = pin!(limited(&shared).handshake::<_, Bytes>(socket));
    let connection = loop {
        match handshake.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(connection)) => break connection,
            Poll::Ready(Err(_)) => return,
            Poll::Pending if Instant::now() >= deadline || slot.is_displaced() => return,
            Poll::Pending => alarm.wait(Some(deadline)),
        }
    };
    let helpers = Helpers::new(shared.http.helpers.clone());
    let mut http2 = Http2 {
        connection,
        shared,
        slot,
        exchanges: Vec::new(),
        helpers,
        taken_back: 0,
        idle_since: Instant::now(),
        leaving: None,
    };
    while !http2.advance(&mut Context::from_waker(&waker)) {
        alarm.wait(http2.deadline());
    }
}

/// The limits of `h2`, none of which is left at its default.
fn limited(shared: &Shared) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .initial_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_WINDOW_BYTES)
        .max_frame_size(16 * 1024)
        .max_header_list_size(shared.http.limits.head_bytes as u32)
        .max_send_buffer_size(limits::HTTP2_SEND_BYTES)
        .max_concurrent_reset_streams(limits::HTTP2_STREAMS_MAX as usize)
        .max_pending_accept_reset_streams(limits::HTTP2_STREAMS_MAX as usize)
        .max_local_error_reset_streams(Some(limits::HTTP2_TAKEN_BACK_MAX as usize))
        .reset_stream_duration(Duration::from_secs(5));
    builder
}

impl Http2 {
    /// Goes on as far as it goes without waiting; true at the connection's end.
    fn advance(&mut self, context: &mut Context<'_>) -> bool {
        self.shared.traffic.begin();
        self.consider_leaving();
        loop {
            let mut goes_on = false;
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.accept(request, respond);
                    goes_on = true;
                }
                // Everything was said; or the peer broke a rule, and was told which.
                Poll::Ready(Some(Err(_)) | None) => return true,
                Poll::Pending => {}
            }
            let before = self.exchanges.len();
            let taken_back = &mut self.taken_back;
            self.exchanges.retain_mut(|exchange| match exchange.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => {
                    *taken_back = taken_back.saturating_sub(1);
                    false
                }
                Poll::Ready(Err(_)) => {
                    *taken_back += 1;
                    false
                }
            });
            if self.exchanges.len() < before {
                goes_on = true;
                self.shared.traffic.count_progress();
                self.settle();
            }
            if !goes_on {
                break;
            }
        }
        self.is_over()
    }

    /// Takes a request, unless the connection is on its way out.
    fn accept(
        &mut self,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        let is_first = self.exchanges.is_empty();
        if self.leaving.is_some() || is_first && !self.enter(Doing::Answering) {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        self.shared.traffic.count_progress();
        self.shared.http.counters.requests.inc();
        let exchange = stream::exchange(request, respond, self.shared.clone(), &self.helpers);
        self.exchanges.push(Box::pin(exchange));
    }

    /// After an exchange has ended: if it was the last, this connection may make room for another.
    fn settle(&mut self) {
        if self.exchanges.is_empty() {
            self.idle_since = Instant::now();
            let _ = self.enter(Doing::Waiting);
        }
    }

    /// Says goodbye at the server's stop, when it was displaced, when it has been idle for long, or
    /// when the peer keeps it busy with nothing.
    fn consider_leaving(&mut self) {
        let is_idle = self.exchanges.is_empty();
        let wasteful = self.taken_back > limits::HTTP2_TAKEN_BACK_MAX
            || self.shared.traffic.wasted() > limits::HTTP2_WASTED_BYTES;
        if self.leaving.is_none() && wasteful {
            log::debug!("{} asks much and wants nothing", self.shared.peer);
            self.leave(Reason::ENHANCE_YOUR_CALM);
        }
        let is_late = self.deadline().is_some_and(|deadline| Instant::now() >= deadline);
        let is_wanted_away = self.shared.http.registry.is_stopping() || self.slot.is_displaced();
        if self.leaving.is_none() && (is_wanted_away || is_idle && is_late) {
            if is_idle {
                return self.leave(Reason::NO_ERROR);
            }
            // Requests that are under way are answered; others the peer may send elsewhere.
            self.leaving = Some(Instant::now());
            self.connection.graceful_shutdown();
        }
    }

    /// Takes no more requests, says why, and ends.
    fn leave(&mut self, reason: Reason) {
        self.leaving = Some(Instant::now());
        self.exchanges.clear();
        self.connection.abrupt_shutdown(reason);
    }

    /// Until when this may go on without anything happening.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.shared.http.limits;
        if let Some(since) = self.shared.traffic.unsent_since() {
            return Some(since + limits.write_timeout);
        }
        if let Some(leaving) = self.leaving.filter(|_| self.exchanges.is_empty()) {
            return Some(leaving + FAREWELL_TIMEOUT);
        }
        // A peer that has begun to say something has as long as for a head of HTTP/1.1.
        let begun = self.shared.traffic.begun_since().map(|begun| begun + limits.head_timeout);
        let idle = self.idle_since + limits.idle_timeout;
        self.exchanges.is_empty().then(|| begun.map_or(idle, |begun| begun.min(idle)))
    }

    /// Whether the peer took nothing for too long, or the farewell was said.
    fn is_over(&self) -> bool {
        let may_end = self.leaving.is_some() || self.shared.traffic.unsent_since().is_some();
        may_end && self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn enter(&self, doing: Doing) -> bool {
        self.slot.enter(doing, self.shared.http.registry.now_us())
    }
}
