//! How a tenant's coroutines are resumed, and what becomes of what they yield, return or raise.

use std::time::Instant;

use log::Level;
use mlua::{IntoLuaMulti, MultiValue, Thread, Value};

use super::api;
use super::budget::Doom;
use super::calls::WAITS_IN_UPDATE;
use super::convert::{ConvertErrorKind, value_from_luau};
use super::executor::Core;
use super::gauges::Gauges;
use super::host::HostAction;
use super::lifetime::MEMORY_USED_UP;
use super::script_error;
use super::task::{Next, Outcome, Task, Wait};
use super::tenant::{Step, Tenant};
use super::timers::Due;
use super::vm::Vm;
use crate::base::error::DispatchError;
use crate::base::limits::MESSAGE_MAX_BYTES;
use crate::dispatch::{DispatchResult, RequestId};
use crate::wire::data::EncodedValue;

/// What a result may take of a message: its envelope needs a few bytes too.
const RESULT_MAX_BYTES: usize = MESSAGE_MAX_BYTES - 64;

impl Tenant {
    /// Resumes the task on top of the running ones.
    pub(super) fn resume(&mut self, core: &mut Core, id: u64) -> Step {
        let task = self.tasks.get_mut(id);
        let running = task.and_then(|task| Some((self.events.get_mut(&task.event)?, task)));
        let Some((event, task)) = running else {
            self.tasks.pause();
            return Step::Done;
        };
        let (event_id, is_handler, meter) = (task.event, event.handler == id, event.meter.clone());
        let vm = &*event.vm.clone();
        let started = Instant::now();
        core.gauges.run(self.id, &event.name, *event.running_since.get_or_insert(started));
        core.control.start_run(&meter, started);
        vm.host.enter(&meter, &task.thread);

        let resumed = resume_thread(vm, task);
        task.is_seen |= vm.host.has_shown_task();
        let outcome = Outcome::of(&task.thread, resumed);
        let failed = match &outcome {
            Outcome::Failed(error) => Some(vm.host.describe(&vm.lua, error)),
            _ => None,
        };
        // The answer is part of the handler's running time, and must not outlive what it was made
        // from.
        let result = match &outcome {
            Outcome::Finished(value) if is_handler => Some(encode(vm, value, &core.gauges)),
            _ if is_handler => failed.clone().map(|text| Err(DispatchError::Script(text))),
            _ => None,
        };
        let out_of_memory =
            matches!(&outcome, Outcome::Failed(error) if script_error::is_out_of_memory(error));
        if out_of_memory {
            core.control.set_doom(Doom::Memory(core.limits().memory_bytes));
        } else if vm.host.pace.check(&vm.lua) {
            self.collection.begin_over(event_id);
        }
        let actions = vm.host.take_actions();
        // The event may end below, and is asked then what it used.
        let charged = started.elapsed();
        meter.ran(charged);
        let step = match core.control.doom() {
            Some(doom) => {
                drop((outcome, actions));
                self.end_doomed(core, event_id, doom);
                Step::Done
            }
            None => {
                actions.into_iter().for_each(|action| self.act(core, event_id, action));
                self.settle(core, id, outcome, result, failed)
            }
        };
        // With what its call took to prepare: converting values is the script's doing.
        meter.ran(started.elapsed() - charged);
        step
    }

    /// Ends an event that exceeded a budget; one that exceeded the VM's memory takes the VM with
    /// it.
    pub(super) fn end_doomed(&mut self, core: &mut Core, event: u64, doom: Doom) {
        if matches!(doom, Doom::Memory(_)) {
            self.record_doom(core, event, doom);
            self.end_life(event);
            self.answer(core, event, Err(DispatchError::Script(doom.to_string())));
            if let Some(vm) = self.events.get(&event).map(|event| event.vm.clone()) {
                self.discard_vm(core, &vm, MEMORY_USED_UP, Some(event));
            }
        } else {
            self.kill_event(core, event, doom);
        }
    }

