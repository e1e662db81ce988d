//! Requests that are none, or that two parties could read in two ways: each is refused, and the
//! connection closed.

use super::support::{patient, serve};

/// What is sent after the first line and the Host header, if anything; and the status that must
/// come.
const REFUSED: &[(&str, u16)] = &[
    // The request line.
    ("\r\n\r\n", 400),
    ("\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET\r\n\r\n", 400),
    ("GET /hello\r\n\r\n", 400),
    ("GET  /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    (" GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET\t/hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("G(T /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    ("GET /hello HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ("GET /hello http/1.1\r\nHost: x\r\n\r\n", 400),
    #[cfg(not(feature = "http2"))]
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("GET /hello HTTP/1.1 GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0", 400),
    // The target.
    ("GET hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET http:///hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET http://a@x/hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET ftp://x/hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET //hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /a/../hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /%2e%2e/hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello%2f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello% HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello?a=%f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /hello#a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /h\u{e9}llo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    // Line ends.
    ("GET /hello HTTP/1.1\nHost: x\n\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\n\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA: b\u{b}c\r\n\r\n", 400),
    // Headers.
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nA(b: c\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", 400),
    // Host.
    ("GET /hello HTTP/1.1\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400),
    ("GET /hello HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: x/hello\r\n\r\n", 400),
    ("GET /hello HTTP/1.1\r\nHost: a@x\r\n\r\n", 400),
    // Length.
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1a\r\n\r\na", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\na", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1 1\r\n\r\na", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\na", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n", 413),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
    ("POST /echo HTTP/1.1\r\nHost: x\r\n\r\n", 411),
    ("PUT /echo HTTP/1.1\r\nHost: x\r\n\r\nbody", 411),
    // Transfer-Encoding, the classic of smuggling, in every dress.
    ("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    ("POST /echo HTTP/1.1\r\nHost: x\r\ntransfer-encoding: identity\r\n\r\n", 411),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\nContent-Length: 1\r\n\r\na", 411),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5c\r\n",
        411,
    ),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
        411,
    ),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\t: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
        400,
    ),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nX: a\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
        400,
    ),
    ("GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    ("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    // Expectations.
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: tea\r\n\r\na", 417),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect:\r\n\r\na", 417),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue, tea\r\n\r\na",
        417,
    ),
];

#[test]
fn an_unclear_request_is_refused_and_the_connection_closed() {
    let fixture = serve(patient());
    REFUSED.iter().for_each(|(request, status)| fixture.assert_refused(request, *status));
}

#[test]
fn nothing_of_a_refused_request_comes_back() {
    let fixture = serve(patient());
    let answer =
        fixture.ask(b"GET /hello?token=s3cret HTTP/1.1\r\nHost: x\r\nA: s3cret\r\nContent-Length: s3cret\r\n\r\n");
    assert_eq!(answer.status, 400);
    assert!(!answer.text().contains("s3cret") && !answer.head.contains("s3cret"));
}

#[test]
fn a_head_may_be_exactly_as_large_as_the_limit() {
    let fixture = serve(patient());
    let around = "GET /hello HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
    for (size, status) in [(16_384, 200), (16_385, 431), (20_000, 431), (200_000, 431)] {
        let request =
            format!("GET /hello HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(size - around));
        let answer = fixture.ask(request.as_bytes());
        assert_eq!((answer.status, answer.closes()), (status, status != 200), "{size}");
    }
    let mut client = fixture.connect();
    client.send(format!("GET /{}", "a".repeat(100_000)).as_bytes());
    assert_eq!(client.answer().status, 431);
    assert_eq!(client.until_end(), b"");
}

#[test]
fn more_headers_than_the_limit_are_refused() {
    let fixture = serve(patient());
    for (headers, status) in [(63, 200), (64, 431)] {
        let request =
            format!("GET /hello HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(headers));
        assert_eq!(fixture.ask(request.as_bytes()).status, status, "{headers}");
    }
}

#[test]
fn a_request_behind_a_refused_body_is_never_served() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    let inner = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{inner}{inner}")
            .as_bytes(),
    );
    assert_eq!(client.answer().status, 413);
    client.finish_writing();
    assert_eq!(client.until_end(), b"");
    assert_eq!(fixture.server.stats().requests, 1);
}

#[test]
fn garbage_gets_a_refusal_or_silence_and_harms_no_other() {
    let fixture = serve(patient());
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..300 {
        let mut garbage = Vec::new();
        if round % 3 > 0 {
            garbage.extend_from_slice(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n");
        }
        for _ in 0..round {
            // xorshift: the same bytes in every run.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let byte = (seed >> 32) as u8;
            garbage.push(if round % 2 == 0 {
                byte
            } else {
                b"\r\n: aA1%/\0"[usize::from(byte) % 10]
            });
        }
        let mut client = fixture.connect();
        client.send(&garbage);
        client.finish_writing();
        let answer = String::from_utf8(client.until_end()).expect("text");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{round}: {answer}");
    }
    assert_eq!(fixture.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}
