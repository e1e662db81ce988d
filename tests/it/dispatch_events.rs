//! `POST /i/dispatch-events` at a real master: every line has one answer, also while workers die.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Master, get, post, token};
use crate::support::process::{eventually, signal, workers_of};

const LINES: usize = 2000;
const TENANTS: usize = 20;

fn guild(line: usize) -> String {
    format!("guild:{}", ((line % TENANTS) as u64 + 1) << 22)
}

fn dispatch(master: &Master, body: &str) -> Vec<Value> {
    let (status, text) = post(master.api(), "/i/dispatch-events", &token(7), body);
    assert_eq!(status, 200, "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn each_line_runs_once() {
    let master = Master::start(&["--workers", "2"]);
    master.wait_ready();
    let mut body = String::new();
    for line in 0..LINES {
        let _ = writeln!(body, r#"{{"tenant":"{}","name":"COUNT"}}"#, guild(line));
    }
    let mut counts: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut answers = dispatch(&master, &body);
    answers.sort_by_key(|answer| answer["line"].as_u64());
    assert_eq!(answers.len(), LINES);
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer["line"], at + 1, "{answer}");
        counts.entry(at % TENANTS).or_default().push(answer["ok"].as_u64().expect("a count"));
    }
    let expected: Vec<u64> = (1..=(LINES / TENANTS) as u64).collect();
    for counts in counts.values() {
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }
    // Taken, without a wait for what it does.
    let echo = r#"{"tenant":"guild:4194304","name":"ECHO","data":1,"want":"ack"}"#;
    assert_eq!(dispatch(&master, echo)[0]["ok"], true);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn lines_have_their_answers_though_a_worker_dies() {
    let master = Master::start(&["--workers", "2", "--failures-a-minute", "100"]);
    master.wait_ready();
    let hold = r#"{"tenant":"guild:4194304","name":"WAIT","data":{"mark":"now","seconds":25}}"#;
    let mut body = format!("{hold}\n");
    for line in 0..LINES {
        let _ = writeln!(body, r#"{{"tenant":"{}","name":"COUNT"}}"#, guild(line));
    }
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| dispatch(&master, &body));
        // It runs in the worker of the first shard.
        master.running.wait_stderr("waiting now");
        let dying = workers_of(master.pid())[&1];
        signal(dying, Signal::KILL);
        eventually("another one", || {
            workers_of(master.pid()).get(&1).filter(|pid| **pid != dying).copied()
        });
        asking.join().expect("answered")
    });
    assert_eq!(answers.len(), LINES + 1);
    let (mut ran, mut unknown) = (0, 0);
    for answer in answers.iter().filter(|answer| answer["line"] != 1) {
        let error = &answer["error"];
        match error["sent"].as_bool() {
            None => ran += 1,
            Some(true) => unknown += 1,
            Some(false) => assert!(error["kind"].is_string(), "{answer}"),
        }
    }
    assert!(answers.iter().any(|answer| answer["error"]["kind"] == "outcome_unknown"), "it died");
    let counted: u64 = (0..TENANTS)
        .map(|tenant| {
            let (status, count) =
                master.dispatch(&guild(tenant).replace(':', "/"), "COUNT", "null");
            assert_eq!(status, 200, "{count}");
            count.as_u64().expect("a count") - 1
        })
        .sum();
    assert!(ran <= counted && counted <= ran + unknown, "{ran} {counted} {unknown}");
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_line_with_a_key_outlives_its_connection() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let ended = |outcome: &str| {
        let (_, text) = get(master.api(), "/metrics");
        let outcome = format!(r#"kind="event",outcome="{outcome}""#);
        let line = text.lines().find(|line| line.contains(&outcome)).unwrap_or_default();
        line.rsplit_once(' ').map_or(0, |(_, count)| count.parse().expect("a count"))
    };
    let keyed = r#"{"tenant":"guild:4194304","name":"HOLD","data":{"mark":"keyed"},"key":"a"}"#;
    let plain = r#"{"tenant":"guild:8388608","name":"HOLD","data":{"mark":"plain"}}"#;
    let body = format!("{keyed}\n{plain}\n");
    let mut socket = TcpStream::connect(master.api()).expect("it listens");
    let head = format!(
        "POST /i/dispatch-events HTTP/1.1\r\nHost: x\r\nAuthorization: Internal {}\r\n\
         Content-Length: {}\r\n\r\n",
        token(7),
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).expect("sent");
    // In either order.
    (0..2).for_each(|_| drop(master.running.wait_stderr("] waiting ")));
    drop(socket);
    eventually("the other one is given up", || (ended("deadline") == 1).then_some(()));
    assert_eq!(dispatch(&master, keyed)[0]["error"]["kind"], "duplicate");
    master.release("guild/4194304");
    eventually("it ends", || (ended("ok") == 1).then_some(()));
    assert_eq!(ended("deadline"), 1);
    assert_eq!(master.stop().0.code(), 0);
}
