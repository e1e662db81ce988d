//! What `GET /metrics` of a real master shows, against what the test knows to have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::TempDir;
use crate::support::binary::{Master, Running, TEMPLATES, get, mesophyll, post, token};
use crate::support::process::{eventually, signal, workers_of};

/// How the names of families begin that workers tell of themselves.
const TOLD_BY_WORKERS: [&str; 10] = [
    "mesophyll_worker_events_",
    "mesophyll_worker_cpu_",
    "mesophyll_event_",
    "mesophyll_vms_",
    "mesophyll_preemptions_",
    "mesophyll_runtime_",
    "mesophyll_script_",
    "mesophyll_large_",
    "mesophyll_budgets_",
    "mesophyll_template_",
];

/// What one scrape showed: each series, by its name and labels as they are written.
#[derive(Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    pub(crate) fn of(master: &Master) -> Self {
        let (status, text) = get(master.api(), "/metrics");
        assert_eq!(status, 200, "{text}");
        let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self(series.collect())
    }

    /// One series, if it is there.
    pub(crate) fn find(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// One series.
    pub(crate) fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }

    /// The sum of a family's series that have all of these labels.
    pub(crate) fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let is_meant = |series: &str| {
            let (name, of) = series.split_once('{').unwrap_or((series, ""));
            name == family && labels.iter().all(|label| of.contains(label))
        };
        self.0.iter().filter(|(series, _)| is_meant(series)).map(|(_, value)| value).sum()
    }

    /// Checks that nothing that only grows is less than it was; what workers tell begins anew with
    /// their process.
    fn expect_no_less_than(&self, before: &Scrape) {
        let grows = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            let is_told = TOLD_BY_WORKERS.iter().any(|begin| name.starts_with(begin));
            !is_told
                && ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
        };
        for (series, was) in before.0.iter().filter(|(series, _)| grows(series)) {
            assert!(self.get(series) >= *was, "{series} was {was} and is {}", self.get(series));
        }
    }

    fn ended(&self, labels: &[&str]) -> f64 {
        self.sum("mesophyll_dispatches_total", labels)
    }
}

