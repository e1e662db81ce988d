//! The keys of events that were taken, so that a caller may repeat an event whose outcome it does
//! not know.
//!
//! A key is forgotten when its event turns out not to have been sent, after [`EVENT_KEY_KEPT`], and
//! before that when [`EVENT_KEYS_MAX`] newer ones of its caller's are known. As long as its event
//! waits here it is not said to be a double, as the event may yet be dropped with its connection.
//! In memory: another master, or this one once it has been started anew, knows none of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::base::limits::{EVENT_KEY_CALLERS_MAX, EVENT_KEY_KEPT, EVENT_KEYS_MAX};
use crate::base::sync::Lock;
use crate::wire::data::TenantId;

/// Names an event of a caller's for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventKey {
    pub(super) user_id: u64,
    pub(super) tenant: TenantId,
    pub(super) text: Arc<str>,
}

/// Whether an event with a key is to be dispatched.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyClaim {
    /// It is the first one.
    First,
    /// One with this key was taken before.
    Again,
    /// One with this key waits to be taken.
    Waits,
    /// Too many callers use keys at once.
    NoRoom,
}

/// The keys of all callers. Bound: [`EVENT_KEY_CALLERS_MAX`] times [`EVENT_KEYS_MAX`], and as many
/// that were released.
#[derive(Debug, Default)]
pub(super) struct EventKeys(Lock<HashMap<u64, CallerKeys>>);

