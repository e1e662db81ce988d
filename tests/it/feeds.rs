//! What templates publish, as the readers of a master see it: real processes and sockets.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use mesophyll::base::limits::{FEED_KEEP, FEEDS_MAX};
use mesophyll::feeds::sse::{SseEvent, read_event};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::DEADLINE;
use crate::support::binary::{Master, Running, get, get_with, mesophyll, token};
use crate::support::process::{eventually, signal, within, workers_of};

const ONE: &str = "guild/4194304";
const TWO: &str = "guild/8388608";
const BOTH: &str = "tenants=guild:4194304,guild:8388608";

/// A reader that takes all that comes.
struct Follower {
    head: String,
    socket: TcpStream,
    events_rx: Receiver<SseEvent>,
    last_id: String,
}

/// Asks for a feed; the socket, and the head of the answer.
fn ask(api: SocketAddr, query: &str, last_id: &str) -> (BufReader<TcpStream>, String) {
    let mut socket = TcpStream::connect(api).expect("connect");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let authorization = format!("Authorization: Internal {}", token(7));
    let id =
        if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
    // Of HTTP/1.0: the body comes as it is.
    write!(socket, "GET /i/feed?{query} HTTP/1.0\r\n{authorization}\r\n{id}\r\n").expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    (BufReader::new(socket), String::from_utf8(head).expect("text"))
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The thread that reads has a socket of its own.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Follower {
    fn start(api: SocketAddr, query: &str) -> Self {
        Self::after(api, query, "")
    }

    fn after(api: SocketAddr, query: &str, last_id: &str) -> Self {
        let (mut body, head) = ask(api, query, last_id);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let socket = body.get_ref().try_clone().expect("a descriptor");
        let (events_tx, events_rx) = unbounded();
        std::thread::spawn(move || {
            while let Ok(Some(event)) = read_event(&mut body) {
                if events_tx.send(event).is_err() {
                    return;
                }
            }
        });
        let mut follower = Self { head, socket, events_rx, last_id: String::new() };
        let first = follower.next_event();
        assert!(first.data.is_empty() && !first.id.is_empty(), "a position first: {first:?}");
        follower
    }

    fn next_event(&mut self) -> SseEvent {
        let event = self.events_rx.recv_timeout(DEADLINE).expect("an event");
        if !event.id.is_empty() {
            self.last_id = event.id.clone();
        }
        event
    }

    /// The next event: its kind, its tenant, and its number, or how many were lost.
    fn next(&mut self) -> (String, String, Value) {
        loop {
            let event = self.next_event();
            if event.data.is_empty() {
                continue;
            }
            let data: Value = serde_json::from_str(&event.data).expect("JSON");
            let tenant = data["tenant"].as_str().unwrap_or_default().to_owned();
            let number = data["data"].get("n").unwrap_or(&data["lost"]).clone();
            return (event.event, tenant, number);
        }
    }

    #[track_caller]
    fn expect(&mut self, kind: &str, tenant: &str, number: Value) {
        assert_eq!(self.next(), (kind.to_owned(), tenant.replace('/', ":"), number));
    }

    /// Waits for the end of the stream.
    fn wait_end(self) {
        while self.events_rx.recv_timeout(DEADLINE).is_ok() {}
        assert!(
            self.events_rx.try_recv().is_err_and(|error| error.is_disconnected()),
            "it goes on"
        );
    }
}

/// Has a tenant publish events with these numbers, of so many bytes.
fn publish(master: &Master, tenant: &str, topic: &str, numbers: (u64, u64), bytes: usize) {
    let (first, last) = numbers;
    let data = json!({ "topic": topic, "first": first, "last": last, "bytes": bytes }).to_string();
    let answer = master.dispatch(tenant, "PUBLISH", &data);
    assert_eq!(answer, (200, json!("published")));
}

fn follow_and_come_back(mode: &str) {
    let master = Master::start(&["--mode", mode]);
    master.wait_ready();
    let mut follower = Follower::start(master.api(), &format!("{BOTH}&topics=score,end"));
    for header in
        ["Content-Type: text/event-stream", "Cache-Control: no-store", "X-Accel-Buffering: no"]
    {
        assert!(follower.head.contains(header), "{header} is not in {}", follower.head);
    }
    publish(&master, ONE, "score", (1, 2), 10);
    publish(&master, TWO, "other", (3, 3), 0);
    publish(&master, "user/4194304", "score", (4, 4), 0);
    publish(&master, TWO, "end", (5, 5), 0);
    follower.expect("score", ONE, json!(1));
    follower.expect("score", ONE, json!(2));
    follower.expect("end", TWO, json!(5));
    let last_id = follower.last_id.clone();
    drop(follower);
    publish(&master, ONE, "score", (6, 100), 0);
    publish(&master, TWO, "score", (101, 101), 0);
    let mut again = Follower::after(master.api(), BOTH, &last_id);
    for number in 6..=100 {
        again.expect("score", ONE, json!(number));
    }
    again.expect("score", TWO, json!(101));
    publish(&master, ONE, "live", (102, 102), 0);
    again.expect("live", ONE, json!(102));
    // All of this master, and one that comes from nowhere.
    let mut all = Follower::start(master.api(), "all=true");
    publish(&master, "user/4194304", "score", (7, 7), 0);
    all.expect("score", "user/4194304", json!(7));
    let mut stranger = Follower::after(master.api(), BOTH, "00000000000000aa:3");
    let gaps = [stranger.next(), stranger.next()];
    assert!(gaps.iter().all(|(kind, _, lost)| kind == "gap" && lost.is_null()), "{gaps:?}");
    // The end of the master is the end of the stream, and nothing waits for it.
    let stopped = Instant::now();
    master.stop().0.expect(0, "");
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    again.wait_end();
}

#[test]
fn a_reader_comes_back_to_processes_and_misses_nothing() {
    follow_and_come_back("process-pool");
}

#[test]
fn a_reader_comes_back_to_threads_and_misses_nothing() {
    follow_and_come_back("thread-pool");
}

#[test]
fn what_is_no_request_for_a_feed_is_refused() {
    let master = Master::start(&["--workers", "1"]);
    let long = vec!["guild:1"; 513].join(",");
    for (query, says) in [
        ("", "a feed is of"),
        ("?all=true&tenants=guild:1", "a feed is of"),
        ("?tenants=", "a tenant is written"),
        ("?tenants=guild:1,", "a tenant is written"),
        ("?tenants=guild:1&topics=a,,b", "topics"),
        ("?tenants=guild:1&topics=gap", "topics"),
        (&format!("?tenants={long}"), "at most 512"),
        (&format!("?tenants=guild:1&token={}", token(7)), "unknown query parameter"),
    ] {
        let (status, body) = get_with(master.api(), &format!("/i/feed{query}"), &token(7));
        assert!(status == 400 && body.contains(says), "{query}: {status} {body}");
    }
    let (status, body) = get(master.api(), &format!("/i/feed?tenants=guild:1&token={}", token(7)));
    assert!(status == 401 && !body.contains(&token(7)), "{status} {body}");
    let (_, head) = ask(master.api(), "tenants=guild:1", "some id");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(!master.running.stderr_so_far().contains(&token(7)));
}

#[test]
fn readers_take_no_place_of_other_requests() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let mut readers: Vec<_> = (0..FEEDS_MAX).map(|_| Follower::start(master.api(), BOTH)).collect();
    let (_, head) = ask(master.api(), BOTH, "");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After"), "{head}");
    publish(&master, ONE, "score", (1, 1), 0);
    readers.iter_mut().for_each(|reader| reader.expect("score", ONE, json!(1)));
    let (_, figures) = get(master.api(), "/metrics");
    for line in
        ["mesophyll_feed_readers 32", "mesophyll_feed_events_total{outcome=\"published\"} 1"]
    {
        assert!(figures.contains(line), "{line} is not in {figures}");
    }
    // Their places are free when they go, long before a comment would find that out.
    drop(readers);
    within(FEED_KEEP / 2, "they have gone", || {
        get(master.api(), "/metrics").1.contains("mesophyll_feed_readers 0").then_some(())
    });
}

