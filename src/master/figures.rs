//! What `/metrics` shows of a master, gathered from its layers: copies of what they count anyway.
//! Asks nothing that could be slow; runs on the scrape's connection thread.

use std::sync::Arc;

use crate::api::About;
use crate::api::metrics::{Figures, LinkFigures, RequestFigures};
use crate::pool::{Operator, Spawner, Traffic};
use crate::protocol::{DbRequest, LinkEnd, LinkReport, MesophyllServer, StatusClass};

/// The layers that have something to show.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) about: About,
    pub(super) operator: Arc<Operator>,
    pub(super) traffic: Arc<Traffic>,
    /// `None` in thread-pool mode, like the next.
    pub(super) server: Option<Arc<MesophyllServer>>,
    pub(super) spawner: Option<Arc<Spawner>>,
}

impl Layers {
    pub(super) fn figures(&self) -> Figures {
        let server = self.server.as_deref();
        Figures {
            about: Some(self.about),
            workers: self.operator.reports(),
            traffic: Some(self.traffic.clone()),
            quarantined: Some(self.operator.quarantine().len()),
            output_lines_dropped: self
                .spawner
                .as_ref()
                .map(|spawner| spawner.output_lines_dropped()),
            links: server
                .map(|server| server.links().iter().map(link).collect())
                .unwrap_or_default(),
            db_requests: server.map(db_requests).unwrap_or_default(),
            worker_http: server.map(MesophyllServer::http_stats),
        }
    }
}

fn link(report: &LinkReport) -> LinkFigures {
    let (ledger, link) = (&report.ledger, &report.ledger.link);
    LinkFigures {
        worker: report.worker_id,
        round_trips: link.round_trips.snapshot(),
        messages: [("in", link.received_messages.get()), ("out", link.sent_messages.get())],
        bytes: [("in", link.received_bytes.get()), ("out", link.sent_bytes.get())],
        queued: report.queued,
        connections: ledger.connections.get(),
        replacements: ledger.replacements.get(),
        ends: LinkEnd::ALL.map(|end| (end.as_str(), ledger.ends(end))).to_vec(),
        wrongs: ledger.wrongs().to_vec(),
    }
}

fn db_requests(server: &MesophyllServer) -> Vec<RequestFigures> {
    let figures = server.db_figures();
    let request = |request: DbRequest| RequestFigures {
        operation: request.as_str(),
        classes: StatusClass::ALL
            .map(|class| (class.as_str(), figures.count(request, class)))
            .to_vec(),
        took: figures.took(request),
    };
    DbRequest::ALL.map(request).into()
}
