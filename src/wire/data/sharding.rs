//! Which worker runs a tenant, and which shard it is of: the formulas that the pool, the ownership
//! check, the tenant-state filter and the masters of a cluster share.
//!
//! Deliberately nothing else: a second copy of them somewhere would sooner or later disagree. Pure;
//! any thread.

use std::fmt;

use crate::wire::data::TenantId;

/// The number of the worker that a tenant belongs to, out of `workers` (protocol.md, "Routing").
///
/// The low 22 bits of a snowflake count within a millisecond and name the machine that made it, so
/// they say nothing about the tenant; the bits above are a time, which spreads tenants evenly.
/// Guilds and users are alike.
///
/// # Panics
/// `workers` is 0, which no configuration allows.
pub fn worker_for(tenant: TenantId, workers: usize) -> usize {
    // A usize has 64 bits on everything we run on, and a remainder is below `workers` in any case.
    ((tenant.snowflake() >> 22) % workers as u64) as usize
}

/// How many shards there are, for ever: a prime, so that a shard's tenants spread over any number
/// of workers, which are counted by the same bits.
pub const SHARDS: u16 = 509;

/// A share of all tenants: what a master holds, and hands over, as a whole.
///
/// Invariant: below [`SHARDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u16);

impl Shard {
    /// The shard of a tenant.
    pub fn of(tenant: TenantId) -> Self {
        // A remainder is below SHARDS.
        Self(((tenant.snowflake() >> 22) % u64::from(SHARDS)) as u16)
    }

    /// A shard by its number, if there is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Its place in a list of all shards.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its word among those of a [`ShardSet`], and its bit there.
    pub fn bit(self) -> (usize, u64) {
        (self.index() / 64, 1 << (self.index() % 64))
    }

    /// All shards, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const WORDS: usize = (SHARDS as usize).div_ceil(64);

/// Some of the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet([u64; WORDS]);

impl ShardSet {
    /// All shards.
    pub fn full() -> Self {
        Shard::all().collect()
    }

    /// Whether a shard is among them.
    pub fn contains(&self, shard: Shard) -> bool {
        let (word, bit) = shard.bit();
        self.0[word] & bit != 0
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: Shard) {
        let (word, bit) = shard.bit();
        self.0[word] |= bit;
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: Shard) {
        let (word, bit) = shard.bit();
        self.0[word] &= !bit;
    }

    /// These and the others.
    pub fn with(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | others.0[word]))
    }

    /// These but for the others.
    pub fn without(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !others.0[word]))
    }

    /// As bits: the shard n is the bit n % 64 of the word n / 64.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// The set of these bits, if all of them are shards and there is a word for each.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let set = Self(words.try_into().ok()?);
        set.without(&Self::full()).is_empty().then_some(set)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The shards, in order.
    pub fn iter(&self) -> impl Iterator<Item = Shard> + use<'_> {
        Shard::all().filter(|shard| self.contains(*shard))
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_holds_what_was_put_in() {
        let mut set: ShardSet = [0, 63, 64, 508].into_iter().filter_map(Shard::new).collect();
        assert_eq!((set.len(), set.is_empty()), (4, false));
        let numbers = |set: &ShardSet| set.iter().map(Shard::number).collect::<Vec<_>>();
        assert_eq!(numbers(&set), [0, 63, 64, 508]);
        Shard::new(64).into_iter().for_each(|shard| set.remove(shard));
        assert_eq!(numbers(&set), [0, 63, 508]);
        assert_eq!((ShardSet::full().len(), Shard::new(SHARDS)), (509, None));
        let others: ShardSet = [63, 65].into_iter().filter_map(Shard::new).collect();
        assert_eq!(numbers(&set.with(&others)), [0, 63, 65, 508]);
        assert_eq!(numbers(&set.without(&others)), [0, 508]);
        assert_eq!(ShardSet::from_words(set.words()), Some(set));
        for words in [&[0; 7][..], &[0; 9], &[0, 0, 0, 0, 0, 0, 0, 1 << 61]] {
            assert_eq!(ShardSet::from_words(words), None, "{words:?}");
        }
    }

    #[test]
    fn the_shard_is_that_of_the_design() {
        for (snowflake, shard) in [(0, 0), (1 << 22, 1), (509 << 22, 0), (u64::MAX - 1, 93)] {
            assert_eq!(Shard::of(TenantId::User(snowflake)).number(), shard, "{snowflake}");
        }
    }

    #[test]
    fn guilds_and_users_of_one_snowflake_share_a_worker() {
        for snowflake in [0, 1 << 22, 175_928_847_299_117_063, u64::MAX - 1] {
            for workers in 1..9 {
                let worker = worker_for(TenantId::Guild(snowflake), workers);
                assert_eq!(worker, worker_for(TenantId::User(snowflake), workers));
                assert_eq!(worker as u64, (snowflake >> 22) % workers as u64);
            }
        }
    }

    #[test]
    fn the_low_22_bits_do_not_matter() {
        let tenant = TenantId::Guild(175_928_847_299_117_063);
        let sibling = TenantId::Guild(175_928_847_299_117_063 ^ ((1 << 22) - 1));
        assert_eq!(worker_for(tenant, 7), worker_for(sibling, 7));
        assert_eq!(worker_for(tenant, 2), 0, "a known tenant stays where every master puts it");
    }
}
