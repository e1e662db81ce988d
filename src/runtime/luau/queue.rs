//! The jobs of a tenant that have not started, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::templates::Compiled;
use crate::dispatch::{Answer, RequestId};
use crate::wire::data::CreateEvent;

/// The jobs.
#[derive(Default)]
pub(super) struct JobQueue {
    /// Limit: `TENANT_QUEUE_MAX`; one more is busy at once.
    waiting: VecDeque<Waiting>,
    last_script: u64,
}

/// A job that has not started.
pub(super) struct Waiting {
    pub(super) request_id: RequestId,
    pub(super) answer: Answer,
    pub(super) event: CreateEvent,
    pub(super) code: Code,
    pub(super) life: Arc<()>,
}

/// What a job runs.
pub(super) enum Code {
    /// The tenant's template.
    Template,
    /// A script that waits to be compiled: its name and source.
    Source(String, String),
    /// A script that is being compiled, by its number.
    Compiling(u64),
    /// A script, and how long it took to compile.
    Script(Compiled, Duration),
}

impl JobQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(
        &mut self,
        request_id: RequestId,
        answer: Answer,
        event: CreateEvent,
        code: Code,
    ) {
        let life = Arc::default();
        self.waiting.push_back(Waiting { request_id, answer, event, code, life });
    }

    /// The job that starts next.
    pub(super) fn first(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Takes out the job that was submitted as this.
    pub(super) fn take(&mut self, request_id: RequestId) -> Option<Waiting> {
        let index = self.waiting.iter().position(|waiting| waiting.request_id == request_id)?;
        self.waiting.remove(index)
    }

    /// Whether a job waits for the tenant's template.
    pub(super) fn wants_template(&self) -> bool {
        self.waiting.iter().any(|waiting| matches!(waiting.code, Code::Template))
    }

    /// Takes out the jobs that wait for the tenant's template.
    pub(super) fn take_templates(&mut self) -> VecDeque<Waiting> {
        let is_template = |waiting: &Waiting| matches!(waiting.code, Code::Template);
        let (templates, others) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_template);
        self.waiting = others;
        templates
    }

    /// The script that is compiled next, with its number, name and source: one at a time, so that a
    /// tenant with many does not keep the others' from theirs, and when the one before it has
    /// started, as bytecode is larger than its source.
    pub(super) fn next_source(&mut self) -> Option<(u64, String, String)> {
        let is_before =
            |waiting: &Waiting| matches!(waiting.code, Code::Compiling(_) | Code::Script(..));
        if self.waiting.iter().any(is_before) {
            return None;
        }
        let code = self.waiting.iter_mut().find_map(|waiting| match &mut waiting.code {
            code @ Code::Source(..) => Some(code),
            _ => None,
        })?;
        self.last_script += 1;
        match std::mem::replace(code, Code::Compiling(self.last_script)) {
            Code::Source(name, source) => Some((self.last_script, name, source)),
            _ => None,
        }
    }

    /// The script of this number is compiled, which took so long.
    pub(super) fn compiled(&mut self, number: u64, script: Compiled, took: Duration) {
        if let Some(index) = self.compiling(number) {
            self.waiting[index].code = Code::Script(script, took);
        }
    }

    /// Takes out the job whose script is being compiled under this number.
    pub(super) fn take_script(&mut self, number: u64) -> Option<Waiting> {
        self.waiting.remove(self.compiling(number)?)
    }

    /// The life of the job whose script is being compiled under this number.
    pub(super) fn life_of_script(&self, number: u64) -> Option<&Arc<()>> {
        Some(&self.waiting[self.compiling(number)?].life)
    }

    fn compiling(&self, number: u64) -> Option<usize> {
        let is_it = |waiting: &Waiting| matches!(waiting.code, Code::Compiling(of) if of == number);
        self.waiting.iter().position(is_it)
    }
}
