//! Workers that are processes of their own: started, supervised, recycled and restarted.

pub(super) mod child;
pub(super) mod handle;
pub(super) mod memory_group;
pub(super) mod output;
pub(super) mod recycle;
pub(super) mod rolling;
mod sandbox_probe;
pub(super) mod spawner;
mod supervision;
pub mod supervisor;
