//! What the masters of one database agree on through it: which are there, which shard each holds,
//! and the fence that refuses the writes of a master that no longer does.
//!
//! Only words; [`Coordination`] is implemented by the store that can do it (PostgreSQL), asked by
//! `cluster/`. A holder is named by shard, epoch and master together: after a failover that lost a
//! grant, the same epoch can be given to two masters.

use std::fmt;
use std::time::Duration;

use crate::base::error::DbError;
use crate::base::labels::labels;
use crate::base::metrics::Counter;
use crate::base::random;
use crate::base::sync::SharedLock;
use crate::wire::data::TenantId;
use crate::wire::data::sharding::{SHARDS, Shard, ShardSet};

/// One run of a master: drawn anew at each join, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MasterId(pub u128);

impl MasterId {
    /// One that no other master has.
    pub fn random() -> Self {
        Self(u128::from(random::u64()) << 64 | u128::from(random::u64()))
    }
}

/// As PostgreSQL writes a uuid.
impl fmt::Display for MasterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        for (at, part) in [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "-" }, &hex[part])?;
        }
        Ok(())
    }
}

/// The master that may write a tenant's data: checked by the database in the writing transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The tenant's shard.
    pub shard: Shard,
    /// The epoch at which it is held.
    pub epoch: i64,
    /// Its holder.
    pub master: MasterId,
}

/// What this master holds, as far as it knows: what its store fences writes with. Called from any
/// thread; nothing blocks.
#[derive(Debug, Default)]
pub struct HeldShards {
    held: SharedLock<Held>,
    refusals: Counter,
}

#[derive(Debug, Default)]
struct Held {
    /// `None`: no member of anything, as the commands that open a store without a master.
    master: Option<MasterId>,
    epochs: Vec<Option<i64>>,
}

impl HeldShards {
    /// From now on, the holder is this one, of exactly these shards.
    pub fn set(&self, master: MasterId, held: impl IntoIterator<Item = (Shard, i64)>) {
        let mut epochs = vec![None; usize::from(SHARDS)];
        held.into_iter().for_each(|(shard, epoch)| epochs[shard.index()] = Some(epoch));
        *self.held.write() = Held { master: Some(master), epochs };
    }

    /// The fence of a write for a tenant; `None` where no master has joined.
    ///
    /// # Errors
    /// `NotOwner`: this master does not hold the tenant's shard.
    pub fn fence(&self, tenant: TenantId) -> Result<Option<Fence>, DbError> {
        let held = self.held.read();
        let Some(master) = held.master else { return Ok(None) };
        let shard = Shard::of(tenant);
        match held.epochs.get(shard.index()).copied().flatten() {
            Some(epoch) => Ok(Some(Fence { shard, epoch, master })),
            None => Err(not_owner()),
        }
    }

    /// Counts a write that the database refused.
    pub fn refused(&self) {
        self.refusals.inc();
    }

    /// Writes that the database refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.get()
    }
}

/// What a caller gets whose tenant belongs to another master.
pub fn not_owner() -> DbError {
    DbError::NotOwner("another master has the tenant now; nothing was done".to_owned())
}

labels! {
    /// What a master does with its shards.
    MasterState {
        /// It holds its share.
        Up = "up",
        /// It hands everything over, and takes what no other can.
        Draining = "draining",
        /// It ended, or another one found its lease over: it holds nothing and never will.
        Dead = "dead",
    }
}

/// A master that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The cluster's name; `None`: it is alone.
    pub cluster: Option<String>,
    /// What the operator calls the master: the same after a restart.
    pub name: String,
    /// Where others reach its internal API.
    pub api: String,
    /// Its version.
    pub version: String,
    /// Its share, beside those of the others.
    pub weight: u32,
    /// How long it holds what it has without a word.
    pub lease: Duration,
}

