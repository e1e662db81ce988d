//! The master's answers to `/db/*`: bytes to operations, operations to [`DbState`], results and
//! errors to bytes.
//!
//! The worker that asks has been established before: the server checks id and token. Then
//! the tenant, then the body, then the rules. Deliberately without rules of its own. Runs on the
//! connection's thread.

use std::time::Instant;

use super::db_figures::{DbRequest, DbRequestFigures};
use crate::base::error::DbError;
use crate::base::limits::{DB_BODY_MAX_BYTES, TENANT_STATES_PIECE_BYTES};
use crate::net::http::{Body, BodyError, Method, RequestHead, Response};
use crate::store::{Caller, DbState};
use crate::wire::data::{DbAnswer, DbOp, TenantId};
use crate::wire::db::encode_tenant_states;
use crate::wire::pack::shape::{Decode, Encode};

/// Says which [`DbError`] an answer is, because one status stands for several: our own workers tell
/// `Busy` from `Unavailable` and `OutcomeUnknown` from `Internal` by it. A peer that does not know
/// it goes by the status.
pub const ERROR_HEADER: &str = "Mesophyll-Error";

/// Checks path and method of a worker's request: one of `/db/*`, or of its link.
///
/// # Errors
/// The answer to another one.
pub fn check_endpoint(head: &RequestHead) -> Result<(), Response> {
    let wanted = match head.path() {
        "/ws" | "/db/tenant-states" => Method::Get,
        "/db/tenant-state" | "/db/kv" | "/db/public-global-kv" | "/db/global-kv" | "/db/timers" => {
            Method::Post
        }
        _ => return Err(Response::text(404, "no such endpoint")),
    };
    if head.method() != wanted {
        let response = Response::text(405, "method not allowed");
        return Err(response.with_header("Allow", wanted.as_str()));
    }
    Ok(())
}

/// Answers a request to `/db/*` that [`check_endpoint`] let pass, of a worker whose id and token
/// were found to be right, and counts it.
///
/// # Blocks
/// Until the body is there, and as the store does.
pub fn handle(
    db: &DbState,
    figures: &DbRequestFigures,
    caller: Caller,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Response {
    let began = Instant::now();
    let mut request = DbRequest::Unread;
    let response =
        answer(db, caller, head, body, &mut request).unwrap_or_else(Failure::into_response);
    figures.record(request, response.status.into(), began.elapsed());
    response
}

fn answer(
    db: &DbState,
    caller: Caller,
    head: &RequestHead,
    body: &mut Body<'_>,
    request: &mut DbRequest,
) -> Result<Response, Failure> {
    let op = match head.path() {
        "/db/tenant-states" => {
            *request = DbRequest::TenantStates;
            return Ok(tenant_states(db, caller));
        }
        "/db/tenant-state" => DbOp::SetTenantState(tenant_of(head, caller)?, decode(body)?),
        "/db/kv" => DbOp::Kv(tenant_of(head, caller)?, decode(body)?),
        "/db/public-global-kv" => DbOp::Public(optional_tenant_of(head, caller)?, decode(body)?),
        "/db/timers" => DbOp::Timer(tenant_of(head, caller)?, decode(body)?),
        _ => DbOp::Global(tenant_of(head, caller)?, decode(body)?),
    };
    *request = op.call().into();
    Ok(match db.ask(caller, op)? {
        DbAnswer::Done => Response::empty(200),
        DbAnswer::Record(record) => Response::bytes(200, record.to_bytes()),
        DbAnswer::Scopes(scopes) => Response::bytes(200, scopes.to_bytes()),
        DbAnswer::Records(records) => Response::bytes(200, records.to_bytes()),
        DbAnswer::Entries(entries) => Response::bytes(200, entries.to_bytes()),
        DbAnswer::Entry(entry) => Response::bytes(200, entry.map(|entry| *entry).to_bytes()),
        DbAnswer::Cancelled(was_there) => Response::bytes(200, was_there.to_bytes()),
        DbAnswer::Timers(timers) => Response::bytes(200, timers.to_bytes()),
    })
}

/// All states of the worker's tenants, made while they are sent: they may be many.
fn tenant_states(db: &DbState, caller: Caller) -> Response {
    let states =
        db.tenant_states(caller).into_iter().map(|(tenant, state)| (tenant, (*state).clone()));
    Response::chunked(
        200,
        "application/octet-stream",
        encode_tenant_states(states, TENANT_STATES_PIECE_BYTES),
    )
}

fn tenant_of(head: &RequestHead, caller: Caller) -> Result<TenantId, Failure> {
    let (Some(kind), Some(id)) = (head.query("tenant_type"), head.query("tenant_id")) else {
        return Err(Failure::Malformed("tenant_type and tenant_id are missing".to_owned()));
    };
    let tenant =
        TenantId::from_parts(kind, id).map_err(|error| Failure::Malformed(error.to_string()))?;
    caller.check_owns(tenant)?;
    Ok(tenant)
}

/// Only workers of ours say it.
fn optional_tenant_of(head: &RequestHead, caller: Caller) -> Result<Option<TenantId>, Failure> {
    head.query("tenant_id").map(|_| tenant_of(head, caller)).transpose()
}

fn decode<T: Decode>(body: &mut Body<'_>) -> Result<T, Failure> {
    let bytes = body.read_to_end(DB_BODY_MAX_BYTES).map_err(Failure::Body)?;
    T::from_bytes(&bytes).map_err(|error| Failure::Malformed(error.to_string()))
}

/// Why a request is not answered with 200.
enum Failure {
    Malformed(String),
    Body(BodyError),
    Db(DbError),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Failure::Db(error)
    }
}

