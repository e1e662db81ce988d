//! The kinds of workers and the pool over them.
//!
//! [`WorkerThread`]: tenants' VMs in this process. [`WorkerProcessHandle`]: a child process behind a link, with one
//! supervision loop that carries out what the pure state machine in `supervisor` decides. [`WorkerPool`]: N of either;
//! [`AdmittingPool`]: in front of it, for what the database and the
//! quarantine have to say, and where [`Traffic`] is counted; [`Operator`]: beside it, for who looks after the workers.

mod admission;
mod child;
mod db;
mod managed;
mod operator;
mod output;
mod pool;
mod process;
mod quarantine;
mod recent_errors;
mod recycle;
mod rolling;
mod route;
mod spawner;
mod startup;
mod supervision;
pub mod supervisor;
mod thread;
mod thread_handle;
mod traffic;
mod unseen;
mod vms;

pub use crate::dispatch::busiest::{Busiest, BusiestReport, Share};
pub use admission::AdmittingPool;
pub use child::{ChildSpec, Program, TOKEN_VARIABLE};
pub use db::WorkerDb;
pub use managed::Managed;
pub use operator::Operator;
pub use pool::WorkerPool;
pub use process::{ProcessConfig, RestartError, WorkerProcessHandle, WorkerReport};
pub use quarantine::{Quarantine, Quarantined};
pub use recent_errors::{RecentError, RecentErrors};
pub use recycle::Recycle;
pub use rolling::{RollError, RollReport};
pub use spawner::Spawner;
pub use thread::{Subscriptions, WorkerThread};
pub use thread_handle::{MakeWorker, WorkerThreadHandle};
pub use traffic::{Outcome, Traffic, WorkerTraffic};
pub use vms::Vms;
