//! `ctx.Messages`: what is sent, which errors there are, and what is allowed.

use super::support::*;
use crate::base::limits::{MESSAGE_RULES_MAX, TENANT_MESSAGE_MAX_BYTES};
use crate::wire::data::TenantId;
use crate::wire::json::json_from_encoded;

const OTHER: TenantId = TenantId::User(2);

/// Lets this tenant send, by what the other one's script says.
fn allowed(world: &World) {
    let code = "local ctx = ... ctx.Messages:allow({ from = 'guild:1', topics = { '' } })";
    world.submit_script(OTHER, code).text().expect("allowed");
}

/// What was sent since the last time: receiver, topic, data, depth.
fn sent(world: &World) -> Vec<(TenantId, String, String, u64)> {
    let sent = std::mem::take(&mut *world.db.sent.lock().expect("sent"));
    let all = sent.into_iter().map(|message| {
        assert_eq!(message.from, TENANT);
        let data = json_from_encoded(&message.data).expect("JSON");
        (message.to, message.topic, data, message.depth)
    });
    all.collect()
}

#[test]
fn a_message_leaves_as_it_was_at_the_call() {
    let world = World::new();
    allowed(&world);
    let code = "local ctx = ...
        local data = { n = 1, list = array({}), nothing = null }
        task.spawn(function() ctx.Messages:send('user:2', 'a.b', data) end)
        data.n = 2
        ctx.Messages:send('user:2', '')";
    assert_eq!(world.ok(code), "null");
    let mut sent = sent(&world);
    sent.sort_by_key(|(_, topic, ..)| topic.len());
    let data = r#"{"list":[],"n":1,"nothing":null}"#.to_owned();
    assert_eq!(sent[0], (OTHER, String::new(), "null".to_owned(), 1));
    assert_eq!(sent[1].1, "a.b");
    let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(same(&sent[1].2), same(&data));
}

#[test]
fn the_depth_is_that_of_the_event_and_one_more() {
    let main = "return function(ctx)
        ctx.Messages:send('user:2', 'now')
        task.delay(0.01, function() ctx.Messages:send('user:2', 'later') end)
        task.spawn(function() task.wait(0.02) ctx.Messages:send('user:2', 'later still') end)
        local co = coroutine.wrap(function() ctx.Messages:send('user:2', 'in a coroutine') end)
        co()
    end";
    let world = World::with_template(main);
    allowed(&world);
    for (name, data, depth) in [
        ("E", r#"{"depth":3}"#, 1),
        ("TenantMessage", r#"{"depth":1,"from":"user:2","topic":"","data":null}"#, 2),
        ("TenantMessage", r#"{"depth":4,"from":"user:2","topic":"","data":{"depth":1}}"#, 5),
        ("TenantMessage", r#"{"depth":18446744073709551615}"#, u64::MAX),
    ] {
        assert_eq!(world.dispatch(name, data).as_deref(), Ok("null"));
        eventually(|| world.db.sent.lock().expect("sent").len() == 4);
        let depths: Vec<u64> = sent(&world).into_iter().map(|(.., depth)| depth).collect();
        assert_eq!(depths, [depth; 4], "{name} {data}");
    }
}

#[test]
fn what_is_not_accepted_is_an_error_of_its_kind() {
    let world = World::new();
    let error = |call: &str| world.err(&format!("local ctx = ... ctx.Messages:{call}"));
    let refused = error("send('user:2', 't')");
    let says = "test:1: not_allowed: the receiver does not allow this topic from the sender\n";
    assert!(refused.starts_with(says), "{refused}");
    allowed(&world);
    for (call, says) in [
        ("send('user:2', string.rep('x', 65))", "test:1: too_large: "),
        (
            &*format!("send('user:2', 't', string.rep('x', {TENANT_MESSAGE_MAX_BYTES}))"),
            "test:1: too_large: ",
        ),
        ("send('user:2', 't', print)", "test:1: a function cannot leave Luau"),
        ("send('nobody', 't')", "test:1: the receiver must be a tenant such as \"guild:123\""),
        ("send(2, 't')", "test:1: the receiver must be a string, not integer"),
        ("send('user:2')", "test:1: the topic must be a string, not nil"),
        ("allow({ from = 'user:2', topics = {} })", "test:1: topics must name at least one"),
        ("allow({ from = 'user:2', topic = 't' })", "test:1: the rule cannot have .topic"),
        ("allow({ topics = { 't' } })", "test:1: from must be a string, not nil"),
        ("disallow('x')", "test:1: from must be a tenant"),
    ] {
        let error = error(call);
        assert!(error.starts_with(says), "{call}: {error}");
    }
    assert_eq!(sent(&world), []);
    let largest = TENANT_MESSAGE_MAX_BYTES - 3;
    let code = format!(
        "local ctx = ... ctx.Messages:send('user:2', string.rep('x', 64), string.rep('x', {largest}))"
    );
    assert_eq!(world.ok(&code), "null");
}

#[test]
fn rules_are_kept_replaced_and_taken_back() {
    let world = World::new();
    let code = format!(
        "local ctx = ...
        local before = ctx.Messages:allowed()
        for number = 1, {MESSAGE_RULES_MAX} do
            ctx.Messages:allow({{ from = `guild:{{number}}`, topics = {{ 'a', 'b' }} }})
        end
        local ok, problem = pcall(function()
            ctx.Messages:allow({{ from = 'user:1', topics = {{ 'a' }} }})
        end)
        ctx.Messages:allow({{ from = 'guild:1', topics = {{ 'c' }} }})
        for number = 3, {MESSAGE_RULES_MAX} do
            ctx.Messages:disallow(`guild:{{number}}`)
        end
        ctx.Messages:disallow('user:9')
        return {{ before, ok, problem, ctx.Messages:allowed(), (ctx.KV:get('allowed', {{ '#messages' }})) }}"
    );
    let rules = r#"{"guild:1":["c"],"guild:2":["a","b"]}"#;
    let problem = "test:7: at most 16 tenants can be allowed to send";
    assert_eq!(world.ok(&code), format!(r#"[{{}},false,"{problem}",{rules},{rules}]"#));
    // Scripts change it by these calls only.
    let error = world.err("local ctx = ... ctx.KV:set('allowed', {}, { '#messages' })");
    assert!(error.contains("read-only to scripts"), "{error}");
    // Changes at once do not lose each other.
    let code = "local ctx = ...
        for number = 3, 10 do
            task.spawn(function()
                ctx.Messages:allow({ from = `guild:{number}`, topics = { '' } })
            end)
        end
        task.wait(0)
        repeat
            local count = 0
            for _ in ctx.Messages:allowed() do count += 1 end
        until count == 10
        return 'all'";
    assert_eq!(world.ok(code), "\"all\"");
}
