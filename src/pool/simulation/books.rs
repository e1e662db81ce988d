//! What the callers asked for, how often it ran and what became of it; and what must hold of that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::error::DispatchError;
use crate::base::sync::Lock;
use crate::dispatch::{Answer, DispatchResult};
use crate::wire::data::{EncodedValue, TenantId};

use super::dice::millis;

/// An answer may be so late by the virtual clock, in which nothing takes time but what is drawn.
const SLACK: Duration = Duration::from_millis(50);

/// What breaks a rule, in words.
pub(super) type Broken = Result<(), String>;

pub(super) fn ensure(holds: bool, told: impl FnOnce() -> String) -> Broken {
    if holds { Ok(()) } else { Err(told()) }
}

/// Answers of one run of a master, on their way to its callers.
pub(super) type Answers = Arc<Lock<Vec<(usize, DispatchResult)>>>;

/// One attempt of a caller at one master. Its number is its request id.
pub(super) struct Asked {
    pub(super) tenant: TenantId,
    /// The master that was asked, and its run.
    pub(super) master: (usize, u64),
    pub(super) deadline: Duration,
    /// When its caller gives it up: at its deadline, or a while later.
    pub(super) gives_up: Duration,
    pub(super) is_drop: bool,
    runs: u32,
    outcome: Option<DispatchResult>,
}

/// All that was asked for in a run.
#[derive(Default)]
pub(super) struct Books {
    pub(super) asked: Vec<Asked>,
    /// Those without an outcome.
    pub(super) open: BTreeSet<usize>,
    pub(super) ran: u64,
    pub(super) answered: u64,
    /// Kinds of outcomes that were seen.
    pub(super) kinds: BTreeSet<&'static str>,
}

/// What the worker answers to a request: nothing else is the answer to it.
pub(super) fn value_of(request: usize) -> EncodedValue {
    let mut bytes = vec![0xcf];
    bytes.extend(u64::try_from(request).expect("64 bits").to_be_bytes());
    EncodedValue::from_checked(bytes)
}

impl Books {
    /// A new request, and where its answer goes.
    pub(super) fn ask(
        &mut self,
        tenant: TenantId,
        master: (usize, u64),
        deadline: Duration,
        gives_up: Duration,
        is_drop: bool,
        answers: &Answers,
    ) -> (usize, Answer) {
        let request = self.asked.len();
        let (runs, outcome) = (0, None);
        self.asked.push(Asked { tenant, master, deadline, gives_up, is_drop, runs, outcome });
        self.open.insert(request);
        let answers = answers.clone();
        (request, Answer::callback(move |result| answers.lock().push((request, result))))
    }

    /// A worker begins to run it.
    pub(super) fn begin(&mut self, request: usize) -> Broken {
        let asked = &mut self.asked[request];
        asked.runs += 1;
        self.ran += 1;
        let (runs, outcome) = (asked.runs, &asked.outcome);
        ensure(runs == 1 || asked.is_drop, || {
            format!("at most once: request {request} runs {runs} times")
        })?;
        let is_sent = |error: &DispatchError| error.sent();
        ensure(
            !outcome.as_ref().is_some_and(|it| it.as_ref().is_err_and(|it| !is_sent(it))),
            || format!("not sent: request {request} runs after {outcome:?}"),
        )
    }

    /// Its caller learns what became of it.
    pub(super) fn end(&mut self, request: usize, result: DispatchResult) -> Broken {
        self.kinds.insert(result.as_ref().map_or_else(DispatchError::kind, |_| "ok"));
        let asked = &mut self.asked[request];
        let before = asked.outcome.replace(result.clone());
        self.open.remove(&request);
        ensure(before.is_none(), || {
            format!("one outcome: request {request} gets {result:?} after {before:?}")
        })?;
        match result {
            Ok(value) => {
                self.answered += 1;
                ensure(asked.is_drop || value == value_of(request), || {
                    format!("its own answer: request {request} gets another one's")
                })?;
                let runs = asked.runs;
                ensure(runs == 1 || asked.is_drop, || {
                    format!("ok is one run: request {request} ran {runs} times")
                })
            }
            Err(error) if error.sent() => Ok(()),
            Err(error) => {
                let runs = asked.runs;
                ensure(runs == 0, || format!("not sent: request {request} ran, and gets {error:?}"))
            }
        }
    }

    /// The master died: its callers learn nothing more.
    pub(super) fn master_died(&mut self, master: (usize, u64)) {
        let asked = &mut self.asked;
        self.open.retain(|request| {
            let is_its = asked[*request].master == master;
            if is_its {
                let text = "its master died".to_owned();
                asked[*request].outcome = Some(Err(DispatchError::OutcomeUnknown(text)));
            }
            !is_its
        });
    }

    /// None is open beyond its time.
    pub(super) fn check_open(&self, now: Duration, slept_until: Duration) -> Broken {
        for request in &self.open {
            let until = self.asked[*request].gives_up.max(slept_until) + SLACK + millis(1);
            ensure(now <= until, || {
                format!("one outcome: request {request} has none at {now:?}, due by {until:?}")
            })?;
        }
        Ok(())
    }
}
