//! Every bound of the system in one place: a number, why that number, and what happens when it is
//! reached.
//!
//! Deliberately not configuration: what an operator may change has an option in `config.rs` whose
//! default is taken from here. Pure data without an owner, read by every thread.

use std::time::Duration;

mod broadcast;
mod cluster;
mod feeds;
mod global_kv;
mod hosts;
#[cfg(feature = "luau")]
mod luau;
mod messages;
mod peers;
mod shop;
mod streams;
mod timers;

pub use broadcast::*;
pub use cluster::*;
pub use feeds::*;
pub use global_kv::*;
pub use hosts::*;
#[cfg(feature = "luau")]
pub use luau::*;
pub use messages::*;
pub use peers::*;
pub use shop::*;
pub use streams::*;
pub use timers::*;

/// Limit: one WebSocket message. A large guild's GUILD_CREATE is several MiB; the protocol fixes 16
/// MiB. A larger one is refused before it is sent, and a peer that sends one loses the link.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a message is larger by, at most, than the name, author and data of the event in it:
/// variants, tenant, request id, heads. So an event that is too large is refused where it comes in,
/// the same in both modes.
pub const EVENT_ENVELOPE_BYTES: usize = 128;

/// Limit: the body of a request to `/db/*` (protocol.md); larger is 413 before anything is read.
pub const DB_BODY_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Limit: the body of a request to the internal API: an event of `MESSAGE_MAX_BYTES`, written as
/// JSON text, which is at most about twice its MessagePack form; larger is 413 before anything is
/// read.
pub const API_BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Limit: bodies of the internal API in memory at once: eight of the largest; one more is `Busy`
/// (503) before it is read.
pub const API_BODIES_MAX_BYTES: u64 = 8 * API_BODY_MAX_BYTES as u64;

/// Limit: the body of a request of the internal API to the database: what fits into one of
/// [`DB_BODY_MAX_BYTES`], written as JSON text; larger is 413 before anything is read.
pub const API_DB_BODY_MAX_BYTES: usize = 2 * DB_BODY_MAX_BYTES;

/// Limit: an answer of the internal API that a command reads: the largest Find or result as JSON
/// text, of which a byte may take six.
pub const CLIENT_REPLY_MAX_BYTES: u64 = 6 * MESSAGE_MAX_BYTES as u64 + 1024 * 1024;

/// Limit: errors of a tenant that are kept in its records: what an author looks through. Older ones
/// go.
pub const ERROR_RECORDS_KEPT: usize = 20;

/// A tenant is warned when of its quota, its memory or an event's time only one in so many parts is
/// left.
pub const WARNED_LEFT_SHARE: u32 = 5;

/// A quota of fewer records is not warned of: the warning is itself in a record of the tenant's.
pub const WARNED_QUOTA_RECORDS: u64 = 100;

/// The same for a quota of fewer bytes.
pub const WARNED_QUOTA_BYTES: u64 = 64 * 1024;

/// How long a tenant is not warned of the same limit again.
pub const WARNED_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Limit: items of a list in a body of the internal API (scopes, events, ids), as each takes more
/// memory than its text; more is `BadRequest`. What a list may hold in fact is a rule of the store.
pub const API_LIST_MAX: usize = 16_384;

/// Limit: large answers of the internal API in memory at once: sixteen of the largest Find; one
/// more is `Busy` (503) before it is begun.
pub const API_ANSWERS_MAX_BYTES: u64 = 16 * KV_FIND_MAX_BYTES as u64;

/// Limit: a tenant's share of the internal API's connections (64, [`TENANT_RUNNING_MAX`]), of
/// [`API_BODIES_MAX_BYTES`] and of [`API_ANSWERS_MAX_BYTES`]: a quarter, by its dispatches and
/// scripts. One more is `Busy` (503) for that tenant only. What staff does to a tenant takes
/// nothing of it: a ban is for the tenant that fills its share.
pub const API_TENANT_SHARE: u64 = 4;

