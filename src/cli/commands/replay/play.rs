//! The run of a replay: the main thread dispatches and prints; up to `--in-flight` events are under
//! way at once. `input` reads.

mod input;
mod line;
mod results;
mod summary;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select};
use log::LevelFilter;

use crate::base::error::DispatchError;
use crate::base::escape;
use crate::base::limits::MESSAGE_MAX_BYTES;
use crate::dispatch::worker_like::{WorkerLike, no_worker_in_time};
use crate::dispatch::{Answer, Cancelled, DispatchResult, Job, Request, RequestId};
use crate::master::config::{LogFormat, PoolConfig};
use crate::master::{GivenUp, Master};
use crate::pool::Program;
use crate::store::masked;
use crate::wire::data::TenantId;

use super::bad_input;
use crate::cli::CliError;
use crate::cli::commands::luau::hide_from_workers;
use crate::cli::commands::master::stop;
use crate::cli::commands::runtimes::threads;
use crate::cli::console::signals::{ProcessSignal, Signals};
use crate::cli::console::{logging, output};
use crate::cli::parse::api_options::api_config;
use crate::cli::parse::args::Args;
use crate::cli::parse::environment;
use input::{InputLine, ReplayInput};
use line::{RefusedLine, ReplayEvent, parse};
use results::{ReplayProgress, as_json, result_line};
use summary::ReplaySummary;

/// How long to wait where nothing has a deadline.
const LONG: Duration = Duration::from_secs(3600);

/// Limit: with so many bytes of lines under way no more are read, however few the lines are: what
/// waits for a worker that is still starting, or for its link, is bounded too, and an event beyond
/// that would be refused as `busy`.
const WINDOW_BYTES: usize = MESSAGE_MAX_BYTES;

/// The exit code of a replay that a second signal ended at once.
const EXIT_STOPPED: i32 = 1;

/// Dispatches what a file has, and prints the results.
///
/// # Errors
/// Why it ended early, or that some event failed.
pub(super) fn play(
    args: &Args,
    mut config: PoolConfig,
    path: &str,
    repeat: usize,
    in_flight: usize,
) -> Result<(), CliError> {
    let input = ReplayInput::open(path, repeat).map_err(|error| bad_input(path, &error))?;
    start_log(args, &mut config);
    environment::log_unknown();
    let program = Program::own().map_err(|error| CliError::config(error.to_string()))?;
    let (broken_tx, broken_rx) = bounded(1);
    let api = api_config(args, &config)?;
    hide_from_workers(&config);
    let master = Master::start(&config, api, &program, &*threads(&config, broken_tx))?;
    // Not before: until something reads them, a signal is to end the process, whatever the start
    // waits for.
    let signals = Signals::install().map_err(|error| CliError::config(error.to_string()))?;
    output::tell(&writes_to(&master, &config, args.ignored()));
    let mut replay = Replay::new(&master, &config, in_flight, &signals, broken_rx);
    let outcome = replay.run(&input);
    let summary = replay.summary;
    summary.print(&master, &config);
    stop(master, Instant::now() + config.stop_timeout, &signals, EXIT_STOPPED);
    match outcome {
        Err(Stop::ClosedStdout) => Ok(()),
        Err(Stop::Signal) => Err(CliError::failed("stopped by a signal")),
        Err(Stop::Input(error)) => Err(bad_input(path, &error)),
        Err(Stop::Output(error)) => Err(CliError::failed(format!("stdout: {error}"))),
        Err(Stop::Broken(why)) => Err(CliError::bug(why)),
        Err(Stop::GaveUp(why)) => Err(why.into()),
        // The result lines and the summary have said what failed.
        Ok(()) if summary.failures() > 0 => Err(CliError::failed("")),
        Ok(()) => Ok(()),
    }
}

/// Starts the log. Where no level is asked for it has what scripts print, and of all else what is
/// amiss.
fn start_log(args: &Args, config: &mut PoolConfig) {
    let others = config.log;
    if config.log_format == LogFormat::Json {
        return logging::init(others, LogFormat::Json, "replay", None);
    }
    if args.get("log").is_none() {
        // The workers log as much; what they say of themselves is left out here.
        config.log = LevelFilter::Info;
    }
    logging::init_for_scripts(config.log, others);
}

/// The line that says where a replay writes, and what does not count for it.
fn writes_to(master: &Master, config: &PoolConfig, ignored: &[String]) -> String {
    let kept = if config.store == "memory:" { " (gone at the end)" } else { "" };
    let api = master.api_addr().map(|api| format!("; its internal API: {api}")).unwrap_or_default();
    let ignored = match ignored {
        [] => String::new(),
        some => format!("; {} set for a master, only flags count here", some.join(", ")),
    };
    format!("this replay writes to {}{kept}{api}{ignored}", masked(&config.store))
}

