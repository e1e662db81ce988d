//! The jobs that wait for a thread, by owner, mostly a tenant: owners take turns, and none has all
//! threads.
//!
//! Some threads take only jobs of owners that have less than their share of threads, so that
//! however long the jobs of one owner are, one of another seldom waits for them. Pure data, driven
//! by `on_demand_threads`.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Jobs `J` of owners `K`.
#[derive(Debug)]
pub(super) struct Turns<K, J> {
    threads: usize,
    owners: HashMap<K, Jobs<J>>,
    /// Owners with a job that waits, the next one first.
    order: VecDeque<K>,
    waiting: usize,
    under_way: usize,
}

#[derive(Debug)]
struct Jobs<J> {
    waiting: VecDeque<J>,
    under_way: usize,
}

impl<K: Copy + Eq + Hash, J> Turns<K, J> {
    /// For so many threads.
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, owners: HashMap::new(), order: VecDeque::new(), waiting: 0, under_way: 0 }
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// How many of an owner wait.
    pub(super) fn of(&self, owner: K) -> usize {
        self.owners.get(&owner).map_or(0, |jobs| jobs.waiting.len())
    }

    /// Adds a job behind those of its owner.
    pub(super) fn push(&mut self, owner: K, job: J) {
        let jobs = self
            .owners
            .entry(owner)
            .or_insert_with(|| Jobs { waiting: VecDeque::new(), under_way: 0 });
        if jobs.waiting.is_empty() {
            self.order.push_back(owner);
        }
        jobs.waiting.push_back(job);
        self.waiting += 1;
    }

    /// Where the next job is in `order`: of an owner that has less than its share of threads, which
    /// is a quarter and kept free for such owners, or else of any.
    fn next(&self) -> Option<usize> {
        let share = (self.threads / 4).max(1);
        let is_ample = self.under_way + share < self.threads;
        let has_less =
            |owner: &K| self.owners.get(owner).is_some_and(|jobs| jobs.under_way < share);
        self.order.iter().position(has_less).or((is_ample && !self.order.is_empty()).then_some(0))
    }

    /// Whether a job may begin.
    pub(super) fn has_next(&self) -> bool {
        self.next().is_some()
    }

    /// Begins a job of the owner whose turn it is.
    pub(super) fn begin(&mut self) -> Option<(K, J)> {
        let owner = self.order.remove(self.next()?)?;
        let jobs = self.owners.get_mut(&owner)?;
        let job = jobs.waiting.pop_front()?;
        jobs.under_way += 1;
        if !jobs.waiting.is_empty() {
            self.order.push_back(owner);
        }
        self.waiting -= 1;
        self.under_way += 1;
        Some((owner, job))
    }

    /// A job of an owner has ended.
    pub(super) fn ended(&mut self, owner: K) {
        self.under_way -= 1;
        if let Some(jobs) = self.owners.get_mut(&owner) {
            jobs.under_way -= 1;
            if jobs.under_way == 0 && jobs.waiting.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    /// Takes out all that wait.
    pub(super) fn take(&mut self) -> Vec<J> {
        self.order.clear();
        self.waiting = 0;
        self.owners.values_mut().flat_map(|jobs| std::mem::take(&mut jobs.waiting)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::TenantId;

    const A: TenantId = TenantId::Guild(1);
    const B: TenantId = TenantId::Guild(2);
    const C: TenantId = TenantId::Guild(3);

    fn begun(turns: &mut Turns<TenantId, usize>) -> Vec<TenantId> {
        std::iter::from_fn(|| turns.begin().map(|(tenant, _)| tenant)).collect()
    }

    #[test]
    fn one_tenant_leaves_threads_to_the_others() {
        let mut turns = Turns::new(8);
        (0..16).for_each(|job| turns.push(A, job));
        assert_eq!(begun(&mut turns), [A; 6]);
        (0..16).for_each(|job| turns.push(B, job));
        assert_eq!(begun(&mut turns), [B; 2]);
        (0..3).for_each(|_| turns.ended(A));
        assert_eq!(begun(&mut turns), [A]);
        turns.ended(A);
        assert_eq!(begun(&mut turns), [B], "they take turns");
        turns.push(C, 0);
        assert_eq!(begun(&mut turns), [C], "and a third finds one free");
    }

    #[test]
    fn tenants_take_turns_and_each_has_its_jobs_in_order() {
        let mut turns = Turns::new(1);
        [(A, 1), (A, 2), (A, 3), (B, 4), (C, 5), (B, 6)]
            .into_iter()
            .for_each(|(tenant, job)| turns.push(tenant, job));
        assert_eq!([A, B, C].map(|tenant| turns.of(tenant)), [3, 2, 1]);
        let mut order = Vec::new();
        while let Some((tenant, job)) = turns.begin() {
            turns.ended(tenant);
            order.push(job);
        }
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert!(turns.owners.is_empty() && turns.len() == 0);
    }

    #[test]
    fn what_waits_is_taken_out_and_what_runs_ends_as_ever() {
        let mut turns = Turns::new(4);
        [(A, 1), (A, 2), (B, 3)].into_iter().for_each(|(tenant, job)| turns.push(tenant, job));
        assert!(turns.begin().is_some());
        let mut left = turns.take();
        left.sort_unstable();
        assert_eq!((left, turns.len(), turns.has_next()), (vec![2, 3], 0, false));
        turns.ended(A);
        turns.push(A, 4);
        assert_eq!(turns.begin(), Some((A, 4)));
    }
}
