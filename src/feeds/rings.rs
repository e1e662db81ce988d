//! What is kept of the tenants' feeds for readers that come back. Pure.
//!
//! All events of a master are numbered in one row, so that one number says how far a reader has got
//! with every tenant. Where events are missing that a reader with an earlier number has not had, it
//! is told: a ring knows the last numbers that it has dropped, and a shard the last one of rings
//! that went whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::FeedItem;
use crate::base::limits::{FEED_GONE_MAX, FEED_RING_BYTES, FEED_RING_EVENTS};
use crate::wire::data::TenantId;
use crate::wire::data::sharding::{SHARDS, Shard, ShardSet};

/// The rings of all tenants.
#[derive(Debug)]
pub(super) struct Rings {
    /// The last number that was given.
    number: u64,
    events: BTreeMap<u64, Arc<FeedItem>>,
    tenants: HashMap<TenantId, Ring>,
    /// The tenants by the number of their last event.
    by_age: BTreeMap<u64, TenantId>,
    bytes: usize,
    max_bytes: usize,
    /// By shard: up to this number events may have gone of tenants that have no ring.
    gone_to: Vec<u64>,
}

/// A tenant's events, by their numbers.
#[derive(Debug, Default)]
struct Ring {
    numbers: VecDeque<u64>,
    bytes: usize,
    /// Those that have gone, behind `unknown_to`. Limit: `FEED_GONE_MAX`.
    gone: VecDeque<u64>,
    /// Up to this number events have gone, and it is not known how many.
    unknown_to: u64,
}

impl Ring {
    /// An event has gone; how many bytes more it takes to remember that.
    fn lose(&mut self, number: u64) -> usize {
        self.gone.push_back(number);
        if self.gone.len() <= FEED_GONE_MAX {
            return size_of::<u64>();
        }
        self.unknown_to = self.gone.pop_front().unwrap_or(self.unknown_to);
        0
    }

    /// How many have gone that came after that number; `None`: some.
    fn lost(&self, after: u64) -> Option<u64> {
        let known = self.gone.len() - self.gone.partition_point(|gone| *gone <= after);
        (after >= self.unknown_to).then_some(known as u64)
    }
}

