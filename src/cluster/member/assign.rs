//! Which master should hold which shard: computed by each master alike from what it sees.
//!
//! Rendezvous with a bound: a shard goes to the master with the highest score that has room, and a
//! master has room for its share. So a master that comes or goes moves little more than its own
//! share, and all shares are full. A score is of a master's name, so that a restart brings back the
//! same shards. Pure; any thread.

use sha2::{Digest as _, Sha256};

use crate::base::random;
use crate::store::lease::{MasterId, MasterRow, MasterState};
use crate::wire::data::sharding::{SHARDS, Shard};

/// What makes splitmix64 of its finalizer.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix64(number: u64) -> u64 {
    random::mix(number.wrapping_add(GOLDEN))
}

/// A master that shards go to.
struct Candidate {
    id: MasterId,
    key: u64,
    room: u64,
}

fn key(name: &str) -> u64 {
    let hash = Sha256::digest(name.as_bytes());
    hash.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// The master of each shard, by the shard's number, among those that live and are up; `None` where
/// there is none with a share.
pub(super) fn assign<'m>(masters: impl Iterator<Item = &'m MasterRow>) -> Vec<Option<MasterId>> {
    let masters: Vec<_> =
        masters.filter(|master| master.lives() && master.state == MasterState::Up).collect();
    let weights: u64 = masters.iter().map(|master| u64::from(master.weight)).sum();
    let room = |master: &MasterRow| {
        (u64::from(SHARDS) * u64::from(master.weight)).div_ceil(weights.max(1))
    };
    let candidate = |master: &&MasterRow| Candidate {
        id: master.id,
        key: key(&master.name),
        room: room(master),
    };
    let mut candidates: Vec<_> = masters.iter().map(candidate).collect();
    let mut best = |shard: Shard| {
        let salt = mix64(u64::from(shard.number()));
        let with_room = candidates.iter_mut().filter(|candidate| candidate.room > 0);
        let best = with_room.max_by_key(|candidate| (mix64(candidate.key ^ salt), candidate.id))?;
        best.room -= 1;
        Some(best.id)
    };
    Shard::all().map(&mut best).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn master(name: &str, weight: u32) -> MasterRow {
        MasterRow {
            id: MasterId::random(),
            name: name.to_owned(),
            api: String::new(),
            version: String::new(),
            weight,
            state: MasterState::Up,
            lease_left: Duration::from_secs(1),
            up_for: Duration::ZERO,
        }
    }

    fn count(assigned: &[Option<MasterId>], master: &MasterRow) -> usize {
        assigned.iter().filter(|owner| **owner == Some(master.id)).count()
    }

    fn moved(before: &[Option<MasterId>], after: &[Option<MasterId>]) -> f64 {
        let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
        moved as f64 / f64::from(SHARDS)
    }

    #[test]
    fn the_scores_are_those_of_the_design() {
        assert_eq!(key("host-0-0"), 0xd238_82fb_fa47_a8e8);
        assert_eq!(mix64(508), 0x2416_484f_d3b7_1543);
    }

    #[test]
    fn shares_are_full_and_little_moves() {
        for many in [2_u32, 3, 5, 10] {
            let (mut joins, mut leaves) = (0.0, 0.0);
            for run in 0..6 {
                let mut masters: Vec<_> =
                    (0..many).map(|at| master(&format!("host-{run}-{at}"), 1)).collect();
                let now = assign(masters.iter());
                let most = masters.iter().map(|master| count(&now, master)).max();
                assert_eq!(most, Some(usize::from(SHARDS).div_ceil(many as usize)));
                leaves += moved(&now, &assign(masters[1..].iter())) * f64::from(many) / 6.0;
                masters.push(master(&format!("host-{run}-new"), 1));
                joins += moved(&now, &assign(masters.iter())) * f64::from(many + 1) / 6.0;
            }
            assert!((1.0..1.3).contains(&joins), "{many} masters and one more: {joins}");
            assert!((0.99..1.3).contains(&leaves), "{many} masters and one less: {leaves}");
        }
    }

    #[test]
    fn a_restart_brings_back_the_same_shards() {
        let masters = [master("a", 1), master("b", 1)];
        let again = [master("b", 1), masters[0].clone()];
        let of_a = |masters: &[MasterRow]| {
            let owners = assign(masters.iter()).into_iter();
            owners.map(|owner| owner == Some(again[1].id)).collect::<Vec<_>>()
        };
        assert_eq!(of_a(&masters), of_a(&again));
    }

    #[test]
    fn a_share_follows_the_weight_and_the_state() {
        let mut masters = [master("a", 1), master("b", 3), master("c", 0), master("d", 4)];
        masters[3].state = MasterState::Draining;
        let shares = |masters: &[MasterRow]| {
            let now = assign(masters.iter());
            masters.iter().map(|master| count(&now, master)).collect::<Vec<_>>()
        };
        let shares_now = shares(&masters);
        assert_eq!(shares_now.iter().sum::<usize>(), usize::from(SHARDS));
        assert!(shares_now[0] <= 128 && shares_now[1] <= 382 && shares_now[2..] == [0, 0]);
        masters[1].lease_left = Duration::ZERO;
        assert_eq!(shares(&masters), [509, 0, 0, 0]);
        assert_eq!(assign([].iter()), vec![None; usize::from(SHARDS)]);
    }
}
