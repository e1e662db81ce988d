//! In the place of the product's: threads of the scheduler's.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use shuttle::thread::JoinHandle;

use super::primitives::atomic::{AtomicBool, Ordering};

/// As the product's. A panic ends the run of a model, so that no thread has ended by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThreadExit {
    Returned,
    Panicked(String),
}

/// As the product's.
pub struct OwnedThread<T = ()> {
    handle: Option<JoinHandle<T>>,
    has_ended: Arc<AtomicBool>,
}

pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<OwnedThread<T>> {
    spawn_watched(name, run, |_| {})
}

pub fn spawn_watched<T: Send + 'static>(
    _: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
    on_exit: impl FnOnce(ThreadExit) + Send + 'static,
) -> io::Result<OwnedThread<T>> {
    let has_ended = Arc::new(AtomicBool::new(false));
    let ends = has_ended.clone();
    let handle = shuttle::thread::spawn(move || {
        let value = run();
        on_exit(ThreadExit::Returned);
        ends.store(true, Ordering::SeqCst);
        value
    });
    Ok(OwnedThread { handle: Some(handle), has_ended })
}

impl<T> OwnedThread<T> {
    pub fn join(mut self) -> Option<T> {
        self.handle.take().and_then(|handle| handle.join().ok())
    }

    /// Whether it has ended; does not wait.
    pub fn wait_until(&self, _: Instant) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }
}

impl<T> Drop for OwnedThread<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl<T> std::fmt::Debug for OwnedThread<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnedThread")
    }
}
