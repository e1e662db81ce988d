//! Attacks of the kinds that the issue trackers of Lua, Luau and mlua report: each ends in an error
//! or in what is documented, the process lives, and the tenant works again at its next event.

use std::time::Duration;

use super::support::*;
use crate::runtime::luau::LuauLimits;

fn tight() -> LuauLimits {
    LuauLimits {
        memory_bytes: 16 * 1024 * 1024,
        running: Duration::from_secs(20),
        wall: SOON,
        ..LuauLimits::default()
    }
}

/// Each script returns `true` where the attack failed, or fails itself.
#[track_caller]
fn fail(attacks: &[&str]) {
    let world = World::with_limits(tight());
    for code in attacks {
        if let Ok(result) = world.run(code) {
            assert_eq!(result, "true", "{code}");
        }
        assert_eq!(world.ok("return 'alive'"), r#""alive""#, "after {code}");
    }
}

#[test]
fn ranges_that_overflow_reach_nothing() {
    fail(&[
        // luau-lang/luau#2970, and what gets past a check of numbers alone.
        "local d = {} d[-2147483648] = 1 return not pcall(table.move, { 1 }, 1, 2147483647, 1, d)",
        "local d = {} d[-2147483648] = 1 return not pcall(table.move, { 1 }, '1', '2147483647', 1, d)",
        "return not pcall(table.move, {}, '1', '1000000000', -1500000000, {})",
        "return not pcall(table.move, {}, 2 ^ 32 + 1, 2 ^ 31 - 1, -1500000000, {})",
        "return not pcall(table.move, { 1 }, 1, 2 ^ 22, 2 ^ 31 - 10)",
        "return not pcall(table.move, { 1 }, 0 / 0, 5, 1)",
        "return not pcall(table.move, { 1 }, -math.huge, math.huge, 1)",
        "return not pcall(table.unpack, {}, -2 ^ 31, 2 ^ 31 - 1)",
        "return select('#', table.unpack({}, 1, 2 ^ 40)) < 100",
        "return not pcall(string.byte, string.rep('x', 2 ^ 20), 1, -1)",
        "return not pcall(table.concat, {}, '', -2 ^ 31, 2 ^ 31 - 1)",
        "return not pcall(table.create, 2 ^ 31)",
        "return not pcall(table.create, -1)",
        "return not pcall(select, -2 ^ 31, 1, 2)",
        "local t = {} table.insert(t, 1) return not pcall(table.insert, t, 2 ^ 53, 1) or #t <= 2",
        "for _, n in { 2 ^ 31, 2 ^ 32 + 1, -2 ^ 31 } do assert(#string.rep('ab', n) <= 2) end return true",
        "return string.rep('ab', 2 ^ 31 - 1, string.rep('c', 2 ^ 16)) == nil",
        "for _, at in { 2 ^ 31, 2 ^ 53, -2 ^ 31, 0 / 0 } do assert(#string.sub('abc', at, at) <= 3 and #string.sub('abc', at) <= 3) end return true",
        "for i = 2 ^ 53, 2 ^ 53 + 10 do if i > 2 ^ 53 then break end end return true",
    ]);
}

#[test]
fn buffers_have_bounds() {
    let offsets =
        "{ -1, 8, 9, 2 ^ 31, 2 ^ 32, 2 ^ 32 + 1, -2 ^ 31, 2 ^ 53, 0 / 0, math.huge, -math.huge }";
    let code = format!(
        "local b, bad = buffer.create(8), {{}}
        for _, at in {offsets} do
            for _, name in {{ 'readi8', 'readu16', 'readi32', 'readf32', 'readf64' }} do
                if pcall(buffer[name], b, at) and at == at and not (at == 2 ^ 32) then table.insert(bad, name .. at) end
            end
            for _, name in {{ 'writei8', 'writeu16', 'writei32', 'writef32', 'writef64' }} do
                pcall(buffer[name], b, at, 1)
            end
            pcall(buffer.readstring, b, at, 2 ^ 31 - 1)
            pcall(buffer.readstring, b, 4, at)
            pcall(buffer.writestring, b, at, 'overflow')
            pcall(buffer.copy, b, at, b, at, at)
            pcall(buffer.copy, b, 0, b, 4, at)
            pcall(buffer.fill, b, at, 1, at)
            pcall(buffer.readbits, b, at, 32)
            pcall(buffer.writebits, b, at, 32, 1)
        end
        return buffer.len(b) == 8"
    );
    fail(&[
        &code,
        "return not pcall(buffer.readstring, buffer.create(8), 0, 9)",
        "return not pcall(buffer.readu8, buffer.create(0), 0)",
        "return not pcall(buffer.copy, buffer.create(8), 1, buffer.create(8))",
        "return not pcall(buffer.writestring, buffer.create(4), 0, 'abc', 4)",
        "return not pcall(buffer.readbits, buffer.create(4), 31, 2)",
        "return not pcall(buffer.readbits, buffer.create(4), 0, 33)",
        "return not pcall(buffer.create, -1)",
    ]);
}

#[test]
fn formats_and_patterns_have_bounds() {
    fail(&[
        "return not pcall(string.format, '%1000d', 1)",
        "return not pcall(string.format, '%.1000f', 1)",
        "return not pcall(string.format, '%n', 1)",
        "return not pcall(string.format, '%p', {})",
        "return #string.format('%99.99f', -1e308) > 300",
        "return not pcall(string.format, string.rep('%s', 300))",
        "return not pcall(string.format, '%' .. string.rep('0', 100) .. 'd', 1)",
        "return not pcall(string.unpack, 's8', '\\255\\255\\255\\255\\255\\255\\255\\255x')",
        "return not pcall(string.unpack, 's4', '\\255\\255\\255\\255')",
        "return not pcall(string.unpack, 'z', 'no end')",
        "for _, at in { 2 ^ 31, -2 ^ 31, 2 ^ 32 + 5, 0 / 0 } do pcall(string.unpack, 'i4', 'abcd', at) end return true",
        "return not pcall(string.unpack, '!17i4', 'abcd')",
        "return not pcall(string.pack, 'i4', 2 ^ 40)",
        "return not pcall(string.pack, string.rep('c1000000000', 4), 'a', 'b', 'c', 'd')",
        "return not pcall(string.packsize, string.rep('c2147483647', 4))",
        "return not pcall(string.find, 'x', string.rep('(', 40) .. 'x' .. string.rep(')', 40))",
        "return not pcall(string.find, string.rep('a', 2 ^ 18), string.rep('a-', 2 ^ 10) .. 'b')",
        "return not pcall(string.gsub, 'x', 'x', '%9')",
        "return not pcall(string.find, 'x', '%b')",
        "return not pcall(string.find, 'x', '[%')",
        "return not pcall(string.find, 'x', '%f')",
        "return not pcall(string.gsub, string.rep('x', 2 ^ 20), '', string.rep('y', 2 ^ 10))",
        "return not pcall(string.gsub, string.rep('x', 2 ^ 16), 'x', function() return string.rep('y', 2 ^ 16) end)",
        "for _, at in { 2 ^ 31, -1, 2 ^ 53 } do pcall(utf8.char, at) pcall(utf8.codepoint, 'abc', 1, at) end return true",
        "return utf8.len('\\u{10FFFF}\\xF4\\x90\\x80\\x80') == nil and utf8.len('\\xED\\xA0\\x80') == nil",
        "for _, at in { -2 ^ 31, 2 ^ 31 - 1, 2 ^ 53 } do pcall(utf8.offset, 'abc', at, at) pcall(utf8.len, 'abc', at, at) end return true",
        "return not pcall(tonumber, '1', 2 ^ 31) and tonumber(string.rep('9', 2 ^ 16)) == math.huge",
    ]);
}

#[test]
fn the_stack_of_c_has_an_end() {
    fail(&[
        "local function f(n) return pcall(pcall, f, n + 1) end return f(1) ~= nil",
        "local function f() return (string.gsub('x', 'x', f)) end return not pcall(f)",
        "local function f() table.sort({ 1, 2 }, f) return true end return not pcall(f)",
        "local function f() return xpcall(error, f) end return f() == false",
        "local function f(e) error(e) end return xpcall(error, f, 'x') == false",
        "local t = setmetatable({}, { __index = function(t, k) return t[k .. 'x'] end }) return not pcall(function() return t.x end)",
        "local t = {} t = setmetatable(t, { __tostring = function() return tostring(t) end }) return not pcall(tostring, t)",
        "local m = {} m.__call = setmetatable({}, m) return not pcall(setmetatable({}, m))",
        "local t = {} for _ = 1, 1e5 do t = setmetatable({}, { __index = t }) end return not pcall(function() return t.x end) or t.x == nil",
        "local t = {} for _ = 1, 1e5 do t = { t } end return not pcall(function() return tostring(t) .. nil end)",
        "local m = {} m.__eq = function(a, b) return a == b end local a, b = setmetatable({}, m), setmetatable({}, m) return not pcall(function() return a == b end)",
        "local m = {} m.__concat = function(a, b) return a .. b end local a = setmetatable({}, m) return not pcall(function() return a .. a end)",
        "local m = {} m.__iter = function(t) for _ in t do end end return not pcall(function() for _ in setmetatable({}, m) do end end)",
        "local m = {} m.__len = function(t) return #t end return not pcall(function() return #setmetatable({}, m) end)",
        "local m = {} m.__newindex = setmetatable({}, m) return not pcall(function() setmetatable({}, m).x = 1 end)",
        "local function f() return coroutine.wrap(f)() end return not pcall(f)",
        "local co co = coroutine.wrap(function() return co() end) return not pcall(co)",
        "local f = print for _ = 1, 190 do local g = f f = function(...) return pcall(g, ...) end end return f() == true",
        "local function f(...) return f(1, ...) end return not pcall(f)",
        "local function f(...) return select('#', f(1, ...)) end return not pcall(f)",
        "return not pcall(function() return table.unpack(table.create(2 ^ 21, 1)) end)",
    ]);
}

#[test]
fn coroutines_in_odd_states_are_no_trouble() {
    fail(&[
        "return not pcall(coroutine.close, coroutine.running())",
        "local co co = coroutine.create(function() return pcall(coroutine.close, co) end) local _, ok = coroutine.resume(co) return not ok",
        "local co co = coroutine.wrap(function() return pcall(co) end) return not co()",
        "local outer outer = coroutine.create(function() return coroutine.wrap(function() return pcall(coroutine.close, outer) end)() end) local _, ok = coroutine.resume(outer) return not ok",
        "local co = coroutine.create(function() error(setmetatable({}, { __tostring = coroutine.yield })) end) coroutine.resume(co) return coroutine.close(co) == false",
        "return not pcall(function() return setmetatable({}, { __index = coroutine.yield }).x end)",
        "return not pcall(function() return setmetatable({}, { __add = function() return coroutine.yield() end }) + 1 end)",
        "return xpcall(error, function() coroutine.yield() end) == false",
        "local co = coroutine.create(function() pcall(function() coroutine.yield() end) end) coroutine.resume(co) coroutine.close(co) return coroutine.status(co) == 'dead'",
        "local co = coroutine.create(function() for _ in coroutine.yield do end end) coroutine.resume(co) coroutine.close(co) return not coroutine.resume(co)",
        "local co = coroutine.create(pcall) return coroutine.resume(co, coroutine.yield, 1) and coroutine.resume(co, 2)",
        "local co = coroutine.create(coroutine.yield) coroutine.resume(co, 1) return coroutine.resume(co, 2) and coroutine.status(co) == 'dead'",
        "local co = coroutine.wrap(coroutine.running) return type(co()) == 'thread'",
        "local all = {} for i = 1, 200 do all[i] = coroutine.create(function() coroutine.yield(all) end) coroutine.resume(all[i]) end for i = 1, 200, 2 do coroutine.close(all[i]) end return true",
        "local co = task.spawn(function() task.wait(20) end) task.cancel(co) return not pcall(task.spawn, co)",
        "local me = coroutine.running() task.defer(function() pcall(task.cancel, me) end) return not pcall(task.cancel, me)",
        "return not pcall(coroutine.wrap(function() task.cancel(coroutine.running()) end))",
        "local co = coroutine.running() task.defer(coroutine.close, co) task.wait(0.01) return true",
        "local co co = task.defer(function() task.cancel(co) end) task.wait() return true",
    ]);
}

#[test]
fn what_all_scripts_share_cannot_be_changed() {
    fail(&[
        "return not pcall(function() getmetatable('').__index = {} end)",
        "return not pcall(function() getmetatable('').__index.upper = print end)",
        "return not pcall(setmetatable, string, {}) and not pcall(setmetatable, '', {})",
        "return not pcall(rawset, string, 'upper', print) and not pcall(rawset, _G, 'print', 1)",
        "return not pcall(table.insert, table, 1) and not pcall(table.clear, string) and not pcall(table.sort, task)",
        "return not pcall(table.move, { 1 }, 1, 1, 1, math)",
        "local c = table.clone(string) c.upper = nil return ('x'):upper() == 'X' and string.upper ~= nil",
        "local c = setmetatable({}, { __index = string, __newindex = string }) return not pcall(function() c.upper = 1 end)",
        "return not pcall(function() for key in string do string[key] = nil end end)",
        "return getmetatable(_G) == nil or not pcall(function() getmetatable(_G).__index = 1 end)",
        "local ctx = ... return not pcall(rawset, ctx, 'KV', 1) and not pcall(rawset, ctx.KV, 'get', 1) and not pcall(table.clear, ctx.log)",
        "local ctx = ... return not pcall(setmetatable, ctx.KV, {}) and getmetatable(ctx.KV) == 'locked'",
        "local ctx = ... local c = table.clone(ctx.KV) return not pcall(function() c:get('k', { 's' }) end)",
        "local ctx = ... return not pcall(ctx.KV.get, setmetatable({}, { __eq = function() return true end }), 'k', {})",
        "return not pcall(rawset, require('state'), 'x', 1)",
        "local e = select(2, pcall(function() return timestamp.parse('x') end)) return type(e) == 'string'",
        "local t = timestamp.now() return not pcall(function() t.unix = 1 end) and not pcall(setmetatable, t, {}) and getmetatable(t) ~= nil or getmetatable(t) == false",
    ]);
}

#[test]
fn a_swallowed_memory_error_is_still_the_end() {
    let world = World::with_limits(tight());
    for code in [
        "pcall(table.sort, { 3, 2, 1 }, function() return string.rep('x', 2 ^ 30) end) return 'saved'",
        "pcall(string.gsub, 'x', 'x', function() return string.rep('x', 2 ^ 30) end) return 'saved'",
        "xpcall(function() error('first') end, function() return string.rep('x', 2 ^ 30) end) return 'saved'",
        "local co = coroutine.create(function() local t = {} while true do t[#t + 1] = {} end end) coroutine.resume(co) coroutine.close(co) return 'saved'",
        "pcall(function() return setmetatable({}, { __index = function() return string.rep('x', 2 ^ 30) end }).x end) return 'saved'",
        "pcall(tostring, setmetatable({}, { __tostring = function() return string.rep('x', 2 ^ 30) end })) return 'saved'",
        "pcall(buffer.create, 2 ^ 29) return 'saved'",
        "pcall(table.create, 2 ^ 25, 1) return 'saved'",
        "pcall(string.pack, 's4', string.rep('x', 12 * 2 ^ 20) .. string.rep('y', 12 * 2 ^ 20)) return 'saved'",
        "pcall(pcall, pcall, string.rep, 'x', 2 ^ 30) return 'saved'",
        "local ok, e = pcall(string.rep, 'x', 2 ^ 30) error(e, 0)",
        "task.defer(function() pcall(string.rep, 'x', 2 ^ 30) end) task.wait(0.01) return 'saved'",
    ] {
        assert!(
            world.err(code).starts_with("budget exceeded: more than 16 MiB of memory"),
            "{}: {code}",
            world.err(code)
        );
        assert_eq!(world.ok("return 'alive'"), r#""alive""#, "after {code}");
    }
}

#[test]
fn modules_cannot_be_poisoned_by_who_requires_them() {
    let world = World::with(
        &[
            (
                "shared.luau",
                "local shared = { list = {} } function shared.get() return shared.list end return shared",
            ),
            ("loud.luau", "string = nil print = nil poisoned = true return {}"),
            ("main.luau", "return function() return 1 end"),
        ],
        tight(),
    );
    assert_eq!(world.ok("return not pcall(function() require('shared').get = print end)"), "true");
    assert_eq!(world.ok("return not pcall(rawset, require('shared'), 'get', print)"), "true");
    assert_eq!(world.ok("return not pcall(setmetatable, require('shared'), {})"), "true");
    assert_eq!(
        world.ok("require('loud') return poisoned == nil and string ~= nil and print ~= nil"),
        "true"
    );
    assert_eq!(
        world.ok("return require == require and not pcall(require, { 'shared' }) and not pcall(require, 'shared\\0x')"),
        "true"
    );
    assert_eq!(world.ok("local own = require require = print own('shared') return true"), "true");
    assert_eq!(world.ok("return not pcall(require, string.rep('a/', 2 ^ 20) .. 'x')"), "true");
}
