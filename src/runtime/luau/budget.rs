//! What one event has used of its budgets, and why an event is doomed.
//!
//! Plain data, owned by the event and shared with the callbacks of the VM that runs it. What checks
//! time is `control`.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use super::config::LuauLimits;
use crate::base::error::TENANT_DROPPED;
use crate::dispatch::RequestId;
use crate::wire::data::Budget;

/// Why an event ends before its handler does. Sticky: once doomed, nothing that a script does
/// brings it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doom {
    /// It ran for too long.
    Running(Duration),
    /// It took too long.
    Wall(Duration),
    /// It ran for too long where Luau cannot yield.
    Unyieldable(Duration),
    /// The VM's live data exceeds its limit, or an allocation failed. Takes the VM with it.
    Memory(usize),
    /// Too many coroutines are alive.
    Coroutines(usize),
    /// Too many coroutines were started.
    Spawns(usize),
    /// Too many waiting calls were made.
    HostCalls(usize),
    /// Its caller gave it up.
    Cancelled,
    /// Its tenant was dropped.
    Dropped,
    /// Its tenant is another master's now.
    HandedOver,
    /// The worker stops.
    Stopping,
}

impl Doom {
    /// The limit that was exceeded, unless the end was asked for.
    pub(super) fn budget(self) -> Option<Budget> {
        Some(match self {
            Doom::Running(_) => Budget::RunningTime,
            Doom::Wall(_) => Budget::WallTime,
            Doom::Unyieldable(_) => Budget::Unyieldable,
            Doom::Memory(_) => Budget::Memory,
            Doom::Coroutines(_) => Budget::Coroutines,
            Doom::Spawns(_) => Budget::Spawns,
            Doom::HostCalls(_) => Budget::Calls,
            Doom::Cancelled | Doom::Dropped | Doom::HandedOver | Doom::Stopping => return None,
        })
    }
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.budget().is_some() {
            f.write_str("budget exceeded: ")?;
        }
        match self {
            Doom::Running(limit) => write!(f, "more than {} of running time", RunSpan(*limit)),
            Doom::Wall(limit) => write!(f, "more than {} of wall time", RunSpan(*limit)),
            Doom::Unyieldable(limit) => write!(
                f,
                "more than {} inside a metamethod, a comparator or a gsub callback, which cannot be interrupted",
                RunSpan(*limit)
            ),
            Doom::Memory(limit) => write!(f, "more than {} MiB of memory", limit / (1024 * 1024)),
            Doom::Coroutines(limit) => write!(f, "more than {limit} live coroutines"),
            Doom::Spawns(limit) => write!(f, "more than {limit} coroutines started"),
            Doom::HostCalls(limit) => write!(f, "more than {limit} calls that wait"),
            Doom::Cancelled => f.write_str("cancelled: the caller gave the event up"),
            Doom::Dropped => f.write_str(TENANT_DROPPED),
            Doom::HandedOver => f.write_str("cancelled: another master has the tenant now"),
            Doom::Stopping => f.write_str("cancelled: the worker is stopping"),
        }
    }
}

/// A duration as people write limits: `10 s`, `100 ms`.
pub(super) struct RunSpan(pub(super) Duration);

impl fmt::Display for RunSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1000) {
            write!(f, "{} s", millis / 1000)
        } else {
            write!(f, "{millis} ms")
        }
    }
}

/// What an event has used so far.
#[derive(Debug)]
pub(super) struct Meter {
    /// Its number in the tenant.
    pub(super) event: u64,
    /// What it was submitted as.
    pub(super) request_id: RequestId,
    /// Running time of all its coroutines, compiling included.
    pub(super) running: Cell<Duration>,
    /// When it started.
    pub(super) started: Instant,
    /// When its wall time is over, by the clock of scripts.
    pub(super) wall_deadline: Instant,
    spawns: Cell<usize>,
    live: Cell<usize>,
    /// So many have to seem alive before garbage is collected to count them.
    count_at: Cell<usize>,
    host_calls: Cell<usize>,
}

impl Meter {
    /// A fresh meter for an event that started then, whose wall time ends at `wall_deadline`.
    pub(super) fn new(
        event: u64,
        request_id: RequestId,
        started: Instant,
        wall_deadline: Instant,
        limits: &LuauLimits,
        used: Duration,
    ) -> Self {
        Self {
            event,
            request_id,
            running: Cell::new(used),
            started,
            wall_deadline,
            spawns: Cell::new(0),
            live: Cell::new(0),
            count_at: Cell::new(limits.coroutines + 1),
            host_calls: Cell::new(0),
        }
    }

    /// Adds to the running time.
    pub(super) fn ran(&self, time: Duration) {
        self.running.set(self.running.get() + time);
    }

    /// Counts a coroutine that starts.
    ///
    /// # Errors
    /// Too many have been started. (Of too many alive the caller learns from [`Meter::live`]: some
    /// may be garbage.)
    pub(super) fn spawn(&self, limits: &LuauLimits) -> Result<(), Doom> {
        self.spawns.set(self.spawns.get() + 1);
        self.live.set(self.live.get() + 1);
        if self.spawns.get() > limits.spawns { Err(Doom::Spawns(limits.spawns)) } else { Ok(()) }
    }

    /// Counts a coroutine that ended. One that another event started may end in this one, hence no
    /// underflow.
    pub(super) fn end(&self) {
        self.live.set(self.live.get().saturating_sub(1));
    }

    /// Coroutines alive, those included that are garbage but not collected.
    pub(super) fn live(&self) -> usize {
        self.live.get()
    }

    /// Whether more seem alive than may be, so that it is worth a collection to count them.
    pub(super) fn seems_over(&self) -> bool {
        self.live.get() >= self.count_at.get()
    }

    /// Corrects [`Meter::live`] after a collection. The next one is due when a quarter of the limit
    /// more seem alive: an event that keeps just below the limit would have one for each coroutine
    /// that it makes.
    pub(super) fn set_live(&self, live: usize, limit: usize) {
        self.live.set(live);
        self.count_at.set((live + limit / 4).max(limit + 1));
    }

    /// Counts a waiting call.
    ///
    /// # Errors
    /// There have been too many.
    pub(super) fn host_call(&self, limits: &LuauLimits) -> Result<(), Doom> {
        self.host_calls.set(self.host_calls.get() + 1);
        if self.host_calls.get() > limits.host_calls {
            Err(Doom::HostCalls(limits.host_calls))
        } else {
            Ok(())
        }
    }
}
