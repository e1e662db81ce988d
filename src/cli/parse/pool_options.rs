//! The options that `master` and `replay` share (docs/options.md), and those of a worker.

use super::args::OptionSpec;

/// What both kinds of pool and a worker started by hand have.
pub(in crate::cli) const WORKER_SIDE: &[OptionSpec] = &[
    OptionSpec::value("templates", "DIR", "template directory with main.luau (default: built in)"),
    OptionSpec::switch("reload", "watch the template directory and pick up what changes in it"),
    OptionSpec::value(
        "default-events",
        "LIST",
        "what tenants without a state are subscribed to; * = everything",
    ),
    OptionSpec::value(
        "executors",
        "E",
        "executor threads in each worker (default: CPUs / workers)",
    ),
    OptionSpec::value(
        "vm-idle",
        "D",
        "a tenant's VM in which nothing ran for so long is closed (default: 15m)",
    ),
    OptionSpec::value("max-vms", "N", "VMs alive at once in each worker (default: 7500)"),
    OptionSpec::value(
        "sandbox",
        "MODE",
        "confine worker processes: require, prefer (default: what the kernel has) or off",
    ),
    OptionSpec::value(
        "worker-memory",
        "SIZE",
        "memory that a worker process may take (default: no bound)",
    ),
    OptionSpec::value("log", "LEVEL", "off, error, warn, info, debug or trace; logs go to stderr"),
    OptionSpec::value("log-format", "F", "text (default) or json: an object a line, for programs"),
];

/// Where those that run workers of a master elsewhere find it.
pub(in crate::cli) const WORKER_MASTER: &[OptionSpec] = &[
    OptionSpec::value("workers", "N", "how many workers the master has"),
    OptionSpec::value(
        "master",
        "ADDR",
        "the master's worker-facing address, host:port, tls:host:port or unix:PATH",
    ),
    OptionSpec::value("tls-ca", "FILE", "authority of the master's certificate, for tls:HOST:PORT"),
    OptionSpec::value("tls-cert", "CERT,KEY", "certificate of this worker (default: none)"),
];

/// How processes of workers are ended, and when they are given up.
pub(in crate::cli) const SUPERVISION: &[OptionSpec] = &[
    OptionSpec::value("stop-timeout", "D", "time for a graceful stop (default: 30s)"),
    OptionSpec::value(
        "drain-timeout",
        "D",
        "what a restarted worker runs may take so long to end (default: 5s)",
    ),
    OptionSpec::value(
        "failures-a-minute",
        "N",
        "failures of a worker within a minute that give it up (default: 5)",
    ),
    OptionSpec::value(
        "failures-in-a-row",
        "N",
        "failures of a worker in a row that give it up (default: 10)",
    ),
];

const LISTEN: OptionSpec =
    OptionSpec::value("listen", "ADDR", "worker-facing port; port 0 picks one");
const API: OptionSpec =
    OptionSpec::value("api", "ADDR", "internal API; port 0 picks one; off = none");
const STORE: OptionSpec =
    OptionSpec::value("store", "URL", "redb:PATH, postgres://… or memory: (gone at exit)");

/// Where a master is found, and where it keeps its data.
pub(in crate::cli) const PLACES: &[OptionSpec] = &[LISTEN, API, STORE];

/// The same for a private master, which must not take the places of one that runs beside it: a
/// variable that is set for that one does not count.
pub(in crate::cli) const PRIVATE_PLACES: &[OptionSpec] =
    &[LISTEN.flag_only(), API.flag_only(), STORE.flag_only()];

/// A master beside others.
pub(in crate::cli) const CLUSTER: &[OptionSpec] = &[
    OptionSpec::value(
        "cluster",
        "NAME",
        "share the tenants of a PostgreSQL store with the other masters of this name",
    ),
    OptionSpec::value(
        "advertise",
        "ADDR",
        "where the other masters reach --api; port 0: the port that it got",
    ),
    OptionSpec::value("name", "HOST", "what this master is called (default: the machine's name)"),
    OptionSpec::value(
        "lease",
        "D",
        "others take a master's tenants after so long without a word (default: 6s)",
    ),
    OptionSpec::value("weight", "N", "this master's share beside those of the others (default: 1)"),
    OptionSpec::list(
        "peer-source",
        "CIDR",
        "network besides loopback from which other masters may come",
    ),
];

