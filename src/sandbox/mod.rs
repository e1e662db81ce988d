//! The sandbox of a worker's process: what it gives up before it runs code of a tenant.
//!
//! Two steps, both for the rest of the process's life and both called from its main thread:
//! [`confine`] before there is another thread, as Landlock binds only the calling thread and those
//! that it starts; [`Confined::seal`] when connections, signals, lifeline and runtime stand. The
//! first takes away files, core files and new privileges, the second the system calls that a worker
//! does not need. docs/threat-model.md says which attack each of them ends.
//!
//! The only room that names `landlock` and `seccompiler`; without the feature `sandbox`, and
//! elsewhere than on Linux, nothing is in force and `require` fails.

#[cfg(all(feature = "sandbox", target_os = "linux"))]
mod files;
mod process;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
mod syscalls;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::wire::data::{Sandbox, SandboxMode};

/// How a confined worker reaches its master, which is all the network that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The master hands it connected sockets: it makes none itself.
    Broker,
    /// It connects to this port with TCP.
    Tcp(u16),
    /// It connects to this Unix socket.
    Unix(PathBuf),
}

/// What a worker's process is confined to.
#[derive(Debug)]
pub struct Plan<'a> {
    /// How much is asked for.
    pub mode: SandboxMode,
    /// The directory that it reads templates from.
    pub templates: Option<&'a Path>,
    /// How it reaches its master.
    pub reach: Reach,
    /// A bound of its own memory (`RLIMIT_DATA`), in bytes; in force in every mode.
    pub memory: Option<u64>,
}

/// Why a sandbox that is required, or a bound of memory, is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxError(String);

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SandboxError {}

/// A process after the first step.
#[derive(Debug)]
pub struct Confined {
    #[cfg(all(feature = "sandbox", target_os = "linux"))]
    reach: Reach,
    sandbox: Sandbox,
    missing: Vec<String>,
}

/// Takes the first step.
///
/// # Errors
/// The mode is `require` and the kernel lacks a part; or there is no bound of memory to be had.
pub fn confine(plan: Plan<'_>) -> Result<Confined, SandboxError> {
    if let Some(bytes) = plan.memory {
        process::limit_memory(bytes)
            .map_err(|error| SandboxError(format!("--worker-memory: {error}")))?;
    }
    let sandbox = Sandbox {
        mode: plan.mode.as_str().to_owned(),
        landlock_status: "none".to_owned(),
        ..Sandbox::default()
    };
    let mut confined = Confined {
        #[cfg(all(feature = "sandbox", target_os = "linux"))]
        reach: plan.reach,
        sandbox,
        missing: Vec::new(),
    };
    if plan.mode != SandboxMode::Off {
        if let Err(what) = process::give_up() {
            confined.lacks(what)?;
        }
        confined.close_files(plan.templates)?;
    }
    Ok(confined)
}

/// For the master of workers in a sandbox: where Landlock does not keep them from its entry in
/// `/proc`, only root reads its memory, its environment or its descriptors there.
#[cfg(all(feature = "sandbox", target_os = "linux"))]
pub fn hide_from_workers() {
    if !files::can_be_restricted() {
        // It fails for no process that asks for itself.
        let _ = process::hide();
    }
}

/// Elsewhere nothing tells whether it is needed.
#[cfg(not(all(feature = "sandbox", target_os = "linux")))]
pub fn hide_from_workers() {}

impl Confined {
    #[cfg(all(feature = "sandbox", target_os = "linux"))]
    fn close_files(&mut self, templates: Option<&Path>) -> Result<(), SandboxError> {
        match files::restrict(templates, &self.reach) {
            Ok((abi, status)) => {
                self.sandbox.landlock_abi = abi;
                self.sandbox.landlock_status = status.to_owned();
                Ok(())
            }
            Err(what) => self.lacks(what),
        }
    }

    #[cfg(not(all(feature = "sandbox", target_os = "linux")))]
    fn close_files(&mut self, _: Option<&Path>) -> Result<(), SandboxError> {
        self.lacks("this binary was built without the sandbox (feature sandbox, Linux)".to_owned())
    }

    /// Takes the second step; returns what is in force, and what is missing from it.
    ///
    /// # Errors
    /// The mode is `require` and the kernel takes no filter.
    pub fn seal(mut self) -> Result<(Sandbox, Vec<String>), SandboxError> {
        if self.sandbox.mode != SandboxMode::Off.as_str() {
            self.filter_calls()?;
        }
        Ok((self.sandbox, self.missing))
    }

    #[cfg(all(feature = "sandbox", target_os = "linux"))]
    fn filter_calls(&mut self) -> Result<(), SandboxError> {
        match syscalls::filter(&self.reach) {
            Ok(()) => {
                self.sandbox.seccomp = true;
                Ok(())
            }
            Err(what) => self.lacks(what),
        }
    }

    /// What is missing is said already: the first step lacks the same.
    #[cfg(not(all(feature = "sandbox", target_os = "linux")))]
    fn filter_calls(&mut self) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Something is not in force: the end of a worker that requires it.
    fn lacks(&mut self, what: String) -> Result<(), SandboxError> {
        if self.sandbox.mode == SandboxMode::Require.as_str() {
            return Err(SandboxError(format!("--sandbox require: {what}")));
        }
        self.missing.push(what);
        Ok(())
    }
}
