//! The PostgreSQL store: a fixed number of threads, each with a connection, that take operations
//! from one bounded queue, in which tenants take turns.
//!
//! A caller hands its operation over and waits, never longer than the timeouts in `limits.rs`; one
//! that has not begun by then is not carried out. The tables are those of an existing
//! template-worker (protocol.md), which may write to them too. Owned by its opener;
//! [`PostgresStore::close`] ends and joins the threads.

mod calls;
mod connector;
mod export;
mod global_kv;
mod known_rows;
mod lease;
mod queue;
mod records;
mod schema;
mod session;
mod shop;
mod states;
mod timers;
#[cfg(feature = "postgres-tls")]
mod tls;
#[cfg(not(feature = "postgres-tls"))]
#[path = "no_tls.rs"]
mod tls;
mod usage;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::backup::Export;
use super::global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use super::lease::{Fence, HeldShards};
use super::pattern::Pattern;
use super::permit::QueuePermits;
use super::shop::ShopLook;
use super::timers::{DueTimers, TimerPlace, TimerRun};
use super::{
    FindLimits, KvSet, OpenError, QueueFigures, Quota, Revision, Standing, Store, StoreFigures,
    StoreOptions, StoredState, Usage, UsageGrowth,
};
use crate::base::error::DbError;
use crate::base::limits::{
    POSTGRES_GETS_WAIT, POSTGRES_QUEUE_TIMEOUT, STORE_QUEUE_BYTES, STORE_WRITE_TIMEOUT,
};
use crate::base::spin::Spin;
use crate::base::sync::Lock;
use crate::base::thread::{self, OwnedThread};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    EncodedValue, KvRecord, PartialGlobalKv, Scopes, TenantId, TenantState, Timer, Timestamp,
};
use calls::{AnyWork, PgCall, PgWaiting, Work};
use connector::PgConnector;
use export::PostgresExport;
use known_rows::KnownRows;
use queue::{JobOwner, Queue};
use records::{GetWork, RecordAddress, SetWork};
use session::{PgSession, SessionFault, unavailable, unknown};
use worker::{PgShared, Worker};

pub(super) use lease::coordination;
pub(super) use schema::migrate;

/// Whether a URL can be understood; touches no server.
pub(super) fn check_url(url: &str) -> Result<(), OpenError> {
    PgConnector::new(url).map(drop)
}

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    connector: PgConnector,
    shared: Arc<PgShared>,
    held: Arc<HeldShards>,
    queue_bytes: QueuePermits,
    revisions: Arc<AtomicU64>,
    known_rows: Arc<KnownRows>,
    /// Closed when the store is, which is what ends the threads.
    queue: Arc<Queue>,
    threads: Lock<Vec<OwnedThread>>,
}

/// Whether an operation may have changed something by the time its caller stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    Read,
    Write,
}

impl PostgresStore {
    /// Connects, and checks that the tables are there. Writes are fenced with what is held.
    ///
    /// # Blocks
    /// Until the server answered.
    ///
    /// # Errors
    /// Why it cannot be used; see [`OpenError`].
    pub fn open(
        url: &str,
        options: StoreOptions,
        held: Arc<HeldShards>,
    ) -> Result<Self, OpenError> {
        let connector = PgConnector::new(url)?;
        let mut session = schema::connect(&connector)?;
        schema::check(&mut session)?;
        let shared = Arc::new(PgShared::new(connector.clone()));
        let count = options.connections.max(1);
        // Should a thread not start, the drop of this ends and joins the others.
        let store = Self {
            connector,
            shared: Arc::clone(&shared),
            held,
            queue_bytes: QueuePermits::default(),
            revisions: Arc::default(),
            known_rows: Arc::default(),
            queue: Arc::new(Queue::new(count)),
            threads: Lock::default(),
        };
        let mut first = Some(session);
        for number in 0..count {
            let worker = Worker::new(Arc::clone(&shared), Arc::clone(&store.queue));
            let session = first.take();
            let thread = thread::spawn(format!("store-pg-{number}"), move || worker.run(session));
            let thread = thread.map_err(|error| OpenError::Unavailable(error.to_string()))?;
            store.threads.lock().push(thread);
        }
        Ok(store)
    }

