//! Waiting awake for a moment before sleeping, for what is only microseconds away.
//!
//! To wake a thread on a processor that has gone to sleep takes longer than the rest of a dispatch:
//! 15 to 30 µs each on a virtual machine, four times for one answer. So a thread that has good
//! reason to expect something soon looks for it again and again for some microseconds, and gives
//! the processor away after each look to any thread that can use it (docs/decisions/0016). Where
//! that turns out vain, it is tried ever less often.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long is looked at most: about what going to sleep and being woken would take, so a vain
/// attempt doubles that at worst.
const SPIN_MAX: Duration = Duration::from_micros(50);

/// Of so many waits one is tried, if it is always vain.
const SKIPPED_MAX: u32 = 1024;

/// Waits of one kind, of which one at a time is spent awake.
#[derive(Debug, Default)]
pub struct Spin {
    is_taken: AtomicBool,
    /// So many vain attempts in a row.
    vain: AtomicU32,
    /// So many waits are still to be left out.
    to_skip: AtomicU32,
}

impl Spin {
    /// For waits that nothing is known of yet.
    pub const fn new() -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            vain: AtomicU32::new(0),
            to_skip: AtomicU32::new(0),
        }
    }

    /// Whether it `is_there`, now or in a moment. If not, the caller sleeps until it is.
    ///
    /// # Blocks
    /// For 50 µs at most, and as long as others use the processor besides.
    pub fn wait(&self, mut is_there: impl FnMut() -> bool) -> bool {
        if is_there() {
            return true;
        }
        if self.is_skipped() || self.is_taken.swap(true, Ordering::Acquire) {
            return false;
        }
        let until = Instant::now() + SPIN_MAX;
        let (found, in_time) = loop {
            std::thread::yield_now();
            let (found, in_time) = (is_there(), Instant::now() < until);
            if found || !in_time {
                break (found, in_time);
            }
        };
        // What was found late was late because others use the processor: a thread that sleeps is
        // woken sooner then.
        self.learn(found && in_time);
        self.is_taken.store(false, Ordering::Release);
        found
    }

    fn is_skipped(&self) -> bool {
        let left = self.to_skip.load(Ordering::Relaxed);
        // What two threads take away from it at once is taken away once: it is a matter of how
        // often, not of how many.
        self.to_skip.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    /// One vain attempt is the end of any burst; only what is vain again and again is left out.
    fn learn(&self, was_worth_it: bool) {
        let vain = if was_worth_it {
            0
        } else {
            self.vain.load(Ordering::Relaxed).saturating_add(1).min(SKIPPED_MAX)
        };
        self.vain.store(vain, Ordering::Relaxed);
        self.to_skip
            .store((1 << vain.saturating_sub(1).min(SKIPPED_MAX.ilog2())) - 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_finds_what_is_there_and_what_comes_soon() {
        let spin = Spin::new();
        let mut looks = 0;
        let mut there_at = |look: u32| {
            looks = 0;
            let found = spin.wait(|| {
                looks += 1;
                looks == look
            });
            (found, looks)
        };
        assert_eq!(there_at(1), (true, 1));
        // A late look ends the wait, but only where it finds nothing.
        assert_eq!(there_at(2), (true, 2));
    }

    #[test]
    fn what_is_always_vain_is_tried_ever_less_often() {
        let spin = Spin::new();
        let mut tried = Vec::new();
        for number in 0..5000 {
            let mut looks = 0;
            spin.wait(|| {
                looks += 1;
                false
            });
            if looks > 1 {
                tried.push(number);
            }
        }
        assert_eq!(tried[..12], [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047]);
        assert_eq!(
            tried[11..].windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>(),
            [1024; 2]
        );
    }

    #[test]
    fn one_at_a_time_waits_awake() {
        let spin = Spin::new();
        let (mut looks, mut looks_of_second) = (0, 0);
        spin.wait(|| {
            looks += 1;
            if looks == 2 {
                let found = spin.wait(|| {
                    looks_of_second += 1;
                    false
                });
                assert!(!found);
            }
            looks == 2
        });
        assert_eq!(looks_of_second, 1);
    }
}
