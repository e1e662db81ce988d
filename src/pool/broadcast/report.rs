//! What a broadcast has come to: plain figures, which masters add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::error::DispatchError;
use crate::base::labels::labels;
use crate::dispatch::DispatchResult;

labels! {
    /// What became of a broadcast's event for a tenant.
    BroadcastOutcome {
        /// Its handler ran.
        Reached = "reached",
        /// It has no VM, and only those that have one were to get it.
        NoVm = "no_vm",
        /// It is no longer subscribed to the event; nothing was run.
        Unsubscribed = "unsubscribed",
        /// Its template failed.
        Script = "script",
        /// It had no room, again and again; nothing was run.
        Busy = "busy",
        /// It was banned meanwhile, or is quarantined; nothing was run.
        Refused = "refused",
        /// Another master has it now; nothing was run.
        Moved = "moved",
        /// Its worker was not there; nothing was run.
        NoWorker = "no_worker",
        /// Its worker went away, or did not answer in time: it may have run.
        OutcomeUnknown = "outcome_unknown",
    }
}

impl BroadcastOutcome {
    pub(super) fn of(result: &DispatchResult, is_subscribed: bool) -> Self {
        match result {
            Ok(_) if is_subscribed => Self::Reached,
            Ok(_) => Self::Unsubscribed,
            Err(DispatchError::Script(_)) => Self::Script,
            // The event itself was measured before: it is the answer that will not do.
            Err(DispatchError::TooLarge { .. } | DispatchError::BadInput(_)) => Self::Script,
            Err(DispatchError::Busy(_)) => Self::Busy,
            Err(DispatchError::Banned | DispatchError::Quarantined) => Self::Refused,
            Err(DispatchError::NotOwner) => Self::Moved,
            Err(error) if error.sent() => Self::OutcomeUnknown,
            Err(_) => Self::NoWorker,
        }
    }
}

labels! {
    /// What a broadcast does; of parts of one, the later of these counts.
    #[derive(PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    BroadcastState {
        /// Every tenant is done with.
        Finished = "finished",
        /// It was stopped.
        Stopped = "stopped",
        /// It was stopped, and some events have no answer yet.
        Stopping = "stopping",
        /// It sends.
        Running = "running",
    }
}

/// How a broadcast stands; the internal API shows it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastReport {
    /// Tells it from others.
    pub id: String,
    /// The event's name.
    pub event: String,
    /// Only tenants with a VM get it.
    pub only_live: bool,
    /// What it does.
    pub state: BroadcastState,
    /// When it began, in milliseconds before now.
    pub since_ms: u64,
    /// Tenants that it is for.
    pub total: u64,
    /// Those of them that are done with.
    pub done: u64,
    /// What became of these; each outcome is there.
    pub outcomes: BTreeMap<String, u64>,
}

impl BroadcastReport {
    /// Adds another master's part of the same broadcast.
    pub fn add(&mut self, part: &Self) {
        self.state = self.state.max(part.state);
        self.since_ms = self.since_ms.max(part.since_ms);
        self.total += part.total;
        self.done += part.done;
        for (outcome, count) in &part.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
    }
}
