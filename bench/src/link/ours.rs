//! Our two processes: a whole `Master` whose workers are external, with the load driver inside, and
//! a worker as the product has it, over an echo or over Luau.
//!
//! The echo runs on a thread of its own behind an inbox, as an executor does: a runtime that
//! answered on the link's reader thread would leave out a hand-over that every real one has.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use mesophyll::api::ApiConfig;
use mesophyll::api::token::{self, Secret};
use mesophyll::base::error::DispatchError;
use mesophyll::base::spin::Spin;
use mesophyll::dispatch::worker_like::WorkerLike;
use mesophyll::dispatch::{Answer, Cancelled, DispatchResult, Job, Request, RequestId};
use mesophyll::master::config::{Options, PoolConfig, PoolDefaults};
use mesophyll::master::{Master, MasterError, StartThreads};
use mesophyll::net::link::LinkLimits;
use mesophyll::net::stream::tls::TlsClient;
use mesophyll::pool::process::supervisor::State;
use mesophyll::pool::{Program, Subscriptions, WorkerDb, WorkerThread};
use mesophyll::protocol::{ClientConfig, Dial, MesophyllClient, MesophyllDbClient, Outbox};
use mesophyll::runtime::luau::{LuauConfig, LuauRuntime, TemplateSource};
use mesophyll::runtime::{RuntimeStats, TemplateRuntime, TenantDb};
use mesophyll::wire::data::{EncodedValue, EventData, TenantId};

use super::asked::{Kind, Load, Outcome, answer_lines, say};
use super::events::Ours;
use super::pair::{READY_TIMEOUT, Role, Side};
use crate::peer::vm::TEMPLATE;

/// Longer than any turn.
const DEADLINE: Duration = Duration::from_secs(300);

/// Who calls the internal API.
const USER: u64 = 7;

/// Between two attempts to send what nobody waits for, when too much is under way.
const BUSY_PAUSE: Duration = Duration::from_micros(100);

/// The command line that such a master is started with.
struct Given(HashMap<&'static str, String>);

impl Options for Given {
    fn option(&self, name: &str) -> Option<(&str, bool)> {
        self.0.get(name).map(|value| (value.as_str(), false))
    }

    fn options(&self, name: &str) -> Vec<&str> {
        self.0.get(name).map(String::as_str).into_iter().collect()
    }

    fn switch(&self, name: &str) -> bool {
        name == "external-workers"
    }
}

/// A master and the tokens of its workers.
pub(super) fn start_master(
    workers: usize,
    store: Option<&str>,
    api: Option<ApiConfig>,
    certificate: Option<&Certificate>,
) -> Result<(Master, Vec<String>), String> {
    let tokens_file = LoneFile::new("tokens");
    let mut given = HashMap::from([
        ("workers", workers.to_string()),
        ("worker-tokens", tokens_file.0.display().to_string()),
        ("store", store.unwrap_or("memory:").to_owned()),
    ]);
    if let Some(certificate) = certificate {
        given.insert("listen-tls", certificate.files());
        given.insert("tls-ca", AUTHORITY.to_owned());
        given.insert("worker-certs", "require".to_owned());
    }
    given.insert("deadline", "300s".to_owned());
    given.insert("api", if api.is_some() { "127.0.0.1:0" } else { "off" }.to_owned());
    let config = PoolConfig::from_options(&Given(given), PoolDefaults::REPLAY)
        .map_err(|error| error.to_string())?;
    let no_threads: &StartThreads =
        &|_, _, _, _, _| Err(MasterError::Config("its workers are processes".to_owned()));
    let master = Master::start(&config, api, &Program::at(Path::new("")), no_threads)
        .map_err(|error| error.to_string())?;
    let tokens: HashMap<String, String> =
        serde_json::from_slice(&std::fs::read(&tokens_file.0).map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
    drop(tokens_file);
    let token = |worker: usize| tokens.get(&worker.to_string()).cloned().unwrap_or_default();
    Ok((master, (0..workers).map(token).collect()))
}

/// A master's process: says its address and its workers' tokens, then does what it is asked.
pub fn master(workers: usize, store: Option<&str>, side: Side) -> Result<(), String> {
    let secret = Secret::random();
    let has_api = matches!(side, Side::OursApi | Side::OursStream);
    let api = has_api.then(|| ApiConfig::new(secret.clone()));
    let certificate = (side == Side::OursTls).then(|| Certificate::new("master")).transpose()?;
    let (master, tokens) = start_master(workers, store, api, certificate.as_ref())?;
    let address = match side {
        Side::OursTls => format!("{TLS}{}", master.listen_addr().ok_or("a master of threads")?),
        Side::OursUnix | Side::OursMessages => hand_out(&master, workers)?,
        _ => master.listen_addr().ok_or("a master of threads")?.to_string(),
    };
    say(&format!("{address} {}", tokens.join(" ")))?;
    let pool = master.pool();
    answer_lines(|line| match line {
        "ready" => wait_ready(&master).map(|()| "ready".to_owned()),
        "lost" => wait_lost(&master).map(|()| "lost".to_owned()),
        "api" => {
            let address = master.api_addr().ok_or("a master without its API")?;
            Ok(format!("{address} Internal {}", token::mint(&secret, USER, u64::MAX)))
        }
        load => Driver::new(pool.clone(), load.parse()?).run().map(|outcome| outcome.to_string()),
    })?;
    master.stop(Instant::now() + Duration::from_secs(5), |_| {});
    Ok(())
}

/// Gives the workers their connections as the broker does: over Unix sockets that the master did
/// not listen for. Returns where a worker gets them, but for its number, which ends that.
fn hand_out(master: &Master, workers: usize) -> Result<String, String> {
    let at = std::env::temp_dir().join(format!("mesophyll-bench-{}.socket", std::process::id()));
    for worker in 0..workers {
        let server = master.server().ok_or("a master of threads")?.clone();
        let path = format!("{}{worker}", at.display());
        // A process that had this number may have left one behind.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).map_err(|error| error.to_string())?;
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| {
                server.serve_worker(worker, stream.into());
            });
        });
    }
    Ok(format!("unix:{}", at.display()))
}

