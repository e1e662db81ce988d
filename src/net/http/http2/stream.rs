//! A request and its answer on the connection's thread: frames in and out, as far as both windows
//! and the handler let them.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode};

use super::Shared;
use super::exchange::{Exchange, RequestBody};
use super::helpers::Helpers;
use crate::base::thread::panic_message;
use crate::net::http::body::{Body, BodyError};
use crate::net::http::date::imf_fixdate;
use crate::net::http::head::{self, Framing, Refusal, RequestHead};
use crate::net::http::response::{Reply, Response, ResponseBody};
use crate::net::http::{Handler, Method};

/// Headers about a connection, which HTTP/2 has not.
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Has a request answered: starts its handler, and then carries its body to it and its answer back.
/// An error if the peer took it back.
pub(super) fn exchange(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    helpers: &Helpers,
) -> impl Future<Output = Result<(), h2::Error>> + use<> {
    let (parts, body) = request.into_parts();
    let exchange = Arc::new(Exchange::default());
    let limits = &shared.http.limits;
    let is_refused = match head::of_http2(&parts, shared.peer, limits.headers) {
        Ok((head, framing)) => {
            let (shared, exchange) = (shared.clone(), exchange.clone());
            !helpers.run(Box::new(move || handle(&shared, &exchange, &head, framing)))
        }
        Err(refusal) => {
            let response = shared.http.handler.refuse(&refusal, shared.peer);
            let head = head_of(&response);
            if let ResponseBody::Bytes(body) = response.body {
                exchange.refuse(head, body);
            }
            false
        }
    };
    let mut carrier =
        Carrier { shared, exchange, respond, body, sending: None, discarded: 0, is_refused };
    poll_fn(move |context| carrier.poll(context))
}

/// Runs a request's handler; on one of the connection's helpers.
fn handle(shared: &Shared, exchange: &Exchange, head: &RequestHead, framing: Framing) {
    let limits = &shared.http.limits;
    let handler: &dyn Handler = &*shared.http.handler;
    let mut body = RequestBody { exchange, length: framing.length, timeout: limits.body_timeout };
    let reply = catch_unwind(AssertUnwindSafe(|| handler.handle(head, &mut Body::new(&mut body))));
    let response = match reply {
        Ok(Reply::Response(response)) => response,
        Ok(Reply::Upgrade(_)) => {
            handler.refuse(&Refusal::new(426, "an upgrade needs HTTP/1.1"), shared.peer)
        }
        Err(payload) => {
            log::error!("the handler of {head:?} panicked: {}", panic_message(payload.as_ref()));
            handler.refuse(&Refusal::new(500, "internal error"), shared.peer)
        }
    };
    let is_head = head.method() == Method::Head;
    exchange.answer(head_of(&response), response, is_head, limits.write_timeout);
}

/// The head of an answer, without what is HTTP/1.1's.
fn head_of(response: &Response) -> Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(response.status).unwrap_or_default();
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut add = |name: HeaderName, value: &str| {
        let value: String = value.chars().filter(|char| !char.is_control()).collect();
        // Without controls each text is a value.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            parts.headers.append(name, value);
        }
    };
    add(DATE, &imf_fixdate(unix_seconds));
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
struct Carrier {
    shared: Arc<Shared>,
    exchange: Arc<Exchange>,
    respond: SendResponse<Bytes>,
    body: RecvStream,
    sending: Option<SendStream<Bytes>>,
    /// Bytes of the body that no handler wanted.
    discarded: u64,
    /// There is no thread for its handler.
    is_refused: bool,
}

impl Carrier {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if self.is_refused {
            self.respond.send_reset(Reason::REFUSED_STREAM);
            return Poll::Ready(Ok(()));
        }
        let reset = match &mut self.sending {
            Some(sending) => sending.poll_reset(context),
            None => self.respond.poll_reset(context),
        };
        if let Poll::Ready(reason) = reset {
            return Poll::Ready(Err(reason?.into()));
        }
        self.exchange.state.lock().waker = Some(context.waker().clone());
        self.take_body(context)?;
        self.send_answer(context)
    }

    /// Takes what has arrived of the body, for the handler or, once that has answered, for none: a
    /// peer that is still sending reads its answer only then.
    fn take_body(&mut self, context: &mut Context<'_>) -> Result<(), h2::Error> {
        let mut state = self.exchange.state.lock();
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
        let mut state = self.exchange.state.lock();
        if state.is_given_up {
            self.respond.send_reset(Reason::CANCEL);
            return Poll::Ready(Ok(()));
        }
        if state.body_end.is_some()
            && let Some(head) = state.head.take()
        {
            let head = http::Response::from_parts(head, ());
            self.sending = Some(self.respond.send_response(head, false)?);
        }
        let Some(sending) = &mut self.sending else { return Poll::Pending };
        while let Some(piece) = state.pieces.front_mut() {
            sending.reserve_capacity(piece.len());
            if sending.capacity() == 0 && ready!(sending.poll_capacity(context)).is_none() {
                return Poll::Ready(Ok(()));
            }
            let part = piece.split_to(sending.capacity().min(piece.len()));
            if piece.is_empty() {
                state.pieces.pop_front();
                self.exchange.notify();
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
