//! What is asked and answered, on one connection and at once.

use std::time::{Duration, Instant};

use super::peer::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2Peer, RESET, WIDE_WINDOW, frame, head,
};
use crate::net::http::HttpLimits;
use crate::net::http::tests::support::{BIG_BYTES, Fixture, PATIENCE, patient, serve};

const REFUSED_STREAM: u32 = 7;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;

const SHORT: Duration = Duration::from_millis(500);

/// Sends a body within the windows of the server, which widens them as its handler takes it.
fn send_body(peer: &mut Http2Peer, stream: u32, body: &[u8]) {
    let mut window = 65_535;
    let mut pieces = body.chunks(16_384).peekable();
    while let Some(piece) = pieces.next() {
        while window < piece.len() {
            let frame = peer.next().expect("room for more");
            if frame.kind == super::peer::WINDOW && frame.stream == stream {
                let more = frame.payload.try_into().expect("four bytes");
                window += u32::from_be_bytes(more) as usize;
            }
        }
        window -= piece.len();
        peer.data(stream, piece, if pieces.peek().is_none() { END_STREAM } else { 0 });
    }
}

#[test]
fn one_http2_connection_answers_what_http1_would() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    for (path, status, body) in [
        ("/hello", 200, &b"hello\n"[..]),
        ("/query?a=b%20c", 200, b"b c\n"),
        ("/empty", 204, b""),
        ("/bad", 400, b"bad\n"),
        ("/nowhere", 404, b"not found\n"),
        ("/chunked", 200, b"aaaaaa"),
        ("/panic", 500, b"internal error\n"),
        ("/upgrade", 426, b"an upgrade needs HTTP/1.1\n"),
    ] {
        let stream = peer.get(path);
        let ending = peer.ending(stream);
        assert_eq!((ending.status, &ending.body[..], ending.reset), (status, body, None), "{path}");
        let length = (!["/empty", "/chunked"].contains(&path)).then_some(body.len());
        assert_eq!(ending.length, length, "{path}");
    }
    let stream = peer.send_head(&head("HEAD", "/hello", &[]), END_HEADERS | END_STREAM);
    let ending = peer.ending(stream);
    assert_eq!((ending.status, ending.length, ending.body.len()), (200, Some(6), 0));
    assert_eq!(fixture.server.stats().requests, 9);
}

#[test]
fn bodies_of_every_length_arrive_and_come_back_whole() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    for length in [0, 1, 16_384, 65_535, 65_536, 1024 * 1024] {
        for has_length in [true, false] {
            let text = length.to_string();
            let more = [("content-length", &text[..])];
            let stream = peer.begin("POST", "/echo", if has_length { &more } else { &[] });
            let body: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            if body.is_empty() {
                peer.data(stream, b"", END_STREAM);
            }
            send_body(&mut peer, stream, &body);
            let ending = peer.ending(stream);
            assert_eq!((ending.status, ending.body == body), (200, true), "{length}");
        }
    }
}

#[test]
fn a_body_that_is_too_large_gets_413() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.begin("POST", "/echo", &[("content-length", "3000000")]);
    let ending = peer.ending(stream);
    assert_eq!((ending.status, ending.reset), (413, None), "nothing of it is waited for");
    let stream = peer.begin("POST", "/echo", &[]);
    let mut window = 0;
    for _ in 0..64 {
        peer.data(stream, &[b'x'; 16_384], 0);
        window += 16_384;
        while window > 32_768 {
            let frame = peer.until(super::peer::WINDOW);
            if frame.stream == stream {
                let more = frame.payload.try_into().expect("four bytes");
                window -= i64::from(u32::from_be_bytes(more));
            }
        }
    }
    peer.data(stream, b"one too many", 0);
    assert_eq!(peer.ending(stream).status, 413);
    peer.reset(stream);
    assert!(peer.is_served());
}

#[test]
fn an_answer_larger_than_every_window_arrives() {
    let fixture = serve(patient());
    for set in [&[][..], &[(4, 20_000)], &[WIDE_WINDOW]] {
        let mut peer = fixture.connect_http2(set);
        let stream = peer.get("/big");
        let ending = peer.ending(stream);
        assert_eq!((ending.status, ending.length), (200, Some(BIG_BYTES)));
        assert_eq!(ending.body.len(), BIG_BYTES);
        let stream = peer.get("/pieces");
        assert_eq!(peer.ending(stream).body.len(), 1000 * 64 * 1024);
    }
}

