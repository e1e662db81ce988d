//! How many requests that may take long are under way at once, and how much memory their bodies, and their answers, may
//! take together.
//!
//! Deliberately no queue: who does not fit is told so at once, and the connections that are left answer health checks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places and bytes that are left.
#[derive(Debug)]
pub(super) struct Admission {
    left: Mutex<Left>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    places: usize,
    bytes: u64,
    /// Below zero if answers turned out larger than was expected of them: then none is begun until some are gone.
    answer_bytes: i64,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    bytes: u64,
    answer_bytes: i64,
}

impl Admission {
    pub(super) fn new(places: usize, bytes: u64, answer_bytes: u64) -> Self {
        Self { left: Mutex::new(Left { places, bytes, answer_bytes: signed(answer_bytes) }) }
    }

    /// A place for a request with a body of `bytes`, if there is one.
    pub(super) fn admit(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let mut left = self.lock();
        let (places, bytes_left) = (left.places.checked_sub(1)?, left.bytes.checked_sub(bytes)?);
        *left = Left { places, bytes: bytes_left, ..*left };
        drop(left);
        Some(Permit { admission: Arc::clone(self), bytes, answer_bytes: 0 })
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        // Nothing under this lock can panic half way.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Takes room for an answer of about `bytes` before it is made, in place of what was taken before; false if there is
    /// none, and then nothing is taken.
    #[must_use]
    pub(super) fn expect_answer(&mut self, bytes: usize) -> bool {
        let bytes = signed(bytes as u64);
        let mut left = self.admission.lock();
        let after = left.answer_bytes + self.answer_bytes - bytes;
        if after < 0 {
            return false;
        }
        left.answer_bytes = after;
        drop(left);
        self.answer_bytes = bytes;
        true
    }

    /// Says how large the answer is in fact. One that is larger than was expected is kept all the same: its request was
    /// carried out, and its caller is to learn of it.
    pub(super) fn settle_answer(&mut self, bytes: usize) {
        let bytes = signed(bytes as u64);
        self.admission.lock().answer_bytes += self.answer_bytes - bytes;
        self.answer_bytes = bytes;
    }
}

/// Far below the bounds of either type.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 4)
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut left = self.admission.lock();
        left.places += 1;
        left.bytes += self.bytes;
        left.answer_bytes += self.answer_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_fit_is_refused_until_somebody_leaves() {
        let admission = Arc::new(Admission::new(2, 100, 0));
        let large = admission.admit(90).expect("room");
        assert!(admission.admit(11).is_none(), "too many bytes");
        let small = admission.admit(10).expect("room");
        assert!(admission.admit(0).is_none(), "no place");
        drop(large);
        assert!(admission.admit(91).is_none(), "too many bytes");
        drop(small);
        assert_eq!(*admission.lock(), Left { places: 2, bytes: 100, answer_bytes: 0 });
    }

    #[test]
    fn answers_share_a_budget_and_one_that_grew_holds_up_others_only() {
        let admission = Arc::new(Admission::new(9, 0, 100));
        let mut first = admission.admit(0).expect("a place");
        let mut second = admission.admit(0).expect("a place");
        assert!(first.expect_answer(60));
        assert!(!second.expect_answer(41), "no room");
        assert!(second.expect_answer(40));
        first.settle_answer(150);
        assert!(!second.expect_answer(40) && !second.expect_answer(0), "nothing is begun while there is too much");
        first.settle_answer(10);
        assert!(second.expect_answer(90));
        drop((first, second));
        assert_eq!(*admission.lock(), Left { places: 9, bytes: 0, answer_bytes: 100 });
    }
}
