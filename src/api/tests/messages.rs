//! Messages for tenants over real sockets: those of staff, and those that masters forward.

use crossbeam_channel::bounded;
use serde_json::json;

use super::cluster::{A, Pair, pair};
use super::*;
use crate::dispatch::MessageCarrier;
use crate::wire::data::{EncodedJson, KeyValueOp, MessageOutcome, Scopes, TenantMessage};

const TARGET: &str = "/i/message/guild/123";

fn data_of(event: &CreateEvent) -> serde_json::Value {
    assert_eq!((event.name.as_str(), &event.author), ("TenantMessage", &None));
    let EventData::Json(data) = &event.data else { panic!("plain JSON") };
    serde_json::from_str(&json::json_from_encoded(data).expect("JSON")).expect("JSON")
}

#[test]
fn a_message_of_staff_is_the_event_and_needs_no_permission() {
    let fixture = serve(config());
    let body = json!({ "topic": "notice", "data": { "text": "soon" } });
    assert_eq!(fixture.post(TARGET, body), (202, json!({ "outcome": "accepted" })));
    let (tenant, event) = fixture.seen();
    assert_eq!(tenant, TenantId::Guild(123));
    let data =
        json!({ "depth": 1, "from": "staff", "topic": "notice", "data": { "text": "soon" } });
    assert_eq!(data_of(&event), data);
    let metrics = fixture.ask("GET", "/metrics", "", b"");
    assert!(metrics.text().contains("mesophyll_messages_total{outcome=\"accepted\"} 1\n"));
}

#[test]
fn a_caller_cannot_say_whose_message_it_is() {
    let fixture = serve(config());
    let hop = "Mesophyll-Hop: 1; epoch=1; from=a\r\n";
    let body = r#"{"topic":"t","from":"guild:1","depth":1}"#;
    let headers = format!("{}{hop}", authorization());
    let answer = fixture.ask("POST", TARGET, &headers, body.as_bytes());
    expect_error(&answer, 400, "BadRequest", false);
    let pair = pair();
    pair.owner(Some(A));
    let answer = pair.a.fixture.ask("POST", TARGET, &authorization(), body.as_bytes());
    expect_error(&answer, 400, "BadRequest", false);
    let answer = pair.a.fixture.ask("POST", TARGET, &headers, body.as_bytes());
    expect_error(&answer, 400, "BadRequest", false);
    assert!(fixture.seen_rx.is_empty() && pair.a.fixture.seen_rx.is_empty());
}

#[test]
fn what_is_too_large_for_a_message_is_refused() {
    let fixture = serve(config());
    let topic = |len: usize| json!({ "topic": "x".repeat(len) }).to_string();
    let data = |len: usize| json!({ "topic": "", "data": "x".repeat(len) }).to_string();
    for body in [topic(65), data(16 * 1024), data(200_000)] {
        fixture.refused("POST", TARGET, &body, 413, "TooLarge");
    }
    for body in [topic(64), data(16 * 1024 - 3)] {
        assert_eq!(fixture.post(TARGET, body).0, 202);
    }
    fixture.refused("POST", TARGET, "{}", 400, "BadRequest");
}

fn message(from: TenantId, to: TenantId) -> TenantMessage {
    let data: EncodedJson = json::event_data_from_json(br#"{"n":[1,null]}"#).expect("JSON");
    TenantMessage { from, to, topic: "duel.\"x".to_owned(), data, depth: 3 }
}

fn carried(pair: &Pair, message: &TenantMessage) -> MessageOutcome {
    let (outcome_tx, outcome_rx) = bounded(1);
    let answer = move |outcome| outcome_tx.send(outcome).expect("room");
    pair.a.fixture.states.3.carry(message.clone(), Box::new(answer));
    outcome_rx.recv_timeout(PATIENCE).expect("an answer")
}

#[test]
fn a_message_goes_to_the_master_that_has_its_receiver() {
    let pair = pair();
    let (from, to) = (TenantId::Guild(1 << 22), TenantId::User(2 << 22));
    pair.split_at(from);
    assert_eq!(carried(&pair, &message(from, to)), MessageOutcome::NotAllowed);
    let value = json::value_from_json(format!(r#"{{"{from}":["duel."]}}"#).as_bytes());
    let (scopes, key) = (Scopes::new(["#messages"]), "allowed".to_owned());
    let allow = KeyValueOp::Set { scopes, key, value: value.expect("a value") };
    pair.b.fixture.db.kv(to, allow).expect("set");
    assert_eq!(carried(&pair, &message(from, to)), MessageOutcome::Accepted);
    let (tenant, event) = pair.b.fixture.seen();
    assert_eq!(tenant, to);
    let data = json!({
        "depth": 3, "from": "guild:4194304", "topic": "duel.\"x", "data": { "n": [1, null] }
    });
    assert_eq!(data_of(&event), data);
    assert!(pair.a.fixture.seen_rx.is_empty());
    // Staff's goes there too.
    let target = format!("/i/message/user/{}", to.snowflake());
    let body = json!({ "topic": "notice" });
    assert_eq!(pair.a.fixture.post(&target, body).0, 202);
    assert_eq!(data_of(&pair.b.fixture.seen().1)["from"], "staff");
}

#[test]
fn a_message_for_a_master_that_is_gone_is_busy() {
    let pair = pair();
    let (from, to) = (TenantId::Guild(1 << 22), TenantId::User(2 << 22));
    pair.split_at(from);
    let Pair { a, b } = pair;
    drop(b);
    let (outcome_tx, outcome_rx) = bounded(1);
    let answer = move |outcome| outcome_tx.send(outcome).expect("room");
    a.fixture.states.3.carry(message(from, to), Box::new(answer));
    assert_eq!(outcome_rx.recv_timeout(PATIENCE), Ok(MessageOutcome::Busy));
}