pub(super) fn wait_entered(fixture: &Fixture, count: usize) {
    for _ in 0..count {
        fixture.entered_rx.recv_timeout(PATIENCE).expect("the handler is reached");
    }
}

#[test]
fn handlers_of_one_connection_run_side_by_side() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    let waiting: Vec<u32> = (0..32).map(|_| peer.get("/wait")).collect();
    wait_entered(&fixture, 32);
    let beyond = peer.get("/hello");
    assert_eq!(peer.ending(beyond).reset, Some(REFUSED_STREAM));
    waiting.iter().for_each(|_| fixture.go_tx.send(()).expect("a handler waits"));
    for stream in waiting {
        assert_eq!(peer.ending(stream).body, b"waited\n");
    }
    assert!(peer.is_served());
}

#[test]
fn of_a_hundred_at_once_each_is_answered_or_refused() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    for round in 0..20 {
        // A peer that never keeps to the bound, which it was told, is not borne for ever.
        let streams: Vec<u32> =
            (0..if round > 0 { 16 } else { 100 }).map(|_| peer.get("/hello")).collect();
        let endings: Vec<_> = streams.iter().map(|stream| peer.ending(*stream)).collect();
        let is_fine = |status, reset| match reset {
            Some(code) => streams.len() > 32 && code == REFUSED_STREAM,
            None => status == 200,
        };
        for ending in &endings {
            assert!(is_fine(ending.status, ending.reset), "{round}: {ending:?}");
        }
        let answered = endings.iter().filter(|ending| ending.status == 200).count();
        assert!(answered >= streams.len().min(32), "{round}: {answered}");
    }
    assert!(fixture.server.http2_figures().1 <= 32);
}

#[test]
fn an_early_answer_lets_the_rest_of_the_body_come() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.begin("POST", "/hello", &[("content-length", "50000")]);
    assert_eq!(peer.ending(stream).status, 200);
    send_body(&mut peer, stream, &[b'x'; 50_000]);
    let next = peer.get("/hello");
    assert_eq!(peer.ending(next).status, 200);
    // Beyond the drain limit it is told to stop, and not that something failed.
    let stream = peer.begin("POST", "/hello", &[("content-length", "5000000")]);
    assert_eq!(peer.ending(stream).status, 200);
    for _ in 0..4 {
        let _ = peer.data(stream, &[b'x'; 16_000], 0);
    }
    while peer.until(super::peer::WINDOW).stream != stream {}
    peer.data(stream, &[b'x'; 16_000], 0);
    let reset = peer.until(RESET);
    assert_eq!((reset.stream, reset.code()), (stream, 0));
    assert!(peer.is_served());
}

#[test]
fn an_unwanted_body_that_never_comes_ends_its_stream() {
    let fixture = serve(HttpLimits { body_timeout: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.begin("POST", "/hello", &[("content-length", "5")]);
    assert_eq!(peer.ending(stream).status, 200);
    let reset = peer.until(RESET);
    assert_eq!((reset.stream, reset.code()), (stream, 0));
    assert!(peer.is_served());
}

#[test]
fn a_body_that_stops_in_the_middle_gets_408() {
    let fixture = serve(HttpLimits { body_timeout: SHORT, ..patient() });
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.begin("POST", "/echo", &[("content-length", "5")]);
    peer.data(stream, b"hell", 0);
    let ending = peer.ending(stream);
    assert_eq!((ending.status, &ending.body[..]), (408, &b"the body took too long\n"[..]));
    assert!(peer.is_served());
}

#[test]
fn a_peer_that_waits_to_be_invited_is_invited() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    let more = [("content-length", "5"), ("expect", "100-continue")];
    let stream = peer.begin("POST", "/echo", &more);
    let invitation = peer.until(HEADERS);
    assert_eq!((invitation.stream, invitation.flags & END_STREAM), (stream, 0));
    peer.data(stream, b"hello", END_STREAM);
    assert_eq!(peer.ending(stream).body, b"hello");
    // One that is answered without its body is not to send it.
    let stream = peer.begin("POST", "/hello", &more);
    assert_eq!(peer.ending(stream).status, 200);
    let reset = peer.until(RESET);
    assert_eq!((reset.stream, reset.code()), (stream, 0));
    let stream = peer.begin("POST", "/echo", &[("expect", "tea")]);
    assert_eq!(peer.ending(stream).status, 417);
}

#[test]
fn a_request_taken_back_frees_its_handler() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    // Were a handler left behind, the threads would not do for the last ones.
    for _ in 0..3 {
        let streams: Vec<u32> =
            (0..32).map(|_| peer.begin("POST", "/echo", &[("content-length", "5")])).collect();
        for stream in &streams {
            peer.data(*stream, b"hell", 0);
        }
        assert!(!peer.is_served(), "there are 32");
        streams.iter().for_each(|stream| peer.reset(*stream));
        // Until a handler has noticed that its request was taken back, the next one is refused.
        let until = Instant::now() + PATIENCE;
        while !peer.is_served() {
            assert!(Instant::now() < until, "no handler is free again");
        }
        for _ in 0..20 {
            assert!(peer.is_served());
        }
    }
    assert!(fixture.server.http2_figures().1 <= 32);
}

