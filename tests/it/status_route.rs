//! `GET /i/status` of a real master, in both modes: the figures that the status page computes its
//! rates from.

use serde_json::{Value, json};

use rustix::process::Signal;

use crate::support::binary::{Master, Running, get_with, mesophyll, token};
use crate::support::process::eventually;

fn status(master: &Master) -> Value {
    let (status, body) = get_with(master.api(), "/i/status", &token(7));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The sum of a list of numbers.
fn sum(numbers: &Value) -> u64 {
    numbers.as_array().expect("a list").iter().filter_map(Value::as_u64).sum()
}

fn expect_figures(args: &[&str], mode: &str) {
    let master = Master::start(args);
    master.wait_ready();
    let before = status(&master);
    let told = json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": master.pid(), "mode": mode, "store": "memory", "external_workers": false,
    });
    assert_eq!(before["master"], told);
    assert_eq!((&before["errors"], &before["busiest"]["tenants"]), (&json!([]), &json!([])));
    for _ in 0..3 {
        // On worker 0 of two, and on worker 1.
        assert_eq!(master.dispatch("guild/8388608", "ECHO", "1").0, 200);
        assert_eq!(master.dispatch("guild/4194304", "FAIL", "1").0, 422);
    }
    let after = status(&master);
    assert!(after["at_ms"].as_u64() > before["at_ms"].as_u64(), "{after}");
    let workers = after["workers"].as_array().expect("a list");
    let outcomes: Vec<&Value> = workers.iter().map(|worker| &worker["outcomes"]).collect();
    assert_eq!(outcomes, [&json!({"ok": 3}), &json!({"script": 3})]);
    for worker in workers {
        assert_eq!(
            (worker["state"].as_str(), worker["in_flight"].as_u64()),
            (Some("ready"), Some(0)),
            "{worker}"
        );
        let latency = &worker["latency"];
        assert_eq!(sum(&latency["counts"]), 3, "{worker}");
        assert!(
            latency["counts"].as_array().is_some_and(|counts| counts.last() != Some(&json!(0))),
            "{worker}"
        );
        assert!(latency["sum_us"].as_u64().is_some_and(|us| us > 0));
    }
    let tenants = after["busiest"]["tenants"].as_array().expect("a list");
    let mut named: Vec<(&str, u64)> = tenants
        .iter()
        .map(|share| {
            (share["tenant"].as_str().expect("text"), share["events"].as_u64().expect("a number"))
        })
        .collect();
    named.sort_unstable();
    assert_eq!(named, [("guild:4194304", 3), ("guild:8388608", 3)]);
    assert_eq!(
        after["busiest"]["us"],
        tenants.iter().filter_map(|share| share["us"].as_u64()).sum::<u64>()
    );
    let [error] = after["errors"].as_array().expect("a list").as_slice() else {
        panic!("{}", after["errors"])
    };
    for (member, value) in [
        ("tenant", json!("guild:4194304")),
        ("event", json!("FAIL")),
        ("kind", json!("script")),
        ("count", json!(3)),
    ] {
        assert_eq!(error[member], value, "{error}");
    }
    // A second of waiting and next to no running.
    assert_eq!(master.dispatch("guild/8388608", "WAIT", r#"{"mark":"m","seconds":1}"#).0, 200);
    let busiest = eventually("the worker has told the running time", || {
        let busiest = status(&master)["busiest"].take();
        let is_told =
            |share: &Value| share["tenant"] == "guild:8388608" && share["us"].as_u64() > Some(0);
        busiest["tenants"].as_array()?.iter().any(is_told).then_some(busiest)
    });
    assert!(busiest["us"].as_u64().is_some_and(|us| us < 800_000), "waiting counts: {busiest}");
    assert_eq!(after.get("history"), None, "it is not asked for");
    eventually("what happened is in the history", || {
        let (status, body) = get_with(master.api(), "/i/status?history", &token(7));
        assert_eq!(status, 200, "{body}");
        let history: Value = serde_json::from_str::<Value>(&body).expect("JSON")["history"].take();
        let last = history.as_array()?.last()?.clone();
        (last["events"] == 7
            && last["failures"] == 3
            && sum(&last["counts"]) == 7
            && last["us"].as_u64() > Some(0))
        .then_some(())
    });
    assert_eq!(get_with(master.api(), "/i/status?history=maybe", &token(7)).0, 400);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("on purpose")), "{error}");
    assert!(
        !after.to_string().contains(master.folder.path().to_str().expect("a plain path")),
        "no path is told"
    );
}

