//! The timers that are due, tenant by tenant, and what becomes of each. Pure; the time is passed
//! in.
//!
//! Of a tenant one timer is under way at a time, in the order in which they are due. The store
//! keeps all of them, so that little is kept here: some of the next ones of each tenant, and the
//! fact that there are more. A tenant that cannot be reached keeps nothing but that.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::TimerOutcome;
use crate::base::limits::{
    TENANT_TIMERS_RETRIED_MAX, TENANT_TIMERS_WAITING_MAX, TIMER_HELD_FOR, TIMER_LOST_AFTER,
    TIMER_PLACE_FOR, TIMER_PLACES, TIMER_RETRY_MAX, TIMER_RETRY_MIN, TIMER_TRIED_FOR,
    TIMERS_UNDER_WAY_MAX, TIMERS_WAITING_MAX,
};
use crate::pool::arrival::Arrival;
use crate::pool::places::{Places, Running};
use crate::store::schedule::Schedule;
use crate::store::timers::TimerRun;
use crate::wire::data::{TenantId, Timer, Timestamp};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimerStep {
    /// Read the tenant's timers, for [`TimerLines::refill`], whose turn it has been since then.
    Read(TenantId, Instant),
    /// Run this one, under this number.
    Fire(TenantId, u64, Timer),
}

