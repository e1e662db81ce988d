//! How the commands that run templates make their runtimes.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::master::config::{PoolConfig, RuntimeOptions};
use crate::master::{self, StartThreads};
use crate::pool::Subscriptions;
use crate::runtime::luau::{LuauConfig, LuauRuntime, OnBroken, TemplateSource};
use crate::runtime::{TemplateRuntime, TenantDb};

/// What starts the workers of a thread pool; `broken_tx` is told when the runtime of one is broken.
pub(in crate::cli) fn threads(config: &PoolConfig, broken_tx: Sender<String>) -> Box<StartThreads> {
    let options = config.runtime.clone();
    master::threads(Arc::new(move |id, db, subscriptions| {
        start_runtime(&options, &format!("luau{id}"), broken_tx.clone(), db, subscriptions)
    }))
}

/// Starts a worker's runtime; `broken_tx` is told when it is broken.
pub(in crate::cli) fn start_runtime(
    options: &RuntimeOptions,
    thread_prefix: &str,
    broken_tx: Sender<String>,
    db: Arc<dyn TenantDb>,
    subscriptions: Arc<Subscriptions>,
) -> io::Result<Box<dyn TemplateRuntime>> {
    // A full channel holds such a message already.
    let on_broken = OnBroken(Arc::new(move |why| drop(broken_tx.try_send(why))));
    let templates = options.templates.clone();
    let templates = templates.map_or(TemplateSource::BuiltIn, TemplateSource::Directory);
    let config = LuauConfig {
        executors: options.executors,
        templates,
        reload: options.reload,
        vm_idle: options.vm_idle,
        max_vms: options.max_vms,
        thread_prefix: thread_prefix.to_owned(),
        on_broken,
        ..LuauConfig::default()
    };
    let runtime = LuauRuntime::start(config, db, subscriptions)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Box::new(runtime))
}
