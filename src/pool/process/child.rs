//! One child process: how it is started, signalled and waited for.
//!
//! Owned by its worker's supervision loop, the only thread that signals or reaps it; so a pid is
//! never signalled after it was waited for. A thread of its own (`watch-I`) reads what it prints,
//! hands out the connections that it asks for, or hears its signs, and waits for its end, and is
//! joined when the child is reaped. Stdout and stderr are one socket, so that our end can be shut
//! down: a process that the child left behind may hold the other end for ever.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process};

use super::memory_group::MemoryGroups;
use super::output::Lines;
use super::spawner::Spawner;
use crate::base::thread::{self, OwnedThread};
use crate::net::broker::{BROKER_STDIN, BROKER_VARIABLE, HandOut};
use crate::net::lifeline::{self, Sign};
use crate::net::stream::Stream;

/// The variables that a worker gets from the master's environment: nothing that could hold a secret
/// of the master.
const ENVIRONMENT: [&str; 4] = ["PATH", "TZ", "LANG", "RUST_BACKTRACE"];

/// Gives a worker a connection whose other end is served; false if there is no room for one. Takes
/// the worker's number.
pub type ServeWorker = dyn Fn(usize, Stream) -> bool + Send + Sync;

/// The variable in which a worker gets its token.
pub const TOKEN_VARIABLE: &str = "MESOPHYLL_CLIENT_TOKEN";

/// A program that is started as a worker.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    /// What is started in place of what the path names by then.
    open: Option<Arc<File>>,
}

impl Program {
    /// What a path names whenever it is started.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    /// Where the program that a path names is.
    ///
    /// # Errors
    /// It is no file that this user can execute.
    pub fn executable(path: &Path) -> io::Result<PathBuf> {
        let program = std::path::absolute(path)?;
        if !std::fs::metadata(&program)?.is_file() || access(&program, Access::EXEC_OK).is_err() {
            return Err(io::Error::other("it is no file that this user can execute"));
        }
        Ok(program)
    }

    /// The program that this process runs, also when its file is replaced or removed: a master and
    /// its workers are of one version. (Elsewhere than on Linux, what is there by then.)
    ///
    /// # Errors
    /// The system does not say what runs.
    pub fn own() -> io::Result<Self> {
        let open = if cfg!(target_os = "linux") { File::open("/proc/self/exe").ok() } else { None };
        Ok(Self { path: std::env::current_exe()?, open: open.map(Arc::new) })
    }

    /// What it is called.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// With the environment of a worker. The child has the descriptor until it executes it, and no
    /// longer.
    pub(super) fn command(&self) -> Command {
        let mut command = match &self.open {
            Some(open) => Command::new(format!("/proc/self/fd/{}", open.as_raw_fd())),
            None => Command::new(&self.path),
        };
        command.arg0(&self.path).env_clear();
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}

/// How to start a worker's process.
#[derive(Clone)]
pub struct ChildSpec {
    /// The binary.
    pub program: Program,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The worker's secret, handed over in its environment.
    pub token: String,
    /// Variables that it gets besides; a program that does not know one passes over it, which it
    /// would not do with an option.
    pub variables: Vec<(&'static str, String)>,
    /// Connects it with the master; without one it has to do that itself.
    pub broker: Option<Arc<ServeWorker>>,
    /// Its link leads to another process: what is known of it is what it says on its lifeline, on
    /// which it retires as well.
    pub is_hosted: bool,
    /// Bounds its memory.
    pub memory: Option<Arc<MemoryGroups>>,
    /// What starts it.
    pub spawner: Arc<Spawner>,
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChildSpec({:?})", self.args)
    }
}

/// What is heard of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildNews {
    /// How it is; of one that is hosted.
    Sign(Sign),
    /// It has ended, and is to be reaped.
    Ended,
}

/// A running child, or a zombie that has not been reaped.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    is_reaped: bool,
    output: UnixStream,
    // The worker's stdin: it ends with this process, or when this is dropped.
    lifeline: UnixStream,
    watch: Option<OwnedThread<VecDeque<String>>>,
    // The last one to go: it joins the thread that logs what `watch` reads.
    _spawner: Arc<Spawner>,
}

