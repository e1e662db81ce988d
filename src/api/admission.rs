//! How many requests that may take long are under way at once, and how much memory their bodies,
//! and their answers, may take together; and how much of that one tenant may have.
//!
//! Deliberately no queue: a request that does not fit is refused at once, and the connections that
//! are left answer health checks. Small bodies and answers are not counted: those that others wait
//! for fit however many large ones there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{ApiError, Code};
use crate::base::limits::API_SMALL_BYTES;
use crate::base::sync::Lock;
use crate::wire::data::TenantId;

/// The places and bytes that are taken, and their bounds.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Amounts,
    /// Of one tenant.
    share: Amounts,
    taken: Lock<TakenAmounts>,
}

/// Places and bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) places: u64,
    pub(super) bytes: u64,
    pub(super) answer_bytes: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct TakenAmounts {
    all: Amounts,
    /// Of the tenants that have a place. Bound: the places.
    tenants: HashMap<TenantId, Amounts>,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    tenant: Option<TenantId>,
    has: Amounts,
}

/// Whose bound a request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// That of all requests.
    All,
    /// That of the requests for one tenant.
    Tenant,
}

impl From<NoRoom> for ApiError {
    fn from(full: NoRoom) -> Self {
        let whose = if full == NoRoom::All { "" } else { " for this tenant" };
        ApiError::new(Code::Busy, format!("too many requests{whose} are under way"))
    }
}

impl Admission {
    pub(super) fn new(bounds: Amounts, share: Amounts) -> Self {
        Self { bounds, share, taken: Lock::default() }
    }

    /// A place for a request with a body of `bytes`, if there is one.
    pub(super) fn admit(
        self: &Arc<Self>,
        tenant: Option<TenantId>,
        bytes: u64,
    ) -> Result<Permit, NoRoom> {
        let has = Amounts { places: 1, bytes: counted(bytes), answer_bytes: 0 };
        let mut taken = self.taken.lock();
        self.check(&taken, tenant, has.places, |amounts| amounts.places)?;
        self.check(&taken, tenant, has.bytes, |amounts| amounts.bytes)?;
        taken.change(tenant, Amounts::default(), has);
        drop(taken);
        Ok(Permit { admission: Arc::clone(self), tenant, has })
    }

    /// Whether there is room for `more`. A tenant that has some already gets no more than its
    /// share, nor more than it leaves to others: so several tenants together cannot take all,
    /// either.
    fn check(
        &self,
        taken: &TakenAmounts,
        tenant: Option<TenantId>,
        more: u64,
        of: fn(&Amounts) -> u64,
    ) -> Result<(), NoRoom> {
        if more == 0 {
            return Ok(());
        }
        let left = of(&self.bounds).checked_sub(of(&taken.all) + more).ok_or(NoRoom::All)?;
        let held = tenant.and_then(|tenant| taken.tenants.get(&tenant)).map_or(0, of);
        let is_within = held == 0 || held <= left && held + more <= of(&self.share);
        if is_within { Ok(()) } else { Err(NoRoom::Tenant) }
    }
}

impl TakenAmounts {
    /// One request has something else from now on.
    fn change(&mut self, tenant: Option<TenantId>, before: Amounts, after: Amounts) {
        self.all.change(before, after);
        let Some(tenant) = tenant else { return };
        let held = self.tenants.entry(tenant).or_default();
        held.change(before, after);
        if *held == Amounts::default() {
            self.tenants.remove(&tenant);
        }
    }
}

impl Amounts {
    fn change(&mut self, before: Self, after: Self) {
        self.places = self.places + after.places - before.places;
        self.bytes = self.bytes + after.bytes - before.bytes;
        self.answer_bytes = self.answer_bytes + after.answer_bytes - before.answer_bytes;
    }
}

impl Permit {
    /// Takes room for a body that turns out to have more bytes; if there is none, it has what it
    /// had.
    pub(super) fn expect_body(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let admission = Arc::clone(&self.admission);
        let after = Amounts { bytes: counted(bytes).max(self.has.bytes), ..self.has };
        let mut taken = admission.taken.lock();
        admission
            .check(&taken, self.tenant, after.bytes - self.has.bytes, |amounts| amounts.bytes)?;
        taken.change(self.tenant, self.has, after);
        self.has = after;
        Ok(())
    }

    /// Takes room for an answer of about `bytes` before it is made, in place of what was taken
    /// before; if there is none, nothing is taken.
    pub(super) fn expect_answer(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.settle_answer(0);
        let (admission, after) = (Arc::clone(&self.admission), counted(bytes as u64));
        let mut taken = admission.taken.lock();
        admission.check(&taken, self.tenant, after, |amounts| amounts.answer_bytes)?;
        self.set_answer(&mut taken, after);
        Ok(())
    }

