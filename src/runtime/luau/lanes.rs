//! Whose turn it is: the lanes in which an executor's tenants wait.
//!
//! Who has of late taken more than a small share of the time waits in the heavy lane, everybody
//! else in the light one. While both have work the light one gets three quarters of the time. So
//! ten tenants that loop cost the others a quarter of the time and no more, and while nobody light
//! has work they use what is left, and give way when work comes.
//!
//! A turn of someone who holds the executor for many slices where nothing can interrupt (a
//! comparator that loops) cannot give way. Who has done that is rude for a while: the rude get
//! their turns one at a time, and after one that took too long, none of them gets another for ten
//! times as long, if there is anybody light. Plain data, driven by the executor.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::data::TenantId;

/// For each unit of time that the heavy lane gets, the light one gets so many before the next.
const LIGHT_SHARE: u32 = 3;

/// For each unit of time of a rude turn, the rude rest for so many. Each such turn holds up whoever
/// has an event under way: with ten it is one event in a hundred of a hundred busy tenants, with
/// five it was two.
const REST_SHARE: u32 = 10;

/// A turn that took so many slices is rude.
const RUDE_SLICES: u32 = 5;

/// Limit: how long one rude turn keeps the rude waiting.
const REST_MAX: Duration = Duration::from_secs(1);

/// If nobody light has had a turn for so long, there is nobody for whom the rude have to wait.
const QUIET: Duration = Duration::from_millis(20);

/// How long a tenant stays rude after its last such turn.
const RUDE_FOR: Duration = Duration::from_secs(10);

/// A tenant that takes no more than one in so many parts of the time stays light.
const HEAVY_SHARE: u32 = 20;

/// What a tenant has taken of late.
#[derive(Debug)]
pub(super) struct Usage {
    /// What it runs flows in, a small share of all time flows out.
    level: Duration,
    at: Instant,
    /// It has had work ever since it used up a turn: how little it got since says nothing about
    /// what it wants.
    is_hungry: bool,
    rude_until: Option<Instant>,
}

/// A tenant's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Light,
    Heavy,
    Rude,
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self { level: Duration::ZERO, at: now, is_hungry: false, rude_until: None }
    }

    /// Notes a turn that ended just now.
    pub(super) fn add(&mut self, now: Instant, ran: Duration, slice: Duration) {
        self.charge(now, ran);
        self.is_hungry |= ran >= slice;
        if is_rude(ran, slice) {
            self.rude_until = Some(now + RUDE_FOR);
        }
    }

    /// Adds what was taken of the processor, here or on an I/O thread.
    pub(super) fn charge(&mut self, now: Instant, ran: Duration) {
        // No more than what is gone in a second: what is over is over.
        self.level = (self.level(now) + ran).min(Duration::from_secs(1) / HEAVY_SHARE);
    }

    /// Notes that the tenant has nothing left to do.
    pub(super) fn rest(&mut self) {
        self.is_hungry = false;
    }

    pub(super) fn standing(&mut self, now: Instant, slice: Duration) -> Standing {
        if self.rude_until.is_some_and(|until| now < until) {
            Standing::Rude
        } else if self.is_hungry || self.level(now) > slice {
            Standing::Heavy
        } else {
            Standing::Light
        }
    }

    fn level(&mut self, now: Instant) -> Duration {
        let out = now.saturating_duration_since(self.at) / HEAVY_SHARE;
        (self.level, self.at) = (self.level.saturating_sub(out), now);
        self.level
    }
}

/// Tests run with slices of nothing too.
fn is_rude(ran: Duration, slice: Duration) -> bool {
    ran > slice.max(Duration::from_millis(2)) * RUDE_SLICES
}

/// The lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    slice: Duration,
    light: VecDeque<TenantId>,
    heavy: VecDeque<TenantId>,
    rude: VecDeque<TenantId>,
    /// What the light lane is owed before the heavy one gets a turn that does not give way.
    owed: Duration,
    /// The rude one that stands in the heavy lane.
    rude_turn: Option<TenantId>,
    /// None of the rude gets a turn before the first of these: the end of their rest, or nobody
    /// else being there.
    rest_until: Option<Instant>,
    quiet_at: Instant,
}

/// A turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) tenant: TenantId,
    /// It ends when work comes.
    pub(super) gives_way: bool,
    is_heavy: bool,
}

impl Lanes {
    pub(super) fn new(slice: Duration) -> Self {
        Self {
            slice,
            light: VecDeque::new(),
            heavy: VecDeque::new(),
            rude: VecDeque::new(),
            owed: Duration::ZERO,
            rude_turn: None,
            rest_until: None,
            quiet_at: Instant::now(),
        }
    }

    /// Puts a tenant that has work at the end of its lane.
    pub(super) fn push(&mut self, tenant: TenantId, standing: Standing) {
        match standing {
            Standing::Light => self.light.push_back(tenant),
            Standing::Heavy => self.heavy.push_back(tenant),
            Standing::Rude => self.rude.push_back(tenant),
        }
    }

