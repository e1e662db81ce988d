//! The only place that starts threads: each has a name, an owner and a way to learn at once how it
//! ended.
//!
//! Deliberately no detached threads and no pools. The holder of the [`OwnedThread`] joins it;
//! dropping it joins too, so its wake-up (see docs/threads.md) must have been given before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Linux cuts a thread's name here.
const NAME_MAX_BYTES: usize = 15;

/// Our threads run no deep recursion (decoders are iterative), and 2 MiB is what Rust gives a
/// thread anyway.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// How a thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThreadExit {
    /// Its function returned.
    Returned,
    /// It panicked, with this message.
    Panicked(String),
}

/// A thread and the duty to join it.
#[must_use = "dropping an OwnedThread joins it, which blocks until the thread ends"]
pub struct OwnedThread<T = ()> {
    name: String,
    handle: Option<JoinHandle<Option<T>>>,
    // Nothing is ever sent: the thread holds the other end, so a disconnect means that it ended.
    ended_rx: Receiver<()>,
}

/// From now on this thread, when it is woken, does not take the processor from one that runs there
/// (`SCHED_BATCH`): for a thread that gathers what others make, as it would be woken by the first
/// of it. Where that is forbidden everything stays as it is, only slower.
pub fn give_way() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // The crate sets the niceness along with the policy, on a scale of its own: it is to stay what
    // it is.
    let niceness = rustix::process::getpriority_process(None).unwrap_or(0);
    let same = (0..=u8::MAX)
        .filter_map(|value| {
            ThreadPriorityValue::try_from(value).ok().map(ThreadPriority::Crossplatform)
        })
        .find(|priority| priority.to_posix(policy) == Ok(niceness));
    let done =
        same.map(|priority| set_thread_priority_and_policy(thread_native_id(), priority, policy));
    if done != Some(Ok(())) {
        log::debug!("a thread that gathers may not be scheduled as one: {done:?}");
    }
}

/// Starts a thread. `name` is cut to 15 bytes, which is all that Linux shows.
///
/// # Errors
/// The operating system refused another thread.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<OwnedThread<T>> {
    spawn_watched(name, run, |_| {})
}

/// Starts a thread whose owner wants to know at once how it ended: `on_exit` runs on the thread
/// itself, after `run` returned or panicked.
///
/// # Errors
/// The operating system refused another thread.
pub fn spawn_watched<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
    on_exit: impl FnOnce(ThreadExit) + Send + 'static,
) -> io::Result<OwnedThread<T>> {
    let mut name = name.into();
    while name.len() > NAME_MAX_BYTES {
        name.pop();
    }
    let (ended_tx, ended_rx) = bounded(0);
    let log_name = name.clone();
    let handle = Builder::new().name(name.clone()).stack_size(STACK_BYTES).spawn(move || {
        let _ended_tx: crossbeam_channel::Sender<()> = ended_tx;
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(value) => {
                on_exit(ThreadExit::Returned);
                Some(value)
            }
            Err(payload) => {
                let message = panic_message(payload.as_ref());
                log::error!("thread {log_name} panicked: {message}");
                on_exit(ThreadExit::Panicked(message));
                None
            }
        }
    })?;
    Ok(OwnedThread { name, handle: Some(handle), ended_rx })
}

/// The processor time that the calling thread has used. Unlike a clock it stands still while others
/// have the processor.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // Neither part of a time that was spent is negative.
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

/// The text of a panic, for a log line or an error.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

impl<T> OwnedThread<T> {
    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the thread to end; `None` if it panicked.
    ///
    /// # Blocks
    /// Until the thread ends; the caller has given it its wake-up.
    pub fn join(mut self) -> Option<T> {
        self.handle.take().and_then(|handle| handle.join().ok().flatten())
    }

    /// Waits until the thread ended or `deadline` passed; true if it ended. The thread must still
    /// be joined.
    ///
    /// # Blocks
    /// Until `deadline`.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        matches!(self.ended_rx.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected))
    }
}

impl<T> Drop for OwnedThread<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take()
            && handle.thread().id() != std::thread::current().id()
        {
            let _ = handle.join();
        }
    }
}

impl<T> std::fmt::Debug for OwnedThread<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnedThread({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_way_keeps_its_niceness() {
        // Of /proc/thread-self/stat the niceness (19th) and the policy (41st), behind the name,
        // which may have spaces.
        let scheduled = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("a file");
            let fields: Vec<_> =
                stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
            (fields[16].to_owned(), fields[38].to_owned())
        };
        let (niceness, policy) = scheduled();
        let thread = spawn("gives-way", move || {
            give_way();
            scheduled()
        });
        assert_eq!(
            thread.expect("spawn").join(),
            Some((niceness, "3".to_owned())),
            "SCHED_BATCH, before {policy}"
        );
    }

    #[test]
    fn processor_time_grows_with_work_only() {
        let start = cpu_time();
        let (_wait_tx, wait_rx) = bounded::<()>(0);
        let _ = wait_rx.recv_timeout(Duration::from_millis(50));
        assert!(cpu_time() - start < Duration::from_millis(50));
        let mut sum = 0_u64;
        while cpu_time() - start < Duration::from_millis(50) {
            sum = std::hint::black_box(sum + 1);
        }
    }

    #[test]
    fn a_thread_returns_its_value_to_its_owner() {
        assert_eq!(spawn("adder", || 1 + 1).expect("spawn").join(), Some(2));
    }

    #[test]
    fn a_panic_reaches_the_owner_before_the_join() {
        let (exit_tx, exit_rx) = bounded(1);
        let thread = spawn_watched(
            "a-name-that-is-too-long",
            || panic!("on purpose"),
            move |exit| exit_tx.send(exit).expect("the test waits"),
        )
        .expect("spawn");
        let exit = exit_rx.recv_timeout(Duration::from_secs(10)).expect("told at once");
        assert_eq!(exit, ThreadExit::Panicked("on purpose".to_owned()));
        assert_eq!(thread.name(), "a-name-that-is-");
        assert_eq!(thread.join(), None::<()>);
    }

    #[test]
    fn waiting_for_a_thread_ends_at_the_deadline_or_with_the_thread() {
        let (go_tx, go_rx) = bounded::<()>(0);
        let thread = spawn("waiter", move || go_rx.recv().ok()).expect("spawn");
        assert!(!thread.wait_until(Instant::now() + Duration::from_millis(5)));
        drop(go_tx);
        assert!(thread.wait_until(Instant::now() + Duration::from_secs(10)));
        thread.join();
    }
}
