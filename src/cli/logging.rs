//! Where logs go: to stderr, and nowhere else. A log that nobody can read ends nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// How long nothing is logged after a line that could not be written, such as to a pipe that its reader has closed.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts logging at a level. A second call changes the level only.
pub(super) fn init(level: LevelFilter) {
    let logger = SimpleLogger::new()
        .with_level(level)
        // Its debug lines quote handshakes, and a handshake holds a token.
        .with_module_level("tungstenite", LevelFilter::Warn.min(level))
        .with_module_level("ureq", LevelFilter::Warn.min(level))
        .with_module_level("ureq_proto", LevelFilter::Warn.min(level));
    // The level goes with it or, if there is a logger already, is all that changes.
    let _ = log::set_boxed_logger(Box::new(Steady { inner: logger, failed_at: Mutex::new(None) }));
    log::set_max_level(level);
}

/// A logger whose failure is no panic: `SimpleLogger` prints with `eprintln!`, which panics where stderr does not take the
/// line, and so would end whichever thread had something to say: the supervisor, a link, the one that stops the master.
struct Steady<L> {
    inner: L,
    failed_at: Mutex<Option<Instant>>,
}

impl<L> Steady<L> {
    /// After a failure it is tried again, as a stderr may be full for a moment only; but not for each line, as each
    /// failure is a panic that is caught, which costs milliseconds where a backtrace is wanted.
    fn pauses(&self) -> bool {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < PAUSE)
    }
}

impl<L: Log> Log for Steady<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.pauses() || catch_unwind(AssertUnwindSafe(|| self.inner.log(record))).is_ok() {
            return;
        }
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Fails as `eprintln!` does.
    struct Broken(AtomicU32);

    impl Log for Broken {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, _: &Record<'_>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("failed printing to stderr");
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_panic_and_is_not_tried_for_each_line() {
        let logger = Steady { inner: Broken(AtomicU32::new(0)), failed_at: Mutex::new(None) };
        let record = Record::builder().args(format_args!("a line")).build();
        for _ in 0..100 {
            logger.log(&record);
        }
        assert_eq!(logger.inner.0.load(Ordering::SeqCst), 1);
        *logger.failed_at.lock().expect("no panic under it") = Instant::now().checked_sub(PAUSE);
        logger.log(&record);
        assert_eq!(logger.inner.0.load(Ordering::SeqCst), 2, "it is tried again");
    }
}
