//! A master's place among the masters of one database: joined (`join.rs`) before anything of it is
//! read, begun when its workers and its internal API are there, and left when nothing of its
//! tenants runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::PoolConfig;
use crate::api::ApiCluster;
use crate::cluster::{ClusterMember, ShardTenants};

/// How long a start waits for the shards that are to be had. A master beside others may be given
/// its own later; one that is alone has all of them at once.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The cluster as the internal API asks about it.
pub(super) fn of_api(config: &PoolConfig, cluster: &Arc<dyn ClusterMember>) -> ApiCluster {
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
pub(super) fn begin(cluster: &dyn ClusterMember, tenants: Arc<dyn ShardTenants>) {
    cluster.start(tenants);
    if !cluster.wait_until_settled(Instant::now() + SETTLE_TIMEOUT) {
        log::warn!("the database has not given this master its tenants yet; it goes on asking");
    }
}
