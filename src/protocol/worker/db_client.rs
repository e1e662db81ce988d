//! A worker's way to the database: `/db/*` of the master over kept-alive HTTP connections.
//!
//! Deliberately without rules and without a cache: `WorkerDb` checks rules before it asks, and the
//! master checks them again. What changes nothing when it is done twice is tried a second time if
//! its connection proved dead; nothing else is. The token is in every request's query, so no error
//! and no Debug of ours ever prints a URL. Called from a worker's I/O threads;
//! [`MesophyllDbClient::close`] frees those that wait.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::ErrorKind;

use ureq::{Agent, Error, Timeout};

use super::db_transport::{DbConnector, lookup};
use super::dial::Dial;
use crate::base::error::DbError;
use crate::base::limits::{
    DB_BODY_TIMEOUT, DB_CONNECT_TIMEOUT, DB_ERROR_MAX_BYTES, DB_IDLE_AGE, DB_IDLE_CONNECTIONS,
    DB_REPLY_MAX_BYTES, DB_RESPONSE_TIMEOUT, DB_SCOPES_MAX_BYTES, DB_SEND_TIMEOUT,
    DB_STATES_MAX_BYTES,
};
use crate::protocol::db_routes::{ERROR_HEADER, error_of};
use crate::wire::WireError;
use crate::wire::data::{DbAnswer, DbCall, DbOp, GlobalKv, TenantId, TenantState};
use crate::wire::pack::shape::{Decode, Encode};

/// A client of a master's `/db/*`. Clones share its connections.
#[derive(Clone)]
pub struct MesophyllDbClient {
    agent: Agent,
    /// `http://HOST:PORT`; the host of a Unix socket is this one.
    base: String,
    /// `?id=…&token=…`
    ident: String,
    /// Over TLS the token is here instead of there.
    authorization: Option<String>,
}

/// Whether doing it twice is the same as doing it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It only reads.
    Read,
    /// It writes, and writing the same again changes nothing.
    Idempotent,
    /// It writes, and a second time it would be refused, or undo what came between.
    Never,
}

struct DbExchange {
    path: &'static str,
    tenant: Option<TenantId>,
    /// None: a GET.
    body: Option<Vec<u8>>,
    repeat: Repeat,
    reply_max_bytes: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallFailure {
    /// Nothing was sent.
    NotSent,
    /// Nothing was sent: this worker has all the connections that it may have.
    NoRoom,
    /// The connection ended in the middle.
    Dead,
    /// Something else, in the middle.
    Broken,
    /// An answer came and cannot be used.
    Unreadable,
}

impl MesophyllDbClient {
    /// A client for the master at `HOST:PORT` or `unix:PATH`. Nothing is sent yet.
    pub fn new(master: &str, worker_id: usize, token: &str) -> Self {
        Self::over(&master.into(), worker_id, token)
    }

    /// A client for the master to which this way leads. Nothing is sent yet.
    pub fn over(master: &Dial, worker_id: usize, token: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // Never through what HTTP_PROXY says: the token would travel there.
            .proxy(None)
            .user_agent("")
            .timeout_global(Some(
                DB_CONNECT_TIMEOUT + DB_SEND_TIMEOUT + DB_RESPONSE_TIMEOUT + DB_BODY_TIMEOUT,
            ))
            .timeout_resolve(Some(DB_CONNECT_TIMEOUT))
            .timeout_connect(Some(DB_CONNECT_TIMEOUT))
            .timeout_send_request(Some(DB_SEND_TIMEOUT))
            .timeout_send_body(Some(DB_SEND_TIMEOUT))
            .timeout_recv_response(Some(DB_RESPONSE_TIMEOUT))
            .timeout_recv_body(Some(DB_BODY_TIMEOUT))
            .max_idle_connections(DB_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(DB_IDLE_CONNECTIONS)
            .max_idle_age(DB_IDLE_AGE)
            .build();
        let mut ident = format!("?id={worker_id}");
        let authorization = master.is_tls().then(|| format!("Bearer {token}"));
        if authorization.is_none() {
            ident.push_str("&token=");
            push_encoded(&mut ident, token);
        }
        let agent = Agent::with_parts(config, DbConnector::new(master), lookup(master));
        Self { agent, base: format!("http://{}", master.host()), ident, authorization }
    }

    /// Ends what is under way with an error, and everything later.
    pub fn close(&self) {
        self.agent.clone().shutdown();
    }

    /// The states of all tenants that belong to this worker; blocks as [`MesophyllDbClient::ask`].
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        let request = DbExchange {
            path: "/db/tenant-states",
            tenant: None,
            body: None,
            repeat: Repeat::Read,
            reply_max_bytes: DB_STATES_MAX_BYTES,
        };
        let reply = self.exchange(&request)?;
        Decode::from_bytes(&reply).map_err(|error| unreadable(&error, Repeat::Read))
    }

