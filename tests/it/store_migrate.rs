//! `mesophyll migrate`, and what a database must be to be opened: with the tables of an existing
//! template-worker too.

use std::process::Command;

use mesophyll::store::backup::{Exported, FrameReader, StreamError, Totals, pieces};
use mesophyll::store::global::{GlobalAddress, GlobalChange};
use mesophyll::store::redb::{Restore, check};
use mesophyll::store::{self, DbOptions, DbState, Migrated, OpenError, Standing, StoreUrl};
use mesophyll::wire;
use mesophyll::wire::data::sharding::Shard;
use mesophyll::wire::data::{KhronosValue, KvRecord, Scopes, TenantId};

use crate::support::TempDir;
use crate::support::db::{Typed, text};
use crate::support::postgres::{Locale, Schema, is_there, on};
use crate::support::process::eventually;

const TENANT: TenantId = TenantId::Guild(1);

/// The tables of a template-worker of January 2026, with rows as it writes them.
const REFERENCE: &str = r#"
CREATE TABLE tenant_state (owner_id TEXT NOT NULL, owner_type TEXT NOT NULL, events TEXT[] NOT NULL DEFAULT '{}',
    banned BOOLEAN NOT NULL DEFAULT FALSE, data JSONB NOT NULL DEFAULT '{}', PRIMARY KEY (owner_id, owner_type));
CREATE TABLE tenant_kv (id TEXT PRIMARY KEY, owner_id TEXT NOT NULL, owner_type TEXT NOT NULL DEFAULT 'guild',
    key TEXT NOT NULL, value JSONB, scopes TEXT[] NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    last_updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), UNIQUE (owner_id, owner_type, key, scopes));
CREATE INDEX tenant_kv_scopes_idx ON tenant_kv USING GIN (scopes);
CREATE TABLE global_kv (key TEXT NOT NULL, version INT NOT NULL, owner_id TEXT NOT NULL, owner_type TEXT NOT NULL,
    price INT NULL, short TEXT NOT NULL, long TEXT NULL, public_metadata JSONB NOT NULL, data JSONB NOT NULL,
    public_data BOOLEAN NOT NULL DEFAULT FALSE, scope TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    last_updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), review_state TEXT NOT NULL DEFAULT 'pending',
    PRIMARY KEY (key, version, scope), CHECK (price IS NULL OR owner_type = 'staff'));
INSERT INTO tenant_state (owner_id, owner_type, events, banned, data) VALUES
    ('1', 'guild', '{MESSAGE_CREATE,A,A}', false, '{"b": 1e20, "a": [1.0, "x"]}'), ('2', 'user', '{}', true, '{}'),
    ('nonsense', 'guild', '{}', true, '{}');
INSERT INTO tenant_kv (id, owner_id, owner_type, key, value, scopes, created_at, last_updated_at) VALUES
    ('r1', '1', 'guild', 'unsorted', '{"Text": "x"}', '{b,a}', '2026-01-02T03:04:05.123456Z', '2026-01-02T03:04:05.123457Z'),
    ('r2', '1', 'guild', 'twice', '{"Integer": 1}', '{b,a}', '2026-01-01', '2026-01-01'),
    ('r3', '1', 'guild', 'twice', '{"Integer": 3}', '{a,b}', '2026-01-01', '2026-01-03'),
    ('r4', '1', 'guild', 'twice', '{"Integer": 2}', '{b,a,b}', '2026-01-01', '2026-01-02'),
    ('r5', '1', 'guild', 'map', '{"Map": [[{"Text": "k"}, {"Float": 2}], ["Null", {"Interval": [-1, 500000000]}]]}', '{c}',
        '2026-01-01', '2026-01-01'),
    ('r6', '9', 'guild', 'bad', '"of another kind"', '{c}', '2026-01-01', '2026-01-01');
INSERT INTO global_kv (key, version, owner_id, owner_type, price, short, public_metadata, data, scope, review_state) VALUES
    ('paid', 1, '0', 'staff', 5, 'short', '{"z": 1, "a": null}', '[1, 2.5]', 'tags', 'approved');
