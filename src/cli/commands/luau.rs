//! Whether this binary can run templates, which are Luau: what a command refuses before it starts
//! anything.

use std::path::Path;

#[cfg(not(feature = "luau"))]
use crossbeam_channel::Sender;

use crate::cli::CliError;
use crate::master::config::{Mode, PoolConfig};
#[cfg(not(feature = "luau"))]
use crate::master::{MasterError, StartThreads};
use crate::wire::data::SandboxMode;

#[cfg(feature = "luau")]
pub(super) use super::runtimes::threads;

/// Refuses to go on in a binary without a runtime (docs/options.md: exit code 3).
pub(super) fn need_luau() -> Result<(), CliError> {
    if cfg!(feature = "luau") {
        Ok(())
    } else {
        Err(CliError::config(
            "this binary was built without Luau; build it with the feature luau (a C++ compiler)",
        ))
    }
}

/// Hides a master from the workers that it is to start, if they are to run in a sandbox.
pub(super) fn hide_from_workers(config: &PoolConfig) {
    let starts_workers = config.mode == Mode::ProcessPool && !config.external_workers;
    if starts_workers {
        hide_from_processes(config.runtime.sandbox);
    }
}

/// Hides this process from workers that it starts, if they are to run in a sandbox.
pub(super) fn hide_from_processes(sandbox: SandboxMode) {
    if sandbox != SandboxMode::Off {
        #[cfg(feature = "sandbox")]
        crate::sandbox::hide_from_workers();
    }
}

/// Refuses to start a master whose workers could not run: threads of this program, or processes of
/// it, without Luau. What an operator starts, or names as the program of the workers, has its own.
pub(super) fn need_workers(config: &PoolConfig) -> Result<(), CliError> {
    let is_pool = config.mode == Mode::ProcessPool;
    if is_pool && (config.external_workers || config.worker_program.is_some()) {
        return Ok(());
    }
    need_processes_to_confine(config)?;
    need_luau().map_err(|error| {
        if !is_pool {
            return error;
        }
        CliError::config(
            "this binary was built without Luau, so it cannot be its own worker; \
             name one that was built with it: --worker-program PATH",
        )
    })
}

/// Refuses threads where a sandbox is required.
pub(super) fn need_processes_to_confine(config: &PoolConfig) -> Result<(), CliError> {
    if config.mode == Mode::ProcessPool || config.runtime.sandbox != SandboxMode::Require {
        return Ok(());
    }
    Err(CliError::config(
        "--sandbox require: with --mode thread-pool the workers are threads of the master, \
         which cannot be confined",
    ))
}

/// Whether a runtime has something to run with these templates. It would start without; but a
/// person who asks before a start wants to know.
///
/// # Errors
/// They cannot be read, or do not compile.
#[cfg(feature = "luau")]
pub(in crate::cli) fn check_templates(directory: Option<&Path>) -> Result<(), CliError> {
    let Some(directory) = directory else { return Ok(()) };
    let wrong =
        |what: String| CliError::config(format!("--templates {}: {what}", directory.display()));
    let findings =
        crate::runtime::luau::check(directory).map_err(|error| wrong(error.to_string()))?;
    let broken = findings.iter().filter(|finding| finding.is_fatal).map(ToString::to_string);
    let broken: Vec<String> = broken.collect();
    if broken.is_empty() { Ok(()) } else { Err(wrong(broken.join("\n"))) }
}

/// Without Luau only the worker's own program can tell.
#[cfg(not(feature = "luau"))]
pub(in crate::cli) fn check_templates(_: Option<&Path>) -> Result<(), CliError> {
    Ok(())
}

/// `need_workers` ends every command before it comes to that.
#[cfg(not(feature = "luau"))]
pub(super) fn threads(_: &PoolConfig, _: Sender<String>) -> Box<StartThreads> {
    Box::new(|_, _, _, _, _| {
        Err(MasterError::Config("this binary was built without Luau".to_owned()))
    })
}
