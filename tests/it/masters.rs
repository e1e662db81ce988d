//! Several masters over one PostgreSQL, as their operator and their callers see them.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Master, Running, get_with, mesophyll, run, token};
use crate::support::cluster::place;
use crate::support::postgres::{self, Locale, Schema};
use crate::support::process::{eventually, within};

/// As short as it may be, so that a takeover takes as long.
const LEASE: &str = "3s";

const TENANT: &str = "guild/4194304";

fn options<'o>(schema: &'o Schema, name: &'o str) -> Vec<&'o str> {
    [&["--lease", LEASE], &place(schema, name)[..]].concat()
}

fn start(schema: &Schema, name: &str) -> Master {
    let master = Master::start_in(TempDir::new(), &options(schema, name));
    master.wait_ready();
    master
}

/// The masters that one of them knows: shards by name, of those that live.
fn shards(at: &Master) -> Value {
    let (status, body) = get_with(at.api(), "/i/masters", &token(7));
    assert_eq!(status, 200, "{body}");
    let masters: Value = serde_json::from_str(&body).expect("JSON");
    let alive = masters.as_array().into_iter().flatten().filter(|one| one["state"] != "dead");
    alive.map(|one| (one["name"].as_str().unwrap_or_default(), one["shards"].clone())).collect()
}

fn wait_shards(at: &Master, expected: Value) {
    let mut last = Value::Null;
    within(Duration::from_secs(30), "the shards are where they belong", || {
        last = shards(at);
        (last == expected).then_some(())
    });
}

/// Has the tenant count; each master must know what the others counted.
fn count(at: &Master, expected: u64) {
    let (status, body) = at.dispatch(TENANT, "COUNT", "null");
    assert_eq!((status, &body), (200, &json!(expected)), "at {}", at.ready);
}