    fn settle(
        &mut self,
        core: &mut Core,
        id: u64,
        outcome: Outcome,
        result: Option<DispatchResult>,
        failed: Option<String>,
    ) -> Step {
        match outcome {
            Outcome::Preempted => {
                core.gauges.preemptions.inc();
                return Step::Preempted;
            }
            Outcome::Parked => self.park(core, id),
            Outcome::Called(op, args) => self.call(core, id, op, args),
            Outcome::Finished(_) => {
                let ended = self.tasks.get(id).filter(|task| !task.is_seen);
                let vm = ended.and_then(|task| self.events.get(&task.event)).map(|event| &event.vm);
                if let (Some(task), Some(vm)) = (ended, vm) {
                    vm.reuse(task.thread.clone());
                }
                self.finish(core, id, result, failed);
            }
            Outcome::Failed(_) => self.finish(core, id, result, failed),
        }
        Step::Done
    }

    /// What an event was submitted as.
    fn request_id(&self, event: u64) -> Option<RequestId> {
        self.events.get(&event).map(|event| event.request_id)
    }

    /// A task has ended: `result` is that of its event, if it was the handler, and `failed` what it
    /// raised.
    fn finish(
        &mut self,
        core: &mut Core,
        id: u64,
        result: Option<DispatchResult>,
        failed: Option<String>,
    ) {
        let Some(event) = self.tasks.get(id).map(|task| task.event) else { return };
        match result {
            Some(result) => {
                if let Err(DispatchError::Script(text)) = &result {
                    self.record_error(core, event, text);
                }
                self.answer(core, event, result);
            }
            None => {
                if let Some(text) = failed {
                    let line = format!("a task failed: {text}");
                    self.log.write(Level::Warn, self.request_id(event), &line);
                    self.record_error(core, event, &text);
                }
                if let Some(event) = self.events.get(&event) {
                    event.meter.end();
                }
            }
        }
        self.remove_tasks(core, &[id]);
        self.end_event_without_tasks(core, event);
    }

    /// A task yielded by itself: it is no longer the executor's, until something wakes it. A
    /// handler stays the event's.
    fn park(&mut self, core: &mut Core, id: u64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.updating.is_some() {
            task.next = Next::Error(WAITS_IN_UPDATE);
            return;
        }
        let event = task.event;
        if self.events.get(&event).is_some_and(|event| event.handler == id) {
            task.wait = Wait::Parked;
            self.tasks.pause();
            self.pause(core, event);
        } else {
            self.remove_tasks(core, &[id]);
            self.end_event_without_tasks(core, event);
        }
    }

