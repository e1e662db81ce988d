//! Options turned into a checked configuration: what a pool, a worker or a client of the API runs
//! with.
//!
//! Parsing words is `cli/args`; here a value gets its meaning, its default and an error that names
//! its option. No I/O but for looking whether a directory is there.

mod cluster;
mod event_rules;
pub mod tls;
mod values;
mod worker;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::labels::labels;
use crate::base::limits;
use crate::pool::process::supervisor::Policy;
use crate::pool::{EventRules, Recycle};
use crate::protocol::MESOPHYLL_DEFAULT_HEARTBEAT_MS;
use crate::store::{DbOptions, Quota, RateKind, RateLimits, StoreOptions};
use crate::wire::data::SandboxMode;

pub use self::cluster::{ClusterConfig, host_name, is_master_name};
use self::tls::PortsTls;
pub use self::values::{
    SIZE_UNITS, address, host_and_port, number, parse_level, parse_span, parse_switch, span, wrong,
};
use self::values::{amount, drain_timeout, host_names, names, one_of, rate, ruled_out, size, text};
pub use self::worker::{HostConfig, LifelineUse, WorkerConfig};

labels! {
    /// How the pool's workers run.
    Mode {
        /// Each in a process of its own.
        ProcessPool = "process-pool",
        /// Each as threads of the master.
        ThreadPool = "thread-pool",
    }
}

labels! {
    /// What the lines of a log look like.
    LogFormat {
        /// For people.
        Text = "text",
        /// An object of JSON a line, for programs.
        Json = "json",
    }
}

/// What `master` and `replay` run with.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// How the workers run.
    pub mode: Mode,
    /// How many.
    pub workers: usize,
    /// The worker-facing listener.
    pub listen: SocketAddr,
    /// The internal API; `None` for none.
    pub api: Option<SocketAddr>,
    /// The store.
    pub store: String,
    /// How the store is opened.
    pub store_options: StoreOptions,
    /// The rules of the store that an operator may change.
    pub db_options: DbOptions,
    /// What tenants without a state are subscribed to.
    pub default_events: BTreeSet<String>,
    /// What becomes of events before any tenant gets them.
    pub event_rules: EventRules,
    /// The workers are started from outside.
    pub external_workers: bool,
    /// Where the workers' tokens are.
    pub worker_tokens: Option<PathBuf>,
    /// What is started as a worker, if it is not this program.
    pub worker_program: Option<PathBuf>,
    /// Default deadline of a dispatch.
    pub deadline: Duration,
    /// Told in Hello.
    pub heartbeat_interval: Duration,
    /// What each worker runs templates with.
    pub runtime: RuntimeOptions,
    /// What is logged.
    pub log: log::LevelFilter,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Time for a graceful stop.
    pub stop_timeout: Duration,
    /// When a worker is unhealthy, and when it is given up.
    pub policy: Policy,
    /// Deaths with its events in flight that quarantine a tenant.
    pub quarantine_after: usize,
    /// When workers that are well are started anew.
    pub recycle: Recycle,
    /// Sources besides loopback that the internal API answers.
    pub trusted_sources: Vec<String>,
    /// What one caller of the internal API may have tenants do a second, if there is a bound.
    pub caller_rate: Option<u32>,
    /// Names of host processes that every tenant may call.
    pub host_allow: Vec<String>,
    /// Its place among other masters.
    pub cluster: ClusterConfig,
    /// What its ports speak.
    pub tls: PortsTls,
}

/// What a worker runs templates with; a master passes it on to its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The template directory; `None`: the built-in templates.
    pub templates: Option<PathBuf>,
    /// Whether changes in the template directory are picked up.
    pub reload: bool,
    /// Executor threads of a worker.
    pub executors: usize,
    /// A VM in which nothing has run for so long is closed.
    pub vm_idle: Duration,
    /// VMs of one worker that are alive at once.
    pub max_vms: usize,
    /// Whether its process is confined.
    pub sandbox: SandboxMode,
    /// A bound of its process's memory.
    pub memory: Option<u64>,
}

