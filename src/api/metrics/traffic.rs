//! Families about what the pool was asked for and how it ended.

use super::Figures;
use crate::base::metrics::Exposition;
use crate::dispatch::JobKind;
use crate::pool::{Broadcasts, Messages, Outcome, WorkerTraffic};
use crate::store::{DbState, RateKind};

pub(super) fn show(
    exposition: &mut Exposition,
    figures: &Figures,
    messages: Option<&Messages>,
    broadcasts: Option<&Broadcasts>,
) {
    let workers = figures.traffic.workers().iter().enumerate();
    let workers: Vec<(String, &WorkerTraffic)> =
        workers.map(|(id, worker)| (id.to_string(), worker)).collect();
    let mut ended = exposition
        .counter("mesophyll_dispatches_total", "Jobs of tenants that ended, by kind and outcome.");
    for (id, worker) in &workers {
        for kind in JobKind::ALL {
            for outcome in Outcome::ALL {
                let labels = [
                    ("worker", id.as_str()),
                    ("kind", kind.as_str()),
                    ("outcome", outcome.as_str()),
                ];
                ended.sample(&labels, worker.ended().count(kind, outcome));
            }
        }
    }
    let mut took = exposition.histogram(
        "mesophyll_dispatch_duration_seconds",
        "From when a job was asked for to its end, however it ended.",
    );
    for (id, worker) in &workers {
        for kind in JobKind::ALL {
            let buckets = worker.ended().took(kind);
            // A kind that is not used is not worth its two dozen lines.
            if kind == JobKind::Event || buckets.count() > 0 {
                took.buckets(&[("worker", id), ("kind", kind.as_str())], &buckets);
            }
        }
    }
    exposition.one_counter(
        "mesophyll_events_skipped_total",
        "Events that --skip-events or --skip-author kept from every tenant.",
        Some(figures.traffic.skipped.get()),
    );
    exposition.one_gauge(
        "mesophyll_quarantined_tenants",
        "Tenants that are quarantined now.",
        Some(figures.quarantined),
    );
    let ended = exposition
        .counter("mesophyll_messages_total", "Messages between tenants, by what became of them.");
    if let Some(messages) = messages {
        messages.outcomes().show(ended);
    }
    let called = exposition.counter(
        "mesophyll_host_calls_total",
        "Calls of tenants to host processes, by what became of them.",
    );
    if let Some(messages) = messages {
        messages.hosts().outcomes().show(called);
    }
    exposition.one_gauge(
        "mesophyll_host_processes",
        "Host processes that are connected now.",
        messages.map(|messages| messages.hosts().count() as u64),
    );
    let done = exposition.counter(
        "mesophyll_broadcast_tenants_total",
        "Tenants that broadcasts were for, by what became of them.",
    );
    if let Some(broadcasts) = broadcasts {
        broadcasts.outcomes().show(done);
    }
}

pub(super) fn show_refused(exposition: &mut Exposition, db: &DbState) {
    let mut refused = exposition.counter(
        "mesophyll_rate_refused_total",
        "What tenants asked for beyond their rates, by what it was.",
    );
    for kind in RateKind::ALL {
        refused.sample(&[("what", kind.as_str())], db.rates_refused().get(kind));
    }
}
