//! What scripts cannot reach: the host, other tenants, other code, and what they share with other
//! events.

use super::support::*;
use crate::base::limits::SMALL_EVENT_MAX_BYTES;
use crate::runtime::luau::LuauLimits;
use crate::wire::data::TenantId;

/// Looks for addresses, and for paths of this machine.
#[track_caller]
fn assert_shows_nothing(text: &str) {
    assert!(!text.contains("0x"), "{text}");
    assert!(!text.contains(".rs") && !text.contains("/src/") && !text.contains("mlua"), "{text}");
}

#[test]
fn what_is_not_there_cannot_be_used() {
    let world = World::new();
    for name in [
        "getfenv",
        "setfenv",
        "loadstring",
        "load",
        "loadfile",
        "dofile",
        "newproxy",
        "gcinfo",
        "os",
        "io",
        "debug",
        "package",
        "host",
        "integer.host",
        "module",
    ] {
        let code = format!(
            "local ok, value = pcall(function() return {name} end) return ok and value == nil"
        );
        assert_eq!(world.ok(&code), "true", "{name}");
    }
    assert_eq!(
        world.ok(
            "local names = {} for name in getmetatable(getfenv and {} or setmetatable({}, { __index = _G })).__index do
                table.insert(names, name)
            end
            table.sort(names)
            return table.concat(names, ' ')"
        ),
        "\"_G _VERSION array assert bit32 buffer collectgarbage coroutine error getmetatable integer interval ipairs math next null \
         pairs pcall print rawequal rawget rawlen rawset require select setmetatable string table task timestamp timezone \
         tonumber tostring type typeof unpack utf8 value vector xpcall\""
    );
}

#[test]
fn globals_and_libraries_are_read_only() {
    let world = World::new();
    for code in [
        "math.floor = nil",
        "string.format = print",
        "table.insert = nil",
        "coroutine.resume = nil",
        "task.wait = nil",
        "_G.pcall = nil",
        "rawset(_G, 'x', 1)",
        "rawset(string, 'x', 1)",
        "timestamp.now = nil",
        "table.clear(math)",
        "setmetatable(math, {})",
        "setmetatable(_G, { __index = print })",
    ] {
        let error = world.err(code);
        assert!(error.contains("readonly"), "{code}: {error}");
    }
}

#[test]
fn what_a_script_redefines_for_itself_does_not_reach_the_host() {
    let world = World::new();
    let code = "local ctx = ...
        pcall, error, type, select, tostring, unpack, setmetatable, next = nil, nil, nil, nil, nil, nil, nil, nil
        string, table, coroutine, task, math = nil, nil, nil, nil, nil
        ctx.KV:set('k', 1, { 's' })
        ctx.log:info('still', {}, nil)
        return ctx.KV:update('k', { 's' }, function(old) return old + 1 end)";
    assert_eq!(world.ok(code), "2");
}

