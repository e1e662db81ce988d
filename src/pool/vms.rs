//! Which tenants have a VM: asked of the workers on which they live, all at once, for so long as
//! the asker has time.
//!
//! Nothing is kept: a VM comes and goes with every event, and its worker is the one that knows.
//! Blocks its caller, never a worker.

use std::sync::Arc;
use std::time::Instant;

use crate::base::limits::LIVE_TENANTS_MAX;
use crate::protocol::VmQuery;
use crate::wire::data::TenantId;
use crate::wire::data::sharding::worker_for;

use super::managed::Managed;

/// What a worker says when it is asked which tenants have a VM.
#[derive(Debug)]
pub enum Vms {
    /// For each tenant whether it has one; nothing of a worker that cannot be asked.
    Known(Vec<bool>),
    /// It is asked over its link.
    Asked(VmQuery),
}

impl Vms {
    fn wait(self, deadline: Instant) -> Vec<bool> {
        match self {
            Vms::Known(has_vm) => has_vm,
            Vms::Asked(query) => query.wait(deadline).unwrap_or_default(),
        }
    }
}

/// For each tenant whether a VM of it is known.
///
/// # Blocks
/// Until all workers that were asked have answered, or `deadline`.
pub(super) fn have_vms(
    workers: &[Arc<dyn Managed>],
    tenants: &[TenantId],
    deadline: Instant,
) -> Vec<bool> {
    if workers.is_empty() {
        return vec![false; tenants.len()];
    }
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); workers.len()];
    for (place, tenant) in tenants.iter().enumerate() {
        places[worker_for(*tenant, workers.len())].push(place);
    }
    let mut asked = Vec::new();
    for (worker, places) in workers.iter().zip(&places) {
        for places in places.chunks(LIVE_TENANTS_MAX) {
            let tenants: Vec<TenantId> = places.iter().map(|place| tenants[*place]).collect();
            asked.push((places, worker.query_vms(&tenants)));
        }
    }
    let mut has_vm = vec![false; tenants.len()];
    for (places, vms) in asked {
        for (place, has) in places.iter().zip(vms.wait(deadline)) {
            has_vm[*place] = has;
        }
    }
    has_vm
}
