//! Several masters over one database: which shards each holds, and how they change hands.
//!
//! Every tenant is of one of 509 shards, and every shard has one holder at a time. What makes that
//! true is the database (`store/lease.rs`); here is what a master does about it. [`ShardTable`] is
//! what everybody else asks: whether a tenant is served here, and where it is if not.
//! Deliberately ignorant of workers and of the internal API. A master over a store that cannot
//! coordinate has none of this, and serves every shard.

mod table;

pub use table::{MasterReport, OtherMaster, ShardPlace, ShardTable};
