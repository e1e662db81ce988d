//! One executor: the thread that runs some of the tenants, fairly.
//!
//! Tenants with work take turns. A turn ends when the tenant has nothing more to do or after a
//! slice; which tenant is next is up to the `lanes`. Owns its tenants and their VMs, which never
//! leave its thread. Wake-ups: its inbox.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::budget::Doom;
use super::config::LuauLimits;
use super::control::Control;
use super::errors::ErrorLog;
use super::gauges::{Gauges, Load};
use super::io::IoPool;
use super::lanes::{LaneUsage, Lanes};
use super::mailbox::{Mailbox, MailboxMessage};
use super::templates::TemplateCache;
use super::tenant::{Step, Tenant};
use super::ticker::Tick;
use super::timers::Timers;
use super::vm_slots::{VmSlot, VmSlots};
use crate::base::clock::ScriptClock;
use crate::base::limits::{VM_CLOSES_MAX, VM_WAIT_MAX};
use crate::base::rates::Rates;
use crate::base::thread::{cpu_time, panic_message};
use crate::dispatch::{Answer, DispatchResult, RequestId};
use crate::runtime::{TenantDb, TenantStates};
use crate::wire::data::sharding::Shard;
use crate::wire::data::{Budget, IdMap, TenantId};

/// What all executors of a runtime share.
pub(super) struct ExecutorShared {
    pub(super) limits: LuauLimits,
    pub(super) clock: ScriptClock,
    /// How many tenants of one executor may have a VM at once.
    pub(super) max_vms: usize,
    /// After this a VM in which nothing runs is closed.
    pub(super) vm_idle: Duration,
    pub(super) io: IoPool,
    pub(super) template_cache: Arc<TemplateCache>,
    pub(super) errors: ErrorLog,
    pub(super) may_warn: Rates<(TenantId, Budget)>,
    /// For what does not block.
    pub(super) db: Arc<dyn TenantDb>,
    pub(super) states: Arc<dyn TenantStates>,
    pub(super) stopping: Arc<AtomicBool>,
}

/// What its tenants need of an executor.
pub(super) struct Core {
    pub(super) shared: Arc<ExecutorShared>,
    pub(super) control: Rc<Control>,
    pub(super) timers: Timers,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) gauges: Arc<Gauges>,
    answered: Vec<RequestId>,
}

impl Core {
    pub(super) fn limits(&self) -> &LuauLimits {
        self.control.limits()
    }

    /// What time it is for scripts.
    pub(super) fn now(&self) -> Instant {
        self.control.clock().at(Instant::now())
    }

    /// Delivers an answer, and lets its request id be forgotten.
    pub(super) fn answer(&mut self, request_id: RequestId, answer: Answer, result: DispatchResult) {
        self.answered.push(request_id);
        answer.send(result);
    }

    /// Records an error of a template for its author.
    pub(super) fn record_error(&self, tenant: TenantId, template: &str, event: &str, text: &str) {
        self.gauges.script_errors.inc();
        self.shared.errors.record(tenant, template, event, text);
    }

    /// Records for a template's author that an event exceeded a budget; that it ends for another
    /// reason is no error of theirs.
    pub(super) fn record_doom(&self, tenant: TenantId, template: &str, event: &str, doom: Doom) {
        if let Some(budget) = doom.budget() {
            self.gauges.exceeded(budget);
            self.shared.errors.record(tenant, template, event, &doom.to_string());
        }
    }

    /// Tells a template's author that it comes near one of its bounds, unless that was done of
    /// late.
    pub(super) fn warn(&self, of: TenantId, at: (&str, &str), budget: Budget, used: &str) {
        if self.shared.may_warn.admits((of, budget), Instant::now()) {
            self.gauges.warned(budget);
            let (template, event) = at;
            self.shared.errors.record(of, template, event, &format!("warning: {used}"));
        }
    }

    /// A script's seconds as a duration: what is no time is none, and what outlasts every event is
    /// just that.
    pub(super) fn time(&self, seconds: f64) -> Duration {
        let longest = self.limits().wall * 2;
        Duration::try_from_secs_f64(seconds)
            .map_or(if seconds > 0.0 { longest } else { Duration::ZERO }, |time| time.min(longest))
    }
}

/// An executor, on its thread.
struct Executor {
    core: Core,
    // Limit: those with a VM, and those with something that waits or is under way.
    tenants: IdMap<TenantId, TenantPlace>,
    lanes: Lanes,
    watch: Stopwatch,
    slots: VmSlots,
    inbox: VecDeque<MailboxMessage>,
    /// The threads that wait until nothing runs.
    rests: Vec<Sender<Option<Instant>>>,
    tick: Tick,
}