impl Child {
    /// Starts the process. `tell` is called, on the watching thread, with what is heard of it; its
    /// end is told once, without a `pidfd` (before Linux 5.3, and elsewhere) when it has closed
    /// its output.
    ///
    /// It gets a process group of its own, so that Ctrl-C in a terminal reaches the master only,
    /// which drains before it ends its workers. Its stdin stays open as long as the process is held
    /// here: `--lifeline stdin` makes it end when the master goes.
    ///
    /// # Blocks
    /// Until it runs; see [`Spawner::spawn`].
    pub(super) fn spawn(
        spec: &ChildSpec,
        worker_id: usize,
        tell: impl Fn(ChildNews) + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = spec.program.command();
        command.args(&spec.args).env(TOKEN_VARIABLE, &spec.token).process_group(0);
        command.envs(spec.variables.iter().map(|(name, value)| (name, value)));
        let (output, childs_output) = UnixStream::pair()?;
        let read_end = output.try_clone()?;
        let childs_stdout = childs_output.try_clone()?;
        let (lifeline, childs_lifeline) = UnixStream::pair()?;
        let broker = spec.broker.clone().map(|serve| {
            command.env(BROKER_VARIABLE, BROKER_STDIN);
            let hand_out = HandOut::new(lifeline.try_clone()?)?;
            Ok::<_, io::Error>((hand_out, move |stream| serve(worker_id, stream)))
        });
        let mut channel =
            broker.transpose()?.map(|(hand_out, serve)| Channel::Broker(hand_out, serve));
        if spec.is_hosted {
            channel = Some(Channel::Signs(lifeline.try_clone()?));
        }
        command
            .stdin(OwnedFd::from(childs_lifeline))
            .stdout(OwnedFd::from(childs_stdout))
            .stderr(OwnedFd::from(childs_output));
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", spec.program.path.display()))
        };
        let process = spec.spawner.spawn(command).map_err(named)?;
        // From here on, dropping it ends and reaps the process.
        let mut child = Self {
            process,
            is_reaped: false,
            output,
            lifeline,
            watch: None,
            _spawner: spec.spawner.clone(),
        };
        if let Some(memory) = &spec.memory {
            memory.enter(worker_id, child.pid()).map_err(|error| {
                io::Error::new(error.kind(), format!("its control group: {error}"))
            })?;
        }
        let lines = spec.spawner.output().lines(worker_id, child.pid());
        let pidfd = pid_of(&child.process).and_then(open_pidfd);
        child.watch = Some(thread::spawn(format!("watch-{worker_id}"), move || {
            ChildWatch { output: Some(read_end), pidfd, channel, lines, tell }.run()
        })?);
        Ok(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How the process ended, if it has; reaps it then.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.process.try_wait()?;
        self.is_reaped |= status.is_some();
        Ok(status)
    }

    /// Has a process that is hosted answer what it has, and end.
    pub(super) fn retire(&self) {
        // One that takes nothing gets TERM later.
        let _ = lifeline::say(&self.lifeline, lifeline::RETIRE);
    }

