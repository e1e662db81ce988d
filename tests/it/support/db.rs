//! The database behind every door that a worker may have: in this process, over HTTP, and over HTTP
//! without the worker's own checks, each over every store.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mesophyll::base::error::DbError;
use mesophyll::dispatch::MessageDoor;
use mesophyll::net::http::{Body, Handler, HttpLimits, HttpServer, RequestHead, Response};
use mesophyll::pool::WorkerDb;
use mesophyll::protocol::{DbRequestFigures, MesophyllDbClient, Outbox, db_routes};
use mesophyll::runtime::TenantDb;
use mesophyll::store::{self, Caller, DbOptions, DbState, Store, StoreUrl};
use mesophyll::wire;
use mesophyll::wire::data::{
    DbAnswer, DbOp, EncodedValue, GlobalKeyValueOp, GlobalKv, KeyValueOp, KhronosValue, KvRecord,
    MessageOutcome, PartialGlobalKv, PublicGlobalKeyValueOp, Scopes, TenantId, TenantMessage,
    TenantState,
};

#[cfg(feature = "postgres")]
use super::postgres::{self, Locale};
use super::{DEADLINE, TempDir};

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    InMemory,
    InRedb,
    #[cfg(feature = "postgres")]
    Postgres(Locale),
    /// On a server of the test's own, over TLS.
    #[cfg(feature = "postgres-tls")]
    PostgresOverTls,
}

impl Kept {
    /// Whether this machine has it; if not, the test is skipped, and that is said.
    pub(crate) fn is_there(self, test: &str) -> bool {
        #[cfg(feature = "postgres")]
        if matches!(self, Kept::Postgres(_)) {
            return postgres::is_there(test);
        }
        // Everybody has the others.
        let _ = test;
        true
    }
}

/// Where a store is, gone with this.
pub(crate) enum Place {
    Memory,
    Folder(TempDir),
    #[cfg(feature = "postgres")]
    Schema(postgres::Schema),
}

impl Place {
    pub(crate) fn new(kept: Kept) -> Self {
        match kept {
            Kept::InMemory => Place::Memory,
            Kept::InRedb => Place::Folder(TempDir::new()),
            #[cfg(feature = "postgres")]
            Kept::Postgres(locale) => Place::Schema(postgres::Schema::migrated(locale)),
            #[cfg(feature = "postgres-tls")]
            Kept::PostgresOverTls => Place::Schema(postgres::Schema::over_tls()),
        }
    }

    /// Opens the store that is there.
    pub(crate) fn open(&self) -> Arc<dyn Store> {
        let url = match self {
            Place::Memory => StoreUrl::Memory,
            Place::Folder(folder) => StoreUrl::Redb(folder.path().join("store.redb")),
            #[cfg(feature = "postgres")]
            Place::Schema(schema) => schema.store_url(),
        };
        store::open(&url).expect("a store")
    }
}

/// How the database is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `WorkerDb` in this process.
    Direct,
    /// `WorkerDb` over HTTP.
    Http,
    /// `MesophyllDbClient` alone: every rule is the master's to check.
    Unchecked,
}

/// A database to be tested.
pub(crate) struct TestDb {
    /// As a tenant reaches it.
    pub(crate) tenants: Box<dyn TenantDb>,
    /// As the master has it.
    pub(crate) state: Arc<DbState>,
    /// What is under that.
    pub(crate) store: Arc<dyn Store>,
    // In this order: the server ends before the place goes.
    server: Option<HttpServer>,
    _place: Place,
}

impl TestDb {
    /// The database of worker 0 of 1.
    pub(crate) fn new(kept: Kept, door: Door) -> Self {
        Self::with(kept, door, DbOptions::default(), 1)
    }

    /// The database of worker 0 of `workers`.
    pub(crate) fn with(kept: Kept, door: Door, options: DbOptions, workers: usize) -> Self {
        let place = Place::new(kept);
        let store = place.open();
        let state =
            Arc::new(DbState::new(Arc::clone(&store), options).expect("a new store is readable"));
        let server = (door != Door::Direct).then(|| serve(&state, workers));
        let client = || {
            let address = server.as_ref().expect("not Direct").local_addr();
            MesophyllDbClient::new(&address.to_string(), 0, "token")
        };
        let tenants: Box<dyn TenantDb> = match door {
            Door::Direct => {
                Box::new(WorkerDb::direct(Arc::clone(&state), 0, workers, MessageDoor::default()))
            }
            Door::Http => Box::new(WorkerDb::mesophyll(client(), Outbox::default())),
            Door::Unchecked => Box::new(Unchecked(client())),
        };
        Self { tenants, state, store, server, _place: place }
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.shutdown(Instant::now() + DEADLINE);
        }
        self.state.close();
    }
}

