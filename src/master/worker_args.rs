//! What a master's own workers are told when they are started.

use std::ffi::OsString;

use super::config::{PoolConfig, RuntimeOptions};

/// The command line of a worker: the master passes its own worker-side options on.
pub(super) fn worker_args(config: &PoolConfig, worker_id: usize, master: &str) -> Vec<OsString> {
    let events: Vec<&str> = config.default_events.iter().map(String::as_str).collect();
    let mut args: Vec<OsString> = vec!["worker".into()];
    for (name, value) in [
        ("--id", worker_id.to_string()),
        ("--workers", config.workers.to_string()),
        ("--master", master.to_owned()),
        ("--lifeline", "stdin".to_owned()),
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
    if let Some(templates) = &config.runtime.templates {
        args.push("--templates".into());
        args.push(templates.into());
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
