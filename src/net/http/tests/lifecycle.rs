//! Deadlines, caps, shutdown: each shown with a peer that provokes it, and limits short enough to
//! wait for.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::support::{Client, PATIENCE, pace, patient, serve, soon};
use crate::base::sync::CountedPermit;
use crate::net::http::{Body, Handler, HttpLimits, HttpServer, RequestHead, Response};
use crate::net::stream::{Peer, Stream};

/// Long enough for a client on a busy machine to connect and say something, where it is the
/// server's patience.
const SHORT: Duration = Duration::from_millis(500);

/// Sends a byte now and then until the server has had enough: a server whose timeouts are per read
/// never has.
pub(super) fn dribble(stream: &Stream, byte: u8) {
    let mut stream = stream.try_clone().expect("a descriptor");
    let deadline = soon();
    loop {
        assert!(Instant::now() < deadline, "the server lets itself be dribbled at");
        pace(SHORT / 50);
        if stream.write_all(&[byte]).is_err() {
            return;
        }
    }
}

#[test]
fn a_head_that_dribbles_gets_408() {
    let fixture = serve(HttpLimits { head_timeout: SHORT, linger_timeout: SHORT, ..patient() });
    let mut client = fixture.connect();
    client.send(b"GET /hello HTTP/1.1\r\nA: ");
    dribble(&client.stream, b'a');
    // The reset that ends the dribbling may have overtaken the answer, so look at a peer that
    // stops, too.
    let mut client = fixture.connect();
    client.send(b"GET /hello HTTP/1.1\r\nA: ");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    assert_eq!(client.until_end(), b"");
}

#[test]
fn a_body_that_dribbles_gets_408() {
    let fixture = serve(HttpLimits { body_timeout: SHORT, linger_timeout: SHORT, ..patient() });
    let mut client = fixture.connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    dribble(&client.stream, b'a');
    let mut client = fixture.connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    assert_eq!(client.until_end(), b"");
}

#[test]
fn an_answer_has_its_time_as_a_whole_unless_it_is_unhurried() {
    let fixture = serve(HttpLimits { write_timeout: Duration::from_secs(1), ..patient() });
    let ask = |path: &str| {
        let mut client = fixture.connect();
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        client.until_end().len()
    };
    assert_eq!(ask("/slow"), 70_000, "cut off after its time");
    assert_eq!(ask("/unhurried"), 140_000);
}

#[test]
fn a_piece_of_a_live_answer_leaves_before_the_next_is_made() {
    let limits = HttpLimits { connections: 1, stalled_after: Duration::ZERO, ..patient() };
    let fixture = serve(limits);
    let mut live = fixture.connect();
    live.send(b"GET /live HTTP/1.0\r\n\r\n");
    assert!(live.head().starts_with("HTTP/1.1 200"));
    assert_eq!(live.exactly(3), b"aaa");
    fixture.entered_rx.recv_timeout(PATIENCE).expect("the next one is waited for");
    // While it waits for what is next its place is not free for another.
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 503);
    fixture.go_tx.send(()).expect("it waits");
    assert_eq!(live.until_end(), b"bbb");
}

