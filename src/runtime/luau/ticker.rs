//! One thread that tells busy executors, once a slice, that it is time to let another tenant run.
//!
//! An interrupt that reads the clock makes an empty loop seven times slower; one that loads a flag which somebody else
//! sets, only 2.4 times. Deliberately knows nothing of tenants and budgets: it sets flags. Owned by the runtime, which
//! joins it. Its wake-ups: an executor that gets busy while it is parked, and [`Ticker::stop`].

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits::TICKER_LINGER;
use crate::thread::{OwnedThread, spawn};

/// The ticker and its thread.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Mutex<Option<OwnedThread>>,
}

/// An executor's end: its flag.
#[derive(Debug, Clone)]
pub(super) struct Tick {
    flags: Arc<Flags>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Flags {
    /// A slice is over. Set by the ticker, cleared by the executor.
    due: AtomicBool,
    /// The executor has work.
    busy: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    executors: Vec<Arc<Flags>>,
    parked: AtomicBool,
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    /// Starts the thread for so many executors.
    ///
    /// # Errors
    /// The operating system refused another thread.
    pub(super) fn start(name: &str, executors: usize, slice: Duration) -> io::Result<(Self, Vec<Tick>)> {
        let shared = Arc::new(Shared {
            executors: (0..executors).map(|_| Arc::default()).collect(),
            parked: AtomicBool::new(false),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        });
        let ticks =
            shared.executors.iter().map(|flags| Tick { flags: flags.clone(), shared: shared.clone() }).collect();
        let thread = spawn(name, {
            let shared = shared.clone();
            move || shared.run(slice.max(Duration::from_micros(20)))
        })?;
        Ok((Self { shared, thread: Mutex::new(Some(thread)) }, ticks))
    }

    /// Ends the thread and joins it.
    pub(super) fn stop(&self) {
        *lock(&self.shared.stopped) = true;
        self.shared.wake.notify_all();
        drop(lock(&self.thread).take());
    }
}

impl Tick {
    /// Whether a slice is over. One relaxed load: this is what runs at every loop edge of every script.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.flags.due.load(Ordering::Relaxed)
    }

    /// Waits for the next tick instead.
    pub(super) fn clear(&self) {
        self.flags.due.store(false, Ordering::Relaxed);
    }

    /// The executor has work: it wants ticks.
    pub(super) fn busy(&self) {
        self.clear();
        // With the ticker's `parked` then `busy` in the other order (both sequentially consistent), one of the two sees
        // the other.
        self.flags.busy.store(true, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            // Under the lock, so that the notification cannot fall between the ticker's last look and its wait.
            let _stopped = lock(&self.shared.stopped);
            self.shared.wake.notify_all();
        }
    }

    /// The executor has no work.
    pub(super) fn idle(&self) {
        self.flags.busy.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, slice: Duration) {
        let mut stopped = lock(&self.stopped);
        let mut idle_for = Duration::ZERO;
        while !*stopped {
            if idle_for >= TICKER_LINGER {
                self.parked.store(true, Ordering::SeqCst);
                if !self.any_busy() {
                    stopped = self.wake.wait(stopped).unwrap_or_else(PoisonError::into_inner);
                }
                self.parked.store(false, Ordering::SeqCst);
                idle_for = Duration::ZERO;
                continue;
            }
            stopped = self.wake.wait_timeout(stopped, slice).unwrap_or_else(PoisonError::into_inner).0;
            let busy = self.executors.iter().filter(|flags| flags.busy.load(Ordering::SeqCst));
            let ticked = busy.map(|flags| flags.due.store(true, Ordering::Relaxed)).count();
            idle_for = if ticked > 0 { Duration::ZERO } else { idle_for + slice };
        }
    }

    fn any_busy(&self) -> bool {
        self.executors.iter().any(|flags| flags.busy.load(Ordering::SeqCst))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

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
            wait_for(|| ticks[0].is_due());
            ticks[0].clear();
        }
        assert!(!ticks[1].is_due());
        ticker.stop();
    }

    #[test]
    fn an_idle_ticker_parks_and_is_woken_by_work() {
        let (ticker, ticks) = Ticker::start("tick", 1, Duration::from_millis(1)).expect("start");
        wait_for(|| ticker.shared.parked.load(Ordering::SeqCst));
        ticks[0].busy();
        wait_for(|| ticks[0].is_due());
        ticks[0].idle();
        wait_for(|| ticker.shared.parked.load(Ordering::SeqCst));
        ticker.stop();
    }
}
