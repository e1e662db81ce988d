//! Shares of a bounded number of bytes, or of places: what waits in a store's queue is bounded in
//! both, and takes memory for what is there only, where a channel with a bound makes all its places
//! at once. A tenant has as much as [`Shares`] leaves it.
//!
//! Deliberately no waiting for room: a caller that gets none says that the store is busy. Any
//! thread.

use std::sync::Arc;

use crate::base::sync::Lock;
use crate::wire::data::{Held, Shares, TenantId};

/// What all that waits takes of a bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Weights(Arc<Lock<Shares>>);

/// A share of a bounded number of bytes, or of places, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Weight {
    owner: Option<TenantId>,
    bytes: usize,
    weights: Weights,
}

impl Weights {
    /// Takes a share, if what its owner holds stays within the owner's part of `limit`; what is no
    /// tenant's may take all of it. One alone always fits, however large.
    pub(super) fn take(
        &self,
        owner: Option<TenantId>,
        bytes: usize,
        limit: usize,
    ) -> Option<Weight> {
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
        Some(Weight { owner, bytes, weights: self.clone() })
    }

    /// What all hold together.
    pub(super) fn total(&self) -> Held {
        self.0.lock().total()
    }
}

impl Weight {
    /// How large it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.weights.0.lock().remove(self.owner, self.bytes);
    }
}
