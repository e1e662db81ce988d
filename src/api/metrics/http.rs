//! Families about both HTTP servers, and what the internal API answered.

use crate::base::metrics::{Counter, Exposition};
use crate::net::http::HttpStats;

/// The statuses that the internal API answers; any other is `other`.
const STATUSES: [u16; 21] = [
    200, 202, 204, 400, 401, 403, 404, 405, 408, 409, 411, 413, 417, 422, 431, 500, 501, 502, 503,
    504, 505,
];

/// How often each status was answered.
#[derive(Debug, Default)]
pub(in crate::api) struct Statuses {
    known: [Counter; STATUSES.len()],
    other: Counter,
}

impl Statuses {
    pub(in crate::api) fn count(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status);
        place.map_or(&self.other, |place| &self.known[place]).inc();
    }
}

/// The servers with their names as labels.
pub(super) type Servers = [(&'static str, Option<HttpStats>); 2];

pub(super) fn show(exposition: &mut Exposition, statuses: &Statuses, servers: &Servers) {
    let mut answered = exposition
        .counter("mesophyll_api_requests_total", "What the internal API answered, by status.");
    for (status, count) in STATUSES.iter().zip(&statuses.known) {
        answered.sample(&[("status", &status.to_string())], count.get());
    }
    answered.sample(&[("status", "other")], statuses.other.get());
    let mut open = exposition.gauge("mesophyll_http_connections", "Connections now.");
    for (name, stats) in servers {
        if let Some(stats) = stats {
            open.sample(&[("server", name)], stats.open);
        }
    }
    let mut count = |name, help, figure: &dyn Fn(&HttpStats) -> u64| {
        let mut family = exposition.counter(name, help);
        for (server, stats) in servers {
            if let Some(stats) = stats {
                family.sample(&[("server", server)], figure(stats));
            }
        }
    };
    count("mesophyll_http_connections_accepted_total", "Connections that got a place.", &|stats| {
        stats.accepted
    });
    count(
        "mesophyll_http_connections_displaced_total",
        "Connections that made room for a newer one.",
        &|stats| stats.displaced,
    );
    count(
        "mesophyll_http_connections_refused_total",
        "Connections that were refused, as every place was busy.",
        &|stats| stats.refused,
    );
    count(
        "mesophyll_http_handshakes_failed_total",
        "Connections that ended before there was TLS on them.",
        &|stats| stats.handshakes_failed,
    );
    count("mesophyll_http_requests_total", "Requests that reached a handler.", &|stats| {
        stats.requests
    });
    count(
        "mesophyll_http_streams_refused_total",
        "Requests over HTTP/2 that were refused unread, to be sent again.",
        &|stats| stats.streams_refused,
    );
}

/// When the certificates of ports with TLS end.
pub(super) fn show_certificates(exposition: &mut Exposition, ends: &[(&'static str, i64)]) {
    let help = "When the certificate of a port with TLS ends, in seconds since 1970.";
    let mut family = exposition.gauge("mesophyll_certificate_expiry_timestamp_seconds", help);
    for (port, at) in ends {
        family.sample(&[("port", port)], at);
    }
}
