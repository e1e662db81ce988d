//! One WebSocket connection, either side: handshake, a reader/writer pair of threads, pending
//! requests.
//!
//! A link moves whole binary messages and knows nothing of what they mean. Its reader thread reads,
//! decodes frames and calls the [`LinkHandler`]; its writer thread coalesces what is queued into
//! one write and runs the link's clock (the [`Pulse`]). A message that is alone on its way is
//! written by its sender, if no other thread writes ([`LinkSender::send_alone`]). The maker of the
//! link joins both threads with [`Link::join`].
//!
//! One tungstenite object for both directions would let a blocked read hold up every write, so it
//! only reads: what it wants to say (pong, close reply) goes through the queue like everything
//! else, and the queue says whose turn it is to write.

mod frames;
mod handshake;
mod input;
mod pending;
mod queue;
mod reader;
mod socket_writer;
mod stats;
mod writer;

pub use handshake::{
    ConnectError, LinkTarget, Upgrade, UpgradeError, accept, connect, connect_over, connect_tcp,
};
pub use pending::{Pending, Registered};
pub use queue::SendError;
pub use stats::LinkStats;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::base::limits;
use crate::base::shared_bytes::{OutMessage, Received};
use crate::base::spare;
use crate::base::sync::Lock;
use crate::base::thread::OwnedThread;
use crate::net::stream::{Peer, Stream};
use crate::wire::data::TenantId;
use frames::FrameKind;
use queue::OutQueue;
use socket_writer::{Patience, SocketWriter, WriteProgress};

/// Close codes of RFC 6455 and ours.
pub mod close_code {
    /// The purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The peer goes away, such as a master that stops.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame broke RFC 6455.
    pub const PROTOCOL: u16 = 1002;
    /// A message of a kind that is none of the link's.
    pub const UNSUPPORTED: u16 = 1003;
    /// The peer closed without giving a code.
    pub const NONE_GIVEN: u16 = 1005;
    /// Messages that do not decode (protocol.md, rule 7).
    pub const UNDECODABLE: u16 = 1007;
    /// The peer is not what its configuration asks for.
    pub const POLICY: u16 = 1008;
    /// A message larger than a message may be.
    pub const TOO_LARGE: u16 = 1009;
    /// A newer connection of the same worker took over (protocol.md, rule 4).
    pub const REPLACED: u16 = 4001;
}

/// Why a link ended. The first cause sticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed with this code.
    ClosedByPeer(u16),
    /// This side closed with this code.
    ClosedByUs(u16),
    /// The connection broke; the text is for the log.
    Broken(String),
    /// Nothing that counts as a sign of life came in time.
    Silent,
    /// The peer did not take what was written for too long.
    SlowPeer,
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseCause::ClosedByPeer(code) => {
                write!(f, "the peer closed the link with code {code}")
            }
            CloseCause::ClosedByUs(code) => write!(f, "the link was closed with code {code}"),
            CloseCause::Broken(what) => write!(f, "the link broke: {what}"),
            CloseCause::Silent => f.write_str("the peer gave no sign of life"),
            CloseCause::SlowPeer => f.write_str("the peer did not read for too long"),
        }
    }
}

/// What a link calls from its reader thread. None of these may block.
pub trait LinkHandler: Send {
    /// A binary message came in.
    ///
    /// # Errors
    /// The code to close the link with.
    fn on_message(&mut self, link: &LinkSender, message: Received<'_>) -> Result<(), u16>;

    /// A text message came in, which no worker and no master sends.
    ///
    /// # Errors
    /// The code to close the link with.
    fn on_text(&mut self, link: &LinkSender, text: &str) -> Result<(), u16>;

    /// The link has ended: the last call.
    fn on_closed(&mut self, cause: &CloseCause);

    /// Where what moves on the link is counted; asked once, before anything does.
    fn stats(&self) -> Arc<LinkStats> {
        Arc::default()
    }
}

/// The clock of a link, run by its writer thread.
pub trait Pulse: Send {
    /// Does what is due at `now` and says when to call next.
    fn beat(&mut self, link: &LinkSender, now: Instant) -> Instant;

