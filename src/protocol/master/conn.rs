//! One worker's connection, as the master sees it: dispatches go out, correlated answers come back.
//!
//! A [`MesophyllServerConn`] is a cheap clone that owns nothing: dropping one closes nothing (the
//! reference closed the connection here, three times over). The threads belong to the server's
//! `Link`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::base::answer::AnswerSender;
use crate::base::error::DispatchError;
use crate::base::limits;
use crate::base::shared_bytes::Received;
use crate::dispatch::worker_like::{WorkerLike, handed_over};
use crate::dispatch::{Answer, Cancelled, Job, MessageDoor, Refused, Request, RequestId};
use crate::feeds::Feeds;
use crate::net::link::{
    CloseCause, LinkHandler, LinkSender, LinkStats, Pending, Registered, SendError, close_code,
};
use crate::net::stream::Peer;
use crate::store::Caller;
use crate::wire::WireError;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{EncodedValue, HostCall, Sandbox, TenantId, TenantMessage, TenantState};
use crate::wire::message::{ClientMessage, Health, Incoming, Ready, ServerMessage};

use super::link_counters::LinkCounters;
use super::missed::Missed;
use super::unheard::Unheard;
use super::vm_query::VmQuery;
use crate::protocol::answers;

mod announced;
mod encode;
mod nowait;
mod of_tenants;
mod pulse;

use announced::Announced;
pub(super) use pulse::ConnPulse;

/// What the owner of a worker is told of its connection, from the link's threads: none of these may
/// block.
pub trait LinkObserver: Send + Sync {
    /// A worker connected, and replaced an older connection if there was one.
    fn connected(&self, conn: &MesophyllServerConn);

    /// It said that it is ready, or gave its first heartbeat.
    fn ready(&self, conn: &MesophyllServerConn);

    /// It reported its health.
    fn health(&self, conn: &MesophyllServerConn, health: Health);

    /// This connection has ended; a newer one may have taken its place already.
    fn disconnected(&self, conn: &MesophyllServerConn, cause: &CloseCause);
}

/// A worker's connection.
#[derive(Clone)]
pub struct MesophyllServerConn {
    inner: Arc<ConnInner>,
}

struct ConnInner {
    worker_id: usize,
    generation: u64,
    link: LinkSender,
    pending: Pending<SentRequest>,
    /// Events that no caller waits for.
    unheard: Unheard<SentRequest>,
    /// Apart from the dispatches: a query is nothing that a worker runs.
    vm_queries: Pending<AnswerSender<EncodedValue>>,
    opened: Instant,
    /// Milliseconds after `opened`; `Relaxed`, as it only feeds a timeout.
    heartbeat_at_ms: AtomicU64,
    is_ready: AtomicBool,
    /// The peer sent a message of our extensions, so its errors carry kinds.
    is_ours: AtomicBool,
    /// What the worker's first Ready says; the reference's worker has none.
    announced: OnceLock<Announced>,
    requires_sandbox: bool,
    missed: Missed,
    counters: Arc<LinkCounters>,
}

/// A dispatch that left, or is about to.
struct SentRequest {
    tenant: TenantId,
    /// The event's or script's name, where the answer does not have it.
    what: Option<String>,
    since: Instant,
    answer: Answer,
}

impl SentRequest {
    fn new(tenant: TenantId, job: &Job, answer: Answer) -> Self {
        let what = answer.kind().is_none().then(|| job.name().to_owned());
        let since = answer.since().unwrap_or_else(Instant::now);
        Self { tenant, what, since, answer }
    }
}

/// A dispatch that left and was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Whose it is.
    pub tenant: TenantId,
    /// The event's or script's name.
    pub what: String,
    /// Since when it is under way; of a job that is observed, when it was asked for.
    pub since: Instant,
}

