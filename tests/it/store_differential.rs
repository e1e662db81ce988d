//! Long random sequences of operations give equal answers from each durable store and from the
//! plain one in memory, ids and times included, across closing and opening it.

use mesophyll::base::limits::{KV_FIND_MAX_BYTES, KV_FIND_MAX_RECORDS};
use mesophyll::store::global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use mesophyll::store::memory::MemoryStore;
use mesophyll::store::{FindLimits, KvSet, Quota, Standing, Store, rules};
use mesophyll::wire;
use mesophyll::wire::data::sharding::ShardSet;
use mesophyll::wire::data::{
    EncodedJson, KhronosValue, PartialGlobalKv, Scopes, TenantId, TenantState, Timestamp,
};

use crate::support::Random;
use crate::support::db::{Kept, Place};
#[cfg(feature = "postgres")]
use crate::support::postgres::Locale;

const TENANTS: [TenantId; 4] =
    [TenantId::Guild(0), TenantId::Guild(u64::MAX - 1), TenantId::User(0), TenantId::User(0xFFFF)];
const KEYS: [&str; 14] = [
    "a",
    "A",
    "aB",
    "ab",
    "abc",
    "a:1",
    "A:2",
    "é",
    "É",
    "\u{212A}elvin",
    "kelvin",
    "日本",
    "z",
    "~",
];
const SCOPES: [&str; 5] = ["", "a", "aa", "b", "é"];
const PATTERNS: [&str; 12] =
    ["%", "a%", "A_", "%b%", "K%", "é", "日%", "a:_", r"a\:%", "", "_", "%1"];

fn some_scopes(random: &mut Random) -> Scopes {
    let count = random.below(3);
    Scopes::new((0..=count).map(|_| random.one_of(&SCOPES)))
}

fn some_value(random: &mut Random) -> KhronosValue {
    match random.below(6) {
        0 => KhronosValue::Null,
        4 => KhronosValue::Float(random.one_of(&[-0.0, 0.0, -1.5, 1e16, 5e-324])),
        5 => KhronosValue::Vector([-0.0, 0.1, -2.5]),
        1 => KhronosValue::Integer(random.next() as i64),
        2 => KhronosValue::List(vec![KhronosValue::Boolean(true); random.below(40) as usize]),
        _ => KhronosValue::Text("x".repeat(random.below(300) as usize)),
    }
}

/// Plain JSON as stores are given it: whatever may be in it, the rules went over it.
fn some_json(random: &mut Random) -> EncodedJson {
    let mut bytes = vec![0x94];
    for _ in 0..4 {
        match random.below(8) {
            0 => bytes.extend(b"\x82\xa1b\xc3\xa1a\xc0"),
            1 => bytes.extend([&[0xca][..], &(-0.0_f32).to_be_bytes()].concat()),
            2 => bytes.extend([&[0xcf][..], &random.next().to_be_bytes()].concat()),
            3 => bytes.extend(b"\xa7\xc2\xab\xc3\xa9\"\\\x1f"),
            4 => bytes.extend(b"\x90"),
            _ => {
                let numbers = [-0.0, 0.0, 1.0, -1e16, 1e300, 5e-324, f64::MAX, 0.1, -2.5e-7];
                bytes.extend([&[0xcb][..], &random.one_of(&numbers).to_be_bytes()].concat());
            }
        }
    }
    let data = wire::pack::plain::check(bytes).expect("plain JSON");
    rules::check_tenant_state(&TenantState { events: Default::default(), data })
        .expect("within the rules")
        .data
}

/// Does one operation to both stores and compares what they answer.
fn step(random: &mut Random, turn: u64, expected: &dyn Store, tested: &dyn Store) {
    let tenant = random.one_of(&TENANTS);
    let key = random.one_of(&KEYS);
    let scopes = some_scopes(random);
    match random.below(100) {
        0..42 => {
            let set = KvSet {
                key: key.to_owned(),
                scopes,
                value: rules::check_value(&wire::pack::value::encode(&some_value(random)))
                    .expect("within the rules"),
                fresh_id: format!("id{turn}"),
                // Now and then the clock goes back.
                now: Timestamp::from_unix_micros((turn * 7 % 1000) as i64).expect("in range"),
                quota: Quota { records: 12, bytes: 2000 },
            };
            assert_eq!(tested.kv_set(tenant, set.clone()), expected.kv_set(tenant, set));
        }
        42..60 => {
            let delete =
                |store: &dyn Store| store.kv_delete(tenant, key.to_owned(), scopes.clone());
            assert_eq!(delete(tested), delete(expected));
        }
        60..68 => {
            assert_eq!(tested.kv_get(tenant, key, &scopes), expected.kv_get(tenant, key, &scopes))
        }
        68..77 => {
            let pattern = rules::check_pattern(random.one_of(&PATTERNS)).expect("a pattern");
            let asked = if random.below(2) == 0 { Scopes::default() } else { scopes };
            let limits = match random.below(4) {
                0 => FindLimits { records: 3, bytes: KV_FIND_MAX_BYTES },
                1 => FindLimits { records: KV_FIND_MAX_RECORDS, bytes: 700 },
                _ => FindLimits::default(),
            };
            let find = |store: &dyn Store| store.kv_find(tenant, &asked, &pattern, limits);
            assert_eq!(find(tested), find(expected), "{pattern:?} {asked:?}");
        }
        77..81 => assert_eq!(tested.kv_list_scopes(tenant), expected.kv_list_scopes(tenant)),
        81..84 => assert_eq!(tested.kv_usage(tenant), expected.kv_usage(tenant)),
        84..96 => shop_step(random, expected, tested),
        _ => {
            let events = (0..random.below(3)).map(|number| format!("E{number}")).collect();
            let standing = random.one_of(&[Standing::Good, Standing::Banned]);
            let state = TenantState { events, data: some_json(random) };
            // Revisions are each store's own.
            assert!(
                tested.set_standing(tenant, standing).is_ok()
                    && expected.set_standing(tenant, standing).is_ok()
            );
            assert!(tested.set_tenant_state(tenant, state.clone()).is_ok());
            assert!(expected.set_tenant_state(tenant, state).is_ok());
            assert_eq!(tested.tenant_state(tenant), expected.tenant_state(tenant));
        }
    }
}

