//! The routes as data: what handles them, who may call, and which parameters they have. A description of the API is
//! checked against this table.

use super::error::ApiError;
use super::{Api, Call, backup, dispatch, global_kv, health, kv, scripts, tenants};
use crate::http::router::Route;
use crate::http::{Body, Method, Response};

/// Who may call a route, once the source rule let them pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Anyone,
    /// Who shows a valid token.
    Token,
}

/// Answers a call; the body has not been read.
pub(super) type Action = fn(&Api, &Call<'_>, &mut Body<'_>) -> Result<Response, ApiError>;

/// What a route leads to.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Who may call it.
    pub access: Access,
    /// The query parameters that it has.
    pub query: &'static [&'static str],
    pub(super) action: Action,
}

impl Endpoint {
    /// A route for who shows a token, without parameters in its query.
    const fn of(action: Action) -> Self {
        Self { access: Access::Token, query: &[], action }
    }

    /// A route that waits for a tenant's worker.
    const fn waiting(action: Action) -> Self {
        Self { access: Access::Token, query: &["deadline_ms"], action }
    }
}

const fn post(pattern: &'static str, handler: Endpoint) -> Route<Endpoint> {
    Route { method: Method::Post, pattern, handler }
}

const fn get(pattern: &'static str, handler: Endpoint) -> Route<Endpoint> {
    Route { method: Method::Get, pattern, handler }
}

const DISPATCH: Endpoint =
    Endpoint { access: Access::Token, query: &["nowait", "deadline_ms"], action: dispatch::dispatch_event };

/// All routes of the internal API.
pub static ROUTES: &[Route<Endpoint>] = &[
    Route {
        method: Method::Get,
        pattern: "/livez",
        handler: Endpoint { access: Access::Anyone, query: &[], action: health::livez },
    },
    Route {
        method: Method::Get,
        pattern: "/readyz",
        handler: Endpoint { access: Access::Anyone, query: &["verbose"], action: health::readyz },
    },
    post("/i/dispatch-event/{guild_id}", DISPATCH),
    post("/i/dispatch-event/{tenant_type}/{tenant_id}", DISPATCH),
    post("/i/run-script/{tenant_type}/{tenant_id}", Endpoint::waiting(scripts::run_script)),
    post("/i/drop-tenant/{tenant_type}/{tenant_id}", Endpoint::waiting(scripts::drop_tenant)),
    get("/i/tenant/{tenant_type}/{tenant_id}", Endpoint::of(tenants::show)),
    get("/i/tenant-state/{tenant_type}/{tenant_id}", Endpoint::of(tenants::get_state)),
    Route {
        method: Method::Put,
        pattern: "/i/tenant-state/{tenant_type}/{tenant_id}",
        handler: Endpoint::of(tenants::put_state),
    },
    post("/i/ban/{tenant_type}/{tenant_id}", Endpoint::of(tenants::ban)),
    post("/i/kv/{tenant_type}/{tenant_id}", Endpoint::of(kv::kv)),
    post("/i/global-kv", Endpoint::of(global_kv::global_kv)),
    post("/i/purchase/{tenant_type}/{tenant_id}", Endpoint::of(global_kv::purchase)),
    post("/i/guilds-exist", Endpoint::of(tenants::guilds_exist)),
    get("/i/store-backup", Endpoint::of(backup::store_backup)),
    get("/i/threads-count", Endpoint::of(tenants::threads_count)),
];
