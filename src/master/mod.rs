//! A whole master in one value: store, worker-facing server, pool of workers and internal API, in
//! the order in which they depend on each other, and stopped in the reverse order.
//!
//! Used by `mesophyll master` and `mesophyll replay`. What it does not do: signals, output, exit
//! codes.

mod certificate_ends;
mod cluster;
pub mod config;
mod figures;
#[cfg(feature = "postgres")]
mod join;
#[cfg(feature = "worker")]
mod threads;
mod tls;
mod tokens;
mod worker_args;
mod worker_host;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never};

use crate::api::{About, ApiConfig, InternalApi};
use crate::base::random;
use crate::cluster::{ClusterMember, JoinError};
use crate::dispatch::MessageDoor;
use crate::dispatch::worker_like::WorkerLike;
use crate::feeds::Feeds;
use crate::master::config::{Mode, PoolConfig};
use crate::pool::{
    AdmittingPool, Broadcasts, ChildSpec, Hosts, Managed, MemoryGroups, Messages, Operator,
    PoolShards, ProcessConfig, Program, Quarantine, ServeWorker, ShopUpdates, Spawner,
    TenantTimers, Traffic, WorkerPool, WorkerProcessHandle, WorkerReport,
};
use crate::protocol::{MesophyllServer, ServerConfig, StartError};
use crate::store::{self, DbState, OpenError, StoreUrl};
use crate::wire::data::SandboxMode;
pub use certificate_ends::{CertificateEnds, seconds_now};
use figures::Layers;
#[cfg(feature = "worker")]
pub use threads::{MadeRuntime, MakeRuntime, threads};
use tls::PortCertificates;
use tokens::{read_or_write_tokens, read_tokens};
use worker_args::{own_worker, worker_args, worker_variables};
pub use worker_host::WorkerHost;

/// A master's place among others; `None`: the store is of one master only.
type MasterPlace = Option<Arc<dyn ClusterMember>>;

/// Starts the workers of a thread pool over a database, with a door for their tenants' messages and
/// the feeds to which they publish; `changes_tx` gets a message when the state of one changed.
/// `threads` makes it of what makes runtimes.
pub type StartThreads = dyn Fn(
    &PoolConfig,
    &Arc<DbState>,
    &MessageDoor,
    &Arc<Feeds>,
    &Sender<()>,
) -> Result<Vec<Arc<dyn Managed>>, MasterError>;

/// Why no master could be started.
#[derive(Debug)]
pub enum MasterError {
    /// The store is unavailable, foreign or newer.
    Store(StoreUrl, OpenError),
    /// The store is shared by masters that this one cannot join.
    Join(StoreUrl, JoinError),
    /// A configured value or file is unusable.
    Config(String),
    /// A listener's address is taken or not ours.
    Listen(SocketAddr, io::Error),
    /// The operating system refused something else.
    Io(io::Error),
}

impl fmt::Display for MasterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MasterError::Store(url, error) => write!(f, "store: {url}: {error}"),
            MasterError::Join(url, error) => write!(f, "store: {url}: {error}"),
            MasterError::Config(text) => f.write_str(text),
            MasterError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            MasterError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MasterError {}

/// Why a running master is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// Each worker has failed for good.
    NoWorker(String),
    /// The database hangs in its questions about which tenants the master has.
    NoDatabase,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GivenUp::NoWorker(why) => f.write_str(why),
            GivenUp::NoDatabase => {
                f.write_str("the database does not answer, again and again: no lease can be kept")
            }
        }
    }
}

/// A running master.
#[derive(Debug)]
pub struct Master {
    db: Arc<DbState>,
    server: Option<Arc<MesophyllServer>>,
    pool: Arc<AdmittingPool>,
    operator: Arc<Operator>,
    traffic: Arc<Traffic>,
    messages: Arc<Messages>,
    broadcasts: Arc<Broadcasts>,
    shop: Arc<ShopUpdates>,
    timers: Arc<TenantTimers>,
    api: Option<InternalApi>,
    cluster: MasterPlace,
    certificates: Arc<PortCertificates>,
    /// Of a master that shares the tenants with others: so long its lease lasts.
    shared_lease: Option<Duration>,
    changes_rx: Receiver<()>,
    // Worker threads do not change and hold no sender: without this one their channel would be
    // closed, and its waiters would be awake for ever.
    _changes_tx: Sender<()>,
}

