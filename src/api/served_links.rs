//! The WebSockets of the internal API, a JSON text for each message: how they are opened, read,
//! watched, and ended when the master stops.
//!
//! Each runs on two threads of its link, which [`ServedLinks`] owns, and has a place of its own
//! beside those of requests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use super::error::{ApiError, Code};
use super::event_line::STOPS;
use super::{Api, Call};
use crate::base::labels::{OutcomeCounters, labels};
use crate::base::limits::{STREAM_PING_EVERY, STREAM_SILENCE_MAX};
use crate::base::shared_bytes::Received;
use crate::base::sync::{CountedPermit, Lock};
use crate::net::http::{Body, Response};
use crate::net::link::{
    self, CloseCause, Link, LinkHandler, LinkLimits, LinkSender, Pulse, close_code,
};

/// What a link serves, on its threads and those of its answers.
pub(super) trait ServedLink: Send + Sync {
    /// Does what a message says. Never blocks.
    fn take_line(self: Arc<Self>, text: &str);

    /// Does what is due, and says when it looks again, `at` at the latest. Never blocks.
    fn look(self: Arc<Self>, now: Instant, at: Instant) -> Instant;

    /// The link has ended.
    fn gone(&self, cause: &CloseCause);

    /// Tells the peer that it ends once all is answered.
    fn say_goodbye(&self, reason: &str);

    /// Answers what can be answered, and closes the link.
    fn end(&self);
}

labels! {
    /// How a link ended, as a label.
    ServedEnd {
        /// Its peer closed it.
        Closed = "closed",
        /// The master stopped, and said goodbye.
        Goodbye = "goodbye",
        /// Its peer sent what it may not.
        Wrong = "wrong",
        /// The connection broke.
        Broken = "broken",
        /// Its peer gave no sign of life.
        Silent = "silent",
        /// Its peer did not read.
        Slow = "slow",
    }
}

impl ServedEnd {
    fn of(cause: &CloseCause) -> Self {
        match cause {
            CloseCause::ClosedByPeer(_) => ServedEnd::Closed,
            CloseCause::ClosedByUs(close_code::GOING_AWAY) => ServedEnd::Goodbye,
            CloseCause::ClosedByUs(_) => ServedEnd::Wrong,
            CloseCause::Broken(_) => ServedEnd::Broken,
            CloseCause::Silent => ServedEnd::Silent,
            CloseCause::SlowPeer => ServedEnd::Slow,
        }
    }
}

/// The links of one kind.
pub(super) struct ServedLinks {
    /// What they are called, as threads and in errors.
    name: &'static str,
    what: &'static str,
    max: usize,
    taken: Arc<AtomicUsize>,
    opened: AtomicU64,
    ends: Arc<OutcomeCounters<ServedEnd>>,
    state: Lock<LinksState>,
}

#[derive(Default)]
struct LinksState {
    open: Vec<(Link, Arc<dyn ServedLink>)>,
    is_stopping: bool,
}

