//! The events of a link that no caller waits for.

use std::sync::Arc;

use super::unheard::Unheard;
use crate::check::{Model, spawn};
use crate::dispatch::RequestId;
use crate::net::link::Registered;
use crate::wire::data::TenantId;
use crate::wire::message::FinishedEvents;

const TENANT: TenantId = TenantId::Guild(1);

pub fn models() -> Vec<Model> {
    vec![Model { name: "unheard", run: unheard, is_tiny: false }]
}

/// Each event comes out once: refused, taken back, told of or swept. None is there after the end.
fn unheard() {
    let unheard = Arc::new(Unheard::new());
    let callers: Vec<_> = (0..2)
        .map(|id| {
            let unheard = unheard.clone();
            spawn(move || match unheard.register(TENANT, RequestId(id), id) {
                Registered::Waiting(_) if id == 1 => unheard.take_back(TENANT, RequestId(id)),
                Registered::Waiting(_) => None,
                Registered::Sealed(id) => Some(id),
                _ => panic!("there is room"),
            })
        })
        .collect();
    let tells = unheard.clone();
    let reader = spawn(move || {
        let told = FinishedEvents { tenant: TENANT, ok: 1, failed: 0, busy: 0 };
        let (taken, surplus) = tells.take_finished([told]);
        assert_eq!(taken.len() as u64 + surplus, 1);
        taken.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    });
    let mut out = unheard.close();
    out.extend(callers.into_iter().filter_map(|caller| caller.join().expect("an end")));
    out.extend(reader.join().expect("an end"));
    assert_eq!(unheard.len(), 0, "none slips in");
    out.sort_unstable();
    assert_eq!(out, [0, 1]);
}
