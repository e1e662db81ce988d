//! What the functions of `t` do: a test file runs in a VM of a second runtime, whose database is
//! this one. `harness.luau` sets a record to make a call, and reads it to have what came of it:
//! that is how values leave a VM and come back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fixtures;
use super::outcome::Mismatch;
use super::world::World;
use crate::base::error::DbError;
use crate::base::limits::HOST_NAME_MAX_BYTES;
use crate::base::sync::Lock;
use crate::cli::parse::words::quoted;
use crate::dispatch::Job;
use crate::runtime::TenantDb;
use crate::store::global::{GlobalAddress, GlobalChange};
use crate::wire;
use crate::wire::data::{
    CreateEvent, CreateGlobalKv, DbAnswer, DbOp, EncodedJson, EncodedValue, EventData,
    GlobalKeyValueOp, HostCall, HostError, HostOutcome, KeyValueOp, KvRecord, MessageOutcome,
    TenantId, TenantMessage, TenantState, is_host_name,
};

/// Limit: so far a clock moves at once. A hundred years are a mistake, and less fits every type.
const ADVANCE_MAX_SECONDS: f64 = 3_155_760_000.0;

/// The database of the runtime in which tests run.
#[derive(Default)]
pub(super) struct Door {
    session: Lock<Option<Session>>,
    /// What came of calls, by their record's key. Limit: the calls of one event.
    answers: Lock<HashMap<String, EncodedValue>>,
}

/// A test that runs.
pub(super) struct Session {
    world: World,
    /// The directory, and the folder of the test's file in it.
    root: PathBuf,
    folder: PathBuf,
    /// The expectation that was not met last.
    mismatch: Option<Mismatch>,
}

impl Session {
    pub(super) fn new(world: World, root: &Path, folder: PathBuf) -> Self {
        Self { world, root: root.to_owned(), folder, mismatch: None }
    }
}

impl Door {
    /// A test begins.
    pub(super) fn begin(&self, session: Session) {
        self.answers.lock().clear();
        *self.session.lock() = Some(session);
    }

    /// The test has ended: the expectation that was not met last.
    pub(super) fn end(&self) -> Option<Mismatch> {
        let session = self.session.lock().take();
        session.and_then(|session| session.mismatch)
    }

    /// Carries a call out: `{"ok": …}` or `{"error": "…"}`.
    fn call(&self, request: &EncodedValue) -> Result<EncodedValue, String> {
        let request = wire::json::value_to_json(request).map_err(|error| error.to_string())?;
        // One call at a time: a test is alone in its world.
        let mut session = self.session.lock();
        let session = session.as_mut().ok_or("t is there while its test runs only")?;
        let outcome = serde_json::from_str(&request)
            .map_err(|error| without_place(&error))
            .and_then(|call| session.call(call));
        let answer = match outcome {
            Ok(json) => format!("{{\"ok\":{json}}}"),
            Err(error) => format!("{{\"error\":{}}}", quoted(&error)),
        };
        wire::json::value_from_json(answer.as_bytes()).map_err(|error| error.to_string())
    }
}

impl TenantDb for Door {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        Ok(HashMap::new())
    }

    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        match op {
            DbOp::Kv(_, KeyValueOp::Set { key, value, .. }) => {
                let answer = self.call(&value).map_err(DbError::Refused)?;
                self.answers.lock().insert(key, answer);
                Ok(DbAnswer::Done)
            }
            DbOp::Kv(_, KeyValueOp::Get { key, .. }) => {
                let value = self.answers.lock().remove(&key);
                Ok(DbAnswer::Record(value.map(|value| KvRecord {
                    id: String::new(),
                    key,
                    value,
                    scopes: Vec::new(),
                    created_at: None,
                    last_updated_at: None,
                })))
            }
            _ => Err(DbError::Refused("a test has t instead".to_owned())),
        }
    }

    fn send(&self, _: TenantMessage) -> MessageOutcome {
        MessageOutcome::NotAllowed
    }
}

