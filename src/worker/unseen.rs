//! Answers of events that nobody waits for: a failure is told to the operator, since nobody else learns of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Answer, TenantId};

/// Counts the failures of one worker's events that nobody waited for. Cheap to clone; called from any thread.
#[derive(Debug, Clone)]
pub(super) struct Unseen {
    worker_id: usize,
    failures: Arc<AtomicU64>,
}

impl Unseen {
    pub(super) fn new(worker_id: usize) -> Self {
        Self { worker_id, failures: Arc::default() }
    }

    /// The answer of one such event.
    pub(super) fn answer(&self, tenant: TenantId) -> Answer {
        let Unseen { worker_id, failures } = self.clone();
        Answer::callback(move |result| {
            let Err(error) = result else { return };
            let count = failures.fetch_add(1, Ordering::Relaxed) + 1;
            // Rate-limited by powers of two, and without the text, which a script may have written.
            if count.is_power_of_two() {
                let kind = error.kind();
                log::warn!(
                    "worker {worker_id}: {count} events that nobody waited for failed, the last one for {tenant}: {kind}"
                );
            }
        })
    }
}
