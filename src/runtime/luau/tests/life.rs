//! The life of VMs: when they are made and closed, how many there are, and what their ends leave
//! behind.

use std::time::Duration;

use super::support::*;
use crate::base::error::DispatchError;
use crate::base::limits::IO_THREADS;
use crate::dispatch::Job;
use crate::dispatch::worker_like::handed_over;
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::{LuauConfig, LuauLimits, TemplateSource};
use crate::wire::data::TenantId;
use crate::wire::data::sharding::Shard;

/// Counts the events of a VM, so that a new VM is known by its 1.
const COUNTS: &str = "local count = 0 return function(ctx)
    count += 1
    local wait = ctx:event().data
    if wait == 'kv' then ctx.KV:get('k', { 's' }) elseif wait == 'loop' then while true do end end
    if type(wait) == 'number' then task.wait(wait) end
    return count
end";

fn world(max_vms: usize, vm_idle: Duration) -> World {
    let templates = TemplateSource::Files(vec![("main.luau".to_owned(), COUNTS.to_owned())]);
    World::with_config(LuauConfig { templates, max_vms, vm_idle, ..LuauConfig::default() })
}

fn tenant(number: u64) -> TenantId {
    TenantId::Guild(number)
}

fn vms(world: &World) -> u64 {
    world.runtime.stats().vms
}

#[test]
fn a_vm_in_which_nothing_runs_is_closed_after_a_time() {
    let world = world(100, Duration::from_millis(200));
    for number in 0..20 {
        assert_eq!(world.submit_event(tenant(number), "E", "null").text().as_deref(), Ok("1"));
    }
    eventually(|| vms(&world) == 0);
    assert_eq!(world.runtime.stats().figures.evicted_vms, 20);
    // One in which something waits is not closed, however long it takes.
    world.db.close_gate();
    let waits =
        world.submit_script(TENANT, "local ctx = ... ctx.KV:get('k', { 's' }) return 'still here'");
    world.db.wait_for_waiting(1);
    let sleeps = world.submit_script(tenant(2), "task.wait(0.6) return 'slept'");
    assert_eq!(sleeps.text().as_deref(), Ok("\"slept\""));
    assert!(world.runtime.has_vm(TENANT));
    world.db.open_gate();
    assert_eq!(waits.text().as_deref(), Ok("\"still here\""));
    eventually(|| vms(&world) == 0);
}

#[test]
fn what_was_handed_over_ends_with_its_vm_and_leaves_the_others() {
    let world = world(100, SOON);
    let (gone, kept) = (TenantId::Guild(1 << 22), TenantId::Guild(2 << 22));
    let count = |tenant| world.submit_event(tenant, "E", "null").text();
    assert_eq!((count(gone).as_deref(), count(kept).as_deref()), (Ok("1"), Ok("1")));
    let (sleeps, other) =
        (world.submit_event(gone, "E", "20"), world.submit_event(kept, "E", "0.3"));
    eventually(|| world.runtime.stats().events == 4);
    let loops = world.submit_event(gone, "E", "\"loop\"");
    let waits: Vec<_> = (0..200).map(|_| world.submit_event(gone, "E", "20")).collect();
    world.runtime.drop_shards(&Shard::new(1).into_iter().collect());
    assert_eq!(sleeps.error(), handed_over());
    assert!([handed_over(), DispatchError::NotOwner].contains(&loops.error()));
    // What had not begun did nothing.
    assert_eq!(waits.last().expect("some").error(), DispatchError::NotOwner);
    eventually(|| !world.runtime.has_vm(gone));
    assert_eq!(other.text().as_deref(), Ok("2"));
    assert_eq!(count(kept).as_deref(), Ok("3"));
    assert_eq!(count(gone).as_deref(), Ok("1"), "it came back, and nothing is left of it");
}

