//! Where the answer to a job arrives, for a thread that waits for it.

use std::time::Instant;

use super::DispatchResult;
use crate::base::answer::AnswerPlace;
use crate::base::primitives::atomic::{AtomicBool, Ordering};
use crate::base::spin::Spin;

/// Threads that wait for an answer.
static WAITERS: Spin = Spin::new();

/// Takes one answer, and keeps it until it is taken out.
#[derive(Debug, Default)]
pub struct Slot {
    place: AnswerPlace<DispatchResult>,
    is_unsubscribed: AtomicBool,
}

impl Slot {
    /// Puts the answer in.
    pub(super) fn put(&self, answer: DispatchResult, is_subscribed: bool) {
        self.is_unsubscribed.store(!is_subscribed, Ordering::Release);
        self.place.put(answer);
    }

    /// Lets the waiting thread wait no longer.
    pub fn give_up(&self) {
        self.place.give_up();
    }

    /// Whether the answer is there.
    ///
    /// # Blocks
    /// Until it is, `until`, or [`Slot::give_up`].
    pub fn wait_until_answered(&self, until: Instant) -> bool {
        // That of a template with little to do comes before a thread that sleeps would have been
        // woken.
        WAITERS.wait(|| self.place.is_over());
        self.place.wait_until(until)
    }

    /// Takes the answer out, if it is there; never blocks.
    pub fn take(&self) -> Option<DispatchResult> {
        self.place.take()
    }

    /// Whether the answer came with the word that the tenant is not subscribed to the event.
    pub fn is_unsubscribed(&self) -> bool {
        self.is_unsubscribed.load(Ordering::Acquire)
    }
}
