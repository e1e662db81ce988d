//! The calls that wait, on the tenant's side: time, tasks, and the database with the locks of its
//! records.

use std::collections::VecDeque;

use mlua::Value;

use super::api::{self, CallError, CallReply, PreparedCall};
use super::convert::number;
use super::executor::Core;
use super::io::{Asked, CallTo, IoOutput, IoPurpose};
use super::ops::CallOp;
use super::outside::{Charge, ChargeKind};
use super::task::{Next, Task, Update, Wait};
use super::tenant::{Tenant, yes};
use super::timers::Due;
use super::vm::Vm;
use crate::wire::data::{Dropped, HostError, HostOutcome};

/// Told to the function of a `KV:update` that tries to wait.
pub(super) const WAITS_IN_UPDATE: &str = "the function given to KV:update may not wait";

impl Tenant {
    /// The running task makes a call.
    pub(super) fn call(&mut self, core: &mut Core, id: u64, op: Option<CallOp>, args: Vec<Value>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (event, is_updating) = (task.event, task.updating.is_some());
        let Some(op) = op else { return self.fail(id, "no such call") };
        if is_updating && !matches!(op, CallOp::KvUpdateSet | CallOp::KvUpdateDrop) {
            return self.fail(id, WAITS_IN_UPDATE);
        }
        let Some(running) = self.events.get(&event) else { return };
        let (vm, depth) = (running.vm.clone(), running.depth);
        if let Err(doom) = running.meter.host_call(core.limits()) {
            return self.kill_event(core, event, doom);
        }
        match op {
            CallOp::Wait => self.call_wait(core, id, args.first()),
            CallOp::Spawn => self.call_spawn(id, event, args),
            CallOp::KvUpdateSet => {
                self.call_update_set(core, &vm, id, args.first().unwrap_or(&Value::Nil))
            }
            CallOp::KvUpdateDrop => {
                self.end_update(core, id);
                self.go_on(id, yes([]));
            }
            op => match api::prepare(&vm.lua, op, self.id, depth, &args, &core.shared.states) {
                Ok(call) => self.begin(core, &vm, id, call, None),
                Err(error) => self.call_failed(core, id, event, &error),
            },
        }
    }

    fn call_wait(&mut self, core: &mut Core, id: u64, seconds: Option<&Value>) {
        let seconds = seconds.and_then(number).unwrap_or_default();
        let now = core.now();
        let timer = core.timers.add(now + core.time(seconds), self.id, Due::Wake(id));
        self.wait(core, id, Wait::Time { timer, since: Some(now) });
    }

    /// The new task runs at once, above the one that spawned it; that one goes on when the new one
    /// waits.
    fn call_spawn(&mut self, id: u64, event: u64, mut args: Vec<Value>) {
        let thread = match args.first() {
            Some(Value::Thread(thread)) => thread.clone(),
            _ => return self.fail(id, "task.spawn needs a coroutine"),
        };
        args.remove(0);
        match self.adopt(event, thread, Next::Values(args.into())) {
            Some(spawned) => {
                self.go_on(id, yes([]));
                self.tasks.run(spawned);
            }
            None => self.fail(id, "cannot resume a coroutine that waits"),
        }
    }

