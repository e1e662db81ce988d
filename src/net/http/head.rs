//! A request's head: finding its end, taking it apart, and the rules on framing. Pure: bytes in, a
//! request or a refusal out.
//!
//! `httparse` splits the lines; this file adds what it leaves to its user, which is everything that
//! decides where a request ends. Deliberately stricter than RFC 9112 allows wherever leniency has
//! been used for request smuggling.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::target::{self, Target, is_host_char};
use crate::base::labels::{Label as _, labels};
use crate::base::limits::HTTP_HEADERS_MAX;
use crate::net::stream::Peer;

labels! {
    /// A request method.
    Method {
        /// GET
        Get = "GET",
        /// HEAD
        Head = "HEAD",
        /// POST
        Post = "POST",
        /// PUT
        Put = "PUT",
        /// PATCH
        Patch = "PATCH",
        /// DELETE
        Delete = "DELETE",
        /// OPTIONS
        Options = "OPTIONS",
        /// Any other.
        Other = "other",
    }
}

impl Method {
    /// Whether a request of this method without a length lacks something, rather than having no
    /// body.
    pub(super) fn expects_body(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

/// Why something that came in is not a request: the status to answer, and a line for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What was wrong; fixed words, nothing of the request.
    pub text: &'static str,
}

impl Refusal {
    pub(super) const fn new(status: u16, text: &'static str) -> Self {
        Self { status, text }
    }
}

/// A request without its body.
pub struct RequestHead {
    method: Method,
    target: Target,
    /// The head's bytes, which the headers point into.
    raw: Vec<u8>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    peer: Peer,
    peer_certificate: Option<Arc<[u8]>>,
}

impl RequestHead {
    /// A request from the bytes of its head, the empty line included, as the server reads it.
    ///
    /// # Errors
    /// What the server would answer instead.
    pub fn parse(raw: impl Into<Vec<u8>>, peer: SocketAddr) -> Result<Self, Refusal> {
        let raw = raw.into();
        match EndFinder::default().find(&raw)? {
            Some(length) if length == raw.len() => {
                parse(raw, peer.into(), HTTP_HEADERS_MAX, false).map(|(head, _)| head)
            }
            _ => Err(MALFORMED),
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The target as the request line has it, with its query.
    pub fn raw_target(&self) -> &str {
        let raw = self.raw.trim_ascii_start();
        let target = raw.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        std::str::from_utf8(target).unwrap_or_default()
    }

    /// The path, decoded; it holds no encoded slash, no empty and no dot segment.
    pub fn path(&self) -> &str {
        &self.target.path
    }

    /// The path's segments, decoded. `/` has one, which is empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.target.path[1..].split('/')
    }

    /// The first value of a query parameter, decoded; `?flag` has an empty one.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query_pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All parameters of the query in order, decoded.
    pub fn query_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.target.query.pairs()
    }

    /// The first header of this name (any case), without surrounding blanks; `None` also if it is
    /// not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The headers by which a request asks to become a WebSocket.
    pub fn upgrade_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let names = ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"];
        names.into_iter().filter_map(|name| Some((name, self.header(name)?.as_bytes())))
    }

    /// Whether a comma-separated header, such as `Connection`, holds this token (any case).
    pub fn header_has_token(&self, name: &str, token: &str) -> bool {
        self.header_values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The certificate that the peer showed, in DER; only over TLS it shows one.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_certificate.as_deref()
    }

    /// Notes what the peer showed.
    pub(super) fn set_peer_certificate(&mut self, certificate: Option<Arc<[u8]>>) {
        self.peer_certificate = certificate;
    }

    /// The peer that asks.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    fn header_values<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.headers
            .iter()
            .filter(move |(key, _)| self.raw[key.clone()].eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| &self.raw[value.clone()])
    }
}

impl fmt::Debug for RequestHead {
    // Never the query nor the headers: they carry tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {}", self.method.as_str(), self.target.path, self.peer)
    }
}

/// What the head says about the bytes around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framing {
    /// The body's length, if one was given.
    pub(super) length: Option<u64>,
    /// The body comes in chunks.
    pub(super) is_chunked: bool,
    /// The peer waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// The connection ends with this request.
    pub(super) closes: bool,
    /// The peer speaks HTTP/1.0, which has no chunks.
    pub(super) is_http_1_0: bool,
}

/// Finds a head's end in bytes that arrive piecemeal, looking at each byte once.
///
/// It also refuses at once, and not first when the head is whole, what no head may contain.
#[derive(Debug, Default)]
pub(super) struct EndFinder {
    seen: usize,
}

impl EndFinder {
    /// The length of the head at the start of `bytes`, once it is there. `bytes` only ever grows
    /// between calls.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(&byte) = bytes.get(self.seen) {
            let before = self.seen.checked_sub(1).map(|at| bytes[at]);
            match (before, byte) {
                (Some(b'\r'), b'\n') => {}
                (Some(b'\r'), _) | (_, b'\n') => {
                    return Err(Refusal::new(400, "a line must end with CR LF"));
                }
                (_, 0) => return Err(Refusal::new(400, "the head has a NUL")),
                _ => {}
            }
            self.seen += 1;
            if byte == b'\n' && bytes[..self.seen].ends_with(b"\r\n\r\n") {
                return Ok(Some(self.seen));
            }
        }
        Ok(None)
    }
}

