//! What this master has to do with each shard, and which of them that makes served, held, to be
//! loaded or to be left.

use crate::wire::data::sharding::{SHARDS, Shard, ShardSet};

/// What this master has to do with a shard. The number is the epoch at which it holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnShard {
    /// Nothing.
    Not,
    /// Its tenants are to be loaded.
    Held(i64),
    /// Its tenants are being loaded.
    Loading(i64),
    /// Its jobs run here.
    Served(i64),
    /// What is under way of it is answered, and then it is handed over.
    Draining(i64),
    /// Nothing of it runs here: it is to be handed over.
    Drained(i64),
    /// It was lost while its tenants were being loaded: it is left after that.
    LostLoading,
    /// It was lost: what runs of it is to be ended.
    Lost,
    /// It was lost: what runs of it is being ended.
    Leaving,
}

impl OwnShard {
    /// The epoch, if it is held.
    pub(super) fn epoch(self) -> Option<i64> {
        match self {
            OwnShard::Held(epoch)
            | OwnShard::Loading(epoch)
            | OwnShard::Served(epoch)
            | OwnShard::Draining(epoch)
            | OwnShard::Drained(epoch) => Some(epoch),
            OwnShard::Not | OwnShard::LostLoading | OwnShard::Lost | OwnShard::Leaving => None,
        }
    }

    /// What it is once the database says that it is held at this epoch, or not at all. A shard that
    /// is being left is not held again before that is done: what is under way of it must not get
    /// a new epoch to write with.
    pub(super) fn seen(self, epoch: Option<i64>) -> Self {
        let anew = epoch.map_or(OwnShard::Not, OwnShard::Held);
        match self {
            _ if self.epoch().is_some() && self.epoch() == epoch => self,
            OwnShard::Not | OwnShard::Held(_) | OwnShard::Drained(_) => anew,
            OwnShard::Loading(_) | OwnShard::LostLoading => OwnShard::LostLoading,
            OwnShard::Served(_) | OwnShard::Lost => OwnShard::Lost,
            OwnShard::Draining(_) | OwnShard::Leaving => OwnShard::Leaving,
        }
    }
}

/// Each shard.
#[derive(Debug)]
pub(super) struct OwnShards(Vec<OwnShard>);

impl OwnShards {
    pub(super) fn new() -> Self {
        Self(vec![OwnShard::Not; usize::from(SHARDS)])
    }

    pub(super) fn get(&self, shard: Shard) -> OwnShard {
        self.0[shard.index()]
    }

    pub(super) fn set(&mut self, shard: Shard, own: OwnShard) {
        self.0[shard.index()] = own;
    }

    /// Those of which this holds.
    pub(super) fn which(&self, is_one: impl Fn(OwnShard) -> bool) -> ShardSet {
        Shard::all().filter(|shard| is_one(self.get(*shard))).collect()
    }

    /// Whether there is one of which this holds.
    pub(super) fn any(&self, is_one: impl Fn(OwnShard) -> bool) -> bool {
        self.0.iter().any(|own| is_one(*own))
    }

    /// How many there are of which this holds.
    pub(super) fn count(&self, is_one: impl Fn(OwnShard) -> bool) -> usize {
        self.0.iter().filter(|own| is_one(**own)).count()
    }

    /// Changes those of a set.
    pub(super) fn change(&mut self, shards: &ShardSet, change: impl Fn(OwnShard) -> OwnShard) {
        shards.iter().for_each(|shard| self.set(shard, change(self.get(shard))));
    }

    /// What is held, with its epochs.
    pub(super) fn held(&self) -> Vec<(Shard, i64)> {
        Shard::all().filter_map(|shard| Some((shard, self.get(shard).epoch()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::OwnShard::*;

    #[test]
    fn a_shard_that_is_being_left_is_not_held_before_that_is_done() {
        for epoch in [None, Some(2)] {
            assert_eq!([Served(1), Lost].map(|own| own.seen(epoch)), [Lost; 2]);
            assert_eq!([Draining(1), Leaving].map(|own| own.seen(epoch)), [Leaving; 2]);
            assert_eq!([Loading(1), LostLoading].map(|own| own.seen(epoch)), [LostLoading; 2]);
        }
        // Nothing of these runs.
        for own in [Not, Held(1), Drained(1)] {
            assert_eq!((own.seen(None), own.seen(Some(2))), (Not, Held(2)));
        }
        for own in [Held(1), Loading(1), Served(1), Draining(1), Drained(1)] {
            assert_eq!(own.seen(Some(1)), own);
        }
    }
}
