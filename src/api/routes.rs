//! The routes as data: what handles them, what access they need, and which parameters they have.
//! The description of the API (`openapi.rs`) is made from this table.

use super::error::{ApiError, Code};
use super::{
    Api, Call, backup, broadcast, cluster, dispatch, events, feed, global_kv, health, host, kv,
    log_level, message, metrics, openapi, page, scripts, status, stream, tenants, timers, workers,
};
use crate::base::limits::{API_BODY_MAX_BYTES, API_DB_BODY_MAX_BYTES, MESSAGE_BODY_MAX_BYTES};
use crate::net::http::router::Route;
use crate::net::http::{Body, Method, Response};

/// The callers that a route lets in, once the source rule let them pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteAccess {
    /// Anyone.
    Anyone,
    /// Callers that show a valid token.
    Token,
    /// Host processes, with a token of another kind, at which the action looks itself.
    Host,
}

/// What the body of a request for a tenant may be: it is read before the route's action is asked,
/// where the request may have to go to another master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteBody {
    /// Nothing.
    None,
    /// So many bytes at most.
    Data(usize),
    /// The same, counted in the tenant's share.
    Job(usize),
}

/// Answers a call; the body has not been read.
pub(super) type RouteAction = fn(&Api, &Call<'_>, &mut Body<'_>) -> Result<Response, ApiError>;

/// What a route leads to.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// The callers that it lets in.
    pub access: RouteAccess,
    /// The query parameters that it has.
    pub query: &'static [&'static str],
    /// The errors that it may answer besides those of every route; `TooLarge` if it reads a body.
    pub codes: &'static [Code],
    pub(super) action: RouteAction,
    /// It is about the tenant in its path, and carried out where that is.
    pub(super) tenant: Option<RouteBody>,
    /// Other masters ask it, too, and its action has them prove that they are some.
    pub(super) is_of_masters: bool,
}

impl Endpoint {
    const fn new(
        access: RouteAccess,
        query: &'static [&'static str],
        codes: &'static [Code],
        action: RouteAction,
    ) -> Self {
        Self { access, query, codes, action, tenant: None, is_of_masters: false }
    }

    /// The same about a tenant.
    const fn of_tenant(self, body: RouteBody) -> Self {
        Self { tenant: Some(body), ..self }
    }

    /// A route that only looks at the store.
    const fn reading(action: RouteAction) -> Self {
        Self::new(RouteAccess::Token, &[], &[Code::Unavailable], action)
    }

    /// A route about the workers themselves.
    const fn operating(action: RouteAction) -> Self {
        Self::new(
            RouteAccess::Token,
            &[],
            &[Code::NotFound, Code::Conflict, Code::Unavailable],
            action,
        )
    }

    /// A route that reads a body and changes the store.
    const fn writing(action: RouteAction) -> Self {
        Self::new(RouteAccess::Token, &[], WRITING, action)
    }
}

/// What may come of a change of the store that a body asks for.
const WRITING: &[Code] = &[Code::TooLarge, Code::Refused, Code::Unavailable, Code::OutcomeUnknown];

/// As [`WRITING`], and what may come of ending what runs.
const BANNING: &[Code] = &[
    Code::TooLarge,
    Code::Refused,
    Code::Unavailable,
    Code::OutcomeUnknown,
    Code::ScriptError,
    Code::Deadline,
];

/// As [`WRITING`], of what may be there or not.
const CHANGING: &[Code] = &[
    Code::TooLarge,
    Code::Refused,
    Code::Unavailable,
    Code::OutcomeUnknown,
    Code::NotFound,
    Code::Conflict,
];

/// What may come of telling a master what to do with its shards.
const SETTING_STATE: &[Code] = &[Code::NotFound, Code::Unavailable, Code::OutcomeUnknown];

/// What may come of a job for a tenant's worker.
const RUNNING: &[Code] = &[
    Code::TooLarge,
    Code::Banned,
    Code::Quarantined,
    Code::ScriptError,
    Code::NoWorker,
    Code::Deadline,
    Code::OutcomeUnknown,
];