#[test]
fn at_the_cap_the_vm_that_has_been_idle_longest_makes_room() {
    let world = world(3, SOON);
    let count = |number| world.submit_event(tenant(number), "E", "null").text();
    for number in [1, 2, 3, 1] {
        count(number).expect("counted");
    }
    assert_eq!(count(4).as_deref(), Ok("1"));
    assert_eq!((vms(&world), world.runtime.stats().figures.evicted_vms), (3, 1));
    assert_eq!(count(1).as_deref(), Ok("3"));
    assert_eq!(count(3).as_deref(), Ok("2"));
    assert_eq!(count(2).as_deref(), Ok("1"), "it had been idle longest");
}

#[test]
fn one_vm_serves_many_tenants_in_turn_whatever_they_wait_for() {
    for executors in [1, 10] {
        let templates = TemplateSource::Files(vec![("main.luau".to_owned(), COUNTS.to_owned())]);
        let world = World::with_config(LuauConfig {
            templates,
            max_vms: 1,
            executors,
            ..LuauConfig::default()
        });
        let data = ["null", "0.001", "\"kv\""];
        let pending: Vec<_> = (0..600)
            .map(|number| world.submit_event(tenant(number % 60), "E", data[number as usize % 3]))
            .collect();
        pending.iter().for_each(|pending| assert!(pending.text().is_ok(), "{:?}", pending.text()));
        assert!(vms(&world) <= executors as u64);
    }
}

#[test]
fn a_tenant_that_is_never_idle_gives_its_vm_up_for_another() {
    let world = world(1, SOON);
    world.db.close_gate();
    let held =
        world.submit_script(TENANT, "local ctx = ... ctx.KV:get('k', { 's' }) return 'held'");
    world.db.wait_for_waiting(1);
    let other = world.submit_script(tenant(2), "return 'other'");
    // Nothing new starts in the first VM, or it would never be idle.
    eventually(|| world.runtime.stats().in_flight == 2);
    let later = world.submit_script(TENANT, "return 'later'");
    assert!(other.answer_rx.is_empty());
    world.db.open_gate();
    assert_eq!(held.text().as_deref(), Ok("\"held\""));
    assert_eq!(other.text().as_deref(), Ok("\"other\""));
    assert_eq!(later.text().as_deref(), Ok("\"later\""));
}

#[test]
fn who_waits_for_too_long_for_a_vm_is_told_that_all_are_busy() {
    let world = world(1, SOON);
    world.db.close_gate();
    let held =
        world.submit_script(TENANT, "local ctx = ... ctx.KV:get('k', { 's' }) return 'held'");
    world.db.wait_for_waiting(1);
    let refused = world.submit_script(tenant(2), "return 'never'");
    match refused.error() {
        DispatchError::Busy(text) => assert_eq!(text, "every VM of the worker is in use"),
        other => panic!("{other}"),
    }
    world.db.open_gate();
    assert_eq!(held.text().as_deref(), Ok("\"held\""));
    assert_eq!(world.submit_script(tenant(2), "return 'now'").text().as_deref(), Ok("\"now\""));
}

#[test]
fn dropping_ends_what_waits_and_what_loops_and_leaves_no_vm() {
    for what in ["\"kv\"", "20", "\"loop\""] {
        for executors in [1, 10] {
            let templates =
                TemplateSource::Files(vec![("main.luau".to_owned(), COUNTS.to_owned())]);
            let world =
                World::with_config(LuauConfig { templates, executors, ..LuauConfig::default() });
            assert_eq!(world.submit_event(TENANT, "E", "null").text().as_deref(), Ok("1"));
            world.db.close_gate();
            let running = world.submit_event(TENANT, "E", what);
            eventually(|| world.runtime.stats().events == 2);
            let behind = world.submit_event(TENANT, "E", what);
            assert!(world.submit(TENANT, Job::DropTenant).wait().is_ok());
            assert!(running.error().to_string().contains("dropped"), "{}", running.error());
            assert!(behind.error().to_string().contains("dropped"));
            assert_eq!(vms(&world), 0);
            world.db.open_gate();
            assert_eq!(world.submit_event(TENANT, "E", "null").text().as_deref(), Ok("1"));
        }
    }
}

