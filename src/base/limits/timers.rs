//! The bounds of timers; part of `limits.rs`, with its rules.

use std::time::Duration;

/// Limit: timers that a tenant has; one more is refused.
pub const TIMERS_MAX: u64 = 1000;

/// Limit: the bytes of a tenant's timers: ids, names, schedules and data; more is refused.
pub const TIMERS_MAX_BYTES: u64 = 1024 * 1024;

/// Limit: the data of a timer: what a reminder says; what is larger has a record.
pub const TIMER_DATA_MAX_BYTES: usize = 16 * 1024;

/// Limit: the id of a timer. Ours have half of it.
pub const TIMER_ID_MAX_BYTES: usize = 64;

/// Limit: a schedule as text: five fields with some lists in them.
pub const TIMER_SCHEDULE_MAX_BYTES: usize = 256;

/// Limit: the shortest time between two runs of a timer.
pub const TIMER_EVERY_MIN: Duration = Duration::from_secs(10);

/// Limit: how far ahead a timer may be due, and the longest time between two runs.
pub const TIMER_AHEAD_MAX: Duration = Duration::from_secs(3660 * 86_400);

/// Limit: calls of `ctx.Timers` that a tenant makes a second, after a burst of so many; one more is
/// `Busy`.
pub const TIMER_CALLS: (u32, u32) = (20, 200);

/// Limit: timers that one look at the store answers, 4 MiB of data.
pub const TIMERS_READ_MAX: usize = 256;

/// Limit: timers in a master's memory that are due and wait for their turn, 64 MiB of data; what
/// else is due waits in the store.
pub const TIMERS_WAITING_MAX: usize = 4096;

/// Limit: the same of one tenant.
pub const TENANT_TIMERS_WAITING_MAX: usize = 64;

/// Limit: timers a second that a master fires, after a burst of so many: 100,000 in a minute, and
/// no more, however many are overdue after a restart.
pub const TIMERS_FIRED: (u32, u32) = (2000, 64);

/// Timers whose handlers a master lets run at a time, one of a tenant, as far as they began within
/// [`TIMER_PLACE_FOR`].
pub const TIMER_PLACES: usize = 64;

/// How long a handler of a timer that has not ended keeps others waiting.
pub const TIMER_PLACE_FOR: Duration = Duration::from_secs(1);

/// Limit: timers whose handlers have not ended; then the next ones wait.
pub const TIMERS_UNDER_WAY_MAX: usize = 4096;

/// How long a timer's event may wait for its worker before it is tried again.
pub const TIMER_DEADLINE: Duration = Duration::from_secs(10);

/// After so long without an answer a run counts as one that has passed its deadline: longer than
/// any handler may live.
pub const TIMER_LOST_AFTER: Duration = Duration::from_secs(90);

/// The first pause before a timer that did not arrive is tried again; each further one is twice as
/// long.
pub const TIMER_RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest such pause.
pub const TIMER_RETRY_MAX: Duration = Duration::from_secs(300);

/// So long a run is tried, from its first failure on; then it is dropped.
pub const TIMER_TRIED_FOR: Duration = Duration::from_secs(86_400);

/// How often it is looked whether a tenant is still banned, or in quarantine.
pub const TIMER_HELD_FOR: Duration = Duration::from_secs(10);

/// Limit: timers of a tenant that are tried again one by one, as their handlers may have run; with
/// one more, all of the tenant's wait.
pub const TENANT_TIMERS_RETRIED_MAX: usize = 16;

/// Between two looks at the store for what is due, and between two writes of what has run: so that
/// many are done with at once.
pub const TIMERS_PACE: Duration = Duration::from_millis(50);

/// How often timers are counted, and how late they are.
pub const TIMERS_COUNTED_EVERY: Duration = Duration::from_secs(60);
