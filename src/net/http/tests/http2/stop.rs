//! The end of a connection: the server's stop, a newer connection, and having nothing to do.

use std::time::{Duration, Instant};

use super::peer::{ACK, END_STREAM, GOAWAY, HEADERS, Http2Peer, NO_WINDOW, PING, frame};
use crate::base::thread::spawn;
use crate::net::http::HttpLimits;
use crate::net::http::tests::support::{PATIENCE, pace, patient, serve, soon};

const SHORT: Duration = Duration::from_millis(500);
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

#[test]
fn a_stop_ends_idle_connections_and_answers_what_runs() {
    let fixture = serve(patient());
    let mut idle = fixture.connect_http2(&[]);
    assert!(idle.is_served());
    let mut busy = fixture.connect_http2(&[]);
    let streams = [busy.get("/wait"), busy.get("/wait")];
    for _ in streams {
        fixture.entered_rx.recv_timeout(PATIENCE).expect("the handler is reached");
    }
    assert!(!fixture.server.drain(Instant::now()), "one is busy");
    assert_eq!(idle.farewell(), Some(NO_ERROR));
    let late = busy.get("/hello");
    assert_eq!(busy.ending(late).reset, Some(REFUSED_STREAM));
    assert_eq!(busy.until(GOAWAY).code(), NO_ERROR);
    for stream in streams {
        fixture.go_tx.send(()).expect("a handler waits");
        let _ = stream;
    }
    for stream in streams {
        assert_eq!(busy.ending(stream).body, b"waited\n");
    }
    assert_eq!(busy.farewell(), Some(NO_ERROR));
    fixture.server.shutdown(soon());
    assert_eq!(fixture.server.http2_figures().1, 0);
}

/// Asks until the connection ends; what was not answered must be known as not begun.
fn ask_until_the_end(mut peer: Http2Peer) -> usize {
    let (mut answered, mut last) = (0, u32::MAX);
    'asking: loop {
        let stream = peer.get("/hello");
        loop {
            let Some(frame) = peer.next() else {
                assert!(stream > last, "stream {stream} was lost, {last} was promised");
                return answered;
            };
            if frame.kind == GOAWAY {
                let id = frame.payload[..4].try_into().expect("four bytes");
                last = u32::from_be_bytes(id);
            }
            if frame.stream == stream && frame.kind == super::peer::RESET {
                assert_eq!(frame.code(), REFUSED_STREAM);
                continue 'asking;
            }
            if frame.stream == stream && frame.kind <= HEADERS && frame.flags & END_STREAM != 0 {
                answered += 1;
                continue 'asking;
            }
        }
    }
}

#[test]
fn no_answer_is_lost_at_a_stop_in_full_swing() {
    for _ in 0..20 {
        let fixture = serve(patient());
        let asking: Vec<_> = (0..4)
            .map(|_| fixture.connect_http2(&[]))
            .map(|peer| spawn("asks", || ask_until_the_end(peer)).expect("a thread"))
            .collect();
        fixture.wait_until("they ask", |stats| stats.requests > 40);
        assert!(fixture.server.drain(soon()), "none is left");
        for one in asking {
            assert!(one.join().expect("no answer was lost") > 0);
        }
    }
}

#[test]
fn an_idle_http2_connection_ends_with_a_farewell() {
    let fixture = serve(HttpLimits { idle_timeout: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[]);
    assert!(peer.is_served());
    assert_eq!(peer.farewell(), Some(NO_ERROR));
    let mut silent = fixture.connect_http2(&[]);
    assert_eq!(silent.farewell(), Some(NO_ERROR));
    drop((peer, silent));
    fixture.wait_until("both have left", |stats| stats.open == 0);
}

#[test]
fn what_is_said_between_requests_is_no_slow_head() {
    let fixture = serve(HttpLimits { head_timeout: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[]);
    assert!(peer.is_served());
    peer.send(&frame(PING, 0, 0, b"12345678"));
    assert_eq!(peer.until(PING).flags, ACK);
    pace(2 * SHORT);
    assert!(peer.is_served());
}

#[test]
fn a_head_that_never_ends_ends_its_connection() {
    let fixture = serve(HttpLimits { head_timeout: SHORT, ..patient() });
    let whole = frame(HEADERS, 0, 1, &super::peer::head("GET", "/hello", &[]));
    for part in [&whole[..], &whole[..20], &whole[..3]] {
        let mut peer = fixture.connect_http2(&[]);
        peer.send(part);
        let deadline = soon();
        while fixture.server.stats().open > 0 {
            assert!(Instant::now() < deadline, "the server lets itself be dribbled at");
            pace(SHORT / 50);
            if part.len() == whole.len() {
                peer.send(&frame(super::peer::CONTINUATION, 0, 1, b""));
            }
        }
    }
}

#[test]
fn a_newer_connection_displaces_an_idle_http2_one() {
    let fixture = serve(HttpLimits { connections: 1, ..patient() });
    let mut peer = fixture.connect_http2(&[]);
    assert!(peer.is_served());
    fixture.wait_waiting(1);
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(peer.farewell(), Some(NO_ERROR));
    assert_eq!(fixture.server.stats().displaced, 1);
}

#[test]
fn a_busy_http2_connection_is_not_displaced() {
    let fixture = serve(HttpLimits { connections: 1, stalled_after: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.get("/wait");
    fixture.entered_rx.recv_timeout(PATIENCE).expect("the handler is reached");
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 503);
    fixture.go_tx.send(()).expect("a handler waits");
    assert_eq!(peer.ending(stream).status, 200);
}

#[test]
fn a_peer_that_takes_no_answer_makes_room() {
    let fixture = serve(HttpLimits { connections: 1, stalled_after: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[NO_WINDOW]);
    peer.get("/hello");
    peer.until(HEADERS);
    fixture.ask_until_served();
    peer.until_end();
}
