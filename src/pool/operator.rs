//! An operator's hand on all workers of a master: look, end, start anew, one or all; and the
//! quarantine.
//!
//! Owned by the master; called by the internal API and for signals, on any thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::thread;
use crate::wire::data::TenantId;

use super::managed::Managed;
use super::observe::quarantine::Quarantine;
use super::process::handle::{RestartError, WorkerReport};
use super::process::rolling::{RollError, RollReport, Rolling};
use super::process::supervisor::State;
use super::vms;

/// All workers of a master, for its operator.
#[derive(Debug)]
pub struct Operator {
    workers: Vec<Arc<dyn Managed>>,
    is_external: bool,
    quarantine: Arc<Quarantine>,
    rolling: Rolling,
}

impl Operator {
    /// Over these workers, in order of their ids; `is_external`: they are started from outside.
    pub fn new(
        workers: Vec<Arc<dyn Managed>>,
        is_external: bool,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        Self { workers, is_external, quarantine, rolling: Rolling::default() }
    }

    /// What there is to see of each worker.
    pub fn reports(&self) -> Vec<WorkerReport> {
        self.workers.iter().map(|worker| worker.report()).collect()
    }

    /// A worker by its id.
    pub fn worker(&self, id: usize) -> Option<&Arc<dyn Managed>> {
        self.workers.get(id)
    }

    /// Which of these tenants have a VM, as far as their workers say so in time. A worker that is
    /// away, does not answer or is of another make has none that is known.
    ///
    /// # Blocks
    /// Until all have answered, or `deadline`.
    pub fn have_vms(&self, tenants: &[TenantId], deadline: Instant) -> Vec<bool> {
        vms::have_vms(&self.workers, tenants, deadline)
    }

    /// Ends all workers at once; they stay stopped until they are restarted.
    ///
    /// # Blocks
    /// Until they have ended; a few seconds at most for each.
    ///
    /// # Errors
    /// The first one's; all others are ended all the same.
    pub fn kill_all(&self) -> Result<(), RestartError> {
        self.workers.iter().map(|worker| worker.kill_until_restart()).fold(Ok(()), Result::and)
    }

    /// Begins a rolling restart.
    ///
    /// # Errors
    /// See [`RollError`].
    pub fn roll(&self) -> Result<(), RollError> {
        if self.is_external {
            self.check_external()?;
        }
        self.rolling.begin(self.workers.clone())
    }

    /// Workers that are started from outside must each end when they are told to.
    fn check_external(&self) -> Result<(), RollError> {
        let stay = |report: &WorkerReport| !report.retires && report.state != State::Stopped;
        let staying: Vec<String> = self
            .reports()
            .iter()
            .filter(|report| stay(report))
            .map(|report| report.id.to_string())
            .collect();
        if staying.is_empty() {
            return Ok(());
        }
        Err(RollError::Refused(format!(
            "somebody else starts the workers, and has to restart these, which do not end when they \
             are told to, or are away: {}",
            staying.join(", ")
        )))
    }

    /// How the last rolling restart stands.
    pub fn rolling(&self) -> RollReport {
        self.rolling.report()
    }

    /// Whether the loop of each worker that has one has come round within the time.
    pub fn is_supervised(&self, within: Duration) -> bool {
        self.workers
            .iter()
            .filter_map(|worker| worker.supervised_at())
            .all(|at| at.elapsed() <= within)
    }

    /// That each worker has failed for good, with the last cause that is known. One that was
    /// stopped on request does not count as failed.
    pub fn no_worker_left(&self) -> Option<String> {
        let reports = self.reports();
        let is_over = reports.iter().all(|report| report.state == State::Failed);
        let cause = reports.iter().rev().find_map(|one| Some((one.id, one.last_exit.as_deref()?)));
        let cause = cause.map_or_else(String::new, |(id, how)| format!("; worker {id}: {how}"));
        is_over.then(|| format!("no worker is left: each has failed too often{cause}"))
    }

    /// The tenants that may not run.
    pub fn quarantine(&self) -> &Arc<Quarantine> {
        &self.quarantine
    }

    /// Logs how many events without a waiter are lost when the process ends now.
    pub fn log_abandoned(&self) {
        self.workers.iter().for_each(|worker| worker.log_abandoned());
    }

    /// From now on no rolling restart begins, and one that is under way goes no further.
    pub fn begin_stop(&self) {
        self.rolling.stop();
    }

    /// Ends all workers gracefully and for good, all at once, so that the slowest decides how long
    /// it takes: what is in flight may be answered until `drain_until`.
    ///
    /// # Blocks
    /// Until all have ended, or `deadline`; after that for some seconds more, if one has to be
    /// killed.
    pub fn stop(&self, drain_until: Instant, deadline: Instant) {
        self.begin_stop();
        let stops: Vec<_> = self
            .workers
            .iter()
            .filter_map(|worker| {
                let stopping = worker.clone();
                let name = format!("stop-{}", worker.id());
                let stop = thread::spawn(name, move || stopping.stop(drain_until, deadline));
                stop.map_err(
                    |error| log::error!(worker = worker.id(); "worker {}: no thread to stop it: {error}", worker.id()),
                )
                .ok()
            })
            .collect();
        drop(stops);
        for worker in &self.workers {
            worker.kill();
        }
        self.rolling.join();
    }
}
