//! Timers of tenants, and what can be asked of them.

use serde::Serialize;

use super::{EncodedValue, Timestamp};

/// A timer of a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timer {
    /// Tells it from the tenant's others, and its runs from those of others.
    pub id: String,
    /// The name of the event that it is.
    pub name: String,
    /// When its event is due.
    pub due: Timestamp,
    /// When it is due again: a number of seconds, or five fields as cron has them; `None`: never.
    pub every: Option<String>,
    /// What the event brings.
    pub data: EncodedValue,
}

/// When a timer is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerWhen {
    /// At this time.
    At(Timestamp),
    /// So many microseconds after now, which is the master's.
    After(u64),
    /// Again and again; see [`Timer::every`].
    Every(String),
}

/// What `/db/timers` can be asked. Answers: Set → nothing · Cancel → whether there was one · List →
/// timers, in the order in which they are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerOp {
    /// Makes a timer. One with this id stays as it is.
    Set {
        /// Its id, drawn by the worker.
        id: String,
        /// The event's name.
        name: String,
        /// When.
        when: TimerWhen,
        /// The event's data.
        data: EncodedValue,
    },
    /// Ends a timer.
    Cancel {
        /// Its id.
        id: String,
    },
    /// All of the tenant's.
    List,
}
