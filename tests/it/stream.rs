//! `GET /i/stream` at a real master: credits, order, keys, what has no answer, and the goodbye.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

#[cfg(feature = "postgres")]
use crate::support::TempDir;
use crate::support::binary::{Master, get, get_with, post, token};
#[cfg(feature = "postgres")]
use crate::support::cluster::{place, tenants_of};
#[cfg(feature = "postgres")]
use crate::support::postgres::{self, Locale, Schema};
use crate::support::process::{eventually, signal, workers_of};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const A: &str = "guild:4194304";

/// A caller's end of a stream.
struct Caller {
    socket: WebSocket<TcpStream>,
    credits: usize,
}

/// What came over a stream.
#[derive(Debug)]
enum Came {
    Answer(Value),
    Closed(u16),
}

impl Caller {
    fn open(master: &Master) -> Self {
        let mut caller = Self { socket: connect(master).expect("a stream"), credits: 0 };
        let hello = caller.answer();
        assert!(hello["hello"]["max_bytes"].as_u64() >= Some(1 << 20), "{hello}");
        caller.credits = usize::try_from(hello["hello"]["credits"].as_u64().expect("a number"))
            .expect("it fits");
        caller
    }

    fn send(&mut self, line: &Value) {
        self.send_text(&line.to_string());
    }

    fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("sent");
    }

    fn next(&mut self) -> Came {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Came::Answer(serde_json::from_str(&text).expect("JSON"));
                }
                Ok(Message::Close(frame)) => {
                    return Came::Closed(frame.expect("a code").code.into());
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn answer(&mut self) -> Value {
        match self.next() {
            Came::Answer(answer) => answer,
            Came::Closed(code) => panic!("closed with {code}"),
        }
    }

    fn ask(&mut self, line: &Value) -> Value {
        self.send(line);
        self.answer()
    }
}

