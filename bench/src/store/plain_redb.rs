//! The baseline of the embedded store: redb alone, one put for each transaction, durable, as one
//! would write it first.
//!
//! The same number of rows of the same size; no quotas, no ids, no times, no counted scopes. Once
//! with commits made as ours are (two phases and quick repair:
//! docs/decisions/0002-redb-quick-repair.md), and once as redb makes them by itself.

use std::path::Path;

use mesophyll::wire::data::KeyValueOp;
use redb::{Database, ReadableDatabase, TableDefinition};

use super::contents::{self, FINDER, FOUND, Op, Picker, RECORDS, TENANTS};
use crate::load::Caller;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("plain");

/// How a transaction is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Two phases and quick repair.
    LikeOurs,
    /// redb's default.
    OnePhase,
}

/// A file.
pub struct PlainRedb {
    database: Database,
}

/// A row's key, about as long as ours.
fn row(tenant: u64, record: u64) -> Vec<u8> {
    let mut row = vec![0];
    row.extend_from_slice(&(tenant << 22).to_be_bytes());
    row.extend_from_slice(contents::key(record).as_bytes());
    row.extend_from_slice(b"\0\0bench\0");
    row
}

impl PlainRedb {
    pub fn new(path: &Path) -> Result<Self, String> {
        Self::filled(path).map_err(|error| error.to_string())
    }

    fn filled(path: &Path) -> Result<Self, redb::Error> {
        let database = Database::builder()
            .set_cache_size(mesophyll::base::limits::STORE_CACHE_BYTES)
            .create(path)?;
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for tenant in 0..TENANTS {
                for record in 0..RECORDS {
                    table.insert(&row(tenant, record)[..], &[7; 310][..])?;
                }
            }
            for record in 0..FOUND {
                table.insert(&row(FINDER.snowflake() >> 22, record)[..], &[7; 118][..])?;
            }
        }
        transaction.commit()?;
        Ok(Self { database })
    }

    pub fn callers(
        &self,
        op: Op,
        commit: Commit,
        number: usize,
    ) -> Result<Vec<Caller<'_>>, String> {
        Ok((0..number)
            .map(|caller| {
                let mut picker = Picker::new(caller);
                Box::new(move || {
                    self.operate(op, commit, &mut picker).map_err(|error| error.to_string())
                }) as Caller<'_>
            })
            .collect())
    }

    fn operate(&self, op: Op, commit: Commit, picker: &mut Picker) -> Result<(), redb::Error> {
        let (tenant, record) = picker.pick();
        match op {
            Op::Set => {
                let (_, KeyValueOp::Set { value, .. }) = picker.operation(op) else {
                    return Ok(());
                };
                let value = [&[7; 46][..], value.as_bytes()].concat();
                let mut transaction = self.database.begin_write()?;
                transaction.set_quick_repair(commit == Commit::LikeOurs);
                transaction.open_table(TABLE)?.insert(&row(tenant, record)[..], &value[..])?;
                transaction.commit()?;
            }
            Op::Get => {
                let table = self.database.begin_read()?.open_table(TABLE)?;
                let found =
                    table.get(&row(tenant, record)[..])?.map(|value| value.value().to_vec());
                assert!(found.is_some(), "the table was filled");
            }
            Op::Find => {
                let tenant = FINDER.snowflake() >> 22;
                let table = self.database.begin_read()?.open_table(TABLE)?;
                let mut found = Vec::new();
                for row in table.range::<&[u8]>(&row(tenant, 0)[..]..&row(tenant + 1, 0)[..])? {
                    let (key, value) = row?;
                    found.push((key.value().to_vec(), value.value().to_vec()));
                }
                assert_eq!(found.len() as u64, FOUND);
            }
        }
        Ok(())
    }
}
