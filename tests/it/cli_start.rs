//! A start that cannot go on: a store that says nothing, a file that is none. It ends by itself,
//! naming what it waited for, and by the first signal before that.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::support::binary::{Running, mesophyll, run};
use crate::support::{DEADLINE, TempDir};

/// A server that accepts and says nothing; sends a message for each connection that has sent
/// something.
fn silent_server() -> (SocketAddr, crossbeam_channel::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (asked_tx, asked_rx) = crossbeam_channel::unbounded();
    // Ends with the test's process.
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut client in listener.incoming().flatten() {
            client.read_exact(&mut [0]).expect("it begins");
            kept.push(client);
            let _ = asked_tx.send(());
        }
    });
    (address, asked_rx)
}

/// The commands that open a store at its URL.
fn commands(store: &str) -> [Vec<&str>; 3] {
    [
        vec!["master", "--api", "off", "--listen", "127.0.0.1:0", "--store", store],
        vec!["replay", "/dev/null", "--store", store],
        vec!["migrate", "--store", store],
    ]
}

#[cfg(feature = "postgres")]
#[test]
fn a_database_that_says_nothing_ends_a_start_with_its_address() {
    let (address, _asked_rx) = silent_server();
    let store = format!("postgres://me:secret@{address}/tenants?connect_timeout=1");
    let started = Instant::now();
    // All at once: each waits out its time.
    let running = commands(&store).map(|args| Running::start(mesophyll(&args)));
    for running in running {
        let ended = running.wait();
        ended.expect(4, &format!("store: postgres://me:***@{address}/tenants?connect_timeout=1: "));
        ended.expect(4, "no answer came within 6 s");
        assert!(!ended.stderr.contains("secret"), "{ended:?}");
    }
    assert!(started.elapsed() < DEADLINE);
}

#[cfg(feature = "postgres")]
#[test]
fn the_first_signal_ends_a_start_that_waits() {
    let (address, asked_rx) = silent_server();
    let store = format!("postgres://{address}/tenants?connect_timeout=600");
    for args in commands(&store) {
        for which in [Signal::TERM, Signal::INT] {
            let running = Running::start(mesophyll(&args));
            asked_rx.recv_timeout(DEADLINE).expect("it waits for the server");
            running.signal(which);
            let ended = running.wait();
            assert_eq!(ended.status.signal(), Some(which.as_raw()), "{args:?}: {ended:?}");
        }
    }
}

#[test]
fn a_fifo_is_no_store_and_is_not_waited_for() {
    let folder = TempDir::new();
    let path = folder.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    let store = format!("redb:{}", path.display());
    let [master, replay, _] = commands(&store);
    let backup = folder.path().join("copy").display().to_string();
    let check = vec!["store", "check", "--store", &store];
    for args in [master, replay, check, vec!["store", "backup", &backup, "--store", &store]] {
        run(&args).expect(4, &format!("store: {store}: this is not a store of ours"));
    }
}
