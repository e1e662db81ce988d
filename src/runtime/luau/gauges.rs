//! What an executor is doing, for whoever asks from another thread.
//!
//! Written by the executor, read for health reports and metrics. Cheap to write: the lock is the executor's own and
//! nearly never contended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::TenantId;

/// The figures of one executor.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    vms: AtomicU64,
    events: AtomicU64,
    discarded_vms: AtomicU64,
    evicted_vms: AtomicU64,
    panics: AtomicU64,
    preemptions: AtomicU64,
    activity: Mutex<Activity>,
}

#[derive(Debug, Default)]
struct Activity {
    /// Since when it has been away from its loop; nothing while it waits for work.
    away_since: Option<Instant>,
    running: Option<Running>,
}

#[derive(Debug, Clone)]
struct Running {
    tenant: TenantId,
    event: Arc<str>,
    since: Instant,
}

impl Gauges {
    pub(super) fn vm_made(&self) {
        self.vms.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn vm_closed(&self) {
        self.vms.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn vm_discarded(&self) {
        self.discarded_vms.fetch_add(1, Ordering::Relaxed);
    }

    /// A VM in which nothing ran was closed.
    pub(super) fn vm_evicted(&self) {
        self.evicted_vms.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn preempted(&self) {
        self.preemptions.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a coroutine has been preempted.
    #[cfg(test)]
    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions.load(Ordering::Relaxed)
    }

    pub(super) fn event_started(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// VMs alive.
    pub(super) fn vms(&self) -> u64 {
        self.vms.load(Ordering::Relaxed)
    }

    /// VMs that were closed because nothing ran in them.
    pub(super) fn evicted_vms(&self) -> u64 {
        self.evicted_vms.load(Ordering::Relaxed)
    }

    /// Events started so far.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// The executor is at the top of its loop and has work.
    pub(super) fn at_loop(&self, now: Instant) {
        self.lock().away_since = Some(now);
    }

    /// The executor waits for work.
    pub(super) fn idle(&self) {
        *self.lock() = Activity::default();
    }

    /// An event is about to run; it has done so without a pause since `since`, preemptions aside.
    pub(super) fn run(&self, tenant: TenantId, event: &Arc<str>, since: Instant) {
        self.lock().running = Some(Running { tenant, event: event.clone(), since });
    }

    /// What ran has paused or ended.
    pub(super) fn pause(&self) {
        self.lock().running = None;
    }

    /// How long the executor has been away from its loop.
    pub(super) fn away_for(&self, now: Instant) -> Duration {
        self.lock().away_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What runs, and for how long without a pause.
    pub(super) fn running(&self, now: Instant) -> Option<(TenantId, String, Duration)> {
        let running = self.lock().running.clone()?;
        Some((running.tenant, running.event.to_string(), now.saturating_duration_since(running.since)))
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
