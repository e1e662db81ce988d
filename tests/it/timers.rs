//! Timers through real masters and workers: they come when they are due, whatever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::binary::{Master, get, get_with, post, token};
use crate::support::process::{eventually, signal, within, workers_of};
use crate::support::{Random, TempDir};

/// On two workers of two.
const TENANT: &str = "guild/4194304";
const OTHER: &str = "user/8388608";

/// Makes timers, and keeps of each run when it was due and whether it came early.
const TEMPLATE: &str = r#"
return function(ctx)
	local event = ctx:event()
	local data = event.data
	if event.name == "Set" then
		local ids = {}
		for number = 1, data.count do
			local after = data.from + data.spread * number / data.count
			table.insert(ids, ctx.Timers:after(after, "Fire", number))
		end
		return ids
	elseif event.name == "Fire" then
		local early = timestamp.now() < data.due
		ctx.KV:update(data.timer, { "runs" }, function(old)
			local runs = table.clone(old or {})
			table.insert(runs, { due = data.due, early = early, number = data.data })
			return runs
		end)
	elseif event.name == "SetAt" then
		for number = 1, data.count do
			local due = timestamp.from(data.first + data.spread * number / data.count)
			ctx.Timers:at(due, "Light", number)
		end
		return data.count
	elseif event.name == "Light" then
		if value(data.due) and timestamp.now() < data.due then
			ctx.KV:set(data.timer, "early", { "runs" })
		end
		return nil
	elseif event.name == "Echo" then
		return data
	elseif event.name == "Cancel" then
		return ctx.Timers:cancel(data)
	end
	return #ctx.Timers:list()
end
"#;

fn start(args: &[&str]) -> Master {
    // Not subscribed to what its timers are.
    let events = ["--default-events", "Set,SetAt,Light,Echo,Cancel,Count"];
    Master::with_template(TEMPLATE, &[&events[..], args].concat())
}

fn ask(master: &Master, tenant: &str, event: &str, data: &Value) -> Value {
    let (status, answer) = master.dispatch(tenant, event, &data.to_string());
    assert_eq!(status, 200, "{event} {data}: {answer}");
    answer
}

/// Makes so many timers that are due within `spread` seconds from `from` on; their ids.
fn set(master: &Master, tenant: &str, count: usize, from: f64, spread: f64) -> BTreeSet<String> {
    let data = json!({ "count": count, "from": from, "spread": spread });
    let ids = ask(master, tenant, "Set", &data);
    let ids: BTreeSet<String> = serde_json::from_value(ids).expect("ids");
    assert_eq!(ids.len(), count);
    ids
}

/// The runs of each timer.
fn runs(master: &Master, tenant: &str) -> Option<BTreeMap<String, Vec<Value>>> {
    let find = r#"{"op":"find","pattern":"%","scopes":["runs"]}"#;
    let (status, body) = post(master.api(), &format!("/i/kv/{tenant}"), &token(7), find);
    let found: Vec<Value> = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
    let run = |record: Value| {
        let runs = record["value"].as_array().cloned().unwrap_or_default();
        Some((record["key"].as_str()?.to_owned(), runs))
    };
    found.into_iter().map(run).collect()
}

/// Waits until all of them have run: none early, and repeats with the same time.
#[track_caller]
fn wait_all(master: &Master, tenant: &str, ids: &BTreeSet<String>) -> usize {
    let ran = within(Duration::from_secs(120), "all have run", || {
        runs(master, tenant)
            .filter(|ran| ran.keys().collect::<BTreeSet<_>>() == ids.iter().collect())
    });
    let mut repeats = 0;
    for (id, runs) in ran {
        repeats += runs.len() - 1;
        for run in &runs {
            assert_eq!(run["early"], json!(false), "{id}: {runs:?}");
            assert_eq!(run["due"], runs[0]["due"], "{id}: {runs:?}");
            assert_eq!(run["number"], runs[0]["number"], "{id}: {runs:?}");
        }
    }
    repeats
}