/// A database in a file of the test's own, or in memory.
pub(crate) fn open(kept: Kept, file: &Path, options: DbOptions) -> Arc<DbState> {
    let url = if kept == Kept::InRedb { StoreUrl::Redb(file.to_owned()) } else { StoreUrl::Memory };
    let store = store::open(&url).expect("a new store");
    Arc::new(DbState::new(store, options).expect("a new store is readable"))
}

/// Serves `/db/*` to a worker 0 of so many, whatever its token.
pub(crate) fn serve(state: &Arc<DbState>, workers: usize) -> HttpServer {
    struct Routes {
        state: Arc<DbState>,
        workers: usize,
    }
    impl Handler for Routes {
        fn handle(&self, head: &RequestHead, body: &mut Body<'_>) -> Response {
            if let Err(response) = db_routes::check_endpoint(head) {
                return response;
            }
            let caller = Caller { worker_id: 0, workers: self.workers };
            db_routes::handle(&self.state, &DbRequestFigures::default(), caller, head, body)
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let routes = Arc::new(Routes { state: Arc::clone(state), workers });
    HttpServer::start(listener, "test", HttpLimits::default(), routes).expect("a server")
}

/// A client without a worker's own checks.
struct Unchecked(MesophyllDbClient);

impl TenantDb for Unchecked {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        self.0.tenant_states()
    }

    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        self.0.ask(&op)
    }

    fn send(&self, _: TenantMessage) -> MessageOutcome {
        MessageOutcome::Busy
    }
}

/// Each operation by its name and with the type of its answer.
pub(crate) trait Typed {
    fn answer(&self, op: DbOp) -> Result<DbAnswer, DbError>;

    fn kv(&self, tenant: TenantId, op: KeyValueOp) -> Result<DbAnswer, DbError> {
        self.answer(DbOp::Kv(tenant, op))
    }

    fn kv_get(
        &self,
        tenant: TenantId,
        scopes: impl Borrow<Scopes>,
        key: impl Into<String>,
    ) -> Result<Option<KvRecord>, DbError> {
        let (scopes, key) = (scopes.borrow().clone(), key.into());
        self.kv(tenant, KeyValueOp::Get { scopes, key })?.into_record()
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        match self.kv(tenant, KeyValueOp::ListScopes)? {
            DbAnswer::Scopes(scopes) => Ok(scopes),
            other => panic!("no scopes: {other:?}"),
        }
    }

    fn kv_set(
        &self,
        tenant: TenantId,
        scopes: Scopes,
        key: String,
        value: impl Borrow<EncodedValue>,
    ) -> Result<(), DbError> {
        let value = value.borrow().clone();
        self.kv(tenant, KeyValueOp::Set { scopes, key, value }).map(done)
    }

    fn kv_delete(&self, tenant: TenantId, scopes: Scopes, key: String) -> Result<(), DbError> {
        self.kv(tenant, KeyValueOp::Delete { scopes, key }).map(done)
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: impl Borrow<Scopes>,
        query: impl Into<String>,
    ) -> Result<Vec<KvRecord>, DbError> {
        let (scopes, query) = (scopes.borrow().clone(), query.into());
        match self.kv(tenant, KeyValueOp::Find { scopes, query })? {
            DbAnswer::Records(records) => Ok(records),
            other => panic!("no records: {other:?}"),
        }
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<(), DbError> {
        self.answer(DbOp::SetTenantState(tenant, state)).map(done)
    }

    fn global_kv_find(
        &self,
        query: String,
        scope: String,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        match self.answer(DbOp::Public(None, PublicGlobalKeyValueOp::Find { query, scope }))? {
            DbAnswer::Entries(entries) => Ok(entries),
            other => panic!("no entries: {other:?}"),
        }
    }

    fn global_kv_get(
        &self,
        tenant: TenantId,
        key: String,
        version: i32,
        scope: String,
    ) -> Result<Option<GlobalKv>, DbError> {
        let get = PublicGlobalKeyValueOp::Get { key, version, scope, id: Some(tenant) };
        match self.answer(DbOp::Public(Some(tenant), get))? {
            DbAnswer::Entry(entry) => Ok(entry.map(|entry| *entry)),
            other => panic!("no entry: {other:?}"),
        }
    }

    fn global_kv(&self, tenant: TenantId, op: GlobalKeyValueOp) -> Result<(), DbError> {
        self.answer(DbOp::Global(tenant, op)).map(done)
    }
}

fn done(answer: DbAnswer) {
    assert_eq!(answer, DbAnswer::Done);
}

impl Typed for dyn TenantDb {
    fn answer(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        self.ask(op)
    }
}

impl Typed for MesophyllDbClient {
    fn answer(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        self.ask(&op)
    }
}

/// As the only worker.
impl Typed for DbState {
    fn answer(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        self.ask(Caller { worker_id: 0, workers: 1 }, op)
    }
}

/// A text as a value.
pub(crate) fn text(text: &str) -> EncodedValue {
    wire::pack::value::encode(&KhronosValue::Text(text.to_owned()))
}

/// Why it was refused.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Refused(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
