//! Workers in a network namespace of the test's own, behind a link that loses packets, is slow
//! where the kernel can make it so, and is cut: no event is lost or run twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{BINARY, Master, Running, get_with, post, token};
use crate::support::process::{eventually, workers_of};
use crate::support::skip::skipped;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

const RECORDED: &str = include_str!("../../examples/events.ndjson");

/// The master's end, which its certificate names, and the workers' end.
const MASTER: &str = "10.77.0.1";
const WORKERS: &str = "10.77.0.2";

/// Counts each run; `SLOW` takes its time first.
const TEMPLATE: &str = r#"
return function(ctx)
    local event = ctx:event()
    if event.name == "SLOW" then
        task.wait(event.data)
    end
    return ctx.KV:update("count", { "test" }, function(old, exists)
        return if exists then old + 1 else 1
    end)
end
"#;

/// A namespace with one link to this one; gone when this is dropped.
struct Namespace {
    /// Locked: the addresses are for one run of this test at a time.
    _turn: File,
}

const NAME: &str = "mesophyll-cut";

const DEVICE: &str = "mesophyll-cut";

fn ip(words: &str) -> Result<(), String> {
    run("ip", words)
}

fn run(program: &str, words: &str) -> Result<(), String> {
    let done = Command::new(program).args(words.split(' ')).output();
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(format!("{program} {words}: {said}")) }
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let turn = File::create(std::env::temp_dir().join("mesophyll-cut.lock"));
        let turn = turn.map_err(|error| format!("its lock: {error}"))?;
        turn.lock().map_err(|error| format!("its lock: {error}"))?;
        let this = Self { _turn: turn };
        // What a run that was killed has left.
        this.remove();
        ip(&format!("netns add {NAME}"))?;
        ip(&format!("link add {DEVICE} type veth peer name inside netns {NAME}"))?;
        ip(&format!("addr add {MASTER}/30 dev {DEVICE}"))?;
        ip(&format!("link set {DEVICE} up"))?;
        ip(&format!("-n {NAME} addr add {WORKERS}/30 dev inside"))?;
        ip(&format!("-n {NAME} link set inside up"))?;
        let slow = format!("qdisc add dev {DEVICE} root netem delay 20ms loss 1%");
        // Many kernels have no netem; packets are lost without it, too.
        let _ = run("tc", &slow);
        Ok(this)
    }

    fn remove(&self) {
        let _ = ip(&format!("link del {DEVICE}"));
        let _ = ip(&format!("netns del {NAME}"));
    }

    fn set(&self, state: &str) {
        ip(&format!("link set {DEVICE} {state}")).expect("it is ours");
        let shown = fs::read_to_string(format!("/sys/class/net/{DEVICE}/operstate"));
        assert_eq!(shown.expect("it is there").trim(), state);
    }

    /// All that is under way on the link for so long is lost.
    fn cut(&self, span: Duration) {
        self.set("down");
        pause(span);
        self.set("up");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAME, BINARY]).args(args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MESOPHYLL_") {
                command.env_remove(name);
            }
        }
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

/// How long the network is in a state, which is what the test is about.
fn pause(span: Duration) {
    let _ = never::<()>().recv_timeout(span);
}

fn private(path: &Path, content: &[u8]) -> String {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    path.display().to_string()
}

/// `CERT,KEY` of a certificate of the tests, with a key that only its owner reads.
fn certificate(folder: &Path, name: &str) -> String {
    let key = fs::read(format!("{DATA}/{name}.key")).expect("a key");
    format!("{DATA}/{name}.pem,{}", private(&folder.join(format!("{name}.key")), &key))
}

/// Sends the recorded events, each of which is to run, and counts them.
fn replay(master: &Master, counts: &mut BTreeMap<String, u64>) {
    let mut events: Vec<Value> =
        RECORDED.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for event in &mut events {
        // That of the token.
        event.as_object_mut().expect("an object").remove("author");
    }
    let body: String = events.iter().map(|event| format!("{event}\n")).collect();
    let (status, text) = post(master.api(), "/i/dispatch-events", &token(7), &body);
    assert_eq!(status, 200, "{text}");
    let answers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), events.len());
    for answer in &answers {
        assert!(answer["ok"].is_u64(), "{answer}");
    }
    for event in &events {
        let tenant = event["tenant"].as_str().expect("a tenant").replace(':', "/");
        *counts.entry(tenant).or_default() += 1;
    }
}

/// A master, and both of its workers on the other side of the link.
struct Scene {
    network: Namespace,
    master: Master,
    host: Running,
    /// What each tenant's events came to.
    counts: BTreeMap<String, u64>,
}