#[test]
fn a_slow_reader_gets_a_gap_and_others_notice_nothing() {
    let master = Master::start(&["--workers", "2"]);
    master.wait_ready();
    let tenants: Vec<String> = (1..=8_u64).map(|id| format!("guild/{}", id << 22)).collect();
    let names = tenants.join(",").replace('/', ":");
    let (mut slow, _) = ask(master.api(), &format!("tenants={names}"), "");
    let mut fast = Follower::start(master.api(), &format!("tenants={names}"));
    // 24 MiB: more than a queue and the buffers of both sockets hold.
    let (batch, bytes) = (32_u64, 15_000);
    let mut longest = Duration::ZERO;
    for round in 0..6 {
        for tenant in &tenants {
            let numbers = (round * batch, (round + 1) * batch - 1);
            let began = Instant::now();
            publish(&master, tenant, "n", numbers, bytes);
            longest = longest.max(began.elapsed());
            for number in numbers.0..=numbers.1 {
                fast.expect("n", tenant, json!(number));
            }
        }
    }
    assert!(longest < Duration::from_secs(5), "a publisher waited: {longest:?}");
    let (mut events, mut lost) = (0, 0);
    while events + lost < 6 * 8 * batch {
        let event = read_event(&mut slow).expect("the stream").expect("an event");
        if event.event == "gap" {
            let data: Value = serde_json::from_str(&event.data).expect("JSON");
            lost += data["lost"].as_u64().expect("a number");
        } else if !event.data.is_empty() {
            events += 1;
        }
    }
    assert!(lost > 0 && events > 0 && events + lost == 6 * 8 * batch, "{events} {lost}");
    publish(&master, &tenants[0], "n", (9999, 9999), 0);
    let next = read_event(&mut slow).expect("the stream").expect("an event");
    assert!(next.data.contains("9999"), "{next:?}");
}

