//! The link part: dispatches from a master to its worker, ours beside the async peer, the floors
//! and the outside choices.
//!
//! Each contestant is a master process, with the load driver inside as callers call in-process, and
//! its worker processes. What differs between the drivers is each style's own: ours is a thread
//! that keeps so many in flight, whose answers come into one channel; the peer's is so many tasks
//! that wait for one answer each.

pub mod asked;
mod events;
mod floors;
mod grpc;
mod http;
mod life;
mod messages;
mod nats;
mod ours;
mod pair;
mod stream;
pub mod tasks;
#[cfg(test)]
mod tests;
mod theirs;
mod vms;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use floors::serve as serve_ping_pong;
pub use pair::run_process;

use crate::harness::{self, Case, Contestant, Figure, Plan, Role, Row, Sample};
use asked::{Kind, Load, Outcome, Size};
use floors::{Over, PingPong};
use pair::{Pair, Side, Spec, Turn};

/// What new processes do before a turn of theirs counts.
const FRESH_WARM_UP: Duration = Duration::from_millis(60);

/// The same where they make a VM for each tenant first.
const API_WARM_UP: Duration = Duration::from_millis(300);

/// Processor time comes in ticks of 10 ms: a turn in which it counts has a good number of them.
const FLIGHT_LASTING_MIN: Duration = Duration::from_millis(400);

/// Tenants that take turns where a case says nothing else.
const TENANTS: u64 = 100;

/// Runs the cases of the link.
pub fn run(
    folder: &Path,
    plan: Plan,
    wanted: &dyn Fn(&str) -> bool,
    rows: &mut Vec<Row>,
    left_out: &mut Vec<String>,
) -> Result<(), String> {
    let mut runner = Runner { plan, wanted, rows };
    runner.dispatches(folder, left_out)?;
    runner.on_one_processor()?;
    runner.growth()?;
    runner.luau()?;
    runner.vms()?;
    runner.api()?;
    runner.messages()?;
    runner.noisy()?;
    life::run(&mut runner, left_out)
}

/// Does so many dispatches with a master and a worker of ours in this process: `lone_tiny`,
/// `lone_2k` or `tiny_64`. Or, without a link, makes so many VMs (`vm_start`) or runs so many events
/// in those that are there (`luau_tiny`, `luau_2k`).
pub fn guarded(kind: &str, count: u64) -> Result<(), String> {
    let load = match kind {
        "vm_start" => return vms::make(count),
        "luau_tiny" => return vms::echo(Size::Tiny, count),
        "luau_2k" => return vms::echo(Size::TwoK, count),
        "lone_tiny" => load(Kind::RoundTrip, Size::Tiny, 1),
        "lone_2k" => load(Kind::RoundTrip, Size::TwoK, 1),
        "tiny_64" => load(Kind::Flight, Size::Tiny, 64),
        _ => return Err(format!("nothing is called {kind}")),
    };
    let (master, tokens) = ours::start_master(1, None, None, None)?;
    let address = master.listen_addr().ok_or("a master without a port")?.to_string();
    let token = tokens.into_iter().next().unwrap_or_default();
    let role = pair::Role { address, token, worker: 0, workers: 1, is_luau: false };
    let worker = ours::Worker::start(&role, Arc::default())?;
    ours::wait_ready(&master)?;
    ours::Driver::new(master.pool(), load).do_count(count)?;
    worker.stop();
    master.stop(Instant::now() + Duration::from_secs(10), |_| {});
    Ok(())
}

struct Runner<'r> {
    plan: Plan,
    wanted: &'r dyn Fn(&str) -> bool,
    rows: &'r mut Vec<Row>,
}

/// A pair that several cases use in turn.
type Shared = Rc<RefCell<Pair>>;

fn shared(side: Side, workers: usize, is_luau: bool) -> Result<Shared, String> {
    Ok(Rc::new(RefCell::new(Pair::start(Spec { workers, is_luau, ..Spec::echo(side) })?)))
}

