//! One executor: the thread that runs some of the tenants, fairly.
//!
//! Tenants with work take turns. A turn ends when the tenant has nothing more to do or after a slice. There are two
//! lanes: who used its turn up goes into the heavy one, everybody else into the light one, and while both have work they
//! get equal time. So a tenant that loops, or ten of them, cost the others at most every other slice, and a short event
//! waits for one slice at most. Owns its tenants and their VMs, which never leave its thread. Wake-ups: its inbox.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::budget::Doom;
use super::config::LuauLimits;
use super::control::Control;
use super::gauges::Gauges;
use super::io::IoQueue;
use super::mailbox::{Mailbox, Message};
use super::templates::Templates;
use super::tenant::{Step, Tenant};
use super::ticker::Tick;
use super::timers::Timers;
use crate::model::{Answer, DispatchResult, TenantId, Ticket};
use crate::runtime::TenantStates;
use crate::thread::panic_message;

/// What an executor is made of; everything in it can go to another thread.
pub(super) struct ExecutorParts {
    pub(super) limits: LuauLimits,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) io: IoQueue,
    pub(super) templates: Arc<Templates>,
    pub(super) states: Arc<dyn TenantStates>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) tick: Tick,
    pub(super) stopping: Arc<AtomicBool>,
}

/// What its tenants need of an executor.
pub(super) struct Core {
    pub(super) control: Rc<Control>,
    pub(super) timers: Timers,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) io: IoQueue,
    pub(super) templates: Arc<Templates>,
    pub(super) states: Arc<dyn TenantStates>,
    pub(super) gauges: Arc<Gauges>,
    answered: Vec<Ticket>,
}

impl Core {
    pub(super) fn limits(&self) -> &LuauLimits {
        self.control.limits()
    }

    /// Delivers an answer, and lets its ticket be forgotten.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer, result: DispatchResult) {
        self.answered.push(ticket);
        answer.send(result);
    }

    /// A script's seconds as a duration: what is no time is none, and what outlasts every event is just that.
    pub(super) fn time(&self, seconds: f64) -> Duration {
        let longest = self.limits().wall * 2;
        Duration::try_from_secs_f64(seconds)
            .map_or(if seconds > 0.0 { longest } else { Duration::ZERO }, |time| time.min(longest))
    }
}

/// An executor, on its thread.
struct Executor {
    core: Core,
    // Limit: tenants of this worker; one goes when its VM has been closed and nothing waits.
    tenants: HashMap<TenantId, (Tenant, bool)>,
    light: VecDeque<TenantId>,
    heavy: VecDeque<TenantId>,
    /// How long the light lane has run since the heavy one last did.
    light_ran: Duration,
    inbox: VecDeque<Message>,
    tick: Tick,
    stopping: Arc<AtomicBool>,
}

/// Runs an executor until it is told to stop.
pub(super) fn run(parts: ExecutorParts) {
    let ExecutorParts { limits, mailbox, io, templates, states, gauges, tick, stopping } = parts;
    // Whatever ends this thread: nobody may wait for it afterwards.
    let _closed = CloseOnDrop(mailbox.clone());
    let control = Control::new(limits, tick.clone(), stopping.clone());
    let core =
        Core { control, timers: Timers::default(), mailbox, io, templates, states, gauges, answered: Vec::new() };
    let mut executor = Executor {
        core,
        tenants: HashMap::new(),
        light: VecDeque::new(),
        heavy: VecDeque::new(),
        light_ran: Duration::ZERO,
        inbox: VecDeque::new(),
        tick,
        stopping,
    };
    while !executor.stopping.load(Ordering::Relaxed) {
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
        let Core { mailbox, timers, gauges, answered, .. } = &mut self.core;
        if self.light.is_empty() && self.heavy.is_empty() {
            self.tick.idle();
            gauges.idle();
            mailbox.wait(timers.next(), &mut self.inbox, answered);
            self.tick.busy();
        } else {
            mailbox.take(&mut self.inbox, answered);
        }
        let now = Instant::now();
        self.core.gauges.at_loop(now);
        while let Some(message) = self.inbox.pop_front() {
            self.handle(message);
        }
        while let Some((tenant, due)) = self.core.timers.take_due(now) {
            self.with_tenant(tenant, |tenant, core| tenant.due(core, due));
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit { tenant, ticket, job, answer } => {
                self.tenants.entry(tenant).or_insert_with(|| (Tenant::new(tenant), false));
                self.with_tenant(tenant, |tenant, core| tenant.submit(core, ticket, job, answer));
            }
            Message::Cancel { tenant, ticket } => {
                self.with_tenant(tenant, |tenant, core| tenant.cancel(core, ticket));
            }
            Message::Io(done) => self.with_tenant(done.tenant, |tenant, core| tenant.io_done(core, done)),
        }
    }

    /// Does something with a tenant, outside its turn, and sees to it that it gets one if it needs one.
    fn with_tenant(&mut self, id: TenantId, act: impl FnOnce(&mut Tenant, &mut Core)) {
        let Some((tenant, queued)) = self.tenants.get_mut(&id) else { return };
        let core = &mut self.core;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| act(tenant, core))) {
            after_panic(tenant, core, payload.as_ref());
        }
        if tenant.is_gone() && !*queued {
            self.tenants.remove(&id);
        } else if !*queued && tenant.has_work(&self.core) {
            *queued = true;
            self.light.push_back(id);
        }
    }

    /// Gives the next tenant its turn.
    fn turn(&mut self) {
        let slice = self.core.limits().slice;
        let is_heavy = self.light.is_empty() || (!self.heavy.is_empty() && self.light_ran >= slice);
        let lane = if is_heavy { &mut self.heavy } else { &mut self.light };
        let Some(id) = lane.pop_front() else { return };
        let Some((tenant, queued)) = self.tenants.get_mut(&id) else { return };
        let core = &mut self.core;

        let started = Instant::now();
        core.control.start_turn(started);
        let mut ran = Duration::ZERO;
        let is_used_up = loop {
            let step = catch_unwind(AssertUnwindSafe(|| tenant.step(core))).unwrap_or_else(|payload| {
                after_panic(tenant, core, payload.as_ref());
                Step::Done
            });
            ran = started.elapsed().max(ran);
            match step {
                Step::Idle => break false,
                Step::Preempted => break true,
                Step::Done if ran >= slice => break true,
                Step::Done => {}
            }
        };
        core.gauges.pause();
        self.light_ran = if is_heavy { Duration::ZERO } else { self.light_ran + ran };

        *queued = tenant.has_work(&self.core);
        if *queued {
            let lane = if is_used_up { &mut self.heavy } else { &mut self.light };
            lane.push_back(id);
        } else if tenant.is_gone() {
            self.tenants.remove(&id);
        }
    }

    /// Answers everything and closes the VMs.
    fn stop(&mut self) {
        self.tick.idle();
        for (tenant, _) in self.tenants.values_mut() {
            tenant.drop_all(&mut self.core, Doom::Stopping);
        }
        self.core.gauges.idle();
    }
}

/// A panic in a callback, or in us: the VM is in an unknown state and goes.
fn after_panic(tenant: &mut Tenant, core: &mut Core, payload: &(dyn std::any::Any + Send)) {
    log::error!("a panic while {} ran: {}", tenant.id, panic_message(payload));
    core.gauges.panicked();
    tenant.discard_vm(core, "of an internal error");
}
