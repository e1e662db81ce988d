//! Which code a tenant runs: its template, loaded when an event needs it and again when it may have
//! changed, and scripts, which are compiled one after the other.
//!
//! Part of a tenant, on its executor; reading and compiling happens on the I/O threads.

use std::sync::Arc;
use std::time::Duration;

use super::executor::Core;
use super::io::{IoOutput, IoPurpose, IoWork};
use super::outside::ChargeKind;
use super::templates::{Compiled, MAIN, MAIN_FILE};
use super::tenant::{Code, Tenant, TenantProgram, Waiting};
use crate::base::error::{DbError, DispatchError};
use crate::wire::data::{DbAnswer, DbOp, KeyValueOp, KvRecord, Scopes};
use crate::wire::pack::walk::{Token, Walk};

impl Tenant {
    /// Its own template may have changed: it is read again before another event starts.
    pub(super) fn template_changed(&mut self, core: &mut Core) {
        self.program = TenantProgram::Unknown;
        self.want_program(core);
    }

    /// The templates, or what is known of the tenant's own, may be out of date.
    pub(super) fn check_for_changes(&mut self, core: &mut Core) {
        // First the edition: templates that come right after it are looked at once too often, and
        // never too seldom.
        let edition = core.template_cache.edition();
        if std::mem::replace(&mut self.edition, edition) == edition {
            return;
        }
        let templates = core.template_cache.current();
        if !Arc::ptr_eq(&templates, &self.templates) {
            self.templates = templates;
            self.retire();
        }
        self.template_changed(core);
    }

    /// Has the template loaded, if an event waits for it.
    pub(super) fn want_program(&mut self, core: &mut Core) {
        let is_wanted = self.waiting.iter().any(|waiting| matches!(waiting.code, Code::Template));
        if !is_wanted || !matches!(self.program, TenantProgram::Unknown) {
            return;
        }
        self.last_load += 1;
        self.program = TenantProgram::Loading(self.last_load);
        let (tenant, limit) = (self.id, core.limits().source_bytes);
        let work: IoWork = Box::new(move |db| {
            let op = KeyValueOp::Get { scopes: Scopes::new(["template"]), key: MAIN.to_owned() };
            let record = db.ask(DbOp::Kv(tenant, op)).and_then(DbAnswer::into_record);
            IoOutput::Program(
                record.map(|record| record.map(|record| own_template(&record, limit))),
            )
        });
        let charge = self.outside.charge(ChargeKind::Call, 0);
        if self.start_io(core, IoPurpose::Program(self.last_load), work, charge).is_err() {
            self.program_failed(core, &DbError::Busy("the worker has too much to do".to_owned()));
        }
    }

    pub(super) fn program_loaded(&mut self, core: &mut Core, load: u64, output: IoOutput) {
        if !matches!(self.program, TenantProgram::Loading(current) if current == load) {
            return;
        }
        let program = match output {
            IoOutput::Program(Ok(Some(own))) => own,
            IoOutput::Program(Ok(None)) => self.templates.main(),
            IoOutput::Program(Err(error)) => return self.program_failed(core, &error),
            _ => {
                return self
                    .program_failed(core, &DbError::Internal("it could not be read".to_owned()));
            }
        };
        if self.vm.as_ref().is_some_and(|vm| vm.host.runs_another(&program)) {
            self.retire();
        }
        self.program = TenantProgram::Ready(program);
    }

    pub(super) fn program_failed(&mut self, core: &mut Core, error: &DbError) {
        self.program = TenantProgram::Unknown;
        let refusal =
            DispatchError::Busy(format!("the tenant's template could not be loaded: {error}"));
        for waiting in std::mem::take(&mut self.waiting) {
            if matches!(waiting.code, Code::Template) {
                core.answer(waiting.request_id, waiting.answer, Err(refusal.clone()));
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    /// Has the next script compiled: one at a time, so that a tenant with many does not keep the
    /// others' from theirs, and when the one before it has started, as bytecode is larger than its
    /// source.
    pub(super) fn compile_next(&mut self, core: &mut Core) {
        let is_next =
            |waiting: &Waiting| matches!(waiting.code, Code::Compiling(_) | Code::Script(..));
        while !self.waiting.iter().any(is_next) {
            let is_source = |waiting: &&mut Waiting| matches!(waiting.code, Code::Source(..));
            let Some(waiting) = self.waiting.iter_mut().find(is_source) else { return };
            self.last_script += 1;
            let number = self.last_script;
            let Code::Source(name, code) =
                std::mem::replace(&mut waiting.code, Code::Compiling(number))
            else {
                return;
            };
            let limit = core.limits().source_bytes;
            let work: IoWork = Box::new(move |_| {
                IoOutput::Script(Compiled::from_source(&name, code.as_bytes(), limit))
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
            IoOutput::Script(compiled) => {
                let is_it =
                    |code: &Code| matches!(code, Code::Compiling(other) if *other == number);
                if let Some(waiting) = self.waiting.iter_mut().find(|one| is_it(&one.code)) {
                    waiting.code = Code::Script(compiled, took);
                }
            }
            _ => self.refuse_script(core, number),
        }
        self.compile_next(core);
    }

    pub(super) fn refuse_script(&mut self, core: &mut Core, number: u64) {
        let is_it =
            |waiting: &Waiting| matches!(waiting.code, Code::Compiling(other) if other == number);
        if let Some(waiting) =
            self.waiting.iter().position(is_it).and_then(|index| self.waiting.remove(index))
        {
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
