//! Which tenants of an executor may have a VM: the cap, which are idle, and which wait for a VM of
//! their own.
//!
//! A tenant takes a slot before its VM is made and gives it back when the VM is closed. At the cap
//! an idle tenant loses its VM; if none is idle, a tenant that needs one stands in line, and the
//! tenant that has had its VM for longest starts nothing new until it has given it up, so that a
//! tenant that is never idle cannot keep the others out. Everything is O(log n). Pure bookkeeping:
//! the caller closes the VMs and says what time it is.
//!
//! Which one loses it (docs/decisions/0039): VMs that have not been used a second time are in the
//! *window*, an eighth of all, and the one that has been idle longest leaves it and is closed. One
//! that is used again is *kept*. So many tenants that take turns, more than have room, leave those
//! that are kept where they are, instead of each closing the VM that is wanted soonest.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::wire::data::TenantId;

/// The window is one in so many of the slots.
const WINDOW_SHARE: usize = 8;

/// A tenant's place among the VMs of its executor; the numbers tell where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum VmSlot {
    /// It has no VM and needs none.
    #[default]
    None,
    /// It needs one and waits for it.
    InLine(u64),
    /// It has one, or may make one, and something runs in it.
    Busy {
        /// Its number among those that were taken.
        taken: u64,
        /// It was idle before, and was used again.
        is_kept: bool,
    },
    /// It has one in which nothing runs.
    Idle {
        /// Its number among those that were taken.
        taken: u64,
        /// Its number among those that are idle.
        idle: u64,
    },
}

/// The slots of an executor.
#[derive(Debug)]
pub(super) struct VmSlots {
    max: usize,
    last: u64,
    /// Limit: `max`; since when they have been taken, the longest first.
    taken: BTreeMap<u64, TenantId>,
    /// Those of `taken` in which nothing runs, idle longest first: the window, and the others.
    window: BTreeMap<u64, (TenantId, Instant)>,
    kept: BTreeMap<u64, (TenantId, Instant)>,
    // Limit: tenants with jobs that have not been answered.
    line: BTreeMap<u64, (TenantId, Instant)>,
    /// Up to here slots have been asked for.
    asked: u64,
}

impl VmSlots {
    pub(super) fn new(max: usize) -> Self {
        let (taken, line) = (BTreeMap::new(), BTreeMap::new());
        let (window, kept) = (BTreeMap::new(), BTreeMap::new());
        Self { max: max.max(1), last: 0, taken, window, kept, line, asked: 0 }
    }

    /// Takes a slot, if one is free.
    pub(super) fn take(&mut self, tenant: TenantId) -> Option<VmSlot> {
        if self.taken.len() >= self.max {
            return None;
        }
        let taken = self.next();
        self.taken.insert(taken, tenant);
        Some(VmSlot::Busy { taken, is_kept: false })
    }

    /// The tenant whose VM goes next, if one is idle.
    pub(super) fn victim(&self) -> Option<TenantId> {
        let (window, kept) = (self.window.first_key_value(), self.kept.first_key_value());
        let is_window_full = self.window.len() >= self.window_len();
        let (_, (tenant, _)) = if is_window_full { window.or(kept) } else { kept.or(window) }?;
        Some(*tenant)
    }

    fn window_len(&self) -> usize {
        (self.max / WINDOW_SHARE).max(1)
    }

    /// The tenant that has been idle longest, if that is for `max_idle`.
    pub(super) fn idle_since(&self, max_idle: Duration, now: Instant) -> Option<TenantId> {
        let (tenant, since) = self.idlest()?;
        (now.saturating_duration_since(since) >= max_idle).then_some(tenant)
    }

    fn idlest(&self) -> Option<(TenantId, Instant)> {
        let idlest =
            [&self.window, &self.kept].into_iter().filter_map(|idle| idle.first_key_value());
        idlest.min_by_key(|(number, _)| **number).map(|(_, idlest)| *idlest)
    }

