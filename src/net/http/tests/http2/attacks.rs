//! What has brought down other servers: each ends with the right code, and harms no other.

use std::time::Duration;

use super::peer::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2Peer, PING, RESET,
    SETTINGS, WINDOW, frame, head, settings,
};
use crate::net::http::HttpLimits;
use crate::net::http::tests::support::{Fixture, patient, serve};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CALM: u32 = 11;

/// Sends the same thing, or what counts up, until the server has had enough.
fn flood(peer: &mut Http2Peer, most: u32, mut next: impl FnMut(u32) -> Vec<u8>) {
    (0..most).find(|at| !peer.send(&next(*at)));
}

/// The attack ends with this code, and others are served meanwhile and after.
#[track_caller]
fn assert_ends(fixture: &Fixture, mut peer: Http2Peer, code: u32, what: &str) {
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(peer.farewell(), Some(code), "{what}");
    drop(peer);
    assert!(fixture.server.http2_figures().1 <= 32);
    assert!(fixture.connect_http2(&[]).is_served());
}

fn lingering() -> HttpLimits {
    HttpLimits { linger_timeout: Duration::from_secs(5), ..patient() }
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", "/wait", &[]))
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", "/echo", &[("content-length", "10")]))
}

#[test]
fn rapid_resets_end_a_connection() {
    let fixture = serve(lingering());
    // One frame at a time, and many in one write.
    for at_once in [1, 50] {
        let mut peer = fixture.connect_http2(&[]);
        flood(&mut peer, 1000, |at| {
            let first = 1 + 2 * at * at_once;
            let both = |n| {
                let stream = first + 2 * n;
                [get(stream), frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
            };
            (0..at_once).flat_map(both).collect()
        });
        for _ in 0..64 {
            let _ = fixture.go_tx.try_send(());
        }
        assert_ends(&fixture, peer, CALM, "");
    }
    assert!(fixture.server.stats().requests < 400, "few of them were begun");
}

#[test]
fn resets_that_we_are_made_to_send_end_a_connection() {
    let fixture = serve(lingering());
    let mut peer = fixture.connect_http2(&[]);
    flood(&mut peer, 1000, |at| {
        let stream = 1 + 2 * at;
        let too_wide = frame(WINDOW, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [post(stream), too_wide].concat()
    });
    assert_ends(&fixture, peer, CALM, "");
    let mut peer = fixture.connect_http2(&[]);
    flood(&mut peer, 1000, |at| {
        let stream = 1 + 2 * at;
        [post(stream), frame(DATA, END_STREAM, stream, b"less")].concat()
    });
    assert_ends(&fixture, peer, CALM, "");
}

#[test]
fn a_head_without_end_ends_a_connection() {
    let fixture = serve(lingering());
    for part in [&b""[..], &[0, 1, b'a', 3, b'a', b'b', b'c'].repeat(500)] {
        let mut peer = fixture.connect_http2(&[]);
        peer.send(&frame(HEADERS, 0, 1, &head("GET", "/hello", &[])));
        flood(&mut peer, 20_000, |_| frame(CONTINUATION, 0, 1, part));
        assert_ends(&fixture, peer, CALM, "");
    }
}

#[test]
fn frames_that_bring_nothing_further_end_a_connection() {
    let fixture = serve(lingering());
    let update = settings(&[(4, 65_535); 10]);
    let floods = [
        frame(DATA, 0, 1, b""),
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, &update),
        frame(WINDOW, 0, 0, &1_u32.to_be_bytes()),
        frame(2, 0, 1, &[0, 0, 0, 0, 5]),
        frame(0x77, 0, 0, b"nobody knows this kind"),
    ];
    for one in floods {
        let mut peer = fixture.connect_http2(&[]);
        peer.send(&post(1));
        flood(&mut peer, 2000, |_| one.repeat(100));
        assert_ends(&fixture, peer, CALM, "");
    }
}

#[test]
fn a_bomb_of_fields_ends_a_connection() {
    let fixture = serve(lingering());
    let mut peer = fixture.connect_http2(&[]);
    // A field of 3900 bytes goes into the table, and is then named 12,000 times.
    let mut block = head("GET", "/hello", &[]);
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x80 | (3773 % 128) as u8, (3773 / 128) as u8]);
    block.extend_from_slice(&[b'a'; 3900]);
    block.extend_from_slice(&[0xbe; 12_000]);
    peer.send(&frame(HEADERS, END_STREAM, 1, &block[..12_000]));
    peer.send(&frame(CONTINUATION, END_HEADERS, 1, &block[12_000..]));
    assert_ends(&fixture, peer, CALM, "");
}