    fn call_update_set(&mut self, core: &mut Core, vm: &Vm, id: u64, value: &Value) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let event = task.event;
        let Some(Update { lease, record }) = task.updating.take() else {
            return self.fail(id, "no update is under way");
        };
        match api::update_set(&vm.lua, self.id, record, value) {
            Ok(call) => self.begin(core, vm, id, call, Some(lease)),
            Err(error) => {
                self.release(core, Some(lease));
                self.call_failed(core, id, event, &error);
            }
        }
    }

    fn end_update(&mut self, core: &mut Core, id: u64) {
        if let Some(update) = self.tasks.get_mut(id).and_then(|task| task.updating.take()) {
            self.release(core, Some(update.lease));
        }
    }

    /// Starts a call of the running task, or has it wait for its record's lock, unless with what it
    /// holds until it is done the tenant would have more than its memory.
    fn begin(&mut self, core: &mut Core, vm: &Vm, id: u64, call: PreparedCall, lease: Option<u64>) {
        if !vm.host.pace.has_room(&vm.lua, call.bytes) {
            self.release(core, lease);
            return self.refuse(core, id, NO_ROOM);
        }
        let charge = self.outside.charge(ChargeKind::Call, call.bytes);
        let Some((record, mode)) = call.lock.clone() else {
            return self.start_call(core, id, call, charge, lease);
        };
        match self.locks.acquire(&record, mode, id) {
            Some(lease) => self.start_call(core, id, call, charge, Some(lease)),
            None => self.wait(core, id, Wait::Lock(record, call, charge)),
        }
    }

    fn start_call(
        &mut self,
        core: &mut Core,
        id: u64,
        call: PreparedCall,
        charge: Charge,
        lease: Option<u64>,
    ) {
        let asked = call.asked;
        if asked.to == CallTo::Host && !self.io.admits_host_call() {
            self.release(core, lease);
            return self.refuse(core, id, &HostError::new(HostOutcome::Busy).to_text());
        }
        if let Ok(turn) =
            self.start_io(core, IoPurpose::Task { task: id, lease, asked }, call.work, charge)
        {
            self.wait(core, id, Wait::Io(call.reply, turn));
            return;
        }
        core.gauges.db_called(asked, true);
        self.release(core, lease);
        self.refuse(core, id, BUSY);
    }

    /// An operation of a task is done.
    pub(super) fn call_done(
        &mut self,
        core: &mut Core,
        (id, lease, asked): (u64, Option<u64>, Asked),
        output: IoOutput,
        charge: Charge,
    ) {
        if !matches!(output, IoOutput::NotBegun) {
            core.gauges.db_called(asked, !output.is_answer());
        }
        let waited = self.tasks.get_mut(id).map(|task| std::mem::take(&mut task.wait));
        let reply = match waited {
            Some(Wait::Io(reply, _)) => reply,
            other => {
                // The task is gone; what it had locked is free again.
                debug_assert!(other.is_none(), "a task waits for one thing at a time");
                return self.release(core, lease);
            }
        };
        match (&reply, lease) {
            // The lock stays until the update's second half.
            (CallReply::UpdateValue(record), Some(lease)) if output.is_answer() => {
                let update = Update { lease, record: record.clone() };
                if let Some(task) = self.tasks.get_mut(id) {
                    task.updating = Some(update);
                }
            }
            (_, lease) => self.release(core, lease),
        }
        self.make_ready(id, Next::Reply(reply, output, charge));
    }

    /// The queue of the I/O threads was full when a task's operation came to its turn.
    pub(super) fn call_refused(
        &mut self,
        core: &mut Core,
        id: u64,
        lease: Option<u64>,
        asked: Asked,
    ) {
        core.gauges.db_called(asked, true);
        core.gauges.dropped(Dropped::Call, 1);
        self.release(core, lease);
        self.make_ready(id, Next::Failure(BUSY.to_owned()));
    }

    /// Gives a lock back, if one is held, and starts the calls that are next in line for it.
    pub(super) fn release(&mut self, core: &mut Core, lease: Option<u64>) {
        let Some(lease) = lease else { return };
        let granted = self.locks.release(lease);
        self.start_granted(core, granted);
    }

    /// Starts calls that have been given the lock that they waited for.
    pub(super) fn start_granted(&mut self, core: &mut Core, granted: Vec<(u64, u64)>) {
        let mut granted = VecDeque::from(granted);
        while let Some((id, lease)) = granted.pop_front() {
            let waited = self.tasks.get_mut(id).and_then(Task::take_lock);
            let Some((_, call, charge)) = waited else {
                granted.extend(self.locks.release(lease));
                continue;
            };
            let purpose = IoPurpose::Task { task: id, lease: Some(lease), asked: call.asked };
            if let Ok(turn) = self.start_io(core, purpose, call.work, charge) {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.wait = Wait::Io(call.reply, turn);
                }
            } else {
                core.gauges.db_called(call.asked, true);
                core.gauges.dropped(Dropped::Call, 1);
                self.make_ready(id, Next::Failure(BUSY.to_owned()));
                granted.extend(self.locks.release(lease));
            }
        }
    }

    fn call_failed(&mut self, core: &mut Core, id: u64, event: u64, error: &CallError) {
        let message = match error {
            CallError::Refused(message) => message.clone(),
            CallError::Convert(error) => match self.events.get(&event).map(|event| &event.vm) {
                Some(vm) => vm.host.convert_failed(error),
                None => error.to_string(),
            },
        };
        match core.control.doom() {
            Some(doom) => self.end_doomed(core, event, doom),
            None => self.fail(id, &message),
        }
    }

    /// The running task's call finds no room in the worker.
    fn refuse(&mut self, core: &Core, id: u64, message: &str) {
        core.gauges.dropped(Dropped::Call, 1);
        self.fail(id, message);
    }

    /// The running task's call fails: it goes on at once.
    fn fail(&mut self, id: u64, message: &str) {
        self.go_on(id, Next::Failure(message.to_owned()));
    }

    fn go_on(&mut self, id: u64, next: Next) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.next = next;
        }
    }
}

const NO_ROOM: &str = "not enough memory for the call: what waits outside the VM counts too; let earlier calls end first";

const BUSY: &str = "the worker has too many database operations waiting; try again later";
