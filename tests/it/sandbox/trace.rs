//! Which system calls a worker under load makes: one that is not on the list of the sandbox would
//! be noticed in production otherwise, after an update of Rust or of the C library.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::support::TempDir;
use crate::support::binary::{BINARY, Master, TEMPLATES};
use crate::support::skip::skipped;

/// Refused on purpose: the C library tries `clone3` before `clone`.
const REFUSED: [&str; 1] = ["clone3"];

#[test]
fn a_loaded_worker_makes_no_call_that_is_refused() {
    let test = "a_loaded_worker_makes_no_call_that_is_refused";
    let has_strace = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !has_strace {
        return skipped(test, "there is no strace; Debian's package strace has it");
    }
    let folder = TempDir::new();
    let templates = folder.path().join("templates");
    fs::create_dir(&templates).expect("a folder");
    for file in fs::read_dir(TEMPLATES).expect("templates") {
        let file = file.expect("an entry").path();
        fs::copy(&file, templates.join(file.file_name().expect("a name"))).expect("a copy");
    }
    let traces = folder.path().join("trace");
    let program = folder.path().join("traced");
    let script = format!(
        "#!/bin/sh\nexec strace -f -qq -e signal=none -e abbrev=all -o {} {BINARY} \"$@\"\n",
        traces.display()
    );
    fs::write(&program, script).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).expect("a mode");
    let templates = templates.to_str().expect("text");
    let program = program.to_str().expect("text");
    let with =
        ["--workers", "1", "--worker-program", program, "--reload", "--templates", templates];
    let master = Master::start(&with);
    master.wait_ready();
    for turn in 1..=50 {
        let tenant = format!("guild/{}", turn % 5);
        assert_eq!(master.dispatch(&tenant, "COUNT", "1").0, 200);
    }
    // A template of its own, a script error, a VM that is closed, another level of the log, other
    // templates in the directory.
    let own = folder.path().join("own.luau");
    fs::write(&own, "return function(ctx) return ctx.KV:get('x', {'s'}) end").expect("a file");
    let own = own.to_str().expect("text");
    master.command(&["template", "set", "guild:1", own]).expect(0, "");
    assert_eq!(master.dispatch("guild/1", "ANY", "1").0, 200);
    fs::write(own, "error('on purpose')").expect("a file");
    master.command(&["run-script", "guild:2", own]).expect(1, "on purpose");
    fs::write(own, "return string.rep('x', 1e8)").expect("it");
    master.command(&["run-script", "guild:3", own]).expect(1, "memory");
    master.command(&["drop-tenant", "guild:2"]).expect(0, "");
    master.command(&["log-level", "debug"]).expect(0, "");
    fs::write(format!("{templates}/other.luau"), "return {}").expect("a file");
    master.running.wait_stderr("the templates have changed");
    assert_eq!(master.dispatch("guild/1", "ANY", "1").0, 200);
    assert_eq!(master.stop().0.code(), 0);
    let trace = fs::read_to_string(&traces).expect("a trace");
    let refused = |line: &&str| line.contains("= -1 ENOSYS");
    // `PID CALL(…) = …`, or `PID <... CALL resumed>…) = …` where another thread came between.
    let calls = trace.lines().filter(refused).filter_map(|line| {
        let (_, call) = line.split_once(' ')?;
        let call = call.trim_start().trim_start_matches("<... ");
        call.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').next()
    });
    let refused: BTreeSet<&str> = calls.collect();
    let unexpected: Vec<_> = refused.iter().filter(|call| !REFUSED.contains(call)).collect();
    assert!(unexpected.is_empty(), "refused in its sandbox: {unexpected:?}");
    assert!(trace.contains("seccomp("), "the worker was confined while it was traced");
}
