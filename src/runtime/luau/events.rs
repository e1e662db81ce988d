//! How a tenant's events start and end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{IntoLuaMulti, MultiValue};

use super::budget::{Doom, Meter, RunSpan};
use super::executor::Core;
use super::lifetime::MEMORY_USED_UP;
use super::live_vm::LiveVm;
use super::outside::{Charge, ChargeKind};
use super::queue::Code;
use super::task::Next;
use super::templates::MAIN;
use super::tenant::Tenant;
use super::timers::TimerKey;
use super::vm::Vm;
use crate::base::error::DispatchError;
use crate::base::limits::WARNED_LEFT_SHARE;
use crate::dispatch::worker_like::handed_over;
use crate::dispatch::{Answer, DispatchResult, RequestId};
use crate::wire::data::Budget;
use crate::wire::tenant_message;

/// An event that has started and not ended: its handler runs, or tasks that it left.
pub(super) struct RunningEvent {
    pub(super) request_id: RequestId,
    pub(super) name: Arc<str>,
    /// How many messages in a row led to it.
    pub(super) depth: u64,
    /// What its code is called.
    pub(super) template: Arc<str>,
    /// What it runs in.
    pub(super) vm: Rc<LiveVm>,
    /// What its data takes, which stays for as long as it does.
    _data: Charge,
    /// Work for it that has not begun when this is gone is not begun any more, nor is any that is
    /// asked for later.
    pub(super) life: Option<Arc<()>>,
    /// Gone when the handler has returned.
    pub(super) answer: Option<Answer>,
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

impl Tenant {
    pub(super) fn start_event(&mut self, core: &mut Core) {
        let Some(waiting) = self.queue.pop() else { return };
        let (request_id, name) = (waiting.request_id, Arc::from(&*waiting.event.name));
        self.compile_next(core);
        let template = match &waiting.code {
            Code::Script(compiled, _) => compiled.name.clone(),
            _ => Arc::from(MAIN),
        };
        self.collection.stop_idle();
        core.gauges.events.inc();
        if self.vm.current().is_none()
            && let Err(problem) = self.make_vm(core)
        {
            core.record_error(self.id, &template, &name, &problem);
            return core.answer(request_id, waiting.answer, Err(DispatchError::Script(problem)));
        }
        let Some(vm) = self.vm.current().cloned() else { return };
        self.last_event += 1;
        let id = self.last_event;
        let compiling =
            if let Code::Script(_, took) = waiting.code { took } else { Duration::ZERO };
        let (now, limits) = (Instant::now(), core.limits());
        let wall_deadline = core.control.clock().at(now) + limits.wall;
        let meter = Rc::new(Meter::new(id, request_id, now, wall_deadline, limits, compiling));
        let data = self.outside.charge(ChargeKind::Event, waiting.event.bytes());
        let depth = tenant_message::depth(&waiting.event);
        vm.host.add_event(id, waiting.event);
        // To load a chunk may run the host's own code.
        core.control.start_run(&meter, meter.started);
        match self.start_task(core, &vm, id, &waiting.code) {
            Ok(handler) => {
                let answer = Some(waiting.answer);
                let event = RunningEvent {
                    request_id,
                    name,
                    depth,
                    template,
                    vm,
                    _data: data,
                    life: Some(waiting.life),
                    answer,
                    meter,
                    handler,
                    tasks: 1,
                    wall: None,
                    running_since: None,
                };
                self.events.insert(id, event);
                self.tasks.run(handler);
            }
            Err(Start::Script(problem)) => {
                vm.host.remove_event(id);
                core.record_error(self.id, &template, &name, &problem);
                core.answer(request_id, waiting.answer, Err(DispatchError::Script(problem)));
            }
            Err(Start::Memory) => {
                let doom = Doom::Memory(core.limits().memory_bytes);
                core.record_doom(self.id, &template, &name, doom);
                core.answer(
                    request_id,
                    waiting.answer,
                    Err(DispatchError::Script(doom.to_string())),
                );
                self.discard_vm(core, &vm, MEMORY_USED_UP, None);
            }
        }
    }

    fn start_task(&mut self, core: &Core, vm: &Vm, event: u64, code: &Code) -> Result<u64, Start> {
        let (function, args) = match (code, self.program.ready()) {
            (Code::Script(compiled, _), _) => {
                let chunk = vm.host.load(&vm.lua, compiled).map_err(|problem| {
                    match core.control.doom() {
                        Some(_) => Start::Memory,
                        None => Start::Script(problem),
                    }
                })?;
                let data = vm.host.small_event(&vm.lua, event);
                (&vm.start_script, (event, data, chunk).into_lua_multi(&vm.lua))
            }
            (_, program) => {
                if let Some(compiled) = program {
                    vm.host.set_program(compiled);
                }
                let data = vm.host.small_event(&vm.lua, event);
                (&vm.start, (event, data).into_lua_multi(&vm.lua))
            }
        };
        let args: MultiValue = args.map_err(|_| Start::Memory)?;
        let thread = vm.thread(function).map_err(|_| Start::Memory)?;
        Ok(self.tasks.add_handler(thread, event, Next::Values(args)))
    }

