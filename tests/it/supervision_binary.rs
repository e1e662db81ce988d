//! Supervision with the real binary: whose signals reach whom, what a death leaves behind, and what
//! becomes of a worker that hangs or whose runtime breaks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesophyll::base::random;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::TempDir;
use crate::support::binary::{
    Master, ONE_WORKER, Running, SECRET, example, get_with, mesophyll, token, write,
};
use crate::support::process::{eventually, is_gone, signal, within, workers_of};
use crate::support::skip::skipped;

/// A master with one worker, from a file of its own; what it starts as its worker can be exchanged
/// while it runs.
struct Exchangeable {
    master: Master,
    folder: PathBuf,
}

impl Exchangeable {
    fn start(args: &[&str]) -> Self {
        Self::start_as(false, args)
    }

    /// `is_its_own`: the worker is the program that the master runs, whose file is `mesophyll` in
    /// the folder.
    fn start_as(is_its_own: bool, args: &[&str]) -> Self {
        // A link to the binary, as a program that was just written may be busy; so it has to be in
        // the same file system.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("exchangeable-{:016x}", random::u64()));
        fs::create_dir(&folder).expect("a new folder");
        let program = folder.join("mesophyll");
        fs::hard_link(env!("CARGO_BIN_EXE_mesophyll"), &program).expect("a link");
        let worker = folder.join("worker");
        fs::hard_link(&program, &worker).expect("a link");
        let exchanged = ["--worker-program", worker.to_str().expect("text")];
        let like =
            mesophyll(&[&ONE_WORKER[..], if is_its_own { &[] } else { &exchanged }, args].concat());
        let mut command = Command::new(program);
        command.args(like.get_args()).env("MESOPHYLL_API_SECRET", SECRET);
        for (name, value) in like.get_envs().filter(|(_, value)| value.is_none()) {
            assert_eq!(value, None);
            command.env_remove(name);
        }
        let exchangeable = Self { master: Master::of(Running::start(command)), folder };
        exchangeable.master.wait_ready();
        exchangeable
    }

    /// From now on the worker is what this line of shell starts; its arguments are `$@`.
    fn exchange(&self, line: &str) {
        // Written by another process: a child that another test starts meanwhile would hold a file
        // that this one writes, and a program that somebody may still write to cannot be started.
        let new = self.folder.join("new");
        let mut writes = Command::new("/bin/sh");
        writes.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$0""#]).arg(&new).arg(line);
        assert!(writes.status().expect("a shell").success());
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("set");
        fs::rename(new, self.folder.join("worker")).expect("exchanged");
        self.master.command(&["restart", "0"]).expect(0, "");
    }

    /// The worker's process, once it is another one than this.
    fn worker_after(&self, before: u32) -> u32 {
        let other = || workers_of(self.master.pid()).get(&0).copied().filter(|pid| *pid != before);
        eventually("its worker runs", other)
    }
}

