//! What time it is for scripts and for what they store: the time of the system, or one that moves
//! only when it is told to, with which templates are tested.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A clock.
#[derive(Debug, Clone, Default)]
pub enum ScriptClock {
    /// The system's.
    #[default]
    System,
    /// One that stands still until it is moved.
    Manual(Arc<ManualClock>),
}

impl ScriptClock {
    /// Its time at the moment that is `now` by the clock of the system.
    #[inline]
    pub fn at(&self, now: Instant) -> Instant {
        match self {
            ScriptClock::System => now,
            ScriptClock::Manual(clock) => clock.now(),
        }
    }

    /// Its date and time of day.
    pub fn date(&self) -> SystemTime {
        match self {
            ScriptClock::System => SystemTime::now(),
            ScriptClock::Manual(clock) => clock.date(),
        }
    }

    /// How long a thread that waits for this time may sleep: a clock that stands still never gets
    /// there by itself.
    pub fn sleeps_until(&self, time: Option<Instant>) -> Option<Instant> {
        match self {
            ScriptClock::System => time,
            ScriptClock::Manual(_) => None,
        }
    }
}

/// A clock that stands still until it is moved. Read and moved from any thread.
#[derive(Debug)]
pub struct ManualClock {
    began: Instant,
    date: SystemTime,
    passed_nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this date.
    pub fn new(date: SystemTime) -> Self {
        Self { began: Instant::now(), date, passed_nanos: AtomicU64::new(0) }
    }

    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed_nanos.load(Ordering::SeqCst))
    }

    /// Its time. It begins with that of the system and goes its own way.
    pub fn now(&self) -> Instant {
        self.began + self.passed()
    }

    /// Its date and time of day.
    pub fn date(&self) -> SystemTime {
        self.date + self.passed()
    }

    /// Moves it on to this time, unless it is there already. What waits for a time is not told.
    pub fn move_to(&self, time: Instant) {
        let passed = time.saturating_duration_since(self.began).as_nanos();
        self.passed_nanos.fetch_max(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_on_only_and_its_date_with_it() {
        let manual = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let clock = ScriptClock::Manual(manual.clone());
        let began = clock.at(Instant::now());
        let hour = Duration::from_secs(3600);
        manual.move_to(began + hour);
        manual.move_to(began);
        assert_eq!(clock.at(Instant::now()), began + hour);
        assert_eq!(clock.date(), SystemTime::UNIX_EPOCH + hour);
        assert_eq!(clock.sleeps_until(Some(began)), None);
        assert_eq!(ScriptClock::System.sleeps_until(Some(began)), Some(began));
    }
}
