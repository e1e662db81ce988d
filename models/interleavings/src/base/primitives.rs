//! In the place of the product's `base/primitives.rs`: each use of one of these is a point at which
//! another thread may go on.
//!
//! There is no time. A wait with a deadline that is yet to come may end at any moment without its
//! signal, as if it were over, or for no reason; or it ends with its signal only, so that a signal
//! that is missing is found as a deadlock.

use shuttle::rand::{Rng, thread_rng};
pub use shuttle::sync::{
    PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, atomic,
};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{LockResult, TryLockResult};
use std::time::Duration;

/// Whether anything depends on chance: not where every order is tried.
static CHANCE: AtomicBool = AtomicBool::new(true);

pub fn set_chance(is_on: bool) {
    CHANCE.store(is_on, Ordering::Relaxed);
}

/// One wait in so many ends without its signal.
static ENDS_EARLY: AtomicU32 = AtomicU32::new(ENDS_EARLY_MOSTLY);
const ENDS_EARLY_MOSTLY: u32 = 6;

/// From here to the end of a run, and only if it is called in each: what waits with a deadline
/// never waits for its signal.
pub fn end_timed_waits() {
    ENDS_EARLY.store(1, Ordering::Relaxed);
}

/// For the next model.
pub fn reset() {
    CHANCE.store(true, Ordering::Relaxed);
    ENDS_EARLY.store(ENDS_EARLY_MOSTLY, Ordering::Relaxed);
}

/// True once in so many times, as the scheduler decides.
pub fn once_in(times: u32) -> bool {
    CHANCE.load(Ordering::Relaxed) && thread_rng().gen_ratio(1, times)
}

#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Knows its mutex, to take it again after a wait that had no signal.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        // A panic ends the run of a model, so that nothing is poisoned.
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { mutex: self, guard })
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Ok(MutexGuard { mutex: self, guard }),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[derive(Debug, Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub const fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { mutex, guard } = guard;
        let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { mutex, guard })
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        if !once_in(ENDS_EARLY.load(Ordering::Relaxed)) {
            return self.wait(guard).map(|guard| (guard, ())).map_err(|_| unreachable!());
        }
        let mutex = guard.mutex;
        drop(guard);
        shuttle::thread::yield_now();
        mutex.lock().map(|guard| (guard, ())).map_err(|_| unreachable!())
    }
}
