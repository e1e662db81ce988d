//! What 202 promises to a caller that does not wait: the event is in its tenant's queue, and it
//! runs, or the master says that it did not.

use mesophyll::base::limits::TENANT_UNHEARD_MAX;
use rustix::process::Signal;

use crate::metrics::Scrape;
use crate::support::binary::{Master, get_with, token};
use crate::support::process::{eventually, signal, workers_of};

/// More than a tenant's queue takes.
const POSTS: usize = TENANT_UNHEARD_MAX + 150;

/// Sends events that nobody waits for and that do not end before they are released; returns how
/// many were taken.
fn post(master: &Master, tenant: &str, posts: usize) -> usize {
    let mut taken = 0;
    for _ in 0..posts {
        let (status, body) =
            master.dispatch_with(tenant, "HOLD", r#"{"mark":"unseen"}"#, "?nowait=true");
        match status {
            202 => taken += 1,
            _ => assert_eq!(
                (status, body["code"].as_str(), body["sent"].as_bool()),
                (503, Some("Busy"), Some(false))
            ),
        }
    }
    taken
}

/// How many events that nobody waited for have ended, and ended so.
fn ended(master: &Master, outcome: &str) -> usize {
    Scrape::of(master).sum(
        "mesophyll_dispatches_total",
        &["kind=\"event_nowait\"", &format!("outcome=\"{outcome}\"")],
    ) as usize
}

#[test]
fn of_events_without_a_waiter_as_many_run_as_were_taken() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--mode", mode, "--log", "info"]);
        master.wait_ready();
        let (tenant, other) = ("guild/1", "guild/2");
        let taken = post(&master, tenant, POSTS);
        assert_eq!((taken, ended(&master, "busy")), (TENANT_UNHEARD_MAX, POSTS - taken), "{mode}");
        assert_eq!(master.dispatch(other, "ECHO", "1").0, 200, "another tenant's queue has room");
        master.release(tenant);
        eventually("they have run", || (ended(&master, "ok") == taken).then_some(()));
        assert_eq!(post(&master, tenant, 1), 1, "there is room again");
        let stopped = master.stop().0;
        assert!(!stopped.stderr.contains("nobody waited for"), "{stopped:?}");
    }
}

#[test]
fn a_second_signal_says_how_many_events_are_lost() {
    for mode in ["process-pool", "thread-pool"] {
        let options = ["--mode", mode, "--workers", "1", "--stop-timeout", "5m", "--log", "info"];
        let master = Master::start(&options);
        master.wait_ready();
        assert_eq!(post(&master, "guild/1", 7), 7);
        master.running.signal(Signal::TERM);
        master.running.wait_stderr("stopping: Terminate");
        master.running.signal(Signal::INT);
        master.running.wait().expect(0, "worker 0: 7 events that nobody waited for are lost");
    }
}

#[test]
fn events_without_a_waiter_that_a_killed_worker_had_are_told() {
    let master = Master::start(&["--log", "info", "--workers", "1"]);
    master.wait_ready();
    let taken = post(&master, "guild/1", POSTS) + post(&master, "user/2", 37);
    assert_eq!(taken, TENANT_UNHEARD_MAX + 37);
    signal(workers_of(master.pid())[&0], Signal::KILL);
    for lost in
        [format!("{TENANT_UNHEARD_MAX} events for guild:1"), "37 events for user:2".to_owned()]
    {
        let line = master
            .running
            .wait_stderr(&format!("worker 0: {lost} that nobody waited for were lost: "));
        assert!(line.contains(" outcome_unknown"), "{line}");
    }
    assert_eq!((ended(&master, "outcome_unknown"), ended(&master, "ok")), (taken, 0));
    // And their authors read it.
    let (_, log) = get_with(master.api(), "/i/logs?tenants=user:2", &token(7));
    assert!(log.contains("nobody waited for were lost: 37 outcome_unknown"), "{log}");
    // Its successor has room for as many.
    master.wait_ready();
    assert_eq!(post(&master, "guild/1", 10), 10);
    master.release("guild/1");
    eventually("they have run", || (ended(&master, "ok") == 10).then_some(()));
    let log = master.running.stderr_so_far();
    assert_eq!(
        log.matches("that nobody waited for were lost").count(),
        2,
        "one line a tenant: {log}"
    );
}
