//! A worker's first step into its sandbox, and the way to its master that is left to it there.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::process_figures::ProcessFigures;
use crate::cli::CliError;
use crate::cli::console::lifeline::Lifeline;
use crate::master::config::{LifelineUse, WorkerConfig};
use crate::net::broker::{BROKER_STDIN, BROKER_VARIABLE, Broker};
use crate::protocol::Dial;
use crate::sandbox::{self, Confined, Plan, Reach};
use crate::wire::data::SandboxMode;

/// Between two attempts to look the master's name up: from the first, doubled, to the second.
const LOOK_UP_PAUSE_MIN: Duration = Duration::from_secs(1);
const LOOK_UP_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Tries the sandbox out, if it is required: what is taken away is for the rest of the process's
/// life.
///
/// # Errors
/// The kernel lacks a part.
pub(super) fn check(config: &WorkerConfig) -> Result<(), CliError> {
    if config.runtime.sandbox == SandboxMode::Require {
        confine(config, &Dial::from(&*config.master))?.seal().map_err(config_error)?;
    }
    Ok(())
}

/// The way to the master: through the broker at the other end of stdin, if there is one.
///
/// # Errors
/// There is no stdin; or it ended before the master's name was known, which could not be looked up
/// in the sandbox.
pub(super) fn dial(config: &WorkerConfig) -> Result<(Dial, Option<Arc<Broker>>), CliError> {
    let is_handed_out = std::env::var_os(BROKER_VARIABLE).is_some_and(|way| way == BROKER_STDIN);
    if config.lifeline == LifelineUse::Stdin && is_handed_out {
        let broker = Lifeline::broker().map_err(config_error)?;
        return Ok((Dial::Broker(broker.clone()), Some(broker)));
    }
    let dial = Dial::from(&*config.master);
    let dial = match &config.tls {
        None => dial,
        // Before there is a sandbox, in which no file can be read.
        Some(tls) => Dial::Tls(Box::new(dial), tls.read().map_err(config_error)?),
    };
    if config.runtime.sandbox == SandboxMode::Off {
        return Ok((dial, None));
    }
    Ok((find(dial, config.lifeline.has_owner())?, None))
}

/// The master by the addresses that its name has: a host may start its workers before it has a
/// network.
///
/// # Blocks
/// Until the name is known. A signal ends the process meanwhile.
///
/// # Errors
/// The lifeline was cut.
fn find(dial: Dial, has_lifeline: bool) -> Result<Dial, CliError> {
    let stdin = std::io::stdin();
    let mut waited = Vec::new();
    if has_lifeline {
        // Only its end.
        waited.push(PollFd::new(&stdin, PollFlags::empty()));
    }
    let mut pause = LOOK_UP_PAUSE_MIN;
    loop {
        match dial.clone().found() {
            Ok(found) => return Ok(found),
            Err(error) => log::warn!("master {dial}: {error}"),
        }
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: 0 };
        if poll(&mut waited, Some(&timeout)).is_ok_and(|ended| ended > 0) {
            return Err(config_error("the master is gone"));
        }
        pause = (pause * 2).min(LOOK_UP_PAUSE_MAX);
    }
}

/// Takes the first step. Called before there is another thread.
///
/// # Errors
/// The sandbox is required and the kernel lacks a part of it; or `--worker-memory` is not to be
/// had.
pub(super) fn confine(config: &WorkerConfig, dial: &Dial) -> Result<Confined, CliError> {
    let port = config.master.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let reach = match (dial, dial.unix_path()) {
        (Dial::Broker(_), _) => Reach::Broker,
        (_, Some(path)) => Reach::Unix(path.to_owned()),
        // The address was checked, and has a port.
        _ => Reach::Tcp(port.unwrap_or_default()),
    };
    // For its figures: what they need from outside of `/proc/self` is read now.
    ProcessFigures::read();
    let (mode, memory) = (config.runtime.sandbox, config.runtime.memory);
    let templates = config.runtime.templates.as_deref();
    sandbox::confine(Plan { mode, templates, reach, memory }).map_err(config_error)
}

/// What is wrong with the configuration, or with what it is to run on.
pub(super) fn config_error(error: impl std::fmt::Display) -> CliError {
    CliError::config(error.to_string())
}
