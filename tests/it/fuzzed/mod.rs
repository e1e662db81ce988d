//! What must hold for any input: one check for each decoder and each model, with the inputs that
//! fuzzing once found interesting.
//!
//! `make fuzz` drives the same checks with inputs of its own (fuzz/); `make test` runs the ones
//! kept in tests/data/fuzz/, of which `make fuzz` starts too. So what fuzzing finds becomes a test
//! by putting its file there.

mod frames;
mod head;
mod messages;
mod pending;
mod supervisor;
mod timers;
mod values;

use std::fs;
use std::path::Path;

type Check = fn(&[u8]);

/// The checks by the name of their fuzz target.
const CHECKS: &[(&str, Check)] = &[
    ("client_message", messages::client_message),
    ("db_body", messages::db_body),
    ("http_head", head::http_head),
    ("json_text", values::json_text),
    ("pattern", values::pattern),
    ("pending", pending::pending),
    ("server_message", messages::server_message),
    ("stream_frames", frames::stream_frames),
    ("supervisor", supervisor::supervisor),
    ("timers", timers::timers),
    ("value", values::value),
];

#[test]
fn every_input_that_fuzzing_found_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
    for (name, check) in CHECKS {
        let inputs = fs::read_dir(root.join(name))
            .unwrap_or_else(|error| panic!("tests/data/fuzz/{name}: {error}"));
        let mut count = 0;
        for input in inputs {
            let path = input.expect("an entry").path();
            let bytes = fs::read(&path).expect("a file");
            let held = std::panic::catch_unwind(|| check(&bytes));
            assert!(held.is_ok(), "{}: what it broke stands above", path.display());
            count += 1;
        }
        assert!(count > 0, "tests/data/fuzz/{name} is empty");
    }
}

#[test]
fn every_check_has_a_fuzz_target_and_every_target_a_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let files =
        fs::read_dir(root).expect("the targets").map(|entry| entry.expect("an entry").file_name());
    let mut targets: Vec<String> =
        files.map(|name| name.to_string_lossy().trim_end_matches(".rs").to_owned()).collect();
    targets.sort_unstable();
    assert_eq!(targets, CHECKS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}
