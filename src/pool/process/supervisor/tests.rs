//! The state machine, driven through years in a millisecond: its rules one by one, and its
//! invariants under random events.

use super::*;

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// Brings a new child worker to `Ready` at `start`.
fn ready_child(start: Instant) -> Supervisor {
    let mut supervisor = Supervisor::new(Kind::Child, Policy::default());
    assert_eq!(supervisor.step(Event::Tick, start, 0.0), [Action::Spawn]);
    become_ready(&mut supervisor, start);
    supervisor
}

fn become_ready(supervisor: &mut Supervisor, now: Instant) {
    assert_eq!(supervisor.step(Event::Connected, now, 0.0), [Action::RouteToQueue]);
    assert_eq!(supervisor.step(Event::Ready, now, 0.0), [Action::RouteToLink]);
    assert_eq!(supervisor.state(), State::Ready);
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
    assert_eq!(supervisor.restarts().total(), 1);
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
    become_ready(&mut supervisor, at(start, 500));
    exit(&mut supervisor, at(start, 10_500));
    assert_eq!(supervisor.due(), Some(at(start, 11_000)));
}

#[test]
fn five_failures_in_a_minute_make_a_worker_failed() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    let mut now = start;
    for _ in 0..4 {
        exit(&mut supervisor, now);
        now = supervisor.due().expect("a restart is due");
        assert_eq!(supervisor.step(Event::Tick, now, 0.0), [Action::Spawn]);
    }
    let last = exit(&mut supervisor, now);
    assert!(matches!(last.as_slice(), [Action::RouteToNobody(_)]));
    assert_eq!(supervisor.state(), State::Failed);
    assert_eq!(supervisor.step(Event::Tick, at(now, 3_600_000), 0.0), []);
    let restart =
        supervisor.step(Event::Restart(Why::new(Cause::Operator, "by an operator")), now, 0.0);
    assert_eq!(restart, [Action::RouteToQueue, Action::Spawn]);
    become_ready(&mut supervisor, now);
    // Its failures are forgotten.
    exit(&mut supervisor, now);
    assert_eq!((supervisor.state(), supervisor.due()), (State::Dead, Some(at(now, 500))));
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
    assert_eq!(
        supervisor.step(Event::Tick, at(start, 30_000), 0.0),
        [Action::RouteToQueue, Action::Terminate]
    );
    assert_eq!(supervisor.step(Event::Tick, at(start, 34_999), 0.0), []);
    assert_eq!(supervisor.step(Event::Tick, at(start, 35_000), 0.0), [Action::Kill]);
    supervisor.step(Event::Exited("killed by signal 9".to_owned()), at(start, 35_001), 0.0);
    assert_eq!(supervisor.last_exit(), Some("killed by signal 9 (it was not ready in time)"));
}

#[test]
fn a_lost_link_queues_dispatches_until_it_returns() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    assert_eq!(supervisor.step(Event::Disconnected, at(start, 50), 0.0), [Action::RouteToQueue]);
    become_ready(&mut supervisor, at(start, 60));
    assert_eq!(supervisor.step(Event::Tick, at(start, 60_000), 0.0), []);
}

#[test]
fn an_unsteady_link_ends_the_process_and_then_the_worker() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    let mut now = start;
    let mut spawns = 1;
    for _ in 0..1000 {
        now = at(now, 100);
        let mut actions = supervisor.step(Event::Disconnected, now, 0.0);
        if actions.contains(&Action::Terminate) {
            actions = supervisor.step(Event::Exited("exit code 0".to_owned()), now, 0.0);
            assert!(
                supervisor
                    .last_exit()
                    .is_some_and(|exit| exit.contains("its link was lost 5 times"))
            );
        }
        if let (State::Dead, Some(due)) = (supervisor.state(), supervisor.due()) {
            now = due;
            actions = supervisor.step(Event::Tick, now, 0.0);
            spawns += 1;
        }
        if supervisor.state() == State::Failed {
            break;
        }
        assert!(!actions.is_empty());
        supervisor.step(Event::Connected, now, 0.0);
        supervisor.step(Event::Ready, now, 0.0);
    }
    assert_eq!((supervisor.state(), spawns), (State::Failed, 5));
}

