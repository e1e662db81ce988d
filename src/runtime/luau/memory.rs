//! Keeps a VM's live data within its limit and its garbage within reason.
//!
//! The allocator's own limit ([`peak_bytes`]) is above the VM's: Luau has no emergency collection,
//! so an allocation that fails at the limit fails although most of the memory may be garbage. A VM
//! with more than its limit in all stops and is collected, in steps that leave room for other
//! tenants; what is alive afterwards is what counts. Runs on the VM's executor.
//!
//! What the tenant's calls have outside the VM (`outside`) counts as if it were in it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use mlua::Lua;
use mlua::state::{GcIncParams, GcMode};

use super::outside::Outside;
use crate::base::limits::{
    CALLS_FREE_BYTES, VM_IDLE_MEMORY_BYTES, VM_MEMORY_PEAK_FACTOR, WARNED_LEFT_SHARE,
};

/// The collector's settings as (goal, step multiplier) in percent; they belong together (lua.h,
/// LUA_GCSETGOAL).
const SOFT: (i32, i32) = (200, 200);
/// Above half of the limit: with four fifths of it alive the collector still keeps up by itself.
const HARD: (i32, i32) = (125, 500);

/// A call leaves one in so many parts of the limit free: a VM that it filled to the brim would be
/// over its limit with its next step, such as to tell of another call that it is refused.
const HEADROOM_SHARE: usize = 32;

/// A call that is refused has the VM collected if it grew by one in so many parts of its limit
/// since the last time, so that a script that is refused in a loop does not pay for a collection
/// each time.
const GREW_SHARE: usize = 16;

/// Or if so many times what that collection took have passed: garbage may come without growth.
const REST_SHARE: u32 = 10;

/// What an allocation may take a VM to, garbage included; beyond it the allocation fails.
pub(super) fn peak_bytes(limit: usize) -> usize {
    limit.saturating_mul(VM_MEMORY_PEAK_FACTOR)
}

/// From so much live data on the tenant is warned.
pub(super) fn warned_at(limit: usize) -> usize {
    limit - limit / WARNED_LEFT_SHARE as usize
}

/// How hard a VM's collector is driven.
#[derive(Debug)]
pub(super) struct Pace {
    limit: usize,
    outside: Arc<Outside>,
    hard: Cell<bool>,
    /// When the VM may be collected again for a call that is refused though it has not grown, and
    /// what was alive then.
    collected: Cell<Option<(Instant, usize)>>,
}

impl Pace {
    pub(super) fn new(limit: usize, outside: &Arc<Outside>) -> Self {
        Self { limit, outside: outside.clone(), hard: Cell::new(false), collected: Cell::new(None) }
    }

    /// The limit of live data, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there is more than the limit in all.
    pub(super) fn is_over(&self, lua: &Lua) -> bool {
        self.used(lua) > self.limit
    }

    /// Whether there is room for a call with so large arguments: what is small needs none, and
    /// garbage that is in the way of another is collected.
    pub(super) fn has_room(&self, lua: &Lua, bytes: usize) -> bool {
        let outside = self.outside.of_scripts() + bytes;
        let is_small = outside <= CALLS_FREE_BYTES;
        let limit = self.limit - self.limit / HEADROOM_SHARE;
        let fits = || lua.used_memory() + outside <= limit;
        is_small || fits() || (outside <= limit && self.collect_again(lua) && fits())
    }

    /// Collects everything, unless it was done of late and there is hardly any garbage since;
    /// whether it was done.
    fn collect_again(&self, lua: &Lua) -> bool {
        let (started, used) = (Instant::now(), lua.used_memory());
        if let Some((again_at, alive)) = self.collected.get()
            && started < again_at
            && used <= alive + self.limit / GREW_SHARE
        {
            // The collector may have got on by itself: what comes after that is growth.
            self.collected.set(Some((again_at, alive.min(used))));
            return false;
        }
        Self::collect(lua);
        self.collected
            .set(Some((Instant::now() + started.elapsed() * REST_SHARE, lua.used_memory())));
        true
    }

