//! What a process can give up on any Linux: limits of the system, being read by others, privileges.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How readily the kernel ends this process when memory runs out (-1000 to 1000): a worker, which
/// its supervisor starts again, before the master.
const OOM_SCORE: &str = "500";

/// Open files that a worker may have: connections, templates and `/proc` need fewer than a tenth.
const FILES_MAX: u64 = 512;

/// Bounds the memory that this process can take.
pub(super) fn limit_memory(bytes: u64) -> io::Result<()> {
    lower(Resource::Data, bytes)
}

/// Gives up what a worker never needs.
///
/// # Errors
/// What it still has, in words.
pub(super) fn give_up() -> Result<(), String> {
    // First: it belongs to root once this process cannot be dumped. Where it cannot be written,
    // the kernel chooses by size alone.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let mut limits =
        vec![(Resource::Core, 0), (Resource::Memlock, 0), (Resource::Nofile, FILES_MAX)];
    #[cfg(target_os = "linux")]
    limits.push((Resource::Msgqueue, 0));
    // A log that goes to a file has to grow.
    let is_file = |descriptor: u8| {
        let path = format!("/proc/self/fd/{descriptor}");
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
    };
    if !is_file(1) && !is_file(2) {
        limits.push((Resource::Fsize, 0));
    }
    for (resource, most) in limits {
        lower(resource, most).map_err(|error| format!("no limit {resource:?}: {error}"))?;
    }
    #[cfg(target_os = "linux")]
    hide()
        .and_then(|()| rustix::thread::set_no_new_privs(true))
        .map_err(|error| format!("privileges: {error}"))?;
    Ok(())
}

/// Keeps what this process has in memory, its environment included, from other processes of its
/// user.
#[cfg(target_os = "linux")]
pub(super) fn hide() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Lowers a limit for good, if it is higher.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let before = getrlimit(resource);
    let most = before.maximum.map_or(most, |maximum| maximum.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}
