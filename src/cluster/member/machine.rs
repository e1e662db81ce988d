//! What a master does about its lease and its shards: a pure state machine, `step(event, now) →
//! actions`. No I/O, no clock, no threads.
//!
//! The loop in `thread.rs` feeds it what happened and carries out what it decides. `now` is a time
//! of a clock that goes on while the machine is suspended; it is compared with itself only, never
//! with another master's or the database's. One question to the database is under way at a time,
//! and a renewal comes before all others.

mod own;
mod plan;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::limits::{
    CLUSTER_LOSSES_PAUSE, CLUSTER_LOSSES_WINDOW, CLUSTER_WISHES_MAX, LEASE_MARGIN,
};
use crate::cluster::ShardMoves;
use crate::store::lease::{
    ClusterLook, JoinRefusal, LeaseAsk, LeaseTold, MasterId, MasterRow, MasterState, Membership,
    ShardRow,
};
use crate::wire::data::sharding::{SHARDS, Shard, ShardSet};
use own::{OwnShard, OwnShards};

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum ClusterEvent {
    /// Time has passed.
    Tick,
    /// The database answered the question that was asked then.
    Told { asked_at: Duration, told: LeaseTold },
    /// It did not, or not in time: whether it did what it was asked is not known.
    Failed { asked_at: Duration },
    /// A peer says that it holds other shards than this master thinks.
    Nudged,
    /// The master is ready to take shards.
    Started,
    /// The tenants of these shards are loaded.
    Loaded(ShardSet),
    /// They are not.
    LoadFailed(ShardSet),
    /// Nothing of these shards runs any more.
    Left(ShardSet),
    /// The master of this name is to drain, or to stop doing so.
    SetState(String, MasterState),
    /// The master ends: all is to be handed over until then.
    Stop { until: Duration },
}

/// What to do, in the order in which a step gives them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClusterAction {
    /// Jobs of exactly these shards may begin.
    Serve(ShardSet),
    /// Writes are fenced with these epochs of this master.
    Hold(MasterId, Vec<(Shard, i64)>),
    /// Nothing is to begin, as the lease is about to end; or again it may.
    Suspend(bool),
    /// This is what there is to see.
    Show(Option<MasterId>, ClusterLook, Vec<Option<MasterId>>),
    /// The tenants of these shards are to be loaded.
    Load(ShardSet),
    /// What is under way of these shards may be answered until then.
    Leave(ShardSet, Duration),
    /// This is to be asked; the answer comes with the time of this step.
    Ask(LeaseAsk),
    /// The master has joined.
    Joined,
    /// It may not join.
    Refused(JoinRefusal),
    /// It lost its lease, and all its shards.
    Lost,
    /// The oldest `SetState` was answered; `None`: it is not known whether it was done.
    StateSet(Option<bool>),
    /// The newest `SetState` is not asked for: too many wait.
    StateNotAsked,
    /// All is over: nothing is held, or the time is up.
    Ended,
}

struct UnansweredAsk {
    at: Duration,
    ask: LeaseAsk,
}

/// Where the master is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is a member, or wants to be, and takes nothing yet.
    Joining,
    /// It takes its shards.
    Started,
    /// It hands over all that it has until then; `is_told`: its row says so.
    Stopping {
        until: Duration,
        is_told: bool,
    },
    Ended,
}

/// See the module's description.
pub(super) struct ClusterMachine {
    membership: Membership,
    drain_timeout: Duration,
    draw: Box<dyn FnMut() -> MasterId + Send>,
    phase: Phase,
    /// The member that it is; the last one it was, for what is held of it.
    me: Option<MasterId>,
    last_me: MasterId,
    /// The id that it tries to join with.
    joining: MasterId,
    asking: Option<UnansweredAsk>,
    /// Nothing is asked before.
    ask_after: Duration,
    /// A renewal is due then, and was last asked for then.
    look_at: Duration,
    looked_at: Duration,
    /// What was last seen still holds, as far as this master knows.
    has_looked: bool,
    /// When the last renewal that succeeded was asked for.
    renewed: Duration,
    /// Until then masters whose leases are over are not declared dead: they were cut off too.
    grace_until: Duration,
    is_suspended: bool,
    losses: VecDeque<Duration>,
    look: ClusterLook,
    wanted: Vec<Option<MasterId>>,
    own: OwnShards,
    /// How often in a row a shard could not be taken.
    misses: Vec<u8>,
    to_take: ShardSet,
    to_evict: ShardSet,
    loading: Option<ShardSet>,
    load_after: Duration,
    draining: Option<ShardSet>,
    leaving: Option<ShardSet>,
    wishes: VecDeque<(String, MasterState)>,
    served: ShardSet,
    held: (MasterId, Vec<(Shard, i64)>),
    is_shown: bool,
    moves: ShardMoves,
}

