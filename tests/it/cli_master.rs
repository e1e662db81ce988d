//! `mesophyll master` as an operator and a service use it: its ready line, its API through real
//! sockets, its stop, what it keeps in files and what it keeps to itself.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use mesophyll::store::{Standing, StoreUrl};
use mesophyll::wire::data::TenantId;
use rustix::process::Signal;
use serde_json::Value;

use crate::metrics::Scrape;
use crate::support::TempDir;
use crate::support::binary::{
    Finished, Master, ONE_WORKER, Running, SECRET, TEMPLATES, get, mesophyll, post, run, run_on,
    token, try_post, write,
};
use crate::support::process::{
    self, children_of, command_line, cpu_ticks, environment, eventually, is_gone, own_port, within,
    workers_of,
};

/// Runs `mesophyll dispatch` against a master.
fn dispatch(master: &Master, token: &str, args: &[&str]) -> Finished {
    let api = master.api().to_string();
    let mut command = mesophyll(&[&["dispatch", "--api", &api], args].concat());
    command.env("MESOPHYLL_INTERNAL_TOKEN", token);
    Running::start(command).wait()
}

#[test]
fn a_master_is_ready_once_and_stops_with_its_workers() {
    let master = Master::start(&[]);
    let expected = format!(
        r#"{{"ready":true,"listen":"{}","api":"{}","workers":2,"pid":{}}}"#,
        master.listen(),
        master.api(),
        master.pid()
    );
    assert_eq!(master.line, expected);
    assert_eq!(get(master.api(), "/livez").0, 200);
    master.wait_ready();
    let workers = workers_of(master.pid());
    assert_eq!(workers.keys().copied().collect::<Vec<_>>(), [0, 1]);
    let (stopped, _) = master.stop();
    stopped.expect(0, "");
    assert_eq!(stopped.stdout, Vec::<String>::new(), "one line in all");
    assert!(workers.values().all(|pid| is_gone(*pid)));
}

#[test]
fn the_same_master_runs_its_workers_as_threads() {
    let master = Master::start(&["--mode", "thread-pool"]);
    assert_eq!(master.ready["listen"], Value::Null);
    master.wait_ready();
    assert!(children_of(master.pid()).is_empty());
    assert_eq!(master.dispatch("guild/1", "ECHO", "[1,2]"), (200, serde_json::json!([1, 2])));
    master.stop().0.expect(0, "");
}

#[test]
fn an_event_that_is_under_way_at_the_stop_is_still_answered() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode]);
        master.wait_ready();
        std::thread::scope(|scope| {
            let answered = scope
                .spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"last","seconds":1}"#));
            master.running.wait_stderr("waiting last");
            master.running.signal(Signal::TERM);
            assert_eq!(
                answered.join().expect("an answer"),
                (200, Value::from("waited last")),
                "{mode}"
            );
        });
        master.running.wait().expect(0, "");
    }
}

#[test]
fn an_event_that_outlives_the_stop_does_not_hold_it_up() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode, "--stop-timeout", "1s"]);
        master.wait_ready();
        let workers = workers_of(master.pid());
        std::thread::scope(|scope| {
            let unknown = scope
                .spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"long","seconds":25}"#));
            master.running.wait_stderr("waiting long");
            let before = Instant::now();
            master.running.signal(Signal::TERM);
            let (status, body) = unknown.join().expect("an answer");
            assert_eq!(
                (status, body["code"].as_str(), body["sent"].as_bool()),
                (502, Some("OutcomeUnknown"), Some(true))
            );
            assert!(before.elapsed() < Duration::from_secs(15), "{mode}: {:?}", before.elapsed());
        });
        let before = Instant::now();
        master.running.wait().expect(0, "");
        assert!(before.elapsed() < Duration::from_secs(15), "{mode}: {:?}", before.elapsed());
        assert!(workers.values().all(|pid| is_gone(*pid)));
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let master = Master::start(&["--stop-timeout", "5m"]);
    master.wait_ready();
    let workers = workers_of(master.pid());
    std::thread::scope(|scope| {
        let cut_off = scope.spawn(|| {
            let body = r#"{"name":"WAIT","data":{"mark":"long","seconds":25}}"#;
            try_post(master.api(), "/i/dispatch-event/guild/1", &token(1), body)
        });
        master.running.wait_stderr("waiting long");
        master.running.signal(Signal::TERM);
        master.running.wait_stderr("stopping: Terminate");
        let before = Instant::now();
        master.running.signal(Signal::INT);
        assert!(cut_off.join().expect("joined").is_err(), "nobody is left to answer");
        assert!(before.elapsed() < Duration::from_secs(20));
    });
    master.running.wait().expect(0, "stopping at once");
    within(Duration::from_secs(5), "no worker is left", || {
        workers.values().all(|pid| is_gone(*pid)).then_some(())
    });
}