/// Where the tokens are for a moment.
struct LoneFile(PathBuf);

impl LoneFile {
    fn new(what: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mesophyll-bench-{}.{what}", std::process::id())))
    }
}

impl Drop for LoneFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn wait_ready(master: &Master) -> Result<(), String> {
    wait(master, |states| states.iter().all(|state| *state == State::Ready))
}

fn wait_lost(master: &Master) -> Result<(), String> {
    wait(master, |states| states.iter().any(|state| *state != State::Ready))
}

fn wait(master: &Master, is_so: impl Fn(&[State]) -> bool) -> Result<(), String> {
    let until = Instant::now() + READY_TIMEOUT;
    while Instant::now() < until {
        let states: Vec<State> = master.reports().iter().map(|report| report.state).collect();
        if is_so(&states) {
            return Ok(());
        }
        let _ = master.changes_rx().recv_timeout(Duration::from_millis(100));
    }
    Err("the workers are not what they should be".to_owned())
}

/// A worker's process: counts what it is asked for, until stdin ends.
pub fn worker(role: &Role) -> Result<(), String> {
    let handled = Arc::new(AtomicU64::new(0));
    let worker = Worker::start(role, handled.clone())?;
    say("up")?;
    answer_lines(|_| Ok(handled.load(Ordering::Relaxed).to_string()))?;
    worker.stop();
    Ok(())
}

/// A worker as `mesophyll worker` makes it.
pub(super) struct Worker {
    client: MesophyllClient,
    worker: Arc<WorkerThread>,
}

impl Worker {
    pub(super) fn start(role: &Role, handled: Arc<AtomicU64>) -> Result<Self, String> {
        let outbox = Outbox::default();
        let db = Arc::new(worker_db(role, &outbox)?);
        Self::with(role, outbox, db, |db, subscriptions| {
            Ok(if role.is_luau {
                Box::new(luau(TEMPLATE, db, subscriptions)?)
            } else {
                Box::new(Echo::start(handled))
            })
        })
    }

    /// One over another runtime.
    pub(super) fn with(
        role: &Role,
        outbox: Outbox,
        db: Arc<dyn TenantDb>,
        runtime: impl FnOnce(
            Arc<dyn TenantDb>,
            Arc<Subscriptions>,
        ) -> Result<Box<dyn TemplateRuntime>, String>,
    ) -> Result<Self, String> {
        let subscriptions = Arc::new(Subscriptions::new(["*".to_owned()].into()));
        let runtime = runtime(db.clone(), subscriptions.clone())?;
        let worker = Arc::new(WorkerThread::new(role.worker, runtime, 1, subscriptions, db));
        let config = ClientConfig {
            master: dial(role)?,
            worker_id: role.worker,
            workers: role.workers,
            token: role.token.clone(),
            link_limits: LinkLimits::default(),
            sandbox: None,
            host: None,
            outbox,
        };
        let client =
            MesophyllClient::start(config, worker.clone()).map_err(|error| error.to_string())?;
        Ok(Self { client, worker })
    }