impl Master {
    /// Starts everything; returns when the store is open and the listeners accept. Workers may
    /// still be starting.
    ///
    /// # Blocks
    /// Until the store is open and, where masters can share it, this one has its tenants; in
    /// thread-pool mode also until the tenant states are loaded.
    ///
    /// # Errors
    /// See [`MasterError`]; nothing is left running.
    pub fn start(
        config: &PoolConfig,
        api: Option<ApiConfig>,
        program: &Program,
        start_threads: &StartThreads,
    ) -> Result<Self, MasterError> {
        // Listeners first: a port in use is found before anything is started, and before the store
        // is touched.
        let api_listener = config.api.map(listen).transpose()?;
        let server_listener =
            (config.mode == Mode::ProcessPool).then(|| listen(config.listen)).transpose()?;
        let certificates = Arc::new(PortCertificates::read(config)?);
        let (changes_tx, changes_rx) = bounded(1);
        let api_addr = api_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (db, cluster) = open_store(config, api_addr, &changes_tx)?;
        let quarantine = Arc::new(Quarantine::new(config.quarantine_after));
        let (door, feeds) = (MessageDoor::default(), Arc::new(Feeds::default()));
        let (server, spawner, workers) = match server_listener {
            Some(listener) => {
                let server = Arc::new(start_server(
                    config,
                    listener,
                    &certificates,
                    &db,
                    door.clone(),
                    &feeds,
                )?);
                let spawner = Spawner::start().map_err(MasterError::Io)?;
                let workers = {
                    let told = (&quarantine, &feeds);
                    start_processes(config, &server, &spawner, program, told, &changes_tx)?
                };
                (Some(server), Some(spawner), workers)
            }
            None => (None, None, start_threads(config, &db, &door, &feeds, &changes_tx)?),
        };
        let operator =
            Arc::new(Operator::new(workers.clone(), config.external_workers, quarantine));
        let pool = WorkerPool::new(workers.clone())
            .ok_or_else(|| MasterError::Config("--workers: at least one".to_owned()))?;
        let traffic = Arc::new(Traffic::new(config.workers));
        let table = cluster.as_ref().map(|cluster| cluster.table().clone());
        let (quarantine, counted) = (operator.quarantine().clone(), traffic.clone());
        let pool = AdmittingPool::new(Arc::new(pool), db.clone(), quarantine, counted);
        let pool = Arc::new(pool.with_shards(table.clone()).with_rules(config.event_rules.clone()));
        let hosts = Hosts::new(db.clone(), config.host_allow.clone());
        let messages = Messages::new(pool.clone(), db.clone(), hosts, table);
        let shop = ShopUpdates::start(pool.clone(), db.clone(), cluster.is_none())
            .map_err(MasterError::Io)?;
        let timers = TenantTimers::start(pool.clone(), db.clone(), cluster.is_none())
            .map_err(MasterError::Io)?;
        let carrier = Arc::downgrade(&messages);
        door.open(carrier);
        let asked = operator.clone();
        let have_vms = move |tenants: &[_], deadline| asked.have_vms(tenants, deadline);
        let broadcasts = Broadcasts::new(pool.clone(), db.clone(), Box::new(have_vms));
        let mut master = Self {
            db,
            server,
            pool,
            operator,
            traffic,
            messages,
            broadcasts: Arc::new(broadcasts),
            shop,
            timers,
            api: None,
            cluster,
            certificates: certificates.clone(),
            shared_lease: config.cluster.cluster.as_ref().map(|_| config.cluster.lease),
            changes_rx,
            _changes_tx: changes_tx,
        };
        if let (Some(listener), Some(mut api)) = (api_listener, api) {
            api.tls = certificates.api.clone();
            api.peer_tls = certificates.peers.clone();
            let about = About {
                mode: config.mode.as_str(),
                // It was just opened by it.
                store: config.store.parse().map_or("", |url: StoreUrl| url.kind()),
                has_external_workers: config.external_workers,
                started: Instant::now(),
            };
            let readiness = Arc::new(Layers {
                about,
                operator: master.operator.clone(),
                traffic: master.traffic.clone(),
                messages: master.messages.clone(),
                broadcasts: master.broadcasts.clone(),
                shop: master.shop.clone(),
                timers: master.timers.clone(),
                server: master.server.clone(),
                spawner,
                cluster: master.cluster.as_ref().map(|one| cluster::of_api(config, one)),
                feeds: feeds.clone(),
                certificates: certificates.clone(),
            });
            let started =
                InternalApi::start(listener, api, master.pool(), readiness, master.db.clone())
                    .map_err(MasterError::Io)?;
            master.api = Some(started);
        }
        if let Some(cluster) = &master.cluster {
            let (db, traffic) = (master.db.clone(), master.traffic.clone());
            cluster::begin(&**cluster, Arc::new(PoolShards::new(db, workers, traffic, feeds)));
        }
        Ok(master)
    }