impl MesophyllServerConn {
    pub(super) fn new(
        worker_id: usize,
        generation: u64,
        link: LinkSender,
        counters: Arc<LinkCounters>,
        requires_sandbox: bool,
    ) -> Self {
        Self {
            inner: Arc::new(ConnInner {
                worker_id,
                generation,
                link,
                pending: Pending::new(limits::PENDING_MAX),
                unheard: Unheard::new(),
                vm_queries: Pending::new(limits::VM_QUERIES_MAX),
                opened: Instant::now(),
                heartbeat_at_ms: AtomicU64::new(0),
                is_ready: AtomicBool::new(false),
                is_ours: AtomicBool::new(false),
                announced: OnceLock::new(),
                requires_sandbox,
                missed: Missed::default(),
                counters,
            }),
        }
    }

    /// Which connection of this worker it is; a newer one has a higher number.
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.link.is_closed()
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&self) -> Option<CloseCause> {
        self.inner.link.cause().filter(|_| self.is_closed())
    }

    /// How many dispatches wait for their answers, or to be told of.
    pub fn in_flight(&self) -> usize {
        self.inner.pending.len() + self.inner.unheard.len()
    }

    /// What waits for its answer, such as when the worker died.
    pub fn in_flight_events(&self) -> Vec<InFlight> {
        let mut events = Vec::new();
        let mut push = |SentRequest { tenant, what, since, answer }: &SentRequest| {
            let what = what.as_deref().or(answer.name()).unwrap_or_default().to_owned();
            events.push(InFlight { tenant: *tenant, what, since: *since });
        };
        self.inner.pending.for_each(|_, request| push(request));
        self.inner.unheard.for_each(push);
        events
    }

    /// Takes no more dispatches; those that are in flight go on. Once none is after this, none of
    /// the worker's events is under way.
    pub(crate) fn seal(&self) {
        self.inner.pending.seal();
        self.inner.unheard.seal();
    }

    /// Whether it has neither ended nor been sealed.
    pub(crate) fn takes_dispatches(&self) -> bool {
        !self.is_closed() && self.inner.pending.is_open()
    }

    /// How long ago the last heartbeat came in, or the connection was made.
    pub fn heartbeat_age(&self) -> Duration {
        let at = Duration::from_millis(self.inner.heartbeat_at_ms.load(Ordering::Relaxed));
        self.inner.opened.elapsed().saturating_sub(at)
    }

    /// The worker's version, once its Ready has named it.
    pub fn version(&self) -> Option<String> {
        self.inner.announced.get().map(|announced| announced.version.clone())
    }

    /// The worker's machine, once its Ready has named it.
    pub fn host(&self) -> Option<String> {
        self.inner.announced.get().and_then(|announced| announced.host.clone())
    }

    /// Whether the worker's Ready says so.
    fn has_announced(&self, what: impl FnOnce(&Announced) -> bool) -> bool {
        self.inner.announced.get().is_some_and(what)
    }

    /// What confines the worker's process, once its Ready has said so; a worker that does not know
    /// a sandbox has none.
    pub fn sandbox(&self) -> Option<Sandbox> {
        self.inner.announced.get().map(|announced| announced.sandbox.clone().unwrap_or_default())
    }

    /// Whether the worker passed over what it was told of a state or a template, so that only a
    /// restart has it read that.
    pub fn needs_restart(&self) -> bool {
        self.passes_over() && self.inner.missed.needs_restart()
    }

    /// Whether it serves without having said Ready or its health: then it passes over all that the
    /// protocol's reference does not know. A worker of ours says its health right behind its first
    /// heartbeat.
    fn passes_over(&self) -> bool {
        self.inner.is_ready.load(Ordering::Relaxed) && !self.inner.is_ours.load(Ordering::Relaxed)
    }

    /// Whether the broker handed this connection to the worker.
    pub fn is_handed_out(&self) -> bool {
        // No other connection of this kind leads to a master.
        self.peer() == Peer::Unix
    }

    /// Answers of this worker, over all its links, that were not waited for, or not any more.
    pub fn late_answers(&self) -> u64 {
        self.inner.counters.late_answers.count()
    }

    /// Tells the worker a tenant's new state. Lost with the link: a worker reads all states when it
    /// connects.
    pub fn update_tenant_state(&self, tenant: TenantId, state: &TenantState) {
        let message = ServerMessage::UpdateTenantState { id: tenant, state: state.clone() };
        self.push("UpdateTenantState", &message);
    }

    /// Tells the worker that a tenant's own template may have changed. Lost with the link: a worker
    /// that connects doubts all that it has.
    pub fn reload_template(&self, tenant: TenantId) {
        self.push("ReloadTemplate", &ServerMessage::ReloadTemplate { id: tenant });
    }

    /// Tells the worker of which shards its tenants are. An older worker, or one of another make,
    /// is told nothing: it closes the VMs that stay idle.
    pub fn serve_shards(&self, served: &ShardSet) {
        if self.has_announced(|announced| announced.takes_shards) {
            self.push("Shards", &ServerMessage::Shards { served: *served });
        }
    }

    /// Answers the dispatches of tenants that were handed over to another master: they may have
    /// run.
    pub fn end_shards(&self, shards: &ShardSet) {
        let is_of = |tenant| shards.contains(Shard::of(tenant));
        let mut waiting = self.inner.pending.take_where(|waiting| is_of(waiting.tenant));
        waiting.extend(self.inner.unheard.take_tenants(is_of));
        for waiting in waiting {
            waiting.answer.send(Err(handed_over()));
        }
    }

    /// Asks the worker which of these tenants have a VM; nothing if it cannot be asked: an older
    /// worker, or one of another make, would not answer.
    pub fn query_vms(&self, tenants: Vec<TenantId>) -> Option<VmQuery> {
        if !self.has_announced(|announced| announced.answers_vm_queries) {
            return None;
        }
        let (query, answer_tx) = VmQuery::new(self.clone(), tenants.len());
        let request_id = query.request_id();
        let registered = self.inner.vm_queries.register(request_id, answer_tx);
        if !matches!(registered, Registered::Waiting(_)) {
            return None;
        }
        let message = ServerMessage::LiveTenants { req_id: request_id, ids: tenants };
        // One that did not leave is forgotten with the query.
        self.inner.link.send(message.encode()).ok().map(|()| query)
    }

    /// Nobody wants the answer of this query any more.
    pub(super) fn forget_vm_query(&self, request_id: u64) {
        self.inner.vm_queries.take(request_id);
    }

    /// Queries that wait for their answers.
    pub fn vm_queries(&self) -> usize {
        self.inner.vm_queries.len()
    }

    /// Tells the worker how much to log. If the link is full it stays as it is until the next
    /// change or the next link: no reason to end one.
    pub(super) fn set_log_level(&self, level: log::LevelFilter) {
        let message = ServerMessage::SetLogLevel { level: level.as_str().to_lowercase() };
        let _ = self.inner.link.send(message.encode());
        self.note_missed("SetLogLevel", false);
    }

    fn note_missed(&self, name: &'static str, needs_restart: bool) {
        if !self.inner.is_ours.load(Ordering::Relaxed) {
            self.inner.missed.note(name, needs_restart);
            self.tell_missed();
        }
    }

    /// Says once a link what is missed, as soon as it is known that it is.
    fn tell_missed(&self) {
        if self.passes_over()
            && let Some(name) = self.inner.missed.to_tell()
        {
            let id = self.id();
            log::warn!(worker = id;
                "worker {id}: it never said Ready, so it passes over {name} and whatever else tells \
                 of a changed state, template or log level; started anew it reads states and templates"
            );
        }
    }

    /// Sends what the worker must not miss while the link lasts.
    fn push(&self, name: &'static str, message: &ServerMessage) {
        self.note_missed(name, true);
        if let Err(SendError::Full) = self.inner.link.send(message.encode()) {
            // The worker would run on with what is old: let it connect again and read everything.
            // What is pending is failed by the link's own thread: the database tells of changes
            // under a lock, and an answer runs the code of others.
            self.inner.link.abort(CloseCause::SlowPeer);
        }
    }

    /// Whether the worker ends when it is told to, so that its host starts it anew.
    pub fn retires(&self) -> bool {
        self.has_announced(|announced| announced.retires)
    }

    /// Tells the worker to end, if it understands that, and closes the link; what is pending fails
    /// at once.
    pub fn retire(&self) {
        if self.retires() {
            // A link that is full ends unsaid; then the worker comes back as it is.
            let _ = self.inner.link.send(ServerMessage::Retire.encode());
        }
        self.close(close_code::GOING_AWAY);
    }

    /// Closes the link with a code; what is pending fails at once.
    pub fn close(&self, code: u16) {
        self.inner.link.close(code);
        self.fail_pending(&CloseCause::ClosedByUs(code));
    }

    /// A newer connection took over (rule 4).
    pub(super) fn replace(&self) {
        self.close(close_code::REPLACED);
    }

    /// Messages and bytes that wait to leave.
    pub(super) fn queued(&self) -> (usize, usize) {
        self.inner.link.queued()
    }

    pub(super) fn peer(&self) -> Peer {
        self.inner.link.peer()
    }

    pub(super) fn same_as(&self, other: &MesophyllServerConn) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn fail_pending(&self, cause: &CloseCause) {
        // A waiter learns it from the askers' end.
        drop(self.inner.vm_queries.close(cause.clone()));
        let (mut waiting, cause) = self.inner.pending.close(cause.clone());
        waiting.extend(self.inner.unheard.close());
        for waiting in waiting {
            let text = format!("the worker went away before it answered: {cause}");
            waiting.answer.send(Err(DispatchError::OutcomeUnknown(text)));
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn not_sent(error: SendError) -> DispatchError {
    match error {
        SendError::Closed => DispatchError::NotSent("the worker's link has ended".to_owned()),
        SendError::Full => {
            DispatchError::Busy("too much waits to be sent to the worker".to_owned())
        }
        SendError::TooLarge { bytes, limit } => DispatchError::TooLarge { bytes, limit },
    }
}

impl WorkerLike for MesophyllServerConn {
    fn id(&self) -> usize {
        self.inner.worker_id
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        if let (Job::Dispatch(event), false) = (&request.job, request.answer.is_awaited()) {
            let message = self.encode_event(request.tenant, event, None, request.delivery);
            return self.submit_nowait(request, message);
        }
        let Request { tenant, id, job, deadline, answer, delivery } = request;
        let waiting = SentRequest::new(tenant, &job, answer);
        // A drop makes room, and a ban needs it; a caller waits for each, so that they stay few.
        let is_drop = matches!(job, Job::DropTenant);
        let max = if is_drop { usize::MAX } else { limits::PENDING_MAX };
        let refused = |job, SentRequest { answer, .. }: SentRequest, error| {
            Request { tenant, id, job, deadline, answer, delivery }.refused(error)
        };
        let count = match self.inner.pending.register_within(max, id.0, waiting) {
            Registered::Waiting(count) => count,
            Registered::Closed(waiting, _) | Registered::Sealed(waiting) => {
                return Err(refused(job, waiting, not_sent(SendError::Closed)));
            }
            Registered::Full(waiting) | Registered::Duplicate(waiting) => {
                let text =
                    format!("{} dispatches wait for this worker already", limits::PENDING_MAX);
                return Err(refused(job, waiting, DispatchError::Busy(text)));
            }
        };
        let (link, message) = (&self.inner.link, self.encode(tenant, id, &job, delivery));
        let sent = if is_drop {
            link.send(message)
        } else if count <= 1 {
            // Alone, it is sooner there if no other thread has to be woken for it; among others,
            // they share a write.
            link.send_alone(tenant, message)
        } else {
            link.send_for(tenant, message)
        };
        let Err(error) = sent else { return Ok(()) };
        // `None`: the link's end has answered it already.
        match self.inner.pending.take(id.0) {
            Some(waiting) => Err(refused(job, waiting, not_sent(error))),
            None => Ok(()),
        }
    }

    fn cancel(&self, _tenant: TenantId, request_id: RequestId) -> Cancelled {
        match self.inner.pending.take(request_id.0) {
            Some(waiting) => {
                // A link that is full or closed cannot cancel; the script's own wall limit ends the
                // event then.
                let _ = self
                    .inner
                    .link
                    .send(ServerMessage::CancelDispatch { req_id: request_id.0 }.encode());
                waiting.answer.send(Err(DispatchError::Deadline { sent: true }));
                Cancelled::Sent
            }
            None => Cancelled::Unknown,
        }
    }

    fn kill(&self) {
        self.close(close_code::GOING_AWAY);
    }
}

impl std::fmt::Debug for MesophyllServerConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "MesophyllServerConn(worker {}, generation {})",
            self.inner.worker_id, self.inner.generation
        )
    }
}

