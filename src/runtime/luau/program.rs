//! Which code a tenant runs: its template, loaded when an event needs it and again when it may have
//! changed, and scripts, which are compiled one after the other.
//!
//! Part of a tenant, on its executor; reading and compiling happens on the I/O threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::executor::Core;
use super::io::{IoOutput, IoPurpose, blocking};
use super::outside::ChargeKind;
use super::templates::{Compiled, MAIN, MAIN_FILE, TemplateCache, Templates};
use super::tenant::Tenant;
use crate::base::error::{DbError, DispatchError};
use crate::wire::data::{
    DbAnswer, DbOp, KeyValueOp, KvRecord, Scopes, TEMPLATE_KEY, TEMPLATE_SCOPE, TemplateSources,
};
use crate::wire::pack::value::decode;

/// The template that a tenant's events run.
pub(super) struct TenantProgram {
    state: ProgramState,
    last_load: u64,
    /// The templates of all tenants, and the edition of the template cache when it last looked for
    /// others.
    shared: Arc<Templates>,
    edition: u64,
    /// What the tenant runs with: its own modules before those, if it was seen to have some.
    templates: Arc<Templates>,
}

/// A tenant's own template, compiled.
pub(super) struct OwnTemplate {
    main: Compiled,
    modules: HashMap<String, Compiled>,
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
        let shared = cache.current();
        let templates = shared.clone();
        Self { state: ProgramState::Unknown, last_load: 0, shared, edition, templates }
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
        let shared = core.shared.template_cache.current();
        if !Arc::ptr_eq(&shared, &self.program.shared) {
            self.program.templates = shared.clone();
            self.program.shared = shared;
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
        let work = blocking(move |db| {
            let (scopes, key) = (Scopes::new([TEMPLATE_SCOPE]), TEMPLATE_KEY.to_owned());
            let get = KeyValueOp::Get { scopes, key };
            let record = db.ask(DbOp::Kv(tenant, get)).and_then(DbAnswer::into_record);
            let own = record.map(|record| record.map(|record| OwnTemplate::of(&record, limit)));
            IoOutput::Program(own)
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
        let shared = self.program.shared.clone();
        let (program, templates) = match output {
            IoOutput::Program(Ok(Some(own))) => {
                (own.main, Templates::of_tenant(own.modules, shared))
            }
            IoOutput::Program(Ok(None)) => (shared.main(), shared),
            IoOutput::Program(Err(error)) => return self.program_failed(core, &error),
            _ => {
                return self
                    .program_failed(core, &DbError::Internal("it could not be read".to_owned()));
            }
        };
        if self.vm.current().is_some_and(|vm| vm.host.runs_another(&program, &templates)) {
            self.retire();
        }
        self.program.templates = templates;
        self.program.state = ProgramState::Ready(program);
    }

    fn program_failed(&mut self, core: &mut Core, error: &DbError) {
        self.program.forget();
        let refusal =
            DispatchError::Busy(format!("the tenant's template could not be loaded: {error}"));
        self.log_refused(&format!("the template could not be loaded: {error}"));
        for waiting in self.queue.take_templates() {
            core.answer(waiting.request_id, waiting.answer, Err(refusal.clone()));
        }
    }

    /// Has the next script compiled, if it is its turn.
    pub(super) fn compile_next(&mut self, core: &mut Core) {
        while let Some((number, name, source)) = self.queue.next_source() {
            let limit = core.limits().source_bytes;
            let work = blocking(move |_| {
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

impl OwnTemplate {
    /// That of a record. One that is none fails as a template that does not compile.
    fn of(record: &KvRecord, limit: usize) -> Self {
        let value = decode(&record.value).map_err(|error| error.to_string());
        match value.and_then(TemplateSources::of) {
            Ok(sources) => {
                let compiled = |name: &str, source: &str| {
                    Compiled::from_source(&format!("{name}.luau"), source.as_bytes(), limit)
                };
                let main = compiled(MAIN, &sources.main);
                let modules = sources.modules.into_iter().map(|(name, source)| {
                    let module = compiled(&name, &source);
                    (name, module)
                });
                let mut modules: HashMap<_, _> = modules.collect();
                if !modules.is_empty() {
                    // They may require it, as those of a directory may.
                    modules.insert(MAIN.to_owned(), main.clone());
                }
                Self { main, modules }
            }
            Err(why) => Self { main: Compiled::missing(MAIN_FILE, &why), modules: HashMap::new() },
        }
    }
}
