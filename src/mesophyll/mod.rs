//! The protocol's two ends. The master's: [`MesophyllServer`] with a [`MesophyllServerConn`] for each worker. The
//! worker's: [`MesophyllClient`] for dispatches, [`MesophyllDbClient`] for the database.
//!
//! Rules are numbered as in docs/protocol.md ("Messages").

mod answers;
mod backoff;
mod client;
mod conn;
mod db_buffers;
mod db_client;
mod db_figures;
pub mod db_routes;
mod db_transport;
mod ledger;
mod local_socket;
mod question;
mod server;
mod tally;

pub use client::{ClientConfig, ClientEnd, LocalWorker, MesophyllClient};
pub(crate) use conn::Unsent;
pub use conn::{InFlight, LinkObserver, MesophyllServerConn};
pub use db_client::MesophyllDbClient;
pub use db_figures::{CLASSES, DbFigures, DbRequest};
pub use ledger::{Ledger, LinkEnd, LinkReport};
pub use question::VmQuestion;
pub use server::{MesophyllServer, ServerConfig, StartError};

/// What a worker uses until a Hello tells it the interval, and what a master tells it by default.
pub const MESOPHYLL_DEFAULT_HEARTBEAT_MS: u64 = 5000;