impl Drop for Exchangeable {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The real worker's executors cannot be made to hang from outside, so one that says that its own
/// does takes its place.
#[test]
fn the_log_says_in_which_event_a_worker_hangs() {
    let exchangeable = Exchangeable::start(&["--hang-timeout", "1s"]);
    let master = &exchangeable.master;
    exchangeable
        .exchange(&format!("shift; exec '{}' hangs \"$@\"", example("faulty_worker").display()));
    let mut worker = 0;
    for _ in 0..3 {
        worker = exchangeable.worker_after(worker);
        let (status, body) = master.dispatch("guild/7", "STUCK", "1");
        assert_eq!((status, body["code"].as_str()), (502, Some("OutcomeUnknown")), "{body}");
        let line = master
            .running
            .wait_stderr("worker 0 hangs: an executor has not come back to its loop for ");
        let (away, running) =
            line.split_once("; it has been running STUCK of guild:7 for ").expect(&line);
        for time in [away, running] {
            let seconds = time
                .strip_suffix(" s")
                .and_then(|time| time.rsplit(' ').next()?.parse::<u64>().ok());
            assert!(seconds.is_some_and(|seconds| seconds >= 1), "{line}");
        }
        let ended = format!(
            "worker 0 (pid {worker}) ended: killed by signal 15, with 1 in flight: STUCK of guild:7 (asked for "
        );
        master.running.wait_stderr(&ended);
        assert!(is_gone(worker));
    }
    let (status, body) = master.dispatch("guild/7", "STUCK", "1");
    assert_eq!((status, body["code"].as_str()), (403, Some("Quarantined")), "{body}");
}

/// A library that makes the clock fail once, in the thread that interrupts scripts, when there is
/// such a file: Rust's own library panics then.
const BREAKS_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int broken;

int clock_gettime(clockid_t clock, struct timespec *time) {
    char name[16] = "";
    const char *file = getenv("BREAKS_CLOCK_WHEN");
    pthread_getname_np(pthread_self(), name, sizeof name);
    if (strstr(name, "-tick") && file && !access(file, F_OK) && !__sync_lock_test_and_set(&broken, 1)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_clock_gettime, clock, time);
}
"#;

/// Compiles it; `None` without a C compiler.
fn clock_breaker(folder: &Path, test: &str) -> Option<PathBuf> {
    let (source, library) = (write(folder, "clock.c", BREAKS_CLOCK), folder.join("clock.so"));
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    match compiled {
        Ok(status) => assert!(status.success()),
        Err(_) => skipped(test, "it needs a C compiler: install gcc or clang"),
    }
    library.exists().then_some(library)
}

#[test]
fn a_worker_whose_runtime_breaks_ends_with_code_70() {
    let folder = TempDir::new();
    let test = "a_worker_whose_runtime_breaks_ends_with_code_70";
    let Some(library) = clock_breaker(folder.path(), test) else { return };
    let when = folder.path().join("now");
    let exchangeable = Exchangeable::start(&[]);
    let master = &exchangeable.master;
    exchangeable.exchange(&format!(
        "exec env LD_PRELOAD='{}' BREAKS_CLOCK_WHEN='{}' '{}' \"$@\"",
        library.display(),
        when.display(),
        env!("CARGO_BIN_EXE_mesophyll"),
    ));
    let worker = exchangeable.worker_after(0);
    assert_eq!(master.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
    // A loop that nothing interrupts any more: without the rule its executor would hang.
    let (status, body) = std::thread::scope(|scope| {
        let looping = scope.spawn(|| master.dispatch("guild/1", "LOOP", "1"));
        eventually("it runs", || {
            let (_, rows) = get_with(master.api(), "/i/workers", &token(7));
            rows.contains("\"in_flight\":1").then_some(())
        });
        fs::write(&when, "").expect("a file");
        looping.join().expect("an answer")
    });
    assert_eq!((status, body["code"].as_str()), (502, Some("OutcomeUnknown")), "{body}");
    fs::remove_file(&when).expect("removed");
    // In either order: what a worker prints and how it ended are told by different threads.
    for told in [
        "the thread luau-tick has ended by a panic",
        &format!("worker 0 (pid {worker}) ended: exit code 70"),
    ] {
        eventually(told, || master.running.stderr_so_far().contains(told).then_some(()));
    }
    assert!(is_gone(worker));
    assert_eq!(master.dispatch("guild/1", "ECHO", "2"), (200, Value::from(2)));
}

#[test]
fn a_worker_runs_the_masters_program_though_its_file_is_gone() {
    let exchangeable = Exchangeable::start_as(true, &[]);
    let (master, file) = (&exchangeable.master, exchangeable.folder.join("mesophyll"));
    let mut worker = exchangeable.worker_after(0);
    for round in 0..2 {
        fs::remove_file(&file).expect("it is there");
        if round == 1 {
            fs::write(&file, "no program").expect("another file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
        } else {
            assert!(!file.exists());
        }
        signal(worker, Signal::KILL);
        worker = exchangeable.worker_after(worker);
        assert_eq!(master.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
        // As it is called in `ps`, though it was started by a descriptor.
        assert_eq!(
            fs::read_to_string(format!("/proc/{worker}/comm")).expect("it runs"),
            "mesophyll\n"
        );
        fs::write(&file, "").expect("a file");
    }
}

#[test]
fn a_master_that_cannot_start_workers_says_why() {
    let folder = TempDir::new();
    let program = folder.path().join("worker");
    // Written by another process, as in `exchange`; it can be executed, but what it asks for is not
    // there.
    let script = r#"printf '#!/nowhere/sh\n' > "$0" && chmod 755 "$0""#;
    assert!(
        Command::new("/bin/sh")
            .args(["-c", script])
            .arg(&program)
            .status()
            .expect("a shell")
            .success()
    );
    let program = program.to_str().expect("a plain path");
    let args =
        [&ONE_WORKER[..], &["--failures-a-minute", "2", "--worker-program", program]].concat();
    let mut command = mesophyll(&args);
    command.env("MESOPHYLL_API_SECRET", SECRET);
    let ended = Running::start(command).wait();
    let why = format!("could not be started: {program}: No such file or directory (os error 2)");
    let lines = |start: &str| {
        ended.stderr.lines().filter(|line| line.contains(start) && line.contains(&why)).count()
    };
    assert_eq!(
        (ended.code(), lines("WARN  [mesophyll::pool::process::supervision] worker 0 could")),
        (5, 2),
        "{ended:?}"
    );
    assert_eq!(
        lines(
            "ERROR [mesophyll::pool::process::supervision] worker 0: its worker has failed too often"
        ),
        1,
        "{ended:?}"
    );
    let last = ended.stderr.lines().last().expect("a line");
    assert_eq!(
        last,
        format!("mesophyll: no worker is left: each has failed too often; worker 0: {why}")
    );
}

#[test]
fn a_master_whose_own_runtime_breaks_ends_with_code_70() {
    let folder = TempDir::new();
    let Some(library) =
        clock_breaker(folder.path(), "a_master_whose_own_runtime_breaks_ends_with_code_70")
    else {
        return;
    };
    let when = folder.path().join("now");
    let mut command =
        mesophyll(&[&ONE_WORKER[..], &["--mode", "thread-pool", "--stop-timeout", "2s"]].concat());
    command
        .env("MESOPHYLL_API_SECRET", SECRET)
        .env("LD_PRELOAD", library)
        .env("BREAKS_CLOCK_WHEN", &when);
    let master = Master::of(Running::start(command));
    assert_eq!(master.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
    // Before that: afterwards there may be nobody left to take it.
    assert_eq!(master.dispatch_with("guild/1", "LOOP", "1", "?nowait=true").0, 202);
    fs::write(&when, "").expect("a file");
    master.running.wait().expect(70, "the thread luau0-tick has ended by a panic");
}

/// Ctrl-C in a terminal: the whole foreground group gets it.
#[test]
fn an_interrupt_of_the_process_group_lets_events_finish() {
    let mut command = mesophyll(&ONE_WORKER);
    command.env("MESOPHYLL_API_SECRET", SECRET).process_group(0);
    let master = Master::of(Running::start(command));
    master.wait_ready();
    std::thread::scope(|scope| {
        let answered =
            scope.spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"last","seconds":1}"#));
        master.running.wait_stderr("waiting last");
        let group = Pid::from_raw(i32::try_from(master.pid()).expect("a pid")).expect("a pid");
        kill_process_group(group, Signal::INT).expect("it runs");
        assert_eq!(answered.join().expect("an answer"), (200, Value::from("waited last")));
    });
    master.running.wait().expect(0, "");
}

#[test]
fn a_worker_that_is_stopped_dies_with_a_master_that_is_killed() {
    let master = Master::start(&["--workers", "2"]);
    master.wait_ready();
    let workers = workers_of(master.pid());
    // A stopped process reads no stdin: only the system can end it.
    signal(workers[&0], Signal::STOP);
    signal(master.pid(), Signal::KILL);
    within(Duration::from_secs(5), "no worker is left", || {
        workers.values().all(|pid| is_gone(*pid)).then_some(())
    });
}

#[test]
fn the_death_of_a_worker_is_told_with_what_it_said_last() {
    let master = Master::start(&["--workers", "1", "--log", "info"]);
    master.wait_ready();
    let worker = workers_of(master.pid())[&0];
    master.running.wait_stderr(&format!("worker 0 (pid {worker}): "));
    signal(worker, Signal::KILL);
    master
        .running
        .wait_stderr(&format!("worker 0 (pid {worker}) ended: killed by signal 9; the last"));
    master.running.wait_stderr("    INFO ");
    eventually("it comes back", || {
        workers_of(master.pid()).get(&0).filter(|pid| **pid != worker).copied()
    });
}
