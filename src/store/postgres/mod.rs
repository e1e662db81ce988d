//! The PostgreSQL store: a fixed number of connections, which callers borrow in turn and use on their own threads.
//!
//! A caller waits for a connection, and for the server's answer on it, never longer than the timeouts in `limits.rs`; one that
//! has no connection by then has changed nothing. The tables are those of an existing template-worker (protocol.md), which may
//! write to them too. Deliberately without TLS: the server is on this machine or in the same private network. Owned by whoever
//! opened it; [`PostgresStore::close`] waits for who still has a connection, and joins the thread that makes them.

mod call;
mod client;
mod connect;
mod connector;
mod error;
mod export;
mod pool;
mod records;
mod row;
mod schema;
mod session;
mod shop;
mod socket;
mod states;
mod usage;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::backup::Export;
use super::global::{GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter};
use super::pattern::Pattern;
use super::weight::Weight;
use super::{
    FindLimits, KvSet, OpenError, QueueFigures, Quota, Revision, Standing, Store, StoreFigures, StoreOptions,
    StoredState, Usage,
};
use crate::error::DbError;
use crate::limits::{
    POSTGRES_CONNECT_TIMEOUT, POSTGRES_QUEUE_TIMEOUT, POSTGRES_STATEMENT_TIMEOUT, STORE_QUEUE_BYTES,
    STORE_WRITE_TIMEOUT,
};
use crate::model::{KvRecord, PartialGlobalKv, Scopes, TenantId, TenantState, Timestamp};
use crate::thread::{self, OwnedThread};
use call::carry_out;
use connector::Connections;
use export::PostgresExport;
use pool::{NotLent, Who};
use session::{Fault, Session, unavailable};

pub(super) use schema::migrate;

/// Whether a URL can be understood; touches no server.
pub(super) fn check_url(url: &str) -> Result<(), OpenError> {
    session::config(url).map(drop)
}

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    connections: Arc<Connections>,
    queue_bytes: Arc<AtomicUsize>,
    revisions: AtomicU64,
    /// The thread that connects, until the end.
    thread: Mutex<Option<OwnedThread>>,
}

/// Whether an operation may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    Read,
    Write,
}

impl PostgresStore {
    /// Connects, and checks that the tables are there.
    ///
    /// # Blocks
    /// Until the server answered.
    ///
    /// # Errors
    /// Why it cannot be used; see [`OpenError`].
    pub fn open(url: &str, options: StoreOptions) -> Result<Self, OpenError> {
        let config = session::config(url)?;
        let mut session = schema::connect(&config)?;
        schema::check(&mut session)?;
        let connections = Connections::new(config, options.connections.max(1), session);
        let kept_up = Arc::clone(&connections);
        let thread = thread::spawn("store-pg", move || kept_up.keep_up());
        let thread = thread.map_err(|error| OpenError::Unavailable(error.to_string()))?;
        let (queue_bytes, revisions) = Default::default();
        Ok(Self { connections, queue_bytes, revisions, thread: Mutex::new(Some(thread)) })
    }

    fn read<T>(&self, who: Who, work: impl FnMut(&mut Session) -> Result<T, Fault>) -> Result<T, DbError> {
        self.call((who, Access::Read), 0, work)
    }

