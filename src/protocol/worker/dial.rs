//! How a worker reaches its master: by an address, by addresses that were found once, or through
//! the broker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::broker::{Ask, Broker};
use crate::net::link::connect_tcp;
use crate::net::stream::tls::TlsClient;
use crate::net::stream::{Stream, unix_path};

/// The way to a master.
#[derive(Debug, Clone)]
pub enum Dial {
    /// By `host:port`, which is looked up anew each time, or by `unix:PATH`.
    Address(String),
    /// By addresses that a name had; a process in a sandbox cannot look it up again.
    Found(String, Vec<SocketAddr>),
    /// Through connections that the master hands out to its own workers.
    Broker(Arc<Broker>),
    /// Over TLS, by an address.
    Tls(Box<Dial>, TlsClient),
}

impl Dial {
    /// What the master is called in a request.
    pub(super) fn host(&self) -> &str {
        match self {
            Dial::Address(address) | Dial::Found(address, _) if self.unix_path().is_none() => {
                address
            }
            Dial::Tls(address, _) => address.host(),
            _ => "localhost",
        }
    }

    /// Whether a token may travel only where no log keeps it: others read it in the query alone.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Dial::Tls(..))
    }

    /// What is trusted and shown on it, over TLS.
    pub fn tls(&self) -> Option<&TlsClient> {
        if let Dial::Tls(_, client) = self { Some(client) } else { None }
    }

    /// Makes of a connection what the way asks for.
    ///
    /// # Blocks
    /// For a handshake, until `deadline`; `shutdown` of the socket is the wake-up.
    ///
    /// # Errors
    /// The master cannot be trusted, or is gone.
    pub(super) fn secure(&self, socket: Stream, deadline: Instant) -> io::Result<Stream> {
        let Dial::Tls(address, client) = self else { return Ok(socket) };
        let host = address.host();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        client.connect(Arc::new(socket), host, deadline)
    }

    /// The path of the master's Unix socket, if that is the way.
    pub fn unix_path(&self) -> Option<&Path> {
        if let Dial::Address(address) = self { unix_path(address) } else { None }
    }

    /// A new connection for a link, and by when its handshake must be done. The time for that
    /// begins when the name has been looked up, for which the system takes its own.
    ///
    /// # Errors
    /// The master cannot be reached.
    pub(super) fn open_link(&self, timeout: Duration) -> io::Result<(Stream, Instant)> {
        let begun = Instant::now();
        match self {
            Dial::Broker(broker) => Ok((broker.connect(Ask::Link, timeout)?, begun + timeout)),
            Dial::Tls(address, _) => address.open_link(timeout),
            Dial::Found(_, addresses) => Ok((connect_tcp(addresses, timeout)?, begun + timeout)),
            Dial::Address(address) => match unix_path(address) {
                Some(path) => Ok((Stream::connect_unix(path, timeout)?, begun + timeout)),
                None => {
                    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
                    let deadline = Instant::now() + timeout;
                    Ok((connect_tcp(&addresses, timeout)?, deadline))
                }
            },
        }
    }

    /// The same way; if it is by a name, by the addresses that it has now.
    ///
    /// # Blocks
    /// As long as the system takes for it.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn found(self) -> io::Result<Self> {
        match self {
            Dial::Address(address) if is_name(&address) => {
                let addresses = address.to_socket_addrs()?.collect();
                Ok(Dial::Found(address, addresses))
            }
            Dial::Tls(address, client) => Ok(Dial::Tls(Box::new(address.found()?), client)),
            other => Ok(other),
        }
    }
}

fn is_name(address: &str) -> bool {
    unix_path(address).is_none() && address.parse::<SocketAddr>().is_err()
}

impl<A: Into<String>> From<A> for Dial {
    fn from(address: A) -> Self {
        Dial::Address(address.into())
    }
}

impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dial::Address(address) | Dial::Found(address, _) => f.write_str(address),
            Dial::Broker(_) => f.write_str("by broker"),
            Dial::Tls(address, _) => write!(f, "tls:{address}"),
        }
    }
}
