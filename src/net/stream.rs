//! A connection over TCP, over a Unix socket, or over TLS on either: what `http/` and `link/` run
//! on.
//!
//! They differ in how they are made and what they are called, and in nothing that is done with
//! them. Deadlines are the business of the code that reads and writes; a stream has one owner,
//! which may lend it to others to shut it down.

#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "stream/no_tls.rs"]
pub mod tls;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send,
    sockopt,
};

use self::tls::TlsStream;

/// The path in an address of the form `unix:PATH`; `None`: it is `host:port`.
pub fn unix_path(address: &str) -> Option<&Path> {
    address.strip_prefix("unix:").map(Path::new)
}

/// Whether it is `host:port` or `unix:PATH`. A relative path would be another one for each peer
/// that connects.
pub fn names_a_listener(address: &str) -> bool {
    if let Some(path) = unix_path(address) {
        return path.is_absolute();
    }
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .and_then(|(_, port)| port.parse().ok());
    port.is_some_and(|port: u16| port != 0)
}

/// Whether a call ended without a result: by its timeout, which need not be the deadline, or by a
/// signal.
pub fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// At this address.
    Tcp(SocketAddr),
    /// A process of this host; a client's end of a Unix socket has no name.
    Unix,
    /// The worker of this number, over a socket that the broker handed to it.
    Worker(usize),
}

impl Peer {
    /// Where it is: a Unix socket leads nowhere but to this host.
    pub fn ip(self) -> IpAddr {
        match self {
            Peer::Tcp(address) => address.ip(),
            Peer::Unix | Peer::Worker(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
            Peer::Worker(id) => write!(f, "worker {id}"),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Peer::Tcp(address)
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// Of TCP.
    Tcp(TcpStream),
    /// Of this host.
    Unix(UnixStream),
    /// Encrypted, over one of the others.
    Tls(Arc<TlsStream>),
}

/// The same of either; of TLS that of the socket under it.
macro_rules! either {
    ($stream:expr, $inner:ident => $what:expr) => {
        match $stream.socket() {
            Stream::Tcp($inner) => $what,
            Stream::Unix($inner) => $what,
            // There is no TLS under it.
            Stream::Tls(_) => Err(ErrorKind::Unsupported.into()),
        }
    };
}

impl Stream {
    /// Connects to a Unix socket.
    ///
    /// # Blocks
    /// Until the listener's queue has room, `timeout` at most.
    ///
    /// # Errors
    /// `TimedOut`; or there is no listener, or it is not ours to use.
    pub fn connect_unix(path: &Path, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let address = SocketAddrUnix::new(path)?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            // The time to send is the time to connect as well; std has no other way to say it.
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left))?;
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
        Ok(Stream::Unix(socket.into()))
    }

    /// The socket itself.
    fn socket(&self) -> &Stream {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => self,
            Stream::Tls(tls) => tls.socket(),
        }
    }

