//! One child process: how it is started, signalled and waited for.
//!
//! Owned by its worker's supervision loop, the only thread that spawns, signals or reaps it; so a pid is never signalled
//! after it was waited for. A thread of its own (`watch-I`) waits for the end of the child's stdout, which comes with the
//! end of the process, and is joined when the child is reaped. The stdout is a socket, so that our end can be shut down: a
//! process that the child left behind may hold the other end for ever.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child as Process, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::thread::{self, OwnedThread};

/// The variables that a worker gets from the master's environment: nothing that could hold a secret of the master.
const ENVIRONMENT: [&str; 4] = ["PATH", "TZ", "LANG", "RUST_BACKTRACE"];

/// The variable in which a worker gets its token.
pub const TOKEN_VARIABLE: &str = "MESOPHYLL_CLIENT_TOKEN";

/// Limit: one line of a worker's stdout in our log; a worker of ours prints none at all.
const LINE_MAX_BYTES: u64 = 8 * 1024;

/// How to start a worker's process.
#[derive(Clone)]
pub struct ChildSpec {
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The worker's secret, handed over in its environment.
    pub token: String,
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChildSpec({:?})", self.args)
    }
}

/// A running child, or a zombie that has not been reaped.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    stdout: UnixStream,
    _watch: OwnedThread,
}

impl Child {
    /// Starts the process. `on_output_end` is called, on the watching thread, when its stdout has ended.
    ///
    /// Its stdin stays open as long as the process is held here: `--lifeline stdin` makes it end when the master goes.
    pub(super) fn spawn(
        spec: &ChildSpec,
        worker_id: usize,
        on_output_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).env_clear().env(TOKEN_VARIABLE, &spec.token);
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let (stdout, childs_stdout) = UnixStream::pair()?;
        let read_end = stdout.try_clone()?;
        // Logs go to the master's own stderr; workers print nothing to stdout.
        command.stdin(Stdio::piped()).stdout(OwnedFd::from(childs_stdout)).stderr(Stdio::inherit());
        let mut process = command.spawn()?;
        // It holds the child's end of its stdout, which must end with the child.
        drop(command);
        let watch = thread::spawn(format!("watch-{worker_id}"), move || {
            log_lines(worker_id, read_end);
            on_output_end();
        });
        match watch {
            Ok(watch) => Ok(Self { process, stdout, _watch: watch }),
            Err(error) => {
                // Nobody would notice its end: better no worker than one that nobody watches.
                let _ = process.kill();
                let _ = process.wait();
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How the process ended, if it has; reaps it then.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Asks the process to end.
    pub(super) fn terminate(&self) {
        // Not reaped, so the pid is still this process's. It cannot fail but for a process that has just ended.
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends the process.
    pub(super) fn kill(&mut self) {
        let _ = self.process.kill();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // What was printed before is still read; then the watch ends, and the field's own drop joins it.
        let _ = self.stdout.shutdown(Shutdown::Read);
    }
}

/// Reads what a worker prints until it prints no more.
fn log_lines(worker_id: usize, stdout: UnixStream) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => log::info!("worker {worker_id}: {}", String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
