//! The routes as data: what handles them, who may call, and which parameters they have. A description of the API is
//! checked against this table.

use super::error::ApiError;
use super::{Api, Call, dispatch, health};
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
    Route { method: Method::Post, pattern: "/i/dispatch-event/{guild_id}", handler: DISPATCH },
    Route { method: Method::Post, pattern: "/i/dispatch-event/{tenant_type}/{tenant_id}", handler: DISPATCH },
];
