//! The bounds of broadcasts; part of `limits.rs`, with its rules.

use std::time::Duration;

/// Limit: tenants a second that a broadcast reaches on each worker: a fifth of a processor at a
/// millisecond a handler, so that others hardly notice. A request may ask for fewer.
pub const BROADCAST_RATE_MAX: u32 = 200;

/// What a broadcast that was held up, by a processor or a query, makes up for at once.
pub const BROADCAST_CATCH_UP: Duration = Duration::from_millis(50);

/// Limit: events of a broadcast that have no answer; then the next ones wait. More than its rate
/// needs, unless handlers take their time.
pub const BROADCAST_UNDER_WAY_MAX: usize = 256;

/// Limit: their bytes, in all; a broadcast whose event is larger sends one after the other.
pub const BROADCAST_UNDER_WAY_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Limit: how often an event of a broadcast is tried whose tenant has no room, a second apart.
pub const BROADCAST_ATTEMPTS_MAX: u32 = 3;

/// Tenants that are asked for at once, whether they have a VM: shortly before it is their turn, as
/// VMs come and go.
pub const BROADCAST_LOOK_AHEAD: usize = 512;

/// How long the workers may take to say so; one that takes longer has none.
pub const BROADCAST_LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long another master may take to begin its part of a broadcast, to stop it or to tell of it.
pub const BROADCAST_PEER_TIMEOUT: Duration = Duration::from_secs(5);