/// Why a replay ended before its input did.
enum Stop {
    ClosedStdout,
    Signal,
    GaveUp(GivenUp),
    Broken(String),
    Input(io::Error),
    Output(io::Error),
}

struct Replay<'m> {
    master: &'m Master,
    pool: Arc<dyn WorkerLike>,
    deadline: Duration,
    /// How long what is under way may take after a signal.
    patience: Duration,
    in_flight: usize,
    /// Lines that were read and not printed, the oldest first.
    window: VecDeque<ReplayedLine>,
    /// How long they are together.
    window_bytes: usize,
    signals: &'m Signals,
    broken_rx: Receiver<String>,
    /// Why no more lines are read, other than the end of the input; and until when what is under
    /// way is waited for.
    stopped: Option<Stop>,
    give_up_at: Option<Instant>,
    summary: ReplaySummary,
    progress: ReplayProgress,
}

/// An input line whose result has not been printed.
struct ReplayedLine {
    number: u64,
    bytes: usize,
    about: Option<(TenantId, String)>,
    started: Instant,
    outcome: EventOutcome,
}

enum EventOutcome {
    /// There is a result, since then.
    Done(DispatchResult, Instant),
    Waiting(WaitingEvent),
}

struct WaitingEvent {
    request_id: RequestId,
    tenant: TenantId,
    answer_rx: Receiver<(DispatchResult, Instant)>,
    deadline: Instant,
}

impl<'m> Replay<'m> {
    fn new(
        master: &'m Master,
        config: &PoolConfig,
        in_flight: usize,
        signals: &'m Signals,
        broken_rx: Receiver<String>,
    ) -> Self {
        Self {
            master,
            pool: master.pool(),
            deadline: config.deadline,
            patience: config.stop_timeout / 2,
            in_flight,
            window: VecDeque::with_capacity(in_flight),
            window_bytes: 0,
            signals,
            broken_rx,
            stopped: None,
            give_up_at: None,
            summary: ReplaySummary::new(),
            progress: ReplayProgress::new(),
        }
    }

    /// Dispatches every line of the input and prints every result, as soon as those of all lines
    /// before it are printed.
    ///
    /// # Blocks
    /// Until all is done. What wakes it: a line, the oldest line's answer or deadline, a signal, a
    /// change of a worker.
    fn run(&mut self, input: &ReplayInput) -> Result<(), Stop> {
        let mut is_reading = true;
        loop {
            self.print_done()?;
            is_reading &= self.stopped.is_none();
            if !is_reading && self.window.is_empty() {
                self.progress.clear();
                return self.stopped.take().map_or(Ok(()), Err);
            }
            let has_room = self.window.len() < self.in_flight && self.window_bytes < WINDOW_BYTES;
            let lines_rx = if is_reading && has_room { input.lines_rx().clone() } else { never() };
            let answer_rx = self.oldest().map_or_else(never, |oldest| oldest.answer_rx.clone());
            let wait = self.next_time().saturating_duration_since(Instant::now());
            select! {
                recv(lines_rx) -> line => match line {
                    Ok(Ok(line)) => self.start(&line),
                    Ok(Err(error)) => self.stopped = Some(Stop::Input(error)),
                    Err(_) => is_reading = false,
                },
                recv(answer_rx) -> answer => if let Ok((result, at)) = answer {
                    self.finish_oldest(result, at);
                },
                recv(self.signals.received_rx()) -> signal => self.on_signal(signal.ok()),
                recv(self.broken_rx) -> why => match why {
                    Ok(why) => return Err(Stop::Broken(why)),
                    // In process-pool mode no other end is held.
                    Err(_) => self.broken_rx = never(),
                },
                recv(self.master.changes_rx()) -> _ => if let Some(why) = self.master.given_up() {
                    self.stopped = Some(Stop::GaveUp(why));
                },
                default(wait) => self.on_time(Instant::now()),
            }
        }
    }

