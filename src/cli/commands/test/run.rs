//! Runs what there is to test: each test in a world of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde::Deserialize;

use super::door::{Door, Session};
use super::outcome::{TestFailure, TestOutcome, ordered};
use super::suite::{ClaimsName, Subject, Suite};
use super::world::{PRINTED_MAX, World};
use crate::base::sync::Lock;
use crate::cli::CliError;
use crate::cli::parse::words::without_bom;
use crate::dispatch::worker_like::next_request_id;
use crate::dispatch::{Answer, DispatchResult, Job};
use crate::pool::Subscriptions;
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::{Claim, Claimed, LuauConfig, LuauLimits, LuauRuntime, TemplateSource};
use crate::wire;
use crate::wire::data::{CreateEvent, EncodedJson, EventData, TenantId};

/// What test files find besides their modules.
const HARNESS: (&str, &str) = ("mesophyll-test.luau", include_str!("harness.luau"));

/// What stands before the first line of a test file.
const PROLOGUE: &str = "local test, task, timestamp = require('mesophyll-test').globals() ";

/// How long a test may take. What it waits for has limits of its own.
const TEST_MAX: Duration = Duration::from_secs(120);

/// The tests of one subject, run one after the other.
struct SubjectRun<'s> {
    root: &'s Path,
    subject: &'s Subject,
    printed: &'s Lock<Vec<String>>,
    door: Arc<Door>,
    tester: LuauRuntime,
}

/// A test as its file lists it.
#[derive(Deserialize)]
struct Listed {
    name: String,
    line: usize,
}

/// Runs everything; `told` gets each outcome.
///
/// # Blocks
/// Until all is done: each test ends by the limits of the runtime.
///
/// # Errors
/// A world could not be made, or what `told` returned.
pub(super) fn run_suite(
    suite: &Suite,
    printed: &Lock<Vec<String>>,
    mut told: impl FnMut(TestOutcome) -> Result<(), CliError>,
) -> Result<(), CliError> {
    for subject in &suite.subjects {
        let run = SubjectRun::new(&suite.root, subject, printed)?;
        for (number, (file, text)) in (0..).zip(&subject.tests) {
            // One that no world has.
            let tester = TenantId::User(u64::MAX - number);
            run.run_file(tester, file, text, &mut told)?;
        }
        for (ClaimsName { file, name }, claims) in &subject.claims {
            let line = claims.first().map_or(0, |claim| claim.line);
            let outcome = run.measured(file, name, line, None, || {
                Ok(check_claims(run.world()?, claims, subject.script.as_deref()).err())
            })?;
            told(outcome)?;
        }
    }
    Ok(())
}

impl<'s> SubjectRun<'s> {
    /// # Errors
    /// The operating system refused a thread.
    fn new(
        root: &'s Path,
        subject: &'s Subject,
        printed: &'s Lock<Vec<String>>,
    ) -> Result<Self, CliError> {
        let door = Arc::new(Door::default());
        let harness = (HARNESS.0.to_owned(), HARNESS.1.to_owned());
        let files = subject.templates.iter().cloned().chain([harness]).collect();
        let config = LuauConfig {
            templates: TemplateSource::Files(files),
            limits: LuauLimits { wall: TEST_MAX, log_burst: PRINTED_MAX, ..LuauLimits::default() },
            thread_prefix: "test".to_owned(),
            ..LuauConfig::default()
        };
        let states = Arc::new(Subscriptions::new([].into()));
        let tester = LuauRuntime::start(config, door.clone(), states)
            .map_err(|error| CliError::config(error.to_string()))?;
        Ok(Self { root, subject, printed, door, tester })
    }

    fn world(&self) -> Result<World, CliError> {
        World::new(TemplateSource::Files(self.subject.templates.clone()))
            .map_err(|error| CliError::config(error.to_string()))
    }

    fn run_file(
        &self,
        tester: TenantId,
        file: &str,
        text: &str,
        told: &mut impl FnMut(TestOutcome) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        // What the file prints then is shown with its first test.
        let listed = self.list(tester, file, text).and_then(|listed| {
            if listed.is_empty() { Err("there is no test in it".to_owned()) } else { Ok(listed) }
        });
        let listed = match listed {
            Ok(listed) => listed,
            Err(why) => {
                let failed = || Ok(Some(failure(file, 1, &why)));
                return told(self.measured(file, "the file itself", 1, Some(tester), failed)?);
            }
        };
        for (number, Listed { name, line }) in (1..).zip(listed) {
            let outcome = self.measured(file, &name, line, Some(tester), || {
                self.run_test(tester, (file, text), number, line)
            })?;
            told(outcome)?;
        }
        Ok(())
    }

    /// Runs a test: why it failed, if it did.
    fn run_test(
        &self,
        tester: TenantId,
        (file, text): (&str, &str),
        number: usize,
        line: usize,
    ) -> Result<Option<TestFailure>, CliError> {
        let folder = self.root.join(file);
        let folder = folder.parent().unwrap_or(self.root).to_owned();
        self.door.begin(Session::new(self.world()?, self.root, folder));
        let code = format!("local ctx = ... return require('mesophyll-test').run(ctx, {number})");
        let mut ran = self.script(tester, HARNESS.0, &code);
        if ran.as_deref() == Ok("false") {
            // The VM of the tests before is gone: one used up its memory.
            ran = self.list(tester, file, text).and_then(|_| self.script(tester, HARNESS.0, &code));
        }
        let mismatch = self.door.end();
        Ok(ran.err().map(|problem| {
            let mut failure = failure(file, line, &problem);
            failure.mismatch =
                mismatch.filter(|mismatch| failure.message.starts_with(&mismatch.to_string()));
            failure
        }))
    }

