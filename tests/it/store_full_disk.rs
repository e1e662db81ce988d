//! A master whose disk is full: writes get errors, nothing acknowledged is lost or damaged, and the
//! same process serves again when there is room.
//!
//! The disk is real; what is full is the process's own limit on the size of a file, which a test
//! may change from outside without being root. A write over it is an error (EFBIG), as on a full
//! disk, and not the end of the process (SIGXFSZ).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use mesophyll::base::error::DbError;
use mesophyll::protocol::MesophyllDbClient;
use mesophyll::wire;
use mesophyll::wire::data::{KhronosValue, Scopes, TenantId};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::binary::{Master, Running, mesophyll, run};
use crate::support::db::Typed;
use crate::support::process::eventually;
use crate::support::{Random, TempDir};

const TENANT: TenantId = TenantId::Guild(1);
const WRITERS: u64 = 4;

/// A master over a store in a file, and a worker's client of it.
struct Small {
    master: Master,
    client: MesophyllDbClient,
    file: String,
}

impl Small {
    fn start() -> Self {
        let folder = TempDir::new();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (file, tokens) = (path("store.redb"), path("tokens.json"));
        let store = format!("redb:{file}");
        let master = mesophyll(&[
            "master",
            "--store",
            &store,
            "--listen",
            "127.0.0.1:0",
            "--api",
            "off",
            "--workers",
            "1",
            "--external-workers",
            "--worker-tokens",
            &tokens,
        ]);
        let master = Master { folder, ..Master::of(Running::start(master)) };
        let tokens: BTreeMap<String, String> =
            serde_json::from_slice(&fs::read(tokens).expect("written")).expect("a file of tokens");
        let client = MesophyllDbClient::new(&master.listen().to_string(), 0, &tokens["0"]);
        Self { master, client, file }
    }

    /// No file of the master's may be written beyond this size any more; none: wherever it likes.
    fn limit(&self, bytes: Option<u64>) {
        let pid = i32::try_from(self.master.pid()).ok().and_then(Pid::from_raw);
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid.expect("a pid")), Resource::Fsize, limit).expect("a process of our own");
    }

    fn size(&self) -> u64 {
        fs::metadata(&self.file).expect("there").len()
    }

    fn set(&self, key: &str, value: u64, padding: usize) -> Result<(), DbError> {
        let value = KhronosValue::List(vec![
            KhronosValue::UnsignedInteger(value),
            KhronosValue::Text("x".repeat(padding)),
        ]);
        let value = wire::pack::value::encode(&value);
        self.client.kv_set(TENANT, Scopes::new(["s"]), key.to_owned(), value)
    }

    fn get(&self, key: &str) -> Result<Option<u64>, DbError> {
        let record = self.client.kv_get(TENANT, Scopes::new(["s"]), key)?;
        Ok(record.map(|record| match wire::pack::value::decode(&record.value) {
            Ok(KhronosValue::List(parts)) => match parts[..] {
                [KhronosValue::UnsignedInteger(value), KhronosValue::Text(_)] => value,
                _ => panic!("not what was written: {parts:?}"),
            },
            other => panic!("not what was written: {other:?}"),
        }))
    }

    /// Many write at once until each has had some errors.
    fn write_until_refused(&self, round: u64, written: &mut Written) -> Vec<DbError> {
        let before = &*written;
        let results: Vec<(Written, Vec<DbError>)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| scope.spawn(move || self.write_one(writer, round, before)))
                .collect();
            writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
        });
        let mut errors = Vec::new();
        for (of_one, failed) in results {
            written.extend(of_one);
            errors.extend(failed);
        }
        errors
    }

    fn write_one(&self, writer: u64, round: u64, before: &Written) -> (Written, Vec<DbError>) {
        let mut random = Random::new(round * WRITERS + writer + 1);
        let (mut written, mut errors) = (Written::new(), Vec::new());
        for turn in 0.. {
            // New records and old ones.
            let key = format!(
                "{writer}:{}",
                if turn % 2 == 0 { random.below(20) } else { 100_000 * round + turn }
            );
            let value = round * 1_000_000 + turn;
            match self.set(&key, value, random.below(60_000) as usize) {
                Ok(()) => drop(written.insert(key, BTreeSet::from([Some(value)]))),
                Err(DbError::OutcomeUnknown(_)) => {
                    // It may have been made; or what was there before is there still.
                    let was = before.get(&key).cloned().unwrap_or_else(|| BTreeSet::from([None]));
                    written.entry(key).or_insert(was).insert(Some(value));
                    errors.push(DbError::OutcomeUnknown(String::new()));
                }
                Err(error) => errors.push(error),
            }
            if errors.len() == 5 {
                break;
            }
            assert!(turn < 50_000, "the disk was never full");
        }
        (written, errors)
    }

    fn check(&self, written: &Written) {
        for (key, values) in written {
            // Who got the last error heard of it before the store was closed to be opened again.
            let found = eventually("reads are served", || self.get(key).ok());
            assert!(values.contains(&found), "{key}: {found:?} is none of {values:?}");
        }
    }
}

/// For each key what it may hold now.
type Written = BTreeMap<String, BTreeSet<Option<u64>>>;

#[test]
fn a_full_disk_gives_errors_until_there_is_room() {
    let small = Small::start();
    let mut written = Written::new();
    for round in 0..4 {
        for number in 0..40 {
            let key = format!("free:{number}");
            small.set(&key, round, 10_000).expect("there is room");
            written.insert(key, BTreeSet::from([Some(round)]));
        }
        // First the file cannot grow; then not even all of it can be written.
        let limit = if round % 2 == 0 { small.size() } else { small.size() / 2 };
        small.limit(Some(limit));
        let errors = small.write_until_refused(round, &mut written);
        let is_said = |error: &DbError| match error {
            DbError::Unavailable(text) => text.contains("the store is not available"),
            error => matches!(error, DbError::OutcomeUnknown(_)),
        };
        assert!(errors.iter().all(is_said), "{errors:?}");
        // What is there can be read. (A store that is open again at once has nobody to tell that it
        // is not.)
        small.check(&written);
        small.limit(None);
        eventually("service resumes", || small.set("again", round, 0).ok());
        written.insert("again".to_owned(), BTreeSet::from([Some(round)]));
        small.check(&written);
    }
    let Small { master, file, .. } = small;
    let (stopped, _folder) = master.stop();
    stopped.expect(0, "the store failed and is reopened");
    run(&["store", "check", "--store", &format!("redb:{file}")]).expect(0, "");
}
