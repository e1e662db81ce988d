//! How a test says that it could not run: loudly, and so that `.ci/run` fails.
//!
//! A test that needs what a machine may lack (a PostgreSQL, a Python with packages) calls
//! [`skipped`] and returns. The test harness swallows what a passing test prints with the print
//! macros, so the line goes straight to stderr; and for CI it is appended to the file that
//! `MESOPHYLL_TEST_SKIPPED_FILE` names, as a line in a log is easily overlooked.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that `test` was skipped, and why: what to set or install so that it runs.
pub(crate) fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}\n");
    // One write each, so that lines of tests that run at once do not mix. The harness may be in the
    // middle of a line.
    let _ = std::io::stderr().write_all(format!("\n{line}").as_bytes());
    if let Some(path) = std::env::var_os("MESOPHYLL_TEST_SKIPPED_FILE") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file of skipped tests can be written");
    }
}