    /// Takes the running task off the top; it waits.
    pub(super) fn wait(&mut self, core: &mut Core, id: u64, wait: Wait) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.wait = wait;
        let event = task.event;
        self.tasks.pause();
        self.pause(core, event);
    }

    /// An event waits, perhaps for the first time: from now on its wall time needs a timer.
    fn pause(&mut self, core: &mut Core, event_id: u64) {
        let Some(event) = self.events.get_mut(&event_id) else { return };
        event.running_since = None;
        if event.wall.is_none() {
            event.wall =
                Some(core.timers.add(event.meter.wall_deadline, self.id, Due::Wall(event_id)));
        }
    }

    /// A task that waited can go on.
    pub(super) fn make_ready(&mut self, id: u64, next: Next) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.wait = Wait::Nothing;
            task.next = next;
            self.tasks.make_ready(id);
        }
    }

    /// Takes tasks out of everything.
    pub(super) fn remove_tasks(&mut self, core: &mut Core, ids: &[u64]) {
        // None of them may be given a lock that another of them gives back.
        let mut waits = Vec::new();
        for id in ids {
            let lock = self.tasks.get_mut(*id).and_then(Task::take_lock);
            waits.extend(lock.map(|(record, ..)| (record, *id)));
        }
        let granted = self.locks.forget(&waits);
        self.start_granted(core, granted);
        self.tasks.halt(ids);
        ids.iter().for_each(|id| self.take_out(core, *id));
    }

    /// Takes a task that neither runs nor is about to, nor waits for a lock, out of the rest.
    fn take_out(&mut self, core: &mut Core, id: u64) {
        let Some(task) = self.tasks.remove(id) else { return };
        match task.wait {
            Wait::Time { timer, .. } => core.timers.remove(timer),
            Wait::Io(_, Some(turn)) => self.forget_io(core, turn),
            // The lease of an operation under way is given back when that is done.
            Wait::Io(_, None) | Wait::Lock(..) | Wait::Parked | Wait::Nothing => {}
        }
        if let Some(update) = task.updating {
            self.release(core, Some(update.lease));
        }
        if let Some(event) = self.events.get_mut(&task.event) {
            event.tasks -= 1;
        }
    }

    fn end_event_without_tasks(&mut self, core: &mut Core, id: u64) {
        if self.events.get(&id).is_some_and(|event| event.tasks == 0) {
            self.end_event(core, id);
        }
    }

    fn act(&mut self, core: &mut Core, event: u64, action: HostAction) {
        match action {
            HostAction::Cancel(thread) => {
                if let Some(id) = self.tasks.of_thread(&thread) {
                    self.finish(core, id, None, None);
                }
            }
            HostAction::Delay { seconds, thread, args } => {
                let next = Next::Values(args);
                let Some(id) = self.adopt(event, thread, next) else {
                    let text = "task.delay or task.defer was given a coroutine that waits already";
                    self.log.write(Level::Warn, self.request_id(event), text);
                    return;
                };
                if seconds > 0.0 {
                    let at = core.now() + core.time(seconds);
                    let timer = core.timers.add(at, self.id, Due::Wake(id));
                    if let Some(task) = self.tasks.get_mut(id) {
                        task.wait = Wait::Time { timer, since: None };
                    }
                } else {
                    self.tasks.make_ready(id);
                }
            }
        }
    }

    /// Makes a coroutine a task of an event, or takes up a handler that yielded by itself; not one
    /// that waits.
    pub(super) fn adopt(&mut self, event: u64, thread: Thread, next: Next) -> Option<u64> {
        if let Some(id) = self.tasks.of_thread(&thread) {
            let task = self.tasks.get_mut(id).filter(|task| matches!(task.wait, Wait::Parked))?;
            task.wait = Wait::Nothing;
            task.next = next;
            return Some(id);
        }
        self.events.get_mut(&event)?.tasks += 1;
        Some(self.tasks.add(thread, event, next))
    }

    /// The time that a task waited for is over.
    pub(super) fn wake_from_time(&mut self, core: &Core, id: u64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Wait::Time { since, .. } = task.wait else { return };
        task.wait = Wait::Nothing;
        if let Some(since) = since {
            let waited = Value::Number((core.now() - since).as_secs_f64());
            task.next = super::tenant::yes([waited]);
        }
        self.tasks.make_ready(id);
    }
}

fn resume_thread(vm: &Vm, task: &mut Task) -> mlua::Result<MultiValue> {
    match std::mem::take(&mut task.next) {
        Next::Nothing => task.thread.resume(()),
        Next::Values(values) => task.thread.resume(values),
        Next::Reply(reply, output, charge) => {
            // From here on it counts as what the VM makes of it.
            drop(charge);
            let values = api::reply(&vm.lua, &vm.host, &reply, output)?;
            task.thread.resume(values)
        }
        Next::Failure(message) => {
            let values = (false, message).into_lua_multi(&vm.lua)?;
            task.thread.resume(values)
        }
        Next::Error(message) => task.thread.resume_error(message),
    }
}

fn encode(vm: &Vm, value: &Value, gauges: &Gauges) -> Result<EncodedValue, DispatchError> {
    value_from_luau(&vm.lua, value, RESULT_MAX_BYTES).map_err(|error| {
        if matches!(error.kind(), ConvertErrorKind::TooLarge(_)) {
            gauges.large_answers.inc();
        }
        DispatchError::Script(format!("the result: {}", vm.host.convert_failed(&error)))
    })
}
