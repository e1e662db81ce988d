//! Values in and out: the documented rules, random values there and back, and hostile ones.

use std::time::Duration;

use super::support::*;
use crate::dispatch::Job;
use crate::runtime::luau::LuauLimits;
use crate::wire;
use crate::wire::data::{CreateEvent, EncodedValue, EventData, KhronosValue, Timestamp};

/// Sends a typed value through Luau and back.
fn echo(world: &World, value: EncodedValue) -> Result<EncodedValue, String> {
    let event =
        CreateEvent { name: "E".to_owned(), author: None, data: EventData::KhronosValue(value) };
    world.submit(TENANT, Job::Dispatch(event)).wait().map_err(|error| error.to_string())
}

/// The same, in the JSON form of values.
#[track_caller]
fn echoed(world: &World, text: &str) -> String {
    let value = wire::json::value_from_json(text.as_bytes()).expect("the test's JSON is a value");
    json(&echo(world, value).unwrap_or_else(|error| panic!("{text}: {error}")))
}

#[test]
fn every_kind_of_value_comes_back_as_the_documented_rules_say() {
    let world = World::new();
    for same in [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "9007199254740992",
        "-9007199254740992",
        "9007199254740993",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551615",
        "1.5",
        "-1.5e300",
        "\"\"",
        "\"ä\\u0000\"",
        r#"{"$float":"nan"}"#,
        r#"{"$float":"inf"}"#,
        r#"{"$float":"-inf"}"#,
        r#"{"$buffer":"AAH/"}"#,
        r#"{"$vector":[1.0,2.5,-3.0]}"#,
        r#"{"$timestamp":"2024-02-29T12:34:56.123456789Z"}"#,
        r#"{"$interval":[-1,500000000]}"#,
        r#"{"$timezone":"Europe/London"}"#,
        "[1,null,[2],{}]",
        r#"{"a":null,"b":[1]}"#,
        r#"{"$map":[[1.5,"x"],[true,"y"]]}"#,
    ] {
        assert_eq!(echoed(&world, same), same);
    }
    // A whole number is a whole number, however it came; an empty list is a list; keys are sorted.
    assert_eq!(echoed(&world, r#"[[],{},{"o":{},"roles":[]}]"#), r#"[[],{},{"o":{},"roles":[]}]"#);
    assert_eq!(echoed(&world, r#"{"b":1,"a":2}"#), r#"{"a":2,"b":1}"#);
    assert_eq!(echoed(&world, r#"{"$string_map":{"b":"1","a":"2"}}"#), r#"{"a":"2","b":"1"}"#);
    assert_eq!(echoed(&world, r#"{"$map":[[1,"x"],[2,"y"]]}"#), r#"["x","y"]"#);
    assert_eq!(echoed(&world, r#"{"$map":[["a",1],["a",2]]}"#), r#"{"a":2}"#);
    assert_eq!(
        json(&echo(&world, wire::pack::value::encode(&KhronosValue::Float(3.0))).expect("echo")),
        "3"
    );
    assert_eq!(
        json(&echo(&world, wire::pack::value::encode(&KhronosValue::Float(-0.0))).expect("echo")),
        "0"
    );
    let unsigned = wire::pack::value::encode(&KhronosValue::UnsignedInteger(5));
    assert_eq!(echo(&world, unsigned.clone()), Ok(unsigned));
}

#[test]
fn what_scripts_make_leaves_as_the_documented_rules_say() {
    let world = World::new();
    for (code, expected) in [
        ("2 ^ 53", "9007199254740992"),
        ("2 ^ 53 + 2", "9007199254740994.0"),
        ("2 ^ 60", "1.152921504606847e18"),
        ("-2 ^ 53", "-9007199254740992"),
        ("1e300", "1e300"),
        ("1 / 3", "0.3333333333333333"),
        ("'\\xff'", r#"{"$buffer":"/w=="}"#),
        ("buffer.fromstring('ab')", r#"{"$buffer":"YWI="}"#),
        ("{ 1, 2, nil, 4 }", r#"{"$map":[[1,1],[2,2],[4,4]]}"#),
        ("{ [2] = 'b', [1] = 'a' }", r#"["a","b"]"#),
        ("{ [3] = 'c', [1] = 'a', [2] = 'b' }", r#"["a","b","c"]"#),
        ("{ 'a', x = 1 }", r#"{"$map":[[1,"a"],["x",1]]}"#),
        ("{ [0] = 'zero', 'one' }", r#"{"$map":[[0,"zero"],[1,"one"]]}"#),
        ("{ null, null }", "[null,null]"),
        ("{ b = 1, a = 2, [10] = 3, [9] = 4 }", r#"{"$map":[[9,4],[10,3],["a",2],["b",1]]}"#),
        (
            "setmetatable({ 1 }, { __index = { 2 }, __len = function() return 9 end, __iter = error })",
            "[1]",
        ),
        ("vector.create(1, 2, 3)", r#"{"$vector":[1.0,2.0,3.0]}"#),
        ("table.freeze({ x = 1 })", r#"{"x":1}"#),
    ] {
        assert_eq!(world.ok(&format!("return {code}")), expected, "{code}");
    }
}

#[test]
fn what_cannot_leave_is_an_error_that_says_where_it_is() {
    let world = World::new();
    for (code, expected) in [
        ("{ print }", "the result: a function cannot leave Luau (at [1])"),
        ("{ a = { 1, { b = print } } }", "the result: a function cannot leave Luau (at .a[2].b)"),
        ("{ coroutine.create(print) }", "the result: a thread cannot leave Luau (at [1])"),
        ("{ [print] = 1 }", "the result: a function cannot leave Luau"),
        (
            "(function() local t = {} t.t = t return t end)()",
            "the result: the value contains itself (at .t)",
        ),
        (
            "(function() local a, b = {}, {} a.b = b b.a = a return a end)()",
            "the result: the value contains itself (at .b.a)",
        ),
        (
            "string.rep('x', 17 * 2 ^ 20)",
            "the result: the value is larger than 16383 KiB once encoded",
        ),
    ] {
        let error = world.err(&format!("return {code}"));
        assert!(error.starts_with(expected), "{code}: {error}");
    }
    let nest = |depth: usize| format!("local t = 1 for _ = 1, {depth} do t = {{ t }} end return t");
    assert_eq!(world.ok(&nest(32)), format!("{}1{}", "[".repeat(32), "]".repeat(32)));
    assert!(world.err(&nest(33)).starts_with("the result: the value nests deeper than 32 levels"));
    // The same table twice is no cycle.
    assert_eq!(world.ok("local t = { 1 } return { t, t }"), "[[1],[1]]");
}

#[test]
fn hostile_values_end_in_an_error_soon() {
    let limits = LuauLimits { memory_bytes: 32 * 1024 * 1024, ..LuauLimits::default() };
    let world = World::with_limits(limits);
    // A few tables that stand for 2^31 leaves.
    let error = world.err("local t = { 1 } for _ = 1, 30 do t = { t, t } end return t");
    assert!(error.starts_with("the result: the value has more than 524288 values"), "{error}");
    // Bytes that would take two each are counted before they are written.
    let error = world.err("return string.rep('\\255', 9 * 2 ^ 20)");
    assert!(error.starts_with("the result: the value is larger than"), "{error}");
    let list = |items: usize| format!("[{}1]", "1,".repeat(items - 1));
    let counts = World::with_template("return function(ctx) return #ctx:event().data end");
    assert_eq!(counts.dispatch("E", &list(1 << 20)), Ok("1048576".to_owned()));
    let error = counts.dispatch("E", &list((1 << 20) + 1)).expect_err("too many");
    assert!(error.contains("the value has more than 1048576 values"), "{error}");
    let most = world.ok("return table.create(2 ^ 19 - 1, 1)");
    assert_eq!(most.len(), "[]".len() + 2 * ((1 << 19) - 1) - 1);
    assert_eq!(world.ok("return 'alive'"), r#""alive""#);
}

#[test]
fn a_large_empty_table_is_gone_through_a_few_times_only() {
    // Going through it each time would take longer than the event may run: 10,000 times a
    // millisecond or more.
    let limits = LuauLimits { running: Duration::from_secs(5), ..LuauLimits::default() };
    let world = World::with_limits(limits);
    for big in [
        "local big = table.create(1000000) big[1000000] = 1 big[1000000] = nil",
        "local big = {} for i = 1, 500000 do big[-i] = i end for i = 1, 500000 do big[-i] = nil end",
    ] {
        let returned = world.ok(&format!("{big} return table.create(10000, big)"));
        assert_eq!(returned, format!("[{}{{}}]", "{},".repeat(9999)));
    }
    // What stands in for it has the same in it, and is a list if it is one.
    let code = "local big, list = table.create(100000), array({}) big.x, big.y = { 1, 2 }, list
        return { big, big, big, big, big, { big, big }, list, { 1 }, list }";
    let big = r#"{"x":[1,2],"y":[]}"#;
    assert_eq!(world.ok(code), format!("[{big},{big},{big},{big},{big},[{big},{big}],[],[1],[]]"));
}

#[test]
fn many_small_tables_leave_however_large_they_are_together() {
    let world = World::new();
    let code = "local t = {} for i = 1, 20000 do t[i] = { id = tostring(i), name = 'user', n = i } end return #t, t";
    assert_eq!(world.ok(code), "20000");
    let code = code.replace("return #t, t", "return t");
    assert_eq!(world.ok(&code).matches("user").count(), 20_000);
}

/// What a script makes of the event data `{"l":["x"],"e":[],"m":{"k":1}}`, as an expression over
/// `data`.
#[track_caller]
fn made_of_lists(code: &str) -> Result<String, String> {
    let template = format!("return function(ctx) local data = ctx:event().data\n{code} end");
    World::with_template(&template).dispatch("E", r#"{"l":["x"],"e":[],"m":{"k":1}}"#)
}

#[test]
fn a_list_stays_one_whatever_is_taken_out() {
    for (code, left) in [
        ("return data", r#"{"e":[],"l":["x"],"m":{"k":1}}"#),
        ("return { data.e, table.clone(data.e), data.m, {} }", r#"[[],[],{"k":1},{}]"#),
        ("local l = table.clone(data.l) table.remove(l) return l", "[]"),
        ("local l = table.clone(table.clone(data.l)) l[1] = nil return { l }", "[[]]"),
        ("local l = table.clone(data.l) table.clear(l) return l", "[]"),
        ("local m = table.clone(data.m) m.k = nil return m", "{}"),
        ("local l = table.clone(data.e) table.insert(l, 'a') l[#l + 1] = 'b' return l", r#"["a","b"]"#),
        ("return { array({}), array({ 1, 2 }), array(array({})), array(data.e) }", "[[],[1,2],[],[]]"),
        ("return table.freeze(array({}))", "[]"),
        ("local l = array({ 1 }) rawset(l, 1, nil) return l", "[]"),
        ("return setmetatable({}, getmetatable(data.e))", "[]"),
        ("return setmetatable(array({}), nil)", "{}"),
        (
            "ctx.KV:set('k', data, { 's' }) local kept = ctx.KV:get('k', { 's' }) table.remove(kept.l)
            ctx.KV:set('k', kept, { 's' }) return (ctx.KV:get('k', { 's' }))",
            r#"{"e":[],"l":[],"m":{"k":1}}"#,
        ),
        (
            "ctx.KV:set('k', {}, { 's' }) return ctx.KV:update('k', { 's' }, function(m) return { m, array({}) } end)",
            "[{},[]]",
        ),
        ("return { ctx.KV:find('%', {}), ctx.KV:list_scopes(), ctx.GlobalKV:find('%', 's') }", "[[],[],[]]"),
        ("ctx.KV:set('k', 1, {}) return ctx.KV:getrecord('k', {}).scopes", "[]"),
        (
            "ctx.Runtime:settenantstate{ events = data.e, data = data } return ctx.Runtime:gettenantstate()",
            r#"{"data":{"e":[],"l":["x"],"m":{"k":1}},"events":[]}"#,
        ),
        (
            "ctx.GlobalKV:create{ key = 'key', version = 1, short = '', scope = 's', public_data = true,
                public_metadata = data.e, data = { data.e, {} } }
            local entry = ctx.GlobalKV:get('key', 1, 's') return { entry.public_metadata, entry.data.data }",
            "[[],[[],{}]]",
        ),
    ] {
        assert_eq!(made_of_lists(code).as_deref(), Ok(left), "{code}");
    }
}

#[test]
fn a_list_works_like_any_table() {
    let code = "local l = array({ 3, 1, 2 })
        table.sort(l) table.insert(l, 1, 0) table.remove(l, 2)
        local seen = {} for i, v in l do seen[i] = v end for _, v in ipairs(l) do table.insert(seen, v) end
        local moved = table.move(l, 1, #l, 1, {})
        return {
            seen, table.concat(l, ','), { table.unpack(l) }, moved, #l, table.find(l, 3), next(array({})) == nil,
            l == l, l == table.clone(l), array(l) == l, l.field == nil, rawlen(l), typeof(l), table.isfrozen(l),
            table.isfrozen(getmetatable(l)), next(getmetatable(l)) == nil,
            pcall(function() getmetatable(l).__index = l end), (pcall(array, table.freeze({}))), (pcall(array, 1)),
        }";
    assert_eq!(
        made_of_lists(code).as_deref(),
        Ok(
            "[[0,2,3,0,2,3],\"0,2,3\",[0,2,3],[0,2,3],3,3,true,true,false,true,true,3,\"table\",false,true,true,false,false,\
            false]"
        )
    );
}

#[test]
fn a_list_with_other_keys_is_an_error_that_names_one() {
    for (code, expected) in [
        (
            "local l = array({}) l.name = 1 return { l }",
            "a list cannot have the key .name beside 0 items (at [1])",
        ),
        (
            "local l = table.clone(data.l) l.b, l.a = 1, 2 return l",
            "a list cannot have the key .a beside 1 items",
        ),
        (
            "local l = array({ 1, 2, 3 }) l[2] = nil return l",
            "a list cannot have gaps between its items",
        ),
        (
            "local l = array({ 1 }) l[9] = 9 return { x = l }",
            "a list cannot have the key [9] beside 1 items (at .x)",
        ),
    ] {
        let error = made_of_lists(code).expect_err(code);
        assert!(error.starts_with(&format!("the result: {expected}")), "{code}: {error}");
    }
}

#[test]
fn array_refuses_a_table_that_it_cannot_mark() {
    let world = World::new();
    let own = "invalid argument #1 to 'array' (a table without a metatable expected)";
    let frozen = "invalid argument #1 to 'array' (the table is read-only)";
    for (table, expected) in [
        ("setmetatable({ 1 }, { __index = table })", own),
        ("setmetatable({}, { __metatable = false })", own),
        ("table.freeze({})", frozen),
    ] {
        let error = world.err(&format!("local t = {table}\nreturn array(t)"));
        assert!(error.starts_with(&format!("test:2: {expected}")), "{table}: {error}");
    }
    let kept = "local t = setmetatable({}, { __index = { a = 7 } }) pcall(array, t) return t.a";
    assert_eq!(world.ok(kept), "7");
}

#[test]
fn value_gives_nil_for_null_and_everything_else_as_it_is() {
    let code = "return { value(null) == nil, value(nil) == nil, value() == nil, value(false), value(0), value('x'),
        value(data.nick) or data.name, value(data) == data }";
    let template = format!("return function(ctx) local data = ctx:event().data {code} end");
    let answer = World::with_template(&template).dispatch("E", r#"{"nick":null,"name":"ann"}"#);
    assert_eq!(answer.as_deref(), Ok(r#"[true,true,true,false,0,"x","ann",true]"#));
}

#[test]
fn a_length_that_lies_or_exaggerates_is_no_allocation() {
    let limits = LuauLimits { memory_bytes: 16 * 1024 * 1024, ..LuauLimits::default() };
    let world =
        World::with(&[("main.luau", "return function(ctx) return #ctx:event().data end")], limits);
    let many = format!("[{}0]", "0,".repeat(8_000_000));
    let error =
        world.submit(TENANT, Job::Dispatch(event("E", &many))).text().expect_err("it does not fit");
    assert!(error.starts_with("budget exceeded: more than 16 MiB of memory"), "{error}");
    assert_eq!(world.dispatch("E", "[1,2,3]").as_deref(), Ok("3"));
}

#[test]
fn deep_input_is_an_error_where_it_is_asked_for() {
    let world = World::new();
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(world.dispatch("E", &deep(32)), Ok(deep(32)));
    let error = world.dispatch("E", &deep(33)).expect_err("too deep");
    assert!(error.starts_with("main.luau:1: the value nests deeper than 32 levels"), "{error}");
}

#[test]
fn json_events_arrive_as_they_are() {
    let world = World::new();
    for same in [
        "{\"a\":[1,2.5,\"x\",true,null],\"b\":{\"c\":{}}}",
        "\"text\"",
        "9223372036854775807",
        "18446744073709551615",
    ] {
        assert_eq!(world.dispatch("E", same).as_deref(), Ok(same));
    }
    let raw = CreateEvent {
        name: "E".to_owned(),
        author: None,
        data: EventData::RawValue("{\"x\": [1]}".to_owned()),
    };
    assert_eq!(world.submit(TENANT, Job::Dispatch(raw)).text().as_deref(), Ok(r#"{"x":[1]}"#));
    let broken = CreateEvent {
        name: "E".to_owned(),
        author: None,
        data: EventData::RawValue("{".to_owned()),
    };
    assert!(
        world
            .submit(TENANT, Job::Dispatch(broken))
            .text()
            .expect_err("not JSON")
            .contains("its text is not JSON")
    );
    let with_author = CreateEvent { author: Some("7".to_owned()), ..event("E", "null") };
    let code = "local ctx = ... return { ctx:event().author, ctx:event().data == nil }".to_owned();
    let job = Job::RunScript { name: "n".to_owned(), code, event: with_author };
    assert_eq!(world.submit(TENANT, job).text().as_deref(), Ok(r#"["7",true]"#));
}

#[test]
fn wide_integers_keep_every_digit_and_calculate() {
    let world = World::new();
    let code = "
        local big = integer.parse('9007199254740993')
        local most = integer.parse('18446744073709551615')
        local out = {
            tostring(big), tostring(big + 1), tostring(big * 2), tostring(big // 2), tostring(big % 10), tostring(-big),
            tostring(1 + big), tostring(big - big), big == integer.parse('9007199254740993'), big < most, big <= big,
            `{big}`, 'n=' .. big, big:tonumber(), tostring(most), tostring(integer.from(-7) // 2), tostring(integer.from(-7) % 2),
            typeof(big),
        }
        return out";
    assert_eq!(
        world.ok(code),
        "[\"9007199254740993\",\"9007199254740994\",\"18014398509481986\",\"4503599627370496\",\"3\",\
         \"-9007199254740993\",\"9007199254740994\",\"0\",true,true,true,\"9007199254740993\",\"n=9007199254740993\",\
         9007199254740992,\"18446744073709551615\",\"-4\",\"1\",\"integer\"]"
    );
    for code in [
        "integer.parse('18446744073709551615') + 1",
        "integer.from(1) // 0",
        "integer.from(1) + 0.5",
        "integer.parse('x')",
    ] {
        assert!(
            world.err(&format!("return {code}")).starts_with("test:1")
                || !world.err(&format!("return {code}")).is_empty()
        );
    }
}

#[test]
fn times_compare_and_calculate() {
    let world = World::new();
    let code = "
        local a, b = timestamp.parse('2024-01-01T00:00:00Z'), timestamp.parse('2024-01-02T00:00:00.5Z')
        local day = b - a
        return {
            tostring(a), a < b, a == timestamp.from(a.unix), day.seconds, tostring(a + interval.from(1.5)), tostring(b - day) == tostring(a),
            tostring(interval.from(1) + interval.from(0.5)), interval.from(1) < interval.from(2), tostring(-interval.from(2)),
            timezone.from('Europe/London').name, timezone.from('UTC') == timezone.from('UTC'), timestamp.now() > a,
            typeof(a), typeof(day), typeof(timezone.from('UTC')),
        }";
    assert_eq!(
        world.ok(code),
        "[\"2024-01-01T00:00:00Z\",true,true,86400.5,\"2024-01-01T00:00:01.500Z\",true,\"1.5s\",true,\"-2s\",\
         \"Europe/London\",true,true,\"timestamp\",\"interval\",\"timezone\"]"
    );
    for code in [
        "timestamp.from(0/0)",
        "timestamp.from(1e300)",
        "interval.from(math.huge)",
        "timestamp.now() + 1",
        "timestamp.now() < 1",
    ] {
        assert!(world.run(&format!("return {code}")).is_err(), "{code}");
    }
}

/// Random enough, and the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn value(&mut self, depth: u64) -> KhronosValue {
        match self.below(if depth == 0 { 11 } else { 14 }) {
            0 => KhronosValue::Null,
            1 => KhronosValue::Boolean(self.below(2) == 0),
            2 => KhronosValue::Integer(self.integer()),
            3 => KhronosValue::UnsignedInteger(self.integer().unsigned_abs()),
            4 => KhronosValue::Float(f64::from_bits(self.integer().unsigned_abs())),
            5 => KhronosValue::Buffer((0..self.below(9)).map(|byte| (byte * 37) as u8).collect()),
            6 => KhronosValue::Vector([self.below(9) as f32, -0.5, 1e9]),
            7 => KhronosValue::Timestamptz(
                Timestamp::from_unix_micros(self.integer() >> 12).expect("in range"),
            ),
            8 => KhronosValue::Interval(
                crate::wire::data::Interval::new(self.integer() >> 12, 5).expect("in range"),
            ),
            9 => KhronosValue::TimeZone("Asia/Tokyo".to_owned()),
            10 => KhronosValue::Text(self.text()),
            11 => KhronosValue::List((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            // Keys in the order in which they leave, each once, and not 1..n.
            12 => KhronosValue::Map(
                (0..self.below(4))
                    .map(|n| (KhronosValue::Text(format!("k{n}")), self.value(depth - 1)))
                    .collect(),
            ),
            _ => KhronosValue::Map(vec![
                (KhronosValue::Integer(5), self.value(depth - 1)),
                (KhronosValue::Float(7.5), self.value(depth - 1)),
                (KhronosValue::Text(self.text()), self.value(depth - 1)),
                (KhronosValue::Boolean(true), self.value(depth - 1)),
            ]),
        }
    }

    fn integer(&mut self) -> i64 {
        let all = (self.below(1 << 31) << 33) ^ self.below(1 << 33);
        (all as i64) >> self.below(63)
    }

    fn text(&mut self) -> String {
        (0..self.below(6))
            .map(|_| ['a', 'ß', '\0', '水', '🎉', '"'][self.below(6) as usize])
            .collect()
    }
}

/// What the rules make of a value that goes through Luau.
fn normal(value: KhronosValue) -> KhronosValue {
    match value {
        KhronosValue::Float(number)
            if number.trunc() == number && number.abs() <= 9_007_199_254_740_992.0 =>
        {
            KhronosValue::Integer(number as i64)
        }
        // Any NaN is as good as another.
        KhronosValue::Float(number) if number.is_nan() => KhronosValue::Text("NaN".to_owned()),
        KhronosValue::List(items) => KhronosValue::List(items.into_iter().map(normal).collect()),
        KhronosValue::Map(pairs) => KhronosValue::Map(
            pairs.into_iter().map(|(key, value)| (normal(key), normal(value))).collect(),
        ),
        other => other,
    }
}

#[test]
fn random_values_come_back_equal() {
    let world = World::new();
    let mut dice = Dice(1);
    for round in 0..2000 {
        let value = dice.value(4);
        let back = echo(&world, wire::pack::value::encode(&value))
            .unwrap_or_else(|error| panic!("{round}: {error}: {value:?}"));
        let back = wire::pack::value::decode(&back).expect("a value");
        assert_eq!(normal(back), normal(value), "round {round}");
    }
}

#[test]
fn a_table_of_items_and_names_is_written_once_at_any_depth() {
    let world = World::new();
    // Each table around another doubled the work, and 30 of them never ended.
    let nest = "local ctx, t = ..., { 1 } for _ = 1, 30 do t = { t, x = 1 } end";
    let deep =
        (0..30).fold("[1]".to_owned(), |inner, _| format!(r#"{{"$map":[[1,{inner}],["x",1]]}}"#));
    assert_eq!(world.ok(&format!("{nest} return t")), deep);
    let kept = "ctx.KV:set('k', t, { 's' }) local n = 0 t = ctx.KV:get('k', { 's' }) while t[1] ~= 1 do t = t[1] n += 1 end";
    assert_eq!(world.ok(&format!("{nest} {kept} return n")), "30");
    // Nor do its values count twice.
    let wide = "local t = { x = 1 } for i = 1, 300000 do t[i] = i end return t";
    assert!(world.ok(wide).ends_with(r#",[300000,300000],["x",1]]}"#));
    // Keys that come in another order are those of a list all the same.
    let disorder = "local t = {} for i = 9, 1, -1 do t[i] = { i, { i }, x = i } end return t";
    let items: Vec<_> =
        (1..=9).map(|i| format!(r#"{{"$map":[[1,{i}],[2,[{i}]],["x",{i}]]}}"#)).collect();
    assert_eq!(world.ok(disorder), format!("[{}]", items.join(",")));
}

#[test]
fn a_map_of_texts_leaves_as_any_other_does() {
    let world = World::new();
    for (code, left) in [
        ("return { b = '2', a = '1', ['1e5'] = '0x10' }", r#"{"1e5":"0x10","a":"1","b":"2"}"#),
        (
            "return { longer_than_8b = 'x', longer_than_8a = 'y', longer = 'z' }",
            r#"{"longer":"z","longer_than_8a":"y","longer_than_8b":"x"}"#,
        ),
        ("return { a = '1', n = 1, f = { t = 'x' } }", r#"{"a":"1","f":{"t":"x"},"n":1}"#),
        ("return setmetatable({ a = '1' }, { __iter = error, __index = error })", r#"{"a":"1"}"#),
        ("return { a = string.rep('x', 5000) }", &format!(r#"{{"a":"{}"}}"#, "x".repeat(5000))),
    ] {
        assert_eq!(world.ok(code), left, "{code}");
    }
    let mixed = "return { a = 'b', c = '\\xff' }";
    assert_eq!(world.ok(mixed), world.ok("return { a = 'b', c = buffer.fromstring('\\xff') }"));
}
