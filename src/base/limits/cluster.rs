//! Bounds of several masters over one database.

use std::time::Duration;

/// How long before its lease ends a master begins nothing any more: others may take its shards
/// after that. Less than the shortest lease.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// A master that loses its lease twice within this time waits for [`CLUSTER_LOSSES_PAUSE`] before
/// it joins again: a disk that is slow for a while would have all shards go to and fro.
pub const CLUSTER_LOSSES_WINDOW: Duration = Duration::from_secs(60);

/// See [`CLUSTER_LOSSES_WINDOW`].
pub const CLUSTER_LOSSES_PAUSE: Duration = Duration::from_secs(30);

/// Since when a master has to be there before others give it shards for balance: one that comes and
/// goes gets none.
pub const CLUSTER_BALANCE_AFTER: Duration = Duration::from_secs(10);

/// Limit: shards that one master hands over at once for balance; the next ones follow.
pub const CLUSTER_BALANCE_MAX: usize = 64;

/// Limit: changes of a master's state that wait to be asked for; one more is refused.
pub const CLUSTER_WISHES_MAX: usize = 16;

/// Limit: how long the coordination thread waits for an answer of the database; after it, whether
/// it did what it was asked is not known, and another connection is asked.
pub const CLUSTER_ANSWER_MAX: Duration = Duration::from_millis(1500);

/// Limit: connections, each with a thread, that were left in a question; with one more the master
/// gives up, as nothing of them ends.
pub const CLUSTER_HELPERS_LEFT_MAX: usize = 3;

/// Limit: notes that wait for the coordination thread, which takes them as they come; one more
/// waits with its sender.
pub const CLUSTER_NOTES_MAX: usize = 64;
