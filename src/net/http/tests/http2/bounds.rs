//! Time, threads and memory that a peer may take.

use std::time::Duration;

use super::peer::{END_HEADERS, END_STREAM, HEADERS, NO_WINDOW, RESET, WIDE_WINDOW, head};
use super::requests::wait_entered;
use crate::base::limits::HTTP2_HELPERS_MAX;
use crate::net::http::HttpLimits;
use crate::net::http::tests::support::{pace, patient, serve};

const SHORT: Duration = Duration::from_millis(500);
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

#[test]
fn an_answer_that_is_not_taken_is_given_up() {
    let fixture = serve(HttpLimits { write_timeout: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[NO_WINDOW]);
    // Whole ones, those of heads that are refused, and those that are made in pieces.
    let malformed = head("GET", "/a/../b", &[]);
    for _ in 0..10 {
        peer.get("/hello");
        peer.send_head(&malformed, END_HEADERS | END_STREAM);
        peer.get("/pieces");
    }
    for _ in 0..30 {
        assert_eq!(peer.until(HEADERS).flags & END_STREAM, 0);
        assert_eq!(peer.until(RESET).code(), CANCEL);
    }
    assert!(fixture.entered_rx.len() <= 10 * 5, "they are not made ahead of the peer");
    let stream = peer.get("/empty");
    assert_eq!(peer.ending(stream).status, 204);
}

#[test]
fn an_unhurried_answer_has_its_time_for_each_piece() {
    let fixture = serve(HttpLimits { write_timeout: 2 * SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[WIDE_WINDOW]);
    let stream = peer.get("/slow");
    let ending = peer.ending(stream);
    assert_eq!((ending.body.len(), ending.reset), (70_000, Some(CANCEL)));
    let fixture = serve(HttpLimits { write_timeout: 4 * SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[WIDE_WINDOW]);
    let stream = peer.get("/unhurried");
    assert_eq!(peer.ending(stream).body.len(), 140_000);
}

#[test]
fn a_peer_that_reads_nothing_is_closed() {
    let fixture = serve(HttpLimits { write_timeout: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[WIDE_WINDOW]);
    peer.widen(0, 0x7000_0000);
    for _ in 0..4 {
        let _ = peer.get("/pieces");
    }
    fixture.wait_until("it is given up", |stats| stats.requests == 4 && stats.open == 0);
    assert_eq!(fixture.server.http2_figures().1, 0);
}

#[test]
fn a_large_answer_in_small_pieces_wastes_no_patience() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    // It asks for little at a time, in frames that are more in all than a peer may waste.
    let (total, bytes) = (64 * 1024 * 1000_usize, 4096_u32);
    let (mut asked, mut got) = (65_535_usize, 0);
    peer.is_polite = false;
    let stream = peer.get("/pieces");
    while got < total {
        if asked < total {
            for _ in 0..8 {
                peer.widen(0, bytes);
                peer.widen(stream, bytes);
                asked += bytes as usize;
            }
        }
        while got < total.min(asked) {
            let frame = peer.next().expect("it goes on");
            if frame.kind == super::peer::DATA {
                got += frame.payload.len();
            }
            assert_ne!(frame.kind, super::peer::GOAWAY);
        }
    }
    assert!(peer.is_served());
}

#[test]
fn one_connection_has_no_more_helpers_than_requests() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    for round in 0..3 {
        let streams: Vec<u32> = (0..32).map(|_| peer.get("/wait")).collect();
        if round == 0 {
            wait_entered(&fixture, 32);
        }
        streams.iter().for_each(|stream| peer.reset(*stream));
        // The connection's own thread answers that, after it has seen all before.
        let malformed = peer.get("/a/../b");
        assert_eq!(peer.ending(malformed).status, 400);
    }
    assert_eq!(fixture.server.http2_figures().1, 32);
    (0..32).for_each(|_| fixture.go_tx.send(()).expect("a handler waits"));
    // What waited for a thread and was taken back is not done.
    assert!(peer.is_served());
    assert_eq!(fixture.entered_rx.len(), 0);
}

#[test]
fn without_a_helper_for_it_a_request_is_refused() {
    let fixture = serve(patient());
    let peers = HTTP2_HELPERS_MAX / 32;
    let mut peers: Vec<_> = (0..peers).map(|_| fixture.connect_http2(&[])).collect();
    for peer in &mut peers {
        for _ in 0..32 {
            let _ = peer.get("/wait");
        }
        wait_entered(&fixture, 32);
    }
    assert_eq!(fixture.server.http2_figures().1, HTTP2_HELPERS_MAX);
    let mut late = fixture.connect_http2(&[]);
    let stream = late.get("/hello");
    assert_eq!(late.ending(stream).reset, Some(REFUSED_STREAM));
    assert_eq!(fixture.server.stats().streams_refused, 1);
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    for _ in 0..HTTP2_HELPERS_MAX {
        fixture.go_tx.send(()).expect("a handler waits");
    }
    drop(peers);
    fixture.wait_until("they are gone", |stats| stats.open == 1);
    assert!(late.is_served());
}

#[test]
fn a_connection_without_work_does_not_stay_awake() {
    let fixture = serve(patient());
    let mut idle = fixture.connect_http2(&[]);
    assert!(idle.is_served());
    let mut unanswered = fixture.connect_http2(&[NO_WINDOW]);
    unanswered.get("/pieces");
    unanswered.until(HEADERS);
    // Its answers to pings are not taken, so what it sends after that stays where it is.
    let deaf = fixture.connect_http2(&[]);
    deaf.stream.set_nonblocking(true).expect("a socket");
    let pings = super::peer::frame(super::peer::PING, 0, 0, b"12345678").repeat(1000);
    let mut full = 0;
    while full < 50 {
        match std::io::Write::write(&mut &deaf.stream, &pings) {
            Ok(_) => full = 0,
            Err(_) => full += 1,
        }
        pace(Duration::from_millis(2));
    }
    let before = fixture.server.http2_figures().0;
    pace(SHORT);
    let turns = fixture.server.http2_figures().0 - before;
    assert!(turns < 10, "{turns} turns of nothing");
}
