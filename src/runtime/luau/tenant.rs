//! One tenant on its executor: the events that wait and run, and the VM they run in.
//!
//! Events start in the order in which they came and interleave only where they wait: a coroutine that is preempted goes
//! on before any other of its tenant, so a script needs no locks of its own. Which tenant's turn it is, is the
//! executor's business (`executor`); how a coroutine is resumed and what becomes of what it yields is in `running`, and
//! what calls do, in `calls`.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{IntoLuaMulti, MultiValue, Value};

use super::budget::{Doom, Meter};
use super::executor::Core;
use super::host::Host;
use super::io::{IoDone, IoJob, IoOutput, IoPurpose, IoWork};
use super::locks::Locks;
use super::memory::{Collection, Why};
use super::script_log::ScriptLog;
use super::task::{Next, Tasks};
use super::templates::{Compiled, MAIN};
use super::timers::{Due, TimerKey};
use super::vm::Vm;
use crate::error::{DbError, DispatchError};
use crate::limits::TENANT_IO_MAX;
use crate::model::{Answer, CreateEvent, DispatchResult, EncodedValue, Job, KvRecord, Scopes, TenantId, Ticket};
use crate::wire::walk::{Token, Walk};

/// A tenant.
pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) log: Rc<ScriptLog>,
    /// Limit: `TENANT_QUEUE_MAX`; one more is busy at once.
    waiting: VecDeque<Waiting>,
    last_script: u64,
    program: Program,
    last_load: u64,
    pub(super) vm: Option<Vm>,
    /// The executor has a seat for its VM.
    may_make_vm: bool,
    /// Another tenant waits for its VM: it starts nothing new in it.
    is_asked: bool,
    /// Limit: `TENANT_RUNNING_MAX`; the next one waits.
    pub(super) events: HashMap<u64, Event>,
    last_event: u64,
    pub(super) tasks: Tasks,
    /// The task that runs, above those that spawned it and wait for it to wait.
    pub(super) running: Vec<u64>,
    /// Tasks that can go on, in the order in which they came to it.
    pub(super) ready: VecDeque<u64>,
    start_next: bool,
    pub(super) locks: Locks,
    io_under_way: usize,
    /// Limit: one a task and one a waiting script.
    io_backlog: VecDeque<IoJob>,
    pub(super) collection: Collection,
}

/// A job that has not started.
struct Waiting {
    ticket: Ticket,
    answer: Answer,
    event: CreateEvent,
    code: Code,
}

/// What a job runs.
enum Code {
    /// The tenant's template.
    Template,
    /// A script that waits to be compiled: its name and source.
    Source(String, String),
    /// A script that is being compiled, by its number.
    Compiling(u64),
    /// A script, and how long it took to compile.
    Script(Compiled, Duration),
}

/// The tenant's template.
enum Program {
    Unknown,
    /// It is being loaded; the number tells the load from an earlier one.
    Loading(u64),
    Ready(Compiled),
}

/// An event that has started and not ended: its handler runs, or tasks that it left.
pub(super) struct Event {
    ticket: Ticket,
    pub(super) name: Arc<str>,
    /// Gone when the handler has returned.
    answer: Option<Answer>,
    pub(super) meter: Rc<Meter>,
    /// The task whose result is the answer.
    pub(super) handler: u64,
    /// Tasks that have not ended; those that parked themselves do not count, but for the handler.
    pub(super) tasks: usize,
    /// Fires when its wall time is over; set when it first waits.
    pub(super) wall: Option<TimerKey>,
    /// Since when it has been running without a pause.
    pub(super) running_since: Option<Instant>,
}

/// What a tenant did with a step of its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Something, and there may be more.
    Done,
    /// A coroutine used up the turn.
    Preempted,
    /// Nothing is left to do now.
    Idle,
}