/// A tenant and its place among the others.
struct TenantPlace {
    tenant: Tenant,
    /// It is in one of the lanes.
    queued: bool,
    slot: VmSlot,
    usage: LaneUsage,
    /// How much of it the gauges show.
    shown: Load,
}

/// What a turn took by the processor time of this thread: on a busy machine the clock shows other
/// threads' time too, and no tenant is to be blamed for that. Asking for it costs as much as a
/// small turn, so it is asked for seldom.
struct Stopwatch {
    at: Instant,
    processor: Duration,
}

impl Stopwatch {
    fn new() -> Self {
        Self { at: Instant::now(), processor: cpu_time() }
    }

    /// A turn starts.
    fn start(&mut self, now: Instant, slice: Duration) {
        if now - self.at > slice {
            (self.at, self.processor) = (now, cpu_time());
        }
    }

    /// What a turn took, by up to a slice too much, that by the clock has taken so long.
    fn took(&self, ran: Duration, slice: Duration) -> Duration {
        if ran <= slice { ran } else { ran.min(cpu_time() - self.processor) }
    }
}

/// Runs an executor until it is told to stop.
pub(super) fn run(
    shared: Arc<ExecutorShared>,
    mailbox: Arc<Mailbox>,
    gauges: Arc<Gauges>,
    tick: Tick,
) {
    // However this thread ends, no caller may wait for it afterwards.
    let _closed = CloseOnDrop(mailbox.clone());
    let (limits, clock) = (shared.limits.clone(), shared.clock.clone());
    let control = Control::new(limits, clock, tick.clone(), shared.stopping.clone());
    let (lanes, slots) = (Lanes::new(shared.limits.slice), VmSlots::new(shared.max_vms));
    let (timers, answered) = (Timers::default(), Vec::new());
    let mut executor = Executor {
        core: Core { shared, control, timers, mailbox, gauges, answered },
        tenants: IdMap::default(),
        lanes,
        watch: Stopwatch::new(),
        slots,
        inbox: VecDeque::new(),
        rests: Vec::new(),
        tick,
    };
    while !executor.core.shared.stopping.load(Ordering::Relaxed) {
        executor.receive();
        executor.turn();
    }
    executor.stop();
}

struct CloseOnDrop(Arc<Mailbox>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
        // Their answers answer when they are dropped.
        self.0.take(&mut VecDeque::new(), &mut Vec::new());
    }
}

impl Executor {
    /// Takes in what has arrived; waits for it if there is nothing else to do.
    ///
    /// Blocks: until a message comes or a timer is due; closing the inbox wakes it.
    fn receive(&mut self) {
        self.tell_rest();
        let Core { shared, control, mailbox, timers, gauges, answered, .. } = &mut self.core;
        if !self.lanes.has_turn(Instant::now()) {
            self.tick.idle();
            gauges.idle();
            let next_timer = control.clock().sleeps_until(timers.next());
            let dues = [next_timer, self.lanes.due(), self.slots.due(shared.vm_idle, VM_WAIT_MAX)];
            let due = dues.into_iter().flatten().min();
            mailbox.wait(due, &mut self.inbox, answered);
            self.tick.busy();
        } else {
            mailbox.take(&mut self.inbox, answered);
        }
        let now = Instant::now();
        self.core.gauges.at_loop(now);
        while let Some(message) = self.inbox.pop_front() {
            self.handle(message);
        }
        let script_now = self.core.control.clock().at(now);
        while let Some((tenant, due)) = self.core.timers.take_due(script_now) {
            self.with_tenant(tenant, |tenant, core| tenant.due(core, due));
        }
        self.check_slots(now);
    }

    /// Tells those that wait for it that nothing runs.
    fn tell_rest(&mut self) {
        if self.rests.is_empty() || !self.inbox.is_empty() {
            return;
        }
        if self.tenants.values().all(|place| !place.queued && place.tenant.io.is_idle()) {
            let next = self.core.timers.next();
            for rest_tx in self.rests.drain(..) {
                // It has room for one.
                let _ = rest_tx.try_send(next);
            }
        }
    }

