//! One executor: the thread that runs some of the tenants, fairly.
//!
//! Tenants with work take turns. A turn ends when the tenant has nothing more to do or after a slice; who is next is up to
//! the `lanes`. Owns its tenants and their VMs, which never leave its thread. Wake-ups: its inbox.

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
use super::lanes::{Lanes, Usage};
use super::mailbox::{Mailbox, Message};
use super::templates::Templates;
use super::tenant::{Step, Tenant};
use super::ticker::Tick;
use super::timers::Timers;
use crate::model::{Answer, DispatchResult, TenantId, Ticket};
use crate::runtime::TenantStates;
use crate::thread::{cpu_time, panic_message};

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
    tenants: HashMap<TenantId, Place>,
    lanes: Lanes,
    watch: Stopwatch,
    inbox: VecDeque<Message>,
    tick: Tick,
    stopping: Arc<AtomicBool>,
}

/// A tenant and its place among the others.
struct Place {
    tenant: Tenant,
    /// It is in one of the lanes.
    queued: bool,
    usage: Usage,
}

/// What a turn took by the processor time of this thread: on a busy machine the clock shows other threads' time too, and
/// nobody shall be blamed for that. Asking for it costs as much as a small turn, so it is asked for seldom.
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
pub(super) fn run(parts: ExecutorParts) {
    let ExecutorParts { limits, mailbox, io, templates, states, gauges, tick, stopping } = parts;
    // Whatever ends this thread: nobody may wait for it afterwards.
    let _closed = CloseOnDrop(mailbox.clone());
    let lanes = Lanes::new(limits.slice);
    let control = Control::new(limits, tick.clone(), stopping.clone());
    let core =
        Core { control, timers: Timers::default(), mailbox, io, templates, states, gauges, answered: Vec::new() };
    let mut executor = Executor {
        core,
        tenants: HashMap::new(),
        lanes,
        watch: Stopwatch::new(),
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
        if !self.lanes.has_turn(Instant::now()) {
            self.tick.idle();
            gauges.idle();
            let due = timers.next().into_iter().chain(self.lanes.due()).min();
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
        while let Some((tenant, due)) = self.core.timers.take_due(now) {
            self.with_tenant(tenant, |tenant, core| tenant.due(core, due));
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit { tenant, ticket, job, answer } => {
                self.tenants.entry(tenant).or_insert_with(|| Place {
                    tenant: Tenant::new(tenant),
                    queued: false,
                    usage: Usage::new(Instant::now()),
                });
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
        let Some(place) = self.tenants.get_mut(&id) else { return };
        place.queued = place.tenant.has_work(&self.core);
        if place.queued {
            let standing = place.usage.standing(Instant::now(), self.core.limits().slice);
            self.lanes.push(id, standing);
            return;
        }
        place.usage.rest();
        if place.tenant.is_gone() {
            self.tenants.remove(&id);
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
            let step = catch_unwind(AssertUnwindSafe(|| tenant.step(core))).unwrap_or_else(|payload| {
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
        for place in self.tenants.values_mut() {
            place.tenant.drop_all(&mut self.core, Doom::Stopping);
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
