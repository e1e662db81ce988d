//! Limits and quotas of records: at each of them, and just over it.

use mesophyll::base::limits::{KV_FIND_MAX_RECORDS, KV_VALUE_MAX_BYTES};
use mesophyll::store::{Quota, Usage};
use mesophyll::wire;
use mesophyll::wire::data::{
    ERRORS_KEY, ERRORS_SCOPE, EncodedValue, KeyValueOp, KhronosValue, Scopes,
};

use super::{OTHER, TENANT, quota, scopes};
use crate::support::db::{Door, Kept, TestDb, Typed, refusal, text};

every_database! {
    keys_at_and_over_the_limit,
    scopes_at_and_over_the_limit,
    values_at_and_over_the_limit,
    what_jsonb_cannot_keep_is_refused,
    patterns_at_and_over_the_limit,
    a_refused_set_leaves_the_record_as_it_was,
    the_quota_of_records_is_exact,
    the_quota_of_bytes_is_exact,
    versions_of_a_template_take_nothing_of_the_quota,
    a_tenant_near_its_quota_is_warned_once,
    a_find_answers_up_to_16_mib,
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
    // All scopes of a record together, with the longest key.
    let many: Vec<String> = (0..10).map(|number| format!("{number:0>200}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let key = "k".repeat(512);
    db.put(&key, &many, "v");
    assert_eq!(db.value(&key, &many), Some(text("v")));
    db.delete(&key, &many);
    let too_many: Vec<&str> = many.iter().copied().take(9).chain([&long[..201]]).collect();
    for of in [&[][..], &eleven, &too_many, &[&too_long], &["a\0"]] {
        refusal(db.set("k", of, text("v")));
        refusal(db.tenants.kv_get(TENANT, scopes(of), "k".to_owned()));
        refusal(db.tenants.kv_delete(TENANT, scopes(of), "k".to_owned()));
        if !of.is_empty() && of != too_many {
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
        wire::pack::value::encode(&inner)
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
        refusal(db.set("k", &["s"], wire::pack::value::encode(&value)));
    }
    db.set("k", &["s"], wire::pack::value::encode(&V::Buffer(vec![0, 1])))
        .expect("bytes are not text");
}

fn patterns_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.put("a", &["s"], "v");
    assert_eq!(db.found(&"%".repeat(2048), &["s"]).len(), 1);
    refusal(db.find(&"%".repeat(2049), &["s"]));
    refusal(db.find("a\0", &["s"]));
}

fn a_refused_set_leaves_the_record_as_it_was(kept: Kept, door: Door) {
    let options = quota(Quota { records: 10, bytes: 1000 });
    let db = TestDb::with(kept, door, options, 1);
    db.put("k", &["s"], "v");
    let before = db.get("k", &["s"]);
    refusal(db.set("k", &["s"], text(&"x".repeat(2000))));
    refusal(db.set("k", &["s"], wire::pack::value::encode(&KhronosValue::Float(f64::NAN))));
    assert_eq!(db.get("k", &["s"]), before);
    assert_eq!(db.state.kv_usage(TENANT).map(|usage| usage.records), Ok(1));
}

fn the_quota_of_records_is_exact(kept: Kept, door: Door) {
    let options = quota(Quota { records: 3, bytes: 1_000_000 });
    let db = TestDb::with(kept, door, options, 1);
    db.put("1", &["a"], "v");
    db.put("1", &["b"], "v");
    db.put("2", &["a"], "v");
    refusal(db.set("3", &["a"], text("v")));
    refusal(db.set("2", &["b"], text("v")));
    db.put("2", &["a"], "replacing is no new record");
    db.tenants
        .kv_set(OTHER, scopes(&["a"]), "1".to_owned(), text("v"))
        .expect("another tenant's quota is another");
    db.delete("1", &["b"]);
    db.put("3", &["a"], "v");
    refusal(db.set("4", &["a"], text("v")));
    assert_eq!(db.found("%", &[]).len(), 3);
}

fn the_quota_of_bytes_is_exact(kept: Kept, door: Door) {
    let options = quota(Quota { records: 100, bytes: 1000 });
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

fn a_tenant_near_its_quota_is_warned_once(kept: Kept, door: Door) {
    let options = quota(Quota { records: 100, bytes: 100_000 });
    let db = TestDb::with(kept, door, options, 1);
    let warnings = || {
        db.value(ERRORS_KEY, &[ERRORS_SCOPE]).map_or(0, |value| {
            let json = wire::json::value_to_json(&value).expect("a value");
            json.matches("warning: the tenant").count()
        })
    };
    for number in 0..79 {
        db.put(&number.to_string(), &["s"], "v");
    }
    assert_eq!((warnings(), db.state.quota_warned()), (0, 0));
    db.put("79", &["s"], "v");
    assert_eq!((warnings(), db.state.quota_warned()), (1, 1), "80 of 100 records");
    // What passes the mark again on the same day is not told again; of its bytes it is told too.
    for turn in 0..3 {
        db.delete("78", &["s"]);
        db.delete("79", &["s"]);
        db.put("78", &["s"], "v");
        db.put("79", &["s"], "v");
        db.put("large", &["s"], &"x".repeat(90_000 + turn));
        db.delete("large", &["s"]);
    }
    assert_eq!((warnings(), db.state.quota_warned()), (2, 2));
    db.tenants
        .kv_set(OTHER, scopes(&["s"]), "k".to_owned(), text(&"x".repeat(85_000)))
        .expect("within its quota");
    assert_eq!(db.state.quota_warned(), 3, "another tenant is warned of its bytes");
}

fn versions_of_a_template_take_nothing_of_the_quota(kept: Kept, door: Door) {
    let options = quota(Quota { records: 2, bytes: 1000 });
    let db = TestDb::with(kept, door, options, 1);
    let template = |value: Option<EncodedValue>| {
        let (scopes, key) = (scopes(&["template"]), "main".to_owned());
        let op = match value {
            Some(value) => KeyValueOp::Set { scopes, key, value },
            None => KeyValueOp::Delete { scopes, key },
        };
        db.state.kv(TENANT, op).expect("done");
    };
    let version = |number: u32| text(&format!("return {number}{}", " ".repeat(400)));
    (1..=15).for_each(|number| template(Some(version(number))));
    let keys = |from: u32, to: u32| -> Vec<_> {
        let row = |number| (format!("{number:08}"), vec!["#template".to_owned()]);
        (from..=to).map(row).collect()
    };
    assert_eq!(db.found("%", &["#template"]), keys(5, 14));
    assert_eq!(db.value("00000014", &["#template"]), Some(version(14)));
    let used = || db.state.kv_usage(TENANT).expect("readable");
    let counted = Usage {
        records: 1,
        bytes: ("main".len() + "template".len() + version(1).as_bytes().len() + 1) as u64,
    };
    assert_eq!(used(), counted);
    db.put("k", &["s"], "v");
    refusal(db.set("one more", &["s"], text("v")));
    // The same again is no version.
    template(Some(version(15)));
    assert_eq!(db.found("%", &["#template"]).len(), 10);
    template(None);
    assert_eq!(db.found("%", &["#template"]), keys(6, 15));
    assert_eq!(used().records, 1);
    // A worker has no hand in it.
    refusal(db.set("00000014", &["#template"], text("return 'forged'")));
    refusal(db.tenants.kv_delete(TENANT, scopes(&["#template"]), "00000014".to_owned()));
    assert_eq!(db.value("00000014", &["#template"]), Some(version(14)));
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

/// Scopes count against the quota like everything else; there is no other limit on listing them,
/// whatever the door.
#[test]
fn as_many_scopes_are_listed_as_the_quota_has_room_for() {
    for door in [Door::Direct, Door::Http] {
        let db = TestDb::new(Kept::InMemory, door);
        // The warning that the quota is nearly used is a record too.
        for number in 0..9_999 {
            let of: Vec<String> =
                (0..4).map(|part| format!("{number}:{part}:{}", "s".repeat(480))).collect();
            db.state
                .kv_set(TENANT, Scopes::new(of), "k".to_owned(), text("v"))
                .expect("within the quota");
        }
        let listed = db.tenants.kv_list_scopes(TENANT).expect("listed");
        assert_eq!(listed.len(), 39_997, "{door:?}");
        assert!(listed.iter().map(String::len).sum::<usize>() > 18 * 1024 * 1024);
    }
}

/// Only in this process: over HTTP it would be the same, and slow.
fn a_find_answers_up_to_10_000_records(kept: Kept) {
    let options = quota(Quota { records: 20_000, ..Quota::default() });
    let db = TestDb::with(kept, Door::Direct, options, 1);
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let db = &db;
            scope.spawn(move || {
                for turn in 0..KV_FIND_MAX_RECORDS / 10 {
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

#[cfg(feature = "postgres")]
#[test]
fn a_find_in_postgres_answers_up_to_10_000_records() {
    let kept = Kept::Postgres(crate::support::postgres::Locale::Utf8);
    if kept.is_there("a_find_in_postgres_answers_up_to_10_000_records") {
        a_find_answers_up_to_10_000_records(kept);
    }
}