/// Handles what a worker sends; runs on its link's reader thread.
pub(super) struct ConnHandler {
    pub(super) conn: MesophyllServerConn,
    pub(super) observer: Option<Arc<dyn LinkObserver>>,
    /// Called once when the connection has ended, before the observer.
    pub(super) on_closed: Box<dyn FnMut(&MesophyllServerConn) + Send>,
    pub(super) undecodable_in_a_row: u32,
    /// Which tenants are this worker's.
    pub(super) caller: Caller,
    pub(super) messages: MessageDoor,
    pub(super) feeds: Arc<Feeds>,
}

impl ConnHandler {
    fn on_client_message(&self, message: ClientMessage) -> Result<(), u16> {
        match message {
            ClientMessage::DispatchResponse { req_id: request_id, result } => {
                self.on_response(request_id, result)
            }
            ClientMessage::NotSubscribed { req_id: request_id } => {
                self.conn
                    .inner
                    .pending
                    .change(request_id, |waiting| waiting.answer.mark_not_subscribed());
            }
            ClientMessage::Finished(events) => self.on_finished(events),
            ClientMessage::Heartbeat => {
                self.conn.inner.heartbeat_at_ms.store(self.conn.now_ms(), Ordering::Relaxed);
                self.conn.tell_missed();
                self.on_ready();
            }
            ClientMessage::Ready(ready) => return self.on_announced(ready),
            ClientMessage::SendMessage { from, to, topic, data, depth, req_id: request_id } => {
                let message = TenantMessage { from, to, topic, data, depth };
                return self.on_send(request_id, message);
            }
            ClientMessage::HostCall { from, name, args, req_id: request_id } => {
                return self.on_host_call(request_id, HostCall { from, name, args });
            }
            ClientMessage::PublishFeed { from, topic, data } => {
                match self.conn.inner.counters.check_from(self.caller, from)? {
                    // One that is none is counted there: a worker of ours checks it before.
                    true => drop(self.feeds.publish(from, &topic, &data)),
                    false => self.feeds.lose(from, &topic),
                }
            }
            ClientMessage::ScriptLog(lines) => {
                for line in lines {
                    self.on_script_line(line)?;
                }
            }
            ClientMessage::Health(health) => {
                self.conn.inner.is_ours.store(true, Ordering::Relaxed);
                if let Some(observer) = &self.observer {
                    observer.health(&self.conn, health);
                }
            }
        }
        Ok(())
    }