#[test]
fn a_live_answer_with_nothing_to_say_ends_when_its_peer_goes() {
    let fixture = serve(patient());
    let mut live = fixture.connect();
    live.send(b"GET /idle HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(live.head().starts_with("HTTP/1.1 200"));
    assert_eq!(live.exactly(8), b"3\r\naaa\r\n");
    pace(SHORT);
    assert!(fixture.entered_rx.try_recv().is_err(), "it is still there");
    drop(live);
    fixture.entered_rx.recv_timeout(PATIENCE).expect("its end is noticed");
}

#[test]
fn an_unwanted_body_that_dribbles_ends_the_connection() {
    let fixture = serve(HttpLimits { body_timeout: SHORT, ..patient() });
    let mut client = fixture.connect();
    client.send(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    dribble(&client.stream, b'a');
}

#[test]
fn silent_peers_are_closed_without_a_word() {
    let fixture = serve(HttpLimits { head_timeout: SHORT, idle_timeout: SHORT, ..patient() });
    let mut silent = fixture.connect();
    assert_eq!(silent.until_end(), b"");
    let mut idle = fixture.connect();
    idle.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    assert_eq!(idle.until_end(), b"");
    fixture.wait_until("all have left", |stats| stats.open == 0);
}

#[test]
fn a_peer_that_reads_too_slowly_is_closed() {
    let fixture = serve(HttpLimits { write_timeout: SHORT, ..patient() });
    let mut client = fixture.connect();
    client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    fixture.wait_until("the answer is given up", |stats| stats.requests == 1 && stats.open == 0);
    drop(client);
}

#[test]
fn a_peer_that_drains_a_little_at_a_time_is_closed_too() {
    let fixture = serve(HttpLimits { write_timeout: SHORT, ..patient() });
    let mut client = fixture.connect();
    client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let (deadline, mut buffer) = (soon(), [0; 65_536]);
    while fixture.server.stats().requests == 0 || fixture.server.stats().open > 0 {
        assert!(Instant::now() < deadline, "the server lets itself be drained slowly");
        pace(SHORT / 50);
        let _ = std::io::Read::read(&mut client.stream, &mut buffer);
    }
}

#[test]
fn connections_cut_short_get_an_answer_or_nothing_and_leave() {
    let fixture = serve(patient());
    for (request, status) in [
        ("", None),
        ("GET /hel", Some("400")),
        ("GET /hello HTTP/1.1\r\nHost: x\r\n", Some("400")),
        ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell", Some("400")),
    ] {
        let mut client = fixture.connect();
        client.send(request.as_bytes());
        client.finish_writing();
        let answer = String::from_utf8(client.until_end()).expect("text");
        assert_eq!(answer.get(9..12), status, "{request:?}");
    }
    fixture.wait_until("all have left", |stats| stats.open == 0);
}

#[test]
fn a_panic_in_the_handler_is_500_and_the_server_goes_on() {
    let fixture = serve(patient());
    let answer = fixture.ask(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((answer.status, answer.text(), answer.closes()), (500, "internal error\n", true));
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

#[test]
fn a_new_connection_takes_the_place_of_the_longest_idle_one() {
    let fixture = serve(HttpLimits { connections: 4, ..patient() });
    let mut clients: Vec<_> = (0..4).map(|_| fixture.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().status, 200);
        fixture.wait_waiting(number + 1);
    }
    // The first speaks and so is no longer the longest idle; the second is.
    clients[0].send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(clients[0].answer().status, 200);
    fixture.wait_waiting(4);
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(clients[1].until_end(), b"");
    clients[0].send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(clients[0].answer().status, 200);
    assert_eq!(fixture.server.stats().refused, 0);
}

#[test]
fn half_open_connections_do_not_keep_out_one_that_speaks() {
    let fixture = serve(HttpLimits { connections: 8, ..patient() });
    let mut half: Vec<_> = (0..80).map(|_| fixture.connect()).collect();
    for (number, client) in half.iter_mut().enumerate() {
        client.send(&b"GET /hello HTTP/1.1\r\nHost: x\r\n"[..number % 30]);
    }
    for _ in 0..20 {
        assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    }
    let stats = fixture.server.stats();
    assert!(stats.open <= 8 && stats.refused == 0 && stats.displaced >= 69, "{stats:?}");
}

#[test]
fn who_is_displaced_in_the_middle_of_a_request_is_told_so() {
    let fixture = serve(HttpLimits { connections: 1, ..patient() });
    let mut half = fixture.connect();
    half.send(b"GET /hello HTTP/1.1\r\nHost");
    fixture.wait_until("it is in", |stats| stats.accepted == 1);
    let mut whole = fixture.connect();
    whole.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(whole.answer().status, 200);
    let answer = half.answer();
    assert_eq!((answer.status, answer.closes()), (503, true));
    assert_eq!(half.until_end(), b"");
    // One that was answered and says nothing more is not told anything.
    fixture.ask_until_served();
    assert_eq!(whole.until_end(), b"");
}

#[test]
fn a_burst_of_connections_gets_an_answer_each() {
    let fixture = serve(HttpLimits { connections: 4, ..patient() });
    let mut clients: Vec<_> = (0..40).map(|_| fixture.connect()).collect();
    for client in &mut clients {
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().status, 200, "however many came after it");
    }
    // All at once: every place may be answering then.
    let mut clients: Vec<_> = (0..40).map(|_| fixture.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(clients.iter_mut().all(|client| matches!(client.answer().status, 200 | 503)));
}

#[test]
fn of_too_many_silent_connections_the_oldest_is_told_so() {
    let fixture = serve(HttpLimits { connections: 4, silent: 4, ..patient() });
    let mut clients: Vec<_> = (0..6).map(|_| fixture.connect()).collect();
    for client in &mut clients[..2] {
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (503, true));
        assert_eq!(client.until_end(), b"");
    }
    for client in &mut clients[2..] {
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(fixture.server.stats().refused, 2);
}

#[test]
fn peers_that_never_read_do_not_keep_out_one_that_does() {
    let fixture = serve(HttpLimits { connections: 4, stalled_after: SHORT, ..patient() });
    let mut stalled: Vec<_> = (0..4).map(|_| fixture.connect()).collect();
    for client in &mut stalled {
        client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    fixture.wait_until("all are answered", |stats| stats.requests == 4);
    fixture.ask_until_served();
    fixture.wait_until("it is counted", |stats| stats.displaced == 1);
}

#[test]
fn when_every_connection_is_busy_a_new_one_gets_503() {
    let fixture = serve(HttpLimits { connections: 3, ..patient() });
    let mut busy: Vec<_> = (0..3).map(|_| fixture.connect()).collect();
    for client in &mut busy {
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
        fixture.entered_rx.recv_timeout(PATIENCE).expect("the handler is reached");
    }
    for _ in 0..50 {
        let mut client = fixture.connect();
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (503, true));
        assert_eq!(client.until_end(), b"");
    }
    for _ in &busy {
        fixture.go_tx.send(()).expect("a handler waits");
    }
    for client in &mut busy {
        assert_eq!(client.answer().text(), "waited\n");
    }
    assert_eq!((fixture.server.stats().refused, fixture.server.stats().displaced), (50, 0));
    fixture.ask_until_served();
    fixture.wait_until("it is counted", |stats| stats.displaced == 1);
}

#[test]
fn shutdown_ends_idle_connections_and_finishes_busy_ones() {
    let fixture = serve(patient());
    let mut idle: Vec<_> = (0..5).map(|_| fixture.connect()).collect();
    idle[0].send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle[0].answer().status, 200);
    idle[1].send(b"GET /hello HT");
    let mut busy = fixture.connect();
    busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    fixture.entered_rx.recv_timeout(PATIENCE).expect("the handler is reached");
    fixture.wait_until("those are in that spoke", |stats| stats.accepted == 3);
    assert!(!fixture.server.drain(Instant::now()), "one is busy");
    assert_eq!(idle[1].answer().status, 503, "it had begun to ask");
    for client in &mut idle {
        assert_eq!(client.until_end(), b"");
    }
    assert!(std::net::TcpStream::connect(fixture.server.local_addr()).is_err(), "the port is free");
    fixture.go_tx.send(()).expect("the handler waits");
    fixture.server.shutdown(soon());
    let answer = busy.answer();
    assert_eq!((answer.text(), answer.closes()), ("waited\n", true));
    assert_eq!(fixture.server.stats().open, 0);
}

#[test]
fn shutdown_does_not_wait_for_peers_that_neither_send_nor_read() {
    let fixture = serve(patient());
    let mut slow_reader = fixture.connect();
    slow_reader.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut slow_sender = fixture.connect();
    slow_sender.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    fixture.wait_until("both are busy", |stats| stats.requests == 2);
    let begun = Instant::now();
    fixture.server.shutdown(begun + SHORT);
    assert!(begun.elapsed() < PATIENCE / 2, "their own deadlines are far away");
    assert_eq!(fixture.server.stats().open, 0);
    fixture.server.shutdown(soon());
}

#[test]
fn dropping_a_server_joins_its_threads() {
    let fixture = serve(patient());
    let addr = fixture.server.local_addr();
    let mut client = fixture.connect();
    client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    drop(fixture);
    assert_eq!(client.until_end(), b"");
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn a_server_on_every_address_is_woken_by_its_shutdown_too() {
    struct Nothing;
    impl Handler for Nothing {
        fn handle(&self, _head: &RequestHead, _body: &mut Body<'_>) -> Response {
            Response::empty(204)
        }
    }
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let server = HttpServer::start(listener, "everywhere", patient(), Arc::new(Nothing))
        .expect("the server starts");
    server.shutdown(soon());
    assert!(TcpListener::bind(server.local_addr()).is_ok(), "the port is free");
}

#[test]
fn a_connection_that_was_made_elsewhere_is_served_alike() {
    let fixture = serve(HttpLimits { connections: 2, ..patient() });
    let taken = Arc::new(AtomicUsize::new(0));
    let connect = || {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let permit = CountedPermit::take(&taken, 8).expect("room");
        (fixture.server.serve(theirs.into(), Peer::Worker(0), permit), Client::over(ours))
    };
    let (is_served, mut client) = connect();
    assert!(is_served);
    for _ in 0..2 {
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(taken.load(Ordering::SeqCst), 1);
    client.send(b"nonsense\r\n\r\n");
    assert_eq!((client.answer().status, client.until_end().len()), (400, 0));
    fixture.wait_until("its place is free", |stats| stats.open == 0);
    // Both ways lead to the same two places; the peer that has waited longest makes room.
    let mut idle = fixture.connect();
    idle.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    let (_, mut busy) = connect();
    busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    fixture.entered_rx.recv_timeout(PATIENCE).expect("the handler is reached");
    let (_, mut newer) = connect();
    newer.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(newer.answer().status, 200);
    assert_eq!(idle.until_end().len(), 0);
    fixture.wait_until("it is counted", |stats| stats.displaced == 1);
    // The server's end is the end of both, and a request that is under way is answered.
    assert!(!fixture.server.drain(Instant::now()), "one is busy");
    assert_eq!(newer.until_end(), b"");
    assert!(!connect().0, "a server that stops serves no other");
    fixture.go_tx.send(()).expect("the handler waits");
    fixture.server.shutdown(soon());
    assert_eq!(busy.answer().text(), "waited\n");
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}
