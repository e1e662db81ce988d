//! The binary where a resource runs out: many large events at once, a worker that cannot start.

use std::process::Command;
use std::time::Duration;

use crossbeam_channel::never;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Master, Running, TEMPLATES, mesophyll, run_on};
use crate::support::process::{signal, workers_of};

#[test]
fn large_events_wait_for_workers_to_be_ready() {
    // More than may wait for a worker, all for one.
    let line = format!(
        "{{\"tenant\":\"guild:1\",\"name\":\"BYTES\",\"data\":\"{}\"}}\n",
        "x".repeat(4 << 20)
    );
    let replayed =
        run_on(&["replay", "-", "--workers", "2", "--templates", TEMPLATES], line.repeat(20));
    replayed.expect(0, "20 events in ");
    assert!(replayed.json().iter().all(|line| line["ok"] == 4 << 20));
}

#[test]
fn a_worker_that_cannot_start_ends_though_its_lifeline_holds() {
    let binary = mesophyll::<&str>(&[]);
    let script = r#"ulimit -v 1500000; exec "$0" worker --id 0 --workers 1 --master 127.0.0.1:1 --lifeline stdin --executors 1024"#;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .arg(binary.get_program())
        .env("MESOPHYLL_CLIENT_TOKEN", "a".repeat(64));
    let (worker, _stdin) = Running::start_open(command);
    // The stacks of so many threads do not fit into that much memory.
    worker.wait().expect(3, "templates: ");
}

#[test]
fn a_token_that_cannot_be_one_is_refused_at_once_and_not_shown() {
    let mut command =
        mesophyll(&["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"]);
    command.env("MESOPHYLL_CLIENT_TOKEN", "secret&id=1");
    let ended = Running::start(command).wait();
    ended.expect(3, "a token is letters and digits");
    assert!(!ended.stderr.contains("secret"));
}

#[test]
fn a_machine_that_stalls_costs_no_link() {
    let master = Master::start(&["--heartbeat-interval", "300ms", "--workers", "1"]);
    master.wait_ready();
    let both = [master.pid(), workers_of(master.pid())[&0]];
    std::thread::scope(|scope| {
        let waits =
            scope.spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"stall","seconds":2}"#));
        master.running.wait_stderr("waiting stall");
        both.iter().for_each(|pid| signal(*pid, Signal::STOP));
        // Many times as long as either side may be silent.
        let _ = never::<()>().recv_timeout(Duration::from_secs(3));
        both.iter().for_each(|pid| signal(*pid, Signal::CONT));
        assert_eq!(waits.join().expect("an answer"), (200, Value::from("waited stall")));
    });
}

#[test]
fn a_signal_that_is_sent_to_the_process_and_to_its_group_is_one() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    std::thread::scope(|scope| {
        let waits =
            scope.spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"twice","seconds":1}"#));
        master.running.wait_stderr("waiting twice");
        // At once, which only one process can do that does nothing else meanwhile.
        let mut twice = std::process::Command::new("/bin/sh");
        twice
            .args(["-c", "kill -TERM $0; kill -TERM $0; kill -TERM $0"])
            .arg(master.pid().to_string());
        assert!(twice.status().expect("a shell").success());
        assert_eq!(waits.join().expect("an answer"), (200, Value::from("waited twice")));
    });
    master.running.wait().expect(0, "stopping: Terminate");
}