/// What may come of a message, whose handler is not waited for.
const SENDING: &[Code] =
    &[Code::TooLarge, Code::Banned, Code::Quarantined, Code::NoWorker, Code::OutcomeUnknown];

/// The same of one that says nothing in a body and runs nothing.
const DROPPING: &[Code] =
    &[Code::ScriptError, Code::NoWorker, Code::Deadline, Code::OutcomeUnknown];

const fn post(pattern: &'static str, handler: Endpoint) -> Route<Endpoint> {
    Route { method: Method::Post, pattern, handler }
}

const fn put(pattern: &'static str, handler: Endpoint) -> Route<Endpoint> {
    Route { method: Method::Put, pattern, handler }
}

const fn get(pattern: &'static str, handler: Endpoint) -> Route<Endpoint> {
    Route { method: Method::Get, pattern, handler }
}

const JOB: RouteBody = RouteBody::Job(API_BODY_MAX_BYTES);

const DATA: RouteBody = RouteBody::Data(API_DB_BODY_MAX_BYTES);

const DISPATCH: Endpoint = Endpoint::new(
    RouteAccess::Token,
    &["nowait", "deadline_ms"],
    RUNNING,
    dispatch::dispatch_event,
)
.of_tenant(JOB);

const MESSAGE: Endpoint =
    Endpoint::new(RouteAccess::Token, &["deadline_ms"], SENDING, message::message)
        .of_tenant(RouteBody::Job(MESSAGE_BODY_MAX_BYTES));

const RUN_SCRIPT: Endpoint =
    Endpoint::new(RouteAccess::Token, &["deadline_ms"], RUNNING, scripts::run_script)
        .of_tenant(JOB);

const DROP_TENANT: Endpoint =
    Endpoint::new(RouteAccess::Token, &["deadline_ms"], DROPPING, scripts::drop_tenant)
        .of_tenant(RouteBody::None);

const GET_STATE: Endpoint =
    Endpoint::new(RouteAccess::Token, &[], &[Code::NotFound], tenants::get_state)
        .of_tenant(RouteBody::None);

const GUILDS_EXIST: Endpoint = Endpoint::new(
    RouteAccess::Token,
    &[],
    &[Code::TooLarge, Code::Unavailable],
    tenants::guilds_exist,
);

const STATUS: Endpoint = Endpoint { query: &["history"], ..Endpoint::operating(status::status) };

const DRAIN: Endpoint = Endpoint::new(RouteAccess::Token, &[], SETTING_STATE, cluster::drain);

const UNDRAIN: Endpoint = Endpoint::new(RouteAccess::Token, &[], SETTING_STATE, cluster::undrain);

const FEED: Endpoint = reading_news(&["tenants", "topics", "all"], feed::feed);

const LOGS: Endpoint = reading_news(&["tenants", "all", feed::FOLLOW, feed::ONLY_NEW], feed::logs);

const fn reading_news(query: &'static [&'static str], action: RouteAction) -> Endpoint {
    const CODES: &[Code] = &[Code::NoWorker, Code::Unavailable];
    Endpoint { is_of_masters: true, ..Endpoint::new(RouteAccess::Token, query, CODES, action) }
}

const BROADCAST: Endpoint = broadcasting(&[Code::NotFound], broadcast::show);

const BROADCAST_END: Endpoint = broadcasting(&[Code::NotFound], broadcast::cancel);

const fn broadcasting(codes: &'static [Code], action: RouteAction) -> Endpoint {
    Endpoint { is_of_masters: true, ..Endpoint::new(RouteAccess::Token, &[], codes, action) }
}

