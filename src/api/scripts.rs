//! `POST /i/run-script/…`: a script in a tenant's VM. `POST /i/drop-tenant/…`: closes that VM.

use std::time::Instant;

use super::dispatch::{answer, author, event_of};
use super::error::{ApiError, Code};
use super::request::{Fields, deadline, tenant};
use super::{Api, Call};
use crate::base::limits::{API_BODY_MAX_BYTES, SOURCE_MAX_BYTES};
use crate::dispatch::Job;
use crate::net::http::{Body, Response};

pub(super) fn run_script(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let patience = deadline(call)?.unwrap_or(api.config.default_deadline);
    let (permit, bytes) = api.read_body(Some(tenant), body, API_BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"name": …, "code": …, "data": …}"#)?;
    let name = fields.name()?;
    let code = fields.text("code")?;
    let data = fields.json("data")?;
    let author = author(call, &mut fields)?;
    fields.finish()?;
    drop(bytes);
    if code.len() > SOURCE_MAX_BYTES {
        let message =
            format!("\"code\" has {} bytes; at most {SOURCE_MAX_BYTES} are compiled", code.len());
        return Err(ApiError::new(Code::TooLarge, message));
    }
    let event = event_of(name.clone(), author, data, name.len() + code.len())?;
    let (result, _) = api.wait_for(
        call,
        tenant,
        Job::RunScript { name, code, event },
        Instant::now() + patience,
    )?;
    answer(&result, permit)
}

pub(super) fn drop_tenant(
    api: &Api,
    call: &Call<'_>,
    body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let tenant = tenant(call)?;
    let patience = deadline(call)?.unwrap_or(api.config.default_deadline);
    let permit = api.admit_without_body(body)?;
    api.wait_for(call, tenant, Job::DropTenant, Instant::now() + patience)?;
    Ok(Response::empty(204).holding(permit))
}
