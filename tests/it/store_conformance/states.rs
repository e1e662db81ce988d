//! Tenant states, and whose tenants are whose.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesophyll::base::error::DbError;
use mesophyll::store::global::{GlobalAddress, GlobalChange};
use mesophyll::store::{DbOptions, DbState, Usage};
use mesophyll::wire;
use mesophyll::wire::data::sharding::{Shard, ShardSet};
use mesophyll::wire::data::{
    CreateGlobalKv, EncodedJson, GlobalKeyValueOp, GlobalKvData, TenantId, TenantState,
};

use super::{OTHER, TENANT, scopes};
use crate::support::TempDir;
use crate::support::db::{Door, Kept, TestDb, Typed, open, refusal, text};

every_database! {
    tenant_states_come_back_canonical,
    negative_zero_in_plain_json_is_stored_as_zero,
    tenant_states_at_and_over_the_limit,
    states_of_shards_are_read_and_forgotten,
    a_worker_gets_the_states_of_its_own_tenants,
    the_tenants_of_other_workers_are_forbidden,
}

fn tenant_states_come_back_canonical(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let states = || db.tenants.tenant_states().expect("listed");
    assert!(states().is_empty());
    let state = |events: &[&str], data: &[u8]| TenantState {
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        data: wire::pack::plain::check(data.to_vec()).expect("plain JSON"),
    };
    let unsorted = b"\x82\xa1b\xcd\x00\x01\xa1a\x92\xc3\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00";
    let sorted = b"\x82\xa1a\x92\xc3\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xa1b\x01";
    db.tenants.set_tenant_state(TENANT, state(&["B", "A"], unsorted)).expect("set");
    db.tenants.set_tenant_state(OTHER, state(&[], b"\xc0")).expect("set");
    let got = states();
    assert_eq!(got.len(), 2);
    assert_eq!(got.get(&TENANT), Some(&state(&["A", "B"], sorted)));
    assert_eq!(got.get(&OTHER), Some(&state(&[], b"\xc0")));
    db.tenants.set_tenant_state(TENANT, state(&["C"], b"\x80")).expect("set");
    assert_eq!(states().get(&TENANT), Some(&state(&["C"], b"\x80")));
    assert_eq!(db.state.tenant_state(TENANT).as_deref(), Some(&state(&["C"], b"\x80")));
}

fn states_of_shards_are_read_and_forgotten(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    let tenants: Vec<_> = [0, 7, 508, 509, (1 << 42) - 1]
        .into_iter()
        .flat_map(|time| [TenantId::Guild(time << 22), TenantId::User((time << 22) + 1)])
        .collect();
    for tenant in &tenants {
        db.state.set_tenant_state(*tenant, &state).expect("set");
    }
    let other = DbState::without_states(Arc::clone(&db.store), DbOptions::default());
    let known = || -> Vec<_> {
        tenants.iter().filter(|tenant| other.tenant_state(**tenant).is_some()).copied().collect()
    };
    assert_eq!(known(), []);
    let of = |shards: &[u16]| shards.iter().copied().filter_map(Shard::new).collect::<ShardSet>();
    let held = |shards: &[u16]| -> Vec<_> {
        let is_held = |tenant: &&TenantId| shards.contains(&Shard::of(**tenant).number());
        tenants.iter().filter(is_held).copied().collect()
    };
    assert_eq!(other.load_shards(&of(&[])), Ok(()));
    assert_eq!(known(), []);
    assert_eq!(other.load_shards(&of(&[0, 508])), Ok(()));
    assert_eq!((known(), known().len()), (held(&[0, 508]), 6));
    other.forget_shards(&of(&[508]));
    assert_eq!(known(), held(&[0]));
    assert_eq!(other.load_shards(&ShardSet::full()), Ok(()));
    assert_eq!(known(), tenants);
    other.forget_shards(&ShardSet::full());
    assert_eq!(known(), []);
}

/// What the cache says is what the store gives back: a master that starts again sees the same.
fn negative_zero_in_plain_json_is_stored_as_zero(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    // As 8 bytes, as 4, and in an object.
    let json = |sign: u8| {
        let bytes = [
            &[0x93, 0xcb, sign][..],
            &[0; 7],
            &[0x81, 0xa1, b'z', 0xcb, sign],
            &[0; 7],
            b"\xcb\xbf\xf8",
            &[0; 6],
        ];
        wire::pack::plain::check(bytes.concat()).expect("plain JSON")
    };
    let short = wire::pack::plain::check(vec![0xca, 0x80, 0, 0, 0]).expect("plain JSON");
    let zero = wire::pack::plain::check([&[0xcb][..], &[0; 8]].concat()).expect("plain JSON");
    let set = |tenant, data| {
        db.tenants.set_tenant_state(tenant, TenantState { events: BTreeSet::new(), data })
    };
    set(TENANT, json(0x80)).expect("set");
    set(OTHER, short.clone()).expect("set");
    let states = db.tenants.tenant_states().expect("listed");
    assert_eq!((&states[&TENANT].data, &states[&OTHER].data), (&json(0), &zero));
    let again = DbState::new(Arc::clone(&db.store), DbOptions::default()).expect("readable");
    assert_eq!(again.tenant_state(TENANT).map(|state| state.data.clone()), Some(json(0)));
    assert_eq!(again.tenant_state(OTHER).map(|state| state.data.clone()), Some(zero.clone()));
    let entry = CreateGlobalKv {
        key: "zero".to_owned(),
        version: 1,
        short: String::new(),
        public_metadata: json(0x80),
        scope: "tags".to_owned(),
        public_data: true,
        long: None,
        data: short,
    };
    db.tenants.global_kv(TENANT, GlobalKeyValueOp::Create { entry }).expect("published");
    let at = GlobalAddress { scope: "tags".to_owned(), key: "zero".to_owned(), version: 1 };
    db.state.global_change(at, GlobalChange::Review("approved".to_owned())).expect("reviewed");
    let got = db
        .tenants
        .global_kv_get(TENANT, "zero".to_owned(), 1, "tags".to_owned())
        .expect("read")
        .expect("there");
    assert_eq!(got.partial.public_metadata, json(0));
    assert_eq!(got.data, GlobalKvData::Value { data: zero, opaque: false });
}

