//! The shop: who sees, makes, deletes and pays for entries.

use mesophyll::base::error::DbError;
use mesophyll::store::global::{GlobalAddress, GlobalChange, GlobalFilter};
use mesophyll::store::{DbOptions, Quota};
use mesophyll::wire;
use mesophyll::wire::data::sharding::{Shard, ShardSet};
use mesophyll::wire::data::{
    CreateGlobalKv, GlobalKeyValueOp, GlobalKv, GlobalKvData, PartialGlobalKv, Scopes, TenantId,
    Timestamp,
};

use super::{OTHER, TENANT, quota};
use crate::support::db::{Door, Kept, TestDb, Typed, refusal};
use crate::support::process::eventually;

every_database! {
    an_entry_is_seen_once_it_is_approved,
    an_entry_is_made_once_and_deleted_by_its_owner,
    entries_are_found_by_pattern_in_order_of_key_and_version,
    what_has_a_price_is_read_by_who_paid,
    data_that_is_not_public_is_opaque,
    staff_sees_and_removes_any_entry,
    entries_at_and_over_the_limit,
    the_quota_of_entries_is_exact,
    every_change_of_an_entry_is_noted_once_and_in_order,
    watchers_are_found_by_their_shards,
}

fn entry(key: &str, version: i32) -> CreateGlobalKv {
    CreateGlobalKv {
        key: key.to_owned(),
        version,
        short: "one line".to_owned(),
        public_metadata: wire::pack::plain::check(b"\x82\xa1b\x01\xa1a\x02".to_vec())
            .expect("plain JSON"),
        scope: "tags".to_owned(),
        public_data: true,
        long: Some("many lines".to_owned()),
        data: wire::pack::plain::check(b"\x93\x01\x02\x03".to_vec()).expect("plain JSON"),
    }
}

impl TestDb {
    fn publish(&self, tenant: TenantId, entry: CreateGlobalKv) -> Result<(), DbError> {
        self.tenants.global_kv(tenant, GlobalKeyValueOp::Create { entry })
    }

    fn unpublish(&self, tenant: TenantId, key: &str, version: i32) -> Result<(), DbError> {
        let op =
            GlobalKeyValueOp::Delete { key: key.to_owned(), version, scope: "tags".to_owned() };
        self.tenants.global_kv(tenant, op)
    }

    fn review(&self, key: &str, version: i32, state: &str) {
        self.state
            .global_change(at(key, version), GlobalChange::Review(state.to_owned()))
            .expect("reviewed");
    }

    fn read(&self, key: &str, version: i32) -> Option<GlobalKv> {
        self.tenants
            .global_kv_get(TENANT, key.to_owned(), version, "tags".to_owned())
            .expect("read")
    }

    fn browse(&self, pattern: &str) -> Vec<(String, i32)> {
        let found =
            self.tenants.global_kv_find(pattern.to_owned(), "tags".to_owned()).expect("found");
        found.into_iter().map(|entry| (entry.key, entry.version)).collect()
    }
}

fn at(key: &str, version: i32) -> GlobalAddress {
    GlobalAddress { scope: "tags".to_owned(), key: key.to_owned(), version }
}