    fn read<T: Send + 'static>(
        &self,
        who: JobOwner,
        work: impl FnMut(&mut PgSession) -> Result<T, SessionFault> + Send + 'static,
    ) -> Result<T, DbError> {
        self.call((who, Access::Read), 0, AnyWork { work, found: None })
    }

    fn write<T: Send + 'static>(
        &self,
        who: JobOwner,
        bytes: usize,
        work: impl FnMut(&mut PgSession) -> Result<T, SessionFault> + Send + 'static,
    ) -> Result<T, DbError> {
        self.call((who, Access::Write), bytes, AnyWork { work, found: None })
    }

    /// A write of its owner's data: under the fence of the moment at which it is taken in, so that
    /// one that still waits when the shard has gone, and maybe come back, is refused. A write of
    /// no tenant's has no fence.
    fn write_fenced<T, W>(&self, owner: JobOwner, bytes: usize, mut work: W) -> Result<T, DbError>
    where
        T: Send + 'static,
        W: FnMut(&mut PgSession, Option<Fence>) -> Result<T, SessionFault> + Send + 'static,
    {
        let fence = owner.map_or(Ok(None), |tenant| self.held.fence(tenant))?;
        let held = Arc::clone(&self.held);
        self.write(owner, bytes, move |session| {
            work(session, fence).inspect_err(|fault| {
                if matches!(fault, SessionFault::Answer(DbError::NotOwner(_))) {
                    held.refused();
                }
            })
        })
    }

    /// Hands an operation over and waits for its answer.
    fn call<W: Work + 'static>(
        &self,
        (who, access): (JobOwner, Access),
        bytes: usize,
        work: W,
    ) -> Result<W::Found, DbError> {
        let permit = self.queue_bytes.take(who, bytes, STORE_QUEUE_BYTES).ok_or_else(busy)?;
        let (call, PgWaiting { place, progress }) = PgCall::new(work, permit);
        self.queue.push(who, access, Box::new(call))?;
        let started = Instant::now();
        if access == Access::Read {
            READERS.wait(|| place.is_over());
            if !place.wait_until(started + POSTGRES_GETS_WAIT) && !progress.has_begun() {
                self.queue.let_gets_go();
            }
        }
        if !place.wait_until(started + POSTGRES_QUEUE_TIMEOUT) && progress.abandon() {
            return Err(unavailable());
        }
        // It has begun, or it was answered.
        place.take_by(started + STORE_WRITE_TIMEOUT).unwrap_or_else(|| match access {
            Access::Read => Err(unavailable()),
            Access::Write => Err(unknown()),
        })
    }
}

/// Callers that wait for what they read; what is written has to be synced first.
static READERS: Spin = Spin::new();

fn busy() -> DbError {
    DbError::Busy("the store has too much to do: try again later".to_owned())
}

fn closed() -> DbError {
    DbError::Unavailable("the store is closed".to_owned())
}

impl Store for PostgresStore {
    fn tenant_states(&self, of: &ShardSet) -> Result<Vec<(TenantId, StoredState)>, DbError> {
        let of = *of;
        self.read(None, move |session| states::all(session, &of))
    }

    fn tenant_state(&self, tenant: TenantId) -> Result<Option<StoredState>, DbError> {
        self.read(Some(tenant), move |session| states::get(session, tenant))
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<Revision, DbError> {
        let revisions = Arc::clone(&self.revisions);
        let bytes = state.data.as_bytes().len();
        self.write_fenced(Some(tenant), bytes, move |session, fence| {
            states::set(session, tenant, fence, &state, &revisions)
        })
    }

    fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<Revision, DbError> {
        let revisions = Arc::clone(&self.revisions);
        self.write_fenced(Some(tenant), 0, move |session, fence| {
            states::set_standing(session, tenant, fence, standing, &revisions)
        })
    }

    fn kv_get(
        &self,
        tenant: TenantId,
        key: &str,
        scopes: &Scopes,
    ) -> Result<Option<KvRecord>, DbError> {
        let address = RecordAddress { tenant, key: key.to_owned(), scopes: scopes.clone() };
        let work = GetWork::new(address, Arc::clone(&self.known_rows));
        self.call((Some(tenant), Access::Read), 0, work)
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        self.read(Some(tenant), move |session| records::list_scopes(session, tenant))
    }

    fn kv_set(&self, tenant: TenantId, set: KvSet) -> Result<Option<UsageGrowth>, DbError> {
        let bytes = set.value.as_bytes().len();
        let fence = (self.held.fence(tenant)?, Arc::clone(&self.held));
        let work = SetWork::new(tenant, set, fence, Arc::clone(&self.known_rows))?;
        self.call((Some(tenant), Access::Write), bytes, work)?
    }

    fn kv_delete(&self, tenant: TenantId, key: String, scopes: Scopes) -> Result<(), DbError> {
        let (address, known) = (RecordAddress { tenant, key, scopes }, self.known_rows.clone());
        self.write_fenced(Some(tenant), 0, move |session, fence| {
            known.forget(&address);
            records::delete(session, fence, &address)
        })
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: &Scopes,
        pattern: &Pattern,
        limits: FindLimits,
    ) -> Result<Vec<KvRecord>, DbError> {
        let (scopes, pattern) = (scopes.clone(), pattern.clone());
        self.read(Some(tenant), move |session| {
            records::find(session, tenant, &scopes, &pattern, limits)
        })
    }

    fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        self.read(Some(tenant), move |session| records::usage(session, tenant))
    }

