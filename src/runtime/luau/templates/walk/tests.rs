//! What is found in sources, and what is not.

use super::walk;

fn required(source: &str) -> Vec<(usize, String)> {
    walk(source.as_bytes(), false).requires.into_iter().map(|(at, name)| (at.line, name)).collect()
}

/// What is found, but for what the source returns.
#[track_caller]
fn found(source: &str) -> Vec<String> {
    let findings = walk(source.as_bytes(), true).findings.into_iter();
    let others = findings.filter(|(_, message)| !message.contains("must return"));
    others.map(|(at, message)| format!("{}: {message}", at.line)).collect()
}

#[track_caller]
fn assert_found(source: &str, expected: &[&str]) {
    assert_eq!(found(source), expected, "{source}");
}

#[test]
fn every_way_to_write_a_require_is_found() {
    let source = "local a = require('a')\nlocal b = require \"b\"\nlocal c = require [[c]]\nrequire(\n  'd').x()";
    let expected =
        [(1, "a"), (2, "b"), (3, "c"), (5, "d")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(required(source), expected);
    assert_eq!(
        required("return `{ { x = `{ require('a') }` } } text` .. f(require('b'))").len(),
        2
    );
}

#[test]
fn what_only_looks_like_one_is_not() {
    let source = r#"
        -- require('no')
        --[[ require('no')
        require('no') ]] --[==[ ]] require('no') ]==]
        local text = "require('no') \" require('no')" .. 'require("no")' .. [=[require('no')]=]
        local inter = `require('no') {text} require('no')`
        other.require('no') other:require('no') requires('no') require(name) require(`{no}`)
        local function shadowed(require) return require('no') end
    "#;
    assert_eq!(required(source), []);
}

#[test]
fn unknown_globals_are_found_with_the_nearest_name() {
    assert_found("pritn('x')", &["1: unknown global 'pritn'; did you mean 'print'?"]);
    assert_found(
        "local message = 1\nreturn mesage .. massive",
        &["2: unknown global 'mesage'; did you mean 'message'?", "2: unknown global 'massive'"],
    );
    assert_found("return `a {x} b`", &["1: unknown global 'x'"]);
    assert_found(
        "os.time() wait(1)",
        &[
            "1: unknown global 'os'; timestamp.now() tells the time",
            "1: unknown global 'wait'; task.wait waits",
        ],
    );
    assert_found(
        "t.x = 1 function u.v() end w += 1",
        &["1: unknown global 't'", "1: unknown global 'u'"],
    );
}

#[test]
fn locals_are_known_where_they_are_in_reach() {
    assert_found("do local x = 1 end return x", &["1: unknown global 'x'"]);
    assert_found("local x = x", &["1: unknown global 'x'"]);
    assert_found("repeat local done = true until done\nreturn done", &["2: unknown global 'done'"]);
    assert_found(
        "for i = 1, i do end for k, v in k do end",
        &["1: unknown global 'i'", "1: unknown global 'k'"],
    );
    assert_found(
        "local function f(a, ...) return a, f, ... end return a",
        &["1: unknown global 'a'"],
    );
    assert_found(
        "local t = {} function t:m() return self end function t.f() return self end",
        &["1: unknown global 'self'"],
    );
    assert_found("if true then local a = 1 elseif a then end", &["1: unknown global 'a'"]);
    assert_found("own = 1 function other() return own, other end", &[]);
}

#[test]
fn wrong_members_of_ctx_are_found() {
    let handler = |body: &str| format!("return function(ctx)\n{body}\nend");
    for (body, expected) in [
        ("ctx.KV:gett('k', {})", "ctx.KV has no member 'gett'; did you mean 'get'?"),
        ("ctx:evnt()", "ctx has no member 'evnt'; did you mean 'event'?"),
        ("return ctx.kv", "ctx has no member 'kv'; did you mean 'KV'?"),
        ("ctx.KV.get('k', {})", "call it with a colon: ctx.KV:get(…)"),
        ("ctx.log.info 'x'", "call it with a colon: ctx.log:info(…)"),
        ("ctx.log:warning('x')", "ctx.log has no member 'warning'"),
        ("local kv = ctx.KV kv:put('k')", "ctx.KV has no member 'put'"),
        (
            "local event = ctx:event() return event.nam",
            "the event has no member 'nam'; did you mean 'name'?",
        ),
        (
            "return function() return ctx.GlobalKV:fnd() end",
            "ctx.GlobalKV has no member 'fnd'; did you mean 'find'?",
        ),
        (
            "ctx.Runtime:setTenantState({})",
            "ctx.Runtime has no member 'setTenantState'; did you mean 'settenantstate'?",
        ),
        ("return ctx.tenant.name", "ctx.tenant has no member 'name'"),
        ("task.sleep(1)", "task has no member 'sleep'"),
        ("return string.trim('x'), `{table.lenght}`", "string has no member 'trim'"),
    ] {
        let findings = found(&handler(body));
        assert_eq!(
            findings.first().map(String::as_str),
            Some(format!("2: {expected}").as_str()),
            "{body}"
        );
    }
    assert_found(
        "return function(c) return c.kv end",
        &["1: ctx has no member 'kv'; did you mean 'KV'?"],
    );
    assert_found("local function f(ctx) return ctx.x end", &["1: ctx has no member 'x'"]);
    assert_found("local ctx = ... return ctx.x", &["1: ctx has no member 'x'"]);
    assert_found("local s = string return s.nope", &["1: string has no member 'nope'"]);
}