/// A run that may have been made, and is to be made again.
#[derive(Debug)]
struct Retry {
    since: Instant,
    failures: u32,
    /// When it is to be read again; `None`: it waits with the others.
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Line {
    /// The next ones, in order.
    waiting: VecDeque<Timer>,
    /// Others are due, or may be, behind those.
    has_more: bool,
    firing: Option<Running<Timer>>,
    /// Runs of these timers are made again.
    retries: HashMap<String, Retry>,
    /// Until then nothing is tried, and since when nothing has been taken, how often in a row.
    until: Option<Instant>,
    since: Option<Instant>,
    failures: u32,
    /// Its place among those that are ready.
    ready: Option<Instant>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct TimerLines {
    by_tenant: HashMap<TenantId, Line>,
    ready: BTreeSet<(Instant, TenantId)>,
    waiting: usize,
    /// Of those that are under way.
    places: Places,
    /// Runs that are over and not yet written. Limit: `TIMERS_WAITING_MAX` and what is under way.
    over: HashMap<(TenantId, String), TimerRun>,
}

impl TimerLines {
    /// Whether more may be added.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < TIMERS_WAITING_MAX && self.over.len() < TIMERS_WAITING_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.by_tenant.is_empty() && self.over.is_empty()
    }

    /// Takes one that is due, in the order of their places.
    pub(super) fn add(&mut self, tenant: TenantId, timer: Timer, now: Instant) {
        if self.is_over(tenant, &timer) {
            return;
        }
        let line = self.by_tenant.entry(tenant).or_default();
        let is_full = line.waiting.len() >= TENANT_TIMERS_WAITING_MAX;
        if line.has_more || is_full || line.until.is_some_and(|until| until > now) {
            line.has_more = true;
        } else if !line.knows(&timer.id) {
            line.waiting.push_back(timer);
            self.waiting += 1;
        }
        self.schedule(tenant, now);
    }

    /// Some of the tenant's are due that are not known here.
    pub(super) fn more(&mut self, tenant: TenantId, now: Instant) {
        self.by_tenant.entry(tenant).or_default().has_more = true;
        self.schedule(tenant, now);
    }

    /// Takes the tenant's timers as the store has them, in order; the tenant keeps its turn.
    pub(super) fn refill(
        &mut self,
        (tenant, turn): (TenantId, Instant),
        timers: Vec<Timer>,
        now: Instant,
        date: Timestamp,
    ) {
        let is_new = |timer: &Timer| timer.due <= date && !self.is_over(tenant, timer);
        let due: Vec<Timer> = timers.into_iter().filter(is_new).collect();
        let Some(line) = self.by_tenant.get_mut(&tenant) else { return };
        line.retries.retain(|id, _| due.iter().any(|timer| timer.id == *id));
        self.waiting -= line.waiting.len();
        line.waiting.clear();
        line.has_more = false;
        // One without room, so that each tenant's turn comes.
        let has_room = self.waiting < TIMERS_WAITING_MAX;
        let most = if has_room { TENANT_TIMERS_WAITING_MAX } else { 1 };
        for timer in due {
            let retry = line.retries.get(&timer.id);
            let is_later = retry.is_some_and(|one| one.not_before.is_some_and(|at| at > now));
            let is_firing = line.firing.as_ref().is_some_and(|one| one.what.id == timer.id);
            if is_later || is_firing {
                continue;
            }
            if line.waiting.len() >= most {
                line.has_more = true;
                break;
            }
            line.waiting.push_back(timer);
        }
        for retry in line.retries.values_mut() {
            retry.not_before = retry.not_before.filter(|at| *at > now);
        }
        self.waiting += line.waiting.len();
        self.schedule(tenant, turn);
    }

    /// The store did not answer.
    pub(super) fn not_read(&mut self, tenant: TenantId, now: Instant) {
        if let Some(line) = self.by_tenant.get_mut(&tenant) {
            line.has_more = true;
            line.until = Some(now + TIMER_RETRY_MIN);
        }
        self.schedule(tenant, now);
    }

    /// A timer is gone.
    pub(super) fn cancelled(&mut self, tenant: TenantId, id: &str, now: Instant) {
        let Some(line) = self.by_tenant.get_mut(&tenant) else { return };
        self.waiting -= line.waiting.len();
        line.waiting.retain(|timer| timer.id != id);
        self.waiting += line.waiting.len();
        line.retries.remove(id);
        self.schedule(tenant, now);
    }

    /// Forgets all other tenants.
    pub(super) fn retain(&mut self, is_kept: impl Fn(TenantId) -> bool) {
        let tenants = self.by_tenant.keys().copied();
        let gone: Vec<TenantId> = tenants.filter(|tenant| !is_kept(*tenant)).collect();
        for tenant in gone {
            let Some(line) = self.by_tenant.remove(&tenant) else { continue };
            self.waiting -= line.waiting.len();
            if let Some(at) = line.ready {
                self.ready.remove(&(at, tenant));
            }
            line.firing.iter().for_each(|firing| self.places.end(firing));
        }
        self.over.retain(|(tenant, _), _| is_kept(*tenant));
    }

    fn is_over(&self, tenant: TenantId, timer: &Timer) -> bool {
        let over = self.over.get(&(tenant, timer.id.clone()));
        over.is_some_and(|run| run.due == timer.due)
    }

    /// Enters a tenant among those that are ready, at the time when it is; one that is ready keeps
    /// its place.
    fn schedule(&mut self, tenant: TenantId, now: Instant) {
        let Some(line) = self.by_tenant.get_mut(&tenant) else { return };
        let ready = line.next_at(now);
        if line.ready.is_none_or(|at| ready.is_none_or(|new| at > new)) {
            if let Some(at) = line.ready.take() {
                self.ready.remove(&(at, tenant));
            }
            self.ready.extend(ready.map(|at| (at, tenant)));
            line.ready = ready;
        }
        if line.is_empty() {
            self.by_tenant.remove(&tenant);
        }
    }

    /// When [`TimerLines::next`] has something, if not now.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let has_room = self.places.has_room(TIMER_PLACES, TIMERS_UNDER_WAY_MAX);
        self.ready.first().filter(|_| has_room).map(|(at, _)| *at)
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: Instant) -> Option<TimerStep> {
        self.next_at().filter(|at| *at <= now)?;
        let (turn, tenant) = self.ready.pop_first()?;
        let line = self.by_tenant.get_mut(&tenant)?;
        line.ready = None;
        if line.is_to_be_read(now) {
            return Some(TimerStep::Read(tenant, turn));
        }
        let timer = line.waiting.pop_front()?;
        self.waiting -= 1;
        let firing = line.firing.insert(self.places.begin(timer.clone(), now));
        Some(TimerStep::Fire(tenant, firing.number, timer))
    }

    /// A run has ended like this: what that means for it, and its timer if it was dropped.
    pub(super) fn ended(
        &mut self,
        tenant: TenantId,
        number: u64,
        arrival: Arrival,
        now: Instant,
        date: Timestamp,
    ) -> Option<(TimerOutcome, Option<Timer>)> {
        let line = self.by_tenant.get_mut(&tenant)?;
        let firing = line.firing.take_if(|one| one.number == number)?;
        let is_dropped = line.take_in(&firing.what, arrival, now, date);
        if line.until.is_some_and(|until| until > now) {
            self.waiting -= line.leave_to_store();
        }
        self.places.end(&firing);
        let outcome = match arrival {
            _ if is_dropped => TimerOutcome::Dropped,
            Arrival::Arrived => TimerOutcome::Ran,
            Arrival::MayHave | Arrival::NotYet => TimerOutcome::Again,
            Arrival::Held => TimerOutcome::Held,
        };
        if is_dropped || arrival == Arrival::Arrived {
            let run = run_of(tenant, &firing.what, date);
            self.over.insert((tenant, firing.what.id.clone()), run);
        }
        self.schedule(tenant, now);
        Some((outcome, is_dropped.then_some(firing.what)))
    }

