//! Counts what a peer does wrong and says when to tell of it: at once, then at most once a minute.
//!
//! One tally outlives the links of a worker, because a peer that does wrong loses its link,
//! connects and does it again: told once for each link it would fill the log. It does no logging
//! itself. Used from the links' reader threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same kind of thing.
const TOLD_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(in crate::protocol) struct Tally {
    count: AtomicU64,
    told_at: Mutex<Option<Instant>>,
}

impl Tally {
    /// Counts one more; the number so far, if it is to be told now.
    pub(in crate::protocol) fn note(&self, now: Instant) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|at| now.saturating_duration_since(at) < TOLD_EVERY) {
            return None;
        }
        *told_at = Some(now);
        Some(count)
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_a_minute() {
        let start = Instant::now();
        let tally = Tally::default();
        assert_eq!(tally.note(start), Some(1));
        for at in 0..1000 {
            assert_eq!(tally.note(start + Duration::from_millis(at)), None);
        }
        assert_eq!(tally.note(start + TOLD_EVERY), Some(1002));
        assert_eq!(tally.note(start + TOLD_EVERY), None);
        assert_eq!(tally.count(), 1003);
    }
}
