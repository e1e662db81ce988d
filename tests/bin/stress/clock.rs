//! How late this machine is by itself, and when the master was made to stand still: neither is the
//! master's doing, so both are taken off what a caller waited beyond its deadline.
//!
//! A thread wants to wake up every ten milliseconds. What it oversleeps is what any thread here may
//! oversleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::never;

const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Clock {
    /// From when to when nothing ran, or the master did not.
    gaps: Arc<Mutex<Vec<(Instant, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let gaps: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, ends) = (Arc::clone(&gaps), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                let due = Instant::now() + TICK;
                pause_until(due);
                if due.elapsed() > TICK {
                    watched.lock().expect("no panic under this lock").push((due, Instant::now()));
                }
            }
        });
        Self { gaps, stop, thread: Some(thread) }
    }

    /// The master has stood still on purpose since then, and goes on now.
    pub(crate) fn stood_still(&self, since: Instant) {
        self.gaps.lock().expect("no panic under this lock").push((since, Instant::now()));
    }

    /// How much of a time does not count. To be asked later than that: a gap is known when it is
    /// over.
    pub(crate) fn lost_between(&self, begun: Instant, ended: Instant) -> Duration {
        let mut gaps: Vec<_> = self.gaps.lock().expect("no panic under this lock").clone();
        gaps.sort_unstable();
        let mut lost = Duration::ZERO;
        let mut counted = begun;
        for (from, to) in gaps {
            let from = from.max(counted);
            let to = to.min(ended);
            lost += to.saturating_duration_since(from);
            counted = counted.max(to);
        }
        lost
    }

    /// The longest time in which nothing ran here.
    pub(crate) fn longest_gap(&self) -> Duration {
        let gaps = self.gaps.lock().expect("no panic under this lock");
        gaps.iter().map(|(from, to)| *to - *from).max().unwrap_or_default()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn pause_until(until: Instant) {
    let _ = never::<()>().recv_deadline(until);
}
