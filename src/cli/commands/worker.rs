//! `mesophyll worker`: one worker process. The master starts these; on another host a person does.
//!
//! It ends on TERM, when its master goes (`--lifeline stdin`), when a newer worker took its id, or
//! when the master refuses it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::dispatch::worker_like::WorkerLike;
use crate::master::MadeRuntime;
use crate::master::config::{Mode, PoolConfig, RuntimeOptions, WorkerConfig};
use crate::net::link::LinkLimits;
use crate::pool::{Subscriptions, TOKEN_VARIABLE, WorkerDb, WorkerThread};
use crate::protocol::{ClientConfig, ClientEnd, MesophyllClient, MesophyllDbClient};
use crate::runtime::{TemplateRuntime, TenantDb};

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

/// Refuses to start a master whose workers could not run: threads of this program, or processes of
/// it, without Luau. What an operator starts, or names as the program of the workers, has its own.
pub(super) fn need_workers(config: &PoolConfig) -> Result<(), CliError> {
    let is_pool = config.mode == Mode::ProcessPool;
    if is_pool && (config.external_workers || config.worker_program.is_some()) {
        return Ok(());
    }
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

/// How runtimes are made, and where a broken one is reported.
#[derive(Clone)]
// Without Luau there is no runtime to make.
#[cfg_attr(not(feature = "luau"), allow(dead_code))]
struct RuntimePlan {
    options: RuntimeOptions,
    broken_tx: Sender<String>,
}

/// What `Master::start` makes the runtimes of a thread pool with; `broken_tx` is told when one of
/// them is broken.
pub(super) fn runtime_maker(
    config: &PoolConfig,
    broken_tx: Sender<String>,
) -> impl Fn(usize, Arc<dyn TenantDb>, Arc<Subscriptions>) -> io::Result<MadeRuntime> + use<> {
    let plan = RuntimePlan { options: config.runtime.clone(), broken_tx };
    move |id, db, subscriptions| start_runtime(&plan, &format!("luau{id}"), db, subscriptions)
}

#[cfg(feature = "luau")]
fn start_runtime(
    plan: &RuntimePlan,
    thread_prefix: &str,
    db: Arc<dyn TenantDb>,
    subscriptions: Arc<Subscriptions>,
) -> io::Result<Box<dyn TemplateRuntime>> {
    use crate::runtime::luau::{LuauConfig, LuauRuntime, OnBroken, TemplateSource};
    let RuntimePlan { options, broken_tx } = plan.clone();
    // A full channel holds such a message already.
    let on_broken = OnBroken(Arc::new(move |why| drop(broken_tx.try_send(why))));
    let config = LuauConfig {
        executors: options.executors,
        templates: options.templates.map_or(TemplateSource::BuiltIn, TemplateSource::Directory),
        reload: options.reload,
        vm_idle: options.vm_idle,
        max_vms: options.max_vms,
        thread_prefix: thread_prefix.to_owned(),
        on_broken,
        ..LuauConfig::default()
    };
    let runtime = LuauRuntime::start(config, db, subscriptions)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Box::new(runtime))
}

#[cfg(not(feature = "luau"))]
fn start_runtime(
    _: &RuntimePlan,
    _: &str,
    _: Arc<dyn TenantDb>,
    _: Arc<Subscriptions>,
) -> io::Result<Box<dyn TemplateRuntime>> {
    // `need_luau` and `need_workers` end every command before it comes here.
    Err(io::Error::other("this binary was built without Luau"))
}
