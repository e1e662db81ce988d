//! `--event-alias`, `--skip-events`, `--skip-author`: the same for callers of the API and in a
//! replay.

use serde_json::{Value, json};

use crate::metrics::Scrape;
use crate::support::binary::{Master, TEMPLATES, run_on};

const RULES: [&str; 6] =
    ["--event-alias", "OLD=ECHO", "--skip-events", "TYPING, QUIET", "--skip-author", "99"];

#[test]
fn events_have_their_names_here_and_some_are_nobodys() {
    let master = Master::start(&RULES);
    master.wait_ready();
    let tenant = "guild/1";
    assert_eq!(master.dispatch(tenant, "OLD", "5"), (200, json!(5)));
    assert_eq!(master.dispatch(tenant, "ECHO", "6"), (200, json!(6)));
    assert_eq!(master.dispatch(tenant, "QUIET", "7"), (200, Value::Null));
    assert_eq!(master.dispatch_with(tenant, "TYPING", "8", "?nowait=true").0, 202);
    let scrape = Scrape::of(&master);
    assert_eq!(scrape.sum("mesophyll_events_skipped_total", &[]), 2.0);
    assert_eq!(scrape.sum("mesophyll_dispatches_total", &["outcome=\"ok\""]), 2.0);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_replay_keeps_the_rules_and_knows_authors() {
    let line = |name: &str, author: &str, data: u64| {
        json!({ "tenant": "guild:1", "name": name, "author": author, "data": data }).to_string()
    };
    let input = [line("OLD", "7", 1), line("ECHO", "99", 2), line("QUIET", "7", 3)].join("\n");
    let replay = ["replay", "-", "--workers", "1", "--templates", TEMPLATES];
    let replayed = run_on(&[&replay[..], &RULES].concat(), input);
    replayed.expect(0, "3 events in ");
    let answers: Vec<Value> = replayed.json().iter().map(|line| line["ok"].clone()).collect();
    assert_eq!(answers, [json!(1), Value::Null, Value::Null]);
}
