//! Families about a master's place among others over one database.

use std::time::Duration;

use crate::api::cluster::{ApiCluster, Forwarder};
use crate::base::metrics::Exposition;

pub(super) fn show(
    exposition: &mut Exposition,
    cluster: Option<&ApiCluster>,
    forwarder: &Forwarder,
) {
    let figures = cluster.map(|cluster| (cluster.figures)());
    let figures = figures.as_ref();
    let lease_left = figures.map(|figures| figures.lease_left.unwrap_or(Duration::ZERO));
    exposition.one_gauge(
        "mesophyll_lease_seconds_left",
        "How long the master may go on without another renewal; 0: it is no member.",
        lease_left.map(|left| left.as_secs_f64()),
    );
    let mut shards = exposition
        .gauge("mesophyll_shards", "Shards of the master, by what it has to do with them.");
    if let (Some(cluster), Some(figures)) = (cluster, figures) {
        let served = cluster.table.served();
        for (state, count) in [
            ("held", figures.held),
            ("served", served),
            ("draining", figures.draining),
            ("wanted", figures.wanted),
        ] {
            shards.sample(&[("state", state)], count);
        }
    }
    let mut moves = exposition.counter("mesophyll_shard_moves_total", "How shards changed hands.");
    if let Some(count) = figures.map(|figures| figures.moves) {
        for (why, count) in [
            ("taken", count.taken),
            ("received", count.received),
            ("given", count.given),
            ("lost", count.lost),
        ] {
            moves.sample(&[("why", why)], count);
        }
    }
    exposition.one_counter(
        "mesophyll_fence_refusals_total",
        "Writes that the database refused, as the master no longer held their shard.",
        cluster.map(|cluster| cluster.table.held().refusals()),
    );
    exposition.one_counter(
        "mesophyll_evictions_total",
        "Sessions of masters that were gone which the master had the database end.",
        figures.map(|figures| figures.evicted),
    );
    let mut renewals =
        exposition.histogram("mesophyll_renewal_seconds", "How long renewals of the lease took.");
    if let Some(figures) = figures {
        renewals.buckets(&[], &figures.renewals);
    }
    exposition.one_gauge(
        "mesophyll_coordination_connections_left",
        "Connections that were left in a question to the database, and have not ended.",
        figures.map(|figures| figures.left_helpers),
    );
    let forwards = exposition.counter(
        "mesophyll_forwards_total",
        "Attempts to have another master answer, by what came of them.",
    );
    if cluster.is_some() {
        forwarder.outcomes().show(forwards);
    }
}
