//! A master, in virtual time: the product's pool, admission, routes and supervisors, and around
//! each supervisor what `process/supervision.rs` is in the product.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::error::DispatchError;
use crate::dispatch::Request;
use crate::dispatch::worker_like::WorkerLike;
use crate::net::link::{CloseCause, close_code};
use crate::pool::process::supervisor::{Action, Event, Kind, Policy, State, Supervisor};
use crate::pool::route::Router;
use crate::pool::{AdmittingPool, Quarantine, Traffic, WorkerPool};
use crate::store::memory::MemoryStore;
use crate::store::{DbOptions, DbState};
use crate::wire::data::TenantId;

use super::books::{Answers, Broken, ensure};
use super::conn::{SimConn, SimHandle};
use super::dice::{Clock, millis};
use super::planted::Planted;
use super::process::{Place, Process};
use super::world::Happening;

/// As in the product.
const REAP_PAUSE: Duration = Duration::from_millis(20);
const DRAIN_PAUSE: Duration = Duration::from_millis(5);
pub(super) const ROUND: Duration = Duration::from_secs(1);

/// What a supervision loop is told.
#[derive(Clone)]
pub(super) enum Note {
    Connected(SimConn),
    Ready(SimConn),
    Disconnected(SimConn, CloseCause),
    Stuck(SimConn),
    Wish(Event),
    End(Event),
}

/// The supervision loop of one worker.
pub(super) struct SimLoop {
    pub(super) place: Place,
    pub(super) supervisor: Supervisor,
    pub(super) handle: Arc<SimHandle>,
    quarantine: Arc<Quarantine>,
    pub(super) conn: Option<SimConn>,
    generation: u64,
    /// The process that it has started and not reaped.
    pub(super) child: Option<usize>,
    pub(super) is_ending: bool,
    pub(super) is_over: bool,
    pub(super) wake_at: Duration,
    /// Whose requests were in flight when the link of this generation ended.
    lost: Option<(u64, BTreeSet<TenantId>)>,
    planted: Option<Planted>,
    broken: Broken,
}

/// What a loop reaches of the world.
pub(super) struct Around<'w> {
    pub(super) clock: &'w mut Clock,
    pub(super) processes: &'w mut Vec<Process>,
    pub(super) has_faults: bool,
}

impl SimLoop {
    fn new(
        place: Place,
        kind: Kind,
        quarantine: Arc<Quarantine>,
        planted: Option<Planted>,
    ) -> Self {
        let router = Router::new();
        Self {
            place,
            supervisor: Supervisor::new(kind, Policy::default()),
            handle: Arc::new(SimHandle { id: place.worker, router }),
            quarantine,
            conn: None,
            generation: 0,
            child: None,
            is_ending: false,
            is_over: false,
            wake_at: Duration::MAX,
            lost: None,
            planted,
            broken: Ok(()),
        }
    }

    /// One turn of the loop: a note, if there is one, and what it looks at each time.
    pub(super) fn turn(&mut self, note: Option<Note>, around: &mut Around<'_>) -> Broken {
        if self.is_over {
            return Ok(());
        }
        if let Some(note) = note {
            self.on_note(note, around);
        }
        self.reap(around);
        self.check_link(around);
        self.check_drained(around);
        let now = around.clock.instant(around.clock.now);
        if self.planted != Some(Planted::NothingExpires) {
            self.handle.router.expire(now);
        }
        if self.planted != Some(Planted::NoTicks) || self.supervisor.due().is_none() {
            self.step(Event::Tick, around);
        }
        self.is_over = self.is_ending && self.child.is_none() && !self.supervisor.is_draining();
        self.wake_at = self.next_wake(around);
        if !self.is_over {
            around.clock.at(self.wake_at, Happening::Wake(self.place, self.wake_at));
        }
        std::mem::replace(&mut self.broken, Ok(()))
    }

    fn next_wake(&self, around: &Around<'_>) -> Duration {
        let (clock, now) = (&around.clock, around.clock.now);
        let has_ended = |child: usize| around.processes[child].ended.is_some();
        let reap = self.child.filter(|child| has_ended(*child)).map(|_| now + REAP_PAUSE);
        let drain = self.supervisor.is_draining().then(|| now + DRAIN_PAUSE);
        let expire = self.handle.router.expire(clock.instant(Duration::ZERO));
        let due = [self.supervisor.due(), expire].into_iter().flatten().map(|due| clock.of(due));
        // Not again in the same moment, in which nothing would have changed.
        due.chain(reap).chain(drain).fold(now + ROUND, Duration::min).max(now + millis(1))
    }

