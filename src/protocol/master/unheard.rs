//! The events of a link that left without a request id, and that the worker has not told of: pure,
//! no I/O, no clock.
//!
//! A worker tells how many of a tenant's events have ended, and not which: the oldest count as
//! those. Invariant: `register` takes the same lock as `seal` and `close`, so no event slips in
//! after them.

use std::collections::VecDeque;

use crate::base::limits::{PENDING_MAX, TENANT_UNHEARD_MAX};
use crate::base::sync::Lock;
use crate::dispatch::RequestId;
use crate::net::link::Registered;
use crate::wire::data::{IdMap, TenantId};
use crate::wire::message::FinishedEvents;

/// Events without a request id by their tenant. `T` is what is kept of each.
#[derive(Debug)]
pub(super) struct Unheard<T> {
    state: Lock<UnheardState<T>>,
}

#[derive(Debug)]
struct UnheardState<T> {
    /// Of each tenant at least one, the oldest first. The id is the master's own, for
    /// [`Unheard::take_back`].
    tenants: IdMap<TenantId, VecDeque<(RequestId, T)>>,
    len: usize,
    is_open: bool,
}

/// How an event has ended, as far as its worker tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It ran, or its tenant is not subscribed to it.
    Well,
    /// It failed.
    Failed,
    /// The worker did not take it.
    Busy,
}

impl<T> Unheard<T> {
    pub(super) fn new() -> Self {
        let state = UnheardState { tenants: IdMap::default(), len: 0, is_open: true };
        Self { state: Lock::new(state) }
    }

    /// Adds an event, before its bytes leave.
    pub(super) fn register(&self, tenant: TenantId, id: RequestId, event: T) -> Registered<T> {
        let mut state = self.state.lock();
        if !state.is_open {
            return Registered::Sealed(event);
        }
        let held = state.tenants.get(&tenant).map_or(0, VecDeque::len);
        if held >= TENANT_UNHEARD_MAX || state.len >= PENDING_MAX {
            return Registered::Full(event);
        }
        state.len += 1;
        state.tenants.entry(tenant).or_default().push_back((id, event));
        Registered::Waiting(state.len)
    }

    /// Removes an event that did not leave after all; `None`: it was ended meanwhile.
    pub(super) fn take_back(&self, tenant: TenantId, id: RequestId) -> Option<T> {
        let mut state = self.state.lock();
        let events = state.tenants.get_mut(&tenant)?;
        let place = events.iter().rposition(|(of, _)| *of == id)?;
        let (_, event) = events.remove(place)?;
        if events.is_empty() {
            state.tenants.remove(&tenant);
        }
        state.len -= 1;
        Some(event)
    }

    /// Removes as many events as are told of, each tenant's oldest first. Also returns how many are
    /// told of beyond those that there are.
    pub(super) fn take_finished(
        &self,
        told: impl IntoIterator<Item = FinishedEvents>,
    ) -> (Vec<(T, Ended)>, u64) {
        let (mut taken, mut surplus) = (Vec::new(), 0_u64);
        let mut state = self.state.lock();
        for FinishedEvents { tenant, ok, failed, busy } in told {
            let mut events = state.tenants.get_mut(&tenant);
            let before = taken.len();
            for (count, ended) in [(ok, Ended::Well), (failed, Ended::Failed), (busy, Ended::Busy)]
            {
                let held = events.as_ref().map_or(0, |events| events.len());
                let ending = usize::try_from(count).map_or(held, |count| count.min(held));
                surplus = surplus.saturating_add(count - ending as u64);
                if let Some(events) = &mut events {
                    taken.extend(events.drain(..ending).map(|(_, event)| (event, ended)));
                }
            }
            if events.is_some_and(|events| events.is_empty()) {
                state.tenants.remove(&tenant);
            }
            state.len -= taken.len() - before;
        }
        (taken, surplus)
    }

    /// Removes all events of the tenants that are named.
    pub(super) fn take_tenants(&self, mut is_taken: impl FnMut(TenantId) -> bool) -> Vec<T> {
        let mut state = self.state.lock();
        let taken: Vec<T> = state
            .tenants
            .extract_if(|tenant, _| is_taken(*tenant))
            .flat_map(|(_, events)| events)
            .map(|(_, event)| event)
            .collect();
        state.len -= taken.len();
        taken
    }

    /// Takes no more events; those that are there stay. Once there is none after this, none is
    /// under way.
    pub(super) fn seal(&self) {
        self.state.lock().is_open = false;
    }

    /// Ends it: takes no more events, and hands over all that are there.
    pub(super) fn close(&self) -> Vec<T> {
        self.seal();
        self.take_tenants(|_| true)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.state.lock().len
    }

