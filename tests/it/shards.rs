//! Shards that come to a master and leave it: what its workers of either kind, which run Luau, do
//! with their tenants.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesophyll::base::error::DispatchError;
use mesophyll::cluster::{ShardTable, ShardTenants};
use mesophyll::dispatch::worker_like::{WorkerLike, handed_over};
use mesophyll::dispatch::{DispatchResult, MessageDoor};
use mesophyll::pool::process::supervisor::{Cause, Policy};
use mesophyll::pool::{
    AdmittingPool, ChildSpec, Managed, Operator, PoolShards, ProcessConfig, Program, Quarantine,
    Spawner, Subscriptions, Traffic, WorkerDb, WorkerPool, WorkerProcessHandle, WorkerThread,
    WorkerThreadHandle,
};
use mesophyll::protocol::{LocalWorker, MesophyllServer, ServerConfig};
use mesophyll::runtime::TenantStates as _;
use mesophyll::runtime::luau::{LuauConfig, LuauRuntime, TemplateSource};
use mesophyll::store::{DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::sharding::{Shard, ShardSet};
use mesophyll::wire::data::{
    CreateEvent, EncodedJson, EventData, KhronosValue, TenantId, TenantState,
};
use mesophyll::wire::pack::value::decode;

use crate::support::binary::BINARY;
use crate::support::process::eventually;
use crate::support::{DEADLINE, TempDir};

/// Counts the events of a VM, so that a new VM is known by its 1, and its starts in a record.
const MAIN: &str = "
local count = 0
return function(ctx)
    local event = ctx:event()
    if event.name == 'OnStartup' then
        return ctx.KV:update('starts', { 'test' }, function(old) return (old or 0) + 1 end)
    elseif event.name == 'STARTS' then
        return ctx.KV:get('starts', { 'test' })
    end
    count += 1
    if event.name == 'WAIT' then task.wait(event.data) end
    return count
end";

/// The one that moves, and one that stays.
const MOVES: TenantId = TenantId::Guild(1 << 22);
const STAYS: TenantId = TenantId::Guild(2 << 22);

/// A master of one worker, as far as shards are concerned.
struct Sharded {
    pool: Arc<AdmittingPool>,
    operator: Operator,
    worker: Arc<dyn Managed>,
    traffic: Arc<Traffic>,
    table: Arc<ShardTable>,
    shards: PoolShards,
    server: Option<MesophyllServer>,
    _templates: TempDir,
}

fn shard_of(tenant: TenantId) -> ShardSet {
    [Shard::of(tenant)].into_iter().collect()
}

fn event(name: &str, data: &str) -> CreateEvent {
    let data = EventData::RawValue(data.to_owned());
    CreateEvent { name: name.to_owned(), author: None, data }
}

fn far() -> Instant {
    Instant::now() + DEADLINE
}

fn process(server: &MesophyllServer, templates: &TempDir) -> Arc<dyn Managed> {
    let master = server.local_addr().to_string();
    let templates = templates.path().display().to_string();
    let args = ["worker", "--id", "0", "--workers", "1", "--master", &master];
    let more = ["--lifeline", "stdin", "--default-events", "*", "--templates", &templates];
    let child = ChildSpec {
        program: Program::at(Path::new(BINARY)),
        args: args.iter().chain(&more).map(Into::into).collect(),
        token: server.get_token_for_worker(0).expect("a token").to_owned(),
        variables: Vec::new(),
        broker: None,
        is_hosted: false,
        memory: None,
        spawner: Spawner::start().expect("its threads"),
    };
    let config = ProcessConfig::new(0, Some(child), Policy::default());
    let worker = WorkerProcessHandle::start(config, || {}).expect("a loop");
    server.observe(0, &worker.observer());
    worker
}

fn thread(db: &Arc<DbState>) -> Arc<dyn Managed> {
    let subscriptions = Arc::new(Subscriptions::new(["*".to_owned()].into()));
    let told = subscriptions.clone();
    db.on_tenant_state(Box::new(move |tenant, state| told.put(tenant, state.clone())));
    let db = db.clone();
    let make = move || {
        let db = Arc::new(WorkerDb::direct(db.clone(), 0, 1, MessageDoor::default()));
        let templates = TemplateSource::Files(vec![("main.luau".to_owned(), MAIN.to_owned())]);
        let config = LuauConfig { templates, ..LuauConfig::default() };
        let runtime =
            LuauRuntime::start(config, db.clone(), subscriptions.clone()).expect("a runtime");
        let worker = WorkerThread::new(0, Box::new(runtime), 1, subscriptions.clone(), db);
        worker.load_tenant_states().expect("states");
        Ok(worker)
    };
    WorkerThreadHandle::start(0, DEADLINE, Box::new(make), None, || {}).expect("it starts")
}

impl Sharded {
    fn start(is_process: bool) -> Self {
        let templates = TempDir::new();
        std::fs::write(templates.path().join("main.luau"), MAIN).expect("written");
        let store = mesophyll::store::open(&StoreUrl::Memory).expect("a store");
        let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
        let events = ["OnStartup", "STARTS", "COUNT", "WAIT"].map(str::to_owned).into();
        let state = TenantState { events, data: EncodedJson::null() };
        db.set_tenant_state(MOVES, &state).expect("set");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = is_process.then(|| {
            MesophyllServer::new(listener, db.clone(), ServerConfig::new(1)).expect("a server")
        });
        let worker = match &server {
            Some(server) => process(server, &templates),
            None => thread(&db),
        };
        let workers = vec![worker.clone()];
        let (traffic, quarantine) = (Arc::new(Traffic::new(1)), Arc::new(Quarantine::default()));
        let table = Arc::new(ShardTable::new(Arc::default(), || ()));
        let pool = Arc::new(WorkerPool::new(workers.clone()).expect("a worker"));
        let pool = AdmittingPool::new(pool, db.clone(), quarantine.clone(), traffic.clone())
            .with_shards(Some(table.clone()));
        let sharded = Self {
            pool: Arc::new(pool),
            operator: Operator::new(workers.clone(), false, quarantine),
            worker,
            traffic: traffic.clone(),
            table,
            shards: PoolShards::new(db, workers, traffic, Arc::default()),
            server,
            _templates: templates,
        };
        sharded.take(&shard_of(STAYS).with(&shard_of(MOVES)));
        sharded
    }

    fn take(&self, shards: &ShardSet) {
        self.shards.load(shards).expect("loaded");
        self.table.serve(&shards.with(&shard_of(STAYS)));
    }

    fn leave(&self, patience: Duration) -> Duration {
        let began = Instant::now();
        self.table.serve(&shard_of(STAYS));
        self.shards.leave(&shard_of(MOVES), began + patience);
        began.elapsed()
    }

    fn ask(&self, tenant: TenantId, name: &str) -> Result<KhronosValue, DispatchError> {
        let result = self.pool.dispatch_event(tenant, event(name, "null"), far());
        result.map(|value| decode(&value).expect("a value"))
    }

    fn count(&self, tenant: TenantId) -> Result<KhronosValue, DispatchError> {
        self.ask(tenant, "COUNT")
    }

    /// Runs something while an event of a tenant waits for so long; returns the event's result.
    fn while_waiting(&self, tenant: TenantId, seconds: &str, act: impl FnOnce()) -> DispatchResult {
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| self.pool.dispatch_event(tenant, event("WAIT", seconds), far()));
            let shard = shard_of(tenant);
            eventually("it is under way", || self.traffic.has_unanswered(&shard).then_some(()));
            act();
            waiting.join().expect("no panic")
        })
    }

    /// Waits until the tenant has been started so often, and no more often for a moment.
    fn is_started(&self, times: i64) {
        let number = || self.ask(MOVES, "STARTS");
        eventually("it is started", || {
            matches!(number(), Ok(found) if starts(&found) >= times).then_some(())
        });
        for _ in 0..20 {
            assert_eq!(number().map(|found| starts(&found)), Ok(times));
        }
    }
}

