//! `--sandbox`: what each mode comes to, and who is told.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{as_ordinary_user, can_confine, copy_program, open_folder};
use crate::support::TempDir;
use crate::support::binary::{
    BINARY, Master, Running, SECRET, TEMPLATES, example, get_with, mesophyll, run, token,
};
use crate::support::process::{eventually, signal, workers_of};

const MASTER: [&str; 13] = [
    "master",
    "--api",
    "127.0.0.1:0",
    "--listen",
    "127.0.0.1:0",
    "--store",
    "memory:",
    "--default-events",
    "*",
    "--workers",
    "1",
    "--templates",
    TEMPLATES,
];

/// A master on a kernel that lacks these calls.
fn lacking(calls: &str, args: &[&str]) -> Command {
    let mut command = Command::new(example("without_calls"));
    command.arg(calls).arg(BINARY).args(MASTER).args(args);
    command.env("MESOPHYLL_API_SECRET", SECRET);
    command
}

/// What the API says of the sandbox of worker 0.
fn sandbox(master: &Master) -> Value {
    let (status, body) = get_with(master.api(), "/i/workers", &token(7));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")[0]["sandbox"].clone()
}

fn metric(master: &Master, line: &str) -> Option<String> {
    let (_, text) = get_with(master.api(), "/metrics", &token(7));
    let found = text.lines().find_map(|one| one.strip_prefix(line));
    found.map(|value| value.trim().to_owned())
}

/// The threads of a process that are under seccomp filters, and those that are not.
fn filtered(pid: u32) -> (usize, usize) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let (under, free): (Vec<_>, Vec<_>) =
        statuses.partition(|status: &String| status.contains("Seccomp:\t2"));
    (under.len(), free.len())
}

#[test]
fn a_worker_is_confined_by_default_and_says_so() {
    if !can_confine("a_worker_is_confined_by_default_and_says_so") {
        return;
    }
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let whole = sandbox(&master);
    assert!(whole == json!("full") || whole.as_str().expect("text").starts_with("files "));
    let shown = master.command(&["workers"]);
    assert!(shown.stdout[0].contains("SANDBOX"), "{shown:?}");
    assert!(shown.stdout[1].contains(whole.as_str().expect("text")), "{shown:?}");
    for layer in ["landlock", "seccomp", "broker"] {
        let name = format!("mesophyll_worker_sandbox{{worker=\"0\",layer=\"{layer}\"}}");
        assert_eq!(metric(&master, &name).as_deref(), Some("1"), "{layer}");
    }
    let pid = workers_of(master.pid())[&0];
    let (under, free) = filtered(pid);
    assert!(under > 3 && free == 0, "{under} threads under the filters, {free} not");
    assert_eq!(filtered(master.pid()).0, 0, "the master is not confined");
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a file");
    assert_eq!(score.trim(), "500");
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn without_a_sandbox_nothing_is_in_force() {
    let master = Master::start(&["--workers", "1", "--sandbox", "off"]);
    master.wait_ready();
    assert_eq!(sandbox(&master), json!("none"));
    assert_eq!(filtered(workers_of(master.pid())[&0]).0, 0);
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    let (stopped, _) = master.stop();
    assert!(!stopped.stderr.contains("sandbox"), "{stopped:?}");
}

#[test]
fn a_kernel_without_landlock_serves_and_is_told_of_once() {
    let master = Master::of(Running::start(lacking("landlock", &[])));
    master.wait_ready();
    assert_eq!(sandbox(&master), json!("syscalls"));
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    let before = workers_of(master.pid())[&0];
    signal(before, Signal::KILL);
    eventually("another worker", || {
        workers_of(master.pid()).get(&0).filter(|pid| **pid != before).copied()
    });
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(2)));
    let (stopped, _) = master.stop();
    assert_eq!(stopped.code(), 0);
    let told = stopped.stderr.matches("runs in no whole sandbox (syscalls)").count();
    assert_eq!(told, 1, "{stopped:?}");
}

