//! What a test has its templates run in: the runtime of a worker over a store in memory, with a
//! clock that stands still until the test moves it.
//!
//! Each test has a world of its own. What moves the clock waits until nothing runs before it looks
//! at the timers, so that a test sees the same each time, however fast the machine.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use crate::base::clock::{ManualClock, ScriptClock};
use crate::base::error::DbError;
use crate::base::sync::Lock;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{
    Answer, Cancelled, Delivery, DispatchResult, HostAnswer, Job, MessageCarrier, MessageDoor,
    Refused, Request, RequestId,
};
use crate::feeds;
use crate::pool::{Hosts, Messages, Subscriptions, TimerFirer, WorkerDb};
use crate::runtime::luau::{LuauConfig, LuauLimits, LuauRuntime, TemplateSource};
use crate::runtime::{TemplateRuntime, TenantDb};
use crate::store::memory::MemoryStore;
use crate::store::{DbOptions, DbState, RateKind};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    DbAnswer, DbOp, EncodedJson, HostCall, HostError, HostOutcome, HostResult, MessageOutcome,
    SHOP_UPDATE, TENANT_MESSAGE, TenantId, TenantMessage, TenantState, Timestamp,
};

/// What the clock of each world shows first: 2026-01-01T00:00:00Z, a Thursday.
const FIRST_DATE: Duration = Duration::from_secs(1_767_225_600);

/// Longer than the limits of the runtime let anything run.
const REST_MAX: Duration = Duration::from_secs(60);

/// Limit: what is published, and not yet asked for.
const PUBLISHED_MAX: usize = 1_000;

/// Limit: lines that a tenant prints in a test, and a few more in each second that it takes.
pub(super) const PRINTED_MAX: u32 = 10_000;

/// Where entries of the shop that have a price are bought.
const PURCHASE_URL: &str = "https://example.com/{scope}/{key}/{version}";

/// A world.
pub(super) struct World {
    worker: Arc<TestWorker>,
    pub(super) db: Arc<DbState>,
    clock: Arc<ManualClock>,
    published: Published,
    hosts: Arc<Lock<HostScript>>,
    // The worker's tenants send by it, and it knows the worker.
    _messages: Arc<Messages>,
    timers: Lock<TimerFirer>,
    /// Limit: what the runtime admits.
    started: HashMap<u64, Receiver<DispatchResult>>,
    last: u64,
}

/// What was published to feeds: the tenant, the topic, the data.
type Published = Arc<Lock<Vec<(TenantId, String, EncodedJson)>>>;

