//! Whose turn it is: the lanes in which an executor's tenants wait.
//!
//! A tenant that has of late taken more than a small share of the time waits in the batch lane,
//! every other tenant in the interactive one. While both have work the interactive lane gets three
//! quarters of the time. So ten tenants that loop cost the others a quarter of the time and no
//! more. While no interactive tenant has work, the batch tenants use the time that is left, and
//! give way when work comes.
//!
//! A turn that holds the executor for many slices where nothing can interrupt (a comparator that
//! loops) cannot give way. Its tenant is overrun for a while: overrun tenants get their turns one
//! at a time, and after a turn that took too long, none of them gets another for ten times as long,
//! if there is an interactive tenant. Plain data, driven by the executor.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::data::TenantId;

/// For each unit of time that the batch lane gets, the interactive one gets so many before the
/// next.
const INTERACTIVE_SHARE: u32 = 3;

/// For each unit of time of an overrun, the overrun tenants rest for so many. Each overrun holds up
/// every event that is under way: with ten it is one event in a hundred of a hundred busy tenants,
/// with five it was two.
const REST_SHARE: u32 = 10;

/// A turn that took so many slices is an overrun.
const OVERRUN_SLICES: u32 = 5;

/// Limit: how long one overrun keeps the overrun tenants waiting.
const REST_MAX: Duration = Duration::from_secs(1);

/// If no interactive tenant has had a turn for so long, the overrun ones need not wait for any.
const QUIET: Duration = Duration::from_millis(20);

/// How long a tenant stays overrun after its last such turn.
const OVERRUN_FOR: Duration = Duration::from_secs(10);

/// A tenant that takes no more than one in so many parts of the time stays interactive.
const INTERACTIVE_PART: u32 = 20;

/// What a tenant has taken of late.
#[derive(Debug)]
pub(super) struct LaneUsage {
    /// What it runs flows in, a small share of all time flows out.
    level: Duration,
    at: Instant,
    /// It has had work ever since it used up a turn: how little it got since says nothing about
    /// what it wants.
    is_backlogged: bool,
    overrun_until: Option<Instant>,
}

/// A tenant's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Interactive,
    Batch,
    Overrun,
}

impl LaneUsage {
    pub(super) fn new(now: Instant) -> Self {
        Self { level: Duration::ZERO, at: now, is_backlogged: false, overrun_until: None }
    }

    /// Counts a turn that ended just now.
    pub(super) fn add(&mut self, now: Instant, ran: Duration, slice: Duration) {
        self.charge(now, ran);
        self.is_backlogged |= ran >= slice;
        if is_overrun(ran, slice) {
            self.overrun_until = Some(now + OVERRUN_FOR);
        }
    }

    /// Adds what was taken of the processor, here or on an I/O thread.
    pub(super) fn charge(&mut self, now: Instant, ran: Duration) {
        // No more than what is gone in a second: what is over is over.
        self.level = (self.level(now) + ran).min(Duration::from_secs(1) / INTERACTIVE_PART);
    }

    /// Records that the tenant has nothing left to do.
    pub(super) fn rest(&mut self) {
        self.is_backlogged = false;
    }

    pub(super) fn standing(&mut self, now: Instant, slice: Duration) -> Lane {
        if self.overrun_until.is_some_and(|until| now < until) {
            Lane::Overrun
        } else if self.is_backlogged || self.level(now) > slice {
            Lane::Batch
        } else {
            Lane::Interactive
        }
    }

    fn level(&mut self, now: Instant) -> Duration {
        let out = now.saturating_duration_since(self.at) / INTERACTIVE_PART;
        (self.level, self.at) = (self.level.saturating_sub(out), now);
        self.level
    }
}

/// Tests run with slices of nothing too.
fn is_overrun(ran: Duration, slice: Duration) -> bool {
    ran > slice.max(Duration::from_millis(2)) * OVERRUN_SLICES
}

/// The lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    slice: Duration,
    interactive: VecDeque<TenantId>,
    batch: VecDeque<TenantId>,
    overrun: VecDeque<TenantId>,
    /// What the interactive lane is owed before the batch one gets a turn that does not give way.
    owed: Duration,
    /// The overrun tenant that stands in the batch lane.
    overrun_turn: Option<TenantId>,
    /// No overrun tenant gets a turn before the first of these: the end of their rest, or the time
    /// at which no interactive tenant counts as present.
    rest_until: Option<Instant>,
    quiet_at: Instant,
}

