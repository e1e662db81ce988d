//! What every database must do, whatever store it is over and whatever door it is reached through. Each case runs once
//! for each of them, on a new database.

use std::collections::BTreeSet;

use mesophyll::error::DbError;
use mesophyll::limits::{KV_FIND_MAX_RECORDS, KV_VALUE_MAX_BYTES};
use mesophyll::model::{
    EncodedJson, EncodedValue, Interval, KhronosValue, KvRecord, Scopes, TenantId, TenantState, Timestamp,
};
use mesophyll::store::{DbOptions, Quota, Usage};
use mesophyll::wire;

use crate::support::db::{Door, Kept, TestDb, refusal, text};

const TENANT: TenantId = TenantId::Guild(175_928_847_299_117_063);
/// The same snowflake, another tenant.
const OTHER: TenantId = TenantId::User(175_928_847_299_117_063);

macro_rules! every_database {
    ($($case:ident),* $(,)?) => {
        every_database!(@ memory_direct, InMemory, Direct, $($case),*);
        every_database!(@ memory_over_http, InMemory, Http, $($case),*);
        every_database!(@ memory_over_http_unchecked, InMemory, Unchecked, $($case),*);
        every_database!(@ redb_direct, InRedb, Direct, $($case),*);
        every_database!(@ redb_over_http, InRedb, Http, $($case),*);
        every_database!(@ redb_over_http_unchecked, InRedb, Unchecked, $($case),*);
    };
    (@ $name:ident, $kept:ident, $door:ident, $($case:ident),*) => {
        mod $name {
            $(#[test]
            fn $case() {
                super::$case(super::Kept::$kept, super::Door::$door);
            })*
        }
    };
}

every_database! {
    what_was_set_is_got,
    a_second_set_keeps_the_id_and_the_time_of_the_first,
    scopes_are_a_set_and_address_a_record_exactly,
    deleting_removes_one_record_and_what_is_not_there_is_no_error,
    scopes_are_listed_sorted_and_once,
    a_find_asks_for_scopes_to_be_contained_and_answers_in_order,
    patterns_mean_the_same_everywhere,
    a_pattern_bomb_is_just_a_pattern,
    tenants_do_not_see_each_other,
    every_kind_of_value_comes_back_byte_by_byte,
    the_golden_values_come_back_byte_by_byte,
    negative_zero_is_stored_as_zero,
    keys_at_and_over_the_limit,
    scopes_at_and_over_the_limit,
    values_at_and_over_the_limit,
    what_jsonb_cannot_keep_is_refused,
    patterns_at_and_over_the_limit,
    a_refused_set_leaves_the_record_as_it_was,
    the_quota_of_records_is_exact,
    the_quota_of_bytes_is_exact,
    a_find_answers_up_to_16_mib,
    tenant_states_come_back_canonical,
    tenant_states_at_and_over_the_limit,
    a_worker_gets_the_states_of_its_own_tenants,
    the_tenants_of_other_workers_are_forbidden,
    many_threads_lose_no_update,
}

fn scopes(scopes: &[&str]) -> Scopes {
    Scopes::new(scopes.iter().copied())
}

impl TestDb {
    fn set(&self, key: &str, of: &[&str], value: EncodedValue) -> Result<(), DbError> {
        self.tenants.kv_set(TENANT, scopes(of), key.to_owned(), value)
    }

    fn put(&self, key: &str, of: &[&str], value: &str) {
        self.set(key, of, text(value)).expect("set");
    }

    fn get(&self, key: &str, of: &[&str]) -> Option<KvRecord> {
        self.tenants.kv_get(TENANT, scopes(of), key.to_owned()).expect("got")
    }

    fn value(&self, key: &str, of: &[&str]) -> Option<EncodedValue> {
        self.get(key, of).map(|record| record.value)
    }

    fn delete(&self, key: &str, of: &[&str]) {
        self.tenants.kv_delete(TENANT, scopes(of), key.to_owned()).expect("deleted");
    }

    fn find(&self, pattern: &str, of: &[&str]) -> Result<Vec<KvRecord>, DbError> {
        self.tenants.kv_find(TENANT, scopes(of), pattern.to_owned())
    }

    fn found(&self, pattern: &str, of: &[&str]) -> Vec<(String, Vec<String>)> {
        self.find(pattern, of).expect("found").into_iter().map(|record| (record.key, record.scopes)).collect()
    }
}

