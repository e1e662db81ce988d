//! The keys of events that were taken, so that a caller may repeat an event whose outcome it does
//! not know.
//!
//! A key is forgotten when its event turns out not to have been sent, after [`EVENT_KEY_KEPT`], and
//! before that when its caller has given [`EVENT_KEYS_MAX`] newer ones. In memory: another master,
//! or this one once it has been started anew, knows none of them.

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
    /// One with this key was taken before, or is under way.
    Again,
    /// Too many callers use keys at once.
    NoRoom,
}

/// The keys of all callers. Bound: [`EVENT_KEY_CALLERS_MAX`] times [`EVENT_KEYS_MAX`].
#[derive(Debug, Default)]
pub(super) struct EventKeys(Lock<HashMap<u64, CallerKeys>>);

#[derive(Debug, Default)]
struct CallerKeys {
    /// When each was claimed.
    claimed: HashMap<(TenantId, Arc<str>), Instant>,
    /// In the order of their claims; those that were released are still here.
    order: VecDeque<(Instant, TenantId, Arc<str>)>,
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
        if keys.claimed.contains_key(&name) {
            return KeyClaim::Again;
        }
        keys.order.push_back((now, key.tenant, key.text.clone()));
        keys.claimed.insert(name, now);
        if keys.order.len() > EVENT_KEYS_MAX {
            keys.forget_first();
        }
        KeyClaim::First
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

    fn forget_first(&mut self) {
        let Some((at, tenant, text)) = self.order.pop_front() else { return };
        let name = (tenant, text);
        // One that was released may have been claimed again since.
        if self.claimed.get(&name) == Some(&at) {
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
        assert_eq!(keys.claim(&key(1, 1, "a"), now + EVENT_KEY_KEPT), KeyClaim::Again);
    }

    #[test]
    fn keys_and_callers_have_a_bound() {
        let (keys, now) = (EventKeys::default(), Instant::now());
        for number in 0..=EVENT_KEYS_MAX {
            assert_eq!(keys.claim(&key(1, 1, &number.to_string()), now), KeyClaim::First);
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
