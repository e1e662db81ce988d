//! What machine this is, as far as it matters for a number: processors, kernel, disk, and who else
//! is busy.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A machine, in words.
pub struct Machine {
    pub lines: Vec<String>,
}

/// Looks at the machine; the disk is that of `folder`.
pub fn look(folder: &Path) -> Result<Machine, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let (p50, p99) =
        sync_times(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(Machine {
        lines: vec![
            format!("date: {}", said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
            format!("commit: {}", said_by("git", &["describe", "--always", "--dirty"])),
            format!("processors: {cores} × {}", model.unwrap_or("unknown")),
            format!("kernel: Linux {}", kernel.trim()),
            format!("load before the run: {}", load()),
            format!("disk: 4 KiB written and synced in {p50:.0} µs (p50), {p99:.0} µs (p99)"),
        ],
    })
}

/// The averages of one, five and fifteen minutes.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// How long the disk takes to make a write durable, which no store can be faster than: p50 and p99
/// in µs.
fn sync_times(folder: &Path) -> std::io::Result<(f64, f64)> {
    let path = folder.join("sync");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    fs::remove_file(path)?;
    Ok((times[150], times[297]))
}

/// Binds this process, before it starts a thread, to one of the processors that it may use.
pub fn stay_on_one_processor() -> Result<(), String> {
    let allowed = sched_getaffinity(None).map_err(|error| error.to_string())?;
    let last = (0..CpuSet::MAX_CPU).rfind(|cpu| allowed.is_set(*cpu)).ok_or("no processor")?;
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one).map_err(|error| error.to_string())
}
