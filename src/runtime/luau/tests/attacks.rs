//! Scripts that want to hurt: each ends with an error of its own, and the tenant works again at its
//! next event.

use std::time::{Duration, Instant};

use super::support::*;
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::LuauLimits;

/// Limits that make attacks end soon, in a debug build too.
fn tight() -> LuauLimits {
    LuauLimits {
        running: Duration::from_millis(300),
        wall: Duration::from_secs(5),
        unyieldable: Duration::from_millis(60),
        memory_bytes: 16 * 1024 * 1024,
        ..LuauLimits::default()
    }
}

/// Runs an attack; afterwards the tenant must work.
#[track_caller]
fn attack(limits: LuauLimits, code: &str) -> String {
    let world = World::with_limits(limits);
    let error = world.err(code);
    assert_eq!(world.ok("return 'alive'"), r#""alive""#, "after {code}");
    error
}

/// Runs attacks that must exceed a budget, which the error names.
#[track_caller]
fn exceeds(what: &str, code: &str) {
    // Only attacks on time are about time.
    let running = if what == RUNNING { tight().running } else { SOON };
    let error = attack(LuauLimits { running, wall: SOON, ..tight() }, code);
    assert!(error.starts_with(&format!("budget exceeded: {what}")), "{error}\n{code}");
}

const RUNNING: &str = "more than 300 ms of running time";
const UNYIELDABLE: &str = "more than 60 ms inside";
const MEMORY: &str = "more than 16 MiB of memory";

#[test]
fn a_script_that_loops_ends() {
    exceeds(RUNNING, "while true do end");
    exceeds(RUNNING, "repeat until false");
    exceeds(RUNNING, "for i = 1, math.huge do end");
    exceeds(RUNNING, "local function f() return f() end while true do pcall(f) end");
    exceeds(RUNNING, "for _ in function() return 1 end do end");
}

#[test]
fn pcall_cannot_save_a_script_that_loops() {
    exceeds(RUNNING, "while true do pcall(function() while true do end end) end");
    exceeds(RUNNING, "pcall(function() while true do end end) return 'saved'");
    exceeds(
        RUNNING,
        "xpcall(function() while true do end end, function() while true do end end) return 'saved'",
    );
    exceeds(RUNNING, "local function f() pcall(f) while true do end end f()");
    exceeds(RUNNING, "while true do xpcall(error, function() error('again') end) end");
}

#[test]
fn coroutines_cannot_save_a_script_that_loops() {
    exceeds(RUNNING, "coroutine.wrap(function() while true do end end)() return 'saved'");
    exceeds(
        RUNNING,
        "coroutine.resume(coroutine.create(function() while true do end end)) return 'saved'",
    );
    exceeds(RUNNING, "task.spawn(function() while true do end end) return 'saved'");
    exceeds(
        RUNNING,
        "local f = coroutine.wrap(function() while true do coroutine.yield() end end) while true do f() end",
    );
}

#[test]
fn a_task_that_loops_after_the_answer_ends_too() {
    let world = World::with_limits(tight());
    assert_eq!(
        world.ok("task.defer(function() while true do end end) return 'answered'"),
        r#""answered""#
    );
    eventually(|| world.runtime.stats().longest.is_none());
    assert_eq!(world.ok("return 'alive'"), r#""alive""#);
}

#[test]
fn loops_where_luau_cannot_yield_end_sooner() {
    exceeds(UNYIELDABLE, "table.sort({ 1, 2, 3 }, function() while true do end end)");
    exceeds(UNYIELDABLE, "string.gsub('abc', '%w', function() while true do end end)");
    exceeds(
        UNYIELDABLE,
        "return setmetatable({}, { __index = function() while true do end end }).x",
    );
    exceeds(
        UNYIELDABLE,
        "return setmetatable({}, { __add = function() while true do end end }) + 1",
    );
    exceeds(
        UNYIELDABLE,
        "return tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    );
    exceeds(UNYIELDABLE, "xpcall(error, function() while true do end end)");
    exceeds(
        UNYIELDABLE,
        "table.sort({ 1, 2, 3 }, function() coroutine.wrap(function() while true do end end)() end)",
    );
}

#[test]
fn pcall_inside_a_comparator_cannot_save_it() {
    exceeds(
        UNYIELDABLE,
        "table.sort({ 3, 2, 1 }, function(a, b)
            while true do pcall(function() while true do end end) end
        end)",
    );
    exceeds(
        UNYIELDABLE,
        "for _ = 1, 10 do pcall(table.sort, { 3, 2, 1 }, function() while true do end end) end return 'saved'",
    );
}

#[test]
fn an_honest_sort_may_take_longer_than_a_slice() {
    let world = World::with_limits(LuauLimits {
        slice: Duration::from_micros(200),
        ..LuauLimits::default()
    });
    let code = "
        local list = {}
        for i = 1, 3000 do list[i] = (i * 7919) % 3001 end
        for _ = 1, 3 do
            table.sort(list, function(a, b) return a > b end)
            table.sort(list, function(a, b) return a < b end)
        end
        return list[1] + list[3000]";
    assert_eq!(world.ok(code), "3001");
}

#[test]
fn patterns_that_take_for_ever_end() {
    exceeds(
        UNYIELDABLE,
        "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 41))",
    );
    exceeds(UNYIELDABLE, "return string.match(string.rep('a', 50000), '.-.-.-.-b')");
    exceeds(UNYIELDABLE, "return string.gsub(string.rep('x', 100000), '(.-)(.-)(.-)y', '')");
}

#[test]
fn builtins_that_could_run_long_are_stopped_like_loops() {
    // Each of these would keep the builtin busy for minutes, without an interrupt.
    let long = "local a = string.rep('a', 2 ^ 21)";
    exceeds(
        RUNNING,
        &format!("{long} return string.find(a, string.sub(a, 1, 2 ^ 20) .. 'b', 1, true)"),
    );
    exceeds(RUNNING, &format!("{long} return string.find(a, string.sub(a, 1, 2 ^ 20) .. 'b')"));
    exceeds(RUNNING, &format!("{long} return #string.split(a, string.sub(a, 1, 2 ^ 20) .. 'b')"));
    exceeds(
        RUNNING,
        &format!(
            "{long} local x, y, list = a .. 'x', a .. 'y', {{}}
            for i = 1, 50000 do list[i] = if i % 2 == 0 then x else y end
            table.sort(list)"
        ),
    );
    let error = attack(
        tight(),
        "local t = {} for i = 0, 30 do t[2 ^ i] = 1 end return table.move(t, 1, 2 ^ 30, 2)",
    );
    assert!(error.starts_with("test:1: too many elements to move"), "{error}");
}

#[test]
fn the_slow_ways_give_what_the_builtins_give() {
    let world = World::new();
    assert_eq!(
        world.ok("local text = string.rep('ab', 2 ^ 20) .. 'needle' .. string.rep('ab', 2 ^ 20)
            local first, last = string.find(text, 'needle', 1, true)
            local long = string.rep('ab', 40) .. 'needle' .. string.rep('ab', 40)
            local found = { string.find(text, long) }
            local from_end = { string.find(text, long, -2 ^ 21 - 200) }
            local none = { string.find(text, long, 2 ^ 21) }
            local parts = string.split(text, long)
            return { first, last, found, from_end, #none, #parts, #parts[1], #parts[2] }"),
        "[2097153,2097158,[2097073,2097238],[2097073,2097238],0,2,2097072,2097072]"
    );
    assert_eq!(
        world.ok("local text = string.rep('ab,', 2 ^ 17) .. 'end'
            local parts, pairs_, chars = string.split(text), string.split(text, 'b,'), string.split(text, '')
            return { #parts, parts[1], parts[#parts], #pairs_, pairs_[2], pairs_[#pairs_], #chars, chars[3],
                #table.concat(chars), #string.split(text, ';'), (string.find(text, 'e', 1, true)) }"),
        r#"[131073,"ab","end",131073,"a","end",393219,",",393219,1,393217]"#
    );
    let error = world.err("return string.format(string.rep('%%', 2 ^ 18))");
    assert!(error.starts_with("test:1: the format given to 'format' has 524288 bytes"), "{error}");
    assert_eq!(
        world.ok("local list, copy = {}, {}
            for i = 1, 5000 do list[i] = (i * 7919) % 4999 end
            for i, n in list do copy[i] = { n = n, at = i } end
            table.sort(list)
            table.sort(copy, function(a, b) return a.n < b.n end)
            for i = 1, 5000 do assert(list[i] == copy[i].n) end
            for i = 2, 5000 do assert(copy[i - 1].n ~= copy[i].n or copy[i - 1].at < copy[i].at, 'not stable') end
            local down = table.clone(list)
            table.sort(down, function(a, b) task.wait() return a > b end)
            return { down[1], down[5000], #down }"),
        "[4998,0,5000]"
    );
}

#[test]
fn long_names_are_refused_before_anything_is_made() {
    let world = World::new();
    let long = "local long = string.rep('a/', 2 ^ 23)";
    for call in ["require", "integer.parse", "timestamp.parse", "timezone.from"] {
        let error = world.ok(&format!("{long} return select(2, pcall({call}, long))"));
        assert!(
            error.contains("a text of 16777216 bytes; at most 512 are allowed"),
            "{call}: {error}"
        );
        // One that is just not too long is looked at.
        let error = world.ok(&format!("return select(2, pcall({call}, string.rep('a', 512)))"));
        assert!(!error.contains("bytes"), "{call}: {error}");
    }
    // What the database is asked for has bounds of its own.
    for call in [
        "ctx.KV:get(long, { 's' })",
        "ctx.KV:set('k', 1, { long })",
        "ctx.KV:find(long, { 's' })",
        "ctx.KV:update('k', { long }, print)",
        "ctx.GlobalKV:get(long, 1, 's')",
        "ctx.GlobalKV:find(long, 's')",
        "ctx.GlobalKV:delete('key', 1, long)",
        "ctx.Runtime:settenantstate({ events = { long } })",
    ] {
        let code =
            format!("local ctx = ... {long} return select(2, pcall(function() return {call} end))");
        let error = world.ok(&code);
        assert!(error.contains("has 16777216 bytes; at most"), "{call}: {error}");
    }
}

#[test]
fn a_wide_integer_leaves_the_bytes_of_a_text_alone() {
    let code = "local text = integer.parse('9007199254740993') .. string.char(255) .. integer.parse('9007199254740994')
        return { #text, string.byte(text, 17) }";
    assert_eq!(World::new().ok(code), "[33,255]");
}

#[test]
fn memory_has_an_end_however_it_is_eaten() {
    exceeds(MEMORY, "return string.rep('x', 2 ^ 30)");
    exceeds(MEMORY, "local t = {} while true do t[#t + 1] = {} end");
    exceeds(MEMORY, "local t = {} for i = 1, math.huge do t['key' .. i] = i end");
    exceeds(MEMORY, "local s = 'x' while true do s = s .. s end");
    exceeds(MEMORY, "return table.create(2 ^ 26, 0)");
    exceeds(MEMORY, "return buffer.create(2 ^ 29)");
    exceeds(MEMORY, "return table.concat(table.create(1000, string.rep('x', 100000)))");
}

#[test]
fn pcall_cannot_hide_that_memory_ran_out() {
    exceeds(MEMORY, "pcall(string.rep, 'x', 2 ^ 30) return 'saved'");
    exceeds(
        MEMORY,
        "xpcall(string.rep, function() return 'handled' end, 'x', 2 ^ 30) return 'saved'",
    );
    exceeds(
        MEMORY,
        "pcall(function() local t = {} while true do t[#t + 1] = {} end end) return 'saved'",
    );
    exceeds(
        MEMORY,
        "coroutine.resume(coroutine.create(function() return string.rep('x', 2 ^ 30) end)) return 'saved'",
    );
    exceeds(
        MEMORY,
        "pcall(coroutine.wrap(function() return string.rep('x', 2 ^ 30) end)) return 'saved'",
    );
    exceeds(MEMORY, "task.spawn(function() return string.rep('x', 2 ^ 30) end) return 'saved'");
    exceeds(
        MEMORY,
        "while true do pcall(function() local t = {} while true do t[#t + 1] = {} end end) end",
    );
}

#[test]
fn a_vm_that_ran_out_of_memory_is_replaced() {
    let world = World::with_limits(tight());
    assert_eq!(world.ok("require('state')().kept = 1 return 1"), "1");
    assert_eq!(world.ok("return require('state')().kept"), "1");
    world.err("return string.rep('x', 2 ^ 30)");
    assert_eq!(world.ok("return require('state')().kept"), "null");
    assert_eq!(world.runtime.stats().vms, 1);
}

#[test]
fn garbage_does_not_count_as_memory() {
    let world = World::with_limits(tight());
    // Twelve of sixteen MiB stay alive, while ten times the limit passes through.
    let code = "
        local alive = {}
        for i = 1, 12 do alive[i] = buffer.create(2 ^ 20) end
        local words = 0
        for i = 1, 20000 do
            local garbage = {}
            for j = 1, 100 do garbage[j] = i * j end
            words += #garbage
        end
        for i = 1, 40 do words += buffer.len(buffer.create(2 ^ 20)) / 2 ^ 20 end
        return words + #alive";
    let world_with_time = World::with_limits(LuauLimits { running: SOON, wall: SOON, ..tight() });
    assert_eq!(world_with_time.ok(code), "2000052");
    drop(world);
}

#[test]
fn deep_recursion_is_an_error_and_no_more() {
    let error = attack(tight(), "local function f(n) return 1 + f(n + 1) end return f(1)");
    assert!(error.contains("stack overflow"), "{error}");
    let error = attack(
        tight(),
        "local f f = coroutine.wrap(function() return coroutine.wrap(f)() end) return f()",
    );
    assert!(!error.is_empty());
    let code = "local function nest(n) return coroutine.wrap(function() return nest(n + 1) end)() end return nest(1)";
    let error = attack(LuauLimits { running: SOON, wall: SOON, ..tight() }, code);
    assert!(error.contains("C stack overflow"), "{error}");
    attack(tight(), "local function f() return pcall(f) end f() error('deep')");
    attack(tight(), "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x.y");
    attack(tight(), "local s = string.rep('(', 300) return string.find(s, s)");
}

#[test]
fn too_many_coroutines_end_the_event() {
    exceeds(
        "more than 1024 live coroutines",
        "local all = {} for i = 1, 2000 do all[i] = coroutine.create(print) end return #all",
    );
    exceeds("more than 1024 live coroutines", "for i = 1, 2000 do task.delay(50, print) end");
    exceeds(
        "more than 10000 coroutines started",
        "for i = 1, 20000 do task.defer(function() end) task.wait() end",
    );
    exceeds(
        "more than 1024 live coroutines",
        "local f f = function() task.defer(f) task.defer(f) end f() task.wait(50)",
    );
    exceeds(
        "more than 10000 coroutines started",
        "local f f = function() task.defer(f) end f() task.wait(50)",
    );
    exceeds(
        "more than 1024 live coroutines",
        "local f f = function() task.spawn(f) end f() task.wait(50)",
    );
    exceeds(
        "more than 10000 coroutines started",
        "while true do pcall(coroutine.create, print) end",
    );
}

#[test]
fn coroutines_that_are_garbage_do_not_count_as_alive() {
    let world = World::with_limits(LuauLimits { running: SOON, wall: SOON, ..tight() });
    let code = "
        local first = 0
        for i = 1, 5000 do
            local generator = coroutine.wrap(function() for j = 1, 10 do coroutine.yield(j) end end)
            first += generator()
        end
        return first";
    assert_eq!(world.ok(code), "5000");
}

#[test]
fn a_script_that_waits_for_ever_ends_with_its_wall_time() {
    let world = World::with_limits(LuauLimits { wall: Duration::from_millis(200), ..tight() });
    for code in [
        "task.defer(function() while true do task.wait(0.01) end end) task.wait(0.19) coroutine.yield()",
        "coroutine.yield()",
        "while true do task.wait() end",
    ] {
        let error = world.err(code);
        assert!(
            error.starts_with("budget exceeded: more than 200 ms of wall time"),
            "{error}\n{code}"
        );
    }
}

#[test]
fn errors_of_every_kind_reach_the_caller_as_text() {
    let world = World::new();
    for (code, expected) in [
        ("error({})", "test:1: error value: {}\n"),
        (
            "error({ code = 1, of = { 'a', null } })",
            r#"test:1: error value: {"code":1,"of":["a",null]}"#,
        ),
        ("error(nil)", "test:1: error value: nil\n"),
        ("error(true)", "test:1: error value: true\n"),
        ("error(null)", "test:1: error value: null\n"),
        ("error(integer.from(7))", "test:1: error value: 7\n"),
        ("error(buffer.fromstring('ab'), 0)", r#"test:1: error value: {"$buffer":"YWI="}"#),
        ("local function f() error({ code = 2 }) end\nf()", r#"test:1: error value: {"code":2}"#),
        ("pcall(error, { code = 1 }) error({ code = 2 }, 2)", r#"test:1: error value: {"code":2}"#),
        ("local _, e = pcall(error, { code = 3 }) error(e)", r#"test:1: error value: {"code":3}"#),
        (
            "coroutine.wrap(function() error({ code = 4 }) end)()",
            r#"test:1: error value: {"code":4}"#,
        ),
        (
            "error(print)",
            "test:1: an error that is not text but a function; a function cannot leave Luau",
        ),
        (
            "local t = {} t.t = t error(t)",
            "test:1: an error that is not text but a table; the value contains itself",
        ),
        (
            "error({ string.rep('x', 5000) })",
            "test:1: an error that is not text but a table; the value is larger than",
        ),
        ("pcall(error, {}) error('nil', 0)", "nil"),
        ("pcall(error, {}) error(5)", "test:1: 5"),
        ("error('text', 1)", "test:1: text"),
        ("local function f() error('text', 2) end\nf()", "test:2: text"),
        ("error('text', 0)", "text"),
    ] {
        let error = world.err(code);
        assert!(error.starts_with(expected), "{code}: {error}");
    }
    assert_eq!(
        world.ok("local t = { code = 1 } local ok, e = pcall(error, t) return { ok, e == t, e }"),
        r#"[false,true,{"code":1}]"#
    );
    assert!(
        world
            .err("error(setmetatable({}, { __tostring = function() return 'told' end }))")
            .starts_with("told")
    );
    let inside = world
        .err("error(setmetatable({}, { __tostring = function() error('in __tostring') end }))");
    assert!(inside.contains("in __tostring"), "{inside}");
    let loops = World::with_limits(tight())
        .err("error(setmetatable({}, { __tostring = function() while true do end end }))");
    // Which limit ends it first, that of a place that cannot yield or that of running time, is up
    // to the machine's load.
    assert!(loops.starts_with("budget exceeded: more than "), "{loops}");
    let long = world.err("error(string.rep('long', 100000))");
    assert!(long.len() < 6000, "{}", long.len());
}

#[test]
fn a_source_that_is_large_or_strange_is_refused_or_run() {
    let world = World::new();
    let large = format!("return '{}'", "x".repeat(192 * 1024));
    assert!(world.err(&large).contains("at most 192 KiB are compiled"));
    for (open, close) in
        [("(", ")"), ("{", "}"), ("function() return ", " end"), ("not ", ""), ("- ", "")]
    {
        let nested = format!("return {}1{}", open.repeat(20_000), close.repeat(20_000));
        assert!(!world.err(&nested).is_empty());
    }
    assert!(world.err("\u{1b}Lua\0\0").contains("test:1:"), "{}", world.err("\u{1b}Lua\0\0"));
    let wide = format!("local t = {{{}}} return #t", "1,".repeat(90_000));
    assert_eq!(world.ok(&wide), "90000");
}

#[test]
fn one_tenant_that_loops_does_not_stop_the_others() {
    let world = World::with_limits(LuauLimits { running: SOON, wall: SOON, ..tight() });
    let looping: Vec<_> = (100..110)
        .map(|id| world.submit_script(crate::wire::data::TenantId::Guild(id), "while true do end"))
        .collect();
    eventually(|| world.runtime.stats().longest.is_some());
    let started = Instant::now();
    for round in 0..20 {
        assert_eq!(world.ok(&format!("return {round}")), round.to_string());
    }
    // Twenty turns among ten loopers: had they to wait for a second each, no user would call that
    // fair.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(looping.iter().all(|pending| pending.answer_rx.is_empty()));
}

#[test]
fn a_runtime_stops_promptly_while_scripts_run_and_wait() {
    let world = World::new();
    let pending: Vec<_> = [
        "while true do end",
        "table.sort({ 1, 2, 3 }, function() while true do end end)",
        "task.wait(20)",
        "while true do pcall(function() while true do end end) end",
    ]
    .iter()
    .enumerate()
    .map(|(id, code)| world.submit_script(crate::wire::data::TenantId::User(id as u64), code))
    .collect();
    eventually(|| world.runtime.stats().events == 4);
    let started = Instant::now();
    world.runtime.shutdown();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for pending in pending {
        assert!(!pending.error().to_string().is_empty());
    }
    assert!(world.err("return 1").contains("stopping"));
}
