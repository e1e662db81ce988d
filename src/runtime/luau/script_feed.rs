//! `ctx.Feed:publish`: what a tenant's scripts publish, bounded in rate.
//!
//! One a tenant, on its executor: a new VM brings no new burst.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use super::gauges::Gauges;
use crate::base::limits::{FEED_BURST, FEED_PER_SECOND};
use crate::base::throttle::Rate;
use crate::runtime::TenantDb;
use crate::wire::data::{Dropped, EncodedJson, TenantId};

/// A tenant's way to those that read its feed.
pub(super) struct ScriptFeed {
    tenant: TenantId,
    db: Arc<dyn TenantDb>,
    rate: RefCell<Rate>,
    gauges: Arc<Gauges>,
}

impl ScriptFeed {
    pub(super) fn new(tenant: TenantId, db: &Arc<dyn TenantDb>, gauges: &Arc<Gauges>) -> Self {
        let rate = RefCell::new(Rate::new(FEED_PER_SECOND, FEED_BURST));
        Self { tenant, db: db.clone(), rate, gauges: gauges.clone() }
    }

    /// Publishes, unless the tenant has published too much of late. `data` is made only then.
    ///
    /// # Errors
    /// A text for the script.
    pub(super) fn publish(
        &self,
        topic: String,
        data: impl FnOnce() -> Result<EncodedJson, String>,
    ) -> Result<(), String> {
        if !self.rate.borrow_mut().admits(Instant::now()) {
            self.gauges.dropped(Dropped::FeedEvent, 1);
            return Err(format!("a tenant publishes at most {FEED_PER_SECOND} events a second"));
        }
        self.db.publish(self.tenant, topic, data()?).map_err(|error| {
            self.gauges.dropped(Dropped::FeedEvent, 1);
            error.to_string()
        })
    }
}