/// Who dispatches to an echo: new processes for each turn.
///
/// Where the scheduler puts two processes on two processors, and with that what waking each other
/// up costs them, is decided when they start, stays so, and differs by a factor of four: the rounds
/// of one pair of processes would all be either.
struct Echoes {
    outside: Vec<(&'static str, Side)>,
    /// All processes of a contestant share a processor, where nobody is ever far away.
    on_one_processor: bool,
}

impl Echoes {
    fn new(left_out: &mut Vec<String>) -> Self {
        let mut outside = vec![("vs_grpc", Side::Grpc)];
        match nats::why_not() {
            None => outside.push(("vs_nats", Side::Nats)),
            Some(why) => {
                eprintln!("LEFT OUT: {why}");
                left_out.push(why);
            }
        }
        Self { outside, on_one_processor: false }
    }

    fn on_one_processor() -> Self {
        Self { outside: Vec::new(), on_one_processor: true }
    }

    fn fresh(
        &self,
        role: Role,
        side: Side,
        load: Load,
        figures: fn(Turn) -> Sample,
    ) -> Contestant<'static> {
        let spec = Spec { on_one_processor: self.on_one_processor, ..Spec::echo(side) };
        let measure = move |_: usize, lasting: Duration| {
            let mut pair = Pair::start(spec.clone())?;
            pair.run(&Load { lasting: FRESH_WARM_UP, ..load })?;
            Ok(figures(pair.run(&Load { lasting, ..load })?))
        };
        Contestant { role, measure: Box::new(measure) }
    }

    fn both(&self, load: Load, figures: fn(Turn) -> Sample) -> Vec<Contestant<'static>> {
        let sides = [(Role::Ours, Side::Ours), (Role::Async, Side::Peer)];
        sides.into_iter().map(|(role, side)| self.fresh(role, side, load, figures)).collect()
    }

    /// And the outside choices, in one figure: what their servers cost is not seen.
    fn all(
        &self,
        load: Load,
        figures: fn(Turn) -> Sample,
        outside: fn(Turn) -> Sample,
    ) -> Vec<Contestant<'static>> {
        let outside = self
            .outside
            .iter()
            .map(|(name, side)| self.fresh(Role::Other(name), *side, load, outside));
        self.both(load, figures).into_iter().chain(outside).collect()
    }
}

/// One that does turns like `load`, of whatever length it is told.
fn contestant(
    role: Role,
    pair: &Shared,
    load: Load,
    figures: fn(Turn) -> Sample,
) -> Contestant<'static> {
    let pair = pair.clone();
    let measure = move |_: usize, lasting: Duration| {
        Ok(figures(pair.borrow_mut().run(&Load { lasting, ..load })?))
    };
    Contestant { role, measure: Box::new(measure) }
}

fn load(kind: Kind, size: Size, in_flight: usize) -> Load {
    Load { kind, size, in_flight, tenants: TENANTS, lasting: Duration::ZERO }
}

/// What round trips are judged by.
fn latencies(outcome: Outcome) -> Sample {
    let [p50, p99, p999, _] = outcome.times;
    vec![(Figure::P50, p50), (Figure::P99, p99), (Figure::P999, p999)]
}

fn half(outcome: Outcome) -> Sample {
    vec![(Figure::P50, outcome.times[0])]
}

fn rate(outcome: Outcome) -> f64 {
    outcome.done as f64 / outcome.seconds
}

fn only_rate(turn: Turn) -> Sample {
    vec![(Figure::Only("1/s"), rate(turn.outcome))]
}

/// What throughput is judged by.
fn throughput(turn: Turn) -> Sample {
    vec![
        (Figure::Rate, rate(turn.outcome)),
        (Figure::CpuPerMillion, turn.cpu_seconds * 1e6 / turn.outcome.done as f64),
        (Figure::PeakMemory, turn.peak_bytes as f64 / f64::from(1 << 20)),
    ]
}

