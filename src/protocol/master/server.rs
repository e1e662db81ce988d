//! The master's end: one port for `/ws` and `/db/*`, connections that are handed out to workers of
//! this host, the workers' tokens, and their links by worker id.
//!
//! Requests run on the HTTP layer's connection threads; a link's two threads belong to the
//! [`Link`]s kept here and are joined at the latest by [`MesophyllServer::shutdown`]. What a
//! worker's process does is its supervisor's business.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ctutils::CtEq;
use log::LevelFilter;

use crate::base::limits::{BROKER_CONNECTIONS, HTTP_CONNECTIONS_MAX};
use crate::base::random;
use crate::base::sync::{CountedPermit, Lock};
use crate::dispatch::MessageDoor;
use crate::dispatch::worker_like::WorkerLike;
use crate::feeds::Feeds;
use crate::net::http::{Body, Handler, HttpLimits, HttpServer, HttpStats, RequestHead, Response};
use crate::net::link::{self, CloseCause, Link, LinkLimits, LinkSender, Service, close_code};
use crate::net::stream::tls::{self, TlsServer};
use crate::net::stream::{Peer, Stream};
use crate::store::{Caller, DbState};
use crate::wire::data::TenantId;
use crate::wire::data::sharding::worker_for;
use crate::wire::message::ServerMessage;

use super::conn::{ConnHandler, ConnPulse};
use super::link_counters::{LinkCounters, LinkReport, WorkerRefusal, WorkerRefusals};
use super::replacements::Replacements;
use crate::protocol::{
    DbRequestFigures, LinkObserver, MESOPHYLL_DEFAULT_HEARTBEAT_MS, MesophyllServerConn, db_routes,
};

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How many workers share the tenants.
    pub workers: usize,
    /// The interval told in Hello.
    pub heartbeat_interval: Duration,
    /// Bounds of each link.
    pub link_limits: LinkLimits,
    /// Bounds of the HTTP side.
    pub http_limits: HttpLimits,
    /// Whether a worker that is not in a sandbox gets no events.
    pub requires_sandbox: bool,
    /// What the port speaks instead of plain HTTP.
    pub tls: Option<Arc<TlsServer>>,
    /// Whether a worker has to show a certificate that names it; those that a connection was handed
    /// to have none.
    pub requires_certificates: bool,
    /// Where messages of tenants go.
    pub messages: MessageDoor,
    /// Where what tenants publish goes.
    pub feeds: Arc<Feeds>,
}

impl ServerConfig {
    /// The protocol's defaults for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            heartbeat_interval: Duration::from_millis(MESOPHYLL_DEFAULT_HEARTBEAT_MS),
            link_limits: LinkLimits::default(),
            http_limits: HttpLimits::default(),
            requires_sandbox: false,
            tls: None,
            requires_certificates: false,
            messages: MessageDoor::default(),
            feeds: Arc::default(),
        }
    }
}

/// Why no server could be started.
#[derive(Debug)]
pub enum StartError {
    /// An id in the list of idents is not below the number of workers, is there twice, or is
    /// missing.
    Idents(String),
    /// The operating system refused a thread or the listener.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Idents(what) => f.write_str(what),
            StartError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// The master's end of the protocol.
pub struct MesophyllServer {
    shared: Arc<ServerShared>,
    http: HttpServer,
}

struct ServerShared {
    config: ServerConfig,
    /// By worker, in order of their ids.
    tokens: Vec<String>,
    /// How many connections each worker has that were handed out to it.
    handed_out: Vec<Arc<AtomicUsize>>,
    counters: Vec<Arc<LinkCounters>>,
    db: Arc<DbState>,
    db_figures: DbRequestFigures,
    refusals: WorkerRefusals,
    state: Lock<ServerState>,
    /// How much workers log, once it has been changed. Locked before `state`, and while it is
    /// told: of two changes at once every worker hears the same one last.
    log_level: Lock<Option<LevelFilter>>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct ServerState {
    generations: u64,
    connections: HashMap<usize, MesophyllServerConn>,
    observers: HashMap<usize, Weak<dyn LinkObserver>>,
    links: Vec<Link>,
    replacements: HashMap<usize, Replacements>,
}

impl MesophyllServer {
    /// Starts a server that makes a fresh token for each of `config.workers` workers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(
        listener: TcpListener,
        db: Arc<DbState>,
        config: ServerConfig,
    ) -> Result<Self, StartError> {
        let idents = (0..config.workers).map(|id| (id, random::token())).collect();
        Self::new_with(listener, db, config, idents)
    }

