//! What a service manager hears of the real binary, on a socket as systemd's.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crossbeam_channel::{Receiver, unbounded};
use rustix::process::Signal;

use crate::support::binary::{Master, Running, SECRET, TEMPLATES, get, mesophyll};
use crate::support::process::signal;
use crate::support::{DEADLINE, TempDir};

/// The manager's end of the socket, and a thread that reads all that comes: a socket holds only a
/// few messages, and those that come while it is full are lost.
struct Manager(Receiver<String>);

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        let (messages_tx, messages_rx) = unbounded();
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                if messages_tx
                    .send(String::from_utf8_lossy(&buffer[..length]).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        Self(messages_rx)
    }

    /// The next message with this line in it.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let message = self
                .0
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|error| panic!("no {line:?}: {error}"));
            if message.lines().any(|told| told.starts_with(line)) {
                return message;
            }
        }
    }

    fn start_master(&self, notify_socket: &str, args: &[&str]) -> Master {
        let mut all =
            vec!["master", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--store", "memory:"];
        all.extend(["--workers", "2", "--templates", TEMPLATES]);
        all.extend(args);
        let mut command = mesophyll(&all);
        command
            .env("MESOPHYLL_API_SECRET", SECRET)
            .env("NOTIFY_SOCKET", notify_socket)
            .env("WATCHDOG_USEC", "500000");
        Master::of(Running::start(command))
    }
}

#[test]
fn systemd_hears_of_readiness_reloads_life_and_the_stop() {
    let folder = TempDir::new();
    let path = folder.path().join("notify");
    let manager = Manager::new(UnixDatagram::bind(&path).expect("a socket"));
    let master = manager.start_master(path.to_str().expect("text"), &[]);
    let ready = manager.wait_for("READY=1");
    assert_eq!(get(master.api(), "/readyz").0, 200, "it was not told too early");
    assert!(ready.contains("STATUS=2 of 2 workers ready"), "{ready}");
    manager.wait_for("WATCHDOG=1");
    signal(master.pid(), Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    manager.wait_for("READY=1");
    master.running.wait_stderr("rolling restart");
    let pid = master.pid();
    signal(pid, Signal::TERM);
    manager.wait_for("STOPPING=1");
    master.running.wait().expect(0, "");
}

#[test]
fn a_reload_that_is_refused_does_not_leave_systemd_waiting() {
    // An abstract name, which systemd in containers uses.
    let name = format!("mesophyll-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::new(UnixDatagram::bind_addr(&address).expect("a socket"));
    let master = manager.start_master(&format!("@{name}"), &["--external-workers"]);
    signal(master.pid(), Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    master.stop().0.expect(0, "");
}

#[test]
fn a_master_runs_though_its_service_manager_is_deaf() {
    let manager = Manager::new(UnixDatagram::unbound().expect("a socket"));
    let master = manager.start_master("/nonexistent/notify", &[]);
    master.wait_ready();
    // Nobody was there to take anything, which nothing waited for.
    master.stop().0.expect(0, "");
}
