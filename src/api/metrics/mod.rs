//! `GET /metrics`: what the layers have counted, in Prometheus' text format. Needs no token; the
//! source rule holds.
//!
//! Each layer's families stand in a file of their own, and every family is begun on every scrape,
//! also where there is nothing to show in it (a test compares them with docs/operations.md). A
//! scrape copies counters that are kept anyway and asks nothing that might be slow. Like `/livez`
//! it takes no place of those that wait for tenants, so it answers under a flood.

mod cluster;
mod feeds;
mod http;
mod process;
mod runtime;
mod shop;
mod store;
mod streams;
mod timers;
mod traffic;
mod workers;

use std::sync::Arc;

use super::cluster::{ApiCluster, Forwarder};
use super::error::{ApiError, Code};
use super::event_line::LineOutcomes;
use super::served_links::ServedLinks;
use super::{About, Api, Call};
use crate::base::limits::METRICS_SCRAPES_MAX;
use crate::base::metrics::Exposition;
use crate::base::process_figures::{self, ProcessFigures};
use crate::base::sync::CountedPermit;
use crate::feeds::FeedFigures;
use crate::net::http::{Body, HttpStats, HttpWatch, Response};
use crate::pool::{Broadcasts, Messages, ShopFigures, TimerFigures, Traffic, WorkerReport};
use crate::store::DbState;

pub(super) use self::http::Statuses;

/// What a master's layers have to show at one moment; what is empty stays without samples.
#[derive(Debug)]
pub struct Figures {
    /// Each worker's report.
    pub workers: Vec<WorkerReport>,
    /// What the pool was asked for.
    pub traffic: Arc<Traffic>,
    /// What master it is.
    pub about: About,
    /// What tenants were told of the shop.
    pub shop: ShopFigures,
    /// What became of tenants' timers.
    pub timers: TimerFigures,
    /// How many tenants are quarantined.
    pub quarantined: usize,
    /// Lines that workers printed and that were not logged.
    pub output_lines_dropped: Option<u64>,
    /// The worker-facing server's.
    pub worker_http: Option<HttpStats>,
    /// When the certificate of each port with TLS ends, in seconds since 1970.
    pub certificates: Vec<(&'static str, i64)>,
}

/// What the API itself knows besides.
struct Own<'a> {
    db: &'a DbState,
    statuses: &'a Statuses,
    http: Option<HttpStats>,
    messages: Option<&'a Messages>,
    broadcasts: Option<&'a Broadcasts>,
    cluster: Option<&'a ApiCluster>,
    forwarder: &'a Forwarder,
    feeds: FeedFigures,
    logs: FeedFigures,
    lines: &'a LineOutcomes,
    streams: &'a ServedLinks,
    hosts: &'a ServedLinks,
    process: ProcessFigures,
    virtual_bytes: u64,
}

pub(super) fn metrics(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let place = CountedPermit::take(&api.scrapes, METRICS_SCRAPES_MAX)
        .ok_or_else(|| ApiError::new(Code::Busy, "too many answers of this route are under way"))?;
    let own = Own {
        db: &api.db,
        statuses: &api.answered,
        http: api.http.get().and_then(HttpWatch::stats),
        messages: Some(api.ready.messages()),
        broadcasts: Some(api.ready.broadcasts()),
        cluster: api.ready.cluster(),
        forwarder: &api.forwarder,
        feeds: api.ready.feeds().figures(),
        logs: api.ready.feeds().log_figures(),
        lines: &api.event_lines,
        streams: &api.streams,
        hosts: &api.host_links,
        process: ProcessFigures::read(),
        virtual_bytes: process_figures::virtual_bytes(),
    };
    let text = text(&api.ready.figures(), &own, |to| api.ready.show_protocol(to));
    Ok(Response::new(200, Exposition::CONTENT_TYPE, text.into_bytes()).holding(place))
}

/// All families.
fn text(figures: &Figures, own: &Own<'_>, show_protocol: impl FnOnce(&mut Exposition)) -> String {
    let mut exposition = Exposition::default();
    build(&mut exposition);
    workers::show(&mut exposition, figures);
    traffic::show(&mut exposition, figures, own.messages, own.broadcasts);
    traffic::show_refused(&mut exposition, own.db);
    runtime::show(&mut exposition, &figures.workers);
    show_protocol(&mut exposition);
    store::show(&mut exposition, own.db);
    http::show(
        &mut exposition,
        own.statuses,
        &[("api", own.http), ("worker", figures.worker_http)],
    );
    http::show_certificates(&mut exposition, &figures.certificates);
    cluster::show(&mut exposition, own.cluster, own.forwarder);
    feeds::show(&mut exposition, own.feeds, own.logs);
    streams::show(&mut exposition, own.lines, own.streams, own.hosts);
    shop::show(&mut exposition, &figures.shop);
    timers::show(&mut exposition, &figures.timers);
    process::show(&mut exposition, &own.process, own.virtual_bytes);
    exposition.into_text()
}

fn build(exposition: &mut Exposition) {
    exposition
        .gauge("mesophyll_build_info", "Always 1; which build this is.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

#[cfg(test)]
impl Figures {
    /// Those of a master without a worker.
    pub(super) fn of_nobody() -> Self {
        let started = std::time::Instant::now();
        Self {
            workers: Vec::new(),
            traffic: Arc::new(Traffic::new(0)),
            about: About { mode: "", store: "", has_external_workers: false, started },
            shop: ShopFigures::default(),
            timers: TimerFigures::default(),
            quarantined: 0,
            output_lines_dropped: None,
            worker_http: None,
            certificates: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DbOptions;
    use crate::store::memory::MemoryStore;

    /// The names of a text's families.
    fn families(text: &str) -> Vec<&str> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().unwrap_or_default()).collect()
    }

    fn empty_text() -> String {
        let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default());
        let own = Own {
            db: &db.expect("an empty store"),
            statuses: &Statuses::default(),
            http: None,
            messages: None,
            broadcasts: None,
            cluster: None,
            forwarder: &Forwarder::new(None),
            feeds: FeedFigures::default(),
            logs: FeedFigures::default(),
            lines: &LineOutcomes::default(),
            streams: &ServedLinks::new("stream", "streams", 1),
            hosts: &ServedLinks::new("host", "host processes", 1),
            process: ProcessFigures::default(),
            virtual_bytes: 0,
        };
        text(&Figures::of_nobody(), &own, |to| crate::protocol::show_families(to, None))
    }

    #[test]
    fn every_family_is_documented_and_every_documented_one_is_there() {
        let docs = include_str!("../../../docs/operations.md");
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.map(|row| row.split('`').next().unwrap_or_default());
        let documented: Vec<&str> = names
            .filter(|name| name.starts_with("mesophyll_") || name.starts_with("process_"))
            .collect();
        let text = empty_text();
        assert_eq!(
            families(&text),
            documented,
            "in this order, too, which is how people look for them"
        );
    }

    #[test]
    fn each_family_is_there_once_with_a_name_for_its_kind() {
        let text = empty_text();
        let mut names = families(&text);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a kind");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(kind != "histogram" || name.ends_with("_seconds"), "{line}");
        }
    }
}