/// Takes a whole head apart, its final empty line included, and applies every rule on framing.
///
/// # Errors
/// What to answer instead; the connection closes after it, since it is not known where the next
/// request starts.
pub(super) fn parse(
    raw: Vec<u8>,
    peer: Peer,
    headers_max: usize,
    takes_chunks: bool,
) -> Result<(RequestHead, Framing), Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut slots[..headers_max.min(HTTP_HEADERS_MAX)]);
    let complete = request.parse(&raw).map_err(|error| refusal_of(error, &raw))?;
    let (Some(method), Some(raw_target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(MALFORMED);
    };
    if complete != httparse::Status::Complete(raw.len()) {
        return Err(MALFORMED);
    }
    let method = Method::of_name(method.as_bytes()).unwrap_or(Method::Other);
    let target = target::parse(raw_target).map_err(|text| Refusal::new(400, text))?;
    let start = raw.as_ptr() as usize;
    let range = |part: &[u8]| {
        let at = part.as_ptr() as usize - start;
        at..at + part.len()
    };
    let headers = request
        .headers
        .iter()
        .map(|header| (range(header.name.as_bytes()), range(header.value)))
        .collect();
    let head = RequestHead { method, target, raw, headers, peer, peer_certificate: None };
    let framing = framing(&head, version == 0, takes_chunks)?;
    Ok((head, framing))
}

/// A request of HTTP/2, by the same rules: as HTTP/1.1 would have had it.
///
/// # Errors
/// What to answer instead.
#[cfg(feature = "http2")]
pub(super) fn of_http2(
    parts: &http::request::Parts,
    peer: Peer,
    headers_max: usize,
) -> Result<(RequestHead, Framing), Refusal> {
    let target = parts.uri.path_and_query().map_or("*", |target| target.as_str());
    let mut raw = format!("{} {target} HTTP/1.1\r\n", parts.method).into_bytes();
    let mut add = |name: &str, value: &[u8]| {
        raw.extend_from_slice(name.as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value);
        raw.extend_from_slice(b"\r\n");
    };
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    authority.into_iter().for_each(|authority| add("host", authority));
    for (name, value) in &parts.headers {
        // HTTP/2 has no line around a value whose spaces could be left out of it.
        if value.as_bytes().trim_ascii() != value.as_bytes() {
            return Err(Refusal::new(400, "a header begins or ends with a space"));
        }
        match authority {
            Some(authority) if name == "host" => {
                if !value.as_bytes().eq_ignore_ascii_case(authority) {
                    return Err(Refusal::new(400, "the Host header is not the authority"));
                }
            }
            _ => add(name.as_str(), value.as_bytes()),
        }
    }
    raw.extend_from_slice(b"\r\n");
    parse(raw, peer, headers_max, false)
}

const MALFORMED: Refusal = Refusal::new(400, "the head is malformed");

fn refusal_of(error: httparse::Error, raw: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(431, "too many headers"),
        httparse::Error::Version if names_a_version(raw) => {
            Refusal::new(505, "only HTTP/1.1 is spoken here")
        }
        _ => MALFORMED,
    }
}

/// Whether the request line ends with a version, if not one of ours.
fn names_a_version(raw: &[u8]) -> bool {
    let line = raw.trim_ascii_start().split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ').skip(2);
    let (version, rest) = (parts.next().unwrap_or_default(), parts.next());
    let digits = version.strip_prefix(b"HTTP/");
    rest.is_none() && matches!(digits, Some([b'0'..=b'9', b'.', b'0'..=b'9']))
}

/// Headers of which two would leave open which one counts.
const SINGLE: [&str; 5] = ["host", "content-length", "content-type", "authorization", "expect"];

fn framing(head: &RequestHead, is_http_1_0: bool, takes_chunks: bool) -> Result<Framing, Refusal> {
    // Before the length: a message with both is the classic of request smuggling.
    let codings: Vec<&[u8]> = head.header_values("transfer-encoding").collect();
    let has_length = head.header_values("content-length").next().is_some();
    let is_chunked = match codings[..] {
        [] => false,
        [_, ..] if !takes_chunks => {
            return Err(Refusal::new(
                411,
                "Transfer-Encoding is not accepted, send a Content-Length",
            ));
        }
        [coding] if coding.eq_ignore_ascii_case(b"chunked") && !has_length && !is_http_1_0 => true,
        _ => {
            return Err(Refusal::new(
                400,
                "the Transfer-Encoding is chunked, alone and without a Content-Length",
            ));
        }
    };
    if SINGLE.iter().any(|name| head.header_values(name).nth(1).is_some()) {
        return Err(Refusal::new(400, "a header that must be single is repeated"));
    }
    match head.header_values("host").next() {
        Some(host) if !host.iter().all(|byte| is_host_char(*byte)) => {
            return Err(Refusal::new(400, "the Host header is malformed"));
        }
        None if !is_http_1_0 => return Err(Refusal::new(400, "the Host header is missing")),
        _ => {}
    }
    let length = head.header_values("content-length").next().map(parse_length).transpose()?;
    let expects_continue = match head.header_values("expect").next() {
        // HTTP/1.0 had no expectations: RFC 9110 wants them ignored there.
        None => false,
        Some(_) if is_http_1_0 => false,
        Some(expectation) if expectation.eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => {
            return Err(Refusal::new(417, "the only expectation that is met is 100-continue"));
        }
    };
    let closes = is_http_1_0 || head.header_has_token("connection", "close");
    Ok(Framing { length, is_chunked, expects_continue, closes, is_http_1_0 })
}

/// Digits only: no sign, no list of equal numbers, nothing that overflows.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::new(400, "the Content-Length is malformed");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(BAD)
}
