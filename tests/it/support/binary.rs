//! The built binary as its users see it: started, fed, read, signalled, and gone with the test.
//!
//! Every wait has a deadline that only a hang meets; what the process said goes into the failure's
//! message.

// Without Luau there are fewer tests, and some of this has no use.
#![cfg_attr(not(feature = "luau"), allow(dead_code))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded, unbounded};
use mesophyll::api::token::{Secret, mint};
use rustix::process::Signal;
use serde_json::Value;

use super::process::{eventually, signal};
use super::{DEADLINE, TempDir};

/// The secret of the masters in tests.
pub(crate) const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// The template whose events say what it does.
pub(crate) const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");

/// A master with one worker that runs those templates, and keeps its data in memory.
pub(crate) const ONE_WORKER: [&str; 13] = [
    "master",
    "--listen",
    "127.0.0.1:0",
    "--api",
    "127.0.0.1:0",
    "--store",
    "memory:",
    "--workers",
    "1",
    "--templates",
    TEMPLATES,
    "--default-events",
    "*",
];

/// 22 real Discord gateway payloads (examples/README.md says where they come from).
pub(crate) const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/discord.ndjson");

/// The binary that the tests are about.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_mesophyll");

/// A program that was built with the tests and belongs to no product.
pub(crate) fn example(name: &str) -> PathBuf {
    let binary = Path::new(BINARY);
    let path = binary.parent().expect("a folder").join("examples").join(name);
    assert!(
        path.exists(),
        "`cargo test` builds it unless told which target; `cargo build --example {name}` does, too"
    );
    path
}

/// The binary with these arguments, untouched by the environment of who runs the tests.
pub(crate) fn mesophyll<S: AsRef<str>>(args: &[S]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args.iter().map(AsRef::as_ref));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESOPHYLL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub(crate) fn run<S: AsRef<str>>(args: &[S]) -> Finished {
    Running::start(mesophyll(args)).wait()
}

/// Runs a command to its end on this input.
pub(crate) fn run_on<S: AsRef<str>>(args: &[S], input: impl Into<Vec<u8>>) -> Finished {
    Running::start_on(mesophyll(args), input).wait()
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// What a process left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// The lines of stdout that nobody has read before.
    pub(crate) stdout: Vec<String>,
    /// All of stderr.
    pub(crate) stderr: String,
}

impl Finished {
    /// The exit code; a process that a signal ended has none, which fails the test.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    /// The lines of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}")))
            .collect()
    }

    /// Checks how it ended and what it said about that.
    pub(crate) fn expect(&self, code: i32, says: &str) {
        assert_eq!(self.code(), code, "{self:?}");
        assert!(self.stderr.contains(says), "{says:?} is not in {self:?}");
    }
}

impl Running {
    /// Starts a process without input.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Starts a process on this input.
    pub(crate) fn start_on(mut command: Command, input: impl Into<Vec<u8>>) -> Self {
        command.stdin(Stdio::piped());
        let mut running = Self::spawn(command);
        let mut stdin = running.child.stdin.take().expect("piped");
        let input = input.into();
        // Ends with the process, which need not read it all.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        running
    }

