//! `/i/workers` and what an operator does about workers: kill, restart, roll; and the quarantine.
//!
//! What takes long (a restart drains first) is begun here and not waited for: `GET /i/workers` and
//! `GET /i/rolling-restart` show how it goes.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::{ApiError, Code};
use super::request::tenant;
use super::{Api, Call, text};
use crate::net::http::{Body, Response};
use crate::pool::process::supervisor::Cause;
use crate::pool::{Managed, Operator, RestartError, RollError, WorkerReport};

/// One worker, as docs/api.md shows it; `waiting`, `memory_bytes`, `version`, `host`, `sandbox`
/// and `restart_needed` are ours.
#[derive(Serialize, Deserialize)]
pub(crate) struct WorkerAnswer {
    pub(crate) id: usize,
    pub(crate) state: String,
    pub(crate) pid: Option<u32>,
    pub(crate) uptime_s: Option<u64>,
    pub(crate) heartbeat_age_ms: Option<u64>,
    pub(crate) in_flight: usize,
    pub(crate) vms: u64,
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<String>,
    pub(crate) waiting: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) version: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) sandbox: Option<String>,
    /// An older master has none.
    #[serde(default)]
    pub(crate) restart_needed: bool,
}

impl WorkerAnswer {
    pub(super) fn of(report: WorkerReport, now: Instant) -> Self {
        Self {
            id: report.id,
            state: report.state.as_str().to_owned(),
            pid: report.pid,
            uptime_s: report
                .started
                .map(|started| now.saturating_duration_since(started).as_secs()),
            heartbeat_age_ms: report
                .heartbeat_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            in_flight: report.in_flight,
            vms: report.health.as_ref().map_or(0, |health| health.vms),
            restarts: report.restarts.total(),
            last_exit: report.last_exit,
            waiting: report.waiting,
            version: report.version,
            host: report.host,
            restart_needed: report.needs_restart,
            sandbox: report.sandbox.map(|sandbox| sandbox.summary()),
            memory_bytes: report.health.map(|health| health.memory_bytes),
        }
    }
}

/// A tenant that is not to run.
#[derive(Serialize, Deserialize)]
pub(crate) struct QuarantinedTenant {
    pub(crate) tenant: String,
    pub(crate) since_s: u64,
    pub(crate) reason: String,
}

pub(super) fn list(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let now = Instant::now();
    let workers: Vec<WorkerAnswer> = api
        .ready
        .operator()
        .reports()
        .into_iter()
        .map(|report| WorkerAnswer::of(report, now))
        .collect();
    text::answer(200, &workers)
}

pub(super) fn kill_all(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    api.ready.operator().kill_all()?;
    Ok(Response::empty(204))
}

pub(super) fn kill(api: &Api, call: &Call<'_>, _body: &mut Body<'_>) -> Result<Response, ApiError> {
    worker(api, call)?.kill_until_restart()?;
    Ok(Response::empty(204))
}

pub(super) fn restart(
    api: &Api,
    call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    worker(api, call)?.restart(Cause::Operator)?;
    Ok(Response::json(202, "{}"))
}

pub(super) fn roll(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let operator = api.ready.operator();
    operator.roll()?;
    text::answer(202, &operator.rolling())
}

pub(super) fn rolling(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    text::answer(200, &api.ready.operator().rolling())
}

pub(super) fn quarantine(
    api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    text::answer(200, &quarantined(api.ready.operator()))
}

/// The tenants that are not to run.
pub(super) fn quarantined(operator: &Operator) -> Vec<QuarantinedTenant> {
    let entries =
        operator.quarantine().list().into_iter().map(|(tenant, entry)| QuarantinedTenant {
            tenant: tenant.to_string(),
            since_s: entry.since.elapsed().as_secs(),
            reason: entry.reason,
        });
    entries.collect()
}

pub(super) fn lift(api: &Api, call: &Call<'_>, _body: &mut Body<'_>) -> Result<Response, ApiError> {
    if api.ready.operator().quarantine().lift(tenant(call)?) {
        Ok(Response::empty(204))
    } else {
        Err(ApiError::new(Code::NotFound, "the tenant is not quarantined"))
    }
}

fn worker<'a>(api: &'a Api, call: &Call<'_>) -> Result<&'a Arc<dyn Managed>, ApiError> {
    let id = call.params.get("id").unwrap_or_default();
    let id: usize =
        id.parse().map_err(|_| ApiError::bad_request("a worker's id is a number from 0"))?;
    api.ready
        .operator()
        .worker(id)
        .ok_or_else(|| ApiError::new(Code::NotFound, "there is no worker with this id"))
}

impl From<RestartError> for ApiError {
    fn from(error: RestartError) -> Self {
        let code = match error {
            RestartError::External => Code::Conflict,
            RestartError::Ending | RestartError::NotReady(_) => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RollError> for ApiError {
    fn from(error: RollError) -> Self {
        let code = match error {
            RollError::UnderWay | RollError::Refused(_) => Code::Conflict,
            RollError::Io(_) => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
