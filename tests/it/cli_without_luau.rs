//! A binary that was built without Luau says so instead of pretending.

use std::process::{Command, Stdio};

#[test]
fn commands_that_run_templates_refuse_to_start() {
    let worker = ["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"];
    for args in [&["master", "--store", "memory:", "--listen", "127.0.0.1:0"][..], &["replay", "-"], &worker] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesophyll"));
        let output = command.args(args).stdin(Stdio::null()).output().expect("the binary starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("built without Luau"), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}
