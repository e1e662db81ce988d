//! The masters of the run: real processes, each behind a wire to PostgreSQL and one to its API.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use super::super::process::{eventually, signal};
use super::wire::Wire;

pub(crate) const SECRET: &str = "a secret of the stress, 32 bytes or more";

pub(crate) struct Member {
    pub(crate) name: String,
    /// To PostgreSQL.
    pub(crate) database: Wire,
    /// From the other masters.
    pub(crate) peers: Wire,
    api: SocketAddr,
    binary: PathBuf,
    log: PathBuf,
    workers: usize,
    process: Mutex<Option<Child>>,
}

impl Member {
    pub(crate) fn new(
        number: usize,
        binary: &Path,
        folder: &Path,
        database: SocketAddr,
        workers: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let api = listener.local_addr().expect("an address");
        let name = format!("master-{number}");
        let log = folder.join(format!("{name}.log"));
        Self {
            database: Wire::start(database),
            peers: Wire::start(api),
            name,
            api,
            binary: binary.to_owned(),
            log,
            workers,
            process: Mutex::default(),
        }
    }

    /// Where callers reach it.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    /// Starts it, for the first time or again; returns when it says that it is ready.
    pub(crate) fn start(&self) {
        let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");
        let store = format!(
            "postgres://postgres@{}/stress?application_name={}",
            self.database.address(),
            self.name
        );
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(&self.binary);
        command.args(["master", "--cluster", "stress", "--name", &self.name, "--store", &store]);
        command.args(["--advertise", &self.peers.address().to_string()]);
        command.args(["--listen", "127.0.0.1:0", "--api", &self.api.to_string()]);
        command.args(["--workers", &self.workers.to_string(), "--templates", templates]);
        command.args(["--default-events", "*", "--log", "info", "--quarantine-after", "1024"]);
        command.env("MESOPHYLL_API_SECRET", SECRET).stdout(Stdio::piped()).stderr(log);
        self.peers.open();
        let mut child = command.spawn().expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let so_far = || fs::read_to_string(&self.log).unwrap_or_default();
        assert!(line.contains("\"ready\":true"), "{}: no ready line: {}", self.name, so_far());
        *self.process.lock().expect("no panic") = Some(child);
    }

    pub(crate) fn signal(&self, which: Signal) {
        if let Some(child) = &*self.process.lock().expect("no panic") {
            signal(child.id(), which);
        }
    }

    /// Ends it at once, and its workers with it.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Ends it as an operator does; true if it ended well.
    pub(crate) fn stop(&self) -> bool {
        self.signal(Signal::TERM);
        self.wait()
    }

    fn wait(&self) -> bool {
        let child = self.process.lock().expect("no panic").take();
        let ended = child.is_some_and(|mut child| child.wait().is_ok_and(|end| end.success()));
        self.peers.close();
        ended
    }

    /// Whether it answers and is ready for events.
    pub(crate) fn wait_ready(&self, agent: &ureq::Agent) {
        let url = format!("http://{}/readyz", self.api);
        eventually("the master is ready", || {
            agent.get(&url).call().is_ok_and(|answer| answer.status() == 200).then_some(())
        });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}

/// A client that waits longer than any deadline of the run.
pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(Duration::from_secs(60))).build().into()
}