fn connect(master: &Master) -> Result<WebSocket<TcpStream>, Error> {
    let socket = TcpStream::connect(master.api()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request =
        format!("ws://{}/i/stream", master.api()).into_client_request().expect("a request");
    let header = format!("Internal {}", token(7)).parse().expect("a header");
    request.headers_mut().insert("Authorization", header);
    match tungstenite::client::client(request, socket) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

/// A figure of the master's; 0: it has no such sample.
fn figure(master: &Master, sample: &str) -> u64 {
    let (_, text) = get(master.api(), "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}

/// How many lines came to this.
fn lines(master: &Master, outcome: &str) -> u64 {
    figure(master, &format!("mesophyll_stream_events_total{{outcome=\"{outcome}\"}}"))
}

fn event(id: u64, name: &str, data: Value) -> Value {
    json!({"id": id, "tenant": A, "name": name, "data": data})
}

fn started(args: &[&str]) -> Master {
    let master = Master::start(args);
    master.wait_ready();
    master
}

#[test]
fn each_event_has_the_answer_that_it_wants() {
    let master = started(&["--workers", "1"]);
    let mut caller = Caller::open(&master);
    let echo = |id: u64, more: Value| {
        let mut line = event(id, "ECHO", json!({"x": [1, "é"]}));
        line.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        line
    };
    assert_eq!(caller.ask(&echo(1, json!({}))), json!({"id": 1, "ok": {"x": [1, "é"]}}));
    assert_eq!(caller.ask(&echo(1, json!({"want": "ack"}))), json!({"id": 1, "ok": true}));
    caller.send(&echo(2, json!({"want": "none"})));
    assert_eq!(caller.ask(&event(3, "AUTHOR", Value::Null)), json!({"id": 3, "ok": "7"}));
    let other = caller.ask(&echo(4, json!({"author": "8"})));
    assert_eq!((&other["id"], &other["error"]["kind"]), (&json!(4), &json!("refused")), "{other}");
    let failed = caller.ask(&event(5, "FAIL", Value::Null));
    assert_eq!(failed["error"]["kind"], "script");
    assert_eq!(failed["error"]["sent"], true);
    let mut late = event(6, "WAIT", json!({"mark": "late", "seconds": 20}));
    late["deadline_ms"] = json!(200);
    let late = caller.ask(&late);
    assert_eq!(
        (&late["error"]["kind"], &late["error"]["sent"]),
        (&json!("deadline"), &json!(true))
    );
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_line_that_is_wrong_has_an_answer_that_says_so() {
    let master = started(&["--workers", "1"]);
    let mut caller = Caller::open(&master);
    for (line, id, says) in [
        ("", Value::Null, "JSON object"),
        ("[1]", Value::Null, "JSON object"),
        (r#"{"tenant":"guild:1","name":"A"}"#, Value::Null, "\"id\" is missing"),
        (r#"{"id":-1,"tenant":"guild:1","name":"A"}"#, Value::Null, "whole number"),
        (r#"{"id":9007199254740993,"tenant":"guild:1","name":"A"}"#, Value::Null, "2^53"),
        (r#"{"id":1,"tenant":"elephant","name":"A"}"#, json!(1), "\"tenant\" names none"),
        (r#"{"id":2,"tenant":"guild:1"}"#, json!(2), "\"name\" is missing"),
        (r#"{"id":3,"tenant":"guild:1","name":"A","what":1}"#, json!(3), "unknown field"),
        (r#"{"id":4,"tenant":"guild:1","name":"A","want":"all"}"#, json!(4), "\"want\""),
        (r#"{"id":5,"tenant":"guild:1","name":"A","key":""}"#, json!(5), "\"key\""),
    ] {
        caller.send_text(line);
        let answer = caller.answer();
        assert_eq!(answer["id"], id, "{line}: {answer}");
        assert_eq!(answer["error"]["kind"], "bad_input", "{line}: {answer}");
        assert_eq!(answer["error"]["sent"], false, "{line}: {answer}");
        let message = answer["error"]["message"].as_str().expect("text");
        assert!(message.contains(says), "{line}: {answer}");
    }
    assert_eq!(caller.ask(&event(6, "ECHO", json!(1)))["ok"], 1, "the stream is whole");
    assert_eq!((lines(&master, "bad_input"), lines(&master, "handed_over")), (10, 1));
    // Another kind of message is none of a stream's; a request that asks for no WebSocket either.
    caller.socket.send(Message::binary(vec![1])).expect("sent");
    assert!(matches!(caller.next(), Came::Closed(1003)));
    let wrong = "mesophyll_stream_ends_total{what=\"stream\",cause=\"wrong\"}";
    eventually("its end is counted", || (figure(&master, wrong) == 1).then_some(()));
    let (status, text) = get_with(master.api(), "/i/stream", &token(7));
    assert_eq!(status, 426, "{text}");
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_tenant_gets_more_than_its_room_in_order() {
    let master = started(&["--workers", "2"]);
    let mut caller = Caller::open(&master);
    // Far more than a tenant has room for at once: the rest is held.
    let many = caller.credits as u64;
    for id in 0..many {
        caller.send(&event(id, "CALLS", Value::Null));
    }
    let mut answers: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..many {
        let answer = caller.answer();
        let calls = answer["ok"].as_u64().unwrap_or_else(|| panic!("{answer}"));
        answers.insert(answer["id"].as_u64().expect("an id"), calls);
    }
    for (id, calls) in answers {
        assert_eq!(calls, id + 1, "in the order in which they were sent");
    }
    // That it was tried again is no job that ended.
    assert_eq!(lines(&master, "handed_over"), many);
    for worker in 0..2 {
        let busy = format!(
            "mesophyll_dispatches_total{{worker=\"{worker}\",kind=\"event\",outcome=\"busy\"}}"
        );
        assert_eq!(figure(&master, &busy), 0, "what is held is not refused");
    }
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn one_event_more_than_the_credits_is_busy() {
    let master = started(&["--workers", "1"]);
    let mut caller = Caller::open(&master);
    let hold = json!({"mark": "held"});
    for id in 0..caller.credits as u64 {
        caller.send(&event(id, "HOLD", hold.clone()));
    }
    let twice = caller.ask(&event(0, "ECHO", Value::Null));
    assert_eq!(twice["error"]["kind"], "bad_input", "{twice}");
    let answer = caller.ask(&event(1 << 53, "ECHO", Value::Null));
    assert_eq!(answer["id"], 1u64 << 53);
    assert_eq!(answer["error"]["kind"], "busy");
    assert_eq!(answer["error"]["sent"], false);
    assert_eq!((lines(&master, "no_credit"), lines(&master, "bad_input")), (1, 1));
    master.release("guild/4194304");
    for _ in 0..caller.credits {
        let answer = caller.answer();
        assert_eq!(answer["ok"], "waited held", "{answer}");
    }
    assert_eq!(caller.ask(&event(0, "ECHO", json!(1)))["ok"], 1);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn an_event_with_a_key_runs_once() {
    let master = started(&["--workers", "1", "--failures-a-minute", "100"]);
    let mut caller = Caller::open(&master);
    let keyed = |id: u64, name: &str, data: Value, key: &str| {
        let mut line = event(id, name, data);
        line["key"] = json!(key);
        line
    };
    assert_eq!(caller.ask(&keyed(1, "COUNT", Value::Null, "a"))["ok"], 1);
    let again = caller.ask(&keyed(2, "COUNT", Value::Null, "a"));
    assert_eq!(
        (&again["error"]["kind"], &again["error"]["sent"]),
        (&json!("duplicate"), &json!(true))
    );
    assert_eq!(caller.ask(&keyed(3, "COUNT", Value::Null, "b"))["ok"], 2);
    // Over another stream, and in a request with many, it is the same caller.
    let mut other = Caller::open(&master);
    assert_eq!(other.ask(&keyed(1, "COUNT", Value::Null, "a"))["error"]["kind"], "duplicate");
    let lines = format!(r#"{{"tenant":"{A}","name":"COUNT","key":"b"}}"#);
    let (_, text) = post(master.api(), "/i/dispatch-events", &token(7), &lines);
    assert!(text.contains("duplicate"), "{text}");
    // An event that was not sent may come again; one whose worker died may have run.
    let mut late = keyed(4, "COUNT", Value::Null, "c");
    late["deadline_ms"] = json!(0);
    assert_eq!(caller.ask(&late)["error"]["kind"], "bad_input");
    caller.send(&keyed(5, "WAIT", json!({"mark": "now", "seconds": 25}), "d"));
    master.running.wait_stderr("waiting now");
    signal(workers_of(master.pid())[&0], Signal::KILL);
    assert_eq!(caller.answer()["error"]["kind"], "outcome_unknown");
    assert_eq!(caller.ask(&keyed(6, "ECHO", json!(1), "d"))["error"]["kind"], "duplicate");
    assert_eq!(caller.ask(&keyed(7, "COUNT", Value::Null, "c"))["ok"], 3);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_key_whose_event_waits_is_free_if_that_never_runs() {
    let master = started(&["--workers", "1"]);
    let mut caller = Caller::open(&master);
    let keyed = |id: u64, deadline_ms: u64| {
        let mut line = event(id, "ECHO", json!(id));
        line["key"] = json!("a");
        line["deadline_ms"] = json!(deadline_ms);
        line
    };
    // More than the tenant has room for, and then the one with the key.
    for id in 1..caller.credits as u64 {
        caller.send(&event(id, "HOLD", json!({"mark": "held"})));
    }
    caller.send(&keyed(9999, 60_000));
    caller.send_text("");
    assert_eq!(caller.answer()["id"], Value::Null, "the others came before");
    let mut other = Caller::open(&master);
    let twice = other.ask(&keyed(1, 100));
    assert_eq!(
        (&twice["error"]["kind"], &twice["error"]["sent"]),
        (&json!("busy"), &json!(false)),
        "it may yet run or be dropped: {twice}"
    );
    drop(caller);
    eventually("the key is free", || {
        let answer = other.ask(&keyed(1, 100));
        (answer["error"]["kind"] == "no_worker").then_some(())
    });
    master.release("guild/4194304");
    assert_eq!(eventually("there is room", || other.ask(&keyed(2, 60_000))["ok"].as_u64()), 2);
    assert_eq!(other.ask(&keyed(3, 60_000))["error"]["kind"], "duplicate");
    assert_eq!(lines(&master, "duplicate"), 1);
    for outcome in ["key_busy", "no_room", "abandoned", "answer_lost"] {
        assert!(lines(&master, outcome) > 0, "{outcome}");
    }
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_caller_that_reads_nothing_is_cut_off_aloud() {
    let master = started(&["--workers", "1"]);
    let mut caller = Caller::open(&master);
    // More than sockets hold, and then more answers than may wait.
    caller.send(&event(1, "BIG", json!({"bytes": 15_000_000})));
    caller.socket.get_mut().peek(&mut [0]).expect("it is being sent");
    let sent =
        (0..3 * caller.credits).take_while(|_| caller.socket.send(Message::text("")).is_ok());
    assert!(sent.count() > 2 * caller.credits, "as many may wait");
    master.running.wait_stderr("a stream of user 7 has ended: the peer did not read");
    let slow = "mesophyll_stream_ends_total{what=\"stream\",cause=\"slow\"}";
    assert_eq!(figure(&master, slow), 1);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_caller_that_takes_nothing_keeps_its_place() {
    let master = started(&["--workers", "1", "--log", "debug"]);
    let streams = || {
        let (_, text) = get(master.api(), "/metrics");
        text.lines().find_map(|line| line.strip_prefix("mesophyll_streams ").map(str::to_owned))
    };
    let mut caller = Caller::open(&master);
    // More than sockets hold.
    caller.send(&event(1, "BIG", json!({"bytes": 15_000_000})));
    caller.socket.get_mut().peek(&mut [0]).expect("it is being sent");
    caller.socket.close(None).expect("sent");
    master.running.wait_stderr("the peer closed the link");
    assert_eq!(streams().as_deref(), Some("1"), "its writer is there still");
    assert_eq!(caller.answer()["id"], 1);
    eventually("its place is free", || (streams()? == "0").then_some(()));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn streams_have_places_of_their_own() {
    let master = started(&["--workers", "1"]);
    let mut callers: Vec<Caller> = (0..16).map(|_| Caller::open(&master)).collect();
    match connect(&master) {
        Err(Error::Http(response)) => assert_eq!(response.status(), 503),
        other => panic!("{other:?}"),
    }
    drop(callers.pop());
    let again = eventually("a place", || connect(&master).ok());
    drop(again);
    assert_eq!(callers[0].ask(&event(1, "ECHO", json!(1)))["ok"], 1);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_stop_says_goodbye_and_answers_what_runs() {
    let master = started(&["--workers", "1", "--stop-timeout", "2s"]);
    let mut caller = Caller::open(&master);
    caller.send(&event(1, "HOLD", json!({"mark": "now"})));
    master.running.wait_stderr("waiting now");
    master.running.signal(Signal::TERM);
    assert!(caller.answer()["goodbye"]["reason"].is_string());
    let refused = caller.ask(&event(2, "ECHO", Value::Null));
    assert_eq!(refused["error"]["kind"], "not_sent");
    caller.send(&event(3, "ECHO", Value::Null));
    assert_eq!(caller.answer()["error"]["sent"], false);
    let answer = caller.answer();
    assert_eq!(answer["id"], 1, "{answer}");
    assert_eq!(answer["error"]["kind"], "outcome_unknown", "{answer}");
    assert!(matches!(caller.next(), Came::Closed(1001)));
    assert_eq!(master.running.wait().code(), 0);
}

#[test]
fn a_stop_runs_nothing_more_of_what_is_held() {
    let master = started(&["--workers", "1", "--stop-timeout", "2s"]);
    let mut caller = Caller::open(&master);
    for id in 0..caller.credits as u64 {
        caller.send(&event(id, "HOLD", json!({"mark": "now"})));
    }
    caller.send_text("");
    assert_eq!(caller.answer()["id"], Value::Null, "the others came before");
    master.running.signal(Signal::TERM);
    assert!(caller.answer()["goodbye"]["reason"].is_string());
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..caller.credits {
        let Value::Object(error) = caller.answer()["error"].take() else { panic!("no error") };
        *ends.entry(format!("{} {}", error["kind"], error["sent"])).or_default() += 1;
    }
    assert!(matches!(caller.next(), Came::Closed(1001)));
    let held = ends.remove("\"not_sent\" false").expect("some were held");
    let handed_over = ends.remove("\"outcome_unknown\" true").expect("most were not");
    assert_eq!((held + handed_over, ends.len()), (caller.credits, 0), "{ends:?}");
    assert!(handed_over <= 1100, "no more than a tenant may have: {handed_over}");
    assert_eq!(master.running.wait().code(), 0);
}

#[test]
fn a_stop_says_of_what_waits_for_a_worker_that_it_did_not_run() {
    let master = Master::start(&["--external-workers", "--workers", "1", "--stop-timeout", "1s"]);
    let mut caller = Caller::open(&master);
    caller.send(&event(1, "ECHO", Value::Null));
    caller.send_text("");
    assert_eq!(caller.answer()["id"], Value::Null);
    let line = format!(r#"{{"tenant":"{A}","name":"ECHO"}}"#);
    let lines = std::thread::scope(|scope| {
        let api = master.api();
        let asking = scope.spawn(move || post(api, "/i/dispatch-events", &token(7), &line).1);
        eventually("it waits", || {
            let (_, text) = get(api, "/metrics");
            text.contains("mesophyll_dispatches_waiting{worker=\"0\"} 2").then_some(())
        });
        master.running.signal(Signal::TERM);
        asking.join().expect("answered")
    });
    assert!(lines.contains(r#""sent":false"#), "{lines}");
    assert!(caller.answer()["goodbye"]["reason"].is_string());
    assert_eq!(caller.answer()["error"]["sent"], false);
    assert!(matches!(caller.next(), Came::Closed(1001)));
    assert_eq!(master.running.wait().code(), 0);
}

#[test]
fn an_idle_stream_ends_at_once_when_the_master_stops() {
    let master = started(&["--workers", "1"]);
    let mut caller = Caller::open(&master);
    assert_eq!(caller.ask(&event(1, "ECHO", json!(1)))["ok"], 1);
    master.running.signal(Signal::TERM);
    assert!(caller.answer()["goodbye"]["reason"].is_string());
    assert!(matches!(caller.next(), Came::Closed(1001)));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn what_is_beyond_a_callers_rate_is_held() {
    let master = started(&["--workers", "1", "--caller-rate", "4"]);
    let mut caller = Caller::open(&master);
    for id in 0..12 {
        caller.send(&event(id, "CALLS", Value::Null));
    }
    for calls in 1..=12 {
        assert_eq!(caller.answer()["ok"], calls, "each one, in order");
    }
    // What others send does not count, nor does what they may send help.
    let echo = r#"{"name":"ECHO","data":1}"#;
    let ask = |user: u64| post(master.api(), "/i/dispatch-event/4194304", &token(user), echo);
    let busy = (0..100).map(|_| ask(7)).find(|(status, _)| *status != 200).expect("too many");
    assert_eq!(busy.0, 503);
    assert!(busy.1.contains("--caller-rate"), "{}", busy.1);
    assert_eq!(ask(8).0, 200);
    assert_eq!(master.stop().0.code(), 0);
}

/// A caller asks one master, and half of the tenants are another's.
#[cfg(feature = "postgres")]
#[test]
fn events_of_other_masters_tenants_are_forwarded_in_order() {
    if !postgres::is_there("events_of_other_masters_tenants_are_forwarded_in_order") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let start = |name: &str| {
        let lease = ["--lease", "3s", "--failures-a-minute", "100"];
        let master =
            Master::start_in(TempDir::new(), &[&lease[..], &place(&schema, name)].concat());
        master.wait_ready();
        master
    };
    let (one, two) = (start("one"), start("two"));
    let (here, there) = tenants_of(&one, &two);
    let mut caller = Caller::open(&one);
    let line = |id: u64, tenant: &str, name: &str| {
        let mut line = event(id, name, Value::Null);
        line["tenant"] = json!(tenant.replace('/', ":"));
        line
    };
    for id in 0..400 {
        caller.send(&line(id, if id % 2 == 0 { &here } else { &there }, "CALLS"));
    }
    let mut calls: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..400 {
        let answer = caller.answer();
        let count = answer["ok"].as_u64().unwrap_or_else(|| panic!("{answer}"));
        calls.insert(answer["id"].as_u64().expect("an id"), count);
    }
    for (id, count) in calls {
        assert_eq!(count, id / 2 + 1, "in the order in which they were sent");
    }
    // Whose event it is, what it wants, and what went wrong come over from there as well.
    assert_eq!(caller.ask(&line(1, &there, "AUTHOR")), json!({"id": 1, "ok": "7"}));
    let mut taken = line(2, &there, "ECHO");
    taken["want"] = json!("ack");
    assert_eq!(caller.ask(&taken), json!({"id": 2, "ok": true}));
    let failed = caller.ask(&line(3, &there, "FAIL"));
    assert_eq!(failed["error"]["kind"], "script", "{failed}");
    let lines = format!("{}\n", json!({"tenant": there.replace('/', ":"), "name": "CALLS"}));
    let (_, text) = post(one.api(), "/i/dispatch-events", &token(7), &lines.repeat(3));
    for (at, count) in [201, 202, 203].into_iter().enumerate() {
        assert!(text.contains(&json!({"line": at + 1, "ok": count}).to_string()), "{text}");
    }
    // One that never left, as another one of its tenant takes long, may come again.
    let mut held = line(4, &there, "HOLD");
    held["data"] = json!({"mark": "first"});
    caller.send(&held);
    two.running.wait_stderr("waiting first");
    let mut late = line(5, &there, "ECHO");
    (late["key"], late["deadline_ms"]) = (json!("late"), json!(200));
    let late = caller.ask(&late);
    assert_eq!((&late["id"], &late["error"]["sent"]), (&json!(5), &json!(false)), "{late}");
    one.release(&there);
    assert_eq!(caller.answer()["ok"], "waited first");
    let mut late = line(5, &there, "ECHO");
    late["key"] = json!("late");
    assert_eq!(caller.ask(&late), json!({"id": 5, "ok": null}));
    assert_eq!(caller.ask(&late)["error"]["kind"], "duplicate");
    // The other one dies with an event under way: what it did is not known, the next one waits for
    // the master that takes over.
    let mut held = line(4, &there, "WAIT");
    held["data"] = json!({"mark": "there", "seconds": 20});
    caller.send(&held);
    two.running.wait_stderr("waiting there");
    two.running.signal(Signal::KILL);
    let lost = caller.answer();
    assert_eq!((&lost["id"], &lost["error"]["sent"]), (&json!(4), &json!(true)), "{lost}");
    let mut next = line(5, &there, "ECHO");
    next["deadline_ms"] = json!(30_000);
    eventually("another master has it", || {
        let answer = caller.ask(&next);
        // Another connection to the one that dies may take an event that it will not read.
        let is_ok = answer == json!({"id": 5, "ok": null});
        assert!(is_ok || answer["error"]["kind"] == "outcome_unknown", "{answer}");
        is_ok.then_some(())
    });
    assert_eq!(one.stop().0.code(), 0);
}