fn what_was_set_is_got(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    assert_eq!(db.get("Key", &["b", "a"]), None);
    let before = Timestamp::now();
    db.put("Key", &["b", "a"], "value");
    let after = Timestamp::now();
    let record = db.get("Key", &["b", "a"]).expect("there");
    assert_eq!((record.key.as_str(), &record.value), ("Key", &text("value")));
    assert_eq!(record.scopes, ["a", "b"]);
    assert!(!record.id.is_empty());
    assert_eq!(record.created_at, record.last_updated_at);
    let created = record.created_at.expect("a time");
    assert!(before <= created && created <= after);
    assert_eq!(Timestamp::from_unix_micros(created.unix_micros()), Ok(created), "to the microsecond, no finer");
    assert_eq!(db.find("key", &["a"]), Ok(vec![record]), "a find gives the same record");
    assert_eq!(db.get("key", &["a", "b"]), None, "keys have a case");
}

fn a_second_set_keeps_the_id_and_the_time_of_the_first(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.put("k", &["s"], "first");
    let first = db.get("k", &["s"]).expect("there");
    db.put("k", &["s"], "second");
    let second = db.get("k", &["s"]).expect("there");
    assert_eq!((&second.id, second.created_at), (&first.id, first.created_at));
    assert!(second.last_updated_at > first.last_updated_at);
    assert_eq!(second.value, text("second"));
    db.delete("k", &["s"]);
    db.put("k", &["s"], "third");
    let third = db.get("k", &["s"]).expect("there");
    assert_ne!(third.id, first.id, "a new record is another one");
    db.put("other", &["s"], "x");
    assert_ne!(db.get("other", &["s"]).expect("there").id, third.id);
}

fn scopes_are_a_set_and_address_a_record_exactly(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.put("k", &["a", "b"], "ab");
    db.put("k", &["b", "a", "b", "a"], "ab again");
    db.put("k", &["a"], "a");
    db.put("k", &["a", "b", "c"], "abc");
    db.put("k", &[""], "an empty scope is a scope");
    assert_eq!(db.value("k", &["b", "a"]), Some(text("ab again")));
    assert_eq!(db.value("k", &["a", "a"]), Some(text("a")));
    assert_eq!(db.value("k", &["c", "b", "a"]), Some(text("abc")));
    assert_eq!(db.value("k", &[""]), Some(text("an empty scope is a scope")));
    assert_eq!(db.value("k", &["b"]), None);
    assert_eq!(db.value("k", &["ab"]), None);
    assert_eq!(db.found("%", &[]).len(), 4);
}

fn deleting_removes_one_record_and_what_is_not_there_is_no_error(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.put("k", &["a"], "a");
    db.put("k", &["a", "b"], "ab");
    db.put("K", &["a"], "another key");
    db.delete("k", &["b"]);
    db.delete("nothing", &["a"]);
    assert_eq!(db.found("%", &[]).len(), 3);
    db.delete("k", &["a"]);
    assert_eq!(db.value("k", &["a"]), None);
    assert_eq!(db.value("k", &["b", "a"]), Some(text("ab")));
    assert_eq!(db.value("K", &["a"]), Some(text("another key")));
    db.delete("k", &["a"]);
}

fn scopes_are_listed_sorted_and_once(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let listed = || db.tenants.kv_list_scopes(TENANT).expect("listed");
    assert_eq!(listed(), [""; 0]);
    db.put("1", &["b", "é"], "x");
    db.put("2", &["b", "a", "Z"], "x");
    db.put("2", &["b", "a", "Z"], "again");
    db.put("1", &["b"], "x");
    assert_eq!(listed(), ["Z", "a", "b", "é"]);
    db.delete("2", &["a", "b", "Z"]);
    assert_eq!(listed(), ["b", "é"]);
    db.delete("1", &["b", "é"]);
    assert_eq!(listed(), ["b"]);
    db.delete("1", &["b"]);
    assert_eq!(listed(), [""; 0]);
}

