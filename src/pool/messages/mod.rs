//! Messages between tenants: whether one may be sent, where its receiver is, and its way into the
//! receiver's queue.
//!
//! A message comes in on a link's reader thread, which only looks at what is in memory. What may
//! block, the store and other masters, is done by threads on demand (`msg-N`), in which senders
//! take turns. Delivery is a dispatch like any other, so that bans, quarantine, queues and budgets
//! hold for it. Owned by the master, which stops it.

#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::base::error::DispatchError;
use crate::base::labels::OutcomeCounters;
use crate::base::limits::{
    DISPATCH_DEADLINE, MESSAGE_DEADLINE, MESSAGE_THREAD_IDLE_MAX, MESSAGE_THREADS,
    MESSAGES_WAITING_MAX, TENANT_MESSAGE_DEPTH_MAX, TENANT_MESSAGE_MAX_BYTES,
    TENANT_MESSAGE_TOPIC_MAX_BYTES, TENANT_MESSAGES_RECEIVED, TENANT_MESSAGES_WAITING_MAX,
};
use crate::base::on_demand_threads::OnDemandThreads;
use crate::base::rates::Rates;
use crate::base::thread::panic_message;
use crate::cluster::ShardTable;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, HostAnswer, Job, MessageAnswer, MessageCarrier, Request};
use crate::pool::hosts::{self, Hosts};
use crate::store::{DbState, RateKind, RateRefusal, Standing};
use crate::wire::data::{
    CreateEvent, EncodedJson, HostCall, HostError, HostOutcome, MessageOutcome, TenantId,
    TenantMessage,
};
use crate::wire::tenant_message;

/// What a receiver is told as the sender of a message of the internal API.
const STAFF: &str = "staff";

/// Has the master that has the receiver take a message, by the deadline.
pub type ForwardMessage = dyn Fn(&TenantMessage, Instant) -> MessageOutcome + Send + Sync;

/// Carries messages of a master's tenants.
pub struct Messages {
    post: Arc<Post>,
    threads: OnDemandThreads<TenantId, Handed>,
}

/// What was handed in.
enum Handed {
    Message(TenantMessage, MessageAnswer),
    Call(HostCall, HostAnswer),
    /// Its sender, or caller, was answered.
    Refused(RateRefusal),
}

/// What the threads share.
struct Post {
    pool: Arc<dyn WorkerLike>,
    db: Arc<DbState>,
    hosts: Arc<Hosts>,
    /// `None`: every tenant is this master's.
    shards: Option<Arc<ShardTable>>,
    forward: OnceLock<Box<ForwardMessage>>,
    received: Rates<TenantId>,
    ended: OutcomeCounters<MessageOutcome>,
}

impl Messages {
    /// Carries by dispatches to `pool`, which refuses what may not run. No thread is started yet.
    pub fn new(
        pool: Arc<dyn WorkerLike>,
        db: Arc<DbState>,
        hosts: Arc<Hosts>,
        shards: Option<Arc<ShardTable>>,
    ) -> Arc<Self> {
        let post = Arc::new(Post {
            pool,
            db,
            hosts,
            shards,
            forward: OnceLock::new(),
            received: Rates::new(TENANT_MESSAGES_RECEIVED),
            ended: OutcomeCounters::default(),
        });
        let names = (0..MESSAGE_THREADS).map(|number| format!("msg-{number}")).collect();
        let carrying = post.clone();
        let work = move |handed| match handed {
            Handed::Message(message, answer) => {
                let carried = catch_unwind(AssertUnwindSafe(|| carrying.carry(&message)));
                let outcome = carried.unwrap_or_else(|payload| {
                    let (from, panic) = (message.from, panic_message(payload.as_ref()));
                    log::error!(tenant:% = from; "carrying a message of {from} panicked: {panic}");
                    MessageOutcome::Unknown
                });
                carrying.end(outcome, answer);
            }
            Handed::Call(call, answer) => carrying.call(&call, answer),
            Handed::Refused(refusal) => {
                // A panic is logged where it is; no answer depends on this.
                let _ = catch_unwind(AssertUnwindSafe(|| carrying.db.record_refusal(&refusal)));
            }
        };
        let threads =
            OnDemandThreads::new(names, MESSAGES_WAITING_MAX, MESSAGE_THREAD_IDLE_MAX, work);
        Arc::new(Self { post, threads })
    }