    /// Starts a process whose input the test writes as it likes.
    pub(crate) fn start_open(mut command: Command) -> (Self, std::process::ChildStdin) {
        command.stdin(Stdio::piped());
        let mut running = Self::spawn(command);
        let stdin = running.child.stdin.take().expect("piped");
        (running, stdin)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Lines::read(child.stdout.take().expect("piped"));
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// The next line of its stdout.
    pub(crate) fn next_line(&self) -> String {
        let line = self.stdout.next();
        line.unwrap_or_else(|| panic!("no line on stdout; stderr: {}", self.stderr.so_far()))
    }

    /// Waits for a line of its stderr with this text, among those that nobody waited for yet.
    pub(crate) fn wait_stderr(&self, text: &str) -> String {
        loop {
            let line = self.stderr.next();
            let line =
                line.unwrap_or_else(|| panic!("no {text:?} on stderr: {}", self.stderr.so_far()));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// What is on its stderr so far.
    pub(crate) fn stderr_so_far(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits for a line of its stdout with this text, among those that nobody waited for yet.
    pub(crate) fn wait_stdout(&self, text: &str) -> String {
        loop {
            let line = self.next_line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Leaves its stderr alone: from its next line on it writes to nobody.
    pub(crate) fn close_stderr(&mut self) {
        self.stderr = Lines::none();
    }

    /// Whether it has ended, without waiting.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Finished {
        let status = self.wait_status();
        let stdout = self.stdout.rest();
        self.stderr.rest();
        Finished { status, stdout, stderr: self.stderr.so_far() }
    }

    fn wait_status(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        eventually("the process ends", || {
            let ended = self.child.try_wait().expect("a child of ours");
            if ended.is_none() && Instant::now() >= until {
                panic!("it does not end; stderr: {}", self.stderr.so_far());
            }
            ended
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe as they come, read by a thread that ends with the pipe.
struct Lines {
    lines_rx: Receiver<String>,
    seen: Mutex<Vec<String>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let (lines_tx, lines_rx) = unbounded();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                if lines_tx.send(text).is_err() {
                    // Nobody listens any more: the pipe is closed.
                    return;
                }
            }
        });
        Self { lines_rx, seen: Mutex::default() }
    }

    /// Of a pipe that nobody reads.
    fn none() -> Self {
        Self { lines_rx: bounded(0).1, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Vec<String>> {
        self.seen.lock().expect("no panic under this lock")
    }

    fn next(&self) -> Option<String> {
        let line = self.lines_rx.recv_timeout(DEADLINE).ok()?;
        self.seen().push(line.clone());
        Some(line)
    }

    /// What is left until the pipe's end, which comes when the last process that has it ends.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn so_far(&self) -> String {
        let mut seen = self.seen();
        seen.extend(self.lines_rx.try_iter());
        seen.join("\n")
    }
}

/// A running master with a folder of its own, ports that it picked, and a known secret.
pub(crate) struct Master {
    pub(crate) running: Running,
    /// Its ready line.
    pub(crate) line: String,
    pub(crate) ready: Value,
    pub(crate) folder: TempDir,
}

impl Master {
    /// Starts one over a store in memory, with the tests' template and every event subscribed to.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new(), &[&["--store", "memory:"], args].concat())
    }

    /// As [`Master::start`], with its API at this address.
    pub(crate) fn start_at(api: &str, args: &[&str]) -> Self {
        Self::start(&[&["--api", api], args].concat())
    }

    /// A master that is ready, whose tenants run this template.
    pub(crate) fn with_template(source: &str, args: &[&str]) -> Self {
        let folder = TempDir::new();
        let templates = folder.path().join("templates");
        std::fs::create_dir(&templates).expect("a folder");
        write(&templates, "main.luau", source);
        let templates = templates.display().to_string();
        let master = Self::start_in(folder, &[&["--templates", &templates], args].concat());
        master.wait_ready();
        master
    }

    /// As [`Master::start`], but with the store that `args` names, or one in its folder.
    pub(crate) fn start_in(folder: TempDir, args: &[&str]) -> Self {
        let store = format!("redb:{}", folder.path().join("store.redb").display());
        let mut all: Vec<&str> = vec!["master"];
        for (name, value) in [
            ("--api", "127.0.0.1:0"),
            ("--listen", "127.0.0.1:0"),
            ("--templates", TEMPLATES),
            ("--default-events", "*"),
            ("--workers", "2"),
            ("--store", &store),
        ] {
            if !args.contains(&name) {
                all.extend([name, value]);
            }
        }
        all.extend(args);
        let mut command = mesophyll(&all);
        command.env("MESOPHYLL_API_SECRET", SECRET);
        Self { folder, ..Self::of(Running::start(command)) }
    }

    /// A master that was just started, with [`SECRET`].
    pub(crate) fn of(running: Running) -> Self {
        let line = running.next_line();
        let ready =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ready line: {line:?}"));
        Self { running, line, ready, folder: TempDir::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn address(&self, of: &str) -> SocketAddr {
        self.ready[of]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{}", self.ready))
    }

    /// The internal API.
    pub(crate) fn api(&self) -> SocketAddr {
        self.address("api")
    }

    /// The worker-facing port.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.address("listen")
    }

    /// Waits until every worker is ready.
    pub(crate) fn wait_ready(&self) {
        eventually("every worker is ready", || (get(self.api(), "/readyz").0 == 200).then_some(()));
    }

    /// Dispatches an event through the API; returns the status and the body.
    pub(crate) fn dispatch(&self, tenant: &str, name: &str, data: &str) -> (u16, Value) {
        self.dispatch_with(tenant, name, data, "")
    }

    /// As [`Master::dispatch`], with a query.
    pub(crate) fn dispatch_with(
        &self,
        tenant: &str,
        name: &str,
        data: &str,
        query: &str,
    ) -> (u16, Value) {
        let path = format!("/i/dispatch-event/{tenant}{query}");
        let (status, body) =
            post(self.api(), &path, &token(7), &format!(r#"{{"name":"{name}","data":{data}}}"#));
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body:?}")))
    }

    /// Lets the events `HOLD` of a tenant end.
    pub(crate) fn release(&self, tenant: &str) {
        let set = r#"{"op":"set","key":"release","scopes":["test"],"value":true}"#;
        let (status, body) = post(self.api(), &format!("/i/kv/{tenant}"), &token(7), set);
        assert_eq!(status, 204, "{body}");
    }

    /// Runs a command against this master as user 7.
    pub(crate) fn command(&self, args: &[&str]) -> Finished {
        self.command_on(args, "")
    }

    /// As [`Master::command`], with this input.
    pub(crate) fn command_on(&self, args: &[&str], input: &str) -> Finished {
        let mut command = mesophyll(args);
        command
            .env("MESOPHYLL_INTERNAL_TOKEN", token(7))
            .env("MESOPHYLL_API", self.api().to_string());
        Running::start_on(command, input).wait()
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(self) -> (Finished, TempDir) {
        self.running.signal(Signal::TERM);
        (self.running.wait(), self.folder)
    }
}

/// A token for the masters of the tests.
pub(crate) fn token(user: u64) -> String {
    let secret = Secret::new(SECRET.as_bytes().to_vec()).expect("long enough");
    mint(&secret, user, u64::MAX / 2)
}

/// A GET without a token: status and body.
pub(crate) fn get(api: SocketAddr, path: &str) -> (u16, String) {
    let response = agent().get(format!("http://{api}{path}")).call();
    read(response.unwrap_or_else(|error| panic!("GET {path}: {error}")))
}

/// A GET with a token: status and body.
pub(crate) fn get_with(api: SocketAddr, path: &str, token: &str) -> (u16, String) {
    let request = agent()
        .get(format!("http://{api}{path}"))
        .header("Authorization", format!("Internal {token}"));
    read(request.call().unwrap_or_else(|error| panic!("GET {path}: {error}")))
}

/// A POST with a token: status and body.
pub(crate) fn post(api: SocketAddr, path: &str, token: &str, body: &str) -> (u16, String) {
    try_post(api, path, token, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// As [`post`], where there may be nobody to answer.
pub(crate) fn try_post(
    api: SocketAddr,
    path: &str,
    token: &str,
    body: &str,
) -> Result<(u16, String), ureq::Error> {
    let request = agent()
        .post(format!("http://{api}{path}"))
        .header("Authorization", format!("Internal {token}"));
    request.send(body).map(read)
}

/// A PUT with a token: status and body.
pub(crate) fn put(api: SocketAddr, path: &str, token: &str, body: &str) -> (u16, String) {
    let request = agent()
        .put(format!("http://{api}{path}"))
        .header("Authorization", format!("Internal {token}"));
    read(request.send(body).unwrap_or_else(|error| panic!("PUT {path}: {error}")))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(DEADLINE)).build().into()
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> (u16, String) {
    let status = response.status().as_u16();
    (status, response.body_mut().with_config().limit(64 << 20).read_to_string().expect("a body"))
}

/// Writes a file into a folder.
pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    path
}
