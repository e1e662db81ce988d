//! Several machines over one database, in a time of their own: every delay, loss, pause and outage
//! is drawn from a seed, and what must always hold is checked at each step.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ClusterAction, ClusterEvent, ClusterMachine};
use crate::base::random;
use crate::cluster::member::assign::assign;
use crate::cluster::member::fake::FakeDatabase;
use crate::store::lease::{Fence, LeaseAsk, LeaseTold, MasterId, MasterState, Membership};
use crate::wire::data::sharding::{Shard, ShardSet};

const LEASE: Duration = Duration::from_secs(6);
const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// After the last fault: two leases, the pause after two losses, and hand-overs 64 at a time.
const BOUND: Duration = Duration::from_secs(120);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        random::mix(self.0) % most
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }
}

/// What happens at a time to come.
enum Happening {
    /// A machine gets an event, unless it has been started anew since.
    Event(usize, u64, ClusterEvent),
    /// A machine may be due.
    Tick(usize, u64),
    /// A question reaches the database, and its answer may be lost.
    Ask(usize, u64, Duration, LeaseAsk),
    /// A write reaches the database.
    Write(Fence),
    /// A machine is started, anew or for the first time.
    Start(usize),
    /// Faults begin, if they may, and writes are tried.
    Stir,
}

struct Machine {
    machine: ClusterMachine,
    run: u64,
    /// How its clock differs from the simulation's: an offset, and a rate in millionths.
    offset: Duration,
    rate: u64,
    paused_until: Duration,
    is_running: bool,
    is_suspended: bool,
    served: ShardSet,
    me: Option<MasterId>,
    held: BTreeMap<u16, i64>,
    loaded: ShardSet,
    leaving: ShardSet,
    tick_at: Duration,
}

impl Machine {
    /// Its clock.
    fn clock(&self, now: Duration) -> Duration {
        self.offset + now * u32::try_from(self.rate).expect("small") / 1_000_000
    }

    /// The simulation's time at which its clock shows this.
    fn at(&self, clock: Duration) -> Duration {
        let since = clock.saturating_sub(self.offset).min(Duration::from_secs(3600));
        since * 1_000_000 / u32::try_from(self.rate).expect("small") + millis(1)
    }
}

struct Simulation {
    seed: u64,
    dice: Dice,
    now: Duration,
    turn: u64,
    happenings: BTreeMap<(Duration, u64), Happening>,
    database: FakeDatabase,
    database_away_until: Duration,
    machines: Vec<Machine>,
    has_faults: bool,
    steps: u64,
    writes: u64,
    refused: u64,
    faults: BTreeMap<&'static str, u64>,
    epochs: Vec<i64>,
}

impl Simulation {
    #[expect(clippy::print_stdout, reason = "a run that fails can be repeated")]
    fn new(seed: u64, machines: usize) -> Self {
        println!("seed {seed}");
        let mut simulation = Self {
            seed,
            dice: Dice(seed),
            now: Duration::ZERO,
            turn: 0,
            happenings: BTreeMap::new(),
            database: FakeDatabase::new(),
            database_away_until: Duration::ZERO,
            machines: Vec::new(),
            has_faults: false,
            steps: 0,
            writes: 0,
            refused: 0,
            faults: BTreeMap::new(),
            epochs: vec![0; Shard::all().count()],
        };
        for at in 0..machines {
            let offset = Duration::from_secs(simulation.dice.below(1_000_000));
            let rate = 990_000 + simulation.dice.below(20_000);
            let machine = simulation.machine(at, 0);
            simulation.machines.push(Machine {
                machine,
                run: 0,
                offset,
                rate,
                paused_until: Duration::ZERO,
                is_running: false,
                is_suspended: false,
                served: ShardSet::default(),
                me: None,
                held: BTreeMap::new(),
                loaded: ShardSet::default(),
                leaving: ShardSet::default(),
                tick_at: Duration::MAX,
            });
            let start = millis(simulation.dice.below(3000));
            simulation.at(start, Happening::Start(at));
        }
        simulation.at(Duration::ZERO, Happening::Stir);
        simulation
    }

