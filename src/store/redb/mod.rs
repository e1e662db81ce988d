//! The embedded store: one file of redb, one writer thread, any number of readers.
//!
//! Writes go through a bounded queue to the writer, which commits them in groups. Reads run on the
//! caller's thread, each on a snapshot, and wait for no write; after an error of the disk they fail
//! until the writer has opened the file anew. Deliberately one database for all tenants: a commit
//! is what costs, and tenants share it. The caller that opened it owns it, and [`RedbStore::close`]
//! ends and joins the writer. [`backup`], [`check`] and [`Restore`] work on a file that no master
//! has open.

mod apply;
mod export;
mod global_kv;
mod layout;
mod maintain;
mod open;
mod restore;
#[cfg(test)]
mod tests;
mod timers;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded, unbounded};
use redb::{Database, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction};

use super::backup::Export;
use super::global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use super::pattern::Pattern;
use super::permit::{QueuePermit, QueuePermits};
use super::shop::{ShopLook, ShopNotes};
use super::timers::{DueTimers, TimerPlace, TimerRun};
use super::{
    EmbeddedFigures, FindLimits, KvSet, OpenError, QueueFigures, Quota, Revision, Standing, Store,
    StoreFigures, StoredState, Usage, UsageGrowth,
};
use crate::base::answer::{AnswerPlace, AnswerSender};
use crate::base::error::DbError;
use crate::base::limits::{STORE_QUEUE_BYTES, STORE_QUEUE_MAX, STORE_WRITE_TIMEOUT};
use crate::base::metrics::{Counter, Histogram};
use crate::base::sync::{Lock, SharedLock};
use crate::base::thread::{self, OwnedThread};
use crate::wire::WireError;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{
    EncodedValue, KvRecord, PartialGlobalKv, Scopes, TenantId, TenantState, Timer, Timestamp,
};
use apply::{RedbWrite, WriteDone, usage_in};
use export::RedbExport;
use global_kv::GlobalOp;
use layout::{
    KV, RecordRow, SCOPES, STATES, USAGE, kv_key, parse_kv_key, parse_scope_key, split_tenant,
    state_from_bytes, tenant_key, tenant_range,
};
use open::{FileSource, Source};
use timers::TimerWrite;
use writer::{QueuedWrite, RedbWriter, WriteAnswer, unavailable, unknown};

pub use layout::SCHEMA;
pub use maintain::{BackupError, backup, check};
pub use restore::{Restore, RestoreError};

/// A store in a file.
pub struct RedbStore {
    shared: Arc<RedbShared>,
    queue_bytes: QueuePermits,
    /// Requests that wait; each has its place until the writer takes it.
    queue_places: QueuePermits,
    /// Taken away when the store is closed, which is what ends the writer.
    queue_tx: SharedLock<Option<Sender<(QueuePermit, QueuedWrite)>>>,
    writer: Lock<Option<OwnedThread>>,
}

/// What readers and the writer share.
struct RedbShared {
    /// None while the store is closed, or failed and not open again.
    ///
    /// Held only to begin a transaction, never while one reads or writes.
    database: SharedLock<Option<Database>>,
    fault_tx: Sender<()>,
    commits: Commits,
    notes: ShopNotes,
}

/// What the writer counts.
#[derive(Default)]
struct Commits {
    took: Histogram,
    operations: Counter,
    failures: Counter,
    reopens: Counter,
}

