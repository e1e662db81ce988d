//! Timers as [`DbState`] sees them: the rules, what a tenant may have, and what the part of a
//! master that fires them hears of.
//!
//! Called from any thread.

use std::time::Instant;

use super::rules::{self, refused, without_nul};
use super::schedule::Schedule;
use super::{DbState, Operation, Store, Usage};
use crate::base::error::DbError;
use crate::base::limits::{
    STATE_EVENT_NAME_MAX_BYTES, TIMER_AHEAD_MAX, TIMER_DATA_MAX_BYTES, TIMER_ID_MAX_BYTES,
    TIMERS_MAX, TIMERS_MAX_BYTES,
};
use crate::base::sync::SharedLock;
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    DbAnswer, ERRORS_KEY, ERRORS_SCOPE, KeyValueOp, Scopes, TenantId, Timer, TimerOp, TimerWhen,
    Timestamp,
};
use crate::wire::error_record;

/// A timer's place among all, in the order in which they are due.
pub type TimerPlace = (Timestamp, TenantId, String);

/// What a look for timers found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DueTimers {
    /// Those that are due, in order, and no more than were asked for.
    pub timers: Vec<(TenantId, Timer)>,
    /// When the first one behind all that are due is; `None`: there is none.
    pub next: Option<Timestamp>,
}

/// A run of a timer that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerRun {
    /// Whose.
    pub tenant: TenantId,
    /// Which timer.
    pub id: String,
    /// When the run was due. A timer that is due at another time stays as it is.
    pub due: Timestamp,
    /// When the timer is due next; `None`: never.
    pub next: Option<Timestamp>,
}

/// What there is to see to for those that fire timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerNews {
    /// A timer is due then.
    Set(TenantId, Timestamp),
    /// A timer is gone.
    Cancelled(TenantId, String),
    /// A write may take effect later.
    Doubt,
    /// The tenants of these shards are this master's now.
    Came(ShardSet),
    /// They are another's.
    Went(ShardSet),
}

/// Hears of all of that, before the caller that changed it is answered; must not block, and must
/// not ask [`DbState`].
pub type TimerListener = Box<dyn Fn(TimerNews) + Send + Sync>;

/// What [`DbState`] keeps about timers.
#[derive(Default)]
pub(super) struct TimerDesk {
    listener: SharedLock<Option<TimerListener>>,
}

impl TimerDesk {
    pub(super) fn tell(&self, news: TimerNews) {
        if let Some(listener) = &*self.listener.read() {
            listener(news);
        }
    }
}

/// What a timer takes of what its tenant may have.
pub(super) fn timer_bytes(timer: &Timer) -> u64 {
    let every = timer.every.as_ref().map_or(0, String::len);
    (timer.id.len() + timer.name.len() + every + timer.data.as_bytes().len()) as u64
}

/// Whether there is room for one more timer beside those of its tenant.
///
/// # Errors
/// `Refused`: there is none.
pub(super) fn check_room(has: Usage, timer: &Timer) -> Result<(), DbError> {
    if has.records >= TIMERS_MAX {
        Err(refused(format!("a tenant has at most {TIMERS_MAX} timers")))
    } else if has.bytes + timer_bytes(timer) > TIMERS_MAX_BYTES {
        Err(refused(format!("a tenant's timers have at most {TIMERS_MAX_BYTES} bytes")))
    } else {
        Ok(())
    }
}

fn check_id(id: &str) -> Result<(), DbError> {
    if id.is_empty() || id.len() > TIMER_ID_MAX_BYTES {
        return Err(refused(format!("a timer's id has 1 to {TIMER_ID_MAX_BYTES} bytes")));
    }
    without_nul(id, "a timer's id")
}

/// Checks an operation on timers; data gets the form in which it is stored.
///
/// # Errors
/// `Refused` by a rule.
pub(super) fn check_timer_op(op: &mut TimerOp) -> Result<(), DbError> {
    let TimerOp::Set { id, name, when, data } = op else {
        return if let TimerOp::Cancel { id } = op { check_id(id) } else { Ok(()) };
    };
    check_id(id)?;
    if name.is_empty() || name.len() > STATE_EVENT_NAME_MAX_BYTES {
        let text = format!("an event's name has 1 to {STATE_EVENT_NAME_MAX_BYTES} bytes");
        return Err(refused(text));
    }
    without_nul(name, "an event's name")?;
    if let TimerWhen::Every(schedule) = when {
        Schedule::parse(schedule)?;
    }
    if data.as_bytes().len() > TIMER_DATA_MAX_BYTES {
        return Err(refused(format!("a timer's data has at most {TIMER_DATA_MAX_BYTES} bytes")));
    }
    *data = rules::check_value(data)?;
    Ok(())
}

/// When a timer that is made now is due first; what has passed is due now.
fn first_due(when: &TimerWhen, now: Timestamp) -> Result<Timestamp, DbError> {
    let ahead = i64::try_from(TIMER_AHEAD_MAX.as_micros()).unwrap_or(i64::MAX);
    let last = now.unix_micros().saturating_add(ahead);
    let due = match when {
        TimerWhen::At(time) => {
            let micros = time.unix_micros();
            // Never early.
            let is_cut = Timestamp::from_unix_micros(micros).is_ok_and(|cut| cut < *time);
            (micros + i64::from(is_cut)).max(now.unix_micros())
        }
        TimerWhen::After(micros) => now.unix_micros().saturating_add_unsigned(*micros),
        TimerWhen::Every(schedule) => match Schedule::parse(schedule)?.next(now, now) {
            Some(next) => next.unix_micros(),
            None => last,
        },
    };
    match Timestamp::from_unix_micros(due) {
        Ok(time) if due <= last => Ok(time),
        _ => Err(refused(format!(
            "a timer is due in {} days at most",
            TIMER_AHEAD_MAX.as_secs() / 86_400
        ))),
    }
}

