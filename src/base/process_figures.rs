//! What the system tells of this process: processor time, memory, files, threads, when it started.
//!
//! Read from `/proc/self` when it is asked for, never kept. Deliberately ignorant of what shows the
//! figures and under which names: a master shows its own, a worker sends its own to its master. A
//! figure that the system does not tell is 0.

use std::fs;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Clock ticks a second in `/proc`: the same on every architecture that Rust's standard library is
/// built for.
const TICKS_PER_SECOND: u64 = 100;

/// When the system booted, in milliseconds of Unix time. Kept, as a process in a sandbox cannot
/// look it up again.
static BOOTED_MS: LazyLock<u64> = LazyLock::new(|| {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    line(&text, "btime").map_or(0, |seconds| seconds * 1000)
});

/// Lines of this process' log that stderr did not take. Here, as a process has one log.
pub static LOG_LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// The figures of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessFigures {
    /// Processor time of all its threads so far, in user and in system mode.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// File descriptors that are open.
    pub open_fds: u64,
    /// How many may be open; a process without a limit has 0.
    pub max_fds: u64,
    /// Threads that run or wait.
    pub threads: u64,
    /// When it started, in milliseconds of Unix time.
    pub started_unix_ms: u64,
}

impl ProcessFigures {
    /// Those of this process, now.
    ///
    /// # Blocks
    /// For a few reads of `/proc`: about a tenth of a millisecond, more with thousands of open
    /// files.
    pub fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = Stat::of(&read("/proc/self/stat"));
        // Reading the directory opens it too.
        let open_fds =
            fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
        Self {
            cpu: Duration::from_millis(ticks_to_ms(stat.cpu_ticks)),
            resident_bytes: line(&read("/proc/self/status"), "VmRSS:").unwrap_or(0) * 1024,
            open_fds: open_fds as u64,
            max_fds: line(&read("/proc/self/limits"), "Max open files").unwrap_or(0),
            threads: stat.threads,
            started_unix_ms: if *BOOTED_MS == 0 {
                0
            } else {
                *BOOTED_MS + ticks_to_ms(stat.started_ticks)
            },
        }
    }
}

/// How much of its address space this process has taken, in bytes. Not among its figures, as no
/// operator is helped by a worker's: here it is for those that know it from other programs.
///
/// # Blocks
/// For one read of `/proc`.
pub fn virtual_bytes() -> u64 {
    Stat::of(&fs::read_to_string("/proc/self/stat").unwrap_or_default()).virtual_bytes
}

/// What `/proc/self/stat` is asked for.
#[derive(Debug, PartialEq, Eq, Default)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// Since the system booted.
    started_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn of(text: &str) -> Self {
        // The second field is the program's name in brackets, which may have anything in it.
        let Some((_, rest)) = text.rsplit_once(')') else { return Self::default() };
        let fields: Vec<u64> =
            rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // `man proc` counts from one, and two are gone.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let cpu_ticks = field(14) + field(15);
        Self { cpu_ticks, threads: field(20), started_ticks: field(22), virtual_bytes: field(23) }
    }
}

/// The first number of the line that starts so.
fn line(text: &str, start: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn ticks_to_ms(ticks: u64) -> u64 {
    ticks * 1000 / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_shifts_no_field() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 98 0 0 0 250 50 0 0 20 0 7 0 78480 3133440 381 18446744073709551615";
        let expected =
            Stat { cpu_ticks: 300, threads: 7, started_ticks: 78480, virtual_bytes: 3_133_440 };
        assert_eq!(Stat::of(stat), expected);
        assert_eq!(Stat::of("nothing of the kind"), Stat::default());
    }

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let before = ProcessFigures::read();
        let files: Vec<_> = (0..50).filter_map(|_| File::open("/proc/self/stat").ok()).collect();
        let (end_tx, end_rx) = crossbeam_channel::bounded::<()>(0);
        let waiting =
            crate::base::thread::spawn("waits", move || end_rx.recv().is_ok()).expect("a thread");
        let start = crate::base::thread::cpu_time();
        while crate::base::thread::cpu_time() - start < Duration::from_millis(50) {}
        let figures = ProcessFigures::read();
        // Other tests of this process open and close files meanwhile, but not as many.
        assert!(
            files.len() == 50 && figures.open_fds >= 50 && figures.max_fds >= figures.open_fds,
            "{figures:?}"
        );
        assert!(figures.threads >= 2, "{figures:?}");
        assert!(figures.cpu >= before.cpu + Duration::from_millis(30), "{before:?} {figures:?}");
        assert!((1 << 20..1 << 36).contains(&figures.resident_bytes), "{figures:?}");
        assert!(virtual_bytes() > figures.resident_bytes, "{figures:?}");
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(figures.started_unix_ms);
        let age = SystemTime::now().duration_since(started).expect("started in the past");
        assert!(age < Duration::from_secs(24 * 3600), "{age:?}");
        assert_eq!(before.started_unix_ms, figures.started_unix_ms);
        drop(end_tx);
        waiting.join();
    }
}
