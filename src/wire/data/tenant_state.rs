//! What a tenant is subscribed to.

use std::collections::BTreeSet;

use serde::Serialize;

use super::EncodedJson;

/// A tenant's subscriptions and its own data. A tenant without one has the worker's default
/// subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantState {
    /// Names of the events that start the tenant's template; every other event answers null.
    pub events: BTreeSet<String>,
    /// Free data of the tenant.
    pub data: EncodedJson,
}
