//! The standing attack suite (`make attack`): each builtin and each call of `ctx` with its worst
//! arguments, answers of every size, and crowds of events and tasks, one after the other, beside a
//! hundred quiet tenants on the same executor.
//!
//! It prints the longest that the executor was away from its loop, the neighbours' 99th percentile
//! and worst, and the memory that the process had beyond what it began with; and fails where one is
//! out of proportion to a control of the same run. It runs with `MESOPHYLL_ATTACK` set;
//! `ATTACK_ONLY` is what the names of rows are to contain, `ATTACK_MILLIS` how long each of them
//! takes. `make test` only checks that the tables have every builtin (`costs`), every call and
//! every member of `ctx`.

use std::io::Write;
use std::time::Duration;

use super::costs;
use super::fairness::{Arena, Measured};
use crate::base::limits::{VM_MEMORY_MAX_BYTES, VM_MEMORY_PEAK_FACTOR};
use crate::dispatch::Job;
use crate::runtime::luau::LuauLimits;
use crate::runtime::luau::ops::CallOp;
use crate::runtime::luau::templates::known;
use crate::wire::data::TenantId;

/// What a script of these tables finds.
const CTX: &str = "local ctx = ...
    local big = string.rep('x', 255 * 1024)
    local function storm(count, run) for i = 1, count do task.spawn(run, i) end task.wait(5) end
    local function records() for i = 1, 62 do ctx.KV:set('k' .. i, big, { 's' }) end end
";

/// Calls that wait, by the executor's names for them.
const OPS: &[(&str, &str)] = &[
    ("wait", "storm(900, function() while true do task.wait(0) end end)"),
    ("spawn", "local many = table.create(2 ^ 17, 1) while true do task.spawn(type, table.unpack(many)) end"),
    ("kv_get", "records() storm(900, function(i) while true do ctx.KV:get('k' .. i % 62, { 's' }) end end)"),
    ("kv_getrecord", "records() storm(900, function() while true do ctx.KV:getrecord('k1', { 's' }) end end)"),
    ("kv_set", "storm(900, function(i) while true do ctx.KV:set('k' .. i, big, { 's' }) end end)"),
    ("kv_delete", "storm(900, function(i) while true do ctx.KV:delete('k' .. i, { 's' }) end end)"),
    ("kv_find", "records() storm(16, function() while true do ctx.KV:find('%', { 's' }) end end)"),
    ("kv_list_scopes", "records() storm(900, function() while true do ctx.KV:list_scopes() end end)"),
    ("kv_update", "storm(900, function() ctx.KV:update('k', { 's' }, function() while true do end end) end)"),
    ("kv_update_set", "storm(900, function() ctx.KV:update('k', { 's' }, function() return big end) end)"),
    ("kv_update_drop", "storm(900, function() ctx.KV:update('k', { 's' }, error) end)"),
    ("global_find", "storm(900, function() while true do ctx.GlobalKV:find('%', 's') end end)"),
    ("global_get", "storm(900, function() while true do ctx.GlobalKV:get('key', 1, 's') end end)"),
    (
        "global_create",
        "storm(900, function(i) ctx.GlobalKV:create({ key = 'key' .. i, version = 1, short = 's', scope = 's',
            public_metadata = { big }, data = { big } }) end)",
    ),
    (
        "global_delete",
        "storm(900, function(i) while true do pcall(ctx.GlobalKV.delete, ctx.GlobalKV, 'k', i, 's') end end)",
    ),
    ("set_tenant_state", "while true do ctx.Runtime:settenantstate({ events = {}, data = { big, big, big } }) end"),
    (
        "send_message",
        "local data = string.rep('x', 2 ^ 14 - 3)
        storm(900, function() while true do pcall(ctx.Messages.send, ctx.Messages, 'user:1', 't', data) end end)",
    ),
    (
        "messages_allow",
        "storm(900, function(i) local topics = table.create(16, string.rep('x', 64))
            while true do pcall(ctx.Messages.allow, ctx.Messages, { from = 'user:' .. i, topics = topics }) end end)",
    ),
    ("messages_disallow", "storm(900, function() while true do ctx.Messages:disallow('user:1') end end)"),
    ("messages_allowed", "storm(900, function() while true do ctx.Messages:allowed() end end)"),
    (
        "global_watch",
        "storm(900, function(i) local pattern = string.rep('x', 500) .. i
            while true do pcall(ctx.GlobalKV.watch, ctx.GlobalKV, 's' .. i, pattern) end end)",
    ),
    ("global_unwatch", "storm(900, function() while true do ctx.GlobalKV:unwatch('s', 'x%') end end)"),
    ("global_watched", "storm(900, function() while true do ctx.GlobalKV:watched() end end)"),
    (
        "timer_at",
        "local data, far = string.rep('x', 2 ^ 14 - 20), timestamp.from(4e9)
        storm(900, function() while true do pcall(ctx.Timers.at, ctx.Timers, far, 'E', data) end end)",
    ),
    (
        "timer_after",
        "local data, name = string.rep('x', 2 ^ 14 - 20), string.rep('n', 512)
        storm(900, function() while true do pcall(ctx.Timers.after, ctx.Timers, 1e9, name, data) end end)",
    ),
    (
        "timer_every",
        "local cron = string.rep('1,', 120) .. '1 * * * *'
        storm(900, function() while true do pcall(ctx.Timers.every, ctx.Timers, cron, 'E') end end)",
    ),
    ("timer_cancel", "storm(900, function() while true do ctx.Timers:cancel('x') end end)"),
    (
        "timer_list",
        "for _ = 1, 60 do ctx.Timers:after(1e6, 'E', string.rep('x', 2 ^ 14 - 20)) end
        storm(900, function() while true do ctx.Timers:list() end end)",
    ),
    (
        "host_call",
        "local data = string.rep('x', 2 ^ 16 - 3)
        storm(900, function() while true do pcall(ctx.Host.call, ctx.Host, 'a.b', data) end end)",
    ),
];