#[test]
fn a_cut_connection_leaves_nothing_behind() {
    let fixture = serve(patient());
    for is_sending in [true, false] {
        let mut peer = fixture.connect_http2(&[]);
        if is_sending {
            let stream = peer.begin("POST", "/echo", &[("content-length", "5")]);
            peer.data(stream, b"hell", 0);
        } else {
            peer.get("/big");
            peer.until(HEADERS);
        }
        fixture.wait_until("it is there", |stats| stats.open == 1 && stats.requests > 0);
        drop(peer);
        fixture.wait_until("it is gone", |stats| stats.open == 0);
        assert_eq!(fixture.server.http2_figures().1, 0);
    }
}

#[test]
fn an_answer_that_cannot_be_made_ends_as_an_error() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.get("/broken");
    assert_eq!(peer.ending(stream).reset, Some(INTERNAL_ERROR));
    assert!(peer.is_served());
}

#[test]
fn a_head_that_two_could_read_in_two_ways_is_refused() {
    let fixture = serve(patient());
    for more in [
        ("x", "a\r\nhost: b"),
        ("x", "a\0"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("te", "gzip"),
        ("X-Upper", "a"),
        ("", "a"),
        (":path", "/echo"),
        (":unknown", "a"),
        ("content-length", "x"),
    ] {
        let mut peer = fixture.connect_http2(&[]);
        let stream = peer.send_head(&head("GET", "/hello", &[more]), END_HEADERS | END_STREAM);
        let mut frames = std::iter::from_fn(|| peer.next());
        let end = frames.find(|frame| [HEADERS, RESET, GOAWAY].contains(&frame.kind));
        let end = end.expect("a word about it");
        assert!(end.kind != HEADERS && end.code() == PROTOCOL_ERROR, "{stream} {more:?} {end:?}");
    }
    let mut peer = fixture.connect_http2(&[]);
    for (more, status) in [
        (&[("content-type", "a"), ("content-type", "b")][..], 400),
        (&[("authorization", "a"), ("authorization", "b")], 400),
        (&[("content-length", "0"), ("content-length", "0")], 400),
        (&[("host", "y")], 400),
        (&[("a", " b")], 400),
        (&[("a", "b\t")], 400),
        (&[("host", "x")], 200),
        (&[("a", "b"); 62], 200),
        (&[("a", "b"); 64], 431),
        (&[("a", &"b".repeat(20_000))], 431),
    ] {
        let block = head("GET", "/hello", more);
        let (first, rest) = block.split_at(block.len().min(16_000));
        let flags = if rest.is_empty() { END_HEADERS } else { 0 };
        let stream = peer.send_head(first, flags | END_STREAM);
        if !rest.is_empty() {
            peer.send(&frame(super::peer::CONTINUATION, END_HEADERS, stream, rest));
        }
        assert_eq!(peer.ending(stream).status, status, "{:?}", more[0].0);
    }
    assert_eq!(fixture.server.stats().requests, 2);
}

#[test]
fn a_live_answer_with_nothing_to_say_ends_with_its_stream() {
    let fixture = serve(patient());
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.get("/idle");
    assert_eq!(peer.until(DATA).payload, b"aaa");
    peer.reset(stream);
    fixture.entered_rx.recv_timeout(PATIENCE).expect("its end is noticed");
    assert!(peer.is_served());
}