    fn machine(&self, at: usize, run: u64) -> ClusterMachine {
        let membership = Membership {
            cluster: Some("test".to_owned()),
            name: format!("master-{at}"),
            api: String::new(),
            version: String::new(),
            weight: 1,
            lease: LEASE,
        };
        let mut drawn = (at as u128) << 64 | u128::from(run) << 32;
        let draw = move || {
            drawn += 1;
            MasterId(drawn)
        };
        ClusterMachine::new(membership, Duration::from_secs(3), draw)
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.turn += 1;
        self.happenings.insert((at.max(self.now), self.turn), happening);
    }

    fn soon(&mut self, most_millis: u64, happening: Happening) {
        let at = self.now + millis(self.dice.below(most_millis));
        self.at(at, happening);
    }

    fn run_until(&mut self, end: Duration) {
        while let Some(first) = self.happenings.first_entry().filter(|first| first.key().0 <= end) {
            let ((now, _), happening) = first.remove_entry();
            self.now = now;
            match happening {
                Happening::Start(at) => self.start(at),
                Happening::Event(at, run, event) => self.event(at, run, event),
                Happening::Tick(at, run) => {
                    if self.machines[at].tick_at == now {
                        self.machines[at].tick_at = Duration::MAX;
                        self.event(at, run, ClusterEvent::Tick);
                    }
                }
                Happening::Ask(at, run, asked_at, ask) => self.answer(at, run, asked_at, &ask),
                Happening::Write(fence) => self.write(fence),
                Happening::Stir => {
                    self.stir();
                    self.at(now + millis(100), Happening::Stir);
                }
            }
            self.check_database();
        }
        self.now = end;
    }

    fn start(&mut self, at: usize) {
        let run = self.machines[at].run + 1;
        let fresh = self.machine(at, run);
        let machine = &mut self.machines[at];
        machine.machine = fresh;
        (machine.run, machine.is_running, machine.is_suspended) = (run, true, false);
        (machine.served, machine.loaded, machine.leaving) = Default::default();
        (machine.me, machine.tick_at) = (None, Duration::MAX);
        machine.held.clear();
        self.event(at, run, ClusterEvent::Tick);
        self.event(at, run, ClusterEvent::Started);
    }

    fn event(&mut self, at: usize, run: u64, event: ClusterEvent) {
        let machine = &mut self.machines[at];
        if machine.run != run || !machine.is_running {
            return;
        }
        if machine.paused_until > self.now {
            let until = machine.paused_until;
            return self.at(until, Happening::Event(at, run, event));
        }
        match &event {
            ClusterEvent::Loaded(shards) => {
                shards.iter().for_each(|shard| machine.loaded.insert(shard));
            }
            ClusterEvent::Left(shards) => {
                shards.iter().for_each(|shard| machine.leaving.remove(shard));
            }
            _ => {}
        }
        self.steps += 1;
        let clock = machine.clock(self.now);
        let actions = machine.machine.step(event, clock);
        for action in actions {
            self.carry_out(at, run, clock, action);
        }
        let machine = &mut self.machines[at];
        let due = machine.at(machine.machine.due()).max(self.now + millis(1));
        if machine.is_running && machine.tick_at != due {
            machine.tick_at = due;
            self.at(due, Happening::Tick(at, run));
        }
        self.check_machine(at);
    }