impl ClusterMachine {
    /// A master that is no member yet; its first [`ClusterEvent::Tick`] has it join. `draw` makes
    /// ids that no other master has.
    pub(super) fn new(
        membership: Membership,
        drain_timeout: Duration,
        mut draw: impl FnMut() -> MasterId + Send + 'static,
    ) -> Self {
        let joining = draw();
        Self {
            membership,
            drain_timeout,
            draw: Box::new(draw),
            phase: Phase::Joining,
            me: None,
            last_me: joining,
            joining,
            asking: None,
            ask_after: Duration::ZERO,
            look_at: Duration::ZERO,
            looked_at: Duration::ZERO,
            has_looked: false,
            renewed: Duration::ZERO,
            grace_until: Duration::ZERO,
            is_suspended: false,
            losses: VecDeque::new(),
            look: ClusterLook::default(),
            wanted: vec![None; usize::from(SHARDS)],
            own: OwnShards::new(),
            misses: vec![0; usize::from(SHARDS)],
            to_take: ShardSet::default(),
            to_evict: ShardSet::default(),
            loading: None,
            load_after: Duration::ZERO,
            draining: None,
            leaving: None,
            wishes: VecDeque::new(),
            served: ShardSet::default(),
            held: (joining, vec![]),
            is_shown: true,
            moves: ShardMoves::default(),
        }
    }

    /// How often shards changed hands.
    pub(super) fn moves(&self) -> ShardMoves {
        self.moves
    }

    /// When the lease ends, as far as this master knows.
    pub(super) fn lease_until(&self) -> Option<Duration> {
        self.me.map(|_| self.renewed + self.membership.lease)
    }

