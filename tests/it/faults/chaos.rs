//! Links that break: a proxy between a real master and real workers that delays, stalls, throttles,
//! cuts and corrupts what passes on `/ws` and `/db`, by a seed. Every dispatch has one outcome,
//! nothing acknowledged is lost, and calm heals it all.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::process::ChildStdin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use serde_json::Value;

use super::scene::LATE;
use crate::support::binary::{Master, Running, TEMPLATES, mesophyll, write};
use crate::support::chaos::{BREAKING, Chaos, Fault, Storm};
use crate::support::process::eventually;
use crate::support::{DEADLINE, Random, TempDir};

/// Of each dispatch in a storm.
const PATIENCE: Duration = Duration::from_secs(3);

/// Two workers behind a proxy. One that ends is started again, as its own supervisor would.
struct Workers {
    chaos: Chaos,
    running: Vec<Mutex<(Running, ChildStdin)>>,
    tokens: [String; 2],
}

impl Workers {
    fn start_worker(chaos: &Chaos, id: usize, token: &str) -> (Running, ChildStdin) {
        let (id, master) = (id.to_string(), chaos.address().to_string());
        let mut command = mesophyll(&[
            "worker",
            "--id",
            &id,
            "--workers",
            "2",
            "--master",
            &master,
            "--lifeline",
            "stdin",
            "--templates",
            TEMPLATES,
            "--default-events",
            "*",
        ]);
        command.env("MESOPHYLL_CLIENT_TOKEN", token);
        Running::start_open(command)
    }

    fn keep_up(&self) {
        for (id, worker) in self.running.iter().enumerate() {
            let mut worker = worker.lock().expect("no panic under this lock");
            if worker.0.has_ended() {
                *worker = Self::start_worker(&self.chaos, id, &self.tokens[id]);
            }
        }
    }
}

/// A master behind a proxy, and its two workers.
fn master_behind_a_proxy(seed: u64) -> (Master, Workers) {
    let folder = TempDir::new();
    let tokens = ["a".repeat(64), "b".repeat(64)];
    let file = write(
        folder.path(),
        "tokens.json",
        format!(r#"{{"0": "{}", "1": "{}"}}"#, tokens[0], tokens[1]),
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let file = file.display().to_string();
    let args = [
        "--external-workers",
        "--worker-tokens",
        &file,
        "--workers",
        "2",
        "--heartbeat-interval",
        "1s",
    ];
    let master = Master::start_in(folder, &args);
    let chaos = Chaos::start(master.listen(), seed);
    let running =
        (0..2).map(|id| Mutex::new(Workers::start_worker(&chaos, id, &tokens[id]))).collect();
    let workers = Workers { chaos, running, tokens };
    master.wait_ready();
    (master, workers)
}

/// What callers got, by kind.
#[derive(Debug, Default)]
struct Tally {
    kinds: BTreeMap<String, u64>,
    /// By tenant: the counts that came back, and how many dispatches may have counted unseen.
    counts: BTreeMap<String, (BTreeSet<u64>, u64)>,
    wrong: Vec<String>,
    worst: Duration,
}

/// Dispatches until told to stop, and checks each answer.
fn call(master: &Master, mut random: Random, done: &AtomicBool, tally: &Mutex<Tally>) {
    while !done.load(Ordering::SeqCst) {
        let tenant = format!("guild/{}", (1 + random.below(8)) << 22);
        let (name, data) = match random.below(3) {
            0 => ("COUNT", "null".to_owned()),
            1 => ("ECHO", format!("\"{}\"", "x".repeat(random.below(50_000) as usize))),
            _ => ("ECHO", random.next().to_string()),
        };
        let begun = Instant::now();
        let query = format!("?deadline_ms={}", PATIENCE.as_millis());
        let (status, body) = master.dispatch_with(&tenant, name, &data, &query);
        let took = begun.elapsed();
        let mut tally = tally.lock().expect("no panic under this lock");
        tally.worst = tally.worst.max(took);
        let kind = if status == 200 { "ok" } else { body["code"].as_str().unwrap_or("none") };
        *tally.kinds.entry(kind.to_owned()).or_default() += 1;
        let (acked, unknown) = tally.counts.entry(tenant.clone()).or_default();
        match (name, status) {
            ("COUNT", 200) => {
                let count = body.as_u64().unwrap_or(0);
                if !acked.insert(count) {
                    tally.wrong.push(format!("{tenant}: {count} was acknowledged twice"));
                }
            }
            // What was not sent did not count; anything else may have.
            ("COUNT", _) => *unknown += u64::from(body["sent"] != false),
            ("ECHO", 200) if serde_json::from_str::<Value>(&data).ok() != Some(body) => {
                tally.wrong.push(format!("{tenant}: not its data"))
            }
            _ => {}
        }
    }
}

/// Runs eight callers while the weather changes, four times at least and until `is_enough` has
/// happened, however few bytes pass on a busy machine; then waits until all is well again.
fn storm(
    faults: &'static [Fault],
    seed: u64,
    is_enough: impl Fn(&BTreeMap<Fault, u64>, &Tally) -> bool,
) -> (Master, Workers, Tally) {
    let (master, workers) = master_behind_a_proxy(seed);
    let (done, tally) = (AtomicBool::new(false), Mutex::default());
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (master, done, tally) = (&master, &done, &tally);
            scope.spawn(move || call(master, Random::new(seed + 100 + caller), done, tally));
        }
        let (begun, mut rounds) = (Instant::now(), 0);
        let had_enough = || {
            is_enough(&workers.chaos.happened(), &tally.lock().expect("no panic under this lock"))
        };
        while rounds < 4 || !had_enough() && begun.elapsed() < 2 * DEADLINE {
            rounds += 1;
            workers.chaos.storm(Storm { faults, every_bytes: 60_000, most: u64::MAX });
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until {
                workers.keep_up();
                let _ = never::<()>().recv_timeout(Duration::from_millis(100));
            }
            workers.chaos.calm();
            let _ = never::<()>().recv_timeout(Duration::from_millis(300));
        }
        done.store(true, Ordering::SeqCst);
    });
    for tenant in 1..=8u64 {
        let tenant = format!("guild/{}", tenant << 22);
        eventually("calm heals it", || {
            workers.keep_up();
            (master.dispatch_with(&tenant, "ECHO", "1", "?deadline_ms=5000").0 == 200).then_some(())
        });
    }
    let tally = tally.into_inner().expect("no panic under this lock");
    assert!(tally.worst < PATIENCE + LATE, "seed {seed}: {:?}", tally.worst);
    let log = master.running.stderr_so_far();
    assert!(!log.contains("panic"), "seed {seed}: {log}");
    (master, workers, tally)
}