    fn on_announced(&self, ready: Ready) -> Result<(), u16> {
        self.conn.inner.is_ours.store(true, Ordering::Relaxed);
        let (executors, tenant_states) = (ready.executors, ready.tenant_states);
        // Only a link's first Ready counts. Not in the log but at debug: a peer may connect as
        // often as it likes.
        let announced = self.conn.inner.announced.get_or_init(|| Announced::of(ready));
        log::debug!(worker = self.conn.id();
            "worker {} is ready: version {}, {executors} executors, {tenant_states} tenant states",
            self.conn.id(),
            announced.version,
        );
        if self.lacks_sandbox() {
            if self.conn.inner.counters.unconfined.record(Instant::now()).is_some() {
                log::error!(worker = self.conn.id();
                    "worker {}: --sandbox require, and its process is in none that is whole ({})",
                    self.conn.id(),
                    self.conn.sandbox().unwrap_or_default().summary()
                );
            }
            return Err(close_code::POLICY);
        }
        self.on_ready();
        Ok(())
    }

    /// A worker that has not told what confines it counts as one without a sandbox.
    fn lacks_sandbox(&self) -> bool {
        let is_whole = self.conn.sandbox().is_some_and(|sandbox| sandbox.is_whole());
        self.conn.inner.requires_sandbox && !is_whole
    }

