//! A real master with a good worker and a faulty one, and what is asked of both meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesophyll::wire::data::TenantId;
use mesophyll::wire::data::sharding::worker_for;
use serde_json::Value;

use crate::support::TempDir;
use crate::support::binary::{Master, Running, TEMPLATES, example, mesophyll, write};
use crate::support::process::{eventually, memory_peak};

/// How late an answer may come on a machine that has other things to do, too.
pub(super) const LATE: Duration = Duration::from_secs(15);

const KIB: u64 = 1024;

/// A guild that lives on this worker of two.
pub(super) fn guild_on(worker: usize) -> String {
    let id = (1u64..).map(|n| n << 22).find(|id| worker_for(TenantId::Guild(*id), 2) == worker);
    format!("guild/{}", id.expect("some tenant lives there"))
}

/// What became of a dispatch: `ok` and the value, or the error's code and its text.
pub(super) type Outcome = (String, Value);

/// A master whose worker 0 is as it should be, and whose worker 1 is not.
pub(super) struct Scene {
    pub(super) master: Master,
    pub(super) faulty: Running,
    // Held open: with it, the workers go.
    _lifelines: Vec<std::process::ChildStdin>,
    _good: Running,
    memory_before: u64,
    lines_before: usize,
}

impl Scene {
    /// Starts all three; returns when the good worker answers. Whoever is silent for long is cut
    /// off, but not the worker that a busy machine holds up.
    pub(super) fn start(fault: &str) -> Self {
        Self::with_heartbeats(fault, "5s")
    }

    /// As [`Scene::start`], with heartbeats so often; three that are missed cut a worker off.
    pub(super) fn with_heartbeats(fault: &str, interval: &str) -> Self {
        let folder = TempDir::new();
        let tokens = ["a".repeat(64), "b".repeat(64)];
        let text = format!(r#"{{"0": "{}", "1": "{}"}}"#, tokens[0], tokens[1]);
        let file = write(folder.path(), "tokens.json", text);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let file = file.display().to_string();
        let args = [
            "--external-workers",
            "--worker-tokens",
            &file,
            "--workers",
            "2",
            "--heartbeat-interval",
            interval,
        ];
        let master = Master::start_in(folder, &[&args[..], &["--store", "memory:"]].concat());
        let address = master.listen().to_string();
        let options =
            |id| ["--id", id, "--workers", "2", "--master", &address, "--lifeline", "stdin"];
        let mut good = mesophyll(
            &[&["worker"], &options("0")[..], &["--templates", TEMPLATES, "--default-events", "*"]]
                .concat(),
        );
        good.env("MESOPHYLL_CLIENT_TOKEN", &tokens[0]);
        let (good, good_stdin) = Running::start_open(good);
        eventually("the good worker answers", || {
            (master.dispatch(&guild_on(0), "ECHO", "0").0 == 200).then_some(())
        });
        let (memory_before, lines_before) = (memory_peak(master.pid()), log_lines(&master));
        let mut faulty = std::process::Command::new(example("faulty_worker"));
        faulty.arg(fault).args(options("1")).env("MESOPHYLL_CLIENT_TOKEN", &tokens[1]);
        let (faulty, faulty_stdin) = Running::start_open(faulty);
        let lifelines = vec![good_stdin, faulty_stdin];
        Self { master, faulty, _lifelines: lifelines, _good: good, memory_before, lines_before }
    }

    /// Waits until the faulty worker has said this.
    pub(super) fn wait_fault(&self, text: &str) -> String {
        self.faulty.wait_stdout(text)
    }

    /// Dispatches to the faulty worker; the answer must come soon after the deadline at the latest.
    pub(super) fn dispatch(&self, name: &str, data: &str, deadline: Duration) -> Outcome {
        let begun = Instant::now();
        let query = format!("?deadline_ms={}", deadline.as_millis());
        let (status, body) = self.master.dispatch_with(&guild_on(1), name, data, &query);
        assert!(begun.elapsed() < deadline + LATE, "{name}: {:?}", begun.elapsed());
        match status {
            200 => ("ok".to_owned(), body),
            _ => (
                body["code"].as_str().unwrap_or_else(|| panic!("{status}: {body}")).to_owned(),
                body["message"].clone(),
            ),
        }
    }

    /// Dispatches many events at once to the faulty worker; one outcome for each.
    pub(super) fn dispatch_many(
        &self,
        count: usize,
        data: &str,
        deadline: Duration,
    ) -> Vec<Outcome> {
        std::thread::scope(|scope| {
            let waits: Vec<_> = (0..count)
                .map(|at| {
                    scope.spawn(move || self.dispatch(&format!("EVENT_{at}"), data, deadline))
                })
                .collect();
            waits.into_iter().map(|wait| wait.join().expect("an outcome")).collect()
        })
    }

    /// Runs `act` while the good worker is asked again and again, and has to answer each time.
    pub(super) fn meanwhile<T>(&self, act: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0u64;
                // Once more after the end: what it did must not show later either.
                while !done.load(Ordering::SeqCst) || asked < 10 {
                    asked += 1;
                    let answer = self.master.dispatch(&guild_on(0), "ECHO", &asked.to_string());
                    assert_eq!(answer, (200, Value::from(asked)), "the good worker");
                }
            });
            let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            done.store(true, Ordering::SeqCst);
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// How many lines the master has logged since the fault began.
    pub(super) fn logged(&self) -> usize {
        log_lines(&self.master) - self.lines_before
    }

    /// Checks what every fault must leave: a master that is not larger than this by more than
    /// `mib`, and a log that a person can read, with `says` in it once.
    pub(super) fn expect_calm(&self, mib: u64, lines: usize, says: &str) {
        let grown = memory_peak(self.master.pid()).saturating_sub(self.memory_before);
        assert!(grown <= mib * KIB, "the master grew by {grown} KiB");
        // What a worker saw of its end may be known before what the master says about it.
        eventually(says, || self.master.running.stderr_so_far().contains(says).then_some(()));
        let log = self.master.running.stderr_so_far();
        assert!(self.logged() <= lines, "{} lines: {log}", self.logged());
    }
}

fn log_lines(master: &Master) -> usize {
    master.running.stderr_so_far().lines().count()
}
