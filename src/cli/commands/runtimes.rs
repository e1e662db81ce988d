//! How the commands that run templates make their runtimes.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::master::config::{PoolConfig, RuntimeOptions};
use crate::master::{self, StartThreads};
use crate::pool::Subscriptions;
use crate::runtime::luau::{LuauConfig, LuauRuntime, OnBroken, TemplateSource};
use crate::runtime::{TemplateRuntime, TenantDb};

/// How runtimes are made, and where a broken one is reported.
#[derive(Clone)]
pub(in crate::cli) struct RuntimePlan {
    pub(in crate::cli) options: RuntimeOptions,
    pub(in crate::cli) broken_tx: Sender<String>,
}

/// What starts the workers of a thread pool; `broken_tx` is told when the runtime of one is broken.
pub(in crate::cli) fn threads(config: &PoolConfig, broken_tx: Sender<String>) -> Box<StartThreads> {
    let plan = RuntimePlan { options: config.runtime.clone(), broken_tx };
    master::threads(Arc::new(move |id, db, subscriptions| {
        start_runtime(&plan, &format!("luau{id}"), db, subscriptions)
    }))
}

pub(in crate::cli) fn start_runtime(
    plan: &RuntimePlan,
    thread_prefix: &str,
    db: Arc<dyn TenantDb>,
    subscriptions: Arc<Subscriptions>,
) -> io::Result<Box<dyn TemplateRuntime>> {
    let RuntimePlan { options, broken_tx } = plan.clone();
    // A full channel holds such a message already.
    let on_broken = OnBroken(Arc::new(move |why| drop(broken_tx.try_send(why))));
    let config = LuauConfig {
        executors: options.executors,
        templates: options.templates.map_or(TemplateSource::BuiltIn, TemplateSource::Directory),
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