/// All routes of the internal API.
pub static ROUTES: &[Route<Endpoint>] = &[
    get("/", Endpoint::new(RouteAccess::Anyone, &[], &[], page::page)),
    get("/livez", Endpoint::new(RouteAccess::Anyone, &[], &[], health::livez)),
    get(
        "/readyz",
        Endpoint::new(RouteAccess::Anyone, &["verbose"], &[Code::NoWorker], health::readyz),
    ),
    get("/metrics", Endpoint::new(RouteAccess::Anyone, &[], &[], metrics::metrics)),
    get("/openapi.json", Endpoint::new(RouteAccess::Anyone, &[], &[], openapi::openapi)),
    post("/i/dispatch-event/{guild_id}", DISPATCH),
    post("/i/dispatch-event/{tenant_type}/{tenant_id}", DISPATCH),
    post(
        "/i/dispatch-events",
        Endpoint::new(RouteAccess::Token, &[], &[Code::TooLarge], events::dispatch_events),
    ),
    get("/i/stream", Endpoint::new(RouteAccess::Token, &[], &[], stream::stream)),
    get("/i/host", Endpoint::new(RouteAccess::Host, &[], &[], host::host)),
    post("/i/message/{tenant_type}/{tenant_id}", MESSAGE),
    post("/i/run-script/{tenant_type}/{tenant_id}", RUN_SCRIPT),
    post("/i/drop-tenant/{tenant_type}/{tenant_id}", DROP_TENANT),
    get(
        "/i/tenant/{tenant_type}/{tenant_id}",
        Endpoint::reading(tenants::show).of_tenant(RouteBody::None),
    ),
    get(
        "/i/timers/{tenant_type}/{tenant_id}",
        Endpoint::reading(timers::list).of_tenant(RouteBody::None),
    ),
    get("/i/tenant-state/{tenant_type}/{tenant_id}", GET_STATE),
    put(
        "/i/tenant-state/{tenant_type}/{tenant_id}",
        Endpoint::writing(tenants::put_state).of_tenant(DATA),
    ),
    post(
        "/i/ban/{tenant_type}/{tenant_id}",
        Endpoint::new(RouteAccess::Token, &[], BANNING, tenants::ban).of_tenant(DATA),
    ),
    post("/i/kv/{tenant_type}/{tenant_id}", Endpoint::writing(kv::kv).of_tenant(DATA)),
    post("/i/global-kv", Endpoint::new(RouteAccess::Token, &[], CHANGING, global_kv::global_kv)),
    post(
        "/i/purchase/{tenant_type}/{tenant_id}",
        Endpoint::new(RouteAccess::Token, &[], CHANGING, global_kv::purchase).of_tenant(DATA),
    ),
    post("/i/guilds-exist", GUILDS_EXIST),
    get("/i/store-backup", Endpoint::reading(backup::store_backup)),
    get("/i/feed", FEED),
    get("/i/logs", LOGS),
    get("/i/broadcast", BROADCAST),
    post(
        "/i/broadcast",
        broadcasting(&[Code::TooLarge, Code::Conflict, Code::Unavailable], broadcast::start),
    ),
    Route { method: Method::Delete, pattern: "/i/broadcast", handler: BROADCAST_END },
    get("/i/threads-count", Endpoint::new(RouteAccess::Token, &[], &[], tenants::threads_count)),
    get("/i/status", STATUS),
    get("/i/workers", Endpoint::operating(workers::list)),
    post("/i/kill-worker", Endpoint::operating(workers::kill_all)),
    post("/i/kill-worker/{id}", Endpoint::operating(workers::kill)),
    post("/i/restart-worker/{id}", Endpoint::operating(workers::restart)),
    get("/i/rolling-restart", Endpoint::operating(workers::rolling)),
    post("/i/rolling-restart", Endpoint::operating(workers::roll)),
    get("/i/log-level", Endpoint::new(RouteAccess::Token, &[], &[], log_level::show)),
    put("/i/log-level", Endpoint::new(RouteAccess::Token, &[], &[Code::TooLarge], log_level::set)),
    get("/i/masters", Endpoint::new(RouteAccess::Token, &[], &[], cluster::masters)),
    get(
        "/i/route/{tenant_type}/{tenant_id}",
        Endpoint::new(RouteAccess::Token, &[], &[Code::NotFound], cluster::route),
    ),
    post("/i/drain", DRAIN),
    post("/i/drain/{name}", DRAIN),
    post("/i/undrain", UNDRAIN),
    post("/i/undrain/{name}", UNDRAIN),
    get("/i/quarantine", Endpoint::operating(workers::quarantine)),
    post(
        "/i/quarantine/lift/{tenant_type}/{tenant_id}",
        Endpoint::operating(workers::lift).of_tenant(RouteBody::None),
    ),
];
