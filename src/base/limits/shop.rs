//! The bounds of updates of the shop; part of `limits.rs`, with its rules.

use std::time::Duration;

/// Limit: changes that a store in memory or in a file notes for its master, and that a look at the
/// notes of a database answers; a master that missed more tells its watchers to look themselves.
pub const SHOP_NOTES_MAX: usize = 10_000;

/// Limit: patterns that a tenant watches.
pub const SHOP_PATTERNS_MAX: usize = 16;

/// How often a master looks for changes of other masters. Its own it looks for at once.
pub const SHOP_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Limit: entries of which a tenant is yet to be told; one more, and it is told to look itself.
pub const SHOP_PENDING_MAX: usize = 1000;

/// Limit: the same of all tenants of a master.
pub const SHOP_PENDING_TOTAL_MAX: usize = 200_000;

/// Tenants that a master tells something at a time, as far as that began within
/// [`SHOP_PLACE_FOR`].
pub const SHOP_PLACES: usize = 64;

/// How long an update whose handler has not ended keeps others waiting.
pub const SHOP_PLACE_FOR: Duration = Duration::from_secs(1);

/// Limit: tenants that a master tells something at a time; then the next ones wait.
pub const SHOP_TELLING_MAX: usize = 4096;

/// How long an update may wait for its worker before it is tried anew.
pub const SHOP_DEADLINE: Duration = Duration::from_secs(10);

/// The first pause before an update that did not arrive is tried again; each further one is twice
/// as long.
pub const SHOP_RETRY_MIN: Duration = Duration::from_millis(250);

/// The longest such pause: that of a tenant that is banned, for example.
pub const SHOP_RETRY_MAX: Duration = Duration::from_secs(60);

/// How often an update is told whose handler may have run; then it is given up.
pub const SHOP_TELLS_MAX: u32 = 5;
