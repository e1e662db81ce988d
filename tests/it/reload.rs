//! Templates that change while events come: whoever changed them, however the news travels, no
//! event is lost and none that comes after the change is acknowledged runs the old one.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Master, Running, TEMPLATES, mesophyll, post, token, write};
use crate::support::process::{self, eventually, workers_of};

/// Events in all, and how often the template changes meanwhile.
const EVENTS: u64 = 10_000;
const CHANGES: u64 = 100;

fn set_template(master: &Master, source: &Value) {
    let body = json!({"op": "set", "key": "main", "scopes": ["template"], "value": source});
    let (status, text) = post(master.api(), "/i/kv/guild/1", &token(7), &body.to_string());
    assert_eq!(status, 204, "{text}");
}

fn returns(number: u64) -> Value {
    json!(format!("return function() return {number} end"))
}

fn answer(master: &Master) -> u64 {
    let (status, body) = master.dispatch("guild/1", "E", "null");
    assert_eq!(status, 200, "{body}");
    body.as_u64().unwrap_or_else(|| panic!("{body}"))
}

/// Five modules of one version, of which the events require some late.
fn five_return(number: u64) -> Value {
    let module = format!("return {number}");
    let main = format!(
        "local first = require('first')
        return function()
            local deep = require('lib/deep')
            for _, number in {{ first, deep.own, deep.other, require('last') }} do
                if number ~= {number} then
                    error(`{{number}} beside {number}`)
                end
            end
            return {number}
        end"
    );
    let deep = format!("return {{ own = {number}, other = require('./other') }}");
    json!({"main": main, "first": module, "lib/deep": deep, "lib/other": module, "last": module})
}

fn changes_while_events_come(args: &[&str], returns: fn(u64) -> Value) {
    let master = Master::start(args);
    master.wait_ready();
    set_template(&master, &returns(0));
    let (asked, set, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut seen: Vec<u64> = Vec::new();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while asked.fetch_add(1, Ordering::SeqCst) < EVENTS {
                        let oldest = acknowledged.load(Ordering::SeqCst);
                        let number = answer(&master);
                        let newest = set.load(Ordering::SeqCst);
                        assert!(
                            (oldest..=newest).contains(&number),
                            "{number} is not in {oldest}..={newest}"
                        );
                        seen.push(number);
                    }
                    seen
                })
            })
            .collect();
        for number in 1..=CHANGES {
            // Spread over the events.
            eventually("the next hundred events are asked for", || {
                (asked.load(Ordering::SeqCst) >= number * EVENTS / (CHANGES + 1)).then_some(())
            });
            set.store(number, Ordering::SeqCst);
            set_template(&master, &returns(number));
            acknowledged.store(number, Ordering::SeqCst);
        }
        seen = callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("no answer was wrong"))
            .collect();
    });
    assert_eq!(seen.len() as u64, EVENTS);
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() as u64 > CHANGES / 2, "the template did change: {seen:?}");
    let history = master.command(&["template", "history", "guild:1", "--json"]);
    let history: Value = serde_json::from_str(&history.stdout.join("")).expect("JSON");
    let versions: Vec<_> = history.as_array().expect("a list").iter().collect();
    let numbers: Vec<_> = versions.iter().map(|row| row["version"].as_u64()).collect();
    assert_eq!(numbers, (91..=101).map(Some).collect::<Vec<_>>());
    assert_eq!(versions.last().map(|row| &row["until"]), Some(&Value::Null));
    master.command(&["template", "rollback", "guild:1"]).expect(0, "");
    assert_eq!(answer(&master), CHANGES - 1);
    master.command(&["template", "rollback", "guild:1", "95"]).expect(0, "");
    assert_eq!(answer(&master), 94);
    master.command(&["template", "rollback", "guild:1", "90"]).expect(1, "no version 90");
    let body = json!({"op": "delete", "key": "main", "scopes": ["template"]});
    assert_eq!(post(master.api(), "/i/kv/guild/1", &token(7), &body.to_string()).0, 204);
    assert_eq!(master.dispatch("guild/1", "ECHO", "7"), (200, json!(7)), "the directory's again");
    master.stop().0.expect(0, "");
}

