//! Fires tenants' timers: dispatches the event of each that is due.
//!
//! One thread, `timers`, looks for what is due in the shards that are served here: when the next
//! one is, at once when one is made, and from the beginning when a shard comes. A run that is over
//! is written to the store afterwards, many in one write, and nothing before: what was under way
//! when a master ended is run again. Owned by the master, which stops it; `mesophyll test` has no
//! thread, and calls [`TimerFirer::turn`] itself.

mod lines;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::lines::{TimerLines, TimerStep};
use crate::base::error::{DbError, DispatchError, TENANT_DROPPED};
use crate::base::labels::{OutcomeCounters, labels};
use crate::base::limits::{
    TIMER_DEADLINE, TIMER_PLACE_FOR, TIMER_RETRY_MIN, TIMERS_COUNTED_EVERY, TIMERS_FIRED,
    TIMERS_PACE, TIMERS_READ_MAX,
};
use crate::base::sync::{Lock, Signal};
use crate::base::thread::{self, OwnedThread};
use crate::base::throttle::Rate;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, DispatchResult, Job, Request};
use crate::pool::arrival::Arrival;
use crate::store::timers::{TimerNews, TimerPlace, TimerRun};
use crate::store::{DbState, Standing};
use crate::wire;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{TenantId, Timer, Timestamp};

/// When nothing is due, and how soon a change of the system's date is seen.
const LONG: Duration = Duration::from_secs(5);

/// A write whose outcome is not known has taken effect after that, or never does.
const DOUBT_ENDS: Duration = Duration::from_secs(60);

labels! {
    /// What became of a run of a timer.
    TimerOutcome {
        /// Its handler ran.
        Ran = "ran",
        /// Its handler failed.
        Failed = "failed",
        /// Its handler took too long.
        Deadline = "deadline",
        /// It is run again: it was not taken, or that is not known.
        Again = "again",
        /// Its tenant is banned or in quarantine.
        Held = "held",
        /// It was tried for too long.
        Dropped = "dropped",
    }
}

/// Figures at this moment.
#[derive(Debug, Default)]
pub struct TimerFigures {
    /// Runs by what became of them.
    pub outcomes: Arc<OutcomeCounters<TimerOutcome>>,
    /// Timers that there are, as they were counted last.
    pub armed: u64,
    /// Timers that are due and wait here for their turn, and those under way.
    pub waiting: u64,
    /// How late the one is that has waited longest.
    pub lag_seconds: f64,
}

/// Fires a master's timers.
pub struct TenantTimers {
    shared: Arc<SharedTimers>,
    thread: Lock<Option<OwnedThread>>,
}

#[derive(Default)]
struct SharedTimers {
    notes: Lock<TimerNotes>,
    noted: Signal,
    outcomes: Arc<OutcomeCounters<TimerOutcome>>,
    armed: AtomicU64,
    waiting: AtomicU64,
    lag_us: AtomicU64,
}

/// What the thread is to see to.
#[derive(Default)]
struct TimerNotes {
    is_over: bool,
    /// Nothing is fired any more.
    is_closed: bool,
    news: Vec<TimerNews>,
    ended: Vec<(TenantId, u64, Arrival, TimerOutcome)>,
}

impl TimerNotes {
    fn is_empty(&self) -> bool {
        !self.is_over && self.news.is_empty() && self.ended.is_empty()
    }
}

impl TenantTimers {
    /// Starts the thread, which hears of `db` what there is to do, and fires by dispatches to
    /// `pool`. `serves_all`: every shard is this master's.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        pool: Arc<dyn WorkerLike>,
        db: Arc<DbState>,
        serves_all: bool,
    ) -> io::Result<Arc<Self>> {
        let of = if serves_all { ShardSet::full() } else { ShardSet::default() };
        let firer = TimerFirer::new(pool, db, of, TIMERS_PACE);
        let shared = firer.shared.clone();
        let thread = thread::spawn("timers", move || firer.run())?;
        Ok(Arc::new(Self { shared, thread: Lock::new(Some(thread)) }))
    }

    /// Figures at this moment.
    pub fn figures(&self) -> TimerFigures {
        let shared = &self.shared;
        TimerFigures {
            outcomes: shared.outcomes.clone(),
            armed: shared.armed.load(Ordering::Relaxed),
            waiting: shared.waiting.load(Ordering::Relaxed),
            lag_seconds: shared.lag_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }

    /// Fires nothing any more; what is under way goes on.
    pub fn close(&self) {
        self.shared.note(|notes| notes.is_closed = true);
    }

    /// Ends the thread, once it has written what has run. What is under way is run again by the
    /// next master.
    ///
    /// # Blocks
    /// Until what it asks the store is answered: the store's timeouts.
    pub fn stop(&self) {
        self.shared.note(|notes| notes.is_over = true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }
}

impl Drop for TenantTimers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for TenantTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantTimers")
    }
}

