//! The store that is gone at exit: `memory:`, and the oracle that the others are tested against.
//!
//! Deliberately plain: maps behind one lock, every Find a walk over all of a tenant's records,
//! nothing that is clever enough to be wrong. Owned by its opener; called from any thread;
//! never blocks but for the lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::backup::{Export, Exported};
use super::global::{
    GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter, change, check_owner, exists, is_seen,
    not_found,
};
use super::pattern::Pattern;
use super::shop::{ShopChange, ShopLook, ShopNotes};
use super::timers::{DueTimers, TimerPlace, TimerRun, check_room, timer_bytes};
use super::{
    FindLimits, KvSet, Quota, Revision, Standing, Store, StoredState, Usage, UsageGrowth, charge,
    touched,
};
use crate::base::error::DbError;
use crate::base::sync::SharedLock;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{
    EncodedValue, KvRecord, PartialGlobalKv, Scopes, TenantId, TenantState, Timer, Timestamp,
};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    contents: SharedLock<Contents>,
}

#[derive(Default)]
struct Contents {
    closed: bool,
    revision: Revision,
    states: HashMap<TenantId, StoredState>,
    records: HashMap<TenantId, Records>,
    entries: BTreeMap<GlobalAddress, GlobalEntry>,
    purchases: HashMap<(TenantId, GlobalAddress), Timestamp>,
    notes: ShopNotes,
    timers: BTreeMap<TenantId, BTreeMap<String, Timer>>,
}

#[derive(Default)]
struct Records {
    by_key: BTreeMap<String, BTreeMap<Scopes, StoredRecord>>,
    usage: Usage,
}

#[derive(Clone)]
struct StoredRecord {
    id: String,
    value: EncodedValue,
    created_at: Timestamp,
    last_updated_at: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, Contents>, DbError> {
        let contents = self.contents.read();
        if contents.closed { Err(closed()) } else { Ok(contents) }
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Contents>, DbError> {
        let contents = self.contents.write();
        if contents.closed { Err(closed()) } else { Ok(contents) }
    }
}

fn closed() -> DbError {
    DbError::Unavailable("the store is closed".to_owned())
}

impl StoredRecord {
    fn answer(&self, key: &str, scopes: &Scopes) -> KvRecord {
        KvRecord {
            id: self.id.clone(),
            key: key.to_owned(),
            value: self.value.clone(),
            scopes: scopes.as_slice().to_vec(),
            created_at: Some(self.created_at),
            last_updated_at: Some(self.last_updated_at),
        }
    }
}

impl Store for MemoryStore {
    fn tenant_states(&self, of: &ShardSet) -> Result<Vec<(TenantId, StoredState)>, DbError> {
        let contents = self.read()?;
        let wanted = contents.states.iter().filter(|(tenant, _)| of.contains(Shard::of(**tenant)));
        Ok(wanted.map(|(tenant, state)| (*tenant, state.clone())).collect())
    }

    fn tenant_state(&self, tenant: TenantId) -> Result<Option<StoredState>, DbError> {
        Ok(self.read()?.states.get(&tenant).cloned())
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<Revision, DbError> {
        let mut contents = self.write()?;
        contents.states.entry(tenant).or_default().state = Some(state);
        contents.revision.0 += 1;
        Ok(contents.revision)
    }

    fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<Revision, DbError> {
        let mut contents = self.write()?;
        contents.states.entry(tenant).or_default().standing = standing;
        contents.revision.0 += 1;
        Ok(contents.revision)
    }

    fn kv_get(
        &self,
        tenant: TenantId,
        key: &str,
        scopes: &Scopes,
    ) -> Result<Option<KvRecord>, DbError> {
        let contents = self.read()?;
        let record =
            contents.records.get(&tenant).and_then(|records| records.by_key.get(key)?.get(scopes));
        Ok(record.map(|record| record.answer(key, scopes)))
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        let contents = self.read()?;
        let sets =
            contents.records.get(&tenant).into_iter().flat_map(|records| records.by_key.values());
        let scopes: BTreeSet<&String> =
            sets.flat_map(BTreeMap::keys).flat_map(Scopes::as_slice).collect();
        Ok(scopes.into_iter().cloned().collect())
    }

    fn kv_set(&self, tenant: TenantId, set: KvSet) -> Result<Option<UsageGrowth>, DbError> {
        let mut contents = self.write()?;
        let records = contents.records.entry(tenant).or_default();
        let old = records.by_key.get(&set.key).and_then(|sets| sets.get(&set.scopes));
        let old_charge = old.map(|old| charge(&set.key, &set.scopes, old.value.as_bytes().len()));
        let new_charge = charge(&set.key, &set.scopes, set.value.as_bytes().len());
        let usage = records.usage.after_set(old_charge, new_charge, set.quota)?;
        let record = StoredRecord {
            id: old.map_or(set.fresh_id, |old| old.id.clone()),
            value: set.value,
            created_at: old.map_or(set.now, |old| old.created_at),
            last_updated_at: touched(old.map(|old| old.last_updated_at), set.now),
        };
        let growth = UsageGrowth::of(std::mem::replace(&mut records.usage, usage), usage);
        records.by_key.entry(set.key).or_default().insert(set.scopes, record);
        Ok(growth)
    }

    fn kv_delete(&self, tenant: TenantId, key: String, scopes: Scopes) -> Result<(), DbError> {
        let mut contents = self.write()?;
        let Some(records) = contents.records.get_mut(&tenant) else { return Ok(()) };
        let Some(sets) = records.by_key.get_mut(&key) else { return Ok(()) };
        if let Some(old) = sets.remove(&scopes) {
            records.usage =
                records.usage.after_delete(charge(&key, &scopes, old.value.as_bytes().len()));
        }
        if sets.is_empty() {
            records.by_key.remove(&key);
        }
        if records.by_key.is_empty() {
            contents.records.remove(&tenant);
        }
        Ok(())
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: &Scopes,
        pattern: &Pattern,
        mut limits: FindLimits,
    ) -> Result<Vec<KvRecord>, DbError> {
        let contents = self.read()?;
        let mut found = Vec::new();
        for (key, sets) in
            contents.records.get(&tenant).into_iter().flat_map(|records| &records.by_key)
        {
            if !pattern.matches(key) {
                continue;
            }
            for (has, record) in sets.iter().filter(|(has, _)| has.contains_all(scopes)) {
                limits.take(key, has.as_slice(), record.value.as_bytes().len())?;
                found.push(record.answer(key, has));
            }
        }
        Ok(found)
    }

    fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        Ok(self.read()?.records.get(&tenant).map(|records| records.usage).unwrap_or_default())
    }

