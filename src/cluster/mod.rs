//! Several masters over one database: which shards each holds, and how they change hands.
//!
//! Every tenant is of one of 509 shards, and every shard has one holder at a time. What makes that
//! true is the database (`store/lease.rs`); here is what a master does about it. [`ShardTable`] is
//! what everybody else asks: whether a tenant is served here, and where it is if not.
//! Deliberately ignorant of workers and of the internal API. A master over a store that cannot
//! coordinate has none of this, and serves every shard.

mod table;

use std::time::Instant;

use crate::base::error::DbError;
use crate::wire::data::sharding::ShardSet;

pub use table::{MasterReport, OtherMaster, ShardPlace, ShardTable};

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
