//! The kinds of workers and the pool over them.
//!
//! [`WorkerThread`]: tenants' VMs in this process. [`WorkerProcessHandle`]: a child process behind a link, with one
//! supervision loop that carries out what the pure state machine in `supervisor` decides. [`WorkerPool`]: N of either;
//! [`AdmittingPool`]: in front of it, for what the database has to say.

mod admission;
mod child;
mod db;
mod output;
mod pool;
mod process;
mod route;
mod spawner;
pub mod supervisor;
mod thread;

pub use admission::AdmittingPool;
pub use child::{ChildSpec, TOKEN_VARIABLE};
pub use db::WorkerDb;
pub use pool::WorkerPool;
pub use process::{ProcessConfig, WorkerProcessHandle, WorkerReport};
pub use spawner::Spawner;
pub use thread::{Subscriptions, WorkerThread};