    /// Runs a file of tests, which lists them.
    fn list(&self, tester: TenantId, file: &str, text: &str) -> Result<Vec<Listed>, String> {
        let text = without_bom(text);
        self.script(tester, file, &format!("{PROLOGUE}{text}"))?;
        let list = "return require('mesophyll-test').list()";
        let listed = self.script(tester, HARNESS.0, list)?;
        serde_json::from_str(&listed).map_err(|error| error.to_string())
    }

    /// Runs a script as the tester: its result as JSON, or the error's text.
    fn script(&self, tester: TenantId, name: &str, code: &str) -> Result<String, String> {
        let (name, code) = (name.to_owned(), code.to_owned());
        let event = CreateEvent {
            name: "Test".to_owned(),
            author: None,
            data: EventData::Json(EncodedJson::null()),
        };
        let (answer_tx, answer_rx) = bounded(1);
        let job = Job::RunScript { name, code, event };
        self.tester.submit(tester, next_request_id(), job, Answer::channel(answer_tx));
        // The runtime ends what takes too long, and answers.
        let answer = answer_rx.recv_timeout(TEST_MAX * 2);
        as_json(answer.map_err(|_| "the test does not end".to_owned())?)
    }

    /// Does something as a test.
    fn measured(
        &self,
        file: &str,
        name: &str,
        line: usize,
        tester: Option<TenantId>,
        run: impl FnOnce() -> Result<Option<TestFailure>, CliError>,
    ) -> Result<TestOutcome, CliError> {
        let began = Instant::now();
        let failure = run()?;
        let own = tester.map(|tester| format!("{tester}: ")).unwrap_or_default();
        let printed = std::mem::take(&mut *self.printed.lock());
        let output = printed.iter().map(|line| line.strip_prefix(&own).unwrap_or(line).to_owned());
        Ok(TestOutcome {
            file: file.to_owned(),
            line,
            name: name.to_owned(),
            took: began.elapsed(),
            output: output.collect(),
            failure,
        })
    }
}

fn as_json(result: DispatchResult) -> Result<String, String> {
    let value = result.map_err(|error| error.to_string())?;
    wire::json::value_to_json(&value).map_err(|error| error.to_string())
}

/// A failure from an error's text: its line is the first one of the test's file that is named.
fn failure(file: &str, line: usize, problem: &str) -> TestFailure {
    let (file, harness) = (format!("{file}:"), format!("  in {}:", HARNESS.0));
    let line_of = |text: &str| {
        let (_, rest) = text.split_once(&file)?;
        let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    };
    let line = line_of(problem).unwrap_or(line);
    let own = format!("{file}{line}: ");
    let own_frame = format!("  in {file}{line}");
    // Frames that say nothing new.
    let lines = problem.strip_prefix(&own).unwrap_or(problem).lines();
    let lines = lines.filter(|line| !line.starts_with(&harness) && !line.starts_with(&own_frame));
    let message = lines.collect::<Vec<_>>().join("\n");
    TestFailure { line, message, mismatch: None }
}

/// Carries claims out, one after the other in the same world.
fn check_claims(
    mut world: World,
    claims: &[Claim],
    script: Option<&str>,
) -> Result<(), TestFailure> {
    claims.iter().try_for_each(|claim| {
        check_claim(&mut world, claim, script).map_err(|message| TestFailure {
            line: claim.line,
            message,
            mismatch: None,
        })
    })
}

fn check_claim(world: &mut World, claim: &Claim, script: Option<&str>) -> Result<(), String> {
    let data = wire::json::event_data_from_json(claim.data.as_bytes())
        .map_err(|error| format!("{}: {error}", claim.data))?;
    let event = CreateEvent { name: claim.name.clone(), author: None, data: EventData::Json(data) };
    let job = match script {
        Some(code) => Job::RunScript { name: "script".to_owned(), code: code.to_owned(), event },
        None => Job::Dispatch(event),
    };
    let number = world.start(TenantId::Guild(1), job);
    match (as_json(world.answer(number)?), &claim.claimed) {
        (Ok(answer), Claimed::Answer(claimed)) if ordered(&answer) == ordered(claimed) => Ok(()),
        (Err(error), Claimed::Failure(begin)) if error.starts_with(begin.as_str()) => Ok(()),
        (Ok(answer), Claimed::Answer(claimed)) => {
            Err(format!("expected {}, got {}", ordered(claimed), ordered(&answer)))
        }
        (Err(error), Claimed::Answer(_)) => Err(error),
        (Ok(answer), Claimed::Failure(begin)) => {
            Err(format!("expected the error {begin:?}, got {answer}"))
        }
        (Err(error), Claimed::Failure(begin)) => {
            Err(format!("expected the error {begin:?}, got {error}"))
        }
    }
}
