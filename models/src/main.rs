//! Checks the models; prints how many states each has. Ends with 1 if a property does not hold, or
//! if a protocol that is broken on purpose is not found to be.
//!
//! `--short` allows fewer things to go wrong at once, for what is run with every change.

mod shards;

use std::process::ExitCode;
use std::time::Instant;

use shards::{Budget, Fence, Protocol};
use stateright::{Checker, Model};

/// Each failure is tried with each other one.
const FULL: Budget = Budget { failures: 2, writes: 2, gives: 1 };
const SHORT: Budget = Budget { failures: 1, writes: 2, gives: 1 };

fn main() -> ExitCode {
    let is_short = std::env::args().any(|argument| argument == "--short");
    let mut is_fine = true;
    for fence in [Fence::Locked, Fence::Unlocked, Fence::None] {
        let began = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // What is broken breaks soon.
        let budget = if is_short || fence != Fence::Locked { SHORT } else { FULL };
        let protocol = Protocol { fence, budget };
        let checker = protocol.checker().threads(threads).spawn_bfs().join();
        let found = checker.discoveries();
        let broken: Vec<_> =
            shards::ALWAYS.iter().copied().filter(|name| found.contains_key(name)).collect();
        let unseen: Vec<_> =
            shards::SOMETIMES.iter().copied().filter(|name| !found.contains_key(name)).collect();
        println!(
            "{fence:?}: {} states in {:.1} s; broken: {broken:?}",
            checker.unique_state_count(),
            began.elapsed().as_secs_f64()
        );
        if fence == Fence::Locked {
            for name in &broken {
                println!("{name}:\n{}", found[name]);
            }
            println!("never came about: {unseen:?}");
            is_fine &= checker.is_done() && broken.is_empty() && unseen.is_empty();
        } else {
            is_fine &= broken.contains(&shards::ONE_WRITER);
        }
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
