//! Everything that happens to the master and its workers meanwhile, by the seed.
//!
//! A worker that fails five times in a minute is given up, which is right and would end the run
//! early: so each worker has a budget of what ends its process. What a worker survives has none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Plan;
use super::callers::Ledger;
use super::chaos::{Fault, Storm};
use super::clock::{Clock, pause_until};
use super::process::signal;
use super::random::Random;
use super::site::Site;

/// Deaths of one worker within [`WINDOW`]: below the five that make it failed, with one to spare
/// for a storm.
const DEATHS_MAX: usize = 3;
const WINDOW: Duration = Duration::from_secs(65);

/// Between two rolling restarts.
const ROLLING_EVERY: Duration = Duration::from_secs(15);

/// What holds bytes up without losing any.
const GENTLE: &[Fault] = &[Fault::Delay, Fault::Throttle, Fault::Stall];

/// What ends connections.
const CUTTING: &[Fault] = &[Fault::Cut, Fault::Reset, Fault::HalfClose];

pub(crate) struct Mischief<'a> {
    site: &'a Site,
    ledger: &'a Ledger,
    clock: &'a Clock,
    random: Random,
    workers: usize,
    deaths: Vec<Vec<Instant>>,
    storms: Vec<Option<Instant>>,
    thaw: Vec<(Instant, u32)>,
    calm_at: Option<Instant>,
    rolled: Instant,
    done: BTreeMap<&'static str, u64>,
}

impl<'a> Mischief<'a> {
    pub(crate) fn new(plan: &Plan, site: &'a Site, ledger: &'a Ledger, clock: &'a Clock) -> Self {
        // Each was killed once to come behind its proxy.
        let deaths = vec![vec![Instant::now()]; plan.workers];
        Self {
            site,
            ledger,
            clock,
            random: Random::new(plan.seed),
            workers: plan.workers,
            deaths,
            storms: vec![None; plan.workers],
            thaw: Vec::new(),
            calm_at: None,
            rolled: Instant::now(),
            done: BTreeMap::new(),
        }
    }

    /// Does one thing after the other.
    pub(crate) fn act(&mut self, until: Instant) {
        while Instant::now() < until {
            pause_until(Instant::now() + Duration::from_millis(50 + self.random.below(600)));
            self.settle();
            match self.random.below(12) {
                0..=3 => self.kill(),
                4..=5 => self.freeze_worker(),
                6 => self.freeze_for_good(),
                7 => self.freeze_master(),
                8 => self.storm(GENTLE),
                9 => self.storm(CUTTING),
                10 => self.roll(),
                _ => self.stall_store(),
            }
        }
    }

    /// Ends what is under way.
    pub(crate) fn end(&mut self) {
        for (_, pid) in self.thaw.drain(..) {
            signal(pid, Signal::CONT);
        }
        self.site.proxies.iter().for_each(|proxy| proxy.calm());
    }

    /// Ends what is due to end.
    fn settle(&mut self) {
        let now = Instant::now();
        self.thaw.retain(|(at, pid)| {
            if now >= *at {
                signal(*pid, Signal::CONT);
            }
            now < *at
        });
        if self.calm_at.is_some_and(|at| now >= at) {
            self.calm_at = None;
            self.site.proxies.iter().for_each(|proxy| proxy.calm());
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// The workers that may still die without being given up.
    fn mortal(&mut self) -> Vec<usize> {
        let now = Instant::now();
        self.deaths
            .iter_mut()
            .for_each(|deaths| deaths.retain(|at| now.duration_since(*at) < WINDOW));
        (0..self.workers).filter(|worker| self.deaths[*worker].len() < DEATHS_MAX).collect()
    }

    fn kill(&mut self) {
        let mortal = self.mortal();
        let Some(worker) = self.ledger.busiest(&mortal) else { return };
        let Some(pid) = self.site.pid_of(worker) else { return };
        self.deaths[worker].push(Instant::now());
        self.ledger.note_kill(worker);
        signal(pid, Signal::KILL);
        self.note("workers killed");
    }

    /// Stops a worker for less than its silence takes to be noticed.
    fn freeze_worker(&mut self) {
        let time = Duration::from_millis(100 + self.random.below(1500));
        let worker = self.random.below(self.workers as u64) as usize;
        let Some(pid) = self.site.pid_of(worker) else { return };
        signal(pid, Signal::STOP);
        self.thaw.push((Instant::now() + time, pid));
        self.note("workers stopped for a moment");
    }

    /// Stops a worker until it is ended as one that hangs.
    fn freeze_for_good(&mut self) {
        let mortal = self.mortal();
        let Some(worker) = self.ledger.busiest(&mortal) else { return };
        let Some(pid) = self.site.pid_of(worker) else { return };
        // Its link is lost and its process ends: that may count as two.
        self.deaths[worker].extend([Instant::now(); 2]);
        signal(pid, Signal::STOP);
        self.thaw.push((Instant::now() + Duration::from_secs(20), pid));
        self.note("workers stopped for good");
    }

    /// Stops the master, and with it its store and everything.
    fn freeze_master(&mut self) {
        let since = Instant::now();
        signal(self.site.master, Signal::STOP);
        pause_until(since + Duration::from_millis(50 + self.random.below(1500)));
        self.clock.stood_still(since);
        signal(self.site.master, Signal::CONT);
        self.note("masters stopped for a moment");
    }

    /// A few cuts of the connections of one worker, or many gentle faults on those of all.
    fn storm(&mut self, faults: &'static [Fault]) {
        let now = Instant::now();
        if self.calm_at.is_some() {
            return;
        }
        let is_gentle = faults == GENTLE;
        let worker = self.random.below(self.workers as u64) as usize;
        if !is_gentle && self.storms[worker].is_some_and(|at| now.duration_since(at) < WINDOW) {
            return;
        }
        // Five losses of a link within a minute end a worker's process.
        let most = if is_gentle { 1000 } else { 4 };
        for (id, proxy) in self.site.proxies.iter().enumerate() {
            if is_gentle || id == worker {
                proxy.storm(Storm { faults, every_bytes: 20_000, most });
            }
        }
        if !is_gentle {
            self.storms[worker] = Some(now);
        }
        self.calm_at = Some(now + Duration::from_millis(500 + self.random.below(2000)));
        self.note(if is_gentle { "gentle storms" } else { "storms" });
    }

    fn roll(&mut self) {
        if self.rolled.elapsed() >= ROLLING_EVERY {
            self.rolled = Instant::now();
            signal(self.site.master, Signal::HUP);
            self.note("rolling restarts asked for");
        }
    }

    fn stall_store(&mut self) {
        if let Some(database) = &self.site.database {
            database.stall(Duration::from_millis(100 + self.random.below(2500)));
            self.note("stalls of the store");
        }
    }

    pub(crate) fn summary(&self) -> String {
        let done: Vec<String> =
            self.done.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let mut faults: BTreeMap<Fault, u64> = BTreeMap::new();
        for (fault, count) in self.site.proxies.iter().flat_map(|proxy| proxy.happened()) {
            *faults.entry(fault).or_default() += count;
        }
        let (kills, hits) = self.ledger.kills();
        format!(
            "mischief: {}\nlinks: {faults:?}\nkills: {kills}, of which {hits} hit a worker with events in flight",
            done.join(", ")
        )
    }

    pub(crate) fn check(&self) -> Vec<String> {
        match self.ledger.kills() {
            (_, 0) => {
                vec!["no kill hit a worker with events in flight: this run says nothing".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}
