//! The protocol's two ends. The master's: [`MesophyllServer`] with a [`MesophyllServerConn`] for
//! each worker. The worker's: [`MesophyllClient`] for dispatches, [`MesophyllDbClient`] for the
//! database.
//!
//! Rules are numbered as in docs/protocol.md ("Messages").

mod answers;
mod master;
#[cfg(feature = "worker")]
mod worker;

pub use master::conn::{InFlight, LinkObserver, MesophyllServerConn};
pub use master::db_figures::{DbRequest, DbRequestFigures, StatusClass};
pub use master::db_routes;
pub use master::families::show_families;
pub use master::link_counters::{LinkCounters, LinkEnd, LinkReport, WorkerRefusal};
pub use master::server::{MesophyllServer, ServerConfig, StartError};
pub use master::vm_query::VmQuery;
#[cfg(feature = "worker")]
pub use worker::{
    client::{ClientConfig, ClientEnd, LocalWorker, MesophyllClient},
    db_client::MesophyllDbClient,
    dial::Dial,
    outbox::Outbox,
};

/// What a worker uses until a Hello tells it the interval, and what a master tells it by default.
pub const MESOPHYLL_DEFAULT_HEARTBEAT_MS: u64 = 5000;
