//! What a master and its workers log: the level while it runs, and lines of JSON, whoever prints
//! and whatever is in them.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Finished, Master, get_with, put, run, run_on, token};
use crate::support::process::{eventually, signal, workers_of};

#[test]
fn a_changed_log_level_reaches_later_workers_too() {
    let master = Master::start(&["--log", "warn"]);
    master.wait_ready();
    let shown = master.command(&["log-level"]);
    assert_eq!((shown.code(), shown.stdout), (0, vec!["warn".to_owned()]));
    assert!(!master.running.stderr_so_far().contains("INFO"), "{}", master.running.stderr_so_far());

    let set = master.command(&["log-level", "info"]);
    assert_eq!((set.code(), set.stdout), (0, vec!["info".to_owned()]));
    master.running.wait_stderr("user 7 changes the log level from warn to info");
    // In the master, through each of its workers.
    for (_, pid) in workers_of(master.pid()) {
        eventually("the worker has it", || {
            let told =
                format!("(pid {pid}): [mesophyll::protocol::worker::client] the log level is info");
            master.running.stderr_so_far().contains(&told).then_some(())
        });
    }

    let killed = workers_of(master.pid())[&0];
    signal(killed, Signal::KILL);
    let next = eventually("another one", || {
        workers_of(master.pid()).get(&0).copied().filter(|pid| *pid != killed)
    });
    eventually("it has the level that it was not started with", || {
        let told =
            format!("(pid {next}): [mesophyll::protocol::worker::client] the log level is info");
        master.running.stderr_so_far().contains(&told).then_some(())
    });

    let shown = master.command(&["log-level", "ERROR", "--json"]);
    assert_eq!(shown.json(), [serde_json::json!({ "level": "error" })]);
    master.running.wait_stderr("user 7 changes the log level from info to error");
    master
        .command(&["log-level", "loud"])
        .expect(2, "a level is off, error, warn, info, debug or trace, not \"loud\"");
    master.command(&["log-level", "info", "debug"]).expect(2, "log-level takes [LEVEL]");
    master.stop().0.expect(0, "");
}

