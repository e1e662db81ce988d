//! A runtime over a database in memory that tests can hold up and make fail.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use log::Level;

use crate::base::error::{DbError, DispatchError};
use crate::dispatch::{Answer, DispatchResult, Job, RequestId};
use crate::feeds;
use crate::runtime::luau::{LuauConfig, LuauLimits, LuauRuntime, TemplateSource};
use crate::runtime::{TemplateRuntime, TenantDb, TenantStates};
use crate::wire;
use crate::wire::data::{
    CreateEvent, DbAnswer, DbOp, EncodedJson, EncodedValue, EventData, GlobalKeyValueOp, GlobalKv,
    GlobalKvData, KeyValueOp, KhronosValue, KvRecord, MESSAGE_RULES_KEY, MESSAGE_RULES_SCOPE,
    MessageOutcome, PartialGlobalKv, PublicGlobalKeyValueOp, Scopes, TenantId, TenantMessage,
    TenantState, Timer, TimerOp, TimerWhen, Timestamp,
};
use crate::wire::pack::value;

/// Longer than anything here takes, however slow the machine.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// The tenant of tests that need one.
pub(super) const TENANT: TenantId = TenantId::Guild(1);

/// A runtime and what is around it.
pub(super) struct World {
    pub(super) runtime: LuauRuntime,
    pub(super) db: Arc<MemoryDb>,
    pub(super) states: Arc<States>,
    request_ids: AtomicU64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(
            &[("main.luau", "return function(ctx) return ctx:event().data end")],
            LuauLimits::default(),
        )
    }

    pub(super) fn with_limits(limits: LuauLimits) -> Self {
        Self::with(&[], limits)
    }

    pub(super) fn with_template(main: &str) -> Self {
        Self::with(&[("main.luau", main)], LuauLimits::default())
    }

    pub(super) fn with(files: &[(&str, &str)], limits: LuauLimits) -> Self {
        let state = ("state.luau", "local kept = {} return function() return kept end");
        let files = files.iter().chain([&state]);
        let files = files.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Self::with_config(LuauConfig {
            templates: TemplateSource::Files(files),
            limits,
            ..LuauConfig::default()
        })
    }

    pub(super) fn with_config(config: LuauConfig) -> Self {
        let db = Arc::new(MemoryDb::default());
        let states = Arc::new(States::default());
        let runtime =
            LuauRuntime::start(config, db.clone(), states.clone()).expect("the runtime starts");
        Self { runtime, db, states, request_ids: AtomicU64::new(0) }
    }

    /// Hands a job in.
    pub(super) fn submit(&self, tenant: TenantId, job: Job) -> Pending {
        let (answer_tx, answer_rx) = bounded(1);
        let request_id = RequestId(self.request_ids.fetch_add(1, Ordering::Relaxed));
        self.runtime.submit(tenant, request_id, job, Answer::channel(answer_tx));
        Pending { request_id, answer_rx }
    }

    /// Hands an event in.
    pub(super) fn submit_event(&self, tenant: TenantId, name: &str, json: &str) -> Pending {
        self.submit(tenant, Job::Dispatch(event(name, json)))
    }

    /// Hands a script in.
    pub(super) fn submit_script(&self, tenant: TenantId, code: &str) -> Pending {
        let job = Job::RunScript {
            name: "test".to_owned(),
            code: code.to_owned(),
            event: event("Test", "null"),
        };
        self.submit(tenant, job)
    }

    /// Runs the template on an event; the result as JSON, or the error's text.
    pub(super) fn dispatch(&self, name: &str, json: &str) -> Result<String, String> {
        self.submit_event(TENANT, name, json).text()
    }

    /// Runs a script; `require('state')()` is a table that lives as long as the VM. The result as
    /// JSON, or the error's text.
    pub(super) fn run(&self, code: &str) -> Result<String, String> {
        self.submit_script(TENANT, code).text()
    }

    /// Runs a script that must succeed.
    #[track_caller]
    pub(super) fn ok(&self, code: &str) -> String {
        self.run(code).unwrap_or_else(|error| panic!("the script failed: {error}\n{code}"))
    }

    /// Runs a script that must fail.
    #[track_caller]
    pub(super) fn err(&self, code: &str) -> String {
        match self.run(code) {
            Err(error) => error,
            Ok(value) => panic!("the script returned {value}\n{code}"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that failed may have left it closed, and the I/O threads behind it.
        self.db.open_gate();
    }
}

/// An answer that is on its way.
pub(super) struct Pending {
    pub(super) request_id: RequestId,
    pub(super) answer_rx: Receiver<DispatchResult>,
}

impl Pending {
    #[track_caller]
    pub(super) fn wait(&self) -> DispatchResult {
        self.answer_rx.recv_timeout(SOON).expect("an answer comes")
    }

    #[track_caller]
    pub(super) fn text(&self) -> Result<String, String> {
        self.wait().map(|value| json(&value)).map_err(|error| error.to_string())
    }

    #[track_caller]
    pub(super) fn error(&self) -> DispatchError {
        match self.wait() {
            Err(error) => error,
            Ok(value) => panic!("it succeeded with {}", json(&value)),
        }
    }
}

pub(super) fn json(value: &EncodedValue) -> String {
    wire::json::value_to_json(value).expect("results can be shown as JSON")
}

pub(super) fn event(name: &str, json: &str) -> CreateEvent {
    let data = wire::json::event_data_from_json(json.as_bytes()).expect("the test's JSON is JSON");
    CreateEvent { name: name.to_owned(), author: None, data: EventData::Json(data) }
}

/// Waits until something is so.
#[track_caller]
pub(super) fn eventually(what: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < deadline, "it did not come to be");
        std::thread::yield_now();
    }
}