#[test]
fn a_kernel_with_neither_serves_if_it_is_only_preferred() {
    let master = Master::of(Running::start(lacking("landlock,seccomp", &[])));
    master.wait_ready();
    assert_eq!(sandbox(&master), json!("none"));
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_master_that_cannot_have_what_it_requires_does_not_start() {
    for calls in ["landlock", "seccomp"] {
        let running = Running::start(lacking(calls, &["--sandbox", "require"]));
        let ended = running.wait();
        // A kernel that has no Landlock says that first.
        let says = if calls == "landlock" { "Landlock: the kernel has none" } else { "require: " };
        ended.expect(3, says);
        assert!(ended.stdout.is_empty(), "no ready line: {ended:?}");
        let check = ["--sandbox", "require", "--check-config"];
        Running::start(lacking(calls, &check)).wait().expect(3, says);
    }
    // A program that knows no sandbox.
    let program = example("faulty_worker");
    let program = program.to_str().expect("text");
    let with = ["--worker-program", program, "--sandbox", "require"];
    run(&[&MASTER[..], &with].concat()).expect(3, "cannot run a worker in a sandbox");
    let threads = ["--mode", "thread-pool", "--sandbox", "require"];
    run(&[&MASTER[..], &threads].concat()).expect(3, "which cannot be confined");
    for command in [vec!["replay", "-"], vec!["replay", "-", "--check-config"]] {
        run(&[&command[..], &threads].concat()).expect(3, "which cannot be confined");
    }
}

#[test]
fn a_master_that_requires_a_sandbox_has_workers_in_one() {
    if !can_confine("a_master_that_requires_a_sandbox_has_workers_in_one") {
        return;
    }
    let master = Master::start(&["--workers", "1", "--sandbox", "require"]);
    master.wait_ready();
    assert!(sandbox(&master) != json!("none"));
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_worker_of_another_program_has_none_and_serves() {
    let program = example("faulty_worker");
    let program = program.to_str().expect("text");
    let master = Master::start(&["--workers", "1", "--worker-program", program]);
    master.wait_ready();
    assert_eq!(sandbox(&master), json!("none"));
    assert_eq!(master.dispatch("guild/7", "PING", "1").0, 200);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn an_unconfined_external_worker_gets_no_events_under_require() {
    if !can_confine("an_unconfined_external_worker_gets_no_events_under_require") {
        return;
    }
    let folder = TempDir::new();
    let tokens = folder.path().join("tokens.json");
    let file = tokens.to_str().expect("text");
    let external = ["--external-workers", "--worker-tokens", file, "--sandbox", "require"];
    let master = Master::start(&[&["--workers", "1"], &external[..]].concat());
    let read: Value = serde_json::from_slice(&fs::read(&tokens).expect("written")).expect("JSON");
    let worker = |mode: &str| {
        let listen = format!("localhost:{}", master.listen().port());
        let mut command = mesophyll(&["worker", "--id", "0", "--workers", "1", "--sandbox", mode]);
        command.args(["--master", &listen, "--templates", TEMPLATES, "--default-events", "*"]);
        command.env("MESOPHYLL_CLIENT_TOKEN", read["0"].as_str().expect("a token"));
        Running::start(command)
    };
    let without = worker("off");
    master
        .running
        .wait_stderr("--sandbox require, and its process is in none that is whole (none)");
    // It comes again and again, and is told of once.
    let links = "mesophyll_link_connections_total{worker=\"0\"}";
    eventually("three links", || {
        let count: f64 = metric(&master, links)?.parse().ok()?;
        (count >= 3.0).then_some(())
    });
    without.signal(Signal::TERM);
    without.wait().expect(0, "");
    // By the name of its host, which is looked up before it is confined.
    let within = worker("require");
    master.wait_ready();
    assert!(sandbox(&master) != json!("none"));
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    within.signal(Signal::TERM);
    within.wait().expect(0, "");
    let (stopped, _) = master.stop();
    assert_eq!(stopped.code(), 0);
    assert_eq!(stopped.stderr.matches("its process is in none that is whole").count(), 1);
}

/// A worker that was started by hand, whose master is at this address.
fn by_hand(master: &str, with: &[&str]) -> Command {
    let mut command = mesophyll(&["worker", "--id", "0", "--workers", "1", "--master", master]);
    command.args(["--templates", TEMPLATES]).args(with);
    command.env("MESOPHYLL_CLIENT_TOKEN", "token");
    command
}

#[test]
fn a_master_without_landlock_hides_its_secret() {
    let folder = open_folder(&[Path::new(BINARY), &example("without_calls")]);
    let path = folder.path();
    fs::create_dir(path.join("templates")).expect("a folder");
    fs::copy(format!("{TEMPLATES}/main.luau"), path.join("templates/main.luau")).expect("a copy");
    let mut command = Command::new(path.join("without_calls"));
    command.arg("landlock").arg(path.join("mesophyll")).args(&MASTER[..MASTER.len() - 2]);
    command.arg("--templates").arg(path.join("templates"));
    command.env_clear().env("MESOPHYLL_API_SECRET", SECRET).current_dir("/");
    as_ordinary_user(&mut command);
    let master = Master::of(Running::start(command));
    master.wait_ready();
    assert_eq!(sandbox(&master), json!("syscalls"));
    for file in ["environ", "mem"] {
        let mut reads = Command::new("head");
        reads.args(["-c", "1"]).arg(format!("/proc/{}/{file}", master.pid()));
        as_ordinary_user(&mut reads);
        let read = reads.output().expect("it runs");
        let said = String::from_utf8_lossy(&read.stderr);
        assert!(said.contains("Permission denied"), "{file}: {read:?}");
    }
    // It still starts its workers, by what it finds in its own entry.
    signal(workers_of(master.pid())[&0], Signal::KILL);
    master.running.wait_stderr("ended: killed by signal 9");
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "COUNT", "1").0, 200);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_program_is_asked_with_the_environment_of_a_worker() {
    if !can_confine("a_program_is_asked_with_the_environment_of_a_worker") {
        return;
    }
    let folder = TempDir::new();
    let program = folder.path().join("needs-path");
    let text = format!(
        "#!/bin/sh\ncase $PATH in */marker) exec {BINARY} \"$@\";; esac\necho no path >&2; exit 9\n"
    );
    let written = folder.path().join("written");
    fs::write(&written, text).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&written, mode).expect("a mode");
    copy_program(&written, &program);
    let mut command = mesophyll(&MASTER);
    command.args(["--sandbox", "require", "--worker-program"]).arg(&program);
    command.env("MESOPHYLL_API_SECRET", SECRET).env("PATH", "/usr/bin:/bin:/marker");
    let master = Master::of(Running::start(command));
    master.wait_ready();
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_worker_waits_for_its_masters_name() {
    let open = by_hand("not-yet.invalid:7450", &["--lifeline", "stdin"]);
    let (worker, stdin) = Running::start_open(open);
    worker.wait_stderr("master not-yet.invalid:7450: failed to lookup");
    drop(stdin);
    worker.wait().expect(3, "the master is gone");
}

#[test]
fn a_worker_waits_for_the_folder_of_its_masters_socket() {
    if !can_confine("a_worker_waits_for_the_folder_of_its_masters_socket") {
        return;
    }
    let folder = TempDir::new();
    let socket = folder.path().join("later/socket");
    let address = format!("unix:{}", socket.display());
    let worker = Running::start(by_hand(&address, &["--sandbox", "require"]));
    worker.wait_stderr("cannot connect: No such file or directory");
    fs::create_dir(folder.path().join("later")).expect("a folder");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    drop(listener.accept().expect("a connection"));
    worker.signal(Signal::TERM);
    worker.wait().expect(0, "");
}

#[test]
fn an_ordinary_user_with_its_log_in_a_file_is_served() {
    if !can_confine("an_ordinary_user_with_its_log_in_a_file_is_served") {
        return;
    }
    let folder = open_folder(&[Path::new(BINARY)]);
    let log = folder.path().join("log");
    let mut command = Command::new(folder.path().join("mesophyll"));
    command.args(&MASTER[..MASTER.len() - 2]).args(["--sandbox", "require", "--log", "debug"]);
    // Templates that this user can read.
    fs::create_dir(folder.path().join("templates")).expect("a folder");
    fs::copy(format!("{TEMPLATES}/main.luau"), folder.path().join("templates/main.luau"))
        .expect("a copy");
    command.arg("--templates").arg(folder.path().join("templates"));
    command.env_clear().env("MESOPHYLL_API_SECRET", SECRET).current_dir("/");
    command.stderr(Stdio::from(File::create(&log).expect("a file")));
    as_ordinary_user(&mut command);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line)
        .unwrap_or_else(|_| panic!("{line:?}: {}", fs::read_to_string(&log).unwrap_or_default()));
    let api = ready["api"].as_str().and_then(|api| api.parse().ok()).expect("an address");
    eventually("its worker is ready", || {
        let (status, body) = get_with(api, "/i/workers", &token(7));
        let rows: Value = serde_json::from_str(&body).ok()?;
        (status == 200 && rows[0]["state"] == "ready").then_some(())
    });
    let (_, metrics) = get_with(api, "/metrics", &token(7));
    let memory = "mesophyll_worker_resident_memory_bytes{worker=\"0\"} ";
    let bytes = metrics.lines().find_map(|line| line.strip_prefix(memory)?.parse::<f64>().ok());
    assert!(bytes.expect("a figure") > 1e6, "it reads /proc/self");
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert!(child.wait().expect("its end").success());
    assert!(fs::read_to_string(&log).expect("a log").contains("connected to the master"));
}
