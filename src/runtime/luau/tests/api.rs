//! What `ctx` does: the tenant's records, the shop, the tenant's state.

use std::sync::Arc;

use super::support::*;
use crate::base::error::DbError;
use crate::base::limits::{FEED_BURST, IO_THREADS};
use crate::runtime::TenantStates;
use crate::runtime::luau::LuauLimits;
use crate::wire::data::{TenantId, TenantState};

const TIME: &str = "2023-11-14T22:13:20Z";

#[test]
fn records_are_set_read_and_deleted() {
    let world = World::new();
    let code = "local ctx = ...
        local kv, scopes = ctx.KV, { 'b', 'a', 'b' }
        local before = table.pack(kv:get('k', scopes))
        kv:set('k', { list = { 1, 2 }, text = 'x' }, scopes)
        local value, exists = kv:get('k', { 'a', 'b' })
        local other = table.pack(kv:get('k', { 'a' }))
        local record = kv:getrecord('k', scopes)
        kv:delete('k', scopes)
        local after = table.pack(kv:get('k', scopes))
        return { before.n, before[2], value, exists, other[2], record, after[2], kv:getrecord('k', scopes) }";
    assert_eq!(
        world.ok(code),
        format!(
            "[2,false,{{\"list\":[1,2],\"text\":\"x\"}},true,false,{{\"created_at\":{{\"$timestamp\":\"{TIME}\"}},\
             \"exists\":true,\"id\":\"guild:1/k\",\"key\":\"k\",\"last_updated_at\":{{\"$timestamp\":\"{TIME}\"}},\
             \"scopes\":[\"a\",\"b\"],\"value\":{{\"list\":[1,2],\"text\":\"x\"}}}},false,\
             {{\"exists\":false,\"key\":\"k\",\"scopes\":[\"a\",\"b\"]}}]"
        )
    );
}