    fn on_note(&mut self, note: Note, around: &mut Around<'_>) {
        let is_current = |conn: &SimConn, this: &Self| {
            let current = this.conn.as_ref();
            let is_it = current.is_some_and(|it| it.generation() == conn.generation());
            is_it || this.planted == Some(Planted::OldNotesCount)
        };
        match note {
            Note::Connected(conn) => {
                let current = self.conn.as_ref();
                if current.is_none_or(|current| current.generation() < conn.generation()) {
                    self.generation = conn.generation();
                    self.conn = Some(conn);
                    self.step(Event::Connected, around);
                }
            }
            Note::Ready(conn) if is_current(&conn, self) => self.step(Event::Ready, around),
            Note::Disconnected(conn, cause) if is_current(&conn, self) => {
                self.on_link_end(&cause, around);
            }
            Note::Stuck(conn) if is_current(&conn, self) => {
                let is_up = matches!(self.supervisor.state(), State::Connected | State::Ready);
                if is_up || self.supervisor.is_draining() {
                    self.blame("it hangs", &conn.tenants_in_flight(), around);
                    self.step(Event::Unhealthy("an executor hangs".to_owned()), around);
                }
            }
            Note::Ready(_) | Note::Disconnected(..) | Note::Stuck(_) => {}
            Note::Wish(event) => {
                if !self.is_ending {
                    self.step(event, around);
                }
            }
            Note::End(event) => {
                self.is_ending = true;
                self.step(event, around);
            }
        }
    }

    fn on_link_end(&mut self, cause: &CloseCause, around: &mut Around<'_>) {
        self.conn = None;
        let event = if *cause == CloseCause::Silent { Event::Silent } else { Event::Disconnected };
        self.step(event, around);
    }

    fn reap(&mut self, around: &mut Around<'_>) {
        if self.planted == Some(Planted::NothingIsReaped) {
            return;
        }
        let Some(child) = self.child else { return };
        let Some(how) = around.processes[child].ended.take() else { return };
        let now = self.conn.as_ref().map(SimConn::tenants_in_flight).unwrap_or_default();
        let lost = self.lost.take().filter(|(of, _)| *of == self.generation);
        let in_flight = lost.map_or(now, |(_, tenants)| tenants);
        self.child = None;
        if !self.supervisor.was_told_to_end() {
            self.blame(&how, &in_flight, around);
        }
        self.step(Event::Exited(how), around);
    }

    /// A link ends; what is in flight on it is about to fail.
    pub(super) fn note_lost(&mut self, conn: &SimConn) {
        if self.lost.as_ref().is_none_or(|(of, _)| *of < conn.generation()) {
            self.lost = Some((conn.generation(), conn.tenants_in_flight()));
        }
    }

    fn blame(&mut self, how: &str, tenants: &BTreeSet<TenantId>, around: &Around<'_>) {
        let now = around.clock.instant(around.clock.now);
        let culprits = self.quarantine.died(self.place.worker, how, 1, tenants, now);
        let is_theirs = |waiting: &Request| culprits.contains(&waiting.tenant);
        self.handle.router.refuse(is_theirs, &DispatchError::Quarantined);
    }

    /// Notices the end of a link whose note is still to come.
    fn check_link(&mut self, around: &mut Around<'_>) {
        if let Some(cause) = self.conn.as_ref().and_then(SimConn::cause) {
            self.on_link_end(&cause, around);
        }
    }

    fn check_drained(&mut self, around: &mut Around<'_>) {
        if !self.supervisor.is_draining() {
            return;
        }
        let is_drained = self.conn.as_ref().is_some_and(|conn| {
            conn.seal();
            conn.in_flight() == 0
        });
        if is_drained {
            self.step(Event::Drained, around);
        }
    }

    fn step(&mut self, event: Event, around: &mut Around<'_>) {
        let now: Instant = around.clock.instant(around.clock.now);
        let jitter = around.clock.dice.fraction();
        let actions = self.supervisor.step(event, now, jitter);
        for action in actions {
            self.carry_out(action, around);
        }
    }