    /// Has messages for tenants of other masters forwarded so from now on; without it they are
    /// `Busy`.
    pub fn forward_by(&self, forward: Box<ForwardMessage>) {
        // Asked once, when the master starts.
        let _ = self.post.forward.set(forward);
    }

    /// Brings a message that another master checked, if its receiver is here; `None` if not.
    ///
    /// # Blocks
    /// On the store, if the receiver's rules are to be read.
    pub fn bring(&self, message: &TenantMessage) -> Option<MessageOutcome> {
        self.post.bring(message)
    }

    /// Brings a message of staff, which needs no permission and counts in no rate.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn bring_from_staff(
        &self,
        to: TenantId,
        topic: &str,
        data: &EncodedJson,
        deadline: Instant,
    ) -> Result<(), DispatchError> {
        let event = tenant_message::event(STAFF, topic, data, 1);
        let brought = self.post.deliver(to, event, deadline);
        match &brought {
            // Another master is asked then.
            Err(DispatchError::NotOwner) => {}
            Err(error) => self.post.ended.add(outcome_of(error), 1),
            Ok(()) => self.post.ended.add(MessageOutcome::Accepted, 1),
        }
        brought
    }

    /// How many messages ended how.
    pub fn outcomes(&self) -> &OutcomeCounters<MessageOutcome> {
        &self.post.ended
    }

    /// The host processes that tenants call.
    pub fn hosts(&self) -> &Arc<Hosts> {
        &self.post.hosts
    }

    /// There is no room for it.
    fn refuse(&self, handed: Handed) {
        match handed {
            Handed::Message(_, answer) => self.post.end(MessageOutcome::Busy, answer),
            Handed::Call(_, answer) => {
                self.post.hosts.end(answer, Err(HostError::new(HostOutcome::Busy)));
            }
            // The log has it, and a counter.
            Handed::Refused(_) => {}
        }
    }

    /// Counts one more for a tenant; false: it is one too many, of which a thread that may block
    /// tells the tenant's author.
    fn admits(&self, kind: RateKind, tenant: TenantId) -> bool {
        let Err(refusal) = self.post.db.admit(kind, tenant) else { return true };
        if refusal.is_news() {
            // Beyond the tenant's own places, which may all be taken just then.
            if self.threads.submit(tenant, Handed::Refused(refusal)).is_err() {
                self.post.db.unrecorded().inc();
            }
        }
        false
    }

    fn hand(&self, from: TenantId, handed: Handed) {
        let handed = self.threads.submit_within(TENANT_MESSAGES_WAITING_MAX, from, handed);
        if let Err(handed) = handed {
            self.refuse(handed);
        }
    }

    /// Takes no more messages and joins the threads. What waits is not brought.
    ///
    /// # Blocks
    /// Until what is under way has ended: the deadlines of the store and of forwarding.
    pub fn stop(&self) {
        self.threads.abandon();
        self.threads.finish();
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.stop();
    }
}

impl MessageCarrier for Messages {
    fn carry(&self, message: TenantMessage, answer: MessageAnswer) {
        if let Err(outcome) = check(&message) {
            self.post.end(outcome, answer);
        } else if !self.admits(RateKind::Messages, message.from) {
            self.post.end(MessageOutcome::Busy, answer);
        } else {
            self.hand(message.from, Handed::Message(message, answer));
        }
    }

    fn call_host(&self, call: HostCall, answer: HostAnswer) {
        if !hosts::has_bounds(&call) {
            self.post.hosts.end(answer, Err(HostError::new(HostOutcome::TooLarge)));
        } else if !self.admits(RateKind::HostCalls, call.from) {
            self.post.hosts.end(answer, Err(HostError::new(HostOutcome::Busy)));
        } else {
            self.hand(call.from, Handed::Call(call, answer));
        }
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messages")
    }
}

