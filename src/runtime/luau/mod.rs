//! The Luau runtime: thousands of tenants' VMs on a few threads, none of which can hurt another.
//!
//! ```text
//! submit ─▶ inbox ─▶ executor ─▶ tenant ─▶ VM: a coroutine for each event ── waits ──▶ I/O thread
//!                      ▲  ▲                                                               │
//!              ticker ─┘  └──────────────────────── result ───────────────────────────────┘
//! ```
//!
//! * `executor` gives tenants turns, in the order of its `lanes`; `tenant`, `events`, `running`,
//!   `calls` and `task` are one tenant's events and coroutines.
//! * `control` is the interrupt that preempts and stops scripts, told by the `ticker`; `budget` and
//!   `memory` what it judges.
//! * `vm_slots` says which tenants may have a VM, and whose is closed when there are too many.
//! * `vm`, `host` and `prelude/` are the sandbox and the script's side of everything; `api` what
//!   `ctx` does with the database, on the threads of `io`; `convert` takes values in and out;
//!   `locks` makes `KV:update` one step.
//! * `templates` reads, compiles and checks them; its `lexer`, `walk` and `names` are what `check`
//!   knows of Luau. `claims` are what templates and documents say of answers.
//!
//! Scripts are hostile by assumption: docs/templates.md says what they may rely on, and each limit
//! is in `limits.rs`.

mod api;
mod budget;
mod calls;
mod claims;
mod config;
mod control;
mod convert;
mod errors;
mod events;
mod executor;
mod gauges;
mod host;
mod io;
mod io_share;
mod lanes;
mod lifetime;
mod live_vm;
mod locks;
mod mailbox;
mod memory;
mod ops;
mod outside;
mod program;
mod queue;
mod running;
mod runtime_error;
mod script_error;
mod script_feed;
mod script_log;
mod task;
mod templates;
mod tenant;
mod tenant_vm;
#[cfg(test)]
mod tests;
mod ticker;
mod timers;
mod vm;
mod vm_slots;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

pub use self::claims::{Claim, Claimed, Example, claims, examples};
pub use self::config::{LuauConfig, LuauLimits, OnBroken, TemplateSource};
use self::errors::ErrorLog;
use self::executor::ExecutorShared;
use self::gauges::Gauges;
use self::io::IoPool;
use self::mailbox::Mailbox;
pub use self::runtime_error::RuntimeError;
pub use self::templates::{
    Finding, Look, TemplateFiles, check, check_file, check_source, definitions, is_module, is_test,
    read_files,
};
use self::templates::{TemplateCache, Templates, Watch};
use self::ticker::Ticker;
use super::{RuntimeStats, TemplateRuntime, TenantDb, TenantStates};
use crate::base::limits::WARNED_AGAIN;
use crate::base::random;
use crate::base::rates::Rates;
use crate::base::sync::Lock;
use crate::base::thread::{OwnedThread, spawn_watched};
use crate::base::throttle::Rate;
use crate::dispatch::{Answer, Cancelled, Job, RequestId};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{Dropped, RuntimeFigures, TenantId, TenantKind};

/// Between two ticks of a runtime that stops.
const STOP_TICK: Duration = Duration::from_millis(10);

/// The runtime. Dropping it shuts it down.
pub struct LuauRuntime {
    executors: Vec<Handle>,
    threads: Lock<Vec<OwnedThread>>,
    ticker: Ticker,
    shared: Arc<ExecutorShared>,
    watch: Option<Watch>,
}

/// A script runs, or waits for what is under way elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillRunning;

/// What others need of an executor.
struct Handle {
    mailbox: Arc<Mailbox>,
    gauges: Arc<Gauges>,
}