    /// Carries out an operation of a tenant.
    ///
    /// # Blocks
    /// Until the answer, at most the sum of the phases' deadlines in `limits.rs`.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn ask(&self, op: &DbOp) -> Result<DbAnswer, DbError> {
        let (path, tenant, body) = match op {
            DbOp::Kv(tenant, op) => ("/db/kv", Some(*tenant), op.to_bytes()),
            DbOp::Public(tenant, op) => ("/db/public-global-kv", *tenant, op.to_bytes()),
            DbOp::Global(tenant, op) => ("/db/global-kv", Some(*tenant), op.to_bytes()),
            DbOp::SetTenantState(tenant, state) => {
                ("/db/tenant-state", Some(*tenant), state.to_bytes())
            }
            DbOp::Timer(tenant, op) => ("/db/timers", Some(*tenant), op.to_bytes()),
        };
        let (call, repeat) = (op.call(), Repeat::of(op.call()));
        // Scopes are as large as the quota lets them be, which is an operator's choice.
        let is_scopes = call == DbCall::ListScopes;
        let reply_max_bytes = if is_scopes { DB_SCOPES_MAX_BYTES } else { DB_REPLY_MAX_BYTES };
        let reply =
            self.exchange(&DbExchange { path, tenant, body: Some(body), repeat, reply_max_bytes })?;
        answer(call, &reply).map_err(|error| unreadable(&error, repeat))
    }

    fn exchange(&self, request: &DbExchange) -> Result<Vec<u8>, DbError> {
        let repeat = request.repeat;
        match self.exchange_once(request) {
            Err(CallFailure::Dead) if repeat == Repeat::Read => self.exchange_once(request),
            Err(CallFailure::Dead) if repeat == Repeat::Idempotent => {
                match self.exchange_once(request) {
                    // The second time nothing was done; the outcome of the first is not known.
                    Err(_)
                    | Ok(Err(
                        DbError::Busy(_) | DbError::Unavailable(_) | DbError::NotOwner(_),
                    )) => {
                        Err(CallFailure::Dead)
                    }
                    answer => answer,
                }
            }
            answer => answer,
        }
        .unwrap_or_else(|lost| Err(lost.into_error(repeat)))
    }

    /// The master's answer: what it gave, or the error that it said.
    fn exchange_once(&self, request: &DbExchange) -> Result<Result<Vec<u8>, DbError>, CallFailure> {
        let url = self.url(request);
        let mut response = match (&request.body, &self.authorization) {
            (None, None) => self.agent.get(&url).call(),
            (None, Some(token)) => self.agent.get(&url).header("Authorization", token).call(),
            (Some(body), None) => self.agent.post(&url).send(&body[..]),
            (Some(body), Some(token)) => {
                self.agent.post(&url).header("Authorization", token).send(&body[..])
            }
        }
        .map_err(|error| CallFailure::of(&error))?;
        let status = response.status().as_u16();
        let is_ok = status == 200;
        let limit = if is_ok { request.reply_max_bytes } else { DB_ERROR_MAX_BYTES };
        let kind = response
            .headers()
            .get(ERROR_HEADER)
            .and_then(|kind| kind.to_str().ok())
            .map(str::to_owned);
        let body = response.body_mut().with_config().limit(limit).read_to_vec();
        if is_ok {
            return body.map(Ok).map_err(|error| CallFailure::of(&error));
        }
        // A status is an answer, even if the words to it are lost.
        Ok(Err(error_of(status, kind.as_deref(), one_line(&body.unwrap_or_default()))))
    }