"#;

fn find(db: &DbState, tenant: TenantId, scopes: &[&str]) -> Vec<KvRecord> {
    db.kv_find(tenant, Scopes::new(scopes.iter().copied()), "%").expect("found")
}

fn open(schema: &Schema) -> DbState {
    let store = store::open(&schema.store_url()).expect("opened");
    DbState::new(store, DbOptions::default()).expect("readable")
}

#[test]
fn a_template_workers_database_moves_into_a_file() {
    if !is_there("a_template_workers_database_moves_into_a_file") {
        return;
    }
    let schema = Schema::empty(Locale::Utf8);
    on(schema.url(), REFERENCE);
    store::migrate(&schema.store_url()).expect("migrated");
    on(
        schema.url(),
        "INSERT INTO tenant_kv VALUES ('r7', '5', 'role', 'k', '{\"Integer\": 1}', '{c}')",
    );
    let folder = TempDir::new();
    let file = folder.path().join("moved.redb");
    let store = store::open(&schema.store_url()).expect("opened");
    let back_up = || -> Result<Totals, StreamError> {
        let stream: Vec<u8> = pieces(store.export().expect("begun")).flatten().collect();
        let mut frames = FrameReader::new(&stream[..]);
        let mut restore = Restore::begin(&file).expect("begun");
        while let Some(one) = frames.next()? {
            restore.add(one).expect("added");
        }
        restore.finish().expect("finished");
        Ok(frames.seen())
    };
    // What cannot be read is not left out in silence.
    assert!(matches!(back_up(), Err(StreamError::Store(_))));
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0,
        "nothing is left of it"
    );
    on(schema.url(), "DELETE FROM tenant_kv WHERE id = 'r6'");
    let totals = back_up().expect("whole, without what belongs to no tenant");
    assert_eq!(totals, Totals { states: 2, records: 5, entries: 1, purchases: 0, timers: 0 });
    assert_eq!(check(&file), Ok(Vec::new()));
    let moved = store::open(&StoreUrl::Redb(file)).expect("opened");
    let db = DbState::new(moved, DbOptions::default()).expect("readable");
    let before = open(&schema);
    assert_eq!(
        find(&db, TENANT, &[]),
        find(&before, TENANT, &[]),
        "of several rows with one set the newest"
    );
    assert_eq!(db.tenant_state(TENANT), before.tenant_state(TENANT));
    assert_eq!(db.standing(TenantId::User(2)), Standing::Banned);
    let at = GlobalAddress { scope: "tags".to_owned(), key: "paid".to_owned(), version: 1 };
    assert_eq!(db.global_entry(&at), before.global_entry(&at));
}

