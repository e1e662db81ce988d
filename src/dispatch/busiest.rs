//! Which tenants take most of the workers' attention, by events and by time, over the last minutes:
//! without a counter for each of what may be millions of tenants.
//!
//! For each minute two summaries of bounded size (Space-Saving): a tenant that has more than its
//! share in a full one is in it in every case, and takes the place of the one that has least. What
//! is shown of a tenant is what was counted while it was in a summary, so it is a lower bound;
//! exact for a tenant that is always among the busiest.
//!
//! Noted on the thread that has an answer, which never waits here: what comes while the same
//! shard's lock is held, by another answer for a fraction of a microsecond or by a reader for a
//! fraction of a millisecond, is not counted. That is one event in thousands at most, and the
//! figures are for ranking. Owned by the pool's `Traffic`, and by each executor's gauges.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::base::limits::{BUSIEST_COUNTERS, BUSIEST_MINUTES, BUSIEST_SHARDS};
use crate::base::sync::Lock;
use crate::wire::data::sharding::worker_for;
use crate::wire::data::{IdMap, TenantId};

/// How long one set of summaries counts.
const MINUTE: Duration = Duration::from_secs(60);

/// Ranks whose lowest is kept: with as many blocks as there are about, the lowest of all is found
/// soonest.
const BLOCK: usize = 16;

/// What a tenant took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The tenant.
    pub tenant: TenantId,
    /// Events, scripts and drops of it that ended; at least so many.
    pub events: u64,
    /// Of each of them together, at least so long: in a worker the running time, in the master,
    /// which does not know that, from when it was asked for to its end.
    pub took: Duration,
}

/// The busiest tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusiestReport {
    /// How far back it goes.
    pub span: Duration,
    /// The time of all tenants together.
    pub took: Duration,
    /// Those with most time and those with most events, by time.
    pub tenants: Vec<Share>,
}

/// The busiest tenants of a pool.
#[derive(Debug)]
pub struct Busiest {
    begun: Instant,
    // By tenant, as workers are, so that the threads of different workers seldom meet at one.
    shards: Vec<Lock<Minutes>>,
}

impl Default for Busiest {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Busiest {
    /// No tenant is busy yet.
    pub fn new(now: Instant) -> Self {
        Self { begun: now, shards: (0..BUSIEST_SHARDS).map(|_| Lock::default()).collect() }
    }

    /// Notes that something of a tenant's ended after so long.
    pub fn record(&self, tenant: TenantId, took: Duration, now: Instant) {
        // Counts, of which one may be missing now.
        let Some(mut minutes) = self.shards[worker_for(tenant, self.shards.len())].try_lock()
        else {
            return;
        };
        minutes.record(
            self.minute(now),
            tenant,
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
    }

    /// The `most` tenants with most time and as many with most events.
    pub fn report(&self, most: usize, now: Instant) -> BusiestReport {
        let minute = self.minute(now);
        let (mut all, mut took_us) = (Vec::new(), 0_u64);
        for shard in &self.shards {
            let minutes = shard.lock();
            took_us = minutes.collect(minute, &mut all).saturating_add(took_us);
        }
        let mut chosen = BTreeSet::new();
        for rank in [|share: &Share| share.took.as_micros(), |share: &Share| share.events.into()] {
            all.sort_unstable_by_key(|share| (std::cmp::Reverse(rank(share)), share.tenant));
            chosen.extend(all.iter().take(most).map(|share| share.tenant));
        }
        all.retain(|share| chosen.contains(&share.tenant));
        all.sort_unstable_by_key(|share| (std::cmp::Reverse(share.took), share.tenant));
        let age = now.saturating_duration_since(self.begun);
        let whole_minutes = MINUTE * (BUSIEST_MINUTES - 1) as u32;
        let into_minute = Duration::from_secs(age.as_secs() % MINUTE.as_secs());
        BusiestReport {
            span: age.min(whole_minutes + into_minute),
            took: Duration::from_micros(took_us),
            tenants: all,
        }
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs() / MINUTE.as_secs()
    }
}

/// One shard's last minutes, each in the place of its number.
#[derive(Debug, Default)]
struct Minutes([Minute; BUSIEST_MINUTES]);

#[derive(Debug, Default)]
struct Minute {
    number: u64,
    us: u64,
    by_events: Summary,
    by_time: Summary,
}

impl Minutes {
    fn record(&mut self, number: u64, tenant: TenantId, us: u64) {
        let minute = &mut self.0[(number % BUSIEST_MINUTES as u64) as usize];
        // A thread that was held up since it looked at the clock comes with a minute that is gone.
        if minute.number > number {
            return;
        }
        if minute.number < number {
            (minute.number, minute.us) = (number, 0);
            minute.by_events.clear();
            minute.by_time.clear();
        }
        minute.us = minute.us.saturating_add(us);
        minute.by_events.add(tenant, 1, us);
        // What took no time counts too, or nothing would ever take the place of such.
        minute.by_time.add(tenant, us.max(1), us);
    }

