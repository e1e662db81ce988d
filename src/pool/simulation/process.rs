//! A worker's process, in virtual time: it boots, connects, runs what it is sent, hangs and ends.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::error::{DispatchError, TENANT_DROPPED};
use crate::dispatch::DispatchResult;
use crate::wire::data::{EncodedValue, TenantId};

use super::books::{Broken, value_of};
use super::conn::{ToMaster, ToWorker};
use super::dice::{Clock, millis};
use super::planted::Planted;
use super::world::{Happening, World};

pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// A worker of a master: which, and in which run of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) master: usize,
    pub(super) run: u64,
    pub(super) worker: usize,
}

/// What a process does by itself.
#[derive(Debug, Clone)]
pub(super) enum Life {
    Connects,
    SaysReady(usize),
    Beats(usize),
    SaysStuck,
    JobEnds(usize),
    WakesUp,
    Ends(String),
}

pub(super) struct Process {
    pub(super) place: Place,
    pub(super) is_external: bool,
    /// How it ended, until that is noticed.
    pub(super) ended: Option<String>,
    pub(super) is_alive: bool,
    pub(super) hung_until: Duration,
    /// An executor hangs: what it runs does not end, and its health says so.
    pub(super) is_stuck: bool,
    pub(super) is_ending: bool,
    pub(super) link: Option<usize>,
    jobs: BTreeMap<usize, TenantId>,
    /// What arrived while it stood still.
    inbox: VecDeque<Arrived>,
}

enum Arrived {
    Message(usize, ToWorker),
    Life(Life),
}

impl Process {
    /// One that has just been started.
    pub(super) fn start(clock: &mut Clock, place: Place, is_external: bool, id: usize) -> Self {
        let boots = clock.dice.between(20, 900);
        let life = match clock.dice.below(20) {
            0 => Life::Ends("it failed while it started".to_owned()),
            _ => Life::Connects,
        };
        // One in forty never comes up.
        if !clock.dice.one_in(40) || is_external {
            clock.after(boots, Happening::Life(id, life));
        }
        Self::new(place, is_external)
    }

    pub(super) fn new(place: Place, is_external: bool) -> Self {
        Self {
            place,
            is_external,
            ended: None,
            is_alive: true,
            hung_until: Duration::ZERO,
            is_stuck: false,
            is_ending: false,
            link: None,
            jobs: BTreeMap::new(),
            inbox: VecDeque::new(),
        }
    }

    fn is_still(&self, now: Duration) -> bool {
        now < self.hung_until || !self.inbox.is_empty()
    }

    /// TERM: it ends soon, unless it stands still.
    pub(super) fn terminate(&mut self, clock: &mut Clock, id: usize) {
        if self.is_alive && !self.is_ending && clock.now >= self.hung_until {
            self.is_ending = true;
            let pause = clock.dice.between(1, 300);
            clock.after(pause, Happening::Life(id, Life::Ends("exit status: 0".to_owned())));
        }
    }

    /// KILL, or a death.
    pub(super) fn kill(&mut self, clock: &mut Clock, id: usize, how: &str) {
        if self.is_alive {
            (self.is_ending, self.hung_until) = (true, Duration::ZERO);
            self.inbox.clear();
            let pause = clock.dice.between(0, 30);
            clock.after(pause, Happening::Life(id, Life::Ends(how.to_owned())));
        }
    }
}

impl World {
    pub(super) fn live(&mut self, id: usize, life: Life) -> Broken {
        let now = self.clock.now;
        let process = &mut self.processes[id];
        if !process.is_alive {
            return Ok(());
        }
        let life = match life {
            Life::Ends(how) => return self.process_ends(id, how),
            Life::WakesUp => return if now < process.hung_until { Ok(()) } else { self.wake(id) },
            life if process.is_still(now) => {
                process.inbox.push_back(Arrived::Life(life));
                return Ok(());
            }
            life => life,
        };
        self.do_now(id, life)
    }

    /// It goes on after it stood still, with all that came meanwhile.
    fn wake(&mut self, id: usize) -> Broken {
        let inbox = std::mem::take(&mut self.processes[id].inbox);
        for arrived in inbox {
            if self.processes[id].is_alive {
                match arrived {
                    Arrived::Message(link, message) => self.take_message(id, link, message)?,
                    Arrived::Life(life) => self.do_now(id, life)?,
                }
            }
        }
        Ok(())
    }

    fn do_now(&mut self, id: usize, life: Life) -> Broken {
        match life {
            Life::Connects => self.connect(id),
            Life::SaysReady(link) if self.processes[id].link == Some(link) => {
                self.send_to_master(link, ToMaster::Ready);
                self.clock.after(HEARTBEAT, Happening::Life(id, Life::Beats(link)));
            }
            Life::Beats(link) if self.processes[id].link == Some(link) => {
                self.send_to_master(link, ToMaster::Heartbeat);
                self.clock.after(HEARTBEAT, Happening::Life(id, Life::Beats(link)));
            }
            Life::SaysStuck if self.processes[id].is_stuck => {
                if let Some(link) = self.processes[id].link {
                    self.send_to_master(link, ToMaster::Stuck);
                }
                self.clock.after(Duration::from_secs(1), Happening::Life(id, Life::SaysStuck));
            }
            Life::JobEnds(request) if !self.processes[id].is_stuck => self.end_job(id, request),
            _ => {}
        }
        Ok(())
    }

