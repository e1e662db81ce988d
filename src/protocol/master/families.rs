//! Metric families about the links to worker processes, and about what these ask of the database
//! over HTTP.

use super::db_figures::{DbRequest, DbRequestFigures, StatusClass};
use super::link_counters::{LinkCounters, LinkEnd, LinkReport, WorkerRefusal};
use super::server::MesophyllServer;
use crate::base::metrics::{Exposition, Family};

/// Shows all of them; without a server, families without samples.
pub fn show_families(exposition: &mut Exposition, server: Option<&MesophyllServer>) {
    show_links(exposition, &server.map(MesophyllServer::links).unwrap_or_default());
    let mut refused = exposition
        .counter("mesophyll_workers_refused_total", "Workers that were refused, by reason.");
    if let Some(server) = server {
        for why in WorkerRefusal::ALL {
            refused.sample(&[("reason", why.as_str())], server.refused(why));
        }
    }
    show_requests(exposition, server.map(MesophyllServer::db_figures));
}

fn show_links(exposition: &mut Exposition, links: &[LinkReport]) {
    let each = || links.iter().map(|report| (report.worker_id.to_string(), report));
    let mut round_trips = exposition.histogram(
        "mesophyll_link_round_trip_seconds",
        "From a ping of the master's to the worker's pong.",
    );
    for (id, report) in each() {
        round_trips.buckets(&[("worker", &id)], &report.counters.link.round_trips.snapshot());
    }
    let mut labelled =
        |name, help, label, figures: fn(&LinkCounters) -> Vec<(&'static str, u64)>| {
            let mut family = exposition.counter(name, help);
            for (id, report) in each() {
                for (value, count) in figures(&report.counters) {
                    family.sample(&[("worker", &id), (label, value)], count);
                }
            }
        };
    labelled(
        "mesophyll_link_messages_total",
        "Messages over the worker's links.",
        "direction",
        |LinkCounters { link, .. }| {
            vec![("in", link.received_messages.get()), ("out", link.sent_messages.get())]
        },
    );
    labelled(
        "mesophyll_link_bytes_total",
        "Bytes over the worker's links, with framing.",
        "direction",
        |LinkCounters { link, .. }| {
            vec![("in", link.received_bytes.get()), ("out", link.sent_bytes.get())]
        },
    );
    labelled("mesophyll_link_ends_total", "Links of the worker that ended.", "cause", |counters| {
        LinkEnd::ALL.map(|end| (end.as_str(), counters.ends(end))).into()
    });
    labelled(
        "mesophyll_link_wrongs_total",
        "What the worker sent that it should not have.",
        "kind",
        |counters| counters.wrongs().into(),
    );
    let show = |mut family: Family<'_>, figure: fn(&LinkReport) -> u64| {
        for (id, report) in each() {
            family.sample(&[("worker", &id)], figure(report));
        }
    };
    show(
        exposition.counter("mesophyll_link_connections_total", "Links of the worker that began."),
        |report| report.counters.connections.get(),
    );
    show(
        exposition.counter(
            "mesophyll_link_replacements_total",
            "Links that took the place of one of the worker's that had not ended.",
        ),
        |report| report.counters.replacements.get(),
    );
    show(
        exposition
            .gauge("mesophyll_link_queue_messages", "Messages that wait to leave for the worker."),
        |report| report.queued.0 as u64,
    );
    show(
        exposition.gauge("mesophyll_link_queue_bytes", "Bytes that wait to leave for the worker."),
        |report| report.queued.1 as u64,
    );
}

fn show_requests(exposition: &mut Exposition, figures: Option<&DbRequestFigures>) {
    let each = || figures.into_iter().flat_map(|figures| DbRequest::ALL.map(|of| (figures, of)));
    let mut answered =
        exposition.counter("mesophyll_db_requests_total", "Requests of workers to /db/*.");
    for (figures, request) in each() {
        for class in StatusClass::ALL {
            let labels = [("operation", request.as_str()), ("class", class.as_str())];
            answered.sample(&labels, figures.count(request, class));
        }
    }
    let mut took = exposition.histogram(
        "mesophyll_db_request_duration_seconds",
        "From a request's head at /db/* to its answer, its body's arrival included.",
    );
    let durations = each().map(|(figures, request)| (request, figures.took(request)));
    for (request, buckets) in durations.filter(|(_, buckets)| buckets.count() > 0) {
        took.buckets(&[("operation", request.as_str())], &buckets);
    }
}