fn an_entry_is_seen_once_it_is_approved(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let before = Timestamp::now();
    db.publish(TENANT, entry("My.Tags", 2)).expect("published");
    assert_eq!((db.read("My.Tags", 2), db.browse("%")), (None, Vec::new()));
    db.review("My.Tags", 2, "rejected");
    assert_eq!((db.read("My.Tags", 2), db.browse("%")), (None, Vec::new()));
    db.review("My.Tags", 2, "approved");
    let got = db.read("My.Tags", 2).expect("approved");
    let PartialGlobalKv {
        key,
        version,
        owner_id,
        owner_type,
        price,
        short,
        public_metadata,
        scope,
        ..
    } = &got.partial;
    assert_eq!(
        (key.as_str(), *version, scope.as_str(), short.as_str()),
        ("My.Tags", 2, "tags", "one line")
    );
    assert_eq!(
        (owner_type.as_str(), owner_id.as_str(), *price),
        ("guild", "175928847299117063", None)
    );
    assert_eq!(public_metadata.as_bytes(), b"\x82\xa1a\x02\xa1b\x01", "keys are sorted");
    assert_eq!(
        (got.partial.review_state.as_str(), got.partial.long.as_deref()),
        ("approved", Some("many lines"))
    );
    assert!(got.partial.public_data && got.partial.created_at >= before);
    assert!(got.partial.last_updated_at > got.partial.created_at);
    assert_eq!(got.data, GlobalKvData::Value { data: entry("x", 1).data, opaque: false });
    let found = db.tenants.global_kv_find("my%".to_owned(), "tags".to_owned()).expect("found");
    assert_eq!(
        found,
        [PartialGlobalKv { long: None, ..got.partial }],
        "lists leave the long text out"
    );
    assert_eq!(db.read("my.tags", 2), None, "keys have a case");
    assert_eq!(db.read("My.Tags", 1), None);
    assert_eq!(db.tenants.global_kv_find("%".to_owned(), "other".to_owned()), Ok(Vec::new()));
}

fn an_entry_is_made_once_and_deleted_by_its_owner(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.publish(TENANT, entry("abc", 1)).expect("published");
    for tenant in [TENANT, OTHER] {
        assert!(matches!(db.publish(tenant, entry("abc", 1)), Err(DbError::Conflict(_))));
    }
    db.publish(OTHER, entry("abc", 2)).expect("another version is another entry");
    db.publish(OTHER, CreateGlobalKv { scope: "other".to_owned(), ..entry("abc", 1) })
        .expect("another scope too");
    assert!(
        matches!(db.unpublish(OTHER, "abc", 1), Err(DbError::Forbidden(_))),
        "a user is not the guild of its number"
    );
    assert!(matches!(db.unpublish(TENANT, "abc", 3), Err(DbError::NotFound(_))));
    assert!(matches!(db.unpublish(TENANT, "abd", 1), Err(DbError::NotFound(_))));
    assert_eq!(db.unpublish(TENANT, "abc", 1), Ok(()));
    assert!(matches!(db.unpublish(TENANT, "abc", 1), Err(DbError::NotFound(_))));
    db.publish(OTHER, entry("abc", 1)).expect("the name is free again");
}

fn staff_sees_and_removes_any_entry(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    for (key, version) in [("tag.b", 2), ("tag.b", 1), ("Tag.a", 1), ("other", 1)] {
        db.publish(TENANT, entry(key, version)).expect("published");
    }
    db.publish(OTHER, CreateGlobalKv { scope: "more".to_owned(), ..entry("tag.b", 1) })
        .expect("published");
    db.review("other", 1, "approved");
    db.state.add_staff_entry("someone", entry("staff", 1)).expect("published");
    let list = |state: Option<&str>, scope: Option<&str>, pattern: Option<&str>| {
        let filter = GlobalFilter::new(state.map(str::to_owned), scope.map(str::to_owned), pattern)
            .expect("a filter");
        let listed = db.state.global_list(&filter).expect("listed");
        assert!(listed.iter().all(|entry| entry.long.is_none()), "lists leave the long text out");
        listed
            .into_iter()
            .map(|entry| format!("{} {} {}", entry.scope, entry.key, entry.version))
            .collect::<Vec<_>>()
    };
    let all = [
        "more tag.b 1",
        "tags Tag.a 1",
        "tags other 1",
        "tags staff 1",
        "tags tag.b 1",
        "tags tag.b 2",
    ];
    assert_eq!(list(None, None, None), all);
    assert_eq!(list(Some("approved"), None, None), ["tags other 1"]);
    assert_eq!(
        list(Some("pending"), Some("tags"), Some("TAG%")),
        ["tags Tag.a 1", "tags tag.b 1", "tags tag.b 2"]
    );
    assert_eq!(list(Some("Pending"), None, None), Vec::<String>::new());
    let whole = db
        .state
        .global_entry(&at("tag.b", 2))
        .expect("read")
        .expect("pending, and seen all the same");
    assert_eq!(
        (whole.partial.long.as_deref(), whole.data),
        (Some("many lines"), entry("x", 1).data)
    );
    for removed in [
        at("tag.b", 2),
        at("staff", 1),
        GlobalAddress { scope: "more".to_owned(), ..at("tag.b", 1) },
    ] {
        assert_eq!(db.state.global_remove(removed.clone()), Ok(()));
        assert_eq!(db.state.global_entry(&removed), Ok(None));
        assert!(matches!(db.state.global_remove(removed), Err(DbError::NotFound(_))));
    }
    assert_eq!(list(None, None, None), ["tags Tag.a 1", "tags other 1", "tags tag.b 1"]);
    db.publish(TENANT, entry("tag.b", 2)).expect("the name is free again");
}

