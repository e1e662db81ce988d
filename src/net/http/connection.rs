//! One HTTP/1.1 connection: request after request, in order, until either side has had enough.
//!
//! Runs on the connection's own thread, which the server owns and joins. Everything that blocks
//! here is a read or write of the socket, with a deadline; its wake-up is the server's `shutdown`
//! on the socket.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::{BodyError, BodySource};
use super::chunks::Chunks;
use super::head::{self, EndFinder, Framing, Refusal, RequestHead};
#[cfg(feature = "http2")]
use super::http2;
use super::registry::{ConnectionSlot, Doing};
use super::response::{self, Response, ResponseBody, ResponseFraming, UpgradeCallback};
use super::server::HttpShared;
use super::socket::Socket;
use crate::net::stream::{Peer, Stream};

/// Room for a body grows from here by doubling, as bytes arrive: a peer that merely announces much
/// costs little.
const BODY_STEP_BYTES: usize = 1024 * 1024;

/// What is left of a body in chunks until its end was seen: more than is ever thrown away.
const UNKNOWN: u64 = u64::MAX;

/// How long a displaced connection may take to say so: the one that it makes room for waits.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(100);

/// The answer to a peer that finds no place, or loses it before the request was begun.
pub(super) const TOO_MANY: Refusal = Refusal::new(503, "too many connections");

const STOPPING: Refusal = Refusal::new(503, "the server is stopping");

/// A connection and what has arrived on it.
pub(super) struct Connection {
    wire: Wire,
    peer: Peer,
    certificate: Option<Arc<[u8]>>,
    id: u64,
    slot: Arc<ConnectionSlot>,
    shared: Arc<HttpShared>,
}

/// The socket with what was read ahead of need.
pub(super) struct Wire {
    socket: Socket,
    /// Limit: as large as a head may be; so a head that does not fit is too large.
    buffer: Box<[u8]>,
    filled: usize,
}

enum NextRequest {
    Request(Box<RequestHead>, Framing),
    Refused(Refusal),
    /// The peer speaks HTTP/2; what it has said is in the buffer.
    #[cfg(feature = "http2")]
    Http2,
    Gone,
}

