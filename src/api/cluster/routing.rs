//! Where a request for a tenant is carried out: here, at another master, or here a moment later.
//!
//! A request that may have to travel is read whole first. It goes to where the tenant is, and on to
//! another place when that one says that it does not have it, until the request's deadline. It is
//! carried out at most once: what may have reached another master and was not answered has an
//! unknown outcome.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::forward::{ForwardHeaders, ForwardOutcome, PeerAnswer};
use super::hop::{ForwardedRequest, HOP, PEER, PeerHop, REFUSED};
use super::{ApiCluster, MASTER};
use crate::api::admission::Permit;
use crate::api::error::{ApiError, Code};
use crate::api::request::{deadline, tenant};
use crate::api::request_id::RequestName;
use crate::api::routes::{Endpoint, ROUTES, RouteBody};
use crate::api::{Api, Call, InternalEndpoint, flag, token};
use crate::base::limits::{FORWARD_DEADLINE, FORWARD_MARGIN, FORWARD_PAUSE};
use crate::base::random;
use crate::cluster::{OtherMaster, ShardPlace};
use crate::net::http::router::{self, Found, Route};
use crate::net::http::{Body, Method, RequestHead, Response};
use crate::wire::data::TenantId;

/// For how many seconds the token is good with which a master asks another one by itself. What
/// carries it needs it for its deadline, by clocks that may differ.
const TOKEN_SECONDS: u64 = 360;

/// The header of a 421 that names the tenant's master, and the epoch.
const OWNER: &str = "Mesophyll-Owner";

/// A request for a tenant that was read whole.
struct TenantRequest<'r> {
    cluster: &'r ApiCluster,
    route: &'r Route<Endpoint>,
    kind: RouteBody,
    tenant: TenantId,
    body: Cow<'r, [u8]>,
    deadline: Instant,
}

/// What another master is asked.
pub(in crate::api) struct PeerRequest<'r> {
    pub(in crate::api) method: Method,
    pub(in crate::api) target: &'r str,
    pub(in crate::api) body: &'r [u8],
}

impl Api {
    /// Has a request for a tenant carried out where the tenant is.
    ///
    /// # Blocks
    /// As the route's action does; before it until the tenant is somewhere, and for the answer of
    /// another master. The wake-up is the end of the API.
    pub(in crate::api) fn answer_for_tenant(
        &self,
        cluster: &ApiCluster,
        route: &Route<Endpoint>,
        kind: RouteBody,
        call: &mut Call<'_>,
        body: &mut Body<'_>,
    ) -> Result<Response, ApiError> {
        let tenant = tenant(call)?;
        let hop = call.head.header(HOP);
        if hop.is_none() && cluster.table.is_alone() && cluster.table.serves(tenant) {
            let answer = (route.handler.action)(self, call, body);
            // No other master could be asked instead.
            return answer.map_err(|error| if error.is_not_owner() { unsettled() } else { error });
        }
        let patience = if route.handler.query.contains(&"deadline_ms") {
            deadline(call)?.unwrap_or(self.config.default_deadline)
        } else {
            FORWARD_DEADLINE
        };
        let (permit, body) = self.read_for_tenant(kind, tenant, body)?;
        let deadline = Instant::now() + patience;
        call.until = Some(deadline);
        let request = TenantRequest { cluster, route, kind, tenant, body, deadline };
        match hop {
            Some(hop) => {
                self.check_hop(hop, call, &request.body)?;
                call.is_of_master = true;
                self.answer_peer(&request, call, permit)
            }
            None => self.answer_anywhere(&request, call, permit),
        }
    }

    /// Has a POST for a tenant carried out where the tenant is, as if `caller` had asked; without
    /// one, as this master itself.
    ///
    /// # Blocks
    /// As [`Api::answer_for_tenant`], until `deadline`.
    pub(in crate::api) fn ask_as_master(
        &self,
        target: &str,
        caller: Option<InternalEndpoint>,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<Response, ApiError> {
        let unavailable = || ApiError::new(Code::Unavailable, "there is no other master");
        let cluster = self.ready.cluster().ok_or_else(unavailable)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let user_id = caller.map_or(0, |caller| caller.user_id);
        let token = token::mint(&self.config.secret, user_id, now + TOKEN_SECONDS);
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: master\r\nAuthorization: Internal {token}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let head = RequestHead::parse(head, ([127, 0, 0, 1], 0).into());
        let head = head.map_err(|refusal| ApiError::of_refusal(&refusal))?;
        let Found::Route(route, params) = router::find(ROUTES, Method::Post, head.path()) else {
            return Err(unavailable());
        };
        let kind = route.handler.tenant.ok_or_else(unavailable)?;
        let (id, until) = (RequestName::of(&head), Some(deadline));
        let mut call =
            Call { head: &head, id: &id, params, caller, until, is_of_master: caller.is_none() };
        self.answer_for_tenant(cluster, route, kind, &mut call, &mut Body::from_bytes(&body))
    }

    fn read_for_tenant<'b>(
        &self,
        kind: RouteBody,
        tenant: TenantId,
        body: &mut Body<'b>,
    ) -> Result<(Permit, Cow<'b, [u8]>), ApiError> {
        match kind {
            RouteBody::None => Ok((self.admit_without_body(body)?, Cow::Borrowed(&[]))),
            RouteBody::Data(max_bytes) => self.read_body(None, body, max_bytes),
            RouteBody::Job(max_bytes) => self.read_body(Some(tenant), body, max_bytes),
        }
    }

