//! The supervision loop of one worker (`super-I`): feeds the state machine in `supervisor` with
//! what happened to the child and its link, and carries out what it decides.
//!
//! The one thread that signals and reaps the child. Owned by the worker's handle, which joins it;
//! its wake-up is a note.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::Level;

use crate::base::error::DispatchError;
use crate::base::random;
use crate::dispatch::Request;
use crate::net::lifeline::Sign;
use crate::net::link::{CloseCause, close_code};
use crate::protocol::{InFlight, MesophyllServerConn};
use crate::wire::data::{Sandbox, SandboxMode, TenantId};

use super::child::{Child, ChildNews, ChildSpec, describe, is_sandbox_kill};
use super::handle::{Note, ProcessShared};
use super::supervisor::{Action, Cause, Event, State, Supervisor, Why};

/// Between the end of a child's output and its being reaped, where nothing else tells of its end; a
/// child that closed its output but lives is looked at again after this.
const REAP_PAUSE: Duration = Duration::from_millis(20);

/// The loop comes round at least this often. It shows that it lives; and a dispatch that began to
/// wait while it slept is tidied up after soon enough, as its caller enforces its deadline by
/// itself.
const ROUND: Duration = Duration::from_secs(1);

/// Between two looks at whether a worker that drains has answered everything.
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

/// A hosted worker that has given no sign for so long is stopped or hangs. It gives one every
/// second; a machine that stalls is not to cost a worker.
const SIGNS_MISSED_AFTER: Duration = Duration::from_secs(15);

/// Limit: ends of one worker's links that are logged in a minute.
const LINK_ENDS_LOGGED_A_MINUTE: u32 = 10;

/// Stands behind the last of them.
const NO_MORE_ENDS: &str =
    "; its links end again and again, and no more of it is logged for a minute";

/// Limit: events in flight that are named with the death of their worker.
const IN_FLIGHT_NAMED: usize = 5;

/// The supervision loop's own state.
pub(super) struct Supervision {
    // First, so that after a panic it is killed and reaped before anything else goes.
    child: Option<Child>,
    shared: Arc<ProcessShared>,
    spec: Option<ChildSpec>,
    supervisor: Supervisor,
    notes_rx: Receiver<Note>,
    /// Tells the watch of a child from that of an earlier one.
    spawns: u64,
    /// The child has ended, or at least its output: it is about to be reaped.
    child_ended: bool,
    /// When a hosted child last said how it is.
    signed_at: Instant,
    /// A hosted child has been told to retire.
    is_retiring: bool,
    conn: Option<MesophyllServerConn>,
    /// Of the newest link of this process.
    generation: u64,
    link_ends: LinkEnds,
    /// What the worker told of it last.
    sandbox: Option<Sandbox>,
    /// Processes that their sandbox has ended.
    sandbox_kills: u64,
    waiting_for_end: Vec<Sender<()>>,
}

impl Supervision {
    pub(super) fn new(
        shared: Arc<ProcessShared>,
        spec: Option<ChildSpec>,
        supervisor: Supervisor,
        notes_rx: Receiver<Note>,
    ) -> Self {
        Self {
            child: None,
            shared,
            spec,
            supervisor,
            notes_rx,
            spawns: 0,
            child_ended: false,
            signed_at: Instant::now(),
            is_retiring: false,
            conn: None,
            generation: 0,
            link_ends: LinkEnds::default(),
            sandbox: None,
            sandbox_kills: 0,
            waiting_for_end: Vec::new(),
        }
    }

