//! Backing up a running master's store: consistent while others write, in nobody's way, and whole
//! or not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use mesophyll::store::{KvSet, Quota, Store, StoreUrl};
use mesophyll::wire;
use mesophyll::wire::data::{KhronosValue, Scopes, TenantId, Timestamp};
use rustix::process::Signal;
use serde_json::json;

use crate::support::binary::{Finished, Master, Running, mesophyll, post, run, token};
use crate::support::process::{eventually, is_gone};
use crate::support::{DEADLINE, TempDir};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// How many records `k0`, `k1`, … a tenant has, each of which must be there if a later one is.
fn prefix(store: &dyn Store, tenant: TenantId) -> u64 {
    let usage = store.kv_usage(tenant).expect("counted");
    for number in 0..usage.records {
        let record =
            store.kv_get(tenant, &format!("k{number}"), &Scopes::new(["s"])).expect("read");
        let record =
            record.unwrap_or_else(|| panic!("{} records, but no k{number}", usage.records));
        assert_eq!(
            wire::pack::value::decode(&record.value),
            Ok(KhronosValue::Integer(number.cast_signed()))
        );
    }
    usage.records
}

#[test]
fn a_backup_under_load_is_a_state_that_the_store_had() {
    const WRITERS: u64 = 4;
    let master = Master::start_in(TempDir::new(), &["--workers", "1"]);
    master.wait_ready();
    master.command(&["tenant", "subscribe", "guild:9", "ECHO"]).expect(0, "");
    master.command(&["tenant", "ban", "user:9"]).expect(0, "");
    let (stop, acknowledged) =
        (AtomicBool::new(false), [const { AtomicU64::new(0) }; WRITERS as usize]);
    let backup = master.folder.path().join("backup.redb");
    let (before, after) = std::thread::scope(|scope| {
        for (writer, count) in acknowledged.iter().enumerate() {
            let (stop, api) = (&stop, master.api());
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let number = count.load(Ordering::SeqCst);
                    let set = json!({"op": "set", "key": format!("k{number}"), "scopes": ["s"], "value": number});
                    let (status, body) = post(api, &format!("/i/kv/guild/{writer}"), &token(7), &set.to_string());
                    assert_eq!(status, 204, "{body}");
                    count.store(number + 1, Ordering::SeqCst);
                }
            });
        }
        let counts = || acknowledged.each_ref().map(|count| count.load(Ordering::SeqCst));
        eventually("every writer has written", || {
            counts().iter().all(|count| *count >= 20).then_some(())
        });
        let before = counts();
        let finished = master.command(&["store", "backup", text(&backup)]);
        let after = counts();
        eventually("the writers go on", || {
            counts().iter().zip(after).all(|(now, then)| *now > then).then_some(())
        });
        stop.store(true, Ordering::SeqCst);
        finished.expect(0, "");
        assert!(finished.stdout[0].contains("2 tenant states, "), "{finished:?}");
        (before, after)
    });
    let url = format!("redb:{}", text(&backup));
    let checked = run(&["store", "check", "--store", &url]);
    assert_eq!((checked.code(), checked.stdout), (0, vec!["nothing found".to_owned()]));
    let store = mesophyll::store::open(&StoreUrl::Redb(backup.clone())).expect("a store");
    for writer in 0..WRITERS {
        let held = prefix(store.as_ref(), TenantId::Guild(writer));
        let at = usize::try_from(writer).expect("small");
        // One may have been under way when the counts were taken.
        assert!((before[at]..=after[at] + 1).contains(&held), "{before:?} {held} {after:?}");
    }
    store.close();
    drop(store);
    // A new master takes it as its own.
    let (stopped, _folder) = master.stop();
    stopped.expect(0, "");
    let restored = Master::start_in(TempDir::new(), &["--workers", "1", "--store", &url]);
    restored.wait_ready();
    let shown = restored.command(&["tenant", "show", "guild:9"]);
    assert!(
        shown.stdout.iter().any(|line| line.starts_with("events") && line.ends_with("ECHO")),
        "{shown:?}"
    );
    assert_eq!(restored.dispatch("user/9", "ECHO", "1").0, 403);
    assert_eq!(restored.command(&["kv", "get", "guild:0", "k5", "--scope", "s"]).stdout, ["5"]);
}