impl World {
    /// A world in which tenants run these templates.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub(super) fn new(templates: TemplateSource) -> io::Result<Self> {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + FIRST_DATE));
        let of_scripts = ScriptClock::Manual(clock.clone());
        let purchase_url = Some(PURCHASE_URL.to_owned());
        let mut options = DbOptions { purchase_url, ..DbOptions::default() };
        // The clock stands still, so that none of what a rate has saved up would come back.
        RateKind::ALL.into_iter().for_each(|kind| options.rates.set(kind, None));
        let db = DbState::new(Arc::new(MemoryStore::new()), options)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let db = Arc::new(db.with_clock(of_scripts.clone()));
        let (door, published) = (MessageDoor::default(), Published::default());
        let hosts = Arc::<Lock<HostScript>>::default();
        let tenant_db = TestDb {
            inner: WorkerDb::direct(db.clone(), 0, 1, door.clone()),
            published: published.clone(),
            hosts: hosts.clone(),
        };
        let subscriptions = Arc::new(Subscriptions::new(BTreeSet::from(["*".to_owned()])));
        let limits = LuauLimits { log_burst: PRINTED_MAX, ..LuauLimits::default() };
        let config = LuauConfig { templates, limits, clock: of_scripts, ..LuauConfig::default() };
        let runtime = LuauRuntime::start(config, Arc::new(tenant_db), subscriptions.clone())
            .map_err(|error| io::Error::other(error.to_string()))?;
        let worker = Arc::new(TestWorker { runtime, subscriptions });
        let no_hosts = Hosts::new(db.clone(), Vec::new());
        let messages = Messages::new(worker.clone(), db.clone(), no_hosts, None);
        let carrier: Arc<dyn MessageCarrier> = messages.clone();
        door.open(Arc::downgrade(&carrier));
        let (all, at_once) = (ShardSet::full(), Duration::ZERO);
        let timers = Lock::new(TimerFirer::new(worker.clone(), db.clone(), all, at_once));
        let started = HashMap::new();
        let _messages = messages;
        Ok(Self { worker, db, clock, published, hosts, _messages, timers, started, last: 0 })
    }

    /// Hands a job in: the number by which [`World::answer`] has what comes of it.
    pub(super) fn start(&mut self, tenant: TenantId, job: Job) -> u64 {
        let (answer_tx, answer_rx) = bounded(1);
        let deadline = Instant::now() + REST_MAX;
        self.last += 1;
        self.started.insert(self.last, answer_rx);
        let request = Request::new(tenant, job, deadline, Answer::channel(answer_tx));
        // As the master brings them.
        let is_delivered = matches!(&request.job,
            Job::Dispatch(event) if matches!(event.name.as_str(), SHOP_UPDATE | TENANT_MESSAGE));
        self.worker.submit(if is_delivered { request.to_tenant() } else { request });
        self.last
    }

    /// The answer of a job. While it waits for a time, the clock goes on to the next timer.
    ///
    /// # Blocks
    /// As long as it runs.
    ///
    /// # Errors
    /// No answer will come; the text says why.
    pub(super) fn answer(&mut self, number: u64) -> Result<DispatchResult, String> {
        let Some(answer_rx) = self.started.remove(&number) else {
            return Err("its answer has been taken".to_owned());
        };
        loop {
            let (next, fires) = self.rest()?;
            match (answer_rx.try_recv(), next) {
                (Ok(result), _) => return Ok(result),
                // Timers that fire on the way are no reason to wait for it.
                (Err(TryRecvError::Empty), Some(next)) => {
                    self.clock.move_to(fires.map_or(next, |fires| fires.min(next)));
                }
                (Err(_), _) => return Err("it waits for something that never comes".to_owned()),
            }
        }
    }

    /// Whether a job has its answer, once nothing runs.
    ///
    /// # Blocks
    /// As [`World::answer`].
    ///
    /// # Errors
    /// As [`World::answer`].
    pub(super) fn is_answered(&self, number: u64) -> Result<bool, String> {
        self.rest()?;
        Ok(self.started.get(&number).is_none_or(|answer_rx| !answer_rx.is_empty()))
    }

    /// Moves the clock on by so much, from timer to timer.
    ///
    /// # Blocks
    /// As long as what the timers wake runs.
    ///
    /// # Errors
    /// Something does not end.
    pub(super) fn advance(&self, time: Duration) -> Result<(), String> {
        let until = self.clock.now() + time;
        loop {
            let (next, fires) = self.rest()?;
            let next = [next, fires].into_iter().flatten().min().filter(|next| *next <= until);
            self.clock.move_to(next.unwrap_or(until));
            if next.is_none() {
                return self.rest().map(drop);
            }
        }
    }

    /// What its clock shows.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::of(self.clock.date())
    }

    /// Has calls of this name answered so from now on.
    pub(super) fn serve(&self, name: String, result: HostResult) {
        self.hosts.lock().answers.insert(name, result);
    }

    /// What host processes have been asked since this was asked last.
    ///
    /// # Blocks
    /// As [`World::answer`].
    ///
    /// # Errors
    /// As [`World::answer`].
    pub(super) fn called(&self) -> Result<Vec<HostCall>, String> {
        self.rest()?;
        Ok(std::mem::take(&mut self.hosts.lock().calls))
    }

    /// What the tenant published since this was asked last: topics and data.
    ///
    /// # Blocks
    /// As [`World::answer`].
    ///
    /// # Errors
    /// As [`World::answer`].
    pub(super) fn published(&self, tenant: TenantId) -> Result<Vec<(String, EncodedJson)>, String> {
        self.rest()?;
        let mut published = self.published.lock();
        let own = published.extract_if(.., |(from, ..)| *from == tenant);
        Ok(own.map(|(_, topic, data)| (topic, data)).collect())
    }

    /// Waits until nothing runs, and nothing of `ctx.Timers` is due: when the next one that waits
    /// goes on, and when the next of those timers fires.
    fn rest(&self) -> Result<(Option<Instant>, Option<Instant>), String> {
        let mut timers = self.timers.lock();
        loop {
            let next = self.worker.runtime.rest(Instant::now() + REST_MAX);
            let next = next.map_err(|_| format!("something still runs after {REST_MAX:?}"))?;
            let fired = timers.fired();
            let fires = timers.turn();
            if timers.fired() == fired {
                return Ok((next, fires));
            }
        }
    }
}

/// The runtime as the worker that it would be part of.
struct TestWorker {
    runtime: LuauRuntime,
    subscriptions: Arc<Subscriptions>,
}

impl WorkerLike for TestWorker {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        let Request { tenant, id, job, answer, delivery, .. } = request;
        let is_wanted = match &job {
            Job::Dispatch(event) => {
                delivery == Delivery::Always || self.subscriptions.wants(tenant, &event.name)
            }
            Job::RunScript { .. } | Job::DropTenant => true,
        };
        if is_wanted {
            self.runtime.submit(tenant, id, job, answer);
        } else {
            answer.send_not_subscribed();
        }
        Ok(())
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.runtime.cancel(tenant, request_id)
    }

    fn kill(&self) {
        self.runtime.shutdown();
    }
}

/// What host processes are asked in a test, and what they answer.
#[derive(Default)]
struct HostScript {
    /// By the names that are served.
    answers: HashMap<String, HostResult>,
    /// Limit: `PUBLISHED_MAX`.
    calls: Vec<HostCall>,
}

/// The database of a world, which keeps what is published, and what host processes are asked.
struct TestDb {
    inner: WorkerDb,
    published: Published,
    hosts: Arc<Lock<HostScript>>,
}

impl TenantDb for TestDb {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        self.inner.tenant_states()
    }

    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        self.inner.ask(op)
    }

    fn send(&self, message: TenantMessage) -> MessageOutcome {
        self.inner.send(message)
    }

    fn call_host(&self, call: HostCall, answer: HostAnswer) {
        let result = {
            let mut hosts = self.hosts.lock();
            let served = hosts.answers.get(&call.name).cloned();
            match served {
                None => Err(HostError::new(HostOutcome::NoHost)),
                Some(_) if hosts.calls.len() >= PUBLISHED_MAX => {
                    Err(HostError::new(HostOutcome::Busy))
                }
                Some(result) => {
                    hosts.calls.push(call);
                    result
                }
            }
        };
        answer(result);
    }

    fn publish(&self, from: TenantId, topic: String, data: EncodedJson) -> Result<(), DbError> {
        feeds::check(&topic, &data)?;
        let mut published = self.published.lock();
        if published.len() >= PUBLISHED_MAX {
            return Err(DbError::Busy("too much is published that no test asks for".to_owned()));
        }
        published.push((from, topic, data));
        Ok(())
    }
}
