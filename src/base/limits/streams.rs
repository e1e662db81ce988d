//! Bounds of streams of events, and of the keys of events.

use std::time::Duration;

/// Limit: streams of a master, beside the connections of other requests; one more is `Busy` (503).
pub const STREAMS_MAX: usize = 16;

/// Limit: events of a stream that are unanswered; one more is answered `busy`. Some milliseconds of
/// what two busy processors do, so that the way back and forth costs nothing.
pub const STREAM_CREDITS: usize = 2048;

/// Limit: bytes of events that a stream holds until their tenants' workers have room; one more is
/// answered `busy`.
pub const STREAM_HELD_BYTES: usize = 24 * 1024 * 1024;

/// Limit: bytes of answers that wait until the caller reads; one without room is an error instead.
pub const STREAM_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// How often a stream's caller is pinged.
pub const STREAM_PING_EVERY: Duration = Duration::from_secs(15);

/// A caller from which nothing has come for so long, pongs included, is gone.
pub const STREAM_SILENCE_MAX: Duration = Duration::from_secs(45);

/// The highest rate of a caller that a master can be given; one that needs no bound gives none.
pub const CALLER_RATE_MAX: usize = 1_000_000;

/// Limit: events of streams, and of requests with many, that wait for other masters, which have
/// their tenants; one more waits in its stream, or its request.
pub const EVENTS_TO_FORWARD_MAX: usize = 4096;

/// Limit: bytes of these events. A tenant leaves others as much as it has, of both.
pub const EVENTS_TO_FORWARD_BYTES: usize = 64 * 1024 * 1024;

/// Threads of a master that forward them, each one event at a time.
pub const EVENT_FORWARD_THREADS: usize = 16;

/// How long such a thread stays without work.
pub const EVENT_FORWARD_IDLE_MAX: Duration = Duration::from_secs(30);

/// How often an event that found no room is offered again.
pub const EVENT_RETRY_EVERY: Duration = Duration::from_millis(20);

/// Limit: a key of an event.
pub const EVENT_KEY_MAX_BYTES: usize = 128;

/// Limit: keys that are remembered of a caller; the oldest is forgotten for one more.
pub const EVENT_KEYS_MAX: usize = 100_000;

/// How long a key is remembered.
pub const EVENT_KEY_KEPT: Duration = Duration::from_secs(300);

/// Limit: callers whose keys are remembered at once; an event with a key of one more is `busy`.
pub const EVENT_KEY_CALLERS_MAX: usize = 64;