#[test]
fn a_master_that_has_nothing_to_do_does_nothing() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode]);
        master.wait_ready();
        assert_eq!(master.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
        let processes: Vec<u32> =
            workers_of(master.pid()).into_values().chain([master.pid()]).collect();
        let ticks = || -> u64 { processes.iter().map(|pid| cpu_ticks(*pid)).sum() };
        let before = ticks();
        // Not to wait for anything, but to watch: processor time does not grow because the machine
        // is busy with others.
        let _ = never::<()>().recv_timeout(Duration::from_secs(1));
        assert!(
            ticks() - before < 20,
            "{mode}: {} ticks in a second of doing nothing",
            ticks() - before
        );
    }
}

#[test]
fn a_hangup_does_not_end_a_master() {
    let master = Master::start(&["--workers", "1"]);
    master.running.signal(Signal::HUP);
    master.running.wait_stderr("SIGHUP");
    assert_eq!(master.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
}

#[test]
fn the_dispatch_command_acts_for_the_user_of_its_token() {
    let master = Master::start(&[]);
    let mint = |options: &[&str]| {
        let mut mint =
            mesophyll(&[&["token", "--user", "42", "--expires", "5m"], options].concat());
        mint.env("MESOPHYLL_API_SECRET", SECRET);
        let minted = Running::start(mint).wait();
        minted.expect(0, "");
        minted.stdout[0].clone()
    };
    let token = &mint(&[]);
    // The workers may still be starting: the event waits for its own.
    let author = dispatch(&master, token, &["guild:1", "AUTHOR"]);
    author.expect(0, "");
    assert_eq!(author.stdout, [r#""42""#]);
    assert_eq!(
        dispatch(&master, token, &["user:1", "ECHO", r#"{"a":[1,null]}"#]).stdout,
        [r#"{"a":[1,null]}"#]
    );
    dispatch(&master, token, &["user:1", "ECHO", "--author", "42"]).expect(0, "");
    dispatch(&master, token, &["user:1", "ECHO", "--author", "43"])
        .expect(1, "mesophyll token --act-as-any");
    let other =
        dispatch(&master, &mint(&["--act-as-any"]), &["user:1", "AUTHOR", "--author", "43"]);
    other.expect(0, "");
    assert_eq!(other.stdout, [r#""43""#]);
    let nowait = dispatch(&master, token, &["user:1", "COUNT", "--nowait"]);
    nowait.expect(0, "");
    assert_eq!(nowait.stdout, Vec::<String>::new());
    assert_eq!(dispatch(&master, token, &["user:1", "COUNT"]).stdout, ["2"]);
    let failed = dispatch(&master, token, &["user:1", "FAIL"]);
    failed.expect(1, "ScriptError (422): ");
    assert!(!failed.stderr.contains("may have been done"), "{failed:?}");
    let late = dispatch(
        &master,
        token,
        &["user:1", "WAIT", r#"{"mark":1,"seconds":25}"#, "--deadline", "200ms"],
    );
    late.expect(1, "Deadline (504): ");
    assert!(late.stderr.contains("it may have been done all the same"), "{late:?}");
    dispatch(&master, "42.9999999999.00", &["user:1", "ECHO"]).expect(1, "InvalidToken (401): ");
}

#[test]
fn the_api_answers_with_the_statuses_of_the_contract() {
    let master = Master::start(&[]);
    let code =
        |(status, body): (u16, Value)| (status, body["code"].as_str().unwrap_or("none").to_owned());
    assert_eq!(master.dispatch("guild/1", "AUTHOR", "null"), (200, Value::from("7")));
    assert_eq!(
        master.dispatch("4194304", "ECHO", "\"short form\""),
        (200, Value::from("short form"))
    );
    assert_eq!(
        master.dispatch_with("user/1", "COUNT", "1", "?nowait=true"),
        (202, serde_json::json!({}))
    );
    assert_eq!(master.dispatch("user/1", "COUNT", "1"), (200, Value::from(2)));
    let wait = r#"{"mark":1,"seconds":25}"#;
    assert_eq!(
        code(master.dispatch_with("user/1", "WAIT", wait, "?deadline_ms=200")),
        (504, "Deadline".to_owned())
    );
    assert_eq!(code(master.dispatch("user/1", "FAIL", "1")), (422, "ScriptError".to_owned()));
    assert_eq!(code(master.dispatch("role/1", "ECHO", "1")), (400, "BadRequest".to_owned()));
    assert_eq!(code(master.dispatch("user/1", "ECHO", "{")), (400, "BadRequest".to_owned()));
    let large = format!("{:?}", "x".repeat(20 << 20));
    assert_eq!(code(master.dispatch("user/1", "ECHO", &large)), (413, "TooLarge".to_owned()));
    let path = "/i/dispatch-event/guild/1";
    for (given, expected) in
        [("", "InvalidToken"), ("1.2.3", "InvalidToken"), (&token(7)[1..], "InvalidToken")]
    {
        let (status, body) = post(master.api(), path, given, r#"{"name":"ECHO"}"#);
        assert_eq!((status, body.contains(expected)), (401, true), "{body}");
    }
    assert_eq!(get(master.api(), path).0, 405);
    assert_eq!(get(master.api(), "/i/nothing").0, 404);
    // Neither port answers for the other.
    assert_eq!(get(master.listen(), "/livez").0, 404);
    assert_eq!(get(master.api(), "/ws").0, 404);
}

#[test]
fn the_dispatch_command_says_that_the_tenant_is_not_subscribed() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode]);
        master.wait_ready();
        master.command(&["tenant", "subscribe", "guild:1", "ECHO"]).expect(0, "");
        let other = master.command(&["dispatch", "guild:1", "OTHER", "1"]);
        other.expect(0, "guild:1 is not subscribed to OTHER");
        assert!(
            other.stderr.contains("mesophyll tenant subscribe guild:1 OTHER"),
            "{}",
            other.stderr
        );
        assert_eq!(other.stdout, ["null"]);
        let echo = master.command(&["dispatch", "guild:1", "ECHO", "null"]);
        assert_eq!((echo.stdout, echo.stderr), (vec!["null".to_owned()], String::new()));
    }
}

#[test]
fn a_nowait_event_that_fails_is_told_in_the_log() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode]);
        assert_eq!(master.dispatch_with("guild/1", "FAIL", "1", "?nowait=true").0, 202);
        let line = master.running.wait_stderr("nobody waited for");
        assert!(
            line.contains("worker 0: 1 events")
                && line.ends_with("the last one for guild:1: script"),
            "{line}"
        );
    }
}

#[test]
fn an_event_passes_up_to_the_size_of_a_message() {
    let master = Master::start(&["--workers", "1"]);
    let length = (16 << 20) - 1024;
    let (status, body) = master.dispatch("guild/1", "BYTES", &format!("{:?}", "x".repeat(length)));
    assert_eq!((status, body), (200, Value::from(length)));
    let (status, _) = master.dispatch("guild/1", "BYTES", &format!("{:?}", "x".repeat(16 << 20)));
    assert_eq!(status, 413);
    assert_eq!(
        master.dispatch("guild/1", "ECHO", "1"),
        (200, Value::from(1)),
        "the link is still up"
    );
}

#[test]
fn readiness_follows_the_workers() {
    let folder = TempDir::new();
    let (templates, moved) = (folder.path().join("templates"), folder.path().join("moved"));
    std::fs::create_dir(&templates).expect("a folder");
    write(&templates, "main.luau", "return function() end");
    let templates_option = ["--templates", templates.to_str().expect("a plain path")];
    // While its templates are away no worker can start, however often it is tried: so there is time
    // to look.
    let patience = ["--workers", "1", "--failures-a-minute", "100", "--failures-in-a-row", "100"];
    let master = Master::start(&[&templates_option[..], &patience].concat());
    master.wait_ready();
    std::fs::rename(&templates, &moved).expect("moved");
    process::signal(workers_of(master.pid())[&0], Signal::KILL);
    let (_, body) = eventually("it is not ready without its worker", || {
        Some(get(master.api(), "/readyz?verbose")).filter(|(status, _)| *status == 503)
    });
    assert!(body.contains(r#""code":"NoWorker""#), "{body}");
    std::fs::rename(&moved, &templates).expect("moved back");
    master.wait_ready();
}

#[test]
fn without_a_secret_a_token_is_printed_once() {
    let running = Running::start(mesophyll(&ONE_WORKER));
    let line = running.wait_stderr("no MESOPHYLL_API_SECRET");
    let token = line.rsplit(' ').next().expect("a token").to_owned();
    let ready: Value = serde_json::from_str(&running.next_line()).expect("a ready line");
    let api = ready["api"].as_str().expect("an address").parse().expect("an address");
    let answer = post(api, "/i/dispatch-event/guild/1", &token, r#"{"name":"AUTHOR"}"#);
    assert_eq!(answer, (200, "\"0\"".to_owned()));
    running.signal(Signal::TERM);
    let stopped = running.wait();
    assert_eq!(stopped.stderr.matches(&token).count(), 1, "{stopped:?}");
    assert!(!stopped.stdout.iter().any(|line| line.contains(&token)));
}

#[test]
fn what_templates_keep_survives_a_restart_of_the_master() {
    let mut folder = TempDir::new();
    for round in 1..=3u64 {
        let master = Master::start_in(folder, &[]);
        for guild in [1u64, 1 << 22] {
            assert_eq!(
                master.dispatch(&format!("guild/{guild}"), "COUNT", "1"),
                (200, Value::from(round))
            );
        }
        let (stopped, kept) = master.stop();
        stopped.expect(0, "");
        folder = kept;
    }
}

#[test]
fn what_was_acknowledged_survives_the_kill_of_a_master() {
    let mut folder = TempDir::new();
    let mut count = 0;
    for _ in 0..2 {
        let mut master = Master::start_in(folder, &["--workers", "1"]);
        for _ in 0..5 {
            count += 1;
            assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(count)));
        }
        master.running.signal(Signal::KILL);
        folder = std::mem::replace(&mut master.folder, TempDir::new());
    }
}

#[test]
fn two_masters_do_not_share_a_store() {
    let master = Master::start_in(TempDir::new(), &["--workers", "1"]);
    let store = format!("redb:{}", master.folder.path().join("store.redb").display());
    let second =
        run(&["master", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--store", &store]);
    second.expect(4, "store: ");
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(1)));
}

#[test]
fn workers_that_somebody_else_starts_attach_with_their_tokens() {
    let folder = TempDir::new();
    let file = folder.path().join("tokens.json");
    let file = file.to_str().expect("a plain path");
    // Its port is to be free again when it comes back to it.
    let listen = format!("127.0.0.1:{}", own_port());
    let args =
        ["--external-workers", "--worker-tokens", file, "--workers", "2", "--listen", &listen];
    let master = Master::start(&args);
    assert!(children_of(master.pid()).is_empty());
    assert_eq!(std::fs::metadata(file).expect("written").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(file).expect("readable");
    let tokens: Value = serde_json::from_str(&text).expect("JSON");
    let worker = |id: &str, workers: &str, token: &str| {
        let args = [
            "worker",
            "--id",
            id,
            "--workers",
            workers,
            "--master",
            &listen,
            "--templates",
            TEMPLATES,
        ];
        let mut command =
            mesophyll(&[&args[..], &["--default-events", "*", "--log", "info"]].concat());
        command.env("MESOPHYLL_CLIENT_TOKEN", token);
        Running::start(command)
    };
    let token = |id: &str| tokens[id].as_str().expect("a token").to_owned();
    assert!(token("0").len() == 64 && token("0") != token("1"));

    let wrong = worker("0", "2", &token("1")).wait();
    wrong.expect(3, "the master refuses this worker (401): wrong token");
    assert!(!wrong.stderr.contains(&token("1")) && !wrong.stderr.contains(&token("0")));
    worker("0", "3", &token("0")).wait().expect(3, "this master has 2 workers");
    worker("7", "8", &token("0"))
        .wait()
        .expect(3, "the master refuses this worker (404): unknown worker id");
    let (status, _) = master.dispatch_with("guild/1", "ECHO", "1", "?deadline_ms=100");
    assert_eq!(status, 503);
    // The master's own operator learns of it, too.
    let said = master.running.wait_stderr("a worker at 127.0.0.1:");
    assert!(said.contains("was refused (401): wrong token; 1 so far"), "{said}");
    for reason in ["token", "workers", "unknown_id"] {
        let refused =
            Scrape::of(&master).sum("mesophyll_workers_refused_total", &[&format!("\"{reason}\"")]);
        assert!(refused >= 1.0, "{reason}");
    }

    let (first, second) = (worker("0", "2", &token("0")), worker("1", "2", &token("1")));
    master.wait_ready();
    for guild in ["guild/1", "guild/4194304"] {
        assert_eq!(master.dispatch(guild, "COUNT", "1"), (200, Value::from(1)));
    }
    // A newer one takes the place of an older one, which ends instead of fighting for it.
    let newer = worker("0", "2", &token("0"));
    let replaced = first.wait();
    replaced.expect(0, "a newer worker has taken this id");
    newer.wait_stderr("connected to the master as worker 0 of 2");
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(2)));
    second.signal(Signal::TERM);
    second.wait().expect(0, "");
    assert_eq!(
        master.dispatch("guild/1", "COUNT", "1"),
        (200, Value::from(3)),
        "the other one serves on"
    );

    // One that was stopped is let in again, though nobody here starts its process.
    let staff = crate::support::binary::token(7);
    assert_eq!(post(master.api(), "/i/kill-worker/0", &staff, "").0, 204);
    let restarted = master.command(&["restart", "0"]);
    restarted.expect(0, "");
    assert_eq!(restarted.stdout, ["worker 0 is ready again"]);
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, Value::from(4)));

    // The master goes and comes back at the same port with the same tokens: the worker finds it.
    master.stop().0.expect(0, "");
    let again = Master::start(&args);
    assert_eq!(std::fs::read_to_string(file).expect("readable"), text);
    assert_eq!(again.dispatch("guild/1", "ECHO", "1"), (200, Value::from(1)));
    newer.signal(Signal::INT);
    newer.wait().expect(0, "");
}

