//! Keeps a VM's live data within its limit and its garbage within reason.
//!
//! The allocator's own limit ([`peak_bytes`]) is above the VM's: Luau has no emergency collection, so an allocation
//! that fails at the limit fails although most of the memory may be garbage. Between the two limits garbage is
//! collected from outside, at ticks and after each run. One [`Pace`] a VM; runs on the VM's executor.

use std::cell::Cell;

use mlua::Lua;
use mlua::state::{GcIncParams, GcMode};

use super::budget::Doom;
use crate::limits::{VM_IDLE_MEMORY_BYTES, VM_MEMORY_PEAK_FACTOR};

/// The collector's settings as (goal, step multiplier) in percent; they belong together (lua.h, LUA_GCSETGOAL).
const SOFT: (i32, i32) = (200, 200);
/// Above half of the limit: with four fifths of it alive there is still no full collection.
const HARD: (i32, i32) = (125, 500);

/// What an allocation may take a VM to, garbage included; beyond it the allocation fails.
pub(super) fn peak_bytes(limit: usize) -> usize {
    limit.saturating_mul(VM_MEMORY_PEAK_FACTOR)
}

/// How hard a VM's collector is driven.
#[derive(Debug)]
pub(super) struct Pace {
    limit: usize,
    hard: Cell<bool>,
}

impl Pace {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, hard: Cell::new(false) }
    }

    /// The limit of live data, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Looks at the VM's memory: sets the collector's pace, and collects when there is more than the limit in all.
    ///
    /// # Errors
    /// More than the limit is alive.
    pub(super) fn check(&self, lua: &Lua) -> Result<(), Doom> {
        let used = lua.used_memory();
        if used > self.limit {
            // Twice: the first may merely finish a cycle that began before the garbage was made.
            collect(lua);
            if lua.used_memory() > self.limit {
                collect(lua);
            }
            if lua.used_memory() > self.limit {
                return Err(Doom::Memory(self.limit));
            }
        }
        self.set(lua, used > self.limit / 2);
        Ok(())
    }

    fn set(&self, lua: &Lua, hard: bool) {
        if self.hard.replace(hard) == hard {
            return;
        }
        let (goal, step) = if hard { HARD } else { SOFT };
        lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().goal(goal).step_multiplier(step)));
        if hard {
            // The threshold of the pause was set by the soft goal: this starts a cycle now.
            let _ = lua.gc_step();
        }
    }
}

/// Garbage collection of a VM that went idle: one large event does not stay for as long as its tenant is quiet.
///
/// Done in steps, so that it can be left for other tenants' work at any time.
#[derive(Debug, Default)]
pub(super) struct IdleCollection {
    /// What was alive after the last one.
    floor: usize,
    /// Cycles still to finish: the one under way when it began, and one whole.
    cycles: u8,
}

impl IdleCollection {
    /// Begins one, if there is enough to be worth it.
    pub(super) fn begin(&mut self, lua: &Lua) {
        let worth = VM_IDLE_MEMORY_BYTES.max(self.floor + self.floor / 2);
        self.cycles = if lua.used_memory() > worth { 2 } else { 0 };
    }

    /// The VM is needed again.
    pub(super) fn stop(&mut self) {
        self.cycles = 0;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.cycles > 0
    }

    /// Does a little.
    pub(super) fn step(&mut self, lua: &Lua) {
        match lua.gc_step() {
            Ok(false) => {}
            Ok(true) | Err(_) => self.cycles = self.cycles.saturating_sub(1),
        }
        self.floor = lua.used_memory();
    }
}

fn collect(lua: &Lua) {
    // It fails only where memory for an error message is short, and then the memory used says so too.
    let _ = lua.gc_collect();
}
