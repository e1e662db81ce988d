//! Runs models, and says what came of it.
//!
//! Each model runs under three schedulers: one that takes any thread at each step; one that takes
//! the thread of the highest priority and changes priorities at few points (PCT), which finds what
//! needs long stretches of one thread; and, where a model is tiny, one that tries every order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::base::primitives;
use crate::planted::{self, Planted};

/// A part with threads that use it, and what must hold in each order of their steps.
pub struct Model {
    /// What it is called on the command line.
    pub name: &'static str,
    /// One run; panics if something does not hold.
    pub run: fn(),
    /// Every order is tried, of a run without chance.
    pub is_tiny: bool,
}

/// So many orders under each of the schedulers.
const RUNS: usize = 200_000;
const SHORT_RUNS: usize = 10_000;

/// A mistake is looked for in so many, twice.
const RUNS_TO_FIND: usize = 200_000;

/// How often PCT changes priorities in a run.
const PRIORITY_CHANGES: usize = 3;

/// No model takes a tenth of these: a run that does goes round in circles.
const STEPS_MAX: usize = 20_000;

/// A moment that never comes.
pub fn far() -> Instant {
    Instant::now() + Duration::from_secs(1 << 20)
}

pub use shuttle::thread::spawn;

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    is_short: bool,
    /// The sources have the mistakes: each is to be found.
    finds_planted: bool,
    /// Writes the sources with the mistakes into this folder.
    plants_in: Option<String>,
    only: Option<String>,
    runs: Option<usize>,
    seed: u64,
    /// An order that failed, as it was printed.
    schedule: Option<String>,
}

impl Asked {
    fn read() -> Result<Self, String> {
        let mut asked = Self { seed: 1, ..Self::default() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
            match word.as_str() {
                "--short" => asked.is_short = true,
                "--planted" => asked.finds_planted = true,
                "--plant" => asked.plants_in = Some(value()?),
                "--only" => asked.only = Some(value()?),
                "--runs" => asked.runs = Some(value().and_then(number)? as usize),
                "--seed" => asked.seed = value().and_then(number)?,
                "--schedule" => asked.schedule = Some(value()?),
                _ => return Err(format!("{word} is none of the options")),
            }
        }
        Ok(asked)
    }
}

/// Does what the command line asks for.
pub fn run(models: &[Model]) -> ExitCode {
    let done = Asked::read().and_then(|asked| {
        if let Some(folder) = &asked.plants_in {
            return planted::plant(folder);
        }
        let chosen: Vec<_> = models
            .iter()
            .filter(|model| asked.only.as_deref().is_none_or(|only| model.name.starts_with(only)))
            .collect();
        let is_found =
            |model: &&Model| planted::ALL.iter().any(|planted| planted.model == model.name);
        if let Some(model) = models.iter().find(|model| !is_found(model)) {
            return Err(format!("no mistake shows that {} finds any", model.name));
        }
        if asked.finds_planted { find_planted(&chosen, &asked) } else { check(&chosen, &asked) }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn check(models: &[&Model], asked: &Asked) -> Result<(), String> {
    if let (Some(schedule), [model]) = (&asked.schedule, models) {
        shuttle::replay(model.run, schedule);
        return Ok(());
    }
    let runs = asked.runs.unwrap_or(if asked.is_short { SHORT_RUNS } else { RUNS });
    let mut broken = Vec::new();
    for model in models {
        let began = Instant::now();
        let tried = try_orders(model, runs, asked.seed, FailurePersistence::Print);
        let (tried, is_broken) = match &tried {
            Ok(tried) => (tried.clone(), false),
            Err(after) => (format!("BROKEN after {after} runs"), true),
        };
        println!("{:<24} {tried}, {:.1} s", model.name, began.elapsed().as_secs_f64());
        if is_broken {
            broken.push(model.name);
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("broken, with this seed: {broken:?}")) }
}

/// Looks for each mistake in turn.
fn find_planted(models: &[&Model], asked: &Asked) -> Result<(), String> {
    let mut unfound = Vec::new();
    for Planted { name, model, .. } in planted::ALL {
        let Some(model) = models.iter().find(|known| known.name == *model) else {
            if asked.only.is_some() {
                continue;
            }
            return Err(format!("{name}: there is no model {model}"));
        };
        planted::choose(name);
        let runs = asked.runs.unwrap_or(RUNS_TO_FIND);
        let began = Instant::now();
        match try_orders(model, runs, asked.seed, FailurePersistence::None) {
            Err(after) => {
                let took = began.elapsed().as_secs_f64();
                println!("{:<24} finds {name} after {after} runs, {took:.1} s", model.name);
            }
            Ok(_) => {
                println!("{:<24} DOES NOT FIND {name}", model.name);
                unfound.push(*name);
            }
        }
    }
    if unfound.is_empty() { Ok(()) } else { Err(format!("mistakes not found: {unfound:?}")) }
}

/// What was tried; or after how many runs something did not hold.
fn try_orders(
    model: &Model,
    runs: usize,
    seed: u64,
    failure_persistence: FailurePersistence,
) -> Result<String, usize> {
    primitives::reset();
    let mut config = Config::new();
    config.failure_persistence = failure_persistence;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    let tried = Arc::new(AtomicUsize::new(0));
    let under = |scheduler: Box<dyn Scheduler + Send>| {
        let (run, counts, before) = (model.run, tried.clone(), tried.load(Ordering::Relaxed));
        let counted = move || {
            counts.fetch_add(1, Ordering::Relaxed);
            run();
        };
        let runner = Runner::new(scheduler, config.clone());
        catch_unwind(AssertUnwindSafe(|| runner.run(counted)))
            .map(|_| tried.load(Ordering::Relaxed) - before)
            .map_err(|_| tried.load(Ordering::Relaxed))
    };
    let mut every = String::new();
    if model.is_tiny {
        primitives::set_chance(false);
        let count = under(Box::new(DfsScheduler::new(Some(runs), false)));
        primitives::set_chance(true);
        let of = if count? < runs { "every order" } else { "the first orders" };
        every = format!("{of}: {}; ", count?);
    }
    let random = under(Box::new(RandomScheduler::new_from_seed(seed, runs)))?;
    let pct = under(Box::new(PctScheduler::new_from_seed(seed, PRIORITY_CHANGES, runs)))?;
    Ok(format!("{every}random: {random}, PCT: {pct}"))
}
