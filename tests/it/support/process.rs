//! Other processes as Linux shows them: children, command lines, environments, signals.
//!
//! Waiting for what has no event of its own is done here and nowhere else: look, and look again until a deadline.

use std::fs;
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use rustix::process::{Pid, Signal, kill_process};

use super::DEADLINE;

/// Waits until `look` finds what it looks for.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, look)
}

/// As [`eventually`], where the contract says how soon.
pub(crate) fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        let _ = never::<()>().recv_timeout(Duration::from_millis(5));
    }
}

/// Whether no such process runs any more; one that only waits to be reaped does not.
pub(crate) fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// Sends a signal; to a process that has just ended it is none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let _ = kill_process(pid, signal);
}

/// A process's state and parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything, brackets too.
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
