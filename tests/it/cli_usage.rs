//! Command lines, files and addresses that are wrong: each a clear error with the exit code of the
//! contract, and nothing touched that was there before.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::TempDir;
use crate::support::binary::{Running, mesophyll, run, write};
use crate::support::process::own_port;

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];

fn master(args: &[&str]) -> Vec<String> {
    ["master"].iter().chain(&FREE).chain(args).map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_command_line_that_makes_no_sense_is_wrong_usage() {
    for (args, says) in [
        (&["sing"][..], "unknown command sing"),
        (&[], "a command is missing"),
        (&["replay"], "replay takes one FILE"),
        (&["replay", "a", "b"], "replay takes one FILE"),
        (&["replay", "a", "--wrokers", "2"], "unknown option --wrokers"),
        (&["replay", "a", "--workers"], "--workers needs a value"),
        (&["replay", "a", "--workers", "none"], "--workers is a number from 1 to"),
        (&["replay", "a", "--in-flight", "0"], "--in-flight is a number from 1 to"),
        (&["replay", "a", "--mode", "fibers"], "--mode is process-pool or thread-pool"),
        (&["replay", "-", "--repeat", "2"], "--repeat needs a FILE"),
        (&["replay", "a", "--external-workers"], "unknown option --external-workers"),
        (&["master", "extra"], "unexpected \"extra\""),
        (
            &["master", "--external-workers", "--mode", "thread-pool"],
            "--external-workers makes no sense",
        ),
        (
            &["master", "--recycle-age", "1h", "--mode", "thread-pool"],
            "--recycle-age makes no sense",
        ),
        (
            &["master", "--recycle-memory", "9", "--external-workers"],
            "--recycle-memory makes no sense",
        ),
        (
            &["replay", "a", "--recycle-events", "9", "--mode", "thread-pool"],
            "--recycle-events makes no sense",
        ),
        (
            &["master", "--hang-timeout", "9s", "--mode", "thread-pool"],
            "--hang-timeout makes no sense",
        ),
        (
            &["replay", "a", "--quarantine-after", "9", "--mode", "thread-pool"],
            "--quarantine-after makes no sense",
        ),
        (
            &["master", "--failures-a-minute", "9", "--mode", "thread-pool"],
            "--failures-a-minute makes no sense",
        ),
        (
            &["master", "--failures-in-a-row", "9", "--mode", "thread-pool"],
            "--failures-in-a-row makes no sense",
        ),
        (&["master", "--deadline", "5"], "--deadline is a span of time"),
        (&["master", "--listen", "nowhere"], "--listen is an address"),
        (&["worker", "--workers", "2", "--master", "127.0.0.1:1"], "--id is missing"),
        (
            &["worker", "--id", "2", "--workers", "2", "--master", "127.0.0.1:1"],
            "--id must be below --workers",
        ),
        (&["worker", "--id", "0", "--workers", "2"], "--master is missing"),
        (&["dispatch", "guild:1"], "dispatch takes TENANT EVENT [DATA]"),
        (&["dispatch", "role:1", "E"], "role:1"),
        (&["dispatch", "guild:1", "E", "{"], "DATA is not JSON"),
        (&["token"], "--user is missing"),
        (&["token", "--user", "me"], "--user is a Discord id"),
    ] {
        run(args).expect(2, says);
    }
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "master",
        "worker",
        "replay",
        "dispatch",
        "message",
        "run-script",
        "drop-tenant",
        "tenant",
        "template",
        "kv",
        "global-kv",
        "token",
        "migrate",
        "store",
        "check",
        "types",
    ];
    for command in commands {
        let help = run(&[command, "--help"]);
        help.expect(0, "");
        assert!(
            help.stdout.iter().any(|line| line.starts_with(&format!("Usage: mesophyll {command}"))),
            "{help:?}"
        );
    }
    run(&["--help"]).expect(0, "");
}