#[test]
fn eviction_races_with_events_and_loses_no_answer() {
    let templates = TemplateSource::Files(vec![("main.luau".to_owned(), COUNTS.to_owned())]);
    let limits = LuauLimits { slice: Duration::from_micros(50), ..LuauLimits::default() };
    let config = LuauConfig {
        templates,
        limits,
        executors: 10,
        max_vms: 20,
        vm_idle: Duration::from_micros(200),
        ..LuauConfig::default()
    };
    let world = World::with_config(config);
    let mut random = 1_u64;
    let mut pending = Vec::new();
    for round in 0..4000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let tenant = tenant((random >> 33) % 40);
        pending.push(match (random >> 20) % 10 {
            0 => world.submit(tenant, Job::DropTenant),
            1 => world.submit_event(tenant, "E", "\"kv\""),
            2 => world.submit_event(tenant, "E", "0.0001"),
            _ => world.submit_event(tenant, "E", "null"),
        });
        if round % 100 == 99 {
            // With pauses, so that VMs go idle and are closed between events too.
            pending.drain(..).for_each(|pending| match pending.wait() {
                Ok(_) => {}
                Err(error) => assert!(error.to_string().contains("dropped"), "{error}"),
            });
        }
    }
    eventually(|| vms(&world) == 0);
    let stats = world.runtime.stats();
    assert!(stats.figures.evicted_vms > 100 && stats.in_flight == 0, "{stats:?}");
}

#[test]
fn a_changed_template_is_read_before_the_next_event() {
    let world = world(10, SOON);
    let put = |source: &str| world.db.put(TENANT, "main", &["template"], &format!("{source:?}"));
    let count = || world.submit_event(TENANT, "E", "null").text();
    assert_eq!(count().as_deref(), Ok("1"));
    // Nothing has changed in fact: the VM stays.
    world.runtime.template_changed(TENANT);
    world.runtime.template_changed(tenant(99));
    assert_eq!(count().as_deref(), Ok("2"));
    world.runtime.templates_in_doubt();
    assert_eq!(count().as_deref(), Ok("3"));
    put("return function() return 'own' end");
    assert_eq!(count().as_deref(), Ok("4"), "nobody has told of it");
    world.runtime.template_changed(TENANT);
    assert_eq!(count().as_deref(), Ok("\"own\""));
    put("return function() return 'newer' end");
    world.runtime.templates_in_doubt();
    assert_eq!(count().as_deref(), Ok("\"newer\""));
    put("return function(");
    world.runtime.template_changed(TENANT);
    assert!(count().is_err_and(|error| error.contains("main.luau:1: Expected")));
    put("return function() return 'mended' end");
    world.runtime.template_changed(TENANT);
    assert_eq!(count().as_deref(), Ok("\"mended\""));
    eventually(|| vms(&world) == 1);
}

#[test]
fn a_running_event_keeps_its_vm_and_a_third_vm_waits() {
    let world = world(10, SOON);
    let change = |number: usize| {
        let source = format!("return function(ctx) ctx.KV:get('k', {{ 's' }}) return {number} end");
        world.db.put(TENANT, "main", &["template"], &format!("{source:?}"));
        world.runtime.template_changed(TENANT);
    };
    change(1);
    // The template's own loading passes the gate too.
    let start = |waiting: usize| {
        let pending = world.submit_event(TENANT, "E", "null");
        eventually(|| world.runtime.stats().events == waiting as u64);
        pending
    };
    assert_eq!(start(1).text().as_deref(), Ok("1"));
    let hold = || world.submit_script(TENANT, "local ctx = ... task.wait(3) return ctx.tenant.id");
    let first = hold();
    eventually(|| world.runtime.stats().events == 2);
    change(2);
    assert_eq!(start(3).text().as_deref(), Ok("2"), "beside the first");
    assert_eq!(vms(&world), 2);
    let second = hold();
    eventually(|| world.runtime.stats().events == 4);
    change(3);
    let third = world.submit_event(TENANT, "E", "null");
    assert_eq!(first.text().as_deref(), Ok("\"1\""));
    assert_eq!(second.text().as_deref(), Ok("\"1\""));
    assert_eq!(third.text().as_deref(), Ok("3"));
    eventually(|| vms(&world) == 1);
}