    /// Whether no tenant waits.
    pub(super) fn line_is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Stands in line; also says which tenant is to give its VM up for it as soon as what runs in
    /// it has ended.
    pub(super) fn join(&mut self, tenant: TenantId, now: Instant) -> (VmSlot, Option<TenantId>) {
        let number = self.next();
        self.line.insert(number, (tenant, now));
        let mut longest = self.taken.range((Bound::Excluded(self.asked), Bound::Unbounded));
        let asked = longest.next().map(|(number, tenant)| (*number, *tenant));
        if let Some((number, _)) = asked {
            self.asked = number;
        }
        (VmSlot::InLine(number), asked.map(|(_, tenant)| tenant))
    }

    /// Gives a slot, or a place in line, back.
    pub(super) fn leave(&mut self, slot: VmSlot) {
        match slot {
            VmSlot::None => {}
            VmSlot::InLine(number) => drop(self.line.remove(&number)),
            VmSlot::Busy { taken, .. } => drop(self.taken.remove(&taken)),
            VmSlot::Idle { taken, idle } => {
                self.taken.remove(&taken);
                self.forget_idle(idle);
            }
        }
    }

    /// Nothing runs in the VM any more.
    pub(super) fn make_idle(
        &mut self,
        tenant: TenantId,
        (taken, is_kept): (u64, bool),
        now: Instant,
    ) -> VmSlot {
        let idle = self.next();
        if is_kept {
            self.kept.insert(idle, (tenant, now));
        } else {
            self.window.insert(idle, (tenant, now));
        }
        // While there is room for more, what leaves the window is kept.
        if self.window.len() > self.window_len()
            && self.taken.len() < self.max
            && let Some((number, left)) = self.window.pop_first()
        {
            self.kept.insert(number, left);
        }
        VmSlot::Idle { taken, idle }
    }

    /// Something runs in the VM again.
    pub(super) fn make_busy(&mut self, taken: u64, idle: u64) -> VmSlot {
        self.forget_idle(idle);
        VmSlot::Busy { taken, is_kept: true }
    }

    fn forget_idle(&mut self, idle: u64) {
        if self.window.remove(&idle).is_none() {
            self.kept.remove(&idle);
        }
    }

    /// The tenant that is next in line, if there is a slot; it takes it.
    pub(super) fn admit(&mut self) -> Option<(TenantId, VmSlot)> {
        if self.taken.len() >= self.max {
            return None;
        }
        let (_, (tenant, _)) = self.line.pop_first()?;
        self.take(tenant).map(|slot| (tenant, slot))
    }

    /// The tenant that has waited in line for so long; it is in line no more.
    pub(super) fn waited(&mut self, max_wait: Duration, now: Instant) -> Option<TenantId> {
        let first = self.line.first_entry()?;
        (now.saturating_duration_since(first.get().1) >= max_wait).then(|| first.remove().0)
    }

