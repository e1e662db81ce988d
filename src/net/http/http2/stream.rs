//! A request and its answer on the connection's thread: frames in and out, as far as both windows
//! and the handler let them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode};

use super::Shared;
use super::exchange::{Exchange, RequestBody};
use super::helpers::{HelperJob, Helpers};
use crate::base::thread::panic_message;
use crate::net::http::body::BodyError;
use crate::net::http::head::{self, Framing, Refusal, RequestHead};
use crate::net::http::response::{Response, ResponseBody, date, header_value};
use crate::net::http::{Handler, Method, ask};

/// Headers about a connection, which HTTP/2 has not.
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Runs a request's handler; on one of the connection's helpers.
fn handle(shared: &Shared, exchange: &Exchange, head: &RequestHead, framing: Framing) {
    let limits = &shared.http.limits;
    let handler: &dyn Handler = &*shared.http.handler;
    if exchange.is_over() {
        return;
    }
    let mut body = RequestBody {
        exchange,
        length: framing.length,
        awaits_invitation: framing.expects_continue,
        timeout: limits.body_timeout,
    };
    let response = match ask(handler, head, &mut body) {
        Ok(response) if response.upgrade.is_some() => {
            handler.refuse(&Refusal::new(426, "an upgrade needs HTTP/1.1"), shared.peer)
        }
        Ok(response) => response,
        Err(refusal) => handler.refuse(&refusal, shared.peer),
    };
    let is_head = head.method() == Method::Head;
    let parts = head_of(&response);
    let answer = || exchange.answer(parts, response, is_head, limits.write_timeout);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(answer)) {
        log::error!("the answer to {head:?} panicked: {}", panic_message(payload.as_ref()));
        exchange.break_off();
    }
}

/// The head of an answer, without what is HTTP/1.1's.
fn head_of(response: &Response) -> Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(response.status).unwrap_or_default();
    let mut add = |name: HeaderName, value: &str| {
        // Without controls each text is a value.
        if let Ok(value) = HeaderValue::from_bytes(header_value(value).as_bytes()) {
            parts.headers.append(name, value);
        }
    };
    add(DATE, &date());
    if !response.content_type.is_empty() {
        add(CONTENT_TYPE, response.content_type);
    }
    if let ResponseBody::Bytes(bytes) = &response.body
        && response.status != 204
    {
        add(CONTENT_LENGTH, &bytes.len().to_string());
    }
    for (name, value) in &response.headers {
        if !OF_CONNECTIONS.iter().any(|one| name.eq_ignore_ascii_case(one))
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            add(name, value);
        }
    }
    parts
}

/// What carries one request and its answer.
pub(super) struct Carrier {
    shared: Arc<Shared>,
    exchange: Arc<Exchange>,
    /// The handler, which does not run yet.
    to_do: Option<HelperJob>,
    respond: SendResponse<Bytes>,
    body: RecvStream,
    sending: Option<SendStream<Bytes>>,
    /// Bytes of the body that no handler wanted.
    discarded: u64,
    /// The peer said that it waits before it sends the body, and was not told to go on.
    awaits_invitation: bool,
    /// All of the answer was sent.
    is_sent: bool,
}

