//! `/livez`: the process answers. `/readyz`: the workers do, too.

use std::sync::Arc;

use serde::Serialize;

use super::error::{ApiError, Code};
use super::metrics::Figures;
use super::{Api, ApiCluster, Call, flag, text};
use crate::base::metrics::Exposition;
use crate::feeds::Feeds;
use crate::net::http::{Body, Response};
use crate::pool::{Broadcasts, Messages, Operator};

/// Tells how the workers are. Called on a connection's thread; must not block.
pub trait Readiness: Send + Sync {
    /// Each worker's number and state: `starting`, `connected`, `ready`, `draining`, `dead`,
    /// `failed` or `stopped`.
    fn workers(&self) -> Vec<(usize, &'static str)>;

    /// What an operator can do about them.
    fn operator(&self) -> &Operator;

    /// What carries messages of its tenants.
    fn messages(&self) -> &Messages;

    /// Its broadcasts.
    fn broadcasts(&self) -> &Broadcasts;

    /// Its place among the masters of one database; `None` over a store that knows no others.
    fn cluster(&self) -> Option<&ApiCluster> {
        None
    }

    /// What its tenants publish.
    fn feeds(&self) -> &Arc<Feeds>;

    /// Changes how much is logged from now on, by everything that belongs to this master.
    fn set_log_level(&self, level: log::LevelFilter) {
        log::set_max_level(level);
    }

    /// What there is to count of the workers and all that serves them.
    fn figures(&self) -> Figures;

    /// Writes the metric families of the protocol that worker processes speak.
    fn show_protocol(&self, _exposition: &mut Exposition) {}
}

#[derive(Serialize)]
struct WorkerReadiness {
    id: usize,
    state: &'static str,
}

/// Both answers of `/readyz`; the refusal reads like any other error, too.
#[derive(Serialize)]
struct Report {
    ready: bool,
    #[serde(flatten)]
    error: Option<ApiError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<WorkerReadiness>>,
}

pub(super) fn livez(
    _api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    Ok(Response::json(200, r#"{"live":true}"#))
}

/// 200 when every worker that is not failed or stopped is ready, and there is one; in a cluster
/// only while the master's lease lasts, too.
pub(super) fn readyz(
    api: &Api,
    call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let is_verbose = flag(call.head, "verbose")?;
    let workers = api.ready.workers();
    let mut counted = workers.iter().filter(|(_, state)| !matches!(*state, "failed" | "stopped"));
    let reason = match (counted.clone().count(), counted.find(|(_, state)| *state != "ready")) {
        // With no worker left to take an event, "ready" would send callers into NoWorker.
        (0, _) => Some("every worker is failed or stopped".to_owned()),
        (_, Some((id, state))) => Some(format!("worker {id} is {state}")),
        (_, None) => None,
    };
    let cluster = api.ready.cluster().filter(|cluster| cluster.cluster.is_some());
    let has_lease = cluster.is_none_or(|cluster| cluster.table.is_leased());
    let reason = if has_lease {
        reason
    } else {
        Some("the master is no member of its cluster at the moment".to_owned())
    };
    let report = Report {
        ready: reason.is_none(),
        error: reason.map(|reason| ApiError::new(Code::NoWorker, reason)),
        workers: is_verbose.then(|| {
            workers.into_iter().map(|(id, state)| WorkerReadiness { id, state }).collect()
        }),
    };
    text::answer(if report.ready { 200 } else { Code::NoWorker.status() }, &report)
}
