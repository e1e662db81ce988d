//! What watchers are told, with the time in the test's hands.

use std::time::{Duration, Instant};

use super::watchers::Watchers;
use super::*;
use crate::base::error::DispatchError;
use crate::base::limits::{
    SHOP_PENDING_MAX, SHOP_PLACE_FOR, SHOP_PLACES, SHOP_RETRY_MIN, SHOP_TELLING_MAX, SHOP_TELLS_MAX,
};
use crate::dispatch::{Cancelled, Refused, RequestId};
use crate::store::global::GlobalAddress;
use crate::store::memory::MemoryStore;
use crate::store::shop_patterns::ShopPatterns;
use crate::store::{DbOptions, DbState};
use crate::wire::data::{ERRORS_KEY, ERRORS_SCOPE, EventData, KeyValueOp, Scopes};
use crate::wire::json::{json_from_encoded, value_from_json, value_to_json};

const A: TenantId = TenantId::Guild(1 << 22);
const B: TenantId = TenantId::User(2 << 22);

/// Patterns as a record says them.
fn patterns(json: &str) -> ShopPatterns {
    let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default()).expect("a store");
    let value = value_from_json(json.as_bytes()).expect("a value");
    let (scopes, key) = (Scopes::new(["#shop"]), "watched".to_owned());
    db.kv(A, KeyValueOp::Set { scopes, key, value }).expect("set");
    db.shop_patterns(A).expect("read")
}

fn change(key: &str, kind: ShopChangeKind, state: &str) -> ShopChange {
    let at = GlobalAddress { scope: "s".to_owned(), key: key.to_owned(), version: 1 };
    ShopChange { at, owner: Some(A), kind, review_state: Some(state.to_owned()) }
}

fn approved(key: &str) -> ShopChange {
    change(key, ShopChangeKind::Approved, "approved")
}

/// What is told next, as the tenant sees it.
fn told(watchers: &mut Watchers, now: Instant) -> Option<(TenantId, u64, String)> {
    let (tenant, number, told) = watchers.next(now)?;
    let EventData::Json(data) = event(tenant, &told).data else { panic!("JSON") };
    Some((tenant, number, json_from_encoded(&data).expect("JSON")))
}

