//! In the place of the product's: what a board shows of a worker.

use std::time::{Duration, Instant};

use super::supervisor::{Restarts, State};
use crate::wire::data::Sandbox;
use crate::wire::message::Health;

/// As the product's.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    pub id: usize,
    pub state: State,
    pub pid: Option<u32>,
    pub started: Option<Instant>,
    pub heartbeat_age: Option<Duration>,
    pub in_flight: usize,
    pub waiting: usize,
    pub health: Option<Health>,
    pub restarts: Restarts,
    pub last_exit: Option<String>,
    pub version: Option<String>,
    pub host: Option<String>,
    pub sandbox: Option<Sandbox>,
    pub retires: bool,
    pub needs_restart: bool,
    pub is_handed_out: bool,
    pub sandbox_kills: u64,
}

/// As the product's.
#[derive(Debug, PartialEq, Eq)]
pub enum RestartError {
    NotReady(String),
}
