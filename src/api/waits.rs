//! The requests that wait for an answer, so that the end of the API ends their waits too.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::sync::Lock;
use crate::dispatch::{RequestId, Slot};

/// What is waited for, by job; none once the API has ended.
#[derive(Debug)]
pub(super) struct Waits(Lock<Option<HashMap<RequestId, Arc<Slot>>>>);

/// A wait, which ends when this is dropped.
pub(super) struct OpenWait<'w> {
    waits: &'w Waits,
    request_id: RequestId,
}

impl Waits {
    /// No request waits yet.
    pub(super) fn new() -> Self {
        Self(Lock::new(Some(HashMap::new())))
    }

    /// Notes a wait; `None`: the API has ended, and none is to begin.
    pub(super) fn begin(&self, request_id: RequestId, slot: &Arc<Slot>) -> Option<OpenWait<'_>> {
        self.0.lock().as_mut()?.insert(request_id, slot.clone());
        Some(OpenWait { waits: self, request_id })
    }

    /// Ends all waits, and lets none begin.
    pub(super) fn end(&self) {
        for slot in self.0.lock().take().into_iter().flat_map(HashMap::into_values) {
            slot.give_up();
        }
    }

    /// Whether they have been ended.
    pub(super) fn are_over(&self) -> bool {
        self.0.lock().is_none()
    }
}

impl Drop for OpenWait<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waits.0.lock().as_mut() {
            waiting.remove(&self.request_id);
        }
    }
}
