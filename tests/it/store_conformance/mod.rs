//! What every database must do, whatever store it is over and whatever door it is reached through.
//! Each case runs once for each of them, on a new database.

use mesophyll::base::error::DbError;
use mesophyll::store::{DbOptions, Quota};
use mesophyll::wire::data::{EncodedValue, KvRecord, Scopes, TenantId};

use crate::support::db::{TestDb, Typed, text};

/// Makes a test of each case for each database.
macro_rules! every_database {
    ($($case:ident),* $(,)?) => {
        every_database!(@ memory_direct, Kept::InMemory, Direct, $($case),*);
        every_database!(@ memory_over_http, Kept::InMemory, Http, $($case),*);
        every_database!(@ memory_over_http_unchecked, Kept::InMemory, Unchecked, $($case),*);
        every_database!(@ redb_direct, Kept::InRedb, Direct, $($case),*);
        every_database!(@ redb_over_http, Kept::InRedb, Http, $($case),*);
        every_database!(@ redb_over_http_unchecked, Kept::InRedb, Unchecked, $($case),*);
        #[cfg(feature = "postgres")]
        every_database!(@ postgres_in_c_direct, Kept::Postgres(Locale::C), Direct,
            $($case),*);
        #[cfg(feature = "postgres")]
        every_database!(@ postgres_in_utf8_direct, Kept::Postgres(Locale::Utf8), Direct,
            $($case),*);
        #[cfg(feature = "postgres")]
        every_database!(@ postgres_in_c_over_http, Kept::Postgres(Locale::C), Http,
            $($case),*);
        #[cfg(feature = "postgres")]
        every_database!(@ postgres_in_utf8_over_http, Kept::Postgres(Locale::Utf8), Http,
            $($case),*);
        #[cfg(feature = "postgres")]
        every_database!(@ postgres_over_http_unchecked, Kept::Postgres(Locale::Utf8), Unchecked,
            $($case),*);
        /// One test for all: they share a server of their own.
        #[cfg(feature = "postgres-tls")]
        #[test]
        fn every_case_over_postgres_with_tls() {
            use $crate::support::db::{Door, Kept};
            let test = concat!(module_path!(), "::every_case_over_postgres_with_tls");
            let Some(_server) = $crate::support::own_postgres::Cluster::shared_secure(test) else {
                return;
            };
            $($case(Kept::PostgresOverTls, Door::Direct);)*
        }
    };
    (@ $name:ident, $kept:expr, $door:ident, $($case:ident),*) => {
        mod $name {
            use $crate::support::db::{Door, Kept};
            #[cfg(feature = "postgres")]
            #[allow(unused_imports)]
            use $crate::support::postgres::Locale;

            $(#[test]
            fn $case() {
                if $kept.is_there(concat!(module_path!(), "::", stringify!($case))) {
                    super::$case($kept, Door::$door);
                }
            })*
        }
    };
}

mod backup;
mod global_kv;
mod limits;
mod records;
mod states;
mod timers;

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
        self.find(pattern, of)
            .expect("found")
            .into_iter()
            .map(|record| (record.key, record.scopes))
            .collect()
    }
}
