//! Scripts must not notice that they are preempted, nor that `coroutine` and `pcall` are not the
//! builtins.

use std::time::{Duration, Instant};

use mlua::{Lua, LuaString};

use super::support::*;
use crate::runtime::TemplateRuntime;
use crate::runtime::luau::{LuauLimits, vm};

/// Pure scripts that return a text.
const CORPUS: [(&str, &str); 7] = [
    ("generators", include_str!("corpus/generators.luau")),
    ("errors", include_str!("corpus/errors.luau")),
    ("close", include_str!("corpus/close.luau")),
    ("language", include_str!("corpus/language.luau")),
    ("coroutines", include_str!("corpus/coroutines.luau")),
    ("algorithms", include_str!("corpus/algorithms.luau")),
    ("libraries", include_str!("corpus/libraries.luau")),
];

/// The same inside a coroutine that the script resumes, and inside one that another one resumes in
/// a `pcall`.
const AROUND: [(&str, &str); 3] = [
    ("", ""),
    ("return coroutine.wrap(function() ", " end)()"),
    (
        "return select(2, coroutine.resume(coroutine.create(function() return select(2, pcall(coroutine.wrap(function() ",
        " end))) end)))",
    ),
];

/// How often a runtime's scripts have been preempted.
fn preemptions(world: &World) -> u64 {
    world.runtime.stats().figures.preemptions
}

fn with_slice(slice: Duration) -> World {
    World::with_limits(LuauLimits { slice, ..LuauLimits::default() })
}

/// What plain Luau, without anything of ours, makes of a script.
fn plain_luau(code: &str) -> String {
    vm::prepare();
    let lua = Lua::new();
    lua.sandbox(true).expect("sandbox");
    let chunk = lua.load(code).set_name("=test").into_function().expect("it compiles");
    // In a coroutine, as scripts run here.
    let result: LuaString = lua.create_thread(chunk).expect("thread").resume(()).expect("it runs");
    result.to_string_lossy()
}

#[track_caller]
fn ours(world: &World, code: &str) -> String {
    serde_json::from_str(&world.ok(code)).expect("a text")
}

#[track_caller]
fn assert_same(name: &str, ours: &str, plain: &str) {
    for (number, (ours, plain)) in ours.lines().zip(plain.lines()).enumerate() {
        assert_eq!(ours, plain, "{name}, result {number}");
    }
    assert_eq!(ours.lines().count(), plain.lines().count(), "{name}");
}

/// Runs the whole corpus, plainly and inside coroutines, until it has been preempted so often.
fn compare_corpus(world: &World, around: &[(&str, &str)], until_preempted: u64) {
    for (name, code) in CORPUS {
        for (before, after) in around {
            let code = format!("{before}{code}{after}");
            let (plain, from) = (plain_luau(&code), preemptions(world));
            let deadline = Instant::now() + SOON;
            loop {
                assert_same(name, &ours(world, &code), &plain);
                if preemptions(world) - from >= until_preempted {
                    break;
                }
                assert!(Instant::now() < deadline, "{name} is not preempted");
            }
        }
    }
}

#[test]
fn the_corpus_gives_what_plain_luau_gives() {
    let world = with_slice(Duration::from_secs(3600));
    compare_corpus(&world, &AROUND, 0);
    assert_eq!(preemptions(&world), 0);
}

#[test]
fn the_corpus_gives_the_same_when_preempted_at_every_chance() {
    // Far more often than any ticker: what goes through deep coroutines takes as many turns as
    // there are interrupts.
    let limits =
        LuauLimits { slice: Duration::ZERO, running: SOON, wall: SOON, ..LuauLimits::default() };
    compare_corpus(&World::with_limits(limits), &AROUND[..1], 20);
}

#[test]
fn the_corpus_gives_the_same_with_slices_of_50_microseconds() {
    compare_corpus(&with_slice(Duration::from_micros(50)), &AROUND, 20);
}
