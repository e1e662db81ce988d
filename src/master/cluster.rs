//! A master's place among the masters of one database: joined before anything of it is read, begun
//! when its workers and its internal API are there, and left when nothing of its tenants runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::MasterError;
use super::config::PoolConfig;
use crate::api::ApiCluster;
use crate::cluster::ShardTenants;
use crate::cluster::member::Cluster;
use crate::store::lease::{HeldShards, Membership};
use crate::store::{self, StoreUrl};

/// How long a start waits for the shards that are to be had. A master beside others may be given
/// its own later; one that is alone has all of them at once.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Joins the other masters of the store; `None`: it is of one master only.
///
/// # Blocks
/// Until the database answered; for two leases while a master of the same name lives.
///
/// # Errors
/// It cannot join, or the database does not answer.
pub(super) fn join(
    config: &PoolConfig,
    url: &StoreUrl,
    api: Option<SocketAddr>,
    held: &Arc<HeldShards>,
    changes_tx: &Sender<()>,
) -> Result<Option<Arc<Cluster>>, MasterError> {
    let failed = |error| MasterError::Store(url.clone(), error);
    let Some(connect) = store::coordination(url).map_err(failed)? else { return Ok(None) };
    let options = &config.cluster;
    let membership = Membership {
        cluster: options.cluster.clone(),
        name: options.master_name(),
        api: advertised(options.advertise, api).map_or(String::new(), |at| at.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        weight: options.weight,
        lease: options.lease,
    };
    let changes_tx = changes_tx.clone();
    let on_give_up = Box::new(move || {
        // A full channel holds the same message already.
        let _ = changes_tx.try_send(());
    });
    let drain_timeout = config.policy.drain_timeout;
    let cluster = Cluster::join(connect, membership, held.clone(), drain_timeout, on_give_up);
    cluster.map(Arc::new).map(Some).map_err(|error| MasterError::Join(url.clone(), error))
}

/// The address that others are told: a port 0 is the one that the listener got.
fn advertised(advertise: Option<SocketAddr>, api: Option<SocketAddr>) -> Option<SocketAddr> {
    match (advertise, api) {
        (Some(told), Some(api)) if told.port() == 0 => Some(SocketAddr::new(told.ip(), api.port())),
        (told, api) => told.or(api),
    }
}

/// The cluster as the internal API asks about it.
pub(super) fn of_api(config: &PoolConfig, cluster: &Arc<Cluster>) -> ApiCluster {
    let (setting, counted) = (cluster.clone(), cluster.clone());
    ApiCluster {
        table: cluster.table().clone(),
        cluster: config.cluster.cluster.clone(),
        name: config.cluster.master_name(),
        set_state: Box::new(move |name, state| setting.set_state(name, state)),
        figures: Box::new(move || counted.figures()),
    }
}

/// Has the master take its shards, and waits until it serves those that are to be had.
///
/// # Blocks
/// Until then, or for [`SETTLE_TIMEOUT`].
pub(super) fn begin(cluster: &Cluster, tenants: Arc<dyn ShardTenants>) {
    cluster.start(tenants);
    if !cluster.wait_until_settled(Instant::now() + SETTLE_TIMEOUT) {
        log::warn!("the database has not given this master its tenants yet; it goes on asking");
    }
}
