//! `mesophyll worker-host`: workers of a master that is not their parent, kept running.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Master, Running, TEMPLATES, get_with, mesophyll, run, token};
use crate::support::process::{eventually, is_gone, signal, workers_of};

/// A file that only its owner reads, as each that holds tokens.
fn private(path: &Path, content: &str) -> String {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    path.display().to_string()
}

/// A master of three workers, none of which is its own, and the folder of its tokens.
struct Far {
    master: Master,
    tokens: PathBuf,
    _folder: TempDir,
}

impl Far {
    fn start(options: &[&str]) -> Self {
        let folder = TempDir::new();
        let tokens = folder.path().join("tokens.json");
        let file = tokens.display().to_string();
        let args = ["--external-workers", "--workers", "3", "--worker-tokens", &file];
        let master = Master::start(&[&args[..], options].concat());
        Self { master, tokens, _folder: folder }
    }

    /// The file of the tokens of these workers only.
    fn tokens_of(&self, ids: &[usize]) -> String {
        let all: Value = serde_json::from_str(&fs::read_to_string(&self.tokens).expect("written"))
            .expect("JSON");
        let some: Value = ids
            .iter()
            .map(|id| (id.to_string(), all[id.to_string()].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let name: Vec<String> = ids.iter().map(usize::to_string).collect();
        private(&self.tokens.with_file_name(name.join("-")), &some.to_string())
    }

    fn host(&self, ids: &[usize], options: &[&str]) -> Running {
        let (tokens, master) = (self.tokens_of(ids), self.master.listen().to_string());
        let named: Vec<String> = ids.iter().map(usize::to_string).collect();
        let named = named.join(",");
        let args = ["worker-host", "--master", &master, "--ids", &named, "--workers", "3"];
        let more = ["--worker-tokens", &tokens, "--templates", TEMPLATES, "--default-events", "*"];
        let host = Running::start(mesophyll(&[&args[..], &more, options].concat()));
        let ready: Value = serde_json::from_str(&host.next_line()).expect("a ready line");
        assert_eq!((&ready["ready"], &ready["ids"]), (&json!(true), &json!(ids)));
        host
    }

    fn workers(&self) -> Vec<Value> {
        let (status, body) = get_with(self.master.api(), "/i/workers", &token(7));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

/// A guild of this worker of three.
fn guild_on(worker: u64) -> String {
    format!("guild/{}", (3 + worker) << 22)
}

#[test]
fn a_host_runs_its_workers_and_starts_those_that_die_again() {
    let far = Far::start(&["--heartbeat-interval", "500ms"]);
    let (first, second) = (far.host(&[0, 2], &[]), far.host(&[1], &[]));
    far.master.wait_ready();
    for worker in far.workers() {
        assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"));
        assert!(worker["host"].is_string(), "{worker}");
    }
    let shown = far.master.command(&["workers"]);
    assert!(shown.stdout[0].contains("HOST"), "{shown:?}");
    for worker in 0..3 {
        assert_eq!(far.master.dispatch(&guild_on(worker), "ECHO", "1"), (200, json!(1)));
    }
    let before = workers_of(first.pid());
    assert_eq!(before.keys().copied().collect::<Vec<_>>(), [0, 2]);
    signal(before[&2], Signal::KILL);
    // What reaches the dead link before its end is seen has an unknown outcome.
    eventually("its successor answers", || {
        (far.master.dispatch(&guild_on(2), "ECHO", "2") == (200, json!(2))).then_some(())
    });
    assert_ne!(workers_of(first.pid())[&2], before[&2]);
    assert_eq!(workers_of(first.pid())[&0], before[&0]);
    // All of them go with their host, however it goes.
    let left = workers_of(first.pid());
    first.signal(Signal::KILL);
    first.wait();
    eventually("they are gone", || left.values().all(|pid| is_gone(*pid)).then_some(()));
    second.signal(Signal::TERM);
    second.wait().expect(0, "");
    assert_eq!(far.master.stop().0.code(), 0);
}

#[test]
fn a_stopped_process_is_killed_by_its_host() {
    let far = Far::start(&["--heartbeat-interval", "500ms"]);
    let host = far.host(&[0, 1, 2], &[]);
    far.master.wait_ready();
    let before = workers_of(host.pid());
    signal(before[&1], Signal::STOP);
    host.wait_stderr("worker 1 gives no signs of life");
    assert_eq!(far.master.dispatch(&guild_on(1), "ECHO", "1"), (200, json!(1)), "its successor");
    assert!(is_gone(before[&1]));
    host.signal(Signal::TERM);
    host.wait().expect(0, "");
    assert_eq!(far.master.stop().0.code(), 0);
}

#[test]
fn a_rolling_restart_goes_through_the_workers_of_hosts() {
    let far = Far::start(&[]);
    let host = far.host(&[0, 1, 2], &[]);
    far.master.wait_ready();
    let before = workers_of(host.pid());
    let rolled = far.master.command(&["restart", "--all"]);
    rolled.expect(0, "");
    assert_eq!(rolled.stdout.len(), 3, "{rolled:?}");
    let after = workers_of(host.pid());
    assert!(before.iter().all(|(id, pid)| after[id] != *pid && is_gone(*pid)));
    let restarts: Vec<Value> =
        far.workers().iter().map(|worker| worker["restarts"].clone()).collect();
    assert_eq!(restarts, [json!(1), json!(1), json!(1)]);
    far.master.command(&["restart", "1"]).expect(0, "");
    // The host does it too, one by one.
    let before = workers_of(host.pid());
    host.signal(Signal::HUP);
    host.wait_stderr("the rolling restart is done");
    let after = workers_of(host.pid());
    assert!(before.iter().all(|(id, pid)| after[id] != *pid && is_gone(*pid)));
    // It is named which one cannot be told to end.
    host.signal(Signal::TERM);
    let ended = host.wait();
    ended.expect(0, "");
    assert!(!ended.stderr.contains("killed by"), "{ended:?}");
    let _rest = far.host(&[0, 2], &[]);
    eventually("the rest is ready", || {
        far.workers().iter().filter(|worker| worker["state"] == "ready").nth(1).map(drop)
    });
    far.master.command(&["restart", "--all"]).expect(1, "or are away: 1");
    assert_eq!(far.master.stop().0.code(), 0);
}

#[test]
fn a_host_drains_what_its_workers_have_before_it_ends() {
    let far = Far::start(&["--log", "info"]);
    let host = far.host(&[0, 1, 2], &[]);
    far.master.wait_ready();
    let tenant = guild_on(1);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| far.master.dispatch(&tenant, "HOLD", r#"{"mark":"long"}"#));
        host.wait_stderr("waiting long");
        host.signal(Signal::TERM);
        host.wait_stderr("stopping the workers");
        let body = eventually("nothing more is taken", || {
            let (status, body) = far.master.dispatch(&tenant, "ECHO", "1");
            (status == 503).then_some(body)
        });
        assert_eq!((&body["code"], &body["sent"]), (&json!("Busy"), &json!(false)), "{body}");
        far.master.release(&tenant);
        assert_eq!(held.join().expect("an answer"), (200, json!("waited long")));
    });
    host.wait().expect(0, "");
    assert_eq!(far.master.stop().0.code(), 0);
}

#[test]
fn a_token_file_of_other_workers_is_refused() {
    let folder = TempDir::new();
    let token = "a1".repeat(32);
    let of = |ids: &[u32]| {
        let tokens = ids.iter().map(|id| (id.to_string(), json!(token)));
        Value::Object(tokens.collect()).to_string()
    };
    let check = |file: &str| {
        let args = ["worker-host", "--master", "127.0.0.1:1", "--ids", "0-1", "--workers", "4"];
        run(&[&args[..], &["--worker-tokens", file, "--check-config", "--sandbox", "off"]].concat())
    };
    let at = |name: &str| folder.path().join(name);
    check(&private(&at("good"), &of(&[0, 1]))).expect(0, "");
    for (name, ids, says) in [
        ("less", &[0][..], "no token of worker 1"),
        ("more", &[0, 1, 2], "a token of worker 2"),
        ("other", &[2, 3], "no token of worker 0"),
    ] {
        let refused = check(&private(&at(name), &of(ids)));
        refused.expect(3, says);
        assert!(refused.stderr.contains(name) && !refused.stderr.contains("a1a1"), "{refused:?}");
    }
    let open = private(&at("open"), &of(&[0, 1]));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).expect("its mode");
    check(&open).expect(3, "others can read it");
    check(&at("none").display().to_string()).expect(3, "there is no such file");
    assert!(!at("none").exists());
    run(&["worker-host", "--workers", "2"]).expect(2, "--ids is missing");
}
