//! What a tenant has outside its VM: it counts, and comes back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::*;
use crate::base::limits::IO_THREADS;
use crate::dispatch::{Cancelled, Job};
use crate::runtime::luau::LuauLimits;
use crate::runtime::{TemplateRuntime, TenantStates};
use crate::wire::data::{EncodedJson, TenantId, TenantState};

fn tight() -> LuauLimits {
    LuauLimits {
        memory_bytes: 16 * 1024 * 1024,
        running: SOON,
        wall: SOON,
        ..LuauLimits::default()
    }
}

#[test]
fn calls_beyond_the_memory_are_errors_of_those_calls() {
    let world = World::with_limits(tight());
    world.db.close_gate();
    let answer = world.ok("local ctx, big, kept = ..., string.rep('x', 250 * 1024), require('state')()
        kept.done, kept.refused = 0, 0
        for i = 1, 100 do
            task.spawn(function()
                local ok, problem = pcall(function() ctx.KV:set('k' .. i, big, { 's' }) end)
                if ok then kept.done += 1 else kept.refused, kept.why = kept.refused + 1, problem end
            end)
        end
        return { kept.refused, kept.why }");
    let refused =
        answer.split(['[', ',']).find_map(|text| text.parse::<usize>().ok()).unwrap_or_default();
    // Sixteen MiB, of which the VM has one or two, are room for some sixty such values.
    assert!(
        (36..46).contains(&refused) && answer.contains("test:5: not enough memory for the call"),
        "{answer}"
    );
    world.db.open_gate();
    let after = "local ctx, kept = ..., require('state')()
        repeat task.wait(0.001) until kept.done + kept.refused == 100
        for i = 1, 60 do task.spawn(function() ctx.KV:set('k' .. i, string.rep('y', 250 * 1024), { 's' }) end) end
        return kept.refused";
    assert_eq!(
        world.ok(after),
        refused.to_string(),
        "the others are done, and there is room again"
    );
}

#[test]
fn arguments_of_calls_that_wait_count_as_the_vm_s() {
    let world = World::with_limits(tight());
    world.db.close_gate();
    let error = world.err(
        "local ctx, big, kept = ..., string.rep('x', 250 * 1024), {}
        for i = 1, 32 do task.spawn(function() ctx.KV:set('k' .. i, big, { 's' }) end) end
        for i = 1, 12 do kept[i] = buffer.create(2 ^ 20) end
        task.wait(1)
        return #kept",
    );
    assert!(error.starts_with("budget exceeded: more than 16 MiB of memory"), "{error}");
    world.db.open_gate();
    assert_eq!(world.ok("return 'a new one'"), r#""a new one""#);
}

#[test]
fn results_that_no_script_takes_keep_the_next_ones_waiting() {
    let world = World::with_limits(tight());
    for number in 0..12 {
        let value = format!("\"{}\"", "x".repeat(250 * 1024));
        world.db.put(TENANT, &format!("k{number}"), &["s"], &value);
    }
    let hoards = world.submit_script(
        TENANT,
        "local ctx, found = ..., 0
        for _ = 1, 50 do task.spawn(function() local n = #ctx.KV:find('k%', { 's' }) found += n end) end
        repeat until ctx.Runtime:gettenantstate().data
        repeat task.wait(0.001) until found == 600
        return found",
    );
    eventually(|| world.db.finds.load(Ordering::SeqCst) >= 1);
    // Meanwhile others have theirs at once.
    let other = "local ctx = ... for i = 1, 20 do ctx.KV:set('k', i, { 's' }) end return 'done'";
    for id in 2..12 {
        assert_eq!(
            world.submit_script(TenantId::Guild(id), other).text().as_deref(),
            Ok(r#""done""#)
        );
    }
    assert_eq!(
        world.db.finds.load(Ordering::SeqCst),
        1,
        "three MiB are not taken; the next may have sixteen"
    );
    let data = EncodedJson::from_checked(b"\xc3".to_vec());
    world.states.put(TENANT, TenantState { events: ["DEFAULT".to_owned()].into(), data });
    assert_eq!(hoards.text().as_deref(), Ok("600"));
}

#[test]
fn events_whose_data_is_large_start_as_there_is_room() {
    let world = World::with(
        &[("main.luau", "return function(ctx) ctx.KV:get('k', { 's' }) return 1 end")],
        tight(),
    );
    let large = format!("\"{}\"", "x".repeat(5 * 1024 * 1024));
    assert_eq!(world.dispatch("First", "1").as_deref(), Ok("1"));
    world.db.close_gate();
    let pending: Vec<_> = (0..5).map(|_| world.submit_event(TENANT, "Large", &large)).collect();
    eventually(|| world.runtime.stats().events == 4);
    world.db.wait_for_waiting(1);
    // A tenant of the same executor has had turns since.
    assert_eq!(
        world.submit_script(TenantId::Guild(2), "task.wait() return 2").text().as_deref(),
        Ok("2")
    );
    assert_eq!(
        world.runtime.stats().events,
        5,
        "three have fifteen MiB, and the other tenant's script"
    );
    world.db.open_gate();
    pending.iter().for_each(|pending| assert_eq!(pending.text().as_deref(), Ok("1")));
    let huge = format!("\"{}\"", "x".repeat(17 * 1024 * 1024));
    assert_eq!(world.dispatch("Alone", &huge).as_deref(), Ok("1"), "one may be of any size");
}

/// How an event is brought to its end.
type End = fn(&World, &Pending);

#[test]
fn calls_that_wait_for_their_turn_end_with_their_event() {
    let many = |name: &str, end: &str| {
        format!(
            "local ctx = ...
            for i = 1, 900 do task.spawn(function() ctx.KV:set('{name}' .. i, i, {{ 's' }}) end) end
            {end}"
        )
    };
    let world = World::with_limits(LuauLimits { running: Duration::from_millis(500), ..tight() });
    let ends: [(&str, &str, End); 4] = [
        ("dropped", "task.wait(60)", |world, _| drop(world.submit(TENANT, Job::DropTenant).wait())),
        ("cancelled", "task.wait(60)", |world, pending| {
            assert_eq!(world.runtime.cancel(TENANT, pending.request_id), Cancelled::Sent)
        }),
        ("looped", "while true do end", |_, _| ()),
        ("starved", "return string.rep('x', 2 ^ 30)", |_, _| ()),
    ];
    for (name, end, act) in ends {
        world.db.close_gate();
        let pending = world.submit_script(TENANT, &many(name, end));
        world.db.wait_for_waiting(IO_THREADS * 3 / 4);
        act(&world, &pending);
        assert!(pending.wait().is_err(), "{name}");
        world.db.open_gate();
        // It comes to its turn after all that was handed to the threads.
        let count = world.ok(&format!("local ctx = ... return #ctx.KV:find('{name}%', {{ 's' }})"));
        assert!(
            count.parse::<usize>().is_ok_and(|count| count <= IO_THREADS),
            "{name}: {count} were written"
        );
        let again = format!(
            "local ctx = ... ctx.KV:set('{name}900', 1, {{ 's' }}) return ctx.KV:get('{name}900', {{ 's' }})"
        );
        assert_eq!(world.ok(&again), "1", "{name}: its records are not locked");
    }
}

#[test]
fn a_task_that_is_cancelled_takes_its_call_with_it() {
    let world = World::with_limits(tight());
    world.db.close_gate();
    world.ok("local ctx, tasks, kept = ..., {}, require('state')()
        kept.done = 0
        for i = 1, 100 do
            tasks[i] = task.spawn(function() ctx.KV:set('k' .. i, i, { 's' }) kept.done += 1 end)
        end
        for i = 51, 100 do task.cancel(tasks[i]) end");
    // Only now: a script that is slow would have some of them done before it cancels them.
    world.db.open_gate();
    let count = world.ok("local ctx, kept = ..., require('state')()
        ctx.KV:set('k60', 'mine', { 's' })
        repeat task.wait(0.001) until kept.done == 50
        return #ctx.KV:find('k%', { 's' })");
    assert_eq!(count, "51");
    assert_eq!(world.db.value(TENANT, "k60", &["s"]).as_deref(), Some(r#""mine""#));
}

#[test]
fn a_lock_of_a_discarded_vm_starts_nothing_of_an_ended_event() {
    let world = World::with_limits(tight());
    // In which order events end is not known, nor how fast an I/O thread is.
    for round in 0..20 {
        world.db.close_gate();
        let holds = world.submit_script(
            TENANT,
            "local ctx = ... ctx.KV:update('k', { 's' }, function()
                local kept = {}
                while true do table.insert(kept, buffer.create(2 ^ 20)) end
            end)",
        );
        world.db.wait_for_waiting(1);
        let waits = world.submit_script(
            TENANT,
            "local ctx, kept = ..., require('state')()
            task.spawn(function() ctx.KV:set('k', 'late', { 's' }) end)
            for _ = 1, 900 do task.delay(30, print) end
            kept.waits = true
            task.wait(30)",
        );
        world.ok("local kept = require('state')() repeat task.wait(0.001) until kept.waits");
        world.db.open_gate();
        let (holds, waits) = (holds.error().to_string(), waits.error().to_string());
        assert!(
            holds.contains("memory") && waits.contains("the tenant's VM was discarded"),
            "{holds}, {waits}"
        );
        let late = world.ok("local ctx = ... return ctx.KV:get('k', { 's' })");
        assert_eq!(late, "null", "round {round}");
    }
}
