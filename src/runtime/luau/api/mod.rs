//! The calls of `ctx` that go to the database, to other tenants and to host processes: from what a
//! script gave to work for an I/O thread, and back.
//!
//! A call is checked and its values are converted on the executor, at once: a script that changes a
//! table after `KV:set` does not change what is set. Rules of the store are the store's; here are
//! the rules of scripts.

mod global_kv;
mod host_calls;
mod kv;
mod messages;
mod rules;
mod tenant_state;
mod timers;

use std::sync::Arc;
use std::time::Instant;

use mlua::{IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::convert::{ConvertError, ToLuau, is_list, stray_key, why_no_list};
use super::host::Host;
use super::io::{Asked, CallTo, IoOutput, IoWork, blocking, texts_bytes};
use super::locks::{LockMode, RecordKey};
use super::ops::CallOp;
use crate::base::error::DbError;
use crate::base::limits::CALL_BYTES;
use crate::runtime::{TenantDb, TenantStates};
use crate::wire::data::{DbAnswer, DbCall, DbOp, MessageOutcome, TenantId};

pub(super) use self::kv::update_set;

/// A call, ready for an I/O thread.
pub(super) struct PreparedCall {
    /// Which, and since when the script waits for it.
    pub(super) asked: Asked,
    /// What to do there.
    pub(super) work: IoWork,
    /// What to make of the result.
    pub(super) reply: CallReply,
    /// What its arguments take until it is done.
    pub(super) bytes: usize,
    /// The record to be locked first, and how.
    pub(super) lock: Option<(RecordKey, LockMode)>,
}

impl PreparedCall {
    /// `bytes`: of its arguments.
    fn new(op: DbOp, reply: CallReply, bytes: usize) -> Self {
        Self::with_work(op.call(), reply, bytes, |db| db.ask(op))
    }

    fn with_work(
        call: DbCall,
        reply: CallReply,
        bytes: usize,
        work: impl FnOnce(&dyn TenantDb) -> Result<DbAnswer, DbError> + Send + 'static,
    ) -> Self {
        let asked = Asked { to: CallTo::Db(call), at: Instant::now() };
        let work = blocking(|db: &dyn TenantDb| IoOutput::Answer(work(db)));
        Self { asked, work, reply, bytes: CALL_BYTES + bytes, lock: None }
    }

    /// With this record locked; the call and the locks hold its address several times.
    fn locking(self, record: RecordKey, mode: LockMode) -> Self {
        let (key, scopes) = &record;
        let address = key.len() + texts_bytes(scopes.as_slice());
        Self { bytes: self.bytes + 4 * address, lock: Some((record, mode)), ..self }
    }
}

/// What a script gets of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallReply {
    /// What is in it: nothing, a list, or an entry of the shop or nil.
    Whole,
    /// Of a record, its value and whether it exists.
    Value,
    /// The same, for the function of an update of this record.
    UpdateValue(RecordKey),
    /// This record, also if it does not exist.
    Record(RecordKey),
    /// The id of the timer that was made.
    Timer(String),
}

/// Why a call is not made.
pub(super) enum CallError {
    /// What the script gave will not do.
    Refused(String),
    /// A value of it cannot be converted.
    Convert(ConvertError),
}

impl From<ConvertError> for CallError {
    fn from(error: ConvertError) -> Self {
        CallError::Convert(error)
    }
}

