//! How many messages each tenant may send, or receive, a second. Pure; the time is passed in.

use std::time::{Duration, Instant};

use crate::base::limits::TENANT_MESSAGE_RATES_MAX;
use crate::base::sync::Lock;
use crate::base::throttle::Rate;
use crate::wire::data::{IdMap, TenantId};

/// How often tenants that have their whole bursts again are looked for, when there is no room.
const SWEPT_EVERY: Duration = Duration::from_secs(1);

/// The same rate for each of many tenants.
#[derive(Debug)]
pub(super) struct TenantRates {
    per_second: u32,
    burst: u32,
    kept: Lock<KeptRates>,
}

#[derive(Debug, Default)]
struct KeptRates {
    by_tenant: IdMap<TenantId, Rate>,
    swept: Option<Instant>,
}

impl TenantRates {
    pub(super) fn new((per_second, burst): (u32, u32)) -> Self {
        Self { per_second, burst, kept: Lock::default() }
    }

    /// Whether a tenant may have one more now, which counts then.
    pub(super) fn admits(&self, tenant: TenantId, now: Instant) -> bool {
        let mut kept = self.kept.lock();
        let KeptRates { by_tenant, swept } = &mut *kept;
        if by_tenant.len() >= TENANT_MESSAGE_RATES_MAX && !by_tenant.contains_key(&tenant) {
            if swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEPT_EVERY) {
                *swept = Some(now);
                by_tenant.retain(|_, rate| !rate.is_whole(now));
            }
            if by_tenant.len() >= TENANT_MESSAGE_RATES_MAX {
                return false;
            }
        }
        let rate = by_tenant.entry(tenant);
        rate.or_insert_with(|| Rate::new(self.per_second, self.burst)).admits(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_a_rate_of_its_own() {
        let (rates, now) = (TenantRates::new((20, 100)), Instant::now());
        let admitted = |tenant, now| (0..500).filter(|_| rates.admits(tenant, now)).count();
        let (a, b) = (TenantId::Guild(1), TenantId::User(1));
        assert_eq!((admitted(a, now), admitted(b, now)), (100, 100));
        let later = now + Duration::from_secs(1);
        assert_eq!((admitted(a, later), admitted(b, later)), (20, 20));
    }

    #[test]
    fn tenants_with_whole_bursts_make_room_and_others_do_not() {
        let (rates, now) = (TenantRates::new((20, 100)), Instant::now());
        let tenants = TENANT_MESSAGE_RATES_MAX as u64;
        assert!((0..tenants).all(|number| rates.admits(TenantId::User(number), now)));
        let new = TenantId::Guild(1);
        assert!(!rates.admits(new, now), "there is no room");
        assert!(rates.admits(TenantId::User(0), now), "it has its place");
        let later = now + SWEPT_EVERY;
        assert!(rates.admits(new, later));
        assert_eq!(rates.kept.lock().by_tenant.len(), 1);
    }
}
