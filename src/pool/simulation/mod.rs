//! Masters, workers, links and callers of one process, in a time of their own: every delay, death,
//! cut and jump of the clock is drawn from a seed, and what must always hold is checked after each
//! step. A run that fails says its seed, and `make simulate SEED=…` repeats it step by step.
//!
//! The product's own: the supervisor's steps, a link's map of pending requests, routes, the pool,
//! admission, traffic and quarantine. Stand-ins, as the product's have threads, sockets or
//! processes: `conn.rs` for a connection, `master.rs` for the supervision loop, `process.rs` for a
//! worker. `planted.rs` breaks one thing each, to show that a check can fail.

mod books;
mod conn;
mod dice;
mod faults;
mod master;
mod planted;
mod process;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use planted::Planted;
use world::World;

use crate::base::random;
use crate::pool::process::supervisor::State;

/// Runs of a test without anything set: always the same seeds, so that what was seen once is seen
/// each time. `make simulate` draws others.
const SEEDS: u64 = 300;

/// Kinds of faults.
const FAULTS: usize = 13;

/// So many runs find a planted fault, or its check is of no use.
const PLANTED_WITHIN: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// One run; `Err` says what broke.
fn run(seed: u64, planted: Option<Planted>, traces: bool) -> Result<World, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, planted);
        world.traces = traces;
        world.run().map(|()| world)
    }));
    ran.unwrap_or_else(|_| Err("it panicked; how stands above".to_owned()))
}

#[test]
#[expect(clippy::print_stdout, reason = "a run that fails can be repeated")]
fn every_seed_keeps_what_must_hold() {
    let seed = number("MESOPHYLL_SIMULATION_SEED");
    let (first, seeds) = match (seed, number("MESOPHYLL_SIMULATION_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, Some(seeds)) => (random::u64() >> 24, seeds),
        (None, None) => (0, SEEDS),
    };
    println!("{seeds} seeds from {first}");
    let mut seen = Seen::default();
    for seed in first..first + seeds {
        let world = run(seed, None, seeds == 1).unwrap_or_else(|broken| {
            panic!("seed {seed}: {broken}\n`make simulate SEED={seed}` repeats it")
        });
        seen.add(&world);
    }
    println!("{seen:?}");
    // Fewer seeds of others may happen to lack what is rare.
    if first == 0 || seeds >= 10 * SEEDS {
        seen.check();
    }
}

/// What happened in all runs: a fault that none of them had shows nothing.
#[derive(Debug, Default)]
struct Seen {
    steps: u64,
    ran: u64,
    answered: u64,
    faults: BTreeMap<&'static str, u64>,
    states: BTreeSet<&'static str>,
    outcomes: BTreeSet<&'static str>,
}

impl Seen {
    fn add(&mut self, world: &World) {
        self.steps += world.steps;
        self.ran += world.books.ran;
        self.answered += world.books.answered;
        for (fault, times) in &world.faults {
            *self.faults.entry(*fault).or_default() += times;
        }
        self.states.extend(&world.states);
        self.outcomes.extend(&world.books.kinds);
    }

    fn check(&self) {
        assert!(self.faults.len() >= FAULTS, "{:?}", self.faults);
        assert_eq!(self.states.len(), State::ALL.len(), "{:?}", self.states);
        let outcomes =
            ["busy", "deadline", "no_worker", "ok", "outcome_unknown", "refused", "script"];
        assert!(outcomes.iter().all(|kind| self.outcomes.contains(kind)), "{:?}", self.outcomes);
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "how soon each is found")]
fn every_planted_fault_is_found() {
    for (planted, by) in Planted::ALL {
        let found = (0..PLANTED_WITHIN)
            .find_map(|seed| run(seed, Some(*planted), false).err().map(|broken| (seed, broken)));
        let Some((seed, broken)) = found else { panic!("{planted:?} is not found") };
        println!("{planted:?} is found by seed {seed}: {broken}");
        assert!(by.iter().any(|by| broken.starts_with(by)), "{planted:?}: {broken}");
    }
}

#[test]
fn a_seed_is_one_run() {
    let told = |seed| {
        let world = run(seed, None, false).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        (world.seed, world.steps, world.books.ran, world.books.answered, world.faults)
    };
    for seed in 0..5 {
        assert_eq!(told(seed), told(seed));
    }
}
