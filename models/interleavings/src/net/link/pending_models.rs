//! The requests of a link that wait for an answer.

use std::sync::Arc;

use super::{CloseCause, Pending, Registered};
use crate::base::primitives::atomic::{AtomicBool, Ordering};
use crate::check::{Model, spawn};

pub fn models() -> Vec<Model> {
    vec![
        Model { name: "pending: close", run: close, is_tiny: false },
        Model { name: "pending: seal", run: seal, is_tiny: true },
    ]
}

/// Each request comes out once: refused, answered or swept. None is there after the end, and each
/// that ends it or comes too late is told the same cause.
fn close() {
    let pending = Arc::new(Pending::new(2));
    let callers: Vec<_> = (0..2)
        .map(|id| {
            let pending = pending.clone();
            spawn(move || match pending.register(id, id) {
                Registered::Waiting(_) => (None, None),
                Registered::Closed(id, cause) => (Some(id), Some(cause)),
                _ => panic!("there is room"),
            })
        })
        .collect();
    let answers = pending.clone();
    let reader = spawn(move || [0, 0, 1].into_iter().filter_map(|id| answers.take(id)).collect());
    let closers: Vec<_> = (0..2)
        .map(|number| {
            let pending = pending.clone();
            spawn(move || pending.close(CloseCause(number)))
        })
        .collect();
    let (mut out, mut causes): (Vec<u64>, Vec<_>) = (reader.join().expect("an end"), vec![]);
    for caller in callers {
        let (id, cause) = caller.join().expect("an end");
        out.extend(id);
        causes.extend(cause);
    }
    for closer in closers {
        let (ids, cause) = closer.join().expect("an end");
        out.extend(ids);
        causes.push(cause);
    }
    assert!(pending.is_empty(), "none slips in");
    out.sort_unstable();
    assert_eq!(out, [0, 1]);
    assert!(causes.iter().all(|cause| *cause == causes[0]), "{causes:?}");
}

/// Once none waits after the seal, nothing is under way, nor will be.
fn seal() {
    let pending = Arc::new(Pending::new(2));
    let is_over = Arc::new(AtomicBool::new(false));
    let (asks, was_over) = (pending.clone(), is_over.clone());
    let caller = spawn(move || {
        if matches!(asks.register(1, ()), Registered::Waiting(_)) {
            assert!(!was_over.load(Ordering::SeqCst), "it is under way");
            asks.take(1);
        }
    });
    pending.seal();
    if pending.is_empty() {
        is_over.store(true, Ordering::SeqCst);
    }
    caller.join().expect("an end");
    assert!(pending.is_empty() && !pending.is_open());
}