impl DbState {
    /// The listener for what concerns those that fire timers from now on.
    pub fn on_timers(&self, listener: TimerListener) {
        *self.timer_desk().listener.write() = Some(listener);
    }

    /// Carries out an operation on a tenant's timers.
    ///
    /// # Blocks
    /// As the operation on a [`Store`].
    ///
    /// # Errors
    /// `Refused` by a rule, or because the tenant has too many; else see [`Store`].
    pub fn timers(&self, tenant: TenantId, mut op: TimerOp) -> Result<DbAnswer, DbError> {
        check_timer_op(&mut op)?;
        match op {
            TimerOp::Set { id, name, when, data } => {
                let due = first_due(&when, self.now())?;
                let every = if let TimerWhen::Every(every) = when { Some(every) } else { None };
                let timer = Timer { id, name, due, every, data };
                let set =
                    self.store().ask(Operation::TimerSet, |store| store.timer_set(tenant, timer));
                self.timer_written(&set, || TimerNews::Set(tenant, due));
                set.map(|()| DbAnswer::Done)
            }
            TimerOp::Cancel { id } => {
                let cancel = |store: &dyn Store| store.timer_cancel(tenant, id.clone());
                let cancelled = self.store().ask(Operation::TimerCancel, cancel);
                self.timer_written(&cancelled, || TimerNews::Cancelled(tenant, id));
                cancelled.map(DbAnswer::Cancelled)
            }
            TimerOp::List => self.timers_of(tenant).map(DbAnswer::Timers),
        }
    }

    fn timer_written<T>(&self, written: &Result<T, DbError>, news: impl FnOnce() -> TimerNews) {
        match written {
            Ok(_) => self.timer_desk().tell(news()),
            Err(DbError::OutcomeUnknown(_)) => self.timer_desk().tell(TimerNews::Doubt),
            Err(_) => {}
        }
    }

    /// A tenant's timers, in the order in which they are due.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn timers_of(&self, tenant: TenantId) -> Result<Vec<Timer>, DbError> {
        self.store().ask(Operation::Timers, |store| store.timers(tenant))
    }

    /// The timers of some shards that are due now, behind a place.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn timers_due(
        &self,
        of: &ShardSet,
        behind: Option<&TimerPlace>,
        max: usize,
    ) -> Result<DueTimers, DbError> {
        let due = |store: &dyn Store| store.timers_due(of, behind, self.now(), max);
        self.store().ask(Operation::TimersDue, due)
    }

    /// Runs are over: their timers are gone, or due again.
    ///
    /// # Errors
    /// See [`Store`]; `NotOwner`: of one of them the tenant is another master's, and
    /// nothing was done.
    pub fn timers_ran(&self, runs: &[TimerRun]) -> Result<(), DbError> {
        self.store().ask(Operation::TimersRan, |store| store.timers_ran(runs.to_vec()))
    }

    /// How many timers there are of some shards.
    ///
    /// # Errors
    /// See [`Store`].
    pub fn timers_count(&self, of: &ShardSet) -> Result<u64, DbError> {
        self.store().ask(Operation::TimersCount, |store| store.timers_count(of))
    }

    /// Puts an error before the tenant's last ones, as its worker does. Of two at once one may be
    /// lost. What the store does not take is counted, and in the log.
    ///
    /// # Blocks
    /// As operations on a [`Store`].
    pub(super) fn tell_author(&self, tenant: TenantId, event: &str, text: &str) {
        if let Err(error) = self.put_error(tenant, event, text) {
            self.unrecorded().inc();
            log::warn!(tenant:% = tenant; "not in the errors of {tenant}: {text}: {error}");
        }
    }

    fn put_error(&self, tenant: TenantId, event: &str, message: &str) -> Result<(), DbError> {
        let (scopes, key) = (Scopes::new([ERRORS_SCOPE]), ERRORS_KEY.to_owned());
        let get = KeyValueOp::Get { scopes: scopes.clone(), key: key.clone() };
        let before = self.kv(tenant, get)?.into_record()?;
        let (event, message) = (event.to_owned(), message.to_owned());
        let error = error_record::entry(self.now(), event, message, String::new(), Vec::new());
        let value = error_record::with_newest(before.as_ref(), std::iter::once(error));
        self.kv(tenant, KeyValueOp::Set { scopes, key, value }).map(drop)
    }

    /// Says in the log, and among the tenant's errors, what of it was dropped.
    ///
    /// # Blocks
    /// As operations on a [`Store`].
    pub fn tell_dropped(&self, tenant: TenantId, event: &str, text: &str) {
        log::warn!(tenant:% = tenant; "{tenant}: {text}");
        self.tell_author(tenant, event, text);
    }

    /// The moment by the clock of records.
    pub fn moment(&self) -> Instant {
        self.clock().at(Instant::now())
    }
}
