//! `/db/*` as bytes on a socket: statuses, the order of the checks, and what errors say.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use mesophyll::net::http::HttpServer;
use mesophyll::store::{DbOptions, Quota};
use mesophyll::wire::data::{EncodedJson, KeyValueOp, Scopes, TenantId, TenantState};
use mesophyll::wire::pack::shape::{Decode, Encode};

use crate::support::db::{Kept, open, serve, text};
use crate::support::{DEADLINE, TempDir};

struct Master {
    server: HttpServer,
    _folder: TempDir,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn line(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text").strip_suffix('\n').expect("one line")
    }
}

impl Master {
    /// Of two workers, worker 0 asks.
    fn new() -> Self {
        let folder = TempDir::new();
        let quota = Quota { records: 2, ..Quota::default() };
        let db = open(Kept::InMemory, folder.path(), DbOptions { quota, ..DbOptions::default() });
        Self { server: serve(&db, 2), _folder: folder }
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        let length = if method == "GET" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        self.raw(
            &[
                format!(
                    "{method} {target} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{length}\r\n"
                )
                .as_bytes(),
                body,
            ]
            .concat(),
        )
    }

    fn raw(&self, request: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.server.local_addr()).expect("connected");
        socket.set_read_timeout(Some(DEADLINE)).expect("set");
        // A server that refuses may close before it has read everything.
        let _ = socket.write_all(request);
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("answered");
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).expect("text");
        let status = head[9..12].parse().expect("a status");
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    fn kv(&self, op: &KeyValueOp) -> Answer {
        self.ask("POST", "/db/kv?id=0&token=t&tenant_type=guild&tenant_id=1", &op.to_bytes())
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.server.shutdown(Instant::now() + DEADLINE);
    }
}

fn set(key: &str) -> KeyValueOp {
    KeyValueOp::Set { scopes: Scopes::new(["s"]), key: key.to_owned(), value: text("v") }
}

#[test]
fn operations_answer_with_the_bytes_of_their_results() {
    let master = Master::new();
    let answer = master.kv(&set("k"));
    assert_eq!((answer.status, answer.body), (200, Vec::new()));
    let answer = master.kv(&KeyValueOp::Get { scopes: Scopes::new(["s"]), key: "x".to_owned() });
    assert_eq!((answer.status, answer.body), (200, b"\xc0".to_vec()));
    let answer = master.kv(&KeyValueOp::ListScopes);
    assert_eq!((answer.status, answer.body), (200, b"\x91\xa1s".to_vec()));
    let answer = master.kv(&KeyValueOp::Find { scopes: Scopes::default(), query: "%".to_owned() });
    assert_eq!((answer.status, answer.body[0]), (200, 0x91));
    let answer = master.ask("GET", "/db/tenant-states?id=0&token=t", b"");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("chunked"), "{}", answer.head);
    assert_eq!(answer.body, b"1\r\n\x80\r\n0\r\n\r\n");
}

#[test]
fn a_state_set_by_one_request_is_seen_by_the_next() {
    let master = Master::new();
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    let answer =
        master.ask("POST", "/db/tenant-state?tenant_type=user&tenant_id=7", &state.to_bytes());
    assert_eq!((answer.status, answer.body), (200, Vec::new()));
    let answer = master.ask("GET", "/db/tenant-states", b"");
    let chunk = answer.body.split(|byte| *byte == b'\n').nth(1).expect("a chunk");
    let states = std::collections::HashMap::<TenantId, TenantState>::from_bytes(
        chunk.strip_suffix(b"\r").expect("its end"),
    );
    assert_eq!(states.expect("a map").get(&TenantId::User(7)), Some(&state));
}

#[test]
fn checks_go_from_path_to_method_to_tenant_to_body() {
    let master = Master::new();
    let too_large = vec![0; 2 * 1024 * 1024 + 1];
    for (method, target, body, status) in [
        ("POST", "/db/nothing?tenant_type=x", &too_large[..], 404),
        ("GET", "/db/kv?tenant_type=x", b"", 405),
        ("POST", "/db/tenant-states", b"", 405),
        ("POST", "/db/kv", &too_large, 400),
        ("POST", "/db/kv?tenant_type=guild", b"", 400),
        ("POST", "/db/kv?tenant_type=role&tenant_id=1", b"", 400),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=-1", b"", 400),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=18446744073709551615", b"", 400),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=4194304", &too_large, 403),
        ("POST", "/db/tenant-state?tenant_type=user&tenant_id=4194304", b"", 403),
        ("POST", "/db/public-global-kv?tenant_type=guild&tenant_id=4194304", &too_large, 403),
        ("POST", "/db/public-global-kv?tenant_id=1", b"", 400),
        ("POST", "/db/public-global-kv?tenant_type=guild&tenant_id=1", b"", 400),
        ("POST", "/db/public-global-kv", &too_large, 413),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=1", &too_large, 413),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=1", b"", 400),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=1", b"\xc1", 400),
        ("POST", "/db/kv?tenant_type=guild&tenant_id=1", b"\x81\xa3Eat\x90", 400),
        ("POST", "/db/tenant-state?tenant_type=guild&tenant_id=1", b"\xdd\xff\xff\xff\xff", 400),
    ] {
        let answer = master.ask(method, target, body);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        let line = answer.line();
        assert!(!line.is_empty() && !line.contains('\n') && line.len() < 200, "{line}");
        assert_eq!(status == 405, answer.head.contains("\r\nAllow: "), "{}", answer.head);
    }
}

#[test]
fn a_request_without_a_length_is_411() {
    let master = Master::new();
    let target = "/db/kv?tenant_type=guild&tenant_id=1";
    let answer = master
        .raw(format!("POST {target} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").as_bytes());
    assert_eq!(answer.status, 411);
}

#[test]
fn a_rule_that_refuses_says_why_and_of_which_kind() {
    let master = Master::new();
    let answer = master.kv(&set(""));
    assert_eq!((answer.status, answer.line()), (422, "a key has 1 to 512 bytes"));
    assert!(answer.head.contains("\r\nMesophyll-Error: refused\r\n"), "{}", answer.head);
    assert_eq!(master.kv(&set("1")).status, 200);
    assert_eq!(master.kv(&set("2")).status, 200);
    let answer = master.kv(&set("3"));
    assert_eq!((answer.status, answer.line()), (422, "a tenant has at most 2 records"));
    let forbidden = master.ask("POST", "/db/kv?tenant_type=guild&tenant_id=4194304", b"");
    assert!(forbidden.head.contains("\r\nMesophyll-Error: forbidden\r\n"), "{}", forbidden.head);
}

#[test]
fn a_closed_store_is_503_and_says_nothing_of_where_it_is() {
    let folder = TempDir::new();
    let file = folder.path().join("store.redb");
    let db = open(Kept::InRedb, &file, DbOptions::default());
    let master = Master { server: serve(&db, 1), _folder: folder };
    db.close();
    for op in [set("k"), KeyValueOp::ListScopes] {
        let answer = master.kv(&op);
        assert_eq!((answer.status, answer.line()), (503, "the store is not available"));
        assert!(answer.head.contains("\r\nMesophyll-Error: unavailable\r\n"), "{}", answer.head);
    }
}
