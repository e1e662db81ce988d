//! The threads that do what blocks: database operations of templates on a few threads, and
//! compiling scripts on one, because that is all work and no waiting, and must not take the
//! processor from the executors.
//!
//! One small pool a runtime, shared by its executors, whose threads are there only while there is
//! something to do. The result of a job goes back to the inbox of the executor that asked, which
//! resumes the coroutine that waits. Deliberately knows nothing of Luau. What is still queued when
//! the runtime stops is not run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::mailbox::Mailbox;
use super::outside::Charge;
use super::program::OwnTemplate;
use super::templates::Compiled;
use crate::base::error::DbError;
use crate::base::limits::{
    CALL_BYTES, DB_BODY_MAX_BYTES, HOST_ANSWER_MAX_BYTES, IO_QUEUE_MAX, IO_THREAD_IDLE_MAX,
    IO_THREADS, KV_FIND_MAX_BYTES, KV_VALUE_MAX_BYTES, SOURCE_MAX_BYTES,
};
use crate::base::on_demand_threads::OnDemandThreads;
use crate::base::thread::{cpu_time, panic_message};
use crate::runtime::TenantDb;
use crate::wire::data::{
    DbAnswer, DbCall, GlobalKv, GlobalKvData, HostResult, KvRecord, MessageOutcome,
    PartialGlobalKv, TenantId, Timer,
};

/// A job: what to do, and where the result goes.
pub(super) struct IoJob {
    /// The inbox that gets the result.
    pub(super) reply_to: Arc<Mailbox>,
    /// Whose it is.
    pub(super) tenant: TenantId,
    /// The life of the event that it is for: when that has ended before it begins, it is not done.
    pub(super) owner: Option<Weak<()>>,
    /// What it is for; comes back with the result.
    pub(super) purpose: IoPurpose,
    /// What to do.
    pub(super) work: IoWork,
    /// What it holds until it is done.
    pub(super) charge: Charge,
}

/// The work of a job: it has the reply's result handed over once, at once or later.
pub(super) type IoWork = Box<dyn FnOnce(&dyn TenantDb, IoReply) + Send>;

/// Work that blocks until it is done.
pub(super) fn blocking(work: impl FnOnce(&dyn TenantDb) -> IoOutput + Send + 'static) -> IoWork {
    Box::new(move |db, reply| {
        let (tenant, processor) = (reply.tenant, cpu_time());
        let output = catch_unwind(AssertUnwindSafe(|| work(db))).unwrap_or_else(|payload| {
            let panic = panic_message(payload.as_ref());
            log::error!(tenant:% = tenant; "an I/O operation of {tenant} panicked: {panic}");
            IoOutput::Panicked
        });
        reply.done(output, cpu_time() - processor);
    })
}

/// Where the result of a job goes.
pub(super) struct IoReply {
    reply_to: Arc<Mailbox>,
    tenant: TenantId,
    purpose: IoPurpose,
    charge: Charge,
    started: Instant,
}

impl IoReply {
    /// Hands the result over. `processor`: what it took of a processor.
    pub(super) fn done(self, output: IoOutput, processor: Duration) {
        let Self { reply_to, tenant, purpose, charge, started } = self;
        let charge = charge.for_result(output.bytes());
        let took = started.elapsed();
        reply_to.done(IoDone { tenant, purpose, output, charge, took, processor });
    }
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoPurpose {
    /// The tenant's template is loaded; the number tells the load from an earlier one.
    Program(u64),
    /// The script of a waiting job, by its number in the queue, is compiled.
    Script(u64),
    /// A task waits for it; `lease` is the lock that it holds until then.
    Task {
        /// The task.
        task: u64,
        /// The lock, if it holds one.
        lease: Option<u64>,
        /// The call that the script made.
        asked: Asked,
    },
}

/// A call of a script to the database, another tenant or a host process, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// What it is to.
    pub(super) to: CallTo,
    /// When.
    pub(super) at: Instant,
}

/// What a call is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallTo {
    /// The database.
    Db(DbCall),
    /// Another tenant.
    Tenant,
    /// A host process, for which no thread waits.
    Host,
}

/// What came of a job.
pub(super) struct IoDone {
    /// Whose it was.
    pub(super) tenant: TenantId,
    /// What it was for.
    pub(super) purpose: IoPurpose,
    /// What came of it.
    pub(super) output: IoOutput,
    /// What that takes until it is taken.
    pub(super) charge: Charge,
    /// How long it took on the I/O thread.
    pub(super) took: Duration,
    /// The processor time of that.
    pub(super) processor: Duration,
}

/// The result of each kind of work.
pub(super) enum IoOutput {
    /// A tenant's own template, if it has one.
    Program(Result<Option<OwnTemplate>, DbError>),
    /// A compiled script.
    Script(Compiled),
    /// What the database answered.
    Answer(Result<DbAnswer, DbError>),
    /// What became of a message.
    Sent(MessageOutcome),
    /// What a host process answered.
    Host(HostResult),
    /// The work panicked.
    Panicked,
    /// Its event ended before it began.
    NotBegun,
}

impl IoOutput {
    /// What it takes.
    fn bytes(&self) -> usize {
        match self {
            IoOutput::Answer(Ok(answer)) => answer_bytes(answer),
            IoOutput::Host(Ok(value)) => value.as_bytes().len(),
            // A line, or what its tenant has anyway.
            _ => 0,
        }
    }

    /// Whether it is what the database answered, and no error.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, IoOutput::Answer(Ok(_)))
    }
}