#[test]
fn a_template_workers_database_is_used_as_it_is() {
    if !is_there("a_template_workers_database_is_used_as_it_is") {
        return;
    }
    let schema = Schema::empty(Locale::Utf8);
    on(schema.url(), REFERENCE);
    let missing = store::open(&schema.store_url()).err();
    assert_eq!(missing, Some(OpenError::NotMigrated("global_kv_purchases")));
    assert_eq!(store::migrate(&schema.store_url()), Ok(Migrated::Made));
    assert_eq!(store::migrate(&schema.store_url()), Ok(Migrated::Nothing));
    let db = open(&schema);
    let state = db.tenant_state(TENANT).expect("there");
    assert_eq!(state.events.iter().collect::<Vec<_>>(), ["A", "MESSAGE_CREATE"]);
    let data = wire::json::json_from_encoded(&state.data).expect("JSON");
    assert_eq!(data, r#"{"a":[1.0,"x"],"b":1e20}"#);
    assert_eq!(db.standing(TenantId::User(2)), Standing::Banned);
    // Scopes are sets.
    let record =
        db.kv_get(TENANT, Scopes::new(["a", "b"]), "unsorted").expect("got").expect("there");
    assert_eq!((record.id.as_str(), &record.value), ("r1", &text("x")));
    assert_eq!(record.scopes, ["a", "b"]);
    assert_eq!(
        record.created_at.map(|time| time.to_string()).as_deref(),
        Some("2026-01-02T03:04:05.123456Z")
    );
    assert_eq!(
        record.last_updated_at.map(|time| time.to_string()).as_deref(),
        Some("2026-01-02T03:04:05.123457Z")
    );
    // Of several rows with one set the newest is the record, everywhere.
    let three = wire::pack::value::encode(&KhronosValue::Integer(3));
    assert_eq!(
        db.kv_get(TENANT, Scopes::new(["b", "a"]), "twice").expect("got").expect("there").value,
        three
    );
    let found = find(&db, TENANT, &["a"]);
    assert_eq!(found.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["r3", "r1"]);
    assert_eq!(db.kv_list_scopes(TENANT), Ok(["a", "b", "c"].map(str::to_owned).to_vec()));
    assert_eq!(db.kv_usage(TENANT).map(|usage| usage.records), Ok(3));
    // Written, and deleted for good.
    db.kv_set(TENANT, Scopes::new(["b", "a"]), "unsorted".to_owned(), text("y")).expect("set");
    let again =
        db.kv_get(TENANT, Scopes::new(["a", "b"]), "unsorted").expect("got").expect("there");
    assert_eq!(
        (again.id, again.created_at, &again.value),
        (record.id, record.created_at, &text("y"))
    );
    db.kv_delete(TENANT, Scopes::new(["a", "b"]), "twice".to_owned()).expect("deleted");
    assert_eq!(find(&db, TENANT, &["a"]).len(), 1, "no older row comes back");
    assert_eq!(db.kv_usage(TENANT).map(|usage| usage.records), Ok(2));
    // A row that nobody can read is an error of its own tenant.
    assert!(db.kv_get(TenantId::Guild(9), Scopes::new(["c"]), "bad").is_err());
    let at = GlobalAddress { scope: "tags".to_owned(), key: "paid".to_owned(), version: 1 };
    let entry = db.global_get(Some(TENANT), &at).expect("got").expect("there");
    assert_eq!(
        (entry.partial.price, entry.partial.public_metadata.as_bytes()),
        (Some(5), &b"\x82\xa1a\xc0\xa1z\x01"[..])
    );
    db.global_change(at.clone(), GlobalChange::Price(Some(6))).expect("an int column");
    let too_much = db.global_change(at.clone(), GlobalChange::Price(Some(i64::MAX)));
    assert!(too_much.is_err(), "its column is an int");
    assert_eq!(db.global_get(None, &at).expect("got").expect("there").partial.price, Some(6));
    db.close();
}

#[test]
fn a_row_without_a_value_of_ours_is_in_nobody_s_way() {
    if !is_there("a_row_without_a_value_of_ours_is_in_nobody_s_way") {
        return;
    }
    let schema = Schema::empty(Locale::Utf8);
    on(schema.url(), REFERENCE);
    store::migrate(&schema.store_url()).expect("migrated");
    on(
        schema.url(),
        r#"INSERT INTO tenant_kv (id, owner_id, key, value, scopes, last_updated_at) VALUES
            ('n1', '77', 'null', NULL, '{"null"}', DEFAULT), ('n2', '77', 'bad', '{"What": 1}', '{bad}', 'infinity'),
            ('', '77', 'without an id', '{"Integer": 1}', '{s}', DEFAULT)"#,
    );
    let (db, tenant) = (open(&schema), TenantId::Guild(77));
    let get = |key: &str| db.kv_get(tenant, Scopes::new([key]), key);
    // The column may be NULL.
    let record = get("null").expect("got").expect("there");
    assert_eq!(record.value, wire::pack::value::encode(&KhronosValue::Null));
    assert!(get("bad").is_err(), "nobody can say what it is");
    assert_eq!(db.kv_usage(tenant).map(|usage| usage.records), Ok(3));
    // The tenant's other records are written all the same, and so is the one itself.
    db.kv_set(tenant, Scopes::new(["s"]), "k".to_owned(), text("x")).expect("set");
    db.kv_set(tenant, Scopes::new(["bad"]), "bad".to_owned(), text("mended")).expect("set");
    assert_eq!(get("bad").expect("got").expect("there").value, text("mended"));
    on(schema.url(), r#"UPDATE tenant_kv SET value = '[]' WHERE id = 'n2'"#);
    db.kv_delete(tenant, Scopes::new(["bad"]), "bad".to_owned()).expect("deleted");
    assert_eq!(get("bad"), Ok(None));
    db.kv_delete(tenant, Scopes::new(["null"]), "null".to_owned()).expect("deleted");
    let found: Vec<String> =
        find(&db, tenant, &["s"]).into_iter().map(|record| record.key).collect();
    assert_eq!(found, ["k", "without an id"]);
    assert_eq!(db.kv_usage(tenant).map(|usage| usage.records), Ok(2));
    // All of them are in a backup, too, once the template-worker's own unreadable row is mended.
    on(schema.url(), "UPDATE tenant_kv SET value = '\"Null\"' WHERE id = 'r6'");
    let exported = db.export().expect("begun").map(|one| one.expect("readable"));
    let of_tenant =
        |one: &Exported| matches!(one, Exported::Record { tenant: of, .. } if *of == tenant);
    assert_eq!(exported.filter(of_tenant).count(), 2);
    db.close();
}

#[test]
fn a_ban_needs_no_state_and_leaves_none_behind() {
    if !is_there("a_ban_needs_no_state_and_leaves_none_behind") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    for standing in [Standing::Banned, Standing::Good] {
        let db = open(&schema);
        db.set_standing(TENANT, standing).expect("set");
        db.close();
        let again = open(&schema);
        assert_eq!((again.tenant_state(TENANT), again.standing(TENANT)), (None, standing));
        again.close();
    }
}

#[test]
fn a_newer_or_foreign_database_is_left_alone() {
    if !is_there("a_newer_or_foreign_database_is_left_alone") {
        return;
    }
    let open = |schema: &Schema| store::open(&schema.store_url()).err();
    let newer = Schema::migrated(Locale::C);
    on(newer.url(), "UPDATE mesophyll_layout SET version = 7");
    assert_eq!(open(&newer), Some(OpenError::Newer { found: 7, known: 3 }));
    assert_eq!(store::migrate(&newer.store_url()), Err(OpenError::Newer { found: 7, known: 3 }));
    let foreign = Schema::empty(Locale::C);
    on(foreign.url(), "CREATE TABLE tenant_kv (scopes text[])");
    assert_eq!(store::migrate(&foreign.store_url()), Err(OpenError::Foreign("tenant_kv")));
    // All or nothing.
    assert_eq!(open(&foreign), Some(OpenError::NotMigrated("tenant_state")));
}

/// What a database of layout 1 has not.
const BACK_TO_LAYOUT_1: &str = "DROP INDEX tenant_state_shard; DROP FUNCTION mesophyll_shard_of;
    DROP TABLE mesophyll_cluster, mesophyll_master, mesophyll_shard, mesophyll_timer; DROP FUNCTION mesophyll_fence;
    DROP FUNCTION mesophyll_take; DROP FUNCTION mesophyll_give; UPDATE mesophyll_layout SET version = 1";

#[test]
fn layout_1_is_upgraded_when_no_master_runs() {
    if !is_there("layout_1_is_upgraded_when_no_master_runs") {
        return;
    }
    let schema = Schema::alone();
    let tenants = [TENANT, TenantId::User(u64::MAX - 1), TenantId::Guild(175_928_847_299_117_063)];
    let db = open(&schema);
    for tenant in tenants {
        db.kv_set(tenant, Scopes::new(["s"]), "k".to_owned(), text("x")).expect("set");
        db.set_standing(tenant, Standing::Banned).expect("set");
    }
    on(
        schema.url(),
        "INSERT INTO tenant_state (owner_id, owner_type) VALUES ('nonsense', 'guild')",
    );
    on(schema.url(), BACK_TO_LAYOUT_1);
    let old = store::open(&schema.store_url()).err();
    assert_eq!(old, Some(OpenError::NotMigrated("mesophyll_cluster")));
    // A store that is open is a master's.
    let refused = store::migrate(&schema.store_url()).expect_err("a master runs").to_string();
    assert!(refused.contains("stop all masters"), "{refused}");
    db.close();
    let named = StoreUrl::Postgres(format!("{}&application_name=bots", schema.url()));
    let master = store::open(&named).err();
    assert_eq!(master, Some(OpenError::NotMigrated("mesophyll_cluster")));
    let mut master = postgres::Client::connect(
        &format!("{}&application_name=bots", schema.url()),
        postgres::NoTls,
    )
    .expect("connected");
    assert!(store::migrate(&named).is_err(), "found by the name in the URL");
    master.batch_execute("SELECT 1").expect("still connected");
    drop(master);
    let migrated = eventually("the connections have ended", || store::migrate(&named).ok());
    assert_eq!(migrated, Migrated::Made);
    assert_eq!(store::migrate(&named), Ok(Migrated::Nothing));
    let db = open(&schema);
    for tenant in tenants {
        assert_eq!(find(&db, tenant, &[]).len(), 1);
        assert_eq!(db.standing(tenant), Standing::Banned);
        let mut client =
            postgres::Client::connect(schema.url(), postgres::NoTls).expect("connected");
        let shard: i32 = client
            .query_one("SELECT mesophyll_shard_of($1)", &[&tenant.snowflake().to_string()])
            .expect("a row")
            .get(0);
        assert_eq!(shard, i32::from(Shard::of(tenant).number()));
    }
    db.close();
}

#[test]
fn layout_2_gets_a_table_of_timers() {
    if !is_there("layout_2_gets_a_table_of_timers") {
        return;
    }
    let schema = Schema::alone();
    on(schema.url(), "DROP TABLE mesophyll_timer; UPDATE mesophyll_layout SET version = 2");
    let old = store::open(&schema.store_url()).err();
    assert_eq!(old, Some(OpenError::NotMigrated("mesophyll_timer")));
    assert_eq!(store::migrate(&schema.store_url()), Ok(Migrated::Made));
    let db = open(&schema);
    assert_eq!(db.timers_of(TENANT), Ok(Vec::new()));
    db.close();
}

#[test]
fn the_command_says_what_to_run_and_never_a_password() {
    if !is_there("the_command_says_what_to_run_and_never_a_password") {
        return;
    }
    let run = |command: &str, url: &str| {
        let mut binary = Command::new(env!("CARGO_BIN_EXE_mesophyll"));
        binary.args([command, "--store", url]);
        if command == "master" {
            binary.args(["--mode", "thread-pool", "--workers", "1", "--api", "off"]);
        }
        let output = binary.output().expect("the binary runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("hunter2"), "{said}");
        (output.status.code(), said)
    };
    let schema = Schema::empty(Locale::C);
    let url = schema.url().replacen("postgres@", "postgres:hunter2@", 1);
    if cfg!(feature = "luau") {
        let (code, said) = run("master", &url);
        assert!(
            code == Some(4) && said.contains("mesophyll migrate --store postgres://"),
            "{code:?} {said}"
        );
    }
    let (code, said) = run("migrate", &url);
    assert!(code == Some(0) && said.contains("ready"), "{code:?} {said}");
    assert_eq!(run("migrate", &url).0, Some(0), "twice is once");
    for (url, code) in [
        ("postgres://me:hunter2@127.0.0.1:1/db", 4),
        ("postgres://me:hunter2@127.0.0.1/db?sslmode=prefer", 3),
        ("postgres://me:hunter2@127.0.0.1/db?nonsense=1", 3),
        ("memory:", 3),
        ("mysql://hunter2", 3),
    ] {
        assert_eq!(run("migrate", url).0, Some(code), "{url}");
    }
    assert!(matches!("postgres://x".parse(), Ok(StoreUrl::Postgres(_))));
}