    /// Uses what the files of its ports' certificates hold now, if they have changed; an operator
    /// that asks for it is told what is wrong with them each time.
    ///
    /// # Blocks
    /// On the files.
    pub fn look_at_certificates(&self, is_asked: bool) {
        self.certificates.look(is_asked);
    }

    /// Checks what a start with this configuration would, as far as that goes without opening the
    /// store, keeping a port or writing a file.
    ///
    /// # Errors
    /// Why it would not start.
    pub fn check(config: &PoolConfig) -> Result<(), MasterError> {
        let url = store_url(config)?;
        store::check_url(&url).map_err(|error| MasterError::Store(url.clone(), error))?;
        if let StoreUrl::Redb(path) = &url {
            needs_folder("--store", path)?;
        }
        PortCertificates::read(config)?;
        let program = worker_program(config)?;
        if needs_sandbox(config) {
            let own = || Program::own().map_err(|error| MasterError::Config(error.to_string()));
            let program = program.map_or_else(own, |path| Ok(Program::at(&path)))?;
            program.require_sandbox().map_err(MasterError::Config)?;
        }
        // Held until all are had, as a start does: two may ask for the same one.
        let ports = [config.api, Some(config.listen).filter(|_| config.mode == Mode::ProcessPool)];
        let _held = ports.into_iter().flatten().map(listen).collect::<Result<Vec<_>, _>>()?;
        match &config.worker_tokens {
            Some(path)
                if config.mode == Mode::ProcessPool
                    && read_tokens(path, &(0..config.workers).collect::<Vec<_>>())?.is_none() =>
            {
                needs_folder("--worker-tokens", path)
            }
            _ => Ok(()),
        }
    }