impl Drop for Sharded {
    fn drop(&mut self) {
        self.worker.kill();
        if let Some(server) = &self.server {
            server.shutdown(far());
        }
    }
}

fn starts(value: &KhronosValue) -> i64 {
    match value {
        KhronosValue::Integer(number) => *number,
        KhronosValue::Float(number) => *number as i64,
        _ => 0,
    }
}

fn number(number: i64) -> Result<KhronosValue, DispatchError> {
    Ok(KhronosValue::Integer(number))
}

fn a_shard_leaves_with_its_vms_and_comes_back(is_process: bool) {
    let sharded = Sharded::start(is_process);
    // Its worker found it when it started, or was told of it afterwards: once.
    sharded.is_started(1);
    assert_eq!((sharded.count(MOVES), sharded.count(STAYS)), (number(1), number(1)));
    let has_vms = || sharded.operator.have_vms(&[MOVES, STAYS], far());
    assert_eq!(has_vms(), [true, true]);
    // In time: it is answered.
    let ended = sharded.while_waiting(MOVES, "0.3", || {
        assert!(sharded.leave(DEADLINE) < DEADLINE);
    });
    assert_eq!(ended.map(|value| decode(&value).expect("a value")), number(2));
    assert_eq!(sharded.count(MOVES), Err(DispatchError::NotOwner));
    eventually("its VM is closed", || (has_vms() == [false, true]).then_some(()));
    assert_eq!(sharded.count(STAYS), number(2));
    // It comes back, and finds nothing of itself but what is stored.
    sharded.take(&shard_of(MOVES));
    assert_eq!(sharded.count(MOVES), number(1));
    sharded.is_started(2);
    // Beyond it: nobody knows, of this tenant only.
    let other = sharded.while_waiting(STAYS, "1", || {
        let ended = sharded.while_waiting(MOVES, "25", || {
            assert!(sharded.leave(Duration::from_millis(50)) < Duration::from_secs(20));
        });
        assert_eq!(ended, Err(handed_over()));
        assert!(!sharded.traffic.has_unanswered(&shard_of(MOVES)));
    });
    assert_eq!(other.map(|value| decode(&value).expect("a value")), number(3));
    eventually("its VM is closed", || (has_vms() == [false, true]).then_some(()));
    // A worker that starts anew gets what is served here, and starts only that.
    let restarts = sharded.worker.restart(Cause::Operator).expect("it can be");
    sharded.worker.wait_until_restarted(restarts, far()).expect("it is ready again");
    assert_eq!(sharded.count(STAYS), number(1));
    sharded.take(&shard_of(MOVES));
    sharded.is_started(3);
}

#[test]
fn with_worker_processes() {
    a_shard_leaves_with_its_vms_and_comes_back(true);
}

#[test]
fn with_worker_threads() {
    a_shard_leaves_with_its_vms_and_comes_back(false);
}
