//! Places and bytes of the internal API's requests.

use std::sync::Arc;

use super::admission::{Admission, Amounts};
use crate::base::limits::API_SMALL_BYTES;
use crate::base::primitives::atomic::{AtomicU64, Ordering};
use crate::base::primitives::once_in;
use crate::check::{Model, spawn};
use crate::wire::data::TenantId;

const LARGE: u64 = API_SMALL_BYTES + 1;
const BOUNDS: Amounts = Amounts { places: 2, bytes: 3 * LARGE, answer_bytes: 2 * LARGE };

pub fn models() -> Vec<Model> {
    vec![Model { name: "api admission", run: admission, is_tiny: false }]
}

/// What is held of one thing; never more than there is.
#[derive(Default)]
struct Held(AtomicU64);

impl Held {
    fn take(&self, count: u64, bound: u64) {
        assert!(self.0.fetch_add(count, Ordering::SeqCst) + count <= bound, "too much is held");
    }

    fn give_back(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::SeqCst);
    }
}

/// Never more is taken than there is, and everything comes back.
fn admission() {
    let admission = Arc::new(Admission::new(BOUNDS, BOUNDS));
    let held: Arc<[Held; 3]> = Arc::default();
    let requests: Vec<_> = (0..3)
        .map(|number| {
            let (admission, held) = (admission.clone(), held.clone());
            spawn(move || request(&admission, &held, number))
        })
        .collect();
    requests.into_iter().for_each(|thread| thread.join().expect("an end"));
    let mut all = admission.admit(None, BOUNDS.bytes).expect("all bytes are back");
    all.expect_answer(BOUNDS.answer_bytes as usize).expect("those of answers too");
    admission.admit(None, 0).expect("all places are back");
}

fn request(admission: &Arc<Admission>, held: &[Held; 3], number: u64) {
    let tenant = (number > 0).then_some(TenantId::Guild(number));
    let Ok(mut permit) = admission.admit(tenant, LARGE) else { return };
    held[0].take(1, BOUNDS.places);
    held[1].take(LARGE, BOUNDS.bytes);
    let grows = once_in(2) && permit.expect_body(2 * LARGE).is_ok();
    if grows {
        held[1].take(LARGE, BOUNDS.bytes);
    }
    if permit.expect_answer(2 * LARGE as usize).is_ok() {
        held[2].take(2 * LARGE, BOUNDS.answer_bytes);
        held[2].give_back(2 * LARGE);
        permit.settle_answer(LARGE as usize);
    }
    held[1].give_back(LARGE + if grows { LARGE } else { 0 });
    held[0].give_back(1);
}
