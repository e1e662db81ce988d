//! Records: what is got, listed and found after what was set and deleted.

use std::sync::Arc;

use mesophyll::base::error::DbError;
use mesophyll::store::{DbOptions, DbState, Standing};
use mesophyll::wire;
use mesophyll::wire::data::{
    EncodedJson, Interval, KhronosValue, Scopes, TenantId, TenantState, Timestamp,
};

use super::{OTHER, TENANT, scopes};
use crate::support::db::{Door, Kept, TestDb, Typed, refusal, text};

every_database! {
    tenants_are_known_by_a_state_or_a_record,
    what_was_set_is_got,
    a_second_set_keeps_the_id_and_the_time_of_the_first,
    scopes_are_a_set_and_address_a_record_exactly,
    deleting_removes_one_record_and_tolerates_a_missing_one,
    scopes_are_listed_sorted_and_once,
    a_find_asks_for_scopes_to_be_contained_and_answers_in_order,
    patterns_mean_the_same_everywhere,
    a_pattern_bomb_is_just_a_pattern,
    tenants_do_not_see_each_other,
    every_kind_of_value_comes_back_byte_by_byte,
    the_golden_values_come_back_byte_by_byte,
    negative_zero_is_stored_as_zero,
    many_threads_lose_no_update,
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
    assert_eq!(
        Timestamp::from_unix_micros(created.unix_micros()),
        Ok(created),
        "to the microsecond, no finer"
    );
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

fn deleting_removes_one_record_and_tolerates_a_missing_one(kept: Kept, door: Door) {
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
            .map(|(key, of)| {
                ((*key).to_owned(), of.iter().map(|scope| (*scope).to_owned()).collect())
            })
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
        let found: Vec<String> =
            db.found(pattern, &["s"]).into_iter().map(|(key, _)| key).collect();
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
    for neighbour in
        [TenantId::Guild(175_928_847_299_117_062), TenantId::Guild(175_928_847_299_117_064)]
    {
        assert_eq!(
            db.tenants.kv_find(neighbour, Scopes::default(), "%".to_owned()),
            Ok(Vec::new())
        );
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
        let (key, encoded) = (number.to_string(), wire::pack::value::encode(value));
        db.set(&key, &["s"], encoded.clone()).expect("set");
        let got = db.value(&key, &["s"]).expect("there");
        assert_eq!(got, encoded, "{value:?}");
        assert_eq!(wire::pack::value::decode(&got).as_ref(), Ok(value));
    }
    assert_eq!(db.found("%", &[]).len(), values.len());
}

/// The reference's own bytes: what is storable of them comes back as it is.
fn the_golden_values_come_back_byte_by_byte(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../data/wire/vectors.json"))
            .expect("the golden vectors are JSON");
    let mut stored = 0;
    for vector in vectors.as_array().expect("a list") {
        if vector["type"] != "KhronosValue" {
            continue;
        }
        let hex = vector["hex"].as_str().expect("a text");
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal"))
            .collect();
        let value = wire::pack::value::check(bytes).expect("the reference's own bytes");
        match db.set("k", &["s"], value.clone()) {
            Ok(()) if vector["name"].as_str().is_some_and(|name| name.contains("-0.0")) => {}
            Ok(()) => {
                assert_eq!(db.value("k", &["s"]), Some(value), "{}", vector["name"]);
                stored += 1;
            }
            Err(error) => {
                assert!(matches!(error, DbError::Refused(_)), "{}: {error:?}", vector["name"])
            }
        }
    }
    assert!(stored > 50, "{stored}");
}

fn negative_zero_is_stored_as_zero(kept: Kept, door: Door) {
    use KhronosValue as V;
    let db = TestDb::new(kept, door);
    let nested = |zero| {
        wire::pack::value::encode(&V::Map(vec![
            (V::Float(zero), V::List(vec![V::Float(zero)])),
            (V::Null, V::Vector([zero as f32, 1.0, zero as f32])),
        ]))
    };
    db.set("k", &["s"], nested(-0.0)).expect("set");
    assert_eq!(db.value("k", &["s"]), Some(nested(0.0)));
}

fn many_threads_lose_no_update(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let db = &db;
            scope.spawn(move || {
                for turn in 0..12 {
                    let key = format!("{thread}:{turn}");
                    db.tenants
                        .kv_set(TENANT, scopes(&["s"]), key.clone(), text(&key))
                        .expect("set");
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

fn tenants_are_known_by_a_state_or_a_record(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let known =
        || db.state.are_known(&[TENANT, OTHER, TENANT, TenantId::Guild(1)]).expect("looked up");
    assert_eq!(known(), [false; 4]);
    db.put("k", &["s"], "v");
    assert_eq!(known(), [true, false, true, false], "a user is not the guild of its number");
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    db.state.set_tenant_state(OTHER, &state).expect("set");
    assert_eq!(known(), [true, true, true, false]);
    db.delete("k", &["s"]);
    assert_eq!(known(), [false, true, false, false]);
    db.state.set_standing(TENANT, Standing::Banned).expect("set");
    assert_eq!(known(), [false, true, false, false], "a ban is no state");
    // Also of a master that has none of them at hand.
    let other = DbState::without_states(Arc::clone(&db.store), DbOptions::default());
    assert_eq!(other.are_known(&[TENANT, OTHER]), Ok(vec![false, true]));
    assert_eq!(db.state.are_known(&[]), Ok(Vec::new()));
}