impl Runner<'_> {
    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| (self.wanted)(name))
    }

    fn case(
        &mut self,
        name: &str,
        in_flight: usize,
        plan: Plan,
        contestants: Vec<Contestant<'_>>,
    ) -> Result<(), String> {
        if (self.wanted)(name) {
            eprintln!("{name} with {in_flight}");
            let mut case = Case { name: name.to_owned(), callers: in_flight, contestants };
            self.rows.extend(harness::run(&mut case, plan)?);
        }
        Ok(())
    }

    fn dispatches(&mut self, folder: &Path, left_out: &mut Vec<String>) -> Result<(), String> {
        const NAMES: [&str; 11] = [
            "dispatch_rtt_tiny",
            "dispatch_rtt_2k",
            "dispatch_rtt_2k_tree",
            "dispatch_rtt_tiny_unix",
            "dispatch_tiny_unix",
            "dispatch_tiny",
            "dispatch_2k",
            "dispatch_2k_tree",
            "nowait_tiny",
            "dispatch_10m",
            "mixed_tenants",
        ];
        if !self.wants_any(&NAMES) {
            return Ok(());
        }
        let echoes = Echoes::new(left_out);
        self.round_trips(&echoes, folder)?;
        let unix = [
            (Role::Ours, Side::OursUnix),
            (Role::Async, Side::Peer),
            (Role::Other("vs_tcp"), Side::Ours),
        ];
        self.over_another("unix", &unix, &echoes)?;
        let tls = [(Role::Ours, Side::OursTls), (Role::Other("vs_tcp"), Side::Ours)];
        self.over_another("tls", &tls, &echoes)?;
        let plan = self.fresh_plan(FLIGHT_LASTING_MIN);
        for (size, in_flight) in [(Size::Tiny, 64), (Size::Tiny, 1024), (Size::TwoK, 64)] {
            let contestants = echoes.all(load(Kind::Flight, size, in_flight), throughput, |turn| {
                vec![(Figure::Rate, rate(turn.outcome))]
            });
            self.case(&format!("dispatch_{size}"), in_flight, plan, contestants)?;
        }
        let contestants = echoes.both(load(Kind::Flight, Size::TwoKTree, 64), throughput);
        self.case("dispatch_2k_tree", 64, plan, contestants)?;
        self.case(
            "nowait_tiny",
            1,
            plan,
            echoes.both(load(Kind::Nowait, Size::Tiny, 1), only_rate),
        )?;
        let large = echoes.both(load(Kind::RoundTrip, Size::TenM, 1), |turn| half(turn.outcome));
        self.case("dispatch_10m", 1, plan, large)?;
        self.mixed(&echoes)
    }

    fn round_trips(&mut self, echoes: &Echoes, folder: &Path) -> Result<(), String> {
        for (size, bytes) in [(Size::Tiny, 200), (Size::TwoK, 2048)] {
            let name = format!("dispatch_rtt_{size}");
            if !self.wants_any(&[&name]) {
                continue;
            }
            let mut contestants = echoes.all(
                load(Kind::RoundTrip, size, 1),
                |turn| latencies(turn.outcome),
                |turn| half(turn.outcome),
            );
            for (role, over, has_hand_over) in [
                (Role::Floor, Over::Tcp, true),
                (Role::Other("vs_tcp_bare"), Over::Tcp, false),
                (Role::Other("vs_unix"), Over::Unix, true),
                (Role::Other("vs_unix_bare"), Over::Unix, false),
            ] {
                let figures = if role == Role::Floor { latencies } else { half };
                let measure = move |_: usize, lasting: Duration| {
                    let mut floor = PingPong::start(over, bytes, has_hand_over, folder)?;
                    floor.run(FRESH_WARM_UP)?;
                    Ok(figures(floor.run(lasting)?))
                };
                contestants.push(Contestant { role, measure: Box::new(measure) });
            }
            self.case(&name, 1, self.fresh_plan(Duration::ZERO), contestants)?;
        }
        let contestants =
            echoes.both(load(Kind::RoundTrip, Size::TwoKTree, 1), |turn| latencies(turn.outcome));
        self.case("dispatch_rtt_2k_tree", 1, self.fresh_plan(Duration::ZERO), contestants)
    }

    /// As a master's own workers are connected, or those of other hosts, beside ours over TCP.
    fn over_another(
        &mut self,
        way: &str,
        sides: &[(Role, Side)],
        echoes: &Echoes,
    ) -> Result<(), String> {
        let lone = |&(role, side): &(Role, Side)| {
            echoes
                .fresh(role, side, load(Kind::RoundTrip, Size::Tiny, 1), |turn| half(turn.outcome))
        };
        self.case(
            &format!("dispatch_rtt_tiny_{way}"),
            1,
            self.fresh_plan(Duration::ZERO),
            sides.iter().map(lone).collect(),
        )?;
        let flight = |&(role, side): &(Role, Side)| {
            echoes.fresh(role, side, load(Kind::Flight, Size::Tiny, 64), throughput)
        };
        self.case(
            &format!("dispatch_tiny_{way}"),
            64,
            self.fresh_plan(FLIGHT_LASTING_MIN),
            sides.iter().map(flight).collect(),
        )
    }

    /// What it is about is work alone: nobody waits for another processor to wake up.
    fn on_one_processor(&mut self) -> Result<(), String> {
        let echoes = Echoes::on_one_processor();
        let round_trip =
            echoes.both(load(Kind::RoundTrip, Size::Tiny, 1), |turn| half(turn.outcome));
        self.case("one_processor_rtt_tiny", 1, self.fresh_plan(Duration::ZERO), round_trip)?;
        let plan = self.fresh_plan(FLIGHT_LASTING_MIN);
        for (size, in_flight) in [(Size::Tiny, 64), (Size::Tiny, 1024), (Size::TwoK, 64)] {
            let contestants = echoes.both(load(Kind::Flight, size, in_flight), |turn| {
                vec![(Figure::Rate, rate(turn.outcome))]
            });
            self.case(&format!("one_processor_{size}"), in_flight, plan, contestants)?;
        }
        let nowait = echoes.both(load(Kind::Nowait, Size::Tiny, 1), only_rate);
        self.case("one_processor_nowait_tiny", 1, plan, nowait)
    }

    /// Whether a dispatch costs the same with more tenants, and with more workers, each of which
    /// has as much to do.
    fn growth(&mut self) -> Result<(), String> {
        let plan = self.fresh_plan(FLIGHT_LASTING_MIN);
        let tenants =
            [1, 1000, 100_000].map(|tenants| (format!("growth_tenants_{tenants}"), 1, tenants));
        let workers =
            [1, 8, 32].map(|workers| (format!("growth_workers_{workers}"), workers, 1000));
        for (name, workers, tenants) in tenants.into_iter().chain(workers) {
            let in_flight = 64 * workers;
            let load = Load { tenants, ..load(Kind::Flight, Size::Tiny, in_flight) };
            let turn = |(role, side): (Role, Side)| {
                let measure = move |_: usize, lasting: Duration| {
                    let mut pair = Pair::start(Spec { workers, ..Spec::echo(side) })?;
                    pair.run(&Load { lasting: FRESH_WARM_UP, ..load })?;
                    Ok(throughput(pair.run(&Load { lasting, ..load })?))
                };
                Contestant { role, measure: Box::new(measure) }
            };
            let sides = [(Role::Ours, Side::Ours), (Role::Async, Side::Peer)];
            self.case(&name, in_flight, plan, sides.map(turn).into())?;
        }
        Ok(())
    }

    /// For new processes in each turn, which have a warm-up of their own.
    fn fresh_plan(&self, lasting_min: Duration) -> Plan {
        let rounds = if self.plan.is_quick { 3 } else { self.plan.rounds };
        Plan {
            rounds,
            lasting: self.plan.lasting.max(lasting_min),
            warm_up: Duration::ZERO,
            ..self.plan
        }
    }

    /// In the full run each side has a minute in all.
    fn mixed(&mut self, echoes: &Echoes) -> Result<(), String> {
        let lasting =
            if self.plan.is_quick { Duration::from_millis(2500) } else { Duration::from_secs(12) };
        let plan = Plan { lasting, warm_up: Duration::ZERO, ..self.plan };
        let load = Load { tenants: 1000, ..load(Kind::Timed, Size::Mixed, 64) };
        let figures = |turn: Turn| {
            let rate = (Figure::Rate, rate(turn.outcome));
            [rate].into_iter().chain(latencies(turn.outcome)).collect()
        };
        self.case("mixed_tenants", 64, plan, echoes.both(load, figures))
    }

    /// Through real VMs: the template returns its event's data.
    fn luau(&mut self) -> Result<(), String> {
        let plan = Plan { lasting: self.plan.lasting.max(FLIGHT_LASTING_MIN), ..self.plan };
        for workers in [1, 4] {
            let names = [
                (format!("luau_echo_w{workers}"), Size::Tiny),
                (format!("luau_echo_2k_w{workers}"), Size::TwoK),
            ];
            if !self.wants_any(&[&names[0].0, &names[1].0]) {
                continue;
            }
            let (ours, peer) =
                (shared(Side::Ours, workers, true)?, shared(Side::Peer, workers, true)?);
            for (name, size) in names.into_iter().take(if self.plan.is_quick { 1 } else { 2 }) {
                let load = load(Kind::Flight, size, 64);
                let contestants = vec![
                    contestant(Role::Ours, &ours, load, throughput),
                    contestant(Role::Async, &peer, load, throughput),
                ];
                self.case(&name, 64, plan, contestants)?;
            }
        }
        Ok(())
    }

    /// Through the internal API and two workers with real VMs, beside an axum route of the peer's.
    fn api(&mut self) -> Result<(), String> {
        let turn = |role: Role, side: Side| {
            let measure = move |in_flight: usize, lasting: Duration| {
                let mut pair = Pair::start(Spec { workers: 2, is_luau: true, ..Spec::echo(side) })?;
                let load = load(Kind::Timed, Size::Tiny, in_flight);
                // Every tenant's VM is there before anything counts.
                pair.run(&Load { lasting: API_WARM_UP, ..load })?;
                let turn = pair.run(&Load { lasting, ..load })?;
                Ok(throughput(turn).into_iter().chain(latencies(turn.outcome)).collect())
            };
            Contestant { role, measure: Box::new(measure) }
        };
        for (name, ours) in [("api_dispatch", Side::OursApi), ("api_stream", Side::OursStream)] {
            let contestants = vec![turn(Role::Ours, ours), turn(Role::Async, Side::PeerApi)];
            self.case(name, 64, self.fresh_plan(FLIGHT_LASTING_MIN), contestants)?;
        }
        Ok(())
    }

    /// From a tenant of one worker to one of another.
    fn messages(&mut self) -> Result<(), String> {
        for (name, is_luau) in [("message", false), ("message_template", true)] {
            let talk = |kind: Kind, figures: fn(Turn) -> Sample| {
                let measure = move |in_flight: usize, lasting: Duration| {
                    let side = Side::OursMessages;
                    let mut pair = Pair::start(Spec { workers: 2, is_luau, ..Spec::echo(side) })?;
                    let load = load(kind, Size::Tiny, in_flight);
                    pair.run(&Load { lasting: FRESH_WARM_UP, ..load })?;
                    Ok(figures(pair.run(&Load { lasting, ..load })?))
                };
                vec![Contestant { role: Role::Ours, measure: Box::new(measure) }]
            };
            let lone = talk(Kind::RoundTrip, |turn| {
                let rate = (Figure::Rate, rate(turn.outcome));
                [rate].into_iter().chain(latencies(turn.outcome)).collect()
            });
            self.case(name, 1, self.fresh_plan(Duration::ZERO), lone)?;
            let flight = talk(Kind::Flight, throughput);
            self.case(name, 64, self.fresh_plan(FLIGHT_LASTING_MIN), flight)?;
        }
        Ok(())
    }

    /// One tenant loops for ever, in the same worker as a hundred others. New processes for each
    /// turn, as a loop may last longer than the turn that it was begun in.
    fn noisy(&mut self) -> Result<(), String> {
        // The full run's turns are longer than the loop may last; in a shorter one the peer's times
        // are cut off at its end.
        let lasting =
            if self.plan.is_quick { Duration::from_secs(2) } else { Duration::from_secs(12) };
        let plan = Plan { lasting, rounds: self.plan.rounds.min(3), ..self.plan };
        let noisy = |role: Role, side: Side| {
            let measure = move |_: usize, lasting: Duration| {
                let mut pair = Pair::start(Spec { is_luau: true, ..Spec::echo(side) })?;
                // Every tenant's VM is there before the loop begins.
                pair.run(&Load {
                    lasting: Duration::from_millis(200),
                    ..load(Kind::Flight, Size::Tiny, 16)
                })?;
                let turn = pair.run(&Load { lasting, ..load(Kind::Noisy, Size::Tiny, 16) })?;
                let [p50, p99, ..] = turn.outcome.times;
                Ok(vec![(Figure::P50, p50), (Figure::P99, p99), (Figure::Rate, rate(turn.outcome))])
            };
            Contestant { role, measure: Box::new(measure) }
        };
        let contestants = vec![noisy(Role::Ours, Side::Ours), noisy(Role::Async, Side::Peer)];
        self.case("noisy_neighbour", 1, plan, contestants)
    }
}
