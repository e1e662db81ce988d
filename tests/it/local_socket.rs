//! The private Unix socket between a master and the workers that it starts: that they use it and
//! nothing else, that nobody else can, and that nothing is left of it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Master, Running, SECRET, TEMPLATES, mesophyll, run};
use crate::support::process::{command_line, eventually, is_gone, signal, workers_of};
use crate::support::{DEADLINE, Random, TempDir};

/// A master that keeps its temporary files in this directory.
fn start(temporary: &Path, workers: &str) -> Master {
    let mut command = mesophyll(&[
        "master",
        "--api",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
        "--store",
        "memory:",
    ]);
    command.args(["--templates", TEMPLATES, "--default-events", "*", "--workers", workers]);
    command.env("MESOPHYLL_API_SECRET", SECRET).env("TMPDIR", temporary);
    let master = Master::of(Running::start(command));
    master.wait_ready();
    master
}

fn folders(temporary: &Path) -> Vec<PathBuf> {
    fs::read_dir(temporary)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// What a worker was told of its master.
fn told(pid: u32) -> String {
    let words = command_line(pid);
    let at = words.iter().position(|word| word == "--master").expect("it was told");
    words[at + 1].clone()
}

/// The socket that all workers of a master were told of.
fn socket_of(master: &Master) -> PathBuf {
    let mut told: Vec<String> = workers_of(master.pid()).values().map(|pid| told(*pid)).collect();
    told.dedup();
    let [address] = &told[..] else { panic!("{told:?}") };
    address.strip_prefix("unix:").expect("a Unix socket").into()
}

/// Whether anybody is connected to a master's port.
fn is_port_used(master: &Master) -> bool {
    let local = format!("0100007F:{:04X}", master.listen().port());
    let text = fs::read_to_string("/proc/net/tcp").expect("Linux says so");
    // The local address is the second field; 01 is an established connection.
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"01"))
}

#[test]
fn a_masters_workers_have_its_socket_to_themselves() {
    let temporary = TempDir::new();
    let master = start(temporary.path(), "2");
    let socket = socket_of(&master);
    let folder = socket.parent().expect("a folder");
    assert_eq!(folders(temporary.path()), [folder]);
    assert_eq!(fs::metadata(folder).expect("it is there").permissions().mode() & 0o777, 0o700);
    // COUNT reads and writes in the database, for a tenant of either worker.
    for guild in ["guild/1", "guild/4194304"] {
        assert_eq!(master.dispatch(guild, "COUNT", "1"), (200, Value::from(1)));
    }
    assert!(!is_port_used(&master), "somebody came by TCP");

    let before = workers_of(master.pid());
    signal(before[&0], Signal::KILL);
    eventually("another worker", || {
        workers_of(master.pid()).get(&0).filter(|pid| **pid != before[&0]).copied()
    });
    master.wait_ready();
    assert_eq!(socket_of(&master), socket);
    for guild in ["guild/1", "guild/4194304"] {
        assert_eq!(master.dispatch(guild, "COUNT", "1"), (200, Value::from(2)));
    }
    assert!(!is_port_used(&master), "somebody came by TCP");

    assert_eq!(master.stop().0.code(), 0);
    assert_eq!(folders(temporary.path()), [] as [PathBuf; 0]);
}

#[test]
fn garbage_on_the_socket_hurts_nobody() {
    let temporary = TempDir::new();
    let master = start(temporary.path(), "1");
    let socket = socket_of(&master);
    let workers = workers_of(master.pid());
    let connect = || {
        let stream = UnixStream::connect(&socket).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    };
    // What is answered, and that it is then closed.
    let answer = |bytes: &[u8]| {
        let mut stream = connect();
        // The master may have closed it before it has read all.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        // A reset: it was closed with something unread. Never that the time was over.
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
        );
        String::from_utf8_lossy(&answer).chars().take(12).collect::<String>()
    };
    let mut random = Random::new(7);
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..random.below(3000)).map(|_| random.below(256) as u8).collect();
        let said = answer(&bytes);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    assert_eq!(answer(b"GET /ws?id=0&tok"), "HTTP/1.1 400");
    assert_eq!(answer(b"GET /ws?id=0&token=wrong HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 401");
    assert_eq!(answer(b"GET /ws?id=1&token=wrong HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404");
    let states = b"GET /db/tenant-states?id=0&token=wrong HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(answer(states), "HTTP/1.1 401");
    let mut silent: Vec<UnixStream> = (0..20).map(|_| connect()).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"POST /db/kv?id=0&token=").expect("a part of a request");
    }
    // A worker by hand gets as far as its token.
    let address = format!("unix:{}", socket.display());
    let mut worker = mesophyll(&["worker", "--id", "0", "--workers", "1", "--master", &address]);
    worker.env("MESOPHYLL_CLIENT_TOKEN", "wrong");
    Running::start(worker).wait().expect(3, "the master refuses this worker (401): wrong token");

    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(1)));
    assert_eq!(workers_of(master.pid()), workers, "its worker never noticed");
    assert_eq!(master.stop().0.code(), 0);
    assert_eq!(folders(temporary.path()), [] as [PathBuf; 0]);
}

#[test]
fn a_master_removes_only_what_a_killed_one_left() {
    let temporary = TempDir::new();
    let (killed, running) = (start(temporary.path(), "1"), start(temporary.path(), "1"));
    let (left, kept) = (socket_of(&killed), socket_of(&running));
    assert!(left != kept);
    signal(killed.pid(), Signal::KILL);
    // Its last thread lets go of the socket and the lock, perhaps after the process counts as
    // ended.
    eventually("its end", || {
        (is_gone(killed.pid()) && UnixStream::connect(&left).is_err()).then_some(())
    });
    eventually("its lock", || fs::File::open(left.parent()?).ok()?.try_lock().ok());
    assert!(left.exists(), "nobody was there to remove it");
    let next = start(temporary.path(), "1");
    assert!(!left.parent().expect("a folder").exists());
    assert!(kept.exists());
    for master in [running, next] {
        assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(1)));
        assert_eq!(master.stop().0.code(), 0);
    }
    assert_eq!(folders(temporary.path()), [] as [PathBuf; 0]);
}

#[test]
fn without_a_place_for_the_socket_workers_use_the_port() {
    let temporary = TempDir::new();
    let master = start(&temporary.path().join("missing"), "1");
    master.running.wait_stderr("no private socket for the workers, who use the port instead");
    for pid in workers_of(master.pid()).values() {
        assert_eq!(told(*pid), master.listen().to_string());
    }
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(1)));
    assert!(is_port_used(&master));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_worker_is_told_a_path_that_it_can_go_to_from_anywhere() {
    let worker = ["worker", "--id", "0", "--workers", "1", "--master"];
    run(&[&worker[..], &["unix:socket"]].concat()).expect(2, "unix: and an absolute path");
    run(&[&worker[..], &["unix:/run/mesophyll/socket"]].concat())
        .expect(3, "MESOPHYLL_CLIENT_TOKEN is not set");
}
