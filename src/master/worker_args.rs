//! What workers are told by the process that starts them: their master, or their host.

use std::ffi::OsString;

use super::config::{LifelineUse, PoolConfig, RuntimeOptions, WorkerConfig};

/// The first of a master's own workers: the master passes its own worker-side options on.
pub(super) fn own_worker(config: &PoolConfig, master: String) -> WorkerConfig {
    WorkerConfig {
        id: 0,
        workers: config.workers,
        master,
        tls: None,
        lifeline: LifelineUse::Stdin,
        default_events: config.default_events.clone(),
        runtime: config.runtime.clone(),
        log: config.log,
        log_format: config.log_format,
    }
}

/// The command line of the worker of this number, which runs with this otherwise.
pub(super) fn worker_args(config: &WorkerConfig, worker_id: usize) -> Vec<OsString> {
    let (tls, master) = (config.tls.as_ref(), &config.master);
    let events: Vec<&str> = config.default_events.iter().map(String::as_str).collect();
    let mut args: Vec<OsString> = vec!["worker".into()];
    for (name, value) in [
        ("--id", worker_id.to_string()),
        ("--workers", config.workers.to_string()),
        ("--master", tls.map_or(master.clone(), |_| format!("tls:{master}"))),
        ("--lifeline", config.lifeline.as_str().to_owned()),
        ("--default-events", events.join(",")),
        ("--executors", config.runtime.executors.to_string()),
        ("--vm-idle", format!("{}ms", config.runtime.vm_idle.as_millis())),
        ("--max-vms", config.runtime.max_vms.to_string()),
        ("--log", config.log.to_string().to_lowercase()),
        ("--log-format", config.log_format.as_str().to_owned()),
    ] {
        args.push(name.into());
        args.push(value.into());
    }
    let certificate = tls.and_then(|tls| tls.certificate.as_ref());
    for (name, value) in [
        ("--templates", config.runtime.templates.clone().map(OsString::from)),
        ("--tls-ca", tls.map(|tls| tls.ca.clone().into())),
        ("--tls-cert", certificate.map(|files| files.to_string().into())),
    ] {
        args.extend(value.into_iter().flat_map(|value| [name.into(), value]));
    }
    if config.runtime.reload {
        args.push("--reload".into());
    }
    args
}

/// What a worker is told by variables: an older program would refuse an option that it does not
/// know. Where a control group bounds its memory, it need not.
pub(super) fn worker_variables(
    runtime: &RuntimeOptions,
    has_group: bool,
) -> Vec<(&'static str, String)> {
    let mut variables = vec![("MESOPHYLL_SANDBOX", runtime.sandbox.as_str().to_owned())];
    let memory = runtime.memory.filter(|_| !has_group);
    variables.extend(memory.map(|bytes| ("MESOPHYLL_WORKER_MEMORY", bytes.to_string())));
    variables
}
