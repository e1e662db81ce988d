//! Errors that cross layers: why a dispatch did not succeed, and why the database did not do what
//! it was asked.
//!
//! Every variant says when it occurs and what its receiver can do. Their texts may reach callers
//! and templates, so they carry no token, no path of the store and no internal type. Layers with
//! errors of their own keep them in their folder.

use std::fmt;

/// Why a dispatch, a script or a drop did not answer with a value. Its text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DispatchError {
    /// The template raised an error, did not compile or exceeded a budget. Its author can mend it.
    Script(String),
    /// A queue is full. Try again later; nothing was run.
    Busy(String),
    /// The deadline passed first. `sent`: the event may have run.
    Deadline {
        /// Whether the event had left for a worker.
        sent: bool,
    },
    /// No worker was there to take it before the deadline, or it has failed for good. Nothing was
    /// run.
    NoWorker(String),
    /// The worker's link would not take it. Nothing was run.
    NotSent(String),
    /// It left for a worker that then went away: it may have run, in part or whole. It is never
    /// sent again.
    OutcomeUnknown(String),
    /// The tenant is banned. Nothing was run.
    Banned,
    /// The tenant's events were in flight when workers died, again and again. An operator can lift
    /// it. Nothing was run.
    Quarantined,
    /// Its tenant is another master's now, or changes hands. Nothing was run: the caller asks where
    /// it is, and goes there.
    NotOwner,
    /// The event (or its answer) is larger than a message may be, in bytes.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The event cannot be understood, such as data that nests too deep.
    BadInput(String),
}

/// The text of a `Script` error, of an event that was ended, or had not begun, when its tenant was
/// dropped. Over the link it is nothing but a text, by which a master knows it.
pub const TENANT_DROPPED: &str = "cancelled: the tenant was dropped";

impl DispatchError {
    /// The kind as `replay` prints it (docs/operations.md).
    pub fn kind(&self) -> &'static str {
        match self {
            DispatchError::Script(_) => "script",
            DispatchError::Busy(_) => "busy",
            DispatchError::Deadline { .. } => "deadline",
            DispatchError::NoWorker(_) | DispatchError::NotOwner => "no_worker",
            DispatchError::NotSent(_) => "not_sent",
            DispatchError::OutcomeUnknown(_) => "outcome_unknown",
            DispatchError::Banned | DispatchError::Quarantined => "refused",
            DispatchError::TooLarge { .. } | DispatchError::BadInput(_) => "bad_input",
        }
    }

    /// Whether the event may have run.
    pub fn sent(&self) -> bool {
        match self {
            DispatchError::Script(_) | DispatchError::OutcomeUnknown(_) => true,
            DispatchError::Deadline { sent } => *sent,
            DispatchError::Busy(_)
            | DispatchError::NoWorker(_)
            | DispatchError::NotSent(_)
            | DispatchError::Banned
            | DispatchError::Quarantined
            | DispatchError::NotOwner
            | DispatchError::TooLarge { .. }
            | DispatchError::BadInput(_) => false,
        }
    }
}

impl fmt::Display for DispatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DispatchError::Script(text)
            | DispatchError::Busy(text)
            | DispatchError::NoWorker(text)
            | DispatchError::NotSent(text)
            | DispatchError::OutcomeUnknown(text)
            | DispatchError::BadInput(text) => f.write_str(text),
            DispatchError::Deadline { .. } => {
                f.write_str("the deadline passed before an answer came")
            }
            DispatchError::Banned => f.write_str("the tenant is banned"),
            DispatchError::Quarantined => {
                f.write_str("the tenant is quarantined: workers died while its events ran")
            }
            DispatchError::NotOwner => f.write_str("another master has the tenant now"),
            DispatchError::TooLarge { bytes, limit } => {
                write!(f, "{bytes} bytes are more than the {limit} that a message may have")
            }
        }
    }
}

impl std::error::Error for DispatchError {}

/// Why the database did not do what it was asked. Its text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbError {
    /// A rule of the store forbids it (key, size, scopes, quota, pattern). Ask differently. Status
    /// 422.
    Refused(String),
    /// The tenant belongs to another worker, or the entry to another tenant. Status 403.
    Forbidden(String),
    /// It exists already. Status 409.
    Conflict(String),
    /// It does not exist. Status 404.
    NotFound(String),
    /// A queue is full. Try again later; nothing was done. Status 503.
    Busy(String),
    /// The store or the master cannot be reached. Try again later; nothing was done. Status 503.
    Unavailable(String),
    /// Another master has the tenant now. Nothing was done: ask that one. Status 503.
    NotOwner(String),
    /// The change may or may not have been made. Read before you try again. Status 500.
    OutcomeUnknown(String),
    /// Anything else: a bug, or a peer that does not speak the protocol. Status 500.
    Internal(String),
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DbError::Refused(text)
            | DbError::Forbidden(text)
            | DbError::Conflict(text)
            | DbError::NotFound(text)
            | DbError::Busy(text)
            | DbError::Unavailable(text)
            | DbError::NotOwner(text)
            | DbError::OutcomeUnknown(text)
            | DbError::Internal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DbError {}
