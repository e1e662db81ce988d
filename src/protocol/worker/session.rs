//! What the threads of a worker's link share, and what its writer does at intervals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::base::limits;
use crate::net::link::{CloseCause, LinkSender, Pulse, close_code};
use crate::protocol::MESOPHYLL_DEFAULT_HEARTBEAT_MS;
use crate::wire::message::ClientMessage;

use super::client::LocalWorker;
use super::finished::FinishedCounts;
use super::outbox::Outbox;

/// Between two looks of a worker that retires at whether it has answered everything.
const RETIRE_PAUSE: Duration = Duration::from_millis(10);

/// What the threads of one link share.
#[derive(Debug)]
pub(super) struct MasterSession {
    pub(super) link: LinkSender,
    pub(super) outbox: Outbox,
    pub(super) finished: Arc<FinishedCounts>,
    pub(super) interval_ms: AtomicU64,
    /// Ready is about to be sent, or was: from then on the master wants to be told of events
    /// without a request id.
    pub(super) is_announced: AtomicBool,
    pub(super) is_ready: AtomicBool,
    pub(super) is_retiring: Arc<AtomicBool>,
    /// Jobs that came over the link and have not been answered. Goes down when the answer has been
    /// queued for the link, so that none is missing there once it is 0.
    pub(super) unanswered: AtomicUsize,
    /// The reference's master never does, and knows none of our extensions.
    pub(super) has_said_hello: AtomicBool,
}

impl MasterSession {
    pub(super) fn new(link: LinkSender, outbox: Outbox, is_retiring: Arc<AtomicBool>) -> Self {
        Self {
            finished: Arc::new(FinishedCounts::new(link.clone())),
            link,
            outbox,
            interval_ms: AtomicU64::new(MESOPHYLL_DEFAULT_HEARTBEAT_MS),
            is_announced: AtomicBool::default(),
            is_ready: AtomicBool::default(),
            is_retiring,
            unanswered: AtomicUsize::default(),
            has_said_hello: AtomicBool::default(),
        }
    }

    /// Whether the worker is to end, and has answered all that it had.
    fn has_retired(&self) -> bool {
        self.is_retiring.load(Ordering::SeqCst)
            && self.unanswered.load(Ordering::SeqCst) == 0
            && self.finished.under_way() == 0
    }

    /// Ends the link in good order, with all that there is to tell.
    pub(super) fn close(&self, link: &LinkSender) {
        self.finished.tell_all();
        self.outbox.tell_all_lines(link);
        link.close(close_code::GOING_AWAY);
    }

    /// Whether the master counts the events that it sends without a request id.
    pub(super) fn tells_finished(&self) -> bool {
        self.has_said_hello.load(Ordering::Relaxed) && self.is_announced.load(Ordering::SeqCst)
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.load(Ordering::SeqCst).max(1))
    }
}

/// Heartbeats, and notices a silent master (rules 1 and 2).
pub(super) struct ClientPulse {
    worker: Arc<dyn LocalWorker>,
    session: Arc<MasterSession>,
    connected_at: Instant,
    sent_at: Option<Instant>,
    due: Instant,
    /// When the master was last heard of as far as this thread knows, and how late it has been
    /// itself since then.
    received_before: Instant,
    late: Duration,
}

impl ClientPulse {
    pub(super) fn new(worker: Arc<dyn LocalWorker>, session: Arc<MasterSession>) -> Self {
        let now = Instant::now();
        let (received_before, late) = (now, Duration::ZERO);
        Self { worker, session, connected_at: now, sent_at: None, due: now, received_before, late }
    }

    /// Heartbeats start with Ready. If the tenant states take so long that the master would give
    /// the link up, they start without it: dispatches that come then are answered `busy`, which is
    /// better than never getting ready.
    fn may_beat(&self, now: Instant, interval: Duration) -> bool {
        self.session.is_ready.load(Ordering::SeqCst)
            || now >= self.connected_at + interval * (limits::HEARTBEATS_MISSED_MAX - 1)
    }
}

impl Pulse for ClientPulse {
    fn beat(&mut self, link: &LinkSender, now: Instant) -> Instant {
        let told_due = [self.session.finished.beat(now), self.session.outbox.beat(now)];
        let interval = self.session.interval();
        let received = link.received_at();
        let silent = now.saturating_duration_since(received);
        if std::mem::replace(&mut self.received_before, received) != received {
            self.late = Duration::ZERO;
        }
        // A machine that stalls stalls this side too, and the master: after that it has as much
        // time as before it.
        self.late += now.saturating_duration_since(self.due);
        if silent >= interval * limits::HEARTBEATS_MISSED_MAX + self.late {
            log::warn!("the master has been silent for {silent:?}");
            link.abort(CloseCause::Silent);
        } else if silent >= interval && now >= self.due {
            link.ping();
        }
        if self.may_beat(now, interval) && self.sent_at.is_none_or(|at| now >= at + interval) {
            self.sent_at = Some(now);
            // A full queue is noticed by a thread that has an answer to send.
            let _ = link.send(ClientMessage::Heartbeat.encode());
            let mut health = self.worker.health();
            if let Some(figures) = &mut health.figures {
                figures.dropped_log_lines += self.session.outbox.lines_lost();
            }
            let _ = link.send(ClientMessage::Health(health).encode());
        }
        self.due = self.sent_at.map_or(now + interval, |at| at + interval);
        let retire_due =
            self.session.is_retiring.load(Ordering::SeqCst).then_some(now + RETIRE_PAUSE);
        if self.session.has_retired() {
            self.session.close(link);
        }
        told_due.into_iter().chain([retire_due]).flatten().fold(self.due, Instant::min)
    }
}
