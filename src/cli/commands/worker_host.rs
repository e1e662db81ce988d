//! `mesophyll worker-host`: several workers of a master on another machine, kept running.

use std::time::Instant;

use crossbeam_channel::select;

use super::luau::{check_templates, hide_from_processes, need_luau};
use super::master::{roll, seen_loops, stop_by};
use crate::cli::console::signals::{ProcessSignal, Signals};
use crate::cli::console::systemd::ServiceManager;
use crate::cli::console::{logging, output};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::config_values::of_host;
use crate::cli::parse::environment;
use crate::cli::parse::look::{self, LOOK};
use crate::cli::parse::pool_options::{SUPERVISION, WORKER_MASTER, WORKER_SIDE};
use crate::cli::{CliError, Command};
use crate::master::WorkerHost;
use crate::master::config::HostConfig;
use crate::pool::Program;

pub(in crate::cli) const COMMAND: Command = Command {
    name: "worker-host",
    usage: "--master ADDR --ids LIST --workers N --worker-tokens FILE [OPTIONS]",
    about: "run several workers of a master on another machine",
    options: &[
        &[
            OptionSpec::value("ids", "LIST", "numbers of the workers to run here, such as 0-3,6"),
            OptionSpec::value("worker-tokens", "FILE", "the tokens of exactly these workers"),
            OptionSpec::value(
                "worker-program",
                "PATH",
                "what is started as a worker (default: this program)",
            ),
        ],
        WORKER_MASTER,
        SUPERVISION,
        WORKER_SIDE,
        LOOK,
    ],
    examples: &[
        "mesophyll worker-host --master tls:master.example:7450 --tls-ca ca.pem --ids 0-3 --workers 8 --worker-tokens tokens.json",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let config = HostConfig::from_options(args)?;
    if look::is_asked(args) {
        return look::report(args, &COMMAND, &of_host(&config), &[], || {
            need_program(&config)?;
            check_templates(config.worker.runtime.templates.as_deref())?;
            Ok(WorkerHost::check(&config)?)
        });
    }
    need_program(&config)?;
    logging::init(config.worker.log, config.worker.log_format, "worker-host", None);
    environment::log_unknown();
    let program = WorkerHost::program(&config)?;
    let program = program.map_or_else(Program::own, |path| Ok(Program::at(&path)));
    let program = program.map_err(|error| CliError::config(error.to_string()))?;
    hide_from_processes(config.worker.runtime.sandbox);
    let host = WorkerHost::start(&config, &program)?;
    let signals = Signals::install().map_err(|error| CliError::config(error.to_string()))?;
    output::print(&ready_line(&config))?;
    let mut service = ServiceManager::from_environment();
    let ended = wait(&host, &signals, &mut service);
    service.tell_stopping();
    let operator = host.operator().clone();
    stop_by(
        Instant::now() + config.stop_timeout,
        &operator,
        &signals,
        0,
        move |deadline, progress| {
            progress("stopping the workers");
            host.stop(deadline);
        },
    );
    ended
}

/// The workers are processes of this program, unless another one is named.
fn need_program(config: &HostConfig) -> Result<(), CliError> {
    if config.worker_program.is_some() { Ok(()) } else { need_luau() }
}

fn ready_line(config: &HostConfig) -> String {
    let ids: Vec<String> = config.ids.iter().map(usize::to_string).collect();
    format!(
        "{{\"ready\":true,\"ids\":[{}],\"workers\":{},\"pid\":{}}}",
        ids.join(","),
        config.worker.workers,
        std::process::id()
    )
}

/// Waits until something ends the host.
fn wait(
    host: &WorkerHost,
    signals: &Signals,
    service: &mut ServiceManager,
) -> Result<(), CliError> {
    let look_rx = service.look_rx();
    loop {
        service.tell(|| seen_loops(host.operator()));
        select! {
            recv(signals.received_rx()) -> signal => match signal {
                Ok(ProcessSignal::HangUp) => roll(host.operator(), service),
                Ok(signal) => {
                    log::info!("stopping: {signal:?}");
                    return Ok(());
                }
                Err(_) => return Err(CliError::gave_up("the signal thread ended")),
            },
            recv(host.changes_rx()) -> _ => {
                if let Some(why) = host.given_up() {
                    return Err(why.into());
                }
            },
            recv(look_rx) -> _ => {}
        }
    }
}
