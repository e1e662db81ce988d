//! The map of pending requests against a model: nobody is lost, nobody answered twice, the first
//! cause sticks.

use std::collections::BTreeMap;

use mesophyll::net::link::{CloseCause, Pending, Registered};

const MAX: usize = 5;

/// Two bytes are a step: what, and with which id.
pub(super) fn pending(bytes: &[u8]) {
    let pending = Pending::new(MAX);
    let mut model: BTreeMap<u64, usize> = BTreeMap::new();
    let mut closed: Option<CloseCause> = None;
    for (waiter, step) in bytes.chunks_exact(2).enumerate() {
        let id = u64::from(step[1] % 8);
        match step[0] % 16 {
            0..8 => {
                let expected = match &closed {
                    Some(cause) => Registered::Closed(waiter, cause.clone()),
                    None if model.len() == MAX => Registered::Full(waiter),
                    None if model.contains_key(&id) => Registered::Duplicate(waiter),
                    None => Registered::Waiting(model.len() + 1),
                };
                if matches!(expected, Registered::Waiting(_)) {
                    model.insert(id, waiter);
                }
                assert_eq!(pending.register(id, waiter), expected);
            }
            8..14 => assert_eq!(pending.take(id), model.remove(&id)),
            14 => {
                let mut seen = BTreeMap::new();
                pending.for_each(|id, waiter| assert_eq!(seen.insert(id, *waiter), None));
                assert_eq!(seen, model);
            }
            _ => {
                let cause = CloseCause::ClosedByPeer(u16::from(step[1]));
                let (mut swept, first) = pending.close(cause.clone());
                swept.sort_unstable();
                let mut waiting: Vec<usize> = std::mem::take(&mut model).into_values().collect();
                waiting.sort_unstable();
                assert_eq!(swept, waiting);
                assert_eq!(first, *closed.get_or_insert(cause));
            }
        }
        assert_eq!((pending.len(), pending.is_empty()), (model.len(), model.is_empty()));
    }
}
