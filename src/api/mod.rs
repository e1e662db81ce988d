//! The internal API: how trusted services on this host (or in networks the operator named) reach
//! tenants.
//!
//! A listener of its own, never the worker-facing port. Every request passes the same gates in the
//! same order: source → route and method → token → parameters → body; the routes are data
//! ([`ROUTES`]). Deliberately ignorant of how workers run: it dispatches through [`WorkerLike`],
//! asks [`Readiness`], and reads and writes through [`DbState`]. Handlers run on the connections'
//! threads, which the [`HttpServer`] owns; the master owns the [`InternalApi`].

mod admission;
#[cfg(test)]
mod api_page;
mod backup;
mod broadcast;
mod cluster;
mod dispatch;
mod error;
mod event_door;
mod event_keys;
mod event_line;
mod events;
mod feed;
mod global_kv;
mod health;
mod history;
mod host;
pub mod host_line;
mod kv;
mod log_level;
mod message;
pub mod metrics;
mod openapi;
mod page;
mod request;
mod request_id;
mod routes;
mod scripts;
mod served_links;
mod source;
mod status;
mod stream;
mod tenants;
mod text;
mod timers;
pub mod token;
mod waits;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::Level;

use self::admission::{Admission, Amounts};
use self::cluster::{EventForwarder, Forwarder, HOP, MASTER, PEER, PeerNonces, REFUSED};
use self::error::ApiError;
use self::event_keys::EventKeys;
use self::event_line::LineOutcomes;
use self::history::{History, Recorder};
use self::metrics::Statuses;
use self::request_id::RequestName;
use self::routes::RouteBody;
use self::served_links::ServedLinks;
use self::source::SourceRule;
use crate::base::limits::{
    API_ANSWERS_MAX_BYTES, API_BODIES_MAX_BYTES, API_RESERVED_CONNECTIONS, API_TENANT_SHARE,
    DISPATCH_DEADLINE, FEED_PEERS_MAX, FEEDS_MAX, HOSTS_MAX, STREAMS_MAX,
};
use crate::base::rates::Rates;
use crate::dispatch::worker_like::WorkerLike;
use crate::net::http::router::{self, Found, PathParams};
use crate::net::http::{
    Body, Handler, HttpLimits, HttpServer, HttpStats, HttpWatch, Refusal, RequestHead, Response,
};
use crate::net::stream::Peer;
use crate::net::stream::tls::{TlsClient, TlsServer};
use crate::store::DbState;
use crate::wire::data::MessageOutcome;

pub(crate) use self::broadcast::BroadcastAnswer;
pub use self::cluster::{ApiCluster, ForwardOutcome, SetMasterState};
pub(crate) use self::cluster::{ListedMaster, RouteAnswer};
pub use self::error::Code;
pub use self::event_line::{EventLine, LineOutcome, LineTerms, STREAM_ID_MAX, WantedAnswer};
pub use self::health::Readiness;
pub use self::routes::{Endpoint, ROUTES, RouteAccess};
pub use self::served_links::ServedEnd;
pub use self::source::{Cidr, ParseCidrError};
pub use self::status::About;
use self::token::{Secret, TokenError};
use self::waits::Waits;
pub(crate) use self::workers::{QuarantinedTenant, WorkerAnswer};

/// What a caller learns that is over its rate.
const OVER_RATE: &str = "the caller sends more a second than --caller-rate lets it";

/// Of an answer that tells of what happens, what is there already is written together up to about
/// so many bytes.
const GATHER_BYTES: usize = 64 * 1024;

/// What is sent after the deadline of a shutdown: time to say that it is over to those that still
/// waited.
const FAREWELL: Duration = Duration::from_secs(1);

/// What an operator decides about the internal API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Signs the tokens.
    pub secret: Secret,
    /// Networks that are answered besides loopback.
    pub trusted_sources: Vec<Cidr>,
    /// Networks besides loopback in which the other masters of its cluster are.
    pub peer_sources: Vec<Cidr>,
    /// Deadline of a dispatch whose caller names none.
    pub default_deadline: Duration,
    /// Events, messages and scripts that one caller may send a second, if there is a bound.
    pub caller_rate: Option<u32>,
    /// What the port speaks instead of plain HTTP.
    pub tls: Option<Arc<TlsServer>>,
    /// What the ports of other masters speak.
    pub peer_tls: Option<TlsClient>,
    /// Bounds of the server.
    pub http: HttpLimits,
    /// Bytes of bodies in memory at once.
    pub bodies_max_bytes: u64,
    /// Bytes of large answers in memory at once.
    pub answers_max_bytes: u64,
    /// What tenants without a state are subscribed to: told, as a caller that gives such a tenant a
    /// state takes it away.
    pub default_events: Vec<String>,
}

