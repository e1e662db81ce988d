//! `--print-config` and `--check-config`: what a command would run with, looked at without running
//! it.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::TempDir;
use crate::support::binary::{Finished, Running, SECRET, mesophyll, run, write};

fn with(args: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = mesophyll(args);
    command.envs(variables.iter().copied());
    Running::start(command).wait()
}

/// The value and source of each option or variable.
fn shown(finished: &Finished) -> Vec<(String, String, String)> {
    finished.expect(0, "");
    let list: Value = serde_json::from_str(&finished.stdout.join("\n")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let of = |line: &Value| {
        let name = line.get("option").unwrap_or(&line["variable"]);
        (text(name), text(&line["value"]), text(&line["source"]))
    };
    list.as_array().expect("a list").iter().map(of).collect()
}

fn row<'s>(shown: &'s [(String, String, String)], name: &str) -> (&'s str, &'s str) {
    let row = shown.iter().find(|(shown, ..)| shown == name).unwrap_or_else(|| panic!("no {name}"));
    (row.1.as_str(), row.2.as_str())
}

#[test]
fn each_value_is_shown_with_its_source_and_no_secret() {
    let variables = [
        ("MESOPHYLL_STORE", "postgres://me:hunter2@db/x?password=hunter2"),
        ("MESOPHYLL_API_SECRET", SECRET),
        ("MESOPHYLL_WORKERS", "7"),
        ("MESOPHYLL_VM_IDLE", "900s"),
    ];
    let line = ["master", "--print-config", "--workers", "3", "--reload", "--templates", "/"];
    let table = with(&line, &variables);
    table.expect(0, "");
    let says = |name: &str| {
        let found = table.stdout.iter().find(|line| line.split_whitespace().next() == Some(name));
        found
            .unwrap_or_else(|| panic!("{table:?}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(says("--workers"), "--workers 3 flag --workers");
    assert_eq!(
        says("--store"),
        "--store postgres://me:***@db/x?password=*** environment MESOPHYLL_STORE"
    );
    assert_eq!(says("--vm-idle"), "--vm-idle 15m environment MESOPHYLL_VM_IDLE");
    assert_eq!(says("--deadline"), "--deadline 35s default");
    assert_eq!(says("--reload"), "--reload on flag --reload");
    assert_eq!(
        says("MESOPHYLL_API_SECRET"),
        "MESOPHYLL_API_SECRET set environment MESOPHYLL_API_SECRET"
    );
    let columns: Vec<Option<usize>> = ["SOURCE", "flag --workers", "environment MESOPHYLL_VM_IDLE"]
        .iter()
        .map(|text| table.stdout.iter().find_map(|line| line.find(text)))
        .collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "aligned: {columns:?}");

    let json = with(&[&line[..], &["--json"]].concat(), &variables);
    for finished in [&table, &json] {
        let all = finished.stdout.join("\n") + &finished.stderr;
        assert!(!all.contains("hunter2") && !all.contains(SECRET), "{all}");
    }
    let shown = shown(&json);
    assert_eq!(row(&shown, "workers"), ("3", "flag"));
    assert_eq!(row(&shown, "max-vms"), ("7500", "default"));
    assert_eq!(row(&shown, "MESOPHYLL_API_SECRET"), ("set", "environment"));
}

#[test]
fn the_defaults_that_are_shown_are_those_that_apply() {
    let cpus = std::thread::available_parallelism().expect("some").get();
    let master = shown(&run(&["master", "--print-config", "--json"]));
    assert_eq!(row(&master, "workers"), (cpus.to_string().as_str(), "default"));
    assert_eq!(row(&master, "executors"), ("1", "default"));
    assert_eq!(row(&master, "failures-a-minute"), ("5", "default"));
    assert_eq!(row(&master, "store"), ("redb:mesophyll.redb", "default"));
    assert_eq!(row(&master, "MESOPHYLL_API_SECRET"), ("made at start", "default"));
    let executors = shown(&run(&["master", "--workers", "1", "--print-config", "--json"]));
    assert_eq!(row(&executors, "executors"), (cpus.to_string().as_str(), "default"));
    let replay = shown(&run(&["replay", "--print-config", "--json", "--in-flight", "9"]));
    assert_eq!(
        (row(&replay, "in-flight"), row(&replay, "repeat")),
        (("9", "flag"), ("1", "default"))
    );
    assert_eq!(
        (row(&replay, "store"), row(&replay, "api")),
        (("memory:", "default"), ("off", "default"))
    );
    assert_eq!(row(&replay, "MESOPHYLL_API_SECRET"), ("not needed", "default"));
    let place = ["worker", "--id", "0", "--workers", "2", "--master", "h:1"];
    let worker = shown(&run(&[&place[..], &["--print-config", "--json"]].concat()));
    assert_eq!(row(&worker, "MESOPHYLL_CLIENT_TOKEN"), ("missing", "default"));
    assert_eq!(row(&worker, "lifeline"), ("none", "default"));
}

#[test]
fn a_port_in_use_makes_a_configuration_that_is_not_good() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let master = |listen: &str, api: &str, mode: &str| {
        run(&[
            "master",
            "--check-config",
            "--store",
            "memory:",
            "--listen",
            listen,
            "--api",
            api,
            "--mode",
            mode,
        ])
    };
    let (free, says) = ("127.0.0.1:0", format!("cannot listen on {address}: "));
    master(&address, free, "process-pool").expect(3, &says);
    master(free, &address, "process-pool").expect(3, &says);
    master(&address, free, "thread-pool").expect(0, "");
    drop(taken);
    master(&address, free, "process-pool").expect(0, "");
    // Each of them can be had, but not both.
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    master(&address, &everywhere, "process-pool").expect(3, "cannot listen on ");
    master(&address, &everywhere, "thread-pool").expect(0, "");
}

#[test]
fn a_configuration_is_checked_without_touching_anything() {
    let folder = TempDir::new();
    let text = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let good_tokens = format!(r#"{{"0": "{}"}}"#, "a1".repeat(32));
    for (name, mode) in [("good.json", 0o600), ("open.json", 0o644)] {
        let path = write(folder.path(), name, &good_tokens);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let store = format!("redb:{}", text("store.redb"));
    let templates = TempDir::new();
    let template = |name: &str, files: &[(&str, &str)]| {
        let folder = templates.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        files.iter().for_each(|(name, text)| drop(write(&folder, name, text)));
        folder.to_str().expect("a plain path").to_owned()
    };
    let broken = template(
        "broken",
        &[("main.luau", "return require('lib')"), ("lib.luau", "local x = 1\nlocal =")],
    );
    let empty = template("empty", &[]);
    let linked = template("linked", &[]);
    std::os::unix::fs::symlink("/etc/passwd", format!("{linked}/main.luau")).expect("a link");
    let piped = template("piped", &[("main.luau", "return function(ctx) return 1 end")]);
    let pipe = format!("{piped}/x.luau");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().expect("mkfifo").success());
    // What is only doubtful can be run.
    let doubtful =
        template("doubtful", &[("main.luau", "return function(ctx) return unknwon end")]);
    let base = [
        "master",
        "--check-config",
        "--workers",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
    ];
    let base = [&base[..], &["--store", &store]].concat();
    let check =
        |args: &[&str], variables: &[(&str, &str)]| with(&[&base[..], args].concat(), variables);
    for args in [
        &[][..],
        &["--worker-tokens", &text("good.json")],
        &["--worker-tokens", &text("fresh.json")],
        &["--templates", &doubtful],
    ] {
        let checked = check(args, &[("MESOPHYLL_API_SECRET", SECRET)]);
        assert_eq!(
            (checked.code(), checked.stdout.join("")),
            (0, "the configuration is good".to_owned()),
            "{checked:?}"
        );
    }
    for (args, code, says) in [
        (&["--vm-idle", "soon"][..], 2, "--vm-idle is a span of time"),
        (&["--trusted-source", "10.0.0.0/99"], 2, "--trusted-source 10.0.0.0/99: "),
        (&["--templates", "/nowhere"], 3, "--templates: there is no directory /nowhere"),
        (&["--worker-tokens", &text("open.json")], 3, "others can read it (mode 644)"),
        (&["--worker-tokens", &text("none/x.json")], 3, "--worker-tokens: there is no directory "),
        (&["--worker-tokens", &text("good.json"), "--workers=2"], 2, "--workers is given twice"),
        (&["--templates", &broken], 3, ": lib.luau:2: Expected "),
        (&["--templates", &empty], 3, ": main.luau: there is none"),
        (&["--templates", &linked], 3, ": main.luau: a link out of the template directory"),
        (&["--templates", &piped], 3, ": x.luau: not a regular file"),
        (
            &["--worker-program", "/nowhere/mesophyll"],
            3,
            "--worker-program: /nowhere/mesophyll: No such file",
        ),
        (
            &["--worker-program", "/"],
            3,
            "--worker-program: /: it is no file that this user can execute",
        ),
        // Not looked up in `PATH`.
        (&["--worker-program", "sh"], 3, "--worker-program: sh: No such file"),
    ] {
        check(args, &[]).expect(code, says);
    }
    check(&[], &[("MESOPHYLL_API_SECRET", "short")]).expect(3, "MESOPHYLL_API_SECRET: ");
    check(&[], &[("MESOPHYLL_MAX_VMS", "0")]).expect(3, "MESOPHYLL_MAX_VMS is a number from 1");
    for (store, says) in [
        ("mysql://db", "--store: a store is "),
        ("redb:/nowhere/a.redb", "--store: there is no directory /nowhere"),
        ("postgres://me:hunter2@db:port/x", "store: "),
        ("postgres://me:hunter2@db/x?sslmode=prefer", "sslmode"),
    ] {
        let checked = run(&["master", "--check-config", "--store", store]);
        checked.expect(3, if cfg!(feature = "postgres") { says } else { "--store" });
        assert!(!checked.stderr.contains("hunter2"), "{checked:?}");
    }
    // No server is asked.
    if cfg!(feature = "postgres") {
        run(&[
            "master",
            "--check-config",
            "--listen",
            "127.0.0.1:0",
            "--api",
            "off",
            "--store",
            "postgres://127.0.0.1:1/x",
        ])
        .expect(0, "");
    } else {
        let lacks = "--cluster: this program was built without the PostgreSQL store";
        check(&["--cluster", "c"], &[]).expect(3, lacks);
    }
    let misspelt = check(&[], &[("MESOPHYLL_WROKERS", "3")]);
    misspelt.expect(
        0,
        "no command knows the variable MESOPHYLL_WROKERS; did you mean MESOPHYLL_WORKERS?",
    );
    run(&["replay", "/nowhere.ndjson", "--check-config"]).expect(3, "/nowhere.ndjson: ");
    run(&["replay", "--check-config"]).expect(0, "");
    run(&["replay"]).expect(2, "replay takes one FILE");
    let worker =
        ["worker", "--check-config", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"];
    run(&worker).expect(3, "MESOPHYLL_CLIENT_TOKEN is not set");
    with(&worker, &[("MESOPHYLL_CLIENT_TOKEN", "abc123")]).expect(0, "");
    let both = check(&["--print-config", "--json"], &[]);
    both.expect(0, "the configuration is good");
    assert!(shown(&both).len() > 30);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("one").file_name())
        .collect();
    assert_eq!(left.len(), 2, "nothing was written: {left:?}");
}
