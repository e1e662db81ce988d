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
mod traffic;

use std::future::Future;
use std::io::Read;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection};

use super::registry::{ConnectionSlot, Doing};
use super::server::HttpShared;
use crate::base::limits;
use crate::net::stream::{Peer, Stream, is_again};
use helpers::Helpers;
use io::{Alarm, Http2Socket};
use stream::Carrier;
use traffic::SocketTraffic;

/// A connection is going away for so long at most, once nothing is under way on it.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(100);

/// What a client says first, as far as it looks like the head of a request.
pub(super) const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What a connection and its requests share.
struct Shared {
    http: Arc<HttpShared>,
    peer: Peer,
    certificate: Option<Arc<[u8]>>,
    traffic: Arc<SocketTraffic>,
    slot: Arc<ConnectionSlot>,
}

impl Shared {
    /// Whether the connection is to end soon.
    fn is_wanted_away(&self) -> bool {
        self.http.registry.is_stopping() || self.slot.is_displaced()
    }
}

/// The part of a connection that is polled.
struct Http2 {
    connection: Connection<Http2Socket, Bytes>,
    shared: Arc<Shared>,
    // Before the threads that wait for them.
    carriers: Vec<Carrier>,
    helpers: Helpers,
    alarm: Arc<Alarm>,
    /// What it has said to be doing.
    doing: Doing,
    /// Bytes of bodies that had gone over it when it last said so.
    carried: u64,
    /// Requests that the peer took back, less those that it let be answered.
    taken_back: u32,
    /// Since when nothing is under way.
    idle_since: Instant,
    /// Since when it takes no more requests, or, later, since when none is under way.
    leaving: Option<Instant>,
    /// Nothing is to be said but what is on its way.
    is_last_word_said: bool,
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
    let traffic = Arc::new(SocketTraffic::default());
    let Ok((alarm, socket)) = io::open(stream.clone(), read_ahead, traffic.clone()) else { return };
    slot.wake_by(alarm.clone().into());
    // Until there is a request it may be displaced.
    if !slot.enter(Doing::Waiting, http.registry.now_us()) {
        return;
    }
    let certificate = stream.peer_certificate().map(Arc::from);
    let shared = Arc::new(Shared { http, peer, certificate, traffic, slot });
    let Some(connection) = begin(&shared, &alarm, socket) else { return };
    Http2::new(connection, shared.clone(), alarm.clone()).run();
    shared.slot.enter(Doing::Waiting, shared.http.registry.now_us());
    linger(&shared, &stream, &alarm);
}

/// Sends and takes what comes before the first request; `None` if it does not come.
fn begin(
    shared: &Shared,
    alarm: &Arc<Alarm>,
    socket: Http2Socket,
) -> Option<Connection<Http2Socket, Bytes>> {
    let waker = Waker::from(alarm.clone());
    let deadline = Instant::now() + shared.http.limits.head_timeout;
    let mut handshake = pin!(limited(shared).handshake::<_, Bytes>(socket));
    loop {
        match handshake.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(connection) => return connection.ok(),
            Poll::Pending if Instant::now() >= deadline || shared.is_wanted_away() => return None,
            Poll::Pending => alarm.wait(Some(deadline)),
        }
    }
}

