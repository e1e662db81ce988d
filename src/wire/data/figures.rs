//! What a worker's runtime has counted since it started, as its master sees it.
//!
//! Plain copies of the runtime's own counters, of one moment; no tenant is in them. Kinds have
//! names, which are labels of metrics and what goes over the wire, so that both sides may know
//! kinds that the other does not.

use super::TenantId;
use crate::base::labels::labels;
use crate::base::metrics::Buckets;

labels! {
    /// A bound of one event or of one tenant, which a template can exceed.
    #[derive(Hash)]
    Budget {
        /// Live data of the VM.
        Memory = "memory",
        /// Running time of the event.
        RunningTime = "running_time",
        /// Wall time of the event.
        WallTime = "wall_time",
        /// Running time where Luau cannot be interrupted.
        Unyieldable = "unyieldable",
        /// Coroutines alive.
        Coroutines = "coroutines",
        /// Coroutines started.
        Spawns = "spawns",
        /// Calls that wait.
        Calls = "calls",
        /// Events of the tenant that wait to start: one more is refused.
        Queue = "queue",
    }
}

labels! {
    /// What a worker drops, or refuses by itself.
    Dropped {
        /// An error that was not recorded with its tenant.
        ErrorRecord = "error_record",
        /// An event that ended because the VM that it ran in was thrown away for another's sake.
        Event = "event",
        /// The tasks that an event had left, which ended with its tenant's time on the worker.
        Tasks = "tasks",
        /// A call of a template that found no room in the worker.
        Call = "call",
        /// An event of a tenant's feed that was too many, or found no room.
        FeedEvent = "feed_event",
        /// An `OnStartup` that found its tenant busy each time.
        StartupEvent = "startup_event",
    }
}

labels! {
    /// A call of a template to the database.
    DbCall {
        /// `KV:get`, `KV:getrecord`, and the first half of `KV:update`.
        Get = "get",
        /// `KV:set`, and the second half of `KV:update`.
        Set = "set",
        /// `KV:delete`.
        Delete = "delete",
        /// `KV:find`.
        Find = "find",
        /// `KV:list_scopes`.
        ListScopes = "list_scopes",
        /// `GlobalKV:find`.
        GlobalFind = "global_find",
        /// `GlobalKV:get`.
        GlobalGet = "global_get",
        /// `GlobalKV:create`.
        GlobalCreate = "global_create",
        /// `GlobalKV:delete`.
        GlobalDelete = "global_delete",
        /// `Runtime:settenantstate`.
        SetTenantState = "set_tenant_state",
        /// `Timers:at`, `:after` and `:every`.
        TimerSet = "timer_set",
        /// `Timers:cancel`.
        TimerCancel = "timer_cancel",
        /// `Timers:list`.
        TimerList = "timer_list",
    }
}

/// Calls to the database of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DbFigures {
    /// How many failed, for any reason.
    pub failed: u64,
    /// How long they took, as the template sees it: waiting for the record's lock and for a thread
    /// included.
    pub took: Buckets,
}

/// What a runtime has counted since it started, and two counts of this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeFigures {
    /// VMs that were closed because nothing had run in them for long, or others needed their
    /// places.
    pub evicted_vms: u64,
    /// VMs that were thrown away with all that ran in them: their memory was used up, or something
    /// in them panicked.
    pub discarded_vms: u64,
    /// Events that have come and not started, now.
    pub waiting_events: u64,
    /// Coroutines of events that have not ended, now: they run, wait, or are about to go on.
    pub coroutines: u64,
    /// How often a script's turn ended before the script paused by itself.
    pub preemptions: u64,
    /// Panics while a tenant had its turn.
    pub panics: u64,
    /// Events, and tasks that they left, that ended with an error other than an exceeded budget.
    pub script_errors: u64,
    /// Results that were larger than a message may be; script errors too.
    pub large_answers: u64,
    /// Lines that scripts logged beyond what a tenant may.
    pub dropped_log_lines: u64,
    /// Running time of each event that ended, all its coroutines together.
    pub running: Buckets,
    /// Wall time of each event that ended, from its start to the end of its last task.
    pub wall: Buckets,
    /// How often each [`Budget`] was exceeded.
    budgets: [u64; Budget::ALL.len()],
    /// How often a tenant was warned that it comes near one.
    warnings: [u64; Budget::ALL.len()],
    dropped: [u64; Dropped::ALL.len()],
    db: [DbFigures; DbCall::ALL.len()],
    /// The tenants with most running time, or most events, in the last minutes: how many events,
    /// and their running time in microseconds.
    pub busiest: Vec<(TenantId, u64, u64)>,
    /// The running time of all tenants in those minutes.
    pub busiest_us: u64,
}

impl RuntimeFigures {
    /// How often this budget was exceeded.
    pub fn budget(&self, budget: Budget) -> u64 {
        self.budgets[budget as usize]
    }

    /// As [`RuntimeFigures::budget`], to be changed.
    pub fn budget_mut(&mut self, budget: Budget) -> &mut u64 {
        &mut self.budgets[budget as usize]
    }

    /// How often a tenant was warned that it comes near this budget.
    pub fn warnings(&self, budget: Budget) -> u64 {
        self.warnings[budget as usize]
    }

    /// As [`RuntimeFigures::warnings`], to be changed.
    pub fn warnings_mut(&mut self, budget: Budget) -> &mut u64 {
        &mut self.warnings[budget as usize]
    }

    /// How much of this kind was dropped.
    pub fn dropped(&self, kind: Dropped) -> u64 {
        self.dropped[kind as usize]
    }

    /// As [`RuntimeFigures::dropped`], to be changed.
    pub fn dropped_mut(&mut self, kind: Dropped) -> &mut u64 {
        &mut self.dropped[kind as usize]
    }

    /// The calls of this kind.
    pub fn db(&self, call: DbCall) -> &DbFigures {
        &self.db[call as usize]
    }

    /// As [`RuntimeFigures::db`], to be changed.
    pub fn db_mut(&mut self, call: DbCall) -> &mut DbFigures {
        &mut self.db[call as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::labels::Label;

    fn names<K: Label>() -> Vec<&'static str> {
        K::ALL.iter().map(|kind| kind.as_str()).collect()
    }

    #[test]
    fn every_kind_has_a_place_and_a_name_of_its_own() {
        let mut figures = RuntimeFigures::default();
        for (place, budget) in (1..).zip(Budget::ALL) {
            *figures.budget_mut(budget) = place;
            *figures.warnings_mut(budget) = 100 + place;
        }
        for (place, call) in (1..).zip(DbCall::ALL) {
            figures.db_mut(call).failed = place;
        }
        for (place, kind) in (1..).zip(Dropped::ALL) {
            *figures.dropped_mut(kind) = place;
        }
        assert!((1..).zip(Budget::ALL).all(|(place, budget)| {
            (figures.budget(budget), figures.warnings(budget)) == (place, 100 + place)
        }));
        assert!((1..).zip(DbCall::ALL).all(|(place, call)| figures.db(call).failed == place));
        assert!((1..).zip(Dropped::ALL).all(|(place, kind)| figures.dropped(kind) == place));
        for mut names in [names::<Budget>(), names::<DbCall>(), names::<Dropped>()] {
            let len = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), len);
        }
    }
}
