//! Which worker runs a tenant: the one formula that the pool, the ownership check and the
//! tenant-state filter share.
//!
//! Deliberately nothing else: a second copy of it somewhere would sooner or later disagree. Pure;
//! any thread.

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

#[cfg(test)]
mod tests {
    use super::*;

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