#[test]
fn broken_rules_have_codes_of_their_own() {
    let fixture = serve(lingering());
    let headers = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    for (bytes, code) in [
        // RFC 9113 has codes of their own for the first two and the last but one; `h2` has not.
        (headers(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), PROTOCOL_ERROR),
        (headers(&[0xfe]), PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"of no stream"), PROTOCOL_ERROR),
        (frame(PING, ACK, 1, b"12345678"), PROTOCOL_ERROR),
        (frame(WINDOW, 0, 0, &0x7fff_ffff_u32.to_be_bytes()), FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, &settings(&[(4, 0x8000_0000)])), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, &[0; 8]), 0),
    ] {
        let mut peer = fixture.connect_http2(&[]);
        peer.send(&bytes);
        assert_ends(&fixture, peer, code, &format!("{bytes:?}"));
    }
}

#[test]
fn more_of_a_body_than_was_announced_or_fits_is_refused() {
    let fixture = serve(lingering());
    let mut peer = fixture.connect_http2(&[]);
    let stream = peer.begin("POST", "/echo", &[("content-length", "5")]);
    peer.data(stream, b"too much", END_STREAM);
    assert_eq!(peer.ending(stream).reset, Some(PROTOCOL_ERROR));
    assert!(peer.is_served());
    // Beyond the stream's window, which its handler, that waits for another thing, does not widen.
    let stream = peer.begin("POST", "/wait", &[("content-length", "1000000")]);
    for _ in 0..5 {
        let _ = peer.data(stream, &[b'x'; 16_000], 0);
    }
    assert_eq!(peer.ending(stream).reset, Some(FLOW_CONTROL_ERROR));
    fixture.go_tx.send(()).expect("the handler waits");
    assert!(peer.is_served());
}

#[test]
fn requests_beyond_the_bound_are_refused_not_queued() {
    let fixture = serve(lingering());
    let mut peer = fixture.connect_http2(&[]);
    let streams: Vec<u32> =
        (0..100).map(|_| peer.begin("POST", "/echo", &[("content-length", "1")])).collect();
    for stream in &streams[32..] {
        assert_eq!(peer.ending(*stream).reset, Some(REFUSED_STREAM));
    }
    for stream in &streams[..32] {
        peer.data(*stream, b"x", END_STREAM);
        assert_eq!(peer.ending(*stream).body, b"x");
    }
    assert_eq!(fixture.server.stats().requests, 32);
}

#[test]
fn frames_at_random_end_in_order_and_harm_no_other() {
    let fixture = serve(lingering());
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    // xorshift: the same bytes in every run.
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) % below
    };
    for _ in 0..200 {
        let mut peer = fixture.connect_http2(&[]);
        for _ in 0..random(40) {
            let (kind, stream) = (random(11) as u8, random(12) as u32);
            let payload: Vec<u8> = match kind {
                HEADERS => head("POST", "/echo", &[]),
                WINDOW | RESET => (random(1 << 20) as u32).to_be_bytes().to_vec(),
                SETTINGS => settings(&[(random(8) as u16, random(1 << 17) as u32)]),
                PING => vec![7; 8],
                _ => (0..random(60)).map(|_| random(256) as u8).collect(),
            };
            peer.send(&frame(kind, random(256) as u8 & 0x2d, stream, &payload));
        }
        peer.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
        peer.until_end();
    }
    fixture.wait_until("all have left", |stats| stats.open == 0);
    assert_eq!(fixture.server.http2_figures().1, 0);
    assert!(fixture.connect_http2(&[]).is_served());
}
