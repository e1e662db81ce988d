//! A link's clock at the master: whether its worker is alive.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::MesophyllServerConn;
use crate::base::limits;
use crate::dispatch::worker_like::WorkerLike;
use crate::net::link::{CloseCause, LinkSender, Pulse};
use crate::wire::data::TenantId;

/// A frame that arrives at less than this an interval is a peer that dribbles; one that is faster
/// counts as a sign of life, because a heartbeat cannot overtake it (rule 2).
const SLOW_FRAME_BYTES: u64 = 256 * 1024;

/// Watches a worker's heartbeats; runs on its link's writer thread.
pub(in crate::protocol::master) struct ConnPulse {
    conn: MesophyllServerConn,
    interval: Duration,
    bytes_before: u64,
    /// Of all links of this worker, of which the others have ended.
    messages_before: u64,
    due: Instant,
    /// When the last heartbeat had come that this thread knows of, and how late it has been itself
    /// since then.
    heartbeat_before: u64,
    late: Duration,
}

impl Pulse for ConnPulse {
    fn beat(&mut self, link: &LinkSender, now: Instant) -> Instant {
        let bytes = link.received_bytes();
        let arrived = bytes - std::mem::replace(&mut self.bytes_before, bytes);
        let messages = self.conn.inner.counters.link.received_messages.get();
        let is_quiet = std::mem::replace(&mut self.messages_before, messages) == messages;
        // A large frame is arriving, behind which a heartbeat may be waiting.
        let is_mid_frame = is_quiet && arrived >= SLOW_FRAME_BYTES;
        let heartbeat = self.conn.inner.heartbeat_at_ms.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.heartbeat_before, heartbeat) != heartbeat {
            self.late = Duration::ZERO;
        }
        // A machine that stalls stalls this side too, and its peers: after that they have as much
        // time as before it.
        self.late += now.saturating_duration_since(self.due);
        let patience = self.interval * limits::HEARTBEATS_MISSED_MAX + self.late;
        if self.conn.heartbeat_age() > patience && !is_mid_frame {
            log::warn!(worker = self.conn.id(); "worker {}: no heartbeat for {:?}", self.conn.id(), self.conn.heartbeat_age());
            link.abort(CloseCause::Silent);
        }
        // Every peer of any make must answer it: that is how the link's round trips are
        // timed.
        link.ping();
        self.due = now + self.interval;
        self.due
    }

    fn left(&mut self, tenants: &[TenantId]) {
        self.conn.events_left(tenants);
    }
}

impl ConnPulse {
    pub(in crate::protocol::master) fn new(conn: MesophyllServerConn, interval: Duration) -> Self {
        let (bytes_before, messages_before) = (0, conn.inner.counters.link.received_messages.get());
        let (due, heartbeat_before, late) = (Instant::now(), 0, Duration::ZERO);
        Self { conn, interval, bytes_before, messages_before, due, heartbeat_before, late }
    }
}
