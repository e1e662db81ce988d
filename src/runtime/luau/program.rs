//! Which code a tenant runs: its template, loaded when an event needs it and again when it may have
//! changed, and scripts, which are compiled one after the other.
//!
//! Part of a tenant, on its executor; reading and compiling happens on the I/O threads.

use std::sync::Arc;
use std::time::Duration;

use super::executor::Core;
use super::io::{IoOutput, IoPurpose, IoWork};
use super::outside::ChargeKind;
use super::templates::{Compiled, MAIN, MAIN_FILE, TemplateCache, Templates};
use super::tenant::Tenant;
use crate::base::error::{DbError, DispatchError};
use crate::wire::data::{DbAnswer, DbOp, KeyValueOp, KvRecord, Scopes};
use crate::wire::pack::walk::{Token, Walk};

/// The template that a tenant's events run.
pub(super) struct TenantProgram {
    state: ProgramState,
    last_load: u64,
    /// The templates that the tenant runs with, and the edition of the template cache when it last
    /// looked for others.
    templates: Arc<Templates>,
    edition: u64,
}

enum ProgramState {
    Unknown,
    /// It is being loaded; the number tells the load from an earlier one.
    Loading(u64),
    Ready(Compiled),
}

impl TenantProgram {
    pub(super) fn new(cache: &TemplateCache) -> Self {
        // First the edition: templates that come right after it are looked at once too often, and
        // never too seldom.
        let edition = cache.edition();
        let templates = cache.current();
        Self { state: ProgramState::Unknown, last_load: 0, templates, edition }
    }

    /// The template, if it is loaded.
    pub(super) fn ready(&self) -> Option<&Compiled> {
        match &self.state {
            ProgramState::Ready(program) => Some(program),
            ProgramState::Unknown | ProgramState::Loading(_) => None,
        }
    }

    /// Has the template loaded anew before an event runs it.
    pub(super) fn forget(&mut self) {
        self.state = ProgramState::Unknown;
    }

    pub(super) fn templates(&self) -> &Arc<Templates> {
        &self.templates
    }
}

impl Tenant {
    /// Its own template may have changed: it is read again before another event starts.
    pub(super) fn template_changed(&mut self, core: &mut Core) {
        self.program.forget();
        self.want_program(core);
    }

    /// The templates, or what is known of the tenant's own, may be out of date.
    pub(super) fn check_for_changes(&mut self, core: &mut Core) {
        // In this order, as in `TenantProgram::new`.
        let edition = core.shared.template_cache.edition();
        if std::mem::replace(&mut self.program.edition, edition) == edition {
            return;
        }
        let templates = core.shared.template_cache.current();
        if !Arc::ptr_eq(&templates, &self.program.templates) {
            self.program.templates = templates;
            self.retire();
        }
        self.template_changed(core);
    }

    /// Has the template loaded, if an event waits for it.
    pub(super) fn want_program(&mut self, core: &mut Core) {
        let program = &mut self.program;
        if !self.queue.wants_template() || !matches!(program.state, ProgramState::Unknown) {
            return;
        }
        program.last_load += 1;
        let load = program.last_load;
        program.state = ProgramState::Loading(load);
        let (tenant, limit) = (self.id, core.limits().source_bytes);
        let work: IoWork = Box::new(move |db| {
            let op = KeyValueOp::Get { scopes: Scopes::new(["template"]), key: MAIN.to_owned() };
            let record = db.ask(DbOp::Kv(tenant, op)).and_then(DbAnswer::into_record);
            IoOutput::Program(
                record.map(|record| record.map(|record| own_template(&record, limit))),
            )
        });
        let charge = self.outside.charge(ChargeKind::Call, 0);
        if self.start_io(core, IoPurpose::Program(load), work, charge).is_err() {
            self.program_refused(core);
        }
    }

    /// The queue of the I/O threads was full when the template was to be loaded.
    pub(super) fn program_refused(&mut self, core: &mut Core) {
        self.program_failed(core, &DbError::Busy("the worker has too much to do".to_owned()));
    }

    pub(super) fn program_loaded(&mut self, core: &mut Core, load: u64, output: IoOutput) {
        if !matches!(self.program.state, ProgramState::Loading(current) if current == load) {
            return;
        }
        let program = match output {
            IoOutput::Program(Ok(Some(own))) => own,
            IoOutput::Program(Ok(None)) => self.program.templates.main(),
            IoOutput::Program(Err(error)) => return self.program_failed(core, &error),
            _ => {
                return self
                    .program_failed(core, &DbError::Internal("it could not be read".to_owned()));
            }
        };
        if self.vm.current().is_some_and(|vm| vm.host.runs_another(&program)) {
            self.retire();
        }
        self.program.state = ProgramState::Ready(program);
    }

    fn program_failed(&mut self, core: &mut Core, error: &DbError) {
        self.program.forget();
        let refusal =
            DispatchError::Busy(format!("the tenant's template could not be loaded: {error}"));
        for waiting in self.queue.take_templates() {
            core.answer(waiting.request_id, waiting.answer, Err(refusal.clone()));
        }
    }

    /// Has the next script compiled, if it is its turn.
    pub(super) fn compile_next(&mut self, core: &mut Core) {
        while let Some((number, name, source)) = self.queue.next_source() {
            let limit = core.limits().source_bytes;
            let work: IoWork = Box::new(move |_| {
                IoOutput::Script(Compiled::from_source(&name, source.as_bytes(), limit))
            });
            let charge = self.outside.charge(ChargeKind::Call, 0);
            if self.start_io(core, IoPurpose::Script(number), work, charge).is_err() {
                self.refuse_script(core, number);
            }
        }
    }

    pub(super) fn script_compiled(
        &mut self,
        core: &mut Core,
        number: u64,
        output: IoOutput,
        took: Duration,
    ) {
        match output {
            IoOutput::Script(compiled) => self.queue.compiled(number, compiled, took),
            _ => self.refuse_script(core, number),
        }
        self.compile_next(core);
    }

    pub(super) fn refuse_script(&mut self, core: &mut Core, number: u64) {
        if let Some(waiting) = self.queue.take_script(number) {
            let busy = "the worker has too much to do to compile the script".to_owned();
            core.answer(waiting.request_id, waiting.answer, Err(DispatchError::Busy(busy)));
        }
    }
}

fn own_template(record: &KvRecord, limit: usize) -> Compiled {
    match Walk::new(&record.value).next() {
        Ok(Some(Token::Text(source))) => Compiled::from_source(MAIN_FILE, source.as_bytes(), limit),
        _ => Compiled::missing(MAIN_FILE, "the tenant's template is not text"),
    }
}
