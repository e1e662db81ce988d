//! `ctx.Host`: calls to the owner's own programs, by way of the master.

use std::time::{Duration, Instant};

use super::{CallArgs, CallError, CallReply, PreparedCall, refuse};
use crate::base::limits::{CALL_BYTES, HOST_ARGS_MAX_BYTES, HOST_NAME_MAX_BYTES};
use crate::runtime::luau::convert::{ConvertErrorKind, json_from_luau};
use crate::runtime::luau::io::{Asked, CallTo, IoOutput};
use crate::wire::data::{HostCall, HostError, HostOutcome, TenantId, is_host_name};

pub(super) fn call(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let name = args.text(0, "the name", HOST_NAME_MAX_BYTES)?;
    if !is_host_name(&name, HOST_NAME_MAX_BYTES) {
        return refuse("the name is letters, digits, \".\", \"_\" and \"-\"");
    }
    let given =
        json_from_luau(args.lua, args.value(1), HOST_ARGS_MAX_BYTES).map_err(
            |error| match error.kind() {
                ConvertErrorKind::TooLarge(_) => {
                    CallError::Refused(HostError::new(HostOutcome::TooLarge).to_text())
                }
                _ => error.into(),
            },
        )?;
    // They are copied once, into what goes over the link.
    let bytes = CALL_BYTES + 2 * (name.len() + given.as_bytes().len());
    let call = HostCall { from: tenant, name, args: given };
    Ok(PreparedCall {
        asked: Asked { to: CallTo::Host, at: Instant::now() },
        // No thread waits for it.
        work: Box::new(move |db, reply| {
            let answer = move |result| reply.done(IoOutput::Host(result), Duration::ZERO);
            db.call_host(call, Box::new(answer));
        }),
        reply: CallReply::Whole,
        bytes,
        lock: None,
    })
}
