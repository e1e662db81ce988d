//! Metric families about the links to worker processes, and about what these ask of the database
//! over HTTP.

use super::db_figures::{DbRequest, DbRequestFigures, StatusClass};
use super::link_counters::{LinkEnd, LinkReport};
use super::server::MesophyllServer;
use crate::base::metrics::Exposition;

/// Each worker's number as a label, and its links.
type Links = Vec<(String, LinkReport)>;

/// Shows all of them; without a server, families without samples.
pub fn show_families(exposition: &mut Exposition, server: Option<&MesophyllServer>) {
    let reports = server.map(MesophyllServer::links).unwrap_or_default();
    let links = reports.into_iter().map(|report| (report.worker_id.to_string(), report)).collect();
    show_links(exposition, &links);
    show_requests(exposition, server.map(MesophyllServer::db_figures));
}

fn show_links(exposition: &mut Exposition, links: &Links) {
    let mut family = exposition.histogram(
        "mesophyll_link_round_trip_seconds",
        "From a ping of the master's to the worker's pong.",
    );
    for (id, report) in links {
        family.buckets(&[("worker", id)], &report.counters.link.round_trips.snapshot());
    }
    let mut labelled = |name, help, label, figures: fn(&LinkReport) -> Vec<(&'static str, u64)>| {
        let mut family = exposition.counter(name, help);
        for (id, report) in links {
            for (value, count) in figures(report) {
                family.sample(&[("worker", id), (label, value)], count);
            }
        }
    };
    labelled(
        "mesophyll_link_messages_total",
        "Messages over the worker's links.",
        "direction",
        |LinkReport { counters, .. }| {
            let link = &counters.link;
            vec![("in", link.received_messages.get()), ("out", link.sent_messages.get())]
        },
    );
    labelled(
        "mesophyll_link_bytes_total",
        "Bytes over the worker's links, with framing.",
        "direction",
        |LinkReport { counters, .. }| {
            let link = &counters.link;
            vec![("in", link.received_bytes.get()), ("out", link.sent_bytes.get())]
        },
    );
    labelled("mesophyll_link_ends_total", "Links of the worker that ended.", "cause", |report| {
        LinkEnd::ALL.map(|end| (end.as_str(), report.counters.ends(end))).into()
    });
    labelled(
        "mesophyll_link_wrongs_total",
        "What the worker sent that it should not have.",
        "kind",
        |report| report.counters.wrongs().into(),
    );
    let mut connections =
        exposition.counter("mesophyll_link_connections_total", "Links of the worker that began.");
    for (id, report) in links {
        connections.sample(&[("worker", id)], report.counters.connections.get());
    }
    let mut replacements = exposition.counter(
        "mesophyll_link_replacements_total",
        "Links that took the place of one of the worker's that had not ended.",
    );
    for (id, report) in links {
        replacements.sample(&[("worker", id)], report.counters.replacements.get());
    }
    let mut messages = exposition
        .gauge("mesophyll_link_queue_messages", "Messages that wait to leave for the worker.");
    for (id, report) in links {
        messages.sample(&[("worker", id)], report.queued.unwrap_or_default().0);
    }
    let mut bytes =
        exposition.gauge("mesophyll_link_queue_bytes", "Bytes that wait to leave for the worker.");
    for (id, report) in links {
        bytes.sample(&[("worker", id)], report.queued.unwrap_or_default().1);
    }
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