#[test]
fn a_worker_starts_with_few_variables_and_a_hidden_token() {
    let master = Master::start(&[]);
    master.wait_ready();
    let workers = workers_of(master.pid());
    assert_eq!(workers.len(), 2);
    let mut secrets = vec![SECRET.to_owned(), token(7)];
    for pid in workers.values() {
        let environment = environment(*pid);
        let ours = ["MESOPHYLL_CLIENT_TOKEN", "MESOPHYLL_BROKER", "MESOPHYLL_SANDBOX"];
        let allowed = [&["PATH", "TZ", "LANG", "RUST_BACKTRACE"], &ours[..]].concat();
        let names: Vec<&String> =
            environment.keys().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(names.is_empty(), "{names:?}");
        let token = &environment["MESOPHYLL_CLIENT_TOKEN"];
        assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(
            environment.get("PATH").map(String::as_str),
            std::env::var("PATH").ok().as_deref()
        );
        secrets.push(token.clone());
    }
    assert_ne!(secrets[2], secrets[3]);
    for pid in workers.values().copied().chain([master.pid()]) {
        let line = command_line(pid).join(" ");
        assert!(!secrets.iter().any(|secret| line.contains(secret.as_str())), "{line}");
    }
    let (stopped, _) = master.stop();
    assert!(!secrets.iter().any(|secret| stopped.stderr.contains(secret.as_str())), "{stopped:?}");
}

