//! What scripts print, as those see it that look for it: real processes.

use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Finished, Master, Running, get, get_with, mesophyll, token, write};

const ONE: &str = "guild/4194304";

/// Has the tenant print lines with these numbers.
fn print(master: &Master, tenant: &str, text: &str, numbers: (u64, u64)) {
    let data = json!({ "text": text, "first": numbers.0, "last": numbers.1 }).to_string();
    assert_eq!(master.dispatch(tenant, "PRINT", &data), (200, json!("printed")));
}

/// Begins a command that talks to the master.
fn follow(master: &Master, args: &[&str]) -> Running {
    let mut command = mesophyll(args);
    command.env("MESOPHYLL_MASTER_API", master.api().to_string());
    command.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    Running::start(command)
}

/// What a line says behind its time.
fn untimed(line: &str) -> &str {
    line.split_once("Z ").unwrap_or_else(|| panic!("no time: {line}")).1
}

fn logs_of(master: &Master) {
    print(master, ONE, "before", (1, 2));
    print(master, "guild/8388608", "other", (1, 1));
    let kept = master.command(&["logs", "guild:4194304"]);
    kept.expect(0, "");
    let lines: Vec<_> = kept.stdout.iter().map(|line| untimed(line)).collect();
    assert_eq!(lines, ["guild:4194304: before\\t1", "guild:4194304: before\\t2"]);
    let follower = follow(master, &["logs", "guild:4194304", "--follow", "--json"]);
    let next = || serde_json::from_str::<Value>(&follower.next_line()).expect("JSON");
    let is_line = |line: Value, text: &str| {
        assert_eq!((&line["event"], &line["level"]), (&json!("line"), &json!("info")), "{line}");
        assert_eq!((&line["text"], &line["tenant"]), (&json!(text), &json!("guild:4194304")));
    };
    is_line(next(), "before\t1");
    is_line(next(), "before\t2");
    // A line is there when its event is answered, and comes to the follower by itself.
    for number in 1..=20 {
        print(master, ONE, "live", (number, number));
        is_line(next(), &format!("live\t{number}"));
    }
    // Each of a flood is shown or counted.
    print(master, ONE, "flood", (1, 1000));
    let (mut shown, mut missing) = (0, 0);
    while shown + missing < 1000 {
        let line = next();
        match (&line["lost"], line["text"].as_str()) {
            (Value::Number(lost), _) => missing += lost.as_u64().expect("a number"),
            (_, Some(text)) if text.starts_with("lines missing: ") => {
                let count = text["lines missing: ".len()..].split(',').next().expect("a number");
                missing += count.parse::<u64>().expect("a number");
            }
            (_, text) => {
                shown += 1;
                assert!(text.is_some_and(|text| text.starts_with("flood\t")), "{line}");
            }
        }
    }
    assert_eq!(shown + missing, 1000, "{shown} shown and {missing} missing");
    assert!(shown >= 50, "{shown}");
    let (_, figures) = get(master.api(), "/metrics");
    assert!(figures.contains("mesophyll_feed_readers 1"), "{figures}");
}

#[test]
fn logs_shows_and_follows_what_processes_print() {
    // What the log itself does not have.
    let master = Master::start(&["--workers", "2", "--log", "error"]);
    master.wait_ready();
    logs_of(&master);
}

#[test]
fn logs_shows_and_follows_what_threads_print() {
    let master = Master::start(&["--mode", "thread-pool", "--log", "error"]);
    master.wait_ready();
    logs_of(&master);
}

#[test]
fn logs_shows_what_a_worker_of_another_host_prints() {
    let folder = TempDir::new();
    let tokens = write(folder.path(), "tokens.json", "");
    std::fs::remove_file(&tokens).expect("removed");
    let tokens = tokens.to_str().expect("a plain path").to_owned();
    let args = ["--external-workers", "--worker-tokens", &tokens, "--workers", "1"];
    let master = Master::start(&args);
    let written = std::fs::read_to_string(&tokens).expect("tokens");
    let secret: Value = serde_json::from_str(&written).expect("JSON");
    let listen = master.listen().to_string();
    let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");
    let mut worker = mesophyll(&["worker", "--id", "0", "--workers", "1", "--master", &listen]);
    worker.args(["--templates", templates, "--default-events", "*", "--log", "error"]);
    worker.env("MESOPHYLL_CLIENT_TOKEN", secret["0"].as_str().expect("a token"));
    let worker = Running::start(worker);
    master.wait_ready();
    print(&master, ONE, "far", (1, 1));
    let kept = master.command(&["logs", "guild:4194304"]);
    let lines: Vec<_> = kept.stdout.iter().map(|line| untimed(line)).collect();
    assert_eq!(lines, ["guild:4194304: far\\t1"]);
    drop(worker);
}

