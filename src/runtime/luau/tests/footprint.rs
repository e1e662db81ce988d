//! What a VM costs in memory and an event in time. With `MESOPHYLL_MEASURE` set it says what it
//! measured, for docs/benchmarks.md.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use super::support::*;
use crate::base::clock::ScriptClock;
use crate::dispatch::{Answer, Job, RequestId};
use crate::runtime::luau::control::Control;
use crate::runtime::luau::host::Host;
use crate::runtime::luau::script_feed::ScriptFeed;
use crate::runtime::luau::script_log::ScriptLog;
use crate::runtime::luau::templates::Templates;
use crate::runtime::luau::ticker::Ticker;
use crate::runtime::luau::vm::{self, Vm};
use crate::runtime::luau::{LuauConfig, LuauLimits, TemplateSource};
use crate::runtime::{TemplateRuntime, TenantDb, TenantStates};
use crate::wire::data::TenantId;

fn measures() -> bool {
    std::env::var_os("MESOPHYLL_MEASURE").is_some()
}

fn say(line: &str) {
    if measures() {
        // Not `print`, which is for results of commands.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Memory of this process, in bytes; nothing where there is no /proc.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

#[test]
fn a_vm_is_small_before_its_template_does_anything() {
    vm::prepare();
    let (ticker, ticks) = Ticker::start("tick", 1, Duration::from_millis(2)).expect("start");
    let control = Control::new(
        LuauLimits::default(),
        ScriptClock::System,
        ticks[0].clone(),
        Arc::new(AtomicBool::new(false)),
    );
    let templates = Arc::new(Templates::default());
    let states: Arc<dyn TenantStates> = Arc::new(States::default());
    let db: Arc<dyn TenantDb> = Arc::new(MemoryDb::default());
    let make = |id| {
        let id = TenantId::Guild(id);
        let host = Host::new(
            id,
            &control,
            &templates,
            &states,
            &Rc::new(ScriptLog::new(id, 1, &db, &Arc::default())),
            &Rc::new(ScriptFeed::new(id, &db, &Arc::default())),
            &Arc::default(),
        );
        Vm::new(&control, host).expect("a VM")
    };
    drop(make(0));
    let (count, before, started) = (if measures() { 2000 } else { 3 }, resident(), Instant::now());
    let vms: Vec<_> = (0..count).map(make).collect();
    // Other tests of this process may have let go of more meanwhile.
    let (each, took) =
        (resident().saturating_sub(before) / count, started.elapsed() / count as u32);
    let (live, pages) = (vms[1].lua.heap_dump().expect("a dump").size(), vms[1].lua.used_memory());
    let started = Instant::now();
    drop(vms);
    let closing = started.elapsed() / count as u32;
    say(&format!(
        "a VM: {live} bytes of objects, {pages} of pages, {each} resident; made in {took:?}, closed in {closing:?}"
    ));
    ticker.stop();
    assert!(live < 97_000, "{live}");
    assert!(pages < 160_000, "{pages}");
}

#[test]
fn events_are_echoed_at_the_rate_that_they_come_in() {
    let template = "return function(ctx) return ctx:event().data end".to_owned();
    let templates = TemplateSource::Files(vec![("main.luau".to_owned(), template)]);
    let world = World::with_config(LuauConfig { templates, ..LuauConfig::default() });
    let data = r#"{"content": "hello there", "author": {"id": "7", "username": "ann"}, "mentions": [], "tts": false}"#;
    let (answer_tx, answer_rx) = unbounded();
    let submit = |number: u64| {
        let answer_tx = answer_tx.clone();
        let answer = Answer::callback(move |result| drop(answer_tx.send(result)));
        world.runtime.submit(
            TenantId::Guild(number % 100),
            RequestId(number),
            Job::Dispatch(event("E", data)),
            answer,
        );
    };
    let (warm, count) = if measures() { (20_000, 300_000) } else { (100, 2000) };
    (0..200).for_each(submit);
    let mut started = Instant::now();
    for number in 200..warm + count {
        assert!(answer_rx.recv_timeout(SOON).expect("an answer").is_ok());
        submit(number);
        if number == warm {
            started = Instant::now();
        }
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    say(&format!("echo, one executor, 100 tenants, 200 events under way: {rate:.0}/s"));
    (0..200).for_each(|_| assert!(answer_rx.recv_timeout(SOON).expect("an answer").is_ok()));
    assert_eq!(world.runtime.stats().events, warm + count);
}