    fn url(&self, request: &DbExchange) -> String {
        let mut url = format!("{}{}{}", self.base, request.path, self.ident);
        if let Some(tenant) = request.tenant {
            // Writing into a String cannot fail.
            let _ = write!(
                url,
                "&tenant_type={}&tenant_id={}",
                tenant.kind().as_str(),
                tenant.snowflake()
            );
        }
        url
    }
}

impl Repeat {
    fn of(call: DbCall) -> Self {
        match call {
            DbCall::Get
            | DbCall::Find
            | DbCall::ListScopes
            | DbCall::GlobalFind
            | DbCall::GlobalGet
            | DbCall::TimerList => Repeat::Read,
            // A timer has its id from its worker.
            DbCall::Set | DbCall::Delete | DbCall::SetTenantState | DbCall::TimerSet => {
                Repeat::Idempotent
            }
            // The second answer to a Cancel would be that there is no such timer.
            DbCall::GlobalCreate | DbCall::GlobalDelete | DbCall::TimerCancel => Repeat::Never,
        }
    }
}

/// Reads the body of an answer; that to a change may have any.
fn answer(call: DbCall, reply: &[u8]) -> Result<DbAnswer, WireError> {
    Ok(match call {
        DbCall::Get => DbAnswer::Record(Decode::from_bytes(reply)?),
        DbCall::Find => DbAnswer::Records(Decode::from_bytes(reply)?),
        DbCall::ListScopes => DbAnswer::Scopes(Decode::from_bytes(reply)?),
        DbCall::GlobalFind => DbAnswer::Entries(Decode::from_bytes(reply)?),
        DbCall::GlobalGet => DbAnswer::Entry(Option::<GlobalKv>::from_bytes(reply)?.map(Box::new)),
        DbCall::Set
        | DbCall::Delete
        | DbCall::GlobalCreate
        | DbCall::GlobalDelete
        | DbCall::SetTenantState
        | DbCall::TimerSet => DbAnswer::Done,
        DbCall::TimerCancel => DbAnswer::Cancelled(Decode::from_bytes(reply)?),
        DbCall::TimerList => DbAnswer::Timers(Decode::from_bytes(reply)?),
    })
}

fn unreadable(error: &WireError, repeat: Repeat) -> DbError {
    log::warn!("an answer of the master's database cannot be read: {error}");
    CallFailure::Unreadable.into_error(repeat)
}

impl CallFailure {
    fn of(error: &Error) -> Self {
        match error {
            Error::HostNotFound
            | Error::ConnectionFailed
            | Error::BadUri(_)
            | Error::Http(_)
            | Error::Timeout(Timeout::Resolve | Timeout::Connect) => CallFailure::NotSent,
            Error::Io(error) => match error.kind() {
                ErrorKind::ResourceBusy => CallFailure::NoRoom,
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable
                | ErrorKind::NotConnected => CallFailure::NotSent,
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe => CallFailure::Dead,
                _ => CallFailure::Broken,
            },
            Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) | Error::Protocol(_) => {
                CallFailure::Unreadable
            }
            _ => CallFailure::Broken,
        }
    }

    fn into_error(self, repeat: Repeat) -> DbError {
        match (self, repeat) {
            (CallFailure::Unreadable, Repeat::Read) => {
                DbError::Internal("the master's answer cannot be read".to_owned())
            }
            (CallFailure::NoRoom, _) => {
                DbError::Busy("this worker has no connection left for it".to_owned())
            }
            (CallFailure::NotSent, _) | (_, Repeat::Read) => {
                DbError::Unavailable("the master cannot be reached".to_owned())
            }
            _ => DbError::OutcomeUnknown(
                "the connection to the master broke: the change may have been made or not"
                    .to_owned(),
            ),
        }
    }
}

/// The first line of an error's body, as far as it is text.
fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.lines().next().unwrap_or_default().chars().filter(|char| !char.is_control()).collect()
}

/// Appends a query value; a token of ours has nothing to encode, but one from a file may be
/// anything.
fn push_encoded(url: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

impl fmt::Debug for MesophyllDbClient {
    // Not the ident: it holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MesophyllDbClient({})", self.base)
    }
}