impl Carrier {
    /// Takes a request, to be answered by one of the helpers.
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        shared: &Arc<Shared>,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let mut carrier = Self {
            shared: shared.clone(),
            exchange: Arc::default(),
            to_do: None,
            respond,
            body,
            sending: None,
            discarded: 0,
            awaits_invitation: false,
            is_sent: false,
        };
        let exchange = carrier.exchange.clone();
        let (mut head, framing) =
            match head::of_http2(&parts, shared.peer, shared.http.limits.headers) {
                Ok(request) => request,
                Err(refusal) => {
                    log::debug!("refused {}: {} {}", shared.peer, refusal.status, refusal.text);
                    let response = shared.http.handler.refuse(&refusal, shared.peer);
                    let is_head = parts.method == http::Method::HEAD;
                    let timeout = shared.http.limits.write_timeout;
                    exchange.answer(head_of(&response), response, is_head, timeout);
                    return carrier;
                }
            };
        head.set_peer_certificate(shared.certificate.clone());
        carrier.awaits_invitation = framing.expects_continue;
        shared.http.counters.requests.inc();
        let shared = shared.clone();
        carrier.to_do = Some(Box::new(move || handle(&shared, &exchange, &head, framing)));
        carrier
    }

    /// Has one of the helpers answer, unless one does already, or more of its body may be there and
    /// was not looked at (`is_looked_at`); false if there is none.
    pub(super) fn start(&mut self, is_looked_at: bool, helpers: &mut Helpers) -> bool {
        let may_start = is_looked_at || self.exchange.state.lock().body_end.is_some();
        let to_do = if may_start { self.to_do.take() } else { None };
        let is_taken = to_do.is_none_or(|to_do| helpers.run(to_do));
        if !is_taken {
            self.respond.send_reset(Reason::REFUSED_STREAM);
        }
        is_taken
    }

    /// Whether its handler has done its part.
    pub(super) fn is_answered(&self) -> bool {
        self.exchange.state.lock().is_answered
    }

    /// When the peer has to have taken the answer, or to have sent the rest of its body.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exchange.state.lock().deadline
    }

    /// Goes on as far as it goes; an error if the peer took the request back, or its answer cannot
    /// be sent.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let reset = match &mut self.sending {
            Some(sending) => sending.poll_reset(context),
            None => self.respond.poll_reset(context),
        };
        match reset {
            // What it does with the rest of its body is its own affair.
            Poll::Ready(_) if self.is_sent => return Poll::Ready(Ok(())),
            Poll::Ready(reason) => return Poll::Ready(Err(reason?.into())),
            Poll::Pending => {}
        }
        if self.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            return Poll::Ready(if self.is_sent { Ok(()) } else { self.reset(Reason::CANCEL) });
        }
        self.exchange.state.lock().waker = Some(context.waker().clone());
        match self.take_body(context) {
            Err(_) if self.is_sent => return Poll::Ready(Ok(())),
            taken => taken?,
        }
        if !self.is_sent {
            ready!(self.send_answer(context))?;
            self.is_sent = true;
            self.exchange.end();
            let time = self.shared.http.limits.body_timeout;
            self.exchange.state.lock().deadline = Some(Instant::now() + time);
        }
        // Until its body ended the stream stays: to a peer that is still sending an early end of it
        // may look like a failure, although it has its answer.
        let has_ended = self.exchange.state.lock().body_end.is_some();
        if has_ended || self.awaits_invitation { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn reset(&mut self, reason: Reason) -> Result<(), h2::Error> {
        self.respond.send_reset(reason);
        Err(reason.into())
    }

    /// Takes what has arrived of the body, for the handler or, once that has answered, for none.
    fn take_body(&mut self, context: &mut Context<'_>) -> Result<(), h2::Error> {
        let mut state = self.exchange.state.lock();
        if std::mem::take(&mut state.is_invited) && std::mem::take(&mut self.awaits_invitation) {
            let mut go_on = http::Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            self.respond.send_informational(go_on)?;
        }
        let mut taken = std::mem::take(&mut state.taken);
        while state.body_end.is_none() {
            if state.is_answered {
                taken += std::mem::take(&mut state.received).len();
            }
            if taken > 0 {
                self.body.flow_control().release_capacity(std::mem::take(&mut taken))?;
            }
            match self.body.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => {
                    self.awaits_invitation = false;
                    self.shared.traffic.count_body(data.len());
                    state.received.extend_from_slice(&data);
                    self.discarded += if state.is_answered { data.len() as u64 } else { 0 };
                    if self.discarded > self.shared.http.limits.drain_bytes {
                        state.body_end = Some(Err(BodyError::TooLarge));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(None) => state.body_end = Some(Ok(())),
                Poll::Pending => break,
            }
            self.exchange.notify();
        }
        Ok(())
    }

    fn send_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let exchange = self.exchange.clone();
        let mut state = exchange.state.lock();
        if state.is_broken {
            return Poll::Ready(self.reset(Reason::INTERNAL_ERROR));
        }
        if let Some(head) = state.head.take() {
            let is_all = state.is_whole && state.pieces.is_empty();
            let head = http::Response::from_parts(head, ());
            self.sending = Some(self.respond.send_response(head, is_all)?);
            if is_all {
                return Poll::Ready(Ok(()));
            }
        }
        let Some(sending) = &mut self.sending else { return Poll::Pending };
        while let Some(piece) = state.pieces.front_mut() {
            sending.reserve_capacity(piece.len());
            while sending.capacity() == 0 {
                match ready!(sending.poll_capacity(context)) {
                    Some(capacity) => drop(capacity?),
                    None => return Poll::Ready(self.reset(Reason::CANCEL)),
                }
            }
            let part = piece.split_to(sending.capacity().min(piece.len()));
            self.shared.traffic.count_body(part.len());
            if piece.is_empty() {
                state.pieces.pop_front();
                state.renew();
                exchange.notify();
            }
            let is_last = state.is_whole && state.pieces.is_empty();
            sending.send_data(part, is_last)?;
            if is_last {
                return Poll::Ready(Ok(()));
            }
        }
        if state.is_whole {
            sending.send_data(Bytes::new(), true)?;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.exchange.end();
    }
}
