//! What becomes of calls, over stand-ins for the connections of host processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::store::DbOptions;
use crate::store::memory::MemoryStore;
use crate::wire::data::{EncodedJson, EncodedValue, KeyValueOp, Scopes};
use crate::wire::json::value_from_json;

const TENANT: TenantId = TenantId::Guild(1 << 22);

/// Keeps what it is sent.
#[derive(Default)]
struct StandIn {
    sent: Lock<Vec<String>>,
    is_full: AtomicBool,
    wakes: Lock<usize>,
}

impl HostLink for StandIn {
    fn welcome(&self) {}

    fn send(&self, _: TenantId, text: String) -> bool {
        self.sent.lock().push(text);
        !self.is_full.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        *self.wakes.lock() += 1;
    }
}

struct Scene {
    hosts: Arc<Hosts>,
    db: Arc<DbState>,
    results: Arc<Lock<Vec<&'static str>>>,
}

fn scene(allowed: &[&str]) -> Scene {
    let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default());
    let db = Arc::new(db.expect("an empty store"));
    let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
    Scene { hosts: Hosts::new(db.clone(), allowed), db, results: Arc::default() }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn call_of(name: &str) -> HostCall {
    HostCall { from: TENANT, name: name.to_owned(), args: EncodedJson::null() }
}

impl Scene {
    fn register(&self, user: u64, served: &[&str], credits: usize) -> (u64, Arc<StandIn>) {
        let link = Arc::new(StandIn::default());
        let number = self.hosts.register(user, names(served), credits, link.clone());
        (number.expect("taken in"), link)
    }

    fn call(&self, name: &str) {
        let results = self.results.clone();
        let answer = move |result: HostResult| {
            let outcome = result.map_or_else(|error| error.outcome, |_| HostOutcome::Answered);
            results.lock().push(outcome.as_str());
        };
        self.hosts.send(&call_of(name), Box::new(answer));
    }

    fn results(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.results.lock())
    }
}

/// The numbers of the calls that a host process was sent.
fn numbers(link: &StandIn) -> Vec<u64> {
    let number = |text: &String| {
        let call: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(call["tenant"], TENANT.to_string());
        call["id"].as_u64().expect("a number")
    };
    link.sent.lock().iter().map(number).collect()
}

fn nothing() -> HostResult {
    Ok(EncodedValue::null())
}

#[test]
fn a_call_has_one_outcome_however_often_it_is_answered() {
    let scene = scene(&[]);
    scene.call("a");
    assert_eq!(scene.results(), ["no_host"]);
    let (host, link) = scene.register(7, &["a", "b"], 8);
    scene.call("a");
    scene.call("c");
    assert_eq!(scene.results(), ["no_host"], "another name");
    let number = numbers(&link)[0];
    assert!(scene.hosts.answered(host, number + 100, nothing()), "one that it was not asked");
    assert!(scene.hosts.answered(host + 1, number, nothing()), "another host process");
    assert_eq!(scene.results(), [""; 0]);
    assert!(scene.hosts.answered(host, number, nothing()));
    assert!(scene.hosts.answered(host, number, nothing()), "twice");
    scene.hosts.gone(host);
    assert_eq!(scene.results(), ["answered"]);
    assert_eq!(scene.hosts.outcomes().get(HostOutcome::Answered), 1);
}

#[test]
fn a_host_process_that_goes_leaves_its_calls_unknown() {
    let scene = scene(&[]);
    let (first, link) = scene.register(7, &["a"], 2);
    let (second, other) = scene.register(7, &["a"], 2);
    (0..4).for_each(|_| scene.call("a"));
    assert_eq!((numbers(&link).len(), numbers(&other).len()), (2, 2), "they take turns");
    scene.call("a");
    assert_eq!(scene.results(), ["busy"], "no credit is left");
    scene.hosts.gone(first);
    assert_eq!(scene.results(), ["outcome_unknown"; 2]);
    assert!(scene.hosts.answered(second, numbers(&other)[1], nothing()));
    scene.call("a");
    assert_eq!((scene.results(), numbers(&other).len()), (vec!["answered"], 3));
    assert_eq!(scene.hosts.count(), 1);
}

