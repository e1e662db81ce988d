//! The binary where a resource runs out: many large events at once, a worker that cannot start.

use std::process::Command;

use crate::support::binary::{Running, TEMPLATES, mesophyll, run_on};

#[test]
fn large_events_that_come_before_the_workers_are_ready_wait_for_them() {
    // More than may wait for a worker, all for one.
    let line = format!("{{\"tenant\":\"guild:1\",\"name\":\"BYTES\",\"data\":\"{}\"}}\n", "x".repeat(4 << 20));
    let replayed = run_on(&["replay", "-", "--workers", "2", "--templates", TEMPLATES], line.repeat(20));
    replayed.expect(0, "20 events in ");
    assert!(replayed.json().iter().all(|line| line["ok"] == 4 << 20));
}

#[test]
fn a_worker_that_cannot_start_ends_though_its_lifeline_holds() {
    let binary = mesophyll::<&str>(&[]);
    let script = r#"ulimit -v 1500000; exec "$0" worker --id 0 --workers 1 --master 127.0.0.1:1 --lifeline stdin --executors 1024"#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(binary.get_program()).env("MESOPHYLL_CLIENT_TOKEN", "a".repeat(64));
    let (worker, _stdin) = Running::start_open(command);
    // The stacks of so many threads do not fit into that much memory.
    worker.wait().expect(3, "templates: ");
}

#[test]
fn a_token_that_cannot_be_one_is_refused_at_once_and_not_shown() {
    let mut command = mesophyll(&["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"]);
    command.env("MESOPHYLL_CLIENT_TOKEN", "secret&id=1");
    let ended = Running::start(command).wait();
    ended.expect(3, "a token is letters and digits");
    assert!(!ended.stderr.contains("secret"));
}
