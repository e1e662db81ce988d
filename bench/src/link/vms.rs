//! VMs alone: what it takes to make one, run an event in it and close it, and what one is while it
//! waits for the next event. And many tenants in turn, which is where that shows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use mesophyll::base::error::DbError;
use mesophyll::dispatch::{Answer, DispatchResult, Job, RequestId};
use mesophyll::pool::Subscriptions;
use mesophyll::runtime::luau::{LuauConfig, LuauRuntime, TemplateSource};
use mesophyll::runtime::{TemplateRuntime, TenantDb};
use mesophyll::wire::data::{DbAnswer, DbOp, MessageOutcome, TenantId, TenantMessage, TenantState};

use super::asked::{Kind, Load, Size};
use super::events::{Ours, Theirs};
use super::pair::{Pair, Side, Spec};
use super::{Runner, load, rate};
use crate::harness::{Contestant, Figure, Plan, Role};
use crate::peer::vm::{TEMPLATE, Vm};

/// Tenants that take turns where each has few events: more than have a VM at once by default.
const MANY_TENANTS: u64 = 10_000;

/// Tenants whose VMs are there and idle when memory is looked at.
const IDLE_TENANTS: u64 = 2000;

/// Events under way at once: enough that no thread sleeps between two.
const IN_FLIGHT: usize = 64;

/// Each tenant's first event and more, on a slow machine too.
const FILL_LASTING: Duration = Duration::from_secs(8);

/// The database of tenants that have nothing in it.
struct NoDb;

impl TenantDb for NoDb {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        Ok(HashMap::new())
    }

    fn ask(&self, _: DbOp) -> Result<DbAnswer, DbError> {
        Ok(DbAnswer::Record(None))
    }

    fn send(&self, _: TenantMessage) -> MessageOutcome {
        MessageOutcome::NotAllowed
    }
}

/// An event for each of so many tenants in turn, with room for one VM: each event makes a VM, and
/// closes that of the tenant before it.
pub(super) fn make(count: u64) -> Result<(), String> {
    let events = Load { tenants: count, ..load(Kind::Flight, Size::Tiny, IN_FLIGHT) };
    run(LuauConfig { max_vms: 1, ..LuauConfig::default() }, &events, count)
}

/// So many events of tenants whose VMs are there, without a link.
pub(super) fn echo(size: Size, count: u64) -> Result<(), String> {
    run(LuauConfig::default(), &load(Kind::Flight, size, IN_FLIGHT), count)
}

fn run(config: LuauConfig, load: &Load, count: u64) -> Result<(), String> {
    let events = Ours::new(load);
    let templates = TemplateSource::Files(vec![("main.luau".to_owned(), TEMPLATE.to_owned())]);
    let config = LuauConfig { templates, ..config };
    let subscriptions = Arc::new(Subscriptions::new(["*".to_owned()].into()));
    let runtime = LuauRuntime::start(config, Arc::new(NoDb), subscriptions)
        .map_err(|error| error.to_string())?;
    let (answers_tx, answers_rx) = bounded::<DispatchResult>(IN_FLIGHT);
    let take = || {
        let answer = answers_rx.recv().map_err(|error| error.to_string())?;
        answer.map(drop).map_err(|error| error.to_string())
    };
    for number in 0..count {
        if number >= IN_FLIGHT as u64 {
            take()?;
        }
        let (job, answer) =
            (Job::Dispatch(events.event(number)), Answer::channel(answers_tx.clone()));
        runtime.submit(events.tenant(number), RequestId(number), job, answer);
    }
    (0..count.min(IN_FLIGHT as u64)).try_for_each(|_| take())?;
    runtime.shutdown();
    Ok(())
}

/// The same by the peer's VM, without a thread in between.
fn make_theirs(count: u64) -> Result<(), String> {
    let events = Theirs::new(&load(Kind::Flight, Size::Tiny, 1));
    for number in 0..count {
        let vm = Vm::new().map_err(|error| error.to_string())?;
        vm.run(events.event(number).clone()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What one takes, in µs.
fn timed(make: fn(u64) -> Result<(), String>, lasting: Duration) -> Result<f64, String> {
    const BATCH: u64 = 200;
    let (begun, mut made) = (Instant::now(), 0);
    while begun.elapsed() < lasting {
        make(BATCH)?;
        made += BATCH;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / made as f64)
}

impl Runner<'_> {
    pub(super) fn vms(&mut self) -> Result<(), String> {
        let start = |role: Role, make: fn(u64) -> Result<(), String>| {
            let measure = move |_: usize, lasting: Duration| {
                Ok(vec![(Figure::Only("us"), timed(make, lasting)?)])
            };
            Contestant { role, measure: Box::new(measure) }
        };
        let contestants = vec![start(Role::Ours, make), start(Role::Async, make_theirs)];
        self.case("vm_start", 1, self.plan, contestants)?;
        self.memory_of_vms()?;
        self.many_tenants()
    }

    /// New processes for each round: what the VMs of the round before left is not in it.
    fn memory_of_vms(&mut self) -> Result<(), String> {
        let idle = |role: Role, side: Side| {
            let measure = move |_: usize, _: Duration| {
                let mut pair = Pair::start(Spec { is_luau: true, ..Spec::echo(side) })?;
                let (before, _) = pair.memory();
                let load = load(Kind::Flight, Size::Tiny, IN_FLIGHT);
                pair.run(&Load { lasting: FILL_LASTING, tenants: IDLE_TENANTS, ..load })?;
                let (after, _) = pair.memory();
                let each = after.saturating_sub(before) as f64 / IDLE_TENANTS as f64;
                Ok(vec![(Figure::Only("KiB"), each / 1024.0)])
            };
            Contestant { role, measure: Box::new(measure) }
        };
        let plan = Plan { rounds: self.plan.rounds.min(3), warm_up: Duration::ZERO, ..self.plan };
        let contestants = vec![idle(Role::Ours, Side::Ours), idle(Role::Async, Side::Peer)];
        self.case("vm_memory", 1, plan, contestants)
    }

    /// All VMs that find room are made before the first turn that counts.
    fn many_tenants(&mut self) -> Result<(), String> {
        const NAME: &str = "luau_10k_tenants";
        if !self.wants_any(&[NAME]) {
            return Ok(());
        }
        let load = Load { tenants: MANY_TENANTS, ..load(Kind::Flight, Size::Tiny, IN_FLIGHT) };
        let filled = |role: Role, side: Side| -> Result<_, String> {
            let mut pair = Pair::start(Spec { is_luau: true, ..Spec::echo(side) })?;
            pair.run(&Load { lasting: 2 * FILL_LASTING, ..load })?;
            let measure = move |_: usize, lasting: Duration| {
                let turn = pair.run(&Load { lasting, ..load })?;
                let peak = turn.peak_bytes as f64 / f64::from(1 << 20);
                Ok(vec![(Figure::Rate, rate(turn.outcome)), (Figure::PeakMemory, peak)])
            };
            Ok(Contestant { role, measure: Box::new(measure) })
        };
        let contestants = vec![filled(Role::Ours, Side::Ours)?, filled(Role::Async, Side::Peer)?];
        let plan = Plan { lasting: self.plan.lasting.max(Duration::from_secs(2)), ..self.plan };
        self.case(NAME, IN_FLIGHT, plan, contestants)
    }
}
