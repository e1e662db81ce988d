//! What an executor is doing and has done, for callers on other threads.
//!
//! Written by the executor, read for health reports and metrics. Cheap to write: an addition that
//! no other thread makes, or a lock that is the executor's own and nearly never contended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::io::{Asked, CallTo};
use crate::base::labels::OutcomeCounters;
use crate::base::limits::BUSIEST_TOLD;
use crate::base::metrics::{Counter, Histogram};
use crate::base::sync::Lock;
use crate::dispatch::busiest::Busiest;
use crate::wire::data::{Budget, DbCall, Dropped, RuntimeFigures, TenantId};

/// The figures of one executor.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// VMs alive, by tenant: while a template changes one may have two. Touched when a VM is made
    /// and when it ends.
    vms: Lock<HashMap<TenantId, u32>>,
    waiting_events: AtomicU64,
    coroutines: AtomicU64,
    /// Events that were started.
    pub(super) events: Counter,
    /// VMs that were thrown away with what ran in them.
    pub(super) discarded_vms: Counter,
    /// VMs in which nothing ran that were closed.
    pub(super) evicted_vms: Counter,
    pub(super) panics: Counter,
    pub(super) preemptions: Counter,
    /// Events, and tasks that they left, that ended with an error.
    pub(super) script_errors: Counter,
    /// Results that did not fit into a message.
    pub(super) large_answers: Counter,
    /// Lines beyond what a tenant may log.
    pub(super) dropped_log_lines: Counter,
    budgets: OutcomeCounters<Budget>,
    warnings: OutcomeCounters<Budget>,
    dropped: OutcomeCounters<Dropped>,
    running: Histogram,
    wall: Histogram,
    /// By running time.
    busiest: Busiest,
    db: [DbCounts; DbCall::ALL.len()],
    activity: Lock<Activity>,
}

/// Calls to the database of one kind.
#[derive(Debug, Default)]
struct DbCounts {
    took: Histogram,
    failed: Counter,
}

/// What there is of a tenant on an executor, in the figures that go up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    /// Events that have come and not started.
    pub(super) waiting_events: usize,
    /// Coroutines of events that have not ended.
    pub(super) coroutines: usize,
}

#[derive(Debug, Default)]
struct Activity {
    /// Since when it has been away from its loop; nothing while it waits for work.
    away_since: Option<Instant>,
    /// The tenant and the event that run, and since when.
    running: Option<(TenantId, Arc<str>, Instant)>,
}

impl Gauges {
    pub(super) fn vm_made(&self, tenant: TenantId) {
        *self.vms.lock().entry(tenant).or_default() += 1;
    }

    pub(super) fn vm_closed(&self, tenant: TenantId) {
        let mut vms = self.vms.lock();
        if let Some(count) = vms.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                vms.remove(&tenant);
            }
        }
    }

    /// An event and all its tasks have ended.
    pub(super) fn event_ended(&self, tenant: TenantId, running: Duration, started: Instant) {
        let now = Instant::now();
        self.running.observe(running);
        self.wall.observe(now.saturating_duration_since(started));
        self.busiest.record(tenant, running, now);
    }

    /// A template exceeded a bound.
    pub(super) fn exceeded(&self, budget: Budget) {
        self.budgets.add(budget, 1);
    }

    /// A tenant was warned of a bound.
    pub(super) fn warned(&self, budget: Budget) {
        self.warnings.add(budget, 1);
    }

    /// So many things of a tenant's were dropped.
    pub(super) fn dropped(&self, kind: Dropped, count: u64) {
        self.dropped.add(kind, count);
    }

    /// A call has come to its end; one to the database counts here.
    pub(super) fn db_called(&self, asked: Asked, has_failed: bool) {
        let CallTo::Db(call) = asked.to else { return };
        let counts = &self.db[call as usize];
        counts.took.observe(asked.at.elapsed());
        if has_failed {
            counts.failed.inc();
        }
    }

    /// There is now so much of a tenant; `shown` is what the figures had of it.
    pub(super) fn show(&self, shown: &mut Load, now: Load) {
        let change = |figure: &AtomicU64, before: usize, now: usize| {
            if before != now {
                // Two's complement: adding the difference takes away what is less now.
                figure.fetch_add((now as u64).wrapping_sub(before as u64), Ordering::Relaxed);
            }
        };
        change(&self.waiting_events, shown.waiting_events, now.waiting_events);
        change(&self.coroutines, shown.coroutines, now.coroutines);
        *shown = now;
    }

    /// VMs alive.
    pub(super) fn vms(&self) -> u64 {
        self.vms.lock().values().map(|count| u64::from(*count)).sum()
    }

    /// Whether a tenant has a VM.
    pub(super) fn has_vm(&self, tenant: TenantId) -> bool {
        self.vms.lock().contains_key(&tenant)
    }

    /// Adds what was counted here.
    pub(super) fn add_to(&self, sum: &mut RuntimeFigures) {
        sum.evicted_vms += self.evicted_vms.get();
        sum.discarded_vms += self.discarded_vms.get();
        sum.waiting_events += self.waiting_events.load(Ordering::Relaxed);
        sum.coroutines += self.coroutines.load(Ordering::Relaxed);
        sum.preemptions += self.preemptions.get();
        sum.panics += self.panics.get();
        sum.script_errors += self.script_errors.get();
        sum.large_answers += self.large_answers.get();
        sum.dropped_log_lines += self.dropped_log_lines.get();
        sum.running.add(&self.running.snapshot());
        sum.wall.add(&self.wall.snapshot());
        let busiest = self.busiest.report(BUSIEST_TOLD, Instant::now());
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        sum.busiest.extend(
            busiest.tenants.iter().map(|share| (share.tenant, share.events, us(share.took))),
        );
        sum.busiest_us += us(busiest.took);
        for budget in Budget::ALL {
            *sum.budget_mut(budget) += self.budgets.get(budget);
            *sum.warnings_mut(budget) += self.warnings.get(budget);
        }
        for kind in Dropped::ALL {
            *sum.dropped_mut(kind) += self.dropped.get(kind);
        }
        for (call, counted) in DbCall::ALL.into_iter().zip(&self.db) {
            let sum = sum.db_mut(call);
            sum.failed += counted.failed.get();
            sum.took.add(&counted.took.snapshot());
        }
    }

    /// The executor is at the top of its loop and has work.
    pub(super) fn at_loop(&self, now: Instant) {
        self.activity.lock().away_since = Some(now);
    }

    /// The executor waits for work.
    pub(super) fn idle(&self) {
        *self.activity.lock() = Activity::default();
    }

    /// An event is about to run; it has done so without a pause since `since`, preemptions aside.
    pub(super) fn run(&self, tenant: TenantId, event: &Arc<str>, since: Instant) {
        self.activity.lock().running = Some((tenant, event.clone(), since));
    }

    /// What ran has paused or ended.
    pub(super) fn pause(&self) {
        self.activity.lock().running = None;
    }

    /// How long the executor has been away from its loop.
    pub(super) fn away_for(&self, now: Instant) -> Duration {
        self.activity
            .lock()
            .away_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What runs, and for how long without a pause.
    pub(super) fn running(&self, now: Instant) -> Option<(TenantId, String, Duration)> {
        let (tenant, event, since) = self.activity.lock().running.clone()?;
        Some((tenant, event.to_string(), now.saturating_duration_since(since)))
    }
}
