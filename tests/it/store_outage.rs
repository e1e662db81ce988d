//! A PostgreSQL server of the test's own that is stopped, killed and started again under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesophyll::base::error::DbError;
use mesophyll::store::{self, DbOptions, DbState};
use mesophyll::wire;
use mesophyll::wire::data::{KhronosValue, Scopes, TenantId};

use crate::support::db::Typed;
use crate::support::own_postgres::Cluster;
use crate::support::process::eventually;

const TENANT: TenantId = TenantId::Guild(1);
const WRITERS: usize = 4;

/// How soon a caller must know that the server is away. A call that waits for a connection gives up
/// after 5 s; the rest is for a machine that has other things to do, too.
const QUICKLY: Duration = Duration::from_secs(5 + 15);

/// What one writer knows: it sets its record to 1, 2, 3, …
#[derive(Default)]
struct Counted {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

fn set(db: &DbState, writer: usize, number: u64) -> Result<(), DbError> {
    let value = wire::pack::value::encode(&KhronosValue::Integer(number as i64));
    db.kv_set(TENANT, Scopes::new(["s"]), writer.to_string(), &value)
}

fn get(db: &DbState, writer: usize) -> u64 {
    let record =
        db.kv_get(TENANT, Scopes::new(["s"]), writer.to_string()).expect("the server is there");
    match record.map(|record| wire::pack::value::decode(&record.value).expect("a value")) {
        None => 0,
        Some(KhronosValue::Integer(number)) => number as u64,
        Some(other) => panic!("{other:?}"),
    }
}

fn write_until(db: &DbState, writer: usize, counted: &Counted, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let number = counted.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let begun = Instant::now();
        match set(db, writer, number) {
            Ok(()) => counted.acknowledged.store(number, Ordering::SeqCst),
            Err(DbError::Unavailable(_) | DbError::OutcomeUnknown(_)) => {
                assert!(begun.elapsed() < QUICKLY, "after {:?}", begun.elapsed());
                // As a caller would, it does not try again at once.
                std::thread::yield_now();
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_server_that_returns_costs_no_acknowledged_write() {
    let Some(cluster) = Cluster::start_new("a_server_that_returns_costs_no_acknowledged_write")
    else {
        return;
    };
    store::migrate(&cluster.url()).expect("migrated");
    let store = store::open(&cluster.url()).expect("opened");
    let db = Arc::new(DbState::new(store, DbOptions::default()).expect("readable"));
    let counted: [Counted; WRITERS] = Default::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (writer, counted) in counted.iter().enumerate() {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || write_until(db, writer, counted, stop));
        }
        // Whatever fails below, the writers must end, or the scope never would.
        let ended = Ended(&stop);
        // An ordinary stop, and then a crash.
        for mode in ["fast", "immediate"] {
            all_go_on(&counted);
            cluster.stop(mode);
            assert!(unavailable(&db), "{mode}");
            let begun = Instant::now();
            assert!(unavailable(&db), "{mode}");
            assert!(begun.elapsed() < QUICKLY, "{mode}: {:?}", begun.elapsed());
            cluster.start();
            eventually("service resumes by itself", || (!unavailable(&db)).then_some(()));
        }
        all_go_on(&counted);
        drop(ended);
    });
    for (writer, counted) in counted.iter().enumerate() {
        let (stored, acknowledged) =
            (get(&db, writer), counted.acknowledged.load(Ordering::SeqCst));
        assert!(
            acknowledged <= stored && stored <= counted.begun.load(Ordering::SeqCst),
            "{acknowledged} {stored}"
        );
    }
    assert_eq!(db.kv_usage(TENANT).map(|usage| usage.records), Ok(WRITERS as u64));
    cluster.stop("immediate");
    // Whether or not there is a server.
    db.close();
    assert!(matches!(set(&db, 0, 1), Err(DbError::Unavailable(_))));
}

struct Ended<'s>(&'s AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn unavailable(db: &DbState) -> bool {
    match db.kv_get(TENANT, Scopes::new(["s"]), "0") {
        Ok(_) => false,
        Err(DbError::Unavailable(_)) => true,
        Err(other) => panic!("{other:?}"),
    }
}

/// Waits until every writer has had some more writes acknowledged.
fn all_go_on(counted: &[Counted]) {
    for counted in counted {
        let from = counted.acknowledged.load(Ordering::SeqCst);
        eventually("writes go on", || {
            (counted.acknowledged.load(Ordering::SeqCst) > from + 20).then_some(())
        });
    }
}

#[test]
fn a_master_does_not_start_without_its_server() {
    let Some(cluster) = Cluster::start_new("a_master_does_not_start_without_its_server") else {
        return;
    };
    cluster.stop("fast");
    let begun = Instant::now();
    assert!(matches!(store::open(&cluster.url()), Err(store::OpenError::Unavailable(_))));
    assert!(begun.elapsed() < QUICKLY);
    assert!(Path::new(&cluster.data()).is_dir());
}