/// Members of `ctx` that answer at once. The others are calls of the table above.
const MEMBERS: &[(&str, &str)] = &[
    ("event", "while true do ctx:event() end"),
    (
        "ctx.Feed.publish",
        "local data = string.rep('x', 2 ^ 14 - 3)
        while true do pcall(ctx.Feed.publish, ctx.Feed, 'topic', data) end",
    ),
    ("ctx.log.debug", "while true do ctx.log:debug(string.rep('x', 2 ^ 25)) end"),
    ("ctx.log.error", "while true do ctx.log:error(string.rep('\\n', 2 ^ 22)) end"),
    ("ctx.log.info", "while true do ctx.log:info(string.rep('\\255', 2 ^ 25)) end"),
    ("ctx.log.warn", "while true do ctx.log:warn(table.unpack(table.create(2 ^ 17, 'x'))) end"),
    ("ctx.Runtime.gettenantstate", "while true do ctx.Runtime:gettenantstate() end"),
    ("ctx.Runtime.stats", "while true do ctx.Runtime:stats() end"),
];

/// Members of `ctx` that are calls of the executor's, by its names for them.
const CALLS: &[(&str, &str)] = &[
    ("ctx.GlobalKV.create", "global_create"),
    ("ctx.GlobalKV.delete", "global_delete"),
    ("ctx.GlobalKV.find", "global_find"),
    ("ctx.GlobalKV.get", "global_get"),
    ("ctx.GlobalKV.unwatch", "global_unwatch"),
    ("ctx.GlobalKV.watch", "global_watch"),
    ("ctx.GlobalKV.watched", "global_watched"),
    ("ctx.Host.call", "host_call"),
    ("ctx.KV.delete", "kv_delete"),
    ("ctx.KV.find", "kv_find"),
    ("ctx.KV.get", "kv_get"),
    ("ctx.KV.getrecord", "kv_getrecord"),
    ("ctx.KV.list_scopes", "kv_list_scopes"),
    ("ctx.KV.set", "kv_set"),
    ("ctx.KV.update", "kv_update"),
    ("ctx.Messages.allow", "messages_allow"),
    ("ctx.Messages.allowed", "messages_allowed"),
    ("ctx.Messages.disallow", "messages_disallow"),
    ("ctx.Messages.send", "send_message"),
    ("ctx.Runtime.settenantstate", "set_tenant_state"),
    ("ctx.Timers.after", "timer_after"),
    ("ctx.Timers.at", "timer_at"),
    ("ctx.Timers.cancel", "timer_cancel"),
    ("ctx.Timers.every", "timer_every"),
    ("ctx.Timers.list", "timer_list"),
];

