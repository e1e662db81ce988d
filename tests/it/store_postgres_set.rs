//! Sets of records in PostgreSQL: another writer comes between their two exchanges, the usage
//! forbids them, or several are carried out together.

use std::sync::Arc;
use std::thread;

use mesophyll::base::error::DbError;
use mesophyll::store::{self, DbOptions, DbState, Quota, StoreOptions, Usage};
use mesophyll::wire::data::{EncodedValue, KvRecord, Scopes, TenantId};
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

    /// A set of ours came last, and `is_seen`: after the other program's, whose time it saw.
    fn holds_ours(&self, key: &str, is_seen: bool) {
        let record = self.get(key);
        assert_eq!(record.value, text("ours"), "{key}");
        let is_after =
            record.last_updated_at.map(|time| time.unix_micros() > 4_070_908_800_000_000);
        assert_eq!(is_after, Some(is_seen), "{key}");
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

/// Of another program: a record of the tenant, newer than any clock of ours.
fn insert(scopes: &str) -> String {
    format!(
        "INSERT INTO tenant_kv VALUES ('theirs KEY', '4711', 'guild', 'KEY',
             '{{\"Text\": \"theirs\"}}', '{scopes}', now(), '2099-01-02')"
    )
}

/// Of another program, as [`insert`].
const UPDATE: &str = "UPDATE tenant_kv
     SET value = '{\"Text\": \"theirs\"}', last_updated_at = '2099-01-02' WHERE key = 'KEY'";

const DELETE: &str = "DELETE FROM tenant_kv WHERE key = 'KEY'";

#[test]
fn a_set_replaces_what_another_program_writes_meanwhile() {
    if !is_there("a_set_replaces_what_another_program_writes_meanwhile") {
        return;
    }
    let it = Stores::new(1, Quota::default());
    let (lock, other_order) = (lock(), insert("{b,a}"));
    for (key, is_there, holds, while_held, is_seen) in [
        ("changed", true, lock.as_str(), UPDATE, true),
        ("changed at once", true, UPDATE, "", true),
        ("deleted", true, &lock, DELETE, false),
        ("deleted at once", true, DELETE, "", false),
        ("newer", true, &lock, &other_order, true),
        ("made", false, &lock, &other_order, true),
        ("made alike", false, &lock, &insert("{a,b}"), true),
        ("made alike at once", false, &insert("{a,b}"), "", true),
    ] {
        if is_there {
            it.set(0, key, "before").expect("set");
        }
        it.set_around(key, &holds.replace("KEY", key), &while_held.replace("KEY", key));
        it.holds_ours(key, is_seen);
    }
}

#[test]
fn a_set_that_changes_no_size_minds_other_programs() {
    if !is_there("a_set_that_changes_no_size_minds_other_programs") {
        return;
    }
    let it = Stores::new(1, Quota::default());
    for (key, holds, is_seen) in
        [("changed at once", UPDATE, true), ("deleted at once", DELETE, false)]
    {
        it.set(0, key, "same").expect("set");
        it.set_around(key, &holds.replace("KEY", key), "");
        it.holds_ours(key, is_seen);
    }
    it.set(0, "newer", "same").expect("set");
    on(it.schema.url(), &insert("{b,a}").replace("KEY", "newer"));
    it.set(0, "newer", "ours").expect("set");
    it.holds_ours("newer", true);
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

/// What waits for the only connection of a store.
struct Crowd {
    db: DbState,
    schema: Schema,
}

impl Crowd {
    fn new(quota: Quota) -> Self {
        let schema = Schema::alone();
        let options = StoreOptions { connections: 1 };
        let store = store::open_with(&schema.store_url(), options, Arc::default()).expect("opened");
        let options = DbOptions { quota, ..DbOptions::default() };
        Self { db: DbState::new(store, options).expect("readable"), schema }
    }

    fn set(&self, tenant: u64, key: &str, value: &str) -> Result<(), DbError> {
        self.db.kv_set(TenantId::Guild(tenant), Scopes::new(["s"]), key.to_owned(), text(value))
    }

    fn get(&self, tenant: u64, key: &str) -> Result<Option<EncodedValue>, DbError> {
        let found = self.db.kv_get(TenantId::Guild(tenant), Scopes::new(["s"]), key)?;
        Ok(found.map(|record| record.value))
    }

    fn waiting(&self) -> usize {
        self.db.store_figures().queue.map_or(0, |queue| queue.operations)
    }

    /// Has these wait for the connection all at once, in this order, each on a thread of its own.
    fn at_once(&self, all: Vec<Box<dyn FnOnce() + Send + '_>>) {
        let mut outside = Client::connect(self.schema.url(), NoTls).expect("a connection");
        let mut transaction = outside.transaction().expect("begun");
        transaction.batch_execute(&lock()).expect("held");
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(self.set(4_711, "holds the connection", "v"), Ok(())));
            eventually("the connection is taken", || {
                let sql = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))";
                (!transaction.query(sql, &[]).expect("rows").is_empty()).then_some(())
            });
            for (before, one) in all.into_iter().enumerate() {
                scope.spawn(one);
                eventually("it waits", || (self.waiting() == before + 1).then_some(()));
            }
            transaction.commit().expect("committed");
        });
    }
}

