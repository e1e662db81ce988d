//! When a tenant's VM is made and how it ends: closed while nothing runs in it, left to what runs
//! in it because a template changed, or thrown away with what runs.
//!
//! Part of a tenant, on its executor; the executor says which tenants may have a VM (`vm_slots`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::budget::Doom;
use super::events::dispatch_error;
use super::executor::Core;
use super::host::Host;
use super::live_vm::LiveVm;
use super::memory::Collection;
use super::tenant::Tenant;
use super::vm::Vm;
use crate::base::error::DispatchError;
use crate::wire::data::Dropped;

/// Why a VM is thrown away whose live data is more than its limit.
pub(super) const MEMORY_USED_UP: &str = "another event used up its memory";

impl Tenant {
    /// Whether an event could start if there were a VM.
    pub(super) fn wants_vm(&self, core: &Core) -> bool {
        self.vm.current().is_none() && self.is_startable(core)
    }

    /// Whether the VM can be closed without being missed: nothing runs or waits in it, and
    /// nothing may start in it.
    pub(super) fn is_idle(&self, core: &Core) -> bool {
        self.vm.is_unused() && (self.vm.is_asked() || self.queue.is_empty()) && !self.has_work(core)
    }

    pub(super) fn make_vm(&mut self, core: &mut Core) -> Result<(), String> {
        let host = Host::new(
            self.id,
            &core.control,
            self.program.templates(),
            &core.shared.states,
            &self.log,
            &self.feed,
            &self.outside,
        );
        let made = catch_unwind(AssertUnwindSafe(|| Vm::new(&core.control, host)));
        if let Ok(Err(error)) = &made {
            log::error!(tenant:% = self.id; "no VM could be made for {}: {error}", self.id);
        }
        let vm = made.ok().and_then(Result::ok).ok_or("no VM could be made")?;
        self.vm.made(LiveVm::new(self.id, vm, &core.gauges));
        Ok(())
    }

    /// The VM is out of date: what runs in it finishes there, and the next event gets a new one.
    pub(super) fn retire(&mut self) {
        if self.vm.is_unused() {
            self.close_idle();
        } else if self.vm.retire() {
            self.collection.stop_idle();
        }
    }

    /// Closes a VM that is idle; the next event gets a new one.
    pub(super) fn evict(&mut self, core: &mut Core) {
        log::debug!(tenant:% = self.id; "the VM of {} was closed: nothing runs in it", self.id);
        self.close_idle();
        core.gauges.evicted_vms.inc();
        self.want_program(core);
    }

    /// Every VM has been in use for too long.
    pub(super) fn refuse_waiting(&mut self, core: &mut Core) {
        self.log_refused("every VM of the worker is in use");
        while let Some(waiting) = self.queue.pop() {
            let busy = "every VM of the worker is in use".to_owned();
            core.answer(waiting.request_id, waiting.answer, Err(DispatchError::Busy(busy)));
        }
    }

    /// Throws a VM away, with everything that runs in it: `why` is what the callers are told, and
    /// the author for each event but the one, if it is one, because of which it is done.
    pub(super) fn discard_vm(
        &mut self,
        core: &mut Core,
        vm: &Rc<LiveVm>,
        why: &str,
        because_of: Option<u64>,
    ) {
        log::info!(tenant:% = self.id; "the VM of {} was discarded: {why}", self.id);
        let error =
            DispatchError::Script(format!("ended, because the tenant's VM was discarded: {why}"));
        let runs_in_it = self.events.iter().filter(|(_, event)| Rc::ptr_eq(&event.vm, vm));
        let events: Vec<u64> = runs_in_it.map(|(id, _)| *id).collect();
        events.iter().for_each(|event| self.end_life(*event));
        for event in events.iter().filter(|event| Some(**event) != because_of) {
            core.gauges.dropped(Dropped::Event, 1);
            self.record(core, *event, &error.to_string());
        }
        events.iter().for_each(|event| self.answer(core, *event, Err(error.clone())));
        for event in events {
            self.remove_tasks(core, &self.tasks.of_event(event));
            self.end_event(core, event);
        }
        if self.vm.is_current(vm) {
            self.close_idle();
        }
        self.collection = Collection::default();
        core.gauges.discarded_vms.inc();
        self.want_program(core);
    }

    /// Throws every VM away, with everything that runs.
    pub(super) fn discard_vms(&mut self, core: &mut Core, why: &str) {
        for vm in self.vm.all() {
            self.discard_vm(core, &vm, why, None);
        }
        self.close_vms(core);
        self.want_program(core);
    }

    /// Ends everything: what waits, what runs, and the VM.
    pub(super) fn drop_all(&mut self, core: &mut Core, doom: Doom) {
        let (waiting, under_way) = self.io.calls();
        if waiting + under_way > 0 {
            let calls = format!(
                "{waiting} calls that waited, which are not made, and at most {under_way} under way"
            );
            log::info!(tenant:% = self.id; "{} ended with {calls}", self.id);
        }
        self.record_tasks_left(core, doom);
        let events: Vec<u64> = self.events.keys().copied().collect();
        // All of them first: one may be next in line for a lock that another gives back.
        events.iter().for_each(|event| self.end_life(*event));
        events.into_iter().for_each(|event| self.kill_event(core, event, doom));
        let stopped = "the worker stopped before the event ran";
        let error = match doom {
            Doom::Stopping => DispatchError::Busy(stopped.to_owned()),
            Doom::HandedOver => DispatchError::NotOwner,
            // To try it again is of no use: its caller is told as the callers of those that ran.
            doom => dispatch_error(doom),
        };
        while let Some(waiting) = self.queue.pop() {
            core.answer(waiting.request_id, waiting.answer, Err(error.clone()));
        }
        self.close_vms(core);
    }

    /// Tells the author of tasks of events that were answered; once for all of them.
    fn record_tasks_left(&self, core: &Core, doom: Doom) {
        let mut left = self.events.iter().filter(|(_, event)| event.answer.is_none());
        let count = left.clone().count();
        if let Some((id, _)) = left.next() {
            core.gauges.dropped(Dropped::Tasks, count as u64);
            let of = if count == 1 { String::new() } else { format!(" of {count} events") };
            let text = format!("tasks that the handler left were ended{of}: {doom}");
            self.record(core, *id, &text);
        }
    }

    /// Closes the VM in which no event runs.
    pub(super) fn close_idle(&mut self) {
        self.collection = Collection::default();
        // The next VM gets the template as it is then.
        self.program.forget();
        self.vm.close();
    }

    /// Closes every VM, and forgets what runs.
    pub(super) fn close_vms(&mut self, core: &mut Core) {
        self.remove_tasks(core, &self.tasks.ids());
        let events: Vec<u64> = self.events.keys().copied().collect();
        events.into_iter().for_each(|event| self.end_event(core, event));
        self.close_idle();
    }
}
