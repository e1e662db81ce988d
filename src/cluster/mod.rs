//! Several masters over one database: which shards each holds, and how they change hands.
//!
//! Every tenant is of one of 509 shards, and every shard has one holder at a time. What makes that
//! true is the database (`store/lease.rs`); what a master does about it is in `member/`, which a
//! build without such a database leaves out. [`ShardTable`] is what everybody else asks: whether a
//! tenant is served here, and where it is if not. Deliberately ignorant of workers and of the
//! internal API. A master over a store that cannot coordinate has none of this, and serves every
//! shard.

mod clock;
#[cfg(feature = "postgres")]
pub mod member;
mod table;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::error::DbError;
use crate::base::metrics::Buckets;
use crate::store::lease::MasterState;
use crate::wire::data::sharding::ShardSet;

pub use table::{MasterReport, OtherMaster, ShardHolder, ShardPlace, ShardTable};

/// What a master does with the tenants of shards that come and go; implemented over its workers.
pub trait ShardTenants: Send + Sync {
    /// Makes the tenants of shards that are held now ready to be served: their states are read and
    /// told to the workers.
    ///
    /// # Blocks
    /// On the store.
    ///
    /// # Errors
    /// The store's; nothing of it is served, and it is to be asked again.
    fn load(&self, shards: &ShardSet) -> Result<(), DbError>;

    /// Ends what is under way of shards that are not served any more: jobs may be answered until
    /// `deadline`, then their outcome is unknown; VMs are closed and states forgotten.
    ///
    /// # Blocks
    /// Until nothing of them runs, and a moment beyond `deadline` at most.
    fn leave(&self, shards: &ShardSet, deadline: Instant);
}

/// A master's part in its cluster, as the master and its internal API use it. A master over a store
/// that masters do not share has none.
pub trait ClusterMember: fmt::Debug + Send + Sync {
    /// Has the master take its shards, and do this about them.
    fn start(&self, tenants: Arc<dyn ShardTenants>);

    /// Waits until all shards are served that the master holds or can take; false: `deadline`
    /// passed, or the thread ended. Those that it is yet to be given by others are not among them.
    ///
    /// # Blocks
    /// Until then.
    fn wait_until_settled(&self, deadline: Instant) -> bool;

    /// Where every shard is.
    fn table(&self) -> &Arc<ShardTable>;

    /// Has the master of this name drain, or stop doing so; false: none of that name lives.
    ///
    /// # Blocks
    /// Until the database answered, a few seconds at most.
    ///
    /// # Errors
    /// `Unavailable`: nothing was asked. `OutcomeUnknown`: no answer came.
    fn set_state(&self, name: &str, state: MasterState) -> Result<bool, DbError>;

    /// Whether the master can no longer coordinate, and its process is to end.
    fn gave_up(&self) -> bool;

    /// Figures at this moment.
    fn figures(&self) -> ClusterFigures;

    /// Hands everything over, to other masters or to none, and leaves.
    ///
    /// # Blocks
    /// Until that is done, and a moment beyond `deadline` at most.
    fn stop(&self, deadline: Instant);
}

/// Why a master could not join.
#[derive(Debug)]
pub enum JoinError {
    /// A master of this name lives, and went on doing so: another name is wanted, or its end.
    NameLives(String),
    /// The database's cluster has this name: another name of the cluster is wanted, or another
    /// database.
    OtherCluster(String),
    /// Masters of these names live, and one of both sides is alone by its options. Later it may
    /// join.
    OtherLives(Vec<String>),
    /// The database does not answer. Later it may.
    Unreachable(String),
    /// The operating system refused a thread.
    Io(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::NameLives(name) => {
                write!(f, "a master named {name} is there: give this one another --name")
            }
            JoinError::OtherCluster(name) => write!(
                f,
                "the database is that of the cluster {name}: give --cluster that name, or --store another database"
            ),
            JoinError::OtherLives(names) => write!(
                f,
                "the database has other masters ({}), and only masters with the same --cluster share one; \
                 one that was killed is there until its lease is over",
                names.join(", ")
            ),
            JoinError::Unreachable(why) => write!(f, "the database cannot be reached: {why}"),
            JoinError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {}

/// Figures of this master's part in its cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterFigures {
    /// What is left of its lease, as far as it knows; `None`: it is no member.
    pub lease_left: Option<Duration>,
    /// Shards that it holds.
    pub held: usize,
    /// Of those, shards that it is about to hand over.
    pub draining: usize,
    /// Shards that it should hold.
    pub wanted: usize,
    /// How shards changed hands.
    pub moves: ShardMoves,
    /// Sessions of masters that were gone which it had the database end.
    pub evicted: u64,
    /// How long renewals took.
    pub renewals: Buckets,
    /// Connections that were left in a question, and have not ended.
    pub left_helpers: usize,
}

/// How often a shard changed hands, from this master's point of view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardMoves {
    /// Taken: it had no master, or a dead one.
    pub taken: u64,
    /// Got from another master.
    pub received: u64,
    /// Given to another master, or let go at a stop.
    pub given: u64,
    /// Lost: another master took it.
    pub lost: u64,
}