    fn carry_out(&mut self, at: usize, run: u64, clock: Duration, action: ClusterAction) {
        let machine = &mut self.machines[at];
        match action {
            ClusterAction::Serve(shards) => machine.served = shards,
            ClusterAction::Hold(me, held) => {
                let epochs = held.into_iter().map(|(shard, epoch)| (shard.number(), epoch));
                (machine.me, machine.held) = (Some(me), epochs.collect());
            }
            ClusterAction::Suspend(is_suspended) => machine.is_suspended = is_suspended,
            ClusterAction::Load(shards) => {
                let fails = self.has_faults && self.dice.one_in(10);
                let done = if fails {
                    ClusterEvent::LoadFailed(shards)
                } else {
                    ClusterEvent::Loaded(shards)
                };
                self.soon(800, Happening::Event(at, run, done));
            }
            ClusterAction::Leave(shards, until) => {
                for shard in shards.iter() {
                    machine.leaving.insert(shard);
                    machine.loaded.remove(shard);
                }
                let until = machine.at(until).max(self.now).saturating_sub(self.now);
                let is_slow = self.has_faults && self.dice.one_in(3);
                let beyond = if is_slow { 4000 } else { 50 };
                let most = u64::try_from(until.as_millis()).expect("small") + beyond;
                self.soon(most, Happening::Event(at, run, ClusterEvent::Left(shards)));
            }
            ClusterAction::Ask(ask) => self.send(at, run, clock, ask),
            ClusterAction::Ended => machine.is_running = false,
            ClusterAction::Show(..)
            | ClusterAction::Joined
            | ClusterAction::Refused(_)
            | ClusterAction::Lost
            | ClusterAction::StateSet(_)
            | ClusterAction::StateNotAsked => {}
        }
    }

    /// A question takes its time, is lost, or arrives when its master has given it up.
    fn send(&mut self, at: usize, run: u64, asked_at: Duration, ask: LeaseAsk) {
        let failed = ClusterEvent::Failed { asked_at };
        self.at(self.now + ANSWER_MAX, Happening::Event(at, run, failed));
        let is_lost = self.has_faults && self.dice.one_in(20);
        let is_late = self.has_faults && self.dice.one_in(20);
        if is_lost {
            *self.faults.entry("a question was lost").or_default() += 1;
        } else {
            self.soon(if is_late { 4000 } else { 100 }, Happening::Ask(at, run, asked_at, ask));
        }
    }

    fn answer(&mut self, at: usize, run: u64, asked_at: Duration, ask: &LeaseAsk) {
        if self.now < self.database_away_until {
            return;
        }
        if let LeaseAsk::Give(_, gives) = ask {
            let machine = &self.machines[at];
            let is_current = machine.run == run
                && machine.machine.asking.as_ref().is_some_and(|asked| asked.at == asked_at);
            for (shard, ..) in gives.iter().filter(|_| is_current) {
                let is_idle = !machine.served.contains(*shard) && !machine.leaving.contains(*shard);
                assert!(is_idle, "seed {}: {shard} is given while it runs", self.seed);
            }
        }
        let told = self.database.ask(ask, self.now);
        if self.has_faults && self.dice.one_in(20) {
            *self.faults.entry("an answer was lost").or_default() += 1;
            return;
        }
        let told = ClusterEvent::Told { asked_at, told };
        self.soon(100, Happening::Event(at, run, told));
    }

    fn write(&mut self, fence: Fence) {
        if self.now < self.database_away_until {
            return;
        }
        match self.database.admits(fence) {
            true => self.writes += 1,
            false => self.refused += 1,
        }
    }

