//! A contestant's processes as the benchmark sees them: a master with the load driver inside, its
//! workers, what they are asked, and what the system tells of them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::asked::{Kind, Load, Outcome};
use super::{grpc, http, messages, nats, ours, stream, theirs};

/// For workers to get ready, or a link to be noticed to be lost.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How the place of a Unix socket begins.
const UNIX: &str = "unix:";

/// Clock ticks a second in `/proc`, as Linux tells programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whose processes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Over TCP, like everybody.
    Ours,
    /// Over the private Unix socket, as a master's own workers are.
    OursUnix,
    /// Over TCP with TLS, each side sure of the other.
    OursTls,
    /// As `OursUnix` with two workers, of which the first one drives: it sends messages to the other.
    OursMessages,
    /// Dispatches come through the internal API.
    OursApi,
    /// The same over one stream.
    OursStream,
    Peer,
    /// Dispatches come through a route of axum's.
    PeerApi,
    Nats,
    Grpc,
}

impl Side {
    const ALL: [Side; 10] = [
        Side::Ours,
        Side::OursUnix,
        Side::OursTls,
        Side::OursMessages,
        Side::OursApi,
        Side::OursStream,
        Side::Peer,
        Side::PeerApi,
        Side::Nats,
        Side::Grpc,
    ];

    fn name(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::OursUnix => "ours-unix",
            Side::OursTls => "ours-tls",
            Side::OursMessages => "ours-messages",
            Side::OursApi => "ours-api",
            Side::OursStream => "ours-stream",
            Side::Peer => "peer",
            Side::PeerApi => "peer-api",
            Side::Nats => "nats",
            Side::Grpc => "grpc",
        }
    }
}

/// What a worker's process is told on its command line.
#[derive(Debug, Clone)]
pub struct Role {
    pub address: String,
    pub token: String,
    pub worker: usize,
    pub workers: usize,
    pub is_luau: bool,
}

/// Runs one of the processes: `link SIDE master WORKERS STORE ADDRESS` or `link SIDE worker ADDRESS
/// TOKEN ID WORKERS KIND`.
pub fn run_process(args: &[&str]) -> Result<(), String> {
    let side = |name: &str| Side::ALL.into_iter().find(|side| side.name() == name);
    let number = |word: &str| word.parse::<usize>().map_err(|_| format!("{word} is no number"));
    match args {
        [name, "master", workers, store, address] => {
            let store = (*store != "-").then_some(*store);
            match side(name) {
                Some(
                    side @ (Side::Ours
                    | Side::OursUnix
                    | Side::OursTls
                    | Side::OursMessages
                    | Side::OursApi
                    | Side::OursStream),
                ) => ours::master(number(workers)?, store, side),
                Some(Side::Peer | Side::PeerApi) => theirs::master(number(workers)?, store),
                Some(Side::Nats) => nats::master(),
                Some(Side::Grpc) => grpc::master(address),
                None => Err(format!("nobody is called {name}")),
            }
        }
        [name, "worker", address, token, worker, workers, kind] => {
            let role = Role {
                address: (*address).to_owned(),
                token: (*token).to_owned(),
                worker: number(worker)?,
                workers: number(workers)?,
                is_luau: *kind == "luau",
            };
            match side(name) {
                Some(
                    Side::Ours | Side::OursUnix | Side::OursTls | Side::OursApi | Side::OursStream,
                ) => ours::worker(&role),
                Some(Side::OursMessages) => messages::worker(&role),
                Some(Side::Peer | Side::PeerApi) => theirs::worker(&role),
                Some(Side::Nats) => nats::worker(&role),
                Some(Side::Grpc) => grpc::worker(),
                None => Err(format!("nobody is called {name}")),
            }
        }
        _ => Err("not a process of the benchmark".to_owned()),
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    pub side: Side,
    pub workers: usize,
    pub is_luau: bool,
    /// None: in memory, or none.
    pub store: Option<String>,
    /// All of them share a processor.
    pub on_one_processor: bool,
}

impl Spec {
    /// A master and one worker with an echo.
    pub fn echo(side: Side) -> Self {
        Self { side, workers: 1, is_luau: false, store: None, on_one_processor: false }
    }
}

/// A master and its workers. Dropping it ends them.
pub struct Pair {
    spec: Spec,
    // Workers first: a master that ends before them would make them connect again.
    workers: Vec<Process>,
    master: Process,
    address: String,
    tokens: Vec<String>,
}

/// What came of a turn, and what it cost.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub outcome: Outcome,
    /// Of all processes together.
    pub cpu_seconds: f64,
    /// The most that each process had during the turn, together.
    pub peak_bytes: u64,
}

impl Pair {
    /// Starts the processes; returns when all workers are ready.
    pub fn start(spec: Spec) -> Result<Self, String> {
        let pinned = spec.on_one_processor;
        let store = spec.store.clone().unwrap_or("-".to_owned());
        let count = spec.workers.to_string();
        let name = spec.side.name();
        let mut workers = Vec::new();
        let mut listening = "-".to_owned();
        if spec.side == Side::Grpc {
            // Here it is the worker that listens.
            let mut worker = Process::start(&[name, "worker", "-", "-", "0", "1", "echo"], pinned)?;
            listening = worker.line()?;
            workers.push(worker);
        }
        let mut master = Process::start(&[name, "master", &count, &store, &listening], pinned)?;
        let line = master.line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let address = words.next().unwrap_or_default();
        let mut pair = Self { spec, workers, master, address, tokens: words.collect() };
        while pair.workers.len() < pair.spec.workers {
            let worker = pair.start_worker(pair.workers.len())?;
            pair.workers.push(worker);
        }
        pair.wait_ready()?;
        Ok(pair)
    }

