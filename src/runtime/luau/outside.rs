//! What a tenant has in memory outside its VM, in bytes: the data of events that run, the arguments
//! of its calls that wait, and results that no script has taken yet.
//!
//! A [`Charge`] goes with what it stands for, on any thread, and ends with it; so
//! nothing that is dropped on any way is counted for ever. The limit is the VM's (`memory`), which
//! counts calls and results as its own memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a charge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChargeKind {
    /// The data of an event that runs.
    Event,
    /// The arguments of a call that is not done.
    Call,
    /// A result that has not been taken.
    Result,
}

/// The sums of one tenant.
#[derive(Debug, Default)]
pub(super) struct Outside {
    bytes: [AtomicUsize; 3],
}

impl Outside {
    /// Counts so many bytes until the charge is dropped.
    pub(super) fn charge(self: &Arc<Self>, kind: ChargeKind, bytes: usize) -> Charge {
        self.bytes[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        Charge { outside: self.clone(), kind, bytes }
    }

    /// What there is of one kind.
    pub(super) fn of(&self, kind: ChargeKind) -> usize {
        self.bytes[kind as usize].load(Ordering::Relaxed)
    }

    /// What scripts made: arguments and results.
    pub(super) fn of_scripts(&self) -> usize {
        self.of(ChargeKind::Call) + self.of(ChargeKind::Result)
    }
}

/// Bytes that count for as long as this lives.
#[derive(Debug)]
pub(super) struct Charge {
    outside: Arc<Outside>,
    kind: ChargeKind,
    bytes: usize,
}

impl Charge {
    /// A charge for the result of the call that this one is for.
    pub(super) fn for_result(&self, bytes: usize) -> Charge {
        self.outside.charge(ChargeKind::Result, bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.outside.bytes[self.kind as usize].fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_counts_until_it_is_dropped_wherever_that_is() {
        let outside = Arc::<Outside>::default();
        let (event, call) =
            (outside.charge(ChargeKind::Event, 1), outside.charge(ChargeKind::Call, 10));
        let result = call.for_result(100);
        assert_eq!((outside.of(ChargeKind::Event), outside.of_scripts()), (1, 110));
        drop(call);
        std::thread::scope(|scope| drop(scope.spawn(move || drop(result))));
        assert_eq!((outside.of(ChargeKind::Event), outside.of_scripts()), (1, 0));
        drop(event);
        assert_eq!(outside.of(ChargeKind::Event), 0);
    }
}