    /// A message of each of these tenants has left that was sent with [`LinkSender::send_told`].
    fn left(&mut self, _tenants: &[TenantId]) {}
}

/// What a new link is served by, made once the link can be sent on.
pub type Service = (Box<dyn LinkHandler>, Box<dyn Pulse>);

/// Bounds of one link; the defaults are the protocol's.
#[derive(Debug, Clone)]
pub struct LinkLimits {
    /// Largest message, either way, in bytes.
    pub message_max_bytes: usize,
    /// Messages that may wait for the writer.
    pub queue_messages: usize,
    /// Bytes that may wait for the writer.
    pub queue_bytes: usize,
    /// Time in which a batch must leave.
    pub write_timeout: Duration,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            message_max_bytes: limits::MESSAGE_MAX_BYTES,
            queue_messages: limits::LINK_QUEUE_MESSAGES,
            queue_bytes: limits::LINK_QUEUE_BYTES,
            write_timeout: limits::LINK_WRITE_TIMEOUT,
        }
    }
}

/// A running link: the duty to join its threads. Everything else is done through its
/// [`LinkSender`].
#[must_use = "dropping a Link aborts it and joins its threads"]
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    threads: Vec<OwnedThread>,
}

impl Link {
    /// The handle through which everybody talks to this link.
    pub fn sender(&self) -> &LinkSender {
        &self.sender
    }

    /// Waits until the link has ended in any way, and joins its threads.
    ///
    /// # Blocks
    /// Until the peer, [`LinkSender::close`] or [`LinkSender::abort`] ends the link.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            thread.join();
        }
    }

    /// Whether both threads have ended, at `deadline` at the latest.
    ///
    /// # Blocks
    /// Until `deadline`, or the link's end if that is earlier.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.threads.iter().all(|thread| thread.wait_until(deadline))
    }

    /// Joins the link's threads; one that has not ended by `deadline` is aborted.
    ///
    /// # Blocks
    /// Until `deadline`, or the link's end if that is earlier.
    pub fn join_until(self, deadline: Instant) {
        if !self.wait_until(deadline) {
            self.sender.abort(CloseCause::ClosedByUs(close_code::GOING_AWAY));
        }
        self.join();
    }

    /// Whether both threads have ended, so that [`Link::join`] returns at once.
    pub fn is_finished(&self) -> bool {
        self.wait_until(Instant::now())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.sender.abort(CloseCause::ClosedByUs(close_code::GOING_AWAY));
        }
    }
}

/// A cheap handle that sends on a link; it owns nothing, and dropping it closes nothing.
#[derive(Clone)]
pub struct LinkSender {
    shared: Arc<LinkShared>,
}

struct LinkShared {
    name: String,
    peer: Peer,
    queue: OutQueue,
    socket_writer: Lock<SocketWriter>,
    /// For `shutdown(Both)`, which frees a blocked reader and a blocked writer at once.
    socket: Arc<Stream>,
    cause: Lock<Option<CloseCause>>,
    limits: LinkLimits,
    epoch: Instant,
    received_bytes: AtomicU64,
    received_at_ms: AtomicU64,
    /// When the ping was queued whose pong is awaited, in microseconds after `epoch`; 0 if none is.
    pinged_at_us: AtomicU64,
}

/// A [`LinkSender`] that keeps nothing of a link that has ended and been joined, such as its
/// socket: for what may outlive the link by long.
#[derive(Clone)]
pub struct WeakLinkSender {
    shared: Weak<LinkShared>,
}

impl WeakLinkSender {
    /// The link, if there is something left of it.
    pub fn upgrade(&self) -> Option<LinkSender> {
        self.shared.upgrade().map(|shared| LinkSender { shared })
    }
}

impl LinkSender {
    /// A handle that keeps nothing of the link.
    pub fn downgrade(&self) -> WeakLinkSender {
        WeakLinkSender { shared: Arc::downgrade(&self.shared) }
    }

    /// Queues a binary message that is no tenant's; never blocks.
    ///
    /// # Errors
    /// The link has ended, its queue is full, or the message is larger than a message may be.
    /// Nothing was sent.
    pub fn send(&self, message: impl Into<OutMessage>) -> Result<(), SendError> {
        self.push(FrameKind::Binary, None, message.into())
    }

