//! The worker's end: connects, obeys Hello, heartbeats, hands requests to its worker and sends
//! every answer once.
//!
//! One thread (`client`) connects, announces the worker and waits for the link to end; then it
//! connects again, with exponential backoff and full jitter. The link's own threads do everything
//! in between.

use std::fmt;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::base::error::{DbError, DispatchError};
use crate::base::limits;
use crate::base::shared_bytes::Received;
use crate::base::sync::Lock;
use crate::base::thread::{self, OwnedThread};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, Delivery, Job, Request, RequestId};
use crate::net::link::{
    self, CloseCause, ConnectError, Link, LinkHandler, LinkLimits, LinkSender, LinkTarget,
    close_code,
};
use crate::net::stream::Stream;
use crate::wire::WireError;
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{CreateEvent, Sandbox, TenantId, TenantState};
use crate::wire::message::{
    ClientMessage, DELIVER_EXTENSION, HOST_EXTENSION, Health, Incoming, LOGS_EXTENSION,
    MESSAGES_EXTENSION, NOWAIT_EXTENSION, RETIRE_EXTENSION, Ready, SHARDS_EXTENSION, ServerMessage,
};

use super::backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
use super::dial::Dial;
use super::in_flight::InFlightJobs;
use super::outbox::Outbox;
use super::session::{ClientPulse, MasterSession};
use crate::base::throttle::Throttle;
use crate::protocol::answers;
use crate::protocol::master::vm_query;

/// Ten years: longer than any link.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What this worker names at the end of its Ready (docs/protocol.md).
const EXTENSIONS: [&str; 8] = [
    "subscribed",
    SHARDS_EXTENSION,
    MESSAGES_EXTENSION,
    NOWAIT_EXTENSION,
    LOGS_EXTENSION,
    RETIRE_EXTENSION,
    DELIVER_EXTENSION,
    HOST_EXTENSION,
];

/// For connecting and shaking hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without a connection a master that was found by name may be elsewhere.
const MOVED_AFTER: Duration = Duration::from_secs(60);

/// How long a link gets to say goodbye when the client is stopped: what is queued, a close and the
/// master's own close. A master that takes nothing does not hold up the worker's end for as long as
/// a batch may take.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What a worker behind a [`MesophyllClient`] can do besides running jobs.
pub trait LocalWorker: WorkerLike {
    /// Reads the states of all tenants of this worker from the database; returns how many. Called
    /// at each connect, so that what was not told while there was no link is learnt.
    ///
    /// # Blocks
    /// Until the database answered or its client's timeouts passed.
    ///
    /// # Errors
    /// See [`DbError`]; worth trying again if it is `Unavailable` or `Busy`.
    fn load_tenant_states(&self) -> Result<u64, DbError>;

    /// Takes over a tenant's new state.
    fn update_tenant_state(&self, tenant: TenantId, state: TenantState);

    /// Its tenants are those of exactly these shards from now on: those of shards that it had been
    /// told before and that are missing now end, and those of new ones start.
    fn serve_shards(&self, served: &ShardSet);

    /// A tenant's own template may have changed: events from now on get the one that is stored.
    fn reload_template(&self, tenant: TenantId);

    /// Whether a VM of the tenant is alive.
    fn has_vm(&self, tenant: TenantId) -> bool;

    /// How many executors run.
    fn executors(&self) -> u64;

    /// What it is doing.
    fn health(&self) -> Health;
}

/// Where to connect, and as which worker.
#[derive(Clone)]
pub struct ClientConfig {
    /// The way to the master.
    pub master: Dial,
    /// This worker's number.
    pub worker_id: usize,
    /// How many workers share the tenants.
    pub workers: usize,
    /// This worker's secret.
    pub token: String,
    /// Bounds of the link.
    pub link_limits: LinkLimits,
    /// What confines this process, for the master to know.
    pub sandbox: Option<Sandbox>,
    /// The machine that this process runs on, by name.
    pub host: Option<String>,
    /// What the worker's tenants send leaves by it.
    pub outbox: Outbox,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientConfig(worker {} of {} at {})", self.worker_id, self.workers, self.master)
    }
}

/// Why a client gave up connecting for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEnd {
    /// It was told to stop.
    Stopped,
    /// A newer connection took this worker's place (close code 4001).
    Replaced,
    /// The master refuses this worker: unknown id, wrong token or another number of workers.
    Refused(String),
    /// The addresses that were found for the master's name do not answer any more.
    Moved,
    /// It was to answer what it had, and to be started anew.
    Retired,
}

