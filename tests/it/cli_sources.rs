//! Where options come from: flags, variables, and what each command takes from neither.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Finished, Master, Running, TEMPLATES, mesophyll, token, write};

const EVENT: &str = r#"{"tenant":"guild:1","name":"ECHO","data":1}"#;

/// Runs a command in a folder, with these variables.
fn run_in(folder: &TempDir, args: &[&str], variables: &[(&str, &str)], input: &str) -> Finished {
    let mut command = mesophyll(args);
    command.envs(variables.iter().copied()).current_dir(folder.path());
    Running::start_on(command, input).wait()
}

#[test]
fn a_switch_as_a_variable_that_is_no_word_of_one_is_wrong_usage() {
    let folder = TempDir::new();
    let look = ["master", "--print-config", "--templates", TEMPLATES];
    let reload = |word: &str| run_in(&folder, &look, &[("MESOPHYLL_RELOAD", word)], "");
    for (word, shown) in
        [("no", "off"), ("OFF", "off"), ("0", "off"), ("Yes", "on"), ("on", "on"), ("1", "on")]
    {
        let looked = reload(word);
        looked.expect(0, "");
        let row = looked.stdout.iter().find(|line| line.starts_with("--reload ")).expect("a row");
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["--reload", shown, "environment", "MESOPHYLL_RELOAD"], "{word}");
    }
    for word in ["", "maybe", "2"] {
        reload(word).expect(2, "MESOPHYLL_RELOAD is true or false");
    }
    let sources = [("MESOPHYLL_TRUSTED_SOURCE", "10.0.0.0/8,,")];
    run_in(&folder, &look, &sources, "")
        .expect(3, "MESOPHYLL_TRUSTED_SOURCE is a list with commas");
    let sources = [("MESOPHYLL_TRUSTED_SOURCE", "10.0.0.0/99")];
    let start = ["master", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--store", "memory:"];
    run_in(&folder, &start, &sources, "").expect(3, "MESOPHYLL_TRUSTED_SOURCE 10.0.0.0/99: ");
    let in_flight = [("MESOPHYLL_IN_FLIGHT", "0")];
    run_in(&folder, &["replay", "-"], &in_flight, "")
        .expect(3, "MESOPHYLL_IN_FLIGHT is a number from 1");
}

#[test]
fn a_replay_takes_no_place_from_the_variables_of_a_master() {
    let folder = TempDir::new();
    let master = Master::start(&["--workers", "1"]);
    let (listen, api) = (master.listen().to_string(), master.api().to_string());
    // The address of a master that runs, and its file.
    let variables = [
        ("MESOPHYLL_API", &*api),
        ("MESOPHYLL_LISTEN", &*listen),
        ("MESOPHYLL_STORE", "redb:live.redb"),
    ];
    let replay = ["replay", "-", "--workers", "1", "--templates", TEMPLATES];
    let replayed = run_in(&folder, &replay, &variables, EVENT);
    replayed.expect(
        0,
        "this replay writes to memory: (gone at the end); MESOPHYLL_LISTEN, MESOPHYLL_API, ",
    );
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "no store was made");
    // Its flags do count.
    let flags = ["--store", "redb:own.redb", "--api", "127.0.0.1:0"];
    let replayed = run_in(&folder, &[&replay[..], &flags].concat(), &[], EVENT);
    replayed.expect(0, "this replay writes to redb:own.redb; its internal API: 127.0.0.1:");
    assert!(folder.path().join("own.redb").exists());
    let taken = run_in(&folder, &[&replay[..], &["--api", &api]].concat(), &variables, EVENT);
    taken.expect(3, &api);
}