    /// Tells the template's author of an end of an event that is no error of theirs.
    pub(super) fn record(&self, core: &Core, event: u64, text: &str) {
        if let Some(event) = self.events.get(&event) {
            core.shared.errors.record(self.id, &event.template, &event.name, text);
        }
    }

    /// Records an error of an event for the template's author, whether or not a caller waits for
    /// its answer.
    pub(super) fn record_error(&self, core: &Core, event: u64, text: &str) {
        if let Some(event) = self.events.get(&event) {
            core.record_error(self.id, &event.template, &event.name, text);
        }
    }

    /// As [`Tenant::record_error`], if the event ends because it exceeded a budget.
    pub(super) fn record_doom(&self, core: &Core, event: u64, doom: Doom) {
        if let Some(event) = self.events.get(&event) {
            core.record_doom(self.id, &event.template, &event.name, doom);
        }
    }

    /// Answers an event. Tasks that it left go on.
    pub(super) fn answer(&mut self, core: &mut Core, event: u64, result: DispatchResult) {
        if let Some(event) = self.events.get_mut(&event)
            && let Some(answer) = event.answer.take()
        {
            core.answer(event.request_id, answer, result);
        }
    }

    /// Ends an event whose tasks have all ended.
    pub(super) fn end_event(&mut self, core: &mut Core, id: u64) {
        let Some(event) = self.events.remove(&id) else { return };
        if let Some(timer) = event.wall {
            core.timers.remove(timer);
        }
        self.warn_of_running_time(core, &event);
        if let Some(answer) = event.answer {
            // Its handler was cancelled by a task of its own.
            let cancelled = "the handler was cancelled by task.cancel".to_owned();
            core.record_error(self.id, &event.template, &event.name, &cancelled);
            core.answer(event.request_id, answer, Err(DispatchError::Script(cancelled)));
        }
        core.gauges.event_ended(self.id, event.meter.running.get(), event.meter.started);
        event.vm.host.remove_event(id);
        if self.vm.is_current(&event.vm) && self.events.is_empty() && self.queue.is_empty() {
            self.collection.begin_idle(&event.vm.lua, event.vm.host.pace.limit());
        }
    }

    /// One that ran for too long was ended, and that was recorded.
    fn warn_of_running_time(&self, core: &Core, event: &RunningEvent) {
        let (ran, limit) = (event.meter.running.get(), core.limits().running);
        if ran >= limit - limit / WARNED_LEFT_SHARE && ran <= limit {
            let at = (&*event.template, &*event.name);
            let used =
                format!("the event ran for {} ms of at most {}", ran.as_millis(), RunSpan(limit));
            core.warn(self.id, at, Budget::RunningTime, &used);
        }
    }

    /// From now on no I/O thread begins anything for an event: before it is answered, as its caller
    /// may look then.
    pub(super) fn end_life(&mut self, id: u64) {
        if let Some(event) = self.events.get_mut(&id) {
            event.life = None;
        }
    }

    /// Ends an event now: its coroutines are never resumed again, so nothing in them can prevent
    /// it.
    pub(super) fn kill_event(&mut self, core: &mut Core, id: u64, doom: Doom) {
        let Some(event) = self.events.get(&id) else { return };
        if event.answer.is_none() && doom.budget().is_some() {
            let text = format!("{}: tasks that the handler left were ended: {doom}", event.name);
            self.log.write(log::Level::Warn, Some(event.request_id), &text);
        }
        if doom == Doom::Cancelled {
            let text = format!("{}: {doom}", event.name);
            self.log.write(log::Level::Warn, Some(event.request_id), &text);
        }
        self.record_doom(core, id, doom);
        self.end_life(id);
        self.answer(core, id, Err(dispatch_error(doom)));
        self.remove_tasks(core, &self.tasks.of_event(id));
        self.end_event(core, id);
    }
}

/// Why an event did not start.
enum Start {
    Script(String),
    Memory,
}

/// What the caller of an event that ended so is told.
pub(super) fn dispatch_error(doom: Doom) -> DispatchError {
    match doom {
        Doom::Cancelled => DispatchError::Deadline { sent: true },
        Doom::HandedOver => handed_over(),
        Doom::Stopping => {
            DispatchError::OutcomeUnknown("the worker stopped while the event ran".to_owned())
        }
        doom => DispatchError::Script(doom.to_string()),
    }
}