type Address = (TenantId, String, Scopes);

/// A database in memory.
#[derive(Default)]
pub(super) struct MemoryDb {
    records: Mutex<BTreeMap<Address, KvRecord>>,
    shop: Mutex<Vec<(TenantId, GlobalKv)>>,
    timers: Mutex<Vec<(TenantId, Timer)>>,
    gate: Mutex<Gate>,
    moved: Condvar,
    /// Finds that have been done.
    pub(super) finds: AtomicU64,
    /// What was published: tenant, topic and data.
    pub(super) published: Mutex<Vec<String>>,
    /// Messages that were accepted.
    pub(super) sent: Mutex<Vec<TenantMessage>>,
    /// What was told to those that follow a log.
    lines: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    /// Operations that wait at the closed gate.
    waiting: usize,
    failure: Option<DbError>,
}

impl MemoryDb {
    /// Holds every operation up from now on.
    pub(super) fn close_gate(&self) {
        self.gate.lock().expect("gate").closed = true;
    }

    /// Lets operations pass again.
    pub(super) fn open_gate(&self) {
        self.gate.lock().expect("gate").closed = false;
        self.moved.notify_all();
    }

    /// Makes every operation fail from now on, or succeed again.
    pub(super) fn fail_with(&self, failure: Option<DbError>) {
        self.gate.lock().expect("gate").failure = failure;
    }

    /// Waits until so many operations wait at the gate.
    #[track_caller]
    pub(super) fn wait_for_waiting(&self, count: usize) {
        let gate = self.gate.lock().expect("gate");
        let (_gate, timeout) =
            self.moved.wait_timeout_while(gate, SOON, |gate| gate.waiting < count).expect("gate");
        assert!(!timeout.timed_out(), "no {count} operations came to the gate");
    }

    /// What was told to those that follow a log.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }

    /// How many operations wait at the gate.
    pub(super) fn waiting(&self) -> usize {
        self.gate.lock().expect("gate").waiting
    }

    /// Puts a record in, as another writer would.
    pub(super) fn put(&self, tenant: TenantId, key: &str, scopes: &[&str], json: &str) {
        let value = wire::json::value_from_json(json.as_bytes()).expect("the test's JSON is JSON");
        let scopes = Scopes::new(scopes.iter().copied());
        self.write(tenant, key, scopes, value);
    }

    /// A record's value as JSON.
    pub(super) fn value(&self, tenant: TenantId, key: &str, scopes: &[&str]) -> Option<String> {
        let address = (tenant, key.to_owned(), Scopes::new(scopes.iter().copied()));
        self.records.lock().expect("records").get(&address).map(|record| json(&record.value))
    }

    fn write(&self, tenant: TenantId, key: &str, scopes: Scopes, value: EncodedValue) {
        let time = Timestamp::from_unix_micros(1_700_000_000_000_000).ok();
        let record = KvRecord {
            id: format!("{tenant}/{key}"),
            key: key.to_owned(),
            value,
            scopes: scopes.as_slice().to_vec(),
            created_at: time,
            last_updated_at: time,
        };
        self.records.lock().expect("records").insert((tenant, key.to_owned(), scopes), record);
    }