    fn write<T>(
        &self,
        who: Who,
        bytes: usize,
        work: impl FnMut(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, DbError> {
        self.call((who, Access::Write), bytes, work)
    }

    /// Borrows a connection and carries an operation out on it.
    fn call<T>(
        &self,
        (who, access): (Who, Access),
        bytes: usize,
        mut work: impl FnMut(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, DbError> {
        let busy = || DbError::Busy("the store has too much to do: try again later".to_owned());
        let started = Instant::now();
        let _weight = Weight::take(bytes, &self.queue_bytes, STORE_QUEUE_BYTES).ok_or_else(busy)?;
        let loan = self.connections.pool.borrow(who, access, started + POSTGRES_QUEUE_TIMEOUT);
        let loan = loan.map_err(|why| match why {
            NotLent::Full => busy(),
            NotLent::Closed => closed(),
            NotLent::Unavailable => unavailable(),
        })?;
        let deadline = started + STORE_WRITE_TIMEOUT;
        carry_out(loan, deadline, |session| {
            session.set_deadline(Some(deadline));
            work(session)
        })
    }
}

fn closed() -> DbError {
    DbError::Unavailable("the store is closed".to_owned())
}

impl Store for PostgresStore {
    fn tenant_states(&self) -> Result<Vec<(TenantId, StoredState)>, DbError> {
        self.read(Who::Everybody, states::all)
    }

    fn tenant_state(&self, tenant: TenantId) -> Result<Option<StoredState>, DbError> {
        self.read(Who::Tenant(tenant), |session| states::get(session, tenant))
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<Revision, DbError> {
        let bytes = state.data.as_bytes().len();
        self.write(Who::Tenant(tenant), bytes, |session| states::set(session, tenant, &state, &self.revisions))
    }

    fn set_standing(&self, tenant: TenantId, standing: Standing) -> Result<Revision, DbError> {
        self.write(Who::Tenant(tenant), 0, |session| states::set_standing(session, tenant, standing, &self.revisions))
    }

    fn kv_get(&self, tenant: TenantId, key: &str, scopes: &Scopes) -> Result<Option<KvRecord>, DbError> {
        self.read(Who::Tenant(tenant), |session| records::get(session, tenant, key, scopes))
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        self.read(Who::Tenant(tenant), |session| records::list_scopes(session, tenant))
    }

    fn kv_set(&self, tenant: TenantId, set: KvSet) -> Result<(), DbError> {
        self.write(Who::Tenant(tenant), set.value.as_bytes().len(), |session| records::set(session, tenant, &set))?
    }

    fn kv_delete(&self, tenant: TenantId, key: String, scopes: Scopes) -> Result<(), DbError> {
        self.write(Who::Tenant(tenant), 0, |session| records::delete(session, tenant, &key, &scopes))
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: &Scopes,
        pattern: &Pattern,
        limits: FindLimits,
    ) -> Result<Vec<KvRecord>, DbError> {
        self.read(Who::Tenant(tenant), |session| records::find(session, tenant, scopes, pattern, limits))
    }

    fn kv_usage(&self, tenant: TenantId) -> Result<Usage, DbError> {
        self.read(Who::Tenant(tenant), |session| records::usage(session, tenant))
    }

    fn kv_have_records(&self, tenants: &[TenantId]) -> Result<Vec<bool>, DbError> {
        self.read(Who::Everybody, |session| records::have_any(session, tenants))
    }

    fn global_find(&self, scope: &str, pattern: &Pattern, limits: FindLimits) -> Result<Vec<PartialGlobalKv>, DbError> {
        self.read(Who::Everybody, |session| shop::find(session, scope, pattern, limits))
    }

    fn global_list(&self, filter: &GlobalFilter, limits: FindLimits) -> Result<Vec<PartialGlobalKv>, DbError> {
        self.read(Who::Everybody, |session| shop::list(session, filter, limits))
    }

    fn global_get(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError> {
        self.read(Who::Everybody, |session| shop::get(session, at))
    }

    fn global_create(&self, entry: GlobalEntry, quota: Quota) -> Result<(), DbError> {
        let partial = &entry.partial;
        let who = TenantId::from_parts(&partial.owner_type, &partial.owner_id).map_or(Who::Everybody, Who::Tenant);
        // An entry fits into a request's body.
        let bytes = usize::try_from(entry.charge()).unwrap_or(usize::MAX / 2);
        self.write(who, bytes, |session| shop::create(session, &entry, quota))?
    }

    fn global_delete(&self, at: GlobalAddress, owner: Option<TenantId>) -> Result<(), DbError> {
        let who = owner.map_or(Who::Everybody, Who::Tenant);
        self.write(who, 0, |session| shop::delete(session, &at, owner))
    }

    fn global_change(&self, at: GlobalAddress, change: GlobalChange, now: Timestamp) -> Result<(), DbError> {
        self.write(Who::Everybody, 0, |session| shop::alter(session, &at, &change, now))
    }

    fn global_purchase(&self, tenant: TenantId, at: GlobalAddress, now: Timestamp) -> Result<(), DbError> {
        self.write(Who::Tenant(tenant), 0, |session| shop::purchase(session, tenant, &at, now))
    }

    fn global_is_purchased(&self, tenant: TenantId, at: &GlobalAddress) -> Result<bool, DbError> {
        self.read(Who::Tenant(tenant), |session| shop::is_purchased(session, tenant, at))
    }

    fn export(&self) -> Result<Export, DbError> {
        if self.connections.pool.is_closed() {
            return Err(closed());
        }
        Ok(Box::new(PostgresExport::begin(self.connections.config())?))
    }

    fn figures(&self) -> StoreFigures {
        let bytes = self.queue_bytes.load(Ordering::Relaxed);
        StoreFigures {
            queue: Some(QueueFigures { operations: self.connections.pool.waiting(), bytes }),
            embedded: None,
            server: Some(self.connections.figures()),
        }
    }

    fn close(&self) {
        let pool = &self.connections.pool;
        pool.close();
        let deadline = Instant::now() + STORE_WRITE_TIMEOUT;
        if !pool.wait_until_over(deadline) {
            log::error!("postgres: an operation goes on beyond its deadline");
        }
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // It has to notice, or to come to the end of an attempt to connect.
        if thread.wait_until(Instant::now() + POSTGRES_CONNECT_TIMEOUT + POSTGRES_STATEMENT_TIMEOUT) {
            thread.join();
        } else {
            // A lookup of a name knows no deadline.
            log::error!("{}: still connecting; left to the end of the process", thread.name());
            std::mem::forget(thread);
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresStore")
    }
}