#[test]
fn bad_configuration_is_told_from_bad_usage() {
    let folder = TempDir::new();
    let environment = |name: &str, value: &str, args: &[&str]| {
        let mut command = mesophyll(args);
        command.env(name, value).current_dir(folder.path());
        Running::start(command).wait()
    };
    environment("MESOPHYLL_WORKERS", "0", &["replay", "-"])
        .expect(3, "MESOPHYLL_WORKERS is a number from 1 to");
    environment("MESOPHYLL_LOG", "loud", &["replay", "-"]).expect(3, "MESOPHYLL_LOG is off, error");
    environment("MESOPHYLL_API_SECRET", "short", &["token", "--user", "1"])
        .expect(3, "MESOPHYLL_API_SECRET: ");
    let short = environment(
        "MESOPHYLL_API_SECRET",
        "a short secret",
        &["master", "--api", "127.0.0.1:0", "--store", "memory:"],
    );
    short.expect(3, "MESOPHYLL_API_SECRET: ");
    assert!(!short.stderr.contains("a short secret"), "{short:?}");
    run(&["token", "--user", "1"]).expect(3, "MESOPHYLL_API_SECRET is not set");
    run(&["dispatch", "guild:1", "E"]).expect(3, "no token: set MESOPHYLL_INTERNAL_TOKEN");
    run(&["dispatch", "guild:1", "E", "--token-file", "/nowhere"])
        .expect(3, "--token-file /nowhere");
    run(&["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"])
        .expect(3, "MESOPHYLL_CLIENT_TOKEN is not set");
    run(&["replay", "/nowhere.ndjson"]).expect(3, "/nowhere.ndjson: ");
    run(&["replay", "/"]).expect(3, "/: ");
    run(&["replay", "-", "--templates", "/nowhere"])
        .expect(3, "--templates: there is no directory /nowhere");
    run(&["replay", "-", "--store", "mysql://db"]).expect(3, "--store: ");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0,
        "nothing was written"
    );
}

#[test]
fn nobody_to_dispatch_to_is_a_failed_request() {
    let address = format!("127.0.0.1:{}", own_port());
    let mut command = mesophyll(&["dispatch", "guild:1", "E", "--api", &address]);
    command.env("MESOPHYLL_INTERNAL_TOKEN", "1.2.3");
    let finished = Running::start(command).wait();
    finished.expect(1, &format!("no answer from http://{address}"));
    assert!(!finished.stderr.contains("1.2.3"));
}

#[test]
fn a_port_in_use_is_named_and_the_store_stays_as_it_is() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = TempDir::new();
    let store = format!("redb:{}", folder.path().join("store.redb").display());
    for option in ["--listen", "--api"] {
        let other = if option == "--listen" { "--api" } else { "--listen" };
        let finished = run(&[
            "master",
            option,
            &address,
            other,
            "127.0.0.1:0",
            "--store",
            &store,
            "--workers",
            "1",
        ]);
        finished.expect(3, &format!("cannot listen on {address}: "));
        assert!(!folder.path().join("store.redb").exists());
        assert_eq!(finished.stdout, Vec::<String>::new(), "no ready line");
    }
}