    /// Ends the processes in order. A master of ours that is killed leaves its lease on the database
    /// behind, which the next one would wait for.
    pub fn end(mut self) {
        self.workers.iter_mut().chain([&mut self.master]).for_each(Process::end);
    }

    fn start_worker(&self, id: usize) -> Result<Process, String> {
        let token = self.tokens.get(id).ok_or("a worker without a token")?;
        let (name, kind) = (self.spec.side.name(), if self.spec.is_luau { "luau" } else { "echo" });
        let (id, workers) = (id.to_string(), self.spec.workers.to_string());
        let mut address = self.address.clone();
        if address.starts_with(UNIX) {
            // Each worker has a socket of its own.
            address.push_str(&id);
        }
        let args = [name, "worker", &address, token, &id, &workers, kind];
        let mut worker = Process::start(&args, self.spec.on_one_processor)?;
        worker.line()?;
        Ok(worker)
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let line = self.master.ask("ready")?;
        if line == "ready" { Ok(()) } else { Err(line) }
    }

    /// Does a turn.
    pub fn run(&mut self, load: &Load) -> Result<Turn, String> {
        self.processes().for_each(Process::forget_peak);
        let before: f64 = self.processes().map(Process::cpu_seconds).sum();
        let has_messages = self.spec.side == Side::OursMessages;
        // Templates tell by themselves.
        let is_counted = load.kind == Kind::Nowait || has_messages && !self.spec.is_luau;
        let handled = if is_counted { self.handled()? } else { 0 };
        let has_api = matches!(self.spec.side, Side::OursApi | Side::OursStream | Side::PeerApi);
        let outcome: Outcome = if has_api {
            let line = self.master.ask("api")?;
            let (address, authorization) = line.split_once(' ').ok_or_else(|| line.clone())?;
            let is_stream = self.spec.side == Side::OursStream;
            let drive = if is_stream { stream::drive } else { http::drive };
            drive(address, authorization, load)?
        } else {
            let driver = if has_messages { &mut self.workers[0] } else { &mut self.master };
            driver.ask(&load.to_string())?.parse()?
        };
        if is_counted {
            self.wait_handled(handled + outcome.done)?;
        }
        let cpu_seconds = self.processes().map(Process::cpu_seconds).sum::<f64>() - before;
        let peak_bytes = self.processes().map(|process| process.status_bytes("VmHWM:")).sum();
        Ok(Turn { outcome, cpu_seconds, peak_bytes })
    }

    /// Events that the workers have handled, ever.
    fn handled(&mut self) -> Result<u64, String> {
        let counts: Result<Vec<u64>, String> = self
            .workers
            .iter_mut()
            .map(|worker| worker.ask("count").and_then(|line| line.parse().map_err(|_| line)))
            .collect();
        Ok(counts?.iter().sum())
    }

    /// What was counted as sent must have arrived.
    fn wait_handled(&mut self, expected: u64) -> Result<(), String> {
        let until = Instant::now() + READY_TIMEOUT;
        loop {
            let handled = self.handled()?;
            if handled >= expected {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("of {expected} events {handled} arrived"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills a worker, starts it again, and says how long it was from the start until the master
    /// knew it to be ready.
    pub fn restart(&mut self) -> Result<Duration, String> {
        drop(self.workers.pop());
        let line = self.master.ask("lost")?;
        if line != "lost" {
            return Err(line);
        }
        let begun = Instant::now();
        let worker = self.start_worker(self.workers.len())?;
        self.workers.push(worker);
        self.wait_ready()?;
        Ok(begun.elapsed())
    }

    /// Resident memory of all processes, and their share of it where they share it, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let resident = self.processes().map(|process| process.status_bytes("VmRSS:")).sum();
        (resident, self.processes().map(Process::shared_out_bytes).sum())
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.workers.iter().chain([&self.master])
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let sockets = self.address.strip_prefix(UNIX).into_iter();
        let paths =
            sockets.flat_map(|at| (0..self.spec.workers).map(move |id| format!("{at}{id}")));
        for path in paths {
            let _ = fs::remove_file(path);
        }
    }
}

/// A process of this program that answers lines until its stdin ends; dropping it kills it.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(args: &[&str], pinned: bool) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{args:?}: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(pinned.then_some("pinned"))
            .arg("link")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => {
                Ok(Self { child, stdin: Some(stdin), stdout: BufReader::new(stdout) })
            }
            _ => Err("a process without its pipes".to_owned()),
        }
    }

    fn ask(&mut self, line: &str) -> Result<String, String> {
        let stdin = self.stdin.as_mut().ok_or("it has been ended")?;
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .map_err(|error| error.to_string())?;
        self.line()
    }

    /// Lets it end by itself.
    fn end(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => Err("a process of the benchmark ended".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// User and system time of all its threads so far.
    fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // After the name, which may have spaces: field 3 and on; utime and stime are the 14th and
        // 15th.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        ticks as f64 / TICKS_PER_SECOND
    }

    fn status_bytes(&self, field: &str) -> u64 {
        kibibytes(&self.proc("status"), field) * 1024
    }

    fn shared_out_bytes(&self) -> u64 {
        kibibytes(&self.proc("smaps_rollup"), "Pss:") * 1024
    }

    /// Lets the peak begin at what it has now.
    fn forget_peak(&self) {
        // A kernel without it leaves the peak of its whole life, which is said by the figure
        // itself.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }
}

fn kibibytes(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
