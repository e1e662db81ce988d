//! Keys that are chosen to collide cost what any keys cost, wherever they come from:
//! `vendor/README.md`.
//!
//! The keys here have equal hashes in Luau as it is published. Each case runs once with them and
//! once with ordinary keys of the same count and size, and the two times are compared: with the
//! published hash they differ a hundredfold.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::support::*;
use crate::dispatch::Job;
use crate::runtime::luau::LuauLimits;
use crate::wire::data::TenantId;

/// So many texts; and so many numbers of each sort.
const COUNT: usize = 30_000;

/// Colliding keys may take so many times as long as ordinary ones.
const RATIO_MAX: u32 = 8;

/// Texts of 30 bytes that the published `luaS_hash` does not tell apart.
///
/// It goes from the last byte to the first, and many pairs of bytes lead from one of its states to
/// the same next one. So each of the fifteen pairs of a text is any member of such a class.
fn colliding_texts(count: usize) -> Vec<String> {
    let mut state = 30_u32;
    let classes: Vec<Vec<[u8; 2]>> = (0..15)
        .map(|_| {
            let (next, class) = largest_class(state);
            state = next;
            class
        })
        .collect();
    let text = |mut number: usize| {
        let mut bytes = Vec::new();
        for class in &classes {
            bytes.extend(class[number % class.len()]);
            number /= class.len();
        }
        bytes.reverse();
        String::from_utf8(bytes).expect("ASCII")
    };
    (0..count).map(text).collect()
}

fn step(state: u32, byte: u8) -> u32 {
    state ^ (state << 5).wrapping_add(state >> 2).wrapping_add(u32::from(byte))
}

fn largest_class(state: u32) -> (u32, Vec<[u8; 2]>) {
    let mut classes: HashMap<u32, Vec<[u8; 2]>> = HashMap::new();
    // Printable, and neither a quote nor a backslash.
    let bytes = || (b'#'..b'~').filter(|byte| *byte != b'\\');
    for first in bytes() {
        for second in bytes() {
            classes.entry(step(step(state, first), second)).or_default().push([first, second]);
        }
    }
    classes.into_iter().max_by_key(|(next, class)| (class.len(), *next)).expect("there are pairs")
}

/// A generator of ordinary texts and numbers.
fn mixed(number: usize) -> u64 {
    let mut mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

fn ordinary_texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{:030}", mixed(number))).collect()
}

/// Numbers that the published `hashnum` does not tell apart: its steps, backwards from one result.
fn colliding_numbers(count: usize) -> impl Iterator<Item = f64> {
    // The inverse of its factor, 0x5bd1e995.
    const BACK: u32 = 0xe59b_19bd;
    assert_eq!(BACK.wrapping_mul(0x5bd1_e995), 1);
    let number = |free: u32| {
        let mut low = free;
        let mut high = 7_u32.wrapping_mul(BACK) ^ (low >> 19);
        low = low.wrapping_mul(BACK) ^ (high >> 17);
        high = high.wrapping_mul(BACK) ^ (low >> 22);
        low = low.wrapping_mul(BACK) ^ (high >> 18);
        f64::from_bits(u64::from(high) << 32 | u64::from(low))
    };
    (0..).map(number).filter(|number| number.is_finite() && number.is_sign_positive()).take(count)
}

fn ordinary_numbers(count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(|number| mixed(number) as f64 / 3.0)
}

fn list(items: impl IntoIterator<Item = impl std::fmt::Debug>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(","))
}

/// The shortest of three times, as the machine may be busy.
fn best(run: impl Fn() -> Duration) -> Duration {
    (0..3).map(|_| run()).min().expect("three runs")
}

/// Runs a template in a new VM on this data and closes the VM: how long both took.
fn run_and_close(template: &str, data: &str) -> Duration {
    let limits =
        LuauLimits { running: SOON, wall: SOON, unyieldable: SOON, ..LuauLimits::default() };
    let world = World::with(&[("main.luau", template)], limits);
    world.db.put(TENANT, "list", &["s"], data);
    let started = Instant::now();
    world.dispatch("Test", data).expect("the template works");
    world.submit(TENANT, Job::DropTenant).wait().expect("the VM is closed");
    started.elapsed()
}

#[track_caller]
fn assert_alike(case: &str, template: &str, colliding: &str, ordinary: &str) {
    assert_eq!(colliding.len() / 1000, ordinary.len() / 1000, "{case}: data of one size");
    let control = best(|| run_and_close(template, ordinary));
    let attack = best(|| run_and_close(template, colliding));
    assert!(attack < control * RATIO_MAX, "{case}: {attack:?}, and {control:?} with ordinary keys");
}

#[test]
fn the_texts_collide_in_the_published_hash() {
    let hash = |text: &String| text.bytes().rev().fold(text.len() as u32, step);
    let texts = colliding_texts(COUNT);
    assert!(texts.iter().all(|text| hash(text) == hash(&texts[0])));
    let mut distinct = texts;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), COUNT);
}

#[test]
fn colliding_texts_cost_what_others_cost() {
    let (colliding, ordinary) = (list(colliding_texts(COUNT)), list(ordinary_texts(COUNT)));
    for (case, template) in [
        ("event data", "return function(ctx) return #ctx:event().data end"),
        ("a value of KV", "return function(ctx) return #ctx.KV:get('list', { 's' }) end"),
        (
            "keys of a table",
            "return function(ctx)
                local t = {}
                for _, text in ctx:event().data do t[text] = true end
                return #table.clone(t)
            end",
        ),
    ] {
        assert_alike(case, template, &colliding, &ordinary);
    }
    // One text, which the script takes apart in a single call.
    let joined = |texts: Vec<String>| list([texts.join("!")]);
    let split = "return function(ctx) return #string.split(ctx:event().data[1], '!') end";
    let without =
        |texts: Vec<String>| texts.into_iter().map(|text| text.replace('!', "?")).collect();
    let (colliding, ordinary) =
        (joined(without(colliding_texts(COUNT))), joined(ordinary_texts(COUNT)));
    assert_alike("string.split", split, &colliding, &ordinary);
}

#[test]
fn colliding_numbers_cost_what_others_cost() {
    // Those that do not collide find their places taken by those that do, and a table that grows
    // moves all.
    let with = |numbers: Vec<f64>| {
        let others = (0..COUNT).map(|number| mixed(number + COUNT) as f64 / 7.0);
        list(numbers.into_iter().zip(others).flat_map(|(number, other)| [number, other]))
    };
    let template = "return function(ctx)
        local t = {}
        for _, number in ctx:event().data do t[number] = true end
        return #table.clone(t)
    end";
    let (colliding, ordinary) =
        (with(colliding_numbers(COUNT).collect()), with(ordinary_numbers(COUNT).collect()));
    let control = best(|| run_and_close(template, &ordinary));
    let attack = best(|| run_and_close(template, &colliding));
    assert!(attack < control * RATIO_MAX, "{attack:?}, and {control:?} with ordinary numbers");
}

#[test]
fn the_order_of_pairs_is_one_order_in_a_process() {
    let world = World::new();
    let code = "
        local t = {}
        for i = 1, 50 do t['key' .. i] = i end
        local order = {}
        for key in t do order[#order + 1] = key end
        return table.concat(order, ' ')";
    let first = world.ok(code);
    assert_eq!(first, world.submit_script(TenantId::Guild(2), code).text().expect("it works"));
}
