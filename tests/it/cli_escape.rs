//! Texts from outside in the log and in what commands print: none of them makes a line of its own
//! or reaches a terminal as a command.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use mesophyll::base::escape::is_obeyed;
use mesophyll::wire::log_line::split_time;
use rustix::process::Signal;

use crate::support::TempDir;
use crate::support::binary::{Master, mesophyll, post, run_on, token, write};
use crate::support::process::{signal, workers_of};

/// As JSON has it: a line of its own, a colour, an override of the direction, a C1 control.
const HOSTILE: &str = r"E\nERROR forged \u001b[31m\u202e\u009b2J";

/// The same, as it is shown.
const SHOWN: &str = r"E\nERROR forged \u{1b}[31m\u{202e}\u{9b}2J";

/// Fails for a line of a log of text that is none.
fn assert_log(stderr: &str, has_time: bool) {
    for line in stderr.lines() {
        assert!(!line.contains(is_obeyed), "{line:?}");
        let (time, rest) = split_time(line);
        let level = rest.split(' ').next().unwrap_or_default();
        let is_line = time.is_some() == has_time
            && level.parse::<log::Level>().is_ok()
            && rest.contains(" [");
        assert!(is_line || line.starts_with("    "), "{line:?} of {stderr}");
    }
}

#[test]
fn a_hostile_name_is_one_escaped_line_of_the_log() {
    let folder = TempDir::new();
    let template = "return function(ctx)
        local name = ctx:event().name
        ctx.log:warn(name)
        if ctx:event().data == 1 then error(name) end
        task.wait(20)
    end";
    write(folder.path(), "main.luau", template);
    let templates = folder.path().display().to_string();
    let master = Master::start(&["--log", "debug", "--workers", "1", "--templates", &templates]);
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", HOSTILE, "1").0, 422);
    assert_eq!(master.dispatch_with("guild/1", HOSTILE, "2", "?nowait=true").0, 202);
    // Its second line: now that event is in flight.
    (0..2).for_each(|_| drop(master.running.wait_stderr("[tenant/guild:1] E")));
    signal(workers_of(master.pid())[&0], Signal::KILL);
    let told = master.running.wait_stderr("killed by signal 9");
    assert!(told.contains(SHOWN), "{told}");
    // A script's name and its error.
    let body = format!(r#"{{"name":"{HOSTILE}","code":"error('{HOSTILE}')","data":null}}"#);
    post(master.api(), "/i/run-script/guild/2", &token(7), &body);
    let log = master.stop().0.stderr;
    assert!(log.matches(SHOWN).count() >= 3, "{log}");
    assert_log(&log, true);
}

#[test]
fn what_a_command_prints_of_a_tenant_is_escaped() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let set = format!(r#"{{"op":"set","key":"{HOSTILE}","scopes":["s"],"value":"{HOSTILE}"}}"#);
    assert_eq!(post(master.api(), "/i/kv/guild/1", &token(7), &set).0, 204);
    let script = r#"error("E\nERROR forged \27[31m\u{202e}\u{9b}2J")"#;
    for (args, input) in [
        (&["kv", "find", "guild:1", "%", "--scope", "s"][..], ""),
        (&["kv", "find", "guild:1", "%", "--scope", "s", "--json"], ""),
        (&["run-script", "guild:1", "-"], script),
        (&["dispatch", "guild:1", "ECHO", &format!(r#""{HOSTILE}""#)], ""),
        (&["dispatch", "guild:1\n\u{1b}[2J", "X"], ""),
    ] {
        let ended = master.command_on(args, input);
        let is_hidden = |char: char| is_obeyed(char) && char != '\n';
        assert!(!ended.stdout.iter().any(|line| line.contains(is_obeyed)), "{args:?}: {ended:?}");
        assert!(!ended.stderr.contains(is_hidden), "{args:?}: {ended:?}");
        // Were it not for the escapes, this would be a line of the log.
        let forged = |text: &str| text.lines().any(|line| line.starts_with("ERROR"));
        assert!(
            !forged(&ended.stderr) && !ended.stdout.iter().any(|line| forged(line)),
            "{args:?}: {ended:?}"
        );
    }
    let input = format!(r#"{{"tenant":"guild:1","name":"{HOSTILE}","data":"{HOSTILE}"}}"#);
    let replayed = run_on(&["replay", "-", "--mode", "thread-pool"], input);
    assert_eq!(replayed.stdout.len(), 1, "{replayed:?}");
    assert!(!replayed.stdout[0].contains(is_obeyed), "{replayed:?}");
    assert_eq!(replayed.json()[0]["name"], "E\nERROR forged \u{1b}[31m\u{202e}\u{9b}2J");
}

#[test]
fn a_log_has_times_unless_it_is_the_journals() {
    let folder = TempDir::new();
    let log_of = |stream: fn(&std::fs::Metadata) -> String| {
        let path = folder.path().join("log");
        let log = File::create(&path).expect("a file");
        let mut command = mesophyll(&["replay", "-", "--mode", "thread-pool", "--in-flight", "1"]);
        command.env("JOURNAL_STREAM", stream(&log.metadata().expect("a file")));
        // What the log says: no command knows it.
        command.env("MESOPHYLL_UNHEARD_OF", "1").stdin(Stdio::null()).stderr(log);
        assert!(command.status().expect("it runs").success());
        let log = std::fs::read_to_string(&path).expect("a log");
        log.lines().filter(|line| line.contains("UNHEARD_OF")).collect::<String>()
    };
    let journal = log_of(|log| format!("{}:{}", log.dev(), log.ino()));
    assert!(journal.starts_with("WARN  [mesophyll::"), "{journal}");
    // A child of a service inherits the variable; its stderr is where it was sent.
    let other = log_of(|log| format!("{}:{}", log.dev(), log.ino() + 1));
    assert!(!other.is_empty());
    assert_log(&other, true);
}
