//! A job for a tenant, its one answer, and the trait of all that takes jobs.
//!
//! What a runtime and a worker need of each other without knowing each other. No I/O; nothing here
//! starts a thread.

pub mod busiest;
mod job;
mod observed;
mod slot;
pub mod worker_like;

pub use job::{Answer, Cancelled, DispatchResult, Job, RequestId};
pub use observed::{JobKind, Observed, Observer};
pub use slot::Slot;
