//! The versions of tenants' own templates that were replaced: the last of them are kept as records
//! of their tenants, which no quota counts.
//!
//! The version that is about to be replaced is written before the new one. So what a crash in
//! between leaves behind is a version that is there twice, and is not written a second time.

use std::collections::HashSet;

use super::measured::Measured;
use super::rules::check_pattern;
use super::{FindLimits, KvSet, Operation, Quota};
use crate::base::error::DbError;
use crate::base::limits::TEMPLATE_VERSIONS_KEPT;
use crate::base::random;
use crate::base::sync::Lock;
use crate::wire::data::{
    EncodedValue, KvRecord, Scopes, TEMPLATE_HISTORY_SCOPE, TEMPLATE_KEY, TEMPLATE_SCOPE, TenantId,
    Timestamp,
};

/// Keeps versions, and lets no two writers of one tenant's template do so at once.
#[derive(Debug, Default)]
pub(super) struct TemplateHistory {
    /// Tenants whose template is being replaced. Limit: one a caller of [`super::DbState`].
    busy: Lock<HashSet<TenantId>>,
}

/// A tenant's template, while it is being replaced.
pub(super) struct Replacing<'a> {
    history: &'a TemplateHistory,
    tenant: TenantId,
}

impl Drop for Replacing<'_> {
    fn drop(&mut self) {
        self.history.busy.lock().remove(&self.tenant);
    }
}

impl TemplateHistory {
    /// Keeps the template that a tenant has, unless it is `new` itself. What is returned is to be
    /// held until the new one is written.
    ///
    /// # Blocks
    /// As three operations on a [`super::Store`].
    ///
    /// # Errors
    /// `Busy`: the tenant's template is being replaced. Else see [`super::Store`]; the template is
    /// as it was, for each of them.
    pub(super) fn keep(
        &self,
        store: &Measured,
        tenant: TenantId,
        new: Option<&EncodedValue>,
        now: Timestamp,
    ) -> Result<Replacing<'_>, DbError> {
        if !self.busy.lock().insert(tenant) {
            return Err(DbError::Busy("this template is being replaced, try again".to_owned()));
        }
        let replacing = Replacing { history: self, tenant };
        let scopes = Scopes::new([TEMPLATE_SCOPE]);
        let get = |store: &dyn super::Store| store.kv_get(tenant, TEMPLATE_KEY, &scopes);
        if let Some(old) = store.ask(Operation::KvGet, get)?
            && Some(&old.value) != new
        {
            keep_version(store, tenant, old.value, now).map_err(|error| match error {
                // Of the template itself nothing was written.
                DbError::OutcomeUnknown(why) => DbError::Unavailable(why),
                error => error,
            })?;
        }
        Ok(replacing)
    }
}

/// Writes a version, and deletes those that are too many with it.
fn keep_version(
    store: &Measured,
    tenant: TenantId,
    value: EncodedValue,
    now: Timestamp,
) -> Result<(), DbError> {
    let (scopes, all) = (Scopes::new([TEMPLATE_HISTORY_SCOPE]), check_pattern("%")?);
    let find =
        |store: &dyn super::Store| store.kv_find(tenant, &scopes, &all, FindLimits::default());
    let mut kept = store.ask(Operation::KvFind, find)?;
    // In the order of their numbers; staff may have written other records there.
    kept.retain(|record| number(record).is_some() && record.scopes == scopes.as_slice());
    kept.sort_by_key(number);
    let last = kept.last();
    if last.is_none_or(|last| last.value != value) {
        let set = KvSet {
            key: key(last.and_then(number).map_or(1, |last| last.saturating_add(1))),
            scopes: scopes.clone(),
            value,
            fresh_id: format!("{:016x}{:016x}", random::u64(), random::u64()),
            now,
            quota: Quota::UNLIMITED,
        };
        store.ask(Operation::KvSet, |store| store.kv_set(tenant, set))?;
        let too_many = (kept.len() + 1).saturating_sub(TEMPLATE_VERSIONS_KEPT);
        for KvRecord { key, .. } in kept.into_iter().take(too_many) {
            let scopes = scopes.clone();
            store.ask(Operation::KvDelete, |store| store.kv_delete(tenant, key, scopes))?;
        }
    }
    Ok(())
}

/// The key of a version, so that keys stand in the order of the versions.
fn key(number: u32) -> String {
    format!("{number:08}")
}

fn number(record: &KvRecord) -> Option<u32> {
    record.key.parse().ok().filter(|number| key(*number) == record.key)
}