impl RuntimeOptions {
    fn from_options(options: &impl Options, workers: usize) -> Result<Self, ConfigError> {
        Ok(Self {
            templates: directory(options, "templates")?,
            reload: reload(options)?,
            executors: count(options, "executors")?.unwrap_or_else(|| (cpus() / workers).max(1)),
            vm_idle: span(options, "vm-idle", limits::VM_IDLE)?,
            max_vms: number(options, "max-vms", VMS_OPTION_MAX)?.unwrap_or(limits::VMS_MAX),
            sandbox: one_of(options, "sandbox", SandboxMode::default())?,
            memory: worker_memory(options)?,
        })
    }
}

/// A value that makes no sense. It came from a flag (exit code 2) or from elsewhere (exit code 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, with the option's name.
    pub message: String,
    /// Whether the command line is to blame.
    pub is_usage: bool,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Where options come from: the command line and the environment, or a table in a test.
pub trait Options {
    /// The value of an option, and whether the command line has it.
    fn option(&self, name: &str) -> Option<(&str, bool)>;

    /// What an option is called where its value was given, for messages that say what to mend.
    fn named(&self, name: &str) -> String {
        format!("--{name}")
    }

    /// All values of a repeatable option.
    fn options(&self, name: &str) -> Vec<&str>;

    /// Whether a switch is on.
    fn switch(&self, name: &str) -> bool;
}

/// Limit: a count that no machine of today wants more of; it bounds the threads that a typing error
/// starts.
const COUNT_MAX: usize = 1024;

/// Limit: VMs that one worker may be told to have: more than the memory of any machine of today
/// holds.
const VMS_OPTION_MAX: usize = 10_000_000;

/// Limit: memory without which a worker does not come as far as to be ready.
const WORKER_MEMORY_MIN: u64 = 64 * 1024 * 1024;

/// The events that tenants without a state are subscribed to (docs/options.md).
const DEFAULT_EVENTS: &str = "INTERACTION_CREATE,WebGetSettings,WebExecuteSetting";

/// What differs between `master` and `replay` where nothing is given.
#[derive(Debug, Clone, Copy)]
pub struct PoolDefaults {
    listen: &'static str,
    api: &'static str,
    store: &'static str,
    default_events: &'static str,
    log: &'static str,
}

impl PoolDefaults {
    /// Of `master`.
    pub const MASTER: Self = Self {
        listen: "127.0.0.1:7450",
        api: "127.0.0.1:7451",
        store: "redb:mesophyll.redb",
        default_events: DEFAULT_EVENTS,
        log: "info",
    };

    /// Of `replay`: private to the run, subscribed to everything, quiet.
    pub const REPLAY: Self = Self {
        listen: "127.0.0.1:0",
        api: "off",
        store: "memory:",
        default_events: "*",
        log: "warn",
    };
}

impl PoolConfig {
    /// Checks the options of a pool.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn from_options(
        options: &impl Options,
        defaults: PoolDefaults,
    ) -> Result<Self, ConfigError> {
        let workers = count(options, "workers")?.unwrap_or_else(cpus);
        let mode = one_of(options, "mode", Mode::ProcessPool)?;
        let external_workers = options.switch("external-workers");
        let given = |name: &&&str| options.option(name).is_some();
        if mode == Mode::ThreadPool
            && let Some(name) = OF_PROCESSES.iter().find(given)
        {
            return Err(ruled_out(
                options,
                name,
                "makes no sense with --mode thread-pool: threads are not supervised",
            ));
        }
        if external_workers && mode == Mode::ThreadPool {
            return Err(ruled_out(
                options,
                "external-workers",
                "makes no sense with --mode thread-pool",
            ));
        }
        let api = match text(options, "api", defaults.api) {
            "off" => None,
            _ => Some(address(options, "api", defaults.api)?),
        };
        let listen = address(options, "listen", defaults.listen)?;
        if mode == Mode::ProcessPool && listen.port() != 0 && api == Some(listen) {
            // The one that was given, if the other is the default.
            let name = if options.option("api").is_some() { "api" } else { "listen" };
            return Err(wrong(
                options,
                name,
                "needs an address of its own: --listen and --api are the same",
            ));
        }
        let store = text(options, "store", defaults.store).to_owned();
        Ok(Self {
            cluster: ClusterConfig::from_options(options, &store)?,
            mode,
            workers,
            listen,
            api,
            store,
            store_options: store_options(options)?,
            db_options: db_options(options)?,
            default_events: events(options, defaults.default_events)?,
            event_rules: event_rules::from_options(options)?,
            external_workers,
            worker_tokens: options.option("worker-tokens").map(|(path, _)| PathBuf::from(path)),
            worker_program: options.option("worker-program").map(|(path, _)| PathBuf::from(path)),
            deadline: span(options, "deadline", limits::DISPATCH_DEADLINE)?,
            heartbeat_interval: heartbeat_interval(options)?,
            runtime: RuntimeOptions::from_options(options, workers)?,
            log: level(options, defaults.log)?,
            log_format: one_of(options, "log-format", LogFormat::Text)?,
            stop_timeout: stop_timeout(options)?,
            policy: policy(options)?,
            quarantine_after: count(options, "quarantine-after")?
                .unwrap_or(limits::QUARANTINE_AFTER),
            recycle: recycle(options, mode == Mode::ProcessPool && !external_workers)?,
            trusted_sources: options
                .options("trusted-source")
                .into_iter()
                .map(str::to_owned)
                .collect(),
            tls: tls::of_ports(options)?,
            caller_rate: number(options, "caller-rate", limits::CALLER_RATE_MAX)?
                .and_then(|rate| u32::try_from(rate).ok()),
            host_allow: host_names(options)?,
        })
    }
}