impl SharedTimers {
    fn note(&self, note: impl FnOnce(&mut TimerNotes)) {
        note(&mut self.notes.lock());
        self.noted.notify_one();
    }
}

/// The thread's side.
pub struct TimerFirer {
    shared: Arc<SharedTimers>,
    pool: Arc<dyn WorkerLike>,
    db: Arc<DbState>,
    lines: TimerLines,
    rate: Rate,
    pace: Duration,
    of: ShardSet,
    is_closed: bool,
    /// How far the look has come.
    behind: Option<TimerPlace>,
    /// When the next one behind that is due; `None`: none is.
    next: Option<Timestamp>,
    /// Before that neither is looked nor written nor counted.
    look_at: Instant,
    write_at: Instant,
    count_at: Instant,
    /// When a look begins anew, and when it does for the last of the writes in doubt.
    doubt_until: Option<(Instant, Instant)>,
    /// When places are taken from handlers.
    expire_at: Instant,
    fired: u64,
}

impl TimerFirer {
    /// One that fires the timers of these shards, whose owner calls [`TimerFirer::turn`]; `pace`:
    /// between two looks at the store.
    pub fn new(pool: Arc<dyn WorkerLike>, db: Arc<DbState>, of: ShardSet, pace: Duration) -> Self {
        let (shared, now) = (Arc::<SharedTimers>::default(), db.moment());
        let hearing = Arc::downgrade(&shared);
        db.on_timers(Box::new(move |news| {
            if let Some(shared) = hearing.upgrade() {
                shared.note(|notes| notes.news.push(news));
            }
        }));
        let (per_second, burst) = TIMERS_FIRED;
        Self {
            shared,
            pool,
            db,
            lines: TimerLines::default(),
            rate: Rate::new(per_second, burst),
            pace,
            of,
            is_closed: false,
            behind: None,
            next: Some(Timestamp::EPOCH),
            look_at: now,
            write_at: now,
            count_at: now,
            doubt_until: None,
            expire_at: now,
            fired: 0,
        }
    }

    /// How many events were dispatched so far.
    pub fn fired(&self) -> u64 {
        self.fired
    }

    /// # Blocks
    /// On its notes, until something is due; on the store.
    fn run(mut self) {
        let mut until = Instant::now();
        loop {
            let notes = self.shared.notes.lock();
            let notes = self.shared.noted.wait_until(notes, until, |notes| !notes.is_empty());
            if notes.is_over {
                drop(notes);
                self.take_notes();
                return self.write(self.db.moment());
            }
            drop(notes);
            let long = Instant::now() + LONG;
            until = self.turn().map_or(long, |at| at.min(long));
        }
    }

    /// Fires what is due, and tells when there is something to do again, by the clock of `db`.
    ///
    /// # Blocks
    /// On the store.
    pub fn turn(&mut self) -> Option<Instant> {
        let now = self.db.moment();
        self.take_notes();
        if now >= self.write_at && self.lines.has_over() {
            self.write(now);
        }
        self.look(now);
        if now >= self.expire_at {
            self.expire(now);
        }
        let resume_at = self.fire(now);
        if now >= self.count_at {
            self.count_at = now + TIMERS_COUNTED_EVERY;
            if let Ok(count) = self.db.timers_count(&self.of) {
                self.shared.armed.store(count, Ordering::Relaxed);
            }
        }
        self.tell_figures();
        self.wake_at(now, resume_at)
    }

