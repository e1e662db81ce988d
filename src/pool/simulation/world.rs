//! The world of a run: masters, workers' processes, the links between them and the callers, driven
//! by one virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::limits::HEARTBEATS_MISSED_MAX;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Cancelled, Delivery, Job, Request, RequestId};
use crate::net::link::{CloseCause, close_code};
use crate::pool::process::supervisor::{Cause, Event, Kind, State, Why};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{CreateEvent, EncodedJson, EventData, TenantId};

use super::books::{Books, Broken, ensure};
use super::conn::{SimConn, SimLink, ToMaster, ToWorker, Way};
use super::dice::{Clock, millis};
use super::master::{Around, Note, SimLoop, SimMaster};
use super::planted::Planted;
use super::process::{HEARTBEAT, Life, Place, Process};

/// How long faults go on.
pub(super) const FAULTS: Duration = Duration::from_secs(25);
/// How long everything may take to be well again: a worker that hangs and does not end by TERM, a
/// supervisor's longest pause, and the time to boot.
const SETTLES_IN: Duration = Duration::from_secs(150);
/// How long it must then stay so, with nothing left to do.
const STAYS: Duration = Duration::from_secs(12);
pub(super) const TENANTS: u64 = 7;

/// What happens at a time to come.
pub(super) enum Happening {
    Submit,
    GiveUp(usize),
    ToWorker(usize, ToWorker),
    ToMaster(usize, ToMaster),
    /// An end of a link notices that the link has ended.
    MasterEnd(usize, CloseCause),
    WorkerEnd(usize),
    Pulse(usize),
    Noted(Place, Note),
    /// A supervision loop is due, if nothing else has woken it since; at zero in any case.
    Wake(Place, Duration),
    Life(usize, Life),
    ExternalStarts(usize, usize),
    MasterStarts(usize),
    Fault,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) planted: Option<Planted>,
    pub(super) clock: Clock,
    pub(super) masters: Vec<SimMaster>,
    kinds: Vec<Kind>,
    pub(super) processes: Vec<Process>,
    pub(super) links: Vec<SimLink>,
    pub(super) open_links: Vec<usize>,
    pub(super) books: Books,
    pub(super) has_faults: bool,
    /// Links are slow until then.
    pub(super) slow_until: Duration,
    pending_max: usize,
    out_max: usize,
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// States of supervisors that were seen.
    pub(super) states: BTreeSet<&'static str>,
    pub(super) steps: u64,
    /// What happened, in words, when a run is replayed.
    pub(super) traces: bool,
}

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut clock = Clock::new(seed);
        let masters = 1 + clock.dice.index(2);
        let kinds: Vec<Kind> = (0..1 + clock.dice.index(3))
            .map(|_| if clock.dice.one_in(4) { Kind::External } else { Kind::Child })
            .collect();
        let pending_max = [3, 8, 1000][clock.dice.index(3)];
        let out_max = [2, 1000][clock.dice.index(2)];
        let of = |at| SimMaster::new(at, 0, &kinds, planted);
        let mut world = Self {
            seed,
            planted,
            clock,
            masters: (0..masters).map(of).collect(),
            kinds,
            processes: Vec::new(),
            links: Vec::new(),
            open_links: Vec::new(),
            books: Books::default(),
            has_faults: true,
            slow_until: Duration::ZERO,
            pending_max,
            out_max,
            faults: BTreeMap::new(),
            states: BTreeSet::new(),
            steps: 0,
            traces: false,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for master in 0..self.masters.len() {
            for worker in 0..self.kinds.len() {
                let place = Place { master, run: 0, worker };
                self.clock.at(Duration::ZERO, Happening::Wake(place, Duration::ZERO));
                if self.kinds[worker] == Kind::External {
                    self.clock.after(millis(5), Happening::ExternalStarts(master, worker));
                }
            }
        }
        self.clock.after(millis(50), Happening::Submit);
        self.clock.after(millis(500), Happening::Fault);
    }

    #[expect(clippy::print_stdout, reason = "what a replayed run is told by")]
    pub(super) fn trace(&self, told: impl FnOnce() -> String) {
        if self.traces {
            println!("{:>9.3} s  {}", self.clock.now.as_secs_f64(), told());
        }
    }

    pub(super) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
        self.trace(|| format!("fault: {fault}"));
    }

    /// The whole run: faults, then calm, in which all must become well and stay so.
    pub(super) fn run(&mut self) -> Broken {
        self.run_until(FAULTS)?;
        self.has_faults = false;
        self.slow_until = Duration::ZERO;
        if self.planted == Some(Planted::ProcessIsLeftBehind) {
            let place = Place { master: 0, run: 0, worker: usize::MAX };
            self.processes.push(Process::new(place, true));
        }
        let end = self.clock.now + SETTLES_IN;
        while !self.is_settled() {
            let now = self.clock.now;
            ensure(now < end, || format!("settled: not after {SETTLES_IN:?}: {}", self.told()))?;
            self.operate()?;
            self.run_until(now + Duration::from_secs(1))?;
        }
        let before = self.restarts();
        self.run_until(self.clock.now + STAYS)?;
        let is_calm = self.is_settled() && self.restarts() == before;
        ensure(is_calm, || format!("settled: it does not stay so: {}", self.told()))?;
        self.check_nothing_is_left()
    }

    /// What an operator does about workers that are stopped or have failed.
    fn operate(&mut self) -> Broken {
        for (master, worker) in self.all_workers() {
            let one = &self.masters[master];
            let state = one.loops[worker].supervisor.state();
            if one.is_up
                && one.stops_by.is_none()
                && matches!(state, State::Stopped | State::Failed)
            {
                self.wish(master, worker, Event::Restart(Why::new(Cause::Operator, "wanted")))?;
            }
        }
        Ok(())
    }

    pub(super) fn all_workers(&self) -> Vec<(usize, usize)> {
        let workers = 0..self.kinds.len();
        (0..self.masters.len())
            .flat_map(|at| workers.clone().map(move |worker| (at, worker)))
            .collect()
    }

    fn is_settled(&self) -> bool {
        let now = self.clock.now;
        let is_well = |process: &Process| match process.is_alive {
            true => !process.is_ending && !process.is_stuck && now >= process.hung_until,
            // Those of an earlier run of their master are never reaped.
            false => {
                let Place { master, run, .. } = process.place;
                let is_reaped = process.is_external || process.ended.is_none();
                is_reaped || !self.is_current((master, run))
            }
        };
        let is_whole = |link: &usize| self.links[*link].is_whole();
        // A fault that was not noticed yet is still one.
        let has_no_fault =
            self.processes.iter().all(is_well) && self.open_links.iter().all(is_whole);
        has_no_fault && self.books.open.is_empty() && self.masters.iter().all(SimMaster::is_settled)
    }

    fn restarts(&self) -> u64 {
        let loops = self.masters.iter().flat_map(|master| &master.loops);
        loops.map(|one| one.supervisor.restarts().total()).sum()
    }

    fn told(&self) -> String {
        let told = |one: &SimLoop| {
            let (state, due) = (one.supervisor.state(), one.supervisor.due());
            let due = due.map(|due| self.clock.of(due));
            format!("{:?} {state}, due {due:?}, {} wait", one.place, one.handle.router.waiting())
        };
        let loops: Vec<String> =
            self.masters.iter().flat_map(|master| &master.loops).map(told).collect();
        format!("{}; open: {:?}", loops.join("; "), self.books.open)
    }

    pub(super) fn run_until(&mut self, end: Duration) -> Broken {
        while let Some(happening) = self.clock.next(end) {
            self.steps += 1;
            self.happen(happening)?;
            self.carry_on()?;
        }
        self.clock.now = self.clock.now.max(end);
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Broken {
        match happening {
            Happening::Submit => self.submit(),
            Happening::GiveUp(request) => self.give_up(request),
            Happening::ToWorker(link, message) => self.arrive_at_worker(link, message),
            Happening::ToMaster(link, message) => self.arrive_at_master(link, message),
            Happening::MasterEnd(link, cause) => self.master_end(link, cause),
            Happening::WorkerEnd(link) => self.worker_end(link),
            Happening::Pulse(link) => self.pulse(link),
            Happening::Noted(place, note) => self.turn(place, Some(note)),
            Happening::Wake(place, at) => {
                let master = &self.masters[place.master];
                let is_due = at.is_zero() || master.loops[place.worker].wake_at == at;
                if is_due { self.turn(place, None) } else { Ok(()) }
            }
            Happening::Life(process, life) => self.live(process, life),
            Happening::ExternalStarts(master, worker) => self.external_starts(master, worker),
            Happening::MasterStarts(at) => self.master_starts(at),
            Happening::Fault => self.fault(),
        }
    }

    /// What a step leads to at once, and what must hold after each.
    fn carry_on(&mut self) -> Broken {
        for link in self.open_links.clone() {
            let conn = self.links[link].conn.clone();
            for message in conn.take_out() {
                self.send_to_worker(link, message);
            }
            if conn.cause().is_some() && !self.links[link].is_closing {
                self.links[link].is_closing = true;
                let cause = conn.cause().expect("it has ended");
                let pause = self.clock.dice.between(0, 20);
                self.clock.after(pause, Happening::MasterEnd(link, cause));
                let pause = self.latency();
                self.end_at_worker(link, pause);
            }
        }
        for at in 0..self.masters.len() {
            let answers = std::mem::take(&mut *self.masters[at].answers.lock());
            for (request, result) in answers {
                self.trace(|| format!("request {request} ends: {:?}", result.as_ref().map(drop)));
                if self.planted == Some(Planted::AnswersComeTwice) {
                    self.books.end(request, result.clone())?;
                }
                self.books.end(request, result)?;
            }
        }
        self.check_step()
    }

    fn check_step(&mut self) -> Broken {
        self.books.check_open(self.clock.now, self.clock.slept_until)?;
        let mut at = 0;
        while at < self.open_links.len() {
            let link = &self.links[self.open_links[at]];
            ensure(!link.conn.has_too_many(), || {
                format!("bounds: {} in flight", link.conn.in_flight())
            })?;
            if link.has_master_end {
                at += 1;
                continue;
            }
            let is_empty = link.conn.in_flight() == 0 || !self.is_current(link.master);
            ensure(is_empty, || "an ended link has requests that wait".to_owned())?;
            self.open_links.swap_remove(at);
        }
        let (now, masters) = (self.clock.now, 0..self.masters.len());
        for at in masters {
            let Some(by) = self.masters[at].stops_by.filter(|_| self.masters[at].is_up) else {
                continue;
            };
            let by = by.max(self.clock.slept_until + Duration::from_secs(6));
            ensure(now <= by, || format!("a stop ends: not by {by:?}: {}", self.told()))?;
            if self.masters[at].loops.iter().all(|one| one.is_over) {
                self.master_dies(at);
            }
        }
        Ok(())
    }

    pub(super) fn is_current(&self, (at, run): (usize, u64)) -> bool {
        self.masters[at].is_up && self.masters[at].run == run
    }

    /// With no fault and no caller any more, only what beats goes on.
    fn check_nothing_is_left(&self) -> Broken {
        for happening in self.clock.to_come() {
            let (is_over, told) = match happening {
                Happening::Fault | Happening::Submit => (true, "no fault and no caller"),
                Happening::Pulse(_) | Happening::Wake(..) => (true, "it beats"),
                Happening::ToMaster(_, ToMaster::Heartbeat) => (true, "it beats"),
                // Those of what has ended already do nothing.
                Happening::GiveUp(request) => (!self.books.open.contains(request), "a request"),
                Happening::MasterEnd(link, _) => {
                    (!self.links[*link].has_master_end, "the end of a link at its master")
                }
                Happening::WorkerEnd(link) => {
                    (!self.links[*link].has_worker_end, "the end of a link at its worker")
                }
                Happening::Life(id, Life::Connects | Life::SaysReady(_) | Life::Ends(_)) => {
                    (!self.processes[*id].is_alive, "a process")
                }
                Happening::Life(..) => (true, "a job"),
                Happening::ToWorker(..) | Happening::ToMaster(..) => (false, "a message"),
                Happening::Noted(..) => (false, "a note"),
                Happening::ExternalStarts(..) | Happening::MasterStarts(_) => (false, "a start"),
            };
            ensure(is_over, || format!("nothing is left: {told} is under way"))?;
        }
        for master in &self.masters {
            let is_empty = !master.traffic.has_unanswered(&ShardSet::full());
            ensure(is_empty, || "nothing is left: of the traffic".to_owned())?;
        }
        let alive = |process: &&Process| process.is_alive;
        let count = self.processes.iter().filter(alive).count();
        let wanted = self.masters.len() * self.kinds.len();
        ensure(count == wanted, || format!("nothing is left: {count} of {wanted} processes"))
    }

    pub(super) fn turn(&mut self, place: Place, note: Option<Note>) -> Broken {
        if !self.is_current((place.master, place.run)) {
            return Ok(());
        }
        let one = &mut self.masters[place.master].loops[place.worker];
        let before = one.supervisor.state();
        let mut around = Around {
            clock: &mut self.clock,
            processes: &mut self.processes,
            has_faults: self.has_faults,
        };
        let turned = one.turn(note, &mut around);
        let after = one.supervisor.state();
        self.states.insert(after.as_str());
        if before != after {
            self.trace(|| format!("{place:?}: {before} → {after}"));
        }
        turned
    }

    pub(super) fn wish(&mut self, master: usize, worker: usize, event: Event) -> Broken {
        self.trace(|| format!("master {master} worker {worker}: {event:?} is wished for"));
        let place = self.masters[master].loops[worker].place;
        self.turn(place, Some(Note::Wish(event)))
    }

    fn submit(&mut self) -> Broken {
        if !self.has_faults {
            return Ok(());
        }
        let pause = match self.clock.dice.below(12) {
            0 => self.clock.dice.between(300, 2_000),
            1..=4 => Duration::ZERO,
            _ => self.clock.dice.between(1, 250),
        };
        self.clock.after(pause, Happening::Submit);
        let at = self.clock.dice.index(self.masters.len());
        let master = &self.masters[at];
        // Such a caller learns at once that there is no worker.
        if !master.is_up || master.stops_by.is_some() {
            return Ok(());
        }
        let tenant = TenantId::Guild(self.clock.dice.below(TENANTS) << 22);
        let now = self.clock.now;
        let deadline = now + self.clock.dice.between(50, 12_000);
        let is_late = self.clock.dice.one_in(3);
        let gives_up = if is_late { deadline + Duration::from_secs(3) } else { deadline };
        let is_drop = self.clock.dice.one_in(30);
        let (run, answers) = (master.run, &master.answers);
        let (request, answer) =
            self.books.ask(tenant, (at, run), deadline, gives_up, is_drop, answers);
        self.clock.at(gives_up, Happening::GiveUp(request));
        let event = CreateEvent {
            name: "E".to_owned(),
            author: None,
            data: EventData::Json(EncodedJson::null()),
        };
        let job = if is_drop { Job::DropTenant } else { Job::Dispatch(event) };
        let (id, deadline) = (RequestId(request as u64), self.clock.instant(deadline));
        self.trace(|| format!("request {request} of {tenant} at master {at}, drop: {is_drop}"));
        let delivery = Delivery::default();
        master.pool.submit(Request { tenant, id, job, deadline, answer, delivery });
        Ok(())
    }

    /// A caller's deadline has passed: it gives its job up, and then it has an answer.
    fn give_up(&mut self, request: usize) -> Broken {
        let asked = &self.books.asked[request];
        if !self.books.open.contains(&request) || !self.is_current(asked.master) {
            return Ok(());
        }
        if self.planted == Some(Planted::CallersForgetToCancel) {
            return Ok(());
        }
        let (tenant, id) = (asked.tenant, RequestId(request as u64));
        // The loops look at what waits each second at least.
        let is_long_over =
            asked.gives_up > asked.deadline && self.clock.slept_until < asked.deadline;
        let cancelled = self.masters[asked.master.0].pool.cancel(tenant, id);
        let is_waiting = cancelled == Cancelled::Waiting;
        ensure(!(is_waiting && is_long_over), || {
            format!("expired: request {request} still waits long after its deadline")
        })
    }

    fn latency(&mut self) -> Duration {
        match self.clock.now < self.slow_until {
            true => self.clock.dice.between(0, 2_500),
            false => self.clock.dice.between(0, 8),
        }
    }

    fn send_to_worker(&mut self, link: usize, message: ToWorker) {
        let at = self.clock.now + self.latency();
        if let Some(at) = self.links[link].to_worker.arrives(at) {
            self.clock.at(at, Happening::ToWorker(link, message));
        }
    }

    pub(super) fn send_to_master(&mut self, link: usize, message: ToMaster) {
        let at = self.clock.now + self.latency();
        if let Some(at) = self.links[link].to_master.arrives(at) {
            self.clock.at(at, Happening::ToMaster(link, message));
        }
    }

    /// The worker's side has ended the link: the master's end learns it behind all that was sent.
    pub(super) fn end_of_link(&mut self, link: usize, pause: Duration) {
        let at = self.clock.now + pause;
        if let Some(at) = self.links[link].to_master.arrives(at) {
            let cause = CloseCause::ClosedByPeer(close_code::NONE_GIVEN);
            self.clock.at(at, Happening::MasterEnd(link, cause));
        }
    }

    fn end_at_worker(&mut self, link: usize, pause: Duration) {
        let at = self.clock.now + pause;
        // Without a word from the master, the worker gives the link up.
        let silent = self.clock.now + HEARTBEAT * HEARTBEATS_MISSED_MAX;
        let at = self.links[link].to_worker.arrives(at).unwrap_or(silent);
        self.clock.at(at, Happening::WorkerEnd(link));
    }

    /// Cuts a link: both ways end about now, and each end notices at a time of its own.
    pub(super) fn cut(&mut self, link: usize, is_noticed: bool) {
        let now = self.clock.now;
        for both in [true, false] {
            let lost_after = now + self.clock.dice.between(0, 40);
            let link = &mut self.links[link];
            let way = if both { &mut link.to_worker } else { &mut link.to_master };
            way.lost_after = way.lost_after.min(lost_after);
        }
        if is_noticed {
            let pause = self.clock.dice.between(0, 3_000);
            let broken = CloseCause::Broken("connection reset".to_owned());
            self.clock.after(pause, Happening::MasterEnd(link, broken));
            let pause = self.clock.dice.between(0, 3_000);
            self.clock.after(pause, Happening::WorkerEnd(link));
        } else {
            let pause = HEARTBEAT * HEARTBEATS_MISSED_MAX + self.clock.dice.between(0, 5_000);
            self.clock.after(pause, Happening::WorkerEnd(link));
        }
    }

    fn arrive_at_master(&mut self, link: usize, message: ToMaster) -> Broken {
        let now = self.clock.now;
        let this = &mut self.links[link];
        if now > this.to_master.lost_after || !this.has_master_end {
            return Ok(());
        }
        this.heard_at = now;
        let conn = this.conn.clone();
        match message {
            ToMaster::Heartbeat => {}
            ToMaster::Ready => self.note(link, Note::Ready(conn)),
            ToMaster::Stuck => self.note(link, Note::Stuck(conn)),
            ToMaster::Answer(request, result) => conn.answered(request, result),
        }
        Ok(())
    }

    /// Tells the supervision loop; notes of two links may cross.
    pub(super) fn note(&mut self, link: usize, note: Note) {
        let pause = self.clock.dice.between(0, 6);
        let this = &mut self.links[link];
        this.noted = this.noted.max(self.clock.now + pause);
        let ((master, run), worker) = (this.master, this.worker);
        let place = Place { master, run, worker };
        self.clock.at(this.noted, Happening::Noted(place, note));
    }

    /// The link's thread at the master has ended.
    fn master_end(&mut self, link: usize, cause: CloseCause) -> Broken {
        let this = &mut self.links[link];
        if !std::mem::replace(&mut this.has_master_end, false) || !self.is_current_link(link) {
            return Ok(());
        }
        let this = &self.links[link];
        let (conn, (at, _), worker) = (this.conn.clone(), this.master, this.worker);
        conn.abort(cause);
        let cause = conn.cause().expect("it has ended");
        self.trace(|| format!("link {link} of worker {worker} ends at master {at}: {cause}"));
        let master = &mut self.masters[at];
        if master.connections[worker] == Some(link) {
            master.connections[worker] = None;
        }
        master.loops[worker].note_lost(&conn);
        self.note(link, Note::Disconnected(conn.clone(), cause.clone()));
        conn.fail_pending(&cause);
        if !std::mem::replace(&mut self.links[link].is_closing, true) {
            let pause = self.latency();
            self.end_at_worker(link, pause);
        }
        Ok(())
    }

    fn is_current_link(&self, link: usize) -> bool {
        self.is_current(self.links[link].master)
    }

    fn worker_end(&mut self, link: usize) -> Broken {
        let this = &mut self.links[link];
        let id = this.process;
        let was_open = std::mem::replace(&mut this.has_worker_end, false);
        if self.processes[id].link != Some(link) || !was_open {
            return Ok(());
        }
        self.processes[id].link = None;
        let pause = self.clock.dice.between(0, 60);
        self.end_of_link(link, pause);
        let pause = self.clock.dice.between(20, 1_500);
        self.clock.after(pause, Happening::Life(id, Life::Connects));
        Ok(())
    }

    fn pulse(&mut self, link: usize) -> Broken {
        let this = &self.links[link];
        if !this.has_master_end || !self.is_current_link(link) {
            return Ok(());
        }
        let heard = this.heard_at.max(self.clock.slept_until);
        if self.clock.now > heard + HEARTBEAT * HEARTBEATS_MISSED_MAX {
            this.conn.abort(CloseCause::Silent);
            return Ok(());
        }
        self.clock.after(HEARTBEAT, Happening::Pulse(link));
        Ok(())
    }

    pub(super) fn connect(&mut self, id: usize) {
        let Place { master: at, run, worker } = self.processes[id].place;
        let is_its = self.processes[id].is_external || run == self.masters[at].run;
        if !self.masters[at].is_up || !is_its || self.processes[id].link.is_some() {
            let pause = self.clock.dice.between(100, 1_000);
            if self.processes[id].link.is_none() {
                self.clock.after(pause, Happening::Life(id, Life::Connects));
            }
            return;
        }
        let (link, now) = (self.links.len(), self.clock.now);
        let master = &mut self.masters[at];
        master.generations += 1;
        let planted = self.planted;
        let conn =
            SimConn::new(worker, master.generations, self.pending_max, self.out_max, planted);
        let older = master.connections[worker].replace(link);
        let run = master.run;
        self.links.push(SimLink {
            conn: conn.clone(),
            master: (at, run),
            worker,
            process: id,
            to_worker: Way::default(),
            to_master: Way::default(),
            noted: now,
            heard_at: now,
            is_closing: false,
            has_master_end: true,
            has_worker_end: true,
            last_dispatch: None,
        });
        self.open_links.push(link);
        self.trace(|| format!("link {link} of worker {worker} at master {at} is up"));
        if let Some(older) = older {
            self.count("a link was replaced");
            self.links[older].conn.close(close_code::REPLACED);
        }
        self.processes[id].link = Some(link);
        self.note(link, Note::Connected(conn));
        let pause = self.clock.dice.between(5, 400);
        self.clock.after(pause, Happening::Life(id, Life::SaysReady(link)));
        self.clock.after(HEARTBEAT, Happening::Pulse(link));
        self.deliver_again(id, link);
    }

    /// The planted fault of a link that delivers twice.
    fn deliver_again(&mut self, id: usize, link: usize) {
        let is_earlier = |other: &&SimLink| other.process == id && other.last_dispatch.is_some();
        if self.planted == Some(Planted::DispatchesTwice)
            && let Some(earlier) = self.links.iter().rev().find(is_earlier)
            && let Some(again) = earlier.last_dispatch.clone()
        {
            self.send_to_worker(link, again);
        }
    }

    fn external_starts(&mut self, master: usize, worker: usize) -> Broken {
        let place = Place { master, run: 0, worker };
        let id = self.processes.len();
        let process = Process::start(&mut self.clock, place, true, id);
        self.processes.push(process);
        Ok(())
    }

    /// The master's process is gone: its links end, and with them its workers.
    pub(super) fn master_dies(&mut self, at: usize) {
        self.trace(|| format!("master {at} is gone"));
        let run = self.masters[at].run;
        self.masters[at].is_up = false;
        self.books.master_died((at, run));
        for link in self.open_links.clone() {
            if self.links[link].master == (at, run) {
                self.links[link].has_master_end = false;
                let pause = self.clock.dice.between(0, 500);
                self.end_at_worker(link, pause);
            }
        }
        for (id, process) in self.processes.iter_mut().enumerate() {
            let is_its = process.place.master == at && process.is_alive && !process.is_external;
            if is_its && self.planted != Some(Planted::WorkersOutliveTheirMaster) {
                process.kill(&mut self.clock, id, "its master is gone");
            }
        }
        let pause = self.clock.dice.between(500, 6_000);
        self.clock.after(pause, Happening::MasterStarts(at));
    }

    fn master_starts(&mut self, at: usize) -> Broken {
        let run = self.masters[at].run + 1;
        self.masters[at] = SimMaster::new(at, run, &self.kinds, self.planted);
        for worker in 0..self.kinds.len() {
            self.turn(Place { master: at, run, worker }, None)?;
        }
        Ok(())
    }
}