#[test]
fn in_thread_pool_mode_there_is_one_level() {
    let master = Master::start(&["--mode", "thread-pool", "--log", "error"]);
    master.command(&["log-level", "debug"]).expect(0, "");
    assert_eq!(
        get_with(master.api(), "/i/log-level", &token(7)),
        (200, r#"{"level":"debug"}"#.to_owned())
    );
    assert_eq!(master.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
    master.running.wait_stderr("/i/dispatch-event/guild/1");
    master.stop().0.expect(0, "");
}

#[test]
fn a_changing_log_level_loses_no_dispatch_under_load() {
    let master = Master::start(&["--log", "warn"]);
    master.wait_ready();
    let workers = workers_of(master.pid());
    std::thread::scope(|scope| {
        let dispatching = scope.spawn(|| {
            (0..300)
                .filter(|number| {
                    let (status, body) =
                        master.dispatch(&format!("guild/{number}"), "ECHO", &number.to_string());
                    (status, body) == (200, Value::from(*number))
                })
                .count()
        });
        let levels = ["debug", "off", "trace", "error"];
        for level in levels.iter().cycle().take(1000) {
            let body = format!(r#"{{"level":"{level}"}}"#);
            assert_eq!(put(master.api(), "/i/log-level", &token(7), &body).0, 204);
        }
        assert_eq!(dispatching.join().expect("joined"), 300);
    });
    assert_eq!(workers_of(master.pid()), workers, "nobody had to be started anew");
    // The last one counts, for the workers too. They have said so much that a line may have been
    // dropped: asked again.
    for pid in workers.values() {
        eventually("the worker has the last one", || {
            for level in ["error", "info"] {
                assert_eq!(
                    put(
                        master.api(),
                        "/i/log-level",
                        &token(7),
                        &format!(r#"{{"level":"{level}"}}"#)
                    )
                    .0,
                    204
                );
            }
            let told =
                format!("(pid {pid}): [mesophyll::protocol::worker::client] the log level is info");
            master.running.stderr_so_far().contains(&told).then_some(())
        });
    }
    master.stop().0.expect(0, "");
}

/// Every line of a log as JSON, with what each line has.
fn log_of(finished: &Finished) -> Vec<Value> {
    let lines = finished.stderr.lines().map(|line| {
        assert!(!line.contains(|char: char| char.is_control()), "{line:?}");
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let ts = value["ts"].as_str().unwrap_or_default();
        assert!(ts.len() == "2026-01-02T03:04:05.678901Z".len() && ts.ends_with('Z'), "{line}");
        for name in ["level", "role", "target", "message"] {
            assert!(value[name].is_string(), "{name}: {line}");
        }
        assert!(value["pid"].is_u64(), "{line}");
        value
    });
    lines.collect()
}

fn with_message<'l>(log: &'l [Value], text: &str) -> &'l Value {
    let found = log
        .iter()
        .find(|line| line["message"].as_str().is_some_and(|message| message.contains(text)));
    found.unwrap_or_else(|| panic!("no {text:?} in {log:#?}"))
}

#[test]
fn each_line_of_a_json_log_says_its_origin_and_subject() {
    let master = Master::start(&["--log-format", "json", "--log", "debug", "--workers", "1"]);
    master.wait_ready();
    let pid = workers_of(master.pid())[&0];
    let script = "local ctx = ... ctx.log:warn('a \"quoted\" \\\\ \\0 \\n ERROR forged', '\\xff\\xfe \\27[2J') return 1";
    let script = script.replace("\\\\", "\\");
    master.command_on(&["run-script", "guild:5", "-"], &script).expect(0, "");
    master.command(&["dispatch", "guild:5", "FAIL"]).expect(1, "on purpose");
    signal(pid, Signal::KILL);
    master.running.wait_stderr("killed by signal 9");
    let master_pid = master.pid();
    let (finished, _) = master.stop();
    finished.expect(0, "");
    let log = log_of(&finished);

    let said = with_message(&log, "forged");
    assert_eq!(
        (&said["role"], &said["pid"], &said["worker"]),
        (&"worker".into(), &pid.into(), &0.into())
    );
    assert_eq!(
        (&said["tenant"], &said["level"], &said["target"]),
        (&"guild:5".into(), &"warn".into(), &"tenant/guild:5".into())
    );
    // The master's line about the request and the worker's line about what it ran go by the same
    // name.
    let asked = with_message(&log, "POST /i/run-script/guild/5");
    assert_eq!((&asked["role"], &asked["pid"]), (&"master".into(), &master_pid.into()));
    assert_eq!((&asked["tenant"], &asked["request_id"]), (&"guild:5".into(), &said["request_id"]));
    assert_eq!(said["request_id"].as_str().map(str::len), Some(16), "{said}");
    assert!(
        with_message(&log, "422 ScriptError")["message"]
            .as_str()
            .expect("text")
            .contains("on purpose")
    );
    assert_eq!(with_message(&log, "connected to the master")["worker"], 0);
    let died = with_message(&log, "killed by signal 9");
    assert_eq!((&died["role"], &died["worker"]), (&"master".into(), &0.into()));
}

#[test]
fn lines_of_json_from_many_threads_and_processes_are_never_torn() {
    let master = Master::start(&["--log-format", "json", "--log", "debug"]);
    master.wait_ready();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let master = &master;
            scope.spawn(move || {
                for number in 0..50 {
                    let data = format!(
                        r#"{{"mark":"{thread}-{number} {}","seconds":0}}"#,
                        "x".repeat(number * 40)
                    );
                    assert_eq!(master.dispatch(&format!("guild/{thread}"), "WAIT", &data).0, 200);
                }
            });
        }
    });
    let (finished, _) = master.stop();
    let log = log_of(&finished);
    let said = log
        .iter()
        .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("waiting ")));
    assert_eq!(said.count(), 400, "each came, once");
}

#[test]
fn why_a_master_ends_is_a_line_of_its_log_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let args =
        ["master", "--listen", &address, "--api", "off", "--store", "memory:", "--log-format"];
    let ended = run(&[&args[..], &["json"]].concat());
    ended.expect(3, "");
    let log = log_of(&ended);
    assert_eq!((log.len(), &log[0]["level"]), (1, &"error".into()));
    with_message(&log, &format!("cannot listen on {address}"));
    run(&[&args[..], &["text"]].concat()).expect(3, "mesophyll: cannot listen on ");
}

#[test]
fn a_replay_logs_in_json_too_and_its_results_stay_as_they_are() {
    let args = ["replay", "-", "--log-format", "json", "--log", "debug", "--mode", "thread-pool"];
    let finished = run_on(&args, r#"{"tenant":"guild:1","name":"X","data":null}"#);
    assert_eq!((finished.code(), finished.json()[0]["line"].clone()), (0, Value::from(1)));
    let is_log = |line: &&str| line.starts_with('{');
    let log: Vec<Value> = finished
        .stderr
        .lines()
        .filter(is_log)
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert!(log.iter().all(|line| line["role"] == "replay"), "{log:?}");
    with_message(&log, "stopping");
}
