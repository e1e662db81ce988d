//! How long a client waits before it connects again (docs/protocol.md, rule 5). It only reckons:
//! the client waits, on its own thread.

use std::time::Duration;

use crate::base::random;
use crate::net::link::{CloseCause, close_code};

/// Reconnecting starts here and doubles up to [`BACKOFF_MAX`].
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A link that the master closes before it is this old was not wanted: an operator has stopped this
/// worker, or it is in no sandbox and has to be.
const UNWANTED_BEFORE: Duration = Duration::from_secs(1);

/// The longest that the next pause may be.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    /// Begins anew after a link that served, but not after one that the master did not want: coming
    /// back to it at once would only be noise.
    pub(super) fn after_link(&mut self, cause: Option<&CloseCause>, age: Duration) {
        let closed_by_master = matches!(
            cause,
            Some(CloseCause::ClosedByPeer(close_code::GOING_AWAY | close_code::POLICY))
        );
        if !closed_by_master || age >= UNWANTED_BEFORE {
            self.0 = BACKOFF_MIN;
        }
    }

    /// A random part of what may be waited, which doubles.
    pub(super) fn next_pause(&mut self) -> Duration {
        let upper = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        Duration::from_millis(random::u64() % (upper + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_link_served() {
        let mut backoff = Backoff::new();
        for code in [close_code::GOING_AWAY, close_code::POLICY] {
            let closed = CloseCause::ClosedByPeer(code);
            for _ in 0..10 {
                assert!(backoff.next_pause() <= BACKOFF_MAX);
                backoff.after_link(Some(&closed), Duration::ZERO);
            }
            assert_eq!(backoff.0, BACKOFF_MAX, "closed at once, ten times");
            backoff.after_link(Some(&closed), UNWANTED_BEFORE);
            assert_eq!(backoff.0, BACKOFF_MIN, "a master that stops");
        }
        backoff.next_pause();
        backoff.after_link(Some(&CloseCause::Broken("reset".to_owned())), Duration::ZERO);
        assert_eq!(backoff.0, BACKOFF_MIN);
    }
}