#[test]
fn an_unready_link_does_not_put_off_the_boot_timeout() {
    let start = Instant::now();
    let policy = Policy { link_losses_in_window: usize::MAX, ..Policy::default() };
    let mut supervisor = Supervisor::new(Kind::Child, policy);
    supervisor.step(Event::Tick, start, 0.0);
    for second in 1..30 {
        supervisor.step(Event::Connected, at(start, second * 1000), 0.0);
        supervisor.step(Event::Disconnected, at(start, second * 1000 + 500), 0.0);
    }
    assert!(supervisor.step(Event::Tick, at(start, 30_000), 0.0).contains(&Action::Terminate));
    // And one that was ready, and comes back but is never ready again.
    let mut supervisor = ready_child(start);
    supervisor.step(Event::Connected, at(start, 1000), 0.0);
    assert!(supervisor.step(Event::Tick, at(start, 16_000), 0.0).contains(&Action::Terminate));
}

#[test]
fn a_hung_or_silent_worker_gets_term_then_kill() {
    let start = Instant::now();
    for (event, why) in [
        (Event::Unhealthy("it runs X".to_owned()), "(it runs X)"),
        (Event::Silent, "(it missed its heartbeats)"),
    ] {
        let mut supervisor = ready_child(start);
        assert_eq!(supervisor.step(event, start, 0.0), [Action::RouteToQueue, Action::Terminate]);
        assert!(supervisor.was_told_to_end());
        assert_eq!(supervisor.step(Event::Tick, at(start, 5000), 0.0), [Action::Kill]);
        supervisor.step(Event::Exited("killed by signal 9".to_owned()), at(start, 5001), 0.0);
        assert_eq!(supervisor.last_exit(), Some(format!("killed by signal 9 {why}").as_str()));
        assert_eq!(supervisor.step(Event::Tick, at(start, 5501), 0.0), [Action::Spawn]);
    }
}

#[test]
fn a_restart_drains_ends_and_starts_at_once_and_is_no_failure() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    for round in 0..20 {
        assert_eq!(
            supervisor.step(Event::Restart(Why::new(Cause::Rolling, "rolling")), start, 0.0),
            [Action::RouteToQueue]
        );
        assert_eq!((supervisor.state(), supervisor.is_draining()), (State::Draining, true));
        assert_eq!(
            supervisor.step(Event::Drained, start, 0.0),
            [Action::RouteToQueue, Action::Terminate]
        );
        supervisor.step(Event::Disconnected, start, 0.0);
        assert_eq!(
            supervisor.step(Event::Exited("exit code 0".to_owned()), start, 0.0),
            [Action::Spawn]
        );
        assert_eq!(supervisor.last_exit(), Some("exit code 0 (rolling)"));
        assert_eq!(supervisor.restarts().total(), round + 1);
        become_ready(&mut supervisor, start);
    }
}

#[test]
fn a_worker_that_does_not_drain_ends_after_the_timeout() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    supervisor.step(Event::Restart(Why::new(Cause::Rolling, "rolling")), start, 0.0);
    assert_eq!(supervisor.due(), Some(at(start, 5000)));
    assert_eq!(
        supervisor.step(Event::Tick, at(start, 5000), 0.0),
        [Action::RouteToQueue, Action::Terminate]
    );
    // A stop that comes meanwhile has a time of its own.
    let mut supervisor = ready_child(start);
    supervisor.step(Event::Restart(Why::new(Cause::Rolling, "rolling")), start, 0.0);
    supervisor.step(Event::Stop { drain_until: at(start, 15_000) }, start, 0.0);
    assert_eq!(supervisor.due(), Some(at(start, 15_000)));
}

#[test]
fn a_worker_that_dies_while_it_drains_for_a_restart_has_failed() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    supervisor.step(Event::Restart(Why::new(Cause::Rolling, "rolling")), start, 0.0);
    // Its link ends with it, and may be noticed first.
    assert_eq!(supervisor.step(Event::Disconnected, start, 0.0), []);
    assert_eq!(
        supervisor.step(Event::Exited("killed by signal 9".to_owned()), start, 0.0),
        [Action::RouteToQueue]
    );
    assert_eq!((supervisor.state(), supervisor.due()), (State::Dead, Some(at(start, 500))));
    // One whose link ended, and that lives, is ended soon.
    let mut supervisor = ready_child(start);
    supervisor.step(Event::Restart(Why::new(Cause::Rolling, "rolling")), start, 0.0);
    supervisor.step(Event::Disconnected, start, 0.0);
    assert_eq!(
        supervisor.step(Event::Tick, at(start, 1000), 0.0),
        [Action::RouteToQueue, Action::Terminate]
    );
}