fn metric(master: &Master, line: &str) -> bool {
    get(master.api(), "/metrics").1.contains(&format!("\n{line}\n"))
}

fn fire_and_forget(args: &[&str]) {
    let master = start(args);
    let ids = set(&master, TENANT, 20, 0.0, 0.5);
    let others = set(&master, OTHER, 20, 0.0, 0.5);
    wait_all(&master, TENANT, &ids);
    wait_all(&master, OTHER, &others);
    eventually("each is counted", || {
        metric(&master, "mesophyll_timer_runs_total{outcome=\"ran\"} 40").then_some(())
    });
    eventually("none is left", || {
        (ask(&master, TENANT, "Count", &Value::Null) == json!(0)).then_some(())
    });
    // What is far away can be seen, and taken back.
    let far = set(&master, TENANT, 1, 3600.0, 0.0);
    let id = far.first().expect("one");
    let listed = master.command(&["timers", &TENANT.replace('/', ":")]);
    assert!(listed.code() == 0 && listed.stdout[1].contains(id), "{listed:?}");
    let (status, body) = get_with(master.api(), &format!("/i/timers/{TENANT}"), &token(7));
    assert!(status == 200 && body.contains(id) && body.contains("\"name\":\"Fire\""), "{body}");
    assert_eq!(ask(&master, TENANT, "Cancel", &json!(id)), json!(true));
    assert_eq!(ask(&master, TENANT, "Cancel", &json!(id)), json!(false));
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn timers_come_to_tenants_that_subscribed_to_nothing() {
    fire_and_forget(&[]);
}

#[test]
fn timers_come_on_threads_of_the_master_too() {
    fire_and_forget(&["--mode", "thread-pool"]);
}

#[test]
fn a_ban_holds_timers_and_a_drop_keeps_them() {
    let master = start(&[]);
    let ban = |is_banned: bool| {
        let body = json!({ "banned": is_banned }).to_string();
        let (status, text) = post(master.api(), &format!("/i/ban/{TENANT}"), &token(7), &body);
        assert!(status < 300, "{status} {text}");
    };
    let ids = set(&master, TENANT, 5, 1.0, 0.5);
    ban(true);
    eventually("it was held", || {
        let (_, metrics) = get(master.api(), "/metrics");
        let held = metrics
            .lines()
            .find_map(|line| line.strip_prefix("mesophyll_timer_runs_total{outcome=\"held\"} "));
        held.filter(|held| *held != "0").map(drop)
    });
    assert_eq!(runs(&master, TENANT), Some(BTreeMap::new()));
    ban(false);
    let path = format!("/i/drop-tenant/{TENANT}");
    let (status, text) = post(master.api(), &path, &token(7), "");
    assert!(status < 300, "{status} {text}");
    wait_all(&master, TENANT, &ids);
    assert_eq!(master.stop().0.code(), 0);
}

/// How many timers there are; more are asked for by a variable.
fn timers() -> usize {
    let asked = std::env::var("MESOPHYLL_TEST_TIMERS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(240)
}

/// Kills workers and masters while timers fire; `again` starts the next master.
fn kill_at_random(seed: u64, again: impl Fn() -> Master) {
    let mut random = Random::new(seed);
    let tenants: Vec<String> = (1..=8).map(|number| format!("user/{}", number << 22)).collect();
    let each = timers() / tenants.len();
    let mut master = again();
    let mut ids = BTreeMap::new();
    for tenant in &tenants {
        ids.insert(tenant.clone(), set(&master, tenant, each, 0.2, 8.0));
    }
    let (began, mut killed) = (Instant::now(), (0, 0));
    while began.elapsed() < Duration::from_secs(8) {
        let pause = Instant::now() + Duration::from_millis(200 + random.below(600));
        eventually("the time", || (Instant::now() >= pause).then_some(()));
        if random.below(4) == 0 || killed.1 == 0 {
            master.running.signal(Signal::KILL);
            drop(master);
            master = again();
            killed.1 += 1;
        } else {
            let workers = workers_of(master.pid());
            workers.values().for_each(|pid| signal(*pid, Signal::KILL));
            killed.0 += workers.len();
        }
    }
    let repeats: usize = ids.iter().map(|(tenant, ids)| wait_all(&master, tenant, ids)).sum();
    assert!(killed.0 > 0 && killed.1 > 0, "{killed:?}");
    let _ = writeln!(
        std::io::stderr(),
        "{} timers, {} workers and {} masters killed: {repeats} repeats",
        timers(),
        killed.0,
        killed.1
    );
    eventually("none is left", || {
        (ask(&master, &tenants[0], "Count", &Value::Null) == json!(0)).then_some(())
    });
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn none_is_lost_over_a_file_whatever_is_killed() {
    let kept = TempDir::new();
    let store = format!("redb:{}", kept.path().join("timers.redb").display());
    kill_at_random(7, || start(&["--store", &store, "--quarantine-after", "1024"]));
}

#[cfg(feature = "postgres")]
mod over_postgres {
    use super::*;
    use crate::support::cluster::{place, tenants_of};
    use crate::support::postgres::{self as server, Locale, Schema};

    #[test]
    fn none_is_lost_over_postgres_whatever_is_killed() {
        if !server::is_there("none_is_lost_over_postgres_whatever_is_killed") {
            return;
        }
        let schema = Schema::migrated(Locale::C);
        let url = schema.url().to_owned();
        // Each takes over from the one before, whose lease is short.
        let started = std::cell::Cell::new(0);
        kill_at_random(11, || {
            started.set(started.get() + 1);
            let name = format!("master-{}", started.get());
            let of = ["--cluster", "timers", "--advertise", "127.0.0.1:0", "--lease", "3s"];
            let often = ["--quarantine-after", "1024"];
            start(&[&["--store", &url, "--name", &name], &of[..], &often].concat())
        });
    }

    #[test]
    fn others_notice_timers_as_they_do_dispatches() {
        if !server::is_there("others_notice_timers_as_they_do_dispatches") {
            return;
        }
        let schema = Schema::migrated(Locale::C);
        beside(&["--store", schema.url()]);
    }

    #[test]
    fn a_master_fires_what_another_one_leaves() {
        if !server::is_there("a_master_fires_what_another_one_leaves") {
            return;
        }
        let schema = Schema::migrated(Locale::C);
        let (one, two) = (start(&place(&schema, "one")), start(&place(&schema, "two")));
        let (owner, other) = tenants_of(&one, &two);
        let of_one = set(&one, &owner, 40, 0.0, 10.0);
        let of_two = set(&one, &other, 40, 0.0, 10.0);
        eventually("each has begun", || {
            let has_some = |tenant| runs(&one, tenant).is_some_and(|runs| runs.len() > 2);
            (has_some(&owner) && has_some(&other)).then_some(())
        });
        two.running.signal(Signal::KILL);
        drop(two);
        wait_all(&one, &owner, &of_one);
        wait_all(&one, &other, &of_two);
        // One that comes gets some of them in good order.
        let ids = set(&one, &other, 60, 0.0, 15.0);
        let all: BTreeSet<String> = of_two.union(&ids).cloned().collect();
        let two = start(&place(&schema, "two"));
        assert_eq!(wait_all(&one, &other, &all), wait_all(&two, &other, &all));
        two.stop().0.expect(0, "");
        one.stop().0.expect(0, "");
    }
}

/// The time in ms that 99 of 100 dispatches to other tenants took at most, until it is over.
fn p99(master: &Master, mut goes_on: impl FnMut(usize) -> bool) -> f64 {
    let mut times = Vec::new();
    // One at least, however late it is on a busy machine.
    while times.is_empty() || goes_on(times.len()) {
        let tenant = format!("guild/{}", (times.len() as u64 % 16 + 1) << 22);
        let begun = Instant::now();
        assert_eq!(master.dispatch(&tenant, "Echo", "1"), (200, json!(1)));
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

/// The p99 of others beside so many dispatches, evenly over this time.
fn beside_dispatches(master: &Master, tenants: u64, each: u64, over: Duration) -> f64 {
    const ROUND: Duration = Duration::from_millis(50);
    let (begun, total) = (Instant::now(), tenants * each);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            while sent < total {
                let part = begun.elapsed().as_secs_f64() / over.as_secs_f64();
                let due = (total as f64 * part) as u64;
                let line = |number| {
                    let tenant = format!("user:{}", (number % tenants + 100) << 22);
                    let data = json!({ "due": null, "data": number });
                    json!({ "tenant": tenant, "name": "Light", "data": data }).to_string()
                };
                let lines: Vec<String> = (sent..due.min(total)).map(line).collect();
                sent += lines.len() as u64;
                if !lines.is_empty() {
                    let path = "/i/dispatch-events";
                    let (status, text) = post(master.api(), path, &token(7), &lines.join("\n"));
                    assert_eq!(status, 200, "{text}");
                }
                let next = Instant::now() + ROUND;
                eventually("the time", || (Instant::now() >= next).then_some(()));
            }
        });
        p99(master, |_| begun.elapsed() < over)
    })
}

/// Many timers within a time, beside dispatches to others, and then as many dispatches.
fn beside(args: &[&str]) {
    let asked = std::env::var("MESOPHYLL_TEST_TIMER_TENANTS").ok();
    let tenants: u64 = asked.as_ref().map_or(20, |text| text.parse().expect("a number"));
    let (each, over, lead) = match asked {
        Some(_) => (100, Duration::from_secs(60), Duration::from_secs(120)),
        None => (10, Duration::from_secs(2), Duration::from_secs(5)),
    };
    let master = start(args);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let (began, first) = (Instant::now(), now + lead);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let master = &master;
            scope.spawn(move || {
                for tenant in (100..100 + tenants).filter(|tenant| tenant % 16 == thread) {
                    let data = json!({
                        "count": each, "first": first.as_secs_f64(), "spread": over.as_secs_f64(),
                    });
                    let tenant = format!("user/{}", tenant << 22);
                    assert_eq!(ask(master, &tenant, "SetAt", &data), json!(each));
                }
            });
        }
    });
    let took = began.elapsed();
    assert!(took < lead, "making them took {took:?}");
    let has_time = || began.elapsed() < lead - Duration::from_secs(1);
    p99(&master, |count| count < 200 && has_time());
    let alone = p99(&master, |count| count < 1000 && has_time());
    within(Duration::from_secs(600), "the time", || (began.elapsed() >= lead).then_some(()));
    let mut count = 0;
    let timers = p99(&master, |so_far| {
        count = so_far;
        began.elapsed() < lead + over
    });
    let total = tenants * each;
    within(Duration::from_secs(60), "all have run", || {
        metric(&master, &format!("mesophyll_timer_runs_total{{outcome=\"ran\"}} {total}"))
            .then_some(())
    });
    let late = began.elapsed().saturating_sub(lead + over);
    let dispatches = beside_dispatches(&master, tenants, each, over);
    let _ = writeln!(
        std::io::stderr(),
        "{total} timers of {tenants} tenants within {over:.0?}, made in {took:.1?}, the last \
         {late:.1?} after that: p99 of others {timers:.2} ms in {count} dispatches; \
         {dispatches:.2} ms beside as many dispatches, {alone:.2} ms beside nothing"
    );
    for tenant in 100..100 + tenants {
        let early = runs(&master, &format!("user/{}", tenant << 22));
        assert_eq!(early, Some(BTreeMap::new()), "none was early");
    }
    // Beside other tests, and unoptimised, it says nothing.
    if tenants >= 1000 {
        assert!(timers <= 3.0 * dispatches, "{timers} ms instead of {dispatches} ms");
    }
    assert_eq!(master.stop().0.code(), 0);
}

#[test]
fn others_notice_timers_as_they_do_dispatches() {
    beside(&[]);
}
