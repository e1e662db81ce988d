//! The connections that a master hands to its own workers: that they use them and nothing else,
//! that each is one worker's, and that nothing of them is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::TempDir;
use crate::support::binary::{BINARY, Master, Running, SECRET, TEMPLATES, mesophyll, run, write};
use crate::support::process::{eventually, signal, workers_of};

/// A master that keeps its temporary files in this directory.
fn start(temporary: &Path, workers: &str) -> Master {
    let mut command = mesophyll(&["master", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.args(["--store", "memory:", "--templates", TEMPLATES]);
    command.args(["--default-events", "*", "--workers", workers]);
    command.env("MESOPHYLL_API_SECRET", SECRET).env("TMPDIR", temporary);
    let master = Master::of(Running::start(command));
    master.wait_ready();
    master
}

/// Whether a peer is connected to a master's port.
fn is_port_used(master: &Master) -> bool {
    let local = format!("0100007F:{:04X}", master.listen().port());
    let text = fs::read_to_string("/proc/net/tcp").expect("Linux says so");
    // The local address is the second field; 01 is an established connection.
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"01"))
}

#[test]
fn a_masters_workers_use_handed_out_connections_only() {
    let temporary = TempDir::new();
    let master = start(temporary.path(), "2");
    // COUNT reads and writes in the database, for a tenant of either worker.
    for guild in ["guild/1", "guild/4194304"] {
        assert_eq!(master.dispatch(guild, "COUNT", "1"), (200, Value::from(1)));
    }
    assert!(!is_port_used(&master), "a worker came by TCP");
    let before = workers_of(master.pid());
    signal(before[&0], Signal::KILL);
    eventually("another worker", || {
        workers_of(master.pid()).get(&0).filter(|pid| **pid != before[&0]).copied()
    });
    master.wait_ready();
    for guild in ["guild/1", "guild/4194304"] {
        assert_eq!(master.dispatch(guild, "COUNT", "1"), (200, Value::from(2)));
    }
    assert!(!is_port_used(&master), "a worker came by TCP");
    assert_eq!(master.stop().0.code(), 0);
    assert_eq!(fs::read_dir(temporary.path()).expect("a folder").count(), 0);
}

#[test]
fn a_worker_program_without_a_broker_comes_over_tcp() {
    let folder = TempDir::new();
    let program = write(
        folder.path(),
        "older",
        format!("#!/bin/sh\nunset MESOPHYLL_BROKER\nexec {BINARY} \"$@\"\n"),
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut command = mesophyll(&["master", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.args(["--store", "memory:", "--templates", TEMPLATES, "--workers", "1"]);
    command.args(["--default-events", "*", "--worker-program"]).arg(&program);
    command.env("MESOPHYLL_API_SECRET", SECRET);
    let master = Master::of(Running::start(command));
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(1)));
    assert!(is_port_used(&master));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_path_of_a_master_must_be_absolute() {
    let worker = ["worker", "--id", "0", "--workers", "1", "--master"];
    run(&[&worker[..], &["unix:socket"]].concat()).expect(2, "unix: and an absolute path");
    run(&[&worker[..], &["unix:/run/mesophyll/socket"]].concat())
        .expect(3, "MESOPHYLL_CLIENT_TOKEN is not set");
}
