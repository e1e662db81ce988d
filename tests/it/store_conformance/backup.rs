//! Backups: a store's file made from any store's stream holds all that the store does, and is well.

use mesophyll::store::backup::{Exported, FrameReader, Totals, pieces};
use mesophyll::store::global::{GlobalAddress, GlobalChange};
use mesophyll::store::redb::{RedbStore, Restore, check};
use mesophyll::store::{DbState, Standing, Store};
use mesophyll::wire::data::{
    CreateGlobalKv, EncodedJson, GlobalKeyValueOp, TenantState, TimerOp, TimerWhen,
};

use super::{OTHER, TENANT};
use crate::support::TempDir;
use crate::support::db::{Door, Kept, TestDb, Typed, text};

every_database! {
    a_backup_holds_everything,
    a_backup_is_of_the_moment_at_which_it_began,
}

/// Everything there is, in an order of its own.
fn all(
    store: impl Iterator<Item = Result<Exported, mesophyll::base::error::DbError>>,
) -> Vec<String> {
    let mut all: Vec<String> = store.map(|one| format!("{:?}", one.expect("readable"))).collect();
    all.sort();
    all
}

/// Bytes instead of their number, so that two values can be told apart.
fn values(state: &DbState) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for one in state.export().expect("begun") {
        if let Exported::Record { record, .. } = one.expect("readable") {
            values.push(record.value.into_bytes());
        }
    }
    values.sort();
    values
}

fn fill(db: &TestDb) {
    let data =
        mesophyll::wire::pack::plain::check(b"\x81\xa1a\xcb?\xf8\x00\x00\x00\x00\x00\x00".to_vec())
            .expect("plain JSON");
    let state = TenantState { events: ["A".to_owned(), "B".to_owned()].into(), data };
    db.state.set_tenant_state(TENANT, &state).expect("set");
    db.state.set_standing(TENANT, Standing::Banned).expect("banned");
    db.state.set_standing(OTHER, Standing::Banned).expect("banned without a state");
    for number in 0..300 {
        db.put(&format!("key {number}"), &["s", "t"], &"x".repeat(number * 5));
    }
    db.put("key 1", &["s"], "another set of scopes");
    db.put("KEY 1", &["t", "s"], "another case");
    db.put("key 1", &["s", "t"], "set again");
    db.delete("key 2", &["s", "t"]);
    db.tenants
        .kv_set(OTHER, super::scopes(&["#x"]), "ключ".to_owned(), text("\u{10ffff}"))
        .expect("set");
    let entry = |key: &str, version| CreateGlobalKv {
        key: key.to_owned(),
        version,
        short: "one line".to_owned(),
        public_metadata: EncodedJson::null(),
        scope: "tags".to_owned(),
        public_data: version == 1,
        long: (version == 2).then(|| "many lines".to_owned()),
        data: EncodedJson::null(),
    };
    for version in [-1, 1, 2] {
        db.tenants
            .global_kv(TENANT, GlobalKeyValueOp::Create { entry: entry("a.tag", version) })
            .expect("published");
    }
    db.state.add_staff_entry("someone", entry("a.thing", 1)).expect("published");
    let at = |key: &str, version| GlobalAddress {
        scope: "tags".to_owned(),
        key: key.to_owned(),
        version,
    };
    db.state.global_change(at("a.thing", 1), GlobalChange::Price(Some(500))).expect("priced");
    db.state
        .global_change(at("a.thing", 1), GlobalChange::Review("approved".to_owned()))
        .expect("reviewed");
    db.state.global_purchase(OTHER, at("a.thing", 1)).expect("purchased");
    db.state.global_purchase(TENANT, at("a.tag", -1)).expect("purchased");
    db.state.global_remove(at("a.tag", -1)).expect("removed; its purchase stays");
    for (id, when) in [("a", TimerWhen::After(1 << 40)), ("b", TimerWhen::Every("60".to_owned()))] {
        let (id, name) = (id.to_owned(), "Remind".to_owned());
        let op = TimerOp::Set { id, name, when, data: text("of it") };
        db.state.timers(TENANT, op).expect("made");
    }
}

fn a_backup_holds_everything(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    fill(&db);
    let folder = TempDir::new();
    let file = folder.path().join("backup.redb");
    let stream: Vec<u8> = pieces(db.state.export().expect("begun")).flatten().collect();
    let mut frames = FrameReader::new(&stream[..]);
    let mut restore = Restore::begin(&file).expect("begun");
    while let Some(one) = frames.next().expect("a whole backup") {
        restore.add(one).expect("added");
    }
    let totals = Totals { states: 2, records: 302, entries: 3, purchases: 2, timers: 2 };
    assert_eq!(frames.seen(), totals);
    assert!(!file.exists(), "not before it is whole");
    restore.finish().expect("finished");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1,
        "and nothing beside it"
    );
    assert_eq!(check(&file), Ok(Vec::new()));
    let restored = RedbStore::open(&file).expect("opened");
    assert_eq!(all(restored.export().expect("begun")), all(db.state.export().expect("begun")));
    assert_eq!(restored.kv_usage(TENANT), db.state.kv_usage(TENANT));
    assert_eq!(restored.kv_list_scopes(TENANT), db.state.kv_list_scopes(TENANT));
    assert_eq!(restored.timers(TENANT), db.state.timers_of(TENANT));
    restored.close();
    let restored = DbState::new(
        std::sync::Arc::new(RedbStore::open(&file).expect("opened")),
        Default::default(),
    );
    let restored = restored.expect("readable");
    assert_eq!(values(&restored), values(&db.state));
    assert_eq!((restored.standing(TENANT), restored.tenant_state(OTHER)), (Standing::Banned, None));
    assert!(Restore::begin(&file).is_err(), "a backup never takes another's place");
}

fn a_backup_is_of_the_moment_at_which_it_began(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    fill(&db);
    let before = all(db.state.export().expect("begun"));
    let mut export = db.state.export().expect("begun");
    let first = export.next().expect("something");
    // While it is read, everything changes.
    for number in 0..300 {
        db.put(&format!("key {number}"), &["s", "t"], "changed");
        db.put(&format!("new {number}"), &["s"], "new");
    }
    db.delete("key 299", &["s", "t"]);
    db.state.set_standing(TENANT, Standing::Good).expect("lifted");
    assert_eq!(all(std::iter::once(first).chain(export)), before);
    assert_ne!(all(db.state.export().expect("begun")), before);
}