    /// What every operation passes.
    fn pass(&self) -> Result<(), DbError> {
        let mut gate = self.gate.lock().expect("gate");
        gate.waiting += 1;
        self.moved.notify_all();
        gate = self.moved.wait_while(gate, |gate| gate.closed).expect("gate");
        gate.waiting -= 1;
        gate.failure.clone().map_or(Ok(()), Err)
    }
}

impl TenantDb for MemoryDb {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        self.pass()?;
        Ok(HashMap::new())
    }

    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        self.pass()?;
        match op {
            DbOp::Kv(tenant, op) => Ok(self.kv(tenant, op)),
            DbOp::Public(_, op) => Ok(self.public(op)),
            DbOp::Global(tenant, op) => self.global(tenant, op),
            DbOp::SetTenantState(..) => Ok(DbAnswer::Done),
            DbOp::Timer(tenant, op) => Ok(self.timer(tenant, op)),
        }
    }

    fn log(&self, _: TenantId, line: Option<(Level, String)>) {
        self.lines.lock().expect("lines").extend(line.map(|(_, text)| text));
    }

    fn close(&self) {
        self.fail_with(Some(DbError::Unavailable("closed".to_owned())));
        self.open_gate();
    }

    fn send(&self, message: TenantMessage) -> MessageOutcome {
        let (key, scopes) = (MESSAGE_RULES_KEY.to_owned(), Scopes::new([MESSAGE_RULES_SCOPE]));
        let records = self.records.lock().expect("records");
        let rules = records.get(&(message.to, key, scopes)).map(|record| record.value.clone());
        drop(records);
        let Some(Ok(KhronosValue::Map(rules))) = rules.map(|rules| value::decode(&rules)) else {
            return MessageOutcome::NotAllowed;
        };
        // Of every topic: what a rule means is the master's.
        if !rules.iter().any(|(from, _)| *from == KhronosValue::Text(message.from.to_string())) {
            return MessageOutcome::NotAllowed;
        }
        self.sent.lock().expect("sent").push(message);
        MessageOutcome::Accepted
    }

    fn publish(&self, from: TenantId, topic: String, data: EncodedJson) -> Result<(), DbError> {
        feeds::check(&topic, &data)?;
        let text = wire::json::json_from_encoded(&data).expect("plain");
        self.published.lock().expect("published").push(format!("{from} {topic} {text}"));
        Ok(())
    }
}

impl MemoryDb {
    /// Without the master's rules; they never run.
    fn timer(&self, tenant: TenantId, op: TimerOp) -> DbAnswer {
        let mut timers = self.timers.lock().expect("timers");
        match op {
            TimerOp::Set { id, name, when, data } => {
                let (now, every) = (Timestamp::now(), None);
                let later = |micros: u64| {
                    let due = now.unix_micros().saturating_add_unsigned(micros);
                    Timestamp::from_unix_micros(due).unwrap_or(now)
                };
                let (due, every) = match when {
                    TimerWhen::At(time) => (time, every),
                    TimerWhen::After(micros) => (later(micros), every),
                    TimerWhen::Every(schedule) => (later(10_000_000), Some(schedule)),
                };
                timers.push((tenant, Timer { id, name, due, every, data }));
                timers.sort_by_key(|(_, timer)| timer.due);
                DbAnswer::Done
            }
            TimerOp::Cancel { id } => {
                let before = timers.len();
                timers.retain(|(of, timer)| *of != tenant || timer.id != id);
                DbAnswer::Cancelled(timers.len() < before)
            }
            TimerOp::List => {
                let own = timers.iter().filter(|(of, _)| *of == tenant);
                DbAnswer::Timers(own.map(|(_, timer)| timer.clone()).collect())
            }
        }
    }

