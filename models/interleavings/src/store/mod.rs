//! The product's `store/`, as far as it is checked.

#[path = "../../../../src/store/lease.rs"]
pub mod lease;

use crate::base::sync::Lock;
use crate::wire::data::TenantId;

/// As the product's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Banned,
}

/// In the place of the product's: the standing of the one tenant that a model has.
#[derive(Debug)]
pub struct DbState(Lock<Standing>);

impl DbState {
    pub fn new() -> Self {
        Self(Lock::new(Standing::Good))
    }

    pub fn standing(&self, _: TenantId) -> Standing {
        *self.0.lock()
    }

    pub fn set_standing(&self, standing: Standing) {
        *self.0.lock() = standing;
    }
}