#[test]
fn chunks_have_own_globals_and_tenants_own_modules() {
    let world = World::new();
    assert_eq!(world.ok("mine = 1 local function f() return mine end mine = 2 return f()"), "2");
    assert_eq!(world.ok("return mine"), "null");
    assert_eq!(
        world.ok("math = { floor = function() return 'own' end } return math.floor(1.5)"),
        r#""own""#
    );
    assert_eq!(world.ok("return math.floor(1.5)"), "1");
    world.ok("require('state')().shared = 'first'");
    let code = "return require('state')().shared";
    assert_eq!(world.ok(code), r#""first""#);
    assert_eq!(world.submit_script(TenantId::Guild(2), code).text().as_deref(), Ok("null"));
    assert_eq!(world.submit_script(TenantId::User(1), code).text().as_deref(), Ok("null"));
}

#[test]
fn metatables_of_the_host_are_locked() {
    let world = World::new();
    for value in ["''", "ctx.KV", "ctx.log", "ctx.GlobalKV", "ctx.Runtime"] {
        assert_eq!(
            world.ok(&format!("local ctx = ... return getmetatable({value})")),
            r#""locked""#,
            "{value}"
        );
        let error = world.err(&format!("local ctx = ... setmetatable({value}, {{}})"));
        assert!(
            error.contains("protected metatable") || error.contains("table expected"),
            "{error}"
        );
    }
    for value in ["timestamp.now()", "interval.from(1)", "timezone.from('UTC')", "integer.from(1)"]
    {
        assert_eq!(world.ok(&format!("return not getmetatable({value})")), "true", "{value}");
    }
    for code in [
        "getmetatable(vector.zero).__index = print",
        "getmetatable((...)).__index = print",
        "rawset(getmetatable(vector.zero), 'x', 1)",
    ] {
        assert!(world.err(code).contains("readonly"), "{code}");
    }
}

#[test]
fn ctx_and_the_event_are_read_only() {
    let world = World::with_template("return function(ctx) return require('state')().run(ctx) end");
    for code in [
        "ctx.KV = nil",
        "ctx.tenant.id = '2'",
        "ctx.KV.get = nil",
        "ctx:event().name = 'x'",
        "ctx:event().data.list[1] = 0",
        "table.insert(ctx:event().data.list, 1)",
        "rawset(ctx:event().data, 'x', 1)",
        "table.clear(ctx:event().data.inner)",
        "setmetatable(ctx, {})",
    ] {
        world.ok(&format!("require('state')().run = function(ctx) {code} end"));
        let error = world.dispatch("E", r#"{"list": [1], "inner": {"x": 1}}"#).expect_err(code);
        assert!(error.contains("readonly"), "{code}: {error}");
    }
    world.ok(
        "require('state')().run = function(ctx) return ctx:event() == ctx:event() and ctx.event() == ctx:event() end",
    );
    assert_eq!(world.dispatch("E", "[]").as_deref(), Ok("true"));
}

#[test]
fn wrong_use_of_ctx_is_a_clear_error() {
    let world = World::new();
    for (code, expected) in [
        ("return ctx.kv", "test:1: ctx has no member 'kv'"),
        ("return ctx.KV:put('k')", "test:1: ctx.KV has no member 'put'"),
        ("return ctx.KV.get('k', { 's' })", "test:1: call it with a colon: ctx.KV:get(…)"),
        ("ctx.log.info('x')", "test:1: call it with a colon: ctx.log:info(…)"),
        ("return ctx.KV:get(1, { 's' })", "test:1: the key must be a string, not integer"),
        ("return ctx.KV:get('k', 's')", "test:1: the scopes must be a list of strings, not string"),
        ("return ctx.KV:get('k', { 1 })", "test:1: a scope must be a string, not integer"),
        ("return ctx.KV:set('k', print, { 's' })", "test:1: a function cannot leave Luau"),
        (
            "return ctx.KV:update('k', { 's' })",
            "test:1: KV:update needs a function that returns the new value, not nil",
        ),
        (
            "return ctx.KV:get(string.rep('k', 600), { 's' })",
            "test:1: the key has 600 bytes; at most 512 are allowed",
        ),
    ] {
        let error = world.err(&format!("local ctx = ... {code}"));
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_large_event_cannot_be_asked_for_after_its_end() {
    let world = World::with_template("return function(ctx) return require('state')().run(ctx) end");
    world.ok("require('state')().run = function(ctx)
            require('state')().fresh = function() return ctx:event().name end
        end");
    let fresh = "return require('state')().fresh()";
    // A small one is there from the start.
    world.dispatch("E", "[]").expect("it runs");
    assert_eq!(world.ok(fresh), r#""E""#);
    world.dispatch("E", &format!("[\"{}\"]", "x".repeat(SMALL_EVENT_MAX_BYTES))).expect("it runs");
    assert!(
        world.err(fresh).starts_with("test:2: the event that this ctx belongs to has ended"),
        "{}",
        world.err(fresh)
    );
}

#[test]
fn a_coroutine_that_a_script_keeps_runs_no_other_event() {
    let world = World::new();
    for code in ["return 'a'", "error('b')", "task.wait(0) return 'c'"] {
        let _ = world.run(code);
        assert_eq!(world.ok("require('state')().co = coroutine.running() return 1"), "1");
        let code = "local old = require('state')().co
            return { coroutine.running() == old, coroutine.status(old), (pcall(task.spawn, old)) }";
        assert_eq!(world.ok(code), r#"[false,"dead",false]"#);
    }
    // Nor one that was given away before it waited.
    let code = "require('state')().co = coroutine.running() task.wait(0) return 1";
    assert_eq!(world.ok(code), "1");
    assert_eq!(world.ok("return coroutine.running() == require('state')().co"), "false");
}

#[test]
fn no_text_shows_an_address() {
    let world = World::new();
    for value in [
        "{}",
        "print",
        "coroutine.create(print)",
        "buffer.create(1)",
        "newproxy",
        "coroutine.running()",
        "null",
    ] {
        for show in [
            "tostring(x)",
            "string.format('%*', x)",
            "`{x}`",
            "('%*'):format(x)",
            "tostring({ x }) .. tostring(x)",
        ] {
            assert_shows_nothing(&world.ok(&format!("local x = {value} return {show}")));
        }
        assert_shows_nothing(&world.err(&format!("error({value})")));
        assert_shows_nothing(
            &world.ok(&format!("return tostring(select(2, pcall(error, {value})))")),
        );
        assert_shows_nothing(
            &world.run(&format!("local x = {value} return x .. 1")).unwrap_or_else(|error| error),
        );
        assert_shows_nothing(
            &world.run(&format!("return {{ [{value}] = 1 }}")).unwrap_or_else(|error| error),
        );
    }
    assert_eq!(world.ok("return tostring({})"), r#""table""#);
    assert_eq!(
        world.ok(
            "return tostring(setmetatable({}, { __tostring = function() return 'mine: 0x1z' end }))"
        ),
        r#""mine: 0x1z""#
    );
}

#[test]
fn errors_of_the_host_are_texts_to_a_script() {
    let world = World::new();
    for code in [
        "integer.from(1.5)",
        "return integer.from(1) + 'x'",
        "timestamp.parse('soon')",
        "timezone.from('Mars/Olympus')",
        "integer.parse('1e5')",
        "return timestamp.now() < integer.from(1)",
        "integer.from(1).tonumber(timestamp.now())",
        "require('nowhere')",
    ] {
        let caught = world.ok(&format!(
            "local ok, err = pcall(function() {code} end) return {{ ok, type(err), err }}"
        ));
        assert!(caught.starts_with(r#"[false,"string","#), "{code}: {caught}");
        assert_shows_nothing(&caught);
        assert_shows_nothing(&world.err(code));
    }
}

#[test]
fn errors_have_name_line_and_a_traceback_of_script_frames() {
    let world = World::with(
        &[
            (
                "main.luau",
                "local words = require('lib/words')\nreturn function(ctx)\n\treturn words.say(ctx)\nend",
            ),
            (
                "lib/words.luau",
                "local words = {}\n\nfunction words.say(ctx)\n\tlocal x = nil\n\treturn x.y\nend\n\nreturn words",
            ),
        ],
        LuauLimits::default(),
    );
    assert_eq!(
        world.dispatch("E", "null"),
        Err("lib/words.luau:5: attempt to index nil with 'y'\n  in lib/words.luau:5 function 'say'\n  in main.luau:3"
            .to_owned())
    );
    let error = world.err("local ctx = ...\n\nctx.KV:set('k', print, { 's' })");
    assert_eq!(error, "test:3: a function cannot leave Luau\n  in test:3");
    let error = world.err("local function f() string.rep() end\nf()");
    assert!(error.starts_with("test:1: missing argument #1 to 'rep'"), "{error}");
    let error = world.err("string.find('x', '[')");
    assert!(error.starts_with("test:1: malformed pattern"), "{error}");
}

#[test]
fn modules_are_found_in_the_templates_only_and_loaded_once() {
    let world = World::with(
        &[
            (
                "main.luau",
                "return function(ctx) return { require('a'), require('lib/b').name, require('lib/b').count() } end",
            ),
            ("a.luau", "return 'a'"),
            (
                "lib/b.luau",
                "local loads = require('state')() table.insert(loads, 1) local c = require('./c') return { name = c, count = function() return #loads end }",
            ),
            ("lib/c.luau", "return 'c via ' .. require('a')"),
            ("loop1.luau", "return require('loop2')"),
            ("loop2.luau", "return require('loop3')"),
            ("loop3.luau", "return require('loop1')"),
            ("fails.luau", "local x = 1\nerror('on purpose')"),
            ("broken.luau", "local x ="),
            ("nothing.luau", "local x = 1"),
            ("waits.luau", "task.wait(0.01) return 'waited'"),
        ],
        LuauLimits::default(),
    );
    for _ in 0..2 {
        assert_eq!(world.dispatch("E", "null").as_deref(), Ok(r#"["a","c via a",1]"#));
    }
    assert_eq!(world.ok("return require('lib/b') == require('lib/b')"), "true");
    assert!(world.err("require('lib/b').name = 'x'").contains("readonly"));
    for (name, expected) in [
        ("../a", "test:1: cannot require \"../a\": it leads out of the template directory"),
        ("lib/../../etc/passwd", "test:1: cannot require"),
        (
            "/etc/passwd",
            "test:1: cannot require \"/etc/passwd\": modules are found in the template directory only",
        ),
        ("@main", "test:1: cannot require \"@main\": @self/ is the only alias"),
        ("a.luau", "test:1: cannot require \"a.luau\": leave .luau out"),
        ("nowhere", "test:1: cannot require \"nowhere\": there is no such module"),
        ("fails", "fails.luau:2: on purpose"),
        ("broken", "broken.luau:1: Expected identifier"),
        ("nothing", "test:1: module \"nothing\" must return one value, and returned nothing"),
        (
            "loop1",
            "loop3.luau:1: module \"loop1\" is still loading: loop1 → loop2 → loop3 → loop1 is a cycle",
        ),
    ] {
        for _ in 0..2 {
            let error = world.err(&format!("require(\"{name}\")"));
            assert!(error.starts_with(expected), "{error}");
        }
    }
    let code = "local first task.spawn(function() first = require('waits') end)
        local ok, err = pcall(require, 'waits')
        task.wait(0.1)
        return { first, ok, require('waits') }";
    assert_eq!(world.ok(code), r#"["waited",false,"waited"]"#);
}

#[test]
fn collectgarbage_counts_and_no_more() {
    let world = World::new();
    assert_eq!(world.ok("return collectgarbage('count') > 10"), "true");
    for what in ["collect", "stop", "restart", "step", "isrunning", "setgoal"] {
        assert!(
            world
                .err(&format!("collectgarbage('{what}')"))
                .starts_with("test:1: collectgarbage only answers")
        );
    }
    assert!(world.err("collectgarbage()").starts_with("test:1: collectgarbage only answers"));
}

#[test]
fn tags_of_the_host_cannot_be_forged_or_seen() {
    let world = World::new();
    // A script that yields what looks like a call of the host has yielded, and no more.
    let code = "
        local co = coroutine.create(function(...) local got = coroutine.yield(1, 1, 5) return got end)
        local a = table.pack(coroutine.resume(co))
        local b = table.pack(coroutine.resume(co, 'back'))
        return { a[1], a[2], a[3], a[4], a.n, b[2] }";
    assert_eq!(world.ok(code), r#"[true,1,1,5,4,"back"]"#);
    // Nor does anything of the host come out of a coroutine that waits.
    let code = "
        local seen = {}
        local co = coroutine.wrap(function() task.wait() coroutine.yield('own') return 'end' end)
        for i = 1, 2 do local got = table.pack(co()) table.insert(seen, got.n .. tostring(got[1])) end
        return seen";
    assert_eq!(world.ok(code), r#"["1own","1end"]"#);
}

#[test]
fn stats_are_of_this_tenant_only() {
    let world = World::new();
    world
        .submit_script(TenantId::Guild(2), "require('state')().kept = string.rep('x', 2 ^ 20)")
        .text()
        .expect("it runs");
    let code = "local ctx = ... local s = ctx.Runtime:stats()
        return { s.memory_bytes < 2 ^ 20, s.memory_limit_bytes, s.events, s.coroutines, s.running_seconds < 5 }";
    assert_eq!(world.ok(code), "[true,67108864,1,0,true]");
}