/// Lets the peer read what was said last: a socket that is closed while bytes arrive resets the
/// connection, and the peer's kernel throws away what the peer has not read.
///
/// # Blocks
/// Until the peer has closed too, or has had its time.
fn linger(shared: &Shared, mut stream: &Stream, alarm: &Alarm) {
    // It fails only if the peer has gone, which is as good.
    let _ = stream.shutdown(Shutdown::Write);
    shared.traffic.begin_to_linger();
    let since = Instant::now();
    let mut unwanted = [0; 8 * 1024];
    loop {
        let is_wanted_away = shared.is_wanted_away();
        let limits = &shared.http.limits;
        let patience = if is_wanted_away { FAREWELL_TIMEOUT } else { limits.linger_timeout };
        let deadline = since + patience;
        if Instant::now() >= deadline {
            return;
        }
        match stream.read(&mut unwanted) {
            Ok(1..) => {}
            Err(error) if is_again(&error) => alarm.wait(Some(deadline)),
            Ok(0) | Err(_) => return,
        }
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
        .max_local_error_reset_streams(Some(limits::HTTP2_BROKEN_MAX))
        .reset_stream_duration(Duration::from_secs(5));
    builder
}

impl Http2 {
    fn new(
        connection: Connection<Http2Socket, Bytes>,
        shared: Arc<Shared>,
        alarm: Arc<Alarm>,
    ) -> Self {
        Self {
            connection,
            carriers: Vec::new(),
            helpers: Helpers::new(shared.http.helpers.clone()),
            alarm,
            shared,
            doing: Doing::Waiting,
            carried: 0,
            taken_back: 0,
            idle_since: Instant::now(),
            leaving: None,
            is_last_word_said: false,
        }
    }

    /// Serves it until it ends.
    ///
    /// # Blocks
    /// Until then, and until its handlers have ended.
    fn run(mut self) {
        let waker = Waker::from(self.alarm.clone());
        while !self.advance(&mut Context::from_waker(&waker)) {
            self.alarm.wait(self.deadline());
            #[cfg(test)]
            self.shared.http.http2_turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Goes on as far as it goes without waiting; true at the connection's end.
    fn advance(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            // Here all that came was looked at, and all that was said is on its way: so the last
            // request that a farewell names is the last that got an answer.
            self.consider_leaving();
            if self.go_on(context) {
                return true;
            }
            // A stop that came before did not see this connection waiting.
            if self.why_leave().is_none() {
                return self.is_over();
            }
        }
    }

    /// Takes requests and lets them go on; true at the connection's end.
    fn go_on(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            // What it was woken for so far is seen in this round.
            self.alarm.take_goes_on();
            let has_request = match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.accept(request, respond, context);
                    true
                }
                // Everything was said; or the peer broke a rule, and was told which.
                Poll::Ready(Some(Err(_)) | None) => return true,
                Poll::Pending => false,
            };
            let has_ended = self.carry(context);
            // Not before what came of its body was taken, for which its handler would have to wait.
            self.carriers.retain_mut(|carrier| {
                let is_taken = carrier.start(!has_request, &mut self.helpers);
                self.shared.http.counters.streams_refused.add(u64::from(!is_taken));
                is_taken
            });
            if !has_ended && !has_request && !self.alarm.take_goes_on() {
                return false;
            }
        }
    }

    /// Lets each request go on; true if one has ended.
    fn carry(&mut self, context: &mut Context<'_>) -> bool {
        let before = self.carriers.len();
        let taken_back = &mut self.taken_back;
        self.carriers.retain_mut(|carrier| match carrier.poll(context) {
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
        let has_ended = self.carriers.len() < before;
        if has_ended {
            self.shared.traffic.count_progress();
        }
        self.say_doing(has_ended);
        has_ended
    }

    /// Says what the connection is doing, for one that looks for a place.
    fn say_doing(&mut self, has_ended: bool) {
        let doing = match &self.carriers[..] {
            [] => Doing::Waiting,
            carriers if carriers.iter().all(Carrier::is_answered) => Doing::Writing,
            _ => Doing::Answering,
        };
        let carried = self.shared.traffic.carried();
        // A peer that takes its answers is none that is stuck.
        let goes_on = doing == Doing::Writing && carried != self.carried;
        if doing == Doing::Waiting && has_ended {
            self.idle_since = Instant::now();
            self.leaving = self.leaving.map(|_| self.idle_since);
        }
        if doing != self.doing || goes_on {
            self.enter(doing);
            self.carried = carried;
        }
    }

    /// Takes a request, unless the connection is on its way out, or the peer has changed its mind.
    fn accept(
        &mut self,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
        context: &mut Context<'_>,
    ) {
        if respond.poll_reset(context).is_ready() {
            self.taken_back += 1;
            return;
        }
        if self.leaving.is_some() || !self.enter(Doing::Answering) {
            self.shared.http.counters.streams_refused.inc();
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        self.shared.traffic.count_progress();
        self.carriers.push(Carrier::new(request, respond, &self.shared));
    }

    /// Why it is time to go: the peer keeps it busy with nothing, the server stops, a newer
    /// connection needs the place, or it has been idle for long.
    fn why_leave(&self) -> Option<Reason> {
        let is_late = self.deadline().is_some_and(|deadline| Instant::now() >= deadline);
        let is_wanted_away = self.leaving.is_none() && self.shared.is_wanted_away();
        if self.is_last_word_said {
            None
        } else if self.taken_back > limits::HTTP2_TAKEN_BACK_MAX || self.shared.traffic.is_waste() {
            Some(Reason::ENHANCE_YOUR_CALM)
        } else {
            let is_time = is_wanted_away || is_late && self.carriers.is_empty();
            is_time.then_some(Reason::NO_ERROR)
        }
    }

    /// Says goodbye if it is time.
    fn consider_leaving(&mut self) {
        let Some(reason) = self.why_leave() else { return };
        self.leaving = Some(Instant::now());
        if reason == Reason::NO_ERROR && !self.carriers.is_empty() {
            // Requests that are under way are answered; others the peer may send elsewhere.
            return self.connection.graceful_shutdown();
        }
        log::debug!("says goodbye to {}: {reason}", self.shared.peer);
        self.is_last_word_said = true;
        self.carriers.clear();
        self.connection.abrupt_shutdown(reason);
    }

    /// Until when this may go on without anything happening.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.shared.http.limits;
        let unsent = self.shared.traffic.unsent_since().map(|since| since + limits.write_timeout);
        let own = match self.leaving {
            _ if !self.carriers.is_empty() => {
                self.carriers.iter().filter_map(Carrier::deadline).min()
            }
            Some(leaving) => Some(leaving + FAREWELL_TIMEOUT),
            None => {
                // What the peer has begun to say has as long as a head of HTTP/1.1.
                let begun = self.shared.traffic.begun_since();
                let begun = begun.map(|begun| begun + limits.head_timeout);
                begun.into_iter().chain([self.idle_since + limits.idle_timeout]).min()
            }
        };
        own.into_iter().chain(unsent).min()
    }

    /// Whether the peer took nothing for too long, or had its time after the last word.
    fn is_over(&self) -> bool {
        let may_end = self.is_last_word_said || self.shared.traffic.unsent_since().is_some();
        may_end && self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn enter(&mut self, doing: Doing) -> bool {
        self.doing = doing;
        self.shared.slot.enter(doing, self.shared.http.registry.now_us())
    }
}