#[test]
fn the_status_tells_what_worker_processes_did() {
    expect_figures(&[], "process-pool");
}

#[test]
fn the_status_of_a_master_with_worker_threads_tells_the_same() {
    expect_figures(&["--mode", "thread-pool"], "thread-pool");
}

#[test]
fn no_store_is_told_by_more_than_its_kind() {
    let folder = crate::support::TempDir::new();
    let path = folder.path().to_str().expect("a plain path").to_owned();
    let master = Master::start_in(folder, &[]);
    let told = status(&master);
    assert_eq!(told["master"]["store"], "redb");
    assert!(!told.to_string().contains(&path), "{told}");
}

#[test]
fn status_and_errors_are_told_at_a_terminal() {
    let master = Master::start(&["--workers", "2"]);
    master.wait_ready();
    master.command(&["errors"]).expect(0, "no errors");
    master.command(&["errors", "guild:4194304"]).expect(0, "no errors");
    assert_eq!(master.dispatch("guild/8388608", "ECHO", "1").0, 200);
    for _ in 0..2 {
        assert_eq!(master.dispatch("guild/4194304", "FAIL", "1").0, 422);
    }
    let shown = master.command(&["status"]);
    shown.expect(0, "");
    for says in
        ["store       memory", "workers     2 ready; 0 restarts", "dispatches  3: ok 1, script 2"]
    {
        assert!(
            shown.stdout.iter().any(|line| line.trim_end() == says),
            "{says:?} is not in {shown:?}"
        );
    }
    assert!(
        shown.stdout.iter().any(|line| line.starts_with("errors      1 different; the last ")),
        "{shown:?}"
    );
    assert_eq!(master.command(&["status", "--json"]).json()[0]["master"]["store"], "memory");
    let all = master.command(&["errors"]);
    let is_it = |line: &String| {
        line.contains("  2      guild:4194304  FAIL: ") && line.contains("on purpose")
    };
    assert!(all.stdout.len() == 2 && is_it(&all.stdout[1]), "{all:?}");
    // They are kept within a second.
    let kept = eventually("both are kept", || {
        let kept = master.command(&["errors", "guild:4194304"]);
        (kept.stdout.len() == 3).then_some(kept)
    });
    assert!(kept.stdout[1].contains("FAIL") && kept.stdout[1].contains("on purpose"), "{kept:?}");
    let json = master.command(&["errors", "guild:4194304", "--json"]).json();
    assert_eq!((json[0].as_array().map(Vec::len), &json[0][0]["event"]), (Some(2), &json!("FAIL")));
    master.command(&["errors", "role:1"]).expect(2, "role:1");
    master.command(&["errors", "guild:1", "guild:2"]).expect(2, "errors takes [TENANT] [--follow]");
}

#[test]
fn errors_that_come_are_followed_once_each() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    assert_eq!(master.dispatch("guild/5", "FAIL", "1").0, 422);
    for args in [&["errors", "--follow"][..], &["errors", "guild:5", "--follow"]] {
        let mut command = mesophyll(args);
        command
            .env("MESOPHYLL_INTERNAL_TOKEN", token(7))
            .env("MESOPHYLL_API", master.api().to_string());
        let following = Running::start(command);
        assert!(following.next_line().contains("FAIL"));
        assert_eq!(master.dispatch("guild/5", "FAIL", "2").0, 422);
        assert!(following.next_line().contains("FAIL"));
        following.signal(Signal::INT);
        following.wait().expect(0, "");
    }
}