impl Tenant {
    pub(super) fn new(id: TenantId) -> Self {
        Self {
            id,
            log: Rc::new(ScriptLog::new(id)),
            waiting: VecDeque::new(),
            last_script: 0,
            program: Program::Unknown,
            last_load: 0,
            vm: None,
            may_make_vm: false,
            is_asked: false,
            events: HashMap::new(),
            last_event: 0,
            tasks: Tasks::default(),
            running: Vec::new(),
            ready: VecDeque::new(),
            start_next: false,
            locks: Locks::default(),
            io_under_way: 0,
            io_backlog: VecDeque::new(),
            collection: Collection::default(),
        }
    }

    /// Takes a job.
    pub(super) fn submit(&mut self, core: &mut Core, ticket: Ticket, job: Job, answer: Answer) {
        // Those that start in the next turn do not wait.
        let limits = core.limits();
        let room = limits.tenant_waiting + limits.tenant_running.saturating_sub(self.events.len());
        if self.waiting.len() >= room && !matches!(job, Job::DropTenant) {
            let busy = format!("{} events of this tenant are waiting already", self.waiting.len());
            return core.answer(ticket, answer, Err(DispatchError::Busy(busy)));
        }
        match job {
            Job::Dispatch(event) => {
                self.waiting.push_back(Waiting { ticket, answer, event, code: Code::Template });
                self.want_program(core);
            }
            Job::RunScript { name, code, event } => {
                let code = Code::Source(script_name(&name), code);
                self.waiting.push_back(Waiting { ticket, answer, event, code });
                self.compile_next(core);
            }
            Job::DropTenant => {
                self.drop_all(core, Doom::Dropped);
                core.answer(ticket, answer, Ok(EncodedValue::null()));
            }
        }
    }

