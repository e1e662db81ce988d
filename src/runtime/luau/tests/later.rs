//! What of a VM is loaded when it is first used: no script sees that it was not there before, or
//! that something got in the way.

use std::time::Duration;

use super::support::*;
use crate::runtime::luau::LuauLimits;

#[test]
fn libraries_show_all_of_their_members() {
    for each in [
        "for name in pairs(library) do count += 1 end",
        "for name in next, library do count += 1 end",
        "for name in library do count += 1 end",
        "for name in pairs(table.clone(library)) do count += 1 end",
        "local name = next(library) while name do count += 1 name = next(library, name) end",
    ] {
        let count = format!("return function(library) local count = 0 {each} return count end");
        let world = World::with(&[("count.luau", &count)], LuauLimits::default());
        let code = "local count = require('count')
            return { count(string), count(table), count(coroutine), count(task) }";
        assert_eq!(world.ok(code), "[17,17,8,5]", "{each}");
    }
}

#[test]
fn a_library_is_a_plain_table_whatever_looks_at_it() {
    for (code, expected) in [
        ("return rawget(string, 'format') ~= nil", "true"),
        ("return rawget(table, 'sort') ~= nil", "true"),
        ("return rawget(_G.task, 'wait') ~= nil", "true"),
        ("return rawget(_G['corou' .. 'tine'], 'wrap') ~= nil", "true"),
        ("local own = table:clone() own.x = 1 return own.sort ~= nil", "true"),
        ("return getmetatable(string) == nil and getmetatable(task) == nil", "true"),
        ("return rawequal(string.format, rawget(string, 'format'))", "true"),
        (
            "for name, library in _G do if name == 'task' then return next(library) ~= nil end end",
            "true",
        ),
        ("return { table.isfrozen(string), table.isfrozen(coroutine), #table }", "[true,true,0]"),
        ("return { string.nope == nil, table.nope == nil, task.nope == nil }", "[true,true,true]"),
        ("return setmetatable({}, { __index = string }).format('%d', 1)", r#""1""#),
        ("local name = 'format' return ('%d')[name]('%d', 1)", r#""1""#),
    ] {
        assert_eq!(World::new().ok(code), expected, "{code}");
    }
    // A module that shows one to code that does not name it.
    let shown = [("shown.luau", "return { library = string }")];
    let world = World::with(&shown, LuauLimits::default());
    assert_eq!(world.ok("return rawget(require('shown').library, 'split') ~= nil"), "true");
}

#[test]
fn ctx_shows_all_of_its_members_in_a_loop() {
    let code = "local ctx, names = ..., {}
        for name, member in ctx do
            assert(member == ctx[name])
            table.insert(names, name)
        end
        table.sort(names)
        return table.concat(names, ' ')";
    let names = "\"Feed GlobalKV Host KV Messages Runtime Timers event log tenant\"";
    assert_eq!(World::new().ok(code), names);
    let pairs = "local names = {} for name in pairs((...)) do names[#names + 1] = name end
        return names";
    assert_eq!(World::new().ok(pairs), r#"["event"]"#);
}

#[test]
fn an_event_after_one_that_was_killed_has_all_of_its_time() {
    let limits = LuauLimits { running: Duration::from_millis(100), ..LuauLimits::default() };
    let world = World::with(&[], limits);
    for code in [
        "while true do end",
        "table.sort({ 2, 1 }, function() while true do end end)",
        "pcall(function() while true do pcall(string.rep, 'x', 10) end end) while true do end",
    ] {
        let before = "require('state')().count = (require('state')().count or 0) + 1";
        world.ok(before);
        assert!(world.err(code).contains("budget exceeded"), "{code}");
        let after = "local co = coroutine.running()
            task.wait(0)
            return { coroutine.running() == co, coroutine.isyieldable(), require('state')().count >= 1 }";
        assert_eq!(world.ok(after), "[true,true,true]");
    }
}
