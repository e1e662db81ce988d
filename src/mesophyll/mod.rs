//! The protocol's two ends: what the master answers to workers, and how a worker asks.

mod db_client;
pub mod db_routes;

pub use db_client::MesophyllDbClient;