    /// Tries writes, and has something go wrong at times.
    fn stir(&mut self) {
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            let Some(master) = machine.me else { continue };
            let served: Vec<Shard> = machine.served.iter().collect();
            if served.is_empty() || !machine.is_running {
                continue;
            }
            let shard = served[self.dice.below(served.len() as u64) as usize];
            let epoch = self.machines[at].held[&shard.number()];
            // A write may have been under way for long.
            let most = if self.dice.one_in(10) { 10_000 } else { 50 };
            self.soon(most, Happening::Write(Fence { shard, epoch, master }));
        }
        if !self.has_faults || !self.dice.one_in(60) {
            return;
        }
        let at = self.dice.below(self.machines.len() as u64) as usize;
        let long = Duration::from_millis(self.dice.below(15_000));
        let fault = match self.dice.below(5) {
            0 => {
                self.database_away_until = self.now + long;
                "the database was away"
            }
            1 => {
                self.machines[at].is_running = false;
                self.at(self.now + long, Happening::Start(at));
                self.stick(at);
                "a master was killed"
            }
            2 => {
                let name = format!("master-{at}");
                let state =
                    if self.dice.one_in(2) { MasterState::Draining } else { MasterState::Up };
                let run = self.machines[at].run;
                self.event(at, run, ClusterEvent::SetState(name, state));
                "a state was set"
            }
            3 => {
                let clock = self.machines[at].clock(self.now);
                let until = clock + Duration::from_secs(20);
                let run = self.machines[at].run;
                self.event(at, run, ClusterEvent::Stop { until });
                self.at(self.now + Duration::from_secs(25), Happening::Start(at));
                "a master was stopped"
            }
            _ => {
                self.machines[at].paused_until = self.now + long;
                self.stick(at);
                "a master stood still"
            }
        };
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Some transactions of a master were open.
    fn stick(&mut self, at: usize) {
        for shard in self.machines[at].served.iter().step_by(100) {
            self.database.stuck.insert(shard);
        }
    }

    /// A machine that serves a shard has a fence for it, and has loaded it.
    fn check_machine(&self, at: usize) {
        let machine = &self.machines[at];
        for shard in machine.served.iter() {
            let is_held = machine.held.contains_key(&shard.number());
            let is_ready = machine.loaded.contains(shard) && !machine.leaving.contains(shard);
            assert!(is_held && is_ready, "seed {}: {at} serves {shard}", self.seed);
        }
        assert!(!machine.is_suspended || machine.served.is_empty(), "seed {}", self.seed);
    }

    fn check_database(&mut self) {
        for (row, last) in self.database.shards.iter().zip(&mut self.epochs) {
            assert!(row.epoch >= *last, "seed {}: an epoch went back", self.seed);
            *last = row.epoch;
        }
    }

    /// Has a master hand over all that it has.
    fn stop(&mut self, at: usize) {
        let machine = &self.machines[at];
        let (run, until) = (machine.run, machine.clock(self.now) + Duration::from_secs(30));
        self.event(at, run, ClusterEvent::Stop { until });
    }

    /// Ends all faults, and has every master up.
    fn calm_down(&mut self) {
        self.has_faults = false;
        self.database_away_until = self.now;
        self.run_until(self.now + Duration::from_secs(50));
        for at in 0..self.machines.len() {
            if !self.machines[at].is_running {
                self.start(at);
            }
            let run = self.machines[at].run;
            let up = ClusterEvent::SetState(format!("master-{at}"), MasterState::Up);
            self.event(at, run, up);
        }
        self.run_until(self.now + BOUND);
    }

