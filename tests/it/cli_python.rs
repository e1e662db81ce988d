//! A worker that shares no code with ours: `examples/worker.py`, attached to a master that starts
//! none itself.

use std::process::Command;

use serde_json::json;

use crate::support::TempDir;
use crate::support::binary::{Master, Running};
use crate::support::skip::skipped;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");

#[test]
fn a_worker_in_python_serves_tenants_and_uses_data() {
    let Some(python) = std::env::var_os("MESOPHYLL_TEST_PYTHON") else {
        let why =
            "set MESOPHYLL_TEST_PYTHON to a Python that has the packages websockets and msgpack";
        return skipped("a_worker_in_python_serves_tenants_and_uses_data", why);
    };
    let folder = TempDir::new();
    let tokens = folder.path().join("tokens.json");
    let tokens = tokens.to_str().expect("a plain path");
    let args = [
        "--external-workers",
        "--worker-tokens",
        tokens,
        "--workers",
        "1",
        "--heartbeat-interval",
        "1500ms",
    ];
    let master = Master::start(&args);
    let mut command = Command::new(python);
    command.arg(SCRIPT).args([
        "--master",
        &master.listen().to_string(),
        "--id",
        "0",
        "--workers",
        "1",
        "--tokens",
        tokens,
    ]);
    let worker = Running::start(command);
    worker.wait_stderr("attached; a heartbeat every 1.5 s");
    master.wait_ready();
    for seen in 1..=3 {
        let answer = master.dispatch("guild/123", "MESSAGE_CREATE", r#"{"content":"hello"}"#);
        assert_eq!(answer, (200, json!({"event": "MESSAGE_CREATE", "author": "7", "seen": seen})));
    }
    assert_eq!(master.dispatch_with("user/1", "E", "1", "?nowait=true").0, 202);
    assert_eq!(
        master.dispatch("user/1", "E", "1"),
        (200, json!({"event": "E", "author": "7", "seen": 2}))
    );
    // A second one takes over, and the first one sees why.
    let (stopped, _) = master.stop();
    stopped.expect(0, "");
    worker.wait_stderr("the link has ended");
}
