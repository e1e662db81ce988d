//! One tenant on its executor: the events that wait and run, and the VM they run in.
//!
//! Events start in the order in which they came and interleave only where they wait: a coroutine
//! that is preempted goes on before any other of its tenant, so a script needs no locks of its own.
//! Which tenant's turn it is, is the executor's business (`executor`). How an event starts and ends
//! is in `events`, how a coroutine is resumed and what becomes of what it yields in `running`, and
//! what calls do, in `calls`.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mlua::Value;

use super::budget::Doom;
use super::events::RunningEvent;
use super::executor::Core;
use super::gauges::Load;
use super::io::{IoDone, IoJob, IoPurpose, IoWork};
use super::io_share::IoShare;
use super::live_vm::LiveVm;
use super::locks::Locks;
use super::memory::{Collection, EndReason, warned_at};
use super::outside::{Charge, ChargeKind, Outside};
use super::program::TenantProgram;
use super::queue::{Code, JobQueue};
use super::script_feed::ScriptFeed;
use super::script_log::ScriptLog;
use super::task::{Next, Tasks};
use super::templates::MAIN;
use super::tenant_vm::TenantVm;
use super::timers::Due;
use crate::base::error::DispatchError;
use crate::dispatch::{Answer, Job, RequestId};
use crate::wire::data::IdMap;
use crate::wire::data::{Budget, EncodedValue, TenantId};

