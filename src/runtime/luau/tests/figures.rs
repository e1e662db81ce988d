//! What the runtime counts of what it does: each thing once, under its own kind, and what goes up
//! comes down again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::*;
use crate::base::error::DbError;
use crate::base::limits::MESSAGE_MAX_BYTES;
use crate::dispatch::Job;
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::{LuauConfig, LuauLimits};
use crate::wire::data::{Budget, DbCall, ERRORS_KEY, ERRORS_SCOPE, RuntimeFigures, TenantId};

/// Limits that every budget can be brought to in a moment.
fn tight() -> LuauLimits {
    LuauLimits {
        memory_bytes: 16 * 1024 * 1024,
        running: Duration::from_millis(300),
        wall: Duration::from_secs(2),
        unyieldable: Duration::from_millis(60),
        coroutines: 20,
        spawns: 50,
        host_calls: 150,
        ..LuauLimits::default()
    }
}

fn figures(world: &World) -> RuntimeFigures {
    world.runtime.stats().figures
}

/// The budgets that were exceeded, and how often.
fn exceeded(world: &World) -> Vec<(Budget, u64)> {
    let figures = figures(world);
    let counts = Budget::ALL.iter().map(|budget| (*budget, figures.budget(*budget)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn an_exceeded_budget_counts_once_and_is_no_script_error() {
    for (budget, code) in [
        (
            Budget::Memory,
            "local kept = {} while true do table.insert(kept, string.rep('x', 1e5) .. #kept) end",
        ),
        (Budget::RunningTime, "while true do pcall(function() while true do end end) end"),
        (Budget::WallTime, "coroutine.yield()"),
        (
            Budget::Unyieldable,
            "return setmetatable({}, { __index = function() while true do end end }).x",
        ),
        (Budget::Coroutines, "for _ = 1, 30 do task.spawn(task.wait, 50) end task.wait(50)"),
        (Budget::Spawns, "for _ = 1, 100 do task.spawn(function() end) end"),
        (Budget::Calls, "for _ = 1, 200 do task.wait(0) end"),
    ] {
        let world = World::with_limits(LuauLimits {
            running: if budget == Budget::RunningTime { tight().running } else { SOON },
            wall: if budget == Budget::WallTime { tight().wall } else { SOON },
            ..tight()
        });
        let error = world.err(code);
        assert!(error.starts_with("budget exceeded: "), "{budget:?}: {error}");
        assert_eq!(exceeded(&world), [(budget, 1)], "{error}");
        assert_eq!(world.ok("return 'alive'"), r#""alive""#);
        eventually(|| figures(&world).wall.count() == 2);
        let figures = figures(&world);
        let discarded = u64::from(budget == Budget::Memory);
        assert_eq!(
            (figures.script_errors, figures.discarded_vms, figures.running.count()),
            (0, discarded, 2)
        );
    }
}

/// The tenant's warnings among its last errors, and how many of each kind were counted.
fn warned(world: &World, tenant: TenantId) -> (usize, u64, u64) {
    let errors = world.db.value(tenant, ERRORS_KEY, &[ERRORS_SCOPE]).unwrap_or_default();
    let figures = figures(world);
    (
        errors.matches("warning: ").count(),
        figures.warnings(Budget::Memory),
        figures.warnings(Budget::RunningTime),
    )
}

#[test]
fn a_tenant_near_its_memory_is_warned_once() {
    let world = World::with_limits(tight());
    let grow =
        "local kept = require('state')() table.insert(kept, buffer.create(2 ^ 20)) return #kept";
    for mib in 1..=12 {
        assert_eq!(world.ok(grow), mib.to_string());
    }
    assert_eq!(warned(&world, TENANT), (0, 0, 0), "twelve of sixteen");
    assert_eq!(world.ok(grow), "13");
    eventually(|| warned(&world, TENANT) == (1, 1, 0));
    assert_eq!(world.ok(grow), "14");
    for _ in 0..1000 {
        assert_eq!(world.ok("return #require('state')()"), "14");
    }
    // A record of an error that comes later has been written, so a second warning would be there.
    world.err("error('later')");
    let errors = || world.db.value(TENANT, ERRORS_KEY, &[ERRORS_SCOPE]).unwrap_or_default();
    eventually(|| errors().contains("later"));
    assert_eq!(warned(&world, TENANT), (1, 1, 0), "{}", errors());
    assert!(errors().contains("of at most 16 MiB"), "{}", errors());
    assert_eq!(exceeded(&world), []);
}

#[test]
fn an_event_near_its_running_time_is_warned_of_once() {
    let world = World::with_limits(tight());
    // Where the machine is busy an event takes longer than the script means, and is ended: then the
    // next tenant tries.
    let spin = "local ctx = ... while ctx.Runtime:stats().running_seconds < 0.25 do end";
    let ran = |tenant| world.submit_script(tenant, spin).text().is_ok();
    let mut tenants = (1..100).map(TenantId::User);
    let tenant = tenants.find(|tenant| ran(*tenant)).expect("one event within its time");
    eventually(|| warned(&world, tenant).0 == 1);
    for _ in 0..5 {
        ran(tenant);
    }
    let is_recorded = || {
        let errors = world.db.value(tenant, ERRORS_KEY, &[ERRORS_SCOPE]).unwrap_or_default();
        errors.contains("later")
    };
    assert!(world.submit_script(tenant, "error('later')").text().is_err());
    eventually(is_recorded);
    assert_eq!(warned(&world, tenant), (1, 0, 1));
}

#[test]
fn a_full_queue_counts_and_waiting_and_running_are_shown() {
    let world = World::with_limits(LuauLimits {
        tenant_running: 3,
        tenant_waiting: 4,
        ..LuauLimits::default()
    });
    world.db.close_gate();
    let pending: Vec<_> = (0..7)
        .map(|_| world.submit_script(TENANT, "local ctx = ... return ctx.KV:get('k', { 's' })"))
        .collect();
    eventually(|| (figures(&world).waiting_events, figures(&world).coroutines) == (4, 3));
    assert!(
        world
            .submit_script(TENANT, "return 1")
            .text()
            .is_err_and(|error| error.contains("are waiting already"))
    );
    assert_eq!(exceeded(&world), [(Budget::Queue, 1)]);
    world.db.open_gate();
    pending.iter().for_each(|pending| assert_eq!(pending.text().as_deref(), Ok("null")));
    eventually(|| (figures(&world).waiting_events, figures(&world).coroutines) == (0, 0));
    // What a dropped tenant had goes too.
    world.db.close_gate();
    let _pending: Vec<_> = (0..7)
        .map(|_| world.submit_script(TENANT, "local ctx = ... return ctx.KV:get('k', { 's' })"))
        .collect();
    eventually(|| (figures(&world).waiting_events, figures(&world).coroutines) == (4, 3));
    assert!(world.submit(TENANT, Job::DropTenant).wait().is_ok());
    eventually(|| (figures(&world).waiting_events, figures(&world).coroutines) == (0, 0));
    assert!(!world.runtime.has_vm(TENANT));
}

#[test]
fn script_errors_count_with_and_without_a_waiter() {
    let world = World::new();
    world.err("error('boom')");
    world.err("return function( syntax");
    assert_eq!(world.ok("task.defer(function() error('later') end) return 1"), "1");
    eventually(|| figures(&world).script_errors == 3);
    let too_large = format!("return string.rep('x', {MESSAGE_MAX_BYTES})");
    let error = world.err(&too_large);
    assert!(error.contains("the value is larger than"), "{error}");
    assert_eq!((figures(&world).script_errors, figures(&world).large_answers), (4, 1));
    assert_eq!(exceeded(&world), []);
}

#[test]
fn running_time_is_without_waits_and_wall_time_with_them() {
    let world = World::with_limits(LuauLimits { running: Duration::from_millis(200), ..tight() });
    assert_eq!(world.ok("task.wait(0.3) return 1"), "1");
    eventually(|| figures(&world).wall.count() == 1);
    let (running, wall) = (figures(&world).running.sum_us(), figures(&world).wall.sum_us());
    assert!(wall >= 300_000 && running < wall, "{running} {wall}");
    world.err("while true do end");
    eventually(|| figures(&world).running.count() == 2);
    // Its last turn is counted too: it never paused.
    let ran = figures(&world).running.sum_us() - running;
    assert!(ran >= 200_000, "{ran}");
    assert!(figures(&world).preemptions > 0);
}

#[test]
fn database_calls_are_timed_by_kind_with_their_failures() {
    let world = World::new();
    let call = |call: DbCall| {
        let figures = figures(&world);
        (figures.db(call).took.count(), figures.db(call).failed)
    };
    world.ok("local ctx = ...
        ctx.KV:set('k', 1, { 's' }) ctx.KV:get('k', { 's' }) ctx.KV:getrecord('k', { 's' }) ctx.KV:find('%', { 's' })
        ctx.KV:update('k', { 's' }, function(old) return old + 1 end)
        ctx.KV:list_scopes() ctx.KV:delete('k', { 's' })
        ctx.GlobalKV:create{ key = 'my.key', version = 1, short = 's', public_metadata = 1, scope = 'x', data = 1 }
        ctx.GlobalKV:find('%', 'x') ctx.GlobalKV:get('my.key', 1, 'x') ctx.GlobalKV:delete('my.key', 1, 'x')
        ctx.Runtime:settenantstate{ events = { 'A' }, data = 1 }
        ctx.Timers:cancel(ctx.Timers:after(60, 'E')) ctx.Timers:list()");
    for (kind, count) in [(DbCall::Get, 3), (DbCall::Set, 2)] {
        assert_eq!(call(kind), (count, 0), "{kind:?}");
    }
    for kind in DbCall::ALL.iter().filter(|kind| !matches!(kind, DbCall::Get | DbCall::Set)) {
        assert_eq!(call(*kind), (1, 0), "{kind:?}");
    }
    // As the script sees it: with the time that it waits for the record that another one holds.
    world.db.close_gate();
    let writes = "local ctx = ... ctx.KV:set('k', 1, { 's' })";
    let first = world.submit_script(TENANT, writes);
    world.db.wait_for_waiting(1);
    let second = world.submit_script(TENANT, writes);
    eventually(|| figures(&world).coroutines == 2);
    let held = std::time::Instant::now();
    eventually(|| held.elapsed() > Duration::from_millis(200));
    let before = figures(&world).db(DbCall::Set).took.sum_us();
    world.db.open_gate();
    assert!(first.text().is_ok() && second.text().is_ok());
    let took = figures(&world).db(DbCall::Set).took.sum_us() - before;
    // Twice that, less what the second one took to begin: the first one alone is no more than half
    // of it.
    assert!(took >= 300_000 && call(DbCall::Set) == (4, 0), "{took}");
    world.db.fail_with(Some(DbError::Unavailable("on purpose".to_owned())));
    world.err("local ctx = ... return ctx.KV:get('k', { 's' })");
    assert_eq!(call(DbCall::Get), (4, 1));
}

#[test]
fn a_tenant_has_a_vm_from_its_first_event_until_it_is_closed() {
    let world = World::with_config(LuauConfig { executors: 3, ..LuauConfig::default() });
    for number in 1..20 {
        let tenant = TenantId::Guild(number);
        assert!(!world.runtime.has_vm(tenant));
        assert_eq!(world.submit_script(tenant, "return 1").text().as_deref(), Ok("1"));
        assert!(world.runtime.has_vm(tenant) && !world.runtime.has_vm(TenantId::User(number)));
    }
    assert!(world.submit(TenantId::Guild(7), Job::DropTenant).wait().is_ok());
    assert!(!world.runtime.has_vm(TenantId::Guild(7)) && world.runtime.has_vm(TenantId::Guild(8)));
    // A panic takes the VM, and is counted.
    world.states.panics.store(true, Ordering::Relaxed);
    let panics = "local ctx = ... return ctx.Runtime:gettenantstate()";
    assert!(world.submit_script(TenantId::Guild(8), panics).text().is_err());
    world.states.panics.store(false, Ordering::Relaxed);
    eventually(|| !world.runtime.has_vm(TenantId::Guild(8)));
    assert_eq!((figures(&world).panics, figures(&world).discarded_vms), (1, 1));
    eventually(|| world.runtime.stats().vms == 17);
}
