//! Several masters as callers see them: every request for a tenant may be sent to any of them.
//!
//! `routing` decides where a request is carried out, `forward` sends it there, `events` does so
//! with events of streams, `upstream` follows feeds that are there, `hop` is how masters know each
//! other. Here is what an operator asks and decides: which masters there are, where a tenant is,
//! and which master hands everything over.

mod events;
mod forward;
mod hop;
mod routing;
mod upstream;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use self::events::{EventForwarder, EventToForward};
pub use self::forward::ForwardOutcome;
pub(super) use self::forward::{Forwarder, PeerAnswer};
#[cfg(test)]
pub(super) use self::hop::{ForwardedRequest, PeerHop};
pub(super) use self::hop::{HOP, PEER, PeerNonces, REFUSED};
pub(super) use self::routing::PeerRequest;
pub(super) use self::upstream::Upstreams;
use super::error::{ApiError, Code};
use super::request::tenant;
use super::status::millis;
use super::{Api, Call, text};
use crate::base::error::DbError;
use crate::cluster::{ClusterFigures, MasterReport, ShardPlace, ShardTable};
use crate::net::http::{Body, Response};
use crate::store::lease::MasterState;

/// The header of an answer that says which master gave it.
pub(super) const MASTER: &str = "Mesophyll-Master";

/// Has the master of a name hand everything over, or stop doing so; says whether there is one.
pub type SetMasterState = dyn Fn(&str, MasterState) -> Result<bool, DbError> + Send + Sync;

/// A master's place among others over one database, as the internal API needs it.
pub struct ApiCluster {
    /// Where every tenant is.
    pub table: Arc<ShardTable>,
    /// The cluster's name; `None`: the master is alone by its options.
    pub cluster: Option<String>,
    /// This master's name.
    pub name: String,
    /// Writes to where all masters look. Blocks as the store does.
    pub set_state: Box<SetMasterState>,
    /// What there is to count.
    pub figures: Box<dyn Fn() -> ClusterFigures + Send + Sync>,
}

impl fmt::Debug for ApiCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiCluster({:?}, {})", self.cluster, self.name)
    }
}

/// One master, as docs/api.md shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListedMaster {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) lease_ms: u64,
    pub(crate) shards: usize,
    pub(crate) wanted: usize,
    pub(crate) version: String,
    pub(crate) api: String,
}

/// Where a tenant is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RouteAnswer {
    pub(crate) master: Option<String>,
    pub(crate) api: Option<String>,
    pub(crate) here: bool,
    pub(crate) epoch: Option<i64>,
}

/// All masters that are known, by name; none where masters do not know each other.
pub(super) fn masters_of(cluster: Option<&ApiCluster>) -> Vec<ListedMaster> {
    let reports = cluster.into_iter().flat_map(|cluster| cluster.table.masters());
    let answer = |report: MasterReport| ListedMaster {
        lease_ms: if report.row.lives() { millis(report.row.lease_left) } else { 0 },
        name: report.row.name,
        state: report.row.state.as_str().to_owned(),
        shards: report.shards,
        wanted: report.wanted,
        version: report.row.version,
        api: report.row.api,
    };
    reports.map(answer).collect()
}

pub(super) fn masters(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    text::answer(200, &masters_of(api.ready.cluster()))
}

pub(super) fn route(
    api: &Api,
    call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let cluster = named(api)?;
    let place = cluster.table.place(tenant(call)?);
    let own_api = || cluster.table.masters().into_iter().find(|master| master.is_this);
    let answer = match place {
        ShardPlace::Here(epoch) => RouteAnswer {
            master: Some(cluster.name.clone()),
            api: own_api().map(|master| master.row.api),
            here: true,
            epoch: Some(epoch),
        },
        ShardPlace::There(other) => RouteAnswer {
            master: Some(other.name),
            api: Some(other.api),
            here: false,
            epoch: Some(other.epoch),
        },
        ShardPlace::Unsettled => RouteAnswer { master: None, api: None, here: false, epoch: None },
    };
    text::answer(200, &answer)
}

pub(super) fn drain(
    api: &Api,
    call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    set_state(api, call, MasterState::Draining)
}

pub(super) fn undrain(
    api: &Api,
    call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    set_state(api, call, MasterState::Up)
}

fn set_state(api: &Api, call: &Call<'_>, state: MasterState) -> Result<Response, ApiError> {
    let cluster = named(api)?;
    let name = call.params.get("name").unwrap_or(&cluster.name);
    if (cluster.set_state)(name, state)? {
        Ok(Response::json(202, "{}"))
    } else {
        Err(ApiError::new(Code::NotFound, "no master of this name lives"))
    }
}

/// The cluster, of a master that is in one.
fn named(api: &Api) -> Result<&ApiCluster, ApiError> {
    let cluster = api.ready.cluster().filter(|cluster| cluster.cluster.is_some());
    cluster.ok_or_else(|| {
        ApiError::new(Code::NotFound, "this master is in no cluster: --cluster makes it join one")
    })
}
