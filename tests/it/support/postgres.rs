//! PostgreSQL for tests: databases of their own on the server that `MESOPHYLL_TEST_POSTGRES_URL`
//! names, gone with the tests.
//!
//! Making a database takes its time, so tests that run at once share one for each locale; each has
//! a schema of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use mesophyll::base::random;
use mesophyll::store::{self, StoreUrl};
use postgres::{Client, NoTls};

#[cfg(feature = "postgres-tls")]
use super::own_postgres::Cluster;
use super::skip::skipped;

const VARIABLE: &str = "MESOPHYLL_TEST_POSTGRES_URL";

/// How a database sorts and folds text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locale {
    /// By bytes; knows no letters but ASCII.
    C,
    /// By the rules of a language, all letters.
    Utf8,
}

/// A database, dropped with the last schema in it.
struct Database {
    server: String,
    name: String,
    /// The server, if it is the test's own and speaks TLS only.
    #[cfg(feature = "postgres-tls")]
    _own: Option<Arc<Cluster>>,
}

/// A schema of a test's own.
pub(crate) struct Schema {
    url: String,
    _database: Arc<Database>,
    _place: Place,
}

/// Limit: schemas at once. A test opens up to 17 connections (two stores, its own), and a server
/// takes a hundred unless somebody has told it otherwise, however many tests run at once.
const SCHEMAS_MAX: usize = 4;

/// One of so many schemas that there may be at once.
struct Place;

static SCHEMAS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Place {
    /// Waits until there is one. The tests that have them end without another; the only one that
    /// has two needs no more than that.
    fn take() -> Self {
        let (count, freed) = &SCHEMAS;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = freed
            .wait_while(count, |count| *count >= SCHEMAS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (count, freed) = &SCHEMAS;
        *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}

static DATABASES: [Mutex<Weak<Database>>; 2] = [Mutex::new(Weak::new()), Mutex::new(Weak::new())];

/// Whether there is a server; if not, the test is skipped, and that is said.
pub(crate) fn is_there(test: &str) -> bool {
    let is_there = std::env::var_os(VARIABLE).is_some();
    if !is_there {
        skipped(
            test,
            &format!(
                "it needs a PostgreSQL server: set {VARIABLE}, for example to postgres://postgres@127.0.0.1"
            ),
        );
    }
    is_there
}

/// Does something on a connection.
pub(crate) fn on(url: &str, sql: &str) {
    Client::connect(url, NoTls).expect("a connection").batch_execute(sql).expect("valid SQL");
}

impl Database {
    fn new(locale: Locale) -> Self {
        let server = std::env::var(VARIABLE).expect("the test looked before");
        let name = format!("mesophyll_test_{:016x}", random::u64());
        let rules = match locale {
            Locale::C => "LC_COLLATE 'C' LC_CTYPE 'C'",
            // Known to every PostgreSQL that is built with ICU, as those of all distributions are.
            Locale::Utf8 => "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LC_COLLATE 'C' LC_CTYPE 'C'",
        };
        on(&server, &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {rules}"));
        Self {
            server,
            name,
            #[cfg(feature = "postgres-tls")]
            _own: None,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        on(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

impl Schema {
    /// An empty schema.
    pub(crate) fn empty(locale: Locale) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let place = Place::take();
        let database = {
            let mut shared =
                DATABASES[locale as usize].lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let database = Arc::new(Database::new(locale));
                *shared = Arc::downgrade(&database);
                database
            })
        };
        let schema = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = url_of(&database.server, &database.name, &schema);
        on(&url, &format!("CREATE SCHEMA {schema}"));
        Self { url, _database: database, _place: place }
    }

    /// A schema with our tables in it, and no other in its database: the locks are the test's own.
    pub(crate) fn alone() -> Self {
        let (place, database) = (Place::take(), Arc::new(Database::new(Locale::C)));
        let url = url_of(&database.server, &database.name, "public");
        let schema = Self { url, _database: database, _place: place };
        store::migrate(&schema.store_url()).expect("migrated");
        schema
    }

    /// A schema with our tables in it.
    pub(crate) fn migrated(locale: Locale) -> Self {
        let schema = Self::empty(locale);
        store::migrate(&schema.store_url()).expect("migrated");
        schema
    }

    /// A database with our tables in it, on a server that is reached over TLS.
    #[cfg(feature = "postgres-tls")]
    pub(crate) fn over_tls() -> Self {
        let place = Place::take();
        let server = Cluster::shared_secure("over_tls").expect("the test looked before");
        let name = format!("mesophyll_test_{:016x}", random::u64());
        on(&server.local_url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE template0"));
        let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/authority.pem");
        let port = server.port();
        let url = format!(
            "postgres://postgres@localhost:{port}/{name}?sslmode=verify-full&sslrootcert={ca}"
        );
        let database = Database { server: server.local_url("postgres"), name, _own: Some(server) };
        let schema = Self { url, _database: Arc::new(database), _place: place };
        store::migrate(&schema.store_url()).expect("migrated");
        schema
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn store_url(&self) -> StoreUrl {
        StoreUrl::Postgres(self.url.clone())
    }
}

/// The server's URL with another database, and a schema in it.
pub(crate) fn url_of(server: &str, database: &str, schema: &str) -> String {
    let (scheme, rest) = server.split_once("://").expect("a URL");
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    format!("{scheme}://{authority}/{database}?options=-csearch_path%3D{schema}")
}
