//! What to do about a worker: a pure state machine, `step(event, now) → actions`. No I/O, no clock, no threads.
//!
//! The loop in `process` feeds it what happened and carries out what it decides. One machine serves a child process and
//! an external worker alike; the latter is never spawned or signalled.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// When to restart, when to wait and when to give up. The defaults are the project's.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// From the start of a process to its being ready.
    pub boot_timeout: Duration,
    /// How long a running process may be without a link before it is ended.
    pub relink_timeout: Duration,
    /// First pause before a restart; it doubles.
    pub backoff_min: Duration,
    /// Longest pause before a restart.
    pub backoff_max: Duration,
    /// Being ready for so long forgets earlier failures in a row.
    pub stable_after: Duration,
    /// So many failures within [`Policy::window`] make the worker failed.
    pub failures_in_window: usize,
    /// See [`Policy::failures_in_window`].
    pub window: Duration,
    /// So many failures in a row, at any pace, make the worker failed.
    pub failures_in_a_row: u32,
    /// From TERM to KILL.
    pub term_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            boot_timeout: Duration::from_secs(30),
            relink_timeout: Duration::from_secs(15),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(10),
            failures_in_window: 5,
            window: Duration::from_secs(60),
            failures_in_a_row: 10,
            term_grace: Duration::from_secs(5),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The process was started.
    Spawned,
    /// The process could not be started.
    SpawnFailed(String),
    /// The worker's link is up.
    Connected,
    /// The worker is ready.
    Ready,
    /// The worker's link is down.
    Disconnected,
    /// The process ended; the text says how.
    Exited(String),
    /// The worker is to end at once and for good.
    Kill,
    /// The worker is to end gracefully and for good.
    Stop,
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
    /// Close the link, which is all that can be done to an external worker.
    CloseLink,
    /// Dispatches go to the link from now on.
    RouteToLink,
    /// Dispatches wait from now on.
    RouteToQueue,
    /// Dispatches fail from now on, with this reason.
    RouteToNobody(String),
    /// The process is no more and will not be started again.
    Ended,
}

/// Where a worker is in its life, as operators see it (interface.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its process starts, or it is awaited.
    Starting,
    /// Its link is up; it is not ready.
    Connected,
    /// It takes dispatches.
    Ready,
    /// It is being stopped.
    Draining,
    /// Its process has ended; the next start is due later.
    Dead,
    /// It failed too often and is not started again.
    Failed,
    /// It was ended on request.
    Stopped,
}

impl State {
    /// The word of interface.md.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Connected => "connected",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Dead => "dead",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
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
    /// Somebody else starts it.
    External,
}

/// The state machine of one worker.
#[derive(Debug)]
pub struct Supervisor {
    kind: Kind,
    policy: Policy,
    state: State,
    /// Whether there is a process: from `Spawn` to `Exited`.
    alive: bool,
    /// What is due next, whatever it is in this state: boot, relink, restart, KILL.
    due: Option<Instant>,
    ready_since: Option<Instant>,
    failures: VecDeque<Instant>,
    failures_in_a_row: u32,
    restarts: u64,
    last_exit: Option<String>,
    why: Option<String>,
}

