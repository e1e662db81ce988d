//! A small, strict, blocking HTTP server: a thread per connection, a deadline for every phase, a
//! bound on everything.
//!
//! Knows nothing of Mesophyll. Framing of HTTP/1.1 (`connection`, `head`, `body`, `response`) stays
//! apart from what is asked for ([`Handler`], [`router`]); `http2` is another framing under the
//! same handlers, for peers that begin with its preface. Deliberately without TLS and compression:
//! each is an attack surface that the callers here do not need.
//!
//! Request smuggling needs two parties that disagree on where a request ends. Here a request's
//! length is a single `Content-Length` of digits or nothing, or, where a server takes them, chunks
//! (`chunks`); everything that leaves room for a second reading (a length beside chunks or given
//! twice, another Transfer-Encoding, a bare line feed, a folded header) is refused, and after any
//! refusal the connection is closed.

mod body;
mod chunks;
mod connection;
mod date;
mod head;
#[cfg(feature = "http2")]
mod http2;
mod registry;
mod response;
pub mod router;
mod server;
mod socket;
mod target;

pub use body::{Body, BodyError};
pub use head::{Method, Refusal, RequestHead};
pub use response::{Response, ResponseBody};
pub use server::{HttpLimits, HttpServer, HttpStats, HttpWatch};

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::thread::panic_message;
use crate::net::stream::Peer;
use body::BodySource;

/// Decides what a request is answered. Called on the connection's own thread, one request of a
/// connection at a time; of an HTTP/2 connection on its helpers, several at once.
pub trait Handler: Send + Sync {
    /// Answers a request. The body has not been read: check first, then ask for it.
    ///
    /// # Blocks
    /// As long as the handler likes; a handler that waits has a wake-up of its own, since a
    /// server's shutdown can end its socket but not the handler.
    fn handle(&self, head: &RequestHead, body: &mut Body<'_>) -> Response;

    /// How to word the refusal of something that never became a request, such as a malformed head.
    /// The connection is closed after it. Called on the acceptor's thread too: it must not block.
    fn refuse(&self, refusal: &Refusal, _peer: Peer) -> Response {
        Response::text(refusal.status, refusal.text)
    }
}

/// Has a handler answer a request; the panic of one is an internal error, and logged.
fn ask(
    handler: &dyn Handler,
    head: &RequestHead,
    body: &mut dyn BodySource,
) -> Result<Response, Refusal> {
    let answer = catch_unwind(AssertUnwindSafe(|| handler.handle(head, &mut Body::new(body))));
    answer.map_err(|payload| {
        log::error!("the handler of {head:?} panicked: {}", panic_message(payload.as_ref()));
        Refusal::new(500, "internal error")
    })
}

#[cfg(test)]
pub(crate) mod tests;
