//! Everything in the embedded store, read from one snapshot, a few rows at a time.
//!
//! A snapshot makes no write wait: they go on, and only the pages that they replace stay in the
//! file until it is dropped. Runs on the thread that asks for the next row.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use redb::{ReadTransaction, TableDefinition, Value};

use super::layout::{
    GLOBAL, KV, PURCHASES, RecordRow, STATES, TIMERS, parse_kv_key, split_tenant, state_from_bytes,
};
use super::{RedbFault, RedbShared, global_kv};
use crate::base::error::DbError;
use crate::base::limits::BACKUP_READ_BYTES;
use crate::store::backup::Exported;
use crate::wire::WireError;
use crate::wire::data::{Timer, Timestamp};
use crate::wire::pack::shape::Decode;

/// The tables that hold what the others are counted from.
#[derive(Debug, Clone, Copy)]
enum Stage {
    States,
    Records,
    Entries,
    Purchases,
    Timers,
    Done,
}

/// A walk over everything.
pub(super) struct RedbExport {
    shared: Arc<RedbShared>,
    snapshot: ReadTransaction,
    stage: Stage,
    /// The last row of this stage that was read.
    last: Option<Vec<u8>>,
    ahead: VecDeque<Exported>,
}

impl RedbExport {
    pub(super) fn begin(shared: &Arc<RedbShared>) -> Result<Self, DbError> {
        let snapshot = shared.begin_read().map_err(|fault| shared.failed(fault))?;
        let shared = Arc::clone(shared);
        Ok(Self { shared, snapshot, stage: Stage::States, last: None, ahead: VecDeque::new() })
    }

    /// Reads on until there is something, or nothing is left.
    fn fill(&mut self) -> Result<(), DbError> {
        while self.ahead.is_empty() {
            let read = match self.stage {
                Stage::States => self.read(STATES, state),
                Stage::Records => self.read(KV, record),
                Stage::Entries => self.read(GLOBAL, entry),
                Stage::Purchases => self.read(PURCHASES, purchase),
                Stage::Timers => self.read(TIMERS, timer),
                Stage::Done => return Ok(()),
            };
            let is_at_the_end = read.map_err(|fault| self.shared.failed(fault))?;
            if is_at_the_end {
                self.last = None;
                self.stage = match self.stage {
                    Stage::States => Stage::Records,
                    Stage::Records => Stage::Entries,
                    Stage::Entries => Stage::Purchases,
                    Stage::Purchases => Stage::Timers,
                    Stage::Timers | Stage::Done => Stage::Done,
                };
            }
        }
        Ok(())
    }

    /// Reads some rows of a table behind the last one; true at its end.
    fn read<V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, &'static [u8], V>,
        parse: impl Fn(&[u8], V::SelfType<'_>) -> Result<Exported, WireError>,
    ) -> Result<bool, RedbFault> {
        let table = self.snapshot.open_table(table)?;
        let start = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let start = start.as_ref().map(Vec::as_slice);
        let mut bytes = 0;
        for row in table.range::<&[u8]>((start, Bound::Unbounded))? {
            let (key, value) = row?;
            self.ahead.push_back(parse(key.value(), value.value())?);
            bytes += key.value().len() + V::as_bytes(&value.value()).as_ref().len();
            if bytes >= BACKUP_READ_BYTES {
                self.last = Some(key.value().to_vec());
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Iterator for RedbExport {
    type Item = Result<Exported, DbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.stage = Stage::Done;
            return Some(Err(error));
        }
        self.ahead.pop_front().map(Ok)
    }
}

fn state(key: &[u8], value: &[u8]) -> Result<Exported, WireError> {
    let (tenant, _) = split_tenant(key)?;
    Ok(Exported::State { tenant, stored: state_from_bytes(value)? })
}

fn record(row: &[u8], value: &[u8]) -> Result<Exported, WireError> {
    let (tenant, _) = split_tenant(row)?;
    let (key, scopes) = parse_kv_key(row)?;
    let record =
        RecordRow::from_bytes(value)?.answer(key, scopes.into_iter().map(str::to_owned).collect());
    Ok(Exported::Record { tenant, record })
}

fn entry(_: &[u8], value: &[u8]) -> Result<Exported, WireError> {
    global_kv::from_bytes(value).map(Exported::Entry)
}

fn purchase(row: &[u8], micros: i64) -> Result<Exported, WireError> {
    let (tenant, at) = global_kv::parse_purchase_row(row)?;
    let when = Timestamp::from_unix_micros(micros)
        .map_err(|_| WireError::Invalid("a purchase without its time"))?;
    Ok(Exported::Purchase { tenant, at, when })
}

fn timer(row: &[u8], timer: &[u8]) -> Result<Exported, WireError> {
    let (tenant, _) = split_tenant(row)?;
    Ok(Exported::Timer { tenant, timer: Timer::from_bytes(timer)? })
}