#[test]
fn the_death_of_a_worker_ends_no_stream() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let mut follower = Follower::start(master.api(), BOTH);
    let worker = workers_of(master.pid())[&0];
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            // Until its worker dies under it.
            let mut number = 0;
            loop {
                let data = json!({ "topic": "n", "first": number, "last": number }).to_string();
                if master.dispatch(ONE, "PUBLISH", &data).0 != 200 {
                    return number;
                }
                number += 1;
            }
        });
        for number in 0..20 {
            follower.expect("n", ONE, json!(number));
        }
        signal(worker, Signal::KILL);
        let died_at = publishing.join().expect("no panic");
        assert!(died_at >= 19, "{died_at}");
    });
    master.wait_ready();
    publish(&master, TWO, "n", (9999, 9999), 0);
    let mut gaps = 0;
    loop {
        let (kind, tenant, number) = follower.next();
        if kind == "gap" {
            // Whatever was under way over its link is lost.
            gaps += 1;
            assert!(number.is_null(), "{number}");
            continue;
        }
        assert_eq!(kind, "n");
        if tenant == "guild:8388608" {
            assert_eq!(number, json!(9999));
            break;
        }
    }
    assert_eq!(gaps, 2, "one of each tenant");
}

#[test]
fn the_command_prints_events_and_connects_again() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let api = master.api().to_string();
    let mut command = mesophyll(&["feed", "guild:4194304", "--topics", "score", "--api", &api]);
    command.env("MESOPHYLL_INTERNAL_TOKEN", token(7));
    let command = Running::start(command);
    eventually("it reads", || {
        get(master.api(), "/metrics").1.contains("mesophyll_feed_readers 1").then_some(())
    });
    publish(&master, ONE, "score", (1, 1), 0);
    let line: Value = serde_json::from_str(&command.next_line()).expect("JSON");
    assert_eq!((&line["event"], &line["tenant"]), (&json!("score"), &json!("guild:4194304")));
    assert_eq!(line["data"]["n"], 1);
    master.stop().0.expect(0, "");
    command.wait_stderr("looking on");
    let master = Master::start_at(&api, &["--workers", "1"]);
    master.wait_ready();
    // Of the other run nothing is known.
    let gap: Value = serde_json::from_str(&command.next_line()).expect("JSON");
    assert_eq!(gap, json!({ "event": "gap", "tenant": "guild:4194304", "lost": null }));
    publish(&master, ONE, "score", (2, 2), 0);
    assert!(command.next_line().contains(r#""n":2"#));
    command.signal(Signal::INT);
    let wrong = master.command(&["feed", "guild:1", "--all"]);
    wrong.expect(2, "feed takes");
}

#[cfg(feature = "postgres")]
mod masters {
    use super::*;
    use crate::support::TempDir;
    use crate::support::cluster::place;
    use crate::support::postgres::{self, Locale, Schema};

    fn start(schema: &Schema, name: &str) -> Master {
        let options = [&["--lease", "3s"], &place(schema, name)[..]].concat();
        let master = Master::start_in(TempDir::new(), &options);
        master.wait_ready();
        master
    }

    #[test]
    fn any_master_follows_the_others() {
        if !postgres::is_there("any_master_follows_the_others") {
            return;
        }
        let schema = Schema::migrated(Locale::C);
        let (one, two) = (start(&schema, "one"), start(&schema, "two"));
        let follow = |master: &Master, last_id: &str| {
            within(Duration::from_secs(20), "the masters know each other", || {
                let (_, head) = ask(master.api(), BOTH, "");
                head.starts_with("HTTP/1.1 200").then_some(())
            });
            Follower::after(master.api(), BOTH, last_id)
        };
        let mut follower = follow(&two, "");
        // The other master's position.
        assert!(follower.next_event().data.is_empty());
        assert_eq!(follower.last_id.split(',').count(), 2, "{}", follower.last_id);
        publish(&one, ONE, "score", (1, 1), 0);
        follower.expect("score", ONE, json!(1));
        let last_id = follower.last_id.clone();
        drop(follower);
        publish(&two, ONE, "score", (2, 2), 0);
        let mut follower = follow(&two, &last_id);
        follower.expect("score", ONE, json!(2));
        // A request that is not the other master's is none between masters.
        one.command(&["drain", "one"]).expect(0, "");
        let moved = [follower.next(), follower.next()];
        assert!(moved.iter().all(|(kind, ..)| kind == "moved"), "{moved:?}");
        publish(&one, TWO, "score", (3, 3), 0);
        let mut follower = follow(&one, &follower.last_id);
        publish(&one, TWO, "score", (4, 4), 0);
        loop {
            match follower.next() {
                (kind, _, lost) if kind == "gap" => assert!(lost.is_null()),
                // They are still on their way.
                (kind, ..) if kind == "moved" => follower = follow(&one, &follower.last_id),
                (_, tenant, number) => {
                    assert_eq!(tenant, "guild:8388608");
                    if number == 4 {
                        break;
                    }
                }
            }
        }
        // A master that is gone takes its part of the stream along.
        two.running.signal(Signal::KILL);
        let moved = [follower.next(), follower.next()];
        assert!(moved.iter().all(|(kind, ..)| kind == "moved"), "{moved:?}");
        one.stop().0.expect(0, "");
    }
}