/// Sends one of everything at once, and says how many of which kind and outcome there must be.
fn mixed_load(master: &Master) -> Vec<([&'static str; 2], f64)> {
    let banned = r#"{"banned":true}"#;
    assert_eq!(post(master.api(), "/i/ban/guild/9", &token(7), banned).0, 204);
    std::thread::scope(|scope| {
        for caller in 0..4 {
            scope.spawn(move || {
                let tenant = |number: u64| format!("guild/{}", (number % 2) << 22 | 5);
                for number in 0..25 {
                    let tenant = tenant(number + caller);
                    assert_eq!(master.dispatch(&tenant, "ECHO", "1").0, 200);
                    assert_eq!(master.dispatch(&tenant, "FAIL", "1").0, 422);
                    assert_eq!(master.dispatch_with(&tenant, "ECHO", "1", "?nowait").0, 202);
                    assert_eq!(master.dispatch("guild/9", "ECHO", "1").0, 403);
                }
                let waits = r#"{"mark":"x","seconds":20}"#;
                assert_eq!(
                    master.dispatch_with(&tenant(caller), "WAIT", waits, "?deadline_ms=20").0,
                    504
                );
                let script = r#"{"name":"s","code":"return 1"}"#;
                assert_eq!(
                    post(master.api(), &format!("/i/run-script/user/{caller}"), &token(7), script)
                        .0,
                    200
                );
                assert_eq!(
                    post(master.api(), &format!("/i/drop-tenant/user/{caller}"), &token(7), "").0,
                    204
                );
            });
        }
    });
    assert_eq!(master.dispatch_with("guild/9", "ECHO", "1", "?nowait").0, 403);
    vec![
        (["kind=\"event\"", "outcome=\"ok\""], 100.0),
        (["kind=\"event\"", "outcome=\"script\""], 100.0),
        (["kind=\"event\"", "outcome=\"banned\""], 100.0),
        (["kind=\"event\"", "outcome=\"deadline\""], 4.0),
        (["kind=\"event_nowait\"", "outcome=\"ok\""], 100.0),
        (["kind=\"event_nowait\"", "outcome=\"banned\""], 1.0),
        (["kind=\"script\"", "outcome=\"ok\""], 4.0),
        // The ban, too, drops its tenant's VM.
        (["kind=\"drop\"", "outcome=\"ok\""], 5.0),
    ]
}

fn everything_is_counted_once(args: &[&str]) {
    let master = Master::start(args);
    master.wait_ready();
    let expected = mixed_load(&master);
    let total: f64 = expected.iter().map(|(_, count)| count).sum();
    // Events that nobody waits for (any more) may still run.
    let scrape = eventually("everything has ended", || {
        let scrape = Scrape::of(&master);
        (scrape.ended(&[]) >= total).then_some(scrape)
    });
    for (labels, count) in &expected {
        assert_eq!(scrape.ended(labels), *count, "{labels:?}");
    }
    assert_eq!(scrape.ended(&[]), total, "nothing besides");
    assert_eq!(scrape.sum("mesophyll_dispatch_duration_seconds_count", &[]), total);
    assert_eq!(scrape.sum("mesophyll_dispatches_in_flight", &[]), 0.0);
    let deadlines = scrape
        .sum("mesophyll_dispatch_duration_seconds_bucket", &["kind=\"event\"", "le=\"0.01\""]);
    assert!(deadlines <= 300.0, "what met a deadline of 20 ms took longer than 10 ms");
    assert_eq!(scrape.get("mesophyll_workers{state=\"ready\"}"), 2.0);
    eventually("a worker has told how much memory it has", || {
        let memory =
            Scrape::of(&master).find("mesophyll_worker_resident_memory_bytes{worker=\"1\"}");
        memory.filter(|bytes| *bytes > 1e6)
    });
    master.stop().0.expect(0, "");
}

#[test]
fn every_dispatch_is_counted_once_with_worker_processes() {
    everything_is_counted_once(&["--heartbeat-interval", "1s"]);
}

#[test]
fn every_dispatch_is_counted_once_with_worker_threads() {
    everything_is_counted_once(&["--mode", "thread-pool"]);
}

#[test]
fn a_killed_worker_shows_in_the_figures_with_its_reason() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let worker = workers_of(master.pid())[&0];
    std::thread::scope(|scope| {
        let lost =
            scope.spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"lost","seconds":25}"#).0);
        master.running.wait_stderr("waiting lost");
        assert_eq!(Scrape::of(&master).get("mesophyll_dispatches_in_flight{worker=\"0\"}"), 1.0);
        signal(worker, Signal::KILL);
        assert_eq!(lost.join().expect("no panic"), 502);
    });
    let before = Scrape::of(&master);
    assert_eq!(before.ended(&["outcome=\"outcome_unknown\""]), 1.0);
    let restarts = |scrape: &Scrape, reason: &str| {
        scrape.get(&format!("mesophyll_worker_restarts_total{{worker=\"0\",reason=\"{reason}\"}}"))
    };
    let ready = "mesophyll_worker_ready{worker=\"0\"}";
    let after = eventually("it is started again", || {
        let scrape = Scrape::of(&master);
        (scrape.get(ready) == 1.0 && restarts(&scrape, "death") == 1.0).then_some(scrape)
    });
    assert_eq!((after.sum("mesophyll_worker_restarts_total", &[]), after.ended(&[])), (1.0, 1.0));
    assert_eq!(after.get("mesophyll_link_connections_total{worker=\"0\"}"), 2.0);
    assert_eq!(after.sum("mesophyll_link_ends_total", &[]), 1.0);
    after.expect_no_less_than(&before);

    master.command(&["restart", "0"]).expect(0, "");
    master.command(&["restart", "--all"]).expect(0, "");
    let last = Scrape::of(&master);
    assert_eq!(
        (restarts(&last, "operator"), restarts(&last, "rolling"), restarts(&last, "death")),
        (1.0, 1.0, 1.0)
    );
    assert_eq!(last.sum("mesophyll_worker_restarts_total", &[]), 3.0);
    last.expect_no_less_than(&after);
    master.stop().0.expect(0, "");
}