    /// Starts a server with explicit idents: pairs of worker id and token, one for each worker.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new_with(
        listener: TcpListener,
        db: Arc<DbState>,
        config: ServerConfig,
        idents: Vec<(usize, String)>,
    ) -> Result<Self, StartError> {
        let count = idents.len();
        let tokens: BTreeMap<usize, String> = idents.into_iter().collect();
        if count != config.workers || !tokens.keys().copied().eq(0..config.workers) {
            let text = format!(
                "there must be one token for each worker from 0 to {}",
                config.workers.saturating_sub(1)
            );
            return Err(StartError::Idents(text));
        }
        let http_limits = config.http_limits.clone();
        let shared = Arc::new(ServerShared {
            handed_out: (0..config.workers).map(|_| Arc::default()).collect(),
            config,
            counters: tokens.iter().map(|_| Arc::default()).collect(),
            tokens: tokens.into_values().collect(),
            db,
            db_figures: DbRequestFigures::default(),
            refusals: WorkerRefusals::default(),
            state: Lock::default(),
            log_level: Lock::default(),
            stopping: AtomicBool::new(false),
        });
        let pushes = Arc::downgrade(&shared);
        shared.db.on_tenant_state(Box::new(move |tenant, state| {
            if let Some(conn) = pushes.upgrade().and_then(|shared| shared.connection_of(tenant)) {
                conn.update_tenant_state(tenant, state);
            }
        }));
        let pushes = Arc::downgrade(&shared);
        shared.db.on_template(Box::new(move |tenant| {
            if let Some(conn) = pushes.upgrade().and_then(|shared| shared.connection_of(tenant)) {
                conn.reload_template(tenant);
            }
        }));
        let handler = Arc::new(Routes(shared.clone()));
        let tls = shared.config.tls.clone();
        let http = HttpServer::start_over(listener, tls, "wk", http_limits, handler)
            .map_err(StartError::Io)?;
        Ok(Self { shared, http })
    }

    /// How many workers were refused for that reason.
    pub fn refused(&self, why: WorkerRefusal) -> u64 {
        let unconfined = |counters: &Arc<LinkCounters>| counters.unconfined.count();
        match why {
            WorkerRefusal::Sandbox => self.shared.counters.iter().map(unconfined).sum(),
            _ => self.shared.refusals.count(why),
        }
    }

    /// The address that workers connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Serves a connection whose other end a worker of this host gets, within that worker's share;
    /// false if there is no room. The worker still needs its token.
    ///
    /// # Blocks
    /// At most a second, while another connection makes room.
    pub fn serve_worker(&self, worker_id: usize, stream: Stream) -> bool {
        let (least, most) = BROKER_CONNECTIONS;
        let share = (HTTP_CONNECTIONS_MAX / self.shared.config.workers.max(1)).clamp(least, most);
        let handed_out = self.shared.handed_out.get(worker_id);
        let permit = handed_out.and_then(|handed_out| CountedPermit::take(handed_out, share));
        permit.is_some_and(|permit| self.http.serve(stream, Peer::Worker(worker_id), permit))
    }

    /// The secret of a worker.
    pub fn get_token_for_worker(&self, worker_id: usize) -> Option<&str> {
        self.shared.tokens.get(worker_id).map(String::as_str)
    }

    /// What there is to see of each worker's links, in order of their ids.
    pub fn links(&self) -> Vec<LinkReport> {
        let connections = self.shared.state.lock().connections.clone();
        let report = |(worker_id, counters): (usize, &Arc<LinkCounters>)| LinkReport {
            worker_id,
            counters: counters.clone(),
            queued: connections
                .get(&worker_id)
                .map(MesophyllServerConn::queued)
                .unwrap_or_default(),
        };
        self.shared.counters.iter().enumerate().map(report).collect()
    }

    /// What workers asked of `/db/*`.
    pub fn db_figures(&self) -> &DbRequestFigures {
        &self.shared.db_figures
    }

    /// The worker-facing server's own figures.
    pub fn http_stats(&self) -> HttpStats {
        self.http.stats()
    }

    /// The current connection of a worker.
    pub fn get_connection(&self, worker_id: usize) -> Option<MesophyllServerConn> {
        self.shared.state.lock().connections.get(&worker_id).cloned()
    }

    /// Changes how much is logged, in this process and in every worker, those included that connect
    /// later.
    pub fn set_log_level(&self, level: LevelFilter) {
        let mut current = self.shared.log_level.lock();
        *current = Some(level);
        log::set_max_level(level);
        let connections: Vec<_> = self.shared.state.lock().connections.values().cloned().collect();
        connections.iter().for_each(|conn| conn.set_log_level(level));
    }

