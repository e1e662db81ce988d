//! How a master joins the others of its store. Left out of a build without a store that masters can
//! share: there every master is alone.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::config::PoolConfig;
use super::{MasterError, MasterPlace, on_change};
use crate::cluster::member::Cluster;
use crate::store::lease::{HeldShards, Membership};
use crate::store::{self, StoreUrl};

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
) -> Result<MasterPlace, MasterError> {
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
    let on_give_up = Box::new(on_change(changes_tx));
    let drain_timeout = config.policy.drain_timeout;
    let cluster = Cluster::join(connect, membership, held.clone(), drain_timeout, on_give_up);
    match cluster {
        Ok(cluster) => Ok(Some(Arc::new(cluster))),
        Err(error) => Err(MasterError::Join(url.clone(), error)),
    }
}

/// The address that others are told: a port 0 is the one that the listener got.
fn advertised(advertise: Option<SocketAddr>, api: Option<SocketAddr>) -> Option<SocketAddr> {
    match (advertise, api) {
        (Some(told), Some(api)) if told.port() == 0 => Some(SocketAddr::new(told.ip(), api.port())),
        (told, api) => told.or(api),
    }
}
