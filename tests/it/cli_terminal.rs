//! The commands at a terminal: a watch that redraws, ends quietly and outlives its master;
//! completions; the manual page; errors that say what to do next.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::TempDir;
use crate::support::binary::{
    Finished, Master, Running, SECRET, mesophyll, post, run, token, write,
};
use crate::support::process::{children_of, eventually, is_gone, own_port};
use crate::support::skip::skipped;

fn is_installed(program: &str) -> bool {
    let mut found = Command::new(program);
    found.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    found.status().is_ok()
}

/// A command against a master, not started yet.
fn command_of(master: &Master, args: &[&str]) -> Command {
    let mut command = mesophyll(args);
    command
        .env("MESOPHYLL_INTERNAL_TOKEN", token(7))
        .env("MESOPHYLL_API", master.api().to_string());
    command
}

#[test]
fn a_watch_in_a_pipe_ends_with_its_reader_or_a_signal() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let watch = Running::start(command_of(&master, &["workers", "--watch"]));
    for _ in 0..2 {
        assert!(
            watch.wait_stdout("ID  STATE").starts_with("ID"),
            "plain, without a terminal's codes"
        );
        watch.wait_stdout("0   ready");
    }
    watch.signal(Signal::INT);
    let ended = watch.wait();
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));

    let mut shell = Command::new("bash");
    shell.args([
        "-c",
        r#""$0" workers --watch | head -n 2; echo "${PIPESTATUS[0]}""#,
        env!("CARGO_BIN_EXE_mesophyll"),
    ]);
    shell.env("MESOPHYLL_INTERNAL_TOKEN", token(7)).env("MESOPHYLL_API", master.api().to_string());
    let ended = Running::start(shell).wait();
    assert_eq!(
        (ended.stdout.len(), ended.stdout[2].as_str(), ended.stderr.as_str()),
        (3, "0", ""),
        "{ended:?}"
    );
}

#[test]
fn a_watch_outlives_its_master_and_goes_on_with_the_next_one() {
    let api = format!("127.0.0.1:{}", own_port());
    let master = Master::start_at(&api, &["--workers", "1"]);
    master.wait_ready();
    let watch = Running::start(command_of(&master, &["workers", "--watch"]));
    watch.wait_stdout("0   ready");
    master.stop();
    let says = watch.wait_stderr("no answer from ");
    assert!(says.ends_with("looking on"), "{says}");
    // At the same place, as a restarted one.
    let mut next = mesophyll(&[
        "master",
        "--workers",
        "1",
        "--store",
        "memory:",
        "--listen",
        "127.0.0.1:0",
        "--api",
        &api,
    ]);
    next.env("MESOPHYLL_API_SECRET", SECRET);
    let next = Master::of(Running::start(next));
    assert_eq!(next.api().to_string(), api);
    watch.wait_stdout("0   ready");
    watch.signal(Signal::TERM);
    let ended = watch.wait();
    assert_eq!(ended.code(), 0);
    assert_eq!(ended.stderr.matches("no answer from").count(), 1, "once an outage: {ended:?}");
    // Who was never there is no master that restarts.
    next.stop();
    let mut nobody = mesophyll(&["workers", "--watch", "--api", &api]);
    nobody.env("MESOPHYLL_INTERNAL_TOKEN", "1.2.3");
    Running::start(nobody).wait().expect(1, "is a master running there? --api says where");
}

#[test]
fn a_watch_on_a_terminal_draws_over_what_it_drew() {
    if !is_installed("script") {
        return skipped(
            "a_watch_on_a_terminal_draws_over_what_it_drew",
            "install script (Debian: bsdutils)",
        );
    }
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let mut script = Command::new("script");
    script.args([
        "-qefc",
        &format!("{} workers --watch", env!("CARGO_BIN_EXE_mesophyll")),
        "/dev/null",
    ]);
    script.env("MESOPHYLL_INTERNAL_TOKEN", token(7)).env("MESOPHYLL_API", master.api().to_string());
    // Its input stays open: at the end of that the terminal would be gone.
    let (watch, _stdin) = Running::start_open(script);
    let first = watch.wait_stdout("STATE");
    assert!(first.starts_with("\u{1b}[2J\u{1b}[HID"), "{first:?}");
    assert!(watch.wait_stdout("0   ready").contains("\u{1b}[K"));
    let second = watch.wait_stdout("STATE");
    assert!(second.contains("\u{1b}[J") || second.starts_with("\u{1b}[HID"), "{second:?}");
    assert!(!second.contains("\u{1b}[2J"), "the screen is cleared once: {second:?}");
    // It goes with its terminal, also while there is nothing to draw.
    master.stop().0.expect(0, "");
    watch.wait_stdout("looking on");
    let on_terminal = children_of(watch.pid());
    assert_eq!(on_terminal.len(), 1);
    drop(watch);
    eventually("the watch has ended", || on_terminal.iter().all(|pid| is_gone(*pid)).then_some(()));
}