    fn kv(&self, tenant: TenantId, op: KeyValueOp) -> DbAnswer {
        match op {
            KeyValueOp::Get { scopes, key } => {
                let records = self.records.lock().expect("records");
                DbAnswer::Record(records.get(&(tenant, key, scopes)).cloned())
            }
            KeyValueOp::ListScopes => {
                let records = self.records.lock().expect("records");
                let own = records.keys().filter(|(owner, ..)| *owner == tenant);
                let all = own.flat_map(|(.., scopes)| scopes.as_slice().to_vec());
                DbAnswer::Scopes(Scopes::new(all).into_vec())
            }
            KeyValueOp::Set { scopes, key, value } => {
                self.write(tenant, &key, scopes, value);
                DbAnswer::Done
            }
            KeyValueOp::Delete { scopes, key } => {
                self.records.lock().expect("records").remove(&(tenant, key, scopes));
                DbAnswer::Done
            }
            KeyValueOp::Find { scopes, query } => {
                self.finds.fetch_add(1, Ordering::SeqCst);
                let records = self.records.lock().expect("records");
                let prefix = query.trim_end_matches('%');
                let fits = |((owner, key, has), _): &(&Address, &KvRecord)| {
                    *owner == tenant && has.contains_all(&scopes) && key.starts_with(prefix)
                };
                let found = records.iter().filter(fits).map(|(_, record)| record.clone());
                DbAnswer::Records(found.collect())
            }
        }
    }

    fn public(&self, op: PublicGlobalKeyValueOp) -> DbAnswer {
        let shop = self.shop.lock().expect("shop");
        match op {
            PublicGlobalKeyValueOp::Find { query, scope } => {
                let fits = |entry: &&PartialGlobalKv| {
                    entry.scope == scope && entry.key.starts_with(query.trim_end_matches('%'))
                };
                let entries = shop.iter().map(|(_, entry)| &entry.partial);
                DbAnswer::Entries(entries.filter(fits).cloned().collect())
            }
            PublicGlobalKeyValueOp::Get { key, version, scope, id } => {
                let found = shop.iter().find(|(_, entry)| {
                    (&entry.partial.key, entry.partial.version, &entry.partial.scope)
                        == (&key, version, &scope)
                });
                DbAnswer::Entry(found.map(|(owner, entry)| {
                    let mut entry = entry.clone();
                    if key == "priced" && id != Some(*owner) {
                        let purchase_url = "https://shop/priced".to_owned();
                        entry.data = GlobalKvData::PurchaseRequired { purchase_url };
                    }
                    Box::new(entry)
                }))
            }
        }
    }

    fn global(&self, tenant: TenantId, op: GlobalKeyValueOp) -> Result<DbAnswer, DbError> {
        let mut shop = self.shop.lock().expect("shop");
        match op {
            GlobalKeyValueOp::Create { entry } => {
                let now = Timestamp::from_unix_micros(0).expect("a time");
                let opaque = !entry.public_data;
                let partial = PartialGlobalKv {
                    key: entry.key,
                    version: entry.version,
                    owner_id: tenant.snowflake().to_string(),
                    owner_type: tenant.kind().as_str().to_owned(),
                    price: None,
                    short: entry.short,
                    public_metadata: entry.public_metadata,
                    scope: entry.scope,
                    created_at: now,
                    last_updated_at: now,
                    public_data: entry.public_data,
                    review_state: "approved".to_owned(),
                    long: entry.long,
                };
                let data = GlobalKvData::Value { data: entry.data, opaque };
                shop.push((tenant, GlobalKv { partial, data }));
                Ok(DbAnswer::Done)
            }
            GlobalKeyValueOp::Delete { key, version, scope } => {
                let before = shop.len();
                shop.retain(|(_, entry)| {
                    (&entry.partial.key, entry.partial.version, &entry.partial.scope)
                        != (&key, version, &scope)
                });
                if shop.len() < before {
                    Ok(DbAnswer::Done)
                } else {
                    Err(DbError::NotFound("no such entry".to_owned()))
                }
            }
        }
    }
}

/// What tenants are subscribed to.
#[derive(Default)]
pub(super) struct States {
    states: Mutex<HashMap<TenantId, TenantState>>,
    /// Whether asking for a state panics: a fault in a callback of the runtime.
    pub(super) panics: AtomicBool,
}

impl TenantStates for States {
    fn get(&self, tenant: TenantId) -> Arc<TenantState> {
        assert!(!self.panics.load(Ordering::Relaxed), "on purpose");
        let default =
            || TenantState { events: ["DEFAULT".to_owned()].into(), data: EncodedJson::null() };
        Arc::new(self.states.lock().expect("states").get(&tenant).cloned().unwrap_or_else(default))
    }

    fn put(&self, tenant: TenantId, state: TenantState) {
        self.states.lock().expect("states").insert(tenant, state);
    }
}