enum After {
    KeepOpen,
    Close,
    Gone,
    HandOver(UpgradeCallback),
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        peer: Peer,
        id: u64,
        slot: Arc<ConnectionSlot>,
        shared: Arc<HttpShared>,
    ) -> Self {
        let buffer = vec![0; shared.limits.head_bytes].into_boxed_slice();
        let certificate = socket.peer_certificate();
        Self { wire: Wire { socket, buffer, filled: 0 }, peer, certificate, id, slot, shared }
    }

    /// Serves the connection until it ends.
    pub(super) fn run(mut self) {
        // A new peer has something to say; one that was answered may take its time.
        let mut patience = self.shared.limits.head_timeout;
        loop {
            let (head, framing) = match self.next_request(patience) {
                NextRequest::Request(head, framing) => (head, framing),
                NextRequest::Refused(refusal) => return self.refuse(refusal),
                #[cfg(feature = "http2")]
                NextRequest::Http2 => return self.speak_http2(),
                NextRequest::Gone if self.slot.is_displaced() => return self.make_room(),
                NextRequest::Gone => return,
            };
            if !self.enter(Doing::Answering) {
                return self.say_full();
            }
            self.shared.counters.requests.inc();
            match self.exchange(&head, framing) {
                After::KeepOpen => patience = self.shared.limits.idle_timeout,
                After::Close => return self.linger(),
                After::Gone => return,
                After::HandOver(callback) => return self.hand_over(callback),
            }
        }
    }

    /// Reads up to the end of a head, which is at the start of the buffer or still to come.
    fn next_request(&mut self, patience: Duration) -> NextRequest {
        let limits = &self.shared.limits;
        let mut finder = EndFinder::default();
        let mut has_begun = self.wire.filled > 0;
        let mut deadline = Instant::now() + if has_begun { limits.head_timeout } else { patience };
        let length = loop {
            match finder.find(self.wire.data()) {
                Ok(Some(length)) => break length,
                Ok(None) if self.wire.is_full() => {
                    return NextRequest::Refused(Refusal::new(431, "the head is too large"));
                }
                // It is slow from here on. That it may have been displaced shows when it is read
                // from.
                Ok(None) if has_begun && self.slot.has_arrived() => {
                    let _ = self.enter(Doing::Waiting);
                }
                Ok(None) => {}
                Err(refusal) => return NextRequest::Refused(refusal),
            }
            match self.wire.fill(deadline) {
                Ok(0) if has_begun => {
                    return NextRequest::Refused(Refusal::new(400, "the head is cut short"));
                }
                Err(error) if has_begun && error.kind() == ErrorKind::TimedOut => {
                    return NextRequest::Refused(Refusal::new(408, "the head took too long"));
                }
                Ok(0) | Err(_) => return NextRequest::Gone,
                Ok(_) if has_begun => {}
                Ok(_) => {
                    has_begun = true;
                    deadline = Instant::now() + limits.head_timeout;
                }
            }
        };
        let raw = self.wire.data()[..length].to_vec();
        #[cfg(feature = "http2")]
        if raw == http2::PREFACE_HEAD {
            return NextRequest::Http2;
        }
        self.wire.consume(length);
        match head::parse(raw, self.peer, limits.headers, limits.takes_chunks) {
            Ok((mut head, framing)) => {
                head.set_peer_certificate(self.certificate.clone());
                NextRequest::Request(Box::new(head), framing)
            }
            Err(refusal) => NextRequest::Refused(refusal),
        }
    }

    #[cfg(feature = "http2")]
    fn speak_http2(self) {
        let read_ahead = self.wire.data().to_vec();
        http2::serve(self.wire.socket.stream(), read_ahead, self.peer, self.slot, self.shared);
    }

    /// Has one request answered.
    fn exchange(&mut self, head: &RequestHead, framing: Framing) -> After {
        let handler = Arc::clone(&self.shared.handler);
        let has_length =
            framing.length.is_some() || framing.is_chunked || !head.method().expects_body();
        let mut body = PeerBody {
            wire: &mut self.wire,
            timeout: self.shared.limits.body_timeout,
            has_length,
            is_chunked: framing.is_chunked,
            left: if framing.is_chunked { UNKNOWN } else { framing.length.unwrap_or(0) },
            awaits_invitation: framing.expects_continue,
            is_broken: false,
        };
        let answer = super::ask(&*handler, head, &mut body);
        let (unread, is_broken, awaits_invitation) =
            (body.left, body.is_broken, body.awaits_invitation);
        let mut response = answer.unwrap_or_else(|refusal| self.worded(refusal).closing());
        if let Some(callback) = response.upgrade.take() {
            if unread == 0 && !is_broken {
                return After::HandOver(callback);
            }
            response = self.worded(Refusal::new(400, "an upgrade cannot have a body")).closing();
        }
        let closes = framing.closes
            || response.closes()
            // Bytes of a body that was not measured would be read as the next request.
            || !has_length
            || is_broken
            // Whether the peer sends a body that it was not invited to send is not known.
            || (unread > 0 && awaits_invitation)
            || unread > self.shared.limits.drain_bytes
            || self.shared.registry.is_stopping();
        let is_head = head.method() == super::Method::Head;
        let idle_timeout = self.shared.limits.idle_timeout;
        let how =
            ResponseFraming { closes, is_head, is_http_1_0: framing.is_http_1_0, idle_timeout };
        let timeout = self.shared.limits.write_timeout;
        let response = if response.is_live() { self.answering(response) } else { response };
        let (deadline, is_unhurried) = (Instant::now() + timeout, response.is_unhurried());
        self.enter(Doing::Writing);
        let (slot, registry) = (&self.slot, &self.shared.registry);
        let mut deadline = || {
            if !is_unhurried {
                return deadline;
            }
            // Its time begins anew, also for the search for a connection that is stuck.
            slot.enter(Doing::Writing, registry.now_us());
            Instant::now() + timeout
        };
        let is_written =
            response::write(&mut self.wire.socket, response, how, &mut deadline).is_ok();
        if !is_written || !self.enter(Doing::Waiting) {
            return After::Gone;
        }
        // Read after it waits: a shutdown that began before did not see this connection waiting.
        let is_stopping = self.shared.registry.is_stopping();
        if is_stopping && unread == 0 && !is_broken && self.wire.filled == 0 {
            // Nothing of the peer's is unread, so closing at once cannot cost it the answer.
            return After::Gone;
        }
        if closes || is_stopping {
            return After::Close;
        }
        match self.wire.discard(unread, Instant::now() + self.shared.limits.body_timeout) {
            Ok(()) => After::KeepOpen,
            Err(_) => After::Gone,
        }
    }

    /// The same answer: while its next piece is made, the connection is not one whose peer does not
    /// read.
    fn answering(&self, mut response: Response) -> Response {
        let (slot, shared) = (self.slot.clone(), self.shared.clone());
        if let ResponseBody::Chunked(body) = &mut response.body {
            let mut pieces = std::mem::replace(body, Box::new(std::iter::empty()));
            *body = Box::new(std::iter::from_fn(move || {
                slot.enter(Doing::Answering, shared.registry.now_us());
                pieces.next()
            }));
        }
        response
    }

    fn worded(&self, refusal: Refusal) -> Response {
        self.shared.handler.refuse(&refusal, self.peer)
    }

    /// Answers what is not a request, and closes: it is not known where the next one would start.
    fn refuse(mut self, refusal: Refusal) {
        if self.slot.is_displaced() {
            return self.say_full();
        }
        log::debug!("refused {}: {} {}", self.peer, refusal.status, refusal.text);
        let deadline = Instant::now() + self.shared.limits.write_timeout;
        if self.enter(Doing::Writing)
            && self.write_refusal(refusal, deadline)
            && self.enter(Doing::Waiting)
        {
            self.linger();
        }
    }

    /// Ends a connection that was displaced while it waited: a peer that said nothing is told
    /// nothing, but one whose request is on its way learns that it was not answered.
    fn make_room(mut self) {
        // What has arrived is read without waiting, since this side's receiving end is shut down:
        // closing a socket with unread bytes would take the answer with it.
        let deadline = Instant::now() + FAREWELL_TIMEOUT;
        while !self.wire.is_full() && matches!(self.wire.fill(deadline), Ok(1..)) {}
        if self.wire.filled > 0 {
            self.say_full();
        }
    }

    fn say_full(mut self) {
        let refusal = if self.shared.registry.is_stopping() { STOPPING } else { TOO_MANY };
        self.write_refusal(refusal, Instant::now() + FAREWELL_TIMEOUT);
    }

    fn write_refusal(&mut self, refusal: Refusal, deadline: Instant) -> bool {
        let response = self.worded(refusal);
        let idle_timeout = self.shared.limits.idle_timeout;
        let how =
            ResponseFraming { closes: true, is_head: false, is_http_1_0: false, idle_timeout };
        response::write(&mut self.wire.socket, response, how, &mut || deadline).is_ok()
    }

    fn enter(&self, doing: Doing) -> bool {
        self.slot.enter(doing, self.shared.registry.now_us())
    }

    /// Closes so that the peer gets to read the last answer: a socket that is closed while bytes
    /// arrive resets the connection, and the peer's kernel throws away what the peer has not read.
    fn linger(mut self) {
        self.wire.socket.finish_writing();
        let deadline = Instant::now() + self.shared.limits.linger_timeout;
        self.wire.filled = 0;
        while let Ok(1..) = self.wire.fill(deadline) {
            self.wire.filled = 0;
        }
    }

    fn hand_over(self, callback: Box<dyn FnOnce(Stream, Vec<u8>) + Send>) {
        if self.shared.registry.is_stopping() {
            return;
        }
        let early = self.wire.data().to_vec();
        self.shared.registry.hand_over(self.id);
        match self.wire.socket.into_stream() {
            Ok(stream) => callback(stream, early),
            Err(error) => log::debug!("{} went away while it was upgraded: {error}", self.peer),
        }
    }
}

