//! Global entries in memory, as plain as the rest of it: quotas are counted anew each time.

use std::collections::{BTreeMap, HashMap};

use crate::base::error::DbError;
use crate::store::backup::Exported;
use crate::store::global::{
    GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter, change, check_owner, exists, not_found,
};
use crate::store::{FindLimits, Quota, Usage};
use crate::wire::data::{PartialGlobalKv, TenantId, Timestamp};

/// All entries and purchases.
#[derive(Default)]
pub(super) struct GlobalEntries {
    entries: BTreeMap<GlobalAddress, GlobalEntry>,
    purchases: HashMap<(TenantId, GlobalAddress), Timestamp>,
}

impl GlobalEntries {
    pub(super) fn find(
        &self,
        filter: &GlobalFilter,
        mut limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        let mut found = Vec::new();
        for entry in self.entries.values().filter(|entry| filter.lets_through(&entry.partial)) {
            let partial = PartialGlobalKv { long: None, ..entry.partial.clone() };
            limits.take_entry(&partial)?;
            found.push(partial);
        }
        Ok(found)
    }

    pub(super) fn get(&self, at: &GlobalAddress) -> Option<GlobalEntry> {
        self.entries.get(at).cloned()
    }

    pub(super) fn create(&mut self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError> {
        let at = GlobalAddress::of(&entry.partial);
        if self.entries.contains_key(&at) {
            return Err(exists());
        }
        self.usage(&entry.partial).after_set(None, entry.charge(), quota)?;
        self.entries.insert(at, entry);
        Ok(())
    }

    /// What the owner of this entry has in all.
    fn usage(&self, of: &PartialGlobalKv) -> Usage {
        let owned = self.entries.values().filter(|entry| {
            entry.partial.owner_id == of.owner_id && entry.partial.owner_type == of.owner_type
        });
        owned.fold(Usage::default(), |usage, entry| Usage {
            records: usage.records + 1,
            bytes: usage.bytes + entry.charge(),
        })
    }

    pub(super) fn delete(
        &mut self,
        at: &GlobalAddress,
        owner: Option<TenantId>,
    ) -> Result<(), DbError> {
        check_owner(&self.entries.get(at).ok_or_else(not_found)?.partial, owner)?;
        self.entries.remove(at);
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        at: &GlobalAddress,
        by: GlobalChange,
        now: Timestamp,
    ) -> Result<(), DbError> {
        change(&mut self.entries.get_mut(at).ok_or_else(not_found)?.partial, by, now)
    }

    pub(super) fn purchase(
        &mut self,
        tenant: TenantId,
        at: GlobalAddress,
        now: Timestamp,
    ) -> Result<(), DbError> {
        if !self.entries.contains_key(&at) {
            return Err(not_found());
        }
        self.purchases.entry((tenant, at)).or_insert(now);
        Ok(())
    }

    pub(super) fn is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> bool {
        self.purchases.contains_key(&(tenant, at.clone()))
    }

    /// Adds everything to an export.
    pub(super) fn export(&self, to: &mut Vec<Exported>) {
        to.extend(self.entries.values().cloned().map(Exported::Entry));
        let purchases = self.purchases.iter();
        to.extend(purchases.map(|((tenant, at), when)| Exported::Purchase {
            tenant: *tenant,
            at: at.clone(),
            when: *when,
        }));
    }
}