impl ApiConfig {
    /// The defaults, with this secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            trusted_sources: Vec::new(),
            peer_sources: Vec::new(),
            default_deadline: DISPATCH_DEADLINE,
            caller_rate: None,
            tls: None,
            peer_tls: None,
            http: HttpLimits::default(),
            bodies_max_bytes: API_BODIES_MAX_BYTES,
            answers_max_bytes: API_ANSWERS_MAX_BYTES,
            default_events: Vec::new(),
        }
    }
}

/// The caller, as its token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InternalEndpoint {
    /// The Discord id of the user on whose behalf the service acts: the author of the events it
    /// dispatches.
    pub user_id: u64,
    /// Whether it may name another user as their author.
    pub acts_as_any: bool,
}

/// The running internal API. Dropping it shuts it down at once.
#[derive(Debug)]
pub struct InternalApi {
    // First, so that it ends before what it looks at.
    _recorder: Recorder,
    server: HttpServer,
    api: Arc<Api>,
}

impl InternalApi {
    /// Starts to serve a listener.
    ///
    /// # Errors
    /// The listener is unusable, or there is no thread for it.
    pub fn start(
        listener: TcpListener,
        config: ApiConfig,
        pool: Arc<dyn WorkerLike>,
        ready: Arc<dyn Readiness>,
        db: Arc<DbState>,
    ) -> io::Result<Self> {
        let waits = Arc::new(Waits::new());
        // Some clients know no length before they send, and the worker-facing port's protocol binds
        // that port only.
        // Readers of feeds take no place of other requests.
        let connections = config.http.connections + FEEDS_MAX + FEED_PEERS_MAX;
        let limits = HttpLimits { takes_chunks: true, connections, ..config.http.clone() };
        let tls = config.tls.clone();
        let api = Arc::new(Api::new(config, pool, ready, db, waits));
        let server = HttpServer::start_over(listener, tls, "api", limits, api.clone())?;
        // The first and only time.
        let _ = api.http.set(server.watch());
        let forwarding = Arc::downgrade(&api);
        api.event_forwarder.ask_through(forwarding.clone());
        api.ready.messages().forward_by(Box::new(move |message, deadline| {
            let api = forwarding.upgrade();
            api.map_or(MessageOutcome::Busy, |api| api.forward_message(message, deadline))
        }));
        Ok(Self { _recorder: Recorder::start(api.clone())?, server, api })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> HttpStats {
        self.server.stats()
    }

    /// Refuses new requests, ends the readers of feeds, says goodbye to streams, lets what is under
    /// way finish until the deadline, then ends its waits (its callers are told that the outcome is
    /// unknown) and joins every thread. A second call does nothing.
    ///
    /// # Blocks
    /// Until `deadline` and a second more.
    pub fn shutdown(&self, deadline: Instant) {
        self.api.ready.feeds().end();
        self.api.streams.say_goodbye();
        self.server.drain(deadline);
        self.api.streams.wait_until_answered(deadline);
        self.api.waits.end();
        self.api.streams.end(Instant::now() + FAREWELL);
        self.api.host_links.end(Instant::now() + FAREWELL);
        self.api.forwarder.close();
        if let Some(cluster) = self.api.ready.cluster() {
            cluster.table.end();
        }
        self.api.event_forwarder.finish();
        self.server.shutdown(Instant::now() + FAREWELL);
    }
}

impl Drop for InternalApi {
    fn drop(&mut self) {
        self.shutdown(Instant::now());
    }
}

/// What the handlers share.
pub(crate) struct Api {
    config: ApiConfig,
    source: SourceRule,
    /// Where requests that other masters forward come from.
    peers: SourceRule,
    nonces: PeerNonces,
    forwarder: Forwarder,
    admission: Arc<Admission>,
    pool: Arc<dyn WorkerLike>,
    ready: Arc<dyn Readiness>,
    db: Arc<DbState>,
    backups: Arc<AtomicUsize>,
    scrapes: Arc<AtomicUsize>,
    /// Readers of feeds, and those that are other masters.
    feed_readers: Arc<AtomicUsize>,
    feed_peers: Arc<AtomicUsize>,
    statuses: Arc<AtomicUsize>,
    event_keys: Arc<EventKeys>,
    event_lines: Arc<LineOutcomes>,
    streams: Arc<ServedLinks>,
    host_links: Arc<ServedLinks>,
    event_forwarder: Arc<EventForwarder>,
    /// Of callers, by their users.
    rates: Option<Arc<Rates<u64>>>,
    history: History,
    answered: Statuses,
    /// Of its own server, once that runs.
    http: OnceLock<HttpWatch>,
    waits: Arc<Waits>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

/// A request that passed the gates before its body.
pub(crate) struct Call<'c> {
    head: &'c RequestHead,
    id: &'c RequestName,
    params: PathParams<'c>,
    /// `None` on routes without a token.
    caller: Option<InternalEndpoint>,
    /// By when it is to be answered, once it has waited for its tenant's place.
    until: Option<Instant>,
    /// This master asks for a tenant of its own, or another one proved that it does.
    is_of_master: bool,
}

impl Api {
    fn new(
        config: ApiConfig,
        pool: Arc<dyn WorkerLike>,
        ready: Arc<dyn Readiness>,
        db: Arc<DbState>,
        waits: Arc<Waits>,
    ) -> Self {
        let connections = config.http.connections;
        let bounds = Amounts {
            places: connections.saturating_sub(API_RESERVED_CONNECTIONS).max(1) as u64,
            bytes: config.bodies_max_bytes,
            answer_bytes: config.answers_max_bytes,
        };
        let share = Amounts {
            places: connections as u64 / API_TENANT_SHARE,
            bytes: bounds.bytes / API_TENANT_SHARE,
            answer_bytes: bounds.answer_bytes / API_TENANT_SHARE,
        };
        Self {
            source: SourceRule::new(config.trusted_sources.clone()),
            peers: SourceRule::new(config.peer_sources.clone()),
            nonces: PeerNonces::default(),
            forwarder: Forwarder::new(config.peer_tls.as_ref()),
            rates: config.caller_rate.map(|rate| Arc::new(Rates::new((rate, rate)))),
            config,
            admission: Arc::new(Admission::new(bounds, share)),
            pool,
            ready,
            db,
            backups: Arc::default(),
            scrapes: Arc::default(),
            feed_readers: Arc::default(),
            feed_peers: Arc::default(),
            statuses: Arc::default(),
            event_keys: Arc::default(),
            event_lines: Arc::default(),
            streams: ServedLinks::new("stream", "streams", STREAMS_MAX),
            host_links: ServedLinks::new("host", "host processes", HOSTS_MAX),
            event_forwarder: EventForwarder::new(),
            history: History::default(),
            answered: Statuses::default(),
            http: OnceLock::new(),
            waits,
        }
    }

