//! The options of a master that is one of several: its cluster, its name in it, and where the
//! others reach it.

use std::net::SocketAddr;
use std::time::Duration;

use super::values::{address, number, ruled_out, span, text, wrong};
use super::{ConfigError, Options};
use crate::store::{NOT_BUILT, StoreUrl};

/// What a master is called where it does not say so and its machine has no name.
const NAMELESS: &str = "master";

/// Limit: bytes of a name, which stands in tables and headers.
const NAME_MAX_BYTES: usize = 64;

/// A master beside others, or alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's name; `None`: the master is alone.
    pub cluster: Option<String>,
    /// Where the others reach its internal API; port 0: the port that it got.
    pub advertise: Option<SocketAddr>,
    /// What it is called; `None`: as its machine.
    pub name: Option<String>,
    /// How long it holds its tenants without a word of its own.
    pub lease: Duration,
    /// Its share, beside those of the others.
    pub weight: u32,
    /// Networks besides loopback from which other masters may come.
    pub peer_sources: Vec<String>,
}

impl ClusterConfig {
    /// Checks the options of a cluster.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub(super) fn from_options(options: &impl Options, store: &str) -> Result<Self, ConfigError> {
        let cluster = options.option("cluster").map(|(name, _)| name.to_owned());
        let config = Self {
            advertise: advertise(options)?,
            name: options.option("name").map(|(name, _)| name.to_owned()),
            lease: lease(options)?,
            weight: number(options, "weight", 1000)?.map_or(1, |weight| weight as u32),
            peer_sources: options.options("peer-source").into_iter().map(str::to_owned).collect(),
            cluster,
        };
        for (option, name) in [("cluster", &config.cluster), ("name", &config.name)] {
            if name.as_ref().is_some_and(|name| !is_master_name(name)) {
                return Err(wrong(options, option, NAME_RULE));
            }
        }
        config.check_together(options, store)?;
        Ok(config)
    }

    /// The name by which others know the master.
    pub fn master_name(&self) -> String {
        self.name.clone().or_else(host_name).unwrap_or_else(|| NAMELESS.to_owned())
    }

    /// What makes sense only with something else.
    fn check_together(&self, options: &impl Options, store: &str) -> Result<(), ConfigError> {
        if self.cluster.is_none() {
            let of_clusters = ["advertise", "weight"];
            return match of_clusters.into_iter().find(|name| options.option(name).is_some()) {
                Some(name) => Err(ruled_out(options, name, "makes no sense without --cluster")),
                None if self.peer_sources.is_empty() => Ok(()),
                None => Err(ruled_out(options, "peer-source", "makes no sense without --cluster")),
            };
        }
        if !cfg!(feature = "postgres") {
            let message = format!("{}: {NOT_BUILT}", options.named("cluster"));
            return Err(ConfigError { message, is_usage: false });
        }
        if !matches!(store.parse(), Ok(StoreUrl::Postgres(_)) | Err(_)) {
            return Err(ruled_out(
                options,
                "cluster",
                "needs a store that several masters can share: --store postgres://…",
            ));
        }
        if text(options, "api", "") == "off" {
            return Err(ruled_out(options, "cluster", "needs the internal API: --api is off"));
        }
        match self.advertise {
            Some(address) if address.ip().is_loopback() => Ok(()),
            Some(_) if options.option("api-tls").is_some() => Ok(()),
            Some(_) => Err(wrong(
                options,
                "advertise",
                "is beyond this machine, where masters need --api-tls",
            )),
            None => Err(ruled_out(
                options,
                "cluster",
                "needs --advertise: the address at which the other masters reach --api",
            )),
        }
    }
}

fn advertise(options: &impl Options) -> Result<Option<SocketAddr>, ConfigError> {
    options.option("advertise").map(|_| address(options, "advertise", "")).transpose()
}

fn lease(options: &impl Options) -> Result<Duration, ConfigError> {
    let lease = span(options, "lease", Duration::from_secs(6))?;
    // Below that a busy database makes renewals late; above, a dead master's tenants wait long.
    if !(Duration::from_secs(3)..=Duration::from_secs(60)).contains(&lease) {
        return Err(wrong(options, "lease", "is between 3s and 60s"));
    }
    Ok(lease)
}

const NAME_RULE: &str =
    "is a name of 1 to 64 letters, digits, hyphens, underscores and, but for the first, dots";

/// Whether a master or a cluster may be called so: it can stand in a table, a header and a path.
pub fn is_master_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_short = (1..=NAME_MAX_BYTES).contains(&text.len());
    is_short && !text.starts_with('.') && text.bytes().all(is_allowed)
}

/// The machine's name, as far as it can be used.
pub fn host_name() -> Option<String> {
    // The file in /proc is one that a service manager may hide.
    let system = rustix::system::uname();
    system.nodename().to_str().ok().filter(|name| is_master_name(name)).map(str::to_owned)
}