    fn on_ready(&self) {
        if !self.lacks_sandbox()
            && !self.conn.inner.is_ready.swap(true, Ordering::Relaxed)
            && let Some(observer) = &self.observer
        {
            observer.ready(&self.conn);
        }
    }

    fn on_response(&self, request_id: u64, result: Result<EncodedValue, String>) {
        let Some(waiting) = self.conn.inner.pending.take(request_id) else {
            if let Some(answer_tx) = self.conn.inner.vm_queries.take(request_id) {
                // A worker that answers with an error knows no more than one that does not answer.
                return drop(result.map(|answer| answer_tx.send(answer)));
            }
            if let Some(count) = self.conn.inner.counters.late_answers.record(Instant::now()) {
                log::debug!(worker = self.conn.id(); "worker {}: {count} answers that nobody waits for", self.conn.id());
            }
            return;
        };
        let is_ours = self.conn.inner.is_ours.load(Ordering::Relaxed);
        waiting.answer.send(result.map_err(|text| {
            if is_ours { answers::from_wire(text) } else { DispatchError::Script(text) }
        }));
    }

    /// An answer that cannot be read is one all the same: its caller need not wait for its
    /// deadline.
    fn on_garbled_response(&self, request_id: u64, error: &WireError) {
        self.conn.inner.vm_queries.take(request_id);
        if let Some(waiting) = self.conn.inner.pending.take(request_id) {
            let text = format!("the worker's answer does not decode: {error}");
            waiting.answer.send(Err(DispatchError::OutcomeUnknown(text)));
        }
    }

