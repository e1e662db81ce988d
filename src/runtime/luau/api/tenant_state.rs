//! `ctx.Runtime:settenantstate`: what the tenant is subscribed to, and its own data.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{CallArgs, CallError, CallReply, PreparedCall, field, only_fields, texts};
use crate::base::limits::{DB_BODY_MAX_BYTES, TENANT_EVENT_NAME_MAX_BYTES, TENANT_EVENTS_MAX};
use crate::runtime::TenantStates;
use crate::runtime::luau::convert::json_from_luau;
use crate::wire::data::{DbCall, DbOp, TenantId, TenantState};

pub(super) fn set(
    tenant: TenantId,
    args: &CallArgs<'_>,
    states: &Arc<dyn TenantStates>,
) -> Result<PreparedCall, CallError> {
    let table = args.table(0, "the tenant state")?;
    only_fields(table, "the tenant state", &["events", "data"])?;
    let name = "an event's name";
    let events = texts(
        &field(table, "events")?,
        "events",
        TENANT_EVENTS_MAX,
        name,
        TENANT_EVENT_NAME_MAX_BYTES,
    )?;
    let events = events.into_iter().collect::<BTreeSet<_>>();
    let data = json_from_luau(args.lua, &field(table, "data")?, DB_BODY_MAX_BYTES / 2)?;
    // The names are kept as they are and, like the data, copied when they are stored.
    let bytes =
        2 * (events.iter().map(|name| name.len() + 64).sum::<usize>() + data.as_bytes().len());
    let (state, states) = (TenantState { events, data }, states.clone());
    Ok(PreparedCall::with_work(DbCall::SetTenantState, CallReply::Whole, bytes, move |db| {
        let answer = db.ask(DbOp::SetTenantState(tenant, state.clone()));
        // Here and not when the script goes on: it may be gone by then, and what was stored is what
        // counts.
        if answer.is_ok() {
            states.put(tenant, state);
        }
        answer
    }))
}