fn watching(tenants: &[TenantId]) -> Watchers {
    let mut watchers = Watchers::default();
    tenants.iter().for_each(|tenant| watchers.watch(*tenant, patterns(r#"{"s":["a%"]}"#)));
    watchers
}

#[test]
fn strangers_hear_of_what_readers_see_and_owners_of_all() {
    let (mut watchers, now) = (watching(&[A, B]), Instant::now());
    let mut heard = |change: ShopChange| {
        watchers.add(change, now);
        let mut heard = Vec::new();
        while let Some((tenant, number, text)) = told(&mut watchers, now) {
            watchers.ended(tenant, number, Arrival::Arrived, now);
            heard.push((tenant, text));
        }
        heard
    };
    let data = |change: &str, state: &str| {
        format!(r#"{{"scope":"s","key":"abc","change":"{change}","version":1{state}}}"#)
    };
    let pending = r#","review_state":"pending""#;
    let hidden = change("abc", ShopChangeKind::Hidden, "pending");
    assert_eq!(heard(hidden), [(A, data("hidden", pending))]);
    let seen = data("approved", r#","review_state":"approved""#);
    assert_eq!(heard(approved("abc")), [(A, seen.clone()), (B, seen)]);
    let withdrawn = change("abc", ShopChangeKind::Withdrawn, "pending");
    let both = [(A, data("withdrawn", pending)), (B, data("withdrawn", ""))];
    assert_eq!(heard(withdrawn), both);
    assert_eq!(heard(approved("other")), [], "no pattern matches");
}

#[test]
fn changes_of_one_entry_are_one_until_they_are_told() {
    let (mut watchers, now) = (watching(&[B]), Instant::now());
    watchers.add(approved("a1"), now);
    watchers.add(approved("a2"), now);
    watchers.add(change("a1", ShopChangeKind::Changed, "approved"), now);
    let (_, number, text) = told(&mut watchers, now).expect("one");
    assert!(text.contains(r#""key":"a1","change":"approved""#), "{text}");
    assert_eq!(told(&mut watchers, now), None, "one at a time");
    // Of what is on its way comes a newer state, and then it does not arrive.
    watchers.add(change("a1", ShopChangeKind::Withdrawn, "denied"), now);
    watchers.ended(B, number, Arrival::NotYet, now);
    assert_eq!(told(&mut watchers, now), None, "there is a pause");
    let mut later = now + SHOP_RETRY_MIN;
    let mut keys = Vec::new();
    while let Some((_, number, text)) = told(&mut watchers, later) {
        later += Duration::from_secs(1);
        watchers.ended(B, number, Arrival::Arrived, later);
        keys.push(text);
    }
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(
        keys.iter().any(|text| text.contains(r#""key":"a1","change":"withdrawn""#)),
        "{keys:?}"
    );
    assert_eq!(watchers.pending(), 0);
}

#[test]
fn where_too_much_waits_a_gap_takes_its_place() {
    let (mut watchers, now) = (watching(&[B]), Instant::now());
    for number in 0..=SHOP_PENDING_MAX {
        watchers.add(approved(&format!("a{number}")), now);
    }
    assert_eq!(watchers.pending(), 0);
    let (_, number, text) = told(&mut watchers, now).expect("a gap");
    assert_eq!(text, r#"{"gap":true}"#);
    // What comes while the tenant looks may have come too late for it.
    watchers.add(approved("a1"), now);
    watchers.ended(B, number, Arrival::Arrived, now);
    assert!(told(&mut watchers, now).expect("it").2.contains("a1"));
    let mut watchers = watching(&[]);
    watchers.come(B, patterns(r#"{"s":["%"]}"#), now);
    assert_eq!(told(&mut watchers, now).expect("a gap").2, r#"{"gap":true}"#);
}

/// What the author of a tenant reads of what went wrong.
fn errors_of(db: &DbState, tenant: TenantId) -> String {
    let (scopes, key) = (Scopes::new([ERRORS_SCOPE]), ERRORS_KEY.to_owned());
    let found = db.kv(tenant, KeyValueOp::Get { scopes, key }).expect("an answer");
    let record = found.into_record().expect("one or none");
    record.map_or("null".to_owned(), |record| format!("{:?}", value_to_json(&record.value)))
}

struct NoWorker;

impl WorkerLike for NoWorker {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        Err(request.refused(DispatchError::Banned))
    }

    fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
        Cancelled::Unknown
    }

    fn kill(&self) {}
}

#[test]
fn an_update_that_may_kill_its_worker_is_given_up() {
    let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default()).expect("a database");
    let mut teller = Teller {
        shared: Arc::new(ShopShared {
            notes: Lock::default(),
            noted: Signal::new(),
            outcomes: Arc::default(),
            watchers: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            looked: Lock::new((Instant::now(), 0)),
        }),
        pool: Arc::new(NoWorker),
        db: Arc::new(db),
        watchers: watching(&[B]),
        unread: Default::default(),
        since: None,
    };
    let mut now = Instant::now();
    teller.watchers.add(approved("a1"), now);
    for _ in 0..SHOP_TELLS_MAX {
        assert_eq!(errors_of(&teller.db, B), "null", "it is told again");
        let (_, number, _) = told(&mut teller.watchers, now).expect("told again");
        let ended = vec![(B, number, Arrival::MayHave)];
        teller.take_in(Notes { ended, ..Notes::default() }, now);
        assert_eq!(teller.watchers.ended(B, number, Arrival::MayHave, now), None, "it has ended");
        now += Duration::from_secs(60);
    }
    assert_eq!(told(&mut teller.watchers, now), None);
    assert_eq!(teller.shared.outcomes.get(ShopOutcome::GivenUp), 1);
    let errors = errors_of(&teller.db, B);
    assert!(errors.contains("was given up") && errors.contains(SHOP_UPDATE), "{errors}");
}

#[test]
fn handlers_that_take_their_time_hold_up_others_for_a_moment() {
    let tenants: Vec<TenantId> = (0..SHOP_TELLING_MAX as u64 + 9).map(TenantId::Guild).collect();
    let (mut watchers, start) = (watching(&tenants), Instant::now());
    watchers.add(ShopChange { owner: None, ..approved("a1") }, start);
    let mut now = start;
    let mut first = None;
    // As many as have a place; then, a moment later, as many more.
    for _ in 0..SHOP_TELLING_MAX / SHOP_PLACES {
        for _ in 0..SHOP_PLACES {
            let next = told(&mut watchers, now).expect("there is a place");
            first.get_or_insert(next);
        }
        assert_eq!((told(&mut watchers, now), watchers.next_at()), (None, None));
        now += SHOP_PLACE_FOR / 100;
        watchers.expire(now);
        assert_eq!(told(&mut watchers, now), None, "their places are theirs for a moment");
        watchers.expire(start + SHOP_PLACE_FOR * 2);
    }
    assert_eq!(told(&mut watchers, now), None, "more are not under way, places or not");
    // One that ends makes room for one; those that never end do so later.
    let (tenant, number, _) = first.expect("told");
    watchers.ended(tenant, number, Arrival::Arrived, now);
    assert!(told(&mut watchers, now).is_some());
    assert_eq!(told(&mut watchers, now), None);
    let later = now + SHOP_DEADLINE * 4;
    watchers.expire(later);
    assert!(told(&mut watchers, later).is_some());
    // Tenants that went leave nothing behind.
    watchers.retain(|_| false);
    assert_eq!((watchers.len(), watchers.pending(), watchers.next_at()), (0, 0, None));
    assert_eq!(told(&mut watchers, later), None);
}

#[test]
fn what_a_handler_did_decides_whether_it_is_told_again() {
    let arrival = |error: DispatchError| Arrival::of(&Err(error));
    assert_eq!(arrival(DispatchError::Script("no".to_owned())), Arrival::Arrived);
    assert_eq!(arrival(DispatchError::OutcomeUnknown(String::new())), Arrival::MayHave);
    // A shard that came is not served at once: the gap of its tenants is told again.
    for error in [DispatchError::NotOwner, DispatchError::Deadline { sent: false }] {
        assert_eq!(arrival(error), Arrival::NotYet);
    }
    assert_eq!(arrival(DispatchError::Banned), Arrival::Held);
}