#[test]
fn a_client_finds_its_master_by_a_variable_of_its_own_first() {
    let folder = TempDir::new();
    let master = Master::start(&["--mode", "thread-pool"]);
    let api = master.api().to_string();
    // Bound and never accepted from: not where the client may go.
    let other = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .to_string();
    let token = token(7);
    let workers = |variables: &[(&str, &str)], flags: &[&str]| {
        let variables = [variables, &[("MESOPHYLL_INTERNAL_TOKEN", &*token)]].concat();
        run_in(&folder, &[&["workers"], flags].concat(), &variables, "")
    };
    workers(&[("MESOPHYLL_MASTER_API", &api), ("MESOPHYLL_API", &other)], &[]).expect(0, "");
    workers(&[("MESOPHYLL_API", &api)], &[]).expect(0, "");
    workers(&[("MESOPHYLL_MASTER_API", &other)], &["--api", &api]).expect(0, "");
    let url = format!("http://{api}/");
    workers(&[("MESOPHYLL_MASTER_API", &url)], &[]).expect(0, "");
    for (address, rule) in
        [("off", "is an address such as"), ("localhost", "is an address such as")]
            .into_iter()
            .chain([
                ("http://a:1/i", "is an address such as"),
                ("http://u:p@a:1", "is an address such as"),
            ])
    {
        workers(&[("MESOPHYLL_MASTER_API", address)], &[])
            .expect(3, &format!("MESOPHYLL_MASTER_API {rule}"));
        workers(&[], &["--api", address]).expect(2, &format!("--api {rule}"));
    }
    // What speaks TLS is trusted by an authority's file only.
    for address in ["https://a:1", "tls:a:1"] {
        workers(&[], &["--api", address]).expect(2, "--tls-ca is missing");
    }
}

#[test]
fn an_address_to_listen_at_may_be_written_as_a_url() {
    let folder = TempDir::new();
    let shown = |option: &str, value: &str| {
        run_in(&folder, &["master", "--print-config", option, value], &[], "")
    };
    for option in ["--listen", "--api"] {
        let looked = shown(option, "http://127.0.0.1:29451/");
        looked.expect(0, "");
        assert!(
            looked
                .stdout
                .iter()
                .any(|line| line.starts_with(option) && line.contains(" 127.0.0.1:29451 "))
        );
        shown(option, "tls:127.0.0.1:29451").expect(2, "make a port speak TLS");
    }
    let place = ["worker", "--print-config", "--id", "0", "--workers", "1", "--master"];
    let worker = |master: &str| run_in(&folder, &[&place[..], &[master]].concat(), &[], "");
    let looked = worker("http://10.0.0.1:7450");
    assert!(looked.stdout.iter().any(|line| line.contains(" 10.0.0.1:7450 ")), "{looked:?}");
    worker("https://10.0.0.1:7450").expect(2, "--master is HOST:PORT");
}

#[test]
fn a_file_sets_options_below_flags_and_variables() {
    let folder = TempDir::new();
    let text = format!(
        "\u{feff}# ours\n\nworkers = 1\nquota-bytes = 2GiB # much\ntemplates={TEMPLATES}\nreload = yes\nvm-idle = 1m\n"
    );
    write(folder.path(), "x.conf", &text);
    let look = ["master", "--print-config", "--config", "x.conf", "--workers", "3"];
    let looked = run_in(&folder, &look, &[("MESOPHYLL_VM_IDLE", "2m")], "");
    looked.expect(0, "");
    let row = |name: &str| {
        let row = looked
            .stdout
            .iter()
            .find(|line| line.split_whitespace().next() == Some(name))
            .expect("a row");
        row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("--workers"), "3 flag --workers");
    assert_eq!(row("--vm-idle"), "2m environment MESOPHYLL_VM_IDLE");
    assert_eq!(row("--quota-bytes"), "2GiB file x.conf:4");
    assert_eq!(row("--reload"), "on file x.conf:6");
    let json = run_in(&folder, &[&look[..], &["--json"]].concat(), &[], "");
    let list: Value = serde_json::from_str(&json.stdout.concat()).expect("JSON");
    let reload = list
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["option"] == "reload")
        .expect("a row");
    assert_eq!(
        (&reload["source"], &reload["file"], &reload["line"]),
        (&json!("file"), &json!("x.conf"), &json!(6))
    );
    // The same file serves the other commands; they run with it.
    write(
        folder.path(),
        "x.conf",
        format!("{text}store = redb:live.redb\nexternal-workers = no\n"),
    );
    let replayed = run_in(&folder, &["replay", "-"], &[("MESOPHYLL_CONFIG", "x.conf")], EVENT);
    replayed.expect(0, "writes to memory: (gone at the end); x.conf:8: store set for a master, only flags count here");
    assert_eq!(replayed.json()[0]["ok"], json!(1), "its templates were used");
    assert!(!folder.path().join("live.redb").exists());
}