/// Makes a call of what a script gave. `depth`: how many messages in a row led to its event.
///
/// # Errors
/// What it gave will not do.
pub(super) fn prepare(
    lua: &Lua,
    op: CallOp,
    tenant: TenantId,
    depth: u64,
    args: &[Value],
    states: &Arc<dyn TenantStates>,
) -> Result<PreparedCall, CallError> {
    let args = CallArgs { lua, values: args };
    match op {
        CallOp::KvGet => kv::get(tenant, &args),
        CallOp::KvGetRecord => kv::get_record(tenant, &args),
        CallOp::KvSet => kv::set(tenant, &args),
        CallOp::KvDelete => kv::delete(tenant, &args),
        CallOp::KvFind => kv::find(tenant, &args),
        CallOp::KvListScopes => Ok(kv::list_scopes(tenant)),
        CallOp::KvUpdate => kv::update(tenant, &args),
        CallOp::GlobalFind => global_kv::find(tenant, &args),
        CallOp::GlobalGet => global_kv::get(tenant, &args),
        CallOp::GlobalCreate => global_kv::create(tenant, &args),
        CallOp::GlobalDelete => global_kv::delete(tenant, &args),
        CallOp::SetTenantState => tenant_state::set(tenant, &args, states),
        CallOp::SendMessage => messages::send(tenant, depth, &args),
        CallOp::MessagesAllow => messages::allow(tenant, &args),
        CallOp::MessagesDisallow => messages::disallow(tenant, &args),
        CallOp::MessagesAllowed => Ok(messages::allowed(tenant)),
        CallOp::HostCall => host_calls::call(tenant, &args),
        CallOp::GlobalWatch => global_kv::watch(tenant, &args),
        CallOp::GlobalUnwatch => global_kv::unwatch(tenant, &args),
        CallOp::GlobalWatched => Ok(global_kv::watched(tenant)),
        CallOp::TimerAt => timers::at(tenant, &args),
        CallOp::TimerAfter => timers::after(tenant, &args),
        CallOp::TimerEvery => timers::every(tenant, &args),
        CallOp::TimerCancel => timers::cancel(tenant, &args),
        CallOp::TimerList => Ok(timers::list(tenant)),
        CallOp::Wait | CallOp::Spawn | CallOp::KvUpdateSet | CallOp::KvUpdateDrop => {
            refuse("not a call to the database")
        }
    }
}

/// Turns what came of a call into what the script is resumed with: `true, results…` or `false,
/// message`.
///
/// # Errors
/// Memory does not suffice even for a message.
pub(super) fn reply(
    lua: &Lua,
    host: &Host,
    reply: &CallReply,
    output: IoOutput,
) -> mlua::Result<MultiValue> {
    match results(lua, host, reply, output) {
        Ok(values) => (true, values).into_lua_multi(lua),
        Err(message) => (false, message).into_lua_multi(lua),
    }
}

fn results(
    lua: &Lua,
    host: &Host,
    reply: &CallReply,
    output: IoOutput,
) -> Result<MultiValue, String> {
    let answer = match output {
        IoOutput::Answer(answer) => answer.map_err(|error| error.to_string())?,
        IoOutput::Sent(MessageOutcome::Accepted) => DbAnswer::Done,
        IoOutput::Sent(outcome) => return Err(messages::refusal(outcome)),
        IoOutput::Host(Err(error)) => return Err(error.to_text()),
        IoOutput::Host(Ok(value)) => {
            let converted = ToLuau::new(lua, &host.pace).value(&value);
            let values = converted.map(|value| MultiValue::from_vec(vec![value]));
            return values.map_err(|error| host.convert_failed(&error));
        }
        // A panic on the I/O thread: it is in the log.
        _ => return Err(INTERNAL.to_owned()),
    };
    let mut to_luau = ToLuau::new(lua, &host.pace);
    let values = match (reply, &answer) {
        (CallReply::Value | CallReply::UpdateValue(_), DbAnswer::Record(record)) => {
            kv::value(&mut to_luau, record.as_ref())
        }
        (CallReply::Record(asked), DbAnswer::Record(record)) => {
            kv::record_or_none(&mut to_luau, asked, record.as_ref()).map(one)
        }
        (CallReply::Whole, DbAnswer::Done) => Ok(Vec::new()),
        (CallReply::Timer(id), DbAnswer::Done) => to_luau.text(id).map(|id| vec![id]),
        (CallReply::Whole, DbAnswer::Cancelled(was_there)) => Ok(vec![Value::Boolean(*was_there)]),
        (CallReply::Whole, DbAnswer::Timers(timers)) => {
            to_luau.list_of(timers, timers::timer).map(one)
        }
        (CallReply::Whole, DbAnswer::Records(records)) => {
            to_luau.list_of(records, kv::record).map(one)
        }
        (CallReply::Whole, DbAnswer::Scopes(scopes)) => {
            to_luau.list_of(scopes, ToLuau::text).map(one)
        }
        (CallReply::Whole, DbAnswer::Entries(entries)) => {
            to_luau.list_of(entries, global_kv::partial).map(one)
        }
        (CallReply::Whole, DbAnswer::Entry(entry)) => {
            global_kv::entry(&mut to_luau, entry.as_deref()).map(|value| vec![value])
        }
        _ => return Err(INTERNAL.to_owned()),
    };
    values.map(MultiValue::from_vec).map_err(|error| host.convert_failed(&error))
}

