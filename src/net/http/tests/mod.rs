//! The server against real sockets and raw bytes: what it accepts, what it refuses, and what it
//! does when peers misbehave.

mod attacks;
mod chunks;
pub(crate) mod client;
mod framing;
#[cfg(feature = "http2")]
mod http2;
mod lifecycle;
mod support;
#[cfg(feature = "tls")]
mod tls;
