//! The locks of a tenant's KV records: what makes `KV:update` one step, and puts the operations on
//! one record in order.
//!
//! An update, set or delete has its record to itself; reads share it; every other operation waits
//! in line, so that operations on a record happen in the order in which scripts asked for them. A
//! lock belongs to a lease rather than to a task: a write that is under way keeps its record locked
//! even if the task that asked for it is gone. No task can hold two, because the function of an
//! update may not wait; so there is no deadlock. Pure data, one a tenant.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::wire::data::Scopes;

/// What is locked: a record, by key and set of scopes.
pub(super) type RecordKey = (String, Scopes);

/// How a record is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockMode {
    /// Together with other reads.
    Read,
    /// Alone.
    Write,
}

/// The locks of one tenant.
#[derive(Debug, Default)]
pub(super) struct Locks {
    // Limit: one lease or one place in a line a coroutine.
    held: HashMap<RecordKey, HeldRecord>,
    leases: HashMap<u64, (RecordKey, LockMode)>,
    last_lease: u64,
}

#[derive(Debug, Default)]
struct HeldRecord {
    readers: usize,
    is_writing: bool,
    line: VecDeque<(u64, LockMode)>,
}

impl HeldRecord {
    fn admits(&self, mode: LockMode) -> bool {
        !self.is_writing && (mode == LockMode::Read || self.readers == 0)
    }

    fn enter(&mut self, mode: LockMode) {
        match mode {
            LockMode::Read => self.readers += 1,
            LockMode::Write => self.is_writing = true,
        }
    }

    fn leave(&mut self, mode: LockMode) {
        match mode {
            LockMode::Read => self.readers -= 1,
            LockMode::Write => self.is_writing = false,
        }
    }
}

impl Locks {
    /// Takes a record's lock for a task; nothing if it has to wait, and then the task is in line.
    pub(super) fn acquire(&mut self, record: &RecordKey, mode: LockMode, task: u64) -> Option<u64> {
        if let Some(held) = self.held.get_mut(record) {
            // A task that came before goes first, also where two reads could go together.
            if !held.line.is_empty() || !held.admits(mode) {
                held.line.push_back((task, mode));
                return None;
            }
            held.enter(mode);
        } else {
            let mut held = HeldRecord::default();
            held.enter(mode);
            self.held.insert(record.clone(), held);
        }
        Some(self.grant(record, mode))
    }

    /// Gives a lock back; the next in line get it at once: tasks and their leases.
    pub(super) fn release(&mut self, lease: u64) -> Vec<(u64, u64)> {
        let Some((record, mode)) = self.leases.remove(&lease) else { return Vec::new() };
        if let Some(held) = self.held.get_mut(&record) {
            held.leave(mode);
        }
        self.admit(&record)
    }

    /// These tasks no longer wait for these records; those behind them may now be next.
    pub(super) fn forget(&mut self, waits: &[(RecordKey, u64)]) -> Vec<(u64, u64)> {
        let mut gone: HashMap<&RecordKey, HashSet<u64>> = HashMap::new();
        for (record, task) in waits {
            gone.entry(record).or_default().insert(*task);
        }
        // Each line is gone through once: thousands may wait in one, and leave it together.
        for (record, tasks) in gone {
            if let Some(held) = self.held.get_mut(record) {
                held.line.retain(|(waiting, _)| !tasks.contains(waiting));
            }
        }
        // Only now, so that none of them is admitted because another of them left.
        waits.iter().flat_map(|(record, _)| self.admit(record)).collect()
    }

    fn admit(&mut self, record: &RecordKey) -> Vec<(u64, u64)> {
        let mut admitted = Vec::new();
        let Some(held) = self.held.get_mut(record) else { return Vec::new() };
        while let Some((task, mode)) =
            held.line.front().copied().filter(|(_, mode)| held.admits(*mode))
        {
            held.line.pop_front();
            held.enter(mode);
            admitted.push((task, mode));
        }
        if held.readers == 0 && !held.is_writing {
            self.held.remove(record);
        }
        admitted.into_iter().map(|(task, mode)| (task, self.grant(record, mode))).collect()
    }