const INTERNAL: &str = "the operation failed for an internal reason";

fn one(table: Table) -> Vec<Value> {
    vec![Value::Table(table)]
}

fn refuse<T>(why: impl Into<String>) -> Result<T, CallError> {
    Err(CallError::Refused(why.into()))
}

/// What a script gave to a call.
struct CallArgs<'a> {
    lua: &'a Lua,
    values: &'a [Value],
}

impl CallArgs<'_> {
    fn value(&self, index: usize) -> &Value {
        self.values.get(index).unwrap_or(&Value::Nil)
    }

    /// Text of at most so many bytes.
    fn text(&self, index: usize, what: &str, max_bytes: usize) -> Result<String, CallError> {
        text(self.value(index), what, max_bytes)
    }

    fn table(&self, index: usize, what: &str) -> Result<&Table, CallError> {
        match self.value(index) {
            Value::Table(table) => Ok(table),
            other => refuse(format!("{what} must be a table, not {}", kind(other))),
        }
    }
}

fn text(value: &Value, what: &str, max_bytes: usize) -> Result<String, CallError> {
    let Value::String(text) = value else {
        return refuse(format!("{what} must be a string, not {}", kind(value)));
    };
    let bytes = text.as_bytes();
    // Before it is copied: a string may be as large as the VM.
    if bytes.len() > max_bytes {
        return refuse(format!(
            "{what} has {} bytes; at most {max_bytes} are allowed",
            bytes.len()
        ));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => refuse(format!("{what} must be UTF-8")),
    }
}

/// A list of at most so many texts, each of at most so many bytes. `what` is what the list is
/// called, `item` a text of it.
fn texts(
    value: &Value,
    what: &str,
    max: usize,
    item: &str,
    max_bytes: usize,
) -> Result<Vec<String>, CallError> {
    let Value::Table(table) = value else {
        return refuse(format!("{what} must be a list of strings, not {}", kind(value)));
    };
    let len = table.raw_len();
    if len > max {
        return refuse(format!("{what} must be a list of at most {max} strings, not of {len}"));
    }
    if !is_list(table, len)? {
        return refuse(format!(
            "{what} must be a list of strings, without {}",
            why_no_list(table, len)?
        ));
    }
    let item = |index| text(&table.raw_get(index).map_err(ConvertError::from)?, item, max_bytes);
    (1..=len).map(item).collect()
}

/// A field of a table that a script gave.
fn field(table: &Table, name: &str) -> Result<Value, CallError> {
    Ok(table.raw_get(name).map_err(ConvertError::from)?)
}

/// Refuses a table that has other fields than these.
fn only_fields(table: &Table, what: &str, fields: &[&str]) -> Result<(), CallError> {
    let belongs =
        |key: &Value| key.as_string().is_some_and(|key| fields.iter().any(|field| key == field));
    match stray_key(table, belongs)? {
        None => Ok(()),
        Some(key) => refuse(format!("{what} cannot have {key}; it has {}", fields.join(", "))),
    }
}

fn version(value: &Value) -> Result<i32, CallError> {
    let given = || match value {
        Value::Number(number) => number.to_string(),
        _ => kind(value).to_owned(),
    };
    let why = || format!("the version must be a whole number of 32 bits, not {}", given());
    value.as_i32().ok_or_else(|| CallError::Refused(why()))
}

fn kind(value: &Value) -> &'static str {
    if value.is_null() { "null" } else { value.type_name() }
}
