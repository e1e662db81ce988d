//! `mesophyll replay`: a private master and pool, every event of an NDJSON file, one result line an event, in order.
//!
//! The main thread reads, dispatches and prints; up to `--in-flight` events are under way at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use crate::config::{PoolConfig, PoolDefaults};
use crate::error::DispatchError;
use crate::master::Master;
use crate::model::{Answer, Cancelled, DispatchResult, Job, TenantId, Ticket};
use crate::wire::json::value_to_json;
use crate::worker_like::{WorkerLike, next_ticket, no_worker_in_time};

use super::api_options::api_config;
use super::args::{Args, OptionSpec};
use super::pool_options::{POOL, WORKER_SIDE};
use super::replay_line::{LINE_MAX_BYTES, ReplayEvent, parse};
use super::replay_summary::Summary;
use super::signals::{Signal, Signals};
use super::worker::{need_luau, runtime_maker};
use super::{CliError, Command, logging};

pub(super) const COMMAND: Command = Command {
    name: "replay",
    usage: "FILE [OPTIONS]    ('-' = stdin)",
    about: "start a private master, dispatch every event of an NDJSON file, print the results, stop",
    options: &[
        &[
            OptionSpec::value("in-flight", "K", "events under way at once (default: 64)"),
            OptionSpec::value("repeat", "N", "dispatch the file N times (default: 1)"),
        ],
        POOL,
        WORKER_SIDE,
    ],
    examples: &[
        "mesophyll replay examples/events.ndjson --workers 2",
        "mesophyll replay - --in-flight 1 --mode thread-pool < events.ndjson",
    ],
    run,
};

/// How often the progress line is drawn anew.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

fn run(args: &Args) -> Result<(), CliError> {
    let [path] = args.positional.as_slice() else {
        return Err(CliError::usage("replay takes one FILE ('-' = stdin)"));
    };
    let in_flight = number(args, "in-flight", 64, 65_536)?;
    let repeat = number(args, "repeat", 1, 1_000_000)?;
    if path == "-" && repeat > 1 {
        return Err(CliError::usage("--repeat needs a FILE: stdin can be read once only"));
    }
    let config = PoolConfig::from_options(args, PoolDefaults::REPLAY)?;
    need_luau()?;
    // Before anything is started: a missing file is the likeliest mistake.
    let mut input = open(path)?;
    logging::init(config.log);
    let signals = Signals::install().map_err(|error| CliError::config(error.to_string()))?;
    let program = std::env::current_exe().map_err(|error| CliError::config(error.to_string()))?;
    let master = Master::start(&config, api_config(&config)?, &program, &runtime_maker(&config))?;
    let mut replay = Replay::new(&master, &config, in_flight, signals.received_rx());
    let mut outcome = Ok(());
    for round in 0..repeat {
        if round > 0 {
            input = open(path)?;
        }
        outcome = replay.run(&mut *input);
        if outcome.is_err() {
            break;
        }
    }
    let outcome = outcome.and_then(|()| replay.drain());
    let summary = replay.summary;
    summary.print(&master, &config);
    master.stop(Instant::now() + config.stop_timeout);
    match outcome {
        Err(Stop::ClosedStdout) => Ok(()),
        Err(Stop::Signal) => Err(CliError::failed("stopped by a signal")),
        Err(Stop::Io(error)) => Err(CliError::failed(format!("{path}: {error}"))),
        Err(Stop::GaveUp) => Err(CliError::gave_up("no worker is left: each has failed too often")),
        // The result lines and the summary have said what failed.
        Ok(()) if summary.failures() > 0 => Err(CliError::failed("")),
        Ok(()) => Ok(()),
    }
}

fn number(args: &Args, name: &str, default: usize, max: usize) -> Result<usize, CliError> {
    let Some((text, _)) = args.get(name) else { return Ok(default) };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(CliError::usage(format!("--{name} is a number from 1 to {max}, not {text:?}"))),
    }
}