    fn grant(&mut self, record: &RecordKey, mode: LockMode) -> u64 {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, (record.clone(), mode));
        self.last_lease
    }
}

#[cfg(test)]
mod tests {
    use super::LockMode::{Read, Write};
    use super::*;

    fn record(key: &str) -> RecordKey {
        (key.to_owned(), Scopes::new(["s"]))
    }

    fn tasks(granted: &[(u64, u64)]) -> Vec<u64> {
        granted.iter().map(|(task, _)| *task).collect()
    }

    #[test]
    fn a_lock_goes_from_one_writer_to_the_next_in_order() {
        let mut locks = Locks::default();
        let first = locks.acquire(&record("a"), Write, 1).expect("free");
        assert_eq!(locks.acquire(&record("a"), Write, 2), None);
        assert_eq!(locks.acquire(&record("a"), Write, 3), None);
        assert!(locks.acquire(&record("b"), Write, 4).is_some());
        let second = locks.release(first);
        assert_eq!(tasks(&second), [2]);
        let third = locks.release(second[0].1);
        assert_eq!(tasks(&third), [3]);
        assert_eq!(locks.release(third[0].1), []);
        assert!(locks.acquire(&record("a"), Write, 5).is_some());
    }

    #[test]
    fn reads_go_together_but_not_past_a_write_that_waits() {
        let mut locks = Locks::default();
        let first = locks.acquire(&record("a"), Read, 1).expect("free");
        let second = locks.acquire(&record("a"), Read, 2).expect("reads share");
        assert_eq!(locks.acquire(&record("a"), Write, 3), None);
        assert_eq!(locks.acquire(&record("a"), Read, 4), None);
        assert_eq!(locks.acquire(&record("a"), Read, 5), None);
        assert_eq!(locks.release(first), []);
        let write = locks.release(second);
        assert_eq!(tasks(&write), [3]);
        assert_eq!(tasks(&locks.release(write[0].1)), [4, 5]);
    }

    #[test]
    fn who_no_longer_waits_is_passed_over() {
        let mut locks = Locks::default();
        let first = locks.acquire(&record("a"), Read, 1).expect("free");
        locks.acquire(&record("a"), Write, 2);
        locks.acquire(&record("a"), Read, 3);
        locks.acquire(&record("a"), Read, 4);
        assert_eq!(tasks(&locks.forget(&[(record("a"), 2), (record("a"), 3)])), [4]);
        assert_eq!(locks.release(first), []);
    }

    #[test]
    fn a_lease_is_given_back_once() {
        let mut locks = Locks::default();
        let first = locks.acquire(&record("a"), Write, 1).expect("free");
        locks.release(first);
        let second = locks.acquire(&record("a"), Write, 2).expect("free again");
        assert_eq!(locks.release(first), []);
        locks.acquire(&record("a"), Write, 3);
        assert_eq!(tasks(&locks.release(second)), [3]);
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut locks = Locks::default();
        for round in 0..10 {
            let mode = if round % 2 == 0 { Read } else { Write };
            let lease = locks.acquire(&record(&round.to_string()), mode, round).expect("free");
            locks.release(lease);
        }
        assert!(locks.held.is_empty() && locks.leases.is_empty());
    }

    #[test]
    fn thousands_that_wait_in_one_line_leave_it_together() {
        let (mut locks, k) = (Locks::default(), record("k"));
        let holder = locks.acquire(&k, Write, 0).expect("free");
        assert!((1..=60_000).all(|task| locks.acquire(&k, Write, task).is_none()));
        // One after the other would be two thousand million steps.
        let waits: Vec<_> = (1..60_000).map(|task| (k.clone(), task)).collect();
        assert_eq!(locks.forget(&waits), []);
        assert_eq!(tasks(&locks.release(holder)), [60_000]);
    }
}
