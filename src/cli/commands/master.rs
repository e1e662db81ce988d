//! `mesophyll master`: runs the master until a signal or its supervisors end it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select, tick};

use crate::master::config::{PoolConfig, PoolDefaults};
use crate::master::{Master, worker_program};
use crate::net::stream::tls::CertificateFiles;
use crate::pool::process::supervisor::State;
use crate::pool::{Operator, Program};

use super::luau::{hide_from_workers, need_workers, threads};
use crate::cli::console::signals::{ProcessSignal, Signals};
use crate::cli::console::systemd::{SeenLoops, ServiceManager};
use crate::cli::console::{logging, output};
use crate::cli::parse::api_options::{api_config, api_secret, check_pool};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::config_values::of_pool;
use crate::cli::parse::environment;
use crate::cli::parse::look::{self, LOOK};
use crate::cli::parse::pool_options::{CLUSTER, PLACES, POOL, SUPERVISION, WORKER_SIDE};
use crate::cli::{CliError, Command};

/// Limit: how long a stop may take beyond `--stop-timeout`: for KILL, and what follows the end of a
/// worker.
const LAST_GRACE: Duration = Duration::from_secs(15);

/// A supervision loop comes round every second; one that has not for so long hangs.
const SUPERVISED_WITHIN: Duration = Duration::from_secs(10);

/// How often is looked whether the ports' certificates have changed.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(30);

/// The exit code of a stop that hung: what hangs is the store, in the cases that are known.
const EXIT_STUCK: i32 = 4;