    /// Adds what every tenant in the summaries took; returns the time of all tenants.
    fn collect(&self, now: u64, all: &mut Vec<Share>) -> u64 {
        let mut sums: HashMap<TenantId, (u64, u64)> = HashMap::new();
        let mut us = 0_u64;
        for minute in self.0.iter().filter(|minute| minute.number + BUSIEST_MINUTES as u64 > now) {
            us = us.saturating_add(minute.us);
            // A tenant that is in both summaries was in one of them for longer.
            let mut most: HashMap<TenantId, (u64, u64)> = HashMap::new();
            for counter in minute.by_events.counters.iter().chain(&minute.by_time.counters) {
                let (events, us) = most.entry(counter.tenant).or_default();
                (*events, *us) = (counter.events.max(*events), counter.us.max(*us));
            }
            for (tenant, (events, us)) in most {
                let sum = sums.entry(tenant).or_default();
                *sum = (sum.0 + events, sum.1.saturating_add(us));
            }
        }
        let shares = sums.into_iter();
        all.extend(shares.map(|(tenant, (events, us))| Share {
            tenant,
            events,
            took: Duration::from_micros(us),
        }));
        us
    }
}

/// Space-Saving: so many counters; a tenant without one takes over the one with the lowest rank,
/// and its rank with it.
#[derive(Debug, Default)]
struct Summary {
    places: IdMap<TenantId, usize>,
    // Apart from the rest, as the lowest of them is looked for: for each event of a tenant without
    // a counter, which with many tenants is nearly each of all.
    ranks: Vec<u64>,
    /// The lowest rank of each block, from when a counter is taken over first.
    lowest: Vec<u64>,
    counters: Vec<TenantCounter>,
}

#[derive(Debug, Clone, Copy)]
struct TenantCounter {
    tenant: TenantId,
    /// Since the tenant has this counter.
    events: u64,
    us: u64,
}

impl Summary {
    fn add(&mut self, tenant: TenantId, weight: u64, us: u64) {
        let place = match self.places.get(&tenant) {
            Some(place) => *place,
            None => self.place_for(tenant),
        };
        let before = self.ranks[place];
        self.ranks[place] = before.saturating_add(weight);
        if let Some(lowest) = self.lowest.get_mut(place / BLOCK)
            && *lowest == before
            && let Some(block) = self.ranks.chunks(BLOCK).nth(place / BLOCK)
        {
            *lowest = block.iter().copied().min().unwrap_or(0);
        }
        let counter = &mut self.counters[place];
        counter.events += 1;
        counter.us = counter.us.saturating_add(us);
    }

    fn place_for(&mut self, tenant: TenantId) -> usize {
        let counter = TenantCounter { tenant, events: 0, us: 0 };
        let place = if self.counters.len() < BUSIEST_COUNTERS {
            self.ranks.push(0);
            self.counters.push(counter);
            self.counters.len() - 1
        } else {
            let place = self.lowest_place();
            self.places.remove(&self.counters[place].tenant);
            self.counters[place] = counter;
            place
        };
        self.places.insert(tenant, place);
        place
    }

    fn lowest_place(&mut self) -> usize {
        if self.lowest.is_empty() {
            let blocks = self.ranks.chunks(BLOCK);
            self.lowest.extend(blocks.filter_map(|block| block.iter().min()));
        }
        let lowest = self.lowest.iter().enumerate().min_by_key(|(_, rank)| **rank);
        let Some((block, lowest)) = lowest else { return 0 };
        let mut ranks = self.ranks[block * BLOCK..].iter();
        block * BLOCK + ranks.position(|rank| rank == lowest).unwrap_or(0)
    }

    fn clear(&mut self) {
        self.places.clear();
        self.ranks.clear();
        self.lowest.clear();
        self.counters.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the worker's shard that the number says, as Discord's ids carry a time above bit 22.
    fn tenant(number: u64) -> TenantId {
        TenantId::Guild(number << 22)
    }

    /// All in one shard.
    fn neighbour(number: u64) -> TenantId {
        tenant(number * BUSIEST_SHARDS as u64)
    }

    /// A generator of the same numbers in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_tenant_without_a_counter_takes_the_lowest() {
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        let mut summary = Summary::default();
        for _ in 0..20_000 {
            let (tenant, weight) = (tenant(numbers.below(300)), numbers.below(40));
            let is_new = !summary.places.contains_key(&tenant);
            let lowest = summary.ranks.iter().min().copied().unwrap_or(0);
            let is_full = summary.ranks.len() == BUSIEST_COUNTERS;
            summary.add(tenant, weight, 1);
            let rank = summary.ranks[summary.places[&tenant]];
            if is_new {
                assert_eq!(rank, weight + if is_full { lowest } else { 0 });
            }
        }
        assert_eq!(summary.places.len(), BUSIEST_COUNTERS);
    }