    /// As [`LinkSender::send`], for a tenant's message: it finds room in what the tenant has of the
    /// queue.
    ///
    /// # Errors
    /// As those of [`LinkSender::send`].
    pub fn send_for(
        &self,
        tenant: TenantId,
        message: impl Into<OutMessage>,
    ) -> Result<(), SendError> {
        self.push(FrameKind::Binary, Some(tenant), message.into())
    }

    /// As [`LinkSender::send_for`]; when the message has left, [`Pulse::left`] is told of it. It is
    /// not, if the link ends before.
    ///
    /// # Errors
    /// As those of [`LinkSender::send`].
    pub fn send_told(&self, tenant: TenantId, message: OutMessage) -> Result<(), SendError> {
        self.check_size(&message)?;
        self.shared.queue.push_told(FrameKind::Binary, Some(tenant), Some(tenant), message)
    }

    /// As [`LinkSender::send_for`], but writes the message on the caller's thread if nothing is
    /// before it: for one that nothing will be sent along with, as it saves waking the writer.
    /// Never blocks either.
    ///
    /// # Errors
    /// As those of [`LinkSender::send`].
    pub fn send_alone(
        &self,
        tenant: TenantId,
        message: impl Into<OutMessage>,
    ) -> Result<(), SendError> {
        let message = message.into();
        if message.len() > limits::LINK_ALONE_MAX_BYTES {
            return self.send_for(tenant, message);
        }
        let Some(turn) = self.shared.queue.callers_turn()? else {
            return self.send_for(tenant, message);
        };
        let written = {
            let mut socket_writer = self.socket_writer();
            let mut frame = socket_writer.buffer();
            let message = message.into_vec();
            frames::append(&mut frame, FrameKind::Binary, turn.key, &message);
            spare::give_back(message);
            socket_writer.keep_one(frame);
            socket_writer.flush(Patience::None)
        };
        match written {
            Ok(WriteProgress::Done) => {}
            Ok(WriteProgress::Stuck) => turn.leave_rest_to_writer(),
            Err(error) => {
                // At most a part of it left, which is no message to the peer. Before the turn ends,
                // so that no thread sends the rest.
                self.abort(CloseCause::Broken(error.to_string()));
                drop(turn);
                return Err(SendError::Closed);
            }
        }
        Ok(())
    }

