//! Many events in one request.

use serde_json::{Value, json};

use super::*;
use crate::base::limits::API_EVENTS_UNDER_WAY;

const TARGET: &str = "/i/dispatch-events";

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/x-ndjson")),
        "{answer:?}"
    );
    let text = std::str::from_utf8(&answer.body).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// As they stand in the request.
fn sorted(answer: &Answer) -> Vec<Value> {
    let mut lines = lines(answer);
    lines.sort_by_key(|line| line["line"].as_u64());
    lines
}

#[test]
fn each_line_has_one_answer_and_a_tenant_its_order() {
    let fixture = serve(config());
    let body = r#"
        {"tenant":"guild:1","name":"VALUE","data":{"a":[1]}}

{"tenant":"user:2","name":"SCRIPT"}
{"tenant":"guild:1","name":"E","want":"ack"}
{"tenant":"guild:1","name":"E","want":"none"}
{"tenant":"guild:1","name":"BANNED","want":"none"}
nonsense
{"tenant":"role:1","name":"E"}
{"tenant":"guild:1","name":"E","author":"7"}
{"tenant":"guild:1","name":"E","want":"more"}
{"tenant":"guild:1","name":"E","deadline_ms":0}
{"tenant":"guild:1","name":"E","extra":0}
{"tenant":"guild:1","name":"LAST","deadline_ms":1e3,"author":"42"}"#;
    let answer = fixture.dispatch(TARGET, body);
    let said: Vec<(u64, String)> = sorted(&answer)
        .iter()
        .map(|line| {
            let error = &line["error"];
            let what = match error["kind"].as_str() {
                Some(kind) => format!("{kind} {}", error["sent"]),
                None => line["ok"].to_string(),
            };
            (line["line"].as_u64().expect("a number"), what)
        })
        .collect();
    let expected = [
        (2, r#"{"b":{"$buffer":"AQI="},"n":-1}"#),
        (4, "script true"),
        (5, "true"),
        (7, "refused false"),
        (8, "bad_input false"),
        (9, "bad_input false"),
        (10, "refused false"),
        (11, "bad_input false"),
        (12, "bad_input false"),
        (13, "bad_input false"),
        (14, "null"),
    ];
    assert_eq!(said, expected.map(|(line, what)| (line, what.to_owned())));
    let seen: Vec<String> = fixture.seen_rx.try_iter().map(|(_, event)| event.name).collect();
    assert_eq!(seen, ["VALUE", "SCRIPT", "E", "E", "BANNED", "LAST"]);
    assert!(lines(&fixture.dispatch(TARGET, "\n")).is_empty());
    expect_error(&fixture.dispatch(TARGET, ""), 400, "BadRequest", false);
}

#[test]
fn a_line_over_its_deadline_is_given_up_and_others_go_on() {
    let fixture = serve(config());
    let never = r#"{"tenant":"guild:1","name":"NEVER","deadline_ms":30}"#;
    let many = vec![never; API_EVENTS_UNDER_WAY - 1].join("\n");
    let answer =
        fixture.dispatch(TARGET, &format!("{many}\n{}", r#"{"tenant":"user:2","name":"E"}"#));
    let lines = sorted(&answer);
    assert_eq!(lines.len(), API_EVENTS_UNDER_WAY);
    let error = &lines[0]["error"];
    assert_eq!((&error["kind"], &error["sent"]), (&json!("deadline"), &json!(true)), "{error}");
    assert_eq!(lines[API_EVENTS_UNDER_WAY - 1]["ok"], Value::Null);
    assert_eq!(fixture.cancelled_rx.try_iter().count(), API_EVENTS_UNDER_WAY - 1);
}

#[test]
fn lines_that_were_given_up_hold_their_places_until_answered() {
    let fixture = serve(config());
    let never = r#"{"tenant":"guild:1","name":"NEVER","deadline_ms":30}"#;
    let many = vec![never; API_EVENTS_UNDER_WAY].join("\n");
    let body = format!("{many}\n{}", r#"{"tenant":"user:2","name":"E"}"#);
    let mut client = fixture.connect();
    client.send(head("POST", TARGET, &authorization(), body.len()).as_bytes());
    client.send(body.as_bytes());
    for _ in 0..API_EVENTS_UNDER_WAY {
        fixture.cancelled_rx.recv_timeout(PATIENCE).expect("its deadline comes");
    }
    (0..API_EVENTS_UNDER_WAY).for_each(|_| drop(fixture.seen()));
    assert!(fixture.seen_rx.try_recv().is_err(), "all places are taken");
    let late = fixture.pool.waiting.lock().expect("a lock").remove(0);
    late.send(Ok(value::encode(&KhronosValue::Null)));
    assert_eq!(fixture.seen().1.name, "E");
    let lines = lines(&client.answer_to("POST"));
    assert_eq!(lines.len(), API_EVENTS_UNDER_WAY + 1);
}

#[test]
fn answers_come_as_they_are_and_what_follows_waits_for_room() {
    let fixture = serve(config());
    let wait = r#"{"tenant":"guild:1","name":"WAIT"}"#;
    let body = vec![wait; API_EVENTS_UNDER_WAY + 1].join("\n");
    let mut client = fixture.connect();
    client.send(head("POST", TARGET, &authorization(), body.len()).as_bytes());
    client.send(body.as_bytes());
    (0..API_EVENTS_UNDER_WAY).for_each(|_| drop(fixture.seen()));
    assert!(fixture.seen_rx.try_recv().is_err(), "no more are under way at once");
    let first = fixture.pool.waiting.lock().expect("a lock").remove(0);
    first.send(Ok(value::encode(&KhronosValue::Integer(7))));
    let mut left = API_EVENTS_UNDER_WAY;
    while left > 0 {
        let there: Vec<_> = fixture.pool.waiting.lock().expect("a lock").drain(..).collect();
        left -= there.len();
        there.into_iter().for_each(|answer| answer.send(Ok(value::encode(&KhronosValue::Null))));
        std::thread::yield_now();
    }
    let lines = lines(&client.answer_to("POST"));
    assert_eq!(lines[0], json!({ "line": 1, "ok": 7 }));
    assert_eq!(lines.len(), API_EVENTS_UNDER_WAY + 1);
}

#[test]
fn one_that_finds_no_room_waits_until_its_deadline() {
    let fixture = serve(config());
    let body = r#"{"tenant":"guild:1","name":"BUSY","want":"ack","deadline_ms":100}
{"tenant":"guild:1","name":"E"}"#;
    let lines = sorted(&fixture.dispatch(TARGET, body));
    let error = &lines[0]["error"];
    assert_eq!((&error["kind"], &error["sent"]), (&json!("busy"), &json!(false)), "{error}");
    assert_eq!(lines[1], json!({ "line": 2, "ok": null }));
    let seen: Vec<String> = fixture.seen_rx.try_iter().map(|(_, event)| event.name).collect();
    assert!(seen.len() > 2 && seen[..seen.len() - 1].iter().all(|name| name == "BUSY"), "{seen:?}");
}

#[test]
fn a_caller_that_goes_gives_up_what_is_under_way() {
    let fixture = serve(config());
    let body = r#"{"tenant":"guild:1","name":"NEVER"}"#;
    let mut client = fixture.connect();
    client.send(head("POST", TARGET, &authorization(), body.len()).as_bytes());
    client.send(body.as_bytes());
    fixture.seen();
    drop(client);
    fixture.cancelled_rx.recv_timeout(PATIENCE).expect("it is given up");
}

#[test]
fn the_end_of_the_api_answers_every_line() {
    let fixture = serve(config());
    let body = r#"{"tenant":"guild:1","name":"NEVER"}
{"tenant":"guild:1","name":"NEVER"}"#;
    let mut client = fixture.connect();
    client.send(head("POST", TARGET, &authorization(), body.len()).as_bytes());
    client.send(body.as_bytes());
    (0..2).for_each(|_| drop(fixture.seen()));
    let Fixture { api, .. } = fixture;
    let ended = std::thread::spawn(move || api.shutdown(Instant::now()));
    for line in sorted(&client.answer_to("POST")) {
        let error = &line["error"];
        let said = (error["kind"].as_str(), error["sent"].as_bool());
        assert_eq!(said, (Some("outcome_unknown"), Some(true)), "{line}");
    }
    ended.join().expect("ended");
}