    /// From now on tells `observer` about the connections of a worker, at once about the one that
    /// there is.
    pub fn observe(&self, worker_id: usize, observer: &Arc<dyn LinkObserver>) {
        let current = {
            let mut state = self.shared.state.lock();
            state.observers.insert(worker_id, Arc::downgrade(observer));
            state.connections.get(&worker_id).cloned()
        };
        // A connection that was made before there was an observer does not know it: let it connect
        // again.
        if let Some(conn) = current {
            conn.close(close_code::GOING_AWAY);
        }
    }

    /// Refuses new connections, closes all links and joins every thread.
    ///
    /// # Blocks
    /// Until `deadline` at most; a peer that does not answer a close is cut off after a second, one
    /// that does not take what was queued for it at the deadline.
    pub fn shutdown(&self, deadline: Instant) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let (connections, links) = {
            let mut state = self.shared.state.lock();
            let connections: Vec<_> = state.connections.values().cloned().collect();
            (connections, std::mem::take(&mut state.links))
        };
        for conn in connections {
            conn.close(close_code::GOING_AWAY);
        }
        self.http.shutdown(deadline);
        for link in links {
            link.join_until(deadline);
        }
    }
}

impl fmt::Debug for MesophyllServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MesophyllServer({}, {} workers)", self.local_addr(), self.shared.config.workers)
    }
}

impl ServerShared {
    /// The connection of the worker that runs a tenant.
    fn connection_of(&self, tenant: TenantId) -> Option<MesophyllServerConn> {
        self.state.lock().connections.get(&worker_for(tenant, self.config.workers)).cloned()
    }

    /// Checks a request's worker id and token, in the protocol's order.
    fn authenticate(&self, head: &RequestHead) -> Result<usize, Response> {
        let refused =
            |why, status, text: &str| self.refusals.answer(why, head.peer(), status, text);
        let id = head
            .query("id")
            .filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        let id = id
            .and_then(|id| id.parse::<usize>().ok())
            .ok_or_else(|| refused(WorkerRefusal::BadId, 400, "malformed worker id"))?;
        let unknown = || refused(WorkerRefusal::UnknownId, 404, "unknown worker id");
        let token = self.tokens.get(id).ok_or_else(unknown)?;
        let wrong = || refused(WorkerRefusal::Token, 401, "wrong token");
        let given = given_token(head).ok_or_else(wrong)?;
        // A connection that was handed out to another worker is none for this token.
        let is_anothers = matches!(head.peer(), Peer::Worker(worker) if worker != id);
        if token.as_bytes().ct_ne(given.as_bytes()).to_bool() || is_anothers {
            return Err(wrong());
        }
        if self.config.requires_certificates && !is_certified(head, id) {
            let text = format!(
                "the certificate names neither worker-{id}.mesophyll nor \
                worker.mesophyll"
            );
            return Err(refused(WorkerRefusal::Certificate, 403, &text));
        }
        Ok(id)
    }

    fn upgrade(self: &Arc<Self>, worker_id: usize, head: &RequestHead) -> Response {
        if let Some(workers) = head.query("workers")
            && workers.parse() != Ok(self.config.workers)
        {
            let text = format!(
                "this master has {} workers; start every worker with that number",
                self.config.workers
            );
            return self.refusals.answer(WorkerRefusal::Workers, head.peer(), 400, &text);
        }
        if self.stopping.load(Ordering::SeqCst) {
            return Response::text(503, "the master is stopping");
        }
        match link::accept(head.upgrade_headers()) {
            Ok(upgrade) => {
                let shared = self.clone();
                Response::upgrade(move |socket, already_read| {
                    shared.start_link(worker_id, upgrade, socket, already_read);
                })
            }
            Err(error) => {
                let text = format!("this is a WebSocket endpoint: {error}");
                Response::text(426, &text)
                    .with_header("Upgrade", "websocket")
                    .with_header("Sec-WebSocket-Version", "13")
            }
        }
    }

    fn start_link(
        self: &Arc<Self>,
        worker_id: usize,
        upgrade: link::Upgrade,
        socket: Stream,
        read: Vec<u8>,
    ) {
        let name = format!("link-{worker_id}");
        let started = upgrade.start(&name, socket, read, &self.config.link_limits, |link| {
            self.serve(worker_id, link)
        });
        match started {
            Ok(link) => self.keep(link),
            Err(error) => {
                log::warn!(worker = worker_id; "worker {worker_id}: its link could not be started: {error}")
            }
        }
    }

