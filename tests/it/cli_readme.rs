//! Blocks of commands in the documents, as a reader pastes them: each runs to its end, and the
//! first command that fails ends it.

use std::path::Path;
use std::process::Command;

use crate::support::TempDir;
use crate::support::binary::{Finished, Running, mesophyll};
use crate::support::process::own_port;
use crate::support::skip::skipped;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The first block of shell commands behind a heading of a document.
fn block(document: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(Path::new(ROOT).join(document)).expect("there");
    let heading = format!("{heading}\n");
    let (_, rest) =
        text.split_once(&heading).unwrap_or_else(|| panic!("no {heading:?} in {document}"));
    let (_, rest) = rest.split_once("\n```sh\n").expect("a block");
    rest.split_once("\n```").expect("its end").0.to_owned()
}

/// Runs a block in a folder of its own with the binary of the tests, at ports that are free, by a
/// shell that ends at the first command that fails; `replaced` are the commands that a test cannot
/// run.
fn run_block(shell: &str, block: &str, replaced: &[(&str, &str)]) -> Finished {
    let folder = TempDir::new();
    let (listen, api) = (format!("127.0.0.1:{}", own_port()), format!("127.0.0.1:{}", own_port()));
    let mut script = block.replace("target/release/mesophyll", env!("CARGO_BIN_EXE_mesophyll"));
    script = script.replace("127.0.0.1:7451", &api);
    for (command, by) in replaced {
        assert!(script.contains(command), "no {command:?} in {script}");
        script = script.replace(command, by);
    }
    let path = folder.path().join("block.sh");
    std::fs::write(&path, script).expect("written");
    // Without the variables of who runs the tests, as `mesophyll` has it.
    let ours = mesophyll(&["--version"]);
    let mut command = Command::new(shell);
    for (name, _) in ours.get_envs() {
        command.env_remove(name);
    }
    command.env("MESOPHYLL_LISTEN", listen).env("MESOPHYLL_API", api).env("MESOPHYLL_WORKERS", "2");
    command.arg("-e").arg(path).current_dir(folder.path());
    Running::start(command).wait()
}

#[test]
fn the_quick_start_runs_as_one_block_in_any_shell() {
    let block = block("README.md", "# Mesophyll");
    for shell in ["sh", "bash"] {
        // What it builds is another binary; what it replays is here.
        let replay = format!(
            "{} replay {ROOT}/examples/events.ndjson --workers 2",
            env!("CARGO_BIN_EXE_mesophyll")
        );
        let finished = run_block(shell, &block, &[("make run ", &replay)]);
        finished.expect(0, "failures: 0");
        let answer = r#"{"author":"ada","event":"MESSAGE_CREATE","messages":1,"reply":"you have written 1 message"}"#;
        assert_eq!(finished.stdout.last().map(String::as_str), Some(answer), "{finished:?}");
    }
}

#[test]
fn the_block_that_calls_the_api_with_curl_runs_to_its_end() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped(
            "the_block_that_calls_the_api_with_curl_runs_to_its_end",
            "there is no curl",
        );
    }
    let block = block("docs/operations.md", "\n## The internal API") + "\nkill $! && wait $!\n";
    let finished = run_block("sh", &block, &[]);
    finished.expect(0, "");
    let out = finished.stdout.concat();
    assert!(out.contains(r#""reply":"1 message by 1 author, 0 joined, 0 left""#), "{finished:?}");
}

#[test]
fn the_block_of_the_worker_in_python_runs_to_its_end() {
    let name = "the_block_of_the_worker_in_python_runs_to_its_end";
    let Some(python) = std::env::var("MESOPHYLL_TEST_PYTHON").ok() else {
        return skipped(
            name,
            "set MESOPHYLL_TEST_PYTHON to a Python that has the packages websockets and msgpack",
        );
    };
    let block = block("README.md", "## Your own worker, in Python");
    let script = format!("{python} {ROOT}/examples/worker.py --master $MESOPHYLL_LISTEN");
    // No package is fetched by a test.
    let packages = [
        ("python3 -m venv target/venv ", "true "),
        ("target/venv/bin/pip install websockets msgpack", "true"),
    ];
    let here = [("target/venv/bin/python examples/worker.py", script.as_str())];
    let finished = run_block("bash", &block, &[&packages[..], &here].concat());
    finished.expect(0, "");
    let answer = r#"{"event":"HELLO","author":"7","seen":1}"#;
    assert!(finished.stdout.iter().any(|line| line == answer), "{finished:?}");
}
