//! Rolling restarts: the workers are started anew one after the other, each when the one before is
//! ready again.
//!
//! A thread of its own (`rolling`) while one is under way, owned by [`Rolling`]. It blocks in
//! [`Managed::wait_until_restarted`]; its wake-ups are the worker's changes, among them that it
//! ends for good.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::base::sync::Lock;
use crate::base::thread::{self, OwnedThread, ThreadExit};

use super::supervisor::{Cause, State};
use crate::pool::managed::Managed;

/// How a rolling restart stands; the internal API shows it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollReport {
    /// How many were asked for since the master started; tells one from another.
    pub number: u64,
    /// It is under way.
    #[serde(rename = "running")]
    pub is_running: bool,
    /// Workers that it has restarted.
    pub restarted: Vec<usize>,
    /// Workers that it left alone, because an operator stopped them.
    pub skipped: Vec<usize>,
    /// Why it stopped before it had restarted all.
    pub error: Option<String>,
}

/// Why no rolling restart was begun.
#[derive(Debug)]
pub enum RollError {
    /// One is under way.
    UnderWay,
    /// Workers are started from outside and do not end when they are told to, or the master stops;
    /// the text says which.
    Refused(String),
    /// The operating system refused a thread.
    Io(io::Error),
}

impl std::fmt::Display for RollError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RollError::UnderWay => f.write_str("a rolling restart is under way"),
            RollError::Refused(why) => f.write_str(why),
            RollError::Io(error) => write!(f, "there is no thread for it: {error}"),
        }
    }
}

impl std::error::Error for RollError {}

/// The rolling restarts of a master.
#[derive(Debug, Default)]
pub(in crate::pool) struct Rolling {
    shared: Arc<RollingShared>,
    thread: Lock<Option<OwnedThread>>,
}

#[derive(Debug, Default)]
struct RollingShared {
    report: Lock<RollReport>,
    is_stopping: AtomicBool,
}

impl Rolling {
    /// Begins one.
    ///
    /// # Errors
    /// See [`RollError`].
    pub(in crate::pool) fn begin(&self, workers: Vec<Arc<dyn Managed>>) -> Result<(), RollError> {
        // Held to the end, so that of two at once one begins.
        let mut thread = self.thread.lock();
        if self.shared.is_stopping.load(Ordering::SeqCst) {
            return Err(RollError::Refused("the master stops".to_owned()));
        }
        {
            let mut report = self.shared.report.lock();
            if report.is_running {
                return Err(RollError::UnderWay);
            }
            *report =
                RollReport { is_running: true, number: report.number + 1, ..RollReport::default() };
        }
        let shared = self.shared.clone();
        let ended = self.shared.clone();
        let rolling = thread::spawn_watched(
            "rolling",
            move || shared.roll(&workers),
            move |exit| {
                // One that ended by itself has said so; another may be under way by now.
                if let ThreadExit::Panicked(_) = exit {
                    let mut report = ended.report.lock();
                    report.is_running = false;
                    report.error = Some("it panicked, which is a bug".to_owned());
                }
            },
        )
        .map_err(|error| {
            self.shared.report.lock().is_running = false;
            RollError::Io(error)
        })?;
        // One that has ended is joined here.
        *thread = Some(rolling);
        Ok(())
    }

    /// How the last one stands.
    pub(in crate::pool) fn report(&self) -> RollReport {
        self.shared.report.lock().clone()
    }

    /// Lets none begin any more, and the one that is under way go no further.
    pub(in crate::pool) fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Joins the thread.
    ///
    /// # Blocks
    /// Until the worker that is being restarted has ended, which its owner sees to first.
    pub(in crate::pool) fn join(&self) {
        let thread = self.thread.lock().take();
        drop(thread);
    }
}

impl RollingShared {
    fn roll(&self, workers: &[Arc<dyn Managed>]) {
        log::info!("rolling restart of {} workers", workers.len());
        let ended = workers.iter().try_for_each(|worker| self.restart(&**worker));
        {
            // Before it is said: another one may be asked for at once.
            let mut report = self.report.lock();
            (report.is_running, report.error) = (false, ended.clone().err());
        }
        match ended {
            Ok(()) => log::info!("the rolling restart is done"),
            Err(error) => log::error!("the rolling restart stops here: {error}"),
        }
    }

    fn restart(&self, worker: &dyn Managed) -> Result<(), String> {
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err("the master stops".to_owned());
        }
        if worker.report().state == State::Stopped {
            self.report.lock().skipped.push(worker.id());
            return Ok(());
        }
        let deadline = Instant::now() + worker.restart_timeout();
        let restarts = worker.restart(Cause::Rolling).map_err(|error| error.to_string())?;
        worker.wait_until_restarted(restarts, deadline).map_err(|error| error.to_string())?;
        self.report.lock().restarted.push(worker.id());
        Ok(())
    }
}
