//! Global entries in the embedded store: their rows, what writes do to them, and how they are read.
//!
//! Writes run on the store's writer thread, as those of `apply.rs`, and keep to its invariant:
//! decide before changing.

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::RedbFault;
use super::apply::{set_usage, usage_in};
use super::layout::{
    GLOBAL, GLOBAL_USAGE, PURCHASES, prefix_range, push_texts, split_tenant, tenant_key, text,
};
use crate::store::global::{
    GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter, change, check_owner, exists, is_seen,
    not_found,
};
use crate::store::pattern::index_fold;
use crate::store::shop::ShopChange;
use crate::store::{FindLimits, Quota};
use crate::wire::WireError;
use crate::wire::data::{PartialGlobalKv, TenantId, Timestamp};
use crate::wire::pack::plain;
use crate::wire::pack::reader::Reader;
use crate::wire::pack::shape::{Decode, Encode};
use crate::wire::pack::writer::Writer;

/// A write to the global entries.
#[derive(Debug)]
pub(super) enum GlobalOp {
    Create { entry: GlobalEntry, quota: Quota },
    Delete { at: GlobalAddress, owner: Option<TenantId> },
    Change { at: GlobalAddress, change: GlobalChange, now: Timestamp },
    Purchase { tenant: TenantId, at: GlobalAddress, now: Timestamp },
}

impl GlobalOp {
    /// About how many bytes it brings into its commit.
    pub(super) fn bytes(&self) -> usize {
        match self {
            GlobalOp::Create { entry, .. } => entry.bytes(),
            GlobalOp::Delete { .. } | GlobalOp::Change { .. } | GlobalOp::Purchase { .. } => 0,
        }
    }

    /// The tenant that asks for it; none for staff.
    pub(super) fn owner(&self) -> Option<TenantId> {
        match self {
            GlobalOp::Create { entry, .. } => entry.owner(),
            GlobalOp::Delete { owner, .. } => *owner,
            GlobalOp::Change { .. } | GlobalOp::Purchase { .. } => None,
        }
    }
}

/// The tables of the global entries in one write transaction.
pub(super) struct GlobalTables<'t> {
    entries: Table<'t, &'static [u8], &'static [u8]>,
    usage: Table<'t, &'static [u8], (u64, u64)>,
    purchases: Table<'t, &'static [u8], i64>,
    /// What this transaction changes.
    pub(super) notes: Vec<ShopChange>,
}

