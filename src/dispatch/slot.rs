//! A place for one answer: the thread that has it puts it in, and the thread that
//! asked waits for it there.
//!
//! Not a channel, although one of length one would do: a channel begins each wait by giving the
//! processor away several times (`sched_yield`), and on a machine whose processors are all busy
//! that is a time slice of 4 ms each. A condition variable sleeps at once and is woken at once.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::DispatchResult;
use crate::base::spin::Spin;
use crate::base::sync::{Lock, Signal};

/// Threads that wait for an answer.
static WAITERS: Spin = Spin::new();

/// Takes one answer, and keeps it until it is taken out.
#[derive(Debug, Default)]
pub struct Slot {
    /// An answer has been put in, or none is waited for any more: then no lock is needed.
    is_over: AtomicBool,
    state: Lock<SlotState>,
    over: Signal,
}

#[derive(Debug, Default)]
struct SlotState {
    answer: Option<DispatchResult>,
    is_unsubscribed: bool,
    /// A thread sleeps: to wake none is a system call all the same.
    sleeps: bool,
}

impl Slot {
    /// Puts the answer in.
    pub(super) fn put(&self, answer: DispatchResult, is_subscribed: bool) {
        let mut state = self.state.lock();
        state.answer = Some(answer);
        state.is_unsubscribed = !is_subscribed;
        self.end(state);
    }

    /// Lets the waiting thread wait no longer.
    pub fn give_up(&self) {
        self.end(self.state.lock());
    }

    fn end(&self, state: MutexGuard<'_, SlotState>) {
        // Under the lock, or it could come between a waiter's look and its sleep.
        self.is_over.store(true, Ordering::Release);
        if state.sleeps {
            drop(state);
            self.over.notify_all();
        }
    }

    /// Whether the answer is there.
    ///
    /// # Blocks
    /// Until it is, `until`, or [`Slot::give_up`].
    pub fn wait_until_answered(&self, until: Instant) -> bool {
        // That of a template with little to do comes before a thread that sleeps would have been
        // woken.
        WAITERS.wait(|| self.is_over.load(Ordering::Acquire));
        let state = self.over.wait_until(self.state.lock(), until, |state| {
            let is_over = state.answer.is_some() || self.is_over.load(Ordering::Acquire);
            state.sleeps |= !is_over;
            is_over
        });
        state.answer.is_some()
    }

    /// Takes the answer out, if it is there; never blocks.
    pub fn take(&self) -> Option<DispatchResult> {
        self.state.lock().answer.take()
    }

    /// Whether the answer came with the word that the tenant is not subscribed to the event.
    pub fn is_unsubscribed(&self) -> bool {
        self.state.lock().is_unsubscribed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::dispatch::Answer;
    use crate::wire::data::EncodedValue;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn an_answer_wakes_who_waits_and_is_taken_once() {
        let slot = Arc::new(Slot::default());
        let waiting = slot.clone();
        let waiter =
            crate::base::thread::spawn("waiter", move || waiting.wait_until_answered(soon()))
                .expect("spawn");
        Answer::slot(slot.clone()).send(Ok(EncodedValue::null()));
        assert_eq!(waiter.join(), Some(true));
        assert!(slot.wait_until_answered(soon()), "it is still there");
        assert_eq!((slot.take(), slot.take()), (Some(Ok(EncodedValue::null())), None));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_or_when_given_up() {
        let slot = Arc::new(Slot::default());
        assert!(!slot.wait_until_answered(Instant::now()));
        assert!(!slot.wait_until_answered(Instant::now() + Duration::from_millis(5)));
        let waiting = slot.clone();
        let waiter =
            crate::base::thread::spawn("waiter", move || waiting.wait_until_answered(soon()))
                .expect("spawn");
        slot.give_up();
        assert_eq!(waiter.join(), Some(false));
        // What comes later is there nevertheless.
        drop(Answer::slot(slot.clone()));
        assert!(slot.wait_until_answered(Instant::now()));
    }
}
