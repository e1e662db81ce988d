//! The rows of records that were read or written last, so that one that is set again need not be
//! read first.
//!
//! What is known here may be wrong: other masters and other programs write too. A set has the
//! server compare the row's version, so all that a wrong row costs is an exchange more. A record
//! stands for the hash of its address: should two have the same one, their versions tell them
//! apart. Any thread; owned by [`super::PostgresStore`].

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use super::records::RecordAddress;
use crate::base::limits::{POSTGRES_KNOWN_ID_BYTES, POSTGRES_KNOWN_ROWS_MAX};
use crate::base::sync::Lock;
use crate::wire::data::Timestamp;

/// One version of a record's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownRow {
    pub(super) id: String,
    /// With `id`, the version: every change of a row gives it another one.
    pub(super) xmin: String,
    /// What the record takes of its tenant's quota.
    pub(super) charge: u64,
    pub(super) last_updated_at: Option<Timestamp>,
}

/// The rows.
#[derive(Default)]
pub(super) struct KnownRows {
    hasher: RandomState,
    inner: Lock<Generations>,
}

/// When the young ones are half of all that there may be, they become the old ones, and the old
/// ones go.
#[derive(Default)]
struct Generations {
    young: HashMap<u64, KnownRow>,
    old: HashMap<u64, KnownRow>,
}

impl KnownRows {
    pub(super) fn get(&self, address: &RecordAddress) -> Option<KnownRow> {
        let (hash, inner) = (self.hasher.hash_one(address), self.inner.lock());
        inner.young.get(&hash).or_else(|| inner.old.get(&hash)).cloned()
    }

    pub(super) fn put(&self, address: &RecordAddress, row: KnownRow) {
        // Other programs give ids of any length.
        if row.id.len() > POSTGRES_KNOWN_ID_BYTES {
            return;
        }
        let (hash, mut inner) = (self.hasher.hash_one(address), self.inner.lock());
        inner.young.insert(hash, row);
        if inner.young.len() >= POSTGRES_KNOWN_ROWS_MAX / 2 {
            inner.old = std::mem::take(&mut inner.young);
        }
    }

    pub(super) fn forget(&self, address: &RecordAddress) {
        let (hash, mut inner) = (self.hasher.hash_one(address), self.inner.lock());
        inner.young.remove(&hash);
        inner.old.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::{Scopes, TenantId};

    fn address(number: usize) -> RecordAddress {
        let (tenant, scopes) = (TenantId::Guild(1), Scopes::new(["s"]));
        RecordAddress { tenant, key: number.to_string(), scopes }
    }

    fn row(id: &str) -> KnownRow {
        KnownRow { id: id.to_owned(), xmin: "7".to_owned(), charge: 7, last_updated_at: None }
    }

    #[test]
    fn the_last_ones_are_known_and_no_more_than_there_may_be() {
        let rows = KnownRows::default();
        for number in 0..2 * POSTGRES_KNOWN_ROWS_MAX {
            rows.put(&address(number), row(&number.to_string()));
            let inner = rows.inner.lock();
            assert!(inner.young.len() + inner.old.len() <= POSTGRES_KNOWN_ROWS_MAX);
        }
        let last = 2 * POSTGRES_KNOWN_ROWS_MAX - 1;
        assert_eq!(rows.get(&address(last)), Some(row(&last.to_string())));
        assert_eq!(rows.get(&address(0)), None);
        rows.forget(&address(last));
        assert_eq!(rows.get(&address(last)), None);
    }

    #[test]
    fn a_long_id_is_not_kept() {
        let rows = KnownRows::default();
        rows.put(&address(0), row(&"x".repeat(POSTGRES_KNOWN_ID_BYTES + 1)));
        assert_eq!(rows.get(&address(0)), None);
    }
}
