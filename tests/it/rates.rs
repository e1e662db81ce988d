//! What tenants may ask a second, at real masters with real workers.

use serde_json::Value;

use crate::support::binary::{Master, get, post, token};
use crate::support::process::eventually;

/// Does what the event is called so often as its data says, and answers what came of each.
const TEMPLATE: &str = r#"
local kinds = {
	kv = function(ctx)
		ctx.KV:get("key", { "scope" })
	end,
	shop = function(ctx)
		ctx.GlobalKV:find("%", "scope")
	end,
	timers = function(ctx)
		ctx.Timers:list()
	end,
	messages = function(ctx)
		ctx.Messages:send("user:1", "topic", 1)
	end,
	host_calls = function(ctx)
		ctx.Host:call("discord.send", 1)
	end,
}

return function(ctx)
	local outcomes = {}
	for number = 1, ctx:event().data do
		local ok, problem = pcall(kinds[ctx:event().name], ctx)
		outcomes[number] = if ok then "done" else problem
	end
	return outcomes
end
"#;

/// By the name that `/metrics` has: the option, and what the tenant's author reads of it.
const KINDS: [(&str, &str, &str); 5] = [
    ("kv", "--kv-rate", "KV operations"),
    ("shop", "--shop-rate", "operations on the shop"),
    ("timers", "--timer-rate", "calls of ctx.Timers"),
    ("messages", "--message-rate", "messages"),
    ("host_calls", "--host-call-rate", "calls of ctx.Host"),
];

/// How many of so many a tenant had, and how many were refused for its rate.
fn done_and_refused(master: &Master, tenant: &str, kind: &str, times: u64) -> (u64, u64) {
    let (status, outcomes) = master.dispatch(tenant, kind, &times.to_string());
    assert_eq!(status, 200, "{outcomes}");
    let outcomes: Vec<String> = serde_json::from_value(outcomes).expect("texts");
    let is_refused = |text: &&String| {
        let is_one = text.contains("too many ") || text.contains(": busy");
        // The others of them are not allowed, which is not asked before the rate.
        assert!(is_one || *text == "done" || text.contains("not_allowed"), "{text}");
        is_one
    };
    let refused = outcomes.iter().filter(is_refused).count() as u64;
    (times - refused, refused)
}

fn metric(master: &Master, kind: &str) -> u64 {
    let line = format!("mesophyll_rate_refused_total{{what=\"{kind}\"}} ");
    let text = get(master.api(), "/metrics").1;
    let count = text.lines().find_map(|known| known.strip_prefix(&line));
    count.and_then(|count| count.parse().ok()).expect("the metric is there")
}

/// What the tenant's author reads about rates.
fn told(master: &Master, tenant: &str) -> Vec<String> {
    let get = r##"{"op":"get","key":"last","scopes":["#err"]}"##;
    let (status, body) = post(master.api(), &format!("/i/kv/{tenant}"), &token(7), get);
    assert!([200, 404].contains(&status), "{body}");
    let record: Value = serde_json::from_str(&body).expect("JSON");
    let errors = record["value"].as_array().cloned().unwrap_or_default();
    let of_rates = errors.iter().filter(|error| error["event"] == "rate limit");
    of_rates.map(|error| error["message"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_tenant_beyond_a_rate_is_refused_and_others_are_not() {
    for mode in ["process-pool", "thread-pool"] {
        let options = KINDS.iter().flat_map(|(_, option, _)| [*option, "1:5"]);
        let args: Vec<&str> =
            ["--workers", "1", "--mode", mode].into_iter().chain(options).collect();
        let master = Master::with_template(TEMPLATE, &args);
        for (number, (kind, _, what)) in KINDS.iter().enumerate() {
            let (done, refused) = done_and_refused(&master, "guild/1", kind, 30);
            assert!(done >= 5 && refused > 0, "{kind}: {done} {refused}");
            assert_eq!(metric(&master, kind), refused, "{kind}");
            assert_eq!(done_and_refused(&master, "user/7", kind, 5), (5, 0), "{kind}");
            let text =
                format!("too many {what}: at most 1 a second, after a burst of 5; try again later");
            let told = eventually("its author is told", || {
                let told = told(&master, "guild/1");
                (told.len() > number).then_some(told)
            });
            assert_eq!((told.len(), &told[0]), (number + 1, &text), "the newest is first");
        }
        for (kind, ..) in KINDS {
            eventually("it may have more", || {
                (done_and_refused(&master, "guild/1", kind, 1) == (1, 0)).then_some(())
            });
        }
        assert_eq!(told(&master, "guild/1").len(), KINDS.len(), "each once");
        assert_eq!(told(&master, "user/7"), Vec::<String>::new());
        assert_eq!(master.stop().0.code(), 0);
    }
}

#[test]
fn without_a_bound_a_tenant_has_what_it_asks_for() {
    let args = ["--workers", "1", "--timer-rate", "off", "--message-rate", "off"];
    let master = Master::with_template(TEMPLATE, &args);
    for kind in ["kv", "shop", "timers", "messages"] {
        assert_eq!(done_and_refused(&master, "guild/1", kind, 500), (500, 0), "{kind}");
    }
    let (done, refused) = done_and_refused(&master, "guild/1", "host_calls", 500);
    assert!(done >= 100 && refused > 0, "the others have their defaults: {done} {refused}");
    assert_eq!(master.stop().0.code(), 0);
}
