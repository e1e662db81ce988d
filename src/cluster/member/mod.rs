//! A master's part in its cluster: its lease, the shards that it takes and gives, and the thread
//! that sees to both.

mod assign;
#[cfg(test)]
mod fake;
mod helper;
mod machine;
#[cfg(test)]
mod tests;
mod thread;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::clock::boot_time;
use super::{ClusterFigures, ClusterMember, JoinError, ShardMoves, ShardTable, ShardTenants};
use crate::base::error::DbError;
use crate::base::limits::{CLUSTER_ANSWER_MAX, CLUSTER_NOTES_MAX};
use crate::base::metrics::{Counter, Histogram};
use crate::base::sync::{Lock, Signal};
use crate::base::thread::{OwnedThread, ThreadExit, spawn_watched};
use crate::store::lease::{ConnectCoordination, HeldShards, MasterId, MasterState, Membership};
use crate::wire::data::sharding::ShardSet;
use machine::ClusterMachine;
use thread::{ClusterNote, Coordinator, FirstJoin};

/// What the coordination thread shows.
#[derive(Default)]
struct SeenCluster {
    is_settled: bool,
    is_over: bool,
    lease_until: Option<Duration>,
    held: usize,
    draining: usize,
    wanted: usize,
    moves: ShardMoves,
    left_helpers: usize,
}

/// What the coordination thread shares with those that ask about it.
struct ClusterShared {
    seen: Lock<SeenCluster>,
    changed: Signal,
    renewals: Histogram,
    evicted: Counter,
    is_nudged: AtomicBool,
    gave_up: AtomicBool,
    on_give_up: Box<dyn Fn() + Send + Sync>,
}

impl ClusterShared {
    fn publish(&self, publish: impl FnOnce(&mut SeenCluster)) {
        publish(&mut self.seen.lock());
        self.changed.notify_all();
    }

    fn give_up(&self) {
        if !self.gave_up.swap(true, Ordering::AcqRel) {
            (self.on_give_up)();
        }
    }
}

/// A master's part in its cluster: its lease, and the thread that keeps it. Dropping it ends the
/// thread at once; what the master holds stays its own until its lease is over.
pub struct Cluster {
    table: Arc<ShardTable>,
    shared: Arc<ClusterShared>,
    notes_tx: Sender<ClusterNote>,
    thread: Lock<Option<OwnedThread>>,
}

impl Cluster {
    /// Joins. After that the master has a lease, and takes no shard before
    /// [`ClusterMember::start`]. `on_give_up` is called once, from any thread, when the master can no longer coordinate: its
    /// process is to end.
    ///
    /// # Blocks
    /// Until the database answered; for two leases while a master of the same name lives, and for
    /// one while the database does not answer.
    ///
    /// # Errors
    /// See [`JoinError`]; nothing is left running.
    pub fn join(
        connect: ConnectCoordination,
        membership: Membership,
        held: Arc<HeldShards>,
        drain_timeout: Duration,
        on_give_up: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, JoinError> {
        let (notes_tx, notes_rx) = bounded(CLUSTER_NOTES_MAX);
        let shared = Arc::new(ClusterShared {
            seen: Lock::default(),
            changed: Signal::new(),
            renewals: Histogram::default(),
            evicted: Counter::default(),
            is_nudged: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            on_give_up,
        });
        let nudge = nudge(shared.clone(), notes_tx.clone());
        let table = Arc::new(ShardTable::new(held, nudge));
        let machine = ClusterMachine::new(membership.clone(), drain_timeout, MasterId::random);
        let (told_tx, told_rx) = bounded(1);
        let now = Instant::now();
        let first_join = FirstJoin {
            told_tx,
            until: now + 2 * membership.lease,
            reachable_until: now + membership.lease,
        };
        let coordinator = Coordinator::new(
            membership,
            machine,
            table.clone(),
            shared.clone(),
            connect,
            notes_tx.clone(),
            notes_rx,
            first_join,
        );
        let (ended, ended_table) = (shared.clone(), table.clone());
        let on_exit = move |exit| {
            if let ThreadExit::Panicked(_) = exit {
                ended_table.serve(&ShardSet::default());
                ended_table.end();
                ended.publish(|seen| seen.is_over = true);
                ended.give_up();
            }
        };
        let thread = spawn_watched("cluster", move || coordinator.run(), on_exit);
        let thread = Lock::new(Some(thread.map_err(JoinError::Io)?));
        let cluster = Self { table, shared, notes_tx, thread };
        let told = told_rx.recv();
        told.unwrap_or_else(|_| Err(JoinError::Io(io::Error::other("coordinating failed"))))?;
        Ok(cluster)
    }

    /// Ends at once: what the master holds stays its own until its lease is over.
    ///
    /// # Blocks
    /// Until a load or a leave that is under way is done.
    pub fn kill(&self) {
        let _ = self.notes_tx.send(ClusterNote::End);
        self.join_thread();
    }

    fn join_thread(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }
}

impl ClusterMember for Cluster {
    fn start(&self, tenants: Arc<dyn ShardTenants>) {
        let _ = self.notes_tx.send(ClusterNote::Start(tenants));
    }

    fn wait_until_settled(&self, deadline: Instant) -> bool {
        let is_known = |seen: &mut SeenCluster| seen.is_settled || seen.is_over;
        let seen = self.shared.seen.lock();
        let seen = self.shared.changed.wait_until(seen, deadline, is_known);
        seen.is_settled && !seen.is_over
    }

    fn table(&self) -> &Arc<ShardTable> {
        &self.table
    }

    fn set_state(&self, name: &str, state: MasterState) -> Result<bool, DbError> {
        let (reply_tx, reply_rx) = bounded(1);
        let note = ClusterNote::SetState(name.to_owned(), state, reply_tx);
        let gone = |_| DbError::Unavailable("this master stops".to_owned());
        self.notes_tx.send_timeout(note, CLUSTER_ANSWER_MAX).map_err(gone)?;
        // Behind a renewal, and again if that fails.
        let told = reply_rx.recv_timeout(3 * CLUSTER_ANSWER_MAX).ok().flatten();
        told.ok_or_else(|| DbError::OutcomeUnknown("the database did not answer".to_owned()))
    }

    fn gave_up(&self) -> bool {
        self.shared.gave_up.load(Ordering::Acquire)
    }

    fn figures(&self) -> ClusterFigures {
        let seen = self.shared.seen.lock();
        ClusterFigures {
            lease_left: seen.lease_until.map(|until| until.saturating_sub(boot_time())),
            held: seen.held,
            draining: seen.draining,
            wanted: seen.wanted,
            moves: seen.moves,
            evicted: self.shared.evicted.get(),
            renewals: self.shared.renewals.snapshot(),
            left_helpers: seen.left_helpers,
        }
    }

    fn stop(&self, deadline: Instant) {
        let _ = self.notes_tx.send(ClusterNote::Stop(deadline));
        self.join_thread();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// One nudge waits at a time: a look serves all that came before it.
fn nudge(shared: Arc<ClusterShared>, notes_tx: Sender<ClusterNote>) -> impl Fn() + Send + Sync {
    move || {
        if !shared.is_nudged.swap(true, Ordering::AcqRel)
            && notes_tx.try_send(ClusterNote::Nudged).is_err()
        {
            shared.is_nudged.store(false, Ordering::Release);
        }
    }
}
