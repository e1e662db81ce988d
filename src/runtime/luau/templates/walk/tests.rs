//! What is found in sources, and what is not.

use super::walk;

fn required(source: &str) -> Vec<(usize, String)> {
    walk(source.as_bytes(), false).requires
}

#[track_caller]
fn found(source: &str) -> Vec<String> {
    let findings = walk(source.as_bytes(), true).findings;
    findings.into_iter().map(|(line, message)| format!("{line}: {message}")).collect()
}

#[track_caller]
fn assert_found(source: &str, expected: &[&str]) {
    assert_eq!(found(source), expected, "{source}");
}

#[test]
fn every_way_to_write_a_require_is_found() {
    let source = "local a = require('a')\nlocal b = require \"b\"\nlocal c = require [[c]]\nrequire(\n  'd').x()";
    let expected = [(1, "a"), (2, "b"), (3, "c"), (5, "d")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(required(source), expected);
    assert_eq!(required("return `{ { x = `{ require('a') }` } } text` .. f(require('b'))").len(), 2);
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
        &["2: unknown global 'massive'", "2: unknown global 'mesage'; did you mean 'message'?"],
    );
    assert_found("return `a {x} b`", &["1: unknown global 'x'"]);
    assert_found(
        "os.time() wait(1)",
        &["1: unknown global 'os'; timestamp.now() tells the time", "1: unknown global 'wait'; task.wait waits"],
    );
    assert_found("t.x = 1 function u.v() end w += 1", &["1: unknown global 't'", "1: unknown global 'u'"]);
}

#[test]
fn locals_are_known_where_they_are_in_reach() {
    assert_found("do local x = 1 end return x", &["1: unknown global 'x'"]);
    assert_found("local x = x", &["1: unknown global 'x'"]);
    assert_found("repeat local done = true until done\nreturn done", &["2: unknown global 'done'"]);
    assert_found("for i = 1, i do end for k, v in k do end", &["1: unknown global 'i'", "1: unknown global 'k'"]);
    assert_found("local function f(a, ...) return a, f, ... end return a", &["1: unknown global 'a'"]);
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
        ("local event = ctx:event() return event.nam", "the event has no member 'nam'; did you mean 'name'?"),
        ("return function() return ctx.GlobalKV:fnd() end", "ctx.GlobalKV has no member 'fnd'; did you mean 'find'?"),
        (
            "ctx.Runtime:setTenantState({})",
            "ctx.Runtime has no member 'setTenantState'; did you mean 'settenantstate'?",
        ),
        ("return ctx.tenant.name", "ctx.tenant has no member 'name'"),
        ("task.sleep(1)", "task has no member 'sleep'"),
        ("return string.trim('x'), `{table.lenght}`", "string has no member 'trim'"),
    ] {
        let findings = found(&handler(body));
        assert_eq!(findings.first().map(String::as_str), Some(format!("2: {expected}").as_str()), "{body}");
    }
    assert_found("return function(c) return c.kv end", &["1: ctx has no member 'kv'; did you mean 'KV'?"]);
    assert_found("local function f(ctx) return ctx.x end", &["1: ctx has no member 'x'"]);
    assert_found("local ctx = ... return ctx.x", &["1: ctx has no member 'x'"]);
    assert_found("local s = string return s.nope", &["1: string has no member 'nope'"]);
}

#[test]
fn what_may_be_right_is_left_alone() {
    for source in [
        "return function(ctx) return ctx.event(), ctx.KV.get(ctx.KV, 'k', {}), pcall(ctx.KV.get, ctx.KV, 'k') end",
        "return function(ctx) local kv, get = ctx.KV, ctx.KV.get return get(kv, 'k', {}) end",
        // Somebody's own, under the same name.
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
        assert!(findings.iter().all(|finding| finding.contains("ctx_of")), "{source}: {findings:?}");
    }
}

#[test]
fn all_of_the_grammar_is_understood() {
    let source = include_str!("grammar.luau");
    crate::runtime::luau::templates::compile(source.as_bytes(), usize::MAX)
        .map_err(|problem| problem.at("grammar"))
        .expect("it compiles");
    assert_found(source, &["132: unknown global 'the_end'"]);
}
