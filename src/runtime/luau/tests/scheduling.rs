//! Events and their order, waiting, tasks, and the end of things.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::*;
use crate::base::error::{DbError, DispatchError};
use crate::dispatch::{Cancelled, Job, RequestId};
use crate::runtime::luau::{LuauConfig, LuauLimits, TemplateSource};
use crate::runtime::{RuntimeStats, TemplateRuntime};
use crate::wire::data::{EncodedValue, TenantId};

/// A script that waits in the database until the gate opens, and then returns `name`.
fn waits(name: &str) -> String {
    format!("local ctx = ... ctx.KV:get('k', {{'s'}}) return '{name}'")
}

#[test]
fn a_template_answers_an_event() {
    let world = World::with_template(
        "return function(ctx)
            local event = ctx:event()
            return { name = event.name, double = event.data.n * 2, tenant = ctx.tenant }
        end",
    );
    assert_eq!(
        world.dispatch("Ping", r#"{"n": 21}"#).as_deref(),
        Ok(r#"{"double":42,"name":"Ping","tenant":{"id":"1","type":"guild"}}"#)
    );
}

#[test]
fn a_script_gets_ctx_and_may_return_a_function_that_gets_it_too() {
    let world = World::new();
    assert_eq!(world.ok("local ctx = ... return ctx:event().name"), r#""Test""#);
    assert_eq!(world.ok("return function(ctx) return ctx.tenant.type end"), r#""guild""#);
    assert_eq!(world.ok("return 1, 2"), "1");
    assert_eq!(world.ok("local x = 1"), "null");
}

#[test]
fn events_start_in_order_and_interleave_only_where_they_wait() {
    let world = World::with_limits(LuauLimits {
        slice: Duration::from_micros(50),
        ..LuauLimits::default()
    });
    let code = |number: usize| {
        format!(
            "local ctx, order = ..., require('state')()
            table.insert(order, 'a{number}')
            local before = #order
            for i = 1, 20000 do end
            assert(#order == before, 'another event ran in between')
            ctx.KV:get('k', {{'s'}})
            table.insert(order, 'b{number}')"
        )
    };
    world.db.close_gate();
    let pending: Vec<_> = (0..6).map(|number| world.submit_script(TENANT, &code(number))).collect();
    world.db.wait_for_waiting(6);
    world.db.open_gate();
    pending.iter().for_each(|pending| assert_eq!(pending.text().as_deref(), Ok("null")));
    let order = world.ok("return table.concat(require('state')(), ' ')");
    assert!(order.starts_with("\"a0 a1 a2 a3 a4 a5 b"), "{order}");
}

#[test]
fn a_tenant_that_waits_for_data_does_not_hold_up_another() {
    let world = World::new();
    world.db.close_gate();
    let waiting = world.submit_script(TENANT, &waits("first"));
    world.db.wait_for_waiting(1);
    assert_eq!(world.submit_script(TenantId::Guild(2), "return 2").text().as_deref(), Ok("2"));
    assert_eq!(world.ok("return 1"), "1");
    world.db.open_gate();
    assert_eq!(waiting.text().as_deref(), Ok(r#""first""#));
}

#[test]
fn running_and_waiting_are_bounded_and_one_more_is_busy() {
    let limits = LuauLimits { tenant_running: 3, tenant_waiting: 4, ..LuauLimits::default() };
    let world = World::with_limits(limits);
    world.db.close_gate();
    let running: Vec<_> = (0..3).map(|_| world.submit_script(TENANT, &waits("ran"))).collect();
    world.db.wait_for_waiting(3);
    let waiting: Vec<_> = (0..4).map(|_| world.submit_script(TENANT, &waits("waited"))).collect();
    let refused = world.submit_script(TENANT, "return 1");
    assert!(matches!(refused.error(), DispatchError::Busy(_)));
    assert_eq!(world.submit_script(TenantId::User(1), "return 1").text().as_deref(), Ok("1"));
    eventually(|| world.runtime.stats().in_flight == 7);
    world.db.open_gate();
    running.iter().for_each(|pending| assert_eq!(pending.text().as_deref(), Ok(r#""ran""#)));
    waiting.iter().for_each(|pending| assert_eq!(pending.text().as_deref(), Ok(r#""waited""#)));
}

#[test]
fn a_time_that_an_event_does_not_live_is_an_error_of_the_call() {
    let world = World::new();
    for (code, expected) in [
        (
            "task.delay(40, print)",
            "test:2: task.delay: 40 s is longer than an event may live (30 s)",
        ),
        ("task.wait(30.5)", "test:2: task.wait: 30.5 s is longer than an event may live (30 s)"),
        (
            "task.wait(math.huge)",
            "test:2: task.wait: inf s is longer than an event may live (30 s)",
        ),
        ("task.spawn(task.wait, 40) return task.wait(31)", "test:2: task.wait: 31 s is longer"),
    ] {
        let error = world.err(&format!("local ctx = ...\n{code}"));
        assert!(error.starts_with(expected), "{code}: {error}");
    }
    // Some of the 30 s have passed by then, however little.
    let error = world.err("task.wait(0.001) task.wait(30)");
    assert!(
        error.starts_with(
            "test:1: task.wait: 30 s is longer than this event may still live (30.0 s of 30 s)"
        ),
        "{error}"
    );
    let caught = world
        .ok("task.cancel(task.delay(29, print)) return select(2, pcall(task.delay, 40, print))");
    assert_eq!(caught, r#""task.delay: 40 s is longer than an event may live (30 s)""#);
    assert_eq!(
        world
            .ok("return { (pcall(task.wait, 0 / 0)), (pcall(task.wait, -1)), (pcall(task.wait)) }"),
        "[true,true,true]"
    );
}

#[test]
fn a_cancelled_event_ends_whether_it_waits_or_runs_or_loops() {
    let world = World::with_limits(LuauLimits { tenant_running: 2, ..LuauLimits::default() });
    world.db.close_gate();
    let waits_inside = world.submit_script(TENANT, &waits("never"));
    world.db.wait_for_waiting(1);
    let loops = world.submit_script(TENANT, "while true do end");
    // What runs may still be the first one.
    eventually(|| world.runtime.stats().events == 2 && world.runtime.stats().longest.is_some());
    let queued = world.submit_script(TENANT, "return 'ran'");

    assert_eq!(world.runtime.cancel(TENANT, queued.request_id), Cancelled::Sent);
    assert!(matches!(queued.error(), DispatchError::Deadline { sent: false }));
    assert_eq!(world.runtime.cancel(TENANT, loops.request_id), Cancelled::Sent);
    assert!(matches!(loops.error(), DispatchError::Deadline { sent: true }));
    assert_eq!(world.runtime.cancel(TENANT, waits_inside.request_id), Cancelled::Sent);
    assert!(matches!(waits_inside.error(), DispatchError::Deadline { sent: true }));

    assert_eq!(world.runtime.cancel(TENANT, loops.request_id), Cancelled::Unknown);
    assert_eq!(world.runtime.cancel(TENANT, RequestId(9999)), Cancelled::Unknown);
    world.db.open_gate();
    assert_eq!(world.ok("return 'alive'"), r#""alive""#);
}

#[test]
fn dropping_a_tenant_ends_what_runs_and_frees_its_vm() {
    let world = World::new();
    world.ok("require('state')().kept = 1");
    world.db.close_gate();
    let running = world.submit_script(TENANT, &waits("never"));
    world.db.wait_for_waiting(1);
    assert_eq!(world.runtime.stats().vms, 1);
    let dropped = world.submit(TENANT, Job::DropTenant);
    assert_eq!(dropped.wait(), Ok(EncodedValue::null()));
    assert_eq!(running.text(), Err("cancelled: the tenant was dropped".to_owned()));
    assert_eq!(world.runtime.stats().vms, 0);
    world.db.open_gate();
    assert_eq!(world.ok("return require('state')().kept"), "null");
    assert_eq!(world.submit(TenantId::User(77), Job::DropTenant).wait(), Ok(EncodedValue::null()));
}

#[test]
fn dropping_a_tenant_tells_an_event_that_waits_the_same() {
    let world = World::with_limits(LuauLimits { tenant_running: 1, ..LuauLimits::default() });
    world.db.close_gate();
    let running = world.submit_script(TENANT, &waits("never"));
    world.db.wait_for_waiting(1);
    let waiting = world.submit_script(TENANT, "return 'never'");
    assert_eq!(world.submit(TENANT, Job::DropTenant).wait(), Ok(EncodedValue::null()));
    let dropped = DispatchError::Script("cancelled: the tenant was dropped".to_owned());
    assert_eq!((running.error(), waiting.error()), (dropped.clone(), dropped));
    world.db.open_gate();
}

#[test]
fn a_tenant_runs_its_own_template_if_it_has_one() {
    let world = World::with_template("return function() return 'shared' end");
    let own = TenantId::Guild(7);
    world.db.put(
        own,
        "main",
        &["template"],
        r#""return function(ctx) return 'own ' .. ctx:event().name end""#,
    );
    assert_eq!(world.dispatch("E", "null").as_deref(), Ok(r#""shared""#));
    assert_eq!(world.submit_event(own, "E", "null").text().as_deref(), Ok(r#""own E""#));

    world.db.put(own, "main", &["template"], r#""return function() return 'newer' end""#);
    assert_eq!(world.submit(own, Job::DropTenant).wait(), Ok(EncodedValue::null()));
    assert_eq!(world.submit_event(own, "E", "null").text().as_deref(), Ok(r#""newer""#));
}

#[test]
fn a_tenant_s_own_modules_come_before_those_of_all() {
    let files = [
        ("main.luau", "return function() return require('words') .. require('lib/more') end"),
        ("words.luau", "return 'shared words '"),
        ("lib/more.luau", "return require('./other')"),
        ("lib/other.luau", "return 'shared other'"),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let templates = TemplateSource::Files(files.into());
    let world = World::with_config(LuauConfig { templates, ..LuauConfig::default() });
    let run = || world.submit_event(TENANT, "E", "null").text();
    let put = |value: &str| {
        world.db.put(TENANT, "main", &["template"], value);
        world.runtime.template_changed(TENANT);
    };
    assert_eq!(run().as_deref(), Ok(r#""shared words shared other""#));
    put(r#"{"main":"return function() return require('words') .. require('@self/lib/more') end",
        "words":"return 'own words '"}"#);
    assert_eq!(run().as_deref(), Ok(r#""own words shared other""#));
    // Only a module changes, also one that was required by one of all tenants.
    put(r#"{"main":"return function() return require('words') .. require('@self/lib/more') end",
        "words":"return 'own words '", "lib/other":"return 'own other'"}"#);
    assert_eq!(run().as_deref(), Ok(r#""own words own other""#));
    put(r#"{"main":"return function() return require('broken') end", "broken":"return ("}"#);
    assert!(run().is_err_and(|error| error.contains("broken.luau:1: Expected")));
    put(r#"{"words":"return 'no main'"}"#);
    assert!(run().is_err_and(|error| error.contains("called main")));
    put(r#""return require('main')""#);
    assert_eq!(run().as_deref(), Ok(r#""shared words shared other""#), "that of all tenants");
}

#[test]
fn a_template_that_will_not_do_is_an_error_of_every_dispatch() {
    for (template, expected) in [
        ("return function(", "main.luau:1: Expected"),
        ("return { }", "the template must return function(ctx), not a table"),
        ("local x = 1", "the template must return one value, and returned nothing"),
        ("return 1, 2", "the template must return one value, and returned several"),
        ("error('at load')", "main.luau:1: at load"),
        (
            "return require('nowhere')",
            "main.luau:1: cannot require \"nowhere\": there is no such module",
        ),
        ("task.wait() return function() end", "budget exceeded"),
    ] {
        let world = World::with(
            &[("main.luau", template)],
            LuauLimits { wall: Duration::from_secs(2), ..LuauLimits::default() },
        );
        for _ in 0..2 {
            match world.dispatch("E", "null") {
                Err(error) => assert!(error.starts_with(expected), "{error}"),
                // A template may wait while it loads.
                Ok(value) => {
                    assert_eq!((template.starts_with("task.wait"), value.as_str()), (true, "null"))
                }
            }
        }
        assert_eq!(world.ok("return 'alive'"), r#""alive""#);
    }
    let none = World::with(&[], LuauLimits::default());
    assert_eq!(
        none.dispatch("E", "null"),
        Err("there is no main.luau among the templates".to_owned())
    );
}

#[test]
fn a_template_not_loadable_now_is_busy_and_tried_again() {
    let world = World::with_template("return function() return 'there' end");
    world.db.fail_with(Some(DbError::Unavailable("the store is away".to_owned())));
    let refused = world.submit_event(TENANT, "E", "null").error();
    assert_eq!(
        refused,
        DispatchError::Busy(
            "the tenant's template could not be loaded: the store is away".to_owned()
        )
    );
    world.db.fail_with(None);
    assert_eq!(world.dispatch("E", "null").as_deref(), Ok(r#""there""#));
}

#[test]
fn a_panic_in_a_callback_costs_the_vm_and_nothing_else() {
    let world = World::new();
    world.ok("require('state')().kept = 1");
    world.db.close_gate();
    let beside = world.submit_script(TENANT, &waits("never"));
    world.db.wait_for_waiting(1);
    world.states.panics.store(true, Ordering::Relaxed);
    let error = world
        .err("local ctx = ... pcall(function() ctx.Runtime:gettenantstate() end) return 'saved'");
    assert_eq!(error, "ended, because the tenant's VM was discarded: of an internal error");
    assert_eq!(beside.text(), Err(error));
    world.states.panics.store(false, Ordering::Relaxed);
    world.db.open_gate();
    assert_eq!(world.ok("return require('state')().kept"), "null");
}

#[test]
fn an_event_that_eats_its_memory_takes_those_beside_it_with_it() {
    let world = World::new();
    world.db.close_gate();
    let beside = world.submit_script(TENANT, &waits("never"));
    world.db.wait_for_waiting(1);
    assert!(
        world
            .err("return string.rep('x', 2 ^ 30)")
            .starts_with("budget exceeded: more than 64 MiB of memory")
    );
    assert_eq!(
        beside.text(),
        Err("ended, because the tenant's VM was discarded: another event used up its memory"
            .to_owned())
    );
    world.db.open_gate();
    assert_eq!(world.ok("return 1"), "1");
}

#[test]
fn tasks_run_in_their_order() {
    let world = World::new();
    let code = "
        local log = {}
        local function note(text) table.insert(log, text) end
        task.defer(note, 'deferred 1')
        local spawned = task.spawn(function(...)
            note('spawned ' .. select('#', ...))
            task.wait()
            note('spawned goes on')
        end, nil, 2, nil)
        note('after spawn, ' .. coroutine.status(spawned))
        task.defer(note, 'deferred 2')
        task.delay(0.002, note, 'delayed')
        note('handler')
        local waited = task.wait(0.02)
        note('handler goes on')
        assert(waited >= 0.02 and waited < 60)
        return log";
    assert_eq!(
        world.ok(code),
        "[\"spawned 3\",\"after spawn, suspended\",\"handler\",\"deferred 1\",\"deferred 2\",\"spawned goes on\",\
         \"delayed\",\"handler goes on\"]"
    );
}

#[test]
fn spawned_tasks_run_before_the_one_that_spawned_them_goes_on() {
    let world = World::new();
    let code = "
        local log = {}
        local function nest(depth)
            table.insert(log, '>' .. depth)
            if depth < 5 then task.spawn(nest, depth + 1) end
            table.insert(log, '<' .. depth)
        end
        nest(1)
        return table.concat(log, ' ')";
    assert_eq!(world.ok(code), r#"">1 >2 >3 >4 >5 <5 <4 <3 <2 <1""#);
}

#[test]
fn a_task_can_be_spawned_inside_a_script_s_own_coroutine() {
    let world = World::new();
    let code = "
        local log = {}
        local generator = coroutine.wrap(function()
            task.spawn(function() table.insert(log, 'in') task.wait() table.insert(log, 'later') end)
            coroutine.yield('first')
            task.wait()
            coroutine.yield('second')
        end)
        table.insert(log, generator())
        table.insert(log, generator())
        task.wait()
        return table.concat(log, ' ')";
    assert_eq!(world.ok(code), r#""in first later second""#);
}

#[test]
fn a_cancelled_task_does_not_go_on() {
    let world = World::new();
    let code = "
        local log = {}
        local function sleeper(name)
            return function() task.wait(0.001) table.insert(log, name) end
        end
        local kept, cancelled = task.spawn(sleeper('kept')), task.spawn(sleeper('cancelled'))
        local delayed = task.delay(0.001, sleeper('delayed'))
        local deferred = task.defer(sleeper('deferred'))
        local closed = task.spawn(sleeper('closed'))
        task.cancel(cancelled)
        task.cancel(delayed)
        task.cancel(deferred)
        coroutine.close(closed)
        task.cancel(coroutine.create(print))
        table.insert(log, coroutine.status(cancelled))
        table.insert(log, (select(2, pcall(task.cancel, coroutine.running()))))
        task.wait(0.05)
        return log";
    assert_eq!(
        world.ok(code),
        r#"["dead","task.cancel cannot cancel a running coroutine","kept"]"#
    );
}

#[test]
fn a_task_may_cancel_the_one_that_spawned_it() {
    let world = World::new();
    let code = "
        local handler = coroutine.running()
        task.spawn(function() task.cancel(handler) task.wait() end)
        return 'not reached'";
    assert_eq!(world.run(code), Err("the handler was cancelled by task.cancel".to_owned()));
    assert_eq!(world.ok("return 'alive'"), r#""alive""#);
}

#[test]
fn a_coroutine_that_yields_by_itself_is_woken_by_others() {
    let world = World::new();
    let signal = "
        local log, waiters = {}, {}
        local function wait() table.insert(waiters, coroutine.running()) return coroutine.yield() end
        local function fire(wake, ...)
            local woken = waiters
            waiters = {}
            for _, co in woken do wake(co, ...) end
        end";
    let code = format!(
        "{signal}
        task.spawn(function() table.insert(log, 'task ' .. tostring(wait())) end)
        task.defer(function() fire(task.spawn, 'one') task.wait() fire(coroutine.resume, 'two', nil) end)
        local got = table.pack(wait())
        table.insert(log, 'handler ' .. got.n .. got[1])
        local again = table.pack(wait())
        table.insert(log, 'again ' .. again.n .. again[1])
        return log"
    );
    assert_eq!(world.ok(&code), r#"["task one","handler 1one","again 2two"]"#);
    let code = format!(
        "{signal}
        local co = coroutine.create(function() table.insert(log, 'parked') table.insert(log, wait()) end)
        task.spawn(co)
        task.defer(fire, task.defer, 'woken')
        task.wait(0.005)
        return {{ log, coroutine.status(co) }}"
    );
    assert_eq!(world.ok(&code), r#"[["parked","woken"],"dead"]"#);
}

#[test]
fn a_coroutine_that_waits_for_the_host_is_not_resumable() {
    let world = World::new();
    let code = "
        local log = {}
        local inner = coroutine.create(function() task.wait(0.01) return 'inner done' end)
        local outer = task.spawn(function() table.insert(log, (select(2, coroutine.resume(inner)))) end)
        table.insert(log, coroutine.status(inner))
        table.insert(log, (select(2, coroutine.resume(inner))))
        table.insert(log, (select(2, coroutine.resume(outer))))
        table.insert(log, (select(2, pcall(coroutine.close, inner))))
        table.insert(log, (select(2, pcall(task.spawn, inner))))
        task.wait(0.05)
        return log";
    assert_eq!(
        world.ok(code),
        "[\"normal\",\"cannot resume normal coroutine\",\"cannot resume a coroutine that waits\",\
         \"cannot close normal coroutine\",\"task.spawn needs a coroutine that is suspended\",\"inner done\"]"
    );
}

#[test]
fn waiting_where_luau_cannot_yield_is_a_clear_error() {
    let world = World::new();
    for code in [
        "table.sort({ 2, 1 }, function() task.wait() end)",
        "local ctx = ... table.sort({ 2, 1 }, function() ctx.KV:get('k', { 's' }) end)",
        "table.sort({ 2, 1 }, function() task.spawn(print) end)",
        "return setmetatable({}, { __index = function() task.wait() end }).x",
        "local f = coroutine.wrap(function() task.wait() end) string.gsub('x', 'x', function() f() end)",
    ] {
        let error = world.err(code);
        assert!(error.contains("cannot wait here: a metamethod"), "{error}");
        assert!(error.starts_with("test:1: "), "{error}");
    }
    assert_eq!(
        world.ok("local n = 0 table.sort({ 2, 1 }, function(a, b) task.defer(function() n = 7 end) return a < b end) task.wait() return n"),
        "7"
    );
}

#[test]
fn tasks_that_the_handler_left_go_on_after_the_answer() {
    let world = World::new();
    world
        .ok("task.delay(0.005, function() table.insert(require('state')(), 'later') end) return 1");
    eventually(|| world.ok("return #require('state')()") == "1");
    world.ok("task.spawn(function() task.wait() error('nobody hears it') end) return 1");
    assert_eq!(world.ok("return 'alive'"), r#""alive""#);
}

#[test]
fn strange_times_are_no_trouble() {
    let world = World::new();
    for seconds in ["0/0", "-1", "-math.huge", "1e-300", "0"] {
        assert_eq!(world.ok(&format!("return task.wait({seconds}) >= 0")), "true", "{seconds}");
    }
    assert!(
        world
            .err("task.wait('soon')")
            .contains("invalid argument #1 to 'task.wait' (number expected, got string)")
    );
}

#[test]
fn several_executors_share_the_tenants() {
    let world = World::with_config(LuauConfig { executors: 3, ..LuauConfig::default() });
    let pending: Vec<_> = (0..200)
        .map(|id| (id, world.submit_script(TenantId::Guild(id << 22), &format!("return {id}"))))
        .collect();
    pending.iter().for_each(|(id, pending)| assert_eq!(pending.text(), Ok(id.to_string())));
    eventually(|| {
        let RuntimeStats { vms, events, in_flight, longest, figures, .. } = world.runtime.stats();
        let at_rest = in_flight == 0
            && longest.is_none()
            && figures.coroutines == 0
            && figures.waiting_events == 0;
        at_rest && (vms, events, figures.wall.count()) == (200, 200, 200)
    });
}

#[test]
fn a_runtime_says_what_runs_longest() {
    let world = World::with_template("return function() while true do end end");
    let looping = world.submit_event(TENANT, "LOOPS", "null");
    let long = Duration::from_millis(30);
    eventually(|| {
        let longest = world.runtime.stats().longest;
        longest.is_some_and(|(tenant, event, time)| {
            tenant == TENANT && event == "LOOPS" && time > long
        })
    });
    world.runtime.cancel(TENANT, looping.request_id);
    assert!(matches!(looping.error(), DispatchError::Deadline { sent: true }));
}

#[test]
fn an_update_is_one_step() {
    let world = World::new();
    let code = "local ctx = ...
        return ctx.KV:update('count', { 's' }, function(old, exists)
            assert(exists == (old ~= nil))
            return (old or 0) + 1
        end)";
    let pending: Vec<_> = (0..50).map(|_| world.submit_script(TENANT, code)).collect();
    let mut results: Vec<u32> = pending
        .iter()
        .map(|pending| pending.text().expect("it counts").parse().expect("a number"))
        .collect();
    results.sort_unstable();
    assert_eq!(results, (1..=50).collect::<Vec<u32>>());
    assert_eq!(world.db.value(TENANT, "count", &["s"]).as_deref(), Some("50"));
}
