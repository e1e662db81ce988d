//! What a checked configuration comes to, option by option, as texts that the same options would
//! take.
//!
//! A test holds these lists against the options of the commands: a new option cannot be forgotten
//! here.

use std::path::Path;

use std::time::Duration;

use crate::master::config::{
    HostConfig, PoolConfig, RuntimeOptions, SIZE_UNITS, WorkerConfig, rate_option,
};
use crate::net::stream::tls::CertificateFiles;
use crate::store::{RateKind, RateLimit, masked};

/// An option's name and its effective value.
pub(in crate::cli) type ConfigValue = (&'static str, String);

/// What an option that is not given and has no value comes to.
const NONE: &str = "none";
const NEVER: &str = "never";

/// The values of what `master` and `replay` run with.
pub(in crate::cli) fn of_pool(config: &PoolConfig) -> Vec<ConfigValue> {
    let (policy, recycle, quota) = (config.policy, config.recycle, &config.db_options.quota);
    let rules = &config.event_rules;
    let aliases: Vec<String> =
        rules.aliases.iter().map(|(old, new)| format!("{old}={new}")).collect();
    let mut values = vec![
        ("mode", config.mode.as_str().to_owned()),
        ("workers", config.workers.to_string()),
        ("listen", config.listen.to_string()),
        ("api", config.api.map_or("off".to_owned(), |api| api.to_string())),
        ("store", masked(&config.store)),
        ("max-db-connections", config.store_options.connections.to_string()),
        ("quota-records", quota.records.to_string()),
        ("quota-bytes", size(quota.bytes)),
        ("purchase-url", config.db_options.purchase_url.clone().unwrap_or(NONE.to_owned())),
        ("deadline", span(config.deadline)),
        ("heartbeat-interval", span(config.heartbeat_interval)),
        ("stop-timeout", span(config.stop_timeout)),
        ("drain-timeout", span(policy.drain_timeout)),
        ("hang-timeout", span(policy.hang_timeout)),
        ("failures-a-minute", policy.failures_in_window.to_string()),
        ("failures-in-a-row", policy.failures_in_a_row.to_string()),
        ("quarantine-after", config.quarantine_after.to_string()),
        ("recycle-events", recycle.events.map_or(NEVER.to_owned(), |events| events.to_string())),
        ("recycle-memory", recycle.memory_bytes.map_or(NEVER.to_owned(), size)),
        ("recycle-age", recycle.age.map_or(NEVER.to_owned(), span)),
        ("trusted-source", list(config.trusted_sources.iter())),
        ("listen-tls", files(&config.tls.listen)),
        ("api-tls", files(&config.tls.api)),
        ("tls-ca", config.tls.ca.as_deref().map_or(NONE.to_owned(), path)),
        ("worker-certs", if config.tls.worker_certs { "require" } else { NONE }.to_owned()),
        ("caller-rate", config.caller_rate.map_or("no bound".to_owned(), |rate| rate.to_string())),
        ("host-allow", list(config.host_allow.iter())),
        ("cluster", config.cluster.cluster.clone().unwrap_or("none: alone".to_owned())),
        ("advertise", config.cluster.advertise.map_or(NONE.to_owned(), |at| at.to_string())),
        ("name", config.cluster.name.clone().unwrap_or("the machine's".to_owned())),
        ("lease", span(config.cluster.lease)),
        ("weight", config.cluster.weight.to_string()),
        ("peer-source", list(config.cluster.peer_sources.iter())),
        ("external-workers", switch(config.external_workers)),
        ("worker-tokens", config.worker_tokens.as_deref().map_or("made at start".to_owned(), path)),
        (
            "worker-program",
            config.worker_program.as_deref().map_or("this program".to_owned(), path),
        ),
        ("default-events", list(config.default_events.iter())),
        ("event-alias", list(aliases.iter())),
        ("skip-events", list(rules.skipped.iter())),
        ("skip-author", rules.skipped_author.clone().unwrap_or(NONE.to_owned())),
        ("log", config.log.as_str().to_lowercase()),
        ("log-format", config.log_format.as_str().to_owned()),
    ];
    values.extend(
        RateKind::ALL.map(|kind| (rate_option(kind), rate(config.db_options.rates.of(kind)))),
    );
    values.extend(of_runtime(&config.runtime));
    values
}

/// The values of what `worker` runs with.
pub(in crate::cli) fn of_worker(config: &WorkerConfig) -> Vec<ConfigValue> {
    let mut values = of_any_worker(config);
    values.push(("id", config.id.to_string()));
    values.push(("lifeline", config.lifeline.as_str().to_owned()));
    values
}

/// The values of what `worker-host` runs with.
pub(in crate::cli) fn of_host(config: &HostConfig) -> Vec<ConfigValue> {
    let ids: Vec<String> = config.ids.iter().map(usize::to_string).collect();
    let program = config.worker_program.as_deref();
    let mut values = of_any_worker(&config.worker);
    values.extend([
        ("ids", ids.join(",")),
        ("worker-tokens", path(&config.worker_tokens)),
        ("worker-program", program.map_or("this program".to_owned(), path)),
        ("stop-timeout", span(config.stop_timeout)),
        ("drain-timeout", span(config.policy.drain_timeout)),
        ("failures-a-minute", config.policy.failures_in_window.to_string()),
        ("failures-in-a-row", config.policy.failures_in_a_row.to_string()),
    ]);
    values
}

fn of_any_worker(config: &WorkerConfig) -> Vec<ConfigValue> {
    let mut values = vec![
        ("workers", config.workers.to_string()),
        ("master", format!("{}{}", config.tls.as_ref().map_or("", |_| "tls:"), config.master)),
        ("tls-ca", config.tls.as_ref().map_or(NONE.to_owned(), |tls| path(&tls.ca))),
        (
            "tls-cert",
            config
                .tls
                .as_ref()
                .and_then(|tls| tls.certificate.as_ref())
                .map_or(NONE.to_owned(), |files| files.to_string()),
        ),
        ("default-events", list(config.default_events.iter())),
        ("log", config.log.as_str().to_lowercase()),
        ("log-format", config.log_format.as_str().to_owned()),
    ];
    values.extend(of_runtime(&config.runtime));
    values
}

fn of_runtime(runtime: &RuntimeOptions) -> [ConfigValue; 7] {
    [
        ("templates", runtime.templates.as_deref().map_or("built in".to_owned(), path)),
        ("reload", switch(runtime.reload)),
        ("executors", runtime.executors.to_string()),
        ("vm-idle", span(runtime.vm_idle)),
        ("max-vms", runtime.max_vms.to_string()),
        ("sandbox", runtime.sandbox.as_str().to_owned()),
        ("worker-memory", runtime.memory.map_or(NONE.to_owned(), size)),
    ]
}

fn switch(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_owned()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn list<'t>(items: impl Iterator<Item = &'t String>) -> String {
    let items: Vec<&str> = items.map(String::as_str).collect();
    if items.is_empty() { NONE.to_owned() } else { items.join(",") }
}

/// A span of time in the largest unit in which it is a whole number.
fn span(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let (size, unit) =
        units.into_iter().find(|(size, _)| ms.is_multiple_of(*size)).unwrap_or((1, "ms"));
    format!("{}{unit}", ms / size)
}

/// A number of bytes in the largest unit in which it is a whole number.
fn size(bytes: u64) -> String {
    let unit = SIZE_UNITS.into_iter().find(|(_, size)| bytes.is_multiple_of(*size));
    unit.map_or(bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

fn rate(limit: Option<RateLimit>) -> String {
    limit.map_or("off".to_owned(), |(per_second, burst)| format!("{per_second}:{burst}"))
}

fn files(files: &Option<CertificateFiles>) -> String {
    files.as_ref().map_or(NONE.to_owned(), |files| files.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::config::parse_span;

    #[test]
    fn a_span_is_shown_as_the_option_takes_it() {
        for text in ["500ms", "35s", "15m", "90s", "2h", "1d", "1500ms"] {
            let shown = span(parse_span(text).expect("a span"));
            assert_eq!(parse_span(&shown), parse_span(text), "{text}");
        }
        assert_eq!(span(Duration::from_secs(900)), "15m");
    }
}
