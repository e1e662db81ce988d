//! Broadcasts: an event of staff for every tenant that is subscribed to it, one tenant after the
//! other, at a pace that leaves room for others.
//!
//! Delivery is a dispatch like any other, so that bans, quarantine, queues and budgets hold for it,
//! and a tenant gets it at most once. One broadcast runs at a time, on a thread of its own
//! (`broadcast`) that sends and gives up; those that have answers count them. Of the last one the
//! figures are kept. Owned by the master, which stops it.

mod report;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

pub use self::report::{BroadcastOutcome, BroadcastReport, BroadcastState};
use self::run::{Broadcast, BroadcastRun};
use crate::base::labels::OutcomeCounters;
use crate::base::sync::Lock;
use crate::base::thread::{OwnedThread, spawn_watched};
use crate::dispatch::worker_like::WorkerLike;
use crate::store::DbState;
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{CreateEvent, TenantId};

/// Tells which tenants have a VM, as far as it learns that by a deadline.
pub type HaveVms = dyn Fn(&[TenantId], Instant) -> Vec<bool> + Send + Sync;

/// What a broadcast is to do.
#[derive(Debug, Clone)]
pub struct BroadcastOrder {
    /// Tells it from others; the same at all masters that have a part in it.
    pub id: String,
    /// What each tenant gets.
    pub event: CreateEvent,
    /// Only tenants that have a VM get it.
    pub only_live: bool,
    /// Tenants a second, for each worker.
    pub rate: u32,
    /// Only tenants of these shards get it.
    pub shards: ShardSet,
}

/// Why no broadcast was begun.
#[derive(Debug)]
pub enum BroadcastError {
    /// One is under way.
    UnderWay,
    /// The master stops.
    Stopping,
    /// The operating system refused a thread.
    Io(io::Error),
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::UnderWay => f.write_str("a broadcast is under way already"),
            BroadcastError::Stopping => f.write_str("the master stops"),
            BroadcastError::Io(error) => write!(f, "no thread for it: {error}"),
        }
    }
}

impl std::error::Error for BroadcastError {}

/// The broadcasts of a master.
pub struct Broadcasts {
    office: Arc<BroadcastOffice>,
    last: Lock<LastBroadcast>,
}

/// What every broadcast needs.
struct BroadcastOffice {
    pool: Arc<dyn WorkerLike>,
    db: Arc<DbState>,
    have_vms: Box<HaveVms>,
    ended: OutcomeCounters<BroadcastOutcome>,
}

#[derive(Default)]
struct LastBroadcast {
    is_over: bool,
    broadcast: Option<Arc<Broadcast>>,
    thread: Option<OwnedThread>,
}

impl Broadcasts {
    /// Broadcasts by dispatches to `pool`, which refuses what may not run.
    pub fn new(pool: Arc<dyn WorkerLike>, db: Arc<DbState>, have_vms: Box<HaveVms>) -> Self {
        let office = BroadcastOffice { pool, db, have_vms, ended: OutcomeCounters::default() };
        Self { office: Arc::new(office), last: Lock::default() }
    }

    /// Begins one, for the tenants whose own state names the event now.
    ///
    /// # Errors
    /// See [`BroadcastError`]; nothing is sent then.
    pub fn start(&self, order: BroadcastOrder) -> Result<BroadcastReport, BroadcastError> {
        // Held to the end, so that of two at once one begins.
        let mut last = self.last.lock();
        if last.is_over {
            return Err(BroadcastError::Stopping);
        }
        if last.broadcast.as_ref().is_some_and(|last| last.is_under_way()) {
            return Err(BroadcastError::UnderWay);
        }
        let waiting = self.office.db.subscribed_to(&order.event.name, &order.shards);
        let broadcast = Arc::new(Broadcast::new(order, waiting.len()));
        log::info!("{broadcast} begins for {} tenants", waiting.len());
        let run = BroadcastRun::new(&self.office, &broadcast, VecDeque::from(waiting));
        let ended = broadcast.clone();
        let thread = spawn_watched("broadcast", move || run.run(), move |_| ended.end());
        // The one before has ended, but for its last steps.
        last.thread = Some(thread.map_err(BroadcastError::Io)?);
        last.broadcast = Some(broadcast.clone());
        Ok(broadcast.report())
    }

    /// How the one stands that runs, or was the last; `None`: there was none.
    pub fn report(&self) -> Option<BroadcastReport> {
        self.last.lock().broadcast.as_ref().map(|last| last.report())
    }

    /// Has the one that runs send nothing more; what is under way is still answered.
    pub fn cancel(&self) {
        if let Some(last) = &self.last.lock().broadcast {
            last.cancel();
        }
    }

    /// How many tenants were done with how.
    pub fn outcomes(&self) -> &OutcomeCounters<BroadcastOutcome> {
        &self.office.ended
    }

    /// Ends the one that runs and joins its thread; none begins any more. Answers that come later
    /// are counted all the same.
    ///
    /// # Blocks
    /// Until the thread has ended, which may just be waiting for what workers say of their VMs: a
    /// second at most.
    pub fn stop(&self) {
        let thread = {
            let mut last = self.last.lock();
            last.is_over = true;
            last.broadcast.iter().for_each(|last| last.abandon());
            last.thread.take()
        };
        drop(thread);
    }
}

impl Drop for Broadcasts {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Broadcasts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broadcasts")
    }
}