#[test]
fn a_kill_keeps_it_away_until_it_is_restarted() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    let kill = supervisor.step(Event::Kill, start, 0.0);
    assert!(matches!(kill.as_slice(), [Action::RouteToNobody(_), Action::Kill]));
    supervisor.step(Event::Exited("killed by signal 9".to_owned()), start, 0.0);
    assert_eq!(supervisor.state(), State::Stopped);
    assert_eq!(supervisor.step(Event::Tick, at(start, 99_000_000), 0.0), []);
    let restart =
        supervisor.step(Event::Restart(Why::new(Cause::Operator, "by an operator")), start, 0.0);
    assert_eq!(restart, [Action::RouteToQueue, Action::Spawn]);
    // A restart that comes before the killed process was reaped waits for that.
    supervisor.step(Event::Kill, start, 0.0);
    assert_eq!(
        supervisor.step(Event::Restart(Why::new(Cause::Operator, "again")), start, 0.0),
        [Action::RouteToQueue]
    );
    assert_eq!(
        supervisor.step(Event::Exited("killed by signal 9".to_owned()), start, 0.0),
        [Action::Spawn]
    );
}

#[test]
fn a_stop_drains_then_term_then_kill_and_no_restart() {
    let start = Instant::now();
    let mut supervisor = ready_child(start);
    let stop = supervisor.step(Event::Stop { drain_until: at(start, 1000) }, start, 0.0);
    assert!(matches!(stop.as_slice(), [Action::RouteToNobody(_)]));
    let term = supervisor.step(Event::Tick, at(start, 1000), 0.0);
    assert!(matches!(term.as_slice(), [Action::RouteToNobody(_), Action::Terminate]));
    assert_eq!(supervisor.step(Event::Disconnected, start, 0.0), []);
    assert_eq!(supervisor.step(Event::Tick, at(start, 6000), 0.0), [Action::Kill]);
    supervisor.step(Event::Exited("killed by signal 9".to_owned()), at(start, 6001), 0.0);
    assert_eq!(supervisor.state(), State::Stopped);
    assert_eq!(supervisor.step(Event::Tick, at(start, 99_000), 0.0), []);
}

#[test]
fn an_external_worker_is_never_spawned_or_signalled() {
    let start = Instant::now();
    let mut supervisor = Supervisor::new(Kind::External, Policy::default());
    let unhealthy = Event::Unhealthy("it hangs".to_owned());
    let stop = Event::Stop { drain_until: start };
    let events = [
        Event::Tick,
        Event::Connected,
        Event::Ready,
        unhealthy,
        Event::Connected,
        Event::Ready,
        Event::Restart(Why::new(Cause::Operator, "no")),
        Event::Silent,
        Event::Connected,
        Event::Ready,
        stop,
        Event::Drained,
    ];
    for (step, event) in events.into_iter().enumerate() {
        let actions = supervisor.step(event, at(start, 40_000 * step as u64), 0.0);
        let touches =
            |action: &Action| matches!(action, Action::Spawn | Action::Terminate | Action::Kill);
        assert!(!actions.iter().any(touches), "{actions:?}");
    }
    assert_eq!(supervisor.state(), State::Stopped);
}

#[test]
fn an_external_worker_is_restarted_by_being_told_to_end() {
    let start = Instant::now();
    let ready = || {
        let mut supervisor = Supervisor::new(Kind::External, Policy::default());
        become_ready(&mut supervisor, start);
        supervisor
    };
    let restart = || Event::Restart(Why::new(Cause::Rolling, "rolling"));
    let mut supervisor = ready();
    assert_eq!(supervisor.step(restart(), start, 0.0), [Action::RouteToQueue]);
    assert!(supervisor.is_draining());
    assert_eq!(supervisor.step(Event::Drained, start, 0.0), [Action::Retire]);
    assert_eq!((supervisor.state(), supervisor.restarts()[Cause::Rolling]), (State::Starting, 1));
    become_ready(&mut supervisor, start);
    // What does not drain is told all the same.
    supervisor.step(restart(), start, 0.0);
    assert_eq!(supervisor.step(Event::Tick, at(start, 5000), 0.0), [Action::Retire]);
    // One whose link is lost first was not told, and has not been restarted.
    let mut supervisor = ready();
    supervisor.step(restart(), start, 0.0);
    assert_eq!(supervisor.step(Event::Disconnected, start, 0.0), []);
    assert_eq!((supervisor.state(), supervisor.restarts().total()), (State::Starting, 0));
    // One that hangs is not to come back as it is.
    let mut supervisor = ready();
    let hang = supervisor.step(Event::Unhealthy("it hangs".to_owned()), start, 0.0);
    assert_eq!(hang, [Action::RouteToQueue, Action::Retire]);
}

