//! The tenants that watch the shop, and what each of them is yet to be told. Pure; the time is
//! passed in.
//!
//! Of an entry a tenant is told how it is at last, one update at a time: what comes while one is on
//! its way waits, merged entry by entry. One that did not arrive is told again. Where too much
//! waits, a gap takes its place, which tells the tenant to look itself.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::limits::{
    SHOP_DEADLINE, SHOP_PENDING_MAX, SHOP_PENDING_TOTAL_MAX, SHOP_PLACE_FOR, SHOP_PLACES,
    SHOP_RETRY_MAX, SHOP_RETRY_MIN, SHOP_TELLING_MAX, SHOP_TELLS_MAX,
};
use crate::pool::arrival::Arrival;
use crate::pool::places::{Places, Running};
use crate::store::global::GlobalAddress;
use crate::store::shop::{ShopChange, ShopChangeKind};
use crate::store::shop_patterns::ShopPatterns;
use crate::wire::data::TenantId;

/// What a tenant is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// It missed something.
    Gap,
    /// An entry changed.
    Change(Arc<ShopChange>),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Gap => f.write_str("the notice that updates of the shop were missed"),
            Told::Change(change) => {
                let GlobalAddress { scope, key, version } = &change.at;
                write!(f, "the update of the shop's {key:?} in {scope:?}, version {version},")
            }
        }
    }
}

#[derive(Debug, Default)]
struct Watcher {
    patterns: ShopPatterns,
    has_gap: bool,
    /// The entries of `pending`, the first one first.
    queue: VecDeque<GlobalAddress>,
    pending: HashMap<GlobalAddress, Arc<ShopChange>>,
    telling: Option<Running<Told>>,
    /// Updates in a row that did not arrive, and of those what may have.
    failures: u32,
    tells: u32,
    due: Option<Instant>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_tenant: HashMap<TenantId, Watcher>,
    /// Tenants that are to be told something, and not before when.
    due: BTreeSet<(Instant, TenantId)>,
    /// Of those that are being told something.
    places: Places,
    /// How much is pending.
    pending: usize,
}

impl Watchers {
    pub(super) fn len(&self) -> usize {
        self.by_tenant.len()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Takes over what a tenant watches from now on.
    pub(super) fn watch(&mut self, tenant: TenantId, patterns: ShopPatterns) {
        if patterns.is_empty() {
            self.forget(tenant);
        } else {
            self.by_tenant.entry(tenant).or_default().patterns = patterns;
        }
    }

    /// Takes over a tenant of which it is not known what it was told.
    pub(super) fn come(&mut self, tenant: TenantId, patterns: ShopPatterns, now: Instant) {
        self.watch(tenant, patterns);
        self.miss(tenant, now);
    }

    /// Forgets all others.
    pub(super) fn retain(&mut self, is_kept: impl Fn(TenantId) -> bool) {
        let tenants = self.by_tenant.keys().copied();
        let gone: Vec<TenantId> = tenants.filter(|tenant| !is_kept(*tenant)).collect();
        gone.into_iter().for_each(|tenant| self.forget(tenant));
    }

    fn forget(&mut self, tenant: TenantId) {
        let Some(watcher) = self.by_tenant.remove(&tenant) else { return };
        if let Some(telling) = watcher.telling {
            self.places.end(&telling);
        }
        self.pending -= watcher.pending.len();
        if let Some(at) = watcher.due {
            self.due.remove(&(at, tenant));
        }
    }

    /// Has every tenant told that it missed something.
    pub(super) fn miss_all(&mut self, now: Instant) {
        let all: Vec<TenantId> = self.by_tenant.keys().copied().collect();
        all.into_iter().for_each(|tenant| self.miss(tenant, now));
    }

    fn miss(&mut self, tenant: TenantId, now: Instant) {
        let Some(watcher) = self.by_tenant.get_mut(&tenant) else { return };
        self.pending -= watcher.pending.len();
        watcher.pending.clear();
        watcher.queue.clear();
        watcher.has_gap = true;
        self.schedule(tenant, now);
    }

    /// Has those that watch an entry, and may know of this change, told of it.
    pub(super) fn add(&mut self, change: ShopChange, now: Instant) {
        let hears = |(tenant, watcher): (&TenantId, &Watcher)| {
            let may_know = change.kind.is_public() || change.owner == Some(*tenant);
            (may_know && watcher.patterns.match_entry(&change.at)).then_some(*tenant)
        };
        let tenants: Vec<TenantId> = self.by_tenant.iter().filter_map(hears).collect();
        let change = Arc::new(change);
        for tenant in tenants {
            self.push(tenant, &change, now);
        }
    }

    fn push(&mut self, tenant: TenantId, change: &Arc<ShopChange>, now: Instant) {
        let Some(watcher) = self.by_tenant.get_mut(&tenant) else { return };
        // A tenant that looks after that sees this change, too.
        if watcher.has_gap {
            return;
        }
        if let Some(old) = watcher.pending.get_mut(&change.at) {
            *old = merged(old, change);
        } else if watcher.pending.len() >= SHOP_PENDING_MAX
            || self.pending >= SHOP_PENDING_TOTAL_MAX
        {
            return self.miss(tenant, now);
        } else {
            watcher.queue.push_back(change.at.clone());
            watcher.pending.insert(change.at.clone(), change.clone());
            self.pending += 1;
        }
        self.schedule(tenant, now);
    }

    /// Enters a tenant into the list of those that are due, unless it has its place or waits for
    /// the end of an update.
    fn schedule(&mut self, tenant: TenantId, at: Instant) {
        let Some(watcher) = self.by_tenant.get_mut(&tenant) else { return };
        let has_some = watcher.has_gap || !watcher.queue.is_empty();
        if has_some && watcher.telling.is_none() && watcher.due.is_none() {
            watcher.due = Some(at);
            self.due.insert((at, tenant));
        }
    }

    /// When [`Watchers::next`] has something, if not now.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let has_room = self.places.has_room(SHOP_PLACES, SHOP_TELLING_MAX);
        self.due.first().filter(|_| has_room).map(|(at, _)| *at)
    }

