//! Good requests and their answers, byte by byte.

use super::support::{BIG_BYTES, patient, serve};

#[test]
fn a_get_is_answered_and_the_connection_kept() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    for _ in 0..3 {
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.closes()), (200, "hello\n", false));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
        assert_eq!(answer.header("keep-alive"), Some("timeout=20"), "as long as it is kept");
    }
    assert_eq!(fixture.server.stats().requests, 3);
    assert_eq!(fixture.server.stats().accepted, 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    let mut all = Vec::new();
    for number in 0..50 {
        let request =
            format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{number:02}");
        all.extend_from_slice(request.as_bytes());
        all.extend_from_slice(b"HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    client.send(&all);
    for number in 0..50 {
        assert_eq!(client.answer().text(), format!("{number:02}"));
        assert_eq!(client.answer_to("HEAD").header("content-length"), Some("6"));
    }
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.stream.set_nodelay().expect("a socket");
    for byte in
        b"\r\nPOST /echo?x=1 HTTP/1.1\r\nhOsT: x\r\nA:\r\nB:  b\t \r\ncontent-length:5\r\n\r\nhello"
    {
        client.send(&[*byte]);
    }
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn a_client_that_has_finished_writing_still_gets_its_answer() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    client.finish_writing();
    assert_eq!(client.answer().status, 200);
    assert!(client.until_end().is_empty());
}

#[test]
fn head_gets_the_headers_of_get_and_nothing_else() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client
        .send(b"HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\nHEAD /chunked HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").header("content-length"), Some("6"));
    assert_eq!(client.answer_to("HEAD").header("transfer-encoding"), Some("chunked"));
    assert!(client.until_end().is_empty());
}

#[test]
fn a_204_has_neither_body_nor_length() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.header("content-length"), answer.header("content-type")),
        (204, None, None)
    );
    assert_eq!(client.answer().status, 200);
}

#[test]
fn chunks_are_framed_for_1_1_and_plain_for_1_0() {
    let fixture = serve(patient());
    let answer = fixture.ask(b"GET /chunked HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((answer.text(), answer.header("transfer-encoding")), ("aaaaaa", Some("chunked")));
    let answer = fixture.ask(b"GET /chunked HTTP/1.0\r\n\r\n");
    assert_eq!(
        (answer.text(), answer.header("transfer-encoding"), answer.closes()),
        ("aaaaaa", None, true)
    );
}

#[test]
fn a_well_framed_request_keeps_its_connection_at_400() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    for request in [
        "GET /bad HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, false), "{request}");
    }
    client.send(b"GET http://other/hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().text(), "hello\n", "the absolute form is the same request");
}

#[test]
fn close_and_http_1_0_end_the_connection_after_the_answer() {
    let fixture = serve(patient());
    for request in [
        "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: foo , CLOSE\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: foo\r\nConnection: close\r\n\r\n",
        "GET /hello HTTP/1.0\r\n\r\n",
        "GET /hello HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nExpect: tea\r\n\r\n",
        "POST /hello HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut client = fixture.connect();
        client.send(request.as_bytes());
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.answer();
        assert!(answer.closes() && answer.header("keep-alive").is_none(), "{request}");
        assert!(client.until_end().is_empty(), "{request}");
    }
}

#[test]
fn bodies_arrive_whole_whatever_their_size() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    for size in [0, 1, 16_383, 16_384, 16_385, 100_000, 1024 * 1024] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        client.send(
            format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").as_bytes(),
        );
        client.send(&body);
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{size}");
        assert!(answer.body == body, "{size}");
    }
}

#[test]
fn a_large_answer_arrives_whole() {
    let fixture = serve(patient());
    let answer = fixture.ask(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.body.len() == BIG_BYTES && answer.body.iter().all(|byte| *byte == b'x'));
}

#[test]
fn continue_is_said_when_the_handler_asks_for_the_body() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n",
    );
    assert_eq!(client.answer().status, 100);
    client.send(b"hello");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("hello", false));
}

#[test]
fn continue_is_not_said_when_the_handler_does_not_want_the_body() {
    let fixture = serve(patient());
    for (path, length, status) in
        [("/nothing", "5", 404), ("/echo", "2000000", 413), ("/hello", "5", 200)]
    {
        let mut client = fixture.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        client.send(head.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{path}");
        client.finish_writing();
        assert!(client.until_end().is_empty(), "{path}");
    }
}

#[test]
fn continue_is_not_said_when_there_is_nothing_to_wait_for() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
    );
    assert_eq!(client.answer().text(), "hi");
}

#[test]
fn a_small_unread_body_is_skipped_and_a_large_one_closes() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(b"PUT /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n");
    client.send(&[b'G'; 30_000]);
    client.send(b"GET /query?a=b%20c HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().text(), "hello\n");
    assert_eq!(client.answer().text(), "b c\n");
    client.send(b"PUT /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
}

#[test]
fn a_refused_upload_gets_its_answer_while_it_still_sends() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n");
    client.send(&vec![0; 30_000_000]);
    assert_eq!(client.answer().status, 413);
    assert!(client.until_end().is_empty());
}

#[test]
fn a_header_cannot_be_split_by_its_value() {
    let fixture = serve(patient());
    let answer = fixture.ask(b"GET /split HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.header("x-evil"), Some("aX-Injected: b"));
    assert_eq!(answer.header("x-injected"), None);
}

#[test]
fn an_upgrade_gets_the_socket_and_the_bytes_behind_the_head() {
    let fixture = serve(patient());
    let mut client = fixture.connect();
    client.send(
        b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\nearly",
    );
    let (stream, mut early) =
        fixture.upgraded_rx.recv_timeout(super::support::PATIENCE).expect("the upgrade");
    let crate::net::stream::Stream::Tcp(mut stream) = stream else { panic!("it came by TCP") };
    assert_eq!(
        (stream.read_timeout().expect("a socket"), stream.write_timeout().expect("a socket")),
        (None, None)
    );
    client.send(b" late");
    client.finish_writing();
    std::io::Read::read_to_end(&mut stream, &mut early).expect("the rest");
    assert_eq!(early, b"early late");
    // It no longer takes a place, and the end of the server is not its end.
    fixture.wait_until("the place is free", |stats| stats.open == 0);
    fixture.server.shutdown(std::time::Instant::now());
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello")
        .expect("a socket");
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(5), b"hello");
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    let fixture = serve(patient());
    let answer = fixture.ask(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((answer.status, answer.closes()), (400, true));
    assert!(fixture.upgraded_rx.try_recv().is_err());
}