#[test]
fn a_hosted_worker_waits_for_its_master_and_is_started_anew() {
    let start = Instant::now();
    let mut supervisor = Supervisor::new(Kind::Hosted, Policy::default());
    assert_eq!(supervisor.step(Event::Tick, start, 0.0), [Action::Spawn]);
    supervisor.step(Event::Connected, start, 0.0);
    assert_eq!(supervisor.due(), None, "without its master it lives on");
    supervisor.step(Event::Ready, start, 0.0);
    // Its link is lost.
    supervisor.step(Event::Connected, start, 0.0);
    assert_eq!((supervisor.state(), supervisor.due()), (State::Connected, None));
    // Its master, or its host, has it started anew.
    let retired = || Event::Retired("exit code 0".to_owned());
    for round in 1..20 {
        let actions = supervisor.step(retired(), start, 0.0);
        assert_eq!(actions.last(), Some(&Action::Spawn));
        assert_eq!(supervisor.restarts()[Cause::Rolling], 2 * round - 1);
        become_ready(&mut supervisor, start);
        supervisor.step(Event::Restart(Why::new(Cause::Rolling, "rolling")), start, 0.0);
        assert!(supervisor.is_draining());
        assert_eq!(supervisor.step(retired(), start, 0.0), [Action::Spawn]);
        become_ready(&mut supervisor, start);
    }
    // It is stopped or hangs.
    let silent = supervisor.step(Event::Silent, start, 0.0);
    assert_eq!(silent, [Action::RouteToQueue, Action::Terminate]);
    supervisor.step(retired(), start, 0.0);
    assert_eq!(supervisor.state(), State::Dead, "that is its own fault");
    // A program that only ends is none that was told to.
    supervisor.step(Event::Tick, at(start, 500), 0.0);
    supervisor.step(retired(), at(start, 600), 0.0);
    assert_eq!(supervisor.state(), State::Dead);
    supervisor.step(Event::Tick, at(start, 60_000), 0.0);
    become_ready(&mut supervisor, at(start, 60_000));
    supervisor.step(Event::Stop { drain_until: at(start, 70_000) }, at(start, 60_000), 0.0);
    assert_eq!(supervisor.step(retired(), at(start, 60_001), 0.0), [nobody()]);
    assert_eq!(supervisor.state(), State::Stopped);
}

/// What the actions have done to the world, and what the rules say of it.
#[derive(Debug)]
struct World {
    kind: Kind,
    alive: bool,
    signalled: bool,
    route: Route,
    /// An operator ended it, and no restart came since.
    put_down: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Link,
    Queue,
    Nobody,
}

impl World {
    fn obey(&mut self, action: &Action) {
        match action {
            Action::Spawn => {
                assert!(!self.alive, "a second process");
                assert!(!self.put_down, "a start that nobody wanted");
                assert!(self.kind.has_process());
                (self.alive, self.signalled) = (true, false);
            }
            Action::Terminate | Action::Kill => {
                assert!(self.alive, "a signal to a process that is gone");
                assert!(self.kind.has_process());
                self.signalled = true;
            }
            Action::CloseLink | Action::Retire => {}
            Action::RouteToLink => self.route = Route::Link,
            Action::RouteToQueue => self.route = Route::Queue,
            Action::RouteToNobody(_) => self.route = Route::Nobody,
        }
    }

    fn check(&self, supervisor: &Supervisor) {
        let state = supervisor.state();
        assert_eq!(
            self.route == Route::Link,
            state == State::Ready,
            "only a ready worker gets dispatches"
        );
        match state {
            State::Failed | State::Stopped => assert_eq!(self.route, Route::Nobody),
            // One that stops refuses, one that restarts lets wait.
            State::Draining => {}
            _ => assert_ne!(self.route, Route::Nobody),
        }
        if matches!(state, State::Failed | State::Dead) {
            assert!(!self.alive);
        }
        if self.put_down {
            assert!(matches!(state, State::Draining | State::Stopped));
        }
        let must_go_on = match state {
            State::Dead | State::Draining => true,
            State::Starting => self.kind.has_process(),
            State::Connected => self.kind == Kind::Child,
            State::Stopped => self.alive,
            State::Ready | State::Failed => false,
        };
        assert!(!must_go_on || supervisor.due().is_some(), "it would be {state} for ever");
    }
}

fn random_event(random: &mut u64, world: &World, now: Instant) -> Event {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let text = "for some reason".to_owned();
    match *random % 23 {
        0..=3 => Event::Connected,
        4..=7 => Event::Ready,
        8..=9 => Event::Disconnected,
        10 => Event::Silent,
        11 => Event::Unhealthy(text),
        12..=13 => Event::Drained,
        14 => Event::Restart(Why::new(Cause::Rolling, text)),
        15 if (*random >> 32).is_multiple_of(4) => Event::Kill,
        16 if (*random >> 32).is_multiple_of(4) => {
            Event::Stop { drain_until: now + Duration::from_secs(3) }
        }
        17..=20 if world.alive && (world.signalled || (*random >> 32).is_multiple_of(4)) => {
            if world.kind == Kind::Hosted && (*random >> 40).is_multiple_of(2) {
                return Event::Retired(text);
            }
            Event::Exited(text)
        }
        _ => Event::Tick,
    }
}