    /// When a tenant will have been idle, or have waited, for so long.
    pub(super) fn due(&self, max_idle: Duration, max_wait: Duration) -> Option<Instant> {
        let idle = self.idlest().map(|(_, since)| since + max_idle);
        let wait = self.line.first_key_value().map(|(_, (_, since))| *since + max_wait);
        [idle, wait].into_iter().flatten().min()
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const A: TenantId = TenantId::Guild(1);
    const B: TenantId = TenantId::Guild(2);
    const C: TenantId = TenantId::Guild(3);

    fn taken(slot: Option<VmSlot>) -> u64 {
        match slot {
            Some(VmSlot::Busy { taken, .. }) => taken,
            other => panic!("no slot: {other:?}"),
        }
    }

    #[test]
    fn who_has_been_idle_longest_goes_first() {
        let (mut slots, now) = (VmSlots::new(3), Instant::now());
        let [a, b, c] = [A, B, C].map(|tenant| taken(slots.take(tenant)));
        assert_eq!((slots.take(TenantId::User(1)), slots.victim()), (None, None));
        let a_idle = slots.make_idle(A, (a, false), now);
        slots.make_idle(B, (b, false), now);
        let VmSlot::Idle { idle, .. } = a_idle else { panic!("not idle") };
        // Used once more, it is behind the other.
        assert_eq!(slots.make_busy(a, idle), VmSlot::Busy { taken: a, is_kept: true });
        let a_idle = slots.make_idle(A, (a, true), now);
        slots.make_idle(C, (c, false), now);
        assert_eq!(slots.victim(), Some(B));
        slots.leave(a_idle);
        assert!(slots.take(TenantId::User(1)).is_some());
    }

    /// One event for a tenant; whether it had a VM.
    fn visit(slots: &mut VmSlots, places: &mut HashMap<u64, VmSlot>, number: u64) -> bool {
        let (tenant, now) = (TenantId::Guild(number), Instant::now());
        let (had, busy) = match places.get(&number) {
            Some(VmSlot::Idle { taken, idle }) => (true, slots.make_busy(*taken, *idle)),
            _ => {
                let busy = slots.take(tenant).unwrap_or_else(|| {
                    let victim = slots.victim().expect("all are idle");
                    slots.leave(places.remove(&victim.snowflake()).expect("it has a place"));
                    slots.take(tenant).expect("there is room")
                });
                (false, busy)
            }
        };
        let VmSlot::Busy { taken, is_kept } = busy else { panic!("not busy") };
        places.insert(number, slots.make_idle(tenant, (taken, is_kept), now));
        had
    }

    #[test]
    fn tenants_in_turn_beyond_the_slots_find_most_vms_there() {
        let (mut slots, mut places) = (VmSlots::new(80), HashMap::new());
        let mut round = |tenants: std::ops::Range<u64>| {
            tenants.filter(|number| visit(&mut slots, &mut places, *number)).count()
        };
        assert_eq!(round(0..100), 0);
        for _ in 0..5 {
            assert!((69..=80).contains(&round(0..100)));
        }
        // Others that come more than once take the places of those that come no more.
        for start in (200..400).step_by(5) {
            assert_eq!((round(start..start + 5), round(start..start + 5)), (0, 5));
        }
        assert!(round(320..400) >= 70);
    }

    #[test]
    fn who_is_idle_for_long_enough_is_known_and_when_that_is() {
        let (mut slots, now) = (VmSlots::new(2), Instant::now());
        let (idle, wait) = (Duration::from_secs(10), Duration::from_secs(60));
        let a = taken(slots.take(A));
        assert_eq!(slots.due(idle, wait), None);
        slots.make_idle(A, (a, false), now);
        assert_eq!(slots.due(idle, wait), Some(now + idle));
        assert_eq!(slots.idle_since(idle, now + idle / 2), None);
        assert_eq!(slots.idle_since(idle, now + idle), Some(A));
    }

    #[test]
    fn a_line_is_served_in_order_and_left_after_a_time() {
        let (mut slots, now) = (VmSlots::new(1), Instant::now());
        let a = slots.take(A).expect("free");
        let (b, _) = slots.join(B, now);
        slots.join(C, now + Duration::from_secs(1));
        assert_eq!(slots.admit(), None, "there is no slot");
        slots.leave(a);
        assert!(matches!(slots.admit(), Some((B, _))));
        assert_eq!(slots.waited(Duration::from_secs(5), now + Duration::from_secs(5)), None);
        assert_eq!(
            slots.due(Duration::MAX, Duration::from_secs(5)),
            Some(now + Duration::from_secs(6))
        );
        assert_eq!(slots.waited(Duration::from_secs(5), now + Duration::from_secs(6)), Some(C));
        slots.leave(b);
        assert!(slots.line_is_empty());
    }

    #[test]
    fn each_waiter_asks_the_longest_holder_of_a_vm() {
        let (mut slots, now) = (VmSlots::new(2), Instant::now());
        let a = slots.take(A).expect("free");
        slots.take(B);
        assert_eq!(slots.join(C, now).1, Some(A));
        assert_eq!(slots.join(TenantId::User(1), now).1, Some(B));
        assert_eq!(slots.join(TenantId::User(2), now).1, None, "nobody is asked twice");
        slots.leave(a);
        let (admitted, _) = slots.admit().expect("a slot");
        assert_eq!((admitted, slots.join(A, now).1), (C, Some(C)));
    }
}
