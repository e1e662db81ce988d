//! A time and chances of a run's own: all that is random in a simulation is drawn here, from its
//! seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::random;

use super::world::Happening;

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Chances from a seed: splitmix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(random::mix(seed.wrapping_add(1)))
    }

    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        random::mix(self.0) % most.max(1)
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is below a usize")
    }

    pub(super) fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }

    pub(super) fn between(&mut self, least: u64, most: u64) -> Duration {
        millis(least + self.below(most - least + 1))
    }

    pub(super) fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(1 << 20)).expect("20 bits")) / f64::from(1 << 20)
    }
}

/// The virtual clock, and what is still to happen.
pub(super) struct Clock {
    /// The `Instant` at which the run begins.
    epoch: Instant,
    pub(super) now: Duration,
    turn: u64,
    to_come: BTreeMap<(Duration, u64), Happening>,
    pub(super) dice: Dice,
    /// The machine slept until then: what was due earlier happens then, late.
    pub(super) slept_until: Duration,
}

impl Clock {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            turn: 0,
            to_come: BTreeMap::new(),
            dice: Dice::new(seed),
            slept_until: Duration::ZERO,
        }
    }

    /// A virtual time as the product's code takes it.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    pub(super) fn of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch)
    }

    pub(super) fn at(&mut self, at: Duration, happening: Happening) {
        self.turn += 1;
        self.to_come.insert((at.max(self.now), self.turn), happening);
    }

    pub(super) fn after(&mut self, pause: Duration, happening: Happening) {
        self.at(self.now + pause, happening);
    }

    /// What happens next, if that is before `end`.
    pub(super) fn next(&mut self, end: Duration) -> Option<Happening> {
        let first = self.to_come.first_entry().filter(|first| first.key().0 <= end)?;
        let ((at, _), happening) = first.remove_entry();
        self.now = at.max(self.slept_until).max(self.now);
        Some(happening)
    }

    pub(super) fn to_come(&self) -> impl Iterator<Item = &Happening> {
        self.to_come.values()
    }
}
