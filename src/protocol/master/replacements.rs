//! When to say that two peers fight for one worker id (rule 4). Does not log itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::base::throttle::Throttle;

/// More replacements than this in a minute mean a fight.
const A_MINUTE_MAX: usize = 5;

/// The replacements of one worker's links.
#[derive(Debug, Default)]
pub(super) struct Replacements {
    /// Those of the last minute, of which no more are kept than tell a fight.
    recent: VecDeque<Instant>,
    told: Throttle,
}

impl Replacements {
    /// Counts one more; true if a fight is to be told of: at its beginning, and once a minute while
    /// it lasts. Workers of the reference never end it by themselves.
    pub(super) fn record(&mut self, now: Instant) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > Duration::from_secs(60);
        while self.recent.front().is_some_and(is_old) || self.recent.len() > A_MINUTE_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() > A_MINUTE_MAX && self.told.record(now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_told_at_once_and_then_once_a_minute() {
        let start = Instant::now();
        let mut replacements = Replacements::default();
        // As two workers of the reference do it.
        let told: Vec<u64> = (0..300)
            .step_by(5)
            .filter(|second| replacements.record(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [25, 85, 145, 205, 265]);
        assert_eq!(replacements.recent.len(), A_MINUTE_MAX + 1);
    }

    #[test]
    fn a_worker_that_reconnects_now_and_then_is_no_fight() {
        let start = Instant::now();
        let mut replacements = Replacements::default();
        assert!((0..100).all(|at| !replacements.record(start + Duration::from_secs(13) * at)));
    }
}