fn a_find_asks_for_scopes_to_be_contained_and_answers_in_order(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    for (key, of) in [
        ("b", &["x"][..]),
        ("B", &["x"]),
        ("a!", &["x"]),
        ("a", &["y", "x"]),
        ("a", &["x"]),
        ("a", &["xx", "x"]),
        ("é", &["x", "y", "z"]),
        ("aa", &["y"]),
        ("日", &["z"]),
    ] {
        db.put(key, of, "v");
    }
    let expect = |pattern: &str, asked: &[&str], expected: &[(&str, &[&str])]| {
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(key, of)| ((*key).to_owned(), of.iter().map(|scope| (*scope).to_owned()).collect()))
            .collect();
        assert_eq!(db.found(pattern, asked), expected, "{pattern} {asked:?}");
    };
    expect(
        "%",
        &[],
        &[
            ("B", &["x"]),
            ("a", &["x"]),
            ("a", &["x", "xx"]),
            ("a", &["x", "y"]),
            ("a!", &["x"]),
            ("aa", &["y"]),
            ("b", &["x"]),
            ("é", &["x", "y", "z"]),
            ("日", &["z"]),
        ],
    );
    expect("%", &["y", "x", "y"], &[("a", &["x", "y"]), ("é", &["x", "y", "z"])]);
    expect("a%", &["y"], &[("a", &["x", "y"]), ("aa", &["y"])]);
    expect("b", &["x"], &[("B", &["x"]), ("b", &["x"])]);
    expect("%", &["nobody has it"], &[]);
    expect("nothing", &[], &[]);
}

fn patterns_mean_the_same_everywhere(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let keys = [
        "",
        "a",
        "A",
        "ab",
        "AB",
        "aB",
        "abc",
        "a%c",
        "a_c",
        r"a\c",
        "k",
        "\u{212A}",
        "é",
        "É",
        "ß",
        "ẞ",
        "ss",
        "i",
        "İ",
        "ı",
        "σ",
        "ς",
        "Σ",
        "😀",
        "users:1",
        "Users:2",
        "USERS:10",
        "日本:1",
        "日本語",
    ];
    for key in keys.iter().skip(1) {
        db.put(key, &["s"], "v");
    }
    for (pattern, expected) in [
        ("%", &keys[1..]),
        ("%%", &keys[1..]),
        ("", &[]),
        ("a", &["a", "A"]),
        ("_", &["a", "A", "k", "\u{212A}", "é", "É", "ß", "ẞ", "i", "İ", "ı", "σ", "ς", "Σ", "😀"]),
        ("AB%", &["ab", "AB", "aB", "abc"]),
        ("%b", &["ab", "AB", "aB"]),
        ("a_c", &["abc", "a%c", "a_c", r"a\c"]),
        (r"a\_c", &["a_c"]),
        (r"a\%c", &["a%c"]),
        (r"a\\c", &[r"a\c"]),
        (r"\A\B", &["ab", "AB", "aB"]),
        ("K", &["k", "\u{212A}"]),
        ("\u{212A}", &["k", "\u{212A}"]),
        ("É", &["é", "É"]),
        ("ẞ", &["ß", "ẞ"]),
        ("SS", &["ss"]),
        ("I", &["i"]),
        ("İ", &["İ"]),
        ("Σ", &["σ", "Σ"]),
        ("ς", &["ς"]),
        ("uSeRs:%", &["users:1", "Users:2", "USERS:10"]),
        ("users:_", &["users:1", "Users:2"]),
        ("日本%", &["日本:1", "日本語"]),
        ("__", &["ab", "AB", "aB", "ss"]),
    ] {
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        let found: Vec<String> = db.found(pattern, &["s"]).into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, expected, "{pattern}");
    }
    for pattern in ["\\", "a\\", r"a\\\"] {
        refusal(db.find(pattern, &["s"]));
    }
}

// A matcher that goes back and tries again would not come to an end in our lifetime.
fn a_pattern_bomb_is_just_a_pattern(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let long = "a".repeat(512);
    db.put(&long, &["s"], "v");
    assert_eq!(db.found("%a%a%a%a%b", &["s"]), []);
    assert_eq!(db.found(&format!("{}b", "%a".repeat(500)), &["s"]), []);
    assert_eq!(db.found(&format!("{}%", "_%a".repeat(200)), &["s"]).len(), 1);
}