    /// The tenant that is to be told something now, with the number of that.
    pub(super) fn next(&mut self, now: Instant) -> Option<(TenantId, u64, Told)> {
        self.next_at().filter(|at| *at <= now)?;
        let (_, tenant) = self.due.pop_first()?;
        let watcher = self.by_tenant.get_mut(&tenant)?;
        watcher.due = None;
        let told = if std::mem::take(&mut watcher.has_gap) {
            Told::Gap
        } else {
            let change = watcher.pending.remove(&watcher.queue.pop_front()?)?;
            self.pending -= 1;
            Told::Change(change)
        };
        let telling = watcher.telling.insert(self.places.begin(told.clone(), now));
        Some((tenant, telling.number, told))
    }

    /// An update has ended; it is returned if it is given up: its handler may have run, again and
    /// again.
    pub(super) fn ended(
        &mut self,
        tenant: TenantId,
        number: u64,
        arrival: Arrival,
        now: Instant,
    ) -> Option<Told> {
        let watcher = self.by_tenant.get_mut(&tenant)?;
        let telling = watcher.telling.take_if(|one| one.number == number)?;
        watcher.tells += u32::from(arrival == Arrival::MayHave);
        let is_given_up = watcher.tells >= SHOP_TELLS_MAX;
        let is_done = arrival == Arrival::Arrived || is_given_up;
        let pause = SHOP_RETRY_MIN.saturating_mul(1 << watcher.failures.min(16));
        (watcher.failures, watcher.tells) =
            if is_done { (0, 0) } else { (watcher.failures + 1, watcher.tells) };
        self.places.end(&telling);
        if !is_done {
            self.put_back(tenant, telling.what, now + pause.min(SHOP_RETRY_MAX));
            return None;
        }
        self.schedule(tenant, now);
        is_given_up.then_some(telling.what)
    }

    fn put_back(&mut self, tenant: TenantId, told: Told, at: Instant) {
        let Some(watcher) = self.by_tenant.get_mut(&tenant) else { return };
        match told {
            Told::Gap => self.miss(tenant, at),
            Told::Change(old) if !watcher.has_gap => {
                if let Some(new) = watcher.pending.get_mut(&old.at) {
                    *new = merged(&old, new);
                } else {
                    watcher.queue.push_front(old.at.clone());
                    watcher.pending.insert(old.at.clone(), old);
                    self.pending += 1;
                }
            }
            Told::Change(_) => {}
        }
        self.schedule(tenant, at);
    }

    /// Takes the places of handlers that take their time, and waits no longer for those that run
    /// for ever: others are to be told, too.
    pub(super) fn expire(&mut self, now: Instant) {
        const MOST: Duration = SHOP_DEADLINE.saturating_mul(3);
        let mut late = Vec::new();
        for (tenant, watcher) in &mut self.by_tenant {
            let Some(telling) = &mut watcher.telling else { continue };
            let age = telling.age(now);
            if age > MOST {
                late.push((*tenant, telling.number));
            } else if age >= SHOP_PLACE_FOR {
                self.places.take_from(telling);
            }
        }
        for (tenant, number) in late {
            self.ended(tenant, number, Arrival::Arrived, now);
        }
    }
}

/// Two changes of one entry as one: the last one, unless the tenant is yet to hear that the entry
/// can be seen.
fn merged(old: &ShopChange, new: &Arc<ShopChange>) -> Arc<ShopChange> {
    if old.kind == ShopChangeKind::Approved && new.kind == ShopChangeKind::Changed {
        return Arc::new(ShopChange { kind: ShopChangeKind::Approved, ..ShopChange::clone(new) });
    }
    new.clone()
}
