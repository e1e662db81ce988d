//! Messages between tenants, through real masters and workers.

use serde_json::{Value, json};

use crate::support::binary::{Master, get, post, token};
#[cfg(feature = "postgres")]
use crate::support::cluster::{place, tenants_of};
#[cfg(feature = "postgres")]
use crate::support::postgres::{self, Locale, Schema};
use crate::support::process::eventually;

/// On two workers of two.
const A: &str = "guild/4194304";
const B: &str = "user/8388608";

/// Keeps each message and answers it with another, until that is refused.
const TEMPLATE: &str = r#"
local function send(ctx, to, topic, data)
	local ok, problem = pcall(function()
		ctx.Messages:send(to, topic, data)
	end)
	return if ok then "accepted" else string.match(problem, "^main.luau:%d+: ([%a_]+): ")
end

return function(ctx)
	local event = ctx:event()
	local data = event.data
	if event.name == "Allow" then
		ctx.Messages:allow({ from = data, topics = { "ping" } })
	elseif event.name == "Disallow" then
		ctx.Messages:disallow(data)
	elseif event.name == "Send" then
		local outcomes = {}
		for number = 1, data.times do
			table.insert(outcomes, send(ctx, data.to, data.topic, number))
		end
		return outcomes
	elseif event.name == "TenantMessage" then
		local entry = { depth = data.depth, from = data.from, data = data.data }
		entry.answer = if data.from == "staff" then "none" else send(ctx, data.from, "ping", "pong")
		ctx.KV:update("got", { "test" }, function(old)
			local got = table.clone(old or {})
			table.insert(got, entry)
			return got
		end)
	end
	return ctx.Messages:allowed()
end
"#;

fn start(args: &[&str]) -> Master {
    Master::with_template(TEMPLATE, args)
}

/// A tenant as people write it.
fn name(tenant: &str) -> String {
    tenant.replace('/', ":")
}

fn allow(master: &Master, receiver: &str, from: &str) {
    let rules = json!({ name(from): ["ping"] });
    let answer = master.dispatch(receiver, "Allow", &json!(name(from)).to_string());
    assert_eq!(answer, (200, rules));
}

fn send(master: &Master, from: &str, to: &str, topic: &str, times: u64) -> Vec<String> {
    let data = json!({ "to": name(to), "topic": topic, "times": times });
    let (status, outcomes) = master.dispatch(from, "Send", &data.to_string());
    assert_eq!(status, 200, "{outcomes}");
    serde_json::from_value(outcomes).expect("a list")
}

/// What a tenant got, in order.
fn got(master: &Master, tenant: &str) -> Vec<Value> {
    let get = r#"{"op":"get","key":"got","scopes":["test"]}"#;
    let (status, body) = post(master.api(), &format!("/i/kv/{tenant}"), &token(7), get);
    assert_eq!(status, 200, "{body}");
    let record: Value = serde_json::from_str(&body).expect("JSON");
    record["value"].as_array().cloned().unwrap_or_default()
}

fn outcomes(master: &Master, outcome: &str) -> u64 {
    let (_, text) = get(master.api(), "/metrics");
    let line = format!("mesophyll_messages_total{{outcome=\"{outcome}\"}} ");
    let count = text.lines().find_map(|known| known.strip_prefix(&line));
    count.and_then(|count| count.parse().ok()).expect("the metric is there")
}

/// Both answer each message, so that it would never end.
fn play(master: &Master) {
    allow(master, A, B);
    allow(master, B, A);
    assert_eq!(send(master, A, B, "ping", 1), ["accepted"]);
    let entry = |depth: u64, from: &str, data: Value, answer: &str| json!({ "depth": depth, "from": name(from), "data": data, "answer": answer });
    let to_b = [entry(1, A, json!(1), "accepted"), entry(3, A, json!("pong"), "accepted")];
    let to_a = [entry(2, B, json!("pong"), "accepted"), entry(4, B, json!("pong"), "too_deep")];
    eventually("the last one is kept", || {
        ((got(master, A).len(), got(master, B).len()) == (2, 2)).then_some(())
    });
    // The handler that answers first may write last.
    let sorted = |tenant| {
        let mut got = got(master, tenant);
        got.sort_by_key(|entry| entry["depth"].as_u64());
        got
    };
    assert_eq!((sorted(A), sorted(B)), (to_a.to_vec(), to_b.to_vec()));
    assert_eq!((outcomes(master, "accepted"), outcomes(master, "too_deep")), (4, 1));
}