fn tenants_do_not_see_each_other(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.put("k", &["s"], "mine");
    db.tenants.kv_set(OTHER, scopes(&["s"]), "k".to_owned(), text("theirs")).expect("set");
    db.tenants.kv_set(OTHER, scopes(&["t"]), "k".to_owned(), text("theirs")).expect("set");
    assert_eq!(db.value("k", &["s"]), Some(text("mine")));
    assert_eq!(db.tenants.kv_list_scopes(TENANT), Ok(vec!["s".to_owned()]));
    assert_eq!(db.found("%", &[]).len(), 1);
    db.delete("k", &["s"]);
    let theirs = db.tenants.kv_find(OTHER, Scopes::default(), "%".to_owned()).expect("found");
    assert_eq!(theirs.len(), 2);
    for neighbour in [TenantId::Guild(175_928_847_299_117_062), TenantId::Guild(175_928_847_299_117_064)] {
        assert_eq!(db.tenants.kv_find(neighbour, Scopes::default(), "%".to_owned()), Ok(Vec::new()));
    }
}

fn every_kind_of_value_comes_back_byte_by_byte(kept: Kept, door: Door) {
    use KhronosValue as V;
    let db = TestDb::new(kept, door);
    let time = |text: &str| V::Timestamptz(text.parse().expect("a time"));
    let span = |secs, nanos| V::Interval(Interval::new(secs, nanos).expect("a span"));
    let values = [
        V::Text("héllo 😀".to_owned()),
        V::Text(String::new()),
        V::Integer(i64::MIN),
        V::Integer(-1),
        V::UnsignedInteger(u64::MAX),
        V::Float(f64::MIN_POSITIVE),
        V::Float(-1.5),
        V::Boolean(true),
        V::Boolean(false),
        V::Buffer((0..=255).collect()),
        V::Buffer(Vec::new()),
        V::Vector([1.0, -2.5, f32::MAX]),
        V::Map(vec![
            (V::Integer(2), V::Null),
            (V::Integer(2), V::Text("a second time".to_owned())),
            (V::List(Vec::new()), V::Map(Vec::new())),
        ]),
        V::List(vec![V::Null, V::Integer(1), V::List(vec![V::Boolean(true)])]),
        time("2024-02-29T12:34:56.123456789Z"),
        time("2016-12-31T23:59:60.500Z"),
        time("-262143-01-01T00:00:00Z"),
        span(-1, 500_000_000),
        span(90, 1),
        V::TimeZone("Europe/London".to_owned()),
        V::LazyStringMap(vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]),
        V::Null,
    ];
    for (number, value) in values.iter().enumerate() {
        let (key, encoded) = (number.to_string(), wire::value::encode(value));
        db.set(&key, &["s"], encoded.clone()).expect("set");
        let got = db.value(&key, &["s"]).expect("there");
        assert_eq!(got, encoded, "{value:?}");
        assert_eq!(wire::value::decode(&got).as_ref(), Ok(value));
    }
    assert_eq!(db.found("%", &[]).len(), values.len());
}

/// The reference's own bytes: what is storable of them comes back as it is.
fn the_golden_values_come_back_byte_by_byte(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../data/wire/vectors.json")).expect("the golden vectors are JSON");
    let mut stored = 0;
    for vector in vectors.as_array().expect("a list") {
        if vector["type"] != "KhronosValue" {
            continue;
        }
        let hex = vector["hex"].as_str().expect("a text");
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal"))
            .collect();
        let value = wire::value::check(bytes).expect("the reference's own bytes");
        match db.set("k", &["s"], value.clone()) {
            Ok(()) if vector["name"].as_str().is_some_and(|name| name.contains("-0.0")) => {}
            Ok(()) => {
                assert_eq!(db.value("k", &["s"]), Some(value), "{}", vector["name"]);
                stored += 1;
            }
            Err(error) => assert!(matches!(error, DbError::Refused(_)), "{}: {error:?}", vector["name"]),
        }
    }
    assert!(stored > 50, "{stored}");
}

fn negative_zero_is_stored_as_zero(kept: Kept, door: Door) {
    use KhronosValue as V;
    let db = TestDb::new(kept, door);
    let nested = |zero| {
        wire::value::encode(&V::Map(vec![
            (V::Float(zero), V::List(vec![V::Float(zero)])),
            (V::Null, V::Vector([zero as f32, 1.0, zero as f32])),
        ]))
    };
    db.set("k", &["s"], nested(-0.0)).expect("set");
    assert_eq!(db.value("k", &["s"]), Some(nested(0.0)));
}

