//! Locks and what waits for a change under one.
//!
//! A panic of the holder poisons a [`Mutex`] or an [`RwLock`]; [`Lock`] and [`SharedLock`] go on
//! nevertheless. What they hold in this crate is changed by steps that do not panic half way, and
//! the owner of a thread that panics reports it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::primitives::atomic::{AtomicUsize, Ordering};
use super::primitives::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError,
};

/// A [`Mutex`] that does not care for poison.
#[derive(Debug, Default)]
pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock.
    ///
    /// # Blocks
    /// While another thread holds it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock unless another thread holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// An [`RwLock`] that does not care for poison.
#[derive(Debug, Default)]
pub struct SharedLock<T>(RwLock<T>);

impl<T> SharedLock<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// Takes the lock together with other readers.
    ///
    /// # Blocks
    /// While a writer holds it or waits for it.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock alone.
    ///
    /// # Blocks
    /// While another thread holds it.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of a number of places, given back when it is dropped.
#[derive(Debug)]
pub struct CountedPermit(Arc<AtomicUsize>);

impl CountedPermit {
    /// Takes a place, unless as many as `most` are taken.
    pub fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let one_more = |count: usize| (count < most).then_some(count + 1);
        taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Self(taken.clone()))
    }
}

impl Drop for CountedPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Wakes threads that wait for a change of what a [`Lock`] holds.
#[derive(Debug, Default)]
pub struct Signal(Condvar);

impl Signal {
    /// A signal that no thread waits for yet.
    pub const fn new() -> Self {
        Self(Condvar::new())
    }

    /// Wakes one thread that waits.
    #[inline]
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes every thread that waits.
    #[inline]
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits once; the caller looks whether the change that it waits for has come.
    ///
    /// # Blocks
    /// Until the signal is given, until the deadline if there is one, or, rarely, for no reason.
    #[inline]
    pub fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: impl Into<Option<Instant>>,
    ) -> MutexGuard<'a, T> {
        self.wait_for(guard, deadline.into().map(left_until))
    }

    /// Waits until the condition holds; after the deadline the caller looks whether it does.
    ///
    /// # Blocks
    /// Until then. Each change of the condition has to give the signal.
    #[inline]
    pub fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: impl Into<Option<Instant>>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let deadline = deadline.into();
        while !condition(&mut guard) {
            let left = deadline.map(left_until);
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            guard = self.wait_for(guard, left);
        }
        guard
    }

    #[inline]
    fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, T> {
        match left {
            None => self.0.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::thread::spawn;

    #[test]
    fn a_lock_whose_holder_panicked_is_taken_nevertheless() {
        let lock = Arc::new(Lock::new(1));
        let taken = lock.clone();
        let thread = spawn("panics", move || {
            let _guard = taken.lock();
            panic!("under the lock");
        });
        assert_eq!(thread.expect("a thread").join(), None::<()>);
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn so_many_permits_are_given_at_once_and_no_more() {
        let taken = Arc::default();
        let mut permits: Vec<_> = (0..3).filter_map(|_| CountedPermit::take(&taken, 3)).collect();
        assert_eq!(permits.len(), 3);
        assert!(CountedPermit::take(&taken, 3).is_none());
        permits.pop();
        assert!(CountedPermit::take(&taken, 3).is_some());
        drop(permits);
        assert_eq!(taken.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_wait_ends_with_its_condition_or_its_deadline() {
        let shared = Arc::new((Lock::new(false), Signal::new()));
        let early = shared.1.wait_until(shared.0.lock(), Instant::now(), |is_set| *is_set);
        assert!(!*early, "the deadline has passed");
        drop(early);
        let soon = Instant::now() + Duration::from_millis(2);
        assert!(!*shared.1.wait_until(shared.0.lock(), soon, |is_set| *is_set));
        let setting = shared.clone();
        let thread = spawn("sets", move || {
            *setting.0.lock() = true;
            setting.1.notify_all();
        });
        assert!(*shared.1.wait_until(shared.0.lock(), None, |is_set| *is_set));
        assert_eq!(thread.expect("a thread").join(), Some(()));
    }
}