    fn start(&mut self, input: &InputLine) {
        let started = Instant::now();
        let (number, bytes) = (input.number, input.text.len());
        self.window_bytes += bytes;
        let ReplayEvent { tenant, event } = match parse(&input.text) {
            Ok(parsed) => parsed,
            Err(RefusedLine { about, error }) => {
                let outcome = EventOutcome::Done(Err(error), started);
                return self.window.push_back(ReplayedLine {
                    number,
                    bytes,
                    about,
                    started,
                    outcome,
                });
            }
        };
        let about = Some((tenant, event.name.clone()));
        let deadline = started + self.deadline;
        let (answer_tx, answer_rx) = bounded(1);
        // Room for the one answer.
        let answer =
            Answer::callback(move |result| drop(answer_tx.try_send((result, Instant::now()))));
        let request = Request::new(tenant, Job::Dispatch(event), deadline, answer);
        let request_id = request.id;
        self.pool.submit(request);
        let outcome =
            EventOutcome::Waiting(WaitingEvent { request_id, tenant, answer_rx, deadline });
        self.window.push_back(ReplayedLine { number, bytes, about, started, outcome });
    }

    fn oldest(&self) -> Option<&WaitingEvent> {
        match &self.window.front()?.outcome {
            EventOutcome::Waiting(waiting) => Some(waiting),
            EventOutcome::Done(..) => None,
        }
    }

    fn finish_oldest(&mut self, result: DispatchResult, at: Instant) {
        if let Some(line) = self.window.front_mut() {
            line.outcome = EventOutcome::Done(result, at);
        }
    }

    /// When something is to be done though nothing happens.
    fn next_time(&self) -> Instant {
        let deadline = self.oldest().map(|oldest| oldest.deadline);
        [deadline, self.give_up_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + LONG)
    }

    /// The first one asks for an end in order: no more lines are read, what is under way may
    /// finish. The second one, or the end of the patience, gives up what is under way.
    fn on_signal(&mut self, signal: Option<ProcessSignal>) {
        // A signal thread that ended counts as a signal: without it nothing else would end a replay
        // that waits.
        if signal == Some(ProcessSignal::HangUp) {
            return;
        }
        log::info!("stopping: {signal:?}");
        let patience = if self.give_up_at.is_none() { self.patience } else { Duration::ZERO };
        self.give_up_at = Some(Instant::now() + patience);
        self.stopped = Some(Stop::Signal);
    }

    fn on_time(&mut self, now: Instant) {
        let gives_up = self.give_up_at.is_some_and(|at| at <= now);
        let count = if gives_up { self.window.len() } else { 1 };
        for line in self.window.iter_mut().take(count) {
            if let EventOutcome::Waiting(waiting) = &line.outcome
                && (gives_up || waiting.deadline <= now)
            {
                line.outcome = EventOutcome::Done(waiting.give_up(&*self.pool, gives_up), now);
            }
        }
    }

    /// Prints the results that are there, up to the first line that still waits.
    fn print_done(&mut self) -> Result<(), Stop> {
        let mut text = String::new();
        while self.window.front().is_some_and(ReplayedLine::is_done) {
            let Some(ReplayedLine {
                number,
                bytes,
                about,
                started,
                outcome: EventOutcome::Done(result, at),
            }) = self.window.pop_front()
            else {
                break;
            };
            self.window_bytes -= bytes;
            let took = at.saturating_duration_since(started);
            let result = as_json(result);
            self.summary.note(result.as_ref().err(), took);
            text += &result_line(number, about.as_ref(), result, took);
        }
        if text.is_empty() {
            return Ok(());
        }
        match output::write(&escape::json(&text)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(Stop::ClosedStdout),
            Err(error) => return Err(Stop::Output(error)),
            Ok(()) => {}
        }
        self.progress.draw(&self.summary);
        Ok(())
    }
}

impl ReplayedLine {
    fn is_done(&self) -> bool {
        matches!(self.outcome, EventOutcome::Done(..))
    }
}

impl WaitingEvent {
    /// Gives the event up, because of its deadline or because the replay stops.
    fn give_up(&self, pool: &dyn WorkerLike, is_stopping: bool) -> DispatchResult {
        let cancelled = pool.cancel(self.tenant, self.request_id);
        // What is cancelled is answered by that; only of what was not found the result may have
        // come just now.
        if cancelled == Cancelled::Unknown
            && let Ok((result, _)) = self.answer_rx.try_recv()
        {
            return result;
        }
        Err(match (cancelled, is_stopping) {
            (Cancelled::Waiting, false) => no_worker_in_time(),
            (Cancelled::Sent | Cancelled::Unknown, false) => DispatchError::Deadline { sent: true },
            (Cancelled::Waiting, true) => {
                DispatchError::NotSent("the replay was stopped".to_owned())
            }
            (Cancelled::Sent | Cancelled::Unknown, true) => DispatchError::OutcomeUnknown(
                "the replay was stopped before an answer came".to_owned(),
            ),
        })
    }
}