/// Answers of every size and shape.
const ANSWERS: &[(&str, &str)] = &[
    ("nothing", "return nil"),
    ("64 KiB", "return string.rep('x', 2 ^ 16)"),
    ("1 MiB", "return string.rep('x', 2 ^ 20)"),
    ("just under 16 MiB", "return string.rep('x', 2 ^ 24 - 2000)"),
    ("too large", "return string.rep('x', 2 ^ 25)"),
    ("not UTF-8", "return string.rep('\\255', 2 ^ 24 - 2000)"),
    ("a buffer", "return buffer.create(2 ^ 24 - 2000)"),
    ("a list of numbers", "return table.create(2 ^ 19, 1.5)"),
    ("a list of tables", "local t = {} for i = 1, 50000 do t[i] = { n = i } end return t"),
    ("a map", "local t = {} for i = 1, 100000 do t['key' .. i] = i end return t"),
    ("one table many times", "local t = table.create(2 ^ 16, 1) return table.create(2 ^ 8, t)"),
    ("empty slots", "local t = table.create(2 ^ 20) return table.create(2 ^ 12, t)"),
    ("32 levels", "local t = {} for i = 1, 30 do t = { t, t } end return t"),
    ("items and names, 31 levels", "local t = { 1 } for i = 1, 30 do t = { t, x = 1 } end return t"),
    ("items and names, each twice", "local t = { 1 } for i = 1, 30 do t = { t, t, x = 1, y = t } end return t"),
    (
        "items and names, many at each level",
        "local t = { 1 }
        for i = 1, 30 do t = { t, x = 1 } for n = 2, 8000 do t[n] = n t['k' .. n] = n end end return t",
    ),
    (
        "items that come in another order, 31 levels",
        "local t = { 1 } for i = 1, 30 do local o = {} for n = 9, 2, -1 do o[n] = n end o[1] = t t = o end return t",
    ),
    ("an error of 32 MiB", "error(string.rep('x', 2 ^ 25))"),
    ("errors of tasks", "local s = string.rep('x', 2 ^ 24) for i = 1, 900 do task.defer(error, s) end task.wait(1)"),
];

/// What each event of a crowd finds.
const CROWD: &str = "local ctx = ...
    local function hold(count, run) local all = {} for i = 1, count do all[i] = coroutine.create(run) end return all end
    local function line() ctx.KV:set('k', 1, { 's' }) end
    local function lines(count) local all = {} for i = 1, count do all[i] = task.spawn(line) end return all end
    local function fill() local t = table.create(2 ^ 18) for i = 1, 2 ^ 18 do t[i] = { i } end return t end
    local mixed = { 1 } for i = 1, 29 do mixed = { mixed, x = 1 } end
";

/// Attacks that take many tasks, lines or tables, and how many events of the tenant do each at
/// once.
const CROWDS: &[(&str, usize, &str)] = &[
    ("mixed tables kept", 1, "while true do ctx.KV:set('m', mixed, { 's' }) ctx.KV:get('m', { 's' }) end"),
    ("mixed tables kept by all", 30, "while true do ctx.KV:set('m', mixed, { 's' }) ctx.KV:get('m', { 's' }) end"),
    ("thousands of lines printed", 1, "while true do for i = 1, 4096 do print(i) end end"),
    ("thousands of lines printed by all", 30, "while true do for i = 1, 4096 do print(i, mixed, ctx) end end"),
    (
        "thousands of lines logged, at each level",
        30,
        "local long = string.rep('\\27', 2 ^ 12)
        while true do for _, at in { 'debug', 'info', 'warn', 'error' } do ctx.log[at](ctx.log, long) end end",
    ),
    (
        "lines of tasks",
        30,
        "for i = 1, 1000 do task.spawn(function() while true do print(i) task.wait(0) end end) end
        task.wait(5)",
    ),
    ("a line for one record", 1, "while true do lines(1000) task.wait(0.01) end"),
    ("a line for one record, of all", 60, "while true do lines(1000) task.wait(0.1) end"),
    ("a line that is left one by one", 25, "while true do for _, one in lines(1000) do task.cancel(one) end end"),
    ("a line that is left by a thousand", 25, "lines(1000) task.wait(0.1) hold(2000, print)"),
    ("a line that a full VM ends", 25, "lines(1000) task.wait(0.2) local t = {} while true do t[#t + 1] = fill() end"),
    ("as many coroutines as may be", 1, "local all = hold(1020, print) while true do coroutine.create(print) end"),
    (
        "as many, in a full VM",
        1,
        "local full, all = fill(), hold(1020, print) while true do coroutine.create(print) end",
    ),
    ("as many, of all", 30, "local all = hold(1020, print) while true do coroutine.wrap(print)() end"),
    (
        "as many that have begun",
        1,
        "local all = hold(1000, function() local a = table.create(2 ^ 10, 1) coroutine.yield(a) end)
        for _, one in all do coroutine.resume(one) end
        while true do coroutine.resume(coroutine.create(coroutine.yield)) end",
    ),
    (
        "as many, made by tasks",
        1,
        "local all = hold(1000, print) while true do task.spawn(coroutine.create, print) end",
    ),
    (
        "as many, some left again and again",
        1,
        "local all = hold(1020, print)
        while true do for i = 1, 1020, 4 do all[i] = nil all[i] = coroutine.create(print) end end",
    ),
];

/// Writes nothing, but makes a text of each record: without a log a line would cost nothing.
struct Discarding;

impl log::Log for Discarding {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        std::hint::black_box(record.args().to_string());
    }

    fn flush(&self) {}
}

/// What one pass over the largest text does to the neighbours: the control.
const CONTROL: &str = "local long = string.rep('a', 2 ^ 25) while true do string.reverse(long) end";