/// What bash offers for a command line whose last word is being typed.
fn completed(folder: &Path, words: &[&str]) -> Vec<String> {
    let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(( $# - 1 )); \
                  compopt() { :; }; _mesophyll; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"])
        .arg(folder.join("completions.bash"))
        .args(words)
        .current_dir(folder);
    let ended = Running::start(bash).wait();
    ended.expect(0, "");
    assert_eq!(ended.stderr, "", "{words:?}");
    ended.stdout.into_iter().filter(|line| !line.is_empty()).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = TempDir::new();
    let script = run(&["completions", "bash"]);
    script.expect(0, "");
    let file = write(folder.path(), "completions.bash", script.stdout.join("\n") + "\n");
    let mut check = Command::new("bash");
    check.args(["-n"]).arg(&file);
    let checked = Running::start(check).wait();
    assert_eq!((checked.code(), checked.stderr.as_str()), (0, ""));
    write(folder.path(), "a file.luau", "");
    std::fs::create_dir(folder.path().join("templates")).expect("a folder");

    let complete = |words: &[&str]| completed(folder.path(), words);
    assert_eq!(complete(&["mesophyll", "wor"]), ["worker", "worker-host", "workers"]);
    assert_eq!(
        complete(&["mesophyll", "master", "--wor"]),
        ["--workers", "--worker-certs", "--worker-memory", "--worker-tokens", "--worker-program"]
    );
    assert_eq!(complete(&["mesophyll", "master", "--log", "d"]), ["debug"]);
    assert_eq!(complete(&["mesophyll", "master", "--log", "=", "d"]), ["debug"]);
    assert_eq!(complete(&["mesophyll", "master", "--log-format", "="]), ["text", "json"]);
    assert_eq!(complete(&["mesophyll", "master", "--mode", ""]), ["process-pool", "thread-pool"]);
    assert_eq!(complete(&["mesophyll", "master", "--templates", "t"]), ["templates"]);
    assert_eq!(complete(&["mesophyll", "master", "--deadline", ""]), Vec::<String>::new());
    assert_eq!(complete(&["mesophyll", "tenant", "un"]), ["unsubscribe", "unban"]);
    assert_eq!(complete(&["mesophyll", "log-level", "t"]), ["trace"]);
    assert_eq!(complete(&["mesophyll", "run-script", "guild:1", "a"]), ["a file.luau"]);
    assert_eq!(complete(&["mesophyll", "sing", "--"]), Vec::<String>::new());
    run(&["completions", "tcsh"]).expect(2, "completions takes bash | zsh | fish");
    for shell in ["zsh", "fish"] {
        assert!(
            run(&["completions", shell]).stdout.iter().any(|line| line.contains("worker-tokens")),
            "{shell}"
        );
    }
}

#[test]
fn the_manual_page_is_set_without_a_warning() {
    if !is_installed("groff") {
        return skipped(
            "the_manual_page_is_set_without_a_warning",
            "install groff (Debian: groff-base)",
        );
    }
    let page = run(&["man"]);
    page.expect(0, "");
    let mut groff = Command::new("groff");
    groff.args(["-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=100n"]);
    let set: Finished = Running::start_on(groff, page.stdout.join("\n") + "\n").wait();
    assert_eq!((set.code(), set.stderr.as_str()), (0, ""));
    let text = set.stdout.join("\n");
    for says in [
        "mesophyll master [OPTIONS]",
        "--worker-tokens FILE",
        "EXIT STATUS",
        "MESOPHYLL_API_SECRET",
        "'{\"content\":\"!help\"}'",
    ] {
        assert!(text.contains(says), "{says:?} is not in the page: {text}");
    }
}

#[test]
fn an_error_says_what_to_do_next() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let with_token = |token: &str, args: &[&str]| {
        let mut command = command_of(&master, args);
        command.env("MESOPHYLL_INTERNAL_TOKEN", token);
        Running::start(command).wait()
    };
    let mints = "mesophyll token --user ID mints one";
    with_token("1.2.3", &["workers"]).expect(1, mints);
    let mut expired = mesophyll(&["token", "--user", "7", "--expires", "1s"]);
    expired.env("MESOPHYLL_API_SECRET", SECRET);
    let expired = Running::start(expired).wait().stdout.remove(0);
    let refused = eventually("it has expired", || {
        Some(with_token(&expired, &["workers"])).filter(|ended| ended.code() == 1)
    });
    refused.expect(1, "expired");
    refused.expect(1, mints);
    master.command(&["tenant", "ban", "guild:1"]).expect(0, "");
    master
        .command(&["dispatch", "guild:1", "E"])
        .expect(1, "mesophyll tenant unban TENANT lifts it");
    assert_eq!(post(master.api(), "/i/kill-worker", &token(7), "").0, 204);
    let nobody = master.command(&["dispatch", "guild:2", "E", "--deadline", "1s"]);
    nobody.expect(1, "NoWorker (503)");
    nobody.expect(1, "mesophyll workers shows them");
}

#[test]
fn a_closed_stdout_ends_every_command_that_prints_much_quietly() {
    for args in ["--help", "man", "completions bash", "master --print-config"] {
        let mut shell = Command::new("bash");
        let line = format!(r#""$0" {args} | head -n 1 > /dev/null; echo "${{PIPESTATUS[0]}}""#);
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_mesophyll")]);
        let ended = Running::start(shell).wait();
        assert_eq!((ended.stdout.join(""), ended.stderr.as_str()), ("0".to_owned(), ""), "{args}");
    }
}