#[test]
fn an_overdue_call_holds_its_credit_until_it_is_answered() {
    let scene = scene(&[]);
    let (host, link) = scene.register(7, &["a"], 1);
    scene.call("a");
    assert_eq!(*link.wakes.lock(), 1, "its clock is told of the first one");
    let now = Instant::now();
    assert!(scene.hosts.expire(host, now), "not yet");
    assert!(!scene.hosts.expire(host, now + HOST_DEADLINE + Duration::from_secs(1)));
    assert_eq!(scene.results(), ["deadline"]);
    scene.call("a");
    assert_eq!(scene.results(), ["busy"], "the program still has it");
    assert!(scene.hosts.answered(host, numbers(&link)[0], nothing()));
    assert_eq!(scene.results(), [""; 0], "late");
    scene.call("a");
    assert_eq!(numbers(&link).len(), 2);
}

#[test]
fn one_that_does_not_read_is_busy() {
    let scene = scene(&[]);
    let (_, link) = scene.register(7, &["a"], 1);
    link.is_full.store(true, Ordering::Relaxed);
    (0..3).for_each(|_| scene.call("a"));
    assert_eq!(scene.results(), ["busy"; 3]);
    link.is_full.store(false, Ordering::Relaxed);
    scene.call("a");
    assert_eq!(scene.results(), [""; 0]);
}

#[test]
fn a_flood_of_answers_that_nobody_asked_for_ends() {
    let scene = scene(&[]);
    let (host, link) = scene.register(7, &["a"], 1);
    let answers = |count| (0..count).all(|_| scene.hosts.answered(host, 0, nothing()));
    assert!(answers(HOST_STRAYS_MAX));
    assert!(!answers(1));
    scene.call("a");
    assert!(scene.hosts.answered(host, numbers(&link)[0], nothing()));
    assert!(answers(HOST_STRAYS_MAX), "an answer begins the count anew");
}

#[test]
fn a_name_is_one_user_s() {
    let scene = scene(&[]);
    let (host, _) = scene.register(7, &["a", "b"], 1);
    let other =
        |served: &[&str]| scene.hosts.register(8, names(served), 1, Arc::new(StandIn::default()));
    assert_eq!(other(&["b"]), Err(HostRefusal::Taken("b".to_owned())));
    assert!(other(&["c"]).is_ok());
    scene.hosts.gone(host);
    assert!(other(&["b"]).is_ok());
    (2..HOSTS_MAX).for_each(|_| drop(scene.register(9, &["d"], 1)));
    assert_eq!(other(&["e"]), Err(HostRefusal::Full));
}

#[test]
fn a_tenant_calls_what_it_is_allowed() {
    let scene = scene(&["all"]);
    let allowed = |name: &str| {
        let checked = scene.hosts.check_allowed(&call_of(name));
        checked.map_or_else(|error| error.outcome.as_str(), |()| "allowed")
    };
    assert_eq!((allowed("all"), allowed("a")), ("allowed", "not_allowed"));
    let (scopes, key) = (Scopes::new(["#host"]), "allowed".to_owned());
    let value = value_from_json(br#"["a"]"#).expect("a value");
    scene.db.kv(TENANT, KeyValueOp::Set { scopes, key, value }).expect("set");
    assert_eq!((allowed("a"), allowed("b")), ("allowed", "not_allowed"));
    scene.db.set_standing(TENANT, Standing::Banned).expect("banned");
    assert_eq!(allowed("all"), "not_allowed");
}

#[test]
fn a_call_has_a_name_and_bounded_arguments() {
    let args = |bytes| EncodedJson::from_checked(vec![0; bytes]);
    assert!(has_bounds(&HostCall { args: args(HOST_ARGS_MAX_BYTES), ..call_of("a") }));
    assert!(!has_bounds(&HostCall { args: args(HOST_ARGS_MAX_BYTES + 1), ..call_of("a") }));
    assert!(!has_bounds(&call_of("no name")));
}