#[test]
fn what_may_be_right_is_left_alone() {
    for source in [
        "return function(ctx) return ctx.event(), ctx.KV.get(ctx.KV, 'k', {}), pcall(ctx.KV.get, ctx.KV, 'k') end",
        "return function(ctx) local kv, get = ctx.KV, ctx.KV.get return get(kv, 'k', {}) end",
        // A table of its own, under the same name.
        "local function f(ctx) ctx.mine = 1 return ctx.mine, ctx.other end",
        "local function new(ctx) ctx.mine = 1 end local function f(ctx) return ctx.mine end",
        "local function f(ctx) ctx = ctx or {} return ctx.mine end",
        "local ctx = {} return ctx.mine",
        "return function(ctx) local kv = ctx.KV kv = {} return kv.mine end",
        "return function(ctx) return (ctx :: any).mine end",
        "string = { mine = 1 } return string.mine",
        "local math = { mine = 1 } return math.mine",
        "return function(ctx) return ctx:event().data.anything.at.all end",
        "return _G.anything, ctx_of",
    ] {
        let findings = found(source);
        assert!(
            findings.iter().all(|finding| finding.contains("ctx_of")),
            "{source}: {findings:?}"
        );
    }
}

#[test]
fn findings_have_the_place_of_the_name() {
    let source =
        "local x = 'ä'; local y = pritn(x)\nreturn function(ctx)\n\treturn ctx . KV:gett('k')\nend";
    let places: Vec<_> = walk(source.as_bytes(), true)
        .findings
        .into_iter()
        .map(|(at, _)| (at.line, at.column))
        .collect();
    assert_eq!(places, [(1, 26), (3, 18)]);
}

#[test]
fn what_a_source_returns_is_found_if_it_will_not_do() {
    let found = |source: &str, is_template| {
        let findings = walk(source.as_bytes(), is_template).findings.into_iter();
        findings.map(|(at, message)| format!("{}: {message}", at.line)).collect::<Vec<_>>()
    };
    for (source, kind, line) in [
        ("", "nil", 0),
        ("local x = 1", "nil", 0),
        ("local M = {}\nfunction M.run(ctx) end\nM.x = 1\nreturn M", "a table", 4),
        ("return { run = print }", "a table", 1),
        ("return 'text', 1", "a string", 1),
        ("return `{1}`", "a string", 1),
        ("if _G then\nreturn 1 end return print", "a number", 2),
        ("return", "nil", 1),
        ("return function(ctx) end, 1", "", 0),
    ] {
        let expected: Vec<_> = (!kind.is_empty())
            .then(|| format!("{line}: the template must return function(ctx), not {kind}"))
            .into_iter()
            .collect();
        assert_eq!(found(source, true), expected, "{source}");
    }
    for right in [
        "local function run(ctx) end return run",
        "local run run = function(ctx) end return run",
        "local run = {} run = print return run",
        "return require('other')",
        "return setmetatable({}, {})",
        "local ctx = ... return { 1 }",
        "function run() end return run",
    ] {
        assert_eq!(found(right, true), Vec::<String>::new(), "{right}");
    }
    for (source, expected) in [
        ("local x = 1", Some("0: a module must return something")),
        ("return nil", Some("1: a module must return something")),
        ("return {}", None),
        ("return 1", None),
        ("local function f() return nil end return f", None),
    ] {
        assert_eq!(found(source, false).first().map(String::as_str), expected, "{source}");
    }
}