/// A worker's connection to its master, kept up until it is stopped.
#[derive(Debug)]
pub struct MesophyllClient {
    control: Arc<ClientControl>,
    thread: OwnedThread<ClientEnd>,
    ended_rx: Receiver<ClientEnd>,
}

#[derive(Debug)]
struct ClientControl {
    stop_tx: Lock<Option<Sender<()>>>,
    /// No job is taken any more, and the end of the link is the client's.
    is_retiring: Arc<AtomicBool>,
    session: Lock<Option<Arc<MasterSession>>>,
    /// Of the handshake that is under way: a master that accepts and then says nothing must not
    /// hold up a stop.
    handshake: Lock<Option<Stream>>,
}

impl ClientControl {
    fn end_handshake(&self) {
        if let Some(socket) = self.handshake.lock().as_ref() {
            // Fails only when the connection has gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl MesophyllClient {
    /// Starts to connect, and keeps at it.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(config: ClientConfig, worker: Arc<dyn LocalWorker>) -> std::io::Result<Self> {
        let (stop_tx, stop_rx) = bounded(0);
        let (ended_tx, ended_rx) = bounded(1);
        let control = Arc::new(ClientControl {
            stop_tx: Lock::new(Some(stop_tx)),
            is_retiring: Arc::default(),
            session: Lock::new(None),
            handshake: Lock::new(None),
        });
        let run = ClientRun {
            config,
            worker,
            control: control.clone(),
            stop_rx,
            backoff: Backoff::new(),
            wrongs: Arc::default(),
            unreachable_since: None,
        };
        let thread = thread::spawn("client", move || {
            let end = run.run();
            // Room for the one value that is ever sent.
            let _ = ended_tx.try_send(end.clone());
            end
        })?;
        Ok(Self { control, thread, ended_rx })
    }

    /// Receives why the client ended, once it has.
    pub fn ended_rx(&self) -> &Receiver<ClientEnd> {
        &self.ended_rx
    }

    /// Takes no more jobs, and ends when those that it has are answered. Does not wait.
    pub fn retire(&self) {
        self.control.is_retiring.store(true, Ordering::SeqCst);
        match self.control.session.lock().as_ref() {
            Some(session) => session.link.beat_now(),
            None => {
                drop(self.control.stop_tx.lock().take());
                self.control.end_handshake();
            }
        }
    }

    /// Whether the master has been told that this worker is ready, over the link that there is.
    pub fn is_ready(&self) -> bool {
        let session = self.control.session.lock();
        session.as_ref().is_some_and(|session| session.is_ready.load(Ordering::SeqCst))
    }

    /// Begins to close the link, and stops connecting.
    pub fn leave(&self) {
        drop(self.control.stop_tx.lock().take());
        self.control.end_handshake();
        if let Some(session) = self.control.session.lock().as_ref() {
            session.close(&session.link);
        }
    }

    /// Closes the link, stops connecting and joins the thread.
    ///
    /// # Blocks
    /// Two seconds at most while a link says goodbye, or until a master accepts that is just being
    /// connected to.
    pub fn stop(self) -> Option<ClientEnd> {
        self.leave();
        if !self.thread.wait_until(Instant::now() + STOP_GRACE)
            && let Some(session) = self.control.session.lock().as_ref()
        {
            session.link.abort(CloseCause::ClosedByUs(close_code::GOING_AWAY));
        }
        self.thread.join()
    }
}

struct ClientRun {
    config: ClientConfig,
    worker: Arc<dyn LocalWorker>,
    control: Arc<ClientControl>,
    stop_rx: Receiver<()>,
    backoff: Backoff,
    wrongs: Arc<Wrongs>,
    /// Since when no connection was made.
    unreachable_since: Option<Instant>,
}

impl ClientRun {
    fn run(mut self) -> ClientEnd {
        loop {
            match self.connect() {
                Ok((link, session)) => {
                    self.unreachable_since = None;
                    if let Some(end) = self.serve(link, &session) {
                        return end;
                    }
                }
                Err(ConnectError::Refused(status @ (400 | 401 | 404), text)) => {
                    return ClientEnd::Refused(format!(
                        "the master refuses this worker ({status}): {text}"
                    ));
                }
                Err(error) => {
                    log::warn!("master {}: {error}", self.config.master);
                    let since = *self.unreachable_since.get_or_insert_with(Instant::now);
                    if may_have_moved(&self.config.master, since.elapsed()) {
                        return ClientEnd::Moved;
                    }
                }
            }
            if self.pause() {
                return ClientEnd::Stopped;
            }
        }
    }

