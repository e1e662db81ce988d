//! Signals to a running script: one thread that tells busy executors, once a slice, that it is time
//! to let another tenant run; and a thread that brings work says so too, if the executor would
//! rather do that.
//!
//! An interrupt that reads the clock makes an empty loop seven times slower; one that loads a
//! signal that another thread sets, only 2.4 times. Deliberately knows nothing of tenants and
//! budgets. Owned by the runtime, which joins the thread. Its wake-ups: an executor that gets busy
//! while it is parked, and [`Ticker::stop`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::limits::TICKER_LINGER;
use crate::base::primitives::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::base::sync::{Lock, Signal};
use crate::base::thread::{OwnedThread, spawn_watched};

use super::config::OnBroken;

/// The ticker and its thread.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<TickerShared>,
    thread: Lock<Option<OwnedThread>>,
}

/// An executor's end: the signals for what it runs.
#[derive(Debug, Clone)]
pub(super) struct Tick {
    flags: Arc<Flags>,
    shared: Arc<TickerShared>,
}

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnSignal {
    /// Nothing.
    None,
    /// A slice is over.
    Due,
    /// Work has come that the executor would rather do.
    Wanted,
}

const DUE: u8 = 1;
const WANTED: u8 = 2;

#[derive(Debug, Default)]
struct Flags {
    /// `DUE` and `WANTED`; taken by the executor.
    signal: AtomicU8,
    /// The executor has work.
    busy: AtomicBool,
    /// What it runs gives way to work that comes.
    gives_way: AtomicBool,
}

#[derive(Debug)]
struct TickerShared {
    executors: Vec<Arc<Flags>>,
    parked: AtomicBool,
    stopped: Lock<bool>,
    wake: Signal,
}

impl Ticker {
    /// Starts the thread for so many executors.
    ///
    /// # Errors
    /// The operating system refused another thread.
    pub(super) fn start_watched(
        name: &str,
        executors: usize,
        slice: Duration,
        on_broken: &OnBroken,
    ) -> io::Result<(Self, Vec<Tick>)> {
        let shared = Arc::new(TickerShared {
            executors: (0..executors).map(|_| Arc::default()).collect(),
            parked: AtomicBool::new(false),
            stopped: Lock::new(false),
            wake: Signal::new(),
        });
        let ticks = shared
            .executors
            .iter()
            .map(|flags| Tick { flags: flags.clone(), shared: shared.clone() })
            .collect();
        let ticking = shared.clone();
        let run = move || ticking.run(slice.max(Duration::from_micros(20)));
        let thread = spawn_watched(name, run, on_broken.watch(name))?;
        Ok((Self { shared, thread: Lock::new(Some(thread)) }, ticks))
    }

    /// As [`Ticker::start_watched`], for tests that would notice themselves.
    #[cfg(test)]
    pub(super) fn start(
        name: &str,
        executors: usize,
        slice: Duration,
    ) -> io::Result<(Self, Vec<Tick>)> {
        Self::start_watched(name, executors, slice, &OnBroken::default())
    }

    /// One tick more, even if the thread has ended.
    pub(super) fn tick(&self) {
        for flags in &self.shared.executors {
            flags.signal.fetch_or(DUE, Ordering::Relaxed);
        }
    }

    /// Ends the thread and joins it.
    pub(super) fn stop(&self) {
        *self.shared.stopped.lock() = true;
        self.shared.wake.notify_all();
        drop(self.thread.lock().take());
    }
}

impl Tick {
    /// Whether there is a signal. One relaxed load: this is what runs at every loop edge of every
    /// script.
    #[inline]
    pub(super) fn has_signal(&self) -> bool {
        self.flags.signal.load(Ordering::Relaxed) != 0
    }

    /// Takes the signal.
    pub(super) fn take(&self) -> TurnSignal {
        match self.flags.signal.swap(0, Ordering::Relaxed) {
            0 => TurnSignal::None,
            DUE => TurnSignal::Due,
            _ => TurnSignal::Wanted,
        }
    }

    /// A turn begins; `gives_way`: it ends when work comes.
    pub(super) fn start_turn(&self, gives_way: bool) {
        self.flags.signal.store(0, Ordering::Relaxed);
        self.flags.gives_way.store(gives_way, Ordering::Relaxed);
    }

    /// Work has come.
    pub(super) fn work_came(&self) {
        if self.flags.gives_way.load(Ordering::Relaxed) {
            self.flags.signal.fetch_or(WANTED, Ordering::Relaxed);
        }
    }

    /// The executor has work: it wants ticks.
    pub(super) fn busy(&self) {
        // With the ticker's `parked` then `busy` in the other order (both sequentially consistent),
        // one of the two sees the other.
        self.flags.busy.store(true, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            // Under the lock, so that the notification cannot fall between the ticker's last look
            // and its wait.
            let _stopped = self.shared.stopped.lock();
            self.shared.wake.notify_all();
        }
    }

    /// The executor has no work.
    pub(super) fn idle(&self) {
        self.flags.busy.store(false, Ordering::SeqCst);
    }
}

impl TickerShared {
    fn run(&self, slice: Duration) {
        let mut stopped = self.stopped.lock();
        let mut idle_for = Duration::ZERO;
        while !*stopped {
            if idle_for >= TICKER_LINGER {
                self.parked.store(true, Ordering::SeqCst);
                if !self.executors.iter().any(|flags| flags.busy.load(Ordering::SeqCst)) {
                    stopped = self.wake.wait(stopped, None);
                }
                self.parked.store(false, Ordering::SeqCst);
                idle_for = Duration::ZERO;
                continue;
            }
            stopped = self.wake.wait(stopped, Instant::now() + slice);
            let mut is_busy = false;
            for flags in self.executors.iter().filter(|flags| flags.busy.load(Ordering::SeqCst)) {
                flags.signal.fetch_or(DUE, Ordering::Relaxed);
                is_busy = true;
            }
            idle_for = if is_busy { Duration::ZERO } else { idle_for + slice };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < deadline, "it did not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_busy_executors_are_told() {
        let (ticker, ticks) = Ticker::start("tick", 2, Duration::from_micros(100)).expect("start");
        ticks[0].busy();
        for _ in 0..3 {
            wait_for(|| ticks[0].take() == TurnSignal::Due);
        }
        assert!(!ticks[1].has_signal());
        ticker.stop();
    }

    #[test]
    fn work_that_comes_is_a_signal_to_what_gives_way() {
        let (ticker, ticks) = Ticker::start("tick", 1, Duration::from_secs(60)).expect("start");
        ticks[0].start_turn(false);
        ticks[0].work_came();
        assert_eq!(ticks[0].take(), TurnSignal::None);
        ticks[0].start_turn(true);
        ticks[0].work_came();
        assert_eq!(ticks[0].take(), TurnSignal::Wanted);
        assert_eq!(ticks[0].take(), TurnSignal::None);
        ticker.stop();
    }

    #[test]
    fn an_idle_ticker_parks_and_is_woken_by_work() {
        let (ticker, ticks) = Ticker::start("tick", 1, Duration::from_millis(1)).expect("start");
        wait_for(|| ticker.shared.parked.load(Ordering::SeqCst));
        ticks[0].busy();
        wait_for(|| ticks[0].has_signal());
        ticks[0].idle();
        wait_for(|| ticker.shared.parked.load(Ordering::SeqCst));
        ticker.stop();
    }
}
