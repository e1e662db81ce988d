//! Restarts, kills and stops by an operator, with the real binary: what they cost (nothing, where
//! they can), and what becomes of them when something else goes wrong meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesophyll::wire::data::TenantId;
use mesophyll::wire::data::sharding::worker_for;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Finished, Master, Running, get_with, mesophyll, post, token, write};
use crate::support::process::{eventually, is_gone, signal, within, workers_of};

/// A guild that lives on this worker of two.
fn guild_on(worker: usize) -> String {
    let id = (0..)
        .map(|n| (n as u64) << 22 | 7)
        .find(|id| worker_for(TenantId::Guild(*id), 2) == worker);
    format!("guild/{}", id.expect("some tenant lives there"))
}

/// Runs a command against a master.
fn command(master: &Master, args: &[&str]) -> Finished {
    let api = master.api().to_string();
    let mut command = mesophyll(&[args, &["--api", &api]].concat());
    command.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    Running::start(command).wait()
}

fn workers(master: &Master) -> Vec<Value> {
    let (status, body) = get_with(master.api(), "/i/workers", &token(7));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"))
}

fn operate(master: &Master, path: &str) -> (u16, String) {
    post(master.api(), path, &token(7), "")
}

/// Dispatches counting events as fast as they are answered, from several callers with tenants of
/// their own, while `meanwhile` runs, which is told how many have been; checks that each tenant's
/// counts are 1, 2, 3 and so on: none was lost, none ran twice.
fn under_load(master: &Master, meanwhile: impl FnOnce(&AtomicU64)) {
    let is_over = AtomicBool::new(false);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for caller in 0..8u64 {
            let (is_over, total) = (&is_over, &total);
            scope.spawn(move || {
                let tenant = format!("guild/{}", caller << 22 | 5);
                let mut count = 0u64;
                while !is_over.load(Ordering::Relaxed) {
                    count += 1;
                    let answer = master.dispatch(&tenant, "COUNT", "1");
                    assert_eq!(answer, (200, Value::from(count)), "{tenant}");
                    // One that nobody waits for counts, too.
                    if count.is_multiple_of(5) {
                        assert_eq!(
                            master.dispatch_with(&tenant, "COUNT", "1", "?nowait=true").0,
                            202
                        );
                        count += 1;
                    }
                    total.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ends = Ends(&is_over);
        meanwhile(&total);
        drop(ends);
    });
}

/// Ends the callers also if the test fails.
struct Ends<'o>(&'o AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Rolls all workers by a signal and then by the route, until there was enough to lose.
fn roll_at_least_three_times(master: &Master, events: &AtomicU64) {
    master.running.signal(Signal::HUP);
    master.running.wait_stderr("the rolling restart is done");
    let mut rounds = 1;
    while rounds < 3 || events.load(Ordering::Relaxed) < 200 {
        rounds += 1;
        // The one before has said that it is done, and may still be about to end.
        eventually("one may begin", || {
            (operate(master, "/i/rolling-restart").0 == 202).then_some(())
        });
        master.running.wait_stderr("the rolling restart is done");
    }
}

#[test]
fn a_rolling_restart_under_load_loses_and_doubles_nothing() {
    let master = Master::start(&["--log", "info"]);
    master.wait_ready();
    let before = workers_of(master.pid());
    under_load(&master, |events| roll_at_least_three_times(&master, events));
    let after = workers_of(master.pid());
    assert!(
        before.iter().all(|(id, pid)| is_gone(*pid) && after[id] != *pid),
        "{before:?} {after:?}"
    );
    for worker in workers(&master) {
        assert_eq!(
            (&worker["state"], worker["restarts"].as_u64() >= Some(3)),
            (&json!("ready"), true),
            "{worker}"
        );
        assert_eq!(worker["last_exit"], "exit code 0 (rolling restart)");
    }
    master.stop().0.expect(0, "");
}

#[test]
fn a_rolling_restart_of_threads_loses_and_doubles_nothing() {
    let master = Master::start(&["--log", "info", "--mode", "thread-pool"]);
    master.wait_ready();
    under_load(&master, |events| roll_at_least_three_times(&master, events));
    for worker in workers(&master) {
        assert_eq!(
            (&worker["state"], worker["restarts"].as_u64() >= Some(3)),
            (&json!("ready"), true),
            "{worker}"
        );
    }
    master.stop().0.expect(0, "");
}

#[test]
fn recycling_under_load_loses_nothing_either() {
    let args = ["--log", "info", "--recycle-events", "200", "--heartbeat-interval", "1s"];
    let master = Master::start(&args);
    master.wait_ready();
    under_load(&master, |_| {
        for _ in 0..2 {
            master.running.wait_stderr("is recycled after");
        }
    });
    let is_recycled = |worker: &Value| {
        worker["last_exit"].as_str().is_some_and(|exit| exit.contains("recycled after"))
    };
    eventually("one has ended for that", || workers(&master).iter().any(is_recycled).then_some(()));
    master.wait_ready();
    master.stop().0.expect(0, "");
}

#[test]
fn one_rolling_restart_at_a_time_and_none_of_foreign_workers() {
    let master = Master::start(&["--log", "info", "--drain-timeout", "5m"]);
    master.wait_ready();
    let tenant = guild_on(0);
    std::thread::scope(|scope| {
        // It is under way until it is released, so that the first rolling restart has to wait all
        // the time.
        let last = scope.spawn(|| master.dispatch(&tenant, "HOLD", r#"{"mark":"long"}"#));
        master.running.wait_stderr("waiting long");
        assert_eq!(operate(&master, "/i/rolling-restart").0, 202);
        assert_eq!(operate(&master, "/i/rolling-restart").0, 409);
        master.running.signal(Signal::HUP);
        master.running.wait_stderr("no rolling restart: a rolling restart is under way");
        master.release(&tenant);
        assert_eq!(
            last.join().expect("an answer"),
            (200, Value::from("waited long")),
            "it was let finish"
        );
    });
    master.running.wait_stderr("the rolling restart is done");

    let external = Master::start(&["--log", "info", "--external-workers"]);
    external.running.signal(Signal::HUP);
    external.running.wait_stderr("somebody else starts the workers");
    assert_eq!(operate(&external, "/i/rolling-restart").0, 409);
    assert_eq!(operate(&external, "/i/restart-worker/0").0, 409);
    assert_eq!(operate(&external, "/i/kill-worker/0").0, 204);
    assert_eq!(workers(&external)[0]["state"], "stopped");
}

/// A worker that ends has a second's errors that it has not recorded yet, and tasks that wait.
#[test]
fn a_worker_that_ends_records_its_last_errors() {
    let template = "return function(ctx)
        if ctx:event().name == 'FAILS' then error('just before the end') end
        task.delay(25, function() end)
        return 'left'
    end";
    let master = Master::with_template(template, &["--log", "info"]);
    for turn in 1..=3 {
        assert_eq!(master.dispatch("guild/1", "LEAVES", "1"), (200, Value::from("left")));
        assert_eq!(master.dispatch("guild/1", "FAILS", "1").0, 422);
        command(&master, &["restart", "--all"]).expect(0, "");
        let errors = command(&master, &["errors", "guild:1", "--json"]);
        errors.expect(0, "");
        for part in ["just before the end", "tasks that the handler left were ended"] {
            assert_eq!(errors.stdout.concat().matches(part).count(), turn, "{part}: {errors:?}");
        }
    }
}

#[test]
fn a_rolling_restart_stops_at_a_worker_that_does_not_come_back() {
    let folder = TempDir::new();
    let (templates, moved) = (folder.path().join("templates"), folder.path().join("moved"));
    std::fs::create_dir(&templates).expect("a folder");
    write(&templates, "main.luau", "return function(ctx) return ctx:event().name end");
    // It fails again and again until its templates are back, and is not to be given up meanwhile.
    let patience = ["--failures-a-minute", "100", "--failures-in-a-row", "100"];
    let templates_option =
        ["--log", "info", "--templates", templates.to_str().expect("a plain path")];
    let master = Master::start(&[&templates_option[..], &patience].concat());
    master.wait_ready();
    let before = workers_of(master.pid());
    std::fs::rename(&templates, &moved).expect("moved");
    let restart = command(&master, &["restart", "--all"]);
    restart
        .expect(1, "the rolling restart stopped: worker 0 is dead; its last process: exit code 3");
    assert_eq!(workers_of(master.pid()).get(&1), before.get(&1), "the other one was left alone");
    assert_eq!(master.dispatch(&guild_on(1), "A", "1"), (200, Value::from("A")));
    std::fs::rename(&moved, &templates).expect("moved back");
    master.wait_ready();
    command(&master, &["restart", "--all"]).expect(0, "");
    assert!(is_gone(before[&1]));
}

#[test]
fn a_worker_is_killed_stays_away_and_is_restarted() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode, "--log", "info"]);
        master.wait_ready();
        let tenant = guild_on(1);
        assert_eq!(operate(&master, "/i/kill-worker/1").0, 204);
        let shown = workers(&master);
        assert_eq!(
            (&shown[0]["state"], &shown[1]["state"], &shown[1]["pid"]),
            (&json!("ready"), &json!("stopped"), &json!(null))
        );
        let (status, body) = master.dispatch(&tenant, "ECHO", "1");
        assert_eq!(
            (status, body["code"].as_str(), body["sent"].as_bool()),
            (503, Some("NoWorker"), Some(false)),
            "{body}"
        );
        let restarted = command(&master, &["restart", "1"]);
        restarted.expect(0, "");
        assert_eq!(restarted.stdout, ["worker 1 is ready again"]);
        assert_eq!(master.dispatch(&tenant, "ECHO", "2"), (200, Value::from(2)));
        // All stopped is no reason to give up.
        assert_eq!(operate(&master, "/i/kill-worker").0, 204);
        assert!(workers(&master).iter().all(|worker| worker["state"] == "stopped"));
        // A rolling restart leaves them alone.
        let rolled = command(&master, &["restart", "--all"]);
        rolled.expect(0, "worker 0 was left alone: it is stopped");
        command(&master, &["restart", "0"]).expect(0, "");
        assert_eq!(master.dispatch(&guild_on(0), "ECHO", "3"), (200, Value::from(3)), "{mode}");
        for (path, status) in [
            ("/i/restart-worker/2", 404),
            ("/i/restart-worker/x", 400),
            ("/i/kill-worker/99999999999999999999", 400),
        ] {
            assert_eq!(operate(&master, path).0, status, "{path}");
        }
        master.stop().0.expect(0, "");
    }
}