impl RedbStore {
    /// Opens the store in a file, which is made if it is not there.
    ///
    /// # Blocks
    /// Until it can serve: milliseconds, also after a crash.
    ///
    /// # Errors
    /// Why it cannot be used; see [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::start(Box::new(FileSource(path.to_owned())))
    }

    fn start(source: Box<dyn Source>) -> Result<Self, OpenError> {
        let database = source.open()?;
        // Bounded by `queue_places`.
        let (queue_tx, queue_rx) = unbounded();
        // One report is enough: the writer reopens, and what was reported before is void then.
        let (fault_tx, fault_rx) = bounded(1);
        let shared = Arc::new(RedbShared {
            database: SharedLock::new(Some(database)),
            fault_tx,
            commits: Commits::default(),
            notes: ShopNotes::default(),
        });
        let writer = RedbWriter {
            shared: Arc::clone(&shared),
            source,
            queue_rx,
            fault_rx,
            revision: Revision::default(),
        };
        let thread = thread::spawn("store-writer", move || writer.run())
            .map_err(|error| OpenError::Unavailable(error.to_string()))?;
        Ok(Self {
            shared,
            queue_bytes: QueuePermits::default(),
            queue_places: QueuePermits::default(),
            queue_tx: SharedLock::new(Some(queue_tx)),
            writer: Lock::new(Some(thread)),
        })
    }

    /// Hands a write to the writer and waits for its commit.
    fn write(&self, op: RedbWrite) -> Result<WriteDone, DbError> {
        let place = self.submit(op)?;
        // Too late, or the writer has dropped it.
        place.take_by(Instant::now() + STORE_WRITE_TIMEOUT).unwrap_or_else(|| Err(unknown()))
    }

    fn submit(&self, op: RedbWrite) -> Result<Arc<AnswerPlace<WriteAnswer>>, DbError> {
        let busy = || DbError::Busy("the store has too much to write: try again later".to_owned());
        let owner = op.owner();
        let permit =
            self.queue_bytes.take(owner, op.bytes(), STORE_QUEUE_BYTES).ok_or_else(busy)?;
        let (answer_tx, answer) = AnswerSender::new();
        let queue_tx = self.queue_tx.read();
        let queue_tx = queue_tx.as_ref().ok_or_else(unavailable)?;
        let place = self.queue_places.take(owner, 1, STORE_QUEUE_MAX).ok_or_else(busy)?;
        queue_tx.send((place, QueuedWrite { op, answer_tx, permit })).map_err(|_| unavailable())?;
        Ok(answer)
    }

    /// Reads on a snapshot.
    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, RedbFault>,
    ) -> Result<T, DbError> {
        let found = self.shared.begin_read().and_then(|snapshot| read(&snapshot));
        found.map_err(|fault| self.shared.failed(fault))
    }
}

impl RedbShared {
    fn begin_read(&self) -> Result<ReadTransaction, RedbFault> {
        let database = self.database.read();
        Ok(database.as_ref().ok_or(RedbFault::NotOpen)?.begin_read()?)
    }

    fn begin_write(&self) -> Result<WriteTransaction, RedbFault> {
        let database = self.database.read();
        Ok(database.as_ref().ok_or(RedbFault::NotOpen)?.begin_write()?)
    }

    fn take_database(&self) -> Option<Database> {
        self.database.write().take()
    }

    fn install(&self, database: Database) {
        *self.database.write() = Some(database);
    }

    /// The answer of a reader after a fault. The writer is notified of a fault that only reopening
    /// cures.
    fn failed(&self, fault: RedbFault) -> DbError {
        match fault {
            RedbFault::Answer(error) => error,
            RedbFault::NotOpen | RedbFault::Redb(redb::Error::DatabaseClosed) => unavailable(),
            RedbFault::Redb(redb::Error::Corrupted(what)) => {
                log::error!("the store is damaged: {what}");
                DbError::Internal("what the store holds there cannot be read".to_owned())
            }
            RedbFault::Redb(_) => {
                // Full: another caller logged it just now.
                let _ = self.fault_tx.try_send(());
                unavailable()
            }
        }
    }
}

/// What ended an operation, and but for an answer its transaction with it.
#[derive(Debug)]
enum RedbFault {
    /// The operation alone ends: it is refused, or a row that it needs cannot be read.
    Answer(DbError),
    /// The database is closed, or failed and not open again.
    NotOpen,
    Redb(redb::Error),
}

impl fmt::Display for RedbFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedbFault::Answer(error) => error.fmt(f),
            RedbFault::NotOpen => f.write_str("the database is not open"),
            RedbFault::Redb(error) => error.fmt(f),
        }
    }
}

impl From<DbError> for RedbFault {
    fn from(error: DbError) -> Self {
        RedbFault::Answer(error)
    }
}

/// A row is not what we wrote there; the cause is the operator's.
impl From<WireError> for RedbFault {
    fn from(error: WireError) -> Self {
        log::error!("a row of the store cannot be read: {error}");
        DbError::Internal("what the store holds there cannot be read".to_owned()).into()
    }
}

macro_rules! fault_from {
    ($($error:ty),*) => {
        $(impl From<$error> for RedbFault {
            fn from(error: $error) -> Self {
                RedbFault::Redb(error.into())
            }
        })*
    };
}

fault_from!(StorageError, redb::TableError, redb::TransactionError, redb::CommitError);

