//! The locks of a tenant's KV records: what makes `KV:update` one step.
//!
//! A lock is held by one update, set or delete of a record; the others wait in order. It belongs to a lease rather than
//! to a task: a write that is under way keeps its record locked even if the task that asked for it is gone. Nobody can
//! hold two, because the function of an update may not wait; so there is no deadlock. Pure data, one a tenant.

use std::collections::{HashMap, VecDeque};

use crate::model::Scopes;

/// What is locked: a record, by key and set of scopes.
pub(super) type RecordKey = (String, Scopes);

/// The locks of one tenant.
#[derive(Debug, Default)]
pub(super) struct Locks {
    // Limit: one lease and one waiter a coroutine.
    held: HashMap<RecordKey, Held>,
    leases: HashMap<u64, RecordKey>,
    last_lease: u64,
}

#[derive(Debug)]
struct Held {
    waiters: VecDeque<u64>,
}

impl Locks {
    /// Takes a record's lock for a task; nothing if it is held, and then the task is in the queue for it.
    pub(super) fn acquire(&mut self, record: RecordKey, task: u64) -> Option<u64> {
        if let Some(held) = self.held.get_mut(&record) {
            held.waiters.push_back(task);
            return None;
        }
        self.held.insert(record.clone(), Held { waiters: VecDeque::new() });
        Some(self.grant(record))
    }

    /// Gives a lock back; whoever waited longest gets it at once: task and lease.
    pub(super) fn release(&mut self, lease: u64) -> Option<(u64, u64)> {
        let record = self.leases.remove(&lease)?;
        let Some(next) = self.held.get_mut(&record)?.waiters.pop_front() else {
            self.held.remove(&record);
            return None;
        };
        Some((next, self.grant(record)))
    }

    /// The task no longer waits for a lock.
    pub(super) fn forget(&mut self, record: &RecordKey, task: u64) {
        if let Some(held) = self.held.get_mut(record) {
            held.waiters.retain(|waiter| *waiter != task);
        }
    }

    fn grant(&mut self, record: RecordKey) -> u64 {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, record);
        self.last_lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str) -> RecordKey {
        (key.to_owned(), Scopes::new(["s"]))
    }

    #[test]
    fn a_lock_goes_from_one_to_the_next_in_order() {
        let mut locks = Locks::default();
        let first = locks.acquire(record("a"), 1).expect("free");
        assert_eq!(locks.acquire(record("a"), 2), None);
        assert_eq!(locks.acquire(record("a"), 3), None);
        assert!(locks.acquire(record("b"), 4).is_some());
        let (task, second) = locks.release(first).expect("waited for");
        assert_eq!(task, 2);
        let (task, third) = locks.release(second).expect("waited for");
        assert_eq!(task, 3);
        assert_eq!(locks.release(third), None);
        assert!(locks.acquire(record("a"), 5).is_some());
    }

    #[test]
    fn who_no_longer_waits_is_passed_over() {
        let mut locks = Locks::default();
        let first = locks.acquire(record("a"), 1).expect("free");
        locks.acquire(record("a"), 2);
        locks.acquire(record("a"), 3);
        locks.forget(&record("a"), 2);
        assert_eq!(locks.release(first).map(|(task, _)| task), Some(3));
    }

    #[test]
    fn a_lease_is_given_back_once() {
        let mut locks = Locks::default();
        let first = locks.acquire(record("a"), 1).expect("free");
        assert_eq!(locks.release(first), None);
        let second = locks.acquire(record("a"), 2).expect("free again");
        assert_eq!(locks.release(first), None);
        locks.acquire(record("a"), 3);
        assert_eq!(locks.release(second).map(|(task, _)| task), Some(3));
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut locks = Locks::default();
        for round in 0..10 {
            let lease = locks.acquire(record(&round.to_string()), round).expect("free");
            locks.release(lease);
        }
        assert!(locks.held.is_empty() && locks.leases.is_empty());
    }
}
