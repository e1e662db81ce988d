//! Which shards a master takes, loads, leaves and gives, by what it last saw.

use std::time::Duration;

use super::own::OwnShard;
use super::{ClusterAction, ClusterMachine, Phase};
use crate::base::limits::{CLUSTER_BALANCE_AFTER, CLUSTER_BALANCE_MAX};
use crate::cluster::member::assign::assign;
use crate::store::lease::{ClusterLook, MasterId, MasterState};
use crate::wire::data::sharding::{SHARDS, Shard, ShardSet};

impl ClusterMachine {
    /// Takes over what there is to see. A shard that is held without this master's knowledge is one
    /// that another gave, or that was taken by a question whose answer was lost.
    pub(super) fn see(&mut self, look: ClusterLook) {
        for (shard, row) in Shard::all().zip(&look.shards) {
            let own = self.own.get(shard);
            let now = own.seen((row.owner == self.me).then_some(row.epoch));
            match (own.epoch(), now.epoch()) {
                (None, Some(_)) => self.moves.received += 1,
                (Some(_), None) if matches!(own, OwnShard::Drained(_)) => self.moves.given += 1,
                (Some(_), None) => self.moves.lost += 1,
                _ => {}
            }
            self.own.set(shard, now);
        }
        self.look = look;
        self.is_shown = false;
        self.want();
    }

    /// Computes which shards should be where.
    pub(super) fn want(&mut self) {
        let is_stopping = self.is_stopping();
        let is_candidate = |id| !is_stopping || Some(id) != self.me;
        self.wanted = match self.is_alone() {
            true => vec![self.me.filter(|id| is_candidate(*id)); usize::from(SHARDS)],
            false => {
                let masters = self.look.masters.iter().filter(|master| is_candidate(master.id));
                assign(masters, &self.look.shards)
            }
        };
    }

    /// The shards that this master should hold, and that another does not hold any more.
    pub(super) fn takeable(&self, now: Duration) -> ShardSet {
        if self.phase != Phase::Started {
            return ShardSet::default();
        }
        let is_free = |shard: Shard| match self.look.shards.get(shard.index()).map(|row| row.owner)
        {
            Some(Some(owner)) => self.is_gone(owner, now),
            Some(None) => true,
            None => false,
        };
        let is_wanted = |shard: Shard| self.me.is_some() && self.wanted[shard.index()] == self.me;
        let is_ours = |shard: &Shard| self.own.get(*shard) == OwnShard::Not && is_wanted(*shard);
        Shard::all().filter(is_ours).filter(|shard| is_free(*shard)).collect()
    }

    /// Whether a master will not come back. Right after this one was cut off itself, a lease that
    /// is over says nothing; an earlier run of this master is gone in any case.
    fn is_gone(&self, owner: MasterId, now: Duration) -> bool {
        self.look.masters.iter().find(|master| master.id == owner).is_none_or(|master| {
            let is_trusted = now >= self.grace_until || master.name == self.membership.name;
            !master.lives() && (master.state == MasterState::Dead || is_trusted)
        })
    }

    /// Begins hand-overs, takes those back that no other master should
    /// hold any more, and has what was lost left.
    pub(super) fn plan(&mut self, now: Duration) -> Vec<ClusterAction> {
        for shard in Shard::all() {
            match self.own.get(shard) {
                // Nothing of it runs yet.
                OwnShard::Held(epoch) if self.is_to_give(shard, now) => {
                    self.own.set(shard, OwnShard::Drained(epoch));
                }
                OwnShard::Drained(epoch) if !self.is_stopping() && self.heir(shard).is_none() => {
                    self.own.set(shard, OwnShard::Held(epoch));
                }
                _ => {}
            }
        }
        let mut actions = Vec::new();
        if self.draining.is_none() {
            let drained = self.begin_draining(now);
            if !drained.is_empty() {
                self.draining = Some(drained);
                actions.push(ClusterAction::Leave(drained, self.drain_until(now)));
            }
        }
        let lost = self.own.which(|own| own == OwnShard::Lost);
        if self.leaving.is_none() && !lost.is_empty() {
            self.own.change(&lost, |_| OwnShard::Leaving);
            self.leaving = Some(lost);
            actions.push(ClusterAction::Leave(lost, now));
        }
        actions
    }

    fn begin_draining(&mut self, now: Duration) -> ShardSet {
        let mut drained = ShardSet::default();
        for shard in Shard::all() {
            if let OwnShard::Served(epoch) = self.own.get(shard)
                && self.is_to_give(shard, now)
            {
                self.own.set(shard, OwnShard::Draining(epoch));
                drained.insert(shard);
            }
        }
        drained
    }

    fn drain_until(&self, now: Duration) -> Duration {
        let until = now + self.drain_timeout;
        match self.phase {
            Phase::Stopping { until: stop, .. } => until.min(stop),
            _ => until,
        }
    }

    /// Whether there is something to load: one load at a time.
    pub(super) fn may_load(&self) -> bool {
        self.phase == Phase::Started
            && self.loading.is_none()
            && !self.is_suspended
            && self.own.any(|own| matches!(own, OwnShard::Held(_)))
    }

    /// Has the tenants of what is held loaded.
    pub(super) fn load(&mut self, now: Duration) -> Option<ClusterAction> {
        if !self.may_load() || now < self.load_after {
            return None;
        }
        let held = self.own.which(|own| matches!(own, OwnShard::Held(_)));
        self.own.change(&held, |own| match own {
            OwnShard::Held(epoch) => OwnShard::Loading(epoch),
            own => own,
        });
        self.loading = Some(held);
        Some(ClusterAction::Load(held))
    }

    /// The other master that should hold a shard.
    fn heir(&self, shard: Shard) -> Option<MasterId> {
        self.wanted[shard.index()].filter(|wanted| Some(*wanted) != self.me)
    }

    /// Whether the hand-over of a shard is to begin.
    fn is_to_give(&self, shard: Shard, now: Duration) -> bool {
        if self.is_stopping() {
            return true;
        }
        let Some(heir) = self.heir(shard) else { return false };
        if self.is_draining() {
            return true;
        }
        // For balance only: never on the word of a view that is about to change, nor to a master
        // that may be gone again in a moment.
        let up_for = |id| self.look.masters.iter().find(|master| master.id == id);
        let is_steady = up_for(heir).is_some_and(|master| master.up_for >= CLUSTER_BALANCE_AFTER);
        let is_ending = |own| matches!(own, OwnShard::Draining(_) | OwnShard::Drained(_));
        let has_room = || self.own.count(is_ending) < CLUSTER_BALANCE_MAX;
        is_steady && now >= self.grace_until && !self.is_suspended && has_room()
    }

    /// What can be handed over at this moment.
    pub(super) fn gives(&self) -> Vec<(Shard, i64, Option<MasterId>)> {
        let give = |shard| match self.own.get(shard) {
            OwnShard::Drained(epoch) => Some((shard, epoch, self.heir(shard))),
            _ => None,
        };
        Shard::all().filter_map(give).collect()
    }

    /// Whether its row says that it is to give everything.
    fn is_draining(&self) -> bool {
        self.this().is_some_and(|row| row.state == MasterState::Draining)
    }
}
