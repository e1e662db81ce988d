//! `/db/*` over HTTP/2 with prior knowledge, by curl as a client that is not ours.

use std::process::Command;
use std::time::Instant;

use mesophyll::store::{DbOptions, Quota};
use mesophyll::wire::data::{KeyValueOp, Scopes};
use mesophyll::wire::pack::shape::Encode;

use crate::support::db::{Kept, open, serve, text};
use crate::support::skip::skipped;
use crate::support::{DEADLINE, TempDir};

const MEBIBYTE: usize = 1024 * 1024;

/// What curl prints of each answer: the version of HTTP, the status, and an error if there was one.
const FORMAT: &str = "%{http_version} %{http_code} %{errormsg}\\n";

#[test]
fn curl_with_prior_knowledge_gets_what_http1_would() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("curl_with_prior_knowledge_gets_what_http1_would", "there is no curl");
    }
    let folder = TempDir::new();
    let quota = Quota { records: 2, ..Quota::default() };
    let db = open(Kept::InMemory, folder.path(), DbOptions { quota, ..DbOptions::default() });
    let server = serve(&db, 2);
    let address = server.local_addr();
    let kv = format!("http://{address}/db/kv?id=0&token=t&tenant_type=guild&tenant_id=1");
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", FORMAT, "--http2-prior-knowledge"]);
        let output = command.args(arguments).output().expect("curl runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let file = folder.path().join("body");
    let post = |body: &[u8], url: &str| {
        std::fs::write(&file, body).expect("written");
        curl(&["--data-binary", &format!("@{}", file.display()), url])
    };
    let states = format!("http://{address}/db/tenant-states?id=0&token=t");
    assert_eq!(curl(&[&states]), "2 200 \n");
    assert_eq!(curl(&["-X", "POST", &states]), "2 405 \n");
    let nothing = format!("http://{address}/db/nothing?id=0&token=t");
    assert_eq!(curl(&[&nothing]), "2 404 \n");
    let set = KeyValueOp::Set { scopes: Scopes::new(["s"]), key: "k".into(), value: text("v") };
    assert_eq!(post(&set.to_bytes(), &kv), "2 200 \n");
    // Bytes that are no operation, which shows that they were read; and more than may be.
    assert_eq!(post(&vec![0xc1; 2 * MEBIBYTE], &kv), "2 400 \n");
    assert_eq!(post(&vec![0xc1; 2 * MEBIBYTE + 1], &kv), "2 413 \n");
    // Refused before the body was sent: that is no failure of the connection.
    for length in [10, 60_000, 100_000, 4 * MEBIBYTE] {
        assert_eq!(post(&vec![0xc1; length], &nothing), "2 404 \n", "{length}");
    }
    server.shutdown(Instant::now() + DEADLINE);
}