/// What both kinds of pool have besides.
pub(in crate::cli) const POOL: &[OptionSpec] = &[
    OptionSpec::value("mode", "M", "process-pool (default) or thread-pool"),
    OptionSpec::value(
        "workers",
        "N",
        "worker processes, or worker threads (default: number of CPUs)",
    ),
    OptionSpec::value(
        "max-db-connections",
        "N",
        "connections to PostgreSQL, a thread each (default: 7)",
    ),
    OptionSpec::value("quota-records", "N", "records that each tenant may have (default: 10000)"),
    OptionSpec::value(
        "quota-bytes",
        "SIZE",
        "bytes of keys, scopes and values for each tenant (default: 64MiB)",
    ),
    OptionSpec::value(
        "purchase-url",
        "URL",
        "where priced entries are bought, with {scope}, {key} and {version} in it",
    ),
    OptionSpec::value("deadline", "D", "default deadline of a dispatch (default: 35s)"),
    OptionSpec::value("heartbeat-interval", "D", "sent to workers in Hello (default: 5s)"),
    OptionSpec::value(
        "hang-timeout",
        "D",
        "an executor away from its loop for so long hangs (default: 30s)",
    ),
    OptionSpec::value(
        "quarantine-after",
        "N",
        "deaths of workers that quarantine a tenant in flight (default: 3)",
    ),
    OptionSpec::value(
        "recycle-events",
        "N",
        "start a worker anew after about so many events (default: never)",
    ),
    OptionSpec::value(
        "recycle-memory",
        "SIZE",
        "start a worker anew at about so much memory (default: never)",
    ),
    OptionSpec::value(
        "recycle-age",
        "D",
        "start a worker anew at about such an age (default: never)",
    ),
    OptionSpec::list("event-alias", "OLD=NEW", "events named OLD are named NEW for all tenants"),
    OptionSpec::value("skip-events", "LIST", "events that no tenant gets (default: none)"),
    OptionSpec::value(
        "skip-author",
        "ID",
        "user whose events no tenant gets, such as the bot's own (default: none)",
    ),
    OptionSpec::list(
        "trusted-source",
        "CIDR",
        "source besides loopback that the internal API answers",
    ),
    OptionSpec::value(
        "listen-tls",
        "CERT,KEY",
        "--listen speaks TLS 1.3 with this certificate (default: plain)",
    ),
    OptionSpec::value(
        "api-tls",
        "CERT,KEY",
        "--api speaks TLS 1.3 with this certificate (default: plain)",
    ),
    OptionSpec::value("tls-ca", "FILE", "authority of workers' certificates (default: none)"),
    OptionSpec::value(
        "worker-certs",
        "require",
        "workers need a certificate that names them (default: none)",
    ),
    OptionSpec::value(
        "caller-rate",
        "N",
        "events, messages and scripts a second of one caller of the API (default: no bound)",
    ),
    OptionSpec::value(
        "kv-rate",
        "N[:BURST]",
        "operations of each tenant on its records a second, or off (default: off)",
    ),
    OptionSpec::value(
        "shop-rate",
        "N[:BURST]",
        "operations of each tenant on the shop a second, or off (default: off)",
    ),
    OptionSpec::value(
        "timer-rate",
        "N[:BURST]",
        "calls of each tenant to ctx.Timers a second, or off (default: 20:200)",
    ),
    OptionSpec::value(
        "message-rate",
        "N[:BURST]",
        "messages that each tenant sends a second, or off (default: 20:100)",
    ),
    OptionSpec::value(
        "host-call-rate",
        "N[:BURST]",
        "calls of each tenant to host processes a second, or off (default: 20:100)",
    ),
    OptionSpec::list(
        "host-allow",
        "NAME",
        "every tenant may call this name of a host process (default: none)",
    ),
];
