//! `mesophyll replay` on real events: the same results whatever runs them, in input order, with a
//! summary.

use std::collections::BTreeMap;
use std::fmt::Write;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{
    Finished, RECORDED, Running, TEMPLATES, mesophyll, run, run_on, write,
};

/// A line without the time that it took, which is its last member.
fn without_ms(line: &str) -> &str {
    line.rsplit_once(",\"ms\":").unwrap_or_else(|| panic!("no ms: {line}")).0
}

fn lines(replayed: &Finished) -> Vec<&str> {
    replayed.stdout.iter().map(|line| without_ms(line)).collect()
}

/// The results of each tenant, sorted: what must not depend on who was faster.
fn results_by_tenant(replayed: &Finished) -> BTreeMap<String, Vec<String>> {
    let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in replayed.json() {
        assert_eq!(line.get("error"), None, "{line}");
        results.entry(line["tenant"].to_string()).or_default().push(line["ok"].to_string());
    }
    results.values_mut().for_each(|results| results.sort());
    results
}

#[test]
fn recorded_events_give_the_same_lines_in_every_mode() {
    let replay = |args: &[&str]| {
        let replayed = run(&[&["replay", RECORDED, "--in-flight", "1"], args].concat());
        replayed.expect(0, "22 events in ");
        replayed
    };
    let first = replay(&["--workers", "2"]);
    assert!(first.stderr.contains("failures: 0\n"), "{}", first.stderr);
    assert!(first.stderr.contains("latency: p50 "), "{}", first.stderr);
    assert!(first.stderr.contains("workers: 2, restarts: 0"), "{}", first.stderr);
    assert_eq!(first.stdout.len(), 22);
    for args in [
        &["--workers", "1"][..],
        &["--workers", "5"],
        &["--mode", "thread-pool", "--workers", "1"],
        &["--mode", "thread-pool", "--workers", "3"],
    ] {
        assert_eq!(lines(&replay(args)), lines(&first), "{args:?}");
    }
}

#[test]
fn events_in_flight_together_give_lines_in_input_order() {
    let one_by_one =
        run(&["replay", RECORDED, "--workers", "2", "--in-flight", "1", "--repeat", "4"]);
    let together =
        run(&["replay", RECORDED, "--workers", "2", "--in-flight", "64", "--repeat", "4"]);
    for replayed in [&one_by_one, &together] {
        replayed.expect(0, "88 events in ");
    }
    assert_eq!(results_by_tenant(&together), results_by_tenant(&one_by_one));
    let numbers: Vec<u64> =
        together.json().iter().filter_map(|line| line["line"].as_u64()).collect();
    assert_eq!(numbers, (1..=22).cycle().take(88).collect::<Vec<u64>>());
}

