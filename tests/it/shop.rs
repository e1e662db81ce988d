//! What tenants are told of the shop, through real masters and workers.

use std::collections::BTreeMap;
use std::time::Duration;

use mesophyll::store;
use mesophyll::store::{DbOptions, StoreOptions};
use postgres::{Client, NoTls};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Master, get, post, token};
use crate::support::cluster::{place, tenants_of};
use crate::support::postgres::{self as server, Locale, Schema};
use crate::support::process::{eventually, signal, within, workers_of};

/// On two workers of two.
const OWNER: &str = "guild/4194304";
const OTHER: &str = "user/8388608";

/// Keeps the last update of each entry, and counts gaps; after one it looks itself.
const TEMPLATE: &str = r#"
local function keep(ctx, change)
	ctx.KV:update("seen", { "test" }, function(old)
		local seen = table.clone(old or { gaps = 0 })
		change(seen)
		return seen
	end)
end

return function(ctx)
	local event = ctx:event()
	local data = event.data
	if event.name == "Watch" then
		ctx.GlobalKV:watch("s", data)
	elseif event.name == "Unwatch" then
		ctx.GlobalKV:unwatch("s", data)
	elseif event.name == "Create" then
		local entry = { key = data, version = 1, short = "it", public_metadata = {}, scope = "s", data = {} }
		entry.public_data = true
		ctx.GlobalKV:create(entry)
	elseif event.name == "ShopUpdate" and data.gap then
		local found = ctx.GlobalKV:find("%", "s")
		keep(ctx, function(seen)
			seen.gaps += 1
			for _, entry in found do
				seen[entry.key] = entry.review_state
			end
		end)
	elseif event.name == "ShopUpdate" then
		keep(ctx, function(seen)
			seen[data.key] = if data.change == "withdrawn" then "withdrawn" else data.review_state
		end)
	end
	return ctx.GlobalKV:watched()
end
"#;

fn start(args: &[&str]) -> Master {
    // Subscribed to nothing of it but by watching.
    let events = ["--default-events", "Watch,Unwatch,Create"];
    Master::with_template(TEMPLATE, &[&events[..], args].concat())
}

fn ask(master: &Master, tenant: &str, event: &str, data: &str) -> Value {
    let (status, answer) = master.dispatch(tenant, event, &json!(data).to_string());
    assert_eq!(status, 200, "{event} {data}: {answer}");
    answer
}

fn staff(master: &Master, op: Value) {
    let (status, body) = post(master.api(), "/i/global-kv", &token(7), &op.to_string());
    assert_eq!(status, 204, "{op}: {body}");
}

fn review(master: &Master, key: &str, state: &str) {
    let op =
        json!({ "op": "review", "scope": "s", "key": key, "version": 1, "review_state": state });
    staff(master, op);
}

/// What a tenant has seen last: review states, or `withdrawn`, by key.
fn seen(master: &Master, tenant: &str) -> BTreeMap<String, Value> {
    let get = r#"{"op":"get","key":"seen","scopes":["test"]}"#;
    let (status, body) = post(master.api(), &format!("/i/kv/{tenant}"), &token(7), get);
    assert_eq!(status, 200, "{body}");
    let record: Value = serde_json::from_str(&body).expect("JSON");
    serde_json::from_value(record["value"].clone()).unwrap_or_default()
}

#[track_caller]
fn wait_seen(master: &Master, tenant: &str, key: &str, state: &str) {
    let mut last = BTreeMap::new();
    within(Duration::from_secs(60), "it was told", || {
        last = seen(master, tenant);
        (last.get(key) == Some(&json!(state))).then_some(())
    });
}