    pub(super) fn has_over(&self) -> bool {
        !self.over.is_empty()
    }

    /// Runs that are over and not yet written.
    pub(super) fn over(&self) -> Vec<TimerRun> {
        self.over.values().cloned().collect()
    }

    /// This one is written, or another master's.
    pub(super) fn written(&mut self, run: &TimerRun) {
        self.over.remove(&(run.tenant, run.id.clone()));
    }

    /// Takes the places of handlers that take their time, and the room of what waits for them, and
    /// gives those up that never answer: the numbers of these.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(TenantId, u64)> {
        let mut lost = Vec::new();
        for (tenant, line) in &mut self.by_tenant {
            let Some(firing) = &mut line.firing else { continue };
            let age = firing.age(now);
            if age >= TIMER_LOST_AFTER {
                lost.push((*tenant, firing.number));
            } else if age >= TIMER_PLACE_FOR && self.places.take_from(firing) {
                self.waiting -= line.leave_to_store();
            }
        }
        lost
    }

    /// When that one was due which has waited longest for its turn, of tenants that can be reached.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let lines = self.by_tenant.values();
        lines.filter_map(|line| line.waiting.front()).map(|timer| timer.due).min()
    }

    /// Timers that wait, and those under way.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting, self.places.under_way())
    }
}

impl Line {
    /// Keeps none of those that wait, which the store has; how many there were.
    fn leave_to_store(&mut self) -> usize {
        self.has_more = true;
        let count = self.waiting.len();
        self.waiting.clear();
        count
    }

    fn knows(&self, id: &str) -> bool {
        self.waiting.iter().any(|timer| timer.id == id)
            || self.retries.contains_key(id)
            || self.firing.as_ref().is_some_and(|firing| firing.what.id == id)
    }

    fn is_empty(&self) -> bool {
        let has_some = self.has_more || !self.waiting.is_empty() || !self.retries.is_empty();
        !has_some && self.firing.is_none()
    }

    fn retry_at(&self) -> Option<Instant> {
        self.retries.values().filter_map(|retry| retry.not_before).min()
    }

    /// One that is made again goes before those that wait.
    fn is_to_be_read(&self, now: Instant) -> bool {
        self.retry_at().is_some_and(|at| at <= now) || self.waiting.is_empty()
    }

    fn next_at(&self, now: Instant) -> Option<Instant> {
        if self.firing.is_some() {
            return None;
        }
        let is_ready = self.has_more || !self.waiting.is_empty();
        let at = if is_ready { Some(now) } else { self.retry_at() };
        at.map(|at| self.until.map_or(at, |until| at.max(until)))
    }

    /// A run has ended; whether it has been tried for too long.
    fn take_in(&mut self, timer: &Timer, arrival: Arrival, now: Instant, date: Timestamp) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= TIMER_TRIED_FOR;
        match arrival {
            Arrival::Arrived => {
                self.retries.remove(&timer.id);
                (self.failures, self.since) = (0, None);
                false
            }
            Arrival::MayHave => {
                (self.failures, self.since) = (0, None);
                let new = Retry { since: now, failures: 0, not_before: None };
                let retry = self.retries.entry(timer.id.clone()).or_insert(new);
                if is_old(retry.since) {
                    self.retries.remove(&timer.id);
                    return true;
                }
                retry.not_before = Some(now + pause(retry.failures));
                retry.failures += 1;
                if self.retries.len() > TENANT_TIMERS_RETRIED_MAX {
                    self.until = self.retry_at();
                }
                false
            }
            Arrival::NotYet => {
                let since = *self.since.get_or_insert(now);
                let was_due = date.unix_micros().saturating_sub(timer.due.unix_micros());
                let tried = i64::try_from(TIMER_TRIED_FOR.as_micros()).unwrap_or(i64::MAX);
                if is_old(since) && was_due >= tried {
                    return true;
                }
                self.until = Some(now + pause(self.failures));
                self.failures += 1;
                false
            }
            Arrival::Held => {
                self.since = None;
                self.until = Some(now + TIMER_HELD_FOR);
                false
            }
        }
    }
}

fn pause(failures: u32) -> Duration {
    TIMER_RETRY_MIN.saturating_mul(1 << failures.min(16)).min(TIMER_RETRY_MAX)
}

/// The run that is over, with when its timer is due next.
fn run_of(tenant: TenantId, timer: &Timer, date: Timestamp) -> TimerRun {
    let schedule = timer.every.as_deref().and_then(|every| Schedule::parse(every).ok());
    let next = schedule.and_then(|schedule| schedule.next(timer.due, date));
    TimerRun { tenant, id: timer.id.clone(), due: timer.due, next }
}