    fn are_known(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError> {
        let tenants = tenants.to_vec();
        self.read(None, move |session| states::are_known(session, &tenants))
    }

    fn global_find(
        &self,
        filter: &GlobalFilter,
        limits: FindLimits,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        let filter = filter.clone();
        self.read(None, move |session| global_kv::find(session, &filter, limits))
    }

    fn global_get(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError> {
        let at = at.clone();
        self.read(None, move |session| global_kv::get(session, &at))
    }

    fn global_create(&self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError> {
        self.write_fenced(entry.owner(), entry.bytes(), move |session, fence| {
            global_kv::create(session, fence, &entry, quota)
        })?
    }

    fn global_delete(&self, at: GlobalAddress, owner: Option<TenantId>) -> Result<(), DbError> {
        self.write_fenced(owner, 0, move |session, fence| {
            global_kv::delete(session, fence, &at, owner)
        })
    }

    fn global_change(
        &self,
        at: GlobalAddress,
        change: GlobalChange,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.write(None, 0, move |session| global_kv::alter(session, &at, &change, now))
    }

    fn global_purchase(
        &self,
        tenant: TenantId,
        at: GlobalAddress,
        now: Timestamp,
    ) -> Result<(), DbError> {
        self.write(Some(tenant), 0, move |session| global_kv::purchase(session, tenant, &at, now))
    }

    fn global_is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> Result<bool, DbError> {
        let at = at.clone();
        self.read(Some(tenant), move |session| global_kv::is_purchased(session, tenant, &at))
    }

    fn shop_changes(&self, since: Option<i64>) -> Result<ShopLook, DbError> {
        self.read(None, move |session| shop::look(session, since))
    }

    fn records_of_all(
        &self,
        of: &ShardSet,
        key: &str,
        scope: &str,
    ) -> Result<Vec<(TenantId, EncodedValue)>, DbError> {
        let (of, key, scope) = (*of, key.to_owned(), scope.to_owned());
        self.read(None, move |session| records::of_all(session, &of, &key, &scope))
    }

    fn timers(&self, tenant: TenantId) -> Result<Vec<Timer>, DbError> {
        self.read(Some(tenant), move |session| timers::of(session, tenant))
    }

    fn timer_set(&self, tenant: TenantId, timer: Timer) -> Result<(), DbError> {
        let bytes = timer.data.as_bytes().len();
        self.write_fenced(Some(tenant), bytes, move |session, fence| {
            timers::set(session, tenant, fence, &timer)
        })?
    }

    fn timer_cancel(&self, tenant: TenantId, id: String) -> Result<bool, DbError> {
        self.write_fenced(Some(tenant), 0, move |session, fence| {
            timers::cancel(session, tenant, fence, &id)
        })
    }

    fn timers_due(
        &self,
        of: &ShardSet,
        behind: Option<&TimerPlace>,
        until: Timestamp,
        max: usize,
    ) -> Result<DueTimers, DbError> {
        let (of, behind) = (*of, behind.cloned());
        self.read(None, move |session| timers::due(session, &of, behind.as_ref(), until, max))
    }

    fn timers_ran(&self, runs: Vec<TimerRun>) -> Result<(), DbError> {
        let fences = runs.iter().map(|run| self.held.fence(run.tenant));
        let fences = fences.filter_map(Result::transpose).collect::<Result<Vec<Fence>, _>>()?;
        let bytes = 64 * runs.len();
        let ran = self.write(None, bytes, move |session| timers::ran(session, &fences, &runs));
        ran.inspect_err(|error| {
            if matches!(error, DbError::NotOwner(_)) {
                self.held.refused();
            }
        })
    }

    fn timers_count(&self, of: &ShardSet) -> Result<u64, DbError> {
        let of = *of;
        self.read(None, move |session| timers::count(session, &of))
    }

    fn export(&self) -> Result<Export, DbError> {
        if self.queue.is_closed() {
            return Err(closed());
        }
        Ok(Box::new(PostgresExport::begin(&self.connector)?))
    }

    fn figures(&self) -> StoreFigures {
        let bytes = self.queue_bytes.total().bytes;
        StoreFigures {
            queue: Some(QueueFigures { operations: self.queue.waiting(), bytes }),
            embedded: None,
            server: Some(self.shared.figures()),
        }
    }

    fn close(&self) {
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let deadline = Instant::now() + STORE_WRITE_TIMEOUT;
        for thread in threads {
            if thread.wait_until(deadline) {
                thread.join();
            } else {
                log::error!(
                    "{}: the server does not answer; left to the end of the process",
                    thread.name()
                );
                std::mem::forget(thread);
            }
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.close();
    }
}