#[test]
fn changes_race_with_drops_and_lose_no_answer() {
    let templates = TemplateSource::Files(vec![("main.luau".to_owned(), COUNTS.to_owned())]);
    let limits = LuauLimits { slice: Duration::from_micros(50), ..LuauLimits::default() };
    let (max_vms, vm_idle) = (8, Duration::from_micros(300));
    let config =
        LuauConfig { templates, limits, executors: 4, max_vms, vm_idle, ..LuauConfig::default() };
    let world = World::with_config(config);
    let mut random = 7_u64;
    let mut pending = Vec::new();
    for round in 0..4000_u64 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let tenant = tenant((random >> 33) % 20);
        match (random >> 20) % 8 {
            0 => {
                let source =
                    format!("return function(ctx) ctx.KV:get('k', {{ 's' }}) return {round} end");
                world.db.put(tenant, "main", &["template"], &format!("{source:?}"));
                world.runtime.template_changed(tenant);
            }
            1 => pending.push(world.submit(tenant, Job::DropTenant)),
            2 => pending.push(world.submit_event(tenant, "E", "0.0003")),
            3 if round % 50 == 0 => world.runtime.templates_in_doubt(),
            _ => pending.push(world.submit_event(tenant, "E", "null")),
        }
        if round % 100 == 99 {
            pending.drain(..).for_each(|pending| match pending.wait() {
                Ok(_) => {}
                Err(error) => assert!(error.to_string().contains("dropped"), "{error}"),
            });
        }
    }
    eventually(|| vms(&world) == 0 && world.runtime.stats().in_flight == 0);
}

/// The last errors of a tenant, as JSON, when there are some that `are`.
fn errors(world: &World, tenant: TenantId, are: impl Fn(&str) -> bool) -> String {
    let value = || world.db.value(tenant, "last", &["#err"]).unwrap_or_default();
    eventually(|| are(&value()));
    value()
}