/// The same about the shop.
fn shop_step(random: &mut Random, expected: &dyn Store, tested: &dyn Store) {
    let tenant = random.one_of(&TENANTS);
    let now = Timestamp::from_unix_micros(random.below(1000) as i64).expect("in range");
    let at = GlobalAddress {
        scope: random.one_of(&SCOPES).to_owned(),
        key: random.one_of(&["tag", "Tag", "tag.a", "TAG.A", "other"]).to_owned(),
        version: random.one_of(&[i32::MIN, -1, 0, 2, 10]),
    };
    match random.below(7) {
        0 | 1 => {
            let entry = some_entry(random, tenant, &at, now);
            let quota = Quota { records: 6, bytes: 1000 };
            let create = |store: &dyn Store| store.global_create(entry.clone(), quota);
            assert_eq!(create(tested), create(expected));
        }
        2 => {
            let delete = |store: &dyn Store| store.global_delete(at.clone(), Some(tenant));
            assert_eq!(delete(tested), delete(expected));
        }
        3 | 4 => {
            let change = match random.below(3) {
                0 => GlobalChange::Price((random.below(2) == 0).then_some(5)),
                1 => GlobalChange::Review("rejected".to_owned()),
                _ => GlobalChange::Review("approved".to_owned()),
            };
            let change = |store: &dyn Store| store.global_change(at.clone(), change.clone(), now);
            assert_eq!(change(tested), change(expected));
        }
        5 => {
            let purchase = |store: &dyn Store| store.global_purchase(tenant, at.clone(), now);
            assert_eq!(purchase(tested), purchase(expected));
        }
        _ => {
            let state = (random.below(3) > 0).then(|| "approved".to_owned());
            let scope = (random.below(3) > 0).then(|| at.scope.clone());
            let pattern = random.one_of(&["%", "tag%", "TAG._", "_____"]);
            let filter = GlobalFilter::new(state, scope, Some(pattern)).expect("a filter");
            let find = |store: &dyn Store| store.global_find(&filter, FindLimits::default());
            assert_eq!(find(tested), find(expected));
            assert_eq!(tested.global_get(&at), expected.global_get(&at));
            assert_eq!(
                tested.global_is_purchased(tenant, &at),
                expected.global_is_purchased(tenant, &at)
            );
        }
    }
}

fn some_entry(
    random: &mut Random,
    tenant: TenantId,
    at: &GlobalAddress,
    now: Timestamp,
) -> GlobalEntry {
    let is_staff = random.below(3) == 0;
    let partial = PartialGlobalKv {
        key: at.key.clone(),
        version: at.version,
        owner_id: tenant.snowflake().to_string(),
        owner_type: if is_staff { "staff" } else { tenant.kind().as_str() }.to_owned(),
        price: None,
        short: "x".repeat(random.below(200) as usize),
        public_metadata: some_json(random),
        scope: at.scope.clone(),
        created_at: now,
        last_updated_at: now,
        public_data: random.below(2) == 0,
        review_state: "pending".to_owned(),
        long: (random.below(2) == 0).then(|| "long".to_owned()),
    };
    GlobalEntry { partial, data: some_json(random) }
}

fn compare_all(expected: &dyn Store, tested: &dyn Store) {
    let states = |store: &dyn Store| {
        let mut states = store.tenant_states(&ShardSet::full()).expect("readable");
        states.sort_by_key(|(tenant, _)| *tenant);
        states
    };
    assert_eq!(states(tested), states(expected));
    let everything = rules::check_pattern("%").expect("a pattern");
    for tenant in TENANTS {
        let find = |store: &dyn Store| {
            store.kv_find(tenant, &Scopes::default(), &everything, FindLimits::default())
        };
        assert_eq!(find(tested), find(expected));
        assert_eq!(tested.kv_usage(tenant), expected.kv_usage(tenant));
        assert_eq!(tested.kv_list_scopes(tenant), expected.kv_list_scopes(tenant));
    }
}

fn compare(kept: Kept, seed: u64) {
    let place = Place::new(kept);
    let mut random = Random::new(seed);
    let expected = MemoryStore::new();
    let mut turn = 0;
    for _ in 0..4 {
        let tested = place.open();
        compare_all(&expected, tested.as_ref());
        for _ in 0..250 {
            turn += 1;
            step(&mut random, turn, &expected, tested.as_ref());
        }
        compare_all(&expected, tested.as_ref());
        tested.close();
    }
}

#[test]
fn random_operations_give_equal_answers_seed_1() {
    compare(Kept::InRedb, 1);
}

#[test]
fn random_operations_give_equal_answers_seed_2() {
    compare(Kept::InRedb, 2);
}

#[test]
fn random_operations_give_equal_answers_seed_3() {
    compare(Kept::InRedb, 3);
}

#[cfg(feature = "postgres")]
#[test]
fn random_operations_give_equal_answers_in_postgres() {
    for (locale, seed) in [(Locale::C, 1), (Locale::Utf8, 2)] {
        let kept = Kept::Postgres(locale);
        if !kept.is_there("random_operations_give_equal_answers_in_postgres") {
            return;
        }
        compare(kept, seed);
    }
}