/// What the coordination is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAsk {
    /// To join, under an id of its own.
    Join(MasterId, Membership),
    /// To go on, for so long from now; and what there is to see.
    Renew(MasterId, Duration),
    /// For these shards, in one commit.
    Take(MasterId, ShardSet),
    /// To hand these over, each at its epoch to a master, or to none.
    Give(MasterId, Vec<(Shard, i64, Option<MasterId>)>),
    /// To end the sessions that hold these shards' locks though their holder is dead.
    Evict(ShardSet),
    /// To be given nothing any more, and to be seen draining: it is about to leave.
    Retire(MasterId),
    /// To go: it holds nothing any more.
    Leave(MasterId),
    /// To have the master of this name, if one lives, give everything to others, or stop doing so.
    SetState(String, MasterState),
}

/// What the coordination answers, in the order of [`LeaseAsk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseTold {
    /// It has joined, or why not.
    Joined(Result<(), JoinRefusal>),
    /// What there is to see; `None`: the master was declared dead, and has to join anew.
    Renewed(Option<ClusterLook>),
    /// The shards that it got, with their epochs.
    Taken(Vec<(Shard, i64)>),
    /// The shards that were handed over.
    Given(ShardSet),
    /// How many sessions were ended.
    Evicted(u64),
    /// It gets nothing any more.
    Retired,
    /// It has gone.
    Left,
    /// Whether there is such a master.
    StateSet(bool),
}

/// Why a master cannot join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinRefusal {
    /// A master of this name lives, for so long without a word.
    NameLives(Duration),
    /// Other masters live (their names), and one of both sides is alone by its options.
    OtherLives(Vec<String>),
    /// The database's cluster has this name.
    OtherCluster(String),
}

/// The masters and the shards at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterLook {
    /// All that are known; those that are dead for a day are not.
    pub masters: Vec<MasterRow>,
    /// Each shard, by its number.
    pub shards: Vec<ShardRow>,
}

/// A master as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterRow {
    /// Its id.
    pub id: MasterId,
    /// What the operator calls it.
    pub name: String,
    /// Where its internal API is.
    pub api: String,
    /// Its version.
    pub version: String,
    /// Its share; 0: it is about to leave.
    pub weight: u32,
    /// What it does with its shards.
    pub state: MasterState,
    /// What is left of its lease; zero: it is over.
    pub lease_left: Duration,
    /// Since when it is there.
    pub up_for: Duration,
}

impl MasterRow {
    /// Whether it lives: its lease is not over, and no other has declared it dead.
    pub fn lives(&self) -> bool {
        self.state != MasterState::Dead && !self.lease_left.is_zero()
    }
}

/// A shard as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardRow {
    /// Its holder.
    pub owner: Option<MasterId>,
    /// Grows with each change of holder.
    pub epoch: i64,
}

/// Connects to where masters agree; blocks as connecting to the store does.
pub type ConnectCoordination =
    Box<dyn Fn() -> Result<Box<dyn Coordination>, DbError> + Send + Sync>;

/// A connection to where masters agree. Used by one thread at a time.
pub trait Coordination: Send {
    /// Asks; everything of one question happens in one commit.
    ///
    /// # Blocks
    /// Until the database answered, which may be never: a caller that cannot wait asks on a thread
    /// of its own.
    ///
    /// # Errors
    /// `Unavailable` or `OutcomeUnknown`: ask again on another connection.
    fn ask(&mut self, ask: &LeaseAsk) -> Result<LeaseTold, DbError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_held_has_a_fence() {
        let held = HeldShards::default();
        let tenant = TenantId::Guild(5 << 22);
        assert_eq!(held.fence(tenant), Ok(None), "no master has joined");
        let (master, shard) = (MasterId::random(), Shard::of(tenant));
        held.set(master, [(shard, 7)]);
        assert_eq!(held.fence(tenant), Ok(Some(Fence { shard, epoch: 7, master })));
        assert_eq!(held.fence(TenantId::User(6 << 22)), Err(not_owner()));
        held.set(MasterId::random(), []);
        assert_eq!(held.fence(tenant), Err(not_owner()));
    }

    #[test]
    fn an_id_is_a_uuid() {
        let id = MasterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_ne!(MasterId::random(), MasterId::random());
    }
}