fn entries_are_found_by_pattern_in_order_of_key_and_version(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    for (key, version) in
        [("tag.a", 10), ("tag.a", 2), ("tag.a", -1), ("Tag.B", 1), ("tagaa", 1), ("other", 1)]
    {
        db.publish(TENANT, entry(key, version)).expect("published");
        db.review(key, version, "approved");
    }
    let owned = |found: &[(&str, i32)]| {
        found.iter().map(|(key, version)| ((*key).to_owned(), *version)).collect::<Vec<_>>()
    };
    assert_eq!(
        db.browse("TAG._"),
        owned(&[("Tag.B", 1), ("tag.a", -1), ("tag.a", 2), ("tag.a", 10)])
    );
    assert_eq!(db.browse("%r"), owned(&[("other", 1)]));
    assert_eq!(db.browse("%").len(), 6);
    assert_eq!(db.browse("tagaa"), owned(&[("tagaa", 1)]));
    refusal(db.tenants.global_kv_find("a\\".to_owned(), "tags".to_owned()));
}

fn what_has_a_price_is_read_by_who_paid(kept: Kept, door: Door) {
    let options = DbOptions {
        purchase_url: Some("https://shop.example/{scope}/{key}/{version}".to_owned()),
        ..DbOptions::default()
    };
    let db = TestDb::with(kept, door, options, 1);
    db.publish(TENANT, entry("mine", 1)).expect("published");
    refusal(db.state.global_change(at("mine", 1), GlobalChange::Price(Some(5))));
    db.state.add_staff_entry("0", entry("theirs", 7)).expect("added");
    db.state.global_change(at("theirs", 7), GlobalChange::Price(Some(500))).expect("priced");
    assert_eq!(db.read("theirs", 7), None, "still to be approved");
    db.review("theirs", 7, "approved");
    let url = "https://shop.example/tags/theirs/7".to_owned();
    let got = db.read("theirs", 7).expect("approved");
    assert_eq!((got.partial.price, got.partial.owner_type.as_str()), (Some(500), "staff"));
    assert_eq!(got.data, GlobalKvData::PurchaseRequired { purchase_url: url.clone() });
    db.state.global_purchase(OTHER, at("theirs", 7)).expect("purchased");
    assert_eq!(
        db.read("theirs", 7).expect("approved").data,
        GlobalKvData::PurchaseRequired { purchase_url: url }
    );
    db.state.global_purchase(TENANT, at("theirs", 7)).expect("purchased");
    db.state.global_purchase(TENANT, at("theirs", 7)).expect("twice is once");
    let paid = GlobalKvData::Value { data: entry("x", 1).data, opaque: true };
    assert_eq!(
        db.read("theirs", 7).expect("approved").data,
        paid,
        "paid for, and not to be copied"
    );
    db.state.global_change(at("theirs", 7), GlobalChange::Price(None)).expect("free");
    let free = GlobalKvData::Value { data: entry("x", 1).data, opaque: false };
    assert_eq!(db.read("theirs", 7).expect("approved").data, free);
    assert!(matches!(
        db.state.global_purchase(TENANT, at("nothing", 1)),
        Err(DbError::NotFound(_))
    ));
    assert!(matches!(db.unpublish(TENANT, "theirs", 7), Err(DbError::Forbidden(_))));
}