fn open(path: &str) -> Result<Box<dyn BufRead>, CliError> {
    if path == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|error| CliError::config(format!("{path}: {error}")))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Why a replay ended before its input did.
enum Stop {
    ClosedStdout,
    Signal,
    GaveUp,
    Io(io::Error),
}

struct Replay<'m> {
    master: &'m Master,
    pool: std::sync::Arc<dyn WorkerLike>,
    deadline: Duration,
    in_flight: usize,
    window: VecDeque<Line>,
    signals_rx: &'m Receiver<Signal>,
    summary: Summary,
    progress: Progress,
}

/// An input line whose result has not been printed.
struct Line {
    number: u64,
    about: Option<(TenantId, String)>,
    started: Instant,
    outcome: Outcome,
}

enum Outcome {
    /// Refused before it was dispatched.
    Done(DispatchError),
    Waiting {
        ticket: Ticket,
        tenant: TenantId,
        answer_rx: Receiver<(DispatchResult, Instant)>,
        deadline: Instant,
    },
}

impl<'m> Replay<'m> {
    fn new(master: &'m Master, config: &PoolConfig, in_flight: usize, signals_rx: &'m Receiver<Signal>) -> Self {
        Self {
            master,
            pool: master.pool(),
            deadline: config.deadline,
            in_flight,
            window: VecDeque::with_capacity(in_flight),
            signals_rx,
            summary: Summary::new(),
            progress: Progress::new(),
        }
    }

    /// Dispatches every line of the input; the last ones stay in the window.
    fn run(&mut self, input: &mut dyn BufRead) -> Result<(), Stop> {
        let mut number = 0;
        let mut line = Vec::new();
        while read_line(input, &mut line).map_err(Stop::Io)? {
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if self.window.len() >= self.in_flight {
                self.print_oldest()?;
            }
            self.check_ends()?;
            let started = self.start(number, &line);
            self.window.push_back(started);
        }
        Ok(())
    }

    fn check_ends(&self) -> Result<(), Stop> {
        if matches!(self.signals_rx.try_recv(), Ok(Signal::Terminate | Signal::Interrupt)) {
            return Err(Stop::Signal);
        }
        if self.master.has_given_up() {
            return Err(Stop::GaveUp);
        }
        Ok(())
    }

    fn start(&self, number: u64, line: &[u8]) -> Line {
        let started = Instant::now();
        let ReplayEvent { tenant, event } = match parse(line) {
            Ok(parsed) => parsed,
            Err(refused) => {
                let outcome = Outcome::Done(refused.error);
                return Line { number, about: refused.about, started, outcome };
            }
        };
        let about = Some((tenant, event.name.clone()));
        let ticket = next_ticket();
        let deadline = started + self.deadline;
        let (answer_tx, answer_rx) = bounded(1);
        // Room for the one answer.
        let answer = Answer::callback(move |result| drop(answer_tx.try_send((result, Instant::now()))));
        self.pool.submit(tenant, ticket, Job::Dispatch(event), deadline, answer);
        Line { number, about, started, outcome: Outcome::Waiting { ticket, tenant, answer_rx, deadline } }
    }

    /// Waits for what is under way and prints it.
    fn drain(&mut self) -> Result<(), Stop> {
        while !self.window.is_empty() {
            self.print_oldest()?;
        }
        self.progress.clear();
        Ok(())
    }

    fn print_oldest(&mut self) -> Result<(), Stop> {
        let Some(line) = self.window.pop_front() else { return Ok(()) };
        let (result, answered) = match line.outcome {
            Outcome::Done(error) => (Err(error), line.started),
            Outcome::Waiting { ticket, tenant, answer_rx, deadline } => self.wait(ticket, tenant, &answer_rx, deadline),
        };
        let took = answered.saturating_duration_since(line.started);
        self.summary.note(&result, took);
        let text = result_line(line.number, line.about.as_ref(), result, took);
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(Stop::ClosedStdout),
            Err(error) => return Err(Stop::Io(error)),
            Ok(()) => {}
        }
        self.progress.draw(&self.summary);
        Ok(())
    }

    fn wait(
        &self,
        ticket: Ticket,
        tenant: TenantId,
        answer_rx: &Receiver<(DispatchResult, Instant)>,
        deadline: Instant,
    ) -> (DispatchResult, Instant) {
        answer_rx.recv_deadline(deadline).unwrap_or_else(|_| {
            let error = match self.pool.cancel(tenant, ticket) {
                Cancelled::Waiting => no_worker_in_time(),
                Cancelled::Sent | Cancelled::Unknown => DispatchError::Deadline { sent: true },
            };
            answer_rx.try_recv().unwrap_or((Err(error), Instant::now()))
        })
    }
}

