//! The options of a worker, and of a host of workers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::{self, ClientTls};
use super::values::{one_of, text, without_scheme, wrong};
use super::{
    COUNT_MAX, ConfigError, DEFAULT_EVENTS, LogFormat, Options, RuntimeOptions, count, events,
    level, policy, stop_timeout,
};
use crate::net::stream::names_a_listener;
use crate::pool::process::supervisor::Policy;

/// What ends a worker besides signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifelineUse {
    /// Nothing.
    None,
    /// The end of stdin.
    Stdin,
    /// The end of stdin, on which it says how it is to its host as well.
    Host,
}

impl LifelineUse {
    /// Whether another process holds the other end of stdin.
    pub fn has_owner(self) -> bool {
        self != LifelineUse::None
    }

    /// As the option has it.
    pub fn as_str(self) -> &'static str {
        match self {
            LifelineUse::None => "none",
            LifelineUse::Stdin => "stdin",
            LifelineUse::Host => "host",
        }
    }
}

/// What a worker process runs with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// This worker's number.
    pub id: usize,
    /// How many workers share the tenants.
    pub workers: usize,
    /// The master, as `host:port` or `unix:PATH`.
    pub master: String,
    /// How it is reached over TLS, if it is.
    pub tls: Option<ClientTls>,
    /// What ends it besides signals.
    pub lifeline: LifelineUse,
    /// What tenants without a state are subscribed to.
    pub default_events: BTreeSet<String>,
    /// What it runs templates with.
    pub runtime: RuntimeOptions,
    /// What is logged.
    pub log: log::LevelFilter,
    /// How it is logged.
    pub log_format: LogFormat,
}

impl WorkerConfig {
    /// Checks the options of a worker.
    ///
    /// # Errors
    /// The first value that makes no sense or is missing.
    pub fn from_options(options: &impl Options) -> Result<Self, ConfigError> {
        let workers = workers(options)?;
        let (id, _) = options.option("id").ok_or_else(|| missing("id"))?;
        let id: usize =
            id.parse().map_err(|_| wrong(options, "id", "is the worker's number, from 0"))?;
        if id >= workers {
            return Err(wrong(options, "id", "must be below --workers"));
        }
        let lifeline = match text(options, "lifeline", "none") {
            "stdin" => LifelineUse::Stdin,
            "host" => LifelineUse::Host,
            "none" => LifelineUse::None,
            _ => return Err(wrong(options, "lifeline", "is stdin, host or none")),
        };
        Self::of(options, id, workers, workers, lifeline)
    }

    /// A worker of so many, on a machine of which it has one of so many parts.
    fn of(
        options: &impl Options,
        id: usize,
        workers: usize,
        parts: usize,
        lifeline: LifelineUse,
    ) -> Result<Self, ConfigError> {
        let given = text(options, "master", "");
        let is_tls = given.starts_with("tls:");
        let master = match given.strip_prefix("tls:") {
            Some(address) => address,
            None => without_scheme(options, "master", "")?,
        };
        if master.is_empty() {
            return Err(missing("master"));
        }
        if !names_a_listener(master) {
            // Else it would look for a master that it cannot find for ever.
            return Err(wrong(
                options,
                "master",
                "is host:port, such as 10.0.0.1:7450, or unix: and an absolute path",
            ));
        }
        Ok(Self {
            id,
            workers,
            master: master.to_owned(),
            tls: is_tls.then(|| tls::of_client(options)).transpose()?,
            lifeline,
            default_events: events(options, DEFAULT_EVENTS)?,
            runtime: RuntimeOptions::from_options(options, parts)?,
            log: level(options, "info")?,
            log_format: one_of(options, "log-format", LogFormat::Text)?,
        })
    }
}

/// What `worker-host` runs with.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Of the first of its workers; the others differ in their numbers.
    pub worker: WorkerConfig,
    /// The workers' numbers, in order, each once.
    pub ids: Vec<usize>,
    /// Where their tokens are.
    pub worker_tokens: PathBuf,
    /// What is started as a worker, if it is not this program.
    pub worker_program: Option<PathBuf>,
    /// When a worker is unhealthy, and when it is given up.
    pub policy: Policy,
    /// Time for a graceful stop.
    pub stop_timeout: Duration,
}

impl HostConfig {
    /// Checks the options of a host of workers.
    ///
    /// # Errors
    /// The first value that makes no sense or is missing.
    pub fn from_options(options: &impl Options) -> Result<Self, ConfigError> {
        let workers = workers(options)?;
        let (given, _) = options.option("ids").ok_or_else(|| missing("ids"))?;
        let ids = parse_ids(given)
            .ok_or_else(|| wrong(options, "ids", "is a list of workers' numbers, such as 0-3,6"))?;
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
            return Err(missing("ids"));
        };
        if *last >= workers {
            return Err(wrong(options, "ids", "must be below --workers"));
        }
        let tokens = options.option("worker-tokens").ok_or_else(|| missing("worker-tokens"))?;
        Ok(Self {
            worker: WorkerConfig::of(options, *first, workers, ids.len(), LifelineUse::Host)?,
            worker_tokens: PathBuf::from(tokens.0),
            worker_program: options.option("worker-program").map(|(path, _)| PathBuf::from(path)),
            policy: policy(options)?,
            stop_timeout: stop_timeout(options)?,
            ids,
        })
    }
}

/// Numbers, and runs of them, with commas between.
fn parse_ids(text: &str) -> Option<Vec<usize>> {
    let mut ids = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= COUNT_MAX {
            return None;
        }
        ids.extend(first..=last);
    }
    Some(ids.into_iter().collect())
}

fn workers(options: &impl Options) -> Result<usize, ConfigError> {
    count(options, "workers")?.ok_or_else(|| missing("workers"))
}

fn missing(name: &str) -> ConfigError {
    ConfigError { message: format!("--{name} is missing"), is_usage: true }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Table;
    use super::*;

    #[test]
    fn a_worker_must_know_its_place() {
        let worker = |options: &[(&'static str, &'static str)]| {
            WorkerConfig::from_options(&Table(options.to_vec()))
        };
        let config =
            worker(&[("id", "1"), ("workers", "2"), ("master", "localhost:7450")]).expect("valid");
        assert_eq!((config.id, config.workers, config.lifeline), (1, 2, LifelineUse::None));
        assert!(worker(&[("id", "2"), ("workers", "2"), ("master", "localhost:7450")]).is_err());
        assert!(worker(&[("id", "1"), ("workers", "2"), ("master", "localhost")]).is_err());
        assert_eq!(
            worker(&[("id", "0"), ("workers", "2")]).expect_err("no master").message,
            "--master is missing"
        );
    }

    #[test]
    fn a_host_has_each_of_its_workers_once() {
        let host = |ids: &'static str| {
            let options =
                [("ids", ids), ("workers", "8"), ("master", "a:1"), ("worker-tokens", "t")];
            HostConfig::from_options(&Table(options.to_vec()))
        };
        for (given, ids) in [
            ("0-3", vec![0, 1, 2, 3]),
            ("5", vec![5]),
            ("6,0-1,1", vec![0, 1, 6]),
            ("7-7", vec![7]),
        ] {
            let config = host(given).expect(given);
            assert_eq!((config.worker.id, &config.ids), (ids[0], &ids));
            assert_eq!(config.worker.lifeline, LifelineUse::Host);
        }
        for wrong in ["", "3-1", "0-", "-1", "a", "0-8", "0,,1", "0-99999999999"] {
            let error = host(wrong).expect_err(wrong);
            assert!(error.is_usage && error.message.starts_with("--ids "), "{error}");
        }
    }
}