fn data_that_is_not_public_is_opaque(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    db.publish(TENANT, CreateGlobalKv { public_data: false, long: None, ..entry("abc", 1) })
        .expect("published");
    db.review("abc", 1, "approved");
    let got = db.read("abc", 1).expect("approved");
    assert_eq!(got.data, GlobalKvData::Value { data: entry("x", 1).data, opaque: true });
    assert!(!got.partial.public_data && got.partial.long.is_none());
}

fn entries_at_and_over_the_limit(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let longest = "k".repeat(64);
    for key in ["abc", "A-Z_0.9", &longest] {
        db.publish(TENANT, entry(key, i32::MAX)).expect("published");
        db.review(key, i32::MAX, "approved");
        assert!(db.read(key, i32::MAX).is_some());
    }
    for key in ["", "ab", ".ab", "ab.", "a b", "äbc", &"k".repeat(65)] {
        refusal(db.publish(TENANT, entry(key, 1)));
        refusal(db.unpublish(TENANT, key, 1));
        refusal(db.tenants.global_kv_get(TENANT, key.to_owned(), 1, "tags".to_owned()));
    }
    let json = |bytes: Vec<u8>| wire::pack::plain::check(bytes).expect("plain JSON");
    let nested = |depth: usize| json([vec![0x91; depth - 1], vec![0x90]].concat());
    let nul = || json(b"\xa1\0".to_vec());
    let short = |text: &str| text.to_owned();
    for bad in [
        CreateGlobalKv { short: short("\0"), ..entry("abd", 1) },
        CreateGlobalKv { long: Some(short("\0")), ..entry("abd", 1) },
        CreateGlobalKv { scope: short("\0"), ..entry("abd", 1) },
        CreateGlobalKv { scope: "s".repeat(513), ..entry("abd", 1) },
        CreateGlobalKv { data: nul(), ..entry("abd", 1) },
        CreateGlobalKv { public_metadata: nul(), ..entry("abd", 1) },
        CreateGlobalKv { data: nested(33), ..entry("abd", 1) },
        CreateGlobalKv { short: "x".repeat(2 * 1024 * 1024), ..entry("abd", 1) },
    ] {
        refusal(db.publish(TENANT, bad));
    }
    let large = json([&[0xdb][..], &1_900_000_u32.to_be_bytes(), &vec![b'x'; 1_900_000]].concat());
    for good in [
        CreateGlobalKv { data: nested(32), scope: "s".repeat(512), ..entry("abd", 1) },
        CreateGlobalKv { data: large.clone(), ..entry("abd", 1) },
    ] {
        db.publish(TENANT, good).expect("at the limit");
    }
    db.review("abd", 1, "approved");
    let got = db.read("abd", 1).expect("approved");
    assert_eq!(got.data, GlobalKvData::Value { data: large, opaque: false });
}

fn the_quota_of_entries_is_exact(kept: Kept, door: Door) {
    // The number of entries has a limit of its own; their bytes are as many as those of records.
    let db = TestDb::with(kept, door, quota(Quota { records: 1, bytes: 300 }), 1);
    let charge =
        |key: &str| key.len() + "tags".len() + "one line".len() + "many lines".len() + 7 + 4;
    db.publish(TENANT, entry("abc", 1)).expect("published");
    let long = |bytes: usize| "x".repeat(bytes - charge("abd") + "many lines".len());
    let rest = 300 - charge("abc");
    refusal(db.publish(TENANT, CreateGlobalKv { long: Some(long(rest + 1)), ..entry("abd", 1) }));
    db.publish(TENANT, CreateGlobalKv { long: Some(long(rest)), ..entry("abd", 1) })
        .expect("exactly the quota");
    refusal(db.publish(TENANT, entry("abe", 1)));
    db.publish(OTHER, entry("abe", 1)).expect("another owner's quota is another");
    db.unpublish(TENANT, "abd", 1).expect("deleted");
    db.publish(TENANT, entry("abf", 1)).expect("room again");
}

