//! The requests of a link that wait for an answer: pure, no I/O, no clock.
//!
//! Invariant: `register` and `close` take the same lock, so no request slips in after the sweep;
//! the first cause sticks.

use std::collections::hash_map::Entry;

use super::CloseCause;
use crate::base::sync::Lock;
use crate::wire::data::IdMap;

/// Waiting requests by id. `T` is what waits: usually where the answer goes.
#[derive(Debug)]
pub struct Pending<T> {
    state: Lock<PendingState<T>>,
    max: usize,
}

#[derive(Debug)]
struct PendingState<T> {
    waiting: IdMap<u64, T>,
    closed: Option<CloseCause>,
    sealed: bool,
}

/// What came of registering a request; one that does not wait is handed back.
#[derive(Debug, PartialEq, Eq)]
pub enum Registered<T> {
    /// It waits, the only one or one of so many.
    Waiting(usize),
    /// The link has ended.
    Closed(T, CloseCause),
    /// The link takes no more requests.
    Sealed(T),
    /// As many wait as may.
    Full(T),
    /// Another request with this id waits.
    Duplicate(T),
}

impl<T> Pending<T> {
    /// Room for `max` requests.
    pub fn new(max: usize) -> Self {
        Self {
            state: Lock::new(PendingState {
                waiting: IdMap::default(),
                closed: None,
                sealed: false,
            }),
            max,
        }
    }

    /// Adds a request, before its bytes leave.
    pub fn register(&self, id: u64, waiter: T) -> Registered<T> {
        self.register_within(self.max, id, waiter)
    }

    /// As [`Pending::register`], with another bound on how many wait.
    pub fn register_within(&self, max: usize, id: u64, waiter: T) -> Registered<T> {
        let mut state = self.state.lock();
        if let Some(cause) = &state.closed {
            return Registered::Closed(waiter, cause.clone());
        }
        if state.sealed {
            return Registered::Sealed(waiter);
        }
        if state.waiting.len() >= max {
            return Registered::Full(waiter);
        }
        match state.waiting.entry(id) {
            Entry::Occupied(_) => Registered::Duplicate(waiter),
            Entry::Vacant(vacant) => {
                vacant.insert(waiter);
                Registered::Waiting(state.waiting.len())
            }
        }
    }

    /// Removes a request: its answer came, or it is not wanted any more. `None`: unknown, so the
    /// answer is too late.
    pub fn take(&self, id: u64) -> Option<T> {
        self.state.lock().waiting.remove(&id)
    }

    /// Removes those of the requests that are named.
    pub fn take_where(&self, mut is_taken: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut state = self.state.lock();
        state.waiting.extract_if(|_, waiter| is_taken(waiter)).map(|(_, waiter)| waiter).collect()
    }

    /// Ends it: no request is taken any more, and all that wait are handed over with the first
    /// cause given.
    pub fn close(&self, cause: CloseCause) -> (Vec<T>, CloseCause) {
        let mut state = self.state.lock();
        let cause = state.closed.get_or_insert(cause).clone();
        (state.waiting.drain().map(|(_, waiter)| waiter).collect(), cause)
    }

    /// Takes no more requests; those that wait go on waiting. Once none waits after this, nothing
    /// is under way.
    pub fn seal(&self) {
        self.state.lock().sealed = true;
    }

    /// Whether it takes requests.
    pub fn is_open(&self) -> bool {
        let state = self.state.lock();
        state.closed.is_none() && !state.sealed
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes what waits under this id, if something does.
    pub fn change(&self, id: u64, change: impl FnOnce(&mut T)) {
        if let Some(waiter) = self.state.lock().waiting.get_mut(&id) {
            change(waiter);
        }
    }

    /// Looks at all that wait, such as for what was in flight when a worker died.
    pub fn for_each(&self, mut visit: impl FnMut(u64, &T)) {
        for (id, waiter) in &self.state.lock().waiting {
            visit(*id, waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once() {
        let pending = Pending::new(10);
        assert_eq!(pending.register(7, "a"), Registered::Waiting(1));
        assert_eq!(pending.take(7), Some("a"));
        assert_eq!(pending.take(7), None);
    }

    #[test]
    fn nobody_slips_in_after_the_sweep_and_the_first_cause_sticks() {
        let pending = Pending::new(10);
        assert_eq!(pending.register(1, "a"), Registered::Waiting(1));
        assert_eq!(pending.close(CloseCause::Silent), (vec!["a"], CloseCause::Silent));
        assert_eq!(pending.register(2, "b"), Registered::Closed("b", CloseCause::Silent));
        assert_eq!(pending.close(CloseCause::SlowPeer), (vec![], CloseCause::Silent));
    }

    #[test]
    fn a_sealed_map_takes_no_more_and_answers_the_rest() {
        let pending = Pending::new(10);
        assert_eq!(pending.register(1, "a"), Registered::Waiting(1));
        pending.seal();
        assert_eq!(pending.register(2, "b"), Registered::Sealed("b"));
        assert_eq!((pending.take(1), pending.is_empty()), (Some("a"), true));
    }

    #[test]
    fn an_id_that_waits_and_a_full_map_are_refused() {
        let pending = Pending::new(1);
        assert_eq!(pending.register(1, "a"), Registered::Waiting(1));
        assert_eq!(pending.register(2, "b"), Registered::Full("b"));
        let pending = Pending::new(2);
        assert_eq!(pending.register(1, "a"), Registered::Waiting(1));
        assert_eq!(pending.register(1, "b"), Registered::Duplicate("b"));
        assert_eq!(pending.take(1), Some("a"));
    }
}
