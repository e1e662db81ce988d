//! The kinds of workers and the pool over them.
//!
//! [`WorkerThread`]: tenants' VMs in this process. [`WorkerProcessHandle`]: a child process behind
//! a link, with one supervision loop that carries out what the pure state machine in
//! `process/supervisor` decides. [`WorkerPool`]: N of either; [`AdmittingPool`]: in front of it,
//! for what the database and the quarantine have to say, and where [`Traffic`] is counted;
//! [`Operator`]: beside it, for looking after the workers.

mod admission;
mod arrival;
mod board;
mod broadcast;
mod event_rules;
mod hosts;
mod managed;
mod messages;
mod observe;
mod operator;
mod places;
#[allow(clippy::module_inception)] // The pool itself, in the room around it.
mod pool;
pub mod process;
mod route;
mod shards;
mod shop;
#[cfg(test)]
mod simulation;
#[cfg(feature = "worker")]
mod thread;
mod timers;
mod vms;

pub use crate::dispatch::busiest::{Busiest, BusiestReport, Share};
pub use admission::AdmittingPool;
pub use broadcast::{
    BroadcastError, BroadcastOrder, BroadcastOutcome, BroadcastReport, BroadcastState, Broadcasts,
    HaveVms,
};
pub use event_rules::EventRules;
pub use hosts::{HostLink, HostRefusal, Hosts};
pub use managed::Managed;
pub use messages::{ForwardMessage, Messages};
pub use observe::quarantine::{Quarantine, Quarantined};
pub use observe::recent_errors::{RecentError, RecentErrors};
pub use observe::traffic::{Outcome, Traffic, WorkerTraffic};
pub use operator::Operator;
pub use pool::WorkerPool;
pub use process::child::{ChildSpec, Program, ServeWorker, TOKEN_VARIABLE};
pub use process::handle::{ProcessConfig, RestartError, WorkerProcessHandle, WorkerReport};
pub use process::memory_group::MemoryGroups;
pub use process::recycle::Recycle;
pub use process::rolling::{RollError, RollReport};
pub use process::spawner::Spawner;
pub use process::supervisor;
pub use shards::PoolShards;
pub use shop::{ShopFigures, ShopOutcome, ShopUpdates};
#[cfg(feature = "worker")]
pub use thread::{
    db::WorkerDb,
    handle::{MakeWorker, WorkerThreadHandle},
    worker::{Subscriptions, WorkerThread},
};
pub use timers::{TenantTimers, TimerFigures, TimerFirer, TimerOutcome};
pub use vms::Vms;
