//! Input that is wrong and templates that misbehave, in the middle of a replay: each its own error,
//! and the rest goes on.
//!
//! And processes that are killed: what was in flight is told apart from what was not, and nothing
//! stays behind.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use mesophyll::wire::data::TenantId;
use mesophyll::wire::data::sharding::worker_for;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::TempDir;
use crate::support::binary::{Finished, Master, Running, TEMPLATES, mesophyll, run, run_on, write};
use crate::support::process::{self, eventually, is_gone, within, workers_of};

/// How soon the workers of a master that was killed must be gone (issue: "Seen to work").
const ORPHANS_GONE: Duration = Duration::from_secs(5);

/// A guild that lives on this worker.
fn guild_on(worker: usize, workers: usize) -> String {
    let id = (0..)
        .map(|n| (n as u64) << 22 | 7)
        .find(|id| worker_for(TenantId::Guild(*id), workers) == worker);
    format!("guild:{}", id.expect("some tenant lives there"))
}

fn event(tenant: &str, name: &str, data: &str) -> Vec<u8> {
    format!(r#"{{"tenant":"{tenant}","name":"{name}","data":{data}}}"#).into_bytes()
}

/// Checks an error line: kind, whether it may have run, and a part of its message.
fn expect_error(line: &Value, kind: &str, sent: bool, says: &str) {
    let error = &line["error"];
    assert_eq!(
        (error["kind"].as_str(), error["sent"].as_bool()),
        (Some(kind), Some(sent)),
        "{line}"
    );
    assert!(
        error["message"].as_str().is_some_and(|message| message.contains(says)),
        "{says:?} in {line}"
    );
}

/// Replays bad lines, each followed by a good one of the same tenant.
fn replay_badly(mode: &str) {
    let tenant = "guild:4194304";
    let large = format!("{:?}", "x".repeat(20 << 20));
    let bad: [(Vec<u8>, &str, bool, &str); 12] = [
        (br#"{"tenant":"guild:1","name":"#.to_vec(), "bad_input", false, "not an event in JSON"),
        (b"[]".to_vec(), "bad_input", false, "not an event in JSON"),
        (
            b"{\"tenant\":\"guild:1\",\"name\":\"\xff\xfe\"}".to_vec(),
            "bad_input",
            false,
            "not an event in JSON",
        ),
        (event("role:1", "ECHO", "1"), "bad_input", false, "role:1"),
        (event("guild:18446744073709551615", "ECHO", "1"), "bad_input", false, "tenant"),
        (event(tenant, "", "1"), "bad_input", false, "name"),
        (
            event(tenant, "ECHO", &format!("{}1{}", "[".repeat(5000), "]".repeat(5000))),
            "bad_input",
            false,
            "",
        ),
        (event(tenant, "ECHO", &large), "bad_input", false, "16777216"),
        (vec![b'x'; 40 << 20], "bad_input", false, "33554432"),
        (event(tenant, "FAIL", "1"), "script", true, "on purpose"),
        (event(tenant, "EAT", "1"), "script", true, "memory"),
        (event(tenant, "LOOP", "1"), "script", true, "budget exceeded: "),
    ];
    let mut input = Vec::new();
    for (line, ..) in &bad {
        input.extend_from_slice(line);
        input.push(b'\n');
        input.extend(event(tenant, "ECHO", "\"still here\""));
        input.push(b'\n');
    }
    let args = [
        "replay",
        "-",
        "--mode",
        mode,
        "--workers",
        "1",
        "--templates",
        TEMPLATES,
        "--in-flight",
        "1",
    ];
    let replayed = run_on(&args, input);
    replayed.expect(1, "24 events in ");
    assert!(
        replayed.stderr.contains("failures: 12 (bad_input 9, script 3)"),
        "{}",
        replayed.stderr
    );
    let lines = replayed.json();
    assert_eq!(lines.len(), 24);
    for (at, (_, kind, sent, says)) in bad.iter().enumerate() {
        expect_error(&lines[2 * at], kind, *sent, says);
        assert_eq!(lines[2 * at + 1]["ok"], "still here", "after {:?}", lines[2 * at]);
    }
    let told: Vec<&Value> = lines
        .iter()
        .filter(|line| line["error"]["kind"] == "bad_input" && line["tenant"].is_string())
        .collect();
    assert!(told.iter().all(|line| line["tenant"] == tenant && line["name"] == "ECHO"), "{told:?}");
}

#[test]
fn bad_events_leave_others_alone_in_worker_processes() {
    replay_badly("process-pool");
}

#[test]
fn bad_events_leave_others_alone_in_worker_threads() {
    replay_badly("thread-pool");
}

#[test]
fn check_names_places_in_files_and_directories_also_as_json() {
    let folder = TempDir::new();
    let at = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    write(folder.path(), "main.luau", "return function(ctx)\n  return ctx.KV:get('k')\nend");
    write(folder.path(), "words.luau", "return {}");
    let says = "scopes missing: ctx.KV:get(key, scopes)";
    let found = run(&["check", "--templates", &at("")]);
    found.expect(1, "one problem found");
    assert_eq!(found.stdout, [format!("main.luau:2:17: {says}")]);
    assert_eq!(run(&["check", &at("")]).stdout, found.stdout);
    let found = run(&["check", "--templates", &at(""), "--json"]);
    found.expect(1, "one problem found");
    let expected =
        serde_json::json!([{"file": "main.luau", "line": 2, "column": 17, "message": says}]);
    assert_eq!(found.json(), [expected]);
    let found = run(&["check", &at("main.luau"), &at("words.luau"), "--templates", &at("")]);
    found.expect(1, "2 problems found");
    let table = "the template must return function(ctx), not a table";
    assert_eq!(
        found.stdout,
        [format!("{}:2:17: {says}", at("main.luau")), format!("{}:1:1: {table}", at("words.luau"))]
    );
    write(folder.path(), "main.luau", "return require('words').run");
    let clean = run(&["check", &at("main.luau"), "--json"]);
    clean.expect(0, "");
    assert_eq!(clean.stdout, ["[]"]);
    assert_eq!(run_on(&["check", "-"], b"return print".to_vec()).stdout, ["nothing found"]);
    run(&["check", &at("nothing.luau")]).expect(3, "nothing.luau");
    run(&["check", &at("main.luau"), &at("")]).expect(2, "is a directory, which is given alone");
    run(&["check"]).expect(2, "check takes a DIR, or FILEs");
}

#[test]
fn tasks_that_a_replay_ends_are_counted_in_the_log() {
    let folder = TempDir::new();
    let template = "return function(ctx) for i = 1, 3 do task.delay(20, print) end return 'ok' end";
    write(folder.path(), "main.luau", template);
    let templates = folder.path().to_str().expect("a plain path");
    for mode in ["process-pool", "thread-pool"] {
        let args = [
            "replay",
            "-",
            "--workers",
            "1",
            "--executors",
            "1",
            "--mode",
            mode,
            "--templates",
            templates,
        ];
        let replayed = run_on(&args, event("guild:1", "E", "1"));
        replayed
            .expect(0, "3 tasks that waited after the answer of their event end with the worker");
        assert_eq!(replayed.json()[0]["ok"], "ok");
    }
}

#[test]
fn missing_or_broken_templates_are_script_errors() {
    let syntax = TempDir::new();
    write(syntax.path(), "main.luau", "return function(ctx\n  return 1\nend");
    let none = TempDir::new();
    let text = TempDir::new();
    write(text.path(), "main.luau", [0xff, 0x00, 0x1b]);
    let value = TempDir::new();
    write(value.path(), "main.luau", "return 5");
    let fails = TempDir::new();
    write(fails.path(), "main.luau", "error('while it loads')");
    let huge = TempDir::new();
    write(huge.path(), "main.luau", format!("return '{}'", "x".repeat(200 * 1024)));
    let input = [event("guild:1", "A", "1"), b"\n".to_vec(), event("user:1", "B", "2")].concat();
    for (folder, says) in [
        (&syntax, "main.luau:2: "),
        (&none, "there is no main.luau"),
        (&text, "main"),
        (&value, "function"),
        (&fails, "while it loads"),
        (&huge, "main"),
    ] {
        let templates = folder.path().to_str().expect("a plain path");
        for mode in ["process-pool", "thread-pool"] {
            let replayed = run_on(
                &["replay", "-", "--workers", "1", "--templates", templates, "--mode", mode],
                input.clone(),
            );
            replayed.expect(1, "failures: 2 (script 2)");
            let lines = replayed.json();
            assert_eq!(lines.len(), 2);
            for line in &lines {
                expect_error(line, "script", true, says);
                let message = line["error"]["message"].as_str().expect("a message");
                assert!(!message.contains(templates), "no path of ours: {message}");
            }
        }
    }
}

#[test]
fn an_answer_larger_than_a_message_is_only_an_error() {
    let folder = TempDir::new();
    let lines = [
        event("guild:1", "BIG", &format!(r#"{{"bytes":{}}}"#, 17 << 20)),
        event("guild:1", "BIG", r#"{"bytes":3}"#),
    ];
    let input = write(folder.path(), "events.ndjson", lines.join(&b'\n'));
    let input = input.to_str().expect("a plain path");
    for mode in ["process-pool", "thread-pool"] {
        let replayed =
            run(&["replay", input, "--workers", "1", "--templates", TEMPLATES, "--mode", mode]);
        replayed.expect(1, "failures: 1 (script 1)");
        let lines = replayed.json();
        expect_error(&lines[0], "script", true, "the result: the value is larger than");
        assert_eq!(lines[1]["ok"], "xxx");
    }
}

/// Starts a replay and waits until `waiting` events of the tests' template wait in their workers.
fn replay_until_waiting(args: &[&str], input: String, waiting: usize) -> Running {
    let mut all = vec!["replay", "-", "--workers", "2", "--templates", TEMPLATES];
    all.extend(args);
    let running = Running::start_on(mesophyll(&all), input);
    for _ in 0..waiting {
        running.wait_stderr("waiting ");
    }
    running
}

/// A line's error kind, or "ok".
fn outcomes(replayed: &Finished) -> Vec<String> {
    let outcome = |line: &Value| line["error"]["kind"].as_str().unwrap_or("ok").to_owned();
    replayed.json().iter().map(outcome).collect()
}

#[test]
fn a_killed_worker_loses_only_what_it_was_doing() {
    let (lost, kept) = (guild_on(0, 2), guild_on(1, 2));
    let mut input = String::new();
    for number in 0..4 {
        // Those of the worker that lives end when the others are lost; they only have to be in
        // flight meanwhile.
        for (tenant, seconds) in [(&lost, 25.0), (&kept, 5.0)] {
            let data = format!(r#"{{"mark":{number},"seconds":{seconds}}}"#);
            input += &format!("{}\n", String::from_utf8_lossy(&event(tenant, "WAIT", &data)));
        }
    }
    for number in 0..40 {
        let tenant = if number % 2 == 0 { &lost } else { &kept };
        input +=
            &format!("{}\n", String::from_utf8_lossy(&event(tenant, "ECHO", &number.to_string())));
    }
    let running = replay_until_waiting(&["--in-flight", "8"], input, 8);
    let workers = workers_of(running.pid());
    assert_eq!(workers.len(), 2);
    process::signal(workers[&0], Signal::KILL);
    let replayed = running.wait();
    let outcomes = outcomes(&replayed);
    assert_eq!(outcomes[..8], ["outcome_unknown", "ok"].repeat(4), "{replayed:?}");
    assert_eq!(outcomes[8..], ["ok"; 40], "{replayed:?}");
    let lines = replayed.json();
    lines
        .iter()
        .step_by(2)
        .take(4)
        .for_each(|line| expect_error(line, "outcome_unknown", true, "went away"));
    let numbers: Vec<u64> = lines.iter().filter_map(|line| line["line"].as_u64()).collect();
    assert_eq!(numbers, (1..=48).collect::<Vec<u64>>());
    replayed.expect(1, "workers: 2, restarts: 1");
    assert!(replayed.stderr.contains("failures: 4 (outcome_unknown 4)"), "{}", replayed.stderr);
    assert!(workers.values().all(|pid| is_gone(*pid)));
}

#[test]
fn a_replay_whose_workers_are_killed_at_random_loses_no_line() {
    let mut input = String::new();
    for number in 0..3000u64 {
        let tenant = format!("guild:{}", (number % 50) << 22);
        input += &format!("{}\n", String::from_utf8_lossy(&event(&tenant, "COUNT", "1")));
    }
    let args = ["replay", "-", "--workers", "2", "--templates", TEMPLATES, "--in-flight", "32"];
    let (running, mut stdin) = Running::start_open(mesophyll(&args));
    // The last thousand come after the last death, so that it cannot have ended before.
    let rest = input.split_off(input.match_indices('\n').nth(1999).expect("lines").0 + 1);
    let first = std::thread::spawn(move || stdin.write_all(input.as_bytes()).map(|()| stdin));
    let mut lines = Vec::new();
    for worker in [0, 1, 0] {
        // A few results between any two deaths.
        lines.extend((0..200).map(|_| running.next_line()));
        let pid = eventually("the worker runs", || workers_of(running.pid()).get(&worker).copied());
        process::signal(pid, Signal::KILL);
        eventually("it dies", || is_gone(pid).then_some(()));
    }
    let mut stdin = first.join().expect("it writes").expect("it reads");
    stdin.write_all(rest.as_bytes()).expect("it reads");
    drop(stdin);
    let mut replayed = running.wait();
    lines.append(&mut replayed.stdout);
    replayed.stdout = lines;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut unknown: BTreeMap<String, u64> = BTreeMap::new();
    for (at, line) in replayed.json().iter().enumerate() {
        assert_eq!(line["line"], at as u64 + 1);
        let tenant = line["tenant"].to_string();
        match line["ok"].as_u64() {
            Some(count) => {
                // One tenant's counts only grow, and skip no more than what may have run unseen.
                let before = counts.insert(tenant.clone(), count).unwrap_or(0);
                let unseen = unknown.remove(&tenant).unwrap_or(0);
                assert!(
                    count > before && count <= before + 1 + unseen,
                    "{before} + 1 + {unseen} then {line}"
                );
            }
            None => {
                expect_error(line, "outcome_unknown", true, "");
                *unknown.entry(tenant).or_default() += 1;
            }
        }
    }
    assert_eq!(replayed.stdout.len(), 3000);
    assert!(replayed.stderr.contains("restarts: 3"), "{}", replayed.stderr);
}

#[test]
fn a_master_that_is_killed_leaves_no_worker_behind() {
    let input = event(&guild_on(0, 2), "WAIT", r#"{"mark":0,"seconds":25}"#);
    let mut input = String::from_utf8(input).expect("UTF-8");
    // One worker waits, the other is busy with a loop that nothing but its own limit ends.
    input += &format!("\n{}", String::from_utf8_lossy(&event(&guild_on(1, 2), "LOOP", "1")));
    let running = replay_until_waiting(&[], input, 1);
    let workers = eventually("both workers run", || {
        Some(workers_of(running.pid())).filter(|workers| workers.len() == 2)
    });
    running.signal(Signal::KILL);
    within(ORPHANS_GONE, "no worker is left", || {
        workers.values().all(|pid| is_gone(*pid)).then_some(())
    });
    assert_eq!(running.wait().status.code(), None, "the signal ended it");
}

/// A replay that has one event in flight that takes long, three that are done, and more that have
/// to wait.
fn replay_that_hangs(args: &[&str]) -> Running {
    let wait = event(&guild_on(0, 2), "WAIT", r#"{"mark":0,"seconds":25}"#);
    // Each says when it runs.
    let rest = "\n{\"tenant\":\"guild:1\",\"name\":\"WAIT\",\"data\":{\"mark\":1,\"seconds\":0}}"
        .repeat(10);
    let input = String::from_utf8(wait).expect("UTF-8") + &rest;
    replay_until_waiting(&[&["--in-flight", "4"], args].concat(), input, 4)
}

/// What was started has its line, what was not has none.
fn expect_given_up(replayed: &Finished) {
    replayed.expect(1, "stopped by a signal");
    assert!(replayed.stderr.contains("4 events in "), "{}", replayed.stderr);
    assert_eq!(replayed.json()[0]["error"]["kind"], "outcome_unknown", "{replayed:?}");
    assert_eq!(replayed.stdout.len(), 4);
}

#[test]
fn a_signal_lets_a_replay_finish_what_it_began() {
    let running = replay_that_hangs(&["--stop-timeout", "2s"]);
    let workers = workers_of(running.pid());
    running.signal(Signal::TERM);
    let replayed = running.wait();
    expect_given_up(&replayed);
    assert_eq!(outcomes(&replayed)[1..], ["ok"; 3]);
    assert!(workers.len() == 2 && workers.values().all(|pid| is_gone(*pid)));
}

#[test]
fn a_second_signal_ends_a_replay_at_once() {
    let running = replay_that_hangs(&["--stop-timeout", "5m", "--log", "info"]);
    running.signal(Signal::TERM);
    running.wait_stderr("Terminate");
    running.signal(Signal::INT);
    expect_given_up(&running.wait());
}

#[test]
fn a_worker_that_is_frozen_is_ended_by_force_and_started_again() {
    let master = Master::start(&["--heartbeat-interval", "1s", "--workers", "1"]);
    master.wait_ready();
    let worker = workers_of(master.pid())[&0];
    std::thread::scope(|scope| {
        let lost =
            scope.spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"one","seconds":25}"#));
        master.running.wait_stderr("waiting one");
        process::signal(worker, Signal::STOP);
        let (status, body) = lost.join().expect("an answer");
        assert_eq!(
            (status, body["code"].as_str(), body["sent"].as_bool()),
            (502, Some("OutcomeUnknown"), Some(true))
        );
    });
    // What comes meanwhile waits for the worker, as long as its caller does.
    let (status, body) = master.dispatch_with("guild/1", "ECHO", "1", "?deadline_ms=300");
    assert_eq!(
        (status, body["code"].as_str(), body["sent"].as_bool()),
        (503, Some("NoWorker"), Some(false)),
        "{body}"
    );
    assert_eq!(master.dispatch("guild/1", "ECHO", "2"), (200, Value::from(2)));
    assert!(is_gone(worker), "a stopped process takes no TERM, but KILL");
    master.running.wait_stderr("worker 0 missed its heartbeats");
    master.running.wait_stderr(&format!("worker 0 (pid {worker}) ended: killed by signal 9"));
}

#[test]
fn a_master_gives_up_when_every_worker_fails_again_and_again() {
    give_up_after(5, &[]);
}

#[test]
fn an_operator_says_how_often_a_worker_may_fail() {
    give_up_after(2, &["--failures-a-minute", "2"]);
    give_up_after(1, &["--failures-in-a-row", "1"]);
}

fn give_up_after(kills: usize, options: &[&str]) {
    let master = Master::start(&[&["--workers", "1"], options].concat());
    for _ in 0..kills {
        let worker =
            eventually("the worker is started", || workers_of(master.pid()).get(&0).copied());
        process::signal(worker, Signal::KILL);
        eventually("it is reaped", || is_gone(worker).then_some(()));
    }
    master
        .running
        .wait()
        .expect(5, "no worker is left: each has failed too often; worker 0: killed by signal 9");
}