    fn carry_out(&mut self, action: Action, around: &mut Around<'_>) {
        let now = around.clock.instant(around.clock.now);
        match action {
            Action::Spawn => self.spawn(around),
            Action::Terminate => self.signal("TERM", around, Process::terminate),
            Action::Kill if self.planted == Some(Planted::NothingIsKilled) => {}
            Action::Kill => self.signal("KILL", around, |process, clock, id| {
                process.kill(clock, id, "killed by signal 9");
            }),
            Action::CloseLink => {
                if let Some(conn) = self.conn.take() {
                    conn.close(close_code::GOING_AWAY);
                }
            }
            Action::Retire => {
                if let Some(conn) = self.conn.take() {
                    conn.retire();
                }
            }
            Action::RouteToLink => {
                if let Some(conn) = &self.conn {
                    self.handle.router.to_link(conn.clone(), now);
                }
            }
            Action::RouteToQueue => self.handle.router.to_queue(),
            Action::RouteToNobody(reason) => self.handle.router.to_nobody(&reason),
        }
    }

    fn signal(
        &mut self,
        name: &str,
        around: &mut Around<'_>,
        signal: impl FnOnce(&mut Process, &mut Clock, usize),
    ) {
        match self.child {
            Some(child) => signal(&mut around.processes[child], around.clock, child),
            None => self.broken = Err(format!("one process: {name} to one that is gone")),
        }
    }

    fn spawn(&mut self, around: &mut Around<'_>) {
        let (place, has_child) = (self.place, self.child.is_some());
        let is_other = |other: &Process| {
            let at = (other.place.master, other.place.worker);
            other.is_alive && at == (place.master, place.worker)
        };
        let is_alone = !has_child && !around.processes.iter().any(is_other);
        let one = ensure(is_alone, || format!("one process: a second one for {place:?}"));
        self.broken = std::mem::replace(&mut self.broken, Ok(())).and(one);
        if around.has_faults && around.clock.dice.one_in(25) {
            return self.step(Event::SpawnFailed("no memory".to_owned()), around);
        }
        let id = around.processes.len();
        let process = Process::start(around.clock, place, false, id);
        around.processes.push(process);
        self.child = Some(id);
    }
}

/// One master; its run counts how often it was started.
pub(super) struct SimMaster {
    pub(super) run: u64,
    pub(super) is_up: bool,
    /// It is stopped in good order, and must have ended by then.
    pub(super) stops_by: Option<Duration>,
    pub(super) loops: Vec<SimLoop>,
    /// What the server has: each worker's connection, and how many there were.
    pub(super) connections: Vec<Option<usize>>,
    pub(super) generations: u64,
    pub(super) pool: Arc<AdmittingPool>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) answers: Answers,
}

impl SimMaster {
    pub(super) fn new(at: usize, run: u64, kinds: &[Kind], planted: Option<Planted>) -> Self {
        let quarantine: Arc<Quarantine> = Arc::default();
        let loops: Vec<SimLoop> = (kinds.iter().enumerate())
            .map(|(worker, kind)| {
                let place = Place { master: at, run, worker };
                SimLoop::new(place, *kind, quarantine.clone(), planted)
            })
            .collect();
        let handles: Vec<Arc<SimHandle>> = loops.iter().map(|one| one.handle.clone()).collect();
        let pool: Arc<dyn WorkerLike> = Arc::new(WorkerPool::new(handles).expect("some workers"));
        let traffic = Arc::new(Traffic::new(kinds.len()));
        let store = Arc::new(MemoryStore::new());
        let db = Arc::new(DbState::without_states(store, DbOptions::default()));
        let pool = AdmittingPool::new(pool, db, quarantine.clone(), traffic.clone());
        Self {
            run,
            is_up: true,
            stops_by: None,
            connections: vec![None; kinds.len()],
            loops,
            generations: 0,
            pool: Arc::new(pool),
            traffic,
            quarantine,
            answers: Answers::default(),
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        let is_well = |one: &SimLoop| {
            let is_linked = one
                .conn
                .as_ref()
                .is_some_and(|conn| conn.cause().is_none() && conn.in_flight() == 0);
            one.supervisor.state() == State::Ready && is_linked && one.handle.router.waiting() == 0
        };
        self.is_up && self.stops_by.is_none() && self.loops.iter().all(is_well)
    }
}
