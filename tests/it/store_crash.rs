//! A process that writes to the embedded store and says what was acknowledged is killed with -9,
//! again and again; what it said is what the file holds.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use mesophyll::store::redb::check;
use mesophyll::store::{DbOptions, DbState, Usage, charge};
use mesophyll::wire;
use mesophyll::wire::data::{EncodedJson, KhronosValue, Scopes, TenantId, TenantState};

use crate::support::db::{Kept, Typed, open};
use crate::support::{Random, TempDir};

const FILE_VARIABLE: &str = "MESOPHYLL_TEST_CRASH_FILE";
const ROUND_VARIABLE: &str = "MESOPHYLL_TEST_CRASH_ROUND";
/// How often; more with `MESOPHYLL_TEST_KILLS`.
const KILLS: u64 = 50;
const KILLS_VARIABLE: &str = "MESOPHYLL_TEST_KILLS";
const WRITERS: u64 = 4;
const KEYS: u64 = 12;
/// The key under which the tests note a tenant's state.
const STATE: u64 = KEYS;

fn tenant(writer: u64) -> TenantId {
    TenantId::Guild(writer << 22)
}

fn key(number: u64) -> String {
    format!("Key:{number}")
}

fn scopes(number: u64) -> Scopes {
    Scopes::new(["s".to_owned(), format!("s{}", number % 3)])
}

/// Not a test of its own: the process to be killed. Without its variables there is nothing to do.
#[test]
fn the_process_that_is_killed() {
    let (Ok(file), Ok(round)) = (std::env::var(FILE_VARIABLE), std::env::var(ROUND_VARIABLE))
    else {
        return;
    };
    let round: u64 = round.parse().expect("a number");
    let db = open(Kept::InRedb, Path::new(&file), DbOptions::default());
    say("");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let db = &db;
            scope.spawn(move || write_for_ever(db, writer, round));
        }
    });
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .expect("the parent listens");
}

fn write_for_ever(db: &DbState, writer: u64, round: u64) {
    let mut random = Random::new(round * WRITERS + writer + 1);
    for turn in 1.. {
        let number = random.below(KEYS + 1);
        let value = round * 1_000_000 + turn;
        if number == STATE {
            say(&format!("try {writer} {number} {value}"));
            let state =
                TenantState { events: [value.to_string()].into(), data: EncodedJson::null() };
            db.set_tenant_state(tenant(writer), &state).expect("the disk works");
        } else if random.below(4) == 0 {
            say(&format!("try {writer} {number} 0"));
            db.kv_delete(tenant(writer), scopes(number), key(number)).expect("the disk works");
        } else {
            say(&format!("try {writer} {number} {value}"));
            let padding = "x".repeat(random.below(6000) as usize);
            let stored = KhronosValue::List(vec![
                KhronosValue::UnsignedInteger(value),
                KhronosValue::Text(padding),
            ]);
            let stored = wire::pack::value::encode(&stored);
            db.kv_set(tenant(writer), scopes(number), key(number), &stored)
                .expect("the disk works");
        }
        say(&format!("ack {writer}"));
    }
}

/// What the file must hold: for each writer and key the last value, 0 for none.
#[derive(Default)]
struct Expected {
    acknowledged: HashMap<(u64, u64), u64>,
    /// Said to be tried, not acknowledged: by each writer one at most.
    tried: HashMap<u64, (u64, u64)>,
    /// Acknowledged changes of what was there.
    overwrites: u64,
    deletes: u64,
}

impl Expected {
    fn hear(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        match (words[0], number(1), number(2), number(3)) {
            ("try", Some(writer), Some(key), Some(value)) => {
                self.tried.insert(writer, (key, value));
                false
            }
            ("ack", Some(writer), None, None) => {
                let (key, value) = self.tried.remove(&writer).expect("tried before acknowledged");
                let was = self.acknowledged.insert((writer, key), value).unwrap_or(0);
                self.overwrites += u64::from(was > 0 && value > 0);
                self.deletes += u64::from(was > 0 && value == 0);
                true
            }
            _ => false,
        }
    }