    /// The gates, in the order in which a caller may learn of them.
    fn answer(
        &self,
        head: &RequestHead,
        id: &RequestName,
        body: &mut Body<'_>,
    ) -> Result<Response, ApiError> {
        let cluster = self.ready.cluster();
        let is_hop = cluster.is_some() && head.header(HOP).is_some();
        self.check_source(head, is_hop)?;
        let (route, params) = match router::find(ROUTES, head.method(), head.path()) {
            Found::Route(route, params) => (route, params),
            Found::WrongMethod { allow } => return Err(ApiError::method_not_allowed(allow)),
            Found::Nothing => return Err(ApiError::new(Code::NotFound, "there is no such route")),
        };
        let caller = match route.handler.access {
            RouteAccess::Anyone | RouteAccess::Host => None,
            RouteAccess::Token => Some(self.authenticate(head)?),
        };
        check_query(head, route.handler.query)?;
        if let Some(RouteBody::Job(_)) = route.handler.tenant
            && !is_hop
        {
            self.count_in_rate(caller)?;
        }
        let mut call = Call { head, id, params, caller, until: None, is_of_master: false };
        match (cluster, route.handler.tenant) {
            (Some(cluster), Some(kind)) => {
                self.answer_for_tenant(cluster, route, kind, &mut call, body)
            }
            _ if is_hop && !route.handler.is_of_masters => {
                Err(ApiError::bad_request("this route is of one master only"))
            }
            _ => (route.handler.action)(self, &call, body),
        }
    }

    /// Lets trusted sources in, and with a request that is forwarded those of other masters.
    fn check_source(&self, head: &RequestHead, is_hop: bool) -> Result<(), ApiError> {
        let (rule, address) = (if is_hop { &self.peers } else { &self.source }, head.peer().ip());
        if rule.allows(address) {
            return Ok(());
        }
        if self.source.allows(address) {
            let text = "only another master forwards requests; --peer-source says where they are";
            return Err(ApiError::bad_request(text).with_header(PEER, REFUSED));
        }
        let error = ApiError::restricted(head.peer());
        Err(if is_hop { error.with_header(PEER, REFUSED) } else { error })
    }

