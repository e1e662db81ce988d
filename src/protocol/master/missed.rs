//! What a peer passes over that never says Ready, such as the reference's worker: all that a master
//! tells it of changes. It goes on with what it has read at its start.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was told on one link before the worker said of what make it is, if it ever does.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// The name of the first message.
    first: OnceLock<&'static str>,
    needs_restart: AtomicBool,
    is_told: AtomicBool,
}

impl Missed {
    /// Notes a message; `needs_restart`: a worker that is started anew reads what it says.
    pub(super) fn note(&self, message: &'static str, needs_restart: bool) {
        let _ = self.first.set(message);
        if needs_restart {
            self.needs_restart.store(true, Ordering::Relaxed);
        }
    }

    /// Whether something was noted that a worker reads at its start.
    pub(super) fn needs_restart(&self) -> bool {
        self.needs_restart.load(Ordering::Relaxed)
    }

    /// The message to warn of, once.
    pub(super) fn to_tell(&self) -> Option<&'static str> {
        let first = *self.first.get()?;
        (!self.is_told.swap(true, Ordering::Relaxed)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_told_once_and_remembered() {
        let missed = Missed::default();
        assert_eq!(missed.to_tell(), None);
        missed.note("SetLogLevel", false);
        assert_eq!(missed.to_tell(), Some("SetLogLevel"));
        assert!(!missed.needs_restart());
        missed.note("ReloadTemplate", true);
        assert_eq!(missed.to_tell(), None);
        assert!(missed.needs_restart());
    }
}
