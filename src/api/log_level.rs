//! `/i/log-level`: how much is logged, shown and changed while everything runs.
//!
//! The level is a process's own and lives in the `log` crate; [`Readiness`](super::Readiness) knows
//! what else has to be told.

use log::LevelFilter;

use super::error::ApiError;
use super::request::Fields;
use super::{Api, Call};
use crate::net::http::{Body, Response};

/// Limit: what a body may have that says one word.
const BODY_MAX_BYTES: usize = 1024;

pub(super) fn show(
    _api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    Ok(Response::json(200, format!(r#"{{"level":"{}"}}"#, name(log::max_level()))))
}

pub(super) fn set(api: &Api, call: &Call<'_>, body: &mut Body<'_>) -> Result<Response, ApiError> {
    let (permit, bytes) = api.read_body(None, body, BODY_MAX_BYTES)?;
    let mut fields = Fields::of(&bytes, r#"{"level": "debug"}"#)?;
    let level: LevelFilter = fields.text("level")?.parse().map_err(|_| {
        ApiError::bad_request("\"level\" is off, error, warn, info, debug or trace")
    })?;
    fields.finish()?;
    let (before, user) = (log::max_level(), call.caller.map_or(0, |caller| caller.user_id));
    let say =
        || log::info!("user {user} changes the log level from {} to {}", name(before), name(level));
    // At the one of the two levels that lets it through.
    if level < before {
        say();
    }
    api.ready.set_log_level(level);
    if level > before {
        say();
    }
    Ok(Response::empty(204).holding(permit))
}

fn name(level: LevelFilter) -> String {
    level.as_str().to_lowercase()
}
