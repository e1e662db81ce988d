//! Time as scripts have it, where it is not the system's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::support::*;
use crate::base::clock::{ManualClock, ScriptClock};
use crate::runtime::luau::{LuauConfig, LuauLimits, StillRunning, TemplateSource};

const SECOND: Duration = Duration::from_secs(1);

fn world(template: &str) -> (World, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
    let files = vec![("main.luau".to_owned(), template.to_owned())];
    let world = World::with_config(LuauConfig {
        templates: TemplateSource::Files(files),
        clock: ScriptClock::Manual(clock.clone()),
        limits: LuauLimits { wall: 30 * SECOND, ..LuauLimits::default() },
        ..LuauConfig::default()
    });
    (world, clock)
}

fn rest(world: &World) -> Option<Instant> {
    world.runtime.rest(Instant::now() + SOON).expect("nothing runs")
}

#[test]
fn timers_fire_when_the_clock_is_moved() {
    let (world, clock) = world(
        "return function()
            local began, waited = timestamp.now(), task.wait(20)
            return { waited, (timestamp.now() - began).seconds, timestamp.now().unix }
        end",
    );
    let began = clock.now();
    let pending = world.submit_event(TENANT, "E", "null");
    assert_eq!(rest(&world), Some(began + 20 * SECOND));
    clock.move_to(began + 19 * SECOND);
    assert_eq!(rest(&world), Some(began + 20 * SECOND));
    assert!(pending.answer_rx.is_empty());
    clock.move_to(began + 20 * SECOND);
    assert_eq!(rest(&world), None);
    assert_eq!(pending.text().as_deref(), Ok("[20,20,20]"));
}

#[test]
fn wall_time_is_over_by_the_clock_that_is_moved() {
    let (world, clock) = world("return function() coroutine.yield() end");
    let pending = world.submit_event(TENANT, "E", "null");
    let over = rest(&world).expect("the end of its wall time");
    assert_eq!(over, clock.now() + 30 * SECOND);
    clock.move_to(over);
    assert_eq!(rest(&world), None);
    let error = pending.text().expect_err("it is over");
    assert!(error.contains("30 s of wall time"), "{error}");
}

#[test]
fn a_rest_waits_for_what_is_under_way() {
    let (world, _) = world("return function(ctx) return ctx.KV:get('a', {}) end");
    world.db.close_gate();
    let pending = world.submit_event(TENANT, "E", "null");
    world.db.wait_for_waiting(1);
    assert_eq!(world.runtime.rest(Instant::now() + Duration::from_millis(20)), Err(StillRunning));
    world.db.open_gate();
    rest(&world);
    assert!(!pending.answer_rx.is_empty());
}
