//! What a master does on its workers when shards come and go: [`ShardTenants`] over a pool.
//!
//! Every worker is told which shards its master serves, whole and each time, so that one that was
//! away learns it when it is back. From that it starts and ends tenants by itself; no answer is
//! waited for, as what follows goes over the same link, and what a VM that is about to close still
//! writes is refused by the fence. Called by the threads of the coordination: some shards may come
//! while others leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::never;

use crate::base::error::DbError;
use crate::base::sync::Lock;
use crate::cluster::ShardTenants;
use crate::feeds::Feeds;
use crate::store::DbState;
use crate::wire::data::sharding::ShardSet;

use super::managed::Managed;
use super::observe::traffic::Traffic;

/// Between two looks at whether all that is under way was answered.
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

/// Limit: for what is ended to be answered so. Only a worker in this process that hangs takes it.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The tenants of a master's shards, on its workers.
pub struct PoolShards {
    db: Arc<DbState>,
    workers: Vec<Arc<dyn Managed>>,
    traffic: Arc<Traffic>,
    feeds: Arc<Feeds>,
    /// What the workers were told last.
    served: Lock<ShardSet>,
}

impl PoolShards {
    /// Over the workers of a master, whose jobs are counted in `traffic`; none of its shards are
    /// loaded yet.
    pub fn new(
        db: Arc<DbState>,
        workers: Vec<Arc<dyn Managed>>,
        traffic: Arc<Traffic>,
        feeds: Arc<Feeds>,
    ) -> Self {
        Self { db, workers, traffic, feeds, served: Lock::default() }
    }

    fn serve(&self, change: impl FnOnce(&ShardSet) -> ShardSet) {
        let mut served = self.served.lock();
        *served = change(&served);
        self.workers.iter().for_each(|worker| worker.serve_shards(&served));
    }

    /// Ends what can be ended, again and again: jobs may still be on their way to where it is.
    ///
    /// # Blocks
    /// Until nothing of these shards is unanswered, or `until`; false then.
    fn drain(&self, shards: &ShardSet, until: Instant, is_over: bool) -> bool {
        while self.traffic.has_unanswered(shards) {
            self.workers.iter().for_each(|worker| worker.leave_shards(shards, is_over));
            if Instant::now() >= until {
                return !self.traffic.has_unanswered(shards);
            }
            let _ = never::<()>().recv_timeout(DRAIN_PAUSE);
        }
        true
    }
}

impl ShardTenants for PoolShards {
    fn load(&self, shards: &ShardSet) -> Result<(), DbError> {
        self.feeds.take(shards);
        // The states first: those that are new are started by them.
        self.db.load_shards(shards)?;
        self.serve(|served| served.with(shards));
        Ok(())
    }

    fn leave(&self, shards: &ShardSet, deadline: Instant) {
        let is_drained = self.drain(shards, deadline, false);
        // A worker that starts now is not to get their states.
        self.db.forget_shards(shards);
        self.serve(|served| served.without(shards));
        self.feeds.leave(shards);
        if !is_drained && !self.drain(shards, Instant::now() + END_TIMEOUT, true) {
            log::warn!("events of tenants that were handed over have not ended yet");
        }
    }
}