impl<'t> GlobalTables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, RedbFault> {
        Ok(Self {
            entries: transaction.open_table(GLOBAL)?,
            usage: transaction.open_table(GLOBAL_USAGE)?,
            purchases: transaction.open_table(PURCHASES)?,
            notes: Vec::new(),
        })
    }

    pub(super) fn apply(&mut self, op: GlobalOp) -> Result<(), RedbFault> {
        match op {
            GlobalOp::Create { entry, quota } => {
                self.create(&entry, quota)?;
                self.notes.push(ShopChange::new(false, &entry.partial, true));
                Ok(())
            }
            GlobalOp::Delete { at, owner } => self.delete(&at, owner),
            GlobalOp::Change { at, change, now } => self.change(&at, change, now),
            GlobalOp::Purchase { tenant, at, now } => self.purchase(tenant, &at, now),
        }
    }

    pub(super) fn create(&mut self, entry: &GlobalEntry, quota: Quota) -> Result<(), RedbFault> {
        let row = entry_row(&GlobalAddress::of(&entry.partial));
        if self.entries.get(&row[..])?.is_some() {
            return Err(exists().into());
        }
        let owner = owner_row(&entry.partial);
        let usage = usage_in(&self.usage, &owner)?.after_set(None, entry.charge(), quota)?;
        set_usage(&mut self.usage, &owner, usage)?;
        self.entries.insert(&row[..], &to_bytes(entry)[..])?;
        Ok(())
    }

    fn delete(&mut self, at: &GlobalAddress, owner: Option<TenantId>) -> Result<(), RedbFault> {
        let row = entry_row(at);
        let entry = self.entry(&row)?;
        check_owner(&entry.partial, owner)?;
        let owner = owner_row(&entry.partial);
        let usage = usage_in(&self.usage, &owner)?.after_delete(entry.charge());
        set_usage(&mut self.usage, &owner, usage)?;
        self.entries.remove(&row[..])?;
        self.notes.push(ShopChange::new(is_seen(&entry.partial), &entry.partial, false));
        Ok(())
    }

    fn change(
        &mut self,
        at: &GlobalAddress,
        by: GlobalChange,
        now: Timestamp,
    ) -> Result<(), RedbFault> {
        let row = entry_row(at);
        let mut entry = self.entry(&row)?;
        let was_seen = is_seen(&entry.partial);
        change(&mut entry.partial, by, now)?;
        self.entries.insert(&row[..], &to_bytes(&entry)[..])?;
        self.notes.push(ShopChange::new(was_seen, &entry.partial, true));
        Ok(())
    }

    fn purchase(
        &mut self,
        tenant: TenantId,
        at: &GlobalAddress,
        now: Timestamp,
    ) -> Result<(), RedbFault> {
        if self.entries.get(&entry_row(at)[..])?.is_none() {
            return Err(not_found().into());
        }
        let row = purchase_row(tenant, at);
        if self.purchases.get(&row[..])?.is_none() {
            self.purchases.insert(&row[..], now.unix_micros())?;
        }
        Ok(())
    }

    /// Puts a purchase of a backup in, whether its entry is still there or not.
    pub(super) fn restore_purchase(
        &mut self,
        tenant: TenantId,
        at: &GlobalAddress,
        when: Timestamp,
    ) -> Result<(), RedbFault> {
        self.purchases.insert(&purchase_row(tenant, at)[..], when.unix_micros())?;
        Ok(())
    }

    fn entry(&self, row: &[u8]) -> Result<GlobalEntry, RedbFault> {
        let bytes = self.entries.get(row)?.ok_or_else(not_found)?;
        Ok(from_bytes(bytes.value())?)
    }
}

/// The entries that a filter lets through. Without a scope a walk over all of them, which is only
/// staff's and rare.
pub(super) fn find(
    snapshot: &ReadTransaction,
    filter: &GlobalFilter,
    mut limits: FindLimits,
) -> Result<Vec<PartialGlobalKv>, RedbFault> {
    let table = snapshot.open_table(GLOBAL)?;
    let rows = match &filter.scope {
        Some(scope) => {
            let start = [scope.as_bytes(), &[0], filter.pattern.prefix().as_bytes()].concat();
            let range = prefix_range(start);
            table.range::<&[u8]>(&range.start[..]..&range.end[..])?
        }
        None => table.range::<&[u8]>(..)?,
    };
    let mut found = Vec::new();
    for row in rows {
        let (row, entry) = row?;
        // Only what matches is worth decoding.
        if filter.pattern.matches(key_of(row.value())?) {
            let entry = PartialGlobalKv::decode(&mut Reader::new(entry.value()))?;
            if filter.lets_through(&entry) {
                let entry = PartialGlobalKv { long: None, ..entry };
                limits.take_entry(&entry)?;
                found.push(entry);
            }
        }
    }
    // Rows come in the order of the index form; answers in that of the key itself.
    found.sort_by_cached_key(GlobalAddress::of);
    Ok(found)
}

/// One entry.
pub(super) fn get(
    snapshot: &ReadTransaction,
    at: &GlobalAddress,
) -> Result<Option<GlobalEntry>, RedbFault> {
    let row = snapshot.open_table(GLOBAL)?.get(&entry_row(at)[..])?;
    Ok(row.map(|row| from_bytes(row.value())).transpose()?)
}

/// Whether a tenant purchased an entry.
pub(super) fn is_purchased(
    snapshot: &ReadTransaction,
    tenant: TenantId,
    at: &GlobalAddress,
) -> Result<bool, RedbFault> {
    Ok(snapshot.open_table(PURCHASES)?.get(&purchase_row(tenant, at)[..])?.is_some())
}