    /// Makes sure that a request comes from another master as it says.
    pub(in crate::api) fn check_hop(
        &self,
        hop: &str,
        call: &Call<'_>,
        body: &[u8],
    ) -> Result<(), ApiError> {
        let refused = |text: &str| {
            log::warn!("refused what {} forwards: {text}", call.head.peer());
            ApiError::bad_request(text).with_header(PEER, REFUSED)
        };
        let hop =
            PeerHop::parse(hop).ok_or_else(|| refused("the Mesophyll-Hop header is malformed"))?;
        let proof = call.head.header(PEER);
        let proof =
            proof.ok_or_else(|| refused("a request with Mesophyll-Hop needs Mesophyll-Peer"))?;
        let (method, target) = (call.head.method().as_str(), call.head.raw_target());
        let request = ForwardedRequest { method, target, hop, body };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_unix_ms = now.as_millis() as u64;
        self.nonces.check(&self.config.secret, &request, proof, now_unix_ms).map_err(refused)
    }

    /// A request that another master forwards is carried out here or not at all.
    fn answer_peer(
        &self,
        request: &TenantRequest<'_>,
        call: &Call<'_>,
        permit: Permit,
    ) -> Result<Response, ApiError> {
        let table = &request.cluster.table;
        let refusal = match table.place(request.tenant) {
            ShardPlace::Here(_) => match self.answer_here(request, call, permit) {
                Err(error) if error.is_not_owner() => error,
                answer => return answer,
            },
            _ => {
                // It may have been handed over to this one just now.
                table.look_again();
                ApiError::new(Code::NotOwner, "this master does not have the tenant")
            }
        };
        Err(match table.place(request.tenant) {
            ShardPlace::There(other) => {
                refusal.with_header(OWNER, format!("{}, {}", other.name, other.epoch))
            }
            _ => refusal,
        })
    }

    fn answer_anywhere(
        &self,
        request: &TenantRequest<'_>,
        call: &Call<'_>,
        permit: Permit,
    ) -> Result<Response, ApiError> {
        let TenantRequest { cluster: ApiCluster { table, .. }, tenant, deadline, .. } = *request;
        let mut permit = Some(permit);
        let mut place = table.wait(tenant, deadline);
        loop {
            // A request counts once: the action takes a place of its own.
            let held = match permit.take() {
                Some(permit) => permit,
                None => self.admit_again(request)?,
            };
            match &place {
                ShardPlace::Here(_) => match self.answer_here(request, call, held) {
                    Err(error) if error.is_not_owner() => {}
                    answer => return answer,
                },
                ShardPlace::There(other) => match self.answer_there(other, request, call, held)? {
                    Ok(response) => return Ok(response),
                    Err(held) => permit = Some(held),
                },
                ShardPlace::Unsettled => return Err(unsettled()),
            }
            let now = Instant::now();
            if now >= deadline || table.is_over() {
                return Err(unsettled());
            }
            place = table.wait_for_another(tenant, &place, deadline.min(now + pause()));
            if place == ShardPlace::Unsettled {
                place = table.wait(tenant, deadline);
            }
        }
    }

    fn admit_again(&self, request: &TenantRequest<'_>) -> Result<Permit, ApiError> {
        let share = matches!(request.kind, RouteBody::Job(_)).then_some(request.tenant);
        Ok(self.admission.admit(share, request.body.len() as u64)?)
    }

    fn answer_here(
        &self,
        request: &TenantRequest<'_>,
        call: &Call<'_>,
        permit: Permit,
    ) -> Result<Response, ApiError> {
        drop(permit);
        (request.route.handler.action)(self, call, &mut Body::from_bytes(&request.body))
    }

