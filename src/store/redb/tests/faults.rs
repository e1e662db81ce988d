//! Tests of the embedded store on a disk that forgets what was not synced, fails, stalls and panics
//! on purpose.
//!
//! The disk is redb's `StorageBackend` in memory; everything above it is the product's own code.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use redb::{Database, StorageBackend};

use crate::base::answer::AnswerPlace;
use crate::base::error::DbError;
use crate::base::limits::{STORE_QUEUE_BYTES, STORE_QUEUE_MAX};
use crate::base::sync::{Lock, Signal};
use crate::base::thread;
use crate::store::redb::open::{Source, builder, database_error, prepare};
use crate::store::redb::writer::WriteAnswer;
use crate::store::redb::{RedbStore, RedbWrite, WriteDone};
use crate::store::{FindLimits, KvSet, OpenError, Quota, Standing, Store, Usage, charge, rules};
use crate::wire;
use crate::wire::data::{EncodedValue, KhronosValue, Scopes, TenantId, Timestamp};

const DEADLINE: Duration = Duration::from_secs(60);

/// A disk with a volatile cache.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<(Lock<DiskState>, Signal)>);

#[derive(Debug, Default)]
struct DiskState {
    /// What a crash leaves for certain.
    durable: Vec<u8>,
    /// What a reader sees.
    current: Vec<u8>,
    /// What was written since the last sync, in order.
    unsynced: Vec<Change>,
    syncs: u64,
    fails: bool,
    panics: bool,
    /// How often it failed or panicked.
    faults: u64,
    stalls: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Len(len) => bytes.resize(*len, 0),
            Change::Write(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.0.lock()
    }

