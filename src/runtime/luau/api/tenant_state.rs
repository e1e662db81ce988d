//! `ctx.Runtime:settenantstate`: what the tenant is subscribed to, and its own data.

use std::collections::BTreeSet;
use std::sync::Arc;

use mlua::Value;

use super::{Args, Call, CallError, Reply, refuse, text};
use crate::limits::{DB_BODY_MAX_BYTES, TENANT_EVENT_NAME_MAX_BYTES, TENANT_EVENTS_MAX};
use crate::model::{DbCall, TenantId, TenantState};
use crate::runtime::TenantStates;
use crate::runtime::luau::convert::{ConvertError, json_from_luau};
use crate::runtime::luau::io::IoOutput;

pub(super) fn set(tenant: TenantId, args: &Args<'_>, states: &Arc<dyn TenantStates>) -> Result<Call, CallError> {
    let table = args.table(0, "the tenant state")?;
    let field = |name: &str| -> Result<Value, CallError> { Ok(table.raw_get(name).map_err(ConvertError::from)?) };
    let events = match field("events")? {
        Value::Table(events) => events,
        other => return refuse(format!("events must be a list of strings, not {}", super::kind(&other))),
    };
    let len = events.raw_len();
    if len > TENANT_EVENTS_MAX {
        return refuse(format!("{len} events; at most {TENANT_EVENTS_MAX} are allowed"));
    }
    let name = |index: usize| -> Result<String, CallError> {
        let name: Value = events.raw_get(index).map_err(ConvertError::from)?;
        text(&name, "an event's name", TENANT_EVENT_NAME_MAX_BYTES)
    };
    let events = (1..=len).map(name).collect::<Result<BTreeSet<_>, _>>()?;
    let data = json_from_luau(&field("data")?, DB_BODY_MAX_BYTES / 2)?;
    let (state, states) = (TenantState { events, data }, states.clone());
    Ok(Call::new(DbCall::SetTenantState, Reply::Nothing, move |db| {
        let done = db.set_tenant_state(tenant, state.clone());
        // Here and not when the script goes on: it may be gone by then, and what was stored is what counts.
        if done.is_ok() {
            states.put(tenant, state);
        }
        IoOutput::Done(done)
    }))
}