/// What a look finds: keys, what became of them, and their review states.
fn noted(db: &TestDb, since: &mut Option<i64>) -> Vec<(String, &'static str, String)> {
    // In PostgreSQL a transaction of another test may hold the notes up.
    let mut found = Vec::new();
    eventually("nothing is held up", || {
        let look = db.state.shop_changes(*since).expect("a look");
        assert_eq!(look.has_gap, since.is_none());
        *since = Some(look.until);
        found.extend(look.changes.into_iter().map(|change| {
            assert_eq!((change.at.scope.as_str(), change.owner), ("tags", Some(TENANT)));
            (change.at.key, change.kind.as_str(), change.review_state.unwrap_or_default())
        }));
        look.held_up.is_zero().then_some(())
    });
    found
}

fn every_change_of_an_entry_is_noted_once_and_in_order(kept: Kept, door: Door) {
    let db = &TestDb::new(kept, door);
    let mut since = None;
    assert_eq!(noted(db, &mut since), []);
    db.publish(TENANT, entry("aaa", 1)).expect("published");
    assert!(db.publish(TENANT, entry("aaa", 1)).is_err(), "it is there");
    assert!(db.unpublish(OTHER, "aaa", 1).is_err(), "it is another's");
    db.review("aaa", 1, "approved");
    db.review("aaa", 1, "approved");
    db.review("aaa", 1, "denied");
    db.publish(TENANT, entry("bbb", 1)).expect("published");
    db.unpublish(TENANT, "aaa", 1).expect("unpublished");
    let one = |key: &str, kind, state: &str| (key.to_owned(), kind, state.to_owned());
    let expected = [
        one("aaa", "hidden", "pending"),
        one("aaa", "approved", "approved"),
        one("aaa", "changed", "approved"),
        one("aaa", "withdrawn", "denied"),
        one("bbb", "hidden", "pending"),
        one("aaa", "deleted", ""),
    ];
    assert_eq!(noted(db, &mut since), expected);
    assert_eq!(noted(db, &mut since), []);
    db.review("bbb", 1, "approved");
    db.unpublish(TENANT, "bbb", 1).expect("unpublished");
    let expected = [one("bbb", "approved", "approved"), one("bbb", "withdrawn", "")];
    assert_eq!(noted(db, &mut since), expected);
}

fn watchers_are_found_by_their_shards(kept: Kept, door: Door) {
    let db = &TestDb::new(kept, door);
    let watch = |tenant, scope: &str, json: &str| {
        let value = wire::json::value_from_json(json.as_bytes()).expect("a value");
        db.tenants.kv_set(tenant, Scopes::new([scope]), "watched".to_owned(), value)
    };
    watch(TENANT, "#shop", r#"{"tags":["a%"]}"#).expect("set");
    watch(OTHER, "other", r#"{"tags":["a%"]}"#).expect("set");
    let bad = watch(OTHER, "#shop", r#"{"tags":"a%"}"#);
    assert!(matches!(bad, Err(DbError::Refused(_))), "{bad:?}");
    let watchers = |of: &ShardSet| db.state.shop_watchers(of).expect("read");
    let of: ShardSet = [Shard::of(TENANT)].into_iter().collect();
    for of in [of, ShardSet::full()] {
        let found = watchers(&of);
        assert_eq!(found.iter().map(|(tenant, _)| *tenant).collect::<Vec<_>>(), [TENANT]);
        assert!(found[0].1.match_entry(&at("abc", 1)) && !found[0].1.match_entry(&at("bcd", 1)));
    }
    assert!(watchers(&ShardSet::full().without(&of)).is_empty());
}