#[test]
fn a_link_that_is_replaced_counts_on_where_the_older_one_ended() {
    let folder = TempDir::new();
    let file = folder.path().join("tokens.json");
    let file = file.to_str().expect("a plain path");
    let master = Master::start(&["--external-workers", "--worker-tokens", file, "--workers", "1"]);
    let tokens: Value =
        serde_json::from_str(&std::fs::read_to_string(file).expect("written")).expect("JSON");
    let listen = master.listen().to_string();
    let start_worker = || {
        let args = [
            "worker",
            "--id",
            "0",
            "--workers",
            "1",
            "--master",
            &listen,
            "--templates",
            TEMPLATES,
        ];
        let mut command =
            mesophyll(&[&args[..], &["--default-events", "*", "--log", "info"]].concat());
        command.env("MESOPHYLL_CLIENT_TOKEN", tokens["0"].as_str().expect("a token"));
        Running::start(command)
    };
    let older = start_worker();
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "COUNT", "1").0, 200);
    let before = Scrape::of(&master);
    assert_eq!(before.get("mesophyll_link_replacements_total{worker=\"0\"}"), 0.0);
    let newer = start_worker();
    older.wait().expect(0, "a newer worker has taken this id");
    assert_eq!(master.dispatch("guild/1", "COUNT", "1").0, 200);
    let replaced = "mesophyll_link_ends_total{worker=\"0\",cause=\"replaced\"}";
    let after = eventually("the older link has ended", || {
        Some(Scrape::of(&master)).filter(|scrape| scrape.get(replaced) == 1.0)
    });
    assert_eq!(after.get("mesophyll_link_replacements_total{worker=\"0\"}"), 1.0);
    assert_eq!(after.get("mesophyll_link_connections_total{worker=\"0\"}"), 2.0);
    for direction in ["in", "out"] {
        let series =
            format!("mesophyll_link_messages_total{{worker=\"0\",direction=\"{direction}\"}}");
        assert!(after.get(&series) > before.get(&series), "{series}");
    }
    after.expect_no_less_than(&before);
    drop(newer);
    master.stop().0.expect(0, "");
}

#[test]
fn what_was_done_shows_in_the_figures_of_each_layer() {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let master =
        Master::start_in(TempDir::new(), &["--workers", "1", "--heartbeat-interval", "1s"]);
    master.wait_ready();
    let before = Scrape::of(&master);
    for count in 1..=5 {
        assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(count)));
    }
    assert_eq!(post(master.api(), "/i/dispatch-event/guild/1", "no token", "{}").0, 401);
    let after = eventually("some pings were answered", || {
        let scrape = Scrape::of(&master);
        (scrape.sum("mesophyll_link_round_trip_seconds_count", &[]) >= 3.0).then_some(scrape)
    });
    let grown = |series: &str| after.get(series) - before.get(series);
    for (operation, count) in [("kv_get", 5.0), ("kv_set", 5.0)] {
        let requests =
            format!("mesophyll_db_requests_total{{operation=\"{operation}\",class=\"2xx\"}}");
        assert!(grown(&requests) >= count, "{requests}");
        let stored =
            format!("mesophyll_store_operations_total{{operation=\"{operation}\",result=\"ok\"}}");
        assert!(grown(&stored) >= count, "{stored}");
    }
    assert_eq!(
        after.get("mesophyll_store_operation_duration_seconds_count{operation=\"kv_set\"}"),
        5.0
    );
    assert_eq!(
        after.get("mesophyll_store_commit_duration_seconds_count"),
        5.0,
        "one after the other"
    );
    assert_eq!(after.get("mesophyll_store_commit_operations_total"), 5.0);
    assert_eq!(
        (grown("mesophyll_store_commit_failures_total"), grown("mesophyll_store_reopens_total")),
        (0.0, 0.0)
    );
    assert_eq!(grown("mesophyll_api_requests_total{status=\"401\"}"), 1.0);
    assert!(grown("mesophyll_api_requests_total{status=\"200\"}") >= 6.0);
    assert!(grown("mesophyll_http_requests_total{server=\"worker\"}") >= 10.0);
    assert!(after.get("mesophyll_http_connections{server=\"api\"}") >= 1.0, "the one that asks");
    let round_trips = after.get("mesophyll_link_round_trip_seconds_sum{worker=\"0\"}");
    assert!(round_trips > 0.0, "{round_trips}");
    assert!(
        (begun - 2.0..begun + 60.0).contains(&after.get("process_start_time_seconds")),
        "a tick is rounded down"
    );
    assert!(after.get("process_open_fds") > 5.0 && after.get("process_threads") > 5.0);
    assert!(after.get("process_resident_memory_bytes") < after.get("process_virtual_memory_bytes"));
    assert!(after.get("process_cpu_seconds_total") > 0.0);
    after.expect_no_less_than(&before);
    expect_documented_labels(&after);
    master.stop().0.expect(0, "");
}

/// Every series has the labels that docs/operations.md names for its family, and no other.
fn expect_documented_labels(scrape: &Scrape) {
    let docs = include_str!("../../docs/operations.md");
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> =
        docs.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    let named =
        |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    for series in scrape.0.keys() {
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name.to_owned());
        let labels: BTreeSet<String> = labels.filter(|label| label != "le").collect();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let row = rows
            .iter()
            .find(|row| named(&row[1]).contains(family))
            .unwrap_or_else(|| panic!("{family}"));
        assert_eq!(labels, named(&row[2]), "{series}");
    }
}