#[test]
fn calls_that_lack_arguments_are_found() {
    let handler =
        |body: &str| format!("return function(ctx) local f, k, s = print, 'k', {{}} {body} end");
    for (body, expected) in [
        ("ctx.KV:get('k')", "scopes missing: ctx.KV:get(key, scopes)"),
        ("ctx.KV:get(k)", "scopes missing: ctx.KV:get(key, scopes)"),
        ("ctx.KV:get(`k{k}`)", "scopes missing: ctx.KV:get(key, scopes)"),
        ("ctx.KV:set(k, f(), nil)", "scopes are a list of strings: ctx.KV:set(key, value, scopes)"),
        ("ctx.KV:set(k)", "value and scopes missing: ctx.KV:set(key, value, scopes)"),
        ("ctx.KV:find('%', 's')", "scopes are a list of strings: ctx.KV:find(pattern, scopes)"),
        ("ctx.KV:update(k, s)", "change missing: ctx.KV:update(key, scopes, change)"),
        ("ctx.KV:delete()", "key and scopes missing: ctx.KV:delete(key, scopes)"),
        ("local kv = ctx.KV kv:get 'k'", "scopes missing: ctx.KV:get(key, scopes)"),
        ("ctx.GlobalKV:get(k, 1)", "scope missing: ctx.GlobalKV:get(key, version, scope)"),
        ("ctx.Runtime:settenantstate()", "state missing: ctx.Runtime:settenantstate(state)"),
    ] {
        assert_found(&handler(body), &[&format!("1: {expected}")]);
    }
    for right in [
        "ctx.KV:get(k, s) ctx.KV:get(f()) ctx.KV:get(k, f()) ctx.KV:get(f(k, s))",
        "local function g(...) return ctx.KV:get(...) end return g",
        "ctx.KV:set(k, nil, s) ctx.KV:set(k, f()) ctx.KV:list_scopes() ctx.KV:find('%', {})",
        "ctx.KV:get(f 'k') ctx.KV:get((f(k)), s) ctx.log:info() ctx.Runtime:settenantstate{ events = s }",
        "ctx.KV:update(k, s, function(old) return old end) ctx.KV:get(k, s, 1)",
    ] {
        assert_found(&handler(right), &[]);
    }
}

#[test]
fn a_field_of_the_event_that_decides_is_found() {
    let found_in = |body: &str| {
        found(&format!("return function(ctx) local e = ctx:event() local d = e.data\n{body} end"))
            .len()
    };
    for (body, count) in [
        ("return d.nick or d.name", 1),
        ("return ctx:event().data.nick or 1", 1),
        ("local t = ctx:event().data :: any return t.nick or 1", 1),
        ("return (d :: { nick: string? }).nick or d.name", 1),
        ("return e.data.user.nick and 1", 1),
        ("if d.bot then end", 1),
        ("if d.a and d.b then elseif d.c then end", 3),
        ("while d.a do end repeat until d.b", 2),
        ("return if d.a then 1 else 2", 1),
        ("return not d.a, not (d.b)", 2),
        ("local u = d.user return u.nick or 1", 1),
        ("return d['nick'] or d[1] or 2", 2),
        ("return (d.a or 1) .. 'x'", 1),
        ("return d.a ~= nil and d.a or 1", 1),
        ("return 'x' .. (d.b and 'b' or 'c')", 1),
    ] {
        assert_eq!(found_in(body), count, "{body}");
    }
    for right in [
        "return value(d.nick) or d.name",
        "return d.nick ~= null and d.nick or d.name",
        "return null == d.nick and 1 or d.nick or 2",
        "if d.nick == null then return end return d.nick or 1",
        "if typeof(d.x) == 'string' and d.x then end",
        "local u = d.user if u ~= null and d.user then return u end if d.user then end",
        "return d.kind == 'x' and d.kind or 'y'",
        // What cannot be null, or what it is not sure of.
        "local m = e.data or {} return m and m.x, not e.author, e.data and 1, d or 2",
        "return d.a == 1 or d.b > 2 or #d.c or -d.n or d.x .. 'x' or d.f() or d:f()",
        "local nick = d.nick return nick or d.name",
        "for _, u in d.users do if u.bot then end end",
        "d = {} return d.nick or 1",
        "local function f(data) return data.nick or 1 end return f(d), f(value(d.x) or d.y)",
        "return { d.a, d.b }, d.a, d.a + 1",
    ] {
        assert_eq!(found_in(right), 0, "{right}");
    }
    let found = found("return function(ctx) return ctx:event().data.nick or 1 end");
    assert_eq!(
        found,
        ["1: a field of the event may be null, which counts as true; value(…) gives nil for it"]
    );
}

#[test]
fn all_of_the_grammar_is_understood() {
    let source = include_str!("grammar.luau");
    crate::runtime::luau::templates::compile("grammar", source.as_bytes(), usize::MAX)
        .map_err(|problem| problem.to_string())
        .expect("it compiles");
    assert_found(source, &["132: unknown global 'the_end'"]);
}