#[test]
fn a_master_whose_log_nobody_reads_any_more_goes_on() {
    for format in ["text", "json"] {
        nobody_reads_the_log(format);
    }
}

fn nobody_reads_the_log(format: &str) {
    let mut command =
        mesophyll(&[&ONE_WORKER[..], &["--log", "debug", "--log-format", format]].concat());
    command.env("MESOPHYLL_API_SECRET", SECRET);
    let mut running = Running::start(command);
    let ready: Value = serde_json::from_str(&running.next_line()).expect("a ready line");
    let api = ready["api"].as_str().expect("an address").parse().expect("an address");
    let ask = |data: u64| {
        post(
            api,
            "/i/dispatch-event/guild/1",
            &token(1),
            &format!(r#"{{"name":"ECHO","data":{data}}}"#),
        )
    };
    assert_eq!(ask(1), (200, "1".to_owned()));
    running.close_stderr();
    // Everything that logs: the link's threads, the supervisor, the API, the worker.
    let worker = workers_of(running.pid())[&0];
    process::signal(worker, Signal::KILL);
    // What is sent before the master notices may be lost with the worker.
    let (_, body) =
        eventually("the next worker answers", || Some(ask(2)).filter(|(status, _)| *status == 200));
    assert_eq!(body, "2");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), 0);
}

