//! Connections of an HTTP client to a port with TLS, under ureq, which has none of its own here.
//!
//! Runs on the thread that asks. Deadlines are ureq's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, LazyBuffers, NextTimeout,
    ShutdownHandle, Transport,
};
use ureq::{Agent, Error};

use super::link::connect_tcp;
use super::stream::tls::TlsClient;
use super::stream::{Stream, is_again};

/// Of a phase for which ureq knows no limit.
const PATIENCE: Duration = Duration::from_secs(600);

/// A client over TLS, if it is given; `http` stands in its URLs all the same.
pub fn agent(config: Config, tls: Option<TlsClient>, resolver: impl Resolver) -> Agent {
    match tls {
        None => Agent::with_parts(config, DefaultConnector::new(), resolver),
        Some(tls) => Agent::with_parts(config, TlsConnector(tls), resolver),
    }
}

#[derive(Debug)]
struct TlsConnector(TlsClient);

impl Connector<()> for TlsConnector {
    type Out = TlsTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<TlsTransport>, Error> {
        let deadline = deadline(details.timeout)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let socket = connect_tcp(&details.addrs, left)?;
        socket.set_nodelay()?;
        let host = details.uri.host().unwrap_or_default();
        let stream = Arc::new(self.0.connect(Arc::new(socket), host, deadline)?);
        let handle: Weak<dyn ShutdownHandle> = Arc::downgrade(&stream) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(handle)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(TlsTransport { stream, buffers }))
    }
}

impl ShutdownHandle for Stream {
    fn shutdown(&self) {
        // It fails only if the peer has gone, which is as good.
        let _ = Stream::shutdown(self, Shutdown::Both);
    }
}

struct TlsTransport {
    /// Shared, weakly, with the client, which may shut it down.
    stream: Arc<Stream>,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for TlsTransport {
    // Not what it carries: a request has a token in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let deadline = deadline(timeout)?;
        let mut unsent = &self.buffers.output()[..amount];
        while !unsent.is_empty() {
            let sent = until(deadline, timeout, |left| {
                self.stream.set_write_timeout(Some(left))?;
                (&*self.stream).write(unsent)
            })?;
            unsent = &unsent[sent..];
        }
        until(deadline, timeout, |left| {
            self.stream.set_write_timeout(Some(left))?;
            (&*self.stream).flush().map(|()| 0)
        })
        .map(drop)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let deadline = deadline(timeout)?;
        let (stream, input) = (&self.stream, self.buffers.input_append_buf());
        let got = until(deadline, timeout, |left| {
            stream.set_read_timeout(Some(left))?;
            (&**stream).read(input)
        });
        let got = match got {
            Err(Error::Io(error)) if is_break(error.kind()) => return Err(cut_off()),
            got => got?,
        };
        if got == 0 && stream.is_cut() {
            return Err(cut_off());
        }
        self.buffers.input_appended(got);
        Ok(got > 0)
    }

    fn is_open(&mut self) -> bool {
        !self.stream.is_at_end()
    }
}

fn is_break(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

/// An answer may be as long as its connection, and ureq takes any break for the end of that: of one
/// over TLS it is known that the rest is missing.
fn cut_off() -> Error {
    io::Error::new(ErrorKind::InvalidData, "the answer was cut off").into()
}

/// Tries again until something comes of it, or the deadline.
fn until(
    deadline: Instant,
    timeout: NextTimeout,
    mut call: impl FnMut(Duration) -> io::Result<usize>,
) -> Result<usize, Error> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        match call(left) {
            Err(error) if is_again(&error) => {}
            result => return Ok(result?),
        }
    }
}

fn deadline(timeout: NextTimeout) -> Result<Instant, Error> {
    if timeout.after.is_not_happening() {
        return Ok(Instant::now() + PATIENCE);
    }
    let left: Duration = *timeout.after;
    if left.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(Instant::now() + left)
}

#[cfg(feature = "tls")]
#[cfg(test)]
mod tests;
