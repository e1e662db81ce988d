//! Masters whose workers run another program, of another version: the peer `faulty_worker`, which
//! needs no Luau.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use crate::support::TempDir;
use crate::support::binary::{Master, example, get_with, token};
use crate::support::process::{eventually, workers_of};

/// The rows of `GET /i/workers`.
fn rows(master: &Master) -> serde_json::Value {
    let (status, body) = get_with(master.api(), "/i/workers", &token(7));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Its one worker answers as the peer does, and is shown with its version.
fn serves_as_another_version(master: &Master) {
    master.wait_ready();
    assert_eq!(master.dispatch("guild/7", "PING", "1"), (200, json!("PING of guild:7")));
    assert_eq!(rows(master)[0]["version"], "faulty");
    let shown = master.command(&["workers"]);
    shown.expect(0, "");
    assert!(shown.stdout[0].contains("VERSION") && shown.stdout[1].contains("faulty"), "{shown:?}");
    let own = env!("CARGO_PKG_VERSION");
    master.running.wait_stderr(&format!("worker 0 is of version faulty, its master of {own}"));
}

#[test]
fn a_named_worker_program_of_another_version_serves() {
    let program = example("faulty_worker");
    let program = program.to_str().expect("text");
    let master = Master::start(&["--workers", "1", "--worker-program", program]);
    serves_as_another_version(&master);
    let worker = workers_of(master.pid())[&0];
    let runs = std::fs::read_link(format!("/proc/{worker}/exe")).expect("it runs");
    assert_eq!(runs, example("faulty_worker"));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn an_external_worker_of_another_version_serves() {
    let folder = TempDir::new();
    let tokens = folder.path().join("tokens.json");
    let file = tokens.to_str().expect("text");
    let master = Master::start(&["--workers", "1", "--external-workers", "--worker-tokens", file]);
    assert_eq!(rows(&master)[0]["version"], json!(null), "nothing has connected");
    let read = std::fs::read(&tokens).expect("written");
    let read: serde_json::Value = serde_json::from_slice(&read).expect("JSON");
    let mut worker = Command::new(example("faulty_worker"));
    let listen = master.listen().to_string();
    worker.args(["worker", "--id", "0", "--lifeline", "stdin", "--master", &listen]);
    worker.env("MESOPHYLL_CLIENT_TOKEN", read["0"].as_str().expect("a token"));
    let mut worker = worker.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    serves_as_another_version(&master);
    drop(worker.stdin.take());
    worker.wait().expect("a child of ours");
    eventually("its version goes with it", || rows(&master)[0]["version"].is_null().then_some(()));
    master.running.signal(Signal::TERM);
    assert_eq!(master.running.wait().code(), 0);
}
