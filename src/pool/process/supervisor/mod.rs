//! What to do about a worker: a pure state machine, `step(event, now) → actions`. No I/O, no clock,
//! no threads.
//!
//! The loop in `supervision` feeds it what happened and carries out what it decides. One machine
//! serves a child process, an external worker and, on that one's host, its process: a master sees
//! the link of an external worker, which it never spawns or signals, and the host the process.

mod cause;
mod policy;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::base::labels::labels;

pub use cause::{Cause, Restarts, Why};
pub use policy::Policy;

/// From the end of a link until the end of its process is known, if that is why.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The process could not be started.
    SpawnFailed(String),
    /// The worker's link is up.
    Connected,
    /// The worker is ready.
    Ready,
    /// The worker's link is down.
    Disconnected,
    /// The worker's link was given up because the worker was silent.
    Silent,
    /// The worker hangs; the text says in what.
    Unhealthy(String),
    /// Nothing of the worker's is in flight any more, and nothing new was sent since it drains.
    Drained,
    /// The process ended; the text says how.
    Exited(String),
    /// A hosted process ended in good order, as its master, or this side, has it started anew.
    Retired(String),
    /// The worker is to be started anew, for this reason; one that is ready answers first what it
    /// has in flight.
    Restart(Why),
    /// The worker is to end at once, and stay away until it is restarted.
    Kill,
    /// The worker is to end gracefully, and stay away until it is restarted.
    Stop {
        /// Until then what it has in flight may be answered.
        drain_until: Instant,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the process.
    Spawn,
    /// Ask the process to end (TERM).
    Terminate,
    /// End the process (KILL).
    Kill,
    /// Close the link of an external worker, which may come back.
    CloseLink,
    /// The same, and have the worker end first, if it does that when it is told to: its host starts
    /// it anew.
    Retire,
    /// Dispatches go to the link from now on.
    RouteToLink,
    /// Dispatches wait from now on.
    RouteToQueue,
    /// Dispatches fail from now on, with this reason.
    RouteToNobody(String),
}

labels! {
    /// Where a worker is in its life, as operators see it (docs/api.md).
    State {
        /// Its process starts, or it is awaited.
        Starting = "starting",
        /// Its link is up; it is not ready.
        Connected = "connected",
        /// It takes dispatches.
        Ready = "ready",
        /// It takes no more dispatches: it answers what it has in flight, and then its process is
        /// ended.
        Draining = "draining",
        /// Its process has ended; the next start is due later.
        Dead = "dead",
        /// It failed too often and is not started again until an operator says so.
        Failed = "failed",
        /// It was ended on request.
        Stopped = "stopped",
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the worker's process is ours to start and signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A child process of this master.
    Child,
    /// A child process of this host, whose master is elsewhere. That master looks after the link,
    /// without which it lives on.
    Hosted,
    /// It is started from outside.
    External,
}

impl Kind {
    fn has_process(self) -> bool {
        self != Kind::External
    }
}

/// How far the end of a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It is not to end.
    No,
    /// What it has in flight is awaited.
    Drain,
    /// It got TERM.
    Term,
    /// It got KILL.
    Kill,
}

/// What the end of the process means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    /// A failure: it is started again after a pause, or given up.
    Fail,
    /// It was ended to be started anew, for this reason.
    Again(Why),
    /// It was ended on request and stays away.
    Stay,
}

/// The state machine of one worker.
#[derive(Debug)]
pub struct Supervisor {
    kind: Kind,
    policy: Policy,
    state: State,
    /// Whether there is a process: from `Spawn` to `Exited`.
    alive: bool,
    ending: Ending,
    then: Then,
    /// What is due next in this state: boot, relink, restart, TERM, KILL.
    due: Option<Instant>,
    ready_since: Option<Instant>,
    /// Within the window.
    link_losses: VecDeque<Instant>,
    failures: VecDeque<Instant>,
    failures_in_a_row: u32,
    restarts: Restarts,
    last_exit: Option<String>,
    /// Why the process is being ended, if that is the worker's fault.
    why: Option<Why>,
    /// Why the process ended that is to be started again after a pause.
    failed_by: Cause,
}