fn entry_row(at: &GlobalAddress) -> Vec<u8> {
    let indexed = index_fold(&at.key);
    let exact = if indexed == at.key { "" } else { &at.key };
    let mut row = Vec::with_capacity(at.scope.len() + indexed.len() + exact.len() + 7);
    push_texts(&mut row, [&at.scope, &indexed, exact]);
    row.extend_from_slice(&version_bytes(at.version));
    row
}

fn key_of(row: &[u8]) -> Result<&str, WireError> {
    let (names, _) = row.split_last_chunk::<4>().ok_or(WireError::Truncated)?;
    let mut names = names.split(|byte| *byte == 0).skip(1);
    let (Some(indexed), Some(exact)) = (names.next(), names.next()) else {
        return Err(WireError::Truncated);
    };
    text(if exact.is_empty() { indexed } else { exact })
}

fn purchase_row(tenant: TenantId, at: &GlobalAddress) -> Vec<u8> {
    let mut row = tenant_key(tenant).to_vec();
    push_texts(&mut row, [&at.scope, &at.key]);
    row.extend_from_slice(&version_bytes(at.version));
    row
}

/// The tenant and the entry of such a row.
pub(super) fn parse_purchase_row(row: &[u8]) -> Result<(TenantId, GlobalAddress), WireError> {
    let (tenant, rest) = split_tenant(row)?;
    let (names, version) = rest.split_last_chunk::<4>().ok_or(WireError::Truncated)?;
    let mut names = names.split(|byte| *byte == 0);
    let (Some(scope), Some(key)) = (names.next(), names.next()) else {
        return Err(WireError::Truncated);
    };
    let version = i32::from_be_bytes(*version).wrapping_add(i32::MIN);
    Ok((
        tenant,
        GlobalAddress { scope: text(scope)?.to_owned(), key: text(key)?.to_owned(), version },
    ))
}

/// So that versions sort as numbers, negative ones too.
fn version_bytes(version: i32) -> [u8; 4] {
    version.wrapping_sub(i32::MIN).to_be_bytes()
}

pub(super) fn owner_row(of: &PartialGlobalKv) -> Vec<u8> {
    [of.owner_type.as_bytes(), &[0], of.owner_id.as_bytes()].concat()
}

fn to_bytes(entry: &GlobalEntry) -> Vec<u8> {
    let mut writer = Writer::with_capacity(entry.data.as_bytes().len() + 512);
    entry.partial.encode(&mut writer);
    entry.data.encode(&mut writer);
    writer.into_bytes()
}

pub(super) fn from_bytes(bytes: &[u8]) -> Result<GlobalEntry, WireError> {
    let mut reader = Reader::new(bytes);
    let partial = PartialGlobalKv::decode(&mut reader)?;
    Ok(GlobalEntry { partial, data: plain::check(reader.rest().to_vec())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(scope: &str, key: &str, version: i32) -> GlobalAddress {
        GlobalAddress { scope: scope.to_owned(), key: key.to_owned(), version }
    }

    #[test]
    fn rows_are_ordered_by_scope_key_and_version() {
        let rows = [
            at("", "abc", 1),
            at("a", "abc", i32::MIN),
            at("a", "abc", -1),
            at("a", "abc", 0),
            at("a", "abc", i32::MAX),
            at("a", "ABC", 1),
            at("a", "abc.d", 1),
            at("a", "abcd", 1),
            at("aa", "abc", 1),
        ];
        let encoded: Vec<Vec<u8>> = rows.iter().map(entry_row).collect();
        assert!(encoded.is_sorted_by(|left, right| left < right));
        for (row, at) in encoded.iter().zip(&rows) {
            assert_eq!(key_of(row), Ok(at.key.as_str()));
            let tenant = TenantId::User(7);
            assert_eq!(parse_purchase_row(&purchase_row(tenant, at)), Ok((tenant, at.clone())));
        }
    }
}