    /// Asks the process to end.
    pub(super) fn terminate(&self) {
        // Not reaped, so the pid is still this process's. It cannot fail but for a process that has
        // just ended.
        if !self.is_reaped
            && let Some(pid) = pid_of(&self.process)
        {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends the process.
    pub(super) fn kill(&mut self) {
        // Does nothing to a process that was reaped.
        let _ = self.process.kill();
    }

    /// What the process printed last, the oldest line first.
    ///
    /// # Blocks
    /// Until what it printed has been read, which is there already.
    pub(super) fn last_lines(mut self) -> VecDeque<String> {
        // What was printed before is still read.
        let _ = self.output.shutdown(Shutdown::Read);
        self.watch.take().and_then(OwnedThread::join).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            // It is not supervised any more. After KILL the wait is short.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        // Then the watch ends, and the field's own drop joins it.
        let _ = self.output.shutdown(Shutdown::Read);
    }
}

pub(super) fn pid_of(process: &Process) -> Option<Pid> {
    i32::try_from(process.id()).ok().and_then(Pid::from_raw)
}

/// A descriptor that becomes readable when the process ends.
#[cfg(target_os = "linux")]
pub(super) fn open_pidfd(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

/// What comes from a process over its lifeline.
enum Channel<S> {
    /// Asks for connections; and what serves their other ends.
    Broker(HandOut, S),
    Signs(UnixStream),
}

impl<S: Fn(Stream) -> bool> Channel<S> {
    fn waits_for(&self) -> PollFd<'_> {
        match self {
            Channel::Broker(hand_out, _) => PollFd::new(hand_out, hand_out.waits_for()),
            Channel::Signs(lifeline) => PollFd::new(lifeline, PollFlags::IN),
        }
    }

    /// Takes what has come; false once nothing more will.
    fn take(&mut self, buffer: &mut [u8], tell: &impl Fn(ChildNews)) -> bool {
        match self {
            Channel::Broker(hand_out, serve) => hand_out.answer(serve),
            Channel::Signs(lifeline) => match lifeline.read(buffer) {
                Ok(0) | Err(_) => false,
                Ok(len) => {
                    Sign::last_of(&buffer[..len]).into_iter().map(ChildNews::Sign).for_each(tell);
                    true
                }
            },
        }
    }
}

/// What the thread `watch-I` waits for.
struct ChildWatch<S, T> {
    /// What the process prints, until it has closed that.
    output: Option<UnixStream>,
    /// Until the process has ended.
    pidfd: Option<OwnedFd>,
    channel: Option<Channel<S>>,
    lines: Lines,
    tell: T,
}

impl<S: Fn(Stream) -> bool, T: Fn(ChildNews)> ChildWatch<S, T> {
    /// Reads what the process prints until its output ends, answers what it asks for, and says when
    /// it has ended.
    ///
    /// Blocks: until something is printed or asked for, or the process ends; shutting the socket
    /// down wakes it. The owner joins this thread only after the process's end.
    fn run(mut self) -> VecDeque<String> {
        let mut has_told_end = false;
        let mut buffer = [0; 16 * 1024];
        while self.output.is_some() || self.pidfd.is_some() {
            let [has_output, has_ended, has_asked] = self.wait();
            if has_ended {
                self.pidfd = None;
                has_told_end = true;
                (self.tell)(ChildNews::Ended);
            }
            if has_asked
                && let Some(channel) = &mut self.channel
                && !channel.take(&mut buffer, &self.tell)
            {
                self.channel = None;
            }
            if has_output && let Some(output) = &mut self.output {
                match output.read(&mut buffer) {
                    Ok(0) | Err(_) => self.output = None,
                    Ok(len) => self.lines.push(&buffer[..len], Instant::now()),
                }
            }
        }
        if !has_told_end {
            (self.tell)(ChildNews::Ended);
        }
        self.lines.finish(Instant::now())
    }

    /// Which of the three there is: output, the end of the process, an ask.
    fn wait(&self) -> [bool; 3] {
        let sources = [
            self.output.as_ref().map(|output| PollFd::new(output, PollFlags::IN)),
            self.pidfd.as_ref().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)),
            self.channel.as_ref().map(Channel::waits_for),
        ];
        let mut waited: Vec<PollFd<'_>> = sources.iter().flatten().cloned().collect();
        // A signal, if it fails: then nothing has come.
        let _ = poll(&mut waited, None);
        let mut has_come = waited.iter().map(|source| !source.revents().is_empty());
        sources.map(|source| source.is_some() && has_come.next().unwrap_or_default())
    }
}

/// The signal of a system call that is the end of a process in a sandbox.
const SIGSYS: i32 = Signal::SYS.as_raw();

/// Whether the sandbox has ended a process.
pub(super) fn is_sandbox_kill(status: ExitStatus) -> bool {
    status.signal() == Some(SIGSYS)
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(SIGSYS)) => "killed by its sandbox (SIGSYS)".to_owned(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
