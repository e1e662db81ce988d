//! Asks a program, before it is started as a worker, whether it can confine itself.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::child::{Program, TOKEN_VARIABLE, describe, open_pidfd, pid_of};

/// Limit: for the answer.
const PROBE_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Limit: of what it says when it cannot.
const ANSWER_MAX_BYTES: u64 = 4096;

/// What a worker is started with that is only to try its sandbox: nothing at the address is asked.
const ARGUMENTS: [&str; 10] = [
    "worker",
    "--id",
    "0",
    "--workers",
    "1",
    "--master",
    "127.0.0.1:1",
    "--sandbox",
    "require",
    "--check-config",
];

impl Program {
    /// Whether a worker of this program can confine itself as `--sandbox require` asks for.
    ///
    /// # Blocks
    /// Until the program has answered, 10 seconds at most.
    ///
    /// # Errors
    /// It cannot, and why; or it does not know a sandbox.
    pub fn require_sandbox(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path().display());
        let (mut answer, its_end) = UnixStream::pair().map_err(failed)?;
        let mut command = self.command();
        command.args(ARGUMENTS).env(TOKEN_VARIABLE, "none");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(its_end));
        let mut process = command.spawn().map_err(failed)?;
        // It holds the other end of the answer.
        drop(command);
        if let Some(pidfd) = pid_of(&process).and_then(open_pidfd) {
            let mut waited = [PollFd::new(&pidfd, PollFlags::IN)];
            // Begun anew after a signal, of which there are few.
            while poll(&mut waited, Some(&PROBE_TIMEOUT)) == Err(Errno::INTR) {}
            if waited[0].revents().is_empty() {
                let _ = process.kill();
            }
        }
        let status = process.wait().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        let _ = answer.set_nonblocking(true);
        // To its end, or as far as it goes: a process that it left behind may hold the other end.
        let _ = (&mut answer).take(ANSWER_MAX_BYTES).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let said = text.lines().next().unwrap_or("it says nothing");
        let said = said.strip_prefix("mesophyll: --sandbox require: ").unwrap_or(said);
        Err(format!(
            "--sandbox require: {} cannot run a worker in a sandbox ({}): {said}; \
             --sandbox prefer serves with what there is",
            self.path().display(),
            describe(status)
        ))
    }
}
