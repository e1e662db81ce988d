//! Which tenant brings its worker down, and tenants that are not to do so again.
//!
//! It cannot be told from outside which of the events in flight killed a process. So each death
//! counts against every tenant that was in flight, and after some deaths within a window those with
//! the highest count are looked at: one that stands out is quarantined; if several are level, one
//! more death decides between them or takes them all, unless they are many: then it is the worker
//! that is broken. A worker that hangs says itself which tenant's event it hangs in.
//! (docs/decisions/0009.)
//!
//! In memory: a new master starts without quarantines. Called by supervision loops and every thread
//! that dispatches; nothing blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::base::limits;
use crate::base::primitives::atomic::{AtomicUsize, Ordering};
use crate::base::sync::Lock;
use crate::wire::data::TenantId;

/// The rule by which deaths become a quarantine; pure.
#[derive(Debug)]
struct Blame {
    after: usize,
    deaths: HashMap<TenantId, VecDeque<Instant>>,
}

impl Blame {
    /// A worker died, or hung, with events of these tenants in flight, which counts as so many
    /// deaths. Returns those that are to be quarantined.
    fn died(&mut self, deaths: usize, tenants: &BTreeSet<TenantId>, now: Instant) -> Vec<TenantId> {
        self.forget(now, tenants.len());
        for tenant in tenants {
            self.deaths.entry(*tenant).or_default().extend(std::iter::repeat_n(now, deaths));
        }
        let count = |tenant: &TenantId| self.deaths.get(tenant).map_or(0, VecDeque::len);
        let most = tenants.iter().map(count).max().unwrap_or(0);
        let suspects: Vec<TenantId> =
            tenants.iter().copied().filter(|tenant| count(tenant) == most).collect();
        let is_sure = suspects.len() == 1 && most >= self.after;
        let is_last_resort = suspects.len() <= limits::QUARANTINE_AT_ONCE_MAX && most > self.after;
        if !is_sure && !is_last_resort {
            return Vec::new();
        }
        for tenant in &suspects {
            self.deaths.remove(tenant);
        }
        suspects
    }

    /// Forgets what is older than the window, and what was longest ago if there is no room for so
    /// many more.
    fn forget(&mut self, now: Instant, room: usize) {
        self.deaths.retain(|_, deaths| {
            let age = |at: &Instant| now.saturating_duration_since(*at);
            while deaths.front().is_some_and(|at| age(at) > limits::QUARANTINE_WINDOW) {
                deaths.pop_front();
            }
            !deaths.is_empty()
        });
        let too_many = (self.deaths.len() + room).saturating_sub(limits::SUSPECTS_MAX);
        if too_many > 0 {
            let mut by_age: Vec<(Option<Instant>, TenantId)> = self
                .deaths
                .iter()
                .map(|(tenant, deaths)| (deaths.back().copied(), *tenant))
                .collect();
            by_age.sort_unstable();
            for (_, tenant) in by_age.into_iter().take(too_many) {
                self.deaths.remove(&tenant);
            }
        }
    }
}

/// Why a tenant is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Since when.
    pub since: Instant,
    /// What happened, for operators.
    pub reason: String,
}

/// The quarantined tenants of a master.
#[derive(Debug)]
pub struct Quarantine {
    state: Lock<QuarantineState>,
    /// So that dispatches need no lock while no tenant is quarantined.
    count: AtomicUsize,
}

#[derive(Debug)]
struct QuarantineState {
    blame: Blame,
    quarantined: BTreeMap<TenantId, Quarantined>,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self::new(limits::QUARANTINE_AFTER)
    }
}

impl Quarantine {
    /// No tenant is quarantined yet; `after` so many deaths one is.
    pub fn new(after: usize) -> Self {
        let blame = Blame { after, deaths: HashMap::new() };
        let state = QuarantineState { blame, quarantined: BTreeMap::new() };
        Self { state: Lock::new(state), count: AtomicUsize::new(0) }
    }

    /// Whether nothing of this tenant may run.
    pub fn holds(&self, tenant: TenantId) -> bool {
        self.count() > 0 && self.state.lock().quarantined.contains_key(&tenant)
    }

