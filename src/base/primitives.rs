//! What waits and what is atomic, of the standard library, for the parts whose interleavings are
//! checked: `models/interleavings` compiles those parts with another file in the place of this one.
//!
//! A part that is checked names nothing of the kind from `std::sync` itself.

pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError, atomic,
};
