//! What one tenant has on the I/O threads, and what waits until it may have more there.

use std::collections::BTreeMap;

use super::io::{IoJob, IoPurpose};
use crate::base::limits::{IO_THREADS, TENANT_HOST_CALLS_MAX, TENANT_IO_MAX};

/// A tenant's share of the I/O threads.
#[derive(Default)]
pub(super) struct IoShare {
    under_way: usize,
    /// Calls to host processes, which are no part of those.
    host_calls: usize,
    /// Those of them that are calls of scripts.
    calls_under_way: usize,
    /// The most that the results of what is under way may take.
    reserved: usize,
    /// What waits for its turn, by the number of that. Limit: one a task, one a waiting script and
    /// one for the program.
    backlog: BTreeMap<u64, IoJob>,
    last_turn: u64,
}

impl IoShare {
    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0 && self.host_calls == 0
    }

    /// How many calls of scripts wait for their turn, and how many are under way at most.
    pub(super) fn calls(&self) -> (usize, usize) {
        let waiting = self.backlog.values().filter(|job| job.purpose.is_call()).count();
        (waiting, self.calls_under_way.min(IO_THREADS))
    }

    /// Whether a job may start beside those that are under way. `has_results`: scripts have results
    /// that they have not taken; `has_room`: there is room for so many bytes.
    pub(super) fn admits(
        &self,
        purpose: IoPurpose,
        has_results: bool,
        has_room: impl Fn(usize) -> bool,
    ) -> bool {
        let is_alone = self.reserved == 0 && !has_results;
        // Those to host processes take long, and leave others their places.
        (purpose.is_to_host() || self.under_way < TENANT_IO_MAX)
            && (is_alone || has_room(self.reserved + purpose.result_max()))
    }

    /// Whether one more call to a host process may be under way.
    pub(super) fn admits_host_call(&self) -> bool {
        self.host_calls < TENANT_HOST_CALLS_MAX
    }

    /// A job is handed to an I/O thread.
    pub(super) fn started(&mut self, purpose: IoPurpose) {
        match purpose.is_to_host() {
            true => self.host_calls += 1,
            false => self.under_way += 1,
        }
        self.calls_under_way += usize::from(purpose.is_call());
        self.reserved += purpose.result_max();
    }

    /// A job that was handed to an I/O thread is done.
    pub(super) fn ended(&mut self, purpose: IoPurpose) {
        let count = match purpose.is_to_host() {
            true => &mut self.host_calls,
            false => &mut self.under_way,
        };
        *count = count.saturating_sub(1);
        self.calls_under_way = self.calls_under_way.saturating_sub(usize::from(purpose.is_call()));
        self.reserved = self.reserved.saturating_sub(purpose.result_max());
    }

    /// Has a job wait: the number of its turn.
    pub(super) fn put_off(&mut self, job: IoJob) -> u64 {
        self.last_turn += 1;
        self.backlog.insert(self.last_turn, job);
        self.last_turn
    }

    /// What the job is for whose turn is next, if one waits.
    pub(super) fn next(&self) -> Option<IoPurpose> {
        self.backlog.first_key_value().map(|(_, job)| job.purpose)
    }

    /// Takes out the job whose turn is next.
    pub(super) fn take_next(&mut self) -> Option<IoJob> {
        self.backlog.pop_first().map(|(_, job)| job)
    }

    /// Takes out the job that waits for this turn.
    pub(super) fn take(&mut self, turn: u64) -> Option<IoJob> {
        self.backlog.remove(&turn)
    }
}
