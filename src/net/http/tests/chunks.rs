//! Bodies of requests in chunks: what is read, and what could be read in two ways and is refused.

use super::support::{Fixture, patient, serve};
use crate::net::http::HttpLimits;

fn chunked() -> Fixture {
    serve(HttpLimits { takes_chunks: true, ..patient() })
}

const HEAD: &str = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn chunks_arrive_whole_and_the_connection_is_kept() {
    let fixture = chunked();
    let large = "x".repeat(300_000);
    let mut client = fixture.connect();
    for (body, text) in [
        ("0\r\n\r\n".to_owned(), ""),
        ("2\r\nhi\r\n0\r\n\r\n".to_owned(), "hi"),
        ("00000002\r\nhi\r\n1;a=b;c=\"d\"\r\n!\r\n000\r\n\r\n".to_owned(), "hi!"),
        (
            "A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\nTrailer: x\r\nHost: y\r\n\r\n".to_owned(),
            "\r\n\r\n\r\n\r\n\r\n",
        ),
        (format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()), &large),
        (format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(20_000)), &large[..20_000]),
    ] {
        client.send(format!("{HEAD}{body}").as_bytes());
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.text() == text, answer.closes()),
            (200, true, false),
            "{:.40}",
            body
        );
    }
    for byte in
        format!("{HEAD}2\r\nhi\r\n0\r\na: b\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n").bytes()
    {
        client.send(&[byte]);
    }
    assert_eq!((client.answer().text(), client.answer().text()), ("hi", "hello\n"));
    client.send(HEAD.replace("chunked", "Chunked\r\nExpect: 100-continue").as_bytes());
    assert_eq!(client.answer().status, 100);
    client.send(b"2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(client.answer().text(), "hi");
}

#[test]
fn chunks_that_nobody_wanted_end_the_connection() {
    let fixture = chunked();
    let mut client = fixture.connect();
    client.send(format!("{}2\r\nhi\r\n0\r\n\r\n", HEAD.replace("/echo", "/hello")).as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
}

#[test]
fn an_unclear_body_is_refused_and_the_connection_closed() {
    let fixture = chunked();
    let with = |headers: &str| HEAD.replace("Transfer-Encoding: chunked", headers);
    let requests = [
        (with("Transfer-Encoding: chunked\r\nContent-Length: 1") + "1\r\nx\r\n0\r\n\r\n", 400),
        (with("Content-Length: 1\r\nTransfer-Encoding: chunked") + "1\r\nx\r\n0\r\n\r\n", 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: gzip, chunked"), 400),
        (with("Transfer-Encoding: chunked, identity"), 400),
        (with("Transfer-Encoding: xchunked"), 400),
        (with("Transfer-Encoding:"), 400),
        (HEAD.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (format!("{HEAD}x\r\n"), 400),
        (format!("{HEAD}\r\n"), 400),
        (format!("{HEAD}+1\r\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD} 1\r\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}1 \r\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}0x1\r\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}1\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}1\r\nx\n0\r\n\r\n"), 400),
        (format!("{HEAD}1\r\nxx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}1;\0\r\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}1;\ra\r\nx\r\n0\r\n\r\n"), 400),
        (format!("{HEAD}1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(1100)), 400),
        (format!("{HEAD}0\r\n{}\r\n", "a: b\r\n".repeat(10_000)), 400),
        (format!("{HEAD}0\r\nno colon\r\n\r\n"), 400),
        (format!("{HEAD}0\r\na: b\r\n folded: c\r\n\r\n"), 400),
        (format!("{HEAD}0\r\n: no name\r\n\r\n"), 400),
        (format!("{HEAD}123456789\r\n"), 400),
        (format!("{HEAD}ffffffff\r\n"), 413),
        (format!("{HEAD}100001\r\n"), 413),
    ];
    requests.iter().for_each(|(request, status)| fixture.assert_refused(request, *status));
}

#[test]
fn chunks_that_are_cut_short_are_refused() {
    let fixture = chunked();
    for body in ["", "2", "2\r\n", "2\r\nh", "2\r\nhi\r\n", "0\r\n", "0\r\na: b\r\n"] {
        let mut client = fixture.connect();
        client.send(format!("{HEAD}{body}").as_bytes());
        client.finish_writing();
        assert_eq!(client.answer().status, 400, "{body:?}");
    }
}
