//! Permits of a store's queue: the operations in it are bounded by their bytes and by their number.
//! A permit takes memory only for itself, where a channel with a bound makes all its places at
//! once. A tenant has as much as [`Shares`] leaves it.
//!
//! Deliberately no waiting for room: a caller that gets no permit answers that the store is busy.
//! Any thread.

use std::sync::Arc;

use crate::base::sync::Lock;
use crate::wire::data::{HeldShare, Shares, TenantId};

/// All permits of one bound.
#[derive(Debug, Clone, Default)]
pub(super) struct QueuePermits(Arc<Lock<Shares>>);

/// A permit for some bytes, or for one place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct QueuePermit {
    owner: Option<TenantId>,
    bytes: usize,
    permits: QueuePermits,
}

impl QueuePermits {
    /// Takes a permit, if its owner's permits stay within the owner's part of `limit`; without an
    /// owner they may take all of it. One alone always fits, however large.
    pub(super) fn take(
        &self,
        owner: Option<TenantId>,
        bytes: usize,
        limit: usize,
    ) -> Option<QueuePermit> {
        let mut shares = self.0.lock();
        let total = shares.total();
        let has_room = match owner {
            Some(tenant) => shares.has_room(tenant, bytes, limit),
            None => total.bytes + bytes <= limit,
        };
        if !has_room && total.bytes > 0 {
            return None;
        }
        shares.add(owner, bytes);
        Some(QueuePermit { owner, bytes, permits: self.clone() })
    }

    /// What all permits hold together.
    pub(super) fn total(&self) -> HeldShare {
        self.0.lock().total()
    }
}

impl QueuePermit {
    /// How large it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.permits.0.lock().remove(self.owner, self.bytes);
    }
}
