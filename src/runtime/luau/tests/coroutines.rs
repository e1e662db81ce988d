//! Scripts must not notice that they are preempted, nor that `coroutine` and `pcall` are not the builtins.

use std::time::Duration;

use mlua::{Lua, LuaString};

use super::support::*;
use crate::runtime::luau::{LuauLimits, vm};

/// Pure scripts that return a text.
const CORPUS: [(&str, &str); 4] = [
    ("generators", include_str!("corpus/generators.luau")),
    ("errors", include_str!("corpus/errors.luau")),
    ("close", include_str!("corpus/close.luau")),
    ("language", include_str!("corpus/language.luau")),
];

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
fn compare(world: &World, name: &str, code: &str) {
    let ours: String = serde_json::from_str(&world.ok(code)).expect("a text");
    let plain = plain_luau(code);
    for (number, (ours, plain)) in ours.lines().zip(plain.lines()).enumerate() {
        assert_eq!(ours, plain, "{name}, result {number}");
    }
    assert_eq!(ours.lines().count(), plain.lines().count(), "{name}");
}

#[test]
fn the_corpus_gives_what_plain_luau_gives() {
    let world = with_slice(Duration::from_secs(3600));
    CORPUS.iter().for_each(|(name, code)| compare(&world, name, code));
}

#[test]
fn the_corpus_gives_the_same_when_preempted_at_every_chance() {
    let world = with_slice(Duration::ZERO);
    CORPUS.iter().for_each(|(name, code)| compare(&world, name, code));
}

#[test]
fn the_corpus_gives_the_same_with_slices_of_50_microseconds() {
    let world = with_slice(Duration::from_micros(50));
    for _ in 0..5 {
        CORPUS.iter().for_each(|(name, code)| compare(&world, name, code));
    }
}