    #[test]
    fn few_tenants_are_counted_exactly() {
        let begun = Instant::now();
        let busiest = Busiest::new(begun);
        for number in 1..=20 {
            for _ in 0..number {
                busiest.record(tenant(number), MS * 2, begun + MINUTE);
            }
        }
        let report = busiest.report(50, begun + MINUTE + MS);
        let expected: Vec<Share> = (1..=20)
            .rev()
            .map(|number| Share {
                tenant: tenant(number),
                events: number,
                took: MS * 2 * number as u32,
            })
            .collect();
        assert_eq!(report.tenants, expected);
        assert_eq!((report.took, report.span), (MS * 420, MINUTE + MS));
    }

    #[test]
    fn of_many_tenants_the_busiest_are_found_not_overstated() {
        let begun = Instant::now();
        let busiest = Busiest::new(begun);
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        let mut exact: HashMap<TenantId, u64> = HashMap::new();
        for _ in 0..400_000 {
            // Tenant n comes about as often as 1/n: of 100,000 the first ten have a quarter of all.
            let spread = numbers.below(1 << 20) as f64 / f64::from(1 << 20);
            let tenant = tenant(100_000_f64.powf(spread) as u64);
            *exact.entry(tenant).or_default() += 1;
            busiest.record(tenant, MS, begun);
        }
        let report = busiest.report(10, begun);
        let mut truth: Vec<(u64, TenantId)> =
            exact.iter().map(|(tenant, events)| (*events, *tenant)).collect();
        truth.sort_unstable_by(|left, right| right.cmp(left));
        for (events, tenant) in &truth[..10] {
            let share = report
                .tenants
                .iter()
                .find(|share| share.tenant == *tenant)
                .expect("among the busiest");
            assert!(
                share.events <= *events && share.events * 100 >= events * 99,
                "{share:?} of {events}"
            );
        }
        assert!(report.tenants.iter().all(|share| share.events <= exact[&share.tenant]));
    }

    #[test]
    fn a_tenant_above_its_share_is_found_among_passers_by() {
        let begun = Instant::now();
        let busiest = Busiest::new(begun);
        let mut others = 1_000_000;
        // One in 40 is its, the others are all different and in its shard: the worst that can
        // happen to a summary.
        for round in 0..200_000_u64 {
            let who = if round % 40 == 0 {
                neighbour(1)
            } else {
                others += 1;
                neighbour(others)
            };
            busiest.record(who, MS, begun);
        }
        let report = busiest.report(3, begun);
        let share =
            report.tenants.iter().find(|share| share.tenant == neighbour(1)).expect("it is found");
        // 5,000 are its; a place in a summary is worth a 128th of all at most.
        assert!((3_400..=5_000).contains(&share.events), "{share:?}");
        let held: usize =
            busiest.shards.iter().map(|shard| shard.lock().0[0].by_time.counters.len()).sum();
        assert_eq!(held, BUSIEST_COUNTERS, "no more is kept of a million tenants");
    }

    #[test]
    fn one_long_event_is_found_among_many_short_ones() {
        let begun = Instant::now();
        let busiest = Busiest::new(begun);
        busiest.record(neighbour(7), Duration::from_secs(10), begun);
        for number in 0..50_000 {
            busiest.record(neighbour(100 + number % 10_000), Duration::from_micros(100), begun);
        }
        let first = busiest.report(1, begun).tenants[0];
        assert_eq!(first, Share { tenant: neighbour(7), events: 1, took: Duration::from_secs(10) });
    }

    #[test]
    fn old_minutes_are_forgotten_and_the_span_says_so() {
        let begun = Instant::now();
        let busiest = Busiest::new(begun);
        for minute in 0..10_u32 {
            busiest.record(tenant(u64::from(minute)), MS, begun + MINUTE * minute);
        }
        let now = begun + MINUTE * 9 + Duration::from_secs(30);
        let report = busiest.report(50, now);
        let tenants: Vec<TenantId> = report.tenants.iter().map(|share| share.tenant).collect();
        assert_eq!(tenants, [5, 6, 7, 8, 9].map(tenant));
        assert_eq!(report.span, Duration::from_secs(270));
        assert_eq!(
            busiest.report(50, begun + MINUTE * 100),
            BusiestReport { span: MINUTE * 4, ..Default::default() }
        );
        busiest.record(tenant(1), MS, begun);
        assert!(
            busiest.report(50, now).tenants.iter().all(|share| share.tenant != tenant(1)),
            "too late"
        );
    }

    #[test]
    fn who_has_an_answer_never_waits_for_who_looks() {
        let begun = Instant::now();
        let busiest = Busiest::new(begun);
        let looking: Vec<_> = busiest.shards.iter().map(|shard| shard.lock()).collect();
        busiest.record(tenant(1), MS, begun);
        drop(looking);
        assert_eq!(busiest.report(1, begun).tenants, []);
        busiest.record(tenant(1), MS, begun);
        assert_eq!(busiest.report(1, begun).tenants.len(), 1);
    }
}