/// A call of a test.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum TestCall {
    /// Starts the tenant's template, or a script, on an event: its number.
    Start(StartCall),
    /// The answer to an event that was started.
    Answer(u64),
    IsAnswered(u64),
    /// Moves the clock on by so many seconds.
    Advance(f64),
    Now,
    /// Puts an entry into the shop.
    PutEntry(NewEntry),
    Review(EntryAddress, String),
    Purchase(EntryAddress, String),
    /// What this tenant has published.
    Published(String),
    /// Calls of this name are answered with this, or fail with this text.
    Serve(String, Option<Box<RawValue>>, Option<String>),
    /// What host processes have been asked.
    Called,
    Fixture(String),
    Mismatch(Box<RawValue>, Box<RawValue>, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartCall {
    tenant: String,
    name: String,
    data: Option<Box<RawValue>>,
    author: Option<String>,
    /// The name and the text of a script that is run instead of the template.
    script: Option<String>,
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryAddress {
    scope: String,
    key: String,
    version: i32,
}

impl From<EntryAddress> for GlobalAddress {
    fn from(EntryAddress { scope, key, version }: EntryAddress) -> Self {
        Self { scope, key, version }
    }
}

/// An entry of the shop, with what the staff decides about it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEntry {
    scope: String,
    key: String,
    version: i32,
    #[serde(default)]
    short: String,
    long: Option<String>,
    public_data: Option<bool>,
    public_metadata: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
    /// The tenant that published it; none: the staff.
    owner: Option<String>,
    price: Option<i64>,
    review_state: Option<String>,
}

/// JSON of a call as what an event's data and an entry's data is.
fn data(json: Option<&RawValue>) -> Result<EncodedJson, String> {
    let json = json.map_or("null", RawValue::get);
    wire::json::event_data_from_json(json.as_bytes()).map_err(|error| error.to_string())
}

/// What is wrong with a call. Where, is a place in JSON that the author of the test never saw.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned()
}

fn tenant(name: &str) -> Result<TenantId, String> {
    name.parse().map_err(|error| format!("{name:?}: {error}"))
}

impl Session {
    /// Carries a call out: its result as JSON, tagged.
    fn call(&mut self, call: TestCall) -> Result<String, String> {
        let db = &self.world.db;
        let of_db = |error: DbError| error.to_string();
        match call {
            TestCall::Start(call) => self.start(call).map(|number| number.to_string()),
            TestCall::Answer(number) => {
                let result = self.world.answer(number)?;
                let value = result.map_err(|error| error.to_string())?;
                wire::json::value_to_json(&value).map_err(|error| error.to_string())
            }
            TestCall::IsAnswered(number) => {
                self.world.is_answered(number).map(|is_answered| is_answered.to_string())
            }
            TestCall::Advance(seconds) if (0.0..=ADVANCE_MAX_SECONDS).contains(&seconds) => {
                self.world.advance(Duration::from_secs_f64(seconds)).map(|()| "null".to_owned())
            }
            TestCall::Advance(seconds) => {
                Err(format!("{seconds} s: a clock goes forward, and a hundred years at most"))
            }
            TestCall::Now => Ok(format!("{{\"$timestamp\":\"{}\"}}", self.world.now())),
            TestCall::PutEntry(entry) => self.put_entry(entry),
            TestCall::Review(at, state) => db
                .global_change(at.into(), GlobalChange::Review(state))
                .map_err(of_db)
                .map(|()| "null".to_owned()),
            TestCall::Purchase(at, buyer) => db
                .global_purchase(tenant(&buyer)?, at.into())
                .map_err(of_db)
                .map(|()| "null".to_owned()),
            TestCall::Published(of) => self.published(tenant(&of)?),
            TestCall::Serve(name, answer, error) => self.serve(name, answer.as_deref(), error),
            TestCall::Called => self.called(),
            TestCall::Fixture(name) => fixtures::read(&self.root, &self.folder, &name),
            TestCall::Mismatch(expected, actual, what) => {
                let mismatch = Mismatch::new(expected.get(), actual.get(), &what);
                let text = quoted(&mismatch.to_string());
                self.mismatch = Some(mismatch);
                Ok(text)
            }
        }
    }