/// Options about the supervision of worker processes.
const OF_PROCESSES: [&str; 5] =
    ["hang-timeout", "quarantine-after", "failures-a-minute", "failures-in-a-row", "worker-memory"];

/// The log level option.
///
/// # Errors
/// It is not a level.
pub fn level(options: &impl Options, default: &str) -> Result<log::LevelFilter, ConfigError> {
    let given = text(options, "log", default);
    parse_level(given)
        .ok_or_else(|| wrong(options, "log", "is off, error, warn, info, debug or trace"))
}

fn worker_memory(options: &impl Options) -> Result<Option<u64>, ConfigError> {
    let memory = size(options, "worker-memory")?;
    // Stacks of the threads and an idle worker take about half of it.
    if memory.is_some_and(|bytes| bytes < WORKER_MEMORY_MIN) {
        return Err(wrong(options, "worker-memory", "is 64MiB or more"));
    }
    Ok(memory)
}

fn heartbeat_interval(options: &impl Options) -> Result<Duration, ConfigError> {
    let interval =
        span(options, "heartbeat-interval", Duration::from_millis(MESOPHYLL_DEFAULT_HEARTBEAT_MS))?;
    // Below that a busy machine makes heartbeats late, and workers that are well are given up.
    if !(Duration::from_millis(100)..=Duration::from_secs(300)).contains(&interval) {
        return Err(wrong(options, "heartbeat-interval", "is between 100ms and 5m"));
    }
    Ok(interval)
}

fn count(options: &impl Options, name: &str) -> Result<Option<usize>, ConfigError> {
    number(options, name, COUNT_MAX)
}

fn stop_timeout(options: &impl Options) -> Result<Duration, ConfigError> {
    span(options, "stop-timeout", Duration::from_secs(30))
}

fn policy(options: &impl Options) -> Result<Policy, ConfigError> {
    let default = Policy::default();
    let (in_window, in_a_row) =
        (count(options, "failures-a-minute")?, count(options, "failures-in-a-row")?);
    Ok(Policy {
        hang_timeout: span(options, "hang-timeout", default.hang_timeout)?,
        drain_timeout: drain_timeout(options)?,
        failures_in_window: in_window.unwrap_or(default.failures_in_window),
        // At most as many as a count may be.
        failures_in_a_row: in_a_row.map_or(default.failures_in_a_row, |count| count as u32),
        ..default
    })
}

fn store_options(options: &impl Options) -> Result<StoreOptions, ConfigError> {
    let connections = count(options, "max-db-connections")?;
    Ok(connections.map_or_else(StoreOptions::default, |connections| StoreOptions { connections }))
}