impl Failure {
    fn into_response(self) -> Response {
        match self {
            Failure::Malformed(text) => Response::text(400, &text),
            Failure::Body(error) => Response::text(error.status(), &error.to_string()),
            Failure::Db(error) => {
                let (status, kind) = status_and_kind(&error);
                Response::text(status, &error.to_string()).with_header(ERROR_HEADER, kind)
            }
        }
    }
}

fn status_and_kind(error: &DbError) -> (u16, &'static str) {
    match error {
        DbError::Refused(_) => (422, "refused"),
        DbError::Forbidden(_) => (403, "forbidden"),
        DbError::Conflict(_) => (409, "conflict"),
        DbError::NotFound(_) => (404, "not-found"),
        DbError::Busy(_) => (503, "busy"),
        DbError::Unavailable(_) => (503, "unavailable"),
        DbError::NotOwner(_) => (503, "not-owner"),
        DbError::OutcomeUnknown(_) => (500, "outcome-unknown"),
        DbError::Internal(_) => (500, "internal"),
    }
}

/// The error that an answer with this status, kind and text stands for.
#[cfg(any(test, feature = "worker"))]
pub(in crate::protocol) fn error_of(status: u16, kind: Option<&str>, text: String) -> DbError {
    match (kind, status) {
        (Some("refused"), _) | (None, 413 | 422) => DbError::Refused(text),
        (Some("forbidden"), _) | (None, 403) => DbError::Forbidden(text),
        (Some("conflict"), _) | (None, 409) => DbError::Conflict(text),
        (Some("not-found"), _) => DbError::NotFound(text),
        (Some("busy"), _) => DbError::Busy(text),
        (Some("not-owner"), _) => DbError::NotOwner(text),
        (Some("unavailable"), _) | (None, 503) => DbError::Unavailable(text),
        (Some("outcome-unknown"), _) => DbError::OutcomeUnknown(text),
        // Not the caller's doing: the worker's own id, token or request was wrong, or the master is
        // at its wits' end.
        _ => DbError::Internal(format!("the master answered {status}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::db_routes::*;

    #[test]
    fn every_error_comes_out_as_it_went_in() {
        let text = || "why".to_owned();
        for error in [
            DbError::Refused(text()),
            DbError::Forbidden(text()),
            DbError::Conflict(text()),
            DbError::NotFound(text()),
            DbError::Busy(text()),
            DbError::Unavailable(text()),
            DbError::NotOwner(text()),
            DbError::OutcomeUnknown(text()),
        ] {
            let (status, kind) = status_and_kind(&error);
            assert_eq!(error_of(status, Some(kind), text()), error);
        }
    }

    #[test]
    fn a_master_of_another_make_is_judged_by_the_status() {
        for (status, error) in [
            (422, DbError::Refused("x".to_owned())),
            (413, DbError::Refused("x".to_owned())),
            (403, DbError::Forbidden("x".to_owned())),
            (409, DbError::Conflict("x".to_owned())),
            (503, DbError::Unavailable("x".to_owned())),
            (404, DbError::Internal("the master answered 404: x".to_owned())),
        ] {
            assert_eq!(error_of(status, None, "x".to_owned()), error);
        }
    }
}