    /// Compares, and takes over what became of the tries that were never acknowledged.
    fn check(&mut self, db: &DbState) {
        for writer in 0..WRITERS {
            for number in 0..=KEYS {
                let found = stored(db, writer, number);
                let expected = self.acknowledged.get(&(writer, number)).copied().unwrap_or(0);
                let tried = self
                    .tried
                    .get(&writer)
                    .filter(|(key, _)| *key == number)
                    .map(|(_, value)| *value);
                assert!(
                    found == expected || Some(found) == tried,
                    "writer {writer} key {number}: found {found}, acknowledged {expected}, tried {tried:?}"
                );
                self.acknowledged.insert((writer, number), found);
            }
            check_counters(db, tenant(writer));
        }
        self.tried.clear();
    }
}

fn stored(db: &DbState, writer: u64, number: u64) -> u64 {
    if number == STATE {
        let state = db.tenant_state(tenant(writer));
        return state
            .map_or(0, |state| state.events.first().expect("one").parse().expect("a number"));
    }
    let record = db.kv_get(tenant(writer), scopes(number), key(number)).expect("readable");
    let value =
        record.map(|record| wire::pack::value::decode(&record.value).expect("what was written"));
    match value {
        None => 0,
        Some(KhronosValue::List(parts)) => match parts[..] {
            [KhronosValue::UnsignedInteger(value), KhronosValue::Text(_)] => value,
            _ => panic!("not what was written: {parts:?}"),
        },
        Some(other) => panic!("not what was written: {other:?}"),
    }
}

/// The counters say what a count says.
fn check_counters(db: &DbState, tenant: TenantId) {
    let records = db.kv_find(tenant, Scopes::default(), "%").expect("readable");
    let bytes = records
        .iter()
        .map(|record| {
            charge(&record.key, &Scopes::new(record.scopes.clone()), record.value.as_bytes().len())
        })
        .sum();
    assert_eq!(db.kv_usage(tenant), Ok(Usage { records: records.len() as u64, bytes }));
    let scopes = Scopes::new(records.into_iter().flat_map(|record| record.scopes));
    assert_eq!(db.kv_list_scopes(tenant), Ok(scopes.into_vec()));
}

fn start(file: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "store_crash::the_process_that_is_killed", "--nocapture"])
        .env(FILE_VARIABLE, file)
        .env(ROUND_VARIABLE, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started")
}

/// Lets a process write, kills it after so many acknowledgements, and hears what it had still said.
fn write_and_kill(file: &Path, round: u64, acknowledgements: u64, expected: &mut Expected) {
    let mut child = start(file, round);
    let stdout = child.stdout.take().expect("piped");
    let mut heard = 0;
    let mut killed = false;
    for line in BufReader::new(stdout).lines() {
        // The last line may be cut in the middle: then it was not said.
        let Ok(line) = line else { break };
        heard += u64::from(expected.hear(&line));
        if heard >= acknowledgements && !killed {
            child.kill().expect("it was running");
            killed = true;
        }
    }
    let status = child.wait().expect("waited for");
    assert!(killed, "it ended by itself: {status}");
    assert!(!status.success(), "it was not killed");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = TempDir::new();
    let file = folder.path().join("store.redb");
    let mut random = Random::new(9);
    let mut expected = Expected::default();
    let kills =
        std::env::var(KILLS_VARIABLE).map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut in_the_middle = 0;
    for round in 1..=kills {
        write_and_kill(&file, round, random.below(60), &mut expected);
        in_the_middle += u64::from(!expected.tried.is_empty());
        // Nothing but the file says what happened: no process is left that could finish anything.
        let db: Arc<DbState> = open(Kept::InRedb, &file, DbOptions::default());
        expected.check(&db);
        db.close();
        assert_eq!(check(&file), Ok(Vec::new()), "`store check` is clean");
    }
    assert!(in_the_middle > kills / 2, "only {in_the_middle} kills came in the middle of a write");
    assert!(expected.overwrites > kills && expected.deletes > kills, "it changed what was there");
    assert!(expected.acknowledged.values().filter(|value| **value > 0).count() > 10);
}
