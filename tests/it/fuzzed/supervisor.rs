//! The supervisor's steps under any events at any times: no process twice, no signal to one that is
//! gone, no worker that is waited for for ever, and dispatches go to the link exactly while it is
//! ready.

use std::time::{Duration, Instant};

use mesophyll::pool::process::supervisor::{
    Action, Cause, Event, Kind, Policy, State, Supervisor, Why,
};

/// Where dispatches go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Queue,
    Link,
    Nobody,
}

/// The world around a supervisor, as far as it does what it is told.
struct World {
    supervisor: Supervisor,
    kind: Kind,
    now: Instant,
    has_process: bool,
    spawns: u64,
    route: Route,
}

/// The first byte says whose the worker is; two bytes each are a step: what happens, and how much
/// later.
pub(super) fn supervisor(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let kind = match first % 8 {
        0 | 4 => Kind::External,
        7 => Kind::Hosted,
        _ => Kind::Child,
    };
    let supervisor = Supervisor::new(kind, Policy::default());
    let mut world = World {
        supervisor,
        kind,
        now: Instant::now(),
        has_process: false,
        spawns: 0,
        route: Route::Queue,
    };
    for step in steps.chunks_exact(2) {
        world.wait(step[1]);
        let Some(event) = world.event(step[0]) else { continue };
        world.step(event, f64::from(step[1]) / 255.0);
    }
}

impl World {
    /// Lets time pass: some of it, or as much as the supervisor wants.
    fn wait(&mut self, byte: u8) {
        let ms = [0, 1, 20, 250, 500, 1000, 4999, 5000, 10_000, 15_000, 30_000, 60_000, 3_600_000];
        let later = ms.get(usize::from(byte % 16)).map(|ms| self.now + Duration::from_millis(*ms));
        let due = self.supervisor.due().unwrap_or(self.now);
        self.now = later.unwrap_or(due).max(self.now);
    }

    /// What happens, if it can: only a process that is there ends.
    fn event(&self, byte: u8) -> Option<Event> {
        let text = String::new();
        Some(match byte % 16 {
            0..=3 => Event::Tick,
            4 if self.has_process => Event::SpawnFailed(text),
            5 | 6 if self.has_process && self.kind == Kind::Hosted && byte >= 128 => {
                Event::Retired(text)
            }
            5 | 6 if self.has_process => Event::Exited(text),
            4..=6 => return None,
            7 | 8 => Event::Connected,
            9 | 10 => Event::Ready,
            11 => Event::Disconnected,
            12 if byte >= 128 => Event::Silent,
            12 => Event::Unhealthy(text),
            13 => Event::Drained,
            14 => Event::Restart(Why::new(Cause::Rolling, text)),
            _ if byte >= 128 => Event::Kill,
            _ => Event::Stop { drain_until: self.now + Duration::from_millis(u64::from(byte)) },
        })
    }

    fn step(&mut self, event: Event, jitter: f64) {
        let is_tick_in_time =
            event == Event::Tick && self.supervisor.due().is_some_and(|due| due <= self.now);
        if matches!(event, Event::Exited(_) | Event::Retired(_) | Event::SpawnFailed(_)) {
            self.has_process = false;
        }
        let was = self.supervisor.state();
        for action in self.supervisor.step(event.clone(), self.now, jitter) {
            self.carry_out(action);
        }
        let state = self.supervisor.state();
        let due = self.supervisor.due();
        let told = format!(
            "{was} → {event:?} → {state}, due {:?}",
            due.map(|due| due.saturating_duration_since(self.now))
        );
        assert_eq!(self.route == Route::Link, state == State::Ready, "{told}");
        if matches!(state, State::Failed | State::Stopped) {
            assert_eq!(self.route, Route::Nobody, "{told}");
        }
        let restarts = self.supervisor.restarts().total();
        let are_spawns = restarts + 1 >= self.spawns && restarts <= self.spawns;
        assert!(are_spawns || self.kind == Kind::External, "{told}");
        if is_tick_in_time {
            assert!(due.is_none_or(|due| due > self.now), "it would tick for ever: {told}");
        }
        if self.kind == Kind::Child {
            self.check_child(state, due, &told);
        }
    }

    fn carry_out(&mut self, action: Action) {
        if matches!(action, Action::Spawn | Action::Terminate | Action::Kill) {
            assert_ne!(self.kind, Kind::External, "{action:?} of a process that is not ours");
        }
        match action {
            Action::Spawn => {
                assert!(!self.has_process, "a second process");
                self.has_process = true;
                self.spawns += 1;
            }
            Action::Terminate | Action::Kill => {
                assert!(self.has_process, "{action:?} of a process that is gone")
            }
            Action::CloseLink | Action::Retire => {}
            Action::RouteToLink => self.route = Route::Link,
            Action::RouteToQueue => self.route = Route::Queue,
            Action::RouteToNobody(_) => self.route = Route::Nobody,
        }
    }

    /// Whatever is awaited of a child is awaited until a certain time.
    fn check_child(&self, state: State, due: Option<Instant>, told: &str) {
        let is_awaited = match state {
            State::Starting | State::Connected | State::Draining => true,
            State::Dead => self.spawns > 0,
            State::Stopped => self.has_process,
            State::Ready | State::Failed => false,
        };
        assert!(!is_awaited || due.is_some(), "nothing ends this: {told}");
        if matches!(state, State::Starting | State::Connected | State::Ready | State::Draining) {
            assert!(self.has_process, "nobody is there: {told}");
        }
        if matches!(state, State::Dead | State::Failed) {
            assert!(!self.has_process, "somebody is still there: {told}");
        }
        if state == State::Dead && self.spawns > 0 {
            let policy = Policy::default();
            assert!(due.is_some_and(|due| due <= self.now + policy.backoff_max), "{told}");
        }
    }
}
