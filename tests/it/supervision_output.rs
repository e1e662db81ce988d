//! What workers print, and where it ends up: in the log, bounded, without ever holding a worker up.
//!
//! The workers are shell one-liners; the log is the test binary's own logger, which one of the
//! tests makes hang.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::kv::Key;
use log::{LevelFilter, Log, Metadata, Record};
use mesophyll::base::limits;
use mesophyll::dispatch::worker_like::WorkerLike;
use mesophyll::pool::process::supervisor::Policy;
use mesophyll::pool::{Managed, ProcessConfig, WorkerProcessHandle};
use mesophyll::wire::log_line::BELOW;

use crate::supervision::{child, hasty};
use crate::support::process::{eventually, is_gone, signal};
use crate::support::{DEADLINE, TempDir};

/// Keeps what the library logs about workers; a line with the word `HANG` in it waits until the
/// test lets go.
struct Capture {
    lines: Mutex<Vec<String>>,
    gate_rx: Receiver<()>,
    // Never sent on: while it lives, who waits waits.
    gate_tx: Mutex<Option<Sender<()>>>,
}

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        if !text.starts_with("worker 8") {
            return;
        }
        if text.contains("HANG") {
            let _ = self.gate_rx.recv();
        }
        let below = record
            .key_values()
            .get(Key::from(BELOW))
            .map_or_else(String::new, |below| format!("\n{below}"));
        self.lines.lock().expect("not poisoned").push(format!("{} {text}{below}", record.level()));
    }

    fn flush(&self) {}
}

fn capture() -> &'static Capture {
    static CAPTURE: OnceLock<Capture> = OnceLock::new();
    CAPTURE.get_or_init(|| {
        let (gate_tx, gate_rx) = bounded(0);
        Capture { lines: Mutex::default(), gate_rx, gate_tx: Mutex::new(Some(gate_tx)) }
    });
    let capture = CAPTURE.get().expect("just made");
    // Fails when it is the logger already.
    if log::set_logger(capture).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    capture
}

fn logged(worker_id: usize) -> Vec<String> {
    let start = format!("worker {worker_id} ");
    let lines = capture().lines.lock().expect("not poisoned");
    lines
        .iter()
        .filter(|line| line.split_once(' ').is_some_and(|(_, text)| text.starts_with(&start)))
        .cloned()
        .collect()
}

/// A worker with a number that starts with an 8, which is what the capturing logger keeps.
fn worker(worker_id: usize, script: &str, policy: Policy) -> Arc<WorkerProcessHandle> {
    capture();
    let config = ProcessConfig::new(worker_id, Some(child("/bin/sh", &["-c", script])), policy);
    WorkerProcessHandle::start(config, || {}).expect("a loop")
}

fn exists(file: &Path) -> Option<()> {
    file.exists().then_some(())
}

#[test]
fn both_outputs_reach_the_log_line_by_line() {
    let script = "echo 'INFO  [x] ready'; echo to stderr >&2; i=1; while [ $i -le 60 ]; do echo line $i; i=$((i+1)); done; exit 9";
    let worker = worker(800, script, Policy { failures_in_window: 1, ..hasty() });
    let end = eventually("its end is told", || {
        logged(800).into_iter().find(|line| line.contains("exit code 9"))
    });
    let pid = end
        .split("(pid ")
        .nth(1)
        .and_then(|rest| rest.split(')').next())
        .expect("a pid")
        .to_owned();
    let lines =
        eventually("all lines are logged", || Some(logged(800)).filter(|lines| lines.len() >= 64));
    for expected in [
        "INFO worker 800 (pid P): [x] ready",
        "WARN worker 800 (pid P): to stderr",
        "WARN worker 800 (pid P): line 60",
    ] {
        let expected = expected.replace('P', &pid);
        assert!(lines.contains(&expected), "{expected:?} is not in {lines:?}");
    }
    assert!(
        end.contains("the last 50 lines that it printed:\nline 11\n") && end.ends_with("\nline 60"),
        "{end}"
    );
    worker.kill();
}

#[test]
fn a_worker_that_floods_its_output_does_not_fill_the_log() {
    let folder = TempDir::new();
    let done = folder.path().join("done");
    let script =
        format!("yes flood | head -n 500000 >&2; echo x > {}; exec sleep 600", done.display());
    let worker = worker(810, &script, hasty());
    eventually("it has printed all of it", || exists(&done));
    worker.kill();
    let lines = logged(810);
    let flood = lines.iter().filter(|line| line.ends_with(": flood")).count();
    assert!(flood >= limits::WORKER_OUTPUT_BURST as usize && flood < 250_000, "{flood} lines");
    assert!(
        lines.iter().any(|line| line.contains("lines of its output were dropped")),
        "{:?}",
        lines.last()
    );
}

#[test]
fn a_log_that_is_stuck_holds_up_no_worker() {
    let folder = TempDir::new();
    let done = folder.path().join("done");
    // More than the socket, the queue to the log, and everything between could hold.
    let script = format!(
        "echo HANG; head -c 30000000 /dev/zero | tr '\\\\0' 'x' | fold -w 100; echo x > {}; exec sleep 600",
        done.display()
    );
    let worker = worker(820, &script, hasty());
    eventually("it has printed all of it", || exists(&done));
    assert_eq!(
        logged(820).iter().filter(|line| line.contains("xxx")).count(),
        0,
        "the log was stuck all the time"
    );
    let pid = worker.report().pid.expect("it runs");
    signal(pid, rustix::process::Signal::KILL);
    eventually("it is restarted all the same", || {
        (worker.report().restarts.total() > 0).then_some(())
    });
    assert!(is_gone(pid));
    drop(capture().gate_tx.lock().expect("not poisoned").take());
    worker.kill();
}

#[test]
fn a_childs_leftovers_may_print_and_hold_nothing_up() {
    let folder = TempDir::new();
    let file = folder.path().join("left");
    // The process that is left behind prints for ever into the socket that it inherited.
    let script = format!(
        "trap '' PIPE; while :; do echo noise || exit; done & echo $! > {}; exit 1",
        file.display()
    );
    let (changes_tx, changes_rx) = unbounded();
    let policy = Policy { failures_in_window: 1, ..hasty() };
    let config = ProcessConfig::new(830, Some(child("/bin/sh", &["-c", &script])), policy);
    let worker =
        WorkerProcessHandle::start(config, move || changes_tx.send(()).unwrap_or_default())
            .expect("a loop");
    while worker.report().last_exit.is_none() {
        changes_rx.recv_timeout(DEADLINE).expect("its end is noticed");
    }
    assert_eq!(worker.report().last_exit.as_deref(), Some("exit code 1"));
    let left: u32 = std::fs::read_to_string(&file).expect("a file").trim().parse().expect("a pid");
    eventually("what is left behind finds its output closed", || is_gone(left).then_some(()));
    worker.kill();
}
