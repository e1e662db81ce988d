//! Other processes as Linux shows them: children, command lines, environments, signals.
//!
//! Waiting for what has no event of its own is done here and nowhere else: look, and look again
//! until a deadline.

// Without Luau there are fewer tests, and some of this has no use.
#![cfg_attr(not(feature = "luau"), allow(dead_code))]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

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

/// Whether no such process runs any more; one that only waits to be reaped does not. Threads have
/// numbers of the same kind, and there are so many of them that one may soon have that of a process
/// that has gone.
pub(crate) fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X')) || is_thread(pid)
}

/// Whether a number is that of a thread, and not of its process.
fn is_thread(number: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))
        .is_some_and(|of| of.trim() != number.to_string())
}

/// Whether a process is stopped by a signal.
pub(crate) fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// The pids of a pool's worker processes by worker id.
pub(crate) fn workers_of(master: u32) -> BTreeMap<usize, u32> {
    let mut workers = BTreeMap::new();
    for pid in children_of(master) {
        let line = command_line(pid);
        let id = line
            .iter()
            .position(|word| word == "--id")
            .and_then(|at| line.get(at + 1)?.parse().ok());
        if let Some(id) = id {
            workers.insert(id, pid);
        }
    }
    workers
}

/// The running children of a process.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(state, of)| of == parent && state != 'Z')).collect()
}

/// The words with which a process was started; none if it is gone.
pub(crate) fn command_line(pid: u32) -> Vec<String> {
    nul_separated(&format!("/proc/{pid}/cmdline"))
}

/// The variables with which a process was started.
pub(crate) fn environment(pid: u32) -> BTreeMap<String, String> {
    let variables = nul_separated(&format!("/proc/{pid}/environ"));
    variables
        .into_iter()
        .filter_map(|line| {
            line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// How much processor time a process has used, in ticks of 10 ms.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = text.rsplit_once(')').expect("a name").1;
    // utime and stime are the fields 14 and 15; the name is the second.
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}

/// The most memory that a process has had at once, in KiB.
pub(crate) fn memory_peak(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Sends a signal; to a process that has just ended it is none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let _ = kill_process(pid, signal);
}

/// Lets this process, and those that it starts, have as many descriptors as they may; says how many
/// that is. All tests share them, so nobody sets less.
pub(crate) fn descriptors() -> u64 {
    static MOST: OnceLock<u64> = OnceLock::new();
    *MOST.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
            .expect("up to the hard limit anybody may");
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    })
}

/// A port of the test's own, at which nobody listens yet. Below those that Linux gives away by
/// itself, to a connection or to who asks for any port: so nobody else gets it while the test has
/// nobody there.
pub(crate) fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Not every run begins at the same one.
    let begin = (std::process::id() % 1000) as u16 * 10;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports =
        std::iter::repeat_with(|| 20_000 + (begin + NEXT.fetch_add(1, Ordering::SeqCst)) % 10_000);
    ports.by_ref().take(10_000).find(is_free).expect("a free port")
}

fn nul_separated(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// A process's state and parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything, brackets too.
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