impl Post {
    fn is_here(&self, tenant: TenantId) -> bool {
        self.shards.as_ref().is_none_or(|shards| shards.serves(tenant))
    }

    /// Blocks: on the store, and for another master.
    fn carry(&self, message: &TenantMessage) -> MessageOutcome {
        // What a VM that is about to close still sends.
        if !self.is_here(message.from) {
            return MessageOutcome::Busy;
        }
        if self.db.standing(message.from) == Standing::Banned {
            return MessageOutcome::NotAllowed;
        }
        self.bring(message).unwrap_or_else(|| match self.forward.get() {
            Some(forward) => forward(message, Instant::now() + MESSAGE_DEADLINE),
            None => MessageOutcome::Busy,
        })
    }

    fn bring(&self, message: &TenantMessage) -> Option<MessageOutcome> {
        let TenantMessage { from, to, topic, data, depth } = message;
        if !self.is_here(*to) {
            return None;
        }
        match self.db.allows_message(*to, *from, topic) {
            Ok(true) => {}
            Ok(false) => return Some(MessageOutcome::NotAllowed),
            Err(_) => return Some(MessageOutcome::Busy),
        }
        let now = Instant::now();
        if !self.received.admits(*to, now) {
            return Some(MessageOutcome::Busy);
        }
        let event = tenant_message::event(&from.to_string(), topic, data, *depth);
        match self.deliver(*to, event, now + DISPATCH_DEADLINE) {
            Ok(()) => Some(MessageOutcome::Accepted),
            Err(DispatchError::NotOwner) => None,
            Err(error) => Some(outcome_of(&error)),
        }
    }

    /// The receiver has allowed it: its subscriptions do not decide about it.
    fn deliver(
        &self,
        to: TenantId,
        event: CreateEvent,
        deadline: Instant,
    ) -> Result<(), DispatchError> {
        let (job, answer) = (Job::Dispatch(event), Answer::unawaited());
        self.pool.submit_unawaited(Request::new(to, job, deadline, answer).to_tenant())
    }

    /// Blocks: on the store, if the tenant's rules say whether it may.
    fn call(&self, call: &HostCall, answer: HostAnswer) {
        // What a VM that is about to close still asks comes too late.
        let is_here = self.is_here(call.from);
        let allowed = catch_unwind(AssertUnwindSafe(|| self.hosts.check_allowed(call)));
        match allowed.unwrap_or_else(|_| Err(HostError::new(HostOutcome::Busy))) {
            Ok(()) if is_here => self.hosts.send(call, answer),
            Ok(()) => self.hosts.end(answer, Err(HostError::new(HostOutcome::Busy))),
            Err(error) => self.hosts.end(answer, Err(error)),
        }
    }

    fn end(&self, outcome: MessageOutcome, answer: MessageAnswer) {
        self.ended.add(outcome, 1);
        answer(outcome);
    }
}

/// What needs nothing but the message.
fn check(message: &TenantMessage) -> Result<(), MessageOutcome> {
    let TenantMessage { topic, data, depth, .. } = message;
    if data.as_bytes().len() > TENANT_MESSAGE_MAX_BYTES
        || topic.len() > TENANT_MESSAGE_TOPIC_MAX_BYTES
    {
        Err(MessageOutcome::TooLarge)
    } else if *depth > TENANT_MESSAGE_DEPTH_MAX {
        Err(MessageOutcome::TooDeep)
    } else {
        Ok(())
    }
}

/// What a sender learns of a dispatch that was not taken. Whether the receiver is banned or
/// quarantined is not the sender's business.
fn outcome_of(error: &DispatchError) -> MessageOutcome {
    match error {
        DispatchError::Banned | DispatchError::Quarantined => MessageOutcome::NotAllowed,
        DispatchError::TooLarge { .. } => MessageOutcome::TooLarge,
        error if error.sent() => MessageOutcome::Unknown,
        _ => MessageOutcome::Busy,
    }
}