    /// Blocks: until a note, the next deadline, or the end of a round; ends when the worker has
    /// ended for good.
    pub(super) fn run(mut self) {
        self.step(Event::Tick);
        loop {
            match self.notes_rx.recv_deadline(self.next_wake()) {
                Ok(note) => self.on_note(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.reap();
            self.check_link();
            self.check_signs();
            self.check_drained();
            self.check_limits();
            self.shared.router.expire(Instant::now());
            self.shared.nowait_failures.log_lost(Instant::now());
            self.step(Event::Tick);
            if !self.waiting_for_end.is_empty()
                && self.child.is_none()
                && !self.supervisor.is_draining()
            {
                return;
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let reap = (self.child.is_some() && self.child_ended).then(|| now + REAP_PAUSE);
        let drain = self.supervisor.is_draining().then(|| now + DRAIN_PAUSE);
        let expire = self.shared.router.expire(now);
        let age = if self.supervisor.state() == State::Ready { self.recycled_at() } else { None };
        [self.supervisor.due(), reap, drain, expire, age]
            .into_iter()
            .flatten()
            .fold(now + ROUND, Instant::min)
    }

    fn recycled_at(&self) -> Option<Instant> {
        let status = self.shared.board.status();
        status.report.started?.checked_add(status.recycle.age?)
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Connected(conn) => {
                // Notes of two connections may cross; only the newest counts.
                if self.conn.as_ref().is_none_or(|current| current.generation() < conn.generation())
                {
                    self.generation = conn.generation();
                    self.conn = Some(conn);
                    self.step(Event::Connected);
                }
            }
            Note::Ready(conn) if self.is_current(&conn) => {
                self.log_sandbox(&conn);
                self.step(Event::Ready);
            }
            Note::Disconnected(conn, cause) if self.is_current(&conn) => self.on_link_end(&cause),
            Note::ChildEnded(spawn) if spawn == self.spawns => self.child_ended = true,
            Note::Sign(spawn, sign) if spawn == self.spawns => self.on_sign(sign),
            Note::CheckHealth => self.check_health(),
            Note::Ready(_) | Note::Disconnected(..) | Note::ChildEnded(_) | Note::Sign(..) => {}
            Note::Wish(event, _taken_tx) => {
                // One that came in before the end for good is too late.
                if self.waiting_for_end.is_empty() {
                    self.log_wish(&event);
                    self.step(event);
                }
            }
            Note::End(event, gone_tx) => {
                self.waiting_for_end.push(gone_tx);
                self.step(event);
            }
        }
    }

    /// What the link of a worker says is said here by one whose link leads elsewhere.
    fn on_sign(&mut self, sign: Sign) {
        self.signed_at = Instant::now();
        match (sign, self.supervisor.state()) {
            (Sign::Alone, State::Starting | State::Ready) | (Sign::Linked, State::Starting) => {
                self.step(Event::Connected)
            }
            _ => {}
        }
        if sign == Sign::Linked {
            self.step(Event::Ready);
        }
    }

    /// Notices a hosted worker that gives no signs any more: it is stopped, or hangs.
    fn check_signs(&mut self) {
        let is_up = matches!(self.supervisor.state(), State::Connected | State::Ready);
        if self.is_hosted() && is_up && self.signed_at.elapsed() >= SIGNS_MISSED_AFTER {
            log::warn!(worker = self.shared.id; "worker {} gives no signs of life", self.shared.id);
            self.step(Event::Silent);
        }
    }

    fn is_hosted(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.is_hosted)
    }

    /// Says once a worker, and not at each of its restarts, what does not confine it.
    fn log_sandbox(&mut self, conn: &MesophyllServerConn) {
        let sandbox = conn.sandbox().unwrap_or_default();
        let is_new = self.sandbox.replace(sandbox.clone()).as_ref() != Some(&sandbox);
        let is_wanted = sandbox.mode != SandboxMode::Off.as_str();
        if is_new && is_wanted && !sandbox.is_whole() {
            let (id, summary) = (self.shared.id, sandbox.summary());
            let missing = match (sandbox.seccomp, sandbox.landlock_abi) {
                (true, _) => "its files are not restricted (Landlock)",
                (false, 0) => "neither its files nor its system calls are restricted",
                (false, _) => "its system calls are not restricted (seccomp)",
            };
            log::warn!(worker = id; "worker {id} runs in no whole sandbox ({summary}): {missing}");
        }
    }

    fn log_wish(&self, event: &Event) {
        let id = self.shared.id;
        match event {
            Event::Restart(why) => {
                log::info!(worker = id; "worker {id} is restarted: {}", why.text)
            }
            Event::Kill => {
                log::info!(worker = id; "worker {id} is killed, and stays stopped until it is restarted")
            }
            _ => {}
        }
    }

    fn on_link_end(&mut self, cause: &CloseCause) {
        self.log_link_end(cause);
        self.conn = None;
        if *cause == CloseCause::Silent {
            let (id, doing) = (self.shared.id, self.doing());
            log::warn!(worker = id; "worker {id} missed its heartbeats{doing}");
            self.step(Event::Silent);
        } else {
            self.step(Event::Disconnected);
        }
    }

    /// What the worker did when it was last heard of.
    fn doing(&self) -> String {
        let report = &self.shared.board.status().report;
        match report.health.as_ref().and_then(|health| health.longest.as_ref()) {
            Some((tenant, event, ms)) => {
                format!("; it was last seen running {event} of {tenant} for {ms} ms")
            }
            None => String::new(),
        }
    }

    fn log_link_end(&mut self, cause: &CloseCause) {
        let id = self.shared.id;
        let (level, warning) = self.link_ends.record(Instant::now());
        log::log!(level, worker = id; "worker {id}: {cause}{warning}");
    }

    fn is_current(&self, conn: &MesophyllServerConn) -> bool {
        self.conn.as_ref().is_some_and(|current| current.generation() == conn.generation())
    }

    /// Looks at what the worker said of itself.
    fn check_health(&mut self) {
        let health = self.shared.board.status().report.health.clone();
        let is_draining = self.supervisor.is_draining();
        if !matches!(self.supervisor.state(), State::Connected | State::Ready) && !is_draining {
            return;
        }
        if let Some(why) = health.as_ref().and_then(|health| self.shared.hangs(health)) {
            log::error!(worker = self.shared.id; "worker {} hangs: {why}", self.shared.id);
            let culprit = health.and_then(|health| health.longest).map(|(tenant, ..)| tenant);
            self.blame(&why, 1, culprit.into_iter().collect());
            self.step(Event::Unhealthy(why));
        }
    }

    /// Starts a child anew that is well and has reached one of its limits.
    fn check_limits(&mut self) {
        if self.child.is_none() || self.supervisor.state() != State::Ready {
            return;
        }
        let reason = self.shared.board.status().recycle_reason(Instant::now());
        if let Some(reason) = reason {
            log::info!(worker = self.shared.id; "worker {} is {reason}", self.shared.id);
            self.step(Event::Restart(Why::new(Cause::Recycled, reason)));
        }
    }

    /// Reaps the child if it has ended.
    fn reap(&mut self) {
        let Some(child) = &mut self.child else { return };
        let (how, is_success, is_sandbox_kill) = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => (describe(status), status.success(), is_sandbox_kill(status)),
            Err(error) => (format!("cannot be waited for: {error}"), false, false),
        };
        let in_flight = self.in_flight();
        self.sandbox_kills += u64::from(is_sandbox_kill);
        let has_retired = self.is_hosted() && is_success;
        let level = match (is_sandbox_kill, has_retired) {
            (true, _) => log::Level::Error,
            (_, true) => log::Level::Info,
            _ => log::Level::Warn,
        };
        self.log_end(&how, &in_flight, level);
        // The end of one that was told to end says nothing of what it ran, nor does one that ended
        // by its own will.
        if !self.supervisor.was_told_to_end() && !is_success {
            // No load makes such a call: it is an attack, or a defect of ours.
            let deaths = if is_sandbox_kill { 2 } else { 1 };
            self.blame(&how, deaths, in_flight.into_iter().map(|event| event.tenant).collect());
        }
        self.step(if has_retired { Event::Retired(how) } else { Event::Exited(how) });
    }

    /// What the worker had in flight when its link ended, or now; the oldest first.
    fn in_flight(&self) -> Vec<InFlight> {
        // In this order: what is noted at the end of a link is noted before it fails.
        let now = self.conn.as_ref().map(MesophyllServerConn::in_flight_events).unwrap_or_default();
        let mut in_flight = self.shared.take_lost(self.generation).unwrap_or(now);
        in_flight.sort_by_key(|event| event.since);
        in_flight
    }

    /// Notes a death, or a hang, against these tenants; one that is quarantined for it has nothing
    /// left that waits.
    fn blame(&self, how: &str, deaths: usize, tenants: BTreeSet<TenantId>) {
        let (id, now) = (self.shared.id, Instant::now());
        let culprits = self.shared.quarantine.died(id, how, deaths, &tenants, now);
        if !culprits.is_empty() {
            let is_theirs = |waiting: &Request| culprits.contains(&waiting.tenant);
            self.shared.router.refuse(is_theirs, &DispatchError::Quarantined);
        }
    }

    /// Lets go of a child that was reaped. One that was not meant to end is told with what it did
    /// and said last.
    fn log_end(&mut self, how: &str, in_flight: &[InFlight], level: log::Level) {
        let Some(child) = self.child.take() else { return };
        let (id, pid) = (self.shared.id, child.pid());
        let last_lines = child.last_lines();
        let doing = describe_in_flight(in_flight);
        let is_expected = self.supervisor.was_told_to_end() || level == log::Level::Info;
        if is_expected && in_flight.is_empty() {
            log::info!(worker = id; "worker {id} (pid {pid}) ended: {how}");
        } else if last_lines.is_empty() {
            log::log!(level, worker = id; "worker {id} (pid {pid}) ended: {how}{doing}; it printed nothing");
        } else {
            let (count, text) = (last_lines.len(), Vec::from(last_lines).join("\n"));
            log::log!(level, worker = id, below = text.as_str();
                "worker {id} (pid {pid}) ended: {how}{doing}; the last {count} lines that it printed:"
            );
        }
    }

    /// Notices the end of a link whose note found no room, or is still to come.
    fn check_link(&mut self) {
        if let Some(cause) = self.conn.as_ref().and_then(MesophyllServerConn::end) {
            self.on_link_end(&cause);
        }
    }

    /// A worker that drains gets nothing new; once nothing of it is in flight it may end.
    fn check_drained(&mut self) {
        if !self.supervisor.is_draining() {
            return;
        }
        if self.is_hosted() {
            // It answers what it has, and then it ends.
            let child =
                self.child.as_ref().filter(|_| !std::mem::replace(&mut self.is_retiring, true));
            return child.into_iter().for_each(Child::retire);
        }
        // Without a link it is the state machine's to decide.
        let is_drained = self.conn.as_ref().is_some_and(|conn| {
            conn.seal();
            conn.in_flight() == 0
        });
        if is_drained {
            self.step(Event::Drained);
        }
    }

    fn step(&mut self, event: Event) {
        let before = self.supervisor.state();
        let actions = self.supervisor.step(event, Instant::now(), jitter());
        for action in actions {
            self.carry_out(action);
        }
        self.publish();
        if self.supervisor.state() != before {
            log::debug!(worker = self.shared.id; "worker {}: {before} → {}", self.shared.id, self.supervisor.state());
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Spawn => self.spawn(),
            Action::Terminate => {
                // The others were told as they were noticed.
                let fault = self
                    .supervisor
                    .fault()
                    .filter(|why| matches!(why.cause, Cause::NotReady | Cause::LinksLost));
                if let Some(why) = fault {
                    log::warn!(worker = self.shared.id; "worker {} is ended: {}", self.shared.id, why.text);
                }
                if let Some(child) = &self.child {
                    child.terminate();
                }
            }
            Action::Kill => {
                if let Some(child) = &mut self.child {
                    child.kill();
                }
            }
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
                    self.shared.router.to_link(conn.clone(), Instant::now());
                }
            }
            Action::RouteToQueue => self.shared.router.to_queue(),
            Action::RouteToNobody(reason) => {
                let id = self.shared.id;
                match self
                    .supervisor
                    .last_exit()
                    .filter(|_| self.supervisor.state() == State::Failed)
                {
                    Some(how) => {
                        log::error!(worker = id; "worker {id}: {reason}; the last time: {how}")
                    }
                    None => log::debug!(worker = id; "worker {id}: {reason}"),
                }
                self.shared.router.to_nobody(&reason);
            }
        }
    }

    fn spawn(&mut self) {
        let Some(spec) = &self.spec else { return };
        self.spawns += 1;
        (self.child_ended, self.is_retiring) = (false, false);
        let spawn = self.spawns;
        let notes_tx = self.shared.notes_tx.clone();
        // Blocks only while the loop is behind by 64 notes; the loop joins this thread only after
        // the note of the end. A sign that finds no room is followed by another.
        let tell = move |news| match news {
            ChildNews::Sign(sign) => drop(notes_tx.try_send(Note::Sign(spawn, sign))),
            ChildNews::Ended => {
                drop(notes_tx.send_timeout(Note::ChildEnded(spawn), Duration::from_secs(1)))
            }
        };
        match Child::spawn(spec, self.shared.id, tell) {
            Ok(child) => {
                log::info!(worker = self.shared.id; "worker {} started as pid {}", self.shared.id, child.pid());
                self.child = Some(child);
            }
            Err(error) => {
                log::warn!(worker = self.shared.id; "worker {} could not be started: {error}", self.shared.id);
                self.step(Event::SpawnFailed(error.to_string()));
            }
        }
    }

    fn publish(&self) {
        let pid = self.child.as_ref().map(Child::pid);
        self.shared.board.publish(|status| {
            let report = &mut status.report;
            if report.pid != pid {
                report.pid = pid;
                report.started = pid.map(|_| Instant::now());
                report.health = None;
                status.recycle = self.shared.recycle.spread(jitter());
            }
            report.state = self.supervisor.state();
            report.restarts = self.supervisor.restarts();
            report.last_exit = self.supervisor.last_exit().map(str::to_owned);
            report.sandbox_kills = self.sandbox_kills;
            status.polled_at = Some(Instant::now());
            status.worker = self.conn.clone();
        });
    }
}