    /// Makes the connection of a new link, says Hello and takes over from an older connection.
    fn serve(self: &Arc<Self>, worker_id: usize, link: &LinkSender) -> Service {
        let interval = self.config.heartbeat_interval;
        let heartbeat_interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        // The queue of a new link is empty.
        let _ = link.send(ServerMessage::Hello { heartbeat_interval_ms }.encode());
        let (conn, older, observer) = {
            let mut state = self.state.lock();
            // Counted under the lock: of two that connect at once, the one that stays must be the
            // one with the higher number, or its owner would take it for the one that was replaced.
            state.generations += 1;
            let counters = &self.counters[worker_id];
            counters.connections.inc();
            let (generation, link) = (state.generations, link.clone());
            let requires_sandbox = self.config.requires_sandbox;
            let conn = MesophyllServerConn::new(
                worker_id,
                generation,
                link,
                counters.clone(),
                requires_sandbox,
            );
            let older = state.connections.insert(worker_id, conn.clone());
            if let Some(older) = &older {
                counters.replacements.inc();
                state.count_replacement(worker_id, &conn, older);
            }
            (conn, older, state.observers.get(&worker_id).and_then(Weak::upgrade))
        };
        if let Some(older) = older {
            older.replace();
        }
        if let Some(observer) = &observer {
            observer.connected(&conn);
        }
        // After the connection was entered: a change that came before this is read here, one that
        // comes later finds it.
        if let Some(level) = *self.log_level.lock() {
            conn.set_log_level(level);
        }
        let shared = self.clone();
        let on_closed = Box::new(move |conn: &MesophyllServerConn| shared.forget(conn));
        let handler = ConnHandler {
            conn: conn.clone(),
            observer,
            on_closed,
            undecodable_in_a_row: 0,
            caller: Caller { worker_id, workers: self.config.workers },
            messages: self.config.messages.clone(),
            feeds: self.config.feeds.clone(),
        };
        (Box::new(handler), Box::new(ConnPulse::new(conn, interval)))
    }

    /// Keeps a link to be joined, and joins those that have ended.
    fn keep(&self, link: Link) {
        let ended: Vec<Link> = {
            let mut state = self.state.lock();
            let ended = state.links.extract_if(.., |link| link.is_finished()).collect();
            state.links.push(link);
            ended
        };
        drop(ended);
        // A shutdown may have passed between the check in `upgrade` and here.
        if self.stopping.load(Ordering::SeqCst) {
            // Taken out first: a link that ends takes the lock, and dropping one waits for its end.
            let links = std::mem::take(&mut self.state.lock().links);
            for link in links {
                link.sender().abort(CloseCause::ClosedByUs(close_code::GOING_AWAY));
            }
        }
    }

    /// Invariant: the end of an older connection never removes a newer one.
    fn forget(&self, conn: &MesophyllServerConn) {
        let mut state = self.state.lock();
        if state.connections.get(&conn.id()).is_some_and(|current| current.same_as(conn)) {
            state.connections.remove(&conn.id());
        }
    }
}

impl ServerState {
    fn count_replacement(
        &mut self,
        id: usize,
        newer: &MesophyllServerConn,
        older: &MesophyllServerConn,
    ) {
        if self.replacements.entry(id).or_default().record(Instant::now()) {
            log::warn!(worker = id; "worker {id}: two peers fight for this id, at {} and at {}", older.peer(), newer.peer());
        }
    }
}

/// The token of a request: in its query, as over plain connections, or in its header, as over TLS.
/// One that has two which differ has none.
fn given_token(head: &RequestHead) -> Option<&str> {
    let header = head.header("authorization").map(|header| {
        let token =
            header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        token.map_or("", |(_, token)| token.trim())
    });
    match (header, head.query("token")) {
        (Some(header), Some(query)) if header != query => None,
        (header, query) => header.or(query),
    }
}

/// Whether what the peer showed says that it is this worker. The broker's connections need nothing.
fn is_certified(head: &RequestHead, id: usize) -> bool {
    let names = [format!("worker-{id}.mesophyll"), "worker.mesophyll".to_owned()];
    match (head.peer(), head.peer_certificate()) {
        (Peer::Tcp(_), Some(certificate)) => names.iter().any(|name| tls::names(certificate, name)),
        (Peer::Tcp(_), None) => false,
        _ => true,
    }
}

struct Routes(Arc<ServerShared>);

impl Handler for Routes {
    fn handle(&self, head: &RequestHead, body: &mut Body<'_>) -> Response {
        let checked = db_routes::check_endpoint(head).and_then(|()| self.0.authenticate(head));
        let worker_id = match checked {
            Ok(worker_id) => worker_id,
            Err(response) => return response,
        };
        if head.path() == "/ws" {
            self.0.upgrade(worker_id, head)
        } else {
            let caller = Caller { worker_id, workers: self.0.config.workers };
            db_routes::handle(&self.0.db, &self.0.db_figures, caller, head, body)
        }
    }
}
