//! The opening handshake of a link, either side.
//!
//! The accepting side gets a request that the HTTP layer has read already; the connecting side
//! keeps the handshake's own object as its reader, because a frame may have arrived glued to the
//! 101 reply.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::server::create_response;
use tungstenite::http::{self, Request};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{WebSocket, error::Error};

use super::reader::ReadHalf;
use super::{Link, LinkLimits, LinkSender, Service};
use crate::net::stream::Stream;

/// What tungstenite takes from the stream below at once, and fills with zeros before, each time.
const CODEC_BYTES: usize = 4 * 1024;

/// Limit: the text of a refusal; those of a master of ours have about 80 characters.
const REFUSAL_MAX_CHARS: usize = 200;

/// A connection whose handshake is done, before its threads run.
pub(super) struct Upgraded {
    pub(super) websocket: WebSocket<ReadHalf>,
    pub(super) role: Role,
}

/// Why a request is not a WebSocket upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeError(String);

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UpgradeError {}

/// A request to upgrade that was found in order; answers it with 101 and starts the link.
#[derive(Debug)]
pub struct Upgrade {
    response: Vec<u8>,
}

/// Checks that a GET request with these headers asks for a WebSocket as RFC 6455 wants it.
///
/// # Errors
/// What is missing; answer 400 (or 426).
pub fn accept<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
) -> Result<Upgrade, UpgradeError> {
    let mut request = Request::builder().method("GET").uri("/ws").version(http::Version::HTTP_11);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(|_| UpgradeError("a header is malformed".to_owned()))?;
    let response = create_response(&request).map_err(|error| UpgradeError(error.to_string()))?;
    let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(Upgrade { response: bytes })
}

impl Upgrade {
    /// Answers the request and starts the link. `already_read`: what came after the request's head.
    ///
    /// # Blocks
    /// For the write of 150 bytes: the socket's buffer is empty, so not at all.
    ///
    /// # Errors
    /// The connection broke, or no thread could be started.
    pub fn start(
        self,
        name: &str,
        mut socket: Stream,
        already_read: Vec<u8>,
        limits: &LinkLimits,
        serve: impl FnOnce(&LinkSender) -> Service,
    ) -> io::Result<Link> {
        socket.set_read_timeout(None)?;
        socket.set_nodelay()?;
        socket.set_write_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(&self.response)?;
        let half = ReadHalf::new(socket, &already_read);
        let websocket = WebSocket::from_raw_socket(half, Role::Server, Some(config(limits)));
        super::start(name, Upgraded { websocket, role: Role::Server }, limits, serve)
    }
}

/// Why no link could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// No answer came from there in time. Try again later.
    Unreachable(String),
    /// The peer answered with this HTTP status instead of a WebSocket, and this line of text.
    Refused(u16, String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unreachable(what) => write!(f, "cannot connect: {what}"),
            ConnectError::Refused(status, text) => {
                write!(f, "refused with status {status}: {text}")
            }
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        ConnectError::Unreachable(error.to_string())
    }
}

/// Connects to `ws://{host}{path_and_query}` at the first of `addresses` that accepts, and starts
/// the link.
///
/// # Blocks
/// Until the handshake is done, `timeout` at most.
///
/// # Errors
/// See [`ConnectError`]. Never carries the query, which holds a token.
pub fn connect(
    name: &str,
    addresses: &[SocketAddr],
    host: &str,
    path_and_query: &str,
    timeout: Duration,
    limits: &LinkLimits,
    serve: impl FnOnce(&LinkSender) -> Service,
) -> Result<Link, ConnectError> {
    let deadline = Instant::now() + timeout;
    let socket = connect_tcp(addresses, timeout)?;
    let target = LinkTarget { host, path_and_query, bearer: None };
    connect_over(name, socket, &target, deadline, limits, serve)
}

/// What a link is asked for: `ws://{host}{path_and_query}`.
#[derive(Clone, Copy)]
pub struct LinkTarget<'t> {
    /// What the peer is called.
    pub host: &'t str,
    /// Where the link is, at the peer.
    pub path_and_query: &'t str,
    /// The token for the header, if it is not in the query.
    pub bearer: Option<&'t str>,
}

/// Asks for a link over a connection that was just made, and starts it.
///
/// # Blocks
/// Until the handshake is done or the deadline; `shutdown(Both)` of another handle on the socket
/// ends it.
///
/// # Errors
/// See [`ConnectError`]. Never carries the query, which holds a token.
pub fn connect_over(
    name: &str,
    socket: Stream,
    &LinkTarget { host, path_and_query, bearer }: &LinkTarget<'_>,
    deadline: Instant,
    limits: &LinkLimits,
    serve: impl FnOnce(&LinkSender) -> Service,
) -> Result<Link, ConnectError> {
    socket.set_nodelay()?;
    // A time of zero is refused; the first read will say that it is over.
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    socket.set_write_timeout(Some(left))?;
    let stream = ReadHalf::with_deadline(socket, deadline);
    let malformed = || ConnectError::Unreachable("the master's address is malformed".to_owned());
    let url = format!("ws://{host}{path_and_query}");
    let mut request = url.into_client_request().map_err(|_| malformed())?;
    if let Some(token) = bearer {
        let header = format!("Bearer {token}").parse().map_err(|_| malformed())?;
        request.headers_mut().insert("Authorization", header);
    }
    let (mut websocket, _) =
        tungstenite::client::client_with_config(request, stream, Some(config(limits)))
            .map_err(connect_error)?;
    websocket.get_mut().clear_deadline()?;
    Ok(super::start(name, Upgraded { websocket, role: Role::Client }, limits, serve)?)
}

/// Connects to the first of these addresses that accepts; each gets an equal part of the time. A
/// name often has an address of either IP version, and a master listens on one.
///
/// # Blocks
/// `timeout` at most.
///
/// # Errors
/// No address accepted.
pub fn connect_tcp(addresses: &[SocketAddr], timeout: Duration) -> io::Result<Stream> {
    let each = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, each.max(Duration::from_millis(1))) {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// tungstenite's own texts could quote the URL, which holds the token: none of them is passed on.
fn connect_error(error: tungstenite::HandshakeError<ClientHandshake<ReadHalf>>) -> ConnectError {
    let text = match error {
        tungstenite::HandshakeError::Failure(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            return ConnectError::Refused(response.status().as_u16(), first_line(body));
        }
        tungstenite::HandshakeError::Failure(Error::Io(error)) => error.to_string(),
        tungstenite::HandshakeError::Failure(Error::Url(_)) => {
            "the master's address is malformed".to_owned()
        }
        tungstenite::HandshakeError::Failure(_) => "the peer does not speak WebSocket".to_owned(),
        tungstenite::HandshakeError::Interrupted(_) => {
            "no answer to the handshake in time".to_owned()
        }
    };
    ConnectError::Unreachable(text)
}

/// So much of a peer's text as fits into a log line or onto a terminal, and nothing that either
/// would obey.
fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(REFUSAL_MAX_CHARS).collect()
}

fn config(limits: &LinkLimits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(CODEC_BYTES)
        .max_message_size(Some(limits.message_max_bytes))
        .max_frame_size(Some(limits.message_max_bytes))
}
