//! Shares of a bounded number of bytes, or of places: what waits in a store's queue is bounded in both, and takes memory for
//! what is there only, where a channel with a bound makes all its places at once.
//!
//! Deliberately no waiting for room: who gets none tells its caller that the store is busy. Any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A share of a bounded number of bytes, or of places, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Weight {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Weight {
    /// Takes a share, if the total stays within `limit`. One alone always fits, however large.
    pub(super) fn take(bytes: usize, total: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let before = total.fetch_add(bytes, Ordering::Relaxed);
        let weight = Self { bytes, total: Arc::clone(total) };
        (before == 0 || before + bytes <= limit).then_some(weight)
    }

    /// How large it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
