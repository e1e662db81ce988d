//! The bounds of messages between tenants; part of `limits.rs`, with its rules.

use std::time::Duration;

/// Limit: the data of a message: a hint or a small record, as nothing of it is kept; more is
/// `too_large`.
pub const TENANT_MESSAGE_MAX_BYTES: usize = 16 * 1024;

/// Limit: the body of a request of the internal API with a message: a byte of its data may take six
/// as JSON text; larger is 413 before anything is read.
pub const MESSAGE_BODY_MAX_BYTES: usize = 8 * TENANT_MESSAGE_MAX_BYTES;

/// Limit: the topic of a message, and a prefix of topics in a rule.
pub const TENANT_MESSAGE_TOPIC_MAX_BYTES: usize = 64;

/// Limit: how many messages in a row one may lead to, as each is sent by the handler of the one
/// before; one more is `too_deep`. Two templates that answer each other would never end.
pub const TENANT_MESSAGE_DEPTH_MAX: u64 = 4;

/// Limit: messages that a tenant sends a second, after a burst of so many; one more is `busy`.
pub const TENANT_MESSAGES_SENT: (u32, u32) = (20, 100);

/// Limit: messages that a tenant receives a second, after a burst of so many, of all senders;
/// one more is `busy`.
pub const TENANT_MESSAGES_RECEIVED: (u32, u32) = (100, 100);

/// Limit: tenants of which one kind of rate is remembered, in some 9 MiB. One more takes the place
/// of those that have their whole bursts; when these are few, all are forgotten and begin with
/// theirs.
pub const RATES_MAX: usize = 65_536;

/// Limit: what an operator may let a tenant have a second, and at once.
pub const TENANT_RATE_MAX: u32 = 1_000_000;

/// How often it is said of a tenant that more was refused than its rate lets it have.
pub const RATE_TOLD_EVERY: Duration = Duration::from_secs(600);

/// Limit: reads of a tenant's template by its worker, and reads and writes of its last errors,
/// a second and in a burst, where operators bound its operations on records: these do not count
/// among those, as a tenant at its bound would run no more and its author would not learn why.
pub const TENANT_OWN_RECORDS: (u32, u32) = (20, 200);

/// Limit: messages and events of feeds that one worker sends a second for all of its tenants, after
/// a burst of so many: a fifth of a processor of the master. One more message is `busy`, and of one
/// more event its readers are told that it is lost.
pub const WORKER_SAYS: (u32, u32) = (10_000, 10_000);

/// Limit: messages of one sender that wait in its master; one more is `busy`. More than a burst,
/// so that it is another master that keeps them waiting.
pub const TENANT_MESSAGES_WAITING_MAX: usize = 128;

/// Limit: messages of all senders that wait in a master, 64 MiB of data; one more is `busy`.
pub const MESSAGES_WAITING_MAX: usize = 4096;

/// Threads of a master that bring messages to their receivers. What they wait for is the store and
/// other masters; no tenant has more than three quarters of them.
pub const MESSAGE_THREADS: usize = 8;

/// How long such a thread stays without work.
pub const MESSAGE_THREAD_IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a message may take to its receiver's queue: the receiver's master may have to be found.
pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a worker waits for the answer of its master: longer than a message may take.
pub const MESSAGE_ANSWER_MAX: Duration = Duration::from_secs(8);

/// Limit: tenants that a receiver allows.
pub const MESSAGE_RULES_MAX: usize = 16;

/// Limit: prefixes of topics for each of them.
pub const MESSAGE_RULE_TOPICS_MAX: usize = 16;

/// Limit: the rules of receivers that a master keeps; one more empties it.
pub const MESSAGE_RULES_CACHE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// How long they are used before they are read again. A write forgets them at once; one whose
/// outcome is not known may take effect after that.
pub const MESSAGE_RULES_AGE_MAX: Duration = Duration::from_secs(30);