#[test]
fn what_is_set_is_what_the_value_was_at_the_call() {
    let world = World::new();
    world.db.close_gate();
    let pending = world.submit_script(
        TENANT,
        "local ctx = ...
        local value = { n = 1 }
        task.spawn(function() ctx.KV:set('k', value, { 's' }) end)
        value.n = 2
        return ctx.KV:get('k', { 's' })",
    );
    world.db.wait_for_waiting(1);
    world.db.open_gate();
    assert_eq!(pending.text().as_deref(), Ok(r#"{"n":1}"#));
}

#[test]
fn null_and_nil_are_told_apart() {
    let world = World::new();
    let code = "local ctx = ...
        ctx.KV:set('null', null, { 's' })
        ctx.KV:set('nil', nil, { 's' })
        ctx.KV:set('inside', { null, { x = null } }, { 's' })
        local a, a_exists = ctx.KV:get('null', { 's' })
        local b, b_exists = ctx.KV:get('nil', { 's' })
        local c = ctx.KV:get('inside', { 's' })
        return { a == nil, a_exists, b == nil, b_exists, c[1] == null, c[2].x == null, #c }";
    assert_eq!(world.ok(code), "[true,true,true,true,true,true,2]");
}

#[test]
fn records_are_found_by_pattern_and_scopes() {
    let world = World::new();
    for key in ["a1", "a2", "b1"] {
        world.db.put(TENANT, key, &["s", "t"], "1");
    }
    world.db.put(TENANT, "a3", &["t"], "2");
    world.db.put(TenantId::Guild(2), "a4", &["s"], "3");
    let code = "local ctx = ...
        local keys = {}
        for _, record in ctx.KV:find('a%', { 's' }) do table.insert(keys, record.key .. record.value) end
        return { keys, ctx.KV:list_scopes(), #ctx.KV:find('none%', {}) }";
    assert_eq!(world.ok(code), r#"[["a11","a21"],["s","t"],0]"#);
}

#[test]
fn scopes_of_the_worker_and_the_template_are_read_only() {
    let world = World::new();
    world.db.put(TENANT, "main", &["template"], r#""return function() end""#);
    for scopes in ["{ 'template' }", "{ 'a', '#err' }", "{ '#' }"] {
        for call in [
            "set('main', 1, SCOPES)",
            "delete('main', SCOPES)",
            "update('main', SCOPES, function() return 1 end)",
        ] {
            let call = call.replace("SCOPES", scopes);
            let error = world.err(&format!("local ctx = ... ctx.KV:{call}"));
            assert!(error.contains("is read-only to scripts"), "{error}");
        }
    }
    assert_eq!(
        world.ok("local ctx = ... return ctx.KV:get('main', { 'template' })"),
        r#""return function() end""#
    );
    assert_eq!(world.ok("local ctx = ... return #ctx.KV:find('%', { 'template' })"), "1");
}

#[test]
fn what_the_store_refuses_is_an_error_at_the_line_of_the_call() {
    let world = World::new();
    world.db.fail_with(Some(DbError::Refused("too many records".to_owned())));
    for call in ["get('k', { 's' })", "set('k', 1, { 's' })", "find('%', {})", "list_scopes()"] {
        let error = world.err(&format!("local ctx = ...\nctx.KV:{call}"));
        assert!(error.starts_with("test:2: too many records"), "{error}");
    }
    let code = "local ctx = ...
        local ok, err = pcall(function() ctx.KV:update('k', { 's' }, function() return 1 end) end)
        return { ok, err }";
    assert_eq!(world.ok(code), r#"[false,"test:2: too many records"]"#);
    world.db.fail_with(None);
    assert_eq!(
        world.ok("local ctx = ... return ctx.KV:update('k', { 's' }, function() return 1 end)"),
        "1"
    );
}

#[test]
fn a_value_that_is_too_large_is_refused_before_it_is_sent() {
    let world = World::new();
    let error = world.err("local ctx = ... ctx.KV:set('k', string.rep('x', 300 * 1024), { 's' })");
    assert!(error.starts_with("test:1: the value is larger than 256 KiB once encoded"), "{error}");
    assert_eq!(world.db.value(TENANT, "k", &["s"]), None);
}

#[test]
fn the_function_of_an_update_may_not_wait() {
    let world = World::new();
    for wait in [
        "task.wait()",
        "ctx.KV:get('other', { 's' })",
        "task.spawn(print)",
        "coroutine.yield()",
        "coroutine.wrap(function() task.wait() end)()",
        "ctx.KV:update('k', { 's' }, function() return 1 end)",
    ] {
        let error = world.err(&format!(
            "local ctx = ... ctx.KV:update('k', {{ 's' }}, function() {wait} return 1 end)"
        ));
        assert!(error.contains("the function given to KV:update may not wait"), "{wait}: {error}");
        assert_eq!(world.db.value(TENANT, "k", &["s"]), None);
    }
    assert_eq!(
        world.ok("local ctx = ... return ctx.KV:update('k', { 's' }, function(old, exists)
            for _ in coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end) do end
            return { old == nil, exists }
        end)"),
        "[true,false]"
    );
}

#[test]
fn an_update_that_fails_lets_the_next_one_go_on() {
    let world = World::with_limits(LuauLimits {
        wall: std::time::Duration::from_secs(2),
        ..LuauLimits::default()
    });
    for (code, expected) in [
        ("ctx.KV:update('k', { 's' }, function() error('no') end)", "test:1: no"),
        (
            "ctx.KV:update('k', { 's' }, function() end)",
            "test:1: the function given to KV:update returned nothing",
        ),
        (
            "ctx.KV:update('k', { 's' }, function() return print end)",
            "test:1: a function cannot leave Luau",
        ),
        (
            "ctx.KV:update('k', { 's' }, function() local ctx = nil return ctx.x end)",
            "test:1: attempt to index nil",
        ),
    ] {
        let error = world.err(&format!("local ctx = ... {code}"));
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(
            world.ok(
                "local ctx = ... return ctx.KV:update('k', { 's' }, function() return null end)"
            ),
            "{\"$x\":0}".replace("{\"$x\":0}", "null")
        );
    }
    // One that is killed inside its function gives the record back too.
    let looping = world.submit_script(
        TENANT,
        "local ctx = ... ctx.KV:update('k', { 's' }, function() while true do end end)",
    );
    let next = world.submit_script(
        TENANT,
        "local ctx = ... return ctx.KV:update('k', { 's' }, function() return 7 end)",
    );
    assert!(looping.text().expect_err("it loops").starts_with("budget exceeded"));
    assert!(
        next.text().is_err_and(|error| error.starts_with("budget exceeded"))
            || world.db.value(TENANT, "k", &["s"]).is_some()
    );
    assert_eq!(
        world.ok("local ctx = ... return ctx.KV:update('k', { 's' }, function() return 8 end)"),
        "8"
    );
}

#[test]
fn operations_on_a_record_happen_in_the_order_of_the_calls() {
    let world = World::new();
    world.db.close_gate();
    let set = |n: u32| {
        world.submit_script(TENANT, &format!("local ctx = ... ctx.KV:set('k', {n}, {{ 's' }})"))
    };
    let get = || world.submit_script(TENANT, "local ctx = ... return ctx.KV:get('k', { 's' })");
    let order: Vec<(Pending, Option<u32>)> =
        (1..=20).flat_map(|n| [(set(n), None), (get(), Some(n)), (get(), Some(n))]).collect();
    world.db.wait_for_waiting(1);
    world.db.open_gate();
    for (pending, expected) in order {
        let expected = expected.map_or("null".to_owned(), |n| n.to_string());
        assert_eq!(pending.text(), Ok(expected));
    }
}

#[test]
fn a_killed_writer_keeps_its_record_until_its_write_is_done() {
    let world = World::new();
    world.db.close_gate();
    let first = world.submit_script(TENANT, "local ctx = ... ctx.KV:set('k', 1, { 's' })");
    world.db.wait_for_waiting(1);
    crate::runtime::TemplateRuntime::cancel(&world.runtime, TENANT, first.request_id);
    assert!(first.wait().is_err());
    let second = world.submit_script(TENANT, "local ctx = ... ctx.KV:set('k', 2, { 's' })");
    world.db.open_gate();
    assert_eq!(second.text().as_deref(), Ok("null"));
    assert_eq!(world.db.value(TENANT, "k", &["s"]).as_deref(), Some("2"));
}

#[test]
fn one_tenant_cannot_fill_the_io_threads() {
    let world = World::new();
    world.db.close_gate();
    let code = "local ctx = ... for i = 1, 500 do task.spawn(function() ctx.KV:get('k' .. i, { 's' }) end) end return 1";
    assert_eq!(world.ok(code), "1");
    world.db.wait_for_waiting(IO_THREADS * 3 / 4);
    let code = "local ctx = ... return select(2, ctx.KV:get('k', { 's' }))";
    let other = world.submit_script(TenantId::Guild(2), code);
    // Its template's load has found a thread, and then its call, beside those of the first tenant.
    world.db.wait_for_waiting(IO_THREADS * 3 / 4 + 1);
    assert_eq!(world.db.waiting(), IO_THREADS * 3 / 4 + 1, "the first tenant has no more");
    world.db.open_gate();
    assert_eq!(other.text().as_deref(), Ok("false"));
}

#[test]
fn the_shop_is_searched_read_and_published_to() {
    let world = World::new();
    let code = "local ctx = ...
        local shop = ctx.GlobalKV
        shop:create{ key = 'hat', version = 1, short = 'a hat', public_metadata = { size = 7 }, scope = 'things',
            public_data = true, long = 'a long text', data = { brim = 'wide', list = {} } }
        shop:create{ key = 'secret', version = 2, short = 's', scope = 'things', data = { 1 } }
        shop:create{ key = 'priced', version = 1, short = 'p', scope = 'things', public_data = true, data = 1 }
        local names = {}
        for _, entry in shop:find('%', 'things') do table.insert(names, entry.key .. entry.version) end
        local hat = shop:get('hat', 1, 'things')
        return { names, hat, shop:get('secret', 2, 'things').data, shop:get('none', 1, 'things') == nil }";
    assert_eq!(
        world.ok(code),
        "[[\"hat1\",\"secret2\",\"priced1\"],{\"created_at\":{\"$timestamp\":\"1970-01-01T00:00:00Z\"},\
         \"data\":{\"data\":{\"brim\":\"wide\",\"list\":{}},\"opaque\":false,\"type\":\"Value\"},\"key\":\"hat\",\
         \"last_updated_at\":{\"$timestamp\":\"1970-01-01T00:00:00Z\"},\"long\":\"a long text\",\"owner_id\":\"1\",\
         \"owner_type\":\"guild\",\"public_data\":true,\"public_metadata\":{\"size\":7},\"review_state\":\"approved\",\
         \"scope\":\"things\",\"short\":\"a hat\",\"version\":1},{\"opaque\":true,\"type\":\"Value\"},true]"
    );
    let other = world.submit_script(
        TenantId::Guild(2),
        "local ctx = ... return ctx.GlobalKV:get('priced', 1, 'things').data",
    );
    assert_eq!(
        other.text().as_deref(),
        Ok(r#"{"purchase_url":"https://shop/priced","type":"PurchaseRequired"}"#)
    );
    assert_eq!(
        world.ok("local ctx = ... ctx.GlobalKV:delete('hat', 1, 'things') return #ctx.GlobalKV:find('%', 'things')"),
        "2"
    );
    assert!(
        world
            .err("local ctx = ... ctx.GlobalKV:delete('hat', 1, 'things')")
            .starts_with("test:1: no such entry")
    );
    for (entry, expected) in [
        ("{}", "key must be a string, not nil"),
        ("{ key = 'k', version = 1.5 }", "the version must be a whole number of 32 bits"),
        ("{ key = 'k', version = 1, short = 's', scope = 'x', data = 0/0 }", "JSON has no NaN"),
        (
            "{ key = 'k', version = 1, short = 's', scope = 'x', data = { [1.5] = 1 } }",
            "JSON has no keys of type number",
        ),
        (
            "{ key = 'k', version = 1, short = 's', scope = 'x', data = buffer.create(1) }",
            "JSON has no buffers",
        ),
        (
            "{ key = 'k', version = 1, short = 's', scope = 'x', public_data = 1 }",
            "public_data must be a boolean",
        ),
        ("1", "the entry must be a table"),
    ] {
        let error = world.err(&format!("local ctx = ... ctx.GlobalKV:create({entry})"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_tenant_s_state_is_read_and_set() {
    let world = World::new();
    let code = "local ctx = ...
        local before = ctx.Runtime:gettenantstate()
        ctx.Runtime:settenantstate{ events = { 'B', 'A', 'B' }, data = { n = 1, deep = { null } } }
        return { before, ctx.Runtime:gettenantstate() }";
    assert_eq!(
        world.ok(code),
        r#"[{"events":["DEFAULT"]},{"data":{"deep":[null],"n":1},"events":["A","B"]}]"#
    );
    let state: Arc<TenantState> = world.states.get(TENANT);
    assert_eq!(state.events.iter().map(String::as_str).collect::<Vec<_>>(), ["A", "B"]);
    world.db.fail_with(Some(DbError::Unavailable("away".to_owned())));
    assert!(
        world
            .err("local ctx = ... ctx.Runtime:settenantstate{ events = {}, data = nil }")
            .starts_with("test:1: away")
    );
    assert_eq!(world.states.get(TENANT), state);
    for (argument, expected) in [
        ("", "the tenant state must be a table, not nil"),
        ("{}", "events must be a list of strings, not nil"),
        ("{ events = { 1 } }", "an event's name must be a string"),
        (
            "{ events = { MESSAGE_CREATE = true } }",
            "events must be a list of strings, without the key .MESSAGE_CREATE",
        ),
        (
            "{ events = { 'A', x = 1 } }",
            "events must be a list of strings, without the key .x beside 1 items",
        ),
        (
            "{ events = { 'A', nil, 'C' } }",
            "events must be a list of strings, without gaps between its items",
        ),
        ("{ events = { 'A', null } }", "an event's name must be a string, not null"),
        ("{ events = null }", "events must be a list of strings, not null"),
        ("{ events = {}, event = 1 }", "the tenant state cannot have .event; it has events, data"),
        ("{ events = {}, 'A' }", "the tenant state cannot have [1]; it has events, data"),
        ("{ events = {}, data = print }", "a function cannot leave Luau"),
    ] {
        let error = world.err(&format!("local ctx = ... ctx.Runtime:settenantstate({argument})"));
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(world.states.get(TENANT), state);
}

#[test]
fn scopes_that_are_no_list_of_texts_are_an_error() {
    let world = World::new();
    for (scopes, expected) in [
        ("{ s = true }", "the scopes must be a list of strings, without the key .s beside 0 items"),
        (
            "{ 's', x = 1 }",
            "the scopes must be a list of strings, without the key .x beside 1 items",
        ),
        (
            "{ [3] = 's' }",
            "the scopes must be a list of strings, without the key [3] beside 0 items",
        ),
        (
            "{ 's', nil, 't' }",
            "the scopes must be a list of strings, without gaps between its items",
        ),
        ("{ null }", "a scope must be a string, not null"),
        ("null", "the scopes must be a list of strings, not null"),
        ("table.create(21, 's')", "the scopes must be a list of at most 20 strings, not of 21"),
    ] {
        for call in [
            "get('k', SCOPES)",
            "getrecord('k', SCOPES)",
            "set('k', 1, SCOPES)",
            "delete('k', SCOPES)",
            "find('%', SCOPES)",
            "update('k', SCOPES, print)",
        ] {
            let call = call.replace("SCOPES", scopes);
            let error = world.err(&format!("local ctx = ...\nctx.KV:{call}"));
            assert!(error.starts_with(&format!("test:2: {expected}")), "{call}: {error}");
        }
    }
    let entry = "{ key = 'key', version = 1, short = '', scope = 's', public_metadata = {}, data = 1, Data = 2 }";
    let error = world.err(&format!("local ctx = ... ctx.GlobalKV:create({entry})"));
    assert!(error.contains("the entry cannot have .Data; it has key, version, short"), "{error}");
}

#[test]
fn what_is_published_leaves_at_once_with_its_tenant() {
    let world = World::new();
    world.db.close_gate();
    let code = "local ctx = ...
        ctx.Feed:publish('score', { red = 3, list = { 1, 'x' } })
        ctx.Feed:publish('over')
        return 'done'";
    assert_eq!(world.ok(code), r#""done""#);
    let published = world.db.published.lock().expect("published").clone();
    assert_eq!(published.len(), 2, "{published:?}");
    assert!(published[0].starts_with("guild:1 score {"), "{published:?}");
    assert_eq!(published[1], "guild:1 over null");
}

#[test]
fn what_cannot_be_published_is_an_error_that_says_why() {
    let world = World::new();
    for (args, why) in [
        ("nil", "the topic must be a string, not nil"),
        ("{}", "the topic must be a string, not table"),
        ("'a b'", "a topic has 1 to 64 letters, digits and _ - . : /"),
        ("'gap'", "gap, moved, open, error are no topics"),
        ("'x', string.rep('x', 20000)", "larger than 16 KiB"),
        ("'x', vector.one", "vector"),
        ("'x', 0 / 0", "NaN"),
    ] {
        let error = world.err(&format!("local ctx = ...\nctx.Feed:publish({args})"));
        assert!(error.contains(why), "{args}: {error}");
        assert!(error.contains("test:2:"), "{args}: {error}");
    }
    assert!(world.db.published.lock().expect("published").is_empty());
}

#[test]
fn a_tenant_publishes_so_many_events_at_once_and_no_more() {
    let world = World::new();
    let code = "local ctx = ...
        local count = 0
        while pcall(ctx.Feed.publish, ctx.Feed, 'n', count) do count += 1 end
        return { count, select(2, pcall(ctx.Feed.publish, ctx.Feed, 'n')) }";
    let told = world.ok(code);
    let count = told.trim_start_matches('[').split(',').next().and_then(|text| text.parse().ok());
    let count: u32 = count.expect("a number");
    assert!((FEED_BURST..FEED_BURST + 100).contains(&count), "{told}");
    assert!(told.contains("at most 50 events a second"), "{told}");
    let other = TenantId::Guild(2);
    let code = "local ctx = ... ctx.Feed:publish('n') return 'done'";
    assert_eq!(world.submit_script(other, code).text().as_deref(), Ok(r#""done""#));
}