/// Limit: of one request with many events so many are under way at once; the next ones wait.
pub const API_EVENTS_UNDER_WAY: usize = 128;

/// Bodies and answers of the internal API up to this size always find room: they have 4 MiB in all
/// connections together.
pub const API_SMALL_BYTES: u64 = 16 * 1024;

/// Connections of the internal API that requests which may wait for a tenant leave free, so that
/// however many callers wait, `/livez` and `/readyz` answer; a caller beyond that is `Busy` (503)
/// at once.
pub const API_RESERVED_CONNECTIONS: usize = 16;

/// Limit: answers of `/metrics` under way at once, of which each may have a megabyte with many
/// workers; one more is `Busy` (503). Two Prometheus servers and an operator that looks are served.
pub const METRICS_SCRAPES_MAX: usize = 4;

/// Limit: answers of `/i/status` under way at once, of which each may have a megabyte with many
/// workers; one more is `Busy` (503). Each takes milliseconds, so many open pages are served.
pub const STATUS_ANSWERS_MAX: usize = 16;

/// Limit: samples for the status page's charts: five minutes and one over, of some 300 bytes each.
/// Older ones go.
pub const STATUS_HISTORY_SAMPLES: usize = 61;

/// How often such a sample is taken: as often as workers tell their memory.
pub const STATUS_HISTORY_INTERVAL: Duration = Duration::from_secs(5);

/// Limit: the name of an event that a caller sends. Discord's longest has 45 bytes; a longer one is
/// `BadRequest`.
pub const EVENT_NAME_MAX_BYTES: usize = 256;

/// Limit: the request line and headers of one HTTP request; larger is 431 and the connection
/// closes.
pub const HTTP_HEAD_MAX_BYTES: usize = 16 * 1024;

/// Limit: headers in one request. Browsers send about 20; more than this is 431.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Limit: time from a request's first byte to the end of its head; a slower peer gets 408 and is
/// closed.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit: time for a whole body; a slower peer gets 408 and is closed.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit: how long a kept-alive connection may be idle before it is closed without a word.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit: time for writing one response, or one piece of a response without a bound; a peer that
/// does not read is closed.
pub const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit: connections of one server whose peers have said something, each of which is a thread. One
/// more takes the place of the one that has been waiting longest for its peer (idle, or with half a
/// head), or else of the one that has not read its answer for [`HTTP_STALLED_AFTER`]; if every one
/// is answering a request it gets 503 and is closed.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// Limit: connections of one listener whose peers have said nothing yet, each of which is a
/// descriptor: a burst of callers twice as large as there are places. Of more the oldest gets 503
/// and is closed.
pub const HTTP_SILENT_MAX: usize = 2 * HTTP_CONNECTIONS_MAX;

/// A peer that has not taken its answer after this time may lose its connection to a new one.
pub const HTTP_STALLED_AFTER: Duration = Duration::from_secs(2);

/// Limit: requests of an HTTP/2 connection that are under way; what is beyond is refused.
pub const HTTP2_STREAMS_MAX: u32 = 32;

/// Limit: threads of all HTTP/2 connections of a server that run handlers, and those of all readers
/// of feeds beside them. A request that finds none is refused, and its peer may ask again.
pub const HTTP2_HELPERS_MAX: usize = 256 + FEEDS_MAX;

/// A thread that has had no request for so long ends: what it holds another connection may need.
pub const HTTP2_HELPER_IDLE_MAX: Duration = Duration::from_secs(1);

/// Of the body of a request so much is taken before its handler asks for it, which is after its
/// caller was found to be one.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;

/// Limit: bytes of bodies of one connection that were sent and not taken.
pub const HTTP2_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Limit: bytes of an answer that wait for room in the peer's window.
pub const HTTP2_SEND_BYTES: usize = 256 * 1024;

/// Limit: requests that a peer took back beyond those that it let be answered; then it is told to
/// calm down.
pub const HTTP2_TAKEN_BACK_MAX: u32 = 128;

