//! A worker's end: the link on which it gets its jobs, and its way to the database.

mod backoff;
pub(super) mod client;
mod db_buffers;
pub(super) mod db_client;
mod db_transport;
pub(super) mod dial;
mod finished;
mod in_flight;
pub(super) mod outbox;
#[cfg(test)]
mod quiet_link;
mod script_lines;
mod session;