/// A turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneTurn {
    pub(super) tenant: TenantId,
    /// It ends when work comes.
    pub(super) gives_way: bool,
    is_batch: bool,
}

impl Lanes {
    pub(super) fn new(slice: Duration) -> Self {
        Self {
            slice,
            interactive: VecDeque::new(),
            batch: VecDeque::new(),
            overrun: VecDeque::new(),
            owed: Duration::ZERO,
            overrun_turn: None,
            rest_until: None,
            quiet_at: Instant::now(),
        }
    }

    /// Puts a tenant that has work at the end of its lane.
    pub(super) fn push(&mut self, tenant: TenantId, standing: Lane) {
        match standing {
            Lane::Interactive => self.interactive.push_back(tenant),
            Lane::Batch => self.batch.push_back(tenant),
            Lane::Overrun => self.overrun.push_back(tenant),
        }
    }

    /// Whether a tenant can have a turn now.
    pub(super) fn has_turn(&mut self, now: Instant) -> bool {
        self.let_overrun_in(now);
        !self.interactive.is_empty() || !self.batch.is_empty()
    }

    /// When a tenant that cannot have a turn now can have one.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.overrun.is_empty() {
            None
        } else {
            self.rest_until.map(|until| until.min(self.quiet_at))
        }
    }

    /// Gives the next tenant its turn.
    pub(super) fn next(&mut self) -> Option<LaneTurn> {
        let is_batch =
            self.interactive.is_empty() || (self.owed.is_zero() && !self.batch.is_empty());
        let lane = if is_batch { &mut self.batch } else { &mut self.interactive };
        let tenant = lane.pop_front()?;
        Some(LaneTurn { tenant, gives_way: is_batch && !self.owed.is_zero(), is_batch })
    }

    /// Counts a turn that ended just now.
    pub(super) fn ended(&mut self, turn: LaneTurn, now: Instant, ran: Duration) {
        if turn.is_batch {
            // What is owed is a few slices at most: what was long ago is forgotten.
            self.owed = (self.owed + ran * INTERACTIVE_SHARE).min(self.slice * INTERACTIVE_SHARE);
        } else {
            self.owed = self.owed.saturating_sub(ran);
            self.quiet_at = now + QUIET;
        }
        if is_overrun(ran, self.slice) {
            self.quiet_at = now + QUIET;
            self.rest_until = Some(now + (ran * REST_SHARE).min(REST_MAX));
        }
        if self.overrun_turn == Some(turn.tenant) {
            self.overrun_turn = None;
        }
    }

    fn let_overrun_in(&mut self, now: Instant) {
        let rests = self.rest_until.is_some_and(|until| now < until.min(self.quiet_at));
        if self.overrun.is_empty() || self.overrun_turn.is_some() || rests {
            return;
        }
        self.rest_until = None;
        if let Some(tenant) = self.overrun.pop_front() {
            self.overrun_turn = Some(tenant);
            self.batch.push_back(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(2);

    fn tenant(number: u64) -> TenantId {
        TenantId::Guild(number)
    }

    /// Gives turns for a while, each tenant taking what it takes: how much each got.
    fn run(takes: &[(u64, Lane, Duration)], time: Duration) -> Vec<Duration> {
        let mut lanes = Lanes::new(SLICE);
        takes.iter().for_each(|(id, standing, _)| lanes.push(tenant(*id), *standing));
        let start = Instant::now();
        let (mut now, mut got) = (start, vec![Duration::ZERO; takes.len()]);
        while now < start + time {
            if !lanes.has_turn(now) {
                now = lanes.due().expect("somebody waits");
                continue;
            }
            let turn = lanes.next().expect("there is one");
            let index =
                takes.iter().position(|(id, ..)| tenant(*id) == turn.tenant).expect("one of them");
            let (id, standing, takes) = takes[index];
            now += takes;
            got[index] += takes;
            lanes.ended(turn, now, takes);
            lanes.push(tenant(id), standing);
        }
        got
    }

    #[test]
    fn ten_that_loop_get_a_quarter_and_each_lane_takes_turns() {
        let mut takes =
            vec![(0, Lane::Interactive, SLICE / 20), (1, Lane::Interactive, SLICE / 20)];
        takes.extend((10..20).map(|id| (id, Lane::Batch, SLICE)));
        let got = run(&takes, Duration::from_secs(10));
        let interactive = (got[0] + got[1]).as_secs_f64();
        assert!((7.4..7.6).contains(&interactive), "{got:?}");
        assert!(got[0].abs_diff(got[1]) <= SLICE, "{got:?}");
        assert!(
            got[2..].iter().all(|got| got.abs_diff(Duration::from_millis(250)) <= 2 * SLICE),
            "{got:?}"
        );
    }

    #[test]
    fn batch_work_gets_all_while_idle_but_gives_way() {
        let got = run(&[(1, Lane::Batch, SLICE)], Duration::from_secs(1));
        assert_eq!(got[0], Duration::from_secs(1));
        let mut lanes = Lanes::new(SLICE);
        lanes.push(tenant(1), Lane::Batch);
        let first = lanes.next().expect("a turn");
        assert!(!first.gives_way);
        lanes.ended(first, Instant::now(), SLICE);
        lanes.push(tenant(1), Lane::Batch);
        assert!(lanes.next().expect("a turn").gives_way);
    }

    #[test]
    fn the_rude_get_an_eleventh_together_if_anybody_light_is_there() {
        let long = Duration::from_millis(100);
        let mut takes: Vec<_> = (0..10).map(|id| (id, Lane::Overrun, long)).collect();
        let alone: Duration = run(&takes, Duration::from_secs(40)).iter().sum();
        assert!(alone > Duration::from_secs(32), "{alone:?}");
        takes.push((10, Lane::Interactive, SLICE / 20));
        let got = run(&takes, Duration::from_secs(40));
        let all: Duration = got[..10].iter().sum();
        assert!((3.5..3.9).contains(&all.as_secs_f64()), "{got:?}");
        assert!(got[..10].iter().all(|got| *got >= Duration::from_millis(300)), "{got:?}");
    }

    #[test]
    fn many_loops_do_not_pass_for_interactive() {
        let mut lanes = Lanes::new(SLICE);
        let start = Instant::now();
        // A hundred that do a little and rest; then ten that never do.
        let takes = |id: u64| if id < 100 { SLICE / 100 } else { SLICE };
        let mut usages: Vec<_> = (0..110).map(|_| LaneUsage::new(start)).collect();
        (0..110).for_each(|id| lanes.push(tenant(id), Lane::Interactive));
        let (mut now, mut steady) = (start, Duration::ZERO);
        while now < start + Duration::from_secs(4) {
            assert!(lanes.has_turn(now));
            let turn = lanes.next().expect("a turn");
            let id = turn.tenant.snowflake();
            let usage = &mut usages[id as usize];
            now += takes(id);
            usage.add(now, takes(id), SLICE);
            lanes.ended(turn, now, takes(id));
            if id < 100 {
                steady += takes(id);
                usage.rest();
            }
            lanes.push(turn.tenant, usage.standing(now, SLICE));
        }
        assert!(steady > Duration::from_millis(2900), "{steady:?}");
    }

    #[test]
    fn a_tenant_is_judged_by_what_it_took_of_late() {
        let start = Instant::now();
        let mut usage = LaneUsage::new(start);
        assert_eq!(usage.standing(start, SLICE), Lane::Interactive);
        usage.add(start, 2 * SLICE, SLICE);
        assert_eq!(usage.standing(start, SLICE), Lane::Batch);
        let later = start + Duration::from_secs(1);
        // One of many that loop gets so little that it would soon count as interactive.
        assert_eq!(usage.standing(later, SLICE), Lane::Batch);
        usage.rest();
        assert_eq!(usage.standing(later, SLICE), Lane::Interactive);
        usage.add(later, 50 * SLICE, SLICE);
        assert_eq!(usage.standing(later + OVERRUN_FOR / 2, SLICE), Lane::Overrun);
        usage.rest();
        assert_eq!(usage.standing(later + OVERRUN_FOR, SLICE), Lane::Interactive);
        // What its calls took elsewhere held no other tenant up.
        usage.charge(later + OVERRUN_FOR, 50 * SLICE);
        assert_eq!(usage.standing(later + OVERRUN_FOR, SLICE), Lane::Batch);
    }
}