impl IoPurpose {
    /// Whether it is a call to a host process.
    pub(super) fn is_to_host(self) -> bool {
        matches!(self, IoPurpose::Task { asked, .. } if asked.to == CallTo::Host)
    }

    /// Whether it is a call of a script.
    pub(super) fn is_call(self) -> bool {
        matches!(self, IoPurpose::Task { .. })
    }

    /// The most that its result may take: the answer as bytes, and what is made of it.
    pub(super) fn result_max(self) -> usize {
        let answer = match self {
            IoPurpose::Program(_) => KV_VALUE_MAX_BYTES,
            IoPurpose::Script(_) => SOURCE_MAX_BYTES,
            IoPurpose::Task { asked, .. } => match asked.to {
                CallTo::Db(call) => db_result_max(call),
                CallTo::Host => HOST_ANSWER_MAX_BYTES,
                CallTo::Tenant => 0,
            },
        };
        CALL_BYTES + 2 * answer
    }
}

/// The most that an answer of the database to a call may take.
fn db_result_max(call: DbCall) -> usize {
    match call {
        DbCall::Find | DbCall::ListScopes | DbCall::GlobalFind => KV_FIND_MAX_BYTES,
        DbCall::Get => KV_VALUE_MAX_BYTES,
        DbCall::GlobalGet | DbCall::TimerList => DB_BODY_MAX_BYTES,
        DbCall::Set
        | DbCall::Delete
        | DbCall::GlobalCreate
        | DbCall::GlobalDelete
        | DbCall::SetTenantState
        | DbCall::TimerSet
        | DbCall::TimerCancel => 0,
    }
}

/// What texts take.
pub(super) fn texts_bytes(texts: &[String]) -> usize {
    texts.iter().map(|text| size_of::<String>() + text.len()).sum()
}

fn answer_bytes(answer: &DbAnswer) -> usize {
    match answer {
        DbAnswer::Done | DbAnswer::Cancelled(_) => 0,
        DbAnswer::Record(record) => record.as_ref().map_or(0, record_bytes),
        DbAnswer::Records(records) => records.iter().map(record_bytes).sum(),
        DbAnswer::Scopes(scopes) => texts_bytes(scopes),
        DbAnswer::Entries(entries) => entries.iter().map(entry_bytes).sum(),
        DbAnswer::Entry(entry) => match entry.as_deref() {
            Some(GlobalKv { partial, data: GlobalKvData::Value { data, .. } }) => {
                entry_bytes(partial) + data.as_bytes().len()
            }
            _ => 0,
        },
        DbAnswer::Timers(timers) => timers.iter().map(timer_bytes).sum(),
    }
}

fn timer_bytes(timer: &Timer) -> usize {
    let texts = timer.id.len() + timer.name.len() + timer.every.as_ref().map_or(0, String::len);
    size_of::<Timer>() + texts + timer.data.as_bytes().len()
}

fn record_bytes(record: &KvRecord) -> usize {
    let texts = record.id.len() + record.key.len() + texts_bytes(&record.scopes);
    size_of::<KvRecord>() + texts + record.value.as_bytes().len()
}

fn entry_bytes(entry: &PartialGlobalKv) -> usize {
    let texts = [
        &entry.key,
        &entry.owner_id,
        &entry.owner_type,
        &entry.short,
        &entry.scope,
        &entry.review_state,
    ];
    let texts = texts.into_iter().chain(&entry.long).map(String::len).sum::<usize>();
    size_of::<PartialGlobalKv>() + texts + entry.public_metadata.as_bytes().len()
}

/// The threads and their queues.
pub(super) struct IoPool {
    jobs: OnDemandThreads<TenantId, IoJob>,
    scripts: OnDemandThreads<TenantId, IoJob>,
}

impl IoPool {
    /// A pool whose threads' names begin like this. None is started yet.
    pub(super) fn new(prefix: &str, db: &Arc<dyn TenantDb>) -> Self {
        let threads = |names| {
            let db = db.clone();
            OnDemandThreads::new(names, IO_QUEUE_MAX, IO_THREAD_IDLE_MAX, move |job| run(job, &*db))
        };
        Self {
            jobs: threads((0..IO_THREADS).map(|number| format!("{prefix}-io{number}")).collect()),
            scripts: threads(vec![format!("{prefix}-comp")]),
        }
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The queue is full, the pool has been stopped, or there is no thread to be had: the job comes
    /// back.
    pub(super) fn submit(&self, job: IoJob) -> Result<(), IoJob> {
        let threads =
            if matches!(job.purpose, IoPurpose::Script(_)) { &self.scripts } else { &self.jobs };
        threads.submit(job.tenant, job)
    }

    /// Lets what is queued go, and joins the threads. The executors, which queue it, have ended
    /// before.
    ///
    /// # Blocks
    /// Until the operations under way have returned.
    pub(super) fn stop(&self) {
        let pools = [&self.jobs, &self.scripts];
        pools.iter().for_each(|threads| threads.abandon());
        pools.iter().for_each(|threads| threads.finish());
    }

    /// How many threads there are: for database operations and for scripts.
    #[cfg(test)]
    pub(super) fn threads(&self) -> (usize, usize) {
        (self.jobs.threads(), self.scripts.threads())
    }
}

fn run(job: IoJob, db: &dyn TenantDb) {
    let IoJob { reply_to, tenant, owner, purpose, work, charge } = job;
    let reply = IoReply { reply_to, tenant, purpose, charge, started: Instant::now() };
    if owner.is_none_or(|owner| owner.strong_count() > 0) {
        work(db, reply);
    } else {
        reply.done(IoOutput::NotBegun, Duration::ZERO);
    }
}