fn tenant_states_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let names =
        |count: usize| (0..count).map(|number| format!("EVENT_{number}")).collect::<BTreeSet<_>>();
    let set = |events, data: Vec<u8>| {
        let data = wire::pack::plain::check(data).expect("plain JSON");
        db.tenants.set_tenant_state(TENANT, TenantState { events, data })
    };
    let nested = |depth: usize| [vec![0x91; depth - 1], vec![0x90]].concat();
    set(names(1024), nested(32)).expect("at the limits");
    refusal(set(names(1025), vec![0xc0]));
    refusal(set(names(0), nested(33)));
    refusal(set(["E".repeat(513)].into(), vec![0xc0]));
    refusal(set(["E\0".to_owned()].into(), vec![0xc0]));
    refusal(set(names(0), b"\xa1\0".to_vec()));
    refusal(set(names(0), b"\x81\xa1\0\xc0".to_vec()));
    refusal(set(names(0), [&[0xcb][..], &f64::NAN.to_be_bytes()].concat()));
    refusal(set(names(0), [&[0xcb][..], &f64::INFINITY.to_be_bytes()].concat()));
    let large = |bytes: usize| {
        [&[0xdb][..], &(bytes as u32 - 5).to_be_bytes(), &vec![b'x'; bytes - 5]].concat()
    };
    set(names(0), large(256 * 1024)).expect("at the limit");
    refusal(set(names(0), large(256 * 1024 + 1)));
    assert_eq!(db.tenants.tenant_states().map(|states| states[&TENANT].events.len()), Ok(0));
}

fn a_worker_gets_the_states_of_its_own_tenants(kept: Kept, door: Door) {
    let db = TestDb::with(kept, door, DbOptions::default(), 3);
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    for number in 0..30_u64 {
        let tenant = if number % 2 == 0 {
            TenantId::Guild(number << 22)
        } else {
            TenantId::User(number << 22)
        };
        db.state.set_tenant_state(tenant, &state).expect("set");
    }
    let states = db.tenants.tenant_states().expect("listed");
    assert_eq!(states.len(), 10);
    assert!(states.keys().all(|tenant| (tenant.snowflake() >> 22) % 3 == 0));
}

fn the_tenants_of_other_workers_are_forbidden(kept: Kept, door: Door) {
    let db = TestDb::with(kept, door, DbOptions::default(), 2);
    let foreign = TenantId::Guild(1 << 22);
    let state = TenantState { events: BTreeSet::new(), data: EncodedJson::null() };
    let forbidden = |result: Result<(), DbError>| {
        assert!(matches!(result, Err(DbError::Forbidden(_))), "{result:?}")
    };
    forbidden(db.tenants.kv_get(foreign, scopes(&["s"]), "k".to_owned()).map(drop));
    forbidden(db.tenants.kv_set(foreign, scopes(&["s"]), "k".to_owned(), text("v")));
    forbidden(db.tenants.kv_delete(foreign, scopes(&["s"]), "k".to_owned()));
    forbidden(db.tenants.kv_find(foreign, scopes(&["s"]), "%".to_owned()).map(drop));
    forbidden(db.tenants.kv_list_scopes(foreign).map(drop));
    forbidden(db.tenants.set_tenant_state(foreign, state));
    let op =
        GlobalKeyValueOp::Delete { key: "abc".to_owned(), version: 1, scope: "tags".to_owned() };
    forbidden(db.tenants.global_kv(foreign, op));
    forbidden(db.tenants.global_kv_get(foreign, "abc".to_owned(), 1, "tags".to_owned()).map(drop));
    assert_eq!(db.state.kv_usage(foreign), Ok(Usage::default()));
    assert_eq!(db.state.tenant_state(foreign), None);
}

#[test]
fn a_redb_file_gives_back_what_was_in_it() {
    let folder = TempDir::new();
    let file = folder.path().join("store.redb");
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    let db = open(Kept::InRedb, &file, DbOptions::default());
    db.set_tenant_state(TENANT, &state).expect("set");
    db.kv_set(TENANT, scopes(&["s"]), "Key".to_owned(), text("v")).expect("set");
    let record = db.kv_get(TENANT, scopes(&["s"]), "Key").expect("got");
    assert!(record.is_some());
    db.close();
    let again = open(Kept::InRedb, &file, DbOptions::default());
    assert_eq!(again.tenant_state(TENANT).as_deref(), Some(&state));
    assert_eq!(again.kv_get(TENANT, scopes(&["s"]), "Key"), Ok(record));
    assert_eq!(again.kv_list_scopes(TENANT), Ok(vec!["s".to_owned()]));
    assert_eq!(again.kv_usage(TENANT).map(|usage| usage.records), Ok(1));
}
