//! The bounds of tenants' VMs and of what runs in them; part of `limits.rs`, with its rules.

use std::time::Duration;

use super::{PENDING_MAX, SCRIPT_LINE_MAX_BYTES};

/// Limit: messages waiting for one executor, all its tenants together; one more is `busy` at once.
/// As many as a master has pending at most.
pub const EXECUTOR_INBOX_MAX: usize = PENDING_MAX;

/// Limit: database operations of templates that wait for an I/O thread; one more is a `busy` error
/// in the script.
pub const IO_QUEUE_MAX: usize = 4096;

/// After this an I/O thread without work ends: longer than the pauses of a worker that is in use,
/// as starting one costs as much as an operation.
pub const IO_THREAD_IDLE_MAX: Duration = Duration::from_secs(30);

/// What a call of a template takes in memory besides its arguments, and a result besides what is in
/// it, about.
pub const CALL_BYTES: usize = 512;

/// Limit: bytes of a tenant's calls and results outside its VM for which there is room however full
/// the VM seems to be: a few of the largest values, or a thousand small calls, so that none of them
/// has garbage in a VM collected. More counts towards `VM_MEMORY_MAX_BYTES`, and a call for which
/// nothing is left is an error in the script.
pub const CALLS_FREE_BYTES: usize = 1024 * 1024;

/// Limit: bytes of an event that a handler is given made, whether or not it asks for it.
pub const SMALL_EVENT_MAX_BYTES: usize = 4096;

/// Limit: live coroutines an event (docs/templates.md).
pub const COROUTINES_MAX: usize = 1024;

/// Limit: coroutines an event may start in all (docs/templates.md).
pub const SPAWNS_MAX: usize = 10_000;

/// Limit: `.luau` files of a template directory, all of which are compiled at start. `main.luau`
/// comes first, then the others by name; what is beyond is not loaded, which is a warning with its
/// number, and a finding of `check`.
pub const TEMPLATE_FILES_MAX: usize = 1000;

/// How often a watched template directory (`--reload`) is looked at: a stat of each file, and twice
/// this is what a change takes to be picked up.
pub const RELOAD_INTERVAL: Duration = Duration::from_millis(500);

/// Limit: folders inside folders of a template directory; deeper ones are not looked into.
pub const TEMPLATE_FOLDERS_DEEP: usize = 16;

/// Limit: what a VM may allocate at a peak, garbage included, as a multiple of its live data. The
/// collector runs late, so without this room only half of the limit would be usable; an allocation
/// beyond it fails at once.
pub const VM_MEMORY_PEAK_FACTOR: usize = 2;

/// A VM that goes idle with more memory than this has its garbage collected, so that one large
/// event does not stay for as long as its tenant is quiet.
pub const VM_IDLE_MEMORY_BYTES: usize = 2 * 1024 * 1024;

/// Limit: how long events wait for a VM while in every one something runs; then they are `busy`.
/// Longer than most events take, and shorter than the deadline of a dispatch, so that its caller
/// learns why.
pub const VM_WAIT_MAX: Duration = Duration::from_secs(10);

/// Limit: idle VMs that are closed between two turns of an executor: closing one takes a fraction
/// of a millisecond, and thousands may have gone idle together.
pub const VM_CLOSES_MAX: usize = 4;

/// Limit: running time of one event (docs/templates.md); waiting does not count.
pub const EVENT_RUNNING_MAX: Duration = Duration::from_secs(10);

/// A running coroutine is preempted after this slice.
pub const SLICE: Duration = Duration::from_millis(2);

/// Limit: database operations and other waiting calls of one event: room for every record of a full
/// tenant, several times over; more ends the event.
pub const HOST_CALLS_MAX: usize = 100_000;

/// Limit: database operations of one tenant that are under way at once; its others wait their turn,
/// so that one tenant cannot fill the queue of all.
pub const TENANT_IO_MAX: usize = 16;

/// Limit: items and fields of what one call or event brings into a VM; more is an error, for the
/// same reason as below. Its bytes would allow sixteen times as many.
pub const CONVERT_ITEMS_MAX: u32 = 1 << 20;

/// Limit: values in all tables of one value that leaves a VM; more is an error, as nothing
/// interrupts their conversion and each takes some tenths of a microsecond. (Their bytes would
/// allow thirty times as many.)
pub const CONVERT_VALUES_MAX: u32 = 1 << 19;

/// Limit: how often turning one value of Luau into bytes, which nothing can interrupt, goes through
/// a table that is in the value several times; after that it goes through a copy without the empty
/// slots, which take milliseconds in a table as large as a VM. More often than most values share a
/// table, so that few are copied.
pub const CONVERT_WALKS_MAX: u8 = 3;

/// Limit: events that a script may subscribe its tenant to at once. Discord has about 80.
pub const TENANT_EVENTS_MAX: usize = 1000;

/// Limit: the name of an event that a script subscribes its tenant to.
pub const TENANT_EVENT_NAME_MAX_BYTES: usize = 128;

/// Limit: what a script gives as the name of a module or of a time zone, or as a time or an integer
/// to be read; a longer text is an error before anything is made of it, as it may be as large as
/// the VM.
pub const SCRIPT_NAME_MAX_BYTES: usize = 512;

/// Limit: a line that a script logs; the rest is cut off, which a sign at its end says.
pub const SCRIPT_LOG_LINE_MAX_BYTES: usize = SCRIPT_LINE_MAX_BYTES - '…'.len_utf8();

/// Limit: lines a second that one tenant's scripts may log, with as much saved up as
/// [`SCRIPT_LOG_BURST`]; others are counted and dropped.
pub const SCRIPT_LOG_LINES_PER_SECOND: u32 = 20;

/// Limit: lines that a tenant's scripts may log at once after a quiet time.
pub const SCRIPT_LOG_BURST: u32 = 100;

/// Limit: the text of a script's error; the rest is cut off.
pub const SCRIPT_ERROR_MAX_BYTES: usize = 4096;

/// Limit: a table that a script logs is shown as JSON up to this size, in MessagePack; a larger one
/// by its type.
pub const SCRIPT_LOG_VALUE_MAX_BYTES: usize = 64 * 1024;

/// Limit: the value of a script's error that is no text; of a larger one the error says that it is.
pub const SCRIPT_ERROR_VALUE_MAX_BYTES: usize = 1024;

/// How long errors of a tenant are collected before they are written: at most one write in this
/// time for each tenant.
pub const ERROR_RECORD_DELAY: Duration = Duration::from_secs(1);

/// How long errors wait that the database did not take.
pub const ERROR_RECORD_RETRY: Duration = Duration::from_secs(5);

/// Limit: the message of a recorded error; with its frames twenty of them fit into a record several
/// times over.
pub const ERROR_RECORD_MAX_BYTES: usize = 2048;

/// Limit: errors of all tenants that wait to be written: some thousands. What is more is counted
/// and not recorded.
pub const ERROR_RECORDS_BYTES: usize = 4 * 1024 * 1024;

/// Limit: how long a runtime that stops goes on writing errors.
pub const ERROR_RECORDS_FLUSH: Duration = Duration::from_secs(2);

/// Limit: frames shown below a script's error.
pub const SCRIPT_ERROR_FRAMES: usize = 8;

/// How long the ticker keeps ticking after the last executor went idle: under steady load it need
/// not be woken for every event, and an idle machine is not woken at all.
pub const TICKER_LINGER: Duration = Duration::from_millis(50);

/// Limit: where Luau cannot yield (metamethods, comparators, gsub callbacks) an event ends with an
/// error after this.
pub const UNYIELDABLE_MAX: Duration = Duration::from_millis(100);
