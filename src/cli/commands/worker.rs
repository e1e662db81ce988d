//! `mesophyll worker`: one worker process. The master starts these; on another host a person does.
//!
//! It ends on TERM, when its master goes (`--lifeline stdin`), when a newer worker took its id, or
//! when the master refuses it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, select};

use crate::dispatch::worker_like::WorkerLike;
use crate::master::config::WorkerConfig;
use crate::net::link::LinkLimits;
use crate::pool::{Subscriptions, TOKEN_VARIABLE, WorkerDb, WorkerThread};
use crate::protocol::{ClientConfig, ClientEnd, MesophyllClient, MesophyllDbClient};

use super::luau::{check_templates, need_luau};
use super::runtimes::{RuntimePlan, start_runtime};
use crate::cli::console::lifeline::Lifeline;
use crate::cli::console::logging;
use crate::cli::console::signals::{ProcessSignal, Signals};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::config_values::of_worker;
use crate::cli::parse::environment;
use crate::cli::parse::look::{self, LOOK, SecretState};
use crate::cli::parse::pool_options::WORKER_SIDE;
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "worker",
    usage: "--id I --workers N --master ADDR [OPTIONS]",
    about: "run one worker process; its token is in MESOPHYLL_CLIENT_TOKEN",
    options: &[
        &[
            OptionSpec::value("id", "I", "this worker's number, from 0"),
            OptionSpec::value("workers", "N", "how many workers the master has"),
            OptionSpec::value(
                "master",
                "ADDR",
                "the master's worker-facing address, host:port; or unix:PATH",
            ),
            OptionSpec::value(
                "lifeline",
                "stdin",
                "end when stdin ends, which is when the master does",
            ),
        ],
        WORKER_SIDE,
        LOOK,
    ],
    examples: &[
        "MESOPHYLL_CLIENT_TOKEN=… mesophyll worker --id 0 --workers 2 --master 10.0.0.1:7450",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    if let Some(extra) = args.positional.first() {
        return Err(CliError::usage(format!("unexpected {extra:?}")));
    }
    let config = WorkerConfig::from_options(args)?;
    if look::is_asked(args) {
        let token_state = SecretState { variable: TOKEN_VARIABLE, if_unset: "missing" };
        return look::report(args, &COMMAND, &of_worker(&config), &[token_state], || {
            need_luau()?;
            token()?;
            check_templates(config.runtime.templates.as_deref())
        });
    }
    need_luau()?;
    // A master starts its workers by a descriptor, whose number would be the name in `ps` and
    // `top`.
    let _ = std::fs::write("/proc/self/comm", "mesophyll");
    let token = token()?;
    logging::init(config.log, config.log_format, "worker", Some(config.id));
    environment::log_unknown();
    let lifeline = if config.lifeline { Lifeline::watch() } else { Ok(Lifeline::none()) };
    let lifeline = lifeline.map_err(|error| CliError::config(error.to_string()))?;

    let subscriptions = Arc::new(Subscriptions::new(config.default_events.clone()));
    let db_client = MesophyllDbClient::new(&config.master, config.id, &token);
    let db = Arc::new(WorkerDb::mesophyll(db_client));
    let (broken_tx, broken_rx) = bounded(1);
    let plan = RuntimePlan { options: config.runtime.clone(), broken_tx };
    let runtime = start_runtime(&plan, "luau", db.clone(), subscriptions.clone())
        .map_err(|error| CliError::config(format!("templates: {error}")))?;
    let worker = Arc::new(WorkerThread::new(
        config.id,
        runtime,
        config.runtime.executors as u64,
        subscriptions,
        db.clone(),
    ));
    let client = ClientConfig {
        master: config.master.clone(),
        worker_id: config.id,
        workers: config.workers,
        token,
        link_limits: LinkLimits::default(),
    };
    // Not before: until something reads them, a signal is to end the process, whatever the start
    // waits for.
    let signals = Signals::install().map_err(|error| CliError::config(error.to_string()))?;
    let client = MesophyllClient::start(client, worker.clone())
        .map_err(|error| CliError::config(error.to_string()))?;
    let ended = wait(&client, &signals, &lifeline, &broken_rx, config.lifeline);
    // First what others may be waiting in: a database call must not hold up the threads that are
    // joined next.
    db.close();
    client.stop();
    worker.kill();
    ended
}

/// This worker's token.
fn token() -> Result<String, CliError> {
    let given = std::env::var_os(TOKEN_VARIABLE).ok_or_else(|| {
        CliError::config(format!("{TOKEN_VARIABLE} is not set: a worker needs its token"))
    })?;
    // It is part of a URL, which the error of a later request could not name without it.
    let is_token = |token: &String| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    // As of a file that it was read from.
    let token = given.into_string().ok().map(|token| token.trim().to_owned()).filter(is_token);
    token
        .ok_or_else(|| CliError::config(format!("{TOKEN_VARIABLE}: a token is letters and digits")))
}

fn wait(
    client: &MesophyllClient,
    signals: &Signals,
    lifeline: &Lifeline,
    broken_rx: &Receiver<String>,
    has_master: bool,
) -> Result<(), CliError> {
    loop {
        select! {
            recv(client.ended_rx()) -> end => return match end {
                Ok(ClientEnd::Refused(why)) => Err(CliError::config(why)),
                Ok(ClientEnd::Replaced) => {
                    log::warn!("a newer worker has taken this id; ending");
                    Ok(())
                }
                Ok(ClientEnd::Stopped) => Ok(()),
                Err(_) => Err(CliError::bug("the thread client has ended by a panic")),
            },
            recv(signals.received_rx()) -> signal => match signal {
                // Ctrl-C in the master's terminal reaches its workers too; the master says when
                // they end.
                Ok(ProcessSignal::Interrupt) if has_master => {}
                Ok(ProcessSignal::HangUp) => {}
                _ => return Ok(()),
            },
            // The master starts another one. (The other end lives as long as the runtime.)
            recv(broken_rx) -> why => return Err(CliError::bug(why.unwrap_or_default())),
            recv(lifeline.cut_rx()) -> _ => {
                log::warn!("the master is gone; ending");
                return Ok(());
            }
        }
    }
}