/// Passes on what is asked, and of the answer only so many bytes; then waits for the test, and
/// closes.
fn stalling_proxy(to: SocketAddr, bytes: usize) -> (SocketAddr, Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stalled_tx, stalled_rx) = bounded(1);
    let (go_tx, go_rx) = bounded::<()>(1);
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut server = TcpStream::connect(to).expect("the master");
        let mut request = [0; 4096];
        let length = client.read(&mut request).expect("a request");
        server.write_all(&request[..length]).expect("passed on");
        let mut answer = vec![0; bytes];
        server.read_exact(&mut answer).expect("so much of the answer");
        client.write_all(&answer).expect("passed on");
        stalled_tx.send(()).expect("the test waits");
        let _ = go_rx.recv_timeout(DEADLINE);
    });
    (address, stalled_rx, go_tx)
}

/// A store with more in it than sockets hold on the way.
fn large_store(path: &Path) {
    const BYTES: usize = 200_000;
    let store = mesophyll::store::open(&StoreUrl::Redb(path.to_owned())).expect("a store");
    std::thread::scope(|scope| {
        for tenant in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..80 {
                    let set = KvSet {
                        key: format!("k{number}"),
                        scopes: Scopes::new(["s"]),
                        value: wire::pack::value::encode(&KhronosValue::Text("x".repeat(BYTES))),
                        fresh_id: format!("{tenant} {number}"),
                        now: Timestamp::now(),
                        quota: Quota::UNLIMITED,
                    };
                    store.kv_set(TenantId::Guild(tenant), set).expect("set");
                }
            });
        }
    });
    store.close();
    wait_until_free(path);
}

/// Waits until no process has a store's file locked: one that another test has forked meanwhile
/// does until it executes its program, and one that was killed does until the last of its threads
/// has gone, which may be after its first.
fn wait_until_free(path: &Path) {
    let file = std::fs::File::open(path).expect("a file");
    eventually("nothing holds the store", || file.try_lock().ok());
    // In so many words, as a process that is forked now would hold this lock too.
    file.unlock().expect("unlocked");
}

#[test]
fn a_backup_cut_short_leaves_nothing_and_holds_up_none() {
    let folder = TempDir::new();
    let file = folder.path().join("store.redb");
    large_store(&file);
    let master =
        Master::start_in(folder, &["--workers", "1", "--store", &format!("redb:{}", text(&file))]);
    let folder = master.folder.path().to_owned();
    let (proxy, stalled_rx, go_tx) = stalling_proxy(master.api(), 8 << 20);
    let backup = folder.join("backup.redb");
    let mut command = mesophyll(&["store", "backup", text(&backup), "--api", &proxy.to_string()]);
    command.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    let running = Running::start(command);
    stalled_rx.recv_timeout(DEADLINE).expect("it is in the middle");
    // Its reader stalls; nobody else does.
    master.command(&["kv", "set", "guild:1", "meanwhile", "1", "--scope", "s"]).expect(0, "");
    assert_eq!(
        master.command(&["kv", "get", "guild:1", "meanwhile", "--scope", "s"]).stdout,
        ["1"]
    );
    let second = folder.join("second.redb");
    master
        .command(&["store", "backup", text(&second)])
        .expect(1, "Busy (503): a backup is under way already");
    let pid = master.pid();
    master.running.signal(Signal::KILL);
    eventually("the master is gone", || is_gone(pid).then_some(()));
    drop(go_tx);
    let finished = running.wait();
    finished.expect(1, "the backup was cut short");
    finished.expect(1, "backup.redb was not written");
    let names: Vec<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        !names.iter().any(|name| name.starts_with("backup") || name.starts_with("second")),
        "{names:?}"
    );
    // What was acknowledged meanwhile is there, and another backup is whole.
    let Master { folder, .. } = master;
    wait_until_free(&file);
    let again =
        Master::start_in(folder, &["--workers", "1", "--store", &format!("redb:{}", text(&file))]);
    assert_eq!(again.command(&["kv", "get", "guild:1", "meanwhile", "--scope", "s"]).stdout, ["1"]);
    let finished = again.command(&["store", "backup", text(&backup)]);
    finished.expect(0, "");
    assert!(
        finished.stdout[0]
            .ends_with("0 tenant states, 321 records, 0 shop entries, 0 purchases, 0 timers"),
        "{finished:?}"
    );
    let check = run(&["store", "check", "--store", &format!("redb:{}", text(&backup))]);
    assert_eq!(check.stdout, ["nothing found"]);
}

