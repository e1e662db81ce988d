//! Masters whose workers run another program, of another version: the peer `faulty_worker`, which
//! needs no Luau; and a master without Luau whose workers are the program of this build.
//!
//! `MESOPHYLL_TEST_MINIMAL` names a program built without Luau (`make minimal` builds one); without
//! it that test is skipped, which it says.

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

#[cfg(feature = "luau")]
mod minimal {
    use std::ffi::OsStr;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::support::binary::{Running, SECRET, mesophyll};
    use crate::support::skip::skipped;

    const FULL: &str = env!("CARGO_BIN_EXE_mesophyll");
    const ARGS: [&str; 9] = [
        "master",
        "--listen=127.0.0.1:0",
        "--api=127.0.0.1:0",
        "--store=memory:",
        "--workers=2",
        "--default-events",
        "*",
        "--worker-program",
        FULL,
    ];

    /// A master that this program runs; its two workers run the one of this build.
    fn start(program: &OsStr) -> Master {
        let like = mesophyll(&ARGS);
        let mut command = Command::new(program);
        command.args(like.get_args());
        for (name, _) in like.get_envs() {
            command.env_remove(name);
        }
        command.env("MESOPHYLL_API_SECRET", SECRET);
        let master = Master::of(Running::start(command));
        master.wait_ready();
        master
    }

    /// The file that a process runs.
    fn file(pid: u32) -> PathBuf {
        real(format!("/proc/{pid}/exe").as_ref())
    }

    fn real(path: &Path) -> PathBuf {
        std::fs::canonicalize(path).expect("a program")
    }

    #[test]
    fn a_minimal_master_replays_events_with_full_workers() {
        let Some(program) = std::env::var_os("MESOPHYLL_TEST_MINIMAL") else {
            let why = "set MESOPHYLL_TEST_MINIMAL to a program without Luau, or run `make minimal`";
            return skipped("a_minimal_master_replays_events_with_full_workers", why);
        };
        let version = Command::new(&program).arg("--version").output().expect("it starts").stdout;
        let version = String::from_utf8(version).expect("text");
        assert!(version.starts_with("mesophyll") && !version.contains("luau"), "{version}");
        let master = start(&program);
        assert_eq!(file(master.pid()), real(program.as_ref()));
        let workers = workers_of(master.pid());
        let files: Vec<PathBuf> = workers.values().map(|pid| file(*pid)).collect();
        assert_eq!(files, vec![real(FULL.as_ref()); 2]);
        for line in include_str!("../../examples/events.ndjson").lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let text = |member: &str| event[member].as_str().expect("text").to_owned();
            let (tenant, name) = (text("tenant").replacen(':', "/", 1), text("name"));
            let (status, body) = master.dispatch(&tenant, &name, &event["data"].to_string());
            // The built-in template names the event in each of its answers.
            assert!(status == 200 && body["event"] == name, "{line}: {status} {body}");
        }
        for row in rows(&master).as_array().expect("a list") {
            assert!(row["version"] == env!("CARGO_PKG_VERSION") && row["restarts"] == 0, "{row}");
        }
        assert_eq!(master.stop().0.code(), 0);
    }
}