    fn connect(&self) -> Result<(Link, Arc<MasterSession>), ConnectError> {
        let config = &self.config;
        let (socket, deadline) = config.master.open_link(CONNECT_TIMEOUT)?;
        *self.control.handshake.lock() = Some(socket.try_clone()?);
        // A stop that came before the line above found no socket.
        if self.is_stopped() {
            self.control.end_handshake();
        }
        let socket = config.master.secure(socket, deadline)?;
        let mut served = None;
        let mut query = format!("/ws?id={}&workers={}", config.worker_id, config.workers);
        let bearer = config.master.is_tls().then_some(config.token.as_str());
        if bearer.is_none() {
            query = format!("{query}&token={}", config.token);
        }
        let session_over = |link: &LinkSender| {
            let is_retiring = self.control.is_retiring.clone();
            Arc::new(MasterSession::new(link.clone(), config.outbox.clone(), is_retiring))
        };
        let serve = |link: &LinkSender| -> link::Service {
            let session = served.insert(session_over(link));
            let handler = ClientHandler {
                worker: self.worker.clone(),
                session: session.clone(),
                in_flight: Arc::new(InFlightJobs::new(session.clone())),
                far_deadline: Instant::now() + FAR,
                undecodable_in_a_row: 0,
                wrongs: self.wrongs.clone(),
            };
            let pulse = ClientPulse::new(self.worker.clone(), session.clone());
            (Box::new(handler), Box::new(pulse))
        };
        let link = link::connect_over(
            "master",
            socket,
            &LinkTarget { host: config.master.host(), path_and_query: &query, bearer },
            deadline,
            &config.link_limits,
            serve,
        );
        *self.control.handshake.lock() = None;
        let link = link?;
        // Set, or there were no link.
        let session = served.unwrap_or_else(|| session_over(link.sender()));
        Ok((link, session))
    }

    /// Announces the worker and waits for the link to end; `Some`: for good.
    fn serve(&mut self, link: Link, session: &Arc<MasterSession>) -> Option<ClientEnd> {
        let sender = link.sender().clone();
        *self.control.session.lock() = Some(session.clone());
        // A stop that came before the line above found no link to close.
        if self.is_stopped() {
            sender.close(close_code::GOING_AWAY);
        }
        let began = Instant::now();
        let is_announced = self.announce(&sender, session);
        link.join();
        *self.control.session.lock() = None;
        let cause = sender.cause();
        if is_announced {
            self.backoff.after_link(cause.as_ref(), began.elapsed());
        }
        if self.control.is_retiring.load(Ordering::SeqCst) {
            return Some(ClientEnd::Retired);
        }
        if self.is_stopped() {
            return Some(ClientEnd::Stopped);
        }
        if cause == Some(CloseCause::ClosedByPeer(close_code::REPLACED)) {
            return Some(ClientEnd::Replaced);
        }
        match cause {
            Some(cause @ CloseCause::ClosedByPeer(close_code::POLICY)) => log::warn!(
                "master {}: {cause}; with --sandbox require it wants a worker in a whole sandbox, \
                 and what confines this one is: {}",
                self.config.master,
                self.config.sandbox.clone().unwrap_or_default().summary()
            ),
            Some(cause) => log::warn!("master {}: {cause}", self.config.master),
            None => log::warn!("master {}: the link ended", self.config.master),
        }
        None
    }