    fn are_known(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError> {
        let contents = self.read()?;
        let has_state = |tenant| contents.states.get(tenant).is_some_and(|it| it.state.is_some());
        let is_known = |tenant| contents.records.contains_key(tenant) || has_state(tenant);
        Ok(tenants.iter().map(is_known).collect())
    }

    fn global_find(
        &self,
        filter: &GlobalFilter,
        mut limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        let contents = self.read()?;
        let mut found = Vec::new();
        for entry in contents.entries.values().filter(|entry| filter.lets_through(&entry.partial)) {
            let partial = PartialGlobalKv { long: None, ..entry.partial.clone() };
            limits.take_entry(&partial)?;
            found.push(partial);
        }
        Ok(found)
    }

    fn global_get(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError> {
        Ok(self.read()?.entries.get(at).cloned())
    }

    /// What the owner has is counted anew each time.
    fn global_create(&self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError> {
        let mut contents = self.write()?;
        let at = GlobalAddress::of(&entry.partial);
        if contents.entries.contains_key(&at) {
            return Err(exists());
        }
        let of = &entry.partial;
        let owned = contents.entries.values().filter(|entry| {
            entry.partial.owner_id == of.owner_id && entry.partial.owner_type == of.owner_type
        });
        let usage = owned.fold(Usage::default(), |usage, entry| Usage {
            records: usage.records + 1,
            bytes: usage.bytes + entry.charge(),
        });
        usage.after_set(None, entry.charge(), quota)?;
        contents.notes.add([ShopChange::new(false, of, true)]);
        contents.entries.insert(at, entry);
        Ok(())
    }

    fn global_delete(&self, at: GlobalAddress, owner: Option<TenantId>) -> Result<(), DbError> {
        let mut contents = self.write()?;
        check_owner(&contents.entries.get(&at).ok_or_else(not_found)?.partial, owner)?;
        if let Some(GlobalEntry { partial, .. }) = contents.entries.remove(&at) {
            contents.notes.add([ShopChange::new(is_seen(&partial), &partial, false)]);
        }
        Ok(())
    }

    fn global_change(
        &self,
        at: GlobalAddress,
        by: GlobalChange,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let mut contents = self.write()?;
        let partial = &mut contents.entries.get_mut(&at).ok_or_else(not_found)?.partial;
        let was_seen = is_seen(partial);
        change(partial, by, now)?;
        let change = ShopChange::new(was_seen, partial, true);
        contents.notes.add([change]);
        Ok(())
    }

    fn global_purchase(
        &self,
        tenant: TenantId,
        at: GlobalAddress,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let mut contents = self.write()?;
        if !contents.entries.contains_key(&at) {
            return Err(not_found());
        }
        contents.purchases.entry((tenant, at)).or_insert(now);
        Ok(())
    }

    fn global_is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> Result<bool, DbError> {
        Ok(self.read()?.purchases.contains_key(&(tenant, at.clone())))
    }

    fn shop_changes(&self, since: Option<i64>) -> Result<ShopLook, DbError> {
        Ok(self.read()?.notes.since(since))
    }

    fn records_of_all(
        &self,
        of: &ShardSet,
        key: &str,
        scope: &str,
    ) -> Result<Vec<(TenantId, EncodedValue)>, DbError> {
        let contents = self.read()?;
        let scopes = Scopes::new([scope]);
        let records =
            contents.records.iter().filter(|(tenant, _)| of.contains(Shard::of(**tenant)));
        let value = |(tenant, records): (&TenantId, &Records)| {
            Some((*tenant, records.by_key.get(key)?.get(&scopes)?.value.clone()))
        };
        Ok(records.filter_map(value).collect())
    }

    fn timers(&self, tenant: TenantId) -> Result<Vec<Timer>, DbError> {
        let contents = self.read()?;
        let timers = contents.timers.get(&tenant).into_iter().flat_map(BTreeMap::values);
        let mut timers: Vec<Timer> = timers.cloned().collect();
        timers.sort_by(|one, other| (one.due, &one.id).cmp(&(other.due, &other.id)));
        Ok(timers)
    }

    fn timer_set(&self, tenant: TenantId, timer: Timer) -> Result<(), DbError> {
        let mut contents = self.write()?;
        let timers = contents.timers.entry(tenant).or_default();
        if timers.contains_key(&timer.id) {
            return Ok(());
        }
        let bytes = timers.values().map(timer_bytes).sum();
        check_room(Usage { records: timers.len() as u64, bytes }, &timer)?;
        timers.insert(timer.id.clone(), timer);
        Ok(())
    }

    fn timer_cancel(&self, tenant: TenantId, id: String) -> Result<bool, DbError> {
        let mut contents = self.write()?;
        Ok(contents.timers.get_mut(&tenant).and_then(|timers| timers.remove(&id)).is_some())
    }

    fn timers_due(
        &self,
        of: &ShardSet,
        behind: Option<&TimerPlace>,
        until: Timestamp,
        max: usize,
    ) -> Result<DueTimers, DbError> {
        let contents = self.read()?;
        let wanted = contents.timers.iter().filter(|(tenant, _)| of.contains(Shard::of(**tenant)));
        let all = wanted.flat_map(|(tenant, timers)| timers.values().map(|timer| (*tenant, timer)));
        let place = |tenant, timer: &Timer| (timer.due, tenant, timer.id.clone());
        let mut due = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (tenant, timer) in all {
            if timer.due > until {
                next = Some(next.map_or(timer.due, |next| next.min(timer.due)));
            } else if behind.is_none_or(|behind| place(tenant, timer) > *behind) {
                due.push((tenant, timer.clone()));
            }
        }
        due.sort_by_cached_key(|(tenant, timer)| place(*tenant, timer));
        due.truncate(max);
        Ok(DueTimers { timers: due, next })
    }

    fn timers_ran(&self, runs: Vec<TimerRun>) -> Result<(), DbError> {
        let mut contents = self.write()?;
        for TimerRun { tenant, id, due, next } in runs {
            let Some(timers) = contents.timers.get_mut(&tenant) else { continue };
            match (timers.get_mut(&id).filter(|timer| timer.due == due), next) {
                (Some(timer), Some(next)) => timer.due = next,
                (Some(_), None) => drop(timers.remove(&id)),
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn timers_count(&self, of: &ShardSet) -> Result<u64, DbError> {
        let contents = self.read()?;
        let wanted = contents.timers.iter().filter(|(tenant, _)| of.contains(Shard::of(**tenant)));
        Ok(wanted.map(|(_, timers)| timers.len() as u64).sum())
    }

    /// A copy of everything: what is in memory twice for as long as the export lasts.
    fn export(&self) -> Result<Export, DbError> {
        let contents = self.read()?;
        let states = contents.states.iter();
        let mut all: Vec<Exported> = states
            .map(|(tenant, stored)| Exported::State { tenant: *tenant, stored: stored.clone() })
            .collect();
        for (tenant, records) in &contents.records {
            for (key, sets) in &records.by_key {
                let records = sets.iter().map(|(scopes, record)| record.answer(key, scopes));
                all.extend(records.map(|record| Exported::Record { tenant: *tenant, record }));
            }
        }
        all.extend(contents.entries.values().cloned().map(Exported::Entry));
        let purchases = contents.purchases.iter();
        all.extend(purchases.map(|((tenant, at), when)| Exported::Purchase {
            tenant: *tenant,
            at: at.clone(),
            when: *when,
        }));
        for (tenant, timers) in &contents.timers {
            let timers = timers.values().cloned();
            all.extend(timers.map(|timer| Exported::Timer { tenant: *tenant, timer }));
        }
        Ok(Box::new(all.into_iter().map(Ok)))
    }

    fn close(&self) {
        *self.contents.write() = Contents { closed: true, ..Contents::default() };
    }
}
