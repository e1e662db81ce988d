//! The warning that a tenant has used most of its quota: before the first set that is refused.

use std::time::Instant;

use super::state::DbState;
use super::{QuotaPart, UsageGrowth};
use crate::base::limits::WARNED_AGAIN;
use crate::base::metrics::Counter;
use crate::base::rates::Rates;
use crate::base::throttle::Rate;
use crate::wire::data::TenantId;

/// Which tenants were warned of late, and how many were in all.
pub(super) struct QuotaWarnings {
    may_warn: Rates<(TenantId, QuotaPart)>,
    warned: Counter,
}

impl Default for QuotaWarnings {
    fn default() -> Self {
        Self { may_warn: Rates::of(Rate::one_in(WARNED_AGAIN)), warned: Counter::default() }
    }
}

impl DbState {
    /// Tells the tenant's owner, in its last errors, that most of its quota is in use now.
    pub(super) fn warn_of_quota(&self, tenant: TenantId, growth: UsageGrowth) {
        let warnings = self.quota_warnings();
        for (part, warning) in growth.warnings(self.quota()) {
            if warnings.may_warn.admits((tenant, part), Instant::now()) {
                warnings.warned.inc();
                self.tell_author(tenant, "", &warning);
            }
        }
    }

    /// How many times tenants were warned that most of their quota is in use.
    pub fn quota_warned(&self) -> u64 {
        self.quota_warnings().warned.get()
    }
}