/// Names what was in flight, for the log.
fn describe_in_flight(in_flight: &[InFlight]) -> String {
    if in_flight.is_empty() {
        return String::new();
    }
    let now = Instant::now();
    let named: Vec<String> = in_flight
        .iter()
        .take(IN_FLIGHT_NAMED)
        .map(|event| {
            let ms = now.saturating_duration_since(event.since).as_millis();
            format!("{} of {} (asked for {ms} ms ago)", event.what, event.tenant)
        })
        .collect();
    let more = in_flight.len().saturating_sub(IN_FLIGHT_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(", with {} in flight: {}{more}", in_flight.len(), named.join(", "))
}

/// A number in 0.0..1.0, to spread restarts.
fn jitter() -> f64 {
    // 53 bits are what an f64 holds exactly.
    (random::u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Counts the ends of links, so that a peer that connects and goes a thousand times a second does
/// not fill the log.
#[derive(Debug, Default)]
struct LinkEnds {
    since: Option<Instant>,
    count: u32,
}

impl LinkEnds {
    /// The level at which this end is logged, and what is said beside it.
    fn record(&mut self, now: Instant) -> (Level, &'static str) {
        if self.since.is_none_or(|since| now.duration_since(since) > Duration::from_secs(60)) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        match self.count {
            count if count < LINK_ENDS_LOGGED_A_MINUTE => (Level::Info, ""),
            LINK_ENDS_LOGGED_A_MINUTE => (Level::Warn, NO_MORE_ENDS),
            _ => (Level::Debug, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_keeps_ending_is_logged_a_few_times_a_minute() {
        let start = Instant::now();
        let mut ends = LinkEnds::default();
        let told: Vec<_> = (0..1000).map(|_| ends.record(start)).collect();
        let lines = told.iter().filter(|(level, _)| *level < Level::Debug).count();
        assert_eq!(lines, LINK_ENDS_LOGGED_A_MINUTE as usize);
        assert_eq!(told[lines - 1], (Level::Warn, NO_MORE_ENDS));
        assert_eq!(ends.record(start + Duration::from_secs(61)), (Level::Info, ""));
    }
}
