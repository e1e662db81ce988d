//! Supervision with the real binary: whose signals reach whom, and what a death leaves behind.

use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::binary::{Master, Running, SECRET, TEMPLATES, mesophyll};
use crate::support::process::{eventually, is_gone, signal, within, workers_of};

/// Ctrl-C in a terminal: the whole foreground group gets it.
#[test]
fn an_interrupt_of_the_masters_process_group_lets_what_is_under_way_finish() {
    let args = ["master", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--store", "memory:", "--workers", "1"];
    let mut command = mesophyll(&[&args[..], &["--templates", TEMPLATES, "--default-events", "*"]].concat());
    command.env("MESOPHYLL_API_SECRET", SECRET).process_group(0);
    let master = Master::of(Running::start(command));
    master.wait_ready();
    std::thread::scope(|scope| {
        let answered = scope.spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"last","seconds":1}"#));
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
    within(Duration::from_secs(5), "no worker is left", || workers.values().all(|pid| is_gone(*pid)).then_some(()));
}

#[test]
fn the_death_of_a_worker_is_told_with_what_it_said_last() {
    let master = Master::start(&["--workers", "1", "--log", "info"]);
    master.wait_ready();
    let worker = workers_of(master.pid())[&0];
    master.running.wait_stderr(&format!("worker 0 (pid {worker}): "));
    signal(worker, Signal::KILL);
    master.running.wait_stderr(&format!("worker 0 (pid {worker}) ended: killed by signal 9; the last"));
    master.running.wait_stderr("    INFO ");
    eventually("it comes back", || workers_of(master.pid()).get(&0).filter(|pid| **pid != worker).copied());
}
