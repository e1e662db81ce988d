//! The master's end: the port for workers, their connections, and their way to the database.

pub(super) mod conn;
pub(super) mod db_figures;
pub mod db_routes;
pub(super) mod families;
pub(super) mod link_counters;
mod missed;
mod replacements;
pub(super) mod server;
mod unheard;
pub(super) mod vm_query;