#[test]
fn a_guild_of_thousands_of_members_travels_whole() {
    let members: Vec<Value> = (0..9_000u64)
        .map(|number| {
            let user = json!({"id": (number << 22).to_string(), "username": format!("member-{number}"), "avatar": "a".repeat(32)});
            json!({
                "user": user, "nick": "n".repeat(32), "roles": ["249422519335911424", "302929192750940160", "1"],
                "joined_at": "2018-11-23T09:45:22.389000+00:00", "deaf": false, "mute": false, "pending": false, "flags": number % 4,
                "premium_since": null, "communication_disabled_until": null, "permissions": "104324161", "bio": "b".repeat(200),
            })
        })
        .collect();
    let data = json!({"id": "244567637332328449", "name": "Large", "members": members});
    let line =
        format!(r#"{{"tenant":"guild:244567637332328449","name":"GUILD_CREATE","data":{data}}}"#);
    assert!(line.len() > 5 << 20, "{} bytes", line.len());
    for mode in ["process-pool", "thread-pool"] {
        let replayed = run_on(&["replay", "-", "--workers", "1", "--mode", mode], line.clone());
        replayed.expect(0, "1 events in ");
        let result = replayed.json()[0]["ok"].to_string();
        assert!(result.contains("9000"), "{mode}: {result}");
    }
}

#[test]
fn events_reach_the_template_as_they_are() {
    let mut input = String::new();
    let data = [
        json!(null),
        json!({"text": "👍 \u{0}\u{7f} \"\\\n", "": {"nested": [1, [2, [3, {"four": null}]]]}}),
        json!([
            -1,
            0,
            1.5,
            -0.25,
            9007199254740991i64,
            -9007199254740991i64,
            9007199254740993i64,
            u64::MAX,
            i64::MIN,
            1e300
        ]),
        json!("x".repeat(100_000)),
        json!(true),
    ];
    for data in &data {
        writeln!(input, r#"{{"tenant":"user:1","name":"ECHO","data":{data}}}"#)
            .expect("a text grows");
    }
    for mode in ["process-pool", "thread-pool"] {
        let replayed = run_on(
            &["replay", "-", "--workers", "1", "--mode", mode, "--templates", TEMPLATES],
            input.clone(),
        );
        replayed.expect(0, "5 events in ");
        let echoed: Vec<Value> =
            replayed.json().into_iter().map(|mut line| line["ok"].take()).collect();
        assert_eq!(echoed, data, "{mode}");
    }
}

#[test]
fn an_input_without_events_is_replayed_with_success() {
    for input in ["", "\n\n  \n"] {
        let replayed = run_on(&["replay", "-", "--workers", "1"], input);
        replayed.expect(0, "0 events in ");
        assert_eq!(replayed.stdout, Vec::<String>::new());
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_replay_quietly() {
    let folder = TempDir::new();
    let line =
        r#"{"tenant":"guild:1","name":"ECHO","data":"0123456789012345678901234567890123456789"}"#;
    let events = write(folder.path(), "events.ndjson", format!("{line}\n").repeat(5000));
    let script = r#"{ "$0" replay "$1" --templates "$2" --workers 1 2>&3; echo "exit code $?" >&3; } 3>&2 | head -n 1"#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_mesophyll")]).arg(events).arg(TEMPLATES);
    let piped = Running::start(command).wait();
    assert_eq!(piped.stdout.len(), 1);
    assert!(piped.stderr.contains("exit code 0"), "{}", piped.stderr);
    assert!(
        !piped.stderr.contains("panicked") && !piped.stderr.contains("mesophyll: "),
        "{}",
        piped.stderr
    );
}

#[test]
fn results_and_signals_pass_while_the_input_is_silent() {
    use std::io::Write;
    let command = mesophyll(&["replay", "-", "--workers", "1", "--templates", TEMPLATES]);
    let (running, mut stdin) = Running::start_open(command);
    for number in 1..=2 {
        writeln!(stdin, r#"{{"tenant":"guild:1","name":"ECHO","data":{number}}}"#)
            .expect("it reads");
        assert!(running.next_line().contains(&format!(r#""ok":{number},"#)));
    }
    running.signal(Signal::INT);
    let replayed = running.wait();
    replayed.expect(1, "stopped by a signal");
    assert!(replayed.stderr.contains("2 events in "), "{}", replayed.stderr);
    drop(stdin);
}

#[test]
fn results_that_cannot_be_written_are_an_error_of_stdout() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut command = mesophyll(&["replay", RECORDED, "--workers", "1"]);
    command.stdout(full);
    let output = command.output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("mesophyll: stdout: "), "{stderr}");
}

#[test]
fn what_scripts_print_is_shown_in_both_modes_and_nothing_else() {
    let folder = TempDir::new();
    let main = "return function(ctx) print('one', 2, ctx:event().data) ctx.log:warn('a\\nb') ctx.log:debug('no') end";
    write(folder.path(), "main.luau", main);
    let templates = folder.path().to_str().expect("a plain path").to_owned();
    let event = r#"{"tenant":"guild:1","name":"E","data":"x"}"#;
    let replay = |args: &[&str]| {
        let replayed = run_on(
            &[&["replay", "-", "--workers", "1", "--templates", &templates], args].concat(),
            event,
        );
        replayed.expect(0, "1 events in ");
        replayed.stderr
    };
    for mode in ["process-pool", "thread-pool"] {
        let stderr = replay(&["--mode", mode]);
        for line in ["guild:1: one\t2\tx", "guild:1: WARN a\\nb"] {
            let shown = line.replace('\t', "\\t");
            assert!(
                stderr.lines().any(|one| one == shown || one == line),
                "{mode}: {line:?} is not in {stderr}"
            );
        }
        assert!(!stderr.contains("INFO") && !stderr.contains("guild:1: no"), "{mode}: {stderr}");
        let quiet = replay(&["--mode", mode, "--log", "warn"]);
        assert!(
            !quiet.contains("guild:1: one") && quiet.contains("guild:1: WARN a"),
            "{mode}: {quiet}"
        );
        let all = replay(&["--mode", mode, "--log", "debug"]);
        assert!(
            all.contains("guild:1: one") && all.contains("guild:1: no") && all.contains("INFO"),
            "{mode}: {all}"
        );
        let json = replay(&["--mode", mode, "--log", "info", "--log-format", "json"]);
        assert!(
            json.contains(r#""tenant":"guild:1""#) && !json.contains("\nguild:1: "),
            "{mode}: {json}"
        );
    }
}