impl Store for RedbStore {
    fn tenant_states(&self, of: &ShardSet) -> Result<Vec<(TenantId, StoredState)>, DbError> {
        self.read(|snapshot| {
            let mut states = Vec::new();
            for row in snapshot.open_table(STATES)?.range::<&[u8]>(..)? {
                let (tenant, state) = row?;
                let tenant = split_tenant(tenant.value())?.0;
                if of.contains(Shard::of(tenant)) {
                    states.push((tenant, state_from_bytes(state.value())?));
                }
            }
            Ok(states)
        })
    }

    fn tenant_state(&self, tenant: TenantId) -> Result<Option<StoredState>, DbError> {
        self.read(|snapshot| {
            let row = snapshot.open_table(STATES)?.get(&tenant_key(tenant)[..])?;
            Ok(row.map(|row| state_from_bytes(row.value())).transpose()?)
        })
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<Revision, DbError> {
        self.write(RedbWrite::SetState { tenant, state }).map(WriteDone::revision)
    }

    fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<Revision, DbError> {
        self.write(RedbWrite::SetStanding { tenant, standing }).map(WriteDone::revision)
    }

    fn kv_get(
        &self,
        tenant: TenantId,
        key: &str,
        scopes: &Scopes,
    ) -> Result<Option<KvRecord>, DbError> {
        self.read(|snapshot| {
            let Some(row) = snapshot.open_table(KV)?.get(&kv_key(tenant, key, scopes)[..])? else {
                return Ok(None);
            };
            let record = RecordRow::from_bytes(row.value())?;
            Ok(Some(record.answer(key, scopes.as_slice().to_vec())))
        })
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        self.read(|snapshot| {
            let range = tenant_range(tenant, "");
            let mut scopes = Vec::new();
            for row in
                snapshot.open_table(SCOPES)?.range::<&[u8]>(&range.start[..]..&range.end[..])?
            {
                scopes.push(parse_scope_key(row?.0.value())?.to_owned());
            }
            Ok(scopes)
        })
    }

    fn kv_set(&self, tenant: TenantId, set: KvSet) -> Result<Option<UsageGrowth>, DbError> {
        match self.write(RedbWrite::KvSet { tenant, set })? {
            WriteDone::Changed(_, growth) => Ok(growth),
            WriteDone::Nothing => Ok(None),
        }
    }

    fn kv_delete(&self, tenant: TenantId, key: String, scopes: Scopes) -> Result<(), DbError> {
        self.write(RedbWrite::KvDelete { tenant, key, scopes }).map(drop)
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: &Scopes,
        pattern: &Pattern,
        mut limits: FindLimits,
    ) -> Result<Vec<KvRecord>, DbError> {
        self.read(|snapshot| {
            let range = tenant_range(tenant, pattern.prefix());
            let mut found = Vec::new();
            for row in snapshot.open_table(KV)?.range::<&[u8]>(&range.start[..]..&range.end[..])? {
                let (key, record) = row?;
                found.extend(matching(key.value(), record.value(), scopes, pattern, &mut limits)?);
            }
            // Rows come in the order of the index form; answers in that of the key itself.
            found
                .sort_by(|left, right| (&left.key, &left.scopes).cmp(&(&right.key, &right.scopes)));
            Ok(found)
        })
    }

    fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        self.read(|snapshot| usage_in(&snapshot.open_table(USAGE)?, &tenant_key(tenant)))
    }