#[test]
fn a_template_changes_often_while_many_events_come() {
    changes_while_events_come(&[], returns);
}

#[test]
fn no_event_sees_a_mixture_of_five_modules() {
    changes_while_events_come(&[], five_return);
}

#[test]
fn so_it_does_where_the_workers_are_threads() {
    changes_while_events_come(&["--mode", "thread-pool"], returns);
}

#[test]
fn a_change_that_comes_while_the_link_is_lost_is_not_missed() {
    let folder = TempDir::new();
    let tokens = folder.path().join("tokens.json");
    let tokens = tokens.to_str().expect("a name in UTF-8");
    // A worker that nobody ends because it is silent.
    let args = [
        "--external-workers",
        "--worker-tokens",
        tokens,
        "--workers",
        "1",
        "--heartbeat-interval",
        "1s",
    ];
    let master = Master::start(&args);
    let text = fs::read_to_string(tokens).expect("written");
    let token: Value = serde_json::from_str(&text).expect("JSON");
    let listen = master.listen().to_string();
    let args =
        ["worker", "--id", "0", "--workers", "1", "--master", &listen, "--templates", TEMPLATES];
    let mut command = mesophyll(&[&args[..], &["--default-events", "*"]].concat());
    command.env("MESOPHYLL_CLIENT_TOKEN", token["0"].as_str().expect("a token"));
    let worker = Running::start(command);
    master.wait_ready();
    set_template(&master, &returns(1));
    assert_eq!(answer(&master), 1);
    worker.signal(Signal::STOP);
    master.running.wait_stderr("no heartbeat");
    set_template(&master, &returns(2));
    worker.signal(Signal::CONT);
    worker.wait_stderr("connected to the master");
    worker.wait_stderr("connected to the master");
    assert_eq!(answer(&master), 2);
    master.stop().0.expect(0, "");
    worker.signal(Signal::TERM);
    worker.wait().expect(0, "");
}

/// Dispatches all the time until `until` says that an answer is the one that was waited for; only
/// what `may_be` allows is answered on the way.
fn dispatches_until(master: &Master, may_be: impl Fn(&(u16, Value)) -> bool, until: &Value) {
    eventually("the change is picked up", || {
        let answered = master.dispatch("guild/1", "E", "null");
        assert!(may_be(&answered), "{answered:?}");
        (answered.1 == *until).then_some(())
    });
}

fn a_directory_is_watched(args: &[&str]) {
    let folder = TempDir::new();
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    file("main.luau", "local words = require('words') return function() return 'a ' .. words end");
    file("words.luau", "return 'b'");
    let templates = folder.path().to_str().expect("a name in UTF-8").to_owned();
    let master = Master::start(&[&["--templates", &templates, "--reload"], args].concat());
    master.wait_ready();
    let is_ok = |answered: &(u16, Value)| answered.0 == 200;
    dispatches_until(&master, is_ok, &json!("a b"));

    // Another file, of the same length, that takes the place of the old one.
    file("words.new", "return 'c'");
    rename(folder.path(), "words.new", "words.luau");
    dispatches_until(&master, is_ok, &json!("a c"));

    // One that keeps size and time.
    let words = folder.path().join("words.luau");
    let time = fs::metadata(&words).and_then(|metadata| metadata.modified()).expect("a time");
    let text = fs::File::options().write(true).open(&words).expect("there");
    (&text).write_all(b"return 'd'").expect("written");
    text.set_modified(time).expect("set back");
    assert_eq!(
        fs::metadata(&words).and_then(|metadata| metadata.modified()).expect("a time"),
        time
    );
    dispatches_until(&master, is_ok, &json!("a d"));

    // One that does not compile, or lacks main.luau, changes nothing; the log says where, until it
    // compiles.
    file("words.luau", "\n\nreturn (");
    master.running.wait_stderr("words.luau:3: Expected");
    master.running.wait_stderr("the templates stay as they are until these compile");
    assert_eq!(master.dispatch("guild/1", "E", "null"), (200, json!("a d")));
    assert_eq!(master.dispatch("guild/3", "E", "null"), (200, json!("a d")), "also in a new VM");
    file("main.luau", "return function() return 'mended' end");
    assert_eq!(master.dispatch("guild/1", "E", "null"), (200, json!("a d")));
    file("words.luau", "return 'e'");
    dispatches_until(&master, is_ok, &json!("mended"));

    // A directory that is away for a moment changes nothing.
    let away = folder.path().with_extension("away");
    fs::rename(folder.path(), &away).expect("renamed");
    master.running.wait_stderr("the templates stay as they are");
    assert_eq!(master.dispatch("guild/2", "E", "null"), (200, json!("mended")));
    fs::rename(&away, folder.path()).expect("renamed back");
    master.stop().0.expect(0, "");
}

