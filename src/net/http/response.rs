//! What a handler answers, and how that is written in HTTP/1.1's framing.

use std::any::Any;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::date::imf_fixdate;
use super::socket::Socket;
use crate::net::stream::Stream;

/// Chunks are gathered to at least this much before they are written: a system call a record would
/// cost more than the record.
const GATHER_BYTES: usize = 64 * 1024;

/// Gets the socket of a connection that speaks another protocol from here on, without timeouts, and
/// the bytes already read behind the head; writes the 101 itself and returns soon.
pub(super) type UpgradeCallback = Box<dyn FnOnce(Stream, Vec<u8>) + Send>;

/// What a handler answers.
pub struct Response {
    /// The HTTP status: 101 of an upgrade, else from 200 on.
    pub status: u16,
    /// `Content-Type`; empty for none.
    pub content_type: &'static str,
    /// Further headers. `Content-Length`, `Date` and `Connection` are the server's.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: ResponseBody,
    closes: bool,
    unhurried: bool,
    live: bool,
    pub(super) held: Option<Box<dyn Any + Send>>,
    pub(super) upgrade: Option<UpgradeCallback>,
}

/// The body of an answer.
pub enum ResponseBody {
    /// All of it.
    Bytes(Vec<u8>),
    /// Pieces, made while they are sent; the deadline for writing includes the making.
    Chunked(Box<dyn Iterator<Item = Vec<u8>> + Send>),
}

