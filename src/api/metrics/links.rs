//! Families about the links to worker processes, and what these ask of the database over HTTP.

use crate::base::metrics::{Buckets, Exposition};

/// One worker's links, all together.
#[derive(Debug, Default)]
pub struct LinkFigures {
    /// The worker's number.
    pub worker: usize,
    /// From ping to pong.
    pub round_trips: Buckets,
    /// Messages `in` (from the worker) and `out`.
    pub messages: [(&'static str, u64); 2],
    /// Bytes `in` and `out`.
    pub bytes: [(&'static str, u64); 2],
    /// Messages and bytes that wait to leave; `None` without a link.
    pub queued: Option<(usize, usize)>,
    /// Links that began.
    pub connections: u64,
    /// Links that took the place of one that had not ended.
    pub replacements: u64,
    /// Links that ended, by cause.
    pub ends: Vec<(&'static str, u64)>,
    /// What it sent that it should not have, by kind.
    pub wrongs: Vec<(&'static str, u64)>,
}

/// One kind of request to `/db/*`.
#[derive(Debug, Default)]
pub struct RequestFigures {
    /// Its name.
    pub operation: &'static str,
    /// How many were answered with each class of status.
    pub classes: Vec<(&'static str, u64)>,
    /// How long they took.
    pub took: Buckets,
}

pub(super) fn show(exposition: &mut Exposition, links: &[LinkFigures]) {
    let ids: Vec<String> = links.iter().map(|link| link.worker.to_string()).collect();
    let each = || links.iter().zip(&ids);
    let mut family = exposition.histogram(
        "mesophyll_link_round_trip_seconds",
        "From a ping of the master's to the worker's pong.",
    );
    for (link, id) in each() {
        family.buckets(&[("worker", id)], &link.round_trips);
    }
    let mut labelled =
        |name, help, label, figures: &dyn Fn(&LinkFigures) -> Vec<(&'static str, u64)>| {
            let mut family = exposition.counter(name, help);
            for (link, id) in each() {
                for (value, count) in figures(link) {
                    family.sample(&[("worker", id), (label, value)], count);
                }
            }
        };
    labelled(
        "mesophyll_link_messages_total",
        "Messages over the worker's links.",
        "direction",
        &|link| link.messages.to_vec(),
    );
    labelled(
        "mesophyll_link_bytes_total",
        "Bytes over the worker's links, with framing.",
        "direction",
        &|link| link.bytes.to_vec(),
    );
    labelled("mesophyll_link_ends_total", "Links of the worker that ended.", "cause", &|link| {
        link.ends.clone()
    });
    labelled(
        "mesophyll_link_wrongs_total",
        "What the worker sent that it should not have.",
        "kind",
        &|link| link.wrongs.clone(),
    );
    let mut connections =
        exposition.counter("mesophyll_link_connections_total", "Links of the worker that began.");
    for (link, id) in each() {
        connections.sample(&[("worker", id)], link.connections);
    }
    let mut replacements = exposition.counter(
        "mesophyll_link_replacements_total",
        "Links that took the place of one of the worker's that had not ended.",
    );
    for (link, id) in each() {
        replacements.sample(&[("worker", id)], link.replacements);
    }
    let mut messages = exposition
        .gauge("mesophyll_link_queue_messages", "Messages that wait to leave for the worker.");
    for (link, id) in each() {
        messages.sample(&[("worker", id)], link.queued.map_or(0, |(messages, _)| messages));
    }
    let mut bytes =
        exposition.gauge("mesophyll_link_queue_bytes", "Bytes that wait to leave for the worker.");
    for (link, id) in each() {
        bytes.sample(&[("worker", id)], link.queued.map_or(0, |(_, bytes)| bytes));
    }
}

pub(super) fn show_requests(exposition: &mut Exposition, requests: &[RequestFigures]) {
    let mut answered =
        exposition.counter("mesophyll_db_requests_total", "Requests of workers to /db/*.");
    for request in requests {
        for (class, count) in &request.classes {
            answered.sample(&[("operation", request.operation), ("class", class)], count);
        }
    }
    let mut took = exposition.histogram(
        "mesophyll_db_request_duration_seconds",
        "From a request's head at /db/* to its answer, its body's arrival included.",
    );
    for request in requests.iter().filter(|request| request.took.count() > 0) {
        took.buckets(&[("operation", request.operation)], &request.took);
    }
}
