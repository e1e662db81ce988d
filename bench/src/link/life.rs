//! What is not throughput: starting, restarting, and what it takes to be there and do nothing.

use std::time::{Duration, Instant};

use super::Runner;
use super::pair::{Pair, Side, Spec};
use crate::harness::{Contestant, Figure, Plan, Role, Sample};
use crate::store::plain_postgres::Database;

/// Tenant states that a start has to read, in the larger case.
const STATES: u64 = 100_000;

/// Workers of the idle pool.
const IDLE_WORKERS: usize = 4;

pub(super) fn run(runner: &mut Runner<'_>, left_out: &mut Vec<String>) -> Result<(), String> {
    runner.idle()?;
    let names = ["cold_start_0", "cold_start_100k", "restart_to_ready_0", "restart_to_ready_100k"];
    if !runner.wants_any(&names) {
        return Ok(());
    }
    match Database::new()? {
        Some(database) => runner.starts(&database),
        None => {
            left_out.push("starts with tenant states: they are in PostgreSQL".to_owned());
            Ok(())
        }
    }
}

fn spec(side: Side, workers: usize, database: Option<&Database>) -> Spec {
    let store = database.map(|database| database.url().to_owned());
    Spec { workers, is_luau: true, store, ..Spec::echo(side) }
}

fn ms(took: Duration) -> Sample {
    vec![(Figure::Only("ms"), took.as_secs_f64() * 1000.0)]
}

impl Runner<'_> {
    /// The rounds of what is started anew for each of them.
    fn start_plan(&self) -> Plan {
        Plan { rounds: self.plan.rounds.min(3), ..self.plan }
    }

    /// Memory of a master and its workers, ready and idle: what each process has for itself and its
    /// share of the rest.
    fn idle(&mut self) -> Result<(), String> {
        let idle = |role: Role, side: Side, is_shared_out: bool| {
            let measure = move |_: usize, _: Duration| {
                let pair = Pair::start(spec(side, IDLE_WORKERS, None))?;
                // What a start leaves behind settles.
                std::thread::sleep(Duration::from_millis(300));
                let (resident, shared_out) = pair.memory();
                let bytes = if is_shared_out { shared_out } else { resident };
                Ok(vec![(Figure::Only("MiB"), bytes as f64 / f64::from(1 << 20))])
            };
            Contestant { role, measure: Box::new(measure) as _ }
        };
        let names = [("idle_memory", true), ("idle_memory_rss", false)];
        for (name, is_shared_out) in names.into_iter().take(if self.plan.is_quick { 1 } else { 2 })
        {
            let contestants = vec![
                idle(Role::Ours, Side::Ours, is_shared_out),
                idle(Role::Async, Side::Peer, is_shared_out),
            ];
            self.case(name, 1, self.start_plan(), contestants)?;
        }
        Ok(())
    }

    fn starts(&mut self, database: &Database) -> Result<(), String> {
        for (states, suffix) in [(0, "0"), (STATES, "100k")] {
            let (cold, again) =
                (format!("cold_start_{suffix}"), format!("restart_to_ready_{suffix}"));
            if !self.wants_any(&[&cold, &again]) {
                continue;
            }
            database.fill_states(states)?;
            let cold_start = |role: Role, side: Side| {
                let measure = move |_: usize, _: Duration| {
                    let begun = Instant::now();
                    let pair = Pair::start(spec(side, 1, Some(database)))?;
                    let took = begun.elapsed();
                    pair.end();
                    Ok(ms(took))
                };
                Contestant { role, measure: Box::new(measure) as _ }
            };
            let contestants =
                vec![cold_start(Role::Ours, Side::Ours), cold_start(Role::Async, Side::Peer)];
            self.case(&cold, 1, self.start_plan(), contestants)?;
            let restart = |role: Role, side: Side| {
                let mut pair = Pair::start(spec(side, 1, Some(database)))?;
                let measure = move |_: usize, _: Duration| Ok(ms(pair.restart()?));
                Ok::<_, String>(Contestant { role, measure: Box::new(measure) as _ })
            };
            let contestants =
                vec![restart(Role::Ours, Side::Ours)?, restart(Role::Async, Side::Peer)?];
            self.case(&again, 1, self.start_plan(), contestants)?;
        }
        Ok(())
    }
}