/// Beyond what it began with and what the attacker's VM may have, the process may have so much
/// more.
const OUTSIDE_MAX_BYTES: u64 = 200 * 1024 * 1024;

/// A row may be so many times as bad as the control, besides what Luau cannot interrupt.
const TIMES_MAX: u32 = 4;

struct Row {
    name: String,
    code: String,
    /// How many events of the attacker do it at once.
    events: usize,
}

fn rows() -> Vec<Row> {
    let builtins = costs::calls().into_iter().map(|call| Row {
        code: format!(
            "{} local function run() {call} end while true do run() end",
            costs::setup(&call)
        ),
        name: call,
        events: 1,
    });
    let group = |group: &'static str, table: &'static [(&'static str, &'static str)]| {
        let row = move |name, code| Row {
            name: format!("{group}: {name}"),
            code: format!("{CTX} {code}"),
            events: 1,
        };
        table.iter().map(move |(name, code)| row(name, code))
    };
    let crowds = CROWDS.iter().map(|(name, events, code)| Row {
        name: format!("crowd: {name}"),
        code: format!("{CROWD} {code}"),
        events: *events,
    });
    let others = group("call", OPS).chain(group("ctx", MEMBERS)).chain(group("answer", ANSWERS));
    builtins.chain(others).chain(crowds).collect()
}

#[test]
fn every_call_and_member_of_ctx_is_attacked() {
    let names: Vec<&str> = CallOp::ALL.iter().map(|(name, _)| *name).collect();
    let attacked: Vec<&str> = OPS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names, attacked,
        "calls that wait, in the order of `ops.rs`: enter new ones with what is worst for them"
    );
    for member in known::CTX.members() {
        let Some(known) = known::ctx_member(member) else {
            assert!(
                MEMBERS.iter().any(|(name, _)| *name == member),
                "ctx.{member} is not attacked"
            );
            continue;
        };
        // The members of `ctx.tenant` are no functions.
        for name in known.members().filter(|_| member != "tenant") {
            let name = format!("ctx.{member}.{name}");
            let call = CALLS.iter().find(|(listed, _)| *listed == name).map(|(_, op)| *op);
            let is_attacked = call.is_some_and(|op| attacked.contains(&op))
                || MEMBERS.iter().any(|(listed, _)| *listed == name);
            assert!(is_attacked, "{name} is not attacked");
        }
    }
}

#[test]
fn attacks_cost_the_neighbours_a_few_passes_over_a_text() {
    if std::env::var_os("MESOPHYLL_ATTACK").is_none() {
        return;
    }
    let only = std::env::var("ATTACK_ONLY").unwrap_or_default();
    let millis =
        std::env::var("ATTACK_MILLIS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let time = Duration::from_millis(millis);
    // If there is a logger already, it stays.
    let _ = log::set_logger(&Discarding);
    log::set_max_level(log::LevelFilter::Trace);
    let mut arena = Arena::new();
    arena.phase(&[], time);
    let quiet = arena.phase(&[], time);
    quiet.report("nobody", quiet.per_second);
    let attacker = TenantId::User(1);
    let control = arena.phase(&[(attacker, CONTROL)], time * 4);
    control.report("the control", quiet.per_second);
    let worst = 2 * LuauLimits::default().unyieldable + TIMES_MAX * control.percentile(10_000);
    let outside = (VM_MEMORY_MAX_BYTES * VM_MEMORY_PEAK_FACTOR) as u64 + OUTSIDE_MAX_BYTES;
    // The hold too: an attack may be worst when it ends, after the last answer that is measured.
    let is_within = |measured: &Measured| {
        measured.percentile(10_000).max(measured.hold) <= worst && measured.memory <= outside
    };

    let mut failed = Vec::new();
    let rows = rows();
    for (number, row) in rows.iter().enumerate().filter(|(_, row)| row.name.contains(&only)) {
        // One of its own for each, as a tenant that was rude waits for longer.
        let attacker = TenantId::User(2 + number as u64);
        let attackers = vec![(attacker, row.code.as_str()); row.events];
        let mut measured = arena.phase(&attackers, time);
        if !is_within(&measured) {
            // Others may have had the processor.
            measured = arena.phase(&attackers, time);
        }
        let name: String = row.name.split_whitespace().collect::<Vec<_>>().join(" ");
        measured.report(&name, quiet.per_second);
        if !is_within(&measured) {
            failed.push(name);
        }
        arena.world.submit(attacker, Job::DropTenant).wait().expect("the VM is closed");
    }
    let bound = format!(
        "at most {worst:.0?} for a neighbour and a hold, and {} MiB more memory\n",
        outside >> 20
    );
    let _ = std::io::stderr().write_all(bound.as_bytes());
    assert!(failed.is_empty(), "out of bounds: {failed:#?}");
}