#[test]
fn tenants_go_from_master_to_master_and_lose_nothing() {
    if !postgres::is_there("tenants_go_from_master_to_master_and_lose_nothing") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let one = start(&schema, "one");
    assert_eq!((&one.ready["cluster"], &one.ready["name"]), (&json!("test"), &json!("one")));
    one.running.wait_stderr("PostgreSQL waits for no standby");
    let two = start(&schema, "two");
    wait_shards(&two, json!({"one": 509, "two": 0}));
    one.running.wait_stderr("the masters are one (up), two (up)");
    count(&one, 1);
    count(&two, 2);
    // A hand-over waits for what runs, and what comes meanwhile waits for it.
    std::thread::scope(|scope| {
        let held = scope.spawn(|| two.dispatch(TENANT, "WAIT", r#"{"mark":1,"seconds":2}"#));
        eventually("it runs", || {
            let (_, body) = get_with(one.api(), "/i/workers", &token(7));
            let workers: Value = serde_json::from_str(&body).expect("JSON");
            (workers[0]["in_flight"] == 1).then_some(())
        });
        one.command(&["drain", "one"]).expect(0, "");
        let counted = scope.spawn(|| count(&one, 3));
        assert_eq!(held.join().expect("no panic"), (200, json!("waited 1")));
        counted.join().expect("no panic");
    });
    wait_shards(&one, json!({"one": 0, "two": 509}));
    count(&one, 4);
    let route = one.command(&["route", "guild:4194304"]);
    route.expect(0, "");
    assert!(route.stdout.concat().contains("two"), "{route:?}");
    two.command(&["undrain", "one"]).expect(0, "");
    // A master that is gone is waited for, and then taken over from.
    two.running.signal(Signal::KILL);
    assert!(!two.running.wait().status.success());
    count(&one, 5);
    wait_shards(&one, json!({"one": 509}));
    one.running.wait_stderr("the masters are one (up)");
    one.running.wait_stderr("this master holds 509 of 509 shards");
    let two = start(&schema, "two");
    count(&two, 6);
    let listed = two.command(&["masters"]);
    listed.expect(0, "");
    assert_eq!(listed.stdout.len(), 3, "a line for each of both: {listed:?}");
    let status = two.command(&["status"]);
    assert!(status.stdout.concat().contains("two, "), "{status:?}");
    let (stopped, _) = one.stop();
    stopped.expect(0, "");
    wait_shards(&two, json!({"two": 509}));
    count(&two, 7);
    two.stop().0.expect(0, "");
}

#[test]
fn a_master_that_drains_takes_what_no_other_can() {
    if !postgres::is_there("a_master_that_drains_takes_what_no_other_can") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let (one, two) = (start(&schema, "one"), start(&schema, "two"));
    one.command(&["drain", "one"]).expect(0, "");
    wait_shards(&one, json!({"one": 0, "two": 509}));
    two.running.signal(Signal::KILL);
    // It is gone then: one that still dies may have taken the request.
    drop(two);
    count(&one, 1);
    wait_shards(&one, json!({"one": 509}));
    let two = start(&schema, "two");
    wait_shards(&one, json!({"one": 0, "two": 509}));
    two.stop().0.expect(0, "");
    wait_shards(&one, json!({"one": 509}));
    count(&one, 2);
    one.stop().0.expect(0, "this master holds 0 of 509 shards");
}

#[test]
fn a_master_that_stood_still_finds_its_tenants_elsewhere() {
    if !postgres::is_there("a_master_that_stood_still_finds_its_tenants_elsewhere") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let (one, two) = (start(&schema, "one"), start(&schema, "two"));
    count(&one, 1);
    one.running.signal(Signal::STOP);
    // It is sent where its tenant is, and never again.
    let (status, sent) = two.dispatch_with(TENANT, "COUNT", "null", "?deadline_ms=1000");
    assert_eq!((status, &sent["sent"]), (502, &json!(true)), "{sent}");
    wait_shards(&two, json!({"two": 509}));
    count(&two, 2);
    one.running.signal(Signal::CONT);
    // What was sent to it then runs there, and finds that it may not write.
    count(&one, 3);
    one.running.wait_stderr("the lease was over");
    one.stop().0.expect(0, "");
    two.stop().0.expect(0, "");
}

#[test]
fn a_master_that_cannot_join_says_why() {
    if !postgres::is_there("a_master_that_cannot_join_says_why") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let one = start(&schema, "one");
    let refused = |args: &[&str], code: i32, says: &str| {
        let all = [&["master", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"], args].concat();
        let mut command = mesophyll(&all);
        command.env("MESOPHYLL_API_SECRET", crate::support::binary::SECRET);
        let refused = Running::start(command).wait();
        refused.expect(code, says);
        refused.stderr
    };
    let said = refused(&options(&schema, "one"), 3, "a master named one is there");
    assert!(said.contains("waits for the end of another master named one"), "{said}");
    let of_another: Vec<&str> = options(&schema, "two")
        .into_iter()
        .map(|word| if word == "test" { "another" } else { word })
        .collect();
    refused(&of_another, 3, "the cluster test");
    refused(&["--store", schema.url(), "--name", "two"], 4, "other masters (one)");
    one.stop().0.expect(0, "");
    // Alone it has all at once, and lets no other in.
    let alone = Master::start_in(TempDir::new(), &["--store", schema.url(), "--lease", LEASE]);
    assert_eq!(alone.ready["cluster"], Value::Null);
    refused(&options(&schema, "two"), 4, "other masters");
    // Another name would not help this one.
    refused(&["--store", schema.url(), "--lease", LEASE], 4, "other masters");
    let (stopped, _) = alone.stop();
    stopped.expect(0, "this master holds 509 of 509 shards");
    assert!(!stopped.stderr.contains("standby"), "{stopped:?}");
}

#[test]
fn a_cluster_without_what_it_needs_is_refused() {
    let cluster = ["master", "--cluster", "c", "--advertise", "127.0.0.1:7451"];
    run(&[&cluster[..], &["--store", "memory:"]].concat()).expect(2, "--store postgres://");
    let store = ["--store", "postgres://127.0.0.1:1/none"];
    run(&[&cluster[..], &store].concat()).expect(3, "MESOPHYLL_API_SECRET");
    let beyond = ["master", "--cluster", "c", "--advertise", "10.0.0.1:7451"];
    run(&[&beyond[..], &store].concat()).expect(2, "--api-tls");
}
