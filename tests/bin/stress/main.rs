//! `make stress`: a real master under everything at once, by a seed. Callers check each answer
//! while workers are killed, stopped and restarted, links break, and the master or its store stands
//! still; in the end the books must balance. Not a test of `make test`: it takes as long as it is
//! told to, and wants the machine for itself.
//!
//! `stress BINARY`, with STRESS_SECONDS (60), STRESS_SEED (of the day), STRESS_WORKERS (4),
//! STRESS_TENANTS (64), STRESS_CALLERS (24). With MESOPHYLL_TEST_POSTGRES_URL in
//! STRESS_STORE=postgres the store is a database of its own there, which is locked now and then;
//! else it is an embedded one, which stands still with the master only. With STRESS_MASTERS=3 it is
//! several masters over a PostgreSQL of the run's own (masters/).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, and what it prints is its interface"
)]

mod callers;
mod clock;
#[cfg(feature = "postgres")]
mod masters;
mod mischief;
mod site;

#[path = "../../it/support/chaos.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod chaos;
#[path = "../../it/support/process.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod process;
#[path = "../../it/support/random.rs"]
mod random;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use callers::Ledger;
use clock::Clock;
use mischief::Mischief;
use random::Random;
use site::{Facts, Site};

/// How long `process` waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the run is made of.
pub(crate) struct Plan {
    pub(crate) binary: PathBuf,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) workers: usize,
    pub(crate) tenants: u64,
    pub(crate) callers: u64,
    pub(crate) is_postgres: bool,
    pub(crate) masters: usize,
    pub(crate) kills: u64,
}

impl Plan {
    fn read() -> Option<Self> {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
            Err(_) => otherwise,
        };
        let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Some(Self {
            binary: PathBuf::from(std::env::args_os().nth(1)?).canonicalize().ok()?,
            seed: number("STRESS_SEED", day),
            time: Duration::from_secs(number("STRESS_SECONDS", 60)),
            workers: number("STRESS_WORKERS", 4) as usize,
            tenants: number("STRESS_TENANTS", 64),
            callers: number("STRESS_CALLERS", 24),
            masters: number("STRESS_MASTERS", 1) as usize,
            kills: number("STRESS_KILLS", 0),
            is_postgres: std::env::var("STRESS_STORE").is_ok_and(|store| store == "postgres"),
        })
    }
}

fn main() -> ExitCode {
    let Some(plan) = Plan::read() else {
        eprintln!("usage: stress BINARY (see tests/bin/stress/main.rs)");
        return ExitCode::from(2);
    };
    println!(
        "stress: seed {}, {:?}, {} workers, {} tenants, {} callers, store {}",
        plan.seed,
        plan.time,
        plan.workers,
        plan.tenants,
        plan.callers,
        if plan.is_postgres { "postgres" } else { "redb" }
    );
    let wrong = if plan.masters > 1 { run_masters(&plan) } else { run(&plan) };
    for wrong in &wrong {
        println!("WRONG: {wrong}");
    }
    println!(
        "{} (STRESS_SEED={})",
        if wrong.is_empty() { "all is well" } else { "FAILED" },
        plan.seed
    );
    ExitCode::from(u8::from(!wrong.is_empty()))
}

#[cfg(feature = "postgres")]
fn run_masters(plan: &Plan) -> Vec<String> {
    masters::run(plan)
}

#[cfg(not(feature = "postgres"))]
fn run_masters(_plan: &Plan) -> Vec<String> {
    vec!["several masters need a build with PostgreSQL".to_owned()]
}

/// Runs the plan; returns what was wrong.
fn run(plan: &Plan) -> Vec<String> {
    let site = Site::start(plan);
    let clock = Clock::start();
    let ledger = Ledger::new(plan);
    let before = site.facts();
    // Once without mischief, so that what a master keeps for good is there.
    call_for(&site, plan, &ledger, 0, clock::pause_until);
    let warm = site.facts();
    let mut mischief = Mischief::new(plan, &site, &ledger, &clock);
    call_for(&site, plan, &ledger, 1, |_| mischief.act(Instant::now() + plan.time));
    mischief.end();
    let mut wrong = site.wait_recovered();
    call_for(&site, plan, &ledger, 2, clock::pause_until);
    let after = site.wait_quiet(&before);
    println!("{}", ledger.summary(&clock));
    println!("{}", mischief.summary());
    println!("master before: {before}");
    println!("master warm:   {warm}");
    println!("master after:  {after}");
    wrong.extend(ledger.check(&site, &clock));
    wrong.extend(mischief.check());
    wrong.extend(Facts::check(&before, &warm, &after));
    wrong.extend(site.stop());
    wrong
}

/// Lets the callers call while `act` runs, which is told a few seconds as its end.
fn call_for(site: &Site, plan: &Plan, ledger: &Ledger, part: u64, act: impl FnOnce(Instant)) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for caller in 0..plan.callers {
            let random = Random::new(plan.seed.wrapping_mul(1000) + part * 100 + caller);
            let done = &done;
            scope.spawn(move || callers::call(site, ledger, random, done));
        }
        act(Instant::now() + Duration::from_secs(5));
        done.store(true, Ordering::SeqCst);
    });
}
