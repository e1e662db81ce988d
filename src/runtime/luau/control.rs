//! The interrupt: how a running script is preempted, stopped, and kept within its memory.
//!
//! One [`Control`] an executor, shared with the interrupt callbacks of all its VMs, because only
//! one of them runs at a time. Luau calls the interrupt at loop edges and calls. It can yield
//! there, unless a metamethod, a comparator or a gsub callback is on the stack: a yield that is
//! asked for there is silently ignored. So the control counts: asked and not resumed since means
//! that the script is at such a place, and only an error stops it there.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlua::{Lua, VmState};

use super::budget::{Doom, Meter};
use super::config::LuauLimits;
use super::memory::Pace;
use super::ticker::{Tick, TurnSignal};
use crate::base::clock::ScriptClock;
use crate::base::thread::cpu_time;

/// How often the interrupt looks at the VM's memory.
const INTERRUPTS_BETWEEN_CHECKS: u32 = 16;

/// What the interrupt looks at and what it decides.
pub(super) struct Control {
    limits: LuauLimits,
    clock: ScriptClock,
    tick: Tick,
    stopping: Arc<AtomicBool>,
    turn_started: Cell<Instant>,
    run_deadline: Cell<Instant>,
    wall_deadline: Cell<Instant>,
    /// A yield has been asked for since the last resume.
    asked: Cell<bool>,
    /// When that was, by the clock and by the processor time of the thread.
    asked_at: Cell<(Instant, Duration)>,
    /// The state of a die, for tests: with slices of nothing, one interrupt in three yields. (Every
    /// one would mean that a coroutine inside another never moves: the interrupt comes before the
    /// instruction, and again after the yield.)
    die: Cell<u32>,
    interrupts: Cell<u32>,
    doom: Cell<Option<Doom>>,
    /// An error has been raised for `doom` since the last resume.
    raised: Cell<bool>,
    /// What runs is the host's own.
    is_undisturbed: Cell<bool>,
}

impl Control {
    pub(super) fn new(
        limits: LuauLimits,
        clock: ScriptClock,
        tick: Tick,
        stopping: Arc<AtomicBool>,
    ) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            limits,
            clock,
            tick,
            stopping,
            turn_started: Cell::new(now),
            run_deadline: Cell::new(now),
            wall_deadline: Cell::new(now),
            asked: Cell::new(false),
            asked_at: Cell::new((now, Duration::ZERO)),
            die: Cell::new(1),
            interrupts: Cell::new(0),
            doom: Cell::new(None),
            raised: Cell::new(false),
            is_undisturbed: Cell::new(false),
        })
    }

    pub(super) fn limits(&self) -> &LuauLimits {
        &self.limits
    }

    pub(super) fn clock(&self) -> &ScriptClock {
        &self.clock
    }

    /// A tenant's turn begins; `gives_way`: it ends when work comes.
    pub(super) fn start_turn(&self, now: Instant, gives_way: bool) {
        self.turn_started.set(now);
        self.tick.start_turn(gives_way);
    }

    /// A coroutine of an event is about to be resumed.
    pub(super) fn start_run(&self, meter: &Meter, now: Instant) {
        self.run_deadline.set(now + self.limits.running.saturating_sub(meter.running.get()));
        self.wall_deadline.set(meter.wall_deadline);
        self.asked.set(self.limits.slice.is_zero());
        self.doom.set(None);
        self.raised.set(false);
        // It is true here only after a panic.
        self.is_undisturbed.set(false);
    }

    /// Why the event that ran is doomed, if it is.
    pub(super) fn doom(&self) -> Option<Doom> {
        self.doom.get()
    }

    /// Dooms the event that runs: its next interrupt ends it. The first reason sticks.
    pub(super) fn set_doom(&self, doom: Doom) {
        if self.doom.get().is_none() {
            self.doom.set(Some(doom));
        }
        self.asked.set(true);
    }

    /// Runs something of the host's own, which is short and cannot yield.
    pub(super) fn undisturbed<R>(&self, run: impl FnOnce() -> R) -> R {
        self.is_undisturbed.set(true);
        let result = run();
        self.is_undisturbed.set(false);
        result
    }

    /// Called by Luau at loop edges and calls.
    ///
    /// # Errors
    /// The event is doomed and cannot be stopped by a yield.
    #[inline]
    pub(super) fn interrupt(&self, lua: &Lua, pace: &Pace) -> mlua::Result<VmState> {
        let count = self.interrupts.get().wrapping_add(1);
        self.interrupts.set(count);
        // Memory is looked at more often than the clock: large blocks can be allocated faster than
        // ticks come.
        let is_over = count.is_multiple_of(INTERRUPTS_BETWEEN_CHECKS) && pace.is_over(lua);
        if is_over || self.asked.get() || self.tick.has_signal() {
            return self.decide(lua, pace, is_over);
        }
        Ok(VmState::Continue)
    }

    fn decide(&self, lua: &Lua, pace: &Pace, is_over: bool) -> mlua::Result<VmState> {
        let is_spared = || self.limits.slice.is_zero() && self.doom.get().is_none() && !self.roll();
        if self.is_undisturbed.get() || is_spared() {
            return Ok(VmState::Continue);
        }
        let ignored = self.asked.get();
        let signal = self.tick.take();
        if signal != TurnSignal::None {
            let now = Instant::now();
            if let Some(doom) = self.judge(lua, pace, now, ignored) {
                self.set_doom(doom);
            } else if signal == TurnSignal::Due && !ignored && !is_over && self.has_just_begun(now)
            {
                // Ticks come at their own pace: a turn that has only just begun is left alone until
                // the next one.
                return Ok(VmState::Continue);
            }
            if !ignored {
                self.asked_at.set((now, cpu_time()));
            }
        }
        self.asked.set(true);
        match self.doom.get() {
            // A script may catch the error and go on: then yields and errors take turns, so that it
            // ends at the next interrupt where it can yield, and gets nowhere where it cannot.
            Some(doom) if ignored && !self.raised.get() => {
                self.raised.set(true);
                Err(mlua::Error::runtime(doom))
            }
            _ => {
                self.raised.set(false);
                Ok(VmState::Yield)
            }
        }
    }

    fn has_just_begun(&self, now: Instant) -> bool {
        now - self.turn_started.get() < self.limits.slice / 2
    }

    /// Whether a yield has been asked for in vain for so long. The processor time is looked at too,
    /// because the limit is short and the machine may be busy with others.
    fn is_stuck(&self, now: Instant) -> bool {
        let (clock, processor) = self.asked_at.get();
        now - clock >= self.limits.unyieldable && cpu_time() - processor >= self.limits.unyieldable
    }

    fn roll(&self) -> bool {
        self.die.set(self.die.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        (self.die.get() >> 16).is_multiple_of(3)
    }

    fn judge(&self, lua: &Lua, pace: &Pace, now: Instant, ignored: bool) -> Option<Doom> {
        let limits = &self.limits;
        if self.doom.get().is_some() {
            None
        } else if self.stopping.load(Ordering::Relaxed) {
            Some(Doom::Stopping)
        } else if now >= self.run_deadline.get() {
            Some(Doom::Running(limits.running))
        } else if self.clock.at(now) >= self.wall_deadline.get() {
            Some(Doom::Wall(limits.wall))
        } else if ignored && !limits.slice.is_zero() && self.is_stuck(now) {
            Some(Doom::Unyieldable(limits.unyieldable))
        } else {
            // With more than its limit it is preempted like any other, and collected before it goes
            // on.
            pace.check(lua);
            None
        }
    }
}