/// Limit: requests that a connection refuses or ends in its life because its peer breaks a rule or
/// has more than [`HTTP2_STREAMS_MAX`] under way; then likewise. A peer may send a hundred at once
/// before it has heard of that bound.
pub const HTTP2_BROKEN_MAX: usize = 512;

/// Limit: bytes of frames that bring no request further, such as pings; then likewise.
pub const HTTP2_WASTED_BYTES: u64 = 256 * 1024;

/// Limit: connections that were handed out to a worker of this host and live: its share of
/// [`HTTP_CONNECTIONS_MAX`], but never fewer than the first of these nor more than the second.
pub const BROKER_CONNECTIONS: (usize, usize) = (8, 64);

/// Limit: unanswered asks of a worker for a connection. Each is a byte in a socket's buffer, which
/// holds some hundred.
pub const BROKER_ASKS_MAX: usize = 64;

/// Of the buffer in which connections wait for their worker to take them: about twenty.
pub const BROKER_SEND_BYTES: usize = 8 * 1024;

/// Limit: connections that the kernel keeps until they are accepted. It drops what comes beyond,
/// and a peer tries again only after a second; so there is room for a burst of all places of a
/// listener several times over.
pub const HTTP_BACKLOG: i32 = 1024;

/// Limit: time for a peer to read a last answer before its connection is closed, which would
/// otherwise throw away what the peer has not read yet if it is still sending.
pub const HTTP_LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit: the line before a chunk, or one of trailers, which have [`HTTP_HEAD_MAX_BYTES`] in all;
/// more is 400.
pub const HTTP_CHUNK_LINE_MAX_BYTES: usize = 1024;

/// Limit: bytes of a body that its handler did not want that are read and thrown away, to keep the
/// connection; with more to come it is closed.
pub const HTTP_DRAIN_BYTES: u64 = 64 * 1024;

/// Limit: tenants' messages waiting for a link's writer: every request that may wait for an answer
/// ([`PENDING_MAX`]), or its answer, and a few more. When it is full a sender gets `Busy` at once,
/// nothing blocks.
pub const LINK_QUEUE_MESSAGES: usize = PENDING_MAX + 4096;

/// Limit: a message that its sender writes itself; a larger one costs more than waking the writer,
/// and more likely finds no room.
pub const LINK_ALONE_MAX_BYTES: usize = 64 * 1024;

/// Limit: bytes waiting for a link's writer: four messages of the largest size, of which a tenant
/// has no more than it leaves to the others ([`Shares`](crate::wire::data::Shares)). Beside it
/// there is a quarter of that for small messages only, and as much for errors and for what is no
/// tenant's. What does not fit is refused at once: `Busy` of an event, an error instead of a
/// result.
pub const LINK_QUEUE_BYTES: usize = 4 * MESSAGE_MAX_BYTES;

/// Limit: the time in which one batch of queued messages must leave; a peer that drains a byte at a
/// time loses the link.
pub const LINK_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Limit: requests of one link that wait for an answer; one more is `Busy` at once.
pub const PENDING_MAX: usize = 65_536;

/// Limit: tenants in one query to a worker, whether they have a VM: a hundred kilobytes, which
/// hold up nothing behind them.
pub const LIVE_TENANTS_MAX: usize = 4096;

/// Limit: such queries that wait for their answers on one link; for one more no VM is known.
/// Enough for hundreds of requests of the largest size ([`API_LIST_MAX`]) at once.
pub const VM_QUERIES_MAX: usize = 1024;

/// Limit: time for the workers to say which tenants have a VM. A worker answers in a millisecond;
/// of one that does not, no VM is known.
pub const LIVE_TENANTS_TIMEOUT: Duration = Duration::from_secs(1);

/// An executor that has not come back to its loop for so long hangs, unless `--hang-timeout` says
/// otherwise. A turn takes milliseconds, and the longest that nothing can interrupt a second or so.
pub const EXECUTOR_HANG_TIMEOUT: Duration = Duration::from_secs(30);

