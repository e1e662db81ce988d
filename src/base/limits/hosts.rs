//! The bounds of calls to host processes; part of `limits.rs`, with its rules.

use std::time::Duration;

/// Limit: host processes that are connected to a master, beside the connections of other requests;
/// one more is `Busy` (503).
pub const HOSTS_MAX: usize = 16;

/// Limit: names that one host process serves.
pub const HOST_NAMES_MAX: usize = 64;

/// Limit: the name of a call.
pub const HOST_NAME_MAX_BYTES: usize = 64;

/// Limit: calls that a host process may have unanswered; it says how many it wants.
pub const HOST_CREDITS_MAX: usize = 1024;

/// Limit: what a call is called with; more is `too_large`.
pub const HOST_ARGS_MAX_BYTES: usize = 64 * 1024;

/// Limit: what a host process answers; more is an error of the call.
pub const HOST_ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Limit: bytes of calls that wait until a host process reads: as many as its credits allow.
pub const HOST_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// How long a call may take, from when its master takes it.
pub const HOST_DEADLINE: Duration = Duration::from_secs(20);

/// How long a worker waits for what its master says of a call: longer than a call may take.
pub const HOST_ANSWER_WAIT_MAX: Duration = Duration::from_secs(25);

/// Limit: calls of a tenant that are under way; one more is `busy`.
pub const TENANT_HOST_CALLS_MAX: usize = 16;

/// Limit: calls of a tenant a second, after a burst of so many; one more is `busy`.
pub const HOST_CALLS: (u32, u32) = (20, 100);

/// Limit: answers of a host process in a row that no call waits for; one more ends its connection.
pub const HOST_STRAYS_MAX: u32 = 64;
