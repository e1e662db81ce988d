//! Workers that are threads of this process: in the master with `--mode thread-pool`, and in every
//! worker process.

pub(super) mod db;
pub(super) mod handle;
mod startup;
pub(super) mod worker;
