//! `GET /i/timers/…`: a tenant's timers, for staff.

use super::error::ApiError;
use super::request::tenant;
use super::{Api, Call, text};
use crate::base::limits::TIMERS_MAX_BYTES;
use crate::net::http::{Body, Response};
use crate::wire::data::Timer;

pub(super) fn list(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let mut permit = api.admit_without_body(body)?;
    permit.expect_answer(usize::try_from(TIMERS_MAX_BYTES).unwrap_or(usize::MAX))?;
    let timers = api.db.timers_of(tenant)?;
    permit.settle_answer(timers.iter().map(memory_of).sum());
    text::list(timers, permit)
}

/// About how much memory a timer takes.
fn memory_of(timer: &Timer) -> usize {
    size_of::<Timer>() + timer.id.len() + timer.name.len() + timer.data.as_bytes().len()
}