    /// The worker behind the connection.
    pub(super) fn local(&self) -> Arc<WorkerThread> {
        self.worker.clone()
    }

    pub(super) fn stop(self) {
        self.client.stop();
        self.worker.kill();
    }
}

/// A worker's way to the master's database.
pub(super) fn worker_db(role: &Role, outbox: &Outbox) -> Result<WorkerDb, String> {
    let client = MesophyllDbClient::over(&dial(role)?, role.worker, &role.token);
    Ok(WorkerDb::mesophyll(client, outbox.clone()))
}

/// A worker's way to its master.
fn dial(role: &Role) -> Result<Dial, String> {
    let Some(address) = role.address.strip_prefix(TLS) else {
        return Ok(role.address.clone().into());
    };
    let certificate = Certificate::new("worker")?;
    let files = certificate.files().parse().map_err(|error| format!("{error}"))?;
    let client = TlsClient::new(Path::new(AUTHORITY), Some(&files));
    let client = client.map_err(|error| error.to_string())?;
    Ok(Dial::Tls(Box::new(address.into()), client))
}

/// What an address begins with that is to be asked over TLS.
const TLS: &str = "tls:";

/// The product's own certificates for tests.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tls");

const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tls/authority.pem");

/// A certificate of them, with its key in a file that nobody else reads, as long as this lives.
pub(super) struct Certificate {
    certificate: String,
    key: LoneFile,
}

impl Certificate {
    fn new(name: &str) -> Result<Self, String> {
        let key = LoneFile::new(&format!("{name}.key"));
        let is_own = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::copy(format!("{CERTIFICATES}/{name}.key"), &key.0)
            .and_then(|_| std::fs::set_permissions(&key.0, is_own(0o600)))
            .map_err(|error| error.to_string())?;
        Ok(Self { certificate: format!("{CERTIFICATES}/{name}.pem"), key })
    }

    fn files(&self) -> String {
        format!("{},{}", self.certificate, self.key.0.display())
    }
}

/// Real VMs, all with one template.
pub(super) fn luau(
    template: &str,
    db: Arc<dyn TenantDb>,
    subscriptions: Arc<Subscriptions>,
) -> Result<LuauRuntime, String> {
    let templates = TemplateSource::Files(vec![("main.luau".to_owned(), template.to_owned())]);
    let config = LuauConfig { templates, ..LuauConfig::default() };
    LuauRuntime::start(config, db, subscriptions).map_err(|error| error.to_string())
}

/// Gives every event's data back, on a thread of its own, which waits for jobs as an executor does.
pub(super) struct Echo {
    inbox: Arc<Inbox>,
}

/// What an executor's inbox does, and no more. The link bounds what is in flight.
#[derive(Default)]
struct Inbox {
    is_filled: AtomicBool,
    state: Mutex<Jobs>,
    arrived: Condvar,
}

#[derive(Default)]
struct Jobs {
    queue: Vec<(Job, Answer)>,
    is_awaited: bool,
    is_closed: bool,
}

impl Inbox {
    fn push(&self, job: Job, answer: Answer) {
        let mut jobs = self.lock();
        // One that comes too late is dropped, which answers it.
        if !jobs.is_closed {
            jobs.queue.push((job, answer));
            self.is_filled.store(true, Ordering::Release);
            self.wake(jobs);
        }
    }

