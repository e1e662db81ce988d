//! Families about a master's place among others over one database.

use crate::api::cluster::{ApiCluster, ForwardOutcome, Forwarder};
use crate::base::metrics::Exposition;

pub(super) fn show(
    exposition: &mut Exposition,
    cluster: Option<&ApiCluster>,
    forwarder: &Forwarder,
) {
    let own = cluster
        .and_then(|cluster| cluster.table.masters().into_iter().find(|master| master.is_this));
    let left = own.as_ref().map(|master| master.row.lease_left.as_secs_f64());
    exposition.one_gauge(
        "mesophyll_lease_seconds_left",
        "What was left of the master's lease when it looked last.",
        Some(left.unwrap_or(0.0)).filter(|_| cluster.is_some()),
    );
    let mut shards = exposition
        .gauge("mesophyll_shards", "Shards that the master holds, serves, and is to hold.");
    if let Some(cluster) = cluster {
        let (held, wanted) = own.map_or((0, 0), |master| (master.shards, master.wanted));
        let served = cluster.table.served();
        for (state, count) in [("held", held), ("served", served), ("wanted", wanted)] {
            shards.sample(&[("state", state)], count);
        }
    }
    exposition.one_counter(
        "mesophyll_fence_refusals_total",
        "Writes that the database refused, as the master no longer held their shard.",
        cluster.map(|cluster| cluster.table.held().refusals()),
    );
    let mut forwards = exposition.counter(
        "mesophyll_forwards_total",
        "Attempts to have another master answer, by what came of them.",
    );
    for outcome in ForwardOutcome::ALL.into_iter().filter(|_| cluster.is_some()) {
        forwards.sample(&[("outcome", outcome.as_str())], forwarder.count(outcome));
    }
}