    /// Counts what a caller wants a tenant to do.
    fn count_in_rate(&self, caller: Option<InternalEndpoint>) -> Result<(), ApiError> {
        let (Some(rates), Some(caller)) = (&self.rates, caller) else { return Ok(()) };
        if rates.admits(caller.user_id, Instant::now()) {
            return Ok(());
        }
        Err(ApiError::new(Code::Busy, OVER_RATE))
    }

    fn authenticate(&self, head: &RequestHead) -> Result<InternalEndpoint, ApiError> {
        self.authenticate_by(head, token::verify)
    }

    /// What `verify` finds in the token of a request.
    fn authenticate_by<T>(
        &self,
        head: &RequestHead,
        verify: fn(&Secret, &str, u64) -> Result<T, TokenError>,
    ) -> Result<T, ApiError> {
        let header = head.header("authorization").ok_or_else(|| {
            ApiError::new(
                Code::NoAuthToken,
                "this route needs a header `Authorization: Internal {token}`",
            )
        })?;
        let invalid = |text: &str| ApiError::new(Code::InvalidToken, text);
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("internal") => token.trim(),
            _ => return Err(invalid("the Authorization header is not `Internal {token}`")),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        verify(&self.config.secret, token, now).map_err(|error| invalid(&error.to_string()))
    }
}

impl Handler for Api {
    fn handle(&self, head: &RequestHead, body: &mut Body<'_>) -> Response {
        let id = RequestName::of(head);
        let answer = self.answer(head, &id, body);
        log_answer(head, &id, answer.as_ref());
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        if let Some(cluster) = self.ready.cluster().filter(|cluster| cluster.cluster.is_some())
            && !response.headers.iter().any(|(name, _)| *name == MASTER)
        {
            response = response.with_header(MASTER, cluster.name.as_str());
        }
        self.answered.count(response.status);
        response
            .with_header("Cache-Control", "no-store")
            .with_header(request_id::HEADER, id.as_str())
    }

    fn refuse(&self, refusal: &Refusal, peer: Peer) -> Response {
        let error = if self.source.allows(peer.ip()) || self.peers.allows(peer.ip()) {
            ApiError::of_refusal(refusal)
        } else {
            ApiError::restricted(peer)
        };
        let response = error.into_response();
        self.answered.count(response.status);
        response
    }
}

/// A line for each request, with what tells it from others. What a script said of itself may be in
/// an error: it is quoted.
fn log_answer(head: &RequestHead, id: &RequestName, answer: Result<&Response, &ApiError>) {
    let level = match answer {
        Err(error) if error.is_a_bug() => Level::Error,
        _ => Level::Debug,
    };
    if !log::log_enabled!(level) {
        return;
    }
    let what = match answer {
        Ok(response) => response.status.to_string(),
        Err(error) => error.in_a_log(),
    };
    let tenant = match router::find(ROUTES, head.method(), head.path()) {
        Found::Route(_, params) => request::tenant_named(&params),
        _ => None,
    };
    match tenant {
        Some(tenant) => {
            log::log!(level, request_id = id.as_str(), tenant:% = tenant; "{head:?} ({id}): {what}")
        }
        None => log::log!(level, request_id = id.as_str(); "{head:?} ({id}): {what}"),
    }
}

/// Every parameter must be one that the route has, and be there once: a misspelt `nowait` is not to
/// be waited for.
fn check_query(head: &RequestHead, known: &[&str]) -> Result<(), ApiError> {
    for (at, (name, _)) in head.query_pairs().enumerate() {
        if !known.contains(&name) {
            return Err(ApiError::bad_request(format!(
                "unknown query parameter {:?}",
                shortened(name)
            )));
        }
        if head.query_pairs().take(at).any(|(earlier, _)| earlier == name) {
            return Err(ApiError::bad_request(format!("the query parameter {name:?} is repeated")));
        }
    }
    Ok(())
}

/// A flag of the query: `?name`, `?name=true` or `1`; absent, `false` or `0` otherwise.
fn flag(head: &RequestHead, name: &str) -> Result<bool, ApiError> {
    match head.query(name) {
        Some("" | "true" | "1") => Ok(true),
        None | Some("false" | "0") => Ok(false),
        Some(_) => {
            Err(ApiError::bad_request(format!("the query parameter {name:?} is true or false")))
        }
    }
}

/// So much of a text from outside as helps its sender to find it.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
