//! What is dropped with a VM, a tenant or the runtime: it is counted, and the author is told.

use super::support::*;
use crate::base::limits::FEED_BURST;
use crate::dispatch::Job;
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::LuauLimits;
use crate::wire::data::Dropped;

/// Waits for a template that has more to do than its answer, or for more than there is memory.
const TEMPLATE: &str = "
    return function(ctx)
        local data = ctx:event().data
        if data == 'wait' then task.wait(20) end
        if data == 'leave' then task.delay(20, function() end) end
        if data == 'panic' then error('later') end
        if data == 'grow' then
            local kept = {}
            while true do table.insert(kept, buffer.create(2 ^ 20)) end
        end
        return 1
    end";

fn world() -> World {
    let limits = LuauLimits { memory_bytes: 8 * 1024 * 1024, ..LuauLimits::default() };
    World::with(&[("main.luau", TEMPLATE)], limits)
}

fn dropped(world: &World, kind: Dropped) -> u64 {
    world.runtime.stats().figures.dropped(kind)
}

fn recorded(world: &World) -> String {
    world.db.value(TENANT, "last", &["#err"]).unwrap_or_default()
}

#[test]
fn an_event_that_ends_for_anothers_sake_is_recorded() {
    let world = world();
    let waits = world.submit_event(TENANT, "Waits", "\"wait\"");
    eventually(|| world.runtime.stats().figures.coroutines == 1);
    assert!(world.dispatch("Grows", "\"grow\"").is_err_and(|error| error.contains("of memory")));
    let error = waits.error().to_string();
    assert!(error.contains("another event used up its memory"), "{error}");
    eventually(|| recorded(&world).contains("\"event\":\"Waits\""));
    let recorded = recorded(&world);
    assert_eq!(recorded.matches("another event used up its memory").count(), 1, "{recorded}");
    assert_eq!(recorded.matches("of memory").count(), 1, "{recorded}");
    assert_eq!(dropped(&world, Dropped::Event), 1);
}

#[test]
fn tasks_that_end_with_the_runtime_are_recorded() {
    let world = world();
    assert_eq!(world.dispatch("Leaves", "\"leave\"").as_deref(), Ok("1"));
    world.runtime.shutdown();
    let recorded = recorded(&world);
    assert!(recorded.contains("tasks that the handler left were ended"), "{recorded}");
    assert!(recorded.contains("\"event\":\"Leaves\""), "{recorded}");
    assert_eq!((dropped(&world, Dropped::Tasks), dropped(&world, Dropped::ErrorRecord)), (1, 0));
}

#[test]
fn tasks_that_end_with_a_drop_are_recorded() {
    let world = world();
    assert_eq!(world.dispatch("Leaves", "\"leave\"").as_deref(), Ok("1"));
    assert!(world.submit(TENANT, Job::DropTenant).wait().is_ok());
    eventually(|| recorded(&world).contains("tasks that the handler left were ended"));
    assert_eq!(dropped(&world, Dropped::Tasks), 1);
}

#[test]
fn errors_that_no_database_takes_at_the_end_are_counted() {
    let world = world();
    assert_eq!(world.dispatch("E", "1").as_deref(), Ok("1"));
    world.db.close_gate();
    assert!(world.dispatch("Fails", "\"panic\"").is_err());
    // The first is in the writer's hand, at the gate, and the second behind it.
    world.db.wait_for_waiting(1);
    assert!(world.dispatch("Fails", "\"panic\"").is_err());
    world.runtime.shutdown();
    assert_eq!(dropped(&world, Dropped::ErrorRecord), 2);
    assert_eq!(recorded(&world), "");
}

#[test]
fn an_event_that_its_caller_gives_up_leaves_a_line() {
    let world = world();
    let waits = world.submit_event(TENANT, "Waits", "\"wait\"");
    eventually(|| world.runtime.stats().figures.coroutines == 1);
    world.runtime.cancel(TENANT, waits.request_id);
    waits.error();
    eventually(|| world.db.lines().iter().any(|line| line.starts_with("Waits: cancelled")));
}

#[test]
fn events_that_are_refused_leave_a_line() {
    let limits = LuauLimits { tenant_running: 1, tenant_waiting: 1, ..LuauLimits::default() };
    let world = World::with(&[("main.luau", TEMPLATE)], limits);
    let held: Vec<_> = (0..3).map(|_| world.submit_event(TENANT, "E", "\"wait\"")).collect();
    let refused = "events of this tenant are waiting already";
    held.last().expect("one").error();
    assert!(world.db.lines().iter().any(|line| line.contains(refused)), "{:?}", world.db.lines());
    world.runtime.shutdown();
    held[..2].iter().for_each(|pending| drop(pending.error()));
}

#[test]
fn calls_without_room_are_counted() {
    let world = world();
    let publish = "local ctx = ... local refused = 0
        for number = 1, 2 * tonumber(ctx:event().data or 0) do
            if not pcall(function() ctx.Feed:publish('topic', number) end) then refused += 1 end
        end
        return refused";
    let job = Job::RunScript {
        name: "test".to_owned(),
        code: publish.to_owned(),
        event: event("E", &FEED_BURST.to_string()),
    };
    let refused: u64 = world.submit(TENANT, job).text().expect("ran").parse().expect("a number");
    assert!(refused > 0 && refused <= u64::from(FEED_BURST), "{refused}");
    assert_eq!(dropped(&world, Dropped::FeedEvent), refused);
    world.db.close_gate();
    let call = "local ctx, large, kept, failed = ..., string.rep('x', 200 * 1024), {}, nil
        local limit = ctx.Runtime:stats().memory_limit_bytes
        while ctx.Runtime:stats().memory_bytes < limit - 1500 * 1024 do
            table.insert(kept, buffer.create(2 ^ 16))
        end
        for number = 1, 8 do
            task.spawn(function()
                local ok, problem = pcall(function() ctx.KV:set('k' .. number, large, { 's' }) end)
                if not ok then failed = problem end
            end)
        end
        task.wait(0)
        return failed";
    let refused = world.ok(call);
    assert!(refused.contains("not enough memory for the call"), "{refused}");
    assert!(dropped(&world, Dropped::Call) > 0);
    world.db.open_gate();
}
