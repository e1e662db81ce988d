//! How much each tenant holds of a bound that all tenants have in common. Pure.
//!
//! The rule: a tenant may hold as much as it leaves free for the others. One that is alone holds a
//! half at most, two hold a third each; and however many take all they can get, a tenant that holds
//! nothing finds room for something.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::TenantId;

/// A map by ids: of requests, of tenants.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Hashes ids. Requests' are made at random, and tenants' are Discord's: to mix their bits is
/// enough.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The golden ratio, as Fibonacci hashing has it. The map uses the upper bits and the lower
        // ones.
        let mixed = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    // What kind of tenant it is.
    fn write_isize(&mut self, kind: isize) {
        self.write_u64(kind as u64);
    }
}

/// What tenants hold of a number of bytes, each in so many pieces.
#[derive(Debug, Default)]
pub struct Shares {
    total: HeldShare,
    held: IdMap<TenantId, HeldShare>,
}

/// What one holds, or all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeldShare {
    /// How many pieces.
    pub pieces: usize,
    /// What they have together.
    pub bytes: usize,
}

impl Shares {
    /// Whether a tenant may hold one more piece of so many bytes, out of `max` bytes.
    pub fn has_room(&self, tenant: TenantId, bytes: usize, max: usize) -> bool {
        // No tenant holds more than all: mostly no look at what this one does is needed.
        bytes == 0
            || 2 * (self.total.bytes + bytes) <= max
            || self.held(tenant).bytes + self.total.bytes + 2 * bytes <= max
    }

    /// Counts a piece that a tenant holds from now on; without an owner, only the whole grows.
    pub fn add(&mut self, tenant: Option<TenantId>, bytes: usize) {
        self.total.add(bytes);
        if let Some(tenant) = tenant {
            self.held.entry(tenant).or_default().add(bytes);
        }
    }

    /// A tenant, or no owner, holds a piece less, of those that were counted with [`Shares::add`].
    pub fn remove(&mut self, tenant: Option<TenantId>, bytes: usize) {
        let Some(tenant) = tenant else { return self.total.remove(bytes) };
        let Some(held) = self.held.get_mut(&tenant) else { return };
        held.remove(bytes);
        self.total.remove(bytes);
        if held.pieces == 0 {
            self.held.remove(&tenant);
        }
    }

    /// No owner holds anything any more.
    pub fn clear(&mut self) {
        self.total = HeldShare::default();
        self.held.clear();
    }

    /// What a tenant holds.
    pub fn held(&self, tenant: TenantId) -> HeldShare {
        self.held.get(&tenant).copied().unwrap_or_default()
    }

    /// Those that hold something.
    pub fn holders(&self) -> impl Iterator<Item = TenantId> + use<'_> {
        self.held.keys().copied()
    }

    /// What all hold together.
    pub fn total(&self) -> HeldShare {
        self.total
    }
}

impl HeldShare {
    fn add(&mut self, bytes: usize) {
        self.pieces += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.pieces -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes pieces as long as there is room.
    fn take_all(shares: &mut Shares, tenant: TenantId, piece: usize) -> usize {
        let mut taken = 0;
        while shares.has_room(tenant, piece, 1000) {
            shares.add(Some(tenant), piece);
            taken += piece;
        }
        taken
    }

    #[test]
    fn a_tenant_holds_no_more_than_it_leaves_to_the_others() {
        let mut shares = Shares::default();
        let tenant = TenantId::Guild;
        assert_eq!(take_all(&mut shares, tenant(1), 10), 500);
        assert_eq!(take_all(&mut shares, tenant(2), 10), 250);
        assert!(shares.has_room(tenant(3), 100, 1000), "however greedy the others are");
        // A piece without an owner counts for all.
        shares.add(None, 200);
        assert!(!shares.has_room(tenant(3), 100, 1000));
        (0..50).for_each(|_| shares.remove(Some(tenant(1)), 10));
        assert_eq!(shares.total(), HeldShare { pieces: 26, bytes: 450 });
        shares.remove(None, 200);
        shares.add(None, 200);
        assert!(!shares.held.contains_key(&tenant(1)), "nothing is kept of one that holds nothing");
        assert_eq!(
            take_all(&mut shares, TenantId::User(1), 10),
            270,
            "a user of that number is another tenant"
        );
        shares.clear();
        assert_eq!((shares.total(), shares.held.len()), (HeldShare::default(), 0));
    }
}
