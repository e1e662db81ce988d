//! How much goes to the log about what may happen at any rate, and how much of anything may happen.
//! Neither of the two logs itself.

use std::time::{Duration, Instant};

use super::primitives::atomic::{AtomicU64, Ordering};
use super::sync::Lock;

/// Between two lines about the same kind of thing.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// Counts what a peer does wrong and says when to log it: at once, then at most once a minute.
///
/// One throttle outlives the links of a worker, because a peer that does wrong loses its link,
/// connects and does it again: logged once for each link it would fill the log. Used from the
/// links' reader threads.
#[derive(Debug, Default)]
pub struct Throttle {
    count: AtomicU64,
    logged_at: Lock<Option<Instant>>,
}

impl Throttle {
    /// Counts one more; the number so far, if it is to be logged now.
    pub fn record(&self, now: Instant) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged_at = self.logged_at.lock();
        if logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOGGED_EVERY) {
            return None;
        }
        *logged_at = Some(now);
        Some(count)
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Admits so much a second, such as lines of a log, with some saved up.
#[derive(Debug, Clone)]
pub struct Rate {
    per_second: f64,
    burst: u32,
    /// How many may still come.
    saved: f64,
    since: Option<Instant>,
}

impl Rate {
    /// A rate with its whole burst saved up.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: f64::from(per_second), burst, saved: f64::from(burst), since: None }
    }

    /// A rate of one in so long.
    pub fn one_in(time: Duration) -> Self {
        Self { per_second: time.as_secs_f64().recip(), burst: 1, saved: 1.0, since: None }
    }

    /// Whether what comes now may pass.
    pub fn admits(&mut self, now: Instant) -> bool {
        self.saved = self.saved(now);
        self.since = Some(now);
        let admits = self.saved >= 1.0;
        if admits {
            self.saved -= 1.0;
        }
        admits
    }

    /// What was admitted did not come.
    pub fn give_back(&mut self) {
        self.saved = (self.saved + 1.0).min(f64::from(self.burst));
    }

    /// Whether it has saved up its whole burst: a new one is the same.
    pub fn is_whole(&self, now: Instant) -> bool {
        self.saved(now) >= f64::from(self.burst)
    }

    fn saved(&self, now: Instant) -> f64 {
        let since = self.since.unwrap_or(now);
        let gained = now.saturating_duration_since(since).as_secs_f64() * self.per_second;
        (self.saved + gained).min(f64::from(self.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_the_others_once_a_minute() {
        let start = Instant::now();
        let throttle = Throttle::default();
        assert_eq!(throttle.record(start), Some(1));
        for at in 0..1000 {
            assert_eq!(throttle.record(start + Duration::from_millis(at)), None);
        }
        assert_eq!(throttle.record(start + LOGGED_EVERY), Some(1002));
        assert_eq!(throttle.record(start + LOGGED_EVERY), None);
        assert_eq!(throttle.count(), 1003);
    }

    #[test]
    fn a_burst_is_allowed_and_then_a_steady_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(20, 100);
        assert_eq!((0..1000).filter(|_| rate.admits(start)).count(), 100);
        let later = start + Duration::from_secs(1);
        assert!(!rate.is_whole(later));
        assert!(rate.is_whole(start + Duration::from_secs(5)));
        assert_eq!((0..1000).filter(|_| rate.admits(later)).count(), 20);
    }
}
