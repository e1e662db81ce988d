//! The WebSockets of the internal API, each served by two threads of its link: they are kept to be
//! joined, and told when the master stops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use super::event_line::STOPS;
use crate::base::sync::Lock;
use crate::net::link::Link;

/// The streams of a master.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) taken: Arc<AtomicUsize>,
    opened: AtomicU64,
    state: Lock<StreamsState>,
}

#[derive(Default)]
struct StreamsState {
    open: Vec<(Link, Arc<dyn ServedLink>)>,
    is_stopping: bool,
}

/// What a link of [`Streams`] serves, as far as its end goes.
pub(super) trait ServedLink: Send + Sync {
    /// Tells the peer that it ends once all is answered.
    fn say_goodbye(&self, reason: &str);

    /// Answers what can be answered, and closes the link.
    fn end(&self);
}

/// Whether a caller that went away is why a stream could not be started.
fn is_of_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl Streams {
    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The number of one more.
    pub(super) fn next_number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps what `start` starts, and says what it serves.
    pub(super) fn start(
        &self,
        start: impl FnOnce(&mut Option<Arc<dyn ServedLink>>) -> io::Result<Link>,
    ) {
        let mut served = None;
        match (start(&mut served), served) {
            (Ok(link), Some(served)) => self.keep(link, served),
            // Never: what starts a link says what it serves.
            (Ok(_), None) => {}
            (Err(error), _) if is_of_caller(&error) => {
                log::debug!("the caller of a WebSocket has gone: {error}");
            }
            (Err(error), _) => log::warn!("a WebSocket could not be started: {error}"),
        }
    }

    /// Keeps a stream to be joined, and joins those that have ended.
    fn keep(&self, link: Link, events: Arc<dyn ServedLink>) {
        let (ended, is_stopping) = {
            let mut state = self.state.lock();
            let ended: Vec<_> = state.open.extract_if(.., |(link, _)| link.is_finished()).collect();
            state.open.push((link, events.clone()));
            (ended, state.is_stopping)
        };
        drop(ended);
        if is_stopping {
            events.say_goodbye(STOPS);
        }
    }

    /// Says goodbye on every stream, also on those that open later: what is in flight is answered.
    pub(super) fn say_goodbye(&self) {
        let open: Vec<_> = {
            let mut state = self.state.lock();
            state.is_stopping = true;
            state.open.iter().map(|(_, events)| events.clone()).collect()
        };
        open.iter().for_each(|events| events.say_goodbye(STOPS));
    }

    /// Waits for the streams to end, as far as they do by `deadline`.
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

    /// Answers what is unanswered, ends the streams and joins their threads.
    ///
    /// # Blocks
    /// Until `deadline`; a caller that does not read by then is cut off.
    pub(super) fn end(&self, deadline: Instant) {
        let open = std::mem::take(&mut self.state.lock().open);
        open.iter().for_each(|(_, events)| events.end());
        open.into_iter().for_each(|(link, _)| link.join_until(deadline));
    }
}
