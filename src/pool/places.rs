//! What is under way of those that are brought to tenants one at a time: a run has a place until it
//! has ended, or has had it for long. Pure; the time is passed in.

use std::time::{Duration, Instant};

/// One that is under way: its number, and since when.
#[derive(Debug)]
pub(super) struct Running<T> {
    pub(super) number: u64,
    pub(super) what: T,
    since: Instant,
    /// It keeps others waiting.
    has_place: bool,
}

impl<T> Running<T> {
    /// How long it has been under way.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// How many are under way, and how many of them have a place.
#[derive(Debug, Default)]
pub(super) struct Places {
    under_way: usize,
    taken: usize,
    counted: u64,
}

impl Places {
    /// Whether one more may begin, with so many places, and so many under way at most.
    pub(super) fn has_room(&self, places: usize, under_way_max: usize) -> bool {
        self.taken < places && self.under_way < under_way_max
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// One more begins.
    pub(super) fn begin<T>(&mut self, what: T, now: Instant) -> Running<T> {
        self.under_way += 1;
        self.taken += 1;
        self.counted += 1;
        Running { number: self.counted, what, since: now, has_place: true }
    }

    /// One has ended.
    pub(super) fn end<T>(&mut self, running: &Running<T>) {
        self.under_way -= 1;
        self.taken -= usize::from(running.has_place);
    }

    /// Takes the place of one; whether it had it until now.
    pub(super) fn take_from<T>(&mut self, running: &mut Running<T>) -> bool {
        let had_it = std::mem::take(&mut running.has_place);
        self.taken -= usize::from(had_it);
        had_it
    }
}