    /// Every shard is held and served by the master that should have it.
    fn assert_settled(&self) {
        let look = self.database.look(self.now);
        let wanted = assign(look.masters.iter(), &look.shards);
        for shard in Shard::all() {
            let owner = self.database.shards[shard.index()].owner;
            assert!(owner.is_some(), "seed {}: {shard} has no master", self.seed);
            assert_eq!(owner, wanted[shard.index()], "seed {}: {shard}", self.seed);
            let serve = |machine: &&Machine| machine.served.contains(shard);
            let serving: Vec<_> = self.machines.iter().filter(serve).map(|one| one.me).collect();
            assert_eq!(serving, [owner], "seed {}: {shard} is not served", self.seed);
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what went wrong in it")]
fn faults_of_all_kinds_break_nothing_and_pass() {
    let first = random::u64() >> 32;
    let (mut faults, mut refused, mut evicted) = (BTreeMap::new(), 0, 0);
    for (seed, machines) in (first..).zip([2, 3, 4]) {
        let mut simulation = Simulation::new(seed, machines);
        simulation.has_faults = true;
        simulation.run_until(Duration::from_secs(300));
        simulation.calm_down();
        simulation.assert_settled();
        let (steps, writes) = (simulation.steps, simulation.writes);
        assert!(steps > 1000 && writes > 500, "seed {seed}: {steps} steps, {writes} writes");
        for (fault, times) in simulation.faults {
            *faults.entry(fault).or_insert(0) += times;
        }
        refused += simulation.refused;
        evicted += simulation.database.evicted;
    }
    println!("{faults:?}, {refused} writes refused, {evicted} sessions ended");
    assert_eq!(faults.len(), 7, "{faults:?}");
    assert!(refused > 0 && evicted > 0, "the fence and the eviction were needed");
}

#[test]
fn a_database_that_is_away_for_long_moves_nothing() {
    let mut simulation = Simulation::new(random::u64() >> 32, 3);
    simulation.run_until(Duration::from_secs(120));
    simulation.assert_settled();
    let before = simulation.database.shards.clone();
    simulation.database_away_until = simulation.now + Duration::from_secs(10);
    simulation.run_until(simulation.now + Duration::from_secs(9));
    let is_suspended = |machine: &Machine| machine.is_suspended && machine.served.is_empty();
    assert!(simulation.machines.iter().all(is_suspended), "a lease that is over is served");
    simulation.run_until(simulation.now + Duration::from_secs(4));
    simulation.assert_settled();
    simulation.run_until(simulation.now + Duration::from_secs(60));
    simulation.assert_settled();
    assert_eq!(simulation.database.shards, before);
}

#[test]
fn a_stop_hands_everything_to_the_others() {
    let mut simulation = Simulation::new(random::u64() >> 32, 2);
    simulation.run_until(Duration::from_secs(120));
    for (at, others) in [(0, vec![1]), (1, vec![])] {
        simulation.stop(at);
        simulation.run_until(simulation.now + Duration::from_secs(8));
        assert!(!simulation.machines[at].is_running, "it has left");
        let heir = others.first().and_then(|at| simulation.machines[*at].me);
        assert!(simulation.database.shards.iter().all(|shard| shard.owner == heir));
        if heir.is_some() {
            simulation.assert_settled();
        }
    }
    let look = simulation.database.look(simulation.now);
    assert!(look.masters.is_empty(), "their leases are over at once");
    let told = simulation.database.ask(&LeaseAsk::Evict(ShardSet::full()), simulation.now);
    assert_eq!(told, LeaseTold::Evicted(0));
}

#[test]
fn a_master_that_drains_takes_what_no_other_can_unless_it_stops() {
    let mut simulation = Simulation::new(random::u64() >> 32, 2);
    let all_are_at = |simulation: &mut Simulation, at: usize, why: &str| {
        simulation.run_until(simulation.now + Duration::from_secs(20));
        let seed = simulation.seed;
        assert_eq!(simulation.machines[at].served, ShardSet::full(), "seed {seed}: {why}");
    };
    simulation.run_until(Duration::from_secs(120));
    let drain = ClusterEvent::SetState("master-0".to_owned(), MasterState::Draining);
    simulation.event(0, 1, drain);
    all_are_at(&mut simulation, 1, "one drains");
    simulation.machines[1].is_running = false;
    all_are_at(&mut simulation, 0, "the other was killed");
    simulation.start(1);
    all_are_at(&mut simulation, 1, "the other came back");
    simulation.stop(1);
    all_are_at(&mut simulation, 0, "the other stopped");
    simulation.start(1);
    all_are_at(&mut simulation, 1, "the other came back again");
    let before = simulation.epochs.clone();
    [1, 0].into_iter().for_each(|at| simulation.stop(at));
    simulation.run_until(simulation.now + Duration::from_secs(8));
    assert!(simulation.machines.iter().all(|one| !one.is_running), "both have left");
    let moves = simulation.epochs.iter().zip(before).map(|(now, before)| now - before).max();
    assert!(moves <= Some(2), "seed {}: none stays between them", simulation.seed);
}