    /// The worker-facing address; `None` in thread-pool mode, where no worker connects.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(|server| server.local_addr())
    }

    /// The worker-facing server; `None` in thread-pool mode.
    pub fn server(&self) -> Option<&Arc<MesophyllServer>> {
        self.server.as_ref()
    }

    /// The internal API's address, if it is on.
    pub fn api_addr(&self) -> Option<SocketAddr> {
        self.api.as_ref().map(InternalApi::local_addr)
    }

    /// The pool, to dispatch through; banned and quarantined tenants are refused.
    pub fn pool(&self) -> Arc<dyn WorkerLike> {
        self.pool.clone()
    }

    /// What an operator can do.
    pub fn operator(&self) -> &Arc<Operator> {
        &self.operator
    }

    /// The data layer.
    pub fn db(&self) -> &Arc<DbState> {
        &self.db
    }

    /// What an operator sees of the workers.
    pub fn reports(&self) -> Vec<WorkerReport> {
        self.operator.reports()
    }

    /// Gets a message when some worker's state changed; several changes may make one.
    pub fn changes_rx(&self) -> &Receiver<()> {
        &self.changes_rx
    }

    /// Why the master is to end: each worker has failed, with the last cause that is known (one
    /// that was stopped on request does not count as failed); or it cannot keep its lease.
    pub fn given_up(&self) -> Option<GivenUp> {
        if self.cluster.as_ref().is_some_and(|cluster| cluster.gave_up()) {
            return Some(GivenUp::NoDatabase);
        }
        self.operator.no_worker_left().map(GivenUp::NoWorker)
    }

    /// Stops everything, in the order of docs/shutdown.md, each step within its share of the time:
    /// 0. A broadcast ends, and no timer fires any more. A master that shares its tenants hands
    ///    them over; others are answered by their new masters meanwhile.
    /// 1. Refuse: the internal API takes no more requests, and no rolling restart begins or goes
    ///    on.
    /// 2. Drain: requests that are under way may finish, for half of the time.
    /// 3. Stop the workers: what they still have in flight (events without a waiter) may
    ///    finish, to the same moment.
    /// 4. They get TERM, and after a grace, or at the deadline, KILL; they are reaped. What is
    ///    still pending fails.
    /// 5. The worker-facing server closes the links; every thread is joined.
    /// 6. The store is closed, last.
    ///
    /// `progress` is told of each step as it begins.
    ///
    /// # Blocks
    /// Until `deadline`, and a few seconds beyond it at most if a worker has to be killed; in the
    /// last step as long as the store takes to close, which on a disk that hangs has no end: who
    /// cannot wait for it ends the process.
    pub fn stop(self, deadline: Instant, progress: impl Fn(&'static str)) {
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        self.operator.begin_stop();
        self.broadcasts.stop();
        self.timers.close();
        let cluster = self.cluster.as_ref();
        if let (Some(cluster), Some(lease)) = (cluster, self.shared_lease) {
            progress("handing the tenants over");
            cluster.stop(half);
            // The others look each sixth of it. What they forward until then is told where to go;
            // on a connection that closes it might seem to have run.
            let _ = never::<()>().recv_deadline(half.min(Instant::now() + lease / 4));
        }
        progress("refusing and draining");
        if let Some(api) = &self.api {
            api.shutdown(half);
        }
        progress("stopping the workers");
        self.operator.stop(half, deadline);
        // What brings events to workers has none left.
        self.messages.stop();
        self.shop.stop();
        self.timers.stop();
        progress("closing the links");
        if let Some(server) = &self.server {
            server.shutdown(deadline.max(Instant::now() + Duration::from_secs(2)));
        }
        if let Some(cluster) = cluster.filter(|_| self.shared_lease.is_none()) {
            progress("giving the tenants up");
            // Nothing of theirs runs any more.
            cluster.stop(deadline.max(Instant::now() + Duration::from_secs(2)));
        }
        progress("closing the store");
        self.db.close();
    }
}

/// What `--worker-program` names, if workers are started by it; absolute, as a name without a slash
/// would be looked up in `PATH`.
///
/// # Errors
/// It is no file that can be executed.
pub fn worker_program(config: &PoolConfig) -> Result<Option<PathBuf>, MasterError> {
    let starts_workers = config.mode == Mode::ProcessPool && !config.external_workers;
    named_program(config.worker_program.as_deref().filter(|_| starts_workers))
}

fn named_program(path: Option<&Path>) -> Result<Option<PathBuf>, MasterError> {
    let Some(path) = path else { return Ok(None) };
    let wrong =
        |why: String| MasterError::Config(format!("--worker-program: {}: {why}", path.display()));
    let program = Program::executable(path).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(program))
}

/// Whether workers that the master starts itself must be confined.
fn needs_sandbox(config: &PoolConfig) -> bool {
    let starts_workers = config.mode == Mode::ProcessPool && !config.external_workers;
    starts_workers && config.runtime.sandbox == SandboxMode::Require
}

fn store_url(config: &PoolConfig) -> Result<StoreUrl, MasterError> {
    config.store.parse().map_err(|error| MasterError::Config(format!("--store: {error}")))
}