fn rename(folder: &Path, from: &str, to: &str) {
    fs::rename(folder.join(from), folder.join(to)).expect("renamed");
}

#[test]
fn a_watched_directory_is_picked_up_by_worker_processes() {
    a_directory_is_watched(&[]);
}

#[test]
fn a_watched_directory_is_picked_up_by_worker_threads() {
    a_directory_is_watched(&["--mode", "thread-pool"]);
}

#[test]
fn events_running_at_a_change_finish_as_they_began() {
    let master = Master::start(&["--workers", "1"]);
    master.wait_ready();
    let slow = "ctx.KV:set('slow', 1, { 's' }) while not ctx.KV:get('release', { 'test' }) do task.wait(0.02) end";
    set_template(
        &master,
        &json!(format!(
            "return function(ctx) if ctx:event().name == 'Slow' then {slow} end return 'old' end"
        )),
    );
    assert_eq!(master.dispatch("guild/1", "E", "null"), (200, json!("old")));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let answered = master.dispatch("guild/1", "Slow", "null");
            is_over.store(true, Ordering::SeqCst);
            answered
        });
        eventually("the slow one is under way", || {
            let body = json!({"op": "get", "key": "slow", "scopes": ["s"]});
            (post(master.api(), "/i/kv/guild/1", &token(7), &body.to_string()).1 != "null")
                .then_some(())
        });
        set_template(&master, &json!("return function() return 'new' end"));
        assert_eq!(master.dispatch("guild/1", "E", "null"), (200, json!("new")));
        assert!(!is_over.load(Ordering::SeqCst), "the new one did not wait for the old one");
        master.release("guild/1");
        assert_eq!(slow.join().expect("answered"), (200, json!("old")));
    });
    master.stop().0.expect(0, "");
}

#[test]
fn a_subscribed_tenant_is_told_when_its_worker_starts() {
    let folder = TempDir::new();
    let template = "return function(ctx)
        local event = ctx:event()
        if event.name == 'Subscribe' then
            return ctx.Runtime:settenantstate({ events = { 'OnStartup', 'E' }, data = {} })
        end
        if event.name ~= 'OnStartup' then return ctx.KV:get('starts', { 's' }) or 0 end
        assert(event.author == nil and event.data.reason == 'worker_startup')
        ctx.KV:update('starts', { 's' }, function(count) return (count or 0) + 1 end)
    end";
    write(folder.path(), "main.luau", template);
    let templates = folder.path().to_str().expect("a name in UTF-8").to_owned();
    let master = Master::start(&["--workers", "1", "--templates", &templates]);
    master.wait_ready();
    let starts = |tenant: &str| master.dispatch(tenant, "E", "null");
    assert_eq!(master.dispatch("guild/1", "Subscribe", "null").0, 200);
    assert_eq!(starts("guild/1"), (200, json!(0)), "the worker has been there for a while");
    for count in 1..=2 {
        process::signal(workers_of(master.pid())[&0], Signal::KILL);
        eventually("its worker has told it", || {
            let (status, body) = starts("guild/1");
            (status == 200 && body == json!(count)).then_some(())
        });
        assert_eq!(starts("guild/2"), (200, json!(0)), "it never subscribed");
    }
    master.stop().0.expect(0, "");
}
