//! Which master should hold which shard: computed by each master alike from what it sees.
//!
//! Rendezvous with a bound: a shard goes to the master with the highest score that has room, and a
//! master has room for its share. So a master that comes or goes moves little more than its own
//! share, and all shares are full. A score is of a master's name, so that a restart brings back the
//! same shards. Pure; any thread.

use sha2::{Digest as _, Sha256};

use crate::base::random;
use crate::store::lease::{MasterId, MasterRow, MasterState, ShardRow};
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
/// there is none with a share. Where all drain they keep what they hold, and share the rest.
pub(super) fn assign<'m>(
    masters: impl Iterator<Item = &'m MasterRow>,
    shards: &[ShardRow],
) -> Vec<Option<MasterId>> {
    let mut masters: Vec<_> =
        masters.filter(|master| master.lives() && master.weight > 0).collect();
    let is_up = |master: &&MasterRow| master.state == MasterState::Up;
    let all_drain = !masters.iter().any(is_up);
    masters.retain(|master| all_drain || is_up(master));
    let stays = |shard: Shard| {
        let owner = shards.get(shard.index()).and_then(|row| row.owner);
        owner.filter(|owner| all_drain && masters.iter().any(|master| master.id == *owner))
    };
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
    Shard::all().map(|shard| stays(shard).or_else(|| best(shard))).collect()
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
                let now = assign(masters.iter(), &[]);
                let most = masters.iter().map(|master| count(&now, master)).max();
                assert_eq!(most, Some(usize::from(SHARDS).div_ceil(many as usize)));
                leaves += moved(&now, &assign(masters[1..].iter(), &[])) * f64::from(many) / 6.0;
                masters.push(master(&format!("host-{run}-new"), 1));
                joins += moved(&now, &assign(masters.iter(), &[])) * f64::from(many + 1) / 6.0;
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
            let owners = assign(masters.iter(), &[]).into_iter();
            owners.map(|owner| owner == Some(again[1].id)).collect::<Vec<_>>()
        };
        assert_eq!(of_a(&masters), of_a(&again));
    }

    #[test]
    fn a_share_follows_the_weight_and_the_state() {
        let mut masters = [master("a", 1), master("b", 3), master("c", 0), master("d", 4)];
        masters[3].state = MasterState::Draining;
        let shares = |masters: &[MasterRow]| {
            let now = assign(masters.iter(), &[]);
            masters.iter().map(|master| count(&now, master)).collect::<Vec<_>>()
        };
        let shares_now = shares(&masters);
        assert_eq!(shares_now.iter().sum::<usize>(), usize::from(SHARDS));
        assert!(shares_now[0] <= 128 && shares_now[1] <= 382 && shares_now[2..] == [0, 0]);
        masters[1].lease_left = Duration::ZERO;
        assert_eq!(shares(&masters), [509, 0, 0, 0]);
        assert_eq!(assign([].iter(), &[]), vec![None; usize::from(SHARDS)]);
    }

    #[test]
    fn where_all_drain_they_keep_what_they_hold_and_share_the_rest() {
        let mut masters = [master("a", 1), master("b", 1), master("gone", 1), master("ends", 0)];
        masters.iter_mut().for_each(|master| master.state = MasterState::Draining);
        masters[2].state = MasterState::Dead;
        let [a, b, gone, ends] = masters.each_ref().map(|master| master.id);
        let held = |number| match number % 8 {
            0..3 => Some(a),
            3 => Some(gone),
            4 => Some(ends),
            _ => None,
        };
        let row = |number| ShardRow { owner: held(number), epoch: 1 };
        let shards: Vec<_> = (0..SHARDS).map(row).collect();
        let now = assign(masters.iter(), &shards);
        let is_kept =
            |(row, now): (&ShardRow, &Option<MasterId>)| row.owner != Some(a) || *now == Some(a);
        assert!(shards.iter().zip(&now).all(is_kept));
        let (of_a, of_b) = (count(&now, &masters[0]), count(&now, &masters[1]));
        assert!(of_a + of_b == 509 && of_b > 100, "{of_a} and {of_b}");
        assert!(!now.contains(&Some(gone)) && !now.contains(&Some(ends)) && now.contains(&Some(b)));
        masters[1].state = MasterState::Up;
        assert_eq!(count(&assign(masters.iter(), &shards), &masters[1]), 509);
    }
}
