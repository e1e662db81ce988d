//! A place for one answer: the thread that has it puts it in, and the thread that asked waits for
//! it there.
//!
//! Not a channel, although one of length one would do: a channel begins each wait by giving the
//! processor away several times (`sched_yield`), and on a machine whose processors are all busy
//! that is a time slice of 4 ms each. A condition variable sleeps at once and is woken at once.

use std::sync::Arc;
use std::time::Instant;

use super::primitives::MutexGuard;
use super::primitives::atomic::{AtomicBool, Ordering};
use super::sync::{Lock, Signal};

/// Takes one answer, and keeps it until it is taken out.
#[derive(Debug)]
pub struct AnswerPlace<T> {
    /// An answer has been put in, or none is waited for any more: then no lock is needed.
    is_over: AtomicBool,
    state: Lock<PlaceState<T>>,
    over: Signal,
}

#[derive(Debug)]
struct PlaceState<T> {
    answer: Option<T>,
    /// A thread sleeps: to wake none is a system call all the same.
    sleeps: bool,
}

impl<T> Default for AnswerPlace<T> {
    fn default() -> Self {
        let state = Lock::new(PlaceState { answer: None, sleeps: false });
        Self { is_over: AtomicBool::new(false), state, over: Signal::new() }
    }
}

impl<T> AnswerPlace<T> {
    /// Puts the answer in.
    pub fn put(&self, answer: T) {
        let mut state = self.state.lock();
        state.answer = Some(answer);
        self.end(state);
    }

    /// Lets the waiting thread wait no longer.
    pub fn give_up(&self) {
        self.end(self.state.lock());
    }

    fn end(&self, state: MutexGuard<'_, PlaceState<T>>) {
        // Under the lock, or it could come between a waiter's look and its sleep.
        self.is_over.store(true, Ordering::Release);
        if state.sleeps {
            drop(state);
            self.over.notify_all();
        }
    }

    /// Whether there is an answer, or it was given up.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Whether the answer is there.
    ///
    /// # Blocks
    /// Until it is, `until`, or [`AnswerPlace::give_up`].
    pub fn wait_until(&self, until: Instant) -> bool {
        let state = self.over.wait_until(self.state.lock(), until, |state| {
            let is_over = state.answer.is_some() || self.is_over();
            state.sleeps |= !is_over;
            is_over
        });
        state.answer.is_some()
    }

    /// The answer, taken out; `None` if it did not come.
    ///
    /// # Blocks
    /// As [`AnswerPlace::wait_until`].
    pub fn take_by(&self, until: Instant) -> Option<T> {
        self.wait_until(until);
        self.take()
    }

    /// Takes the answer out, if it is there; never blocks.
    pub fn take(&self) -> Option<T> {
        self.state.lock().answer.take()
    }
}

/// Puts the answer in; dropping it lets the waiting thread wait no longer.
#[derive(Debug)]
pub struct AnswerSender<T>(Arc<AnswerPlace<T>>);

impl<T> AnswerSender<T> {
    /// A place, and its sender.
    pub fn new() -> (Self, Arc<AnswerPlace<T>>) {
        let place = Arc::new(AnswerPlace::default());
        (Self(Arc::clone(&place)), place)
    }

    /// Puts the answer in, whether or not a thread waits for it still.
    pub fn send(self, answer: T) {
        self.0.put(answer);
    }
}

impl<T> Drop for AnswerSender<T> {
    fn drop(&mut self) {
        if !self.0.is_over() {
            self.0.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::thread::spawn;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn an_answer_wakes_who_waits_and_is_taken_once() {
        let (sender, place) = AnswerSender::new();
        let waiting = place.clone();
        let waiter = spawn("waiter", move || waiting.wait_until(soon())).expect("spawn");
        sender.send(7);
        assert_eq!(waiter.join(), Some(true));
        assert!(place.wait_until(soon()), "it is still there");
        assert_eq!((place.take_by(soon()), place.take()), (Some(7), None));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_or_when_given_up() {
        let (sender, place) = AnswerSender::<u8>::new();
        assert!(!place.wait_until(Instant::now()));
        assert!(!place.wait_until(Instant::now() + Duration::from_millis(5)));
        let waiting = place.clone();
        let waiter = spawn("waiter", move || waiting.wait_until(soon())).expect("spawn");
        drop(sender);
        assert_eq!(waiter.join(), Some(false));
        // What comes later is there nevertheless.
        place.put(7);
        assert!(place.wait_until(Instant::now()));
    }
}