/// A file can only be written into a folder that is there.
fn needs_folder(option: &str, path: &Path) -> Result<(), MasterError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => Err(MasterError::Config(format!(
            "{option}: there is no directory {}",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// The data layer, and this master's place among the others of the store.
fn open_store(
    config: &PoolConfig,
    api: Option<SocketAddr>,
    changes_tx: &Sender<()>,
) -> Result<(Arc<DbState>, MasterPlace), MasterError> {
    let url = store_url(config)?;
    let failed = |error| MasterError::Store(url.clone(), error);
    let held = Arc::default();
    let store = store::open_with(&url, config.store_options, Arc::clone(&held)).map_err(failed)?;
    let options = config.db_options.clone();
    #[cfg(feature = "postgres")]
    let cluster = join::join(config, &url, api, &held, changes_tx)?;
    // Without it no store is one that masters share.
    #[cfg(not(feature = "postgres"))]
    let (cluster, _): (MasterPlace, _) = (None, (api, changes_tx));
    let db = match &cluster {
        Some(_) => DbState::without_states(store, options),
        None => DbState::new(store, options).map_err(failed)?,
    };
    Ok((Arc::new(db), cluster))
}

fn listen(address: SocketAddr) -> Result<TcpListener, MasterError> {
    TcpListener::bind(address).map_err(|error| MasterError::Listen(address, error))
}

fn start_server(
    config: &PoolConfig,
    listener: TcpListener,
    certificates: &PortCertificates,
    db: &Arc<DbState>,
    messages: MessageDoor,
    feeds: &Arc<Feeds>,
) -> Result<MesophyllServer, MasterError> {
    let tokens = match &config.worker_tokens {
        Some(path) => read_or_write_tokens(path, config.workers)?,
        None => (0..config.workers).map(|id| (id, random::token())).collect(),
    };
    if !config.listen.ip().is_loopback() && certificates.listen.is_none() {
        log::warn!(
            "--listen {}: not a loopback address, so the workers' tokens travel in clear",
            config.listen
        );
    }
    let server_config = ServerConfig {
        heartbeat_interval: config.heartbeat_interval,
        requires_sandbox: config.runtime.sandbox == SandboxMode::Require,
        tls: certificates.listen.clone(),
        requires_certificates: config.tls.worker_certs,
        messages,
        feeds: feeds.clone(),
        ..ServerConfig::new(config.workers)
    };
    MesophyllServer::new_with(listener, db.clone(), server_config, tokens).map_err(|error| {
        match error {
            StartError::Idents(text) => MasterError::Config(format!("--worker-tokens: {text}")),
            StartError::Io(error) => MasterError::Io(error),
        }
    })
}

/// What a worker calls when its state changed, and a member of a cluster when it gives up.
fn on_change(changes_tx: &Sender<()>) -> impl Fn() + Send + Sync + use<> {
    let changes_tx = changes_tx.clone();
    move || {
        // A full channel holds the same message already.
        let _ = changes_tx.try_send(());
    }
}

fn start_processes(
    config: &PoolConfig,
    server: &Arc<MesophyllServer>,
    spawner: &Arc<Spawner>,
    program: &Program,
    (quarantine, feeds): (&Arc<Quarantine>, &Arc<Feeds>),
    changes_tx: &Sender<()>,
) -> Result<Vec<Arc<dyn Managed>>, MasterError> {
    // For a program that does not know the broker.
    let address = reachable(server.local_addr()).to_string();
    let serving = server.clone();
    let broker: Arc<ServeWorker> = Arc::new(move |id, stream| serving.serve_worker(id, stream));
    if needs_sandbox(config) {
        program.require_sandbox().map_err(MasterError::Config)?;
    }
    let own_workers = config.runtime.memory.filter(|_| !config.external_workers);
    let memory = own_workers.and_then(MemoryGroups::delegated).map(Arc::new);
    let variables = worker_variables(&config.runtime, memory.is_some());
    let own = own_worker(config, address);
    let mut workers: Vec<Arc<dyn Managed>> = Vec::with_capacity(config.workers);
    for worker_id in 0..config.workers {
        let child = (!config.external_workers).then(|| ChildSpec {
            program: program.clone(),
            args: worker_args(&own, worker_id),
            token: server.get_token_for_worker(worker_id).unwrap_or_default().to_owned(),
            variables: variables.clone(),
            broker: Some(broker.clone()),
            is_hosted: false,
            memory: memory.clone(),
            spawner: spawner.clone(),
        });
        let process = ProcessConfig {
            worker_id,
            child,
            policy: config.policy,
            recycle: config.recycle,
            quarantine: quarantine.clone(),
            feeds: Some(feeds.clone()),
        };
        let worker =
            WorkerProcessHandle::start(process, on_change(changes_tx)).map_err(MasterError::Io)?;
        server.observe(worker_id, &worker.observer());
        workers.push(worker);
    }
    Ok(workers)
}

/// A wildcard address is where to listen, not where to connect; one of IPv6 need not take in IPv4.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_an_address_that_it_can_connect_to() {
        for (listening, told) in [
            ("0.0.0.0:7450", "127.0.0.1:7450"),
            ("[::]:7450", "[::1]:7450"),
            ("[::1]:7450", "[::1]:7450"),
            ("10.0.0.1:7450", "10.0.0.1:7450"),
        ] {
            assert_eq!(reachable(listening.parse().expect("an address")).to_string(), told);
        }
    }
}