/// Reads a line without its end; of one that is too long only the beginning, and the rest is skipped. False at the end.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        // One byte more than allowed, so that the parser can tell.
        let room = (LINE_MAX_BYTES + 1).saturating_sub(line.len());
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// One line of output (interface.md: "replay").
fn result_line(number: u64, about: Option<&(TenantId, String)>, result: DispatchResult, took: Duration) -> String {
    let mut text = format!("{{\"line\":{number}");
    if let Some((tenant, name)) = about {
        text.push_str(&format!(",\"tenant\":\"{tenant}\",\"name\":{}", serde_json::Value::from(name.as_str())));
    }
    let result = result.and_then(|value| {
        value_to_json(&value).map_err(|error| DispatchError::Script(format!("the result has no JSON form: {error}")))
    });
    match result {
        Ok(json) => {
            text.push_str(",\"ok\":");
            text.push_str(&json);
        }
        Err(error) => {
            let message = serde_json::Value::from(error.to_string());
            let (kind, sent) = (error.kind(), error.sent());
            text.push_str(&format!(",\"error\":{{\"kind\":\"{kind}\",\"sent\":{sent},\"message\":{message}}}"));
        }
    }
    text.push_str(&format!(",\"ms\":{:.2}}}\n", took.as_secs_f64() * 1000.0));
    text
}

/// A line on a terminal's stderr that is drawn over and over.
struct Progress {
    is_on: bool,
    drawn_at: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { is_on: io::stderr().is_terminal(), drawn_at: None }
    }

    fn draw(&mut self, summary: &Summary) {
        if !self.is_on || self.drawn_at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.drawn_at = Some(Instant::now());
        // A terminal that has gone away needs no progress.
        let _ = write!(io::stderr(), "\r\x1b[K{}", summary.progress());
    }

    fn clear(&mut self) {
        if self.drawn_at.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EncodedValue;

    fn lines(mut input: &[u8]) -> Vec<Vec<u8>> {
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while read_line(&mut input, &mut line).expect("reads") {
            lines.push(line.clone());
        }
        lines
    }

    #[test]
    fn lines_end_with_the_input_too() {
        assert_eq!(lines(b"a\n\nb"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_line_that_is_too_long_does_not_grow_memory_and_does_not_end_the_run() {
        let mut input = vec![b'x'; LINE_MAX_BYTES * 2];
        input.extend_from_slice(b"\nnext\n");
        let lines = lines(&input);
        assert_eq!(lines[0].len(), LINE_MAX_BYTES + 1);
        assert_eq!(lines[1], b"next");
    }

    #[test]
    fn a_result_line_has_the_form_of_the_contract() {
        let about = (TenantId::Guild(123), "A \"b\"".to_owned());
        let ms = Duration::from_micros(420);
        assert_eq!(
            result_line(1, Some(&about), Ok(EncodedValue::null()), ms),
            "{\"line\":1,\"tenant\":\"guild:123\",\"name\":\"A \\\"b\\\"\",\"ok\":null,\"ms\":0.42}\n"
        );
        assert_eq!(
            result_line(2, None, Err(DispatchError::Busy("no".to_owned())), ms),
            "{\"line\":2,\"error\":{\"kind\":\"busy\",\"sent\":false,\"message\":\"no\"},\"ms\":0.42}\n"
        );
    }
}
