//! What every database must do, whatever store it is over and whatever door it is reached through. Each case runs once
//! for each of them, on a new database.

use mesophyll::error::DbError;
use mesophyll::model::{EncodedValue, KvRecord, Scopes, TenantId};
use mesophyll::store::{DbOptions, Quota};

use crate::support::db::{TestDb, text};

/// Makes a test of each case for each database.
macro_rules! every_database {
    ($($case:ident),* $(,)?) => {
        every_database!(@ memory_direct, InMemory, Direct, $($case),*);
        every_database!(@ memory_over_http, InMemory, Http, $($case),*);
        every_database!(@ memory_over_http_unchecked, InMemory, Unchecked, $($case),*);
        every_database!(@ redb_direct, InRedb, Direct, $($case),*);
        every_database!(@ redb_over_http, InRedb, Http, $($case),*);
        every_database!(@ redb_over_http_unchecked, InRedb, Unchecked, $($case),*);
    };
    (@ $name:ident, $kept:ident, $door:ident, $($case:ident),*) => {
        mod $name {
            $(#[test]
            fn $case() {
                super::$case($crate::support::db::Kept::$kept, $crate::support::db::Door::$door);
            })*
        }
    };
}

mod limits;
mod records;
mod shop;
mod states;

const TENANT: TenantId = TenantId::Guild(175_928_847_299_117_063);
/// The same snowflake, another tenant.
const OTHER: TenantId = TenantId::User(175_928_847_299_117_063);

fn quota(quota: Quota) -> DbOptions {
    DbOptions { quota, ..DbOptions::default() }
}

fn scopes(scopes: &[&str]) -> Scopes {
    Scopes::new(scopes.iter().copied())
}

impl TestDb {
    fn set(&self, key: &str, of: &[&str], value: EncodedValue) -> Result<(), DbError> {
        self.tenants.kv_set(TENANT, scopes(of), key.to_owned(), value)
    }

    fn put(&self, key: &str, of: &[&str], value: &str) {
        self.set(key, of, text(value)).expect("set");
    }

    fn get(&self, key: &str, of: &[&str]) -> Option<KvRecord> {
        self.tenants.kv_get(TENANT, scopes(of), key.to_owned()).expect("got")
    }

    fn value(&self, key: &str, of: &[&str]) -> Option<EncodedValue> {
        self.get(key, of).map(|record| record.value)
    }

    fn delete(&self, key: &str, of: &[&str]) {
        self.tenants.kv_delete(TENANT, scopes(of), key.to_owned()).expect("deleted");
    }

    fn find(&self, pattern: &str, of: &[&str]) -> Result<Vec<KvRecord>, DbError> {
        self.tenants.kv_find(TENANT, scopes(of), pattern.to_owned())
    }

    fn found(&self, pattern: &str, of: &[&str]) -> Vec<(String, Vec<String>)> {
        self.find(pattern, of).expect("found").into_iter().map(|record| (record.key, record.scopes)).collect()
    }
}