    /// Loads the tenant states and says Ready; false if the link ended first.
    ///
    /// The first heartbeat waits for this (see [`ClientPulse::may_beat`]): a master takes a
    /// heartbeat without a Ready for a reference worker's, and would dispatch to a worker that
    /// cannot filter yet.
    fn announce(&self, link: &LinkSender, session: &MasterSession) -> bool {
        let mut pause = BACKOFF_MIN;
        let tenant_states = loop {
            match self.worker.load_tenant_states() {
                Ok(count) => break count,
                Err(error) => log::warn!("the tenant states cannot be read: {error}"),
            }
            if link.is_closed() || self.wait(pause) {
                return false;
            }
            pause = (pause * 2).min(BACKOFF_MAX);
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (executors, extensions) =
            (self.worker.executors(), EXTENSIONS.map(str::to_owned).to_vec());
        let (sandbox, host) = (self.config.sandbox.clone(), self.config.host.clone());
        let live_tenants = true;
        let ready =
            Ready { version, executors, tenant_states, live_tenants, extensions, sandbox, host };
        session.is_announced.store(true, Ordering::SeqCst);
        if link.send(ClientMessage::Ready(ready).encode()).is_err() {
            return false;
        }
        session.is_ready.store(true, Ordering::SeqCst);
        link.beat_now();
        log::info!(
            "connected to the master as worker {} of {}",
            self.config.worker_id,
            self.config.workers
        );
        true
    }

    /// Waits a random part of the backoff, which doubles; true if told to stop.
    fn pause(&mut self) -> bool {
        let pause = self.backoff.next_pause();
        self.wait(pause)
    }

    fn wait(&self, pause: Duration) -> bool {
        matches!(self.stop_rx.recv_timeout(pause), Err(RecvTimeoutError::Disconnected))
    }

    fn is_stopped(&self) -> bool {
        self.wait(Duration::ZERO)
    }
}

/// Whether a master that could not be reached for so long may have other addresses by now than
/// those that its name had.
fn may_have_moved(master: &Dial, unreachable: Duration) -> bool {
    matches!(master, Dial::Found(..)) && unreachable >= MOVED_AFTER
}

struct ClientHandler {
    worker: Arc<dyn LocalWorker>,
    session: Arc<MasterSession>,
    in_flight: Arc<InFlightJobs>,
    /// A worker is ready by itself; only a master waits for one.
    far_deadline: Instant,
    undecodable_in_a_row: u32,
    wrongs: Arc<Wrongs>,
}

/// What the master sent that it should not, over all links.
#[derive(Default)]
struct Wrongs {
    undecodable: Throttle,
    unknown: Throttle,
}

impl ClientHandler {
    fn on_server_message(&mut self, link: &LinkSender, message: ServerMessage) {
        match message {
            ServerMessage::Hello { heartbeat_interval_ms } => {
                self.session.interval_ms.store(heartbeat_interval_ms, Ordering::SeqCst);
                self.session.has_said_hello.store(true, Ordering::Relaxed);
                self.session.outbox.connect(link);
                link.beat_now();
            }
            ServerMessage::DispatchEvent { id, event, req_id } => {
                self.on_event(id, event, req_id, Delivery::IfSubscribed);
            }
            ServerMessage::DeliverEvent { id, event, req_id } => {
                self.on_event(id, event, req_id, Delivery::Always);
            }
            ServerMessage::RunScript { id, name, code, event, req_id: request_id } => {
                let job = Job::RunScript { name, code, event };
                self.submit(id, request_id, job, Delivery::default());
            }
            ServerMessage::DropWorker { id, req_id: request_id } => {
                self.submit(id, request_id, Job::DropTenant, Delivery::default());
            }
            ServerMessage::CancelDispatch { req_id: request_id } => {
                let id = RequestId(request_id);
                if let Some(tenant) = self.in_flight.tenant_of(id) {
                    self.worker.cancel(tenant, id);
                }
            }
            ServerMessage::UpdateTenantState { id, state } => {
                self.worker.update_tenant_state(id, state)
            }
            ServerMessage::SendAnswer { req_id: request_id, result } => {
                self.session.outbox.answered(request_id, result);
            }
            ServerMessage::HostAnswer { req_id: request_id, result } => {
                self.session.outbox.host_answered(request_id, result);
            }
            ServerMessage::Shards { served } => self.worker.serve_shards(&served),
            ServerMessage::Retire => {
                log::info!("the master has this worker started anew");
                self.session.is_retiring.store(true, Ordering::SeqCst);
                link.beat_now();
            }
            ServerMessage::ReloadTemplate { id } => self.worker.reload_template(id),
            ServerMessage::SetLogLevel { level } => set_log_level(&level),
            ServerMessage::LiveTenants { req_id: request_id, ids } => {
                let has_vm = ids.into_iter().map(|id| self.worker.has_vm(id));
                let result = Ok(vm_query::vms_to_wire(has_vm));
                // A master that takes nothing at all goes without: to know no VM harms nothing.
                let _ = link
                    .send(ClientMessage::DispatchResponse { req_id: request_id, result }.encode());
            }
        }
    }

    fn on_event(&self, tenant: TenantId, event: CreateEvent, id: Option<u64>, delivery: Delivery) {
        match id {
            Some(request_id) => self.submit(tenant, request_id, Job::Dispatch(event), delivery),
            None => self.submit_nowait(tenant, event, delivery),
        }
    }