/// What a worker that is restarted has in flight may take so long to be answered, unless
/// `--drain-timeout` says otherwise: longer than nearly all events take, as meanwhile the events of
/// all its tenants wait. What takes longer ends with an unknown outcome.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit: the longest `--drain-timeout`: as long as an event may take that its caller waits for.
pub const DRAIN_TIMEOUT_MAX: Duration = DISPATCH_DEADLINE_MAX;

/// Deaths of a worker within [`QUARANTINE_WINDOW`] with a tenant's events in flight that quarantine
/// it, unless `--quarantine-after` says otherwise.
pub const QUARANTINE_AFTER: usize = 3;

/// How long a death counts against the tenants that were in flight.
pub const QUARANTINE_WINDOW: Duration = Duration::from_secs(600);

/// Limit: tenants that one death can quarantine. If more than these are equally suspicious, it is
/// the worker that is broken and not a tenant.
pub const QUARANTINE_AT_ONCE_MAX: usize = 8;

/// Limit: tenants of which deaths are remembered; beyond it those whose last death is oldest are
/// forgotten.
pub const SUSPECTS_MAX: usize = 100_000;

/// Parts of the table of the busiest tenants, each with a lock of its own: enough that threads with
/// answers seldom meet.
pub const BUSIEST_SHARDS: usize = 8;

/// Limit: tenants that each part of that table counts in a minute, by events and by time each.
/// A tenant that has more than a 128th of what comes to its part is among them.
pub const BUSIEST_COUNTERS: usize = 128;

/// How many minutes that table goes back: as far as the charts beside it.
pub const BUSIEST_MINUTES: usize = 5;

/// How many of the busiest tenants an operator is told by events, and as many by time.
pub const BUSIEST_TOLD: usize = 10;

/// Limit: errors of dispatches that are kept for an operator: what one looks through.
pub const RECENT_ERRORS_MAX: usize = 100;

/// Limit: the text of such an error, in characters; a script's error with its first frames.
pub const RECENT_ERROR_MAX_CHARS: usize = 500;

/// Limit: one line of a worker's output in our log, in bytes; the rest of it is cut off.
pub const WORKER_OUTPUT_LINE_MAX_BYTES: usize = 8 * 1024;

/// Limit: a line of a log in JSON. Longer ones are split by what reads logs: journald's own bound
/// is 48 KiB.
pub const LOG_LINE_MAX_BYTES: usize = 32 * 1024;

/// Limit: lines a second of one worker's output that are logged, with as much saved up as
/// [`WORKER_OUTPUT_BURST`]; others are counted and dropped. What a busy worker with hundreds of
/// tenants that log says in earnest.
pub const WORKER_OUTPUT_LINES_PER_SECOND: u32 = 1000;

/// Limit: lines of one worker's output that are logged at once after a quiet time.
pub const WORKER_OUTPUT_BURST: u32 = 5000;

/// Limit: lines of all workers that wait to be written to the log, such as while no process reads
/// our stderr; others are counted and dropped, so that no worker waits for the log.
pub const WORKER_OUTPUT_QUEUE_LINES: usize = 8192;

/// Lines of a worker's output that are shown with its death.
pub const WORKER_OUTPUT_TAIL_LINES: usize = 50;

/// Limit: dispatches without data that wait for a worker that is not ready: a second of a busy
/// worker, about as long as a restart takes. Each weighs its bytes and this part (3 KiB) of
/// [`WAITING_FOR_WORKER_BYTES`], of which a tenant has no more than it leaves to the others
/// ([`Shares`](crate::wire::data::Shares)), half at most; one more is `Busy` at once.
pub const WAITING_FOR_WORKER_MAX: usize = 16_384;

/// Limit: what all that waits for a worker that is not ready weighs: more is `Busy` at once. Below
/// [`LINK_QUEUE_BYTES`], and shared in the same way, so that a link that comes up takes all of
/// them.
pub const WAITING_FOR_WORKER_BYTES: usize = 3 * MESSAGE_MAX_BYTES;