#[test]
fn the_last_errors_of_a_tenant_are_kept_for_its_author() {
    let world = World::with_template(
        "local function deep(data) error(data) end
        return function(ctx)
            local data = ctx:event().data
            if data == 'task' then task.spawn(function() task.wait() error('in a task') end) return 1 end
            if data == 'read' then return ctx.KV:find('%', { '#err' })[1].value[1].message end
            if data == 'write' then ctx.KV:set('last', {}, { '#err' }) end
            deep(data)
        end",
    );
    assert!(world.dispatch("Fails", r#""boom""#).is_err());
    let kept = errors(&world, TENANT, |kept| kept.contains("boom"));
    for part in [
        r#""event":"Fails""#,
        r#""message":"main.luau:1: boom""#,
        r#""template":"main""#,
        r#""traceback":["in main.luau:1 function 'deep'","in main.luau:7"]"#,
        r#""at":{"$timestamp":"#,
    ] {
        assert!(kept.contains(part), "no {part} in {kept}");
    }
    assert_eq!(world.dispatch("E", r#""read""#).as_deref(), Ok(r#""main.luau:1: boom""#));
    let refusal = world.dispatch("E", r#""write""#).expect_err("refused");
    assert!(refusal.contains("read-only"), "{refusal}");
    // What has no waiter, and what is no template's.
    assert_eq!(world.dispatch("E", r#""task""#).as_deref(), Ok("1"));
    assert!(
        world
            .submit_script(TENANT, "while true do end")
            .error()
            .to_string()
            .contains("running time")
    );
    assert!(world.submit_script(TENANT, "x x").text().is_err());
    errors(&world, TENANT, |kept| {
        let all = [
            "in a task",
            "running time",
            "test:1: Incomplete statement",
            "boom",
            r#""template":"test""#,
        ];
        all.iter().all(|part| kept.contains(part))
    });
    // Only so many, the newest first.
    let answers: Vec<_> =
        (0..100).map(|number| world.submit_event(TENANT, "E", &format!("\"n{number}\""))).collect();
    answers.iter().for_each(|answer| assert!(answer.text().is_err()));
    let kept = errors(&world, TENANT, |kept| kept.contains(": n99"));
    assert_eq!(kept.matches("\"event\"").count(), 20, "{kept}");
}

#[test]
fn a_database_away_holds_up_no_error_and_loses_none() {
    let world =
        World::with_template("return function(ctx) error('number ' .. ctx:event().data) end");
    assert!(world.dispatch("E", "1").is_err());
    errors(&world, TENANT, |kept| kept.contains("number 1"));
    // The record's own operation waits, and the events do not.
    world.db.close_gate();
    assert!(world.dispatch("E", "2").is_err_and(|error| error.contains("number 2")));
    world.db.wait_for_waiting(1);
    for number in 3..1000 {
        assert!(world.dispatch("E", &number.to_string()).is_err());
    }
    world.db.open_gate();
    errors(&world, TENANT, |kept| kept.contains("number 999"));
    world.db.fail_with(Some(crate::base::error::DbError::Unavailable("away".to_owned())));
    assert!(world.dispatch("E", "1000").is_err());
    let before = std::time::Instant::now();
    eventually(|| before.elapsed() > Duration::from_secs(2));
    world.db.fail_with(None);
    errors(&world, TENANT, |kept| kept.contains("number 1000"));
}

#[test]
fn errors_of_a_tenant_that_moved_away_are_not_tried_again() {
    let world =
        World::with_template("return function(ctx) error('number ' .. ctx:event().data) end");
    let moved = "another master has the tenant now; nothing was done".to_owned();
    world.db.fail_with(Some(crate::base::error::DbError::NotOwner(moved)));
    // It cannot even read its template.
    assert!(world.dispatch("E", "1").is_err_and(|error| error.contains("another master")));
    let before = std::time::Instant::now();
    eventually(|| before.elapsed() > Duration::from_secs(2));
    world.db.fail_with(None);
    assert!(world.dispatch("E", "2").is_err_and(|error| error.contains("number 2")));
    errors(&world, TENANT, |kept| kept.contains("number 2"));
    let kept = world.db.value(TENANT, "last", &["#err"]).unwrap_or_default();
    assert!(!kept.contains("another master"), "{kept}");
}

#[test]
fn threads_for_what_waits_are_there_only_when_something_waits() {
    let world = world(100, SOON);
    let threads = || (world.runtime.shared.io.threads(), world.runtime.shared.errors.threads());
    assert_eq!(threads(), ((0, 0), 0));
    world.db.close_gate();
    let pending: Vec<_> = (0..3 * IO_THREADS as u64)
        .map(|number| world.submit_event(tenant(number), "E", "\"kv\""))
        .collect();
    world.db.wait_for_waiting(IO_THREADS);
    assert_eq!(threads(), ((IO_THREADS, 0), 0));
    world.db.open_gate();
    pending.iter().for_each(|pending| assert_eq!(pending.text().as_deref(), Ok("1")));
    world.err("error('on purpose')");
    assert_eq!(threads(), ((IO_THREADS, 1), 1));
    world.runtime.shutdown();
    assert_eq!(threads(), ((0, 0), 0));
    let recorded = world.db.value(TENANT, "last", &["#err"]).unwrap_or_default();
    assert!(recorded.contains("on purpose"), "what was noted is written before the end");
}