    fn submit(&self, tenant: TenantId, request_id: u64, job: Job, delivery: Delivery) {
        let (id, deadline) = (RequestId(request_id), self.far_deadline);
        let answer = self.in_flight.answer(tenant, id);
        if self.session.is_retiring.load(Ordering::Relaxed) {
            return answer.send(Err(retiring()));
        }
        self.worker.submit(Request { tenant, id, job, deadline, answer, delivery });
    }

    fn submit_nowait(&self, tenant: TenantId, event: CreateEvent, delivery: Delivery) {
        let of = |answer| {
            let request = Request::new(tenant, Job::Dispatch(event), self.far_deadline, answer);
            Request { delivery, ..request }
        };
        if self.session.tells_finished() {
            self.session.finished.begin();
            let answer = Answer::watched(tenant, self.session.finished.clone());
            if self.session.is_retiring.load(Ordering::Relaxed) {
                return answer.send(Err(retiring()));
            }
            return self.worker.submit(of(answer));
        }
        if let Err(error) = self.worker.submit_unawaited(of(Answer::unawaited())) {
            log::warn!(tenant:% = tenant; "an event for {tenant} was dropped: {error}");
        }
    }

    fn on_undecodable(&mut self, error: &WireError) -> Result<(), u16> {
        if let Some(count) = self.wrongs.undecodable.record(Instant::now()) {
            log::warn!("{count} messages of the master that do not decode, the last one: {error}");
        }
        self.undecodable_in_a_row += 1;
        if self.undecodable_in_a_row >= limits::UNDECODABLE_IN_A_ROW_MAX {
            return Err(close_code::UNDECODABLE);
        }
        Ok(())
    }
}

/// What a job gets that comes too late.
fn retiring() -> DispatchError {
    DispatchError::Busy("the worker ends, and takes nothing more".to_owned())
}

/// The level is the process's own, as its log is. One that a later version may know is none here.
fn set_log_level(level: &str) {
    let Ok(level) = level.parse::<log::LevelFilter>() else { return };
    if level != log::max_level() {
        log::set_max_level(level);
        log::info!("the log level is {}", level.as_str().to_lowercase());
    }
}

impl LinkHandler for ClientHandler {
    fn on_message(&mut self, link: &LinkSender, message: Received<'_>) -> Result<(), u16> {
        match ServerMessage::decode_received(message) {
            Ok(Incoming::Message(message)) => self.on_server_message(link, message),
            Ok(Incoming::Unknown(variant)) => {
                if let Some(count) = self.wrongs.unknown.record(Instant::now()) {
                    log::info!(
                        "{count} messages of the master of unknown kinds, the last {variant:?}"
                    );
                }
            }
            Err(error) => {
                let message = message.bytes();
                // A caller waits for its answer.
                if let Some(request_id) = ServerMessage::request_of(message) {
                    let error =
                        DispatchError::BadInput(format!("the message does not decode: {error}"));
                    let has_said_hello = self.session.has_said_hello.load(Ordering::Relaxed);
                    let result = Err(answers::to_wire(&error, has_said_hello));
                    let _ = link.send(
                        ClientMessage::DispatchResponse { req_id: request_id, result }.encode(),
                    );
                } else if let Some(tenant) = ServerMessage::nowait_tenant_of(message)
                    && self.session.tells_finished()
                {
                    self.session.finished.failed(tenant);
                }
                return self.on_undecodable(&error);
            }
        }
        self.undecodable_in_a_row = 0;
        Ok(())
    }

    fn on_text(&mut self, _link: &LinkSender, _text: &str) -> Result<(), u16> {
        self.on_undecodable(&WireError::Invalid("a text message"))
    }

    fn on_closed(&mut self, cause: &CloseCause) {
        self.session.outbox.disconnect(cause);
        // What runs goes on: its effects count, and the master has told its callers that the
        // outcome is unknown.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_master_that_was_found_by_name_can_move() {
        let found = Dial::from("localhost:7450").found().expect("a name that each host has");
        assert!(
            matches!(&found, Dial::Found(name, addresses) if name == "localhost:7450" && !addresses.is_empty())
        );
        assert!(may_have_moved(&found, MOVED_AFTER) && !may_have_moved(&found, MOVED_AFTER / 2));
        // An address needs no looking up, and stays.
        for address in ["127.0.0.1:7450", "[::1]:7450", "unix:/run/mesophyll"] {
            let dial = Dial::from(address).found().expect("nothing is looked up");
            assert!(matches!(&dial, Dial::Address(same) if same == address));
            assert!(!may_have_moved(&dial, MOVED_AFTER * 10));
        }
        Dial::from("nobody.invalid:1").found().expect_err("no such name");
    }
}