/// Limit: frames in a row that do not decode before a link is closed with 1007 (protocol.md, rule
/// 7).
pub const UNDECODABLE_IN_A_ROW_MAX: u32 = 16;

/// Limit: nesting of any MessagePack that we walk: an array or map at this depth is refused, as the
/// async reference does.
pub const WIRE_DEPTH_MAX: usize = 1024;

/// Limit: nesting of event data that becomes a Rust type through serde, which recurses; serde_json
/// stops there too.
pub const SERDE_DEPTH_MAX: usize = 128;

/// Limit: nesting of a value that a template or the store sees (docs/protocol.md).
pub const VALUE_DEPTH_MAX: usize = 32;

/// Limit: events of one tenant that run at once; the next one waits.
pub const TENANT_RUNNING_MAX: usize = 64;

/// Limit: events of one tenant that wait; one more is `busy` at once.
pub const TENANT_QUEUE_MAX: usize = 1024;

/// Limit: events and scripts of one tenant that the master has not seen answered; one more is
/// `Busy` at once. As many as run and wait in its worker at most, so that a worker takes what its
/// master has admitted.
pub const TENANT_UNANSWERED_MAX: usize = TENANT_RUNNING_MAX + TENANT_QUEUE_MAX;

/// Limit: events of one tenant that no caller waits for and that its worker has not told the end
/// of; one more is `Busy` at once and never sent. The rest of [`TENANT_UNANSWERED_MAX`] is left to
/// callers that wait.
pub const TENANT_UNHEARD_MAX: usize = TENANT_QUEUE_MAX;

/// Limit: bytes of one worker's events and scripts that are not answered, of which a tenant has no
/// more than it leaves to the others ([`Shares`](crate::wire::data::Shares)); more is `Busy` at
/// once. Half of what one executor takes, as that forgets what it has answered only when its turn
/// ends.
pub const UNANSWERED_BYTES: usize = EXECUTOR_JOBS_MAX_BYTES / 2;

/// Limit: bytes of the jobs that one executor has not answered (thirty-two of the largest), as
/// their number alone would allow 256 GiB; what is more is `busy` at once.
pub const EXECUTOR_JOBS_MAX_BYTES: usize = 32 * MESSAGE_MAX_BYTES;

/// Limit: threads that carry out the database operations of templates, in each worker. What finds
/// all of them at work waits, and tenants take turns; a quarter of them is kept for tenants that
/// have less than a quarter.
pub const IO_THREADS: usize = 8;

/// Limit: source text of one template module: parse and compile cannot be interrupted.
pub const SOURCE_MAX_BYTES: usize = 192 * 1024;

/// Limit: modules of one tenant's own template. All of them are one record, which bounds their
/// bytes.
pub const TENANT_MODULES_MAX: usize = 64;

/// Limit: bytes of the name of one of them.
pub const MODULE_NAME_MAX_BYTES: usize = 128;

/// Limit: versions of a tenant's own template that are kept when they are replaced.
pub const TEMPLATE_VERSIONS_KEPT: usize = 10;

/// Limit: live data of one VM (docs/templates.md); more is a memory error, which discards the VM.
pub const VM_MEMORY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// After this a VM in which nothing runs is closed, unless `--vm-idle` says otherwise
/// (docs/options.md): longer than the pauses of a guild that is awake.
pub const VM_IDLE: Duration = Duration::from_secs(15 * 60);

/// Limit: VMs of one worker that are alive at once, unless `--max-vms` says otherwise. A small one
/// takes about 200 KiB, 1.5 GiB in all; at worst each holds `VM_MEMORY_MAX_BYTES`, so this bounds
/// no memory. One more takes the place of one that is idle (docs/decisions/0039); if in each of
/// them something runs it waits for one.
pub const VMS_MAX: usize = 7500;

/// Limit: wall time of one event (docs/templates.md); below the default deadline of a dispatch.
pub const EVENT_WALL_MAX: Duration = Duration::from_secs(30);

/// `OnStartup` events of a worker that are under way at once and were sent within
/// [`STARTUP_PLACE_FOR`]: enough to keep its executors busy, few enough for other events to find
/// room.
pub const STARTUP_PLACES: usize = 32;