/// Whether a caller that went away is why a link could not be started.
fn is_of_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl ServedLinks {
    /// At most so many at once, called `name` as threads and `what` in errors.
    pub(super) fn new(name: &'static str, what: &'static str, max: usize) -> Arc<Self> {
        let (taken, opened, ends) = (Arc::default(), AtomicU64::new(0), Arc::default());
        Arc::new(Self { name, what, max, taken, opened, ends, state: Lock::default() })
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How they have ended.
    pub(super) fn ends(&self) -> &OutcomeCounters<ServedEnd> {
        &self.ends
    }

    /// Answers a call with the link that it asks for; `serve` makes what it serves.
    ///
    /// # Errors
    /// It asks for no WebSocket, or there are too many.
    pub(super) fn open(
        self: &Arc<Self>,
        api: &Api,
        call: &Call<'_>,
        body: &mut Body<'_>,
        limits: LinkLimits,
        serve: impl FnOnce(&LinkSender) -> Arc<dyn ServedLink> + Send + 'static,
    ) -> Result<Response, ApiError> {
        drop(api.admit_without_body(body)?);
        let upgrade = link::accept(call.head.upgrade_headers()).map_err(|error| {
            ApiError::upgrade_required(format!("this route is a WebSocket: {error}"))
        })?;
        let place = CountedPermit::take(&self.taken, self.max).ok_or_else(|| {
            ApiError::new(Code::Busy, format!("{} {} are there already", self.max, self.what))
        })?;
        let links = self.clone();
        Ok(Response::upgrade(move |socket, already_read| {
            let number = links.opened.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", links.name);
            let mut kept = None;
            let started = upgrade.start(&name, socket, already_read, &limits, |link| {
                let served = serve(link);
                kept = Some(served.clone());
                let handler = ServedHandler { served: served.clone(), ends: links.ends.clone() };
                let pulse = ServedPulse { served, ping_at: Instant::now(), _place: place };
                (Box::new(handler), Box::new(pulse))
            });
            match (started, kept) {
                (Ok(link), Some(served)) => links.keep(link, served),
                // Never: a link that was started serves something.
                (Ok(_), None) => {}
                (Err(error), _) if is_of_caller(&error) => {
                    log::debug!("the caller of a WebSocket has gone: {error}");
                }
                (Err(error), _) => log::warn!("a WebSocket could not be started: {error}"),
            }
        }))
    }

    /// Keeps a link to be joined, and joins those that have ended.
    fn keep(&self, link: Link, served: Arc<dyn ServedLink>) {
        let (ended, is_stopping) = {
            let mut state = self.state.lock();
            let ended: Vec<_> = state.open.extract_if(.., |(link, _)| link.is_finished()).collect();
            state.open.push((link, served.clone()));
            (ended, state.is_stopping)
        };
        drop(ended);
        if is_stopping {
            served.say_goodbye(STOPS);
        }
    }

    /// Says goodbye on every link, also on those that open later: what is in flight is answered.
    pub(super) fn say_goodbye(&self) {
        let open: Vec<_> = {
            let mut state = self.state.lock();
            state.is_stopping = true;
            state.open.iter().map(|(_, served)| served.clone()).collect()
        };
        open.iter().for_each(|served| served.say_goodbye(STOPS));
    }

    /// Waits for the links to end, as far as they do by `deadline`.
    ///
    /// # Blocks
    /// Until `deadline` at most.
    pub(super) fn wait_until_answered(&self, deadline: Instant) {
        let open = std::mem::take(&mut self.state.lock().open);
        for (link, _) in &open {
            link.wait_until(deadline);
        }
        self.state.lock().open.extend(open);
    }

    /// Answers what is unanswered, ends the links and joins their threads.
    ///
    /// # Blocks
    /// Until `deadline`; a caller that does not read by then is cut off.
    pub(super) fn end(&self, deadline: Instant) {
        let open = std::mem::take(&mut self.state.lock().open);
        open.iter().for_each(|(_, served)| served.end());
        open.into_iter().for_each(|(link, _)| link.join_until(deadline));
    }
}

struct ServedHandler {
    served: Arc<dyn ServedLink>,
    ends: Arc<OutcomeCounters<ServedEnd>>,
}

impl LinkHandler for ServedHandler {
    /// A binary message is none of these.
    fn on_message(&mut self, _: &LinkSender, _: Received<'_>) -> Result<(), u16> {
        Err(close_code::UNSUPPORTED)
    }

    fn on_text(&mut self, _: &LinkSender, text: &str) -> Result<(), u16> {
        self.served.clone().take_line(text);
        Ok(())
    }

    fn on_closed(&mut self, cause: &CloseCause) {
        self.ends.add(ServedEnd::of(cause), 1);
        self.served.gone(cause);
    }
}

/// A link's clock: what is due, and whether the peer is there.
struct ServedPulse {
    served: Arc<dyn ServedLink>,
    ping_at: Instant,
    /// Until the writer has ended, which may try for long to write to a peer that does not read.
    _place: CountedPermit,
}

impl Pulse for ServedPulse {
    fn beat(&mut self, link: &LinkSender, now: Instant) -> Instant {
        if now >= self.ping_at {
            if now.saturating_duration_since(link.received_at()) > STREAM_SILENCE_MAX {
                link.abort(CloseCause::Silent);
            }
            link.ping();
            self.ping_at = now + STREAM_PING_EVERY;
        }
        self.served.clone().look(now, self.ping_at)
    }
}