/// `has_children`: there are processes that the master could start anew.
fn recycle(options: &impl Options, has_children: bool) -> Result<Recycle, ConfigError> {
    let given = ["recycle-events", "recycle-memory", "recycle-age"]
        .into_iter()
        .find(|name| options.option(name).is_some());
    if let Some(name) = given.filter(|_| !has_children) {
        return Err(wrong(options, name, "makes no sense where the master starts no processes"));
    }
    let age = options
        .option("recycle-age")
        .map(|_| span(options, "recycle-age", Duration::ZERO))
        .transpose()?;
    Ok(Recycle {
        events: amount(options, "recycle-events")?,
        memory_bytes: size(options, "recycle-memory")?,
        age,
    })
}

fn db_options(options: &impl Options) -> Result<DbOptions, ConfigError> {
    let default = Quota::default();
    let quota = Quota {
        records: amount(options, "quota-records")?.unwrap_or(default.records),
        bytes: size(options, "quota-bytes")?.unwrap_or(default.bytes),
    };
    let purchase_url = options.option("purchase-url").map(|(url, _)| url.to_owned());
    if purchase_url
        .as_ref()
        .is_some_and(|url| !(url.starts_with("https://") || url.starts_with("http://")))
    {
        return Err(wrong(
            options,
            "purchase-url",
            "is a URL such as https://shop.example/{scope}/{key}/{version}",
        ));
    }
    let mut rates = RateLimits::default();
    for kind in RateKind::ALL {
        if let Some(limit) = rate(options, rate_option(kind))? {
            rates.set(kind, limit);
        }
    }
    Ok(DbOptions { quota, purchase_url, rates })
}

/// The option with which operators set a rate of tenants.
pub fn rate_option(kind: RateKind) -> &'static str {
    match kind {
        RateKind::Kv => "kv-rate",
        RateKind::Shop => "shop-rate",
        RateKind::Timers => "timer-rate",
        RateKind::Messages => "message-rate",
        RateKind::HostCalls => "host-call-rate",
    }
}

fn events(options: &impl Options, default: &str) -> Result<BTreeSet<String>, ConfigError> {
    let given = text(options, "default-events", default);
    let names = names(given);
    if names.contains("") {
        return Err(wrong(
            options,
            "default-events",
            "is a list of event names with commas between them, or *",
        ));
    }
    Ok(names)
}

fn reload(options: &impl Options) -> Result<bool, ConfigError> {
    let is_on = options.switch("reload");
    if is_on && options.option("templates").is_none() {
        return Err(ConfigError {
            message: "--reload needs --templates: there is nothing to watch".into(),
            is_usage: true,
        });
    }
    Ok(is_on)
}

