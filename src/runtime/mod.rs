//! Tenant VMs: what a worker needs of them ([`TemplateRuntime`]) and what they need of the database
//! ([`TenantDb`]).
//!
//! Deliberately ignorant of links, processes and stores: a worker hands jobs in, answers come back
//! through [`Answer`]s. The one implementation in the product is [`luau`]; tests bring a stand-in
//! of their own.

#[cfg(feature = "luau")]
pub mod luau;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::base::error::DbError;
use crate::dispatch::{Answer, Cancelled, HostAnswer, Job, RequestId};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    DbAnswer, DbOp, EncodedJson, HostCall, HostError, HostOutcome, MessageOutcome, RuntimeFigures,
    TenantId, TenantMessage, TenantState,
};

/// A runtime that owns the VMs of many tenants and the threads that run them.
///
/// Calls come from a link's reader thread and never block. Events of one tenant start in the order
/// of their `submit`s.
pub trait TemplateRuntime: Send + Sync {
    /// Takes a job; `answer` gets the result exactly once. Overload is answered `Busy` at once.
    ///
    /// Whether the tenant is subscribed to the event has been checked by the worker.
    fn submit(&self, tenant: TenantId, request_id: RequestId, job: Job, answer: Answer);

    /// Gives a job up: a queued one is dropped, a running one ends as cancelled. Its answer, if it
    /// still comes, is an error.
    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled;

    /// A tenant's own template may have changed: events that are submitted from now on get the one
    /// that is stored. Those that run finish with the one that they began with. A runtime whose
    /// tenants have none has nothing to do.
    fn template_changed(&self, _tenant: TenantId) {}

    /// As [`TemplateRuntime::template_changed`] for every tenant: changes may have been missed.
    fn templates_in_doubt(&self) {}

    /// What the runtime is doing, for health reports and metrics.
    fn stats(&self) -> RuntimeStats;

    /// Whether a VM of the tenant is alive. A runtime that has none knows of none.
    fn has_vm(&self, _tenant: TenantId) -> bool {
        false
    }

    /// Ends everything of the tenants of these shards, which are another master's now: what runs,
    /// what waits, and the VMs.
    fn drop_shards(&self, _shards: &ShardSet) {}

    /// Cancels everything, joins every thread and closes the VMs. Later submits are answered with
    /// an error.
    ///
    /// # Blocks
    /// At most about a second: a running script is stopped by its interrupt.
    fn shutdown(&self);
}

/// Figures of a runtime at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeStats {
    /// VMs alive.
    pub vms: u64,
    /// Events that were started since the runtime was made.
    pub events: u64,
    /// Events that wait or run now.
    pub in_flight: u64,
    /// How long ago the executor that has been away longest last came back to its loop.
    pub stalest_executor: Duration,
    /// The event that has been running longest without a pause: tenant, event name, for how long.
    pub longest: Option<(TenantId, String, Duration)>,
    /// What it has counted.
    pub figures: RuntimeFigures,
}

/// The database as a worker's tenants see it, and their way to other tenants.
///
/// `WorkerDb` implements it, over a store in this process or over HTTP; nothing here can tell
/// which. All calls but [`TenantDb::publish`] and [`TenantDb::log`] block until the answer or the
/// deadline of the transport, and are made from I/O threads only.
pub trait TenantDb: Send + Sync {
    /// The states of all tenants that belong to this worker.
    ///
    /// # Errors
    /// See [`DbError`].
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError>;

    /// Carries out an operation of a tenant. A change that is acknowledged is synced.
    ///
    /// # Errors
    /// See [`DbError`].
    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError>;

    /// Sends a message of a tenant of this worker.
    fn send(&self, message: TenantMessage) -> MessageOutcome;

    /// Hands in a tenant's call to a host process. Never blocks: `answer` is called once, on any
    /// thread, at the latest after the call's deadline.
    fn call_host(&self, _call: HostCall, answer: HostAnswer) {
        answer(Err(HostError::new(HostOutcome::NoHost)));
    }

    /// Publishes to those that read the tenant's feed, at most once. Never blocks.
    ///
    /// # Errors
    /// `Refused`: the topic is none, or there is too much data. `Busy`: too much waits to be sent.
    /// `Unavailable`: the way to the readers is cut at the moment.
    fn publish(&self, _from: TenantId, _topic: String, _data: EncodedJson) -> Result<(), DbError> {
        Err(DbError::Unavailable("no feed can be published here".to_owned()))
    }

    /// Tells those that follow the tenant's log of a line of its scripts, or that one is missing.
    /// Never blocks.
    fn log(&self, _tenant: TenantId, _line: Option<(Level, String)>) {}

    /// Ends what is under way with an error, and everything later, where that is for this worker
    /// alone.
    fn close(&self) {}
}

/// What `ctx.Runtime` shows of the worker around a VM: subscriptions live with the worker, not with
/// the runtime.
pub trait TenantStates: Send + Sync {
    /// The tenant's state, or the defaults as a state if it has none.
    fn get(&self, tenant: TenantId) -> Arc<TenantState>;

    /// Takes over a state that was just stored.
    fn put(&self, tenant: TenantId, state: TenantState);
}