impl Wire {
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    fn is_full(&self) -> bool {
        self.filled == self.buffer.len()
    }

    /// Reads into another buffer, when this one is empty.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        self.socket.read(buffer, deadline)
    }

    /// Reads some more; 0 is the end. The buffer must not be full.
    pub(super) fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let got = self.socket.read(&mut self.buffer[self.filled..], deadline)?;
        self.filled += got;
        Ok(got)
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Reads `bytes` and throws them away.
    fn discard(&mut self, mut bytes: u64, deadline: Instant) -> io::Result<()> {
        while bytes > 0 {
            if self.filled == 0 && self.fill(deadline)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let part = usize::try_from(bytes).map_or(self.filled, |bytes| bytes.min(self.filled));
            self.consume(part);
            bytes -= part as u64;
        }
        Ok(())
    }
}

/// The body of the request under way.
struct PeerBody<'c> {
    wire: &'c mut Wire,
    timeout: Duration,
    has_length: bool,
    is_chunked: bool,
    left: u64,
    awaits_invitation: bool,
    is_broken: bool,
}

impl BodySource for PeerBody<'_> {
    fn announced(&self) -> Option<u64> {
        self.has_length.then_some(if self.is_chunked { 0 } else { self.left })
    }

    fn read(
        &mut self,
        max_bytes: usize,
        room: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Vec<u8>, BodyError> {
        let deadline = Instant::now() + self.timeout;
        let read = if self.is_chunked && self.left == UNKNOWN {
            self.invite(deadline)
                .and_then(|()| Chunks::new(self.wire, deadline).read(max_bytes, room))
        } else {
            self.read_all(deadline)
        };
        self.left = if read.is_ok() { 0 } else { self.left };
        self.is_broken |= read.is_err();
        read.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => BodyError::Timeout,
            ErrorKind::OutOfMemory => BodyError::TooLarge,
            ErrorKind::InvalidData => BodyError::Malformed,
            ErrorKind::ResourceBusy => BodyError::NoRoom,
            _ => BodyError::Disconnected,
        })
    }
}

impl PeerBody<'_> {
    /// Tells a peer that waits for it to send the body.
    fn invite(&mut self, deadline: Instant) -> io::Result<()> {
        if std::mem::take(&mut self.awaits_invitation) && self.left > 0 && self.wire.filled == 0 {
            self.wire.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n", &[], deadline)?;
        }
        Ok(())
    }

    fn read_all(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let total =
            usize::try_from(self.left).map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
        self.invite(deadline)?;
        let early = total.min(self.wire.filled);
        let mut body = self.wire.data()[..early].to_vec();
        self.wire.consume(early);
        let mut filled = early;
        while filled < total {
            if filled == body.len() {
                let room = total.min(filled.max(BODY_STEP_BYTES) + filled);
                body.reserve_exact(room - filled);
                body.resize(room, 0);
            }
            match self.wire.socket.read(&mut body[filled..], deadline)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                got => filled += got,
            }
        }
        Ok(body)
    }
}
