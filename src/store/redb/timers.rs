//! Timers in the embedded store: their rows, what writes do to them, and how they are read.
//!
//! Each timer has a row by its tenant and one by when it is due, so that what is due is a range.
//! Writes run on the store's writer thread, as those of `apply.rs`, and keep to its invariant:
//! decide before changing.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::RedbFault;
use super::layout::{TIMERS, TIMERS_DUE, split_tenant, tenant_key, tenant_range, text};
use crate::store::Usage;
use crate::store::timers::{DueTimers, TimerPlace, TimerRun, check_room, timer_bytes};
use crate::wire::WireError;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{TenantId, Timer, Timestamp};
use crate::wire::pack::shape::{Decode, Encode};

/// A write to timers.
#[derive(Debug)]
pub(super) enum TimerWrite {
    Set { tenant: TenantId, timer: Timer },
    Cancel { tenant: TenantId, id: String },
    Ran(Vec<TimerRun>),
}

impl TimerWrite {
    /// About how many bytes it brings into its commit.
    pub(super) fn bytes(&self) -> usize {
        match self {
            TimerWrite::Set { timer, .. } => timer.data.as_bytes().len() + timer.name.len(),
            TimerWrite::Cancel { .. } => 0,
            TimerWrite::Ran(runs) => 64 * runs.len(),
        }
    }

    /// The tenant that asks for it; none for those that fire timers.
    pub(super) fn owner(&self) -> Option<TenantId> {
        match self {
            TimerWrite::Set { tenant, .. } | TimerWrite::Cancel { tenant, .. } => Some(*tenant),
            TimerWrite::Ran(_) => None,
        }
    }
}

/// The tables of the timers in one write transaction.
pub(super) struct TimerTables<'t> {
    timers: Table<'t, &'static [u8], &'static [u8]>,
    due: Table<'t, &'static [u8], ()>,
}

impl<'t> TimerTables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, RedbFault> {
        let (timers, due) = (transaction.open_table(TIMERS)?, transaction.open_table(TIMERS_DUE)?);
        Ok(Self { timers, due })
    }

    /// Whether that changed anything.
    pub(super) fn apply(&mut self, write: TimerWrite) -> Result<bool, RedbFault> {
        match write {
            TimerWrite::Set { tenant, timer } => self.set(tenant, &timer),
            TimerWrite::Cancel { tenant, id } => match self.get(tenant, &id)? {
                Some(timer) => self.remove(tenant, &timer).map(|()| true),
                None => Ok(false),
            },
            TimerWrite::Ran(runs) => {
                let mut changes = false;
                for run in runs {
                    changes |= self.ran(run)?;
                }
                Ok(changes)
            }
        }
    }

    fn set(&mut self, tenant: TenantId, timer: &Timer) -> Result<bool, RedbFault> {
        if self.get(tenant, &timer.id)?.is_some() {
            return Ok(false);
        }
        let mut has = Usage::default();
        let range = tenant_range(tenant, "");
        for row in self.timers.range::<&[u8]>(&range.start[..]..&range.end[..])? {
            has.records += 1;
            has.bytes += timer_bytes(&Timer::from_bytes(row?.1.value())?);
        }
        check_room(has, timer)?;
        self.put(tenant, timer)?;
        Ok(true)
    }

    /// Puts a timer in, also where its tenant has too many.
    pub(super) fn put(&mut self, tenant: TenantId, timer: &Timer) -> Result<(), RedbFault> {
        self.timers.insert(&key(tenant, &timer.id)[..], &timer.to_bytes()[..])?;
        self.due.insert(&due_key(tenant, timer.due, &timer.id)[..], ())?;
        Ok(())
    }

    fn ran(&mut self, run: TimerRun) -> Result<bool, RedbFault> {
        let timer = self.get(run.tenant, &run.id)?.filter(|timer| timer.due == run.due);
        let Some(timer) = timer else { return Ok(false) };
        self.remove(run.tenant, &timer)?;
        if let Some(next) = run.next {
            self.put(run.tenant, &Timer { due: next, ..timer })?;
        }
        Ok(true)
    }

    fn remove(&mut self, tenant: TenantId, timer: &Timer) -> Result<(), RedbFault> {
        self.timers.remove(&key(tenant, &timer.id)[..])?;
        self.due.remove(&due_key(tenant, timer.due, &timer.id)[..])?;
        Ok(())
    }

    fn get(&self, tenant: TenantId, id: &str) -> Result<Option<Timer>, RedbFault> {
        let row = self.timers.get(&key(tenant, id)[..])?;
        Ok(row.map(|row| Timer::from_bytes(row.value())).transpose()?)
    }
}

