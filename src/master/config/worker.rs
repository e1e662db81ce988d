//! The options of a worker.

use std::collections::BTreeSet;

use super::tls::{self, ClientTls};
use super::values::{one_of, text, without_scheme, wrong};
use super::{
    ConfigError, DEFAULT_EVENTS, LogFormat, Options, RuntimeOptions, count, events, level,
};
use crate::net::stream::names_a_listener;

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
    /// Whether the end of stdin ends the worker.
    pub lifeline: bool,
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
        let missing =
            |name: &str| ConfigError { message: format!("--{name} is missing"), is_usage: true };
        let workers = count(options, "workers")?.ok_or_else(|| missing("workers"))?;
        let (id, _) = options.option("id").ok_or_else(|| missing("id"))?;
        let id: usize =
            id.parse().map_err(|_| wrong(options, "id", "is the worker's number, from 0"))?;
        if id >= workers {
            return Err(wrong(options, "id", "must be below --workers"));
        }
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
        let lifeline = match text(options, "lifeline", "none") {
            "stdin" => true,
            "none" => false,
            _ => return Err(wrong(options, "lifeline", "is stdin or none")),
        };
        Ok(Self {
            id,
            workers,
            master: master.to_owned(),
            tls: is_tls.then(|| tls::of_client(options)).transpose()?,
            lifeline,
            default_events: events(options, DEFAULT_EVENTS)?,
            runtime: RuntimeOptions::from_options(options, workers)?,
            log: level(options, "info")?,
            log_format: one_of(options, "log-format", LogFormat::Text)?,
        })
    }
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
        assert_eq!((config.id, config.workers, config.lifeline), (1, 2, false));
        assert!(worker(&[("id", "2"), ("workers", "2"), ("master", "localhost:7450")]).is_err());
        assert!(worker(&[("id", "1"), ("workers", "2"), ("master", "localhost")]).is_err());
        assert_eq!(
            worker(&[("id", "0"), ("workers", "2")]).expect_err("no master").message,
            "--master is missing"
        );
    }
}
