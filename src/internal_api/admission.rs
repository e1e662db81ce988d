//! How many requests that may take long are under way at once, and how much memory their bodies may take together.
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
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    bytes: u64,
}

impl Admission {
    pub(super) fn new(places: usize, bytes: u64) -> Self {
        Self { left: Mutex::new(Left { places, bytes }) }
    }

    /// A place for a request with a body of `bytes`, if there is one.
    pub(super) fn admit(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let mut left = self.lock();
        let after = Left { places: left.places.checked_sub(1)?, bytes: left.bytes.checked_sub(bytes)? };
        *left = after;
        drop(left);
        Some(Permit { admission: Arc::clone(self), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        // Nothing under this lock can panic half way.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut left = self.admission.lock();
        left.places += 1;
        left.bytes += self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_fit_is_refused_until_somebody_leaves() {
        let admission = Arc::new(Admission::new(2, 100));
        let large = admission.admit(90).expect("room");
        assert!(admission.admit(11).is_none(), "too many bytes");
        let small = admission.admit(10).expect("room");
        assert!(admission.admit(0).is_none(), "no place");
        drop(large);
        assert!(admission.admit(91).is_none(), "too many bytes");
        drop(small);
        assert_eq!(*admission.lock(), Left { places: 2, bytes: 100 });
    }
}