    fn start(&mut self, call: StartCall) -> Result<u64, String> {
        let StartCall { tenant: of, name, author, script, code, .. } = call;
        let json = call.data.as_deref();
        let event = |data| CreateEvent { name, author, data };
        let job = match (script, code) {
            // Values keep their kinds, as what is set by `t.KV:set` is to be what a template gets.
            (Some(name), Some(code)) => {
                let value =
                    wire::json::value_from_json(json.map_or("null", RawValue::get).as_bytes());
                let value = value.map_err(|error| error.to_string())?;
                Job::RunScript { name, code, event: event(EventData::KhronosValue(value)) }
            }
            // As a gateway sends it.
            _ => Job::Dispatch(event(EventData::Json(data(json)?))),
        };
        Ok(self.world.start(tenant(&of)?, job))
    }

    fn put_entry(&self, entry: NewEntry) -> Result<String, String> {
        let db = &self.world.db;
        let (scope, key, version) = (entry.scope.clone(), entry.key.clone(), entry.version);
        let new = CreateGlobalKv {
            key: entry.key,
            version,
            short: entry.short,
            public_metadata: data(entry.public_metadata.as_deref())?,
            scope: entry.scope,
            public_data: entry.public_data.unwrap_or(false),
            long: entry.long,
            data: data(entry.data.as_deref())?,
        };
        let put = match entry.owner {
            Some(owner) => db.global(tenant(&owner)?, GlobalKeyValueOp::Create { entry: new }),
            None => db.add_staff_entry("0", new),
        };
        let review = entry.review_state.unwrap_or_else(|| "approved".to_owned());
        let at = || GlobalAddress { scope: scope.clone(), key: key.clone(), version };
        put.and_then(|()| db.global_change(at(), GlobalChange::Review(review)))
            .and_then(|()| match entry.price {
                Some(price) => db.global_change(at(), GlobalChange::Price(Some(price))),
                None => Ok(()),
            })
            .map_err(|error| error.to_string())
            .map(|()| "null".to_owned())
    }

    fn serve(
        &self,
        name: String,
        answer: Option<&RawValue>,
        error: Option<String>,
    ) -> Result<String, String> {
        if !is_host_name(&name, HOST_NAME_MAX_BYTES) {
            return Err(format!("{name:?} is not letters, digits, \".\", \"_\" and \"-\""));
        }
        let result = match error {
            Some(text) => Err(HostError { outcome: HostOutcome::Failed, text }),
            None => {
                let json = answer.map_or("null", RawValue::get);
                let value = wire::json::value_from_json(json.as_bytes());
                Ok(value.map_err(|error| error.to_string())?)
            }
        };
        self.world.serve(name, result);
        Ok("null".to_owned())
    }

    fn called(&self) -> Result<String, String> {
        let item = |call: &HostCall| {
            let args = wire::json::json_from_encoded(&call.args);
            let args = args.map_err(|error| error.to_string())?;
            let (name, tenant) = (quoted(&call.name), quoted(&call.from.to_string()));
            Ok(format!("{{\"name\":{name},\"tenant\":{tenant},\"args\":{args}}}"))
        };
        let items: Result<Vec<_>, String> = self.world.called()?.iter().map(item).collect();
        Ok(format!("[{}]", items?.join(",")))
    }

    fn published(&self, of: TenantId) -> Result<String, String> {
        let item = |(topic, data): &(String, EncodedJson)| {
            let data = wire::json::json_from_encoded(data).map_err(|error| error.to_string())?;
            Ok(format!("{{\"topic\":{},\"data\":{data}}}", quoted(topic)))
        };
        let items: Result<Vec<_>, String> = self.world.published(of)?.iter().map(item).collect();
        Ok(format!("[{}]", items?.join(",")))
    }
}