/// How long an `OnStartup` event that is not answered keeps the next one waiting.
pub const STARTUP_PLACE_FOR: Duration = Duration::from_secs(1);

/// Limit: `OnStartup` events of a worker that have no answer: what its templates let wait for as
/// long as they may ([`EVENT_WALL_MAX`]) while one comes after the other. Then the next ones wait.
pub const STARTUP_UNDER_WAY_MAX: usize = 1024;

/// Limit: how often an `OnStartup` event is tried that finds the worker busy, a second apart.
pub const STARTUP_ATTEMPTS_MAX: u32 = 3;

/// Default deadline of a dispatch: above [`EVENT_WALL_MAX`], so that a script's own limit speaks
/// first.
pub const DISPATCH_DEADLINE: Duration = Duration::from_secs(35);

/// Limit: the longest deadline a caller of the internal API may ask for (docs/api.md).
pub const DISPATCH_DEADLINE_MAX: Duration = Duration::from_secs(300);

/// Heartbeats missed before a link counts as dead (protocol.md, rule 2).
pub const HEARTBEATS_MISSED_MAX: u32 = 3;

/// Limit: key of a KV record, in bytes (protocol.md); longer is refused by a rule (422).
pub const KV_KEY_MAX_BYTES: usize = 512;

/// Limit: a KV value's MessagePack form (protocol.md).
pub const KV_VALUE_MAX_BYTES: usize = 256 * 1024;

/// Limit: scopes of one record (protocol.md).
pub const KV_SCOPES_MAX: usize = 10;

/// Limit: one scope's text. The protocol leaves it open; a scope is a name, so it gets the bound of
/// a key.
pub const KV_SCOPE_MAX_BYTES: usize = 512;

/// Limit: text of a Find's pattern. A key of the largest size with every character escaped is half
/// of it; longer is 422.
pub const KV_PATTERN_MAX_BYTES: usize = 2048;

/// Limit: records of one tenant (protocol.md; an option).
pub const KV_QUOTA_RECORDS: u64 = 10_000;

/// Limit: bytes of one tenant's keys, scopes and values (protocol.md; an option).
pub const KV_QUOTA_BYTES: u64 = 64 * 1024 * 1024;

/// Limit: records in the answer of one Find (protocol.md); more is 422 that says to narrow the
/// pattern.
pub const KV_FIND_MAX_RECORDS: usize = 10_000;

/// Limit: bytes in the answer of one Find (protocol.md); more is 422 that says to narrow the
/// pattern.
pub const KV_FIND_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Limit: events that one tenant state subscribes to. Discord knows about 80; more than this is
/// 422.
pub const STATE_EVENTS_MAX: usize = 1024;

/// Limit: name of one event in a tenant state. The protocol leaves it open; it gets the bound of a
/// key.
pub const STATE_EVENT_NAME_MAX_BYTES: usize = 512;

/// Limit: a tenant state's own data, in MessagePack. The protocol leaves it open; it gets the bound
/// of a value.
pub const STATE_DATA_MAX_BYTES: usize = 256 * 1024;

/// Limit: writes that wait for the store's writer, of one tenant half at most; more is 503 at once.
pub const STORE_QUEUE_MAX: usize = 4096;

/// Limit: what those writes have in bytes, shared alike: a second's work of a slow disk.
pub const STORE_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Limit: operations in one commit of the store: as many as come together while the last commit
/// syncs; what is more waits for the next one, so that no acknowledgement waits for
/// all others.
pub const STORE_BATCH_MAX: usize = 1024;

/// Limit: bytes of the operations in one commit of the store: what a slow disk takes in a fraction
/// of a second.
pub const STORE_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Limit: how long a caller waits for the store's acknowledgement; after it the outcome is unknown.
/// Longer than any disk stalls that is not broken, shorter than the deadline of a dispatch.
pub const STORE_WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// The first pause between attempts to reopen a store file after an I/O error, or to reconnect to
/// PostgreSQL; it doubles up to [`STORE_REOPEN_MAX`].
pub const STORE_REOPEN_MIN: Duration = Duration::from_millis(50);