#[test]
fn whatever_happens_in_whatever_order_the_rules_hold() {
    let mut reached: Vec<State> = Vec::new();
    for seed in 1..=400u64 {
        let kind = match seed % 5 {
            0 => Kind::External,
            1 => Kind::Hosted,
            _ => Kind::Child,
        };
        let mut supervisor = Supervisor::new(kind, Policy::default());
        let mut world =
            World { kind, alive: false, signalled: false, route: Route::Queue, put_down: false };
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut now = Instant::now();
        for action in supervisor.step(Event::Tick, now, 0.5) {
            world.obey(&action);
        }
        for _ in 0..2000 {
            now += Duration::from_millis((random >> 20) % 4000);
            let event = random_event(&mut random, &world, now);
            match &event {
                Event::Exited(_) | Event::Retired(_) => world.alive = false,
                Event::Kill | Event::Stop { .. } => world.put_down = true,
                Event::Restart(_) => world.put_down = false,
                _ => {}
            }
            for action in supervisor.step(event, now, 0.5) {
                world.obey(&action);
            }
            world.check(&supervisor);
            if !reached.contains(&supervisor.state()) {
                reached.push(supervisor.state());
            }
        }
        // Left alone, a process that is not ready ends: by itself or by force. One that is hosted
        // waits for its master.
        for _ in 0..5 {
            let Some(due) = supervisor.due().filter(|_| supervisor.state() != State::Ready) else {
                break;
            };
            for action in supervisor.step(Event::Tick, due, 0.5) {
                world.obey(&action);
            }
        }
        assert!(
            !world.alive
                || world.signalled
                || supervisor.state() == State::Ready
                || (kind, supervisor.state()) == (Kind::Hosted, State::Connected),
            "{supervisor:?}"
        );
    }
    assert_eq!(reached.len(), 7, "all states were reached: {reached:?}");
}

#[test]
fn a_restart_is_counted_with_the_reason_why_the_worker_ended() {
    let start = Instant::now();
    let later = at(start, 120_000);
    let asked = |cause| Event::Restart(Why::new(cause, "asked"));
    let hang = Event::Unhealthy("it hangs".to_owned());
    let ways = [
        (Cause::Death, vec![Event::Disconnected]),
        (Cause::Silent, vec![Event::Silent]),
        (Cause::Hang, vec![hang.clone()]),
        (
            Cause::LinksLost,
            std::iter::repeat_n([Event::Disconnected, Event::Connected, Event::Ready], 5)
                .flatten()
                .collect(),
        ),
        (Cause::Operator, vec![asked(Cause::Operator), Event::Drained]),
        (Cause::Rolling, vec![asked(Cause::Rolling), Event::Drained]),
        (Cause::Recycled, vec![asked(Cause::Recycled), Event::Drained]),
        // What it did while it drained counts, and not why it drained.
        (Cause::Hang, vec![asked(Cause::Rolling), hang]),
        (Cause::Death, vec![asked(Cause::Rolling)]),
    ];
    for (cause, way) in ways {
        let mut supervisor = ready_child(start);
        for event in way {
            supervisor.step(event, start, 0.0);
        }
        supervisor.step(Event::Exited("killed".to_owned()), start, 0.0);
        supervisor.step(Event::Tick, later, 0.0);
        assert_eq!(
            (supervisor.restarts()[cause], supervisor.restarts().total()),
            (1, 1),
            "{cause:?} {supervisor:?}"
        );
    }
    let mut supervisor = Supervisor::new(Kind::Child, Policy::default());
    supervisor.step(Event::Tick, start, 0.0);
    supervisor.step(Event::SpawnFailed("no memory".to_owned()), start, 0.0);
    supervisor.step(Event::Tick, later, 0.0);
    assert_eq!((supervisor.restarts()[Cause::NotStarted], supervisor.restarts().total()), (1, 1));
    supervisor.step(Event::Tick, at(later, 30_000), 0.0);
    supervisor.step(Event::Exited("exit code 0".to_owned()), later, 0.0);
    supervisor.step(Event::Tick, at(later, 120_000), 0.0);
    assert_eq!((supervisor.restarts()[Cause::NotReady], supervisor.restarts().total()), (1, 2));
}