    /// Whether somebody can have a turn now.
    pub(super) fn has_turn(&mut self, now: Instant) -> bool {
        self.let_rude_in(now);
        !self.light.is_empty() || !self.heavy.is_empty()
    }

    /// When somebody can have a turn who cannot now.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.rude.is_empty() {
            None
        } else {
            self.rest_until.map(|until| until.min(self.quiet_at))
        }
    }

    /// Gives the next tenant its turn.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let is_heavy = self.light.is_empty() || (self.owed.is_zero() && !self.heavy.is_empty());
        let lane = if is_heavy { &mut self.heavy } else { &mut self.light };
        let tenant = lane.pop_front()?;
        Some(Turn { tenant, gives_way: is_heavy && !self.owed.is_zero(), is_heavy })
    }

    /// Notes that a turn ended just now.
    pub(super) fn ended(&mut self, turn: Turn, now: Instant, ran: Duration) {
        if turn.is_heavy {
            // What is owed is a few slices at most: what was long ago is forgotten.
            self.owed = (self.owed + ran * LIGHT_SHARE).min(self.slice * LIGHT_SHARE);
        } else {
            self.owed = self.owed.saturating_sub(ran);
            self.quiet_at = now + QUIET;
        }
        if is_rude(ran, self.slice) {
            self.quiet_at = now + QUIET;
            self.rest_until = Some(now + (ran * REST_SHARE).min(REST_MAX));
        }
        if self.rude_turn == Some(turn.tenant) {
            self.rude_turn = None;
        }
    }

    fn let_rude_in(&mut self, now: Instant) {
        let rests = self.rest_until.is_some_and(|until| now < until.min(self.quiet_at));
        if self.rude.is_empty() || self.rude_turn.is_some() || rests {
            return;
        }
        self.rest_until = None;
        if let Some(tenant) = self.rude.pop_front() {
            self.rude_turn = Some(tenant);
            self.heavy.push_back(tenant);
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
    fn run(takes: &[(u64, Standing, Duration)], time: Duration) -> Vec<Duration> {
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
        let mut takes = vec![(0, Standing::Light, SLICE / 20), (1, Standing::Light, SLICE / 20)];
        takes.extend((10..20).map(|id| (id, Standing::Heavy, SLICE)));
        let got = run(&takes, Duration::from_secs(10));
        let light = (got[0] + got[1]).as_secs_f64();
        assert!((7.4..7.6).contains(&light), "{got:?}");
        assert!(got[0].abs_diff(got[1]) <= SLICE, "{got:?}");
        assert!(
            got[2..].iter().all(|got| got.abs_diff(Duration::from_millis(250)) <= 2 * SLICE),
            "{got:?}"
        );
    }

    #[test]
    fn batch_work_gets_all_while_idle_but_gives_way() {
        let got = run(&[(1, Standing::Heavy, SLICE)], Duration::from_secs(1));
        assert_eq!(got[0], Duration::from_secs(1));
        let mut lanes = Lanes::new(SLICE);
        lanes.push(tenant(1), Standing::Heavy);
        let first = lanes.next().expect("a turn");
        assert!(!first.gives_way);
        lanes.ended(first, Instant::now(), SLICE);
        lanes.push(tenant(1), Standing::Heavy);
        assert!(lanes.next().expect("a turn").gives_way);
    }

    #[test]
    fn the_rude_get_an_eleventh_together_if_anybody_light_is_there() {
        let long = Duration::from_millis(100);
        let mut takes: Vec<_> = (0..10).map(|id| (id, Standing::Rude, long)).collect();
        let alone: Duration = run(&takes, Duration::from_secs(40)).iter().sum();
        assert!(alone > Duration::from_secs(32), "{alone:?}");
        takes.push((10, Standing::Light, SLICE / 20));
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
        let mut usages: Vec<_> = (0..110).map(|_| Usage::new(start)).collect();
        (0..110).for_each(|id| lanes.push(tenant(id), Standing::Light));
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
        let mut usage = Usage::new(start);
        assert_eq!(usage.standing(start, SLICE), Standing::Light);
        usage.add(start, 2 * SLICE, SLICE);
        assert_eq!(usage.standing(start, SLICE), Standing::Heavy);
        let later = start + Duration::from_secs(1);
        // One of many that loop gets so little that it would soon count as light.
        assert_eq!(usage.standing(later, SLICE), Standing::Heavy);
        usage.rest();
        assert_eq!(usage.standing(later, SLICE), Standing::Light);
        usage.add(later, 50 * SLICE, SLICE);
        assert_eq!(usage.standing(later + RUDE_FOR / 2, SLICE), Standing::Rude);
        usage.rest();
        assert_eq!(usage.standing(later + RUDE_FOR, SLICE), Standing::Light);
        // What its calls took elsewhere held nobody up.
        usage.charge(later + RUDE_FOR, 50 * SLICE);
        assert_eq!(usage.standing(later + RUDE_FOR, SLICE), Standing::Heavy);
    }
}