impl Supervisor {
    /// A worker that has not been started; its first [`Event::Tick`] starts it.
    pub fn new(kind: Kind, policy: Policy) -> Self {
        Self {
            kind,
            policy,
            state: if kind.has_process() { State::Dead } else { State::Starting },
            alive: false,
            ending: Ending::No,
            then: Then::Fail,
            due: None,
            ready_since: None,
            link_losses: VecDeque::new(),
            failures: VecDeque::new(),
            failures_in_a_row: 0,
            restarts: Restarts::default(),
            last_exit: None,
            why: None,
            failed_by: Cause::Death,
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often its process was started again.
    pub fn restarts(&self) -> Restarts {
        self.restarts
    }

    /// How its last process ended.
    pub fn last_exit(&self) -> Option<&str> {
        self.last_exit.as_deref()
    }

    /// Why its process is being ended, if that is the worker's fault.
    pub fn fault(&self) -> Option<&Why> {
        self.why.as_ref()
    }

    /// Whether it waits for what is in flight: then nothing new may be sent, and [`Event::Drained`]
    /// is wanted.
    pub fn is_draining(&self) -> bool {
        self.ending == Ending::Drain
    }

    /// Whether its process got TERM or KILL, so that its end is no surprise.
    pub fn was_told_to_end(&self) -> bool {
        matches!(self.ending, Ending::Term | Ending::Kill)
    }

    /// When the next [`Event::Tick`] is wanted.
    pub fn due(&self) -> Option<Instant> {
        match (self.state, self.ready_since) {
            (State::Ready, Some(since)) if self.failures_in_a_row > 0 => {
                Some(since + self.policy.stable_after)
            }
            _ => self.due,
        }
    }

    /// Takes in what happened and says what to do. `jitter` in 0.0..1.0 spreads restarts.
    pub fn step(&mut self, event: Event, now: Instant, jitter: f64) -> Vec<Action> {
        self.settle(now);
        match event {
            Event::Tick => self.tick(now),
            Event::SpawnFailed(why) => {
                let actions = self.exited(format!("could not be started: {why}"), now, jitter);
                self.failed_by = Cause::NotStarted;
                actions
            }
            Event::Exited(how) => self.exited(how, now, jitter),
            Event::Retired(how) => self.retired(how, now, jitter),
            Event::Connected => self.connected(now),
            Event::Ready => self.ready(now),
            Event::Disconnected => self.disconnected(now),
            Event::Silent => self.silent(now),
            Event::Unhealthy(why) => self.unhealthy(why, now),
            Event::Drained => self.drained(now),
            Event::Restart(reason) => self.restart(reason, now),
            Event::Kill => self.kill(now),
            Event::Stop { drain_until } => self.stop(drain_until, now),
        }
    }

    /// A worker that was ready long enough has made up for its earlier failures.
    fn settle(&mut self, now: Instant) {
        if self.ready_since.is_some_and(|since| now >= since + self.policy.stable_after) {
            self.failures_in_a_row = 0;
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let is_first = self.state == State::Dead && self.due.is_none();
        if !is_first && self.due.is_none_or(|due| now < due) {
            return vec![];
        }
        match (self.state, self.ending) {
            (State::Dead, _) => {
                if !is_first {
                    self.restarts.count(self.failed_by);
                }
                vec![self.start(now)]
            }
            (State::Starting | State::Connected, _) if self.kind.has_process() => {
                self.why = Some(Why::new(Cause::NotReady, "it was not ready in time"));
                self.terminate(Then::Fail, now)
            }
            (_, Ending::Drain) => self.drained(now),
            (_, Ending::Term | Ending::Kill) if self.alive => {
                // TERM was not enough. Once more later, should even this not end it (an
                // uninterruptible sleep).
                self.ending = Ending::Kill;
                self.due = Some(now + self.policy.term_grace);
                vec![Action::Kill]
            }
            _ => {
                self.due = None;
                vec![]
            }
        }
    }

    fn start(&mut self, now: Instant) -> Action {
        self.state = State::Starting;
        self.alive = true;
        self.link_losses.clear();
        self.due = Some(now + self.policy.boot_timeout);
        Action::Spawn
    }

    /// TERM now; KILL is due after a grace.
    fn terminate(&mut self, then: Then, now: Instant) -> Vec<Action> {
        let route = match then {
            Then::Stay => nobody(),
            Then::Fail | Then::Again(_) => Action::RouteToQueue,
        };
        self.end(State::Draining, Ending::Term, then, now + self.policy.term_grace);
        vec![route, Action::Terminate]
    }

    fn connected(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Starting | State::Connected | State::Ready => {
                self.await_ready(State::Connected, now)
            }
            State::Stopped | State::Failed => vec![Action::CloseLink],
            State::Draining | State::Dead => vec![],
        }
    }

    fn ready(&mut self, now: Instant) -> Vec<Action> {
        if self.state != State::Connected {
            return vec![];
        }
        self.state = State::Ready;
        self.ready_since = Some(now);
        self.due = None;
        vec![Action::RouteToLink]
    }

    fn disconnected(&mut self, now: Instant) -> Vec<Action> {
        if self.kind == Kind::Hosted {
            return vec![];
        }
        if self.is_draining() && self.kind == Kind::External {
            // It could not be told to end: what comes back is no other process.
            let is_over = self.then == Then::Stay;
            self.rest(if is_over { State::Stopped } else { State::Starting });
            return vec![];
        }
        if self.is_draining() {
            // Nothing of it is in flight any more. If its process has died, which is a failure,
            // that is known in a moment.
            let soon = now + LAST_MOMENT;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
            return vec![];
        }
        if !matches!(self.state, State::Connected | State::Ready) {
            return vec![];
        }
        note(&mut self.link_losses, now, self.policy.window);
        if self.kind == Kind::Child && self.link_losses.len() >= self.policy.link_losses_in_window {
            let text =
                format!("its link was lost {} times in a short time", self.link_losses.len());
            self.why = Some(Why::new(Cause::LinksLost, text));
            return self.terminate(Then::Fail, now);
        }
        self.await_ready(State::Starting, now)
    }

    /// A child that lives must be ready again soon, and an earlier deadline for that stays. An
    /// external worker may come back whenever it likes, and a hosted one when its master does.
    fn await_ready(&mut self, state: State, now: Instant) -> Vec<Action> {
        self.state = state;
        self.ready_since = None;
        if self.kind == Kind::Child {
            self.due.get_or_insert(now + self.policy.relink_timeout);
        } else {
            self.due = None;
        }
        vec![Action::RouteToQueue]
    }

    fn silent(&mut self, now: Instant) -> Vec<Action> {
        if self.kind.has_process() && matches!(self.state, State::Connected | State::Ready) {
            self.why = Some(Why::new(Cause::Silent, "it missed its heartbeats"));
            return self.terminate(Then::Fail, now);
        }
        self.disconnected(now)
    }

    fn unhealthy(&mut self, why: String, now: Instant) -> Vec<Action> {
        if !matches!(self.state, State::Connected | State::Ready) && !self.is_draining() {
            return vec![];
        }
        if self.kind == Kind::External {
            if self.is_draining() {
                return self.drained(now);
            }
            let mut actions = self.await_ready(State::Starting, now);
            actions.push(Action::Retire);
            return actions;
        }
        self.why = Some(Why::new(Cause::Hang, why));
        // It is `Fail` unless the worker drains.
        let then = std::mem::replace(&mut self.then, Then::Fail);
        self.terminate(then, now)
    }

    fn drained(&mut self, now: Instant) -> Vec<Action> {
        if !self.is_draining() {
            return vec![];
        }
        let then = std::mem::replace(&mut self.then, Then::Fail);
        match (self.kind, then) {
            (Kind::Child | Kind::Hosted, then) => self.terminate(then, now),
            (Kind::External, Then::Again(reason)) => {
                self.restarts.count(reason.cause);
                self.rest(State::Starting);
                vec![Action::Retire]
            }
            (Kind::External, Then::Stay | Then::Fail) => {
                self.rest(State::Stopped);
                vec![Action::CloseLink]
            }
        }
    }

    fn restart(&mut self, reason: Why, now: Instant) -> Vec<Action> {
        if self.kind == Kind::External && self.state != State::Ready {
            return self.welcome_back();
        }
        if self.may_have_work() {
            let until = now + self.policy.drain_timeout;
            self.end(State::Draining, Ending::Drain, Then::Again(reason), until);
            return vec![Action::RouteToQueue];
        }
        match self.state {
            State::Starting | State::Connected | State::Ready => {
                self.terminate(Then::Again(reason), now)
            }
            State::Draining | State::Stopped if self.alive => {
                // One that is ended for its own fault is started again anyway, and counts as what
                // it is.
                if self.then == Then::Stay {
                    self.then = Then::Again(reason);
                }
                self.state = State::Draining;
                vec![Action::RouteToQueue]
            }
            State::Draining | State::Dead | State::Failed | State::Stopped => {
                self.failures.clear();
                self.failures_in_a_row = 0;
                self.restarts.count(reason.cause);
                vec![Action::RouteToQueue, self.start(now)]
            }
        }
    }

    /// Whether it takes, or has, something to answer before it ends. A host hears late whether a
    /// worker is linked.
    fn may_have_work(&self) -> bool {
        self.state == State::Ready || (self.kind, self.state) == (Kind::Hosted, State::Connected)
    }

    /// An external worker whose link was closed on request may come again.
    fn welcome_back(&mut self) -> Vec<Action> {
        if self.state != State::Stopped {
            return vec![];
        }
        self.state = State::Starting;
        vec![Action::RouteToQueue]
    }

    fn kill(&mut self, now: Instant) -> Vec<Action> {
        if self.kind == Kind::External {
            self.rest(State::Stopped);
            return vec![nobody(), Action::CloseLink];
        }
        if !self.alive {
            self.rest(State::Stopped);
            return vec![nobody()];
        }
        self.end(State::Stopped, Ending::Kill, Then::Stay, now + self.policy.term_grace);
        vec![nobody(), Action::Kill]
    }

    fn stop(&mut self, drain_until: Instant, now: Instant) -> Vec<Action> {
        match self.ending {
            // One that drains already has another time for it from now on.
            ending if ending == Ending::Drain || self.may_have_work() => {
                self.end(State::Draining, Ending::Drain, Then::Stay, drain_until);
                vec![nobody()]
            }
            Ending::Term | Ending::Kill => {
                self.then = Then::Stay;
                vec![nobody()]
            }
            _ if self.alive => self.terminate(Then::Stay, now),
            _ => {
                self.rest(State::Stopped);
                vec![nobody(), Action::CloseLink]
            }
        }
    }

    /// One that never came up, or was ended for its own fault, has failed all the same.
    fn retired(&mut self, how: String, now: Instant, jitter: f64) -> Vec<Action> {
        let is_well = self.state != State::Starting && self.why.is_none();
        if is_well && self.then == Then::Fail {
            self.then = Then::Again(Why::new(Cause::Rolling, "to be started anew"));
        }
        if is_well {
            self.ending = Ending::Term;
        }
        let is_routed = self.state == State::Ready;
        let mut actions = self.exited(how, now, jitter);
        if is_routed {
            actions.insert(0, Action::RouteToQueue);
        }
        actions
    }

    fn exited(&mut self, how: String, now: Instant, jitter: f64) -> Vec<Action> {
        let ending = self.ending;
        let then = std::mem::replace(&mut self.then, Then::Fail);
        self.alive = false;
        self.rest(self.state);
        let reason = match &then {
            Then::Again(reason) => Some(reason.clone()),
            Then::Fail | Then::Stay => None,
        };
        let fault = self.why.take();
        self.failed_by = fault.as_ref().map_or(Cause::Death, |why| why.cause);
        self.last_exit = Some(match fault.or(reason) {
            Some(why) => format!("{how} ({})", why.text),
            None => how,
        });
        match then {
            Then::Stay => {
                self.state = State::Stopped;
                vec![nobody()]
            }
            // One that died while it drained has failed, like any other.
            Then::Again(reason) if matches!(ending, Ending::Term | Ending::Kill) => {
                // One that hung while it drained is counted as what it did.
                let is_fault = self.failed_by != Cause::Death;
                self.restarts.count(if is_fault { self.failed_by } else { reason.cause });
                vec![self.start(now)]
            }
            Then::Again(_) | Then::Fail => self.failed(now, jitter),
        }
    }

    fn failed(&mut self, now: Instant, jitter: f64) -> Vec<Action> {
        note(&mut self.failures, now, self.policy.window);
        self.failures_in_a_row += 1;
        if self.failures.len() >= self.policy.failures_in_window
            || self.failures_in_a_row >= self.policy.failures_in_a_row
        {
            self.state = State::Failed;
            return vec![Action::RouteToNobody("its worker has failed too often".to_owned())];
        }
        self.state = State::Dead;
        self.due = Some(now + self.backoff(jitter));
        vec![Action::RouteToQueue]
    }

    /// Its end has come so far; the next step to it is due then.
    fn end(&mut self, state: State, ending: Ending, then: Then, due: impl Into<Option<Instant>>) {
        (self.state, self.ending, self.then, self.due) = (state, ending, then, due.into());
        self.ready_since = None;
    }

    /// Nothing is under way and nothing is due.
    fn rest(&mut self, state: State) {
        self.end(state, Ending::No, Then::Fail, None);
    }

    /// Doubles with each failure in a row; the jitter takes up to half of it away.
    fn backoff(&self, jitter: f64) -> Duration {
        let doublings = self.failures_in_a_row.saturating_sub(1).min(16);
        let pause = (self.policy.backoff_min * (1 << doublings)).min(self.policy.backoff_max);
        pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

fn nobody() -> Action {
    Action::RouteToNobody("its worker was stopped".to_owned())
}

/// Adds a moment to those within the window before it.
fn note(moments: &mut VecDeque<Instant>, now: Instant, window: Duration) {
    moments.push_back(now);
    while moments.front().is_some_and(|at| now.duration_since(*at) > window) {
        moments.pop_front();
    }
}

#[cfg(test)]
mod tests;