pub(in crate::cli) const COMMAND: Command = Command {
    name: "master",
    usage: "[OPTIONS]",
    about: "run the master and its workers",
    options: &[
        PLACES,
        POOL,
        SUPERVISION,
        WORKER_SIDE,
        &[
            OptionSpec::switch(
                "external-workers",
                "start no worker process; somebody else starts them",
            ),
            OptionSpec::value(
                "worker-tokens",
                "FILE",
                "the workers' tokens; written with fresh ones if it does not exist",
            ),
            OptionSpec::value(
                "worker-program",
                "PATH",
                "what is started as a worker (default: this program)",
            ),
        ],
        CLUSTER,
        LOOK,
    ],
    examples: &[
        "mesophyll master",
        "mesophyll master --workers 4 --store redb:/var/lib/mesophyll/tenants.redb --templates ./templates",
        "mesophyll master --workers 4 --check-config --print-config",
        "mesophyll master --external-workers --worker-tokens tokens.json --listen 127.0.0.1:7450",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let config = PoolConfig::from_options(args, PoolDefaults::MASTER)?;
    if look::is_asked(args) {
        return look::report(args, &COMMAND, &of_pool(&config), &[api_secret(&config)], || {
            need_workers(&config)?;
            check_pool(args, &config)
        });
    }
    need_workers(&config)?;
    logging::init(config.log, config.log_format, "master", None);
    environment::log_unknown();
    let program = worker_program(&config)?.map_or_else(Program::own, |path| Ok(Program::at(&path)));
    let program = program.map_err(|error| CliError::config(error.to_string()))?;
    let api = api_config(args, &config)?;
    hide_from_workers(&config);
    let (broken_tx, broken_rx) = bounded(1);
    let master = Master::start(&config, api, &program, &*threads(&config, broken_tx))?;
    // Not before: until something reads them, a signal is to end the process, whatever the start
    // waits for.
    let signals = Signals::install().map_err(|error| CliError::config(error.to_string()))?;
    output::print(&ready_line(&master, &config))?;
    let mut service = ServiceManager::from_environment();
    let ended = wait(&master, &signals, &broken_rx, &mut service);
    service.tell_stopping();
    stop(master, Instant::now() + config.stop_timeout, &signals, 0);
    ended
}

/// The one line on stdout (README.md), with its keys in the order in which the contract shows them.
fn ready_line(master: &Master, config: &PoolConfig) -> String {
    // An address needs no escapes.
    let or_null = |address: Option<SocketAddr>| {
        address.map_or("null".to_owned(), |address| format!("\"{address}\""))
    };
    // Neither does a name.
    let cluster = config.cluster.cluster.as_ref().map_or(String::new(), |cluster| {
        format!(",\"cluster\":\"{cluster}\",\"name\":\"{}\"", config.cluster.master_name())
    });
    let of = |files: &Option<CertificateFiles>, key: &str| {
        files.as_ref().map_or(String::new(), |_| format!(",\"{key}\":true"))
    };
    let tls = of(&config.tls.listen, "listen_tls") + &of(&config.tls.api, "api_tls");
    format!(
        "{{\"ready\":true,\"listen\":{},\"api\":{},\"workers\":{},\"pid\":{}{cluster}{tls}}}",
        or_null(master.listen_addr()),
        or_null(master.api_addr()),
        config.workers,
        std::process::id()
    )
}

/// Waits until something ends the master.
fn wait(
    master: &Master,
    signals: &Signals,
    broken_rx: &Receiver<String>,
    service: &mut ServiceManager,
) -> Result<(), CliError> {
    let mut broken_rx = broken_rx.clone();
    let look_rx = service.look_rx();
    let certificates_rx = tick(CERTIFICATES_EVERY);
    loop {
        service.tell(|| seen_loops(master.operator()));
        select! {
            recv(signals.received_rx()) -> signal => match signal {
                Ok(ProcessSignal::HangUp) => {
                    master.look_at_certificates(true);
                    roll(master.operator(), service);
                }
                Ok(signal) => {
                    log::info!("stopping: {signal:?}");
                    return Ok(());
                }
                Err(_) => return Err(CliError::gave_up("the signal thread ended")),
            },
            recv(broken_rx) -> why => match why {
                Ok(why) => return Err(CliError::bug(why)),
                // In process-pool mode no other end is held.
                Err(_) => broken_rx = never(),
            },
            recv(master.changes_rx()) -> _ => {
                if let Some(why) = master.given_up() {
                    return Err(why.into());
                }
            },
            recv(certificates_rx) -> _ => master.look_at_certificates(false),
            recv(look_rx) -> _ => {}
        }
    }
}

/// Begins what SIGHUP asks for.
pub(super) fn roll(operator: &Operator, service: &mut ServiceManager) {
    match operator.roll() {
        Ok(()) => log::info!("SIGHUP: the workers are restarted, one at a time"),
        Err(error) => {
            log::error!("SIGHUP: no rolling restart: {error}");
            service.tell_refused_reload();
        }
    }
}

/// What the service manager is told of.
pub(super) fn seen_loops(operator: &Operator) -> SeenLoops {
    let reports = operator.reports();
    let count = |is_counted: fn(State) -> bool| {
        reports.iter().filter(|report| is_counted(report.state)).count()
    };
    let rolling = operator.rolling();
    SeenLoops {
        ready: count(|state| state == State::Ready),
        wanted: count(|state| !matches!(state, State::Failed | State::Stopped)),
        rolls: rolling.number,
        is_rolling: rolling.is_running,
        is_supervised: operator.is_supervised(SUPERVISED_WITHIN),
    }
}

/// Stops gracefully; see [`stop_by`].
pub(in crate::cli) fn stop(master: Master, deadline: Instant, signals: &Signals, code: i32) {
    let operator = Arc::clone(master.operator());
    stop_by(deadline, &operator, signals, code, |deadline, progress| {
        master.stop(deadline, progress);
    });
}

/// Stops gracefully; a signal meanwhile ends the process at once, and the workers with it by their
/// lifelines. So does a stop that hangs: a store on a disk that does not answer cannot be closed.
/// What was acknowledged is safe all the same.
pub(super) fn stop_by(
    stop_by: Instant,
    operator: &Operator,
    signals: &Signals,
    code: i32,
    stop: impl FnOnce(Instant, &dyn Fn(&'static str)) + Send + 'static,
) {
    let (step_tx, step_rx) = crossbeam_channel::unbounded::<&'static str>();
    let stopping = crate::base::thread::spawn("stop", move || {
        stop(stop_by, &|step| {
            log::info!("stopping: {step}");
            // Its other end lives until this thread has ended.
            let _ = step_tx.send(step);
        });
    });
    let Ok(stopping) = stopping else { return };
    let mut current = "";
    loop {
        let patience = (stop_by + LAST_GRACE).saturating_duration_since(Instant::now());
        select! {
            recv(step_rx) -> step => match step {
                Ok(step) => current = step,
                Err(_) => {
                    stopping.join();
                    return;
                }
            },
            recv(signals.received_rx()) -> signal => {
                if signal != Ok(ProcessSignal::HangUp) {
                    log::warn!("stopping at once");
                    operator.log_abandoned();
                    std::process::exit(code);
                }
            }
            default(patience) => {
                log::error!("stopping at once: still {current} long after --stop-timeout");
                operator.log_abandoned();
                std::process::exit(EXIT_STUCK);
            }
        }
    }
}
