//! Workers that end by what confines them: a forbidden call, a bound of memory; and templates that
//! are no longer those that they were confined to.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;
use serde_json::json;

use crate::support::TempDir;
use crate::support::binary::{Master, get_with, token, write};
use crate::support::process::{eventually, signal, workers_of};

/// Its worker dies, as of a forbidden call, with an event of this guild in flight.
fn dies_in_an_event(master: &Master, guild: &str) {
    master.wait_ready();
    let worker = workers_of(master.pid())[&0];
    std::thread::scope(|scope| {
        let held = scope.spawn(|| master.dispatch(guild, "LOOP", "1"));
        eventually("it runs", || {
            let (_, rows) = get_with(master.api(), "/i/workers", &token(7));
            rows.contains("\"in_flight\":1").then_some(())
        });
        signal(worker, Signal::SYS);
        let (status, body) = held.join().expect("an answer");
        assert_eq!((status, &body["code"]), (502, &json!("OutcomeUnknown")), "{body}");
    });
}

#[test]
fn a_death_by_its_sandbox_is_an_error_and_counts_twice() {
    let master = Master::start(&["--workers", "1", "--quarantine-after", "4"]);
    for _ in 0..2 {
        dies_in_an_event(&master, "guild/1");
    }
    // The fourth death of two: the tenant that was in flight each time is quarantined.
    master.running.wait_stderr("guild:1 is quarantined");
    let text = master.running.stderr_so_far();
    let line = text.lines().find(|line| line.contains("killed by its sandbox (SIGSYS)"));
    let line = line.expect("it is told");
    assert!(line.contains("ERROR") && line.contains("LOOP of guild:1"), "{line}");
    let (_, metrics) = get_with(master.api(), "/metrics", &token(7));
    assert!(metrics.contains("mesophyll_worker_sandbox_kills_total{worker=\"0\"} 2"));
    let (status, body) = master.dispatch("guild/1", "ECHO", "1");
    assert_eq!((status, &body["code"]), (403, &json!("Quarantined")));
    assert_eq!(master.dispatch("guild/2", "ECHO", "1").0, 200);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_worker_has_no_more_memory_than_it_may() {
    let master = Master::start(&["--workers", "1", "--worker-memory", "256MiB"]);
    master.wait_ready();
    let worker = workers_of(master.pid())[&0];
    let limits = fs::read_to_string(format!("/proc/{worker}/limits")).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max data size")).expect("a limit");
    let bytes: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    // In a control group of its own it is the group that bounds it.
    let groups = fs::read_to_string(format!("/proc/{worker}/cgroup")).expect("it runs");
    if !groups.contains("/worker-0") {
        let expected = (256 << 20).to_string();
        assert_eq!(bytes, [expected.as_str(), expected.as_str()], "{line}");
    }
    assert_eq!(master.dispatch("guild/1", "COUNT", "1"), (200, json!(1)));
    // VMs of several tenants, each within its own limit, together take more than there is: a
    // script gets an error, or the worker ends and comes back; what is stored stays.
    let hungry = "local t = {} for i = 1, 50 do t[i] = string.rep('x', 1000000 + i) end \
                  ctx = ... task.wait(2) return #t";
    let file = write(master.folder.path(), "hungry.luau", hungry);
    let file = file.to_str().expect("text");
    std::thread::scope(|scope| {
        for guild in 2..12 {
            let tenant = format!("guild:{guild}");
            scope.spawn(|| {
                let tenant = tenant;
                master.command(&["run-script", &tenant, file])
            });
        }
    });
    eventually("it serves", || {
        (master.dispatch("guild/1", "COUNT", "1") == (200, json!(2))).then_some(())
    });
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_bound_of_memory_below_a_workers_needs_is_refused() {
    let with = ["master", "--worker-memory", "1MiB"];
    crate::support::binary::run(&with).expect(2, "--worker-memory is 64MiB or more");
    let threads = ["master", "--mode", "thread-pool", "--worker-memory", "1GiB"];
    crate::support::binary::run(&threads).expect(2, "--worker-memory makes no sense");
}

#[test]
fn templates_that_were_replaced_as_a_whole_need_a_restart() {
    let folder = TempDir::new();
    let release = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect("a folder");
        write(&path, "main.luau", format!("return function(ctx) return '{text}' end"));
        path
    };
    let (first, second) = (release("1", "first"), release("2", "second"));
    let current = folder.path().join("current");
    symlink(&first, &current).expect("a link");
    let templates = current.to_str().expect("text");
    let master = Master::start(&["--workers", "1", "--reload", "--templates", templates]);
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "ANY", "1"), (200, json!("first")));
    // As a deployment does it: a new link takes the place of the old one in one step.
    let next = folder.path().join("next");
    symlink(&second, &next).expect("a link");
    fs::rename(&next, &current).expect("a switch");
    let (_, rows) = get_with(master.api(), "/i/workers", &token(7));
    if rows.contains("\"sandbox\":\"syscalls\"") {
        // Without Landlock it can read the other directory.
        master.running.wait_stderr("the templates have changed");
    } else {
        master.running.wait_stderr("it is another directory than at the start");
        assert_eq!(master.dispatch("guild/1", "ANY", "1"), (200, json!("first")));
        master.command(&["restart", "--all"]).expect(0, "");
    }
    eventually("the other templates", || {
        (master.dispatch("guild/1", "ANY", "1") == (200, json!("second"))).then_some(())
    });
    let (stopped, _) = master.stop();
    let told = stopped.stderr.matches("it is another directory than at the start").count();
    assert!(told <= 1, "{stopped:?}");
}