#[test]
fn a_bad_token_file_is_named_and_its_tokens_are_not() {
    let folder = TempDir::new();
    let token = "a1".repeat(32);
    let good = format!(r#"{{"0": "{token}"}}"#);
    for (name, content, mode, says) in [
        ("open.json", good.as_str(), 0o644, "others can read it (mode 644)"),
        ("group.json", &good, 0o640, "others can read it (mode 640)"),
        ("syntax.json", &good[..40], 0o600, "it is not JSON of the form"),
        ("list.json", &format!(r#"["{token}"]"#), 0o600, "it is not JSON of the form"),
        (
            "more.json",
            &format!(r#"{{"0": "{token}", "1": "{token}"}}"#),
            0o600,
            "it has a token of worker 1, which is none of the workers here",
        ),
        ("none.json", "{}", 0o600, "it has no token of worker 0"),
        ("short.json", r#"{"0": "abc"}"#, 0o600, "a token is 64 letters and digits"),
    ] {
        let path = write(folder.path(), name, content);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        let args = [
            "--store",
            "memory:",
            "--workers",
            "1",
            "--worker-tokens",
            text(&path),
            "--external-workers",
        ];
        let finished = run(&master(&args));
        finished.expect(3, says);
        assert!(finished.stderr.contains(name), "{finished:?}");
        assert!(!finished.stderr.contains(&token[..10]), "{finished:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), content);
    }
    let nowhere = folder.path().join("nowhere/tokens.json");
    run(&master(&["--store", "memory:", "--worker-tokens", text(&nowhere)]))
        .expect(3, "--worker-tokens ");
}

#[test]
fn a_store_that_cannot_be_opened_has_its_own_exit_code() {
    let folder = TempDir::new();
    for (name, content) in
        [("text.redb", "this is not a store\n".repeat(1000)), ("short.redb", "x".to_owned())]
    {
        let path = write(folder.path(), name, &content);
        let finished =
            run(&master(&["--store", &format!("redb:{}", text(&path)), "--workers", "1"]));
        finished.expect(4, "store: ");
        assert_eq!(finished.stdout, Vec::<String>::new(), "no ready line");
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), content);
    }
    let nowhere = format!("redb:{}", text(&folder.path().join("nowhere/store.redb")));
    run(&master(&["--store", &nowhere])).expect(4, "store: ");
    run(&master(&["--store", &format!("redb:{}", text(folder.path()))])).expect(4, "store: ");
}

#[test]
fn a_store_is_checked_and_copied_while_no_master_has_it() {
    let folder = TempDir::new();
    let (file, copy) = (folder.path().join("store.redb"), folder.path().join("copy.redb"));
    let url = format!("redb:{}", text(&file));
    let store = |words: &[&str]| run(&[&["store", "--store", &url], words].concat());
    store(&["check"]).expect(4, "no such file");
    store(&["sing"]).expect(2, "store takes");
    let open = mesophyll::store::open(&url.parse().expect("a store")).expect("made");
    store(&["check"]).expect(4, "in use");
    open.close();
    drop(open);
    let checked = store(&["check"]);
    assert_eq!((checked.code(), checked.stdout), (0, vec!["nothing found".to_owned()]));
    store(&["backup", text(&copy)]).expect(0, "");
    store(&["backup", text(&copy)]).expect(3, "exists");
    assert_eq!(std::fs::metadata(&copy).expect("there").permissions().mode() & 0o777, 0o600);
    run(&["store", "check", "--store", "postgres://me:hunter2@127.0.0.1/db"]).expect(3, "pg_dump");
    // Another program's file is left alone.
    let foreign = write(folder.path(), "foreign.redb", "something else");
    run(&["store", "check", "--store", &format!("redb:{}", text(&foreign))])
        .expect(4, "not a store of ours");
    assert_eq!(std::fs::read(&foreign).expect("there"), b"something else");
}

#[test]
fn a_misspelt_word_is_answered_with_the_one_that_was_meant() {
    for (args, says) in [
        (&["wrokers"][..], "unknown command wrokers; did you mean workers?"),
        (&["master", "--wrokers", "2"], "unknown option --wrokers; did you mean --workers?"),
        (
            &["kv", "get", "guild:1", "k", "--scopes=a"],
            "unknown option --scopes; did you mean --scope?",
        ),
        (&["token", "--usr", "1"], "unknown option --usr; did you mean --user?"),
        (&["sing\u{1b}[2J"], "unknown command sing\\u{1b}[2J; mesophyll --help lists the commands"),
    ] {
        run(args).expect(2, says);
    }
    let mut command = mesophyll(&["check", "--templates"]);
    command.arg(OsStr::from_bytes(b"/tmp/\xff"));
    Running::start(command).wait().expect(2, "/tmp/\u{fffd} is not UTF-8 text");
}

#[test]
fn an_unknown_variable_is_one_warning_without_its_value() {
    let secret = "hunter2hunter2hunter2";
    let with = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = mesophyll(args);
        command.envs(variables.iter().copied());
        Running::start(command).wait()
    };
    // In the log of what has one, at the terminal of what has none.
    for args in [&["token", "--user", "1"][..], &["replay", "-", "--mode", "thread-pool"]] {
        let misspelt = [
            ("MESOPHYLL_API_SECRTE", secret),
            ("MESOPHYLL_TEST_X", "1"),
            ("MESOPHYLL_SCOPE", "known"),
        ];
        let finished = with(args, &misspelt);
        let says = "no command knows the variable MESOPHYLL_API_SECRTE; did you mean MESOPHYLL_API_SECRET?";
        assert_eq!(finished.stderr.matches(says).count(), 1, "{finished:?}");
        assert_eq!(finished.stderr.matches("no command knows").count(), 1, "{finished:?}");
        assert!(!finished.stderr.contains(secret), "{finished:?}");
    }
    let mut many: Vec<(String, String)> =
        (0..10_000).map(|n| (format!("MESOPHYLL_X{n}"), secret.to_owned())).collect();
    many.push((format!("MESOPHYLL_{}", "W".repeat(100_000)), secret.to_owned()));
    many.push(("MESOPHYLL_\u{1b}[2J\nERROR".to_owned(), secret.to_owned()));
    let mut command = mesophyll(&["token", "--user", "1", "--help"]);
    command.envs(many.iter().map(|(name, value)| (name, value)));
    assert_eq!(Running::start(command).wait().stderr, "", "no warning where there is help");
    let mut command = mesophyll(&["token", "--user", "1"]);
    command.envs(many);
    let finished = Running::start(command).wait();
    finished.expect(3, "9982 more variables MESOPHYLL_… that no command knows");
    assert!(finished.stderr.len() < 10_000, "{}", finished.stderr.len());
    assert!(
        !finished.stderr.contains(secret) && !finished.stderr.contains('\u{1b}'),
        "{finished:?}"
    );
}

#[test]
fn an_environment_that_is_no_text_is_told() {
    let broken = OsStr::from_bytes(b"hunter2\xff");
    let with = |variable: &str, args: &[&str]| {
        let mut command = mesophyll(args);
        command.env(variable, broken).env(OsStr::from_bytes(b"MESOPHYLL_\xfe"), broken);
        let finished = Running::start(command).wait();
        assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
        finished
    };
    with("MESOPHYLL_WORKERS", &["replay", "-"])
        .expect(3, "MESOPHYLL_WORKERS: its value is not UTF-8 text");
    with("MESOPHYLL_INTERNAL_TOKEN", &["workers"])
        .expect(3, "MESOPHYLL_INTERNAL_TOKEN is not UTF-8 text");
    with(
        "MESOPHYLL_CLIENT_TOKEN",
        &["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"],
    )
    .expect(3, "MESOPHYLL_CLIENT_TOKEN: a token is letters and digits");
    // A secret is bytes. This one is too short, and not missing.
    with("MESOPHYLL_API_SECRET", &["token", "--user", "1"]).expect(3, "MESOPHYLL_API_SECRET: ");
    with("MESOPHYLL_STRANGE", &["check"])
        .expect(2, "no command knows the variable MESOPHYLL_\u{fffd}");
}

#[test]
fn white_space_is_refused_in_secrets_and_cut_off_tokens() {
    let with = |variable: &str, value: &str, args: &[&str]| {
        let mut command = mesophyll(args);
        command.env(variable, value);
        Running::start(command).wait()
    };
    let secret = "a secret of at least thirty-two bytes";
    for spaced in [
        format!("{secret}\n"),
        format!(" {secret}"),
        format!("{secret}\r\n"),
        format!("{secret}\t"),
    ] {
        for args in [
            &["token", "--user", "1"][..],
            &["master", "--store", "memory:", "--api", "127.0.0.1:0"],
        ] {
            let refused = with("MESOPHYLL_API_SECRET", &spaced, args);
            refused.expect(3, "MESOPHYLL_API_SECRET: it begins or ends with white space");
            assert!(!refused.stderr.contains("thirty-two"), "{refused:?}");
        }
    }
    with("MESOPHYLL_API_SECRET", secret, &["token", "--user", "1"]).expect(0, "");
    let worker =
        ["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1", "--check-config"];
    let token = "a".repeat(64);
    with("MESOPHYLL_CLIENT_TOKEN", &format!(" {token}\r\n"), &worker).expect(0, "");
    with("MESOPHYLL_CLIENT_TOKEN", &format!("{token} {token}"), &worker)
        .expect(3, "a token is letters and digits");
}