    fn end_job(&mut self, id: usize, request: usize) {
        if self.processes[id].jobs.remove(&request).is_some() {
            let result = match self.clock.dice.one_in(12) {
                true => Err(DispatchError::Script("it failed".to_owned())),
                false => Ok(value_of(request)),
            };
            self.answer(id, request, result);
        }
    }

    fn answer(&mut self, id: usize, request: usize, result: DispatchResult) {
        let Some(link) = self.processes[id].link else { return };
        // A worker of another make may say it twice.
        let is_doubled = self.has_faults && self.clock.dice.one_in(30);
        for _ in 0..=usize::from(is_doubled) {
            self.send_to_master(link, ToMaster::Answer(request, result.clone()));
        }
        if is_doubled {
            self.count("an answer came twice");
        }
    }

    /// A message arrives at the worker's end of a link.
    pub(super) fn arrive_at_worker(&mut self, link: usize, message: ToWorker) -> Broken {
        let id = self.links[link].process;
        let (now, process) = (self.clock.now, &mut self.processes[id]);
        let is_lost = now > self.links[link].to_worker.lost_after || process.link != Some(link);
        if is_lost || !process.is_alive {
            return Ok(());
        }
        if process.is_still(now) {
            process.inbox.push_back(Arrived::Message(link, message));
            return Ok(());
        }
        self.take_message(id, link, message)
    }

    fn take_message(&mut self, id: usize, link: usize, message: ToWorker) -> Broken {
        match message {
            ToWorker::Dispatch(tenant, request) => {
                self.links[link].last_dispatch = Some(ToWorker::Dispatch(tenant, request));
                if self.planted != Some(Planted::WorkersAnswerWithoutRunning) {
                    self.books.begin(request)?;
                }
                self.processes[id].jobs.insert(request, tenant);
                let takes = match self.clock.dice.below(40) {
                    0 => None,
                    1 | 2 => Some(self.clock.dice.between(2_000, 20_000)),
                    _ => Some(self.clock.dice.between(1, 300)),
                };
                if let Some(takes) = takes {
                    self.clock.after(takes, Happening::Life(id, Life::JobEnds(request)));
                }
            }
            ToWorker::Drop(tenant, request) => {
                self.books.begin(request)?;
                let jobs = &mut self.processes[id].jobs;
                let ended: Vec<_> = jobs.extract_if(.., |_, of| *of == tenant).collect();
                for (job, _) in ended {
                    let dropped = DispatchError::Script(TENANT_DROPPED.to_owned());
                    self.answer(id, job, Err(dropped));
                }
                self.answer(id, request, Ok(EncodedValue::null()));
            }
            ToWorker::Cancel(request) => {
                if self.processes[id].jobs.remove(&request).is_some() {
                    let cancelled = DispatchError::Script("cancelled".to_owned());
                    self.answer(id, request, Err(cancelled));
                }
            }
            ToWorker::Retire => self.processes[id].terminate(&mut self.clock, id),
        }
        Ok(())
    }

    fn process_ends(&mut self, id: usize, how: String) -> Broken {
        let process = &mut self.processes[id];
        process.is_alive = false;
        process.jobs.clear();
        process.inbox.clear();
        process.ended = Some(how);
        let (place, is_external, link) = (process.place, process.is_external, process.link.take());
        if let Some(link) = link {
            self.links[link].has_worker_end = false;
            // What it had written may still arrive; its end may not, if the network went first.
            let now = self.clock.now;
            let pause = self.clock.dice.between(0, 60);
            let link_now = &mut self.links[link];
            link_now.to_worker.lost_after = link_now.to_worker.lost_after.min(now);
            if link_now.to_master.lost_after > now {
                self.end_of_link(link, pause);
            }
        }
        if is_external {
            // Its host starts it anew.
            let pause = self.clock.dice.between(100, 3_000);
            self.clock.after(pause, Happening::ExternalStarts(place.master, place.worker));
            return Ok(());
        }
        // The end of its output is noticed at once, or only when the loop looks.
        if self.clock.dice.one_in(4) {
            return Ok(());
        }
        let pause = self.clock.dice.between(0, 20);
        self.clock.after(pause, Happening::Wake(place, Duration::ZERO));
        Ok(())
    }

    /// It stands still for a while.
    pub(super) fn hang(&mut self, id: usize, long: Duration) {
        let until = self.clock.now + long;
        self.processes[id].hung_until = until;
        self.clock.at(until, Happening::Life(id, Life::WakesUp));
    }

    /// An executor of it hangs.
    pub(super) fn stick(&mut self, id: usize, hang_timeout: Duration) {
        self.processes[id].is_stuck = true;
        self.clock.after(hang_timeout + millis(100), Happening::Life(id, Life::SaysStuck));
    }
}
