//! What became of tests, as plain values.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What became of a test.
#[derive(Debug, Clone)]
pub(super) struct TestOutcome {
    /// Its file, relative to the directory.
    pub(super) file: String,
    /// Its line there.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) took: Duration,
    /// What was printed while it ran.
    pub(super) output: Vec<String>,
    /// Why it failed, if it did.
    pub(super) failure: Option<TestFailure>,
}

/// Why a test failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TestFailure {
    /// The line of the test's file.
    pub(super) line: usize,
    pub(super) message: String,
    /// Of an expectation that was not met: what was expected, as JSON, and what there was.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) mismatch: Option<Mismatch>,
}

impl TestFailure {
    /// Whether the values of a mismatch stand below each other.
    pub(super) fn is_long_mismatch(&self) -> bool {
        self.mismatch.as_ref().is_some_and(Mismatch::is_long)
    }
}

/// An expectation that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mismatch {
    expected: String,
    actual: String,
    #[serde(skip)]
    what: String,
}

/// Values that are longer together stand below each other.
const LINE_CHARS: usize = 60;

impl Mismatch {
    /// Of two values as JSON; `what` begins the sentence: `expected`.
    pub(super) fn new(expected: &str, actual: &str, what: &str) -> Self {
        let (expected, actual) = (ordered(expected), ordered(actual));
        Self { expected, actual, what: what.to_owned() }
    }

    fn is_long(&self) -> bool {
        self.expected.chars().count() + self.actual.chars().count() > LINE_CHARS
    }
}

/// JSON with the keys of objects in order, so that two texts can be compared by eye.
pub(super) fn ordered(json: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(json);
    value.map_or_else(|_| json.to_owned(), |value| value.to_string())
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, actual, what } = self;
        if self.is_long() {
            let width = what.chars().count();
            write!(f, "{what} {expected}\n{:>width$} {actual}", "got")
        } else {
            write!(f, "{what} {expected}, got {actual}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_shows_objects_in_the_same_order() {
        let short = Mismatch::new(r#"{"b":1,"a":[null]}"#, "3", "expected");
        assert_eq!(short.to_string(), r#"expected {"a":[null],"b":1}, got 3"#);
        let long = format!("\"{}\"", "x".repeat(60));
        let long = Mismatch::new(&long, "3", "expected").to_string();
        assert!(long.ends_with("x\"\n     got 3"), "{long}");
    }
}