impl Response {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        let body = ResponseBody::Bytes(body);
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body,
            closes: false,
            unhurried: false,
            live: false,
            held: None,
            upgrade: None,
        }
    }

    /// The connection speaks another protocol from here on: `callback` gets its socket, without
    /// timeouts, and the bytes already read behind the head; it writes the 101 itself and returns
    /// soon. The socket is no longer the server's.
    pub fn upgrade(callback: impl FnOnce(Stream, Vec<u8>) + Send + 'static) -> Self {
        Self { upgrade: Some(Box::new(callback)), ..Self::empty(101) }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self::new(status, "", Vec::new())
    }

    /// One line of plain text.
    pub fn text(status: u16, line: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{line}\n").into_bytes())
    }

    /// JSON text.
    pub fn json(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "application/json", text.into().into_bytes())
    }

    /// Bytes of no particular kind, such as MessagePack.
    pub fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/octet-stream", body)
    }

    /// A body made in pieces while it is sent.
    pub fn chunked(
        status: u16,
        content_type: &'static str,
        chunks: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> Self {
        Self {
            body: ResponseBody::Chunked(Box::new(chunks)),
            ..Self::new(status, content_type, Vec::new())
        }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Closes the connection after this answer.
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Keeps something, such as a permit, until the answer was written or its peer given up.
    pub fn holding(mut self, held: impl Any + Send) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// Gives each piece of the body the time that the whole of an answer has otherwise: for bodies
    /// without a bound.
    pub fn unhurried(mut self) -> Self {
        self.unhurried = true;
        self
    }

    /// Sends each piece of the body when it is made, however long the next one takes: for answers
    /// that tell of what happens. Each has its own time, as those of [`Response::unhurried`]. An
    /// empty piece is not sent: the answer ends there if the peer has gone.
    pub fn live(mut self) -> Self {
        (self.unhurried, self.live) = (true, true);
        self
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn is_unhurried(&self) -> bool {
        self.unhurried
    }

    pub(super) fn closes(&self) -> bool {
        self.closes
    }
}

/// How an answer is framed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseFraming {
    /// The connection ends with this answer.
    pub(super) closes: bool,
    /// The request was HEAD: headers only.
    pub(super) is_head: bool,
    /// The peer knows no chunks: the end of the connection ends the body.
    pub(super) is_http_1_0: bool,
    /// How long the connection is kept for a next request, if it does not end: said, so that a peer
    /// does not use it later.
    pub(super) idle_timeout: Duration,
}

/// Writes an answer whole; what it holds is released when this returns. `deadline` is asked before
/// each piece is written.
///
/// # Errors
/// The peer is gone or did not take a piece by its deadline; the connection is lost.
pub(super) fn write(
    socket: &mut Socket,
    response: Response,
    framing: ResponseFraming,
    deadline: &mut dyn FnMut() -> Instant,
) -> io::Result<()> {
    let head = head_text(&response, framing).into_bytes();
    let gather = if response.is_live() { 1 } else { GATHER_BYTES };
    // Invariant: held until the end of this function, that is, for as long as the body's memory is.
    let Response { body, held: _held, .. } = response;
    match body {
        ResponseBody::Bytes(bytes) if framing.is_head => {
            drop(bytes);
            socket.write_all(&head, &[], deadline())
        }
        ResponseBody::Bytes(bytes) => socket.write_all(&head, &bytes, deadline()),
        ResponseBody::Chunked(_) if framing.is_head => socket.write_all(&head, &[], deadline()),
        ResponseBody::Chunked(chunks) => {
            write_chunks(socket, head, chunks, framing.is_http_1_0, gather, deadline)
        }
    }
}

/// A last answer as bytes, for a peer that gets no thread; a chunked body is left out.
pub(super) fn full_text(response: Response) -> Vec<u8> {
    let framing = ResponseFraming {
        closes: true,
        is_head: false,
        is_http_1_0: true,
        idle_timeout: Duration::ZERO,
    };
    let mut text = head_text(&response, framing).into_bytes();
    if let ResponseBody::Bytes(bytes) = response.body {
        text.extend_from_slice(&bytes);
    }
    text
}

/// The time of an answer, for its `Date`.
pub(super) fn date() -> String {
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    imf_fixdate(unix_seconds)
}

/// A header's value without controls: with a line break in it it would be a header, or an answer,
/// of its author's making.
pub(super) fn header_value(value: &str) -> String {
    value.chars().filter(|char| !char.is_control()).collect()
}

fn head_text(response: &Response, framing: ResponseFraming) -> String {
    let status = response.status;
    let mut head = String::with_capacity(256);
    // Writing into a String cannot fail.
    let _ = write!(head, "HTTP/1.1 {status} {}\r\nDate: {}\r\n", reason(status), date());
    if !response.content_type.is_empty() {
        let _ = write!(head, "Content-Type: {}\r\n", response.content_type);
    }
    for (name, value) in &response.headers {
        let _ = write!(head, "{name}: {}\r\n", header_value(value));
    }
    match &response.body {
        // 204 has no body and may not claim a length (RFC 9110, 8.6).
        ResponseBody::Bytes(_) if status == 204 => {}
        ResponseBody::Bytes(bytes) => drop(write!(head, "Content-Length: {}\r\n", bytes.len())),
        ResponseBody::Chunked(_) if framing.is_http_1_0 => {}
        ResponseBody::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
    }
    if framing.closes {
        head.push_str("Connection: close\r\n");
    } else {
        let _ = write!(head, "Keep-Alive: timeout={}\r\n", framing.idle_timeout.as_secs());
    }
    head.push_str("\r\n");
    head
}

fn write_chunks(
    socket: &mut Socket,
    head: Vec<u8>,
    chunks: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    is_plain: bool,
    gather: usize,
    deadline: &mut dyn FnMut() -> Instant,
) -> io::Result<()> {
    let mut gathered = head;
    for chunk in chunks {
        // Written, it would end the body.
        if chunk.is_empty() {
            if socket.is_at_end() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            continue;
        }
        if is_plain {
            gathered.extend_from_slice(&chunk);
        } else {
            gathered.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            gathered.extend_from_slice(&chunk);
            gathered.extend_from_slice(b"\r\n");
        }
        if gathered.len() >= gather {
            socket.write_all(&gathered, &[], deadline())?;
            gathered.clear();
        }
    }
    if !is_plain {
        gathered.extend_from_slice(b"0\r\n\r\n");
    }
    socket.write_all(&gathered, &[], deadline())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
