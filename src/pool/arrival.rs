//! What became of an event that is brought to its tenant until it has arrived.

use crate::base::error::DispatchError;
use crate::dispatch::DispatchResult;

/// Whether such an event is to be brought again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Its handler ran.
    Arrived,
    /// Its handler may have run.
    MayHave,
    /// Nothing ran; it is to be brought later.
    NotYet,
    /// Nothing runs of the tenant until staff says so.
    Held,
}

impl Arrival {
    /// What a dispatch's result says of it.
    pub(super) fn of(result: &DispatchResult) -> Self {
        match result {
            // A handler that fails would fail again.
            Ok(_)
            | Err(
                DispatchError::Script(_)
                | DispatchError::Deadline { sent: true }
                | DispatchError::TooLarge { .. }
                | DispatchError::BadInput(_),
            ) => Arrival::Arrived,
            Err(DispatchError::OutcomeUnknown(_)) => Arrival::MayHave,
            Err(DispatchError::Banned | DispatchError::Quarantined) => Arrival::Held,
            // A shard that came is served a moment later; of one that went the tenants are
            // forgotten.
            Err(
                DispatchError::NotOwner
                | DispatchError::Busy(_)
                | DispatchError::Deadline { sent: false }
                | DispatchError::NoWorker(_)
                | DispatchError::NotSent(_),
            ) => Arrival::NotYet,
        }
    }
}
