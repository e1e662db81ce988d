//! The rules of the store, over one in memory.

use super::*;
use crate::base::sync::Lock;
use crate::store::memory::MemoryStore;
use crate::wire::data::{EncodedJson, KhronosValue};

fn state(events: &[&str]) -> TenantState {
    TenantState {
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        data: EncodedJson::null(),
    }
}

fn db() -> DbState {
    DbState::new(Arc::new(MemoryStore::new()), DbOptions::default()).expect("an empty store")
}

fn set(db: &DbState, tenant: TenantId, key: &str, scopes: &[&str]) -> Result<DbAnswer, DbError> {
    let scopes = Scopes::new(scopes.iter().copied());
    let value = crate::wire::pack::value::encode(&KhronosValue::Text("return 1".to_owned()));
    db.kv(tenant, KeyValueOp::Set { scopes, key: key.to_owned(), value })
}

#[test]
fn a_worker_owns_what_the_formula_gives_it() {
    let tenant = TenantId::Guild(5 << 22);
    assert_eq!(Caller { worker_id: 2, workers: 3 }.check_owns(tenant), Ok(()));
    assert!(matches!(
        Caller { worker_id: 1, workers: 3 }.check_owns(tenant),
        Err(DbError::Forbidden(_))
    ));
}

#[test]
fn a_worker_sees_the_states_of_its_own_tenants() {
    let db = db();
    for number in 0..10_u64 {
        db.set_tenant_state(TenantId::User(number << 22), &state(&["A"])).expect("set");
    }
    let mut seen = 0;
    for worker_id in 0..3 {
        let caller = Caller { worker_id, workers: 3 };
        let states = db.tenant_states(caller);
        assert!(states.iter().all(|(tenant, _)| caller.owns(*tenant)));
        seen += states.len();
    }
    assert_eq!(seen, 10);
}

#[test]
fn the_listener_hears_of_each_state_as_it_is_stored() {
    let db = db();
    let heard = Arc::new(Lock::new(Vec::new()));
    let hear = Arc::clone(&heard);
    db.on_tenant_state(Box::new(move |tenant, state| {
        hear.lock().push((tenant, state.clone()));
    }));
    let tenant = TenantId::Guild(1);
    db.set_tenant_state(tenant, &state(&["B", "A"])).expect("set");
    assert!(db.set_tenant_state(tenant, &state(&["\0"])).is_err());
    let heard = heard.lock();
    assert_eq!(*heard, [(tenant, state(&["A", "B"]))]);
    assert_eq!(db.tenant_state(tenant), Some(Arc::new(state(&["A", "B"]))));
}

#[test]
fn a_receiver_allows_what_its_record_says_at_the_moment() {
    let db = db();
    let (receiver, from) = (TenantId::Guild(1), TenantId::User(2));
    let allows = |topic: &str| db.allows_message(receiver, from, topic).expect("read");
    let write = |topics: &str| {
        let value = format!(r#"{{"user:2":["{topics}"]}}"#);
        let value = crate::wire::json::value_from_json(value.as_bytes()).expect("a value");
        let (scopes, key) = (Scopes::new(["#messages"]), "allowed".to_owned());
        db.kv(receiver, KeyValueOp::Set { scopes, key, value }).expect("set");
    };
    assert!(!allows("duel.accept"), "nothing is allowed by itself");
    write("duel.");
    assert!(allows("duel.accept") && !allows("other"));
    write("oth");
    assert!(!allows("duel.accept") && allows("other"));
    let (scopes, key) = (Scopes::new(["#messages"]), "allowed".to_owned());
    db.kv(receiver, KeyValueOp::Delete { scopes, key }).expect("deleted");
    assert!(!allows("other"));
    write("");
    assert!(allows("other"));
    db.forget_shards(&ShardSet::full());
    assert!(db.message_rules.get(receiver, Instant::now()).is_err());
}

#[test]
fn the_listener_hears_of_templates_and_of_no_other_record() {
    let db = db();
    let heard = Arc::new(Lock::new(Vec::new()));
    let hear = Arc::clone(&heard);
    db.on_template(Box::new(move |tenant| hear.lock().push(tenant)));
    let tenant = TenantId::User(7);
    let heard_of = |key: &str, scopes: &[&str]| {
        set(&db, tenant, key, scopes).expect("set");
        std::mem::take(&mut *heard.lock())
    };
    assert_eq!(heard_of("main", &["template"]), [tenant]);
    assert_eq!(heard_of("other", &["template"]), []);
    assert_eq!(heard_of("main", &["other"]), []);
    assert_eq!(heard_of("main", &["template", "other"]), []);
    let (scopes, key) = (Scopes::new(["template"]), "main".to_owned());
    db.kv(tenant, KeyValueOp::Delete { scopes, key }).expect("deleted");
    assert_eq!(*heard.lock(), [tenant]);
    assert!(set(&db, tenant, "\0", &["template"]).is_err());
}

#[test]
fn a_full_quota_does_not_keep_the_errors_out() {
    let quota = Quota { records: 1, bytes: 1000 };
    let options = DbOptions { quota, ..DbOptions::default() };
    let db = DbState::new(Arc::new(MemoryStore::new()), options).expect("an empty store");
    let set = |key: &str, scope: &str| set(&db, TenantId::User(7), key, &[scope]);
    assert_eq!(set("a", "s"), Ok(DbAnswer::Done));
    assert!(matches!(set("b", "s"), Err(DbError::Refused(_))));
    assert_eq!(set("last", "#err"), Ok(DbAnswer::Done));
    assert!(matches!(set("other", "#err"), Err(DbError::Refused(_))));
    assert_eq!(set("a", "s"), Ok(DbAnswer::Done), "what is there can still be replaced");
}

#[test]
fn states_are_read_from_the_store_at_the_start() {
    let store = Arc::new(MemoryStore::new());
    let tenant = TenantId::User(7);
    store.set_tenant_state(tenant, state(&["A"])).expect("set");
    let db = DbState::new(store, DbOptions::default()).expect("readable");
    assert_eq!(db.tenant_state(tenant), Some(Arc::new(state(&["A"]))));
}

#[test]
fn a_ban_leaves_the_state_alone_and_needs_none() {
    let db = db();
    let (with, without) = (TenantId::User(7), TenantId::User(8));
    db.set_tenant_state(with, &state(&["A"])).expect("set");
    for tenant in [with, without] {
        assert_eq!(db.standing(tenant), Standing::Good);
        db.set_standing(tenant, Standing::Banned).expect("banned");
        assert_eq!(db.standing(tenant), Standing::Banned);
    }
    db.set_tenant_state(with, &state(&["B"])).expect("set");
    assert_eq!((db.standing(with), db.tenant_state(without)), (Standing::Banned, None));
    assert_eq!(db.tenant_states(Caller { worker_id: 0, workers: 1 }).len(), 1);
    let starts = state(&["B", "OnStartup"]);
    db.set_tenant_state(with, &starts).expect("set");
    let workers = db.tenant_states(Caller { worker_id: 0, workers: 1 });
    assert_eq!(*workers[0].1, state(&["B"]), "a banned tenant is not started with its worker");
    let told = Arc::new(Lock::new(Vec::new()));
    let hear = Arc::clone(&told);
    db.on_tenant_state(Box::new(move |_, state| hear.lock().push(state.clone())));
    db.set_standing(with, Standing::Good).expect("lifted");
    assert_eq!(*told.lock(), [starts]);
    db.set_tenant_state(with, &state(&["B"])).expect("set");
    assert_eq!(db.tenant_state(with), Some(Arc::new(state(&["B"]))));
}