    fn handle(&mut self, message: MailboxMessage) {
        match message {
            MailboxMessage::Submit { tenant, request_id, job, answer } => {
                self.tenants.entry(tenant).or_insert_with(|| TenantPlace {
                    tenant: Tenant::new(tenant, &self.core),
                    queued: false,
                    usage: LaneUsage::new(Instant::now()),
                    slot: VmSlot::None,
                    shown: Load::default(),
                });
                self.with_tenant(tenant, |tenant, core| {
                    tenant.submit(core, request_id, job, answer)
                });
            }
            MailboxMessage::Cancel { tenant, request_id } => {
                self.with_tenant(tenant, |tenant, core| tenant.cancel(core, request_id));
            }
            MailboxMessage::Template { tenant } => {
                self.with_tenant(tenant, |tenant, core| tenant.template_changed(core))
            }
            MailboxMessage::Shards(shards) => {
                let is_of = |tenant: &TenantId| shards.contains(Shard::of(*tenant));
                let tenants: Vec<_> = self.tenants.keys().copied().filter(is_of).collect();
                for tenant in tenants {
                    self.with_tenant(tenant, |tenant, core| {
                        tenant.drop_all(core, Doom::HandedOver)
                    });
                }
            }
            MailboxMessage::Rest(rest_tx) => self.rests.push(rest_tx),
            MailboxMessage::Io(done) => {
                if let Some(place) = self.tenants.get_mut(&done.tenant) {
                    place.usage.charge(Instant::now(), done.processor);
                }
                self.with_tenant(done.tenant, |tenant, core| tenant.io_done(core, done));
            }
        }
    }