    /// Gives a job up.
    pub(super) fn cancel(&mut self, core: &mut Core, ticket: Ticket) {
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.ticket == ticket) {
            if let Some(waiting) = self.waiting.remove(index) {
                core.answer(ticket, waiting.answer, Err(DispatchError::Deadline { sent: false }));
            }
        } else if let Some(id) = self.events.iter().find(|(_, event)| event.ticket == ticket).map(|(id, _)| *id) {
            self.kill_event(core, id, Doom::Cancelled);
        }
    }

    /// A timer of this tenant fired.
    pub(super) fn due(&mut self, core: &mut Core, due: Due) {
        match due {
            Due::Wake(task) => self.wake_from_time(task),
            Due::Wall(event) => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.wall = None;
                }
                let limit = core.limits().wall;
                self.kill_event(core, event, Doom::Wall(limit));
            }
        }
    }

    /// Something that an I/O thread did for this tenant is done.
    pub(super) fn io_done(&mut self, core: &mut Core, done: IoDone) {
        self.io_under_way = self.io_under_way.saturating_sub(1);
        while self.io_under_way < TENANT_IO_MAX {
            let Some(job) = self.io_backlog.pop_front() else { break };
            self.submit_io(core, job);
        }
        match done.purpose {
            IoPurpose::Program(load) => self.program_loaded(core, load, done.output),
            IoPurpose::Script(number) => self.script_compiled(core, number, done.output, done.took),
            IoPurpose::Task { task, lease } => self.call_done(core, task, lease, done.output),
        }
    }

    /// Whether there is something to do in a turn.
    pub(super) fn has_work(&self, core: &Core) -> bool {
        !self.running.is_empty() || !self.ready.is_empty() || self.can_start(core) || self.collection.why().is_some()
    }

    /// Whether nothing is left of it that anybody could miss.
    pub(super) fn is_gone(&self) -> bool {
        self.vm.is_none() && self.events.is_empty() && self.waiting.is_empty() && self.io_under_way == 0
    }

    /// Does one thing: resumes a coroutine, or starts an event, or collects a little garbage.
    pub(super) fn step(&mut self, core: &mut Core) -> Step {
        if let Some(Why::Over(event)) = self.collection.why() {
            return self.collect(core, Some(event));
        }
        if let Some(task) = self.running.last() {
            return self.resume(core, *task);
        }
        // In turn, so that neither a flood of events nor tasks that keep each other busy can hold the others up.
        if self.can_start(core) && (self.start_next || self.ready.is_empty()) {
            self.start_next = false;
            self.start_event(core);
            return Step::Done;
        }
        self.start_next = true;
        if let Some(task) = self.ready.pop_front() {
            self.running.push(task);
            return self.resume(core, task);
        }
        if self.collection.why().is_some() { self.collect(core, None) } else { Step::Idle }
    }

    /// Collects a little. An event that made this necessary pays for it, and ends if too much is alive in the end.
    fn collect(&mut self, core: &mut Core, because_of: Option<u64>) -> Step {
        let Some(vm) = &self.vm else { return Step::Idle };
        let started = Instant::now();
        let is_done = self.collection.step(&vm.lua);
        let Some(id) = because_of else { return Step::Done };
        let is_over = is_done && vm.host.pace.check(&vm.lua);
        if let Some(event) = self.events.get(&id) {
            event.meter.running.set(event.meter.running.get() + started.elapsed());
        }
        if is_over {
            self.end_doomed(core, id, Doom::Memory(core.limits().memory_bytes));
        }
        Step::Done
    }

    /// Whether an event could start if there were a VM.
    pub(super) fn wants_vm(&self, core: &Core) -> bool {
        self.vm.is_none() && self.is_startable(core)
    }

    /// Whether the VM can be closed without anybody missing it: nothing runs or waits in it, and nothing may start in it.
    pub(super) fn is_idle(&self, core: &Core) -> bool {
        self.events.is_empty() && (self.is_asked || self.waiting.is_empty()) && !self.has_work(core)
    }

    /// Its executor has a seat for its VM, or has one no more.
    pub(super) fn set_may_make_vm(&mut self, may_make_vm: bool) {
        (self.may_make_vm, self.is_asked) = (may_make_vm, false);
    }

    /// Its VM is wanted by another tenant: it goes when what runs in it has ended.
    pub(super) fn ask_for_vm(&mut self) {
        self.is_asked = true;
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Closes a VM that is idle; the next event gets a new one.
    pub(super) fn evict(&mut self, core: &mut Core) {
        log::debug!("the VM of {} was closed: nothing runs in it", self.id);
        self.close_vm(core);
        core.gauges.vm_evicted();
        self.want_program(core);
    }

    /// Every VM has been in use for too long.
    pub(super) fn refuse_waiting(&mut self, core: &mut Core) {
        while let Some(waiting) = self.waiting.pop_front() {
            let busy = "every VM of the worker is in use".to_owned();
            core.answer(waiting.ticket, waiting.answer, Err(DispatchError::Busy(busy)));
        }
    }

    fn can_start(&self, core: &Core) -> bool {
        let has_vm = if self.vm.is_some() { !self.is_asked } else { self.may_make_vm };
        has_vm && self.is_startable(core)
    }

    fn is_startable(&self, core: &Core) -> bool {
        let is_ready = match self.waiting.front().map(|waiting| &waiting.code) {
            Some(Code::Template) => matches!(self.program, Program::Ready(_)),
            Some(Code::Script(..)) => true,
            Some(Code::Source(..) | Code::Compiling(_)) | None => false,
        };
        is_ready && self.events.len() < core.limits().tenant_running
    }

    fn start_event(&mut self, core: &mut Core) {
        let Some(waiting) = self.waiting.pop_front() else { return };
        let (ticket, name) = (waiting.ticket, Arc::from(&*waiting.event.name));
        self.collection.stop_idle();
        core.gauges.event_started();
        if self.vm.is_none()
            && let Err(problem) = self.make_vm(core)
        {
            return core.answer(ticket, waiting.answer, Err(DispatchError::Script(problem)));
        }
        self.last_event += 1;
        let id = self.last_event;
        let compiling = if let Code::Script(_, took) = waiting.code { took } else { Duration::ZERO };
        let meter = Rc::new(Meter::new(id, Instant::now(), core.limits(), compiling));
        match self.start_task(core, id, &waiting.code) {
            Ok(handler) => {
                if let Some(vm) = &self.vm {
                    vm.host.add_event(id, waiting.event);
                }
                let answer = Some(waiting.answer);
                let event = Event { ticket, name, answer, meter, handler, tasks: 1, wall: None, running_since: None };
                self.events.insert(id, event);
                self.running.push(handler);
            }
            Err(Start::Script(problem)) => {
                core.answer(ticket, waiting.answer, Err(DispatchError::Script(problem)));
            }
            Err(Start::Memory) => {
                let doom = Doom::Memory(core.limits().memory_bytes);
                core.answer(ticket, waiting.answer, Err(DispatchError::Script(doom.to_string())));
                self.discard_vm(core, "another event used up its memory");
            }
        }
    }

    fn start_task(&mut self, core: &Core, event: u64, code: &Code) -> Result<u64, Start> {
        let vm = self.vm.as_ref().ok_or(Start::Memory)?;
        let (function, args) = match (code, &self.program) {
            (Code::Script(compiled, _), _) => {
                core.control.forget_doom();
                let chunk = vm.host.load(&vm.lua, compiled).map_err(|problem| match core.control.doom() {
                    Some(_) => Start::Memory,
                    None => Start::Script(problem),
                })?;
                (&vm.start_script, (event, chunk).into_lua_multi(&vm.lua))
            }
            (_, program) => {
                if let Program::Ready(compiled) = program {
                    vm.host.set_program(compiled);
                }
                (&vm.start, event.into_lua_multi(&vm.lua))
            }
        };
        let args: MultiValue = args.map_err(|_| Start::Memory)?;
        let thread = vm.lua.create_thread(function.clone()).map_err(|_| Start::Memory)?;
        Ok(self.tasks.add(thread, event, Next::Values(args)))
    }

    fn make_vm(&mut self, core: &mut Core) -> Result<(), String> {
        let host = Host::new(self.id, &core.control, &core.templates, &core.states, &self.log);
        match catch_unwind(AssertUnwindSafe(|| Vm::new(&core.control, host))) {
            Ok(Ok(vm)) => {
                self.vm = Some(vm);
                core.gauges.vm_made();
                Ok(())
            }
            Ok(Err(error)) => {
                log::error!("no VM could be made for {}: {error}", self.id);
                Err("no VM could be made".to_owned())
            }
            Err(_) => Err("no VM could be made".to_owned()),
        }
    }

    /// Answers an event. Tasks that it left go on.
    pub(super) fn answer(&mut self, core: &mut Core, event: u64, result: DispatchResult) {
        if let Some(event) = self.events.get_mut(&event)
            && let Some(answer) = event.answer.take()
        {
            core.answer(event.ticket, answer, result);
        }
    }

    /// Ends an event whose tasks have all ended.
    pub(super) fn end_event(&mut self, core: &mut Core, id: u64) {
        let Some(event) = self.events.remove(&id) else { return };
        if let Some(timer) = event.wall {
            core.timers.remove(timer);
        }
        if let Some(answer) = event.answer {
            // Its handler was cancelled by a task of its own.
            let cancelled = "the handler was cancelled by task.cancel".to_owned();
            core.answer(event.ticket, answer, Err(DispatchError::Script(cancelled)));
        }
        if let Some(vm) = &self.vm {
            vm.host.remove_event(id);
            if self.events.is_empty() && self.waiting.is_empty() {
                self.collection.begin_idle(&vm.lua);
            }
        }
    }

    /// Ends an event now: its coroutines are never resumed again, so nothing in them can prevent it.
    pub(super) fn kill_event(&mut self, core: &mut Core, id: u64, doom: Doom) {
        let Some(event) = self.events.get(&id) else { return };
        if event.answer.is_none() && doom.is_budget() {
            self.log
                .write(log::Level::Warn, &format!("{}: tasks that the handler left were ended: {doom}", event.name));
        }
        self.answer(core, id, Err(dispatch_error(doom)));
        self.remove_tasks(core, &self.tasks.of_event(id));
        self.end_event(core, id);
    }

    /// Throws the VM away, with everything that runs in it: `why` is what the callers are told.
    pub(super) fn discard_vm(&mut self, core: &mut Core, why: &str) {
        log::info!("the VM of {} was discarded: {why}", self.id);
        let error = DispatchError::Script(format!("ended, because the tenant's VM was discarded: {why}"));
        let events: Vec<u64> = self.events.keys().copied().collect();
        events.into_iter().for_each(|event| self.answer(core, event, Err(error.clone())));
        self.close_vm(core);
        core.gauges.vm_discarded();
        self.want_program(core);
    }

    /// Ends everything: what waits, what runs, and the VM.
    pub(super) fn drop_all(&mut self, core: &mut Core, doom: Doom) {
        let events: Vec<u64> = self.events.keys().copied().collect();
        events.into_iter().for_each(|event| self.kill_event(core, event, doom));
        let why = match doom {
            Doom::Stopping => "the worker stopped before the event ran",
            _ => "the tenant was dropped before the event ran",
        };
        while let Some(waiting) = self.waiting.pop_front() {
            core.answer(waiting.ticket, waiting.answer, Err(DispatchError::Busy(why.to_owned())));
        }
        self.close_vm(core);
    }

    fn close_vm(&mut self, core: &mut Core) {
        self.remove_tasks(core, &self.tasks.ids());
        let events: Vec<u64> = self.events.keys().copied().collect();
        events.into_iter().for_each(|event| self.end_event(core, event));
        self.running.clear();
        self.ready.clear();
        self.collection = Collection::default();
        self.program = Program::Unknown;
        if let Some(vm) = self.vm.take() {
            core.gauges.vm_closed();
            // A VM that met a panic may meet another one in its end.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(vm)));
        }
    }

    /// Has the template loaded, if an event waits for it.
    fn want_program(&mut self, core: &mut Core) {
        let is_wanted = self.waiting.iter().any(|waiting| matches!(waiting.code, Code::Template));
        if !is_wanted || !matches!(self.program, Program::Unknown) {
            return;
        }
        self.last_load += 1;
        self.program = Program::Loading(self.last_load);
        let (tenant, limit) = (self.id, core.limits().source_bytes);
        let work: IoWork = Box::new(move |db| {
            let record = db.kv_get(tenant, Scopes::new(["template"]), MAIN.to_owned());
            IoOutput::Program(record.map(|record| record.map(|record| own_template(&record, limit))))
        });
        if self.start_io(core, IoPurpose::Program(self.last_load), work).is_err() {
            self.program_failed(core, &DbError::Busy("the worker has too much to do".to_owned()));
        }
    }

    fn program_loaded(&mut self, core: &mut Core, load: u64, output: IoOutput) {
        if !matches!(self.program, Program::Loading(current) if current == load) {
            return;
        }
        match output {
            IoOutput::Program(Ok(Some(own))) => self.program = Program::Ready(own),
            IoOutput::Program(Ok(None)) => self.program = Program::Ready(core.templates.main()),
            IoOutput::Program(Err(error)) => self.program_failed(core, &error),
            _ => self.program_failed(core, &DbError::Internal("it could not be read".to_owned())),
        }
    }

    fn program_failed(&mut self, core: &mut Core, error: &DbError) {
        self.program = Program::Unknown;
        let refusal = DispatchError::Busy(format!("the tenant's template could not be loaded: {error}"));
        for waiting in std::mem::take(&mut self.waiting) {
            if matches!(waiting.code, Code::Template) {
                core.answer(waiting.ticket, waiting.answer, Err(refusal.clone()));
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    /// Has the next script compiled: one at a time, so that a tenant with many does not keep the others' from theirs.
    fn compile_next(&mut self, core: &mut Core) {
        while !self.waiting.iter().any(|waiting| matches!(waiting.code, Code::Compiling(_))) {
            let is_source = |waiting: &&mut Waiting| matches!(waiting.code, Code::Source(..));
            let Some(waiting) = self.waiting.iter_mut().find(is_source) else { return };
            self.last_script += 1;
            let number = self.last_script;
            let Code::Source(name, code) = std::mem::replace(&mut waiting.code, Code::Compiling(number)) else {
                return;
            };
            let limit = core.limits().source_bytes;
            let work: IoWork =
                Box::new(move |_| IoOutput::Script(Compiled::from_source(&name, code.as_bytes(), limit)));
            if self.start_io(core, IoPurpose::Script(number), work).is_err() {
                self.refuse_script(core, number);
            }
        }
    }

    fn script_compiled(&mut self, core: &mut Core, number: u64, output: IoOutput, took: Duration) {
        match output {
            IoOutput::Script(compiled) => {
                let is_it = |waiting: &&mut Waiting| matches!(waiting.code, Code::Compiling(other) if other == number);
                if let Some(waiting) = self.waiting.iter_mut().find(is_it) {
                    waiting.code = Code::Script(compiled, took);
                }
            }
            _ => self.refuse_script(core, number),
        }
        self.compile_next(core);
    }

    fn refuse_script(&mut self, core: &mut Core, number: u64) {
        let is_it = |waiting: &Waiting| matches!(waiting.code, Code::Compiling(other) if other == number);
        if let Some(waiting) = self.waiting.iter().position(is_it).and_then(|index| self.waiting.remove(index)) {
            let busy = "the worker has too much to do to compile the script".to_owned();
            core.answer(waiting.ticket, waiting.answer, Err(DispatchError::Busy(busy)));
        }
    }

    /// Hands work to an I/O thread, at once or when others of this tenant are done.
    ///
    /// # Errors
    /// The queue of the I/O threads is full.
    pub(super) fn start_io(&mut self, core: &mut Core, purpose: IoPurpose, work: IoWork) -> Result<(), ()> {
        let job = IoJob { reply_to: core.mailbox.clone(), tenant: self.id, purpose, work };
        if self.io_under_way >= TENANT_IO_MAX {
            self.io_backlog.push_back(job);
            return Ok(());
        }
        self.io_under_way += 1;
        core.io.submit(job).map_err(|_| self.io_under_way -= 1)
    }

    /// Hands on a job that has waited; if the queue is full by now, that is its result.
    fn submit_io(&mut self, core: &mut Core, job: IoJob) {
        self.io_under_way += 1;
        let Err(IoJob { purpose, .. }) = core.io.submit(job) else { return };
        self.io_under_way -= 1;
        match purpose {
            IoPurpose::Program(_) => {
                self.program_failed(core, &DbError::Busy("the worker has too much to do".to_owned()));
            }
            IoPurpose::Script(number) => {
                self.refuse_script(core, number);
                self.compile_next(core);
            }
            IoPurpose::Task { task, lease } => self.call_refused(core, task, lease),
        }
    }
}

/// Why an event did not start.
enum Start {
    Script(String),
    Memory,
}

fn dispatch_error(doom: Doom) -> DispatchError {
    match doom {
        Doom::Cancelled => DispatchError::Deadline { sent: true },
        Doom::Stopping => DispatchError::OutcomeUnknown("the worker stopped while the event ran".to_owned()),
        doom => DispatchError::Script(doom.to_string()),
    }
}

fn own_template(record: &KvRecord, limit: usize) -> Compiled {
    match Walk::new(&record.value).next() {
        Ok(Some(Token::Text(source))) => Compiled::from_source(MAIN, source.as_bytes(), limit),
        _ => Compiled::missing(MAIN, "the tenant's template is not text"),
    }
}

/// A script's name as errors may show it: short, on one line.
fn script_name(name: &str) -> String {
    let shown: String = name.chars().filter(|character| !character.is_control()).take(60).collect();
    if shown.is_empty() { "script".to_owned() } else { shown }
}

/// A value as a coroutine is resumed with it, after `true`.
pub(super) fn yes(values: impl IntoIterator<Item = Value>) -> Next {
    Next::Values(std::iter::once(Value::Boolean(true)).chain(values).collect())
}
