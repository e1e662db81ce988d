//! Starts the worker processes, all of them from one thread (`spawner`) that lives as long as the
//! master.
//!
//! On Linux a child that asked for it gets a signal when the *thread* that started it ends
//! (`PR_SET_PDEATHSIG`). A worker asks for KILL, and as the loop that supervises it may end before
//! it, that loop must not be the one that starts it. Owned by every
//! [`ChildSpec`](crate::pool::ChildSpec) together; the last one joins the thread. Its wake-up: the
//! channel's end; the caller that asked for a process takes it, or goes, within [`SPAWN_TIMEOUT`].

use std::io;
use std::process::{Child as Process, Command};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::output::OutputLog;
use crate::base::thread::{self, OwnedThread};

/// Limit: for starting a process. The system forks in milliseconds; a supervision loop is not to
/// hang on one that does not.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The thread that starts processes, and the one that logs what they print.
#[derive(Debug)]
pub struct Spawner {
    // In this order: the thread's wake-up before it is joined.
    requests_tx: Sender<SpawnRequest>,
    _thread: OwnedThread,
    output: OutputLog,
}

struct SpawnRequest {
    command: Command,
    started_tx: Sender<io::Result<Process>>,
}

impl Spawner {
    /// Starts both threads.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start() -> io::Result<Arc<Self>> {
        let (requests_tx, requests_rx) = bounded(0);
        let output = OutputLog::start()?;
        let thread = thread::spawn("spawner", move || serve(&requests_rx))?;
        Ok(Arc::new(Self { requests_tx, _thread: thread, output }))
    }

    /// Starts a process.
    ///
    /// # Blocks
    /// Until it runs; at most [`SPAWN_TIMEOUT`].
    ///
    /// # Errors
    /// The operating system refused, or took too long.
    pub(super) fn spawn(&self, command: Command) -> io::Result<Process> {
        // Without room: a process is handed over to a caller that waits for it, or it is not.
        let (started_tx, started_rx) = bounded(0);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "starting a process takes too long");
        self.requests_tx
            .send_timeout(SpawnRequest { command, started_tx }, SPAWN_TIMEOUT)
            .map_err(|_| late())?;
        started_rx.recv_timeout(SPAWN_TIMEOUT).unwrap_or_else(|_| Err(late()))
    }

    /// Lines that processes printed and that were dropped, as they came too fast for the log.
    pub fn output_lines_dropped(&self) -> u64 {
        self.output.dropped()
    }

    /// Where the lines of the processes go.
    pub(super) fn output(&self) -> &OutputLog {
        &self.output
    }
}

fn serve(requests_rx: &Receiver<SpawnRequest>) {
    for SpawnRequest { mut command, started_tx } in requests_rx {
        let started = command.spawn();
        // It holds the child's ends of its pipes, which must end with the child.
        drop(command);
        // No caller waits any more: then it would not be supervised either.
        if let Err(error) = started_tx.send(started)
            && let Ok(mut process) = error.into_inner()
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