impl LuauRuntime {
    /// Reads and compiles the templates and starts the threads. A template that does not compile is
    /// a script error of its dispatches, not a reason not to start.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    pub fn start(
        config: LuauConfig,
        db: Arc<dyn TenantDb>,
        states: Arc<dyn TenantStates>,
    ) -> Result<Self, RuntimeError> {
        vm::prepare();
        let LuauConfig { thread_prefix, templates: source, limits, clock, on_broken, .. } = config;
        // Before the reading, so that a change while it reads is a change.
        let look = match &source {
            TemplateSource::Directory(directory) => Look::at(directory, is_module).ok(),
            TemplateSource::BuiltIn | TemplateSource::Files(_) => None,
        };
        let (slice, source_bytes) = (limits.slice, limits.source_bytes);
        let templates = Templates::load(&source, source_bytes).map_err(RuntimeError::Templates)?;
        let template_cache = Arc::new(TemplateCache::new(templates));
        let count = config.executors.max(1);
        let (ticker, ticks) =
            Ticker::start_watched(&format!("{thread_prefix}-tick"), count, slice, &on_broken)
                .map_err(RuntimeError::Thread)?;
        let shared = Arc::new(ExecutorShared {
            limits,
            clock,
            max_vms: config.max_vms.div_ceil(count),
            vm_idle: config.vm_idle,
            io: IoPool::new(&thread_prefix, &db),
            template_cache: template_cache.clone(),
            may_warn: Rates::of(Rate::one_in(WARNED_AGAIN)),
            errors: ErrorLog::new(format!("{thread_prefix}-err"), db.clone()),
            db,
            states,
            stopping: Arc::default(),
        });
        // From here on everything that was started is stopped by the drop of the runtime.
        let (executors, threads) = (Vec::new(), Lock::default());
        let mut runtime = Self { executors, threads, ticker, shared, watch: None };
        for (number, tick) in ticks.into_iter().enumerate() {
            let name = format!("{thread_prefix}-ex{number}");
            let on_exit = on_broken.watch(&name);
            let shared = runtime.shared.clone();
            let (mailbox, gauges) = (Arc::new(Mailbox::new(tick.clone())), Arc::default());
            let handle = Handle { mailbox: mailbox.clone(), gauges: Arc::clone(&gauges) };
            let run = move || executor::run(shared, mailbox, gauges, tick);
            let thread = spawn_watched(name, run, on_exit).map_err(RuntimeError::Thread)?;
            runtime.threads.lock().push(thread);
            runtime.executors.push(handle);
        }
        if let (true, TemplateSource::Directory(directory)) = (config.reload, source) {
            let name = format!("{thread_prefix}-watch");
            let watch = Watch::start(name, directory, look, source_bytes, template_cache)
                .map_err(RuntimeError::Thread)?;
            runtime.watch = Some(watch);
        }
        Ok(runtime)
    }

    /// Waits until nothing of what was submitted before runs or is under way, and says when the
    /// next timer of a script fires, by the clock of scripts.
    ///
    /// # Blocks
    /// Until then, or the deadline.
    ///
    /// # Errors
    /// Something still ran at the deadline, or the runtime stopped.
    pub fn rest(&self, deadline: Instant) -> Result<Option<Instant>, StillRunning> {
        let waits = self.executors.iter().map(|executor| {
            let (rest_tx, rest_rx) = bounded(1);
            executor.mailbox.rest(rest_tx);
            rest_rx
        });
        let waits: Vec<_> = waits.collect();
        let nexts = waits.iter().map(|rest_rx| rest_rx.recv_deadline(deadline));
        let nexts: Vec<_> = nexts.collect::<Result<_, _>>().map_err(|_| StillRunning)?;
        Ok(nexts.into_iter().flatten().min())
    }

    fn executor(&self, tenant: TenantId) -> &Handle {
        // Mixed, because which worker a tenant is on is taken from the same bits.
        let kind = match tenant.kind() {
            TenantKind::Guild => 0,
            TenantKind::User => 1,
        };
        let number = tenant.snowflake().wrapping_add(kind);
        let mixed = random::mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The remainder is below the number of executors, which fits.
        &self.executors[(mixed % self.executors.len() as u64) as usize]
    }
}

impl TemplateRuntime for LuauRuntime {
    fn submit(&self, tenant: TenantId, request_id: RequestId, job: Job, answer: Answer) {
        self.executor(tenant).mailbox.submit(tenant, request_id, job, answer);
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.executor(tenant).mailbox.cancel(tenant, request_id)
    }

    fn template_changed(&self, tenant: TenantId) {
        self.executor(tenant).mailbox.template_changed(tenant);
    }

    fn templates_in_doubt(&self) {
        self.shared.template_cache.doubt();
    }

    fn stats(&self) -> RuntimeStats {
        let now = Instant::now();
        let gauges = || self.executors.iter().map(|executor| &executor.gauges);
        let mut figures = RuntimeFigures::default();
        gauges().for_each(|gauges| gauges.add_to(&mut figures));
        *figures.dropped_mut(Dropped::ErrorRecord) += self.shared.errors.dropped();
        RuntimeStats {
            vms: gauges().map(|gauges| gauges.vms()).sum(),
            events: gauges().map(|gauges| gauges.events.get()).sum(),
            in_flight: self
                .executors
                .iter()
                .map(|executor| executor.mailbox.under_way() as u64)
                .sum(),
            stalest_executor: gauges()
                .map(|gauges| gauges.away_for(now))
                .max()
                .unwrap_or(Duration::ZERO),
            longest: gauges()
                .filter_map(|gauges| gauges.running(now))
                .max_by_key(|(_, _, running)| *running),
            figures,
        }
    }

    fn has_vm(&self, tenant: TenantId) -> bool {
        self.executor(tenant).gauges.has_vm(tenant)
    }

    fn drop_shards(&self, shards: &ShardSet) {
        self.executors.iter().for_each(|executor| executor.mailbox.drop_shards(shards));
    }

    fn shutdown(&self) {
        // 1. Running scripts end at their next interrupt, at the latest with the next tick (see 3).
        self.shared.stopping.store(true, Ordering::Relaxed);
        // 2. Idle executors wake; later jobs are refused.
        self.executors.iter().for_each(|executor| executor.mailbox.close());
        // 3. The executors answer what is left and close the VMs. Ticks come from here too: it may
        //    be the ticker that is broken.
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            while !thread.wait_until(Instant::now() + STOP_TICK) {
                self.ticker.tick();
            }
            thread.join();
        }
        // 4. No errors are made any more; those that are left are written.
        self.shared.errors.close();
        // 5. The results of what is queued or under way are not wanted any more.
        self.shared.db.close();
        self.shared.io.stop();
        self.shared.errors.stop();
        if let Some(watch) = &self.watch {
            watch.stop();
        }
        self.ticker.stop();
    }
}

impl Drop for LuauRuntime {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for LuauRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LuauRuntime({} executors)", self.executors.len())
    }
}
