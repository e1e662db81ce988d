//! A master as the internal API asks about it: its workers, and what `/metrics` shows, gathered
//! from its layers, which are copies of what they count anyway. Asks nothing that could be slow;
//! runs on the connections' threads.

use std::sync::Arc;

use crate::api::metrics::Figures;
use crate::api::{About, ApiCluster, Readiness};
use crate::base::metrics::Exposition;
use crate::feeds::Feeds;
use crate::pool::{Broadcasts, Messages, Operator, ShopUpdates, Spawner, TenantTimers, Traffic};
use crate::protocol::{MesophyllServer, show_families};

use super::tls::PortCertificates;

/// The layers that have something to show.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) about: About,
    pub(super) operator: Arc<Operator>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) messages: Arc<Messages>,
    pub(super) broadcasts: Arc<Broadcasts>,
    pub(super) shop: Arc<ShopUpdates>,
    pub(super) timers: Arc<TenantTimers>,
    /// `None` in thread-pool mode, like the next.
    pub(super) server: Option<Arc<MesophyllServer>>,
    pub(super) spawner: Option<Arc<Spawner>>,
    /// `None`: the store is of one master only.
    pub(super) cluster: Option<ApiCluster>,
    pub(super) feeds: Arc<Feeds>,
    pub(super) certificates: Arc<PortCertificates>,
}

impl Readiness for Layers {
    fn workers(&self) -> Vec<(usize, &'static str)> {
        self.operator.reports().iter().map(|report| (report.id, report.state.as_str())).collect()
    }

    fn operator(&self) -> &Operator {
        &self.operator
    }

    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn broadcasts(&self) -> &Broadcasts {
        &self.broadcasts
    }

    fn cluster(&self) -> Option<&ApiCluster> {
        self.cluster.as_ref()
    }

    fn feeds(&self) -> &Arc<Feeds> {
        &self.feeds
    }

    fn set_log_level(&self, level: log::LevelFilter) {
        match &self.server {
            Some(server) => server.set_log_level(level),
            // In thread-pool mode workers log as the master does.
            None => log::set_max_level(level),
        }
    }

    fn figures(&self) -> Figures {
        let server = self.server.as_deref();
        Figures {
            about: self.about,
            workers: self.operator.reports(),
            traffic: self.traffic.clone(),
            shop: self.shop.figures(),
            timers: self.timers.figures(),
            quarantined: self.operator.quarantine().count(),
            output_lines_dropped: self
                .spawner
                .as_ref()
                .map(|spawner| spawner.output_lines_dropped()),
            worker_http: server.map(MesophyllServer::http_stats),
            certificates: self.certificates.not_after(),
        }
    }

    fn show_protocol(&self, exposition: &mut Exposition) {
        show_families(exposition, self.server.as_deref());
    }
}
