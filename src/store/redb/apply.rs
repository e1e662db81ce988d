//! What each write does to the tables: the one place that changes them, quota counters and scope
//! counts included.
//!
//! Invariant: an operation decides before it changes anything, so a refused one leaves its batch's
//! transaction as it was. Runs on the store's writer thread.

use redb::{ReadableTable, Table, WriteTransaction};

use super::RedbFault;
use super::global_kv::{GlobalOp, GlobalTables};
use super::layout::{
    KV, RecordRow, SCOPES, STATES, USAGE, kv_key, scope_key, state_from_bytes, state_to_bytes,
    tenant_key,
};
use super::timers::{TimerTables, TimerWrite};
use crate::store::backup::Exported;
use crate::store::shop::ShopChange;
use crate::store::{
    KvSet, Quota, Revision, Standing, StoredState, Usage, UsageGrowth, charge, touched,
};
use crate::wire::data::{KvRecord, Scopes, TenantId, TenantState, Timestamp};

/// A write that a caller waits for.
#[derive(Debug)]
pub(super) enum RedbWrite {
    SetState { tenant: TenantId, state: TenantState },
    SetStanding { tenant: TenantId, standing: Standing },
    KvSet { tenant: TenantId, set: KvSet },
    KvDelete { tenant: TenantId, key: String, scopes: Scopes },
    Global(GlobalOp),
    Timer(TimerWrite),
}

