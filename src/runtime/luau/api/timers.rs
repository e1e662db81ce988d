//! `ctx.Timers`: events for later.

use mlua::{IntoLua, Table, Value};

use super::{CallArgs, CallError, CallReply, PreparedCall, kind, refuse};
use crate::base::limits::{
    TENANT_EVENT_NAME_MAX_BYTES, TIMER_DATA_MAX_BYTES, TIMER_ID_MAX_BYTES, TIMER_SCHEDULE_MAX_BYTES,
};
use crate::base::random;
use crate::runtime::luau::convert::values::{Span, Time};
use crate::runtime::luau::convert::{ConvertError, ToLuau, number, value_from_luau};
use crate::wire::data::{DbOp, TenantId, Timer, TimerOp, TimerWhen};

/// `at(time, name, data)`
pub(super) fn at(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let given = args.value(0);
    let time = given.as_userdata().and_then(|data| data.borrow::<Time>().ok());
    match time {
        Some(time) => set(tenant, args, TimerWhen::At(time.0)),
        None => refuse(format!("the time must be a timestamp, not {}", kind(given))),
    }
}

/// `after(seconds, name, data)`
pub(super) fn after(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let seconds = seconds(args.value(0), "the time")?;
    if seconds.is_nan() {
        return refuse("the time must be a number of seconds");
    }
    // What does not fit is too far for the store.
    set(tenant, args, TimerWhen::After((seconds.max(0.0) * 1e6) as u64))
}

/// `every(spec, name, data)`
pub(super) fn every(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let schedule = match args.value(0) {
        Value::String(_) => args.text(0, "the schedule", TIMER_SCHEDULE_MAX_BYTES)?,
        given => seconds(given, "the schedule")?.to_string(),
    };
    set(tenant, args, TimerWhen::Every(schedule))
}

pub(super) fn cancel(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let id = args.text(0, "the timer's id", TIMER_ID_MAX_BYTES)?;
    let op = DbOp::Timer(tenant, TimerOp::Cancel { id });
    Ok(PreparedCall::new(op, CallReply::Whole, 0))
}

pub(super) fn list(tenant: TenantId) -> PreparedCall {
    PreparedCall::new(DbOp::Timer(tenant, TimerOp::List), CallReply::Whole, 0)
}

fn set(tenant: TenantId, args: &CallArgs<'_>, when: TimerWhen) -> Result<PreparedCall, CallError> {
    let name = args.text(1, "the event's name", TENANT_EVENT_NAME_MAX_BYTES)?;
    let data = value_from_luau(args.lua, args.value(2), TIMER_DATA_MAX_BYTES)?;
    let id = format!("{:016x}{:016x}", random::u64(), random::u64());
    let bytes = 2 * (name.len() + data.as_bytes().len());
    let reply = CallReply::Timer(id.clone());
    let op = DbOp::Timer(tenant, TimerOp::Set { id, name, when, data });
    Ok(PreparedCall::new(op, reply, bytes))
}

/// A number of seconds, or an interval.
fn seconds(value: &Value, what: &str) -> Result<f64, CallError> {
    if let Some(span) = value.as_userdata().and_then(|data| data.borrow::<Span>().ok()) {
        return Ok(span.seconds());
    }
    match number(value) {
        Some(seconds) => Ok(seconds),
        None => refuse(format!("{what} must be a number of seconds, not {}", kind(value))),
    }
}

pub(super) fn timer(to_luau: &mut ToLuau<'_>, timer: &Timer) -> Result<Table, ConvertError> {
    let lua = to_luau.lua();
    let table = to_luau.table(0, 5)?;
    table.raw_set("id", to_luau.text(&timer.id)?)?;
    table.raw_set("name", to_luau.text(&timer.name)?)?;
    table.raw_set("due", Time(timer.due).into_lua(lua)?)?;
    if let Some(every) = &timer.every {
        table.raw_set("every", to_luau.text(every)?)?;
    }
    table.raw_set("data", to_luau.value(&timer.data)?)?;
    Ok(table)
}