fn directory(options: &impl Options, name: &str) -> Result<Option<PathBuf>, ConfigError> {
    let Some((path, _)) = options.option(name) else { return Ok(None) };
    let path = PathBuf::from(path);
    if path.is_dir() {
        Ok(Some(path))
    } else {
        let message = format!("{}: there is no directory {}", options.named(name), path.display());
        Err(ConfigError { message, is_usage: false })
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct Table(pub(super) Vec<(&'static str, &'static str)>);

    impl Options for Table {
        fn option(&self, name: &str) -> Option<(&str, bool)> {
            self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value, true))
        }

        fn options(&self, name: &str) -> Vec<&str> {
            self.0.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value).collect()
        }

        fn switch(&self, name: &str) -> bool {
            self.option(name).is_some()
        }
    }

    fn pool(options: &[(&'static str, &'static str)]) -> Result<PoolConfig, ConfigError> {
        PoolConfig::from_options(&Table(options.to_vec()), PoolDefaults::MASTER)
    }

    #[test]
    fn the_two_listeners_need_an_address_each() {
        for (options, named) in [
            (vec![("api", "127.0.0.1:7450")], "--api needs"),
            (vec![("listen", "127.0.0.1:7451")], "--listen needs"),
            (vec![("listen", "127.0.0.1:9"), ("api", "127.0.0.1:9")], "--api needs"),
        ] {
            let error = pool(&options).expect_err("one address");
            assert!(error.is_usage && error.message.starts_with(named), "{}", error.message);
        }
        assert!(
            pool(&[("listen", "127.0.0.1:0"), ("api", "127.0.0.1:0")]).is_ok(),
            "each gets a port of its own"
        );
        assert!(
            pool(&[("api", "127.0.0.1:7450"), ("mode", "thread-pool")]).is_ok(),
            "nothing else listens there"
        );
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = pool(&[]).expect("valid");
        assert_eq!(config.mode, Mode::ProcessPool);
        assert_eq!(config.listen.to_string(), "127.0.0.1:7450");
        assert_eq!(config.api.map(|api| api.to_string()).as_deref(), Some("127.0.0.1:7451"));
        assert_eq!(config.store, "redb:mesophyll.redb");
        assert_eq!(config.deadline, Duration::from_secs(35));
        assert_eq!(config.heartbeat_interval, Duration::from_secs(5));
        assert_eq!(config.workers, cpus());
        assert_eq!(
            (config.store_options.connections, config.db_options),
            (7, DbOptions::default())
        );
        assert_eq!(config.default_events.len(), 3);
        assert_eq!(config.event_rules, EventRules::default());
        assert_eq!(
            (config.runtime.vm_idle, config.runtime.max_vms),
            (Duration::from_secs(900), 7500)
        );
        let replay = PoolConfig::from_options(&Table(vec![]), PoolDefaults::REPLAY).expect("valid");
        assert_eq!((replay.api, replay.store.as_str(), replay.listen.port()), (None, "memory:", 0));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_option() {
        for (name, value) in [
            ("workers", "0"),
            ("workers", "many"),
            ("mode", "fibers"),
            ("listen", "nowhere"),
            ("deadline", "5"),
            ("heartbeat-interval", "1ms"),
            ("default-events", "A,,B"),
            ("log", "loud"),
            ("log-format", "xml"),
            ("vm-idle", "15"),
            ("max-vms", "0"),
            ("max-db-connections", "0"),
            ("quota-records", "0"),
            ("hang-timeout", "1"),
            ("drain-timeout", "301s"),
            ("quarantine-after", "0"),
            ("failures-a-minute", "0"),
            ("failures-in-a-row", "often"),
            ("recycle-events", "-1"),
            ("recycle-memory", "1GB"),
            ("recycle-age", "0s"),
            ("quota-bytes", "64 MiB"),
            ("purchase-url", "shop"),
            ("lease", "2s"),
            ("lease", "61s"),
            ("name", "a b"),
            ("name", ".."),
            ("advertise", "127.0.0.1:7451"),
            ("weight", "2"),
            ("weight", "0"),
            ("peer-source", "10.0.0.0/8"),
            ("event-alias", "MESSAGE"),
            ("event-alias", "=MESSAGE"),
            ("skip-events", "A,,B"),
            ("skip-author", "bot"),
            ("skip-author", "007"),
            ("kv-rate", "0"),
            ("shop-rate", "10:0"),
            ("timer-rate", "-1"),
            ("message-rate", "10/s"),
            ("host-call-rate", "1:2:3"),
        ] {
            let error = pool(&[(name, value)]).expect_err(value);
            assert!(error.message.starts_with(&format!("--{name} ")), "{error}");
            assert!(error.is_usage);
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_cluster_needs_what_masters_share_and_a_way_between_them() {
        let cluster = |more: &[(&'static str, &'static str)]| {
            let mut options = vec![("cluster", "c")];
            options.extend(more);
            pool(&options).map(|config| config.cluster)
        };
        const STORE: (&str, &str) = ("store", "postgres://h/d");
        let config =
            cluster(&[STORE, ("advertise", "127.0.0.1:0"), ("name", "a"), ("weight", "3")])
                .expect("valid");
        assert_eq!((config.cluster.as_deref(), config.master_name()), (Some("c"), "a".to_owned()));
        assert_eq!((config.weight, config.lease), (3, Duration::from_secs(6)));
        for (more, why) in [
            (vec![("advertise", "127.0.0.1:1")], "needs a store"),
            (vec![("store", "memory:"), ("advertise", "127.0.0.1:1")], "needs a store"),
            (vec![STORE], "needs --advertise"),
            (vec![STORE, ("advertise", "10.0.0.1:1")], "--api-tls"),
            (vec![STORE, ("advertise", "127.0.0.1:1"), ("api", "off")], "--api is off"),
        ] {
            let error = cluster(&more).expect_err(why);
            assert!(error.is_usage && error.message.contains(why), "{error}");
        }
    }
}
