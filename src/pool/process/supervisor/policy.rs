//! The numbers by which the state machine decides: when to restart, how long to wait, when to give
//! up. Pure data.

use std::time::Duration;

use crate::base::limits;

/// When to restart, when to wait and when to give up. The defaults are the project's.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// From the start of a process to its being ready.
    pub boot_timeout: Duration,
    /// How long a running process may be without a link, or with one and not ready, before it is
    /// ended.
    pub relink_timeout: Duration,
    /// So many losses of the link within [`Policy::window`] end the process, which lives all the
    /// while.
    pub link_losses_in_window: usize,
    /// An executor that has not come back to its loop for so long makes the worker unhealthy.
    pub hang_timeout: Duration,
    /// First pause before a restart; it doubles.
    pub backoff_min: Duration,
    /// Longest pause before a restart.
    pub backoff_max: Duration,
    /// Being ready for so long forgets earlier failures in a row.
    pub stable_after: Duration,
    /// So many failures within [`Policy::window`] make the worker failed.
    pub failures_in_window: usize,
    /// See [`Policy::failures_in_window`].
    pub window: Duration,
    /// So many failures in a row, at any pace, make the worker failed.
    pub failures_in_a_row: u32,
    /// How long a worker that is to be restarted may take to answer what it has in flight.
    pub drain_timeout: Duration,
    /// From TERM to KILL.
    pub term_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            boot_timeout: Duration::from_secs(30),
            relink_timeout: Duration::from_secs(15),
            link_losses_in_window: 5,
            hang_timeout: limits::EXECUTOR_HANG_TIMEOUT,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(10),
            failures_in_window: 5,
            window: Duration::from_secs(60),
            failures_in_a_row: 10,
            drain_timeout: limits::DRAIN_TIMEOUT,
            term_grace: Duration::from_secs(5),
        }
    }
}