#[test]
fn a_banned_tenant_is_refused_in_a_replay_too() {
    let folder = TempDir::new();
    let file = folder.path().join("store.redb");
    let store = mesophyll::store::open(&StoreUrl::Redb(file.clone())).expect("a new store");
    store.set_standing(TenantId::Guild(1), Standing::Banned).expect("banned");
    store.close();
    drop(store);
    for mode in ["process-pool", "thread-pool"] {
        let store = format!("redb:{}", file.display());
        let lines = r#"{"tenant":"guild:1","name":"ECHO","data":1}
{"tenant":"user:1","name":"ECHO","data":2}
"#;
        let args = [
            "replay",
            "-",
            "--mode",
            mode,
            "--workers",
            "1",
            "--templates",
            TEMPLATES,
            "--store",
            &store,
        ];
        let replayed = run_on(&args, lines);
        let results = replayed.json();
        assert_eq!((replayed.code(), results.len()), (1, 2), "{replayed:?}");
        assert_eq!(
            (&results[0]["error"]["kind"], &results[0]["error"]["sent"]),
            (&"refused".into(), &false.into())
        );
        assert_eq!(results[1]["ok"], 2);
    }
    let master = Master::start_in(folder, &[]);
    let (status, body) = master.dispatch("guild/1", "ECHO", "1");
    assert_eq!(
        (status, &body["code"], &body["sent"]),
        (403, &"Banned".into(), &false.into()),
        "{body}"
    );
    assert_eq!(master.dispatch_with("guild/1", "ECHO", "1", "?nowait=true").0, 403);
    assert_eq!(master.dispatch("user/1", "ECHO", "2"), (200, 2.into()));
    let refused = dispatch(&master, &token(7), &["guild:1", "ECHO"]);
    refused.expect(1, "banned");
    master.stop().0.expect(0, "");
}