    /// Does something with a tenant, outside its turn, and sees to it that it gets one if it needs
    /// one.
    fn with_tenant(&mut self, id: TenantId, act: impl FnOnce(&mut Tenant, &mut Core)) {
        let Some(place) = self.tenants.get_mut(&id) else { return };
        let core = &mut self.core;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| act(&mut place.tenant, core))) {
            after_panic(&mut place.tenant, core, payload.as_ref());
        }
        if !place.queued {
            self.enqueue(id);
        }
    }

    /// Puts a tenant that has work into its lane, and lets one go that has nothing left.
    fn enqueue(&mut self, id: TenantId) {
        if let Some(place) = self.tenants.get_mut(&id) {
            // Results that it took, and events that ended, made room.
            place.tenant.start_backlog(&mut self.core);
        }
        self.slot(id);
        self.queue(id);
    }

    fn queue(&mut self, id: TenantId) {
        let Some(place) = self.tenants.get_mut(&id) else { return };
        self.core.gauges.show(&mut place.shown, place.tenant.load());
        place.queued = place.tenant.has_work(&self.core);
        if place.queued {
            let standing = place.usage.standing(Instant::now(), self.core.limits().slice);
            self.lanes.push(id, standing);
            return;
        }
        place.usage.rest();
        if place.tenant.is_gone() {
            self.forget(id);
        }
    }

    /// Sees to it that a tenant that needs a VM may make one, and notes whether the one that it has
    /// is idle.
    fn slot(&mut self, id: TenantId) {
        let Some(place) = self.tenants.get_mut(&id) else { return };
        let (has, wants) = (place.tenant.vm.current().is_some(), place.tenant.wants_vm(&self.core));
        let is_idle = has && place.tenant.is_idle(&self.core);
        match place.slot {
            VmSlot::None if wants => self.find_slot(id),
            VmSlot::InLine(_) if !wants => self.leave_slot(id),
            VmSlot::Busy { .. } | VmSlot::Idle { .. } if !has && !wants => self.leave_slot(id),
            VmSlot::Busy { .. }
                if is_idle && (place.tenant.vm.is_asked() || !self.slots.line_is_empty()) =>
            {
                self.evict(id);
                // It is another tenant's turn; what this one was asked to leave waiting stands in
                // line too.
                if self.tenants.get(&id).is_some_and(|place| place.tenant.wants_vm(&self.core)) {
                    self.find_slot(id);
                }
            }
            VmSlot::Busy { taken, is_kept } if is_idle => {
                place.slot = self.slots.make_idle(id, (taken, is_kept), Instant::now())
            }
            VmSlot::Idle { taken, idle } if !is_idle => {
                place.slot = self.slots.make_busy(taken, idle)
            }
            _ => {}
        }
    }

    /// Finds a slot for a tenant, or a place in line.
    fn find_slot(&mut self, id: TenantId) {
        let mut slot = self.slots.take(id);
        if slot.is_none()
            && let Some(victim) = self.slots.victim()
        {
            self.close_vm(victim);
            slot = self.slots.take(id);
        }
        let (slot, asked) = match slot {
            Some(slot) => (slot, None),
            None => self.slots.join(id, Instant::now()),
        };
        self.set_slot(id, slot);
        if let Some(asked) = asked.and_then(|asked| self.tenants.get_mut(&asked)) {
            asked.tenant.vm.ask();
        }
    }

    fn set_slot(&mut self, id: TenantId, slot: VmSlot) {
        let Some(place) = self.tenants.get_mut(&id) else { return };
        place.slot = slot;
        place.tenant.vm.set_may_make(matches!(slot, VmSlot::Busy { .. }));
    }

    /// Takes a tenant's slot, or place in line, and lets the next ones in line have it.
    fn leave_slot(&mut self, id: TenantId) {
        let Some(place) = self.tenants.get_mut(&id) else { return };
        self.slots.leave(place.slot);
        self.set_slot(id, VmSlot::None);
        while let Some((next, slot)) = self.slots.admit() {
            self.set_slot(next, slot);
            // It has work now, and was in no lane: what stands in line has none.
            if self.tenants.get(&next).is_some_and(|place| !place.queued) {
                self.queue(next);
            }
        }
    }

    /// Closes a VM in which nothing runs; what is left of the tenant goes with its next step, or
    /// now.
    fn close_vm(&mut self, id: TenantId) {
        let Some(place) = self.tenants.get_mut(&id) else { return };
        place.tenant.evict(&mut self.core);
        self.slots.leave(place.slot);
        place.slot = VmSlot::None;
        place.tenant.vm.set_may_make(false);
        if place.tenant.is_gone() && !place.queued {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: TenantId) {
        if let Some(mut place) = self.tenants.remove(&id) {
            self.core.gauges.show(&mut place.shown, Load::default());
        }
    }

    /// Closes a VM in which nothing runs and lets the next one in line have its slot.
    fn evict(&mut self, id: TenantId) {
        if let Some(place) = self.tenants.get_mut(&id) {
            place.tenant.evict(&mut self.core);
        }
        self.leave_slot(id);
    }

    /// Closes VMs that have been idle for too long, and refuses what has waited for one for too
    /// long.
    fn check_slots(&mut self, now: Instant) {
        for _ in 0..VM_CLOSES_MAX {
            let Some(idle) = self.slots.idle_since(self.core.shared.vm_idle, now) else { break };
            self.close_vm(idle);
        }
        while let Some(waited) = self.slots.waited(VM_WAIT_MAX, now) {
            self.set_slot(waited, VmSlot::None);
            self.with_tenant(waited, |tenant, core| tenant.refuse_waiting(core));
        }
    }

    /// Gives the next tenant its turn.
    fn turn(&mut self) {
        let slice = self.core.limits().slice;
        let Some(turn) = self.lanes.next() else { return };
        let id = turn.tenant;
        let Some(place) = self.tenants.get_mut(&id) else {
            return self.lanes.ended(turn, Instant::now(), Duration::ZERO);
        };
        let (tenant, core) = (&mut place.tenant, &mut self.core);

        let started = Instant::now();
        self.watch.start(started, slice);
        core.control.start_turn(started, turn.gives_way);
        let ran = loop {
            let step =
                catch_unwind(AssertUnwindSafe(|| tenant.step(core))).unwrap_or_else(|payload| {
                    after_panic(tenant, core, payload.as_ref());
                    Step::Done
                });
            let ran = started.elapsed();
            if step != Step::Done || ran >= slice {
                break ran;
            }
        };
        core.gauges.pause();
        let (now, took) = (started + ran, self.watch.took(ran, slice));
        place.usage.add(now, took, slice);
        self.lanes.ended(turn, now, took);
        self.enqueue(id);
    }

    /// Answers everything and closes the VMs.
    fn stop(&mut self) {
        self.tick.idle();
        let left: usize = self.tenants.values().map(|place| place.tenant.tasks_left()).sum();
        if left > 0 {
            log::warn!(
                "{left} tasks that waited after the answer of their event end with the worker"
            );
        }
        for place in self.tenants.values_mut() {
            place.tenant.drop_all(&mut self.core, Doom::Stopping);
        }
        self.core.gauges.idle();
    }
}

/// A panic in a callback, or in us: the VM is in an unknown state and goes.
fn after_panic(tenant: &mut Tenant, core: &mut Core, payload: &(dyn std::any::Any + Send)) {
    log::error!(tenant:% = tenant.id; "a panic while {} ran: {}", tenant.id, panic_message(payload));
    core.gauges.panics.inc();
    tenant.discard_vms(core, "of an internal error");
}