#[test]
fn two_tenants_on_two_workers_play_until_the_depth_ends_it() {
    let master = start(&[]);
    play(&master);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn tenants_on_threads_of_the_master_do_the_same() {
    let master = start(&["--mode", "thread-pool"]);
    play(&master);
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn a_receiver_that_does_not_allow_is_not_reached() {
    let master = start(&[]);
    assert_eq!(send(&master, A, B, "ping", 1), ["not_allowed"]);
    allow(&master, B, A);
    assert_eq!(send(&master, A, B, "other", 1), ["not_allowed"]);
    assert_eq!(send(&master, "guild/12582912", B, "ping", 1), ["not_allowed"]);
    let (status, rules) = master.dispatch(B, "Disallow", &json!(name(A)).to_string());
    assert_eq!((status, rules), (200, json!({})));
    assert_eq!(send(&master, A, B, "ping", 1), ["not_allowed"]);
    assert_eq!((outcomes(&master, "not_allowed"), outcomes(&master, "accepted")), (4, 0));
    allow(&master, B, A);
    assert_eq!(send(&master, A, B, "ping", 1), ["accepted"]);
    eventually("that one came", || (got(&master, B).len() == 1).then_some(()));
    let ban = post(master.api(), &format!("/i/ban/{B}"), &token(7), r#"{"banned":true}"#);
    assert_eq!(ban.0, 204, "{}", ban.1);
    assert_eq!(send(&master, A, B, "ping", 1), ["not_allowed"]);
    assert_eq!(got(&master, B).len(), 1);
}

#[test]
fn a_sender_over_its_quota_is_busy() {
    let master = start(&[]);
    let outcomes = send(&master, A, B, "ping", 200);
    let busy = outcomes.iter().filter(|outcome| *outcome == "busy").count();
    let admitted = outcomes.iter().filter(|outcome| *outcome == "not_allowed").count();
    assert!(admitted >= 100 && busy > 0 && admitted + busy == 200, "{admitted} {busy}");
    // Others have quotas of their own.
    assert_eq!(send(&master, B, A, "ping", 1), ["not_allowed"]);
}

#[test]
fn staff_sends_messages_by_command() {
    let master = start(&[]);
    master.command(&["message", "user:8388608", "notice", r#"{"text":"soon"}"#]).expect(0, "");
    master.command(&["message", "user:8388608", "notice"]).expect(0, "");
    eventually("both came", || (got(&master, B).len() == 2).then_some(()));
    let entry =
        |data: Value| json!({ "depth": 1, "from": "staff", "data": data, "answer": "none" });
    let got = got(&master, B);
    assert!(got.contains(&entry(json!({ "text": "soon" }))), "{got:?}");
    assert!(got.contains(&entry(Value::Null)), "{got:?}");
    master.command(&["message", "user:8388608"]).expect(2, "message takes TENANT TOPIC [DATA]");
    let topic = "x".repeat(65);
    let large = master.command(&["message", "user:8388608", &topic]);
    assert_ne!(large.code(), 0);
}

#[cfg(feature = "postgres")]
#[test]
fn messages_cross_masters() {
    if !postgres::is_there("messages_cross_masters") {
        return;
    }
    let schema = Schema::migrated(Locale::C);
    let (one, two) = (start(&place(&schema, "one")), start(&place(&schema, "two")));
    let (from, to) = tenants_of(&one, &two);
    assert_eq!(send(&one, &from, &to, "ping", 1), ["not_allowed"]);
    allow(&one, &to, &from);
    allow(&two, &from, &to);
    assert_eq!(send(&one, &from, &to, "ping", 1), ["accepted"]);
    eventually("both came to the end", || {
        ((got(&one, &from).len(), got(&two, &to).len()) == (2, 2)).then_some(())
    });
    let accepted = outcomes(&one, "accepted") + outcomes(&two, "accepted");
    assert_eq!(accepted, 4, "each at its sender's");
    one.stop().0.expect(0, "");
    two.stop().0.expect(0, "");
}