    /// Says how large the answer is in fact. One that is larger than was expected is kept all the
    /// same: its request was carried out, and its caller is to learn of it.
    pub(super) fn settle_answer(&mut self, bytes: usize) {
        let admission = Arc::clone(&self.admission);
        self.set_answer(&mut admission.taken.lock(), counted(bytes as u64));
    }

    fn set_answer(&mut self, taken: &mut TakenAmounts, answer_bytes: u64) {
        let after = Amounts { answer_bytes, ..self.has };
        taken.change(self.tenant, self.has, after);
        self.has = after;
    }
}

/// What counts of so many bytes.
fn counted(bytes: u64) -> u64 {
    if bytes <= API_SMALL_BYTES { 0 } else { bytes }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.taken.lock().change(self.tenant, self.has, Amounts::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = API_SMALL_BYTES + 1;

    fn amounts(places: u64, bytes: u64, answer_bytes: u64) -> Amounts {
        Amounts { places, bytes, answer_bytes }
    }

    fn guild(id: u64) -> Option<TenantId> {
        Some(TenantId::Guild(id))
    }

    #[test]
    fn a_request_without_room_is_refused_until_another_ends() {
        let bounds = amounts(2, 9 * LARGE, 0);
        let admission = Arc::new(Admission::new(bounds, bounds));
        let large = admission.admit(None, 8 * LARGE).expect("room");
        assert_eq!(admission.admit(None, 2 * LARGE).expect_err("too many bytes"), NoRoom::All);
        let small = admission.admit(None, LARGE).expect("room");
        assert_eq!(admission.admit(None, 0).expect_err("no place"), NoRoom::All);
        drop(large);
        assert_eq!(admission.admit(None, 9 * LARGE).expect_err("too many bytes"), NoRoom::All);
        drop(small);
        assert_eq!(*admission.taken.lock(), TakenAmounts::default());
    }

    #[test]
    fn a_tenant_gets_its_share_and_others_the_rest() {
        let admission =
            Arc::new(Admission::new(amounts(16, 16 * LARGE, 0), amounts(4, 4 * LARGE, 0)));
        let mut held: Vec<_> =
            (0..4).map(|_| admission.admit(guild(1), LARGE).expect("a share")).collect();
        assert_eq!(admission.admit(guild(1), 0).expect_err("a fifth place"), NoRoom::Tenant);
        held.push(admission.admit(guild(2), 4 * LARGE).expect("another tenant has its own"));
        assert_eq!(admission.admit(guild(2), LARGE).expect_err("more bytes"), NoRoom::Tenant);
        held.push(admission.admit(guild(2), 1).expect("a small body is not counted"));
        drop(held);
        assert_eq!(*admission.taken.lock(), TakenAmounts::default());
    }

    #[test]
    fn greedy_tenants_together_leave_a_place_to_another() {
        let admission = Arc::new(Admission::new(amounts(240, 0, 0), amounts(64, 0, 0)));
        let mut held = Vec::new();
        for id in (0..20).cycle().take(20 * 64) {
            held.extend(admission.admit(guild(id), 0));
        }
        assert!(held.len() > 200, "most places are used: {}", held.len());
        held.extend((100..105).map(|id| admission.admit(guild(id), 0).expect("a quiet tenant")));
    }

    #[test]
    fn answers_share_a_budget_and_a_grown_one_delays_large_ones() {
        let admission =
            Arc::new(Admission::new(amounts(9, 0, 100 * LARGE), amounts(9, 0, 60 * LARGE)));
        let large = |count: u64| usize::try_from(count * LARGE).expect("it fits");
        let mut first = admission.admit(guild(1), 0).expect("a place");
        let mut second = admission.admit(guild(2), 0).expect("a place");
        let mut third = admission.admit(guild(1), 0).expect("a place");
        assert_eq!(first.expect_answer(large(60)), Ok(()));
        assert_eq!(third.expect_answer(large(1)), Err(NoRoom::Tenant));
        assert_eq!(second.expect_answer(large(41)), Err(NoRoom::All));
        assert_eq!(second.expect_answer(large(40)), Ok(()));
        first.settle_answer(large(150));
        assert_eq!(second.expect_answer(large(1)), Err(NoRoom::All), "there is too much");
        assert_eq!(
            (second.expect_answer(1), third.expect_answer(1)),
            (Ok(()), Ok(())),
            "a small one"
        );
        first.settle_answer(large(10));
        assert_eq!(second.expect_answer(large(90)), Ok(()));
        drop((first, second, third));
        assert_eq!(*admission.taken.lock(), TakenAmounts::default());
    }
}