impl Rings {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            number: 0,
            events: BTreeMap::new(),
            tenants: HashMap::new(),
            by_age: BTreeMap::new(),
            bytes: 0,
            max_bytes,
            gone_to: vec![0; usize::from(SHARDS)],
        }
    }

    /// The number of the last event.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a tenant's event, which `make` gives its number; `gone` gets those that have to go.
    pub(super) fn push(
        &mut self,
        tenant: TenantId,
        make: impl FnOnce(u64) -> FeedItem,
        gone: &mut dyn FnMut(u64, &FeedItem),
    ) -> Arc<FeedItem> {
        self.number += 1;
        let item = Arc::new(make(self.number));
        let floor = self.gone_to[Shard::of(tenant).index()];
        let ring = self
            .tenants
            .entry(tenant)
            .or_insert_with(|| Ring { unknown_to: floor, ..Ring::default() });
        if let Some(last) = ring.numbers.back() {
            self.by_age.remove(last);
        }
        self.by_age.insert(self.number, tenant);
        ring.numbers.push_back(self.number);
        ring.bytes += item.text_bytes();
        self.bytes += item.weight();
        self.events.insert(self.number, item.clone());
        while ring.numbers.len() > FEED_RING_EVENTS || ring.bytes > FEED_RING_BYTES {
            let Some(number) = ring.numbers.pop_front() else { break };
            self.bytes += ring.lose(number);
            if let Some(item) = self.events.remove(&number) {
                ring.bytes -= item.text_bytes();
                self.bytes -= item.weight();
                gone(number, &item);
            }
        }
        if ring.numbers.is_empty() {
            self.by_age.remove(&self.number);
            self.drop_ring(tenant, gone);
        }
        while self.bytes > self.max_bytes
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.drop_ring(oldest, gone);
        }
        item
    }

    fn drop_ring(&mut self, tenant: TenantId, gone: &mut dyn FnMut(u64, &FeedItem)) {
        let Some(ring) = self.tenants.remove(&tenant) else { return };
        let last = ring.numbers.back().max(ring.gone.back()).copied().unwrap_or(ring.unknown_to);
        let floor = &mut self.gone_to[Shard::of(tenant).index()];
        *floor = last.max(*floor);
        self.bytes -= ring.gone.len() * size_of::<u64>();
        for number in ring.numbers {
            if let Some(item) = self.events.remove(&number) {
                self.bytes -= item.weight();
                gone(number, &item);
            }
        }
    }

    /// Forgets the tenants of these shards, which come from another master or go to one: what they
    /// published there, or will, is not here.
    pub(super) fn forget_shards(&mut self, shards: &ShardSet) {
        let is_gone = |tenant: &TenantId| shards.contains(Shard::of(*tenant));
        let tenants: Vec<TenantId> =
            self.tenants.keys().copied().filter(|tenant| is_gone(tenant)).collect();
        self.by_age.retain(|_, tenant| !is_gone(tenant));
        for tenant in tenants {
            self.drop_ring(tenant, &mut |_, _| {});
        }
        // No event has this number: also a reader that had the last one has missed some.
        self.number += 1;
        for shard in shards.iter() {
            self.gone_to[shard.index()] = self.number;
        }
    }

    /// An event of the tenant is not kept at all.
    pub(super) fn skip(&mut self, tenant: TenantId) {
        self.number += 1;
        match self.tenants.get_mut(&tenant) {
            Some(ring) => self.bytes += ring.lose(self.number),
            None => self.gone_to[Shard::of(tenant).index()] = self.number,
        }
    }

    /// Of tenants that `is_of` names events may be missing that never came; of those that have no
    /// ring nothing else is known either.
    pub(super) fn doubt(&mut self, is_of: &dyn Fn(TenantId) -> bool) {
        self.number += 1;
        for (_, ring) in self.tenants.iter_mut().filter(|(tenant, _)| is_of(**tenant)) {
            self.bytes -= ring.gone.len() * size_of::<u64>();
            ring.gone.clear();
            ring.unknown_to = self.number;
        }
        self.gone_to.fill(self.number);
    }

    /// How many events of this tenant have gone that came after that number; `None`: maybe some.
    pub(super) fn lost(&self, tenant: TenantId, after: u64) -> Option<u64> {
        match self.tenants.get(&tenant) {
            Some(ring) => ring.lost(after),
            None => (after >= self.gone_to[Shard::of(tenant).index()]).then_some(0),
        }
    }

    /// The same of all tenants together.
    pub(super) fn lost_of_any(&self, after: u64) -> Option<u64> {
        let is_known = self.gone_to.iter().all(|gone_to| after >= *gone_to);
        self.tenants.values().map(|ring| ring.lost(after).filter(|_| is_known)).sum()
    }

    /// The events behind that number, in order.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = (u64, &Arc<FeedItem>)> {
        self.events.range(number.saturating_add(1)..).map(|(number, item)| (*number, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{FEED_EVENT_BYTES, FEED_RINGS_BYTES};

    fn push(rings: &mut Rings, tenant: TenantId, bytes: usize) -> usize {
        let mut gone = 0;
        rings.push(tenant, |number| FeedItem::test(tenant, number, bytes), &mut |_, _| gone += 1);
        gone
    }

    fn numbers(rings: &Rings, after: u64) -> Vec<u64> {
        rings.after(after).map(|(number, _)| number).collect()
    }

    #[test]
    fn a_ring_keeps_so_many_events_and_so_many_bytes() {
        let mut rings = Rings::new(FEED_RINGS_BYTES);
        let (busy, calm) = (TenantId::Guild(1), TenantId::Guild(2));
        push(&mut rings, calm, 1);
        for _ in 0..FEED_RING_EVENTS {
            assert_eq!(push(&mut rings, busy, 1), 0);
        }
        assert_eq!(push(&mut rings, busy, 1), 1);
        assert_eq!([1, 2].map(|after| rings.lost(busy, after)), [Some(1), Some(0)]);
        assert_eq!(rings.lost(calm, 0), Some(0), "it is no affair of other tenants");
        assert_eq!([1, 2].map(|after| rings.lost_of_any(after)), [Some(1), Some(0)]);
        assert_eq!(push(&mut rings, busy, FEED_RING_BYTES), FEED_RING_EVENTS);
        assert_eq!(numbers(&rings, 0), [1, FEED_RING_EVENTS as u64 + 3]);
        // One that is larger than a ring is kept nowhere.
        assert_eq!(push(&mut rings, busy, FEED_RING_BYTES + 1), 2);
        assert_eq!(numbers(&rings, 0), [1]);
        let last = rings.number();
        assert_eq!([last - 1, last].map(|after| rings.lost(busy, after)), [None, Some(0)]);
        assert_eq!((rings.by_age.len(), rings.bytes()), (1, 1 + FEED_EVENT_BYTES));
    }

    #[test]
    fn a_ring_knows_how_many_have_gone_but_not_for_ever() {
        let mut rings = Rings::new(FEED_RINGS_BYTES);
        let tenant = TenantId::Guild(1);
        let gone = FEED_GONE_MAX as u64 + 1;
        let pushed = (0..FEED_RING_EVENTS as u64 + gone).map(|_| push(&mut rings, tenant, 1));
        assert_eq!(pushed.sum::<usize>() as u64, gone);
        assert_eq!(
            [0, 1, 2].map(|after| rings.lost(tenant, after)),
            [None, Some(gone - 1), Some(gone - 2)]
        );
        assert_eq!(rings.lost(tenant, gone), Some(0));
        // One that was never kept is behind all that are.
        let had = rings.number();
        rings.skip(tenant);
        rings.skip(TenantId::Guild(2));
        assert_eq!(rings.lost(tenant, had), Some(1));
        assert_eq!(
            (rings.lost(tenant, had + 1), rings.lost(TenantId::Guild(2), had)),
            (Some(0), None)
        );
        assert_eq!(rings.lost_of_any(had + 1), None);
    }

    #[test]
    fn the_rings_without_news_go_first_and_readers_are_told() {
        let mut rings = Rings::new(FEED_RINGS_BYTES);
        // With room to remember that one has gone.
        let text = FEED_RING_BYTES - FEED_EVENT_BYTES - size_of::<u64>();
        let count = (FEED_RINGS_BYTES / FEED_RING_BYTES) as u64;
        for id in 0..count {
            assert_eq!(push(&mut rings, TenantId::User(id), text), 0);
        }
        assert_eq!(push(&mut rings, TenantId::User(0), text), 1, "its first for its second");
        assert_eq!(push(&mut rings, TenantId::User(count), text), 1);
        assert_eq!(rings.lost(TenantId::User(2), 0), Some(0), "the second oldest has its event");
        assert_eq!([1, 2].map(|after| rings.lost(TenantId::User(1), after)), [None, Some(0)]);
        assert!(rings.bytes() <= FEED_RINGS_BYTES && rings.events.len() as u64 == count);
        assert_eq!(rings.tenants.len(), rings.by_age.len());
    }

    #[test]
    fn of_a_shard_that_left_and_came_back_something_is_missing() {
        let mut rings = Rings::new(FEED_RINGS_BYTES);
        let (moved, stays) = (TenantId::Guild(0), TenantId::Guild(1 << 22));
        push(&mut rings, moved, 1);
        push(&mut rings, stays, 1);
        rings.forget_shards(&[Shard::of(moved)].into_iter().collect());
        assert_eq!(numbers(&rings, 0), [2]);
        assert_eq!((rings.lost(moved, 2), rings.lost(stays, 0)), (None, Some(0)));
        push(&mut rings, moved, 1);
        assert_eq!(numbers(&rings, 2), [4]);
        assert_eq!(rings.lost(moved, 2), None, "what another master had meanwhile");
        assert_eq!(rings.lost(moved, 3), Some(0));
    }
}
