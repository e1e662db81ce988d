//! The bounds of what tenants publish to those that read their feeds; part of `limits.rs`, with its
//! rules.

use std::time::Duration;

/// Limit: the topic of what a tenant publishes, in bytes; a longer one is refused.
pub const FEED_TOPIC_MAX_BYTES: usize = 64;

/// Limit: the data of what a tenant publishes, as MessagePack; more is refused. A feed is for news,
/// not for files.
pub const FEED_DATA_MAX_BYTES: usize = 16 * 1024;

/// Limit: what one VM publishes a second, with [`FEED_BURST`] saved up; more is an error in the
/// script.
pub const FEED_PER_SECOND: u32 = 50;

/// See [`FEED_PER_SECOND`]: what a tenant's ring holds.
pub const FEED_BURST: u32 = 256;

/// Limit: what a master takes of one tenant a second, after a burst of so many; of more its readers
/// are told that it is lost. No worker of ours sends so much: it keeps to [`FEED_PER_SECOND`],
/// with a new burst when it starts, but a link may bring seconds of it at once.
pub const FEED_TAKEN: (u32, u32) = (2 * FEED_PER_SECOND, 4 * FEED_BURST);

/// Limit: events of a tenant that are kept for readers that come back; older ones go.
pub const FEED_RING_EVENTS: usize = 256;

/// Limit: bytes of their text; older ones go.
pub const FEED_RING_BYTES: usize = 64 * 1024;

/// Limit: events of a tenant that have gone from its ring and are remembered by their numbers, so
/// that a reader that comes back is told how many it lost. Of older ones it is told that it lost
/// some.
pub const FEED_GONE_MAX: usize = 4 * FEED_RING_EVENTS;

/// Limit: bytes of all tenants' events that are kept, with [`FEED_EVENT_BYTES`] for each; the rings
/// go in which nothing was published for longest.
pub const FEED_RINGS_BYTES: usize = 64 * 1024 * 1024;

/// Limit: the same of lines that scripts log; of each tenant's as many are kept as of events that
/// it publishes.
pub const LOG_RINGS_BYTES: usize = 16 * 1024 * 1024;

/// Limit: a line of a script as a worker tells its master of it; a longer one is none of a worker
/// of ours, and is dropped.
pub const SCRIPT_LINE_MAX_BYTES: usize = 2051;

/// Limit: lines of scripts that wait in a worker until its master is told of them, such as while
/// there is no link; of others those that read the log are told how many are missing.
pub const SCRIPT_LINES_WAITING_MAX: usize = 1024;

/// Limit: bytes of them, with [`FEED_EVENT_BYTES`] for each; likewise.
pub const SCRIPT_LINES_WAITING_BYTES: usize = 512 * 1024;

/// Lines that are in one message to the master, about: as it is small, nothing waits for it.
pub const SCRIPT_LINES_TOGETHER_BYTES: usize = 12 * 1024;

/// What an event weighs beside its text.
pub const FEED_EVENT_BYTES: usize = 256;

/// Limit: events that wait for one reader; the oldest go, and it is told how many.
pub const FEED_QUEUE_EVENTS: usize = 1024;

/// Limit: bytes of them; likewise.
pub const FEED_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Limit: tenants of which a reader is told apart how many events it lost; of others together.
pub const FEED_GAPS_MAX: usize = 1024;

/// How many kept events are looked through at once for a reader that came back: what is published
/// meanwhile waits for that long.
pub const FEED_REPLAY_STEP: usize = 256;

/// Limit: readers of feeds at once, each of which is a connection of the internal API beside its
/// others; one more is `Busy` (503).
pub const FEEDS_MAX: usize = 32;

/// Limit: the same of readers that are other masters, which ask for readers of theirs.
pub const FEED_PEERS_MAX: usize = 2 * FEEDS_MAX;

/// Limit: tenants that a reader names, and topics; more is `BadRequest`.
pub const FEED_TENANTS_MAX: usize = 512;

/// A reader to which there is nothing to say is sent a comment this often: below the timeout of any
/// proxy, and what shows that one has gone whose end of the connection did not come.
pub const FEED_KEEP: Duration = Duration::from_secs(15);

/// How often it is looked whether such a reader has ended its connection.
pub const FEED_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Limit: masters whose positions an event's id names; of more the first ones go.
pub const FEED_POSITIONS_MAX: usize = 64;

/// Limit: a line of a feed that is read.
pub const FEED_LINE_MAX_BYTES: usize = 256 * 1024;