#[test]
fn sets_that_wait_go_together_and_each_gets_its_answer() {
    if !is_there("sets_that_wait_go_together_and_each_gets_its_answer") {
        return;
    }
    let it = Crowd::new(Quota { records: 3, bytes: 10_000 });
    // The second time, so that its row is known.
    for tenant in [1, 2, 3, 1, 2, 3] {
        it.set(tenant, "there", "before").expect("set");
        assert_eq!(it.get(tenant, "there"), Ok(Some(text("before"))));
    }
    for key in ["a", "b"] {
        it.set(3, key, "full").expect("set");
    }
    // Those of one tenant, a refused one, and one whose tenant's usage is not counted yet.
    let set = |tenant, key: &'static str| -> Box<dyn FnOnce() + Send + '_> {
        let it = &it;
        Box::new(move || assert_eq!(it.set(tenant, key, "after"), Ok(()), "{tenant} {key}"))
    };
    let refused = Box::new(|| {
        assert!(matches!(it.set(3, "one more", "after"), Err(DbError::Refused(_))));
    });
    let sets = vec![set(1, "there"), set(1, "new"), set(2, "there"), set(4, "first")];
    it.at_once(sets.into_iter().chain([refused as Box<dyn FnOnce() + Send + '_>]).collect());
    for (tenant, key) in [(1, "there"), (1, "new"), (2, "there"), (4, "first")] {
        assert_eq!(it.get(tenant, key), Ok(Some(text("after"))), "{tenant} {key}");
    }
    let mut direct = Client::connect(it.schema.url(), NoTls).expect("a connection");
    let sql = "SELECT count(DISTINCT xmin::text) FROM tenant_kv WHERE owner_id IN ('1', '2')";
    let transactions: i64 = direct.query_one(sql, &[]).expect("a row").get(0);
    assert_eq!(transactions, 1, "they were together");
    for (tenant, records) in [(1, 2), (2, 1), (3, 3), (4, 1)] {
        let kept = it.db.kv_usage(TenantId::Guild(tenant)).expect("readable");
        on(it.schema.url(), &format!("DELETE FROM mesophyll_usage WHERE owner_id = '{tenant}'"));
        let counted = it.db.kv_usage(TenantId::Guild(tenant)).expect("readable");
        assert_eq!((kept, kept.records), (counted, records), "{tenant}");
    }
}

#[test]
fn one_of_those_together_that_fails_harms_no_other() {
    if !is_there("one_of_those_together_that_fails_harms_no_other") {
        return;
    }
    let it = Crowd::new(Quota::default());
    for tenant in 1..4 {
        it.set(tenant, "k", "before").expect("set");
    }
    // What is known of it is wrong; of two the record is the same; one cannot be read.
    on(
        it.schema.url(),
        "UPDATE tenant_kv SET value = '{\"Text\": \"theirs\"}' WHERE owner_id = '2'",
    );
    on(it.schema.url(), "UPDATE tenant_kv SET value = '{\"No\": 7}' WHERE owner_id = '3'");
    let set = |tenant: u64| -> Box<dyn FnOnce() + Send + '_> {
        let it = &it;
        Box::new(move || assert_eq!(it.set(tenant, "k", "after"), Ok(()), "{tenant}"))
    };
    // Another program holds the row of the first, until the second is done.
    let mut direct = Client::connect(it.schema.url(), NoTls).expect("a connection");
    let mut theirs = direct.transaction().expect("begun");
    theirs.batch_execute("UPDATE tenant_kv SET id = id WHERE owner_id = '1'").expect("held");
    let second = Box::new(|| {
        assert_eq!(it.set(2, "k", "after"), Ok(()));
        theirs.rollback().expect("released");
    });
    it.at_once(vec![set(1), second, set(2), set(1)]);
    assert_eq!([it.get(1, "k"), it.get(2, "k")], [(); 2].map(|()| Ok(Some(text("after")))));
    let get = |tenant: u64| -> Box<dyn FnOnce() + Send + '_> {
        let it = &it;
        Box::new(move || match tenant {
            3 => assert!(it.get(3, "k").is_err(), "it cannot be read"),
            4 => assert_eq!(it.get(4, "k"), Ok(None)),
            _ => assert_eq!(it.get(tenant, "k"), Ok(Some(text("after"))), "{tenant}"),
        })
    };
    it.at_once(vec![get(1), get(3), get(4), get(2), get(1)]);
}