fn watch_and_hear(args: &[&str]) {
    let master = start(args);
    assert_eq!(ask(&master, OWNER, "Watch", "%"), json!({ "s": ["%"] }));
    assert_eq!(ask(&master, OTHER, "Watch", "one%"), json!({ "s": ["one%"] }));
    let bad = master.dispatch(OTHER, "Watch", r#""\\""#);
    assert_eq!(bad.0, 422, "{}", bad.1);
    ask(&master, OWNER, "Create", "one.a");
    wait_seen(&master, OWNER, "one.a", "pending");
    assert_eq!(seen(&master, OTHER).get("one.a"), None, "readers do not see it");
    review(&master, "one.a", "approved");
    wait_seen(&master, OWNER, "one.a", "approved");
    wait_seen(&master, OTHER, "one.a", "approved");
    review(&master, "one.a", "denied");
    wait_seen(&master, OWNER, "one.a", "withdrawn");
    wait_seen(&master, OTHER, "one.a", "withdrawn");
    review(&master, "one.a", "pending");
    wait_seen(&master, OWNER, "one.a", "pending");
    ask(&master, OWNER, "Create", "two.a");
    review(&master, "two.a", "approved");
    wait_seen(&master, OWNER, "two.a", "approved");
    let others = seen(&master, OTHER);
    assert_eq!((others.get("one.a"), others.get("two.a")), (Some(&json!("withdrawn")), None));
    assert_eq!(ask(&master, OTHER, "Unwatch", "one%"), json!({}));
    review(&master, "one.a", "approved");
    wait_seen(&master, OWNER, "one.a", "approved");
    assert_eq!(seen(&master, OTHER).get("one.a"), Some(&json!("withdrawn")), "it watches no more");
    let (_, metrics) = get(master.api(), "/metrics");
    assert!(metrics.contains("\nmesophyll_shop_watchers 1\n"), "{metrics}");
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn watchers_hear_of_what_readers_may_see() {
    watch_and_hear(&[]);
}

#[test]
fn watchers_on_threads_of_the_master_hear_the_same() {
    watch_and_hear(&["--mode", "thread-pool"]);
}

/// The last state of the entry with this number, after so many rounds.
fn state(number: usize, round: usize) -> &'static str {
    ["approved", "denied", "approved"][(number + round) % 3]
}

/// How many changes there are; more are asked for by a variable.
fn changes() -> usize {
    let asked = std::env::var("MESOPHYLL_TEST_SHOP_CHANGES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(300)
}

#[test]
fn the_last_state_arrives_while_workers_restart() {
    let master = start(&["--quarantine-after", "1024"]);
    let (entries, watchers) = (20, ["guild/4194304", "user/8388608", "guild/12582912"]);
    watchers.iter().for_each(|tenant| drop(ask(&master, tenant, "Watch", "key%")));
    let keys: Vec<String> = (0..entries).map(|number| format!("key.{number}")).collect();
    keys.iter().for_each(|key| drop(ask(&master, "guild/16777216", "Create", key)));
    let rounds = changes() / entries;
    let every = (rounds / 3).max(1);
    for round in 0..rounds {
        for (number, key) in keys.iter().enumerate() {
            review(&master, key, state(number, round));
            if number == entries / 2 && round % every == 1 {
                workers_of(master.pid()).values().for_each(|pid| signal(*pid, Signal::KILL));
            }
        }
    }
    for tenant in watchers {
        for (number, key) in keys.iter().enumerate() {
            let last = state(number, rounds - 1);
            let last = if last == "denied" { "withdrawn" } else { last };
            wait_seen(&master, tenant, key, last);
        }
    }
    eventually("nothing is left to be told", || {
        let (_, metrics) = get(master.api(), "/metrics");
        metrics.contains("\nmesophyll_shop_pending 0\n").then_some(())
    });
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_master_that_starts_has_its_watchers_look() {
    let kept = TempDir::new();
    let store = format!("redb:{}", kept.path().join("shop.redb").display());
    let master = start(&["--store", &store]);
    ask(&master, OTHER, "Watch", "%");
    ask(&master, OWNER, "Create", "one.a");
    assert_eq!(master.stop().0.code(), 0);
    let master = start(&["--store", &store]);
    eventually("it was told of the gap", || {
        (seen(&master, OTHER).get("gaps") == Some(&json!(1))).then_some(())
    });
    assert_eq!(seen(&master, OTHER).get("one.a"), None, "it looked, and sees what readers see");
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn transactions_that_end_out_of_order_lose_nothing() {
    if !server::is_there("transactions_that_end_out_of_order_lose_nothing") {
        return;
    }
    let schema = Schema::alone();
    let url = schema.store_url();
    let held = std::sync::Arc::default();
    let store = store::open_with(&url, StoreOptions::default(), held).expect("a store");
    let db = store::DbState::new(store, DbOptions::default()).expect("readable");
    let connect = || Client::connect(schema.url(), NoTls).expect("connected");
    let (mut first, mut second, mut third) = (connect(), connect(), connect());
    let insert = |to: &mut Client, key: &str| {
        let insert =
            "INSERT INTO mesophyll_shop_log (scope, key, version, owner_type, owner_id, change)
            VALUES ('s', $1, 1, 'user', '1', 'hidden')";
        to.execute(insert, &[&key]).expect("inserted");
    };
    let mut since = Some(db.shop_changes(None).expect("a look").until);
    let mut look = || {
        let look = db.shop_changes(since).expect("a look");
        assert!(!look.has_gap);
        since = Some(look.until);
        (look.changes.into_iter().map(|one| one.at.key).collect::<Vec<_>>(), look.held_up)
    };
    // The first is open when the second ends; the third has its id first and its number last.
    third.batch_execute("BEGIN; SELECT txid_current()").expect("begun");
    first.batch_execute("BEGIN").expect("begun");
    insert(&mut first, "first");
    insert(&mut second, "second");
    let (found, held_up) = look();
    assert!(found.is_empty() && !held_up.is_zero(), "{found:?} {held_up:?}");
    insert(&mut third, "third");
    third.batch_execute("COMMIT").expect("ended");
    // Transactions of other tests on the server hold them up, too.
    let mut wait_look = || {
        within(Duration::from_secs(60), "it is seen", || {
            Some(look().0).filter(|found| !found.is_empty())
        })
    };
    assert_eq!(wait_look(), ["third"]);
    first.batch_execute("COMMIT").expect("ended");
    assert_eq!(wait_look(), ["first", "second"]);
    assert_eq!(look().0, [""; 0]);
}

#[test]
fn updates_cross_masters() {
    if !server::is_there("updates_cross_masters") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let (one, two) = (start(&place(&schema, "one")), start(&place(&schema, "two")));
    let (owner, other) = tenants_of(&one, &two);
    ask(&one, &owner, "Watch", "%");
    ask(&one, &other, "Watch", "%");
    ask(&one, &owner, "Create", "one.a");
    wait_seen(&one, &owner, "one.a", "pending");
    review(&one, "one.a", "approved");
    wait_seen(&two, &other, "one.a", "approved");
    review(&two, "one.a", "denied");
    wait_seen(&one, &owner, "one.a", "withdrawn");
    wait_seen(&one, &other, "one.a", "withdrawn");
    // Whoever takes its shard has the tenant look.
    let gaps = seen(&one, &other).get("gaps").and_then(Value::as_u64).unwrap_or_default();
    two.running.signal(Signal::KILL);
    drop(two);
    review(&one, "one.a", "approved");
    wait_seen(&one, &other, "one.a", "approved");
    within(Duration::from_secs(60), "it was told of a gap, too", || {
        let now = seen(&one, &other).get("gaps").and_then(Value::as_u64);
        (now > Some(gaps)).then_some(())
    });
    one.stop().0.expect(0, "");
}
