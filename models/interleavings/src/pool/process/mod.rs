//! The product's `pool/process/`, without processes.

pub mod handle;
#[path = "../../../../../src/pool/process/recycle.rs"]
pub mod recycle;
#[path = "../../../../../src/pool/process/supervisor/mod.rs"]
pub mod supervisor;
