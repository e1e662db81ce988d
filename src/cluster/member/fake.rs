//! A database of masters and shards in memory, with what its SQL means: for the tests of the
//! machine and of the thread.

use std::time::Duration;

use crate::store::lease::{
    ClusterLook, Fence, JoinRefusal, LeaseAsk, LeaseTold, MasterId, MasterRow, MasterState,
    Membership, ShardRow,
};
use crate::wire::data::sharding::{SHARDS, Shard, ShardSet};

struct FakeMaster {
    id: MasterId,
    is: Membership,
    state: MasterState,
    started: Duration,
    expires: Duration,
}

/// All times are of its own clock.
pub(super) struct FakeDatabase {
    masters: Vec<FakeMaster>,
    pub(super) shards: Vec<ShardRow>,
    /// Shards whose locks are held by sessions of masters that stand still in a transaction.
    pub(super) stuck: ShardSet,
    pub(super) evicted: u64,
}

impl FakeDatabase {
    pub(super) fn new() -> Self {
        let shards = vec![ShardRow::default(); usize::from(SHARDS)];
        Self { masters: vec![], shards, stuck: ShardSet::default(), evicted: 0 }
    }

    /// Answers as one transaction.
    pub(super) fn ask(&mut self, ask: &LeaseAsk, now: Duration) -> LeaseTold {
        match ask {
            LeaseAsk::Join(id, is) => LeaseTold::Joined(self.join(*id, is, now)),
            LeaseAsk::Renew(id, lease) => LeaseTold::Renewed(self.renew(*id, *lease, now)),
            LeaseAsk::Take(id, shards) => LeaseTold::Taken(
                shards.iter().filter_map(|shard| self.take(*id, shard, now)).collect(),
            ),
            LeaseAsk::Give(id, gives) => {
                let given = gives.iter().filter(|(shard, epoch, to)| {
                    let is_heir = to.is_none_or(|to| self.may_get(to, now));
                    let row = &mut self.shards[shard.index()];
                    let is_given = *row == ShardRow { owner: Some(*id), epoch: *epoch } && is_heir;
                    if is_given {
                        *row = ShardRow { owner: *to, epoch: epoch + 1 };
                    }
                    is_given
                });
                LeaseTold::Given(given.map(|(shard, ..)| *shard).collect())
            }
            LeaseAsk::Evict(shards) => {
                let stuck: Vec<_> = shards.iter().filter(|at| self.stuck.contains(*at)).collect();
                stuck.iter().for_each(|shard| self.stuck.remove(*shard));
                self.evicted += stuck.len() as u64;
                LeaseTold::Evicted(stuck.len() as u64)
            }
            LeaseAsk::Retire(id) => {
                let is_it = |one: &&mut FakeMaster| one.id == *id && one.state != MasterState::Dead;
                for master in self.masters.iter_mut().filter(is_it) {
                    (master.state, master.is.weight) = (MasterState::Draining, 0);
                }
                LeaseTold::Retired
            }
            LeaseAsk::Leave(id) => {
                self.masters.retain(|master| master.id != *id);
                LeaseTold::Left
            }
            LeaseAsk::SetState(name, state) => {
                let is_it = |master: &&mut FakeMaster| {
                    master.is.name == *name && master.state != MasterState::Dead
                };
                let found = self.masters.iter_mut().find(is_it);
                LeaseTold::StateSet(found.map(|master| master.state = *state).is_some())
            }
        }
    }

    fn join(&mut self, id: MasterId, is: &Membership, now: Duration) -> Result<(), JoinRefusal> {
        for master in self.masters.iter_mut().filter(|master| master.expires <= now) {
            if master.is.name == is.name || is.cluster.is_none() || master.is.cluster.is_none() {
                master.state = MasterState::Dead;
            }
        }
        let living = || self.masters.iter().filter(|master| master.state != MasterState::Dead);
        if let Some(master) = living().find(|master| master.is.name == is.name) {
            return Err(JoinRefusal::NameLives(master.expires.saturating_sub(now)));
        }
        let other = |master: &&FakeMaster| is.cluster.is_none() || master.is.cluster.is_none();
        let others: Vec<_> = living().filter(other).map(|master| master.is.name.clone()).collect();
        if !others.is_empty() {
            return Err(JoinRefusal::OtherLives(others));
        }
        let (state, expires) = (MasterState::Up, now + is.lease);
        self.masters.push(FakeMaster { id, is: is.clone(), state, started: now, expires });
        Ok(())
    }

    fn renew(&mut self, id: MasterId, lease: Duration, now: Duration) -> Option<ClusterLook> {
        let mut living = self.masters.iter_mut().filter(|one| one.state != MasterState::Dead);
        living.find(|master| master.id == id)?.expires = now + lease;
        Some(self.look(now))
    }

    pub(super) fn look(&self, now: Duration) -> ClusterLook {
        let row = |master: &FakeMaster| MasterRow {
            id: master.id,
            name: master.is.name.clone(),
            api: master.is.api.clone(),
            version: master.is.version.clone(),
            weight: master.is.weight,
            state: master.state,
            lease_left: master.expires.saturating_sub(now),
            up_for: now - master.started,
        };
        ClusterLook { masters: self.masters.iter().map(row).collect(), shards: self.shards.clone() }
    }

    fn may_get(&self, id: MasterId, now: Duration) -> bool {
        let is_getter = |one: &&FakeMaster| {
            one.is.weight > 0 && one.state != MasterState::Dead && one.expires > now
        };
        let getters = || self.masters.iter().filter(is_getter);
        let all_drain = !getters().any(|one| one.state == MasterState::Up);
        getters().any(|one| one.id == id && (all_drain || one.state == MasterState::Up))
    }

    fn take(&mut self, id: MasterId, shard: Shard, now: Duration) -> Option<(Shard, i64)> {
        if self.stuck.contains(shard) {
            return None;
        }
        let owner = self.shards[shard.index()].owner;
        if let Some(owner) = self.masters.iter_mut().find(|master| Some(master.id) == owner) {
            if owner.expires <= now {
                owner.state = MasterState::Dead;
            }
            if owner.state != MasterState::Dead {
                return None;
            }
        }
        if !self.may_get(id, now) {
            return None;
        }
        let row = &mut self.shards[shard.index()];
        *row = ShardRow { owner: Some(id), epoch: row.epoch + 1 };
        Some((shard, row.epoch))
    }

    /// Whether a write passes the fence.
    pub(super) fn admits(&self, fence: Fence) -> bool {
        let Fence { shard, epoch, master } = fence;
        self.shards[shard.index()] == ShardRow { owner: Some(master), epoch }
    }
}
