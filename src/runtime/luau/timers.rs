//! What an executor has to do later: wake tasks that wait for time, and end events whose wall time
//! is over.
//!
//! Sorted by time, and removed when no longer needed: with a heap whose entries are merely ignored,
//! the 30 s of every short event would pile up. Pure: the caller says what time it is.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::wire::data::TenantId;

/// Names a timer, to remove it.
pub(super) type TimerKey = (Instant, u64);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Resume a task.
    Wake(u64),
    /// End an event.
    Wall(u64),
}

/// The timers of an executor.
#[derive(Debug, Default)]
pub(super) struct Timers {
    // Limit: one a waiting task and one a waiting event.
    queue: BTreeMap<TimerKey, (TenantId, Due)>,
    last: u64,
}

impl Timers {
    /// Adds a timer.
    pub(super) fn add(&mut self, at: Instant, tenant: TenantId, due: Due) -> TimerKey {
        self.last += 1;
        self.queue.insert((at, self.last), (tenant, due));
        (at, self.last)
    }

    /// Removes a timer, unless it has fired.
    pub(super) fn remove(&mut self, key: TimerKey) {
        self.queue.remove(&key);
    }

    /// When the next one fires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(TenantId, Due)> {
        let entry = self.queue.first_entry()?;
        if entry.key().0 > now { None } else { Some(entry.remove()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_before_their_time() {
        let (now, tenant) = (Instant::now(), TenantId::Guild(1));
        let later = now + Duration::from_secs(1);
        let mut timers = Timers::default();
        timers.add(later, tenant, Due::Wake(3));
        timers.add(now, tenant, Due::Wake(1));
        timers.add(now, tenant, Due::Wall(2));
        let removed = timers.add(now, tenant, Due::Wake(9));
        timers.remove(removed);
        assert_eq!(timers.next(), Some(now));
        assert_eq!(timers.take_due(now), Some((tenant, Due::Wake(1))));
        assert_eq!(timers.take_due(now), Some((tenant, Due::Wall(2))));
        assert_eq!(timers.take_due(now), None);
        assert_eq!(timers.take_due(later), Some((tenant, Due::Wake(3))));
        assert_eq!(timers.next(), None);
    }
}