#[test]
fn a_client_that_dies_costs_the_next_backup_nothing() {
    let folder = TempDir::new();
    let file = folder.path().join("store.redb");
    large_store(&file);
    let master =
        Master::start_in(folder, &["--workers", "1", "--store", &format!("redb:{}", text(&file))]);
    let at = |name: &str| master.folder.path().join(name);
    // Half way at most, whether the shell counts in 512 or in 1,024 bytes; the signal (SIGXFSZ) is
    // no end.
    let backup =
        mesophyll(&["store", "backup", text(&at("full.redb")), "--api", &master.api().to_string()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -f 32768; exec "$0" "$@""#]).arg(backup.get_program());
    limited.args(backup.get_args()).env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    Running::start(limited).wait().expect(3, "full.redb: ");
    let names = std::fs::read_dir(master.folder.path()).expect("a folder");
    let left = names.filter(|entry| {
        entry.as_ref().is_ok_and(|it| it.file_name().to_string_lossy().starts_with("full"))
    });
    assert_eq!(left.count(), 0, "nothing is left of it");
    let (proxy, stalled_rx, go_tx) = stalling_proxy(master.api(), 8 << 20);
    let mut killed =
        mesophyll(&["store", "backup", text(&at("killed.redb")), "--api", &proxy.to_string()]);
    killed.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    let running = Running::start(killed);
    stalled_rx.recv_timeout(DEADLINE).expect("it is in the middle");
    running.signal(Signal::KILL);
    drop(running);
    assert!(!at("killed.redb").exists());
    drop(go_tx);
    let finished = eventually("the master has noticed", || {
        let finished = master.command(&["store", "backup", text(&at("killed.redb"))]);
        (finished.code() == 0).then_some(finished)
    });
    assert!(
        finished.stdout[0]
            .ends_with("0 tenant states, 320 records, 0 shop entries, 0 purchases, 0 timers"),
        "{finished:?}"
    );
}

#[test]
fn an_impossible_backup_is_told_before_any_request() {
    let folder = TempDir::new();
    let nobody = |args: &[&str]| -> Finished {
        let mut command = mesophyll(&[args, &["--api", "127.0.0.1:1"]].concat());
        command
            .env("MESOPHYLL_INTERNAL_TOKEN", "1.2.3")
            .env("MESOPHYLL_STORE", "redb:nowhere.redb");
        Running::start(command).wait()
    };
    let file = folder.path().join("taken.redb");
    std::fs::write(&file, "a diary").expect("written");
    nobody(&["store", "backup", text(&file)]).expect(3, "exists");
    assert_eq!(std::fs::read(&file).expect("read"), b"a diary");
    nobody(&["store", "backup", text(&folder.path().join("no/such/folder.redb"))])
        .expect(3, "folder.redb: ");
    let free = folder.path().join("free.redb");
    nobody(&["store", "backup", text(&free)]).expect(1, "no answer from http://127.0.0.1:1");
    run(&["store", "backup", text(&free)]).expect(3, "no token");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1,
        "nothing is left of any of it"
    );
}

#[test]
fn a_master_without_a_file_is_backed_up_into_one() {
    let master = Master::start(&["--mode", "thread-pool"]);
    master.command(&["kv", "set", "user:5", "k", "[1]", "--scope", "s"]).expect(0, "");
    let backup = master.folder.path().join("backup.redb");
    master.command(&["store", "backup", text(&backup)]).expect(0, "");
    let url = format!("redb:{}", text(&backup));
    let (_, _folder) = master.stop();
    let restored = Master::start_in(TempDir::new(), &["--store", &url, "--workers", "1"]);
    assert_eq!(restored.command(&["kv", "get", "user:5", "k", "--scope", "s"]).stdout, ["[1]"]);
}