fn keys_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let longest = ["k".repeat(512), "é".repeat(256), "日".repeat(170) + "kk"];
    for key in &longest {
        db.put(key, &["s"], "v");
        assert_eq!(db.value(key, &["s"]), Some(text("v")));
        db.delete(key, &["s"]);
        assert_eq!(db.value(key, &["s"]), None);
    }
    for key in ["", &"k".repeat(513), &"é".repeat(257), "a\0b", "\0"] {
        refusal(db.set(key, &["s"], text("v")));
        refusal(db.tenants.kv_get(TENANT, scopes(&["s"]), key.to_owned()));
        refusal(db.tenants.kv_delete(TENANT, scopes(&["s"]), key.to_owned()));
    }
    assert_eq!(db.found("%", &[]), []);
}

fn scopes_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let ten: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
    let eleven: Vec<&str> = ten.iter().copied().chain(["11"]).collect();
    let twice: Vec<&str> = ten.iter().chain(&ten).copied().collect();
    let (long, too_long) = ("s".repeat(512), "s".repeat(513));
    for of in [&ten[..], &twice, &[&long]] {
        db.put("k", of, "v");
        assert_eq!(db.value("k", of), Some(text("v")));
        assert_eq!(db.found("%", of).len(), 1);
    }
    assert_eq!(db.found("%", &[]).len(), 2, "twice the same ten is one record");
    for of in [&[][..], &eleven, &[&too_long], &["a\0"]] {
        refusal(db.set("k", of, text("v")));
        refusal(db.tenants.kv_get(TENANT, scopes(of), "k".to_owned()));
        refusal(db.tenants.kv_delete(TENANT, scopes(of), "k".to_owned()));
        if !of.is_empty() {
            refusal(db.find("%", of));
        }
    }
}

fn values_at_and_over_the_limit(kept: Kept, door: Door) {
    use KhronosValue as V;
    let db = TestDb::new(kept, door);
    let head = text(&"x".repeat(70_000)).as_bytes().len() - 70_000;
    let largest = text(&"x".repeat(KV_VALUE_MAX_BYTES - head));
    assert_eq!(largest.as_bytes().len(), 256 * 1024);
    db.set("k", &["s"], largest.clone()).expect("at the limit");
    assert_eq!(db.value("k", &["s"]), Some(largest));
    refusal(db.set("k", &["s"], text(&"x".repeat(KV_VALUE_MAX_BYTES - head + 1))));
    refusal(db.set("k", &["s"], text(&"x".repeat(1_500_000))));
    let nested = |depth: usize| {
        let inner = (1..depth).fold(V::List(Vec::new()), |inner, _| V::List(vec![inner]));
        wire::value::encode(&inner)
    };
    db.set("deep", &["s"], nested(32)).expect("at the limit");
    assert_eq!(db.value("deep", &["s"]), Some(nested(32)));
    refusal(db.set("deep", &["s"], nested(33)));
    refusal(db.set("deep", &["s"], nested(900)));
}

fn what_jsonb_cannot_keep_is_refused(kept: Kept, door: Door) {
    use KhronosValue as V;
    let db = TestDb::new(kept, door);
    let nul = || V::Text("a\0b".to_owned());
    for value in [
        nul(),
        V::List(vec![V::Null, nul()]),
        V::Map(vec![(nul(), V::Null)]),
        V::Map(vec![(V::Null, nul())]),
        V::LazyStringMap(vec![("\0".to_owned(), String::new())]),
        V::LazyStringMap(vec![(String::new(), "\0".to_owned())]),
        V::Float(f64::NAN),
        V::Float(f64::INFINITY),
        V::List(vec![V::Float(f64::NEG_INFINITY)]),
        V::Vector([0.0, f32::NAN, 0.0]),
        V::Vector([f32::INFINITY, 0.0, 0.0]),
    ] {
        refusal(db.set("k", &["s"], wire::value::encode(&value)));
    }
    db.set("k", &["s"], wire::value::encode(&V::Buffer(vec![0, 1]))).expect("bytes are not text");
}

fn patterns_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.put("a", &["s"], "v");
    assert_eq!(db.found(&"%".repeat(2048), &["s"]).len(), 1);
    refusal(db.find(&"%".repeat(2049), &["s"]));
    refusal(db.find("a\0", &["s"]));
}

