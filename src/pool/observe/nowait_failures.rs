//! Answers of events whose caller does not wait: a failure goes to the log, since no caller learns
//! of it.
//!
//! What was lost, so that it did not run or may not have, is collected for a moment and logged in
//! one line a tenant: when a worker dies, thousands may be lost at once. An event that ran and
//! failed is its author's concern, and is counted here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::error::DispatchError;
use crate::base::sync::Lock;
use crate::dispatch::{DispatchResult, EventWatcher, Request};
use crate::feeds::Feeds;
use crate::wire::data::TenantId;

/// How long losses are collected before they are logged.
const COLLECTED_FOR: Duration = Duration::from_secs(1);

/// Counts the failures of one worker's nowait events. Called from any thread.
///
/// Invariant: beside it only answers that are still to come hold the failures.
#[derive(Debug)]
pub(in crate::pool) struct NowaitFailures(Arc<Failures>);

#[derive(Debug)]
struct Failures {
    worker_id: usize,
    /// Where its tenants' authors read of what was lost, if here.
    feeds: Option<Arc<Feeds>>,
    scripts: AtomicU64,
    lost: Lock<LostEvents>,
}

/// Since when losses are collected, and how many there are of each tenant, by kind.
#[derive(Debug, Default)]
struct LostEvents {
    since: Option<Instant>,
    tenants: BTreeMap<TenantId, BTreeMap<&'static str, u64>>,
}

impl NowaitFailures {
    pub(in crate::pool) fn new(worker_id: usize, feeds: Option<Arc<Feeds>>) -> Self {
        let (scripts, lost) = (AtomicU64::new(0), Lock::default());
        Self(Arc::new(Failures { worker_id, feeds, scripts, lost }))
    }

    /// Watches the answer of a request if no caller waits for it.
    pub(in crate::pool) fn watch(&self, request: &mut Request) {
        request.answer.watch(request.tenant, || self.0.clone());
    }

    /// Logs what was lost, if it has been collected for long enough. For what comes round every few
    /// seconds: a supervision loop, or, for a worker in this process, those that ask for its
    /// report.
    pub(in crate::pool) fn log_lost(&self, now: Instant) {
        self.0.log_lost(now, COLLECTED_FOR);
    }

    /// Whether losses are collected that are not logged yet.
    #[cfg(all(test, feature = "worker"))]
    pub(in crate::pool) fn has_lost(&self) -> bool {
        self.0.lost.lock().since.is_some()
    }

    /// Logs what was lost, such as when its worker has ended.
    pub(in crate::pool) fn log_all_lost(&self) {
        self.0.log_lost(Instant::now(), Duration::ZERO);
    }

    /// Logs also what is lost because the process ends now: each event that has no answer yet.
    pub(in crate::pool) fn log_abandoned(&self) {
        self.log_all_lost();
        let (worker_id, count) = (self.0.worker_id, Arc::strong_count(&self.0) - 1);
        if count > 0 {
            log::warn!(worker = worker_id;
                "worker {worker_id}: {count} events that nobody waited for are lost: no answer came"
            );
        }
    }
}

impl EventWatcher for Failures {
    fn ended(&self, tenant: TenantId, result: DispatchResult) {
        match result {
            Ok(_) => {}
            Err(DispatchError::Script(_)) => self.script_failed(tenant),
            Err(error) => self.lose(tenant, &error),
        }
    }
}

impl Failures {
    fn script_failed(&self, tenant: TenantId) {
        let (worker_id, count) = (self.worker_id, self.scripts.fetch_add(1, Ordering::Relaxed) + 1);
        // Rate-limited by powers of two, and without the text, which a script may have written.
        if count.is_power_of_two() {
            log::warn!(worker = worker_id, tenant:% = tenant;
                "worker {worker_id}: {count} events that nobody waited for failed, the last one for {tenant}: script"
            );
        }
    }

    fn lose(&self, tenant: TenantId, error: &DispatchError) {
        let now = Instant::now();
        // Where nothing came round since, this loss brings the earlier ones to the log.
        self.log_lost(now, COLLECTED_FOR);
        let mut lost = self.lost.lock();
        lost.since.get_or_insert(now);
        *lost.tenants.entry(tenant).or_default().entry(error.kind()).or_default() += 1;
    }

    /// Logs what was lost, if it has been collected for so long.
    fn log_lost(&self, now: Instant, collected_for: Duration) {
        let mut lost = self.lost.lock();
        let age = lost.since.map(|since| now.saturating_duration_since(since));
        if age.is_none_or(|age| age < collected_for) {
            return;
        }
        let LostEvents { tenants, .. } = std::mem::take(&mut *lost);
        // Not under the lock: the log may block.
        drop(lost);
        let worker_id = self.worker_id;
        for (tenant, kinds) in tenants {
            let count: u64 = kinds.values().sum();
            let kinds: Vec<_> =
                kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let kinds = kinds.join(", ");
            log::warn!(worker = worker_id, tenant:% = tenant;
                "worker {worker_id}: {count} events for {tenant} that nobody waited for were lost: {kinds}"
            );
            if let Some(feeds) = &self.feeds {
                let text = format!("events that nobody waited for were lost: {kinds}");
                feeds.log(tenant, log::Level::Warn, &text);
            }
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        self.log_lost(Instant::now(), Duration::ZERO);
    }
}