    /// Has another master answer a request as one of its cluster, for the same caller.
    ///
    /// # Blocks
    /// Until the answer, or for `patience`.
    ///
    /// # Errors
    /// Any outcome but `Answered`.
    pub(in crate::api) fn ask_master(
        &self,
        other: &OtherMaster,
        request: &PeerRequest<'_>,
        call: &Call<'_>,
        permit: &mut Permit,
        patience: Duration,
    ) -> Result<PeerAnswer, ForwardOutcome> {
        let from = self.ready.cluster().map_or("", |cluster| &cluster.name);
        let hop = PeerHop { epoch: other.epoch, from };
        let PeerRequest { method, target, body } = *request;
        let signed = ForwardedRequest { method: method.as_str(), target, hop, body };
        let headers = ForwardHeaders::of(call);
        let secret = &self.config.secret;
        self.forwarder.send(&other.api, &signed, &headers, secret, permit, patience)
    }

    /// Has another master answer; gives the permit back if nothing came of it and the request may
    /// go elsewhere.
    fn answer_there(
        &self,
        other: &OtherMaster,
        request: &TenantRequest<'_>,
        call: &Call<'_>,
        mut permit: Permit,
    ) -> Result<Result<Response, Permit>, ApiError> {
        let left = request.deadline.saturating_duration_since(Instant::now());
        let Some(target) = target(request, call, left)? else { return Err(unsettled()) };
        let method = request.route.method;
        let asked = PeerRequest { method, target: &target, body: &request.body };
        let name = &other.name;
        match self.ask_master(other, &asked, call, &mut permit, left) {
            Ok(answer) => Ok(Ok(passed_on(answer, name, permit))),
            Err(ForwardOutcome::NotOwner | ForwardOutcome::NotSent) => Ok(Err(permit)),
            // It was only looked for.
            Err(ForwardOutcome::Unknown) if method == Method::Get => Ok(Err(permit)),
            Err(ForwardOutcome::Refused) => Err(refused_by(self, name)),
            Err(ForwardOutcome::NoRoom) => {
                let error = ApiError::new(
                    Code::Busy,
                    "too many large answers are under way to keep this one",
                );
                Err(if method == Method::Get { error } else { error.sent() })
            }
            Err(ForwardOutcome::Unknown | ForwardOutcome::Answered) => Err(ApiError::new(
                Code::OutcomeUnknown,
                format!("master {name}, which has the tenant, took the request and did not answer"),
            )
            .sent()),
        }
    }
}

/// The target for another master: what is left of the time is told, a little less than there is;
/// `None` if nothing is left.
fn target(
    request: &TenantRequest<'_>,
    call: &Call<'_>,
    left: Duration,
) -> Result<Option<String>, ApiError> {
    // Of a tenant's route: words, and a number.
    let mut target = call.head.path().to_owned();
    let query = request.route.handler.query;
    let mut separator = '?';
    let millis = left.saturating_sub(FORWARD_MARGIN.min(left / 4)).as_millis();
    if millis == 0 {
        return Ok(None);
    }
    // Writing into a String cannot fail.
    if query.contains(&"deadline_ms") {
        let _ = write!(target, "{separator}deadline_ms={millis}");
        separator = '&';
    }
    if query.contains(&"nowait") && flag(call.head, "nowait")? {
        let _ = write!(target, "{separator}nowait");
    }
    Ok(Some(target))
}

fn passed_on(answer: PeerAnswer, name: &str, permit: Permit) -> Response {
    let PeerAnswer { status, is_json, headers, body } = answer;
    let content_type = if is_json { "application/json" } else { "" };
    let mut response = Response::new(status, content_type, body).holding(permit);
    if !headers.iter().any(|(header, _)| *header == MASTER) {
        response = response.with_header(MASTER, name);
    }
    response.headers.extend(headers);
    response
}

/// Between two attempts; not the same for all that wait.
fn pause() -> Duration {
    let more = random::u64() % (FORWARD_PAUSE.as_millis() as u64 * 3 / 2);
    FORWARD_PAUSE + Duration::from_millis(more)
}

/// The error of a request that another master does not take from this one.
pub(super) fn refused_by(api: &Api, name: &str) -> ApiError {
    let text = format!(
        "master {name} does not take this one for a peer: both need the same \
        MESOPHYLL_API_SECRET, clocks that agree, and --peer-source"
    );
    if let Some(count) = api.forwarder.refusals.record(Instant::now()) {
        log::warn!("{text} ({count} requests so far)");
    }
    ApiError::new(Code::Unavailable, text)
}

pub(super) fn unsettled() -> ApiError {
    ApiError::new(Code::NoWorker, "no master has the tenant at the moment; nothing was done")
}