#[test]
fn a_file_that_is_wrong_is_named_with_the_line() {
    let folder = TempDir::new();
    for (text, says) in [
        ("workers = 2\nwrokers = 3", "x.conf:2: unknown option wrokers; did you mean workers?"),
        ("workers = 0", "x.conf:1: workers is a number from 1 to 1024, not \"0\""),
        (
            "quota-bytes = 9GB",
            "x.conf:1: quota-bytes is a number of bytes such as 65536, 512KiB, 64MiB or 2GiB",
        ),
        ("api-secret = hunter2", "x.conf:1: secrets do not belong in this file"),
        ("deadline = 5", "x.conf:1: deadline is a span of time"),
        (
            "trusted-source = ::1/128\ntrusted-source = ::1/999",
            "x.conf:2: trusted-source ::1/999: ",
        ),
    ] {
        write(folder.path(), "x.conf", text);
        let finished =
            run_in(&folder, &["master", "--config", "x.conf", "--check-config"], &[], "");
        finished.expect(3, says);
        assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
    }
    run_in(&folder, &["master", "--config", "none.conf"], &[], "")
        .expect(3, "none.conf: No such file");
    run_in(&folder, &["master", "--config", "x.conf", "--help"], &[], "").expect(0, "");
}

#[test]
fn a_byte_order_mark_and_a_first_line_for_a_shell_do_not_matter() {
    let folder = TempDir::new();
    let master = Master::start(&["--workers", "1"]);
    let api = master.api().to_string();
    let script = write(
        folder.path(),
        "x.luau",
        "\u{feff}#!/usr/bin/env luau\nlocal ctx = ...; return ctx.tenant.id",
    );
    write(folder.path(), "token", format!("\u{feff}{}\r\n", token(7)));
    let run = |args: &[&str]| {
        run_in(&folder, &[args, &["--api", &api, "--token-file", "token"]].concat(), &[], "")
    };
    let ran = run(&["run-script", "guild:5", script.to_str().expect("a plain path")]);
    ran.expect(0, "");
    assert_eq!(ran.stdout, ["\"5\""]);
    write(
        folder.path(),
        "main.luau",
        "\u{feff}#!/bin/x\nreturn function(ctx) return ctx:event().data end",
    );
    run(&["template", "set", "guild:5", "main.luau"]).expect(0, "");
    let here = folder.path().to_str().expect("a plain path");
    write(folder.path(), "events", format!("\u{feff}{EVENT}\n"));
    let replayed =
        run_in(&folder, &["replay", "events", "--templates", here, "--workers", "1"], &[], "");
    replayed.expect(0, "");
    // Its lines keep their numbers.
    write(folder.path(), "main.luau", "#!/bin/x\nlocal = 1");
    run_in(&folder, &["check", "--templates", here], &[], "").expect(1, "");
    let checked = run_in(&folder, &["check", "--templates", here], &[], "");
    assert!(checked.stdout.iter().any(|line| line.starts_with("main.luau:2: ")), "{checked:?}");
    let tokens =
        write(folder.path(), "tokens.json", format!("\u{feff}{{\"0\":\"{}\"}}", "a1".repeat(32)));
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let check =
        ["master", "--check-config", "--listen", "127.0.0.1:0", "--api", "off", "--workers", "1"];
    run_in(&folder, &[&check[..], &["--worker-tokens", "tokens.json"]].concat(), &[], "")
        .expect(0, "");
}

#[test]
fn a_word_that_is_nearly_right_is_answered_with_what_to_write() {
    let folder = TempDir::new();
    let run = |args: &[&str]| run_in(&folder, args, &[], "");
    assert_eq!(run(&["-v"]).stdout, run(&["--version"]).stdout);
    run(&["master", "--log-level", "debug"])
        .expect(2, "unknown option --log-level; did you mean --log?");
    run(&["log"]).expect(2, "unknown command log; did you mean logs?");
    run(&["replay", "-", "-v"])
        .expect(2, "unknown option -v; mesophyll -V shows the version, and --log debug logs more");
}