#[test]
fn one_worker_that_resists_does_not_protect_the_others() {
    let master = Master::start(&[
        "--mode",
        "thread-pool",
        "--log",
        "info",
        "--stop-timeout",
        "2s",
        "--drain-timeout",
        "5m",
    ]);
    std::thread::scope(|scope| {
        let answer = scope
            .spawn(|| master.dispatch(&guild_on(0), "WAIT", r#"{"mark":"draining","seconds":5}"#));
        master.running.wait_stderr("waiting draining");
        assert_eq!(operate(&master, "/i/restart-worker/0").0, 202);
        let (status, body) = operate(&master, "/i/kill-worker");
        assert!(status == 503 && body.contains("it is being restarted"), "{status}: {body}");
        assert_eq!(workers(&master)[1]["state"], "stopped");
        assert_eq!(answer.join().expect("an answer"), (200, Value::from("waited draining")));
    });
}

#[test]
fn the_table_of_workers_has_what_the_contract_says() {
    let master = Master::start(&["--log", "info", "--heartbeat-interval", "1s"]);
    master.wait_ready();
    assert_eq!(master.dispatch(&guild_on(0), "ECHO", "1").0, 200);
    let worker = eventually("its health came in", || {
        workers(&master).into_iter().next().filter(|worker| worker["vms"] == 1)
    });
    assert_eq!(worker["pid"], workers_of(master.pid())[&0]);
    for number in ["uptime_s", "heartbeat_age_ms", "in_flight", "vms", "restarts"] {
        assert!(worker[number].is_u64(), "{number} in {worker}");
    }
    assert_eq!((&worker["state"], &worker["last_exit"]), (&json!("ready"), &Value::Null));
    let table = command(&master, &["workers"]);
    table.expect(0, "");
    assert!(table.stdout[0].starts_with("ID  STATE  PID"), "{table:?}");
    assert_eq!(table.stdout.len(), 3);
    assert_eq!(
        command(&master, &["workers", "--json"]).json()[0].as_array().map(Vec::len),
        Some(2)
    );
    let api = master.api().to_string();
    let mut watch = mesophyll(&["workers", "--watch", "--api", &api]);
    watch.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    let watch = Running::start(watch);
    for _ in 0..6 {
        watch.next_line();
    }
    watch.signal(Signal::INT);
    watch.wait().expect(0, "");
}

/// Waits until an event of this tenant is in flight; returns the worker's process.
fn in_flight(master: &Master, worker: usize, mark: &str) -> u32 {
    let pid = eventually("its worker runs", || workers_of(master.pid()).get(&worker).copied());
    master.running.wait_stderr(&format!("waiting {mark}"));
    pid
}

/// Puts an event in flight that takes long, lets `meanwhile` do something to its worker's process,
/// and returns what its caller got.
fn while_in_flight(
    master: &Master,
    tenant: &str,
    mark: &str,
    meanwhile: impl FnOnce(u32),
) -> (u16, Value) {
    std::thread::scope(|scope| {
        let data = format!(r#"{{"mark":"{mark}","seconds":25}}"#);
        let answer = scope.spawn(move || master.dispatch(tenant, "WAIT", &data));
        let pid = in_flight(master, 0, mark);
        meanwhile(pid);
        answer.join().expect("an answer")
    })
}

#[test]
fn a_tenant_at_three_kills_is_quarantined_until_lifted() {
    let master = Master::start(&["--log", "info"]);
    master.wait_ready();
    let (culprit, neighbour) = (guild_on(0), "guild/16777223");
    for round in 1..=3 {
        let (status, body) = while_in_flight(&master, &culprit, &format!("round {round}"), |pid| {
            signal(pid, Signal::KILL);
            master.running.wait_stderr("with 1 in flight: WAIT of guild:7");
        });
        assert_eq!((status, body["code"].as_str()), (502, Some("OutcomeUnknown")), "{body}");
        eventually("its worker is ready again", || {
            (workers(&master)[0]["state"] == "ready" && workers(&master)[0]["restarts"] == round)
                .then_some(())
        });
    }
    let (status, body) = master.dispatch(&culprit, "ECHO", "1");
    assert_eq!(
        (status, body["code"].as_str(), body["sent"].as_bool()),
        (403, Some("Quarantined"), Some(false)),
        "{body}"
    );
    assert_eq!(master.dispatch_with(&culprit, "ECHO", "1", "?nowait=true").0, 403);
    assert_eq!(
        master.dispatch(neighbour, "ECHO", "1"),
        (200, Value::from(1)),
        "on the same worker"
    );
    let list = command(&master, &["quarantine", "list"]);
    assert!(list.stdout.len() == 2 && list.stdout[1].starts_with("guild:7"), "{list:?}");
    let shown = command(&master, &["tenant", "show", "guild:7"]);
    assert!(shown.stdout.iter().any(|line| line.contains("quarantined")), "{shown:?}");
    command(&master, &["quarantine", "lift", "guild:7"]).expect(0, "");
    command(&master, &["quarantine", "lift", "guild:7"]).expect(1, "NotFound (404)");
    assert_eq!(master.dispatch(&culprit, "ECHO", "2"), (200, Value::from(2)));
    command(&master, &["quarantine", "list"]).expect(0, "nobody is quarantined");
}

#[test]
fn a_kill_at_any_step_stops_a_rolling_restart_only() {
    let master = Master::start(&["--log", "info", "--drain-timeout", "5m"]);
    master.wait_ready();
    // While it drains.
    let (status, body) = while_in_flight(&master, &guild_on(0), "draining", |pid| {
        assert_eq!(operate(&master, "/i/rolling-restart").0, 202);
        eventually("it drains", || (workers(&master)[0]["state"] == "draining").then_some(()));
        signal(pid, Signal::KILL);
    });
    assert_eq!((status, body["code"].as_str()), (502, Some("OutcomeUnknown")), "{body}");
    master.running.wait_stderr("the rolling restart stops here: worker 0 is dead");
    master.wait_ready();
    // While the new one starts.
    let old = workers_of(master.pid())[&0];
    assert_eq!(operate(&master, "/i/rolling-restart").0, 202);
    let new = eventually("the new one", || {
        workers_of(master.pid()).get(&0).copied().filter(|pid| *pid != old)
    });
    signal(new, Signal::KILL);
    // It may have been ready by then.
    let report = eventually("it has ended", || {
        let (_, body) = get_with(master.api(), "/i/rolling-restart", &token(7));
        let report: Value = serde_json::from_str(&body).expect("JSON");
        (report["running"] == false).then_some(report)
    });
    let is_stopped =
        report["error"].as_str().is_some_and(|error| error.starts_with("worker 0 is dead"));
    assert!(is_stopped || report["restarted"] == json!([0, 1]), "{report}");
    master.wait_ready();
    // And one that succeeds, after all that.
    let rolled = command(&master, &["restart", "--all", "--json"]);
    assert_eq!(
        (rolled.code(), rolled.json()[0]["restarted"].clone()),
        (0, json!([0, 1])),
        "{rolled:?}"
    );
    let restarted = command(&master, &["restart", "1", "--json"]);
    assert_eq!(
        (restarted.code(), restarted.json()[0]["id"].clone()),
        (0, json!(1)),
        "{restarted:?}"
    );
    assert_eq!(restarted.json()[0]["state"], "ready");
    assert_eq!(master.dispatch(&guild_on(0), "ECHO", "1"), (200, Value::from(1)));
    assert_eq!(master.dispatch(&guild_on(1), "ECHO", "2"), (200, Value::from(2)));
    master.stop().0.expect(0, "");
}

#[test]
fn a_restart_waits_for_one_tenant_no_longer_than_it_may() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--log", "info", "--mode", mode, "--drain-timeout", "300ms"]);
        master.wait_ready();
        let (slow, neighbour) = (guild_on(0), "guild/16777223");
        std::thread::scope(|scope| {
            // It would end by itself, but long after this test.
            let cut_off = scope.spawn(|| master.dispatch(&slow, "HOLD", r#"{"mark":"long"}"#));
            master.running.wait_stderr("waiting long");
            assert_eq!(operate(&master, "/i/restart-worker/0").0, 202);
            assert_eq!(
                master.dispatch(neighbour, "ECHO", "1"),
                (200, Value::from(1)),
                "{mode}: on the same worker"
            );
            let (status, body) = cut_off.join().expect("an answer");
            let told = (status, body["code"].as_str(), body["sent"].as_bool());
            assert_eq!(told, (502, Some("OutcomeUnknown"), Some(true)), "{mode}: {body}");
        });
        let worker = &workers(&master)[0];
        assert_eq!((&worker["state"], &worker["restarts"]), (&json!("ready"), &json!(1)), "{mode}");
        assert_eq!(master.dispatch(&slow, "ECHO", "2"), (200, Value::from(2)), "{mode}");
        master.stop().0.expect(0, "");
    }
}

#[test]
fn a_stop_in_the_middle_of_a_rolling_restart_is_a_stop() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--log", "info", "--mode", mode, "--stop-timeout", "2s"]);
        master.wait_ready();
        let pids = workers_of(master.pid());
        let (tenant, data) = (guild_on(0), r#"{"mark":"long","seconds":25}"#);
        std::thread::scope(|scope| {
            let cut_off = scope.spawn(|| master.dispatch(&tenant, "WAIT", data));
            master.running.wait_stderr("waiting long");
            master.running.signal(Signal::HUP);
            master.running.wait_stderr("is restarted: rolling restart");
            master.running.signal(Signal::TERM);
            master.running.signal(Signal::HUP);
            assert_eq!(cut_off.join().expect("an answer").0, 502, "{mode}");
        });
        let before = Instant::now();
        master.running.wait().expect(0, "");
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
        assert!(pids.values().all(|pid| is_gone(*pid)));
    }
}

#[test]
fn a_stop_waits_for_events_that_nobody_waits_for() {
    for mode in ["process-pool", "thread-pool"] {
        let folder = TempDir::new();
        let master = Master::start_in(folder, &["--log", "info", "--mode", mode, "--workers", "2"]);
        master.wait_ready();
        let (tenant, data) = (guild_on(0), r#"{"mark":"unseen","seconds":1}"#);
        assert_eq!(master.dispatch_with(&tenant, "WAIT", data, "?nowait=true").0, 202);
        master.running.wait_stderr("waiting unseen");
        for _ in 0..20 {
            assert_eq!(master.dispatch_with(&tenant, "COUNT", "1", "?nowait=true").0, 202);
        }
        let (stopped, folder) = master.stop();
        stopped.expect(0, "");
        assert!(!stopped.stderr.contains("that nobody waited for"), "{stopped:?}");
        let master = Master::start_in(folder, &["--mode", mode, "--workers", "2"]);
        assert_eq!(
            master.dispatch(&tenant, "COUNT", "1"),
            (200, Value::from(21)),
            "{mode}: each was done"
        );
    }
}

#[test]
fn what_a_stop_cuts_off_unseen_is_told() {
    let master = Master::start(&["--log", "info", "--stop-timeout", "1s"]);
    master.wait_ready();
    let data = r#"{"mark":"unseen","seconds":25}"#;
    assert_eq!(master.dispatch_with(&guild_on(0), "WAIT", data, "?nowait=true").0, 202);
    master.running.wait_stderr("waiting unseen");
    let (stopped, _) = master.stop();
    stopped.expect(0, "1 events for guild:7 that nobody waited for were lost: 1 outcome_unknown");
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_worker_that_is_frozen() {
    let master = Master::start(&["--log", "info", "--stop-timeout", "2s"]);
    master.wait_ready();
    let pids = workers_of(master.pid());
    signal(pids[&0], Signal::STOP);
    let before = Instant::now();
    let (stopped, _) = master.stop();
    stopped.expect(0, "ended: killed by signal 9");
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    within(Duration::from_secs(5), "no worker is left", || {
        pids.values().all(|pid| is_gone(*pid)).then_some(())
    });
}

#[test]
fn a_stop_does_not_wait_for_silent_peers() {
    let master = Master::start(&["--log", "info", "--stop-timeout", "4s", "--external-workers"]);
    let connect = |address, text: &str| {
        let mut socket = TcpStream::connect(address).expect("connect");
        socket.write_all(text.as_bytes()).expect("sent");
        socket
    };
    let path = "/i/dispatch-event/guild/1";
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Internal {}\r\n", token(7));
    let body = r#"{"name":"E","data":1}"#;
    // Half a head, half a body, a whole request for a worker that never comes, and half a
    // handshake.
    let mut waits =
        connect(master.api(), &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    let _others = [
        connect(master.api(), &head),
        connect(master.api(), &format!("{head}Content-Length: 100\r\n\r\n{{")),
        connect(master.listen(), "GET /ws?id=0 HTTP/1.1\r\n"),
    ];
    eventually("the whole request waits", || (workers(&master)[0]["waiting"] == 1).then_some(()));
    let before = Instant::now();
    let (stopped, _) = master.stop();
    stopped.expect(0, "stopping: closing the store");
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    let mut answer = String::new();
    waits.read_to_string(&mut answer).expect("its end");
    assert!(answer.starts_with("HTTP/1.1 50"), "it was answered: {answer:?}");
}