/// Limit: the longest pause between attempts to reopen a store file or to reconnect to PostgreSQL:
/// service resumes within seconds of the return of the disk or the server.
pub const STORE_REOPEN_MAX: Duration = Duration::from_secs(2);

/// Limit: pages of the embedded store that are kept in memory; what is more is read again from the
/// system's cache.
pub const STORE_CACHE_BYTES: usize = 128 * 1024 * 1024;

/// Connections to PostgreSQL, each with a thread, unless `--max-db-connections` says otherwise:
/// what the async reference has too, and what leaves room for others on a server with its default
/// of 100.
pub const POSTGRES_CONNECTIONS: usize = 7;

/// Limit: one statement in PostgreSQL, waiting for a lock included; the server ends it then. Below
/// [`STORE_WRITE_TIMEOUT`], so that the server's own answer comes first.
pub const POSTGRES_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit: for connecting to one address of PostgreSQL, unless the URL says otherwise.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit: on top of that, for all that follows until a session can be used: signing in, its
/// settings. A server that accepts and says nothing counts as unreachable then.
pub const POSTGRES_GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit: threads that a server which accepts and says nothing holds in connecting, until its
/// connections end; beyond it one attempt is made after [`STORE_REOPEN_MAX`], and each further one
/// after twice the pause before, until one is answered.
pub const POSTGRES_HELD_MAX: usize = 8;

/// Limit: how long PostgreSQL's machine may be silent before a connection to it counts as lost.
pub const POSTGRES_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Limit: for PostgreSQL to answer what masters agree on through it, and for its machine to be
/// silent meanwhile: half of a lease.
pub const COORDINATION_STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit: attempts at one operation whose earlier ones are known to have changed nothing; after
/// them it is `Busy`.
pub const POSTGRES_ATTEMPTS_MAX: u32 = 5;

/// Limit: operations of one tenant that wait for a connection to PostgreSQL, its reads and its
/// writes each: an eighth of all ([`STORE_QUEUE_MAX`]), and more than its worker can have under way
/// ([`HTTP_CONNECTIONS_MAX`]); one more is `Busy`.
pub const POSTGRES_LANE_MAX: usize = 512;

/// Limit: gets or sets of records that PostgreSQL is asked together; the next ones follow.
pub const POSTGRES_TOGETHER_MAX: usize = 16;

/// How long a get waits for the end of a statement of gets that is under way; then one more goes.
pub const POSTGRES_GETS_WAIT: Duration = Duration::from_millis(2);

/// Limit: the values of sets that go together; a larger one goes alone.
pub const POSTGRES_TOGETHER_BYTES: usize = 256 * 1024;

/// Limit: how long sets that go together wait for the lock of another program; after it each goes
/// alone, so that only the one concerned waits.
pub const POSTGRES_TOGETHER_LOCK_MAX: Duration = Duration::from_millis(250);

/// Limit: records of which it is known which row they are; the oldest are forgotten.
pub const POSTGRES_KNOWN_ROWS_MAX: usize = 32_768;

/// Limit: the id of such a row; one with a longer id is read before it is replaced.
pub const POSTGRES_KNOWN_ID_BYTES: usize = 64;

/// Since when a connection to PostgreSQL must have been answered to be used for a write without a
/// read before: with one that is dead already the write's outcome would not be known.
pub const POSTGRES_FRESH: Duration = Duration::from_millis(100);

/// Limit: how long an operation waits for a connection to PostgreSQL; after it nothing was done and
/// it is `Unavailable`.
pub const POSTGRES_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit: how long the reader of a backup may take for a piece before PostgreSQL ends its
/// transaction: longer than an answer's piece may take to be sent ([`HTTP_WRITE_TIMEOUT`]).
pub const POSTGRES_EXPORT_IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes of rows that a backup reads ahead: enough for a system call to send.
pub const BACKUP_READ_BYTES: usize = 64 * 1024;