fn a_refused_set_leaves_the_record_as_it_was(kept: Kept, door: Door) {
    let options = DbOptions { quota: Quota { records: 10, bytes: 1000 } };
    let db = TestDb::with(kept, door, options, 1);
    db.put("k", &["s"], "v");
    let before = db.get("k", &["s"]);
    refusal(db.set("k", &["s"], text(&"x".repeat(2000))));
    refusal(db.set("k", &["s"], wire::value::encode(&KhronosValue::Float(f64::NAN))));
    assert_eq!(db.get("k", &["s"]), before);
    assert_eq!(db.state.kv_usage(TENANT).map(|usage| usage.records), Ok(1));
}

fn the_quota_of_records_is_exact(kept: Kept, door: Door) {
    let options = DbOptions { quota: Quota { records: 3, bytes: 1_000_000 } };
    let db = TestDb::with(kept, door, options, 1);
    db.put("1", &["a"], "v");
    db.put("1", &["b"], "v");
    db.put("2", &["a"], "v");
    refusal(db.set("3", &["a"], text("v")));
    refusal(db.set("2", &["b"], text("v")));
    db.put("2", &["a"], "replacing is no new record");
    db.tenants.kv_set(OTHER, scopes(&["a"]), "1".to_owned(), text("v")).expect("another tenant's quota is another");
    db.delete("1", &["b"]);
    db.put("3", &["a"], "v");
    refusal(db.set("4", &["a"], text("v")));
    assert_eq!(db.found("%", &[]).len(), 3);
}

fn the_quota_of_bytes_is_exact(kept: Kept, door: Door) {
    let options = DbOptions { quota: Quota { records: 100, bytes: 1000 } };
    let db = TestDb::with(kept, door, options, 1);
    let used = || db.state.kv_usage(TENANT).expect("readable");
    // The head of a text of this size takes 9 bytes.
    let value = |bytes: usize| text(&"x".repeat(bytes - 9));
    assert_eq!(value(492).as_bytes().len(), 492);
    db.set("12345", &["abc"], value(492)).expect("set");
    assert_eq!(used(), Usage { records: 1, bytes: 500 });
    refusal(db.set("67890", &["abc"], value(493)));
    db.set("67890", &["abc"], value(492)).expect("exactly the quota");
    assert_eq!(used(), Usage { records: 2, bytes: 1000 });
    refusal(db.set("67890", &["abc"], value(493)));
    db.set("67890", &["abc"], value(300)).expect("smaller");
    assert_eq!(used(), Usage { records: 2, bytes: 808 });
    db.delete("12345", &["abc"]);
    assert_eq!(used(), Usage { records: 1, bytes: 308 });
    db.delete("67890", &["abc"]);
    assert_eq!(used(), Usage::default());
}

fn a_find_answers_up_to_16_mib(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let large = text(&"x".repeat(256 * 1024 - 200));
    for number in 0..64 {
        db.set(&format!("large:{number}"), &["s"], large.clone()).expect("set");
    }
    let found = db.find("large:%", &["s"]).expect("just within the limit");
    assert_eq!(found.len(), 64);
    assert!(found.iter().all(|record| record.value == large));
    db.put("large:64", &["s"], &"x".repeat(20_000));
    let why = refusal(db.find("large:%", &["s"]));
    assert!(why.contains("narrow"), "{why}");
    assert_eq!(db.found("large:1%", &["s"]).len(), 11);
}