    /// How many shards it holds, is about to hand over, and should hold.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let is_ending = |own| matches!(own, OwnShard::Draining(_) | OwnShard::Drained(_));
        let wanted = self.wanted.iter().filter(|owner| self.me.is_some() && **owner == self.me);
        (self.own.count(|own| own.epoch().is_some()), self.own.count(is_ending), wanted.count())
    }

    /// Whether all is served that is held or could be taken.
    pub(super) fn is_settled(&self) -> bool {
        let is_taking = matches!(&self.asking, Some(UnansweredAsk { ask: LeaseAsk::Take(..), .. }));
        let is_coming = |own| matches!(own, OwnShard::Held(_) | OwnShard::Loading(_));
        let has_no_question = self.to_take.is_empty() && !is_taking;
        self.phase == Phase::Started
            && self.has_looked
            && has_no_question
            && !self.own.any(is_coming)
    }

    /// When the next [`ClusterEvent::Tick`] is wanted.
    pub(super) fn due(&self) -> Duration {
        let fence = self.fence_at().filter(|_| !self.is_suspended);
        let load = self.may_load().then_some(self.load_after);
        let may_ask = self.asking.is_none() && (self.me.is_some() || self.may_join());
        let ask = may_ask.then(|| self.look_at.max(self.ask_after));
        [self.stop_at(), fence, load, ask].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Takes in what happened and says what to do.
    pub(super) fn step(&mut self, event: ClusterEvent, now: Duration) -> Vec<ClusterAction> {
        let mut actions = Vec::new();
        if self.phase == Phase::Ended {
            return actions;
        }
        let before = self.is_suspended;
        self.take_in(event, now, &mut actions);
        self.is_suspended = self.fence_at().is_some_and(|at| now >= at);
        let leaves = self.plan(now);
        self.tell_changes(before, &mut actions);
        actions.extend(self.load(now));
        actions.extend(leaves);
        actions.extend(self.ask(now));
        let has_left = self.is_stopping() && self.me.is_none() && !self.is_busy();
        if has_left || self.stop_at().is_some_and(|at| now >= at) {
            actions.push(self.end());
        }
        actions
    }

    fn take_in(&mut self, event: ClusterEvent, now: Duration, actions: &mut Vec<ClusterAction>) {
        match event {
            ClusterEvent::Tick => {}
            ClusterEvent::Told { asked_at, told } => {
                if let Some(asked) = self.asking.take_if(|asked| asked.at == asked_at) {
                    self.told(asked, told, now, actions);
                }
            }
            ClusterEvent::Failed { asked_at } => {
                if let Some(asked) = self.asking.take_if(|asked| asked.at == asked_at) {
                    self.failed(&asked, now, actions);
                }
            }
            ClusterEvent::Nudged => self.look_soon(now),
            ClusterEvent::Started => {
                if self.phase == Phase::Joining {
                    self.phase = Phase::Started;
                }
                self.has_looked = false;
                self.look_at = now;
            }
            ClusterEvent::Loaded(shards) => self.loaded(&shards, OwnShard::Served),
            ClusterEvent::LoadFailed(shards) => {
                self.loaded(&shards, OwnShard::Held);
                self.load_after = now + self.period();
            }
            ClusterEvent::Left(shards) => self.left(&shards),
            ClusterEvent::SetState(name, state) => {
                if self.wishes.len() < CLUSTER_WISHES_MAX {
                    self.wishes.push_back((name, state));
                } else {
                    actions.push(ClusterAction::StateNotAsked);
                }
            }
            ClusterEvent::Stop { until } => {
                self.phase = Phase::Stopping { until, is_told: false };
                self.to_take = ShardSet::default();
                self.want();
            }
        }
    }

    fn failed(&mut self, asked: &UnansweredAsk, now: Duration, actions: &mut Vec<ClusterAction>) {
        self.ask_after = now + self.period() / 4;
        // What was done of it, a look says.
        self.look_at = now;
        self.has_looked = false;
        self.to_take = ShardSet::default();
        if let LeaseAsk::SetState(..) = asked.ask {
            actions.push(ClusterAction::StateSet(None));
        }
    }

    fn told(
        &mut self,
        asked: UnansweredAsk,
        told: LeaseTold,
        now: Duration,
        actions: &mut Vec<ClusterAction>,
    ) {
        match (&asked.ask, told) {
            (LeaseAsk::Join(id, _), LeaseTold::Joined(Ok(()))) => {
                self.joined(*id, asked.at);
                actions.push(ClusterAction::Joined);
            }
            (LeaseAsk::Join(..), LeaseTold::Joined(Err(refusal))) => {
                self.joining = (self.draw)();
                self.ask_after = now + self.period();
                actions.push(ClusterAction::Refused(refusal));
            }
            (LeaseAsk::Renew(..), LeaseTold::Renewed(Some(look))) => {
                self.renewed(asked.at, now, look);
            }
            (LeaseAsk::Renew(..), LeaseTold::Renewed(None)) => {
                self.lost(now);
                actions.push(ClusterAction::Lost);
            }
            (LeaseAsk::Take(_, shards), LeaseTold::Taken(taken)) => self.taken(shards, &taken, now),
            (LeaseAsk::Give(_, gives), LeaseTold::Given(given)) => {
                self.given(gives, &given);
                self.look_soon(now);
            }
            (LeaseAsk::Evict(_), LeaseTold::Evicted(_)) => self.look_at = now,
            (LeaseAsk::Leave(_), LeaseTold::Left) => self.me = None,
            (LeaseAsk::SetState(..), LeaseTold::StateSet(is_there)) => {
                self.look_at = now;
                actions.push(ClusterAction::StateSet(Some(is_there)));
            }
            (LeaseAsk::Retire(_), LeaseTold::Retired) => {
                self.look_at = now;
                if let Phase::Stopping { is_told, .. } = &mut self.phase {
                    *is_told = true;
                }
            }
            // An answer to another question is none.
            _ => self.failed(&asked, now, actions),
        }
    }

    fn joined(&mut self, id: MasterId, asked_at: Duration) {
        (self.me, self.last_me) = (Some(id), id);
        self.joining = (self.draw)();
        self.renewed = asked_at;
        // The others may be cut off at this moment: with a database that has just come back.
        self.grace_until =
            if self.is_alone() { Duration::ZERO } else { asked_at + self.membership.lease / 2 };
        self.look_at = asked_at;
        self.has_looked = false;
    }

    fn renewed(&mut self, asked_at: Duration, now: Duration, look: ClusterLook) {
        if asked_at > self.renewed + self.membership.lease / 2 {
            self.grace_until = now + self.membership.lease;
        }
        self.renewed = asked_at;
        self.look_at = now + self.period();
        self.has_looked = true;
        self.see(look);
        self.to_take = self.takeable(now);
        let to_take = self.to_take;
        let not = Shard::all().filter(|shard| !to_take.contains(*shard));
        not.for_each(|shard| self.misses[shard.index()] = 0);
        self.to_evict = ShardSet::default();
    }

    /// Another master found the lease over: all that this one held is gone.
    fn lost(&mut self, now: Duration) {
        let had = self.own.count(|own| own.epoch().is_some());
        self.moves.lost += had as u64;
        Shard::all().for_each(|shard| self.own.set(shard, self.own.get(shard).seen(None)));
        self.me = None;
        self.is_shown = false;
        self.to_take = ShardSet::default();
        self.losses.retain(|at| *at + CLUSTER_LOSSES_WINDOW > now);
        self.losses.push_back(now);
        if self.losses.len() > 1 {
            self.ask_after = now + CLUSTER_LOSSES_PAUSE;
        }
    }

    fn taken(&mut self, asked: &ShardSet, taken: &[(Shard, i64)], now: Duration) {
        asked.iter().for_each(|shard| self.misses[shard.index()] += 1);
        for (shard, epoch) in taken {
            self.misses[shard.index()] = 0;
            self.own.set(*shard, self.own.get(*shard).seen(Some(*epoch)));
            self.note(*shard, self.me, *epoch);
        }
        self.moves.taken += taken.len() as u64;
        let is_stuck = |shard: &Shard| self.misses[shard.index()] > 1;
        self.to_evict = asked.iter().filter(is_stuck).collect();
        // Once more, before its session is ended another time.
        self.to_evict.iter().for_each(|shard| self.misses[shard.index()] = 1);
        if taken.len() < asked.len() {
            self.has_looked = false;
            self.look_soon(now);
        }
    }

    fn given(&mut self, gives: &[(Shard, i64, Option<MasterId>)], given: &ShardSet) {
        for (shard, epoch, to) in gives.iter().filter(|(shard, ..)| given.contains(*shard)) {
            if self.own.get(*shard) == OwnShard::Drained(*epoch) {
                self.own.set(*shard, OwnShard::Not);
            }
            self.moves.given += 1;
            self.note(*shard, *to, epoch + 1);
        }
    }

    /// Notes a change of hands that the last look cannot know.
    fn note(&mut self, shard: Shard, owner: Option<MasterId>, epoch: i64) {
        if let Some(row) = self.look.shards.get_mut(shard.index()) {
            *row = ShardRow { owner, epoch };
        }
        self.is_shown = false;
    }

    fn loaded(&mut self, shards: &ShardSet, then: fn(i64) -> OwnShard) {
        self.loading = None;
        self.own.change(shards, |own| match own {
            OwnShard::Loading(epoch) => then(epoch),
            OwnShard::LostLoading => OwnShard::Lost,
            own => own,
        });
    }

    fn left(&mut self, shards: &ShardSet) {
        for leave in [&mut self.draining, &mut self.leaving] {
            leave.take_if(|of| of == shards);
        }
        self.own.change(shards, |own| match own {
            OwnShard::Draining(epoch) => OwnShard::Drained(epoch),
            OwnShard::Leaving => OwnShard::Not,
            own => own,
        });
    }

    /// The next question, if one may be asked.
    fn ask(&mut self, now: Duration) -> Option<ClusterAction> {
        if self.asking.is_some() || now < self.ask_after {
            return None;
        }
        let ask = match self.me {
            None => self.join()?,
            Some(me) if now >= self.look_at && !self.is_over() => {
                self.looked_at = now;
                LeaseAsk::Renew(me, self.membership.lease)
            }
            Some(me) => match self.wishes.pop_front() {
                Some((name, state)) => LeaseAsk::SetState(name, state),
                None => self.ask_for_shards(me)?,
            },
        };
        self.asking = Some(UnansweredAsk { at: now, ask: ask.clone() });
        Some(ClusterAction::Ask(ask))
    }

    fn join(&self) -> Option<LeaseAsk> {
        self.may_join().then(|| LeaseAsk::Join(self.joining, self.membership.clone()))
    }

    fn ask_for_shards(&mut self, me: MasterId) -> Option<LeaseAsk> {
        if let Phase::Stopping { is_told: false, .. } = self.phase {
            return Some(LeaseAsk::Retire(me));
        }
        let gives = self.gives();
        if !gives.is_empty() {
            return Some(LeaseAsk::Give(me, gives));
        }
        if !self.to_evict.is_empty() {
            return Some(LeaseAsk::Evict(std::mem::take(&mut self.to_evict)));
        }
        if !self.to_take.is_empty() && !self.is_suspended {
            return Some(LeaseAsk::Take(me, std::mem::take(&mut self.to_take)));
        }
        self.is_over().then_some(LeaseAsk::Leave(me))
    }

    fn may_join(&self) -> bool {
        matches!(self.phase, Phase::Joining | Phase::Started)
    }

    /// When a stop ends at the latest. To a master that is alone the end of its lease is as good as
    /// the database's word that it has left.
    fn stop_at(&self) -> Option<Duration> {
        let Phase::Stopping { until, .. } = self.phase else { return None };
        let over = self.lease_until().filter(|_| self.is_alone());
        Some(over.map_or(until, |over| over.min(until)))
    }

    /// Ends at once; what is held stays so in the database until the lease is over.
    fn end(&mut self) -> ClusterAction {
        self.phase = Phase::Ended;
        ClusterAction::Ended
    }

    /// What the step changed of what others go by. Jobs begin only under a fence, so what is not
    /// served any more comes first; what is served anew was held before.
    fn tell_changes(&mut self, was_suspended: bool, actions: &mut Vec<ClusterAction>) {
        let served = match self.is_suspended {
            true => ShardSet::default(),
            false => self.own.which(|own| matches!(own, OwnShard::Served(_))),
        };
        if served != self.served {
            self.served = served;
            actions.push(ClusterAction::Serve(served));
        }
        let held = (self.last_me, self.own.held());
        if held != self.held {
            self.held.clone_from(&held);
            actions.push(ClusterAction::Hold(held.0, held.1));
        }
        if self.is_suspended != was_suspended {
            actions.push(ClusterAction::Suspend(self.is_suspended));
        }
        if !self.is_shown {
            self.is_shown = true;
            let (look, wanted) = (self.look.clone(), self.wanted.clone());
            actions.push(ClusterAction::Show(self.me, look, wanted));
        }
    }

    /// From when on nothing is to begin: a moment before others may take what is held. A master
    /// that is alone has no others.
    pub(super) fn fence_at(&self) -> Option<Duration> {
        let is_member = self.me.is_some() && !self.is_alone();
        is_member.then(|| self.renewed + self.membership.lease.saturating_sub(LEASE_MARGIN))
    }

    fn period(&self) -> Duration {
        self.membership.lease / 6
    }

    fn is_alone(&self) -> bool {
        self.membership.cluster.is_none()
    }

    fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// Whether something of a shard is under way here.
    fn is_busy(&self) -> bool {
        self.own.any(|own| own != OwnShard::Not)
    }

    /// Whether the master stops and has nothing any more.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopping { is_told: true, .. }) && !self.is_busy()
    }

    fn look_soon(&mut self, now: Duration) {
        self.look_at = self.look_at.min(now.max(self.looked_at + self.period() / 10));
    }

    fn this(&self) -> Option<&MasterRow> {
        self.look.masters.iter().find(|master| Some(master.id) == self.me)
    }
}