    /// The certificate that the peer showed, in DER; only over TLS it shows one.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => None,
            Stream::Tls(tls) => tls.peer_certificate(),
        }
    }

    /// Whether what was read to its end may be cut short: over TLS a peer says that it ends.
    pub fn is_cut(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::Tls(tls) => tls.is_cut(),
        }
    }

    /// Sends some bytes, as `send(2)` does with these flags; over TLS some of them may still wait
    /// for room: see [`Stream::flush_with`].
    ///
    /// # Errors
    /// `WouldBlock` if nothing was taken, else what the socket says.
    pub fn send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(send(self, bytes, flags)?),
            Stream::Tls(tls) => tls.write(&[IoSlice::new(bytes)], flags),
        }
    }

    /// Sends what was taken and has not left.
    ///
    /// # Errors
    /// `WouldBlock` if some of it has not left yet, else what the socket says.
    pub fn flush_with(&self, flags: SendFlags) -> io::Result<()> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
            Stream::Tls(tls) => tls.flush(flags),
        }
    }

    /// The peer at the other end.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn peer(&self) -> io::Result<Peer> {
        match self.socket() {
            Stream::Tcp(stream) => stream.peer_addr().map(Peer::Tcp),
            _ => Ok(Peer::Unix),
        }
    }

    /// Another handle on the same connection.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
            Stream::Tls(tls) => Ok(Stream::Tls(tls.clone())),
        }
    }

    /// Sends what is small at once. A Unix socket always does.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self.socket() {
            Stream::Tcp(stream) => stream.set_nodelay(true),
            _ => Ok(()),
        }
    }

    /// Whether calls come back at once, for all handles.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        either!(self, stream => stream.set_nonblocking(is_nonblocking))
    }

    /// Limits each read, for all handles.
    ///
    /// # Errors
    /// The connection is gone, or the time is zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(timeout))
    }

    /// Limits each write, for all handles.
    ///
    /// # Errors
    /// The connection is gone, or the time is zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(timeout))
    }

    /// Ends the connection for all handles, in one direction or both; frees every thread that is
    /// blocked on it.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Stream::Tls(tls) = self {
            return tls.shutdown(how);
        }
        either!(self, stream => stream.shutdown(how))
    }

    /// Whether the peer has ended its side, or is gone, as far as that is to be seen: behind bytes
    /// that wait to be read it is not.
    pub fn is_at_end(&self) -> bool {
        match recv(self, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => true,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Stream::Tls(tls) = self {
            return tls.read(buffer);
        }
        either!(self, stream => (&*stream).read(buffer))
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Stream::Tls(tls) = self {
            return tls.write(slices, SendFlags::NOSIGNAL);
        }
        either!(self, stream => (&*stream).write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_with(SendFlags::NOSIGNAL)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tls(tls) => tls.socket().as_fd(),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Stream::Unix(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    /// A path for a socket that is removed at the end.
    struct SocketPath(PathBuf);

    impl SocketPath {
        fn new(name: &str) -> Self {
            let place = Self(
                std::env::temp_dir()
                    .join(format!("mesophyll-stream-{name}-{}", std::process::id())),
            );
            let _ = std::fs::remove_file(&place.0);
            place
        }
    }

    impl Drop for SocketPath {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn an_address_is_a_path_only_if_it_says_so() {
        assert_eq!(unix_path("unix:/run/m/socket"), Some(Path::new("/run/m/socket")));
        for address in ["unix", "/run/m/socket", "localhost:7450", "[::1]:7450"] {
            assert_eq!(unix_path(address), None);
        }
    }

    #[test]
    fn an_address_that_nobody_could_connect_to_is_none() {
        for (address, is_one) in [
            ("[::1]:7450", true),
            ("a.example:1", true),
            ("localhost", false),
            (":7450", false),
            ("localhost:0", false),
            ("localhost:x", false),
            ("", false),
            ("unix:/run/mesophyll/socket", true),
            ("unix:socket", false),
            ("unix:", false),
        ] {
            assert_eq!(names_a_listener(address), is_one, "{address}");
        }
    }

    #[test]
    fn a_unix_connection_is_what_a_tcp_connection_is() {
        let place = SocketPath::new("pair");
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let ours = Stream::connect_unix(&place.0, Duration::from_secs(5)).expect("a connection");
        let theirs = Stream::from(listener.accept().expect("a peer").0);
        let peer = theirs.peer().expect("a peer");
        assert_eq!(
            (peer, peer.to_string(), peer.ip().is_loopback()),
            (Peer::Unix, "unix".to_owned(), true)
        );
        theirs.set_nodelay().expect("nothing to do");
        (&ours).write_all(b"hello").expect("sent");
        let mut buffer = [0; 8];
        assert_eq!((&theirs).read(&mut buffer).expect("read"), 5);
        theirs.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let began = Instant::now();
        assert_eq!((&theirs).read(&mut buffer).expect_err("nothing").kind(), ErrorKind::WouldBlock);
        assert!(began.elapsed() >= Duration::from_millis(15));
        theirs.try_clone().expect("a handle").shutdown(Shutdown::Both).expect("ended");
        assert_eq!((&ours).read(&mut buffer).expect("the end"), 0);
    }

    #[test]
    fn connecting_to_a_deaf_unix_socket_has_a_deadline() {
        let place = SocketPath::new("full");
        let missing = Stream::connect_unix(&place.0, Duration::from_secs(5)).expect_err("no file");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let listener = UnixListener::bind(&place.0).expect("a socket");
        rustix::net::listen(&listener, 0).expect("a short queue");
        let mut waiting = Vec::new();
        let error = loop {
            match Stream::connect_unix(&place.0, Duration::from_millis(50)) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the queue has no end");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(listener);
        let refused =
            Stream::connect_unix(&place.0, Duration::from_secs(5)).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