fn tenant_states_come_back_canonical(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let states = || db.tenants.tenant_states().expect("listed");
    assert!(states().is_empty());
    let state = |events: &[&str], data: &[u8]| TenantState {
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        data: wire::plain::check(data.to_vec()).expect("plain JSON"),
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

fn tenant_states_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let names = |count: usize| (0..count).map(|number| format!("EVENT_{number}")).collect::<BTreeSet<_>>();
    let set = |events, data: Vec<u8>| {
        let data = wire::plain::check(data).expect("plain JSON");
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
    let large = |bytes: usize| [&[0xdb][..], &(bytes as u32 - 5).to_be_bytes(), &vec![b'x'; bytes - 5]].concat();
    set(names(0), large(256 * 1024)).expect("at the limit");
    refusal(set(names(0), large(256 * 1024 + 1)));
    assert_eq!(db.tenants.tenant_states().map(|states| states[&TENANT].events.len()), Ok(0));
}

fn a_worker_gets_the_states_of_its_own_tenants(kept: Kept, door: Door) {
    let db = TestDb::with(kept, door, DbOptions::default(), 3);
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    for number in 0..30_u64 {
        let tenant = if number % 2 == 0 { TenantId::Guild(number << 22) } else { TenantId::User(number << 22) };
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
    let forbidden = |result: Result<(), DbError>| assert!(matches!(result, Err(DbError::Forbidden(_))), "{result:?}");
    forbidden(db.tenants.kv_get(foreign, scopes(&["s"]), "k".to_owned()).map(drop));
    forbidden(db.tenants.kv_set(foreign, scopes(&["s"]), "k".to_owned(), text("v")));
    forbidden(db.tenants.kv_delete(foreign, scopes(&["s"]), "k".to_owned()));
    forbidden(db.tenants.kv_find(foreign, scopes(&["s"]), "%".to_owned()).map(drop));
    forbidden(db.tenants.kv_list_scopes(foreign).map(drop));
    forbidden(db.tenants.set_tenant_state(foreign, state));
    assert_eq!(db.state.kv_usage(foreign), Ok(Usage::default()));
    assert_eq!(db.state.tenant_state(foreign), None);
}

fn many_threads_lose_no_update(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let db = &db;
            scope.spawn(move || {
                for turn in 0..12 {
                    let key = format!("{thread}:{turn}");
                    db.tenants.kv_set(TENANT, scopes(&["s"]), key.clone(), text(&key)).expect("set");
                    if turn % 3 == 0 {
                        db.tenants.kv_delete(TENANT, scopes(&["s"]), key).expect("deleted");
                    }
                }
            });
        }
    });
    let found = db.find("%", &["s"]).expect("found");
    assert_eq!(found.len(), 8 * 8);
    assert!(found.iter().all(|record| record.value == text(&record.key)));
    assert_eq!(db.state.kv_usage(TENANT).map(|usage| usage.records), Ok(64));
}

/// Only in this process: over HTTP it would be the same, and slow.
fn a_find_answers_up_to_10_000_records(kept: Kept) {
    let options = DbOptions { quota: Quota { records: 20_000, ..Quota::default() } };
    let db = TestDb::with(kept, Door::Direct, options, 1);
    std::thread::scope(|scope| {
        for thread in 0..50 {
            let db = &db;
            scope.spawn(move || {
                for turn in 0..KV_FIND_MAX_RECORDS / 50 {
                    let key = format!("{thread}:{turn}");
                    db.tenants.kv_set(TENANT, scopes(&["s"]), key, text("v")).expect("set");
                }
            });
        }
    });
    assert_eq!(db.found("%", &["s"]).len(), KV_FIND_MAX_RECORDS);
    db.put("one more", &["s"], "v");
    refusal(db.find("%", &["s"]));
    assert_eq!(db.found("one%", &["s"]).len(), 1);
}

#[test]
fn a_find_in_memory_answers_up_to_10_000_records() {
    a_find_answers_up_to_10_000_records(Kept::InMemory);
}

#[test]
fn a_find_in_redb_answers_up_to_10_000_records() {
    a_find_answers_up_to_10_000_records(Kept::InRedb);
}

#[test]
fn a_redb_file_gives_back_what_was_in_it() {
    let folder = crate::support::TempDir::new();
    let file = folder.path().join("store.redb");
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    let db = crate::support::db::open(Kept::InRedb, &file, DbOptions::default());
    db.set_tenant_state(TENANT, &state).expect("set");
    db.kv_set(TENANT, scopes(&["s"]), "Key".to_owned(), &text("v")).expect("set");
    let record = db.kv_get(TENANT, &scopes(&["s"]), "Key").expect("got");
    assert!(record.is_some());
    db.close();
    let again = crate::support::db::open(Kept::InRedb, &file, DbOptions::default());
    assert_eq!(again.tenant_state(TENANT).as_deref(), Some(&state));
    assert_eq!(again.kv_get(TENANT, &scopes(&["s"]), "Key"), Ok(record));
    assert_eq!(again.kv_list_scopes(TENANT), Ok(vec!["s".to_owned()]));
    assert_eq!(again.kv_usage(TENANT).map(|usage| usage.records), Ok(1));
}