    /// Notes that a worker died, or hung, with these tenants' events in flight, which counts as so
    /// many `deaths`; returns those that are quarantined for it now.
    pub fn died(
        &self,
        worker_id: usize,
        how: &str,
        deaths: usize,
        tenants: &BTreeSet<TenantId>,
        now: Instant,
    ) -> Vec<TenantId> {
        let mut state = self.state.lock();
        let culprits = state.blame.died(deaths, tenants, now);
        for tenant in &culprits {
            let reason = format!(
                "its events were in flight at deaths of worker {worker_id} again and again; the last one: {how}"
            );
            log::error!(tenant:% = tenant; "{tenant} is quarantined: {reason}; `mesophyll quarantine lift {tenant}` lets it run again");
            state.quarantined.insert(*tenant, Quarantined { since: now, reason });
        }
        self.count.store(state.quarantined.len(), Ordering::Release);
        culprits
    }

    /// Lets a tenant run again; false if it was not quarantined.
    pub fn lift(&self, tenant: TenantId) -> bool {
        let mut state = self.state.lock();
        let was = state.quarantined.remove(&tenant).is_some();
        self.count.store(state.quarantined.len(), Ordering::Release);
        was
    }

    /// How many are quarantined.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The quarantined tenants, in order of their ids.
    pub fn list(&self) -> Vec<(TenantId, Quarantined)> {
        self.state.lock().quarantined.clone().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CULPRIT: TenantId = TenantId::Guild(1);
    const INNOCENT: TenantId = TenantId::Guild(2);

    fn set(tenants: impl IntoIterator<Item = TenantId>) -> BTreeSet<TenantId> {
        tenants.into_iter().collect()
    }

    fn died(
        quarantine: &Quarantine,
        tenants: impl IntoIterator<Item = TenantId>,
        second: u64,
    ) -> Vec<TenantId> {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        let now = *START.get_or_init(Instant::now) + Duration::from_secs(second);
        quarantine.died(0, "killed by signal 11", 1, &set(tenants), now)
    }

    #[test]
    fn the_tenant_at_every_death_is_the_culprit() {
        let quarantine = Quarantine::default();
        assert_eq!(died(&quarantine, [CULPRIT, INNOCENT], 0), []);
        assert_eq!(died(&quarantine, [CULPRIT, INNOCENT], 1), []);
        assert!(!quarantine.holds(CULPRIT));
        assert_eq!(died(&quarantine, [CULPRIT, TenantId::User(3)], 2), [CULPRIT]);
        assert!(quarantine.holds(CULPRIT) && !quarantine.holds(INNOCENT));
        assert_eq!(quarantine.list().len(), 1);
        // A tenant that shared its worker has nothing to fear from one more death.
        assert_eq!(died(&quarantine, [TenantId::User(3)], 3), []);
        assert!(quarantine.lift(CULPRIT) && !quarantine.lift(CULPRIT));
        assert!(!quarantine.holds(CULPRIT));
        assert_eq!(died(&quarantine, [CULPRIT], 4), [], "its deaths are forgotten");
    }

    #[test]
    fn a_death_with_none_in_flight_blames_and_excuses_none() {
        let quarantine = Quarantine::default();
        died(&quarantine, [CULPRIT], 0);
        died(&quarantine, [CULPRIT], 1);
        assert_eq!(died(&quarantine, [], 2), []);
        assert_eq!(died(&quarantine, [CULPRIT], 3), [CULPRIT]);
    }

    #[test]
    fn when_several_are_level_one_more_death_decides() {
        for (last, expected) in
            [(vec![CULPRIT], vec![CULPRIT]), (vec![CULPRIT, INNOCENT], vec![CULPRIT, INNOCENT])]
        {
            let quarantine = Quarantine::default();
            for second in 0..3 {
                assert_eq!(died(&quarantine, [CULPRIT, INNOCENT], second), []);
            }
            assert_eq!(died(&quarantine, last, 3), expected);
        }
    }

    #[test]
    fn a_worker_that_dies_whoever_is_there_quarantines_nobody() {
        let quarantine = Quarantine::default();
        for second in 0..10 {
            assert_eq!(died(&quarantine, (0..9).map(TenantId::Guild), second), []);
        }
    }

    #[test]
    fn what_is_long_ago_no_longer_counts_and_memory_is_bounded() {
        let quarantine = Quarantine::default();
        died(&quarantine, [CULPRIT], 0);
        died(&quarantine, [CULPRIT], 1);
        assert_eq!(died(&quarantine, [CULPRIT], 602), []);
        for round in 0..3 {
            let many = (0..70_000).map(|id| TenantId::Guild(10 + round * 70_000 + id));
            assert_eq!(died(&quarantine, many, 603 + round), []);
        }
        assert_eq!(quarantine.state.lock().blame.deaths.len(), limits::SUSPECTS_MAX);
    }
}
