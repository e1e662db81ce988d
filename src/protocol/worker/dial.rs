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
}

impl Dial {
    /// What the master is called in a request.
    pub(super) fn host(&self) -> &str {
        match self {
            Dial::Address(address) | Dial::Found(address, _) if self.unix_path().is_none() => {
                address
            }
            _ => "localhost",
        }
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
        }
    }
}
