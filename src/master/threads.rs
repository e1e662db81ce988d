//! A master's workers as threads of its process.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::config::PoolConfig;
use super::{MasterError, StartThreads, on_change};
use crate::dispatch::MessageDoor;
use crate::feeds::Feeds;
use crate::pool::{Managed, Subscriptions, WorkerDb, WorkerThread, WorkerThreadHandle};
use crate::protocol::LocalWorker;
use crate::runtime::{TemplateRuntime, TenantDb, TenantStates};
use crate::store::DbState;
use crate::wire::data::SandboxMode;
use crate::wire::data::sharding::worker_for;

/// Makes the runtime of one worker of a thread pool: its number, the database and the subscriptions
/// it shares. Called again when that worker is started anew.
pub type MakeRuntime =
    dyn Fn(usize, Arc<dyn TenantDb>, Arc<Subscriptions>) -> io::Result<MadeRuntime> + Send + Sync;

/// A runtime of any kind.
pub type MadeRuntime = Box<dyn TemplateRuntime>;

/// Starts a thread pool whose runtimes are made by this.
pub fn threads(make_runtime: Arc<MakeRuntime>) -> Box<StartThreads> {
    Box::new(move |config, db, messages, feeds, changes_tx| {
        start_threads(config, db, messages, feeds, &make_runtime, changes_tx)
    })
}

fn start_threads(
    config: &PoolConfig,
    db: &Arc<DbState>,
    messages: &MessageDoor,
    feeds: &Arc<Feeds>,
    make_runtime: &Arc<MakeRuntime>,
    changes_tx: &Sender<()>,
) -> Result<Vec<Arc<dyn Managed>>, MasterError> {
    if config.runtime.sandbox != SandboxMode::Off {
        log::warn!(
            "--mode thread-pool: templates run in the master's own process, which no sandbox confines"
        );
    }
    let subscriptions = || Arc::new(Subscriptions::new(config.default_events.clone()));
    let subscriptions: Vec<_> = (0..config.workers).map(|_| subscriptions()).collect();
    let told = subscriptions.clone();
    // As the worker-facing server does for processes: after any change of a state, the tenant's
    // worker knows.
    db.on_tenant_state(Box::new(move |tenant, state| {
        told[worker_for(tenant, told.len())].put(tenant, state.clone());
    }));
    let mut workers: Vec<Arc<WorkerThreadHandle>> = Vec::with_capacity(config.workers);
    for (id, subscriptions) in subscriptions.into_iter().enumerate() {
        let (db, messages) = (db.clone(), messages.clone());
        let (told, feeds, make_runtime) = (feeds.clone(), feeds.clone(), make_runtime.clone());
        let (workers_len, executors) = (config.workers, config.runtime.executors as u64);
        let make = move || -> io::Result<WorkerThread> {
            let tenant_db = WorkerDb::direct(db.clone(), id, workers_len, messages.clone());
            let tenant_db = Arc::new(tenant_db.with_feeds(feeds.clone()));
            let runtime = make_runtime(id, tenant_db.clone(), subscriptions.clone())?;
            let worker =
                WorkerThread::new(id, runtime, executors, subscriptions.clone(), tenant_db);
            worker
                .load_tenant_states()
                .map_err(|error| io::Error::other(format!("store: {error}")))?;
            Ok(worker)
        };
        let worker = WorkerThreadHandle::start(
            id,
            config.policy.drain_timeout,
            Box::new(make),
            Some(told),
            on_change(changes_tx),
        )
        .map_err(MasterError::Io)?;
        workers.push(worker);
    }
    // Weak, because the workers hold the database.
    let told: Vec<_> = workers.iter().map(Arc::downgrade).collect();
    db.on_template(Box::new(move |tenant| {
        if let Some(worker) = told[worker_for(tenant, told.len())].upgrade() {
            worker.reload_template(tenant);
        }
    }));
    Ok(workers.into_iter().map(|worker| -> Arc<dyn Managed> { worker }).collect())
}
