//! What `GET /metrics` of a real master shows of its workers' insides, against what the test had
//! them do.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::metrics::Scrape;
use crate::support::binary::{Master, post, token};
use crate::support::process::{eventually, signal, workers_of};

const ONE: &str = "{worker=\"0\"}";

fn run_script(master: &Master, code: &str) -> u16 {
    let body = serde_json::json!({"name": "s", "code": code}).to_string();
    post(master.api(), "/i/run-script/guild/1", &token(7), &body).0
}

/// Has one worker do one of everything, or a known number, and says which series must show it.
fn do_everything(master: &Master) -> Vec<(String, f64)> {
    let dispatch = |name, data| master.dispatch("guild/1", name, data).0;
    assert_eq!(dispatch("COUNT", "1"), 200);
    assert_eq!(dispatch("COUNT", "1"), 200);
    assert_eq!(dispatch("FAIL", "1"), 422);
    assert_eq!(dispatch("BIG", r#"{"bytes":17000000}"#), 422);
    assert_eq!(dispatch("EAT", "1"), 422);
    let refused = "local ctx = ... ctx.KV:get('', { 's' })";
    assert_eq!(run_script(master, refused), 422);
    let too_many = "for _ = 1, 20000 do task.spawn(function() end) end";
    assert_eq!(run_script(master, too_many), 422);
    let one = |family: &str| format!("mesophyll_{family}{ONE}");
    let call = |family: &str, op: &str| {
        format!("mesophyll_template_{family}{{worker=\"0\",operation=\"{op}\"}}")
    };
    let budget =
        |kind: &str| format!("mesophyll_budgets_exceeded_total{{worker=\"0\",kind=\"{kind}\"}}");
    vec![
        (one("worker_events_total"), 7.0),
        (one("event_wall_seconds_count"), 7.0),
        (one("event_running_seconds_count"), 7.0),
        (one("script_errors_total"), 3.0),
        (one("large_answers_total"), 1.0),
        (one("vms_discarded_total"), 1.0),
        (one("runtime_panics_total"), 0.0),
        (one("worker_waiting_events"), 0.0),
        (one("worker_coroutines"), 0.0),
        (budget("memory"), 1.0),
        (budget("spawns"), 1.0),
        (budget("queue"), 0.0),
        (call("db_call_duration_seconds_count", "get"), 3.0),
        (call("db_call_failures_total", "get"), 1.0),
        (call("db_call_duration_seconds_count", "set"), 2.0),
        (call("db_call_failures_total", "set"), 0.0),
    ]
}

#[test]
fn what_workers_do_is_counted_by_kind_in_both_modes() {
    for mode in ["process-pool", "thread-pool"] {
        // Between two of its events the VM is never idle for so long, and after the last one it is.
        let args =
            ["--mode", mode, "--workers", "1", "--heartbeat-interval", "500ms", "--vm-idle", "4s"];
        let master = Master::start(&[&args[..], &["--log", "info"]].concat());
        master.wait_ready();
        let expected = do_everything(&master);
        // An answer comes before its event has ended.
        let scrape = eventually("all of it has ended", || {
            let scrape = Scrape::of(&master);
            let has_ended =
                scrape.find(&format!("mesophyll_event_wall_seconds_count{ONE}")) == Some(7.0);
            (has_ended && scrape.get(&format!("mesophyll_worker_coroutines{ONE}")) == 0.0)
                .then_some(scrape)
        });
        for (series, count) in expected {
            assert_eq!(scrape.get(&series), count, "{mode}: {series}");
        }
        let running = scrape.get(&format!("mesophyll_event_running_seconds_sum{ONE}"));
        let wall = scrape.get(&format!("mesophyll_event_wall_seconds_sum{ONE}"));
        assert!(0.0 < running && running <= wall, "{running} {wall}");
        assert!(scrape.get(&format!("mesophyll_preemptions_total{ONE}")) > 0.0);
        // A hundred lines at once are allowed.
        assert_eq!(run_script(&master, "for line = 1, 300 do print(line) end"), 200);
        eventually("the lines that were dropped are told", || {
            let dropped =
                Scrape::of(&master).get(&format!("mesophyll_script_log_lines_dropped_total{ONE}"));
            (dropped > 100.0 && dropped <= 200.0).then_some(())
        });
        eventually("the VM that is idle is closed, and that is told", || {
            let scrape = Scrape::of(&master);
            let evicted = scrape.get(&format!("mesophyll_vms_evicted_total{ONE}"));
            (evicted == 1.0 && scrape.get(&format!("mesophyll_worker_vms{ONE}")) == 0.0)
                .then_some(())
        });
        // The process of a worker thread is the master's, and is shown as that.
        assert_eq!(
            scrape.find(&format!("mesophyll_worker_cpu_seconds_total{ONE}")).is_some(),
            mode == "process-pool"
        );
        master.stop().0.expect(0, "");
    }
}

#[test]
fn a_killed_worker_begins_to_count_anew() {
    let master = Master::start(&["--workers", "1", "--heartbeat-interval", "500ms"]);
    master.wait_ready();
    for _ in 0..5 {
        assert_eq!(master.dispatch("guild/1", "FAIL", "1").0, 422);
    }
    let series = |scrape: &Scrape, family: &str| scrape.find(&format!("mesophyll_{family}{ONE}"));
    let before = eventually("it is counted", || {
        let scrape = Scrape::of(&master);
        (series(&scrape, "script_errors_total") == Some(5.0)).then_some(scrape)
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let started = |scrape: &Scrape| series(scrape, "worker_start_time_seconds").expect("told");
    assert!((now - 600.0..=now).contains(&started(&before)), "{} {now}", started(&before));
    assert!(
        series(&before, "worker_cpu_seconds_total").is_some_and(|cpu| (0.0..600.0).contains(&cpu))
    );
    assert!(series(&before, "worker_threads").is_some_and(|threads| threads > 5.0));
    let (open, max) = (series(&before, "worker_open_fds"), series(&before, "worker_max_fds"));
    assert!(open > Some(3.0) && open < max, "{open:?} {max:?}");
    signal(workers_of(master.pid())[&0], Signal::KILL);
    let after = eventually("it is started again, and has said something", || {
        let scrape = Scrape::of(&master);
        (series(&scrape, "worker_start_time_seconds").is_some_and(|time| time > started(&before)))
            .then_some(scrape)
    });
    for family in ["script_errors_total", "worker_events_total", "event_wall_seconds_count"] {
        assert_eq!(series(&after, family), Some(0.0), "{family}");
    }
    master.stop().0.expect(0, "");
}
