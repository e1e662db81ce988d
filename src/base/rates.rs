//! How much of something each of many, mostly tenants, may do a second. Pure; time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use super::limits::{RATE_TOLD_EVERY, RATES_MAX};
use super::sync::Lock;
use super::throttle::Rate;

/// The same rate for each of many.
#[derive(Debug)]
pub struct Rates<K> {
    fresh: Rate,
    // Limit: `RATES_MAX`.
    kept: Lock<HashMap<K, KeptRate>>,
}

#[derive(Debug)]
struct KeptRate {
    rate: Rate,
    told: Option<Instant>,
}

/// One may not have one more now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverRate {
    /// The first in a while: an author, or a log, is to be told.
    pub is_news: bool,
}

impl<K: Copy + Eq + Hash> Rates<K> {
    /// So many a second for each, with such a burst.
    pub fn new((per_second, burst): (u32, u32)) -> Self {
        Self::of(Rate::new(per_second, burst))
    }

    /// This rate, with its burst saved up, for each.
    pub fn of(fresh: Rate) -> Self {
        Self { fresh, kept: Lock::default() }
    }

    /// Whether this one may have one more now, which counts then.
    pub fn admits(&self, of: K, now: Instant) -> bool {
        self.admit(of, now).is_ok()
    }

    /// Counts one more for this one.
    ///
    /// # Errors
    /// It may not have one more now.
    pub fn admit(&self, of: K, now: Instant) -> Result<(), OverRate> {
        let mut kept = self.kept.lock();
        if kept.len() >= RATES_MAX && !kept.contains_key(&of) {
            make_room(&mut kept, now);
        }
        let KeptRate { rate, told } =
            kept.entry(of).or_insert_with(|| KeptRate { rate: self.fresh.clone(), told: None });
        if rate.admits(now) {
            return Ok(());
        }
        let is_news = told.is_none_or(|at| now.saturating_duration_since(at) >= RATE_TOLD_EVERY);
        if is_news {
            *told = Some(now);
        }
        Err(OverRate { is_news })
    }

    /// What counted for this one did not come.
    pub fn give_back(&self, of: K) {
        if let Some(kept) = self.kept.lock().get_mut(&of) {
            kept.rate.give_back();
        }
    }
}

/// Forgets those that have their whole bursts, which are as new ones; if they are few, all: a
/// newcomer is not refused because others are many. It costs little for each of them, as half of
/// the table is free then.
fn make_room<K: Eq + Hash>(kept: &mut HashMap<K, KeptRate>, now: Instant) {
    kept.retain(|_, of| !of.rate.is_whole(now));
    if kept.len() > RATES_MAX / 2 {
        kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_refusal_is_news_once_in_a_while_for_each_tenant() {
        let (rates, start) = (Rates::new((1, 1)), Instant::now());
        let news = |tenant, at| rates.admit(TenantId::User(tenant), at).map_err(|of| of.is_news);
        assert_eq!([0; 3].map(|_| news(1, start)), [Ok(()), Err(true), Err(false)]);
        assert_eq!([0; 3].map(|_| news(2, start)), [Ok(()), Err(true), Err(false)]);
        let later = start + RATE_TOLD_EVERY;
        assert_eq!([0; 3].map(|_| news(1, later)), [Ok(()), Err(true), Err(false)]);
    }

    #[test]
    fn a_newcomer_finds_room_in_a_full_table() {
        let (rates, now) = (Rates::new((1, 1)), Instant::now());
        let many = RATES_MAX as u64;
        let spend = |from: u64, to: u64, now| {
            assert!((from..to).all(|number| rates.admits(TenantId::User(number), now)));
        };
        let len = || rates.kept.lock().len();
        spend(0, many - 10, now);
        let later = now + Duration::from_secs(1);
        spend(many - 10, many, later);
        assert_eq!(len(), RATES_MAX);
        assert!(rates.admits(TenantId::Guild(1), later), "those with whole bursts have gone");
        assert_eq!(len(), 11);
        assert!(!rates.admits(TenantId::User(many - 1), later), "others have their places");
        spend(0, many - 11, later);
        assert_eq!(len(), RATES_MAX);
        assert!(rates.admits(TenantId::Guild(2), later), "all have gone");
        assert_eq!(len(), 1);
    }
}