    /// The writing half, for the thread that has the turn: so no thread waits here.
    fn socket_writer(&self) -> MutexGuard<'_, SocketWriter> {
        // What panics half way has ended the link.
        self.shared.socket_writer.lock()
    }

    /// By when a batch that begins to leave now must have left.
    fn write_deadline(&self) -> Instant {
        Instant::now() + self.shared.limits.write_timeout
    }

    /// Queues a text message, which no worker and no master understands: for other peers, such as
    /// the caller of a stream.
    ///
    /// # Errors
    /// As those of [`LinkSender::send`].
    pub fn send_text(&self, text: String) -> Result<(), SendError> {
        self.push(FrameKind::Text, None, text.into_bytes().into())
    }

    /// As [`LinkSender::send_text`], in the room of a tenant.
    ///
    /// # Errors
    /// As those of [`LinkSender::send`].
    pub fn send_text_for(&self, tenant: TenantId, text: String) -> Result<(), SendError> {
        self.push(FrameKind::Text, Some(tenant), text.into_bytes().into())
    }

    fn push(
        &self,
        kind: FrameKind,
        owner: Option<TenantId>,
        message: OutMessage,
    ) -> Result<(), SendError> {
        self.check_size(&message)?;
        self.shared.queue.push(kind, owner, message)
    }

    fn check_size(&self, message: &OutMessage) -> Result<(), SendError> {
        let (bytes, limit) = (message.len(), self.shared.limits.message_max_bytes);
        if bytes > limit { Err(SendError::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Queues a WebSocket ping, which every peer must answer. How long that takes is counted, of
    /// one ping at a time.
    pub fn ping(&self) {
        let now_us = self.now_us().max(1);
        let pinged_at_us = &self.shared.pinged_at_us;
        let is_timed =
            pinged_at_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        // A queue that is full or closed makes a sign of life needless.
        let number = if is_timed { now_us } else { 0 };
        let queued = self.shared.queue.push(FrameKind::Ping, None, number.to_be_bytes().to_vec());
        if is_timed && queued.is_err() {
            pinged_at_us.store(0, Ordering::Relaxed);
        }
    }

    /// How long ago the ping was queued that this is the answer to; `None` for any other pong, such
    /// as one that was not asked for.
    fn on_pong(&self, payload: &[u8]) -> Option<Duration> {
        let at_us = u64::from_be_bytes(payload.try_into().ok()?);
        if at_us == 0 {
            return None;
        }
        let pinged_at_us = &self.shared.pinged_at_us;
        pinged_at_us.compare_exchange(at_us, 0, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(Duration::from_micros(self.now_us().saturating_sub(at_us)))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Lets the writer thread run the link's pulse at once, such as when its interval has changed.
    pub fn beat_now(&self) {
        self.shared.queue.beat_now();
    }

    /// Closes the link with a code after what is queued has left. Does not wait.
    pub fn close(&self, code: u16) {
        self.record_cause(CloseCause::ClosedByUs(code));
        self.shared.queue.close(code);
    }

    /// Ends the link at once and returns why it ended: this, or what came before. Does not wait.
    pub fn abort(&self, cause: CloseCause) -> CloseCause {
        let cause = self.record_cause(cause);
        self.shared.queue.abort();
        // Fails only when the connection has gone already.
        let _ = self.shared.socket.shutdown(Shutdown::Both);
        cause
    }

    /// Whether the link has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        self.shared.queue.is_closed()
    }

    /// Why the link ended, once it has.
    pub fn cause(&self) -> Option<CloseCause> {
        self.shared.cause.lock().clone()
    }

    /// When the last byte came in.
    pub fn received_at(&self) -> Instant {
        self.shared.epoch
            + Duration::from_millis(self.shared.received_at_ms.load(Ordering::Relaxed))
    }

    /// How many bytes have come in.
    pub fn received_bytes(&self) -> u64 {
        self.shared.received_bytes.load(Ordering::Relaxed)
    }

    /// Messages and bytes that wait for the writer.
    pub fn queued(&self) -> (usize, usize) {
        self.shared.queue.len()
    }

    /// The peer at the other end.
    pub fn peer(&self) -> Peer {
        self.shared.peer
    }

    /// Keeps the first cause and returns it.
    fn record_cause(&self, cause: CloseCause) -> CloseCause {
        let mut first = self.shared.cause.lock();
        first.get_or_insert(cause).clone()
    }

    fn record_received(&self, bytes: usize) {
        self.shared.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let now_ms = u64::try_from(self.shared.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.received_at_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkSender({} with {})", self.shared.name, self.shared.peer)
    }
}

/// Starts the two threads of a link over a connection whose handshake is done: `{name}-rd` and
/// `{name}-wr`.
fn start(
    name: &str,
    upgraded: handshake::Upgraded,
    limits: &LinkLimits,
    serve: impl FnOnce(&LinkSender) -> Service,
) -> io::Result<Link> {
    let socket = Arc::new(upgraded.websocket.get_ref().clone_socket()?);
    let poll_pause = writer::poll_pause(limits.write_timeout);
    let socket_writer = SocketWriter::new(socket.clone(), poll_pause)?;
    let sender = LinkSender {
        shared: Arc::new(LinkShared {
            name: name.to_owned(),
            peer: socket.peer()?,
            queue: OutQueue::new(upgraded.role, limits.queue_messages, limits.queue_bytes),
            socket_writer: Lock::new(socket_writer),
            socket,
            cause: Lock::new(None),
            limits: limits.clone(),
            epoch: Instant::now(),
            received_bytes: AtomicU64::new(0),
            received_at_ms: AtomicU64::new(0),
            pinged_at_us: AtomicU64::new(0),
        }),
    };
    let (handler, pulse) = serve(&sender);
    let stats = handler.stats();
    sender.socket_writer().count_in(stats.clone());
    // From here on, dropping the link ends and joins what was started.
    let mut link = Link { sender: sender.clone(), threads: Vec::with_capacity(2) };
    link.threads.push(writer::spawn(name, sender.clone(), pulse)?);
    link.threads.push(reader::spawn(name, sender, upgraded, handler, stats)?);
    Ok(link)
}

#[cfg(test)]
mod tests;