impl Supervisor {
    /// A worker that has not been started; its first [`Event::Tick`] starts it.
    pub fn new(kind: Kind, policy: Policy) -> Self {
        Self {
            kind,
            policy,
            state: if kind == Kind::Child { State::Dead } else { State::Starting },
            alive: false,
            due: None,
            ready_since: None,
            failures: VecDeque::new(),
            failures_in_a_row: 0,
            restarts: 0,
            last_exit: None,
            why: None,
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often its process was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How its last process ended.
    pub fn last_exit(&self) -> Option<&str> {
        self.last_exit.as_deref()
    }

    /// When the next [`Event::Tick`] is wanted.
    pub fn due(&self) -> Option<Instant> {
        match (self.state, self.ready_since) {
            (State::Ready, Some(since)) if self.failures_in_a_row > 0 => Some(since + self.policy.stable_after),
            _ => self.due,
        }
    }

    /// Takes in what happened and says what to do. `jitter` in 0.0..1.0 spreads restarts.
    pub fn step(&mut self, event: Event, now: Instant, jitter: f64) -> Vec<Action> {
        self.settle(now);
        match event {
            Event::Tick => self.tick(now),
            Event::Spawned => vec![],
            Event::SpawnFailed(why) => self.exited(format!("could not be started: {why}"), now, jitter),
            Event::Exited(how) => self.exited(how, now, jitter),
            Event::Connected => self.connected(),
            Event::Ready => self.ready(now),
            Event::Disconnected => self.disconnected(now),
            Event::Stop => self.end(Action::Terminate, now),
            Event::Kill => self.end(Action::Kill, now),
        }
    }

    /// A worker that was ready long enough has made up for its earlier failures.
    fn settle(&mut self, now: Instant) {
        if self.ready_since.is_some_and(|since| now >= since + self.policy.stable_after) {
            self.failures_in_a_row = 0;
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let first = self.state == State::Dead && self.due.is_none();
        if !first && self.due.is_none_or(|due| now < due) {
            return vec![];
        }
        match self.state {
            State::Dead => {
                self.state = State::Starting;
                self.alive = true;
                self.due = Some(now + self.policy.boot_timeout);
                self.restarts += u64::from(!first);
                vec![Action::Spawn]
            }
            State::Starting | State::Connected if self.kind == Kind::Child => {
                self.why = Some("it was not ready in time".to_owned());
                self.terminate(now)
            }
            State::Draining | State::Stopped if self.alive => {
                // TERM was not enough. Once more later, should even this not end it (an uninterruptible sleep).
                self.due = Some(now + self.policy.term_grace);
                vec![Action::Kill]
            }
            _ => {
                self.due = None;
                vec![]
            }
        }
    }

    fn terminate(&mut self, now: Instant) -> Vec<Action> {
        self.due = Some(now + self.policy.term_grace);
        // Not a state of its own: until the process is gone it is what it was, and `Kill` follows.
        self.state = State::Draining;
        vec![Action::RouteToQueue, Action::Terminate]
    }

    fn connected(&mut self) -> Vec<Action> {
        match self.state {
            State::Starting | State::Connected | State::Ready => {
                self.state = State::Connected;
                self.ready_since = None;
                vec![Action::RouteToQueue]
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
        if !matches!(self.state, State::Connected | State::Ready) {
            return vec![];
        }
        self.state = State::Starting;
        self.ready_since = None;
        // A child that lives must come back soon; an external worker may come back whenever it likes.
        self.due = (self.kind == Kind::Child).then(|| now + self.policy.relink_timeout);
        vec![Action::RouteToQueue]
    }

    fn exited(&mut self, how: String, now: Instant, jitter: f64) -> Vec<Action> {
        self.alive = false;
        self.ready_since = None;
        self.last_exit = Some(match self.why.take() {
            Some(why) => format!("{how} ({why})"),
            None => how,
        });
        if self.state == State::Stopped {
            self.due = None;
            return vec![Action::Ended];
        }
        self.note_failure(now);
        if self.failures.len() >= self.policy.failures_in_window
            || self.failures_in_a_row >= self.policy.failures_in_a_row
        {
            self.state = State::Failed;
            self.due = None;
            return vec![Action::RouteToNobody("its worker has failed too often".to_owned()), Action::Ended];
        }
        self.state = State::Dead;
        self.due = Some(now + self.backoff(jitter));
        vec![Action::RouteToQueue]
    }

    fn note_failure(&mut self, now: Instant) {
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.duration_since(*at) > self.policy.window) {
            self.failures.pop_front();
        }
        self.failures_in_a_row += 1;
    }

    /// Doubles with each failure in a row; the jitter takes up to half of it away.
    fn backoff(&self, jitter: f64) -> Duration {
        let doublings = self.failures_in_a_row.saturating_sub(1).min(16);
        let pause = (self.policy.backoff_min * (1 << doublings)).min(self.policy.backoff_max);
        pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    fn end(&mut self, how: Action, now: Instant) -> Vec<Action> {
        let was = std::mem::replace(&mut self.state, State::Stopped);
        self.ready_since = None;
        let nobody = Action::RouteToNobody("its worker was stopped".to_owned());
        if self.kind == Kind::External {
            self.due = None;
            return if was == State::Stopped { vec![] } else { vec![nobody, Action::CloseLink, Action::Ended] };
        }
        if !self.alive {
            self.due = None;
            return if was == State::Stopped { vec![] } else { vec![nobody, Action::Ended] };
        }
        self.due = (how == Action::Terminate).then(|| now + self.policy.term_grace);
        vec![nobody, how]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Brings a new child worker to `Ready` at `start`.
    fn ready_child(start: Instant) -> Supervisor {
        let mut supervisor = Supervisor::new(Kind::Child, Policy::default());
        assert_eq!(supervisor.step(Event::Tick, start, 0.0), [Action::Spawn]);
        supervisor.step(Event::Spawned, start, 0.0);
        assert_eq!(supervisor.step(Event::Connected, start, 0.0), [Action::RouteToQueue]);
        assert_eq!(supervisor.step(Event::Ready, start, 0.0), [Action::RouteToLink]);
        assert_eq!(supervisor.state(), State::Ready);
        supervisor
    }

    fn exit(supervisor: &mut Supervisor, now: Instant) -> Vec<Action> {
        supervisor.step(Event::Disconnected, now, 0.0);
        supervisor.step(Event::Exited("killed by signal 9".to_owned()), now, 0.0)
    }

    #[test]
    fn a_worker_that_dies_is_restarted_after_a_pause_that_doubles() {
        let start = Instant::now();
        let mut supervisor = ready_child(start);
        assert_eq!(exit(&mut supervisor, at(start, 100)), [Action::RouteToQueue]);
        assert_eq!(supervisor.state(), State::Dead);
        assert_eq!(supervisor.step(Event::Tick, at(start, 599), 0.0), []);
        assert_eq!(supervisor.step(Event::Tick, at(start, 600), 0.0), [Action::Spawn]);
        assert_eq!(supervisor.restarts(), 1);
        exit(&mut supervisor, at(start, 700));
        assert_eq!(supervisor.due(), Some(at(start, 1700)));
    }

    #[test]
    fn jitter_only_shortens_a_pause_and_by_half_at_most() {
        let start = Instant::now();
        let mut supervisor = ready_child(start);
        supervisor.step(Event::Exited("exit 1".to_owned()), start, 1.0);
        assert_eq!(supervisor.due(), Some(at(start, 250)));
    }

    #[test]
    fn being_ready_for_ten_seconds_resets_the_pause() {
        let start = Instant::now();
        let mut supervisor = ready_child(start);
        exit(&mut supervisor, start);
        supervisor.step(Event::Tick, at(start, 500), 0.0);
        supervisor.step(Event::Connected, at(start, 500), 0.0);
        supervisor.step(Event::Ready, at(start, 500), 0.0);
        exit(&mut supervisor, at(start, 10_500));
        assert_eq!(supervisor.due(), Some(at(start, 11_000)));
    }

    #[test]
    fn five_failures_within_a_minute_make_it_failed() {
        let start = Instant::now();
        let mut supervisor = ready_child(start);
        let mut now = start;
        for _ in 0..4 {
            exit(&mut supervisor, now);
            now = supervisor.due().expect("a restart is due");
            assert_eq!(supervisor.step(Event::Tick, now, 0.0), [Action::Spawn]);
        }
        let last = exit(&mut supervisor, now);
        assert!(matches!(last.as_slice(), [Action::RouteToNobody(_), Action::Ended]));
        assert_eq!(supervisor.state(), State::Failed);
        assert_eq!(supervisor.step(Event::Tick, at(now, 3_600_000), 0.0), []);
    }

    #[test]
    fn ten_failures_in_a_row_at_any_pace_make_it_failed() {
        let start = Instant::now();
        let policy = Policy { failures_in_window: 100, ..Policy::default() };
        let mut supervisor = Supervisor::new(Kind::Child, policy);
        let mut now = start;
        for _ in 0..10 {
            assert_eq!(supervisor.step(Event::Tick, now, 0.0), [Action::Spawn]);
            supervisor.step(Event::Exited("exit 3".to_owned()), now, 0.0);
            now = supervisor.due().unwrap_or(now);
        }
        assert_eq!(supervisor.state(), State::Failed);
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_gets_term_then_kill() {
        let start = Instant::now();
        let mut supervisor = Supervisor::new(Kind::Child, Policy::default());
        supervisor.step(Event::Tick, start, 0.0);
        supervisor.step(Event::Connected, at(start, 10), 0.0);
        assert_eq!(supervisor.step(Event::Tick, at(start, 30_000), 0.0), [Action::RouteToQueue, Action::Terminate]);
        assert_eq!(supervisor.step(Event::Tick, at(start, 34_999), 0.0), []);
        assert_eq!(supervisor.step(Event::Tick, at(start, 35_000), 0.0), [Action::Kill]);
        supervisor.step(Event::Exited("killed by signal 9".to_owned()), at(start, 35_001), 0.0);
        assert_eq!(supervisor.last_exit(), Some("killed by signal 9 (it was not ready in time)"));
    }

    #[test]
    fn a_lost_link_sends_dispatches_to_the_queue_and_its_return_back() {
        let start = Instant::now();
        let mut supervisor = ready_child(start);
        assert_eq!(supervisor.step(Event::Disconnected, at(start, 50), 0.0), [Action::RouteToQueue]);
        assert_eq!(supervisor.step(Event::Connected, at(start, 60), 0.0), [Action::RouteToQueue]);
        assert_eq!(supervisor.step(Event::Ready, at(start, 70), 0.0), [Action::RouteToLink]);
        assert_eq!(supervisor.step(Event::Tick, at(start, 60_000), 0.0), []);
    }

    #[test]
    fn a_stop_is_term_then_kill_and_no_restart() {
        let start = Instant::now();
        let mut supervisor = ready_child(start);
        let stop = supervisor.step(Event::Stop, start, 0.0);
        assert!(matches!(stop.as_slice(), [Action::RouteToNobody(_), Action::Terminate]));
        assert_eq!(supervisor.step(Event::Disconnected, start, 0.0), []);
        assert_eq!(supervisor.step(Event::Tick, at(start, 5000), 0.0), [Action::Kill]);
        assert_eq!(
            supervisor.step(Event::Exited("killed by signal 9".to_owned()), at(start, 5001), 0.0),
            [Action::Ended]
        );
        assert_eq!(supervisor.state(), State::Stopped);
        assert_eq!(supervisor.step(Event::Tick, at(start, 99_000), 0.0), []);
    }

    #[test]
    fn an_external_worker_is_never_spawned_or_signalled() {
        let start = Instant::now();
        let mut supervisor = Supervisor::new(Kind::External, Policy::default());
        let events = [Event::Tick, Event::Connected, Event::Ready, Event::Disconnected, Event::Tick, Event::Kill];
        for (step, event) in events.into_iter().enumerate() {
            let actions = supervisor.step(event, at(start, 40_000 * step as u64), 0.0);
            let touches = |action: &Action| matches!(action, Action::Spawn | Action::Terminate | Action::Kill);
            assert!(!actions.iter().any(touches), "{actions:?}");
        }
        assert_eq!(supervisor.state(), State::Stopped);
    }
}
