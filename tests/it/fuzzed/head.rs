//! The head of an HTTP request: what is taken keeps the rules of docs/protocol.md, whatever was
//! sent.

use std::net::SocketAddr;

use mesophyll::net::http::RequestHead;

/// A request's head, its empty line included.
pub(super) fn http_head(bytes: &[u8]) {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let head = match RequestHead::parse(bytes, peer) {
        Ok(head) => head,
        Err(refusal) => {
            assert!((400..600).contains(&refusal.status), "{refusal:?}");
            return;
        }
    };
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert!(head.path().starts_with('/'), "{}", head.path());
    assert!(!head.path().chars().any(char::is_control));
    assert!(head.segments().all(|segment| segment != "." && segment != ".."));
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let named = |name: &str| {
        lines
            .iter()
            .skip(1)
            .filter(|line| {
                line.get(..name.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
            })
            .count()
    };
    assert_eq!(named("transfer-encoding:"), 0, "framing that we do not speak");
    let is_http_1_1 = lines.first().is_some_and(|line| line.ends_with(b"HTTP/1.1\r"));
    assert!(named("host:") == 1 || !is_http_1_1, "exactly one Host");
    assert!(named("content-length:") <= 1);
    for (name, _) in head.query_pairs() {
        assert!(head.query(name).is_some());
    }
}