impl Scene {
    fn start(network: Namespace) -> Self {
        let folder = TempDir::new();
        let templates = folder.path().join("templates");
        fs::create_dir(&templates).expect("a folder");
        fs::write(templates.join("main.luau"), TEMPLATE).expect("written");
        let templates = templates.display().to_string();
        let of = |id: u32| (id.to_string(), json!(format!("{id}a").repeat(32)));
        let tokens = Value::Object([of(0), of(1)].into_iter().collect());
        let tokens = private(&folder.path().join("tokens"), tokens.to_string().as_bytes());
        let (listen, ca) = (format!("{MASTER}:0"), format!("{DATA}/authority.pem"));
        let own = certificate(folder.path(), "master");
        let worker = certificate(folder.path(), "worker");
        let args = ["--external-workers", "--worker-tokens", &tokens, "--listen", &listen];
        let tls = ["--listen-tls", &own, "--tls-ca", &ca, "--worker-certs", "require"];
        let more = ["--heartbeat-interval", "1s", "--store", "memory:"];
        let master = Master::start_in(folder, &[&args[..], &tls, &more].concat());
        let at = format!("tls:{}", master.listen());
        let args = ["worker-host", "--master", &at, "--ids", "0-1", "--workers", "2"];
        let tls = ["--tls-ca", &ca, "--tls-cert", &worker, "--worker-tokens", &tokens];
        let more = ["--templates", &templates, "--default-events", "*"];
        let host = Running::start(network.command(&[&args[..], &tls, &more].concat()));
        master.wait_ready();
        Self { network, master, host, counts: BTreeMap::new() }
    }

    /// Replays again and again until what happens meanwhile is over.
    fn replay_during(&mut self, happens: impl FnOnce(&Namespace, &Master) + Send) {
        let over = AtomicBool::new(false);
        let Self { network, master, counts, .. } = self;
        let (network, master) = (&*network, &*master);
        std::thread::scope(|scope| {
            let over = &over;
            scope.spawn(move || {
                happens(network, master);
                over.store(true, Ordering::SeqCst);
            });
            while !over.load(Ordering::SeqCst) {
                replay(master, counts);
            }
        });
    }

    /// How often a tenant's events have run.
    fn count(&self, tenant: &str) -> u64 {
        let get = r#"{"op":"get","key":"count","scopes":["test"]}"#;
        let path = format!("/i/kv/{tenant}");
        let (status, body) = post(self.master.api(), &path, &token(7), get);
        assert_eq!(status, 200, "{body}");
        let record: Value = serde_json::from_str(&body).expect("JSON");
        record["value"].as_u64().unwrap_or_default()
    }

    /// Each event has run, and once.
    fn check_counts(&self) {
        for (tenant, expected) in &self.counts {
            assert_eq!(self.count(tenant), *expected, "{tenant}");
        }
    }

    fn states(&self) -> Vec<Value> {
        let (status, body) = get_with(self.master.api(), "/i/workers", &token(7));
        assert_eq!(status, 200, "{body}");
        let workers: Vec<Value> = serde_json::from_str(&body).expect("JSON");
        workers.into_iter().map(|worker| worker["state"].clone()).collect()
    }
}

#[test]
fn no_event_is_lost_or_doubled_by_a_network_that_fails() {
    let network = match Namespace::new() {
        Ok(network) => network,
        Err(why) => {
            let why = format!("it needs root, iproute2 and network namespaces: {why}");
            return skipped("no_event_is_lost_or_doubled_by_a_network_that_fails", &why);
        }
    };
    let mut scene = Scene::start(network);
    scene.replay_during(|network, _| {
        for _ in 0..5 {
            network.cut(Duration::from_millis(250));
            pause(Duration::from_millis(500));
        }
    });
    scene.check_counts();

    let before = workers_of(scene.host.pid());
    scene.replay_during(|_, master| master.command(&["restart", "--all"]).expect(0, ""));
    scene.check_counts();
    let after = workers_of(scene.host.pid());
    assert!(before.iter().all(|(id, pid)| after[id] != *pid), "they were started anew");

    cut_for_long(&mut scene);
    let again = workers_of(scene.host.pid());
    assert_eq!(again, after, "a cut link is no reason to start a worker anew");
    let Scene { master, host, .. } = scene;
    host.signal(Signal::TERM);
    host.wait().expect(0, "");
    assert_eq!(master.stop().0.code(), 0);
}

/// Ten seconds without a network: what is under way has an unknown outcome, and what comes waits.
fn cut_for_long(scene: &mut Scene) {
    let (slow, other) = ("guild/4194304", "guild/8388608");
    let ask = |tenant: &str, name: &str, data: &str, query: &str| {
        scene.master.dispatch_with(tenant, name, data, query)
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| ask(slow, "SLOW", "6", ""));
        eventually("it is under way", || {
            let (_, body) = get_with(scene.master.api(), "/i/workers", &token(7));
            let workers: Vec<Value> = serde_json::from_str(&body).expect("JSON");
            workers.iter().any(|worker| worker["in_flight"] == 1).then_some(())
        });
        scene.network.set("down");
        eventually("the links are given up", || {
            scene.states().iter().all(|state| state == "starting").then_some(())
        });
        let (status, body) = under_way.join().expect("an answer");
        assert_eq!((status, &body["code"]), (502, &json!("OutcomeUnknown")), "{body}");
        let short = ask(other, "COUNT", "1", "?deadline_ms=500");
        assert_eq!((&short.1["code"], &short.1["sent"]), (&json!("NoWorker"), &json!(false)));
        let waits = scope.spawn(|| ask(other, "COUNT", "1", ""));
        pause(Duration::from_secs(10).saturating_sub(begun.elapsed()));
        assert!(!waits.is_finished());
        scene.network.set("up");
        assert_eq!(waits.join().expect("an answer"), (200, json!(1)), "it was the first to run");
    });
    scene.master.wait_ready();
    replay(&scene.master, &mut scene.counts);
    scene.check_counts();
    assert!(scene.count(slow) <= 1, "it may have run, and not twice");
}