/// Limit: a backup through the internal API: an hour for a large store, and one over. For as long
/// as it lasts the store cannot reuse the pages that others replace, so a reader that dribbles is
/// not waited for for ever.
pub const BACKUP_TIME_MAX: Duration = Duration::from_secs(2 * 3600);

/// Limit: one frame of a backup: the largest shop entry several times over; a longer one is no
/// backup.
pub const BACKUP_FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Limit: bytes of all scopes of one record: with the longest key what a row of PostgreSQL's index
/// takes (2,704 bytes). The same on every store; more is 422.
pub const KV_SCOPES_MAX_BYTES: usize = 2000;

/// Tenant states are sent to a starting worker in pieces of about this size: large enough for the
/// system call, small enough not to matter beside the states themselves.
pub const TENANT_STATES_PIECE_BYTES: usize = 64 * 1024;

/// Limit: for finding and connecting to the master; a local one answers at once, and one that does
/// not is not there.
pub const DB_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit: bytes of a database request that are gathered before they are sent: head and body of all
/// but large values leave in one piece, and no connection holds more.
pub const DB_OUTGOING_BYTES: usize = 64 * 1024;

/// Bytes of a database request that are made at once: all but large values, and a large one in
/// pieces.
pub const DB_OUTPUT_BYTES: usize = 8 * 1024;

/// Bytes of an answer that a new connection to the master has room for: all but large values. An
/// answer that is larger doubles it as it is read, up to [`DB_INPUT_MAX_BYTES`].
pub const DB_INPUT_BYTES: usize = 8 * 1024;

/// Limit: bytes of an answer that are read at once; a larger one takes several reads.
pub const DB_INPUT_MAX_BYTES: usize = 128 * 1024;

/// How long a worker goes by the addresses of the master's name before it looks it up again: a
/// lookup takes a thread, and a master seldom moves.
pub const DB_ADDRESS_AGE: Duration = Duration::from_secs(10);

/// Limit: names of peers whose addresses are kept; one more empties the list.
pub const LOOKUP_NAMES_MAX: usize = 64;

/// Limit: for sending a database request's head, and again its body, which has 2 MiB at most.
pub const DB_SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit: for the head of the master's answer: above [`STORE_WRITE_TIMEOUT`], so that the store's
/// own answer comes first.
pub const DB_RESPONSE_TIMEOUT: Duration = Duration::from_secs(25);

/// Limit: for the body of the master's answer: as long as the master goes on sending one (see
/// [`HTTP_WRITE_TIMEOUT`]).
pub const DB_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections to the master that a worker keeps between requests: one for each of its I/O threads,
/// and one over.
pub const DB_IDLE_CONNECTIONS: usize = IO_THREADS + 1;

/// How long a worker keeps an idle connection: shorter than the master does
/// ([`HTTP_IDLE_TIMEOUT`]), so that it is seldom the master that closes one under a request.
pub const DB_IDLE_AGE: Duration = Duration::from_secs(45);

/// Limit: the answer to a database request: the largest Find, and room around it. A larger one is
/// an error.
pub const DB_REPLY_MAX_BYTES: u64 = KV_FIND_MAX_BYTES as u64 + 1024 * 1024;

/// Limit: all tenant states of one worker: a million tenants with a KiB each. A larger answer is an
/// error.
pub const DB_STATES_MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// Limit: all scopes of one tenant's records: what a VM could have room for, more than the usual
/// quota leaves room for. A larger answer is an error.
pub const DB_SCOPES_MAX_BYTES: u64 = VM_MEMORY_MAX_BYTES as u64;

/// Limit: the text of an error's answer that is read; the master's own are a line.
pub const DB_ERROR_MAX_BYTES: u64 = 4096;

/// A configuration file (`--config`) is at most so long: a thousand times what all options take. A
/// longer one is refused, as another file is meant.
pub const CONFIG_FILE_MAX_BYTES: usize = 1024 * 1024;