    fn are_known(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError> {
        self.read(|snapshot| {
            let (states, usage) = (snapshot.open_table(STATES)?, snapshot.open_table(USAGE)?);
            let is_known = |tenant: &TenantId| {
                let key = &tenant_key(*tenant)[..];
                let state =
                    states.get(key)?.map(|row| state_from_bytes(row.value())).transpose()?;
                Ok(state.is_some_and(|stored| stored.state.is_some()) || usage.get(key)?.is_some())
            };
            tenants.iter().map(is_known).collect()
        })
    }

    fn global_find(
        &self,
        filter: &GlobalFilter,
        limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        self.read(|snapshot| global_kv::find(snapshot, filter, limits))
    }

    fn global_get(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError> {
        self.read(|snapshot| global_kv::get(snapshot, at))
    }

    fn global_create(&self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError> {
        self.write(RedbWrite::Global(GlobalOp::Create { entry, quota })).map(drop)
    }

    fn global_delete(&self, at: GlobalAddress, owner: Option<TenantId>) -> Result<(), DbError> {
        self.write(RedbWrite::Global(GlobalOp::Delete { at, owner })).map(drop)
    }

    fn global_change(
        &self,
        at: GlobalAddress,
        change: GlobalChange,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.write(RedbWrite::Global(GlobalOp::Change { at, change, now })).map(drop)
    }

    fn global_purchase(
        &self,
        tenant: TenantId,
        at: GlobalAddress,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.write(RedbWrite::Global(GlobalOp::Purchase { tenant, at, now })).map(drop)
    }

    fn global_is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> Result<bool, DbError> {
        self.read(|snapshot| global_kv::is_purchased(snapshot, tenant, at))
    }

    fn shop_changes(&self, since: Option<i64>) -> Result<ShopLook, DbError> {
        Ok(self.shared.notes.since(since))
    }

    /// Looks for the record of each tenant that has any.
    fn records_of_all(
        &self,
        of: &ShardSet,
        key: &str,
        scope: &str,
    ) -> Result<Vec<(TenantId, EncodedValue)>, DbError> {
        let scopes = Scopes::new([scope]);
        self.read(|snapshot| {
            let (usage, records) = (snapshot.open_table(USAGE)?, snapshot.open_table(KV)?);
            let mut found = Vec::new();
            for row in usage.range::<&[u8]>(..)? {
                let tenant = split_tenant(row?.0.value())?.0;
                if of.contains(Shard::of(tenant))
                    && let Some(row) = records.get(&kv_key(tenant, key, &scopes)[..])?
                {
                    let record = RecordRow::from_bytes(row.value())?;
                    found.push((tenant, record.answer(key, Vec::new()).value));
                }
            }
            Ok(found)
        })
    }

    fn timers(&self, tenant: TenantId) -> Result<Vec<Timer>, DbError> {
        self.read(|snapshot| timers::of(snapshot, tenant))
    }

    fn timer_set(&self, tenant: TenantId, timer: Timer) -> Result<(), DbError> {
        self.write(RedbWrite::Timer(TimerWrite::Set { tenant, timer })).map(drop)
    }

    fn timer_cancel(&self, tenant: TenantId, id: String) -> Result<bool, DbError> {
        let done = self.write(RedbWrite::Timer(TimerWrite::Cancel { tenant, id }))?;
        Ok(done != WriteDone::Nothing)
    }

    fn timers_due(
        &self,
        of: &ShardSet,
        behind: Option<&TimerPlace>,
        until: Timestamp,
        max: usize,
    ) -> Result<DueTimers, DbError> {
        self.read(|snapshot| timers::due(snapshot, of, behind, until, max))
    }

    fn timers_ran(&self, runs: Vec<TimerRun>) -> Result<(), DbError> {
        self.write(RedbWrite::Timer(TimerWrite::Ran(runs))).map(drop)
    }

    fn timers_count(&self, of: &ShardSet) -> Result<u64, DbError> {
        self.read(|snapshot| timers::count(snapshot, of))
    }

    fn export(&self) -> Result<Export, DbError> {
        Ok(Box::new(RedbExport::begin(&self.shared)?))
    }

    fn figures(&self) -> StoreFigures {
        let waiting = self.queue_tx.read().as_ref().map_or(0, Sender::len);
        let bytes = self.queue_bytes.total().bytes;
        let commits = &self.shared.commits;
        StoreFigures {
            queue: Some(QueueFigures { operations: waiting, bytes }),
            embedded: Some(EmbeddedFigures {
                commits: commits.took.snapshot(),
                operations: commits.operations.get(),
                failures: commits.failures.get(),
                reopens: commits.reopens.get(),
            }),
            server: None,
        }
    }

    fn close(&self) {
        self.queue_tx.write().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            writer.join();
        }
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// The record of a row, if a Find asks for it.
fn matching(
    row: &[u8],
    record: &[u8],
    scopes: &Scopes,
    pattern: &Pattern,
    limits: &mut FindLimits,
) -> Result<Option<KvRecord>, RedbFault> {
    let (key, has) = parse_kv_key(row)?;
    // Both sorted; a record has few scopes.
    let has_all = scopes.as_slice().iter().all(|asked| has.binary_search(&asked.as_str()).is_ok());
    if !has_all || !pattern.matches(key) {
        return Ok(None);
    }
    let record = RecordRow::from_bytes(record)?;
    let has: Vec<String> = has.into_iter().map(str::to_owned).collect();
    limits.take(key, &has, record.value.len())?;
    Ok(Some(record.answer(key, has)))
}