    /// Takes out everything that has come; nothing at the end.
    fn wait(&self, spin: &Spin, taken: &mut Vec<(Job, Answer)>) {
        spin.wait(|| self.is_filled.load(Ordering::Acquire));
        let mut jobs = self.lock();
        while jobs.queue.is_empty() && !jobs.is_closed {
            jobs.is_awaited = true;
            jobs = self.arrived.wait(jobs).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        self.is_filled.store(false, Ordering::Release);
        std::mem::swap(&mut jobs.queue, taken);
    }

    fn close(&self) {
        let mut jobs = self.lock();
        jobs.is_closed = true;
        self.wake(jobs);
    }

    fn wake(&self, mut jobs: MutexGuard<'_, Jobs>) {
        if std::mem::take(&mut jobs.is_awaited) {
            drop(jobs);
            self.arrived.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Echo {
    pub(super) fn start(handled: Arc<AtomicU64>) -> Self {
        let inbox = Arc::new(Inbox::default());
        let jobs = inbox.clone();
        // It ends when the runtime closes the inbox.
        std::thread::spawn(move || {
            let (spin, mut batch) = (Spin::new(), Vec::new());
            loop {
                jobs.wait(&spin, &mut batch);
                if batch.is_empty() {
                    return;
                }
                for (job, answer) in batch.drain(..) {
                    handled.fetch_add(1, Ordering::Relaxed);
                    answer.send(echo(job));
                }
            }
        });
        Self { inbox }
    }
}

fn echo(job: Job) -> DispatchResult {
    match job {
        Job::Dispatch(event) => match event.data {
            EventData::KhronosValue(value) => Ok(value),
            // The benchmark sends none.
            EventData::Json(_) | EventData::RawValue(_) => Ok(EncodedValue::null()),
        },
        Job::RunScript { .. } | Job::DropTenant => Ok(EncodedValue::null()),
    }
}

impl TemplateRuntime for Echo {
    fn submit(&self, _: TenantId, _: RequestId, job: Job, answer: Answer) {
        self.inbox.push(job, answer);
    }

    fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
        Cancelled::Unknown
    }

    fn stats(&self) -> RuntimeStats {
        RuntimeStats::default()
    }

    fn shutdown(&self) {
        self.inbox.close();
    }
}

/// The load driver of a synchronous caller: one thread keeps so many in flight, and their answers
/// come into one channel.
pub(super) struct Driver {
    pool: Arc<dyn WorkerLike>,
    events: Ours,
    load: Load,
    number: u64,
}

impl Driver {
    pub(super) fn new(pool: Arc<dyn WorkerLike>, load: Load) -> Self {
        Self { pool, events: Ours::new(&load), load, number: 0 }
    }

    fn run(mut self) -> Result<Outcome, String> {
        self.check()?;
        match self.load.kind {
            Kind::RoundTrip => self.round_trips(),
            Kind::Flight => self.flight(),
            Kind::Timed | Kind::Noisy => self.timed(),
            Kind::Nowait => self.nowait(),
        }
    }

    fn next(&mut self) -> (TenantId, mesophyll::wire::data::CreateEvent) {
        let number = self.number;
        self.number += 1;
        (self.events.tenant(number), self.events.event(number))
    }

    fn ask(&mut self) -> Result<EncodedValue, String> {
        let (tenant, event) = self.next();
        let answer = self.pool.dispatch_event(tenant, event, Instant::now() + DEADLINE);
        answer.map_err(|error| error.to_string())
    }

    /// So many events, one after the other or with some in flight, and none of them timed.
    pub(super) fn do_count(mut self, count: u64) -> Result<(), String> {
        if self.load.kind == Kind::RoundTrip {
            return (0..count).try_for_each(|_| self.ask().map(drop));
        }
        let (answers_tx, answers_rx) = bounded::<DispatchResult>(self.load.in_flight);
        let deadline = Instant::now() + DEADLINE;
        for sent in 0..count + self.load.in_flight as u64 {
            if sent >= self.load.in_flight as u64 {
                let answer =
                    answers_rx.recv_deadline(deadline).map_err(|error| error.to_string())?;
                self.events.take(answer.map_err(|error| error.to_string())?)?;
            }
            if sent < count {
                let (tenant, event) = self.next();
                let answer = Answer::channel(answers_tx.clone());
                let job = Job::Dispatch(event);
                self.pool.submit(Request::new(tenant, job, deadline, answer));
            }
        }
        Ok(())
    }

    /// What comes back is what was sent.
    fn check(&mut self) -> Result<(), String> {
        let (number, answer) = (self.number, self.ask()?);
        if self.events.is_echo(number, &answer) {
            Ok(())
        } else {
            Err("the answer is no echo".to_owned())
        }
    }

    fn round_trips(&mut self) -> Result<Outcome, String> {
        let begun = Instant::now();
        let (until, mut now, mut times) = (begun + self.load.lasting, begun, Vec::new());
        while now < until {
            let answer = self.ask()?;
            self.events.take(answer)?;
            let then = std::mem::replace(&mut now, Instant::now());
            times.push((now - then).as_nanos() as u64);
        }
        Ok(Outcome::new(times.len() as u64, begun.elapsed(), times))
    }

    fn flight(&mut self) -> Result<Outcome, String> {
        let (answers_tx, answers_rx) = bounded(self.load.in_flight);
        let begun = Instant::now();
        let (deadline, until) = (begun + DEADLINE, begun + self.load.lasting);
        let submit = |driver: &mut Self| {
            let (tenant, event) = driver.next();
            let answer = Answer::channel(answers_tx.clone());
            driver.pool.submit(Request::new(tenant, Job::Dispatch(event), deadline, answer));
        };
        for _ in 0..self.load.in_flight {
            submit(self);
        }
        let (mut done, mut in_flight) = (0, self.load.in_flight);
        while in_flight > 0 {
            let answer = answers_rx.recv_deadline(deadline).map_err(|error| error.to_string())?;
            self.events.take(answer.map_err(|error| error.to_string())?)?;
            done += 1;
            if Instant::now() < until {
                submit(self);
            } else {
                in_flight -= 1;
            }
        }
        Ok(Outcome::new(done, begun.elapsed(), Vec::new()))
    }

    /// Each caller is a slot with the time at which its event left.
    fn timed(&mut self) -> Result<Outcome, String> {
        const LOOPING: usize = usize::MAX;
        let is_noisy = self.load.kind == Kind::Noisy;
        let (answers_tx, answers_rx) = bounded(self.load.in_flight + 1);
        let pool = self.pool.clone();
        let submit =
            |slot: usize, (tenant, event): (TenantId, mesophyll::wire::data::CreateEvent)| {
                let answers_tx = answers_tx.clone();
                // There is room for one answer of each slot.
                let answer =
                    Answer::callback(move |result| drop(answers_tx.try_send((slot, result))));
                let deadline = Instant::now() + DEADLINE;
                pool.submit(Request::new(tenant, Job::Dispatch(event), deadline, answer));
            };
        if is_noisy {
            submit(LOOPING, Ours::looping());
            // The loop runs before anybody else comes.
            std::thread::sleep(Duration::from_millis(50));
        }
        let begun = Instant::now();
        let until = begun + self.load.lasting;
        let mut sent: Vec<Option<Instant>> = vec![None; self.load.in_flight];
        for (slot, sent) in sent.iter_mut().enumerate() {
            *sent = Some(Instant::now());
            submit(slot, self.next());
        }
        let (mut done, mut times) = (0, Vec::new());
        // In the noisy case nobody waits beyond the end, as the loop may last longer.
        let patience = if is_noisy { until } else { begun + DEADLINE };
        while sent.iter().any(Option::is_some) {
            let Ok((slot, result)) = answers_rx.recv_deadline(patience) else { break };
            if slot == LOOPING {
                submit(LOOPING, Ours::looping());
                continue;
            }
            self.events.take(result.map_err(|error: DispatchError| error.to_string())?)?;
            let now = Instant::now();
            let then = sent[slot].take().ok_or("an answer to nothing")?;
            times.push((now - then).as_nanos() as u64);
            done += 1;
            if now < until {
                sent[slot] = Some(now);
                submit(slot, self.next());
            }
        }
        let now = Instant::now();
        times.extend(sent.into_iter().flatten().map(|then| (now - then).as_nanos() as u64));
        Ok(Outcome::new(done, begun.elapsed(), times))
    }

    /// The last event is waited for: it is behind all others.
    fn nowait(&mut self) -> Result<Outcome, String> {
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < self.load.lasting {
            let (tenant, event) = self.next();
            match self.pool.dispatch_event_nowait(tenant, event, begun + DEADLINE) {
                Ok(()) => sent += 1,
                Err(DispatchError::Busy(_)) => std::thread::sleep(BUSY_PAUSE),
                Err(error) => return Err(error.to_string()),
            }
        }
        loop {
            let (tenant, event) = self.next();
            match self.pool.dispatch_event(tenant, event, begun + DEADLINE) {
                Ok(_) => return Ok(Outcome::new(sent + 1, begun.elapsed(), Vec::new())),
                Err(DispatchError::Busy(_)) => std::thread::sleep(BUSY_PAUSE),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