    /// Looks at all of them, such as for what was in flight when a worker died.
    pub(super) fn for_each(&self, visit: impl FnMut(&T)) {
        self.state.lock().tenants.values().flatten().map(|(_, event)| event).for_each(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TenantId = TenantId::Guild(1);
    const OTHER: TenantId = TenantId::User(1);

    fn told(tenant: TenantId, ok: u64, failed: u64, busy: u64) -> FinishedEvents {
        FinishedEvents { tenant, ok, failed, busy }
    }

    /// Of each tenant so many events, which are numbers from 0 on.
    fn unheard(counts: &[(TenantId, u64)]) -> Unheard<(TenantId, u64)> {
        let unheard = Unheard::new();
        for (tenant, count) in counts {
            for number in 0..*count {
                let registered = unheard.register(*tenant, RequestId(number), (*tenant, number));
                assert!(matches!(registered, Registered::Waiting(_)), "{registered:?}");
            }
        }
        unheard
    }

    #[test]
    fn the_oldest_events_of_a_tenant_end_as_it_is_told() {
        let unheard = unheard(&[(ONE, 6), (OTHER, 2)]);
        let (ended, surplus) = unheard.take_finished([told(ONE, 2, 1, 1), told(OTHER, 0, 0, 1)]);
        let expected = [
            ((ONE, 0), Ended::Well),
            ((ONE, 1), Ended::Well),
            ((ONE, 2), Ended::Failed),
            ((ONE, 3), Ended::Busy),
            ((OTHER, 0), Ended::Busy),
        ];
        assert_eq!((ended, surplus), (expected.to_vec(), 0));
        assert_eq!(unheard.len(), 3);
        let mut left = Vec::new();
        unheard.for_each(|event| left.push(*event));
        left.sort();
        assert_eq!(left, [(ONE, 4), (ONE, 5), (OTHER, 1)]);
    }

    #[test]
    fn what_is_told_beyond_what_there_is_ends_nothing() {
        let unheard = unheard(&[(ONE, 2), (OTHER, 1)]);
        let lies = [told(ONE, 1, u64::MAX, 3), told(TenantId::Guild(2), 0, 1, 0)];
        let (ended, surplus) = unheard.take_finished(lies);
        assert_eq!(ended, [((ONE, 0), Ended::Well), ((ONE, 1), Ended::Failed)]);
        assert_eq!((surplus, unheard.len()), (u64::MAX, 1));
        assert_eq!(unheard.take_finished([told(ONE, 7, 0, 0)]), (vec![], 7));
        assert_eq!(unheard.take_finished([told(OTHER, 1, 0, 0)]).0, [((OTHER, 0), Ended::Well)]);
        assert_eq!(unheard.len(), 0);
    }

    #[test]
    fn a_tenant_has_a_bound_and_so_have_all() {
        let unheard = unheard(&[(ONE, TENANT_UNHEARD_MAX as u64)]);
        let next = RequestId(u64::MAX);
        let full = Registered::Full((ONE, 7));
        assert_eq!(unheard.register(ONE, next, (ONE, 7)), full);
        let count = TENANT_UNHEARD_MAX + 1;
        assert_eq!(unheard.register(OTHER, next, (OTHER, 7)), Registered::Waiting(count));
        unheard.take_finished([told(ONE, 1, 0, 0)]);
        assert_eq!(unheard.register(ONE, next, (ONE, 7)), Registered::Waiting(count));
        let many = Unheard::new();
        for number in 0..PENDING_MAX as u64 {
            let registered = many.register(TenantId::Guild(number / 1000), RequestId(number), ());
            assert!(matches!(registered, Registered::Waiting(_)));
        }
        assert_eq!(many.register(OTHER, next, ()), Registered::Full(()));
    }

    #[test]
    fn an_event_that_did_not_leave_is_taken_back_once() {
        let unheard = unheard(&[(ONE, 3)]);
        assert_eq!(unheard.take_back(ONE, RequestId(1)), Some((ONE, 1)));
        assert_eq!(unheard.take_back(ONE, RequestId(1)), None);
        assert_eq!(unheard.take_back(OTHER, RequestId(0)), None);
        let ended = unheard.take_finished([told(ONE, 2, 0, 0)]).0;
        assert_eq!(ended, [((ONE, 0), Ended::Well), ((ONE, 2), Ended::Well)]);
        assert_eq!((unheard.len(), unheard.take_back(ONE, RequestId(0))), (0, None));
    }

    #[test]
    fn nothing_slips_in_after_a_seal_or_the_end() {
        let unheard = unheard(&[(ONE, 2), (OTHER, 1)]);
        unheard.seal();
        let late = Registered::Sealed((ONE, 7));
        assert_eq!(unheard.register(ONE, RequestId(7), (ONE, 7)), late);
        assert_eq!(unheard.take_tenants(|tenant| tenant == OTHER), [(OTHER, 0)]);
        assert_eq!(unheard.len(), 2, "what is under way goes on");
        assert_eq!(unheard.close(), [(ONE, 0), (ONE, 1)]);
        assert_eq!((unheard.len(), unheard.close()), (0, vec![]));
        assert_eq!(unheard.register(ONE, RequestId(7), (ONE, 7)), late);
    }
}
