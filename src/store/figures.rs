//! Figures of a store's inside, beyond how long its operations take: queues, commits,
//! connections.

use crate::base::metrics::Buckets;

/// Figures of a store; a store without an inside, such as `memory:`, has none of them.
#[derive(Debug, Default)]
pub struct StoreFigures {
    /// What waits for the store's threads.
    pub queue: Option<QueueFigures>,
    /// Of the embedded store.
    pub embedded: Option<EmbeddedFigures>,
    /// Of a store in a database server.
    pub server: Option<ServerFigures>,
}

/// What waits now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Operations.
    pub operations: usize,
    /// Bytes that operations brought which wait or are under way.
    pub bytes: usize,
}

/// The commits of the embedded store.
#[derive(Debug, Default)]
pub struct EmbeddedFigures {
    /// How long commits took, each until it was synced; also those that failed.
    pub commits: Buckets,
    /// Operations in these commits.
    pub operations: u64,
    /// Commits that failed.
    pub failures: u64,
    /// How often the file was opened anew, after a fault.
    pub reopens: u64,
}

/// The connections to a database server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerFigures {
    /// Connections now.
    pub connected: usize,
    /// Connections that were made.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
}