#[test]
fn broken_links_lose_no_acknowledged_event() {
    let seed = 5;
    let felt = |tally: &Tally| {
        tally.kinds.contains_key("ok") && tally.kinds.contains_key("OutcomeUnknown")
    };
    let is_enough = |happened: &BTreeMap<Fault, u64>, tally: &Tally| {
        happened.len() == BREAKING.len() && felt(tally)
    };
    let (master, workers, tally) = storm(BREAKING, seed, is_enough);
    let happened = workers.chaos.happened();
    assert!(BREAKING.iter().all(|fault| happened.contains_key(fault)), "{happened:?}");
    assert_eq!(tally.wrong, Vec::<String>::new(), "seed {seed}");
    let known = ["ok", "OutcomeUnknown", "NoWorker", "Deadline", "ScriptError", "Busy"];
    assert!(tally.kinds.keys().all(|kind| known.contains(&kind.as_str())), "{:?}", tally.kinds);
    assert!(felt(&tally), "no fault was felt: {:?}", tally.kinds);
    for (tenant, (acked, unknown)) in &tally.counts {
        let (status, now) = master.dispatch(tenant, "COUNT", "null");
        let count = now.as_u64().unwrap_or_else(|| panic!("{status}: {now}")) - 1;
        let last = acked.last().copied().unwrap_or(0);
        let sum = acked.len() as u64;
        assert!(
            last <= count && sum <= count && count <= sum + unknown,
            "{tenant}: {count}, {sum} + {unknown}, {last}"
        );
    }
}

#[test]
fn changed_bytes_leave_no_dispatch_without_an_outcome() {
    let felt = |tally: &Tally| tally.kinds.contains_key("ok") && tally.kinds.len() > 1;
    let often = |happened: &BTreeMap<Fault, u64>| {
        happened.get(&Fault::Corrupt).is_some_and(|times| *times > 10)
    };
    let (_master, workers, tally) =
        storm(&[Fault::Corrupt], 7, |happened, tally| often(happened) && felt(tally));
    let happened = workers.chaos.happened();
    assert!(often(&happened), "{happened:?}");
    assert!(felt(&tally), "no fault was felt: {:?}", tally.kinds);
}