fn run_script(mode: &str) {
    let master = Master::start(&["--mode", mode, "--log", "error"]);
    master.wait_ready();
    print(&master, "user/5", "before", (1, 1));
    let run = |code: &str| -> Finished {
        master.command_on(&["run-script", "user:5", "-", r#"{"n":2}"#], code)
    };
    let ran = run("local ctx = ... print('n is', ctx:event().data.n) ctx.log:warn('w') return 5");
    ran.expect(0, "");
    assert_eq!(
        (ran.stdout, &*ran.stderr),
        (vec!["5".to_owned()], "user:5: n is\\t2\nuser:5: WARN w")
    );
    let failed = run("print('so far') error('oops')");
    failed.expect(1, "oops");
    assert!(failed.stderr.starts_with("user:5: so far\n"), "{}", failed.stderr);
    assert_eq!(run("return 1").stderr, "", "what was logged before is not shown again");
}

#[test]
fn run_script_shows_what_a_process_prints() {
    run_script("process-pool");
}

#[test]
fn run_script_shows_what_a_thread_prints() {
    run_script("thread-pool");
}

#[test]
fn what_is_no_request_for_logs_is_refused() {
    let master = Master::start(&["--workers", "1"]);
    for (query, says) in [
        ("", "a feed is of"),
        ("?tenants=guild:1&topics=a", "unknown query parameter"),
        ("?tenants=guild:1&follow=perhaps", "is true or false"),
    ] {
        let (status, body) = get_with(master.api(), &format!("/i/logs{query}"), &token(7));
        assert!(status == 400 && body.contains(says), "{query}: {status} {body}");
    }
    assert_eq!(get(master.api(), "/i/logs?tenants=guild:1").0, 401);
    let empty = master.command(&["logs", "guild:1"]);
    empty.expect(0, "");
    assert!(empty.stdout.is_empty(), "{empty:?}");
    master.command(&["logs"]).expect(2, "logs takes TENANT");
}

#[cfg(feature = "postgres")]
mod masters {
    use super::*;
    use crate::support::cluster::{place, tenants_of};
    use crate::support::postgres::{self, Locale, Schema};

    #[test]
    fn any_master_shows_what_is_printed_at_another() {
        if !postgres::is_there("any_master_shows_what_is_printed_at_another") {
            return;
        }
        let schema = Schema::migrated(Locale::C);
        let start = |name: &str| {
            let master = Master::start_in(TempDir::new(), &place(&schema, name));
            master.wait_ready();
            master
        };
        let (one, two) = (start("one"), start("two"));
        let (here, there) = tenants_of(&one, &two);
        let name = there.replace('/', ":");
        print(&one, &there, "from afar", (1, 2));
        let kept = one.command(&["logs", &name]);
        let lines: Vec<_> = kept.stdout.iter().map(|line| untimed(line)).collect();
        let expected = [1, 2].map(|number| format!("{name}: from afar\\t{number}"));
        assert_eq!(lines, expected, "{kept:?}");
        let ran = one.command_on(&["run-script", &name, "-"], "print('hi') return 1");
        ran.expect(0, "");
        assert_eq!(ran.stderr, format!("{name}: hi"));
        let follower = follow(&one, &["logs", &name, "--follow"]);
        for expected in [&*expected[0], &*expected[1], &format!("{name}: hi")] {
            assert_eq!(untimed(&follower.next_line()), expected);
        }
        print(&two, &there, "live", (3, 3));
        assert_eq!(untimed(&follower.next_line()), format!("{name}: live\\t3"));
        // The tenant of the master that is asked is not mixed up with it.
        print(&two, &here, "other", (1, 1));
        let all = one.command(&["logs", &here.replace('/', ":")]);
        assert_eq!(all.stdout.len(), 1, "{all:?}");
    }
}