/// A tenant.
pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) log: Rc<ScriptLog>,
    pub(super) feed: Rc<ScriptFeed>,
    pub(super) queue: JobQueue,
    pub(super) program: TenantProgram,
    pub(super) vm: TenantVm,
    /// Limit: `TENANT_RUNNING_MAX`; the next one waits.
    pub(super) events: IdMap<u64, RunningEvent>,
    pub(super) last_event: u64,
    pub(super) tasks: Tasks,
    start_next: bool,
    pub(super) locks: Locks,
    pub(super) outside: Arc<Outside>,
    pub(super) io: IoShare,
    pub(super) collection: Collection,
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
    pub(super) fn new(id: TenantId, core: &Core) -> Self {
        Self {
            id,
            log: Rc::new(ScriptLog::new(
                id,
                core.limits().log_burst,
                &core.shared.db,
                &core.gauges,
            )),
            feed: Rc::new(ScriptFeed::new(id, &core.shared.db, &core.gauges)),
            queue: JobQueue::default(),
            program: TenantProgram::new(&core.shared.template_cache),
            vm: TenantVm::default(),
            events: IdMap::default(),
            last_event: 0,
            tasks: Tasks::default(),
            start_next: false,
            locks: Locks::default(),
            outside: Arc::default(),
            io: IoShare::default(),
            collection: Collection::default(),
        }
    }

    /// Tells the author of events that are refused; their callers hear it too.
    pub(super) fn log_refused(&self, why: &str) {
        self.log.write(log::Level::Warn, None, &format!("events were refused: {why}"));
    }

    /// Takes a job.
    pub(super) fn submit(
        &mut self,
        core: &mut Core,
        request_id: RequestId,
        job: Job,
        answer: Answer,
    ) {
        self.check_for_changes(core);
        if self.is_full(core) && !matches!(job, Job::DropTenant) {
            core.gauges.exceeded(Budget::Queue);
            let busy = format!("{} events of this tenant are waiting already", self.queue.len());
            self.log_refused(&busy);
            return core.answer(request_id, answer, Err(DispatchError::Busy(busy)));
        }
        match job {
            Job::Dispatch(event) => {
                self.queue.push(request_id, answer, event, Code::Template);
                self.want_program(core);
            }
            Job::RunScript { name, code, event } => {
                let code = Code::Source(script_name(&name), code);
                self.queue.push(request_id, answer, event, code);
                self.compile_next(core);
            }
            Job::DropTenant => {
                self.drop_all(core, Doom::Dropped);
                core.answer(request_id, answer, Ok(EncodedValue::null()));
            }
        }
    }

    /// Those that start in the next turn do not wait, and those that are answered count for
    /// nothing, though tasks that they left may run: it is as the master counts them.
    fn is_full(&self, core: &Core) -> bool {
        let limits = core.limits();
        let unanswered = || self.events.values().filter(|event| event.answer.is_some()).count();
        self.queue.len() >= limits.tenant_waiting
            && self.queue.len() + unanswered() >= limits.tenant_waiting + limits.tenant_running
    }

    /// Gives a job up.
    pub(super) fn cancel(&mut self, core: &mut Core, request_id: RequestId) {
        if let Some(waiting) = self.queue.take(request_id) {
            let error = DispatchError::Deadline { sent: false };
            core.answer(request_id, waiting.answer, Err(error));
            self.compile_next(core);
        } else if let Some(id) =
            self.events.iter().find(|(_, event)| event.request_id == request_id).map(|(id, _)| *id)
        {
            self.kill_event(core, id, Doom::Cancelled);
        }
    }

    /// A timer of this tenant fired.
    pub(super) fn due(&mut self, core: &mut Core, due: Due) {
        match due {
            Due::Wake(task) => self.wake_from_time(core, task),
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
        self.io.ended(done.purpose);
        self.start_backlog(core);
        match done.purpose {
            IoPurpose::Program(load) => self.program_loaded(core, load, done.output),
            IoPurpose::Script(number) => self.script_compiled(core, number, done.output, done.took),
            IoPurpose::Task { task, lease, asked } => {
                self.call_done(core, (task, lease, asked), done.output, done.charge);
            }
        }
    }

    /// How much of it there is.
    pub(super) fn load(&self) -> Load {
        Load { waiting_events: self.queue.len(), coroutines: self.tasks.len() }
    }

    /// Tasks of events that have been answered.
    pub(super) fn tasks_left(&self) -> usize {
        self.events.values().filter(|event| event.answer.is_none()).map(|event| event.tasks).sum()
    }

    /// Whether there is something to do in a turn.
    pub(super) fn has_work(&self, core: &Core) -> bool {
        self.tasks.running().is_some()
            || self.tasks.has_ready()
            || self.can_start(core)
            || self.collection.why().is_some()
    }

    /// Whether nothing is left of it that could be missed.
    pub(super) fn is_gone(&self) -> bool {
        self.vm.current().is_none()
            && self.events.is_empty()
            && self.queue.is_empty()
            && self.io.is_idle()
    }

    /// Does one thing: resumes a coroutine, or starts an event, or collects a little garbage.
    pub(super) fn step(&mut self, core: &mut Core) -> Step {
        if let Some(EndReason::Over(event)) = self.collection.why() {
            return self.collect(core, Some(event));
        }
        if let Some(task) = self.tasks.running() {
            return self.resume(core, task);
        }
        // In turn, so that neither a flood of events nor tasks that keep each other busy can hold
        // the others up.
        if self.can_start(core) && (self.start_next || !self.tasks.has_ready()) {
            self.start_next = false;
            self.start_event(core);
            return Step::Done;
        }
        self.start_next = true;
        if let Some(task) = self.tasks.next_ready() {
            self.tasks.run(task);
            return self.resume(core, task);
        }
        if self.collection.why().is_some() { self.collect(core, None) } else { Step::Idle }
    }

    /// Collects a little. An event that made this necessary pays for it, and ends if too much is
    /// alive in the end.
    fn collect(&mut self, core: &mut Core, because_of: Option<u64>) -> Step {
        let because_of_vm = because_of.and_then(|id| self.events.get(&id)).map(|event| &event.vm);
        let Some(vm) = because_of_vm.or(self.vm.current()).cloned() else {
            self.collection = Collection::default();
            return Step::Done;
        };
        let started = Instant::now();
        let is_done = self.collection.step(&vm.lua);
        let is_over = is_done && vm.host.pace.check(&vm.lua);
        if is_done && !is_over {
            self.warn_of_memory(core, &vm, because_of);
        }
        let Some(id) = because_of else { return Step::Done };
        if let Some(event) = self.events.get(&id) {
            event.meter.ran(started.elapsed());
        }
        if is_over {
            self.end_doomed(core, id, Doom::Memory(core.limits().memory_bytes));
        }
        Step::Done
    }

    /// After a collection what is used is alive.
    fn warn_of_memory(&self, core: &Core, vm: &LiveVm, because_of: Option<u64>) {
        let (used, limit) = (vm.host.pace.used(&vm.lua), vm.host.pace.limit());
        if used >= warned_at(limit) {
            let event = because_of.and_then(|id| self.events.get(&id));
            let at = event.map_or((MAIN, ""), |event| (&*event.template, &*event.name));
            let mib = |bytes| bytes / (1024 * 1024);
            let text = format!(
                "the VM's live data has {} of at most {} MiB; beyond that it is thrown away",
                mib(used),
                mib(limit)
            );
            core.warn(self.id, at, Budget::Memory, &text);
        }
    }

    fn can_start(&self, core: &Core) -> bool {
        self.vm.admits_events() && self.is_startable(core)
    }

    pub(super) fn is_startable(&self, core: &Core) -> bool {
        let is_ready = match self.queue.first().map(|waiting| &waiting.code) {
            Some(Code::Template) => self.program.ready().is_some(),
            Some(Code::Script(..)) => true,
            Some(Code::Source(..) | Code::Compiling(_)) | None => false,
        };
        is_ready && self.events.len() < core.limits().tenant_running && self.has_room_for_data(core)
    }

    /// Whether the data of the next event has room beside that of those that run, or one is alone.
    /// (Of what waits the master admits only so much.)
    fn has_room_for_data(&self, core: &Core) -> bool {
        let (held, next) = (
            self.outside.of(ChargeKind::Event),
            self.queue.first().map_or(0, |next| next.event.bytes()),
        );
        held == 0 || held + next <= core.limits().memory_bytes
    }

    /// Hands work to an I/O thread, at once or when others of this tenant are done: the number of
    /// its turn, if it waits.
    ///
    /// # Errors
    /// The queue of the I/O threads is full.
    pub(super) fn start_io(
        &mut self,
        core: &Core,
        purpose: IoPurpose,
        work: IoWork,
        charge: Charge,
    ) -> Result<Option<u64>, ()> {
        let owner = self.owner(purpose);
        let job =
            IoJob { reply_to: core.mailbox.clone(), tenant: self.id, owner, purpose, work, charge };
        if self.io.next().is_some() || !self.may_start_io(core, purpose) {
            return Ok(Some(self.io.put_off(job)));
        }
        self.submit_io(core, job).map(|()| None)
    }

    /// The life of the event that work is for: when that has ended, the work is for nothing.
    fn owner(&self, purpose: IoPurpose) -> Option<Weak<()>> {
        let life = match purpose {
            // It is for all that wait.
            IoPurpose::Program(_) => return None,
            IoPurpose::Script(number) => self.queue.life_of_script(number),
            IoPurpose::Task { task, .. } => self
                .tasks
                .get(task)
                .and_then(|task| self.events.get(&task.event))
                .and_then(|event| event.life.as_ref()),
        };
        Some(life.map(Arc::downgrade).unwrap_or_default())
    }

    /// Throws away what waits for this turn, and gives its lock back.
    pub(super) fn forget_io(&mut self, core: &mut Core, turn: u64) {
        if let Some(IoJob { purpose: IoPurpose::Task { lease, .. }, .. }) = self.io.take(turn) {
            self.release(core, lease);
        }
    }

    /// Whether a job may start beside those that are under way: there is room for the largest
    /// result that it may have, or there is no other result, on its way or not taken.
    fn may_start_io(&self, core: &Core, purpose: IoPurpose) -> bool {
        let has_room = |bytes| {
            let in_vm = self.vm.current().map_or(0, |vm| vm.lua.used_memory());
            let outside = self.outside.of(ChargeKind::Event) + self.outside.of_scripts();
            in_vm + outside + bytes <= core.limits().memory_bytes
        };
        self.io.admits(purpose, self.outside.of(ChargeKind::Result) > 0, has_room)
    }

    fn submit_io(&mut self, core: &Core, job: IoJob) -> Result<(), ()> {
        let purpose = job.purpose;
        core.shared.io.submit(job).map_err(drop)?;
        self.io.started(purpose);
        Ok(())
    }

    /// Hands on jobs that have waited, as far as they may start.
    pub(super) fn start_backlog(&mut self, core: &mut Core) {
        while let Some(purpose) = self.io.next()
            && self.may_start_io(core, purpose)
            && let Some(job) = self.io.take_next()
        {
            if self.submit_io(core, job).is_err() {
                self.io_refused(core, purpose);
            }
        }
    }

    /// The queue of the I/O threads was full when a job came to its turn.
    fn io_refused(&mut self, core: &mut Core, purpose: IoPurpose) {
        match purpose {
            IoPurpose::Program(_) => self.program_refused(core),
            IoPurpose::Script(number) => {
                self.refuse_script(core, number);
                self.compile_next(core);
            }
            IoPurpose::Task { task, lease, asked } => self.call_refused(core, task, lease, asked),
        }
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
