//! What `/metrics` shows of a master, gathered from its layers: copies of what they count anyway.
//! Asks nothing that could be slow; runs on the scrape's connection thread.

use std::sync::Arc;

use crate::api::About;
use crate::api::metrics::Figures;
use crate::pool::{Operator, Spawner, Traffic};
use crate::protocol::MesophyllServer;

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
            quarantined: Some(self.operator.quarantine().count()),
            output_lines_dropped: self
                .spawner
                .as_ref()
                .map(|spawner| spawner.output_lines_dropped()),
            worker_http: server.map(MesophyllServer::http_stats),
        }
    }
}