    /// What is in the VM, and what its calls have outside it.
    pub(super) fn used(&self, lua: &Lua) -> usize {
        lua.used_memory() + self.outside.of_scripts()
    }

    /// Looks at the VM's memory and sets the collector's pace; whether there is more than the limit
    /// in all.
    pub(super) fn check(&self, lua: &Lua) -> bool {
        let used = self.used(lua);
        let hard = used > self.limit / 2;
        if self.hard.replace(hard) != hard {
            let (goal, step) = if hard { HARD } else { SOFT };
            lua.gc_set_mode(GcMode::Incremental(
                GcIncParams::default().goal(goal).step_multiplier(step),
            ));
            if hard {
                // The threshold of the pause was set by the soft goal: this starts a cycle now.
                let _ = lua.gc_step();
            }
        }
        used > self.limit
    }

    /// Collects everything at once, where work cannot be left half done.
    pub(super) fn collect(lua: &Lua) {
        // Twice: the first may merely finish a cycle that began before the garbage was made. It
        // fails only where memory for an error message is short, and then the memory used says so
        // too.
        let _ = lua.gc_collect().and_then(|()| lua.gc_collect());
    }
}

/// A collection in steps, which can be left for other tenants' work at any time.
#[derive(Debug, Default)]
pub(super) struct Collection {
    why: Option<EndReason>,
    /// Cycles still to finish: the one under way when it began, and one whole.
    cycles: u8,
    /// What was alive after the last one.
    floor: usize,
}

/// Why a VM is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// It has nothing else to do, and one large event shall not stay for as long as its tenant is
    /// quiet.
    Idle,
    /// It has more than its limit, because of this event: nothing runs in it until it is known how
    /// much is alive.
    Over(u64),
}

impl Collection {
    /// Begins one for an idle VM, if there is enough to be worth it. Near the limit less growth is
    /// worth it: what is alive after a collection tells whether the tenant is to be warned.
    pub(super) fn begin_idle(&mut self, lua: &Lua, limit: usize) {
        let much = VM_IDLE_MEMORY_BYTES.max(self.floor + self.floor / 2);
        let worth = much.min(warned_at(limit).max(self.floor + limit / GREW_SHARE));
        if self.why.is_none() && lua.used_memory() > worth {
            (self.why, self.cycles) = (Some(EndReason::Idle), 2);
        }
    }

    /// Begins one for a VM that has too much.
    pub(super) fn begin_over(&mut self, event: u64) {
        (self.why, self.cycles) = (Some(EndReason::Over(event)), 2);
    }

    /// The VM is needed again: what was begun because it was idle is left.
    pub(super) fn stop_idle(&mut self) {
        if self.why == Some(EndReason::Idle) {
            self.why = None;
        }
    }

    /// Why one is under way, if one is.
    pub(super) fn why(&self) -> Option<EndReason> {
        self.why
    }

    /// Does a little; whether that was the end of it.
    pub(super) fn step(&mut self, lua: &Lua) -> bool {
        if !matches!(lua.gc_step(), Ok(false)) {
            self.cycles = self.cycles.saturating_sub(1);
        }
        self.floor = lua.used_memory();
        if self.cycles == 0 {
            self.why = None;
        }
        self.why.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::luau::outside::ChargeKind;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_call_is_refused_for_live_data_and_not_for_garbage() {
        let (lua, outside) = (Lua::new(), Arc::<Outside>::default());
        let pace = Pace::new(16 * MIB, &outside);
        let _calls = outside.charge(ChargeKind::Call, 2 * MIB);
        let make = |mib: usize| lua.create_buffer(vec![0; mib * MIB]).expect("a buffer");
        drop(make(15));
        assert!(pace.has_room(&lua, MIB), "garbage is in nobody's way");
        let kept = make(15);
        assert!(!pace.has_room(&lua, MIB));
        // Not again at once, unless the VM has grown since.
        let later = Instant::now() + Duration::from_secs(3600);
        pace.collected.set(Some((later, lua.used_memory())));
        drop(kept);
        assert!(!pace.has_room(&lua, MIB));
        drop(make(2));
        assert!(pace.has_room(&lua, MIB));
    }
}