    fn set(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    fn fault(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let mut state = self.state();
        if state.panics {
            state.panics = false;
            state.faults += 1;
            drop(state);
            panic!("the disk panics on purpose");
        }
        if state.fails {
            state.faults += 1;
            return Err(io::Error::other("the disk fails on purpose"));
        }
        Ok(state)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.fault()?;
        change.apply(&mut state.current);
        state.unsynced.push(change);
        Ok(())
    }

    /// What is there after a power failure: all that was synced, and of the rest any part of it, in
    /// any order kept.
    fn after_crash(&self, random: &mut Random, survives_percent: u64) -> Disk {
        let state = self.state();
        let mut bytes = state.durable.clone();
        for change in &state.unsynced {
            match change {
                Change::Len(_) if random.below(100) < survives_percent => change.apply(&mut bytes),
                Change::Len(_) => {}
                Change::Write(at, data) => {
                    for (number, sector) in data.chunks(512).enumerate() {
                        let end = at + number * 512 + sector.len();
                        if end <= bytes.len() && random.below(100) < survives_percent {
                            Change::Write(at + number * 512, sector.to_vec()).apply(&mut bytes);
                        }
                    }
                }
            }
        }
        let disk = Disk::default();
        disk.set(|state| {
            state.durable.clone_from(&bytes);
            state.current = bytes;
        });
        disk
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.fault()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from =
            state.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.fault()?;
        while state.stalls {
            state = self.0.1.wait(state, None);
        }
        state.syncs += 1;
        let DiskState { durable, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            change.apply(durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(
            usize::try_from(offset).map_err(io::Error::other)?,
            data.to_vec(),
        ))
    }
}

impl Source for Disk {
    fn open(&self) -> Result<Database, OpenError> {
        let database = builder().create_with_backend(self.clone()).map_err(database_error)?;
        prepare(&database)?;
        Ok(database)
    }

    fn reopen(&self) -> Result<Database, OpenError> {
        self.open()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn start(disk: &Disk) -> RedbStore {
    RedbStore::start(Box::new(disk.clone())).expect("the disk works")
}

fn number(value: u64) -> EncodedValue {
    wire::pack::value::encode(&KhronosValue::UnsignedInteger(value))
}

fn set(key: &str, value: EncodedValue) -> KvSet {
    KvSet {
        key: key.to_owned(),
        scopes: Scopes::new(["s"]),
        value,
        fresh_id: "id".to_owned(),
        now: Timestamp::from_unix_micros(0).expect("in range"),
        quota: Quota::default(),
    }
}

fn get(store: &RedbStore, tenant: TenantId, key: &str) -> Option<u64> {
    let record = store.kv_get(tenant, key, &Scopes::new(["s"])).expect("readable")?;
    match wire::pack::value::decode(&record.value) {
        Ok(KhronosValue::UnsignedInteger(value)) => Some(value),
        other => panic!("not what was written: {other:?}"),
    }
}

/// The counters say what a count says.
fn check_counters(store: &RedbStore, tenant: TenantId) {
    let everything = rules::check_pattern("%").expect("a pattern");
    let records = store
        .kv_find(tenant, &Scopes::default(), &everything, FindLimits::default())
        .expect("readable");
    let bytes = records
        .iter()
        .map(|record| {
            charge(&record.key, &Scopes::new(record.scopes.clone()), record.value.as_bytes().len())
        })
        .sum();
    let usage = Usage { records: records.len() as u64, bytes };
    assert_eq!(store.kv_usage(tenant), Ok(usage));
    let scopes = Scopes::new(records.into_iter().flat_map(|record| record.scopes));
    assert_eq!(store.kv_list_scopes(tenant), Ok(scopes.into_vec()));
}

/// One key that one thread writes again and again: every fifth time it deletes it.
struct Key {
    tenant: TenantId,
    name: String,
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl Key {
    fn is_delete(turn: u64) -> bool {
        turn.is_multiple_of(5)
    }

    fn write_next(&self, store: &RedbStore) -> Result<(), DbError> {
        let turn = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        if Self::is_delete(turn) {
            store.kv_delete(self.tenant, self.name.clone(), Scopes::new(["s"]))?;
        } else {
            store.kv_set(self.tenant, set(&self.name, number(turn)))?;
        }
        self.acknowledged.store(turn, Ordering::SeqCst);
        Ok(())
    }

    /// What is stored is the last acknowledged turn, or a later one that was begun.
    fn check(&self, store: &RedbStore, acknowledged: u64, begun: u64) {
        match get(store, self.tenant, &self.name) {
            Some(turn) => assert!(
                (acknowledged..=begun).contains(&turn),
                "{acknowledged} <= {turn} <= {begun}"
            ),
            None => {
                let deleted = (acknowledged..=begun).any(Self::is_delete);
                assert!(
                    deleted,
                    "{acknowledged} was acknowledged, nothing up to {begun} deleted it"
                );
            }
        }
    }
}

fn keys(count: u64) -> Arc<Vec<Key>> {
    let key = |number: u64| Key {
        tenant: TenantId::Guild(number % 2),
        name: format!("Key{number}"),
        begun: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
    };
    Arc::new((0..count).map(key).collect())
}

/// What a write did, as soon as it is known.
fn answer_in(place: &AnswerPlace<WriteAnswer>) -> Option<WriteAnswer> {
    place.take_by(Instant::now() + DEADLINE)
}

#[test]
fn a_power_failure_loses_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let store = Arc::new(start(&disk));
    let keys = keys(6);
    let stop = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..keys.len())
        .map(|number| {
            let (store, keys, stop) = (Arc::clone(&store), Arc::clone(&keys), Arc::clone(&stop));
            thread::spawn("test-writer", move || {
                while stop.load(Ordering::SeqCst) == 0 {
                    keys[number].write_next(&store).expect("the disk works");
                }
            })
            .expect("spawn")
        })
        .collect();
    let mut random = Random(0x5EED);
    let mut lost_something = false;
    let enough = |key: &Key| key.acknowledged.load(Ordering::SeqCst) > 10;
    let deadline = Instant::now() + DEADLINE;
    for round in 0.. {
        if round >= 40 && lost_something && keys.iter().all(enough) {
            break;
        }
        assert!(
            lost_something || Instant::now() < deadline,
            "no crash came in the middle of anything"
        );
        assert!(Instant::now() < deadline, "the writers get nowhere");
        let acknowledged: Vec<u64> =
            keys.iter().map(|key| key.acknowledged.load(Ordering::SeqCst)).collect();
        // Nothing of the unsynced, some of it, all of it.
        let crashed = disk.after_crash(&mut random, [0, 50, 90, 100][round % 4]);
        lost_something |= crashed.state().durable != disk.state().current;
        let begun: Vec<u64> = keys.iter().map(|key| key.begun.load(Ordering::SeqCst)).collect();
        let again = start(&crashed);
        for (number, key) in keys.iter().enumerate() {
            key.check(&again, acknowledged[number], begun[number]);
        }
        check_counters(&again, TenantId::Guild(0));
        check_counters(&again, TenantId::Guild(1));
    }
    stop.store(1, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| assert!(thread.join().is_some()));
}

#[test]
fn a_failing_disk_gives_errors_and_service_resumes_by_itself() {
    let disk = Disk::default();
    let store = start(&disk);
    let keys = keys(3);
    for round in 0..10 {
        keys.iter().for_each(|key| key.write_next(&store).expect("the disk works"));
        disk.set(|state| state.fails = true);
        for key in keys.iter() {
            let error = key.write_next(&store).expect_err("the disk fails");
            assert!(
                matches!(error, DbError::Unavailable(_) | DbError::OutcomeUnknown(_)),
                "{error:?}"
            );
        }
        assert!(matches!(
            store.kv_get(TenantId::Guild(0), "Key0", &Scopes::new(["s"])),
            Err(DbError::Unavailable(_))
        ));
        disk.set(|state| state.fails = false);
        let deadline = Instant::now() + DEADLINE;
        while keys[0].write_next(&store).is_err() {
            assert!(Instant::now() < deadline, "round {round}: the store did not come back");
            std::thread::yield_now();
        }
        for key in keys.iter() {
            key.check(
                &store,
                key.acknowledged.load(Ordering::SeqCst),
                key.begun.load(Ordering::SeqCst),
            );
        }
    }
    assert!(disk.state().faults >= 10);
    check_counters(&store, TenantId::Guild(0));
    check_counters(&store, TenantId::Guild(1));
}

#[test]
fn a_failing_read_reopens_the_store_too() {
    let disk = Disk::default();
    let store = start(&disk);
    // More than redb's cache must hold for certain: what is read comes from the disk again after a
    // reopen.
    store.kv_set(TenantId::Guild(1), set("k", number(1))).expect("the disk works");
    disk.set(|state| state.fails = true);
    // Makes the store reopen, so that its cache is empty.
    assert!(store.kv_set(TenantId::Guild(1), set("k", number(2))).is_err());
    disk.set(|state| state.fails = false);
    let deadline = Instant::now() + DEADLINE;
    while store.kv_get(TenantId::Guild(1), "k", &Scopes::new(["s"])).is_err() {
        assert!(Instant::now() < deadline, "the store did not come back");
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_in_a_commit_costs_its_batch_and_nothing_else() {
    let disk = Disk::default();
    let store = start(&disk);
    store.kv_set(TenantId::Guild(1), set("k", number(1))).expect("the disk works");
    disk.set(|state| state.panics = true);
    let error = store.kv_set(TenantId::Guild(1), set("k", number(2))).expect_err("the disk panics");
    assert!(matches!(error, DbError::OutcomeUnknown(_)), "{error:?}");
    let deadline = Instant::now() + DEADLINE;
    while store.kv_set(TenantId::Guild(1), set("k", number(3))).is_err() {
        assert!(Instant::now() < deadline, "the store did not come back");
        std::thread::yield_now();
    }
    assert_eq!(get(&store, TenantId::Guild(1), "k"), Some(3));
    assert_eq!(disk.state().faults, 1);
}

#[test]
fn writes_that_wait_share_one_commit_and_reads_wait_for_nothing() {
    let disk = Disk::default();
    let store = start(&disk);
    let tenant = TenantId::Guild(1);
    store.kv_set(tenant, set("k", number(0))).expect("the disk works");
    disk.set(|state| state.stalls = true);
    let submit = |key: &str, value| {
        store.submit(RedbWrite::KvSet { tenant, set: set(key, number(value)) }).expect("room")
    };
    let first = submit("k", 1);
    // Wait until the writer has taken it: then it is in its sync, or about to be.
    let deadline = Instant::now() + DEADLINE;
    while store.queue_bytes.total().bytes > 0 {
        assert!(Instant::now() < deadline, "the writer did not take the write");
        std::thread::yield_now();
    }
    let rest: Vec<_> = (0..500).map(|number| submit(&format!("k{number}"), number)).collect();
    assert_eq!(
        get(&store, tenant, "k"),
        Some(0),
        "a read sees the last commit while the next one syncs"
    );
    assert!(!first.is_over(), "nothing is acknowledged before it is synced");
    let syncs_before = disk.state().syncs;
    disk.set(|state| state.stalls = false);
    for answer in rest {
        assert!(matches!(answer_in(&answer), Some(Ok(WriteDone::Changed(..)))));
    }
    let syncs = disk.state().syncs - syncs_before;
    assert!(syncs <= 8, "501 writes in two commits of a few syncs each, not {syncs}");
    assert_eq!(get(&store, tenant, "k"), Some(1));
    assert_eq!(store.kv_usage(tenant).map(|usage| usage.records), Ok(501));
}

#[test]
fn a_full_queue_is_busy_at_once() {
    let disk = Disk::default();
    let store = start(&disk);
    let tenant = TenantId::Guild(1);
    disk.set(|state| state.stalls = true);
    let delete = || RedbWrite::KvDelete { tenant, key: "k".to_owned(), scopes: Scopes::new(["s"]) };
    let large = || RedbWrite::KvSet {
        tenant,
        set: set("k", wire::pack::value::encode(&KhronosValue::Text("x".repeat(200_000)))),
    };
    // One commit stalls with what it took; the queue then holds so many and no more.
    let stalled = store.submit(large()).expect("room");
    let mut waiting = Vec::new();
    let mut bytes = 0;
    let refusal = loop {
        match store.submit(large()) {
            Ok(answer) => waiting.push(answer),
            Err(error) => break error,
        }
        bytes += 200_000;
        assert!(bytes < 2 * STORE_QUEUE_BYTES, "the bytes of a queue are bounded");
    };
    assert!(matches!(refusal, DbError::Busy(_)), "{refusal:?}");
    let mut small = Vec::new();
    while let Ok(answer) = store.submit(delete()) {
        small.push(answer);
        assert!(small.len() <= STORE_QUEUE_MAX, "the length of a queue is bounded");
    }
    disk.set(|state| state.stalls = false);
    for answer in [stalled].into_iter().chain(waiting).chain(small) {
        assert!(matches!(answer_in(&answer), Some(Ok(_))), "what was taken is done");
    }
}

#[test]
fn a_tenant_that_fills_its_share_leaves_room_to_another() {
    let (disk, loud, quiet) = (Disk::default(), TenantId::Guild(1), TenantId::Guild(2));
    let store = start(&disk);
    disk.set(|state| state.stalls = true);
    let delete =
        |tenant| RedbWrite::KvDelete { tenant, key: "k".to_owned(), scopes: Scopes::new(["s"]) };
    let value = wire::pack::value::encode(&KhronosValue::Text("x".repeat(200_000)));
    let large = |tenant| RedbWrite::KvSet { tenant, set: set("k", value.clone()) };
    let ops: [&dyn Fn(TenantId) -> RedbWrite; 2] = [&delete, &large];
    let (mut loud_s, mut others) = (Vec::new(), Vec::new());
    for op in ops {
        while let Ok(answer) = store.submit(op(loud)) {
            loud_s.push(answer);
        }
        others.push(store.submit(op(quiet)));
    }
    others.push(store.submit(RedbWrite::SetStanding { tenant: loud, standing: Standing::Banned }));
    // Before anything fails: a store that stalls is not dropped.
    disk.set(|state| state.stalls = false);
    let others = others.into_iter().map(|other| other.expect("room for others"));
    for answer in others.chain(loud_s) {
        assert!(matches!(answer_in(&answer), Some(Ok(_))), "what was taken is done");
    }
}

#[test]
fn a_refused_write_changes_nothing_and_its_batch_goes_on() {
    let disk = Disk::default();
    let store = start(&disk);
    let tenant = TenantId::User(9);
    let tiny = KvSet { quota: Quota { records: 1, bytes: 1000 }, ..set("a", number(1)) };
    store.kv_set(tenant, tiny.clone()).expect("within the quota");
    disk.set(|state| state.stalls = true);
    let first = store.submit(RedbWrite::KvSet { tenant, set: tiny.clone() }).expect("room");
    let refused = store
        .submit(RedbWrite::KvSet { tenant, set: KvSet { key: "b".to_owned(), ..tiny.clone() } })
        .expect("room");
    let last = store
        .submit(RedbWrite::KvSet { tenant, set: KvSet { value: number(7), ..tiny } })
        .expect("room");
    disk.set(|state| state.stalls = false);
    assert!(matches!(answer_in(&first), Some(Ok(WriteDone::Changed(..)))));
    assert!(matches!(answer_in(&refused), Some(Err(DbError::Refused(_)))));
    assert!(matches!(answer_in(&last), Some(Ok(WriteDone::Changed(..)))));
    assert_eq!(get(&store, tenant, "a"), Some(7));
    check_counters(&store, tenant);
}

#[test]
fn closing_finishes_what_waits_and_then_nothing_is_served() {
    let disk = Disk::default();
    let store = start(&disk);
    let tenant = TenantId::Guild(1);
    let answers: Vec<_> = (0..100)
        .map(|turn| {
            store
                .submit(RedbWrite::KvSet { tenant, set: set(&format!("k{turn}"), number(turn)) })
                .expect("room")
        })
        .collect();
    store.close();
    assert!(
        answers.into_iter().all(|answer| matches!(answer.take(), Some(Ok(WriteDone::Changed(..)))))
    );
    assert!(matches!(store.kv_usage(tenant), Err(DbError::Unavailable(_))));
    assert!(matches!(store.kv_set(tenant, set("k", number(1))), Err(DbError::Unavailable(_))));
    store.close();
    assert!(disk.state().unsynced.is_empty(), "a closed store is on the disk");
    assert_eq!(start(&disk).kv_usage(tenant).map(|usage| usage.records), Ok(100));
}
