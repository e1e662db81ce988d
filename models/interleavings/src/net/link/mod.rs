//! The product's `net/link/`, as far as it is checked: the threads and the socket are the models'.

#[path = "../../../../../src/net/link/frames.rs"]
mod frames;
#[path = "../../../../../src/net/link/pending.rs"]
mod pending;
pub mod pending_models;
#[path = "../../../../../src/net/link/queue.rs"]
mod queue;
pub mod queue_models;

pub use pending::{Pending, Registered};

/// In the place of the product's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseCause(pub usize);
