//! What a worker process runs, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never, select, tick};

use crate::dispatch::worker_like::WorkerLike;
use crate::master::config::{LifelineUse, WorkerConfig, host_name};
use crate::net::lifeline::Sign;
use crate::net::link::LinkLimits;
use crate::pool::{Subscriptions, WorkerDb, WorkerThread};
use crate::protocol::{ClientConfig, ClientEnd, MesophyllClient, MesophyllDbClient, Outbox};
use crate::wire::data::SandboxMode;

use super::certificate::OwnCertificate;
use super::confine::{config_error, confine, dial};
use super::token;
use crate::cli::CliError;
use crate::cli::commands::runtimes::start_runtime;
use crate::cli::console::lifeline::{LastGrace, Lifeline};
use crate::cli::console::logging;
use crate::cli::console::signals::{ProcessSignal, Signals};
use crate::cli::parse::environment;

/// How often a hosted worker says that it lives.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// How often it looks at its certificate.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(5);

/// Serves the master until something ends the worker.
///
/// # Errors
/// It cannot start, its master refuses it, or a bug ended it.
pub(super) fn serve(config: &WorkerConfig) -> Result<(), CliError> {
    // A master starts its workers by a descriptor, whose number would be the name in `ps` and
    // `top`.
    let _ = std::fs::write("/proc/self/comm", "mesophyll");
    let token = token()?;
    logging::init(config.log, config.log_format, "worker", Some(config.id));
    // While every system call can be made.
    let host = host_name();
    let (dial, broker) = dial(config)?;
    let confined = confine(config, &dial)?;
    environment::log_unknown();
    let has_owner = config.lifeline.has_owner();
    let lifeline = if has_owner { Lifeline::watch(broker) } else { Ok(Lifeline::none()) };
    let lifeline = lifeline.map_err(config_error)?;

    let subscriptions = Arc::new(Subscriptions::new(config.default_events.clone()));
    let db_client = MesophyllDbClient::over(&dial, config.id, &token);
    let outbox = Outbox::default();
    let db = Arc::new(WorkerDb::mesophyll(db_client, outbox.clone()));
    let (broken_tx, broken_rx) = bounded(1);
    let runtime =
        start_runtime(&config.runtime, "luau", broken_tx, db.clone(), subscriptions.clone())
            .map_err(|error| CliError::config(format!("templates: {error}")))?;
    let worker = Arc::new(WorkerThread::new(
        config.id,
        runtime,
        config.runtime.executors as u64,
        subscriptions,
        db.clone(),
    ));
    // Not before: until something reads them, a signal is to end the process, whatever the start
    // waits for.
    let signals = Signals::install().map_err(config_error)?;
    // All that needs more than the sandbox leaves stands, and no code of a tenant was loaded yet.
    let (sandbox, missing) = confined.seal().map_err(config_error)?;
    missing.iter().for_each(|what| log::info!("sandbox: {what}"));
    let certificate = OwnCertificate::new(dial.tls());
    let client = ClientConfig {
        master: dial,
        worker_id: config.id,
        workers: config.workers,
        token,
        link_limits: LinkLimits::default(),
        sandbox: Some(sandbox),
        host,
        outbox,
    };
    let client = MesophyllClient::start(client, worker.clone()).map_err(config_error)?;
    let ended = wait(&client, &signals, &lifeline, &broken_rx, config, &certificate);
    // An executor that hangs may be why it is to end.
    let _last_grace = LastGrace::begin();
    client.leave();
    // It records the last errors of templates, and ends what is under way to the database: the
    // client's thread may wait for such a call.
    worker.kill();
    client.stop();
    ended
}

fn wait(
    client: &MesophyllClient,
    signals: &Signals,
    lifeline: &Lifeline,
    broken_rx: &Receiver<String>,
    config: &WorkerConfig,
    certificate: &OwnCertificate,
) -> Result<(), CliError> {
    let (used, is_confined) = (config.lifeline, config.runtime.sandbox != SandboxMode::Off);
    let is_hosted = used == LifelineUse::Host;
    let certificate_rx = tick(CERTIFICATE_EVERY);
    let signs_rx = if is_hosted { tick(SIGN_EVERY) } else { never() };
    loop {
        if is_hosted {
            lifeline.say(if client.is_ready() { Sign::Linked } else { Sign::Alone });
        }
        select! {
            recv(client.ended_rx()) -> end => return match end {
                Ok(ClientEnd::Refused(why)) => Err(CliError::config(why)),
                Ok(ClientEnd::Replaced) => {
                    log::warn!("a newer worker has taken this id; ending");
                    // Its host is not to fight for it at full speed.
                    let taken = || CliError::gave_up("a newer worker has taken this id");
                    if is_hosted { Err(taken()) } else { Ok(()) }
                }
                Ok(ClientEnd::Stopped) => Ok(()),
                Ok(ClientEnd::Moved) => {
                    log::warn!("the addresses that the master's name had do not answer; ending");
                    Ok(())
                }
                Ok(ClientEnd::Retired) => Ok(()),
                Err(_) => Err(CliError::bug("the thread client has ended by a panic")),
            },
            recv(signals.received_rx()) -> signal => match signal {
                // Ctrl-C in the master's terminal reaches its workers too; the master says when
                // they end.
                Ok(ProcessSignal::Interrupt) if used.has_owner() => {}
                Ok(ProcessSignal::HangUp) => {}
                _ => return Ok(()),
            },
            // The master starts another one. (The other end lives as long as the runtime.)
            recv(broken_rx) -> why => return Err(CliError::bug(why.unwrap_or_default())),
            recv(signs_rx) -> _ => {}
            recv(certificate_rx) -> _ => if certificate.look() && is_confined {
                log::warn!("a new certificate cannot be read in the sandbox: ending, to start anew");
                client.retire();
            },
            recv(lifeline.wishes_rx()) -> wish => match wish {
                Ok(()) => client.retire(),
                Err(_) => {
                    log::warn!("the master is gone; ending");
                    return Ok(());
                }
            },
        }
    }
}
