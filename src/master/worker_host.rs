//! Several workers of a master that runs elsewhere: their processes, and what keeps them running.
//!
//! Used by `mesophyll worker-host`. The master sees the links of these workers and their events;
//! this sees their processes, and hears from each at intervals that it lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::config::HostConfig;
use super::tokens::read_tokens_of;
use super::worker_args::{worker_args, worker_variables};
use super::{GivenUp, MasterError, named_program, on_change};
use crate::pool::{
    ChildSpec, Managed, MemoryGroups, Operator, ProcessConfig, Program, Spawner,
    WorkerProcessHandle,
};
use crate::wire::data::SandboxMode;

/// The running workers of a host.
#[derive(Debug)]
pub struct WorkerHost {
    operator: Arc<Operator>,
    changes_rx: Receiver<()>,
    // As a master's.
    _changes_tx: Sender<()>,
}

impl WorkerHost {
    /// Starts the processes; returns before they are ready.
    ///
    /// # Errors
    /// A file cannot be used, a sandbox is required and not to be had, or the operating system
    /// refused something. Nothing is left running.
    pub fn start(config: &HostConfig, program: &Program) -> Result<Self, MasterError> {
        let tokens = read_tokens_of(&config.worker_tokens, &config.ids)?;
        let runtime = &config.worker.runtime;
        require_sandbox(config, program)?;
        let spawner = Spawner::start().map_err(MasterError::Io)?;
        let memory = runtime.memory.and_then(MemoryGroups::delegated).map(Arc::new);
        let variables = worker_variables(runtime, memory.is_some());
        let (changes_tx, changes_rx) = bounded(1);
        let mut workers: Vec<Arc<dyn Managed>> = Vec::with_capacity(tokens.len());
        for (worker_id, token) in tokens {
            let child = ChildSpec {
                program: program.clone(),
                args: worker_args(&config.worker, worker_id),
                token,
                variables: variables.clone(),
                broker: None,
                is_hosted: true,
                memory: memory.clone(),
                spawner: spawner.clone(),
            };
            let process = ProcessConfig::new(worker_id, Some(child), config.policy);
            let worker = WorkerProcessHandle::start(process, on_change(&changes_tx));
            workers.push(worker.map_err(MasterError::Io)?);
        }
        let operator = Arc::new(Operator::new(workers, false, Arc::default()));
        Ok(Self { operator, changes_rx, _changes_tx: changes_tx })
    }

    /// Checks what a start with this configuration would, without starting a worker.
    ///
    /// # Errors
    /// Why it would not start.
    pub fn check(config: &HostConfig) -> Result<(), MasterError> {
        read_tokens_of(&config.worker_tokens, &config.ids)?;
        if let Some(tls) = &config.worker.tls {
            tls.read().map_err(|error| MasterError::Config(error.to_string()))?;
        }
        let own = || Program::own().map_err(|error| MasterError::Config(error.to_string()));
        let program = Self::program(config)?;
        let program = program.map_or_else(own, |path| Ok(Program::at(&path)))?;
        require_sandbox(config, &program)
    }

    /// What `--worker-program` names; absolute.
    ///
    /// # Errors
    /// It is no file that can be executed.
    pub fn program(config: &HostConfig) -> Result<Option<PathBuf>, MasterError> {
        named_program(config.worker_program.as_deref())
    }

    /// What an operator can do.
    pub fn operator(&self) -> &Arc<Operator> {
        &self.operator
    }

    /// Gets a message when some worker's state changed; several changes may make one.
    pub fn changes_rx(&self) -> &Receiver<()> {
        &self.changes_rx
    }

    /// Why the host is to end: each worker has failed.
    pub fn given_up(&self) -> Option<GivenUp> {
        self.operator.no_worker_left().map(GivenUp::NoWorker)
    }

    /// Ends the workers: each answers what it has, for half of the time, and takes no more.
    ///
    /// # Blocks
    /// Until `deadline`, and a few seconds beyond it at most if a worker has to be killed.
    pub fn stop(self, deadline: Instant) {
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        self.operator.stop(half, deadline);
    }
}

fn require_sandbox(config: &HostConfig, program: &Program) -> Result<(), MasterError> {
    match config.worker.runtime.sandbox {
        SandboxMode::Require => program.require_sandbox().map_err(MasterError::Config),
        _ => Ok(()),
    }
}
