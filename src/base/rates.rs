//! How much of something each of many, mostly tenants, may do a second. Pure; time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::limits::RATES_MAX;
use super::sync::Lock;
use super::throttle::Rate;

/// How often those that have their whole bursts again are looked for, when there is no room.
const SWEPT_EVERY: Duration = Duration::from_secs(1);

/// The same rate for each of many.
#[derive(Debug)]
pub struct Rates<K> {
    per_second: u32,
    burst: u32,
    kept: Lock<KeptRates<K>>,
}

#[derive(Debug)]
struct KeptRates<K> {
    // Limit: `RATES_MAX`.
    rates: HashMap<K, Rate>,
    swept: Option<Instant>,
}

impl<K: Copy + Eq + Hash> Rates<K> {
    /// So many a second for each, with such a burst.
    pub fn new((per_second, burst): (u32, u32)) -> Self {
        let kept = KeptRates { rates: HashMap::new(), swept: None };
        Self { per_second, burst, kept: Lock::new(kept) }
    }

    /// Whether this one may have one more now, which counts then.
    pub fn admits(&self, of: K, now: Instant) -> bool {
        let mut kept = self.kept.lock();
        let KeptRates { rates, swept } = &mut *kept;
        if rates.len() >= RATES_MAX && !rates.contains_key(&of) {
            if swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEPT_EVERY) {
                *swept = Some(now);
                rates.retain(|_, rate| !rate.is_whole(now));
            }
            if rates.len() >= RATES_MAX {
                return false;
            }
        }
        let rate = rates.entry(of);
        rate.or_insert_with(|| Rate::new(self.per_second, self.burst)).admits(now)
    }

    /// What counted for this one did not come.
    pub fn give_back(&self, of: K) {
        if let Some(rate) = self.kept.lock().rates.get_mut(&of) {
            rate.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::TenantId;

    #[test]
    fn each_tenant_has_a_rate_of_its_own() {
        let (rates, now) = (Rates::new((20, 100)), Instant::now());
        let admitted = |tenant, now| (0..500).filter(|_| rates.admits(tenant, now)).count();
        let (a, b) = (TenantId::Guild(1), TenantId::User(1));
        assert_eq!((admitted(a, now), admitted(b, now)), (100, 100));
        let later = now + Duration::from_secs(1);
        assert_eq!((admitted(a, later), admitted(b, later)), (20, 20));
    }

    #[test]
    fn tenants_with_whole_bursts_make_room_and_others_do_not() {
        let (rates, now) = (Rates::new((20, 100)), Instant::now());
        let tenants = RATES_MAX as u64;
        assert!((0..tenants).all(|number| rates.admits(TenantId::User(number), now)));
        let new = TenantId::Guild(1);
        assert!(!rates.admits(new, now), "there is no room");
        assert!(rates.admits(TenantId::User(0), now), "it has its place");
        let later = now + SWEPT_EVERY;
        assert!(rates.admits(new, later));
        assert_eq!(rates.kept.lock().rates.len(), 1);
    }
}