#[derive(Debug, Default)]
struct CallerKeys {
    claimed: HashMap<(TenantId, Arc<str>), KnownKey>,
    /// In the order of their claims; those that were released are still here.
    order: VecDeque<(Instant, TenantId, Arc<str>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct KnownKey {
    at: Instant,
    is_taken: bool,
}

impl EventKeys {
    /// Remembers a key, unless it is known.
    pub(super) fn claim(&self, key: &EventKey, now: Instant) -> KeyClaim {
        let mut callers = self.0.lock();
        if !callers.contains_key(&key.user_id) && callers.len() >= EVENT_KEY_CALLERS_MAX {
            callers.retain(|_, keys| keys.forget_old(now));
            if callers.len() >= EVENT_KEY_CALLERS_MAX {
                return KeyClaim::NoRoom;
            }
        }
        let keys = callers.entry(key.user_id).or_default();
        keys.forget_old(now);
        let name = (key.tenant, key.text.clone());
        match keys.claimed.get(&name) {
            Some(KnownKey { is_taken: true, .. }) => return KeyClaim::Again,
            Some(_) => return KeyClaim::Waits,
            None => {}
        }
        keys.order.push_back((now, key.tenant, key.text.clone()));
        keys.claimed.insert(name, KnownKey { at: now, is_taken: false });
        keys.keep_bounds();
        KeyClaim::First
    }

    /// The event of a key was handed over: from now on another one is a double.
    pub(super) fn taken(&self, key: &EventKey) {
        if let Some(keys) = self.0.lock().get_mut(&key.user_id)
            && let Some(claimed) = keys.claimed.get_mut(&(key.tenant, key.text.clone()))
        {
            claimed.is_taken = true;
        }
    }

    /// Forgets the key of an event that was not sent: it may come again.
    pub(super) fn release(&self, key: &EventKey) {
        if let Some(keys) = self.0.lock().get_mut(&key.user_id) {
            keys.claimed.remove(&(key.tenant, key.text.clone()));
        }
    }
}

impl CallerKeys {
    /// Whether any is left.
    fn forget_old(&mut self, now: Instant) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= EVENT_KEY_KEPT;
        while self.order.front().is_some_and(|(at, ..)| is_old(at)) {
            self.forget_first();
        }
        !self.order.is_empty()
    }

    /// A caller that repeats what was not sent has no key forgotten for that.
    fn keep_bounds(&mut self) {
        while self.claimed.len() > EVENT_KEYS_MAX {
            self.forget_first();
        }
        if self.order.len() > 2 * EVENT_KEYS_MAX {
            let claimed = &self.claimed;
            self.order.retain(|(at, tenant, text)| {
                claimed.get(&(*tenant, text.clone())).is_some_and(|claimed| claimed.at == *at)
            });
        }
    }

    fn forget_first(&mut self) {
        let Some((at, tenant, text)) = self.order.pop_front() else { return };
        let name = (tenant, text);
        // One that was released may have been claimed again since.
        if self.claimed.get(&name).is_some_and(|claimed| claimed.at == at) {
            self.claimed.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user_id: u64, tenant: u64, text: &str) -> EventKey {
        EventKey { user_id, tenant: TenantId::Guild(tenant), text: text.into() }
    }

    #[test]
    fn a_key_is_taken_once_of_a_caller_and_a_tenant() {
        let (keys, now) = (EventKeys::default(), Instant::now());
        assert_eq!(keys.claim(&key(1, 1, "a"), now), KeyClaim::First);
        assert_eq!(keys.claim(&key(1, 1, "a"), now), KeyClaim::Waits, "it may yet be dropped");
        keys.taken(&key(1, 1, "a"));
        assert_eq!(keys.claim(&key(1, 1, "a"), now), KeyClaim::Again);
        for other in [key(2, 1, "a"), key(1, 2, "a"), key(1, 1, "b")] {
            assert_eq!(keys.claim(&other, now), KeyClaim::First, "{other:?}");
        }
        keys.release(&key(1, 1, "a"));
        assert_eq!(keys.claim(&key(1, 1, "a"), now), KeyClaim::First, "it was not sent");
        let later = now + EVENT_KEY_KEPT;
        assert_eq!(keys.claim(&key(1, 1, "a"), later), KeyClaim::First, "it is old");
        assert_eq!(keys.0.lock()[&1].order.len(), 1);
    }

    #[test]
    fn a_key_that_came_again_outlives_its_first_claim() {
        let (keys, now) = (EventKeys::default(), Instant::now());
        assert_eq!(keys.claim(&key(1, 1, "a"), now), KeyClaim::First);
        keys.release(&key(1, 1, "a"));
        assert_eq!(keys.claim(&key(1, 1, "a"), now + EVENT_KEY_KEPT / 2), KeyClaim::First);
        keys.taken(&key(1, 1, "a"));
        assert_eq!(keys.claim(&key(1, 1, "a"), now + EVENT_KEY_KEPT), KeyClaim::Again);
    }

    #[test]
    fn keys_that_were_released_push_none_out() {
        let (keys, now) = (EventKeys::default(), Instant::now());
        assert_eq!(keys.claim(&key(1, 1, "ran"), now), KeyClaim::First);
        keys.taken(&key(1, 1, "ran"));
        for number in 0..5 * EVENT_KEYS_MAX / 2 {
            let again = key(1, 1, &(number % 7).to_string());
            assert_eq!(keys.claim(&again, now), KeyClaim::First, "it is busy each time");
            keys.release(&again);
        }
        assert_eq!(keys.claim(&key(1, 1, "ran"), now), KeyClaim::Again);
        assert!(keys.0.lock()[&1].order.len() <= 2 * EVENT_KEYS_MAX);
    }

    #[test]
    fn keys_and_callers_have_a_bound() {
        let (keys, now) = (EventKeys::default(), Instant::now());
        for number in 0..=EVENT_KEYS_MAX {
            let key = key(1, 1, &number.to_string());
            assert_eq!(keys.claim(&key, now), KeyClaim::First);
            keys.taken(&key);
        }
        assert_eq!(keys.claim(&key(1, 1, "1"), now), KeyClaim::Again, "one of the newest");
        assert_eq!(keys.claim(&key(1, 1, "0"), now), KeyClaim::First, "the oldest was forgotten");
        let callers = EVENT_KEY_CALLERS_MAX as u64;
        for caller in 2..=callers {
            assert_eq!(keys.claim(&key(caller, 1, "a"), now), KeyClaim::First);
        }
        assert_eq!(keys.claim(&key(callers + 1, 1, "a"), now), KeyClaim::NoRoom);
        let later = now + EVENT_KEY_KEPT;
        assert_eq!(keys.claim(&key(callers + 1, 1, "a"), later), KeyClaim::First);
    }
}