/// A tenant's timers, in the order in which they are due.
pub(super) fn of(snapshot: &ReadTransaction, tenant: TenantId) -> Result<Vec<Timer>, RedbFault> {
    let range = tenant_range(tenant, "");
    let mut timers = Vec::new();
    let table = snapshot.open_table(TIMERS)?;
    for row in table.range::<&[u8]>(&range.start[..]..&range.end[..])? {
        timers.push(Timer::from_bytes(row?.1.value())?);
    }
    timers.sort_by(|one, other| (one.due, &one.id).cmp(&(other.due, &other.id)));
    Ok(timers)
}

/// Those of some shards that are due by `until`, behind a place; see
/// [`Store::timers_due`](crate::store::Store::timers_due).
pub(super) fn due(
    snapshot: &ReadTransaction,
    of: &ShardSet,
    behind: Option<&TimerPlace>,
    until: Timestamp,
    max: usize,
) -> Result<DueTimers, RedbFault> {
    let (timers, due) = (snapshot.open_table(TIMERS)?, snapshot.open_table(TIMERS_DUE)?);
    let behind = behind.map(|(due, tenant, id)| due_key(*tenant, *due, id));
    let start = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = DueTimers::default();
    for row in due.range::<&[u8]>((start, Bound::Unbounded))? {
        let row = row?;
        let (time, tenant, id) = parse_due_key(row.0.value())?;
        if !of.contains(Shard::of(tenant)) {
            continue;
        }
        if time > until {
            found.next = Some(time);
            break;
        }
        if found.timers.len() == max {
            break;
        }
        if let Some(timer) = timers.get(&key(tenant, id)[..])? {
            found.timers.push((tenant, Timer::from_bytes(timer.value())?));
        }
    }
    Ok(found)
}

/// How many there are of some shards.
pub(super) fn count(snapshot: &ReadTransaction, of: &ShardSet) -> Result<u64, RedbFault> {
    let timers = snapshot.open_table(TIMERS)?;
    if *of == ShardSet::full() {
        return Ok(timers.len()?);
    }
    let mut count = 0;
    for row in timers.range::<&[u8]>(..)? {
        count += u64::from(of.contains(Shard::of(split_tenant(row?.0.value())?.0)));
    }
    Ok(count)
}

fn key(tenant: TenantId, id: &str) -> Vec<u8> {
    [&tenant_key(tenant)[..], id.as_bytes()].concat()
}

/// The row of a timer among those that are due.
pub(super) fn due_key(tenant: TenantId, due: Timestamp, id: &str) -> Vec<u8> {
    // So that times before 1970 come first.
    let due = due.unix_micros().wrapping_sub(i64::MIN).to_be_bytes();
    [&due[..], &tenant_key(tenant), id.as_bytes()].concat()
}

fn parse_due_key(row: &[u8]) -> Result<(Timestamp, TenantId, &str), WireError> {
    let (due, rest) = row.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
    let due = Timestamp::from_unix_micros(i64::from_be_bytes(*due).wrapping_add(i64::MIN))
        .map_err(|_| WireError::Invalid("a timer without its time"))?;
    let (tenant, id) = split_tenant(rest)?;
    Ok((due, tenant, text(id)?))
}
