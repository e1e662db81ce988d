//! The product's `cluster/`, as far as it is checked.

#[path = "../../../../src/cluster/clock.rs"]
mod clock;
#[path = "../../../../src/cluster/table.rs"]
mod table;

pub use table::ShardTable;
