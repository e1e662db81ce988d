//! The run of `mesophyll test` from the command line's side: what is printed and written, and when
//! it is run again.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use serde::Serialize;

use super::junit::junit;
use super::outcome::{TestFailure, TestOutcome};
use super::run::run_suite;
use super::suite::{Suite, look};
use crate::base::escape;
use crate::base::sync::Lock;
use crate::cli::CliError;
use crate::cli::console::signals::end_quietly;
use crate::cli::console::{logging, output};
use crate::cli::parse::args::Args;

/// How often a watch looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Runs the tests, once or whenever something changes.
///
/// # Errors
/// A test failed, or there is none.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let [path] = args.words()[..] else {
        return Err(CliError::usage("test takes one DIR"));
    };
    let printed = logging::init_to_keep_scripts();
    if !args.is_on("watch") {
        return run_once(args, path, &printed, &mut true);
    }
    end_quietly().map_err(|error| CliError::config(error.to_string()))?;
    let mut has_reader = true;
    loop {
        // Before the run, so that a change while it runs is a change.
        let seen = look(Path::new(path)).ok();
        if let Err(error) = run_once(args, path, &printed, &mut has_reader)
            && !error.message.is_empty()
        {
            output::tell(&error.to_string());
        }
        while look(Path::new(path)).ok() == seen {
            let _ = after(PAUSE).recv();
        }
        if !args.is_on("json") {
            has_reader = has_reader && output::print_on("")?;
        }
        if !has_reader {
            return Ok(());
        }
    }
}

/// Runs the tests once. `has_reader` says whether stdout is open still.
fn run_once(
    args: &Args,
    path: &str,
    printed: &Lock<Vec<String>>,
    has_reader: &mut bool,
) -> Result<(), CliError> {
    let unreadable = |error: io::Error| CliError::config(format!("{path}: {error}"));
    let suite = Suite::read(Path::new(path)).map_err(unreadable)?;
    if suite.subjects.is_empty() {
        return Err(CliError::usage(format!(
            "{path}: nothing to test: no *.test.luau, and no line -- NAME DATA answers RESULT"
        )));
    }
    let began = Instant::now();
    let mut report = TestReport { is_json: args.is_on("json"), has_reader, outcomes: Vec::new() };
    run_suite(&suite, printed, |outcome| report.add(outcome))?;
    let failed = report.finish(began.elapsed())?;
    if let Some((file, _)) = args.get("junit") {
        fs::write(file, junit(&report.outcomes))
            .map_err(|error| CliError::config(format!("--junit {file}: {error}")))?;
    }
    // Which failed has been printed.
    if failed > 0 { Err(CliError::failed("")) } else { Ok(()) }
}

struct TestReport<'r> {
    is_json: bool,
    /// Nothing has closed stdout.
    has_reader: &'r mut bool,
    outcomes: Vec<TestOutcome>,
}

/// The outcomes as JSON.
#[derive(Serialize)]
struct AllOutcomes<'o> {
    passed: usize,
    failed: usize,
    ms: f64,
    tests: Vec<OneOutcome<'o>>,
}

#[derive(Serialize)]
struct OneOutcome<'o> {
    file: &'o str,
    line: usize,
    name: &'o str,
    ok: bool,
    ms: f64,
    output: &'o [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'o TestFailure>,
}

impl TestReport<'_> {
    fn add(&mut self, outcome: TestOutcome) -> Result<(), CliError> {
        if !self.is_json {
            let is_first = self.outcomes.last().is_none_or(|last| last.file != outcome.file);
            let head = if is_first { format!("{}\n", outcome.file) } else { String::new() };
            self.print(&format!("{head}{}", shown(&outcome)))?;
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    /// Prints the sum, or the JSON: how many failed.
    fn finish(&mut self, took: Duration) -> Result<usize, CliError> {
        let failed = self.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        let passed = self.outcomes.len() - failed;
        if !self.is_json {
            let tests = if self.outcomes.len() == 1 { "test" } else { "tests" };
            let text = match failed {
                0 => format!("{passed} {tests} passed"),
                _ => format!("{failed} of {} {tests} failed", self.outcomes.len()),
            };
            self.print(&format!("\n{text} ({} ms)", took.as_millis()))?;
            return Ok(failed);
        }
        let tests = self.outcomes.iter().map(|outcome| OneOutcome {
            file: &outcome.file,
            line: outcome.line,
            name: &outcome.name,
            ok: outcome.failure.is_none(),
            ms: millis(outcome.took),
            output: &outcome.output,
            error: outcome.failure.as_ref(),
        });
        let all = AllOutcomes { passed, failed, ms: millis(took), tests: tests.collect() };
        let json = serde_json::to_string(&all).map_err(|error| CliError::bug(error.to_string()))?;
        self.print(&escape::json(&json))?;
        Ok(failed)
    }

    fn print(&mut self, text: &str) -> Result<(), CliError> {
        *self.has_reader = *self.has_reader && output::print_on(text)?;
        Ok(())
    }
}

/// To the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// An outcome as a person reads it: what it is, why it failed, what it printed.
fn shown(outcome: &TestOutcome) -> String {
    let TestOutcome { file, name, output, failure, .. } = outcome;
    let name = escape::one_line(name);
    let mut text = format!("  {} {name}", if failure.is_some() { "FAIL" } else { "ok  " });
    if let Some(TestFailure { line, message, .. }) = failure {
        // The values of a mismatch that is long stand below each other.
        let message = message.replace('\n', "\n       ");
        let is_long = failure.as_ref().is_some_and(|failure| failure.is_long_mismatch());
        let gap = if is_long { "\n       " } else { " " };
        text += &format!("\n       {file}:{line}:{gap}{message}");
    }
    for line in output {
        text += &format!("\n       | {line}");
    }
    text
}