impl RedbWrite {
    /// About how many bytes it brings into its commit, and holds while it waits.
    pub(super) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        OVERHEAD
            + match self {
                RedbWrite::SetState { state, .. } => {
                    state.data.as_bytes().len()
                        + state.events.iter().map(|name| name.len() + 32).sum::<usize>()
                }
                RedbWrite::KvSet { set, .. } => set.value.as_bytes().len() + set.key.len(),
                RedbWrite::KvDelete { key, .. } => key.len(),
                RedbWrite::SetStanding { .. } => 0,
                RedbWrite::Global(op) => op.bytes(),
                RedbWrite::Timer(write) => write.bytes(),
            }
    }

    /// In whose share of the queue it waits. Writes of staff count for no tenant: a tenant that
    /// fills its share is still to be banned.
    pub(super) fn owner(&self) -> Option<TenantId> {
        match self {
            RedbWrite::SetState { tenant, .. } => Some(*tenant),
            RedbWrite::KvSet { tenant, .. } | RedbWrite::KvDelete { tenant, .. } => Some(*tenant),
            RedbWrite::SetStanding { .. } => None,
            RedbWrite::Global(op) => op.owner(),
            RedbWrite::Timer(write) => write.owner(),
        }
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteDone {
    /// There was nothing to do.
    Nothing,
    /// The change is in the transaction; of the transaction's states it is the one with this
    /// revision. How the tenant's usage grew, if it did by a set.
    Changed(Revision, Option<UsageGrowth>),
}

impl WriteDone {
    /// The change's place among all; that of what changed nothing is before all.
    pub(super) fn revision(self) -> Revision {
        match self {
            WriteDone::Nothing => Revision::default(),
            WriteDone::Changed(revision, _) => revision,
        }
    }
}

/// The tables of one write transaction.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    states: Table<'t, &'static [u8], &'static [u8]>,
    kv: Table<'t, &'static [u8], &'static [u8]>,
    scopes: Table<'t, &'static [u8], u64>,
    usage: Table<'t, &'static [u8], (u64, u64)>,
    /// Opened when an operation needs them: most transactions do not.
    global: Option<GlobalTables<'t>>,
    timers: Option<TimerTables<'t>>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, RedbFault> {
        Ok(Self {
            transaction,
            states: transaction.open_table(STATES)?,
            kv: transaction.open_table(KV)?,
            scopes: transaction.open_table(SCOPES)?,
            usage: transaction.open_table(USAGE)?,
            global: None,
            timers: None,
        })
    }

    /// Carries one operation out; `revision` is its place among all.
    pub(super) fn apply(
        &mut self,
        op: RedbWrite,
        revision: Revision,
    ) -> Result<WriteDone, RedbFault> {
        let mut growth = None;
        match op {
            RedbWrite::SetState { tenant, state } => {
                self.change_state(tenant, |stored| stored.state = Some(state))?;
            }
            RedbWrite::SetStanding { tenant, standing } => {
                self.change_state(tenant, |stored| stored.standing = standing)?;
            }
            RedbWrite::KvSet { tenant, set } => growth = self.kv_set(tenant, &set)?,
            RedbWrite::KvDelete { tenant, key, scopes } => {
                if !self.kv_delete(tenant, &key, &scopes)? {
                    return Ok(WriteDone::Nothing);
                }
            }
            RedbWrite::Global(op) => self.global()?.apply(op)?,
            RedbWrite::Timer(write) => {
                if !self.timers()?.apply(write)? {
                    return Ok(WriteDone::Nothing);
                }
            }
        }
        Ok(WriteDone::Changed(revision, growth))
    }

    /// Puts something of a backup in. A database of another program may hold two records with one
    /// set of scopes, in different orders: the newer stays.
    pub(super) fn restore(&mut self, one: Exported) -> Result<(), RedbFault> {
        match one {
            Exported::State { tenant, stored } => {
                self.states.insert(&tenant_key(tenant)[..], &state_to_bytes(&stored)[..])?;
                Ok(())
            }
            Exported::Record { tenant, record } => self.restore_record(tenant, &record),
            Exported::Entry(entry) => self.global()?.create(&entry, Quota::UNLIMITED),
            Exported::Purchase { tenant, at, when } => {
                self.global()?.restore_purchase(tenant, &at, when)
            }
            Exported::Timer { tenant, timer } => self.timers()?.put(tenant, &timer),
        }
    }

    fn restore_record(&mut self, tenant: TenantId, from: &KvRecord) -> Result<(), RedbFault> {
        let scopes = Scopes::new(from.scopes.iter());
        let old = self.old_record(&kv_key(tenant, &from.key, &scopes))?;
        let last_updated_at = from.last_updated_at.or(from.created_at).unwrap_or(Timestamp::EPOCH);
        if old.as_ref().is_some_and(|old| old.last_updated_at >= last_updated_at) {
            return Ok(());
        }
        let record = RecordRow {
            id: &from.id,
            created_at: from.created_at.unwrap_or(last_updated_at),
            last_updated_at,
            value: from.value.as_bytes(),
        };
        self.put_record(tenant, (&from.key, &scopes), record, old.as_ref(), Quota::UNLIMITED)?;
        Ok(())
    }

    /// What was changed of the shop's entries, in order.
    pub(super) fn take_notes(&mut self) -> Vec<ShopChange> {
        self.global.as_mut().map(|global| std::mem::take(&mut global.notes)).unwrap_or_default()
    }

    fn global(&mut self) -> Result<&mut GlobalTables<'t>, RedbFault> {
        let tables = match self.global.take() {
            Some(tables) => tables,
            None => GlobalTables::open(self.transaction)?,
        };
        Ok(self.global.insert(tables))
    }

    fn timers(&mut self) -> Result<&mut TimerTables<'t>, RedbFault> {
        let tables = match self.timers.take() {
            Some(tables) => tables,
            None => TimerTables::open(self.transaction)?,
        };
        Ok(self.timers.insert(tables))
    }

    fn change_state(
        &mut self,
        tenant: TenantId,
        change: impl FnOnce(&mut StoredState),
    ) -> Result<(), RedbFault> {
        let row = tenant_key(tenant);
        let old =
            self.states.get(&row[..])?.map(|old| state_from_bytes(old.value())).transpose()?;
        let mut stored = old.unwrap_or_default();
        change(&mut stored);
        self.states.insert(&row[..], &state_to_bytes(&stored)[..])?;
        Ok(())
    }

    fn kv_set(&mut self, tenant: TenantId, set: &KvSet) -> Result<Option<UsageGrowth>, RedbFault> {
        let old = self.old_record(&kv_key(tenant, &set.key, &set.scopes))?;
        let record = RecordRow {
            id: old.as_ref().map_or(&set.fresh_id, |old| &old.id),
            created_at: old.as_ref().map_or(set.now, |old| old.created_at),
            last_updated_at: touched(old.as_ref().map(|old| old.last_updated_at), set.now),
            value: set.value.as_bytes(),
        };
        self.put_record(tenant, (&set.key, &set.scopes), record, old.as_ref(), set.quota)
    }

    /// Writes a record in the place of `old`, with all that is counted of it; answers how the usage
    /// grew.
    fn put_record(
        &mut self,
        tenant: TenantId,
        (key, scopes): (&str, &Scopes),
        record: RecordRow<'_>,
        old: Option<&Old>,
        quota: Quota,
    ) -> Result<Option<UsageGrowth>, RedbFault> {
        let row = kv_key(tenant, key, scopes);
        let old_charge = old.map(|old| charge(key, scopes, old.value_bytes));
        let before = usage_in(&self.usage, &tenant_key(tenant))?;
        let new_charge = charge(key, scopes, record.value.len());
        let usage = before.after_set(old_charge, new_charge, quota)?;
        self.kv.insert(&row[..], &record.to_bytes()[..])?;
        if usage != before {
            set_usage(&mut self.usage, &tenant_key(tenant), usage)?;
        }
        if old.is_none() {
            for scope in scopes.as_slice() {
                let row = scope_key(tenant, scope);
                let count = self.scopes.get(&row[..])?.map_or(0, |count| count.value());
                self.scopes.insert(&row[..], count + 1)?;
            }
        }
        Ok(UsageGrowth::of(before, usage))
    }

    /// Deletes a record; false if there was none.
    fn kv_delete(
        &mut self,
        tenant: TenantId,
        key: &str,
        scopes: &Scopes,
    ) -> Result<bool, RedbFault> {
        let row = kv_key(tenant, key, scopes);
        let Some(old) = self.old_record(&row)? else { return Ok(false) };
        self.kv.remove(&row[..])?;
        let usage = usage_in(&self.usage, &tenant_key(tenant))?;
        let usage = usage.after_delete(charge(key, scopes, old.value_bytes));
        set_usage(&mut self.usage, &tenant_key(tenant), usage)?;
        for scope in scopes.as_slice() {
            let row = scope_key(tenant, scope);
            let count = self.scopes.get(&row[..])?.map_or(0, |count| count.value());
            if count > 1 {
                self.scopes.insert(&row[..], count - 1)?;
            } else {
                self.scopes.remove(&row[..])?;
            }
        }
        Ok(true)
    }

    fn old_record(&self, row: &[u8]) -> Result<Option<Old>, RedbFault> {
        let Some(bytes) = self.kv.get(row)? else { return Ok(None) };
        let record = RecordRow::from_bytes(bytes.value())?;
        Ok(Some(Old {
            id: record.id.to_owned(),
            created_at: record.created_at,
            last_updated_at: record.last_updated_at,
            value_bytes: record.value.len(),
        }))
    }
}

/// What an owner uses, by a table of them.
pub(super) fn usage_in(
    table: &impl ReadableTable<&'static [u8], (u64, u64)>,
    owner: &[u8],
) -> Result<Usage, RedbFault> {
    let row = table.get(owner)?;
    let (records, bytes) = row.map(|usage| usage.value()).unwrap_or_default();
    Ok(Usage { records, bytes })
}

/// Keeps what an owner uses; of one that has nothing, nothing is kept.
pub(super) fn set_usage(
    table: &mut Table<'_, &'static [u8], (u64, u64)>,
    owner: &[u8],
    usage: Usage,
) -> Result<(), RedbFault> {
    if usage.records == 0 {
        table.remove(owner)?;
    } else {
        table.insert(owner, (usage.records, usage.bytes))?;
    }
    Ok(())
}

/// What is kept of the record that a write replaces.
struct Old {
    id: String,
    created_at: Timestamp,
    last_updated_at: Timestamp,
    value_bytes: usize,
}
