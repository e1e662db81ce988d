//! Sets of records in PostgreSQL: another writer comes between their two exchanges, or the usage
//! forbids them.

use std::thread;

use mesophyll::base::error::DbError;
use mesophyll::store::{self, DbOptions, DbState, Quota, Usage};
use mesophyll::wire::data::{KvRecord, Scopes, TenantId};
use postgres::{Client, NoTls};

use crate::support::db::{Typed, text};
use crate::support::postgres::{Schema, is_there, on};
use crate::support::process::eventually;

const TENANT: TenantId = TenantId::Guild(4_711);

/// A database of a test's own with so many stores on it.
struct Stores {
    stores: Vec<DbState>,
    schema: Schema,
}

impl Stores {
    fn new(count: usize, quota: Quota) -> Self {
        let schema = Schema::alone();
        let options = DbOptions { quota, ..DbOptions::default() };
        let open = |_| {
            let store = store::open(&schema.store_url()).expect("opened");
            DbState::new(store, options.clone()).expect("readable")
        };
        Self { stores: (0..count).map(open).collect(), schema }
    }

    fn set(&self, store: usize, key: &str, value: &str) -> Result<(), DbError> {
        self.stores[store].kv_set(TENANT, Scopes::new(["a", "b"]), key.to_owned(), text(value))
    }

    fn get(&self, key: &str) -> KvRecord {
        let found = self.stores[0].kv_get(TENANT, Scopes::new(["a", "b"]), key);
        found.expect("readable").expect("there")
    }

    fn usage(&self) -> Usage {
        self.stores[0].kv_usage(TENANT).expect("readable")
    }

    /// Sets a key in every store. Each has read the record before another program does `while_held`
    /// and ends a transaction that began with `holds`, for which they wait.
    fn set_around(&self, key: &str, holds: &str, while_held: &str) {
        let connect = || Client::connect(self.schema.url(), NoTls).expect("a connection");
        let (mut outside, mut observer) = (connect(), connect());
        let holder: i32 = outside.query_one("SELECT pg_backend_pid()", &[]).expect("a row").get(0);
        let mut transaction = outside.transaction().expect("begun");
        transaction.batch_execute(holds).expect("held");
        thread::scope(|scope| {
            for store in 0..self.stores.len() {
                scope.spawn(move || {
                    assert_eq!(self.set(store, key, &"ours".repeat(store + 1)), Ok(()))
                });
            }
            eventually("all wait", || {
                let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND $1 = ANY (pg_blocking_pids(pid))";
                let waiting: i64 = observer.query_one(sql, &[&holder]).expect("a row").get(0);
                (usize::try_from(waiting) == Ok(self.stores.len())).then_some(())
            });
            transaction.batch_execute(while_held).expect("done");
            transaction.commit().expect("committed");
        });
    }
}

/// Takes the tenant's lock, whose number is the same in every version.
fn lock() -> String {
    let hash = "mesophyll guild 4711".bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("SELECT pg_advisory_xact_lock({})", hash.cast_signed())
}

#[test]
fn two_masters_that_set_one_key_count_it_once() {
    if !is_there("two_masters_that_set_one_key_count_it_once") {
        return;
    }
    let it = Stores::new(2, Quota::default());
    it.set(0, "there", "before").expect("set");
    for key in ["there", "new"] {
        it.set_around(key, &lock(), "");
        let ours = it.get(key).value;
        assert!([text("ours"), text("oursours")].contains(&ours), "{ours:?}");
    }
    let kept = it.usage();
    on(it.schema.url(), "DELETE FROM mesophyll_usage");
    assert_eq!((kept, kept.records), (it.usage(), 2), "as counted anew");
}

#[test]
fn a_set_replaces_what_another_program_writes_meanwhile() {
    if !is_there("a_set_replaces_what_another_program_writes_meanwhile") {
        return;
    }
    let it = Stores::new(1, Quota::default());
    let insert = |scopes: &str| {
        format!(
            "INSERT INTO tenant_kv VALUES ('theirs KEY', '4711', 'guild', 'KEY', '{{\"Text\": \"theirs\"}}',
                 '{scopes}', now(), '2099-01-02')"
        )
    };
    let update = "UPDATE tenant_kv SET value = '{\"Text\": \"theirs\"}', last_updated_at = '2099-01-02' WHERE key = 'KEY'";
    let delete = "DELETE FROM tenant_kv WHERE key = 'KEY'".to_owned();
    let (lock, other_order) = (lock(), insert("{b,a}"));
    for (key, is_there, holds, while_held, is_seen) in [
        ("changed", true, lock.as_str(), update, true),
        ("changed at once", true, update, "", true),
        ("deleted", true, &lock, &delete, false),
        ("deleted at once", true, &delete, "", false),
        ("newer", true, &lock, &other_order, true),
        ("made", false, &lock, &other_order, true),
        ("made alike", false, &lock, &insert("{a,b}"), true),
        ("made alike at once", false, &insert("{a,b}"), "", true),
    ] {
        if is_there {
            it.set(0, key, "before").expect("set");
        }
        it.set_around(key, &holds.replace("KEY", key), &while_held.replace("KEY", key));
        let record = it.get(key);
        assert_eq!(record.value, text("ours"), "{key}");
        let is_after =
            record.last_updated_at.map(|time| time.unix_micros() > 4_070_908_800_000_000);
        assert_eq!(is_after, Some(is_seen), "{key}");
    }
}

#[test]
fn a_refused_set_says_why_and_an_old_count_is_renewed() {
    if !is_there("a_refused_set_says_why_and_an_old_count_is_renewed") {
        return;
    }
    let quota = Quota { records: 2, bytes: 100 };
    let it = Stores::new(1, quota);
    for key in ["1", "2"] {
        it.set(0, key, "v").expect("set");
    }
    let had = it.usage();
    let refused = |old, new| had.after_set(old, new, quota).map(drop).expect_err("too much");
    let (many, large) = (refused(None, 1), refused(Some(1), 1000));
    let too_large = "x".repeat(100);
    for minutes in [0, 2] {
        on(
            it.schema.url(),
            &format!(
                "UPDATE mesophyll_usage SET counted_at = now() - interval '{minutes} minutes'"
            ),
        );
        assert_eq!(it.set(0, "3", "v"), Err(many.clone()));
        assert_eq!(it.set(0, "2", &too_large), Err(large.clone()));
        assert_eq!((it.usage(), it.get("2").value), (had, text("v")));
    }
    // A row that another program deleted counts until the count is old.
    on(it.schema.url(), "DELETE FROM tenant_kv WHERE key = '1'");
    assert_eq!(it.set(0, "3", "v"), Err(many));
    on(it.schema.url(), "UPDATE mesophyll_usage SET counted_at = now() - interval '2 minutes'");
    assert_eq!(it.set(0, "3", "v"), Ok(()));
    assert_eq!(it.usage(), had);
}