    fn take_notes(&mut self) {
        let (now, date) = (self.db.moment(), self.db.now());
        let (news, ended) = {
            let mut notes = self.shared.notes.lock();
            self.is_closed = notes.is_closed;
            (std::mem::take(&mut notes.news), std::mem::take(&mut notes.ended))
        };
        for (tenant, number, arrival, done) in ended {
            self.ended(tenant, number, arrival, done, (now, date));
        }
        for news in news {
            match news {
                TimerNews::Set(tenant, due) => self.is_due_at(tenant, due, now),
                TimerNews::Cancelled(tenant, id) => self.lines.cancelled(tenant, &id, now),
                TimerNews::Doubt => {
                    let last = now + DOUBT_ENDS;
                    let first = self.doubt_until.map_or(last, |(first, _)| first);
                    self.doubt_until = Some((first, last));
                }
                TimerNews::Came(shards) => {
                    self.of = self.of.with(&shards);
                    self.begin_anew();
                }
                TimerNews::Went(shards) => {
                    self.of = self.of.without(&shards);
                    self.lines.retain(|tenant| !shards.contains(Shard::of(tenant)));
                }
            }
        }
        if let Some((_, last)) = self.doubt_until.filter(|(first, _)| now >= *first) {
            self.doubt_until = (now < last).then_some((last, last));
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        (self.behind, self.next) = (None, Some(Timestamp::EPOCH));
    }

    /// Reads what is due, as far as there is room.
    fn look(&mut self, now: Instant) {
        if self.behind.as_ref().is_some_and(|(behind, ..)| *behind > self.db.now()) {
            // The system's date was set back: what is made now is due before that place.
            self.begin_anew();
        }
        while now >= self.look_at && self.lines.has_room() && !self.of.is_empty() {
            if self.next.is_none_or(|next| next > self.db.now()) {
                return;
            }
            let found = self.db.timers_due(&self.of, self.behind.as_ref(), TIMERS_READ_MAX);
            let Ok(found) = found.inspect_err(|error| {
                log::debug!("what is due of timers cannot be read yet: {error}");
            }) else {
                self.look_at = now + TIMER_RETRY_MIN;
                return;
            };
            let is_all = found.timers.len() < TIMERS_READ_MAX;
            if let Some((tenant, timer)) = found.timers.last() {
                self.behind = Some((timer.due, *tenant, timer.id.clone()));
            }
            for (tenant, timer) in found.timers {
                self.lines.add(tenant, timer, now);
            }
            if is_all {
                self.next = found.next;
                self.look_at = now + self.pace;
                return;
            }
        }
    }

    /// Fires while there are places; when to go on, if it is the rate that holds it up.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        while !self.is_closed && self.lines.next_at().is_some_and(|at| at <= now) {
            if !self.rate.admits(now) {
                return Some(now + Duration::from_millis(1));
            }
            match self.lines.next(now) {
                Some(TimerStep::Fire(tenant, number, timer)) => {
                    self.dispatch(tenant, number, &timer)
                }
                Some(TimerStep::Read(tenant, turn)) => {
                    self.rate.give_back();
                    match self.db.timers_of(tenant) {
                        Ok(timers) => {
                            self.lines.refill((tenant, turn), timers, now, self.db.now());
                        }
                        Err(_) => self.lines.not_read(tenant, now),
                    }
                }
                None => self.rate.give_back(),
            }
        }
        None
    }

    fn dispatch(&mut self, tenant: TenantId, number: u64, timer: &Timer) {
        let at = (self.db.moment(), self.db.now());
        // Not by the pool, which would count an event that was refused.
        if self.db.standing(tenant) == Standing::Banned {
            return self.ended(tenant, number, Arrival::Held, TimerOutcome::Held, at);
        }
        let Ok(event) = wire::timer::event(timer) else {
            let Timer { id, name, due, .. } = timer;
            let text = format!("the timer {id}, due at {due}, was dropped: its data is unreadable");
            self.db.tell_dropped(tenant, name, &text);
            return self.ended(tenant, number, Arrival::Arrived, TimerOutcome::Failed, at);
        };
        let shared = self.shared.clone();
        let answer = Answer::callback_with_subscription(move |result, is_subscribed| {
            let arrival = arrival_of(&result, is_subscribed);
            let ended = (tenant, number, arrival, outcome_of(&result));
            shared.note(|notes| notes.ended.push(ended));
        });
        let deadline = Instant::now() + TIMER_DEADLINE;
        let request = Request::new(tenant, Job::Dispatch(event), deadline, answer);
        self.fired += 1;
        self.pool.submit(request.to_tenant());
    }

    fn ended(
        &mut self,
        tenant: TenantId,
        number: u64,
        arrival: Arrival,
        done: TimerOutcome,
        (now, date): (Instant, Timestamp),
    ) {
        let Some((outcome, dropped)) = self.lines.ended(tenant, number, arrival, now, date) else {
            return;
        };
        let outcome = if outcome == TimerOutcome::Ran { done } else { outcome };
        self.shared.outcomes.add(outcome, 1);
        if let Some(Timer { id, name, due, .. }) = dropped {
            let text =
                format!("the timer {id}, due at {due}, was dropped: no try succeeded in a day");
            self.db.tell_dropped(tenant, &name, &text);
        }
    }

    /// Writes which runs are over.
    fn write(&mut self, now: Instant) {
        self.write_at = now + self.pace;
        let runs = self.lines.over();
        if runs.is_empty() {
            return;
        }
        match self.db.timers_ran(&runs) {
            Ok(()) => runs.iter().for_each(|run| self.written(run, now)),
            // Of some of them: these are for their new master to run again.
            Err(DbError::NotOwner(_)) => {
                for run in &runs {
                    let written = self.db.timers_ran(std::slice::from_ref(run));
                    if matches!(written, Ok(()) | Err(DbError::NotOwner(_))) {
                        self.written(run, now);
                    }
                }
            }
            Err(error) => {
                log::debug!("what has run of timers cannot be written yet: {error}");
                self.write_at = now + TIMER_RETRY_MIN;
            }
        }
    }

    fn written(&mut self, run: &TimerRun, now: Instant) {
        self.lines.written(run);
        if let Some(next) = run.next {
            self.is_due_at(run.tenant, next, now);
        }
    }

    /// A timer of the tenant's is due then, by the store: looks find it, unless they have gone by.
    fn is_due_at(&mut self, tenant: TenantId, due: Timestamp, now: Instant) {
        if self.behind.as_ref().is_some_and(|(behind, ..)| due <= *behind) {
            self.lines.more(tenant, now);
        } else {
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
        }
    }

    fn expire(&mut self, now: Instant) {
        self.expire_at = now + TIMER_PLACE_FOR;
        for (tenant, number) in self.lines.expire(now) {
            let at = (now, self.db.now());
            let text = "a timer's run was given up: its worker never said how it ended";
            self.ended(tenant, number, Arrival::Arrived, TimerOutcome::Deadline, at);
            self.db.tell_dropped(tenant, "", text);
        }
        let late = self.lines.oldest().map_or(0, |due| micros_between(due, self.db.now()));
        self.shared.lag_us.store(late, Ordering::Relaxed);
    }

    fn tell_figures(&self) {
        let (waiting, firing) = self.lines.counts();
        self.shared.waiting.store((waiting + firing) as u64, Ordering::Relaxed);
    }

    fn wake_at(&self, now: Instant, resume_at: Option<Instant>) -> Option<Instant> {
        let date = self.db.now();
        let due = self.next.filter(|_| self.lines.has_room() && !self.of.is_empty()).map(|next| {
            (now + Duration::from_micros(micros_between(date, next))).max(self.look_at)
        });
        let fire = self.lines.next_at().filter(|_| !self.is_closed && resume_at.is_none());
        let write = self.lines.has_over().then_some(self.write_at);
        let expire = (!self.lines.is_idle()).then_some(self.expire_at);
        let doubt = self.doubt_until.map(|(first, _)| first);
        [due, fire, write, expire, resume_at, doubt].into_iter().flatten().min()
    }
}

/// How much later the second is than the first.
fn micros_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.unix_micros().saturating_sub(from.unix_micros())).unwrap_or(0)
}

/// Whether a run is made again. One that a drop ended is: it may not have begun, and a ban, which
/// drops its tenant, holds timers. Only a worker too old for deliveries asks for subscriptions.
fn arrival_of(result: &DispatchResult, is_subscribed: bool) -> Arrival {
    match result {
        Ok(_) if !is_subscribed => Arrival::NotYet,
        Err(DispatchError::Script(text)) if text == TENANT_DROPPED => Arrival::MayHave,
        result => Arrival::of(result),
    }
}

/// What became of a run that is over.
fn outcome_of(result: &DispatchResult) -> TimerOutcome {
    match result {
        Ok(_) => TimerOutcome::Ran,
        Err(DispatchError::Deadline { .. }) => TimerOutcome::Deadline,
        Err(_) => TimerOutcome::Failed,
    }
}