    fn on_undecodable(&mut self, error: &WireError) -> Result<(), u16> {
        if let Some(count) = self.conn.inner.counters.undecodable.record(Instant::now()) {
            log::warn!(worker = self.conn.id(); "worker {}: {count} messages that do not decode, the last one: {error}", self.conn.id());
        }
        self.undecodable_in_a_row += 1;
        if self.undecodable_in_a_row >= limits::UNDECODABLE_IN_A_ROW_MAX {
            return Err(close_code::UNDECODABLE);
        }
        Ok(())
    }
}

impl LinkHandler for ConnHandler {
    fn on_message(&mut self, _link: &LinkSender, message: Received<'_>) -> Result<(), u16> {
        match ClientMessage::decode_received(message) {
            Ok(Incoming::Message(message)) => self.on_client_message(message)?,
            Ok(Incoming::Unknown(variant)) => {
                if let Some(count) = self.conn.inner.counters.unknown.record(Instant::now()) {
                    log::info!(worker = self.conn.id(); "worker {}: {count} messages of unknown kinds, the last {variant:?}", self.conn.id());
                }
            }
            Err(error) => {
                if let Some(request_id) = ClientMessage::request_of(message.bytes()) {
                    self.on_garbled_response(request_id, &error);
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
        self.conn.inner.counters.count_end(cause);
        // One that is closed in order has said all that it had to say.
        if !matches!(
            cause,
            CloseCause::ClosedByPeer(_) | CloseCause::ClosedByUs(close_code::GOING_AWAY)
        ) {
            self.feeds.doubt(&|tenant| self.caller.owns(tenant));
        }
        (self.on_closed)(&self.conn);
        // First the owner, so that what fails now is known as what was in flight; then the waiters.
        if let Some(observer) = &self.observer {
            observer.disconnected(&self.conn, cause);
        }
        self.conn.fail_pending(cause);
    }

    fn stats(&self) -> Arc<LinkStats> {
        self.conn.inner.counters.link.clone()
    }
}
