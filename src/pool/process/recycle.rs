//! When a worker that is well is started anew all the same: after so many events, at so much
//! memory, at such an age. Pure.
//!
//! Each process has limits of its own, up to a tenth more or less, so that workers that started
//! together do not end together.

use std::time::Duration;

use crate::wire::message::Health;

/// Limit: a process younger than this is not recycled for its memory. What a worker needs to be
/// ready at all would otherwise start the next one at once, for ever, if the limit is below it.
const MEMORY_SETTLES: Duration = Duration::from_secs(10);

/// Limits after which a worker is recycled; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recycle {
    /// Events that it started.
    pub events: Option<u64>,
    /// Memory of its process, in bytes.
    pub memory_bytes: Option<u64>,
    /// Time since it was started.
    pub age: Option<Duration>,
}

impl Recycle {
    /// The limits of one process; `jitter` in 0.0..1.0.
    pub(super) fn spread(self, jitter: f64) -> Self {
        let factor = 0.9 + jitter.clamp(0.0, 1.0) / 5.0;
        // Counts of events and bytes are far below what an f64 holds exactly.
        let spread = |limit: u64| (limit as f64 * factor) as u64;
        Self {
            events: self.events.map(spread),
            memory_bytes: self.memory_bytes.map(spread),
            age: self.age.map(|age| age.mul_f64(factor)),
        }
    }

    /// Why it is to be recycled now.
    pub(in crate::pool) fn reason(&self, health: Option<&Health>, age: Duration) -> Option<String> {
        let (events, memory) = health.map_or((0, 0), |health| (health.events, health.memory_bytes));
        if self.events.is_some_and(|limit| events >= limit) {
            Some(format!("recycled after {events} events"))
        } else if age >= MEMORY_SETTLES && self.memory_bytes.is_some_and(|limit| memory >= limit) {
            Some(format!("recycled at {} MiB of memory", memory / (1024 * 1024)))
        } else if self.age.is_some_and(|limit| age >= limit) {
            Some(format!("recycled after {} s", age.as_secs()))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_recycles_and_says_why_and_none_never_does() {
        let health = Health { events: 1000, memory_bytes: 64 << 20, ..Health::default() };
        let age = Duration::from_secs(3600);
        let reason = |recycle: Recycle| recycle.reason(Some(&health), age);
        assert_eq!(reason(Recycle::default()), None);
        assert_eq!(reason(Recycle { events: Some(1001), ..Recycle::default() }), None);
        let by_events = reason(Recycle { events: Some(1000), ..Recycle::default() });
        assert_eq!(by_events.as_deref(), Some("recycled after 1000 events"));
        let by_memory = reason(Recycle { memory_bytes: Some(64 << 20), ..Recycle::default() });
        assert_eq!(by_memory.as_deref(), Some("recycled at 64 MiB of memory"));
        let by_age = reason(Recycle { age: Some(age), ..Recycle::default() });
        assert_eq!(by_age.as_deref(), Some("recycled after 3600 s"));
    }

    #[test]
    fn a_memory_limit_too_low_does_not_recycle_for_ever() {
        let health = Health { memory_bytes: 64 << 20, ..Health::default() };
        let recycle = Recycle { memory_bytes: Some(1), ..Recycle::default() };
        assert_eq!(recycle.reason(Some(&health), MEMORY_SETTLES - Duration::from_millis(1)), None);
        assert!(recycle.reason(Some(&health), MEMORY_SETTLES).is_some());
    }

    #[test]
    fn limits_are_spread_by_a_tenth() {
        let recycle =
            Recycle { events: Some(1000), memory_bytes: None, age: Some(Duration::from_secs(100)) };
        assert_eq!(
            (recycle.spread(0.0).events, recycle.spread(1.0).events),
            (Some(900), Some(1100))
        );
        assert_eq!(recycle.spread(0.5).age, Some(Duration::from_secs(100)));
    }
}
