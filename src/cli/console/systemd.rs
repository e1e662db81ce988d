//! What the service manager is told, as sd_notify(3) has it: ready, reloading, stopping, alive.
//! Without `NOTIFY_SOCKET` in the environment, nothing is.
//!
//! What to say is decided by [`LoopProgress`], which is pure; [`ServiceManager`] sends it. Owned by
//! the main thread; never blocks: a message that the socket does not take is one that the manager
//! does not read.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crossbeam_channel::{Receiver, never, tick};
use rustix::time::{ClockId, clock_gettime};

/// How often the master is looked at for news, where a service manager listens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is seen of the master at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct SeenLoops {
    /// Workers that are ready.
    pub(in crate::cli) ready: usize,
    /// Workers that are neither failed nor stopped.
    pub(in crate::cli) wanted: usize,
    /// How many rolling restarts were begun.
    pub(in crate::cli) rolls: u64,
    /// Whether one is under way.
    pub(in crate::cli) is_rolling: bool,
    /// Whether every supervision loop has come round of late.
    pub(in crate::cli) is_supervised: bool,
}

/// What the manager knows already.
#[derive(Debug, Default)]
struct LoopProgress {
    is_ready: bool,
    rolls: u64,
    is_reloading: bool,
    status: Option<(usize, usize)>,
}

impl LoopProgress {
    /// The message that is due, if any. `monotonic_us`: the time of CLOCK_MONOTONIC.
    fn message(&mut self, seen: SeenLoops, watchdog: bool, monotonic_us: u64) -> Option<String> {
        let mut lines = Vec::new();
        if !self.is_ready && seen.ready > 0 && seen.ready >= seen.wanted {
            self.is_ready = true;
            self.rolls = seen.rolls;
            lines.push("READY=1".to_owned());
        }
        if self.is_ready && seen.rolls != self.rolls {
            self.rolls = seen.rolls;
            self.is_reloading = true;
            lines.push(reloading(monotonic_us));
        }
        if self.status != Some((seen.ready, seen.wanted)) {
            self.status = Some((seen.ready, seen.wanted));
            lines.push(format!("STATUS={} of {} workers ready", seen.ready, seen.wanted));
        }
        if watchdog && seen.is_supervised {
            lines.push("WATCHDOG=1".to_owned());
        }
        if self.is_reloading && !seen.is_rolling {
            self.is_reloading = false;
            lines.push("READY=1".to_owned());
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

fn reloading(monotonic_us: u64) -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={monotonic_us}")
}

/// The service manager that started this process, if one did.
#[derive(Debug)]
pub(in crate::cli) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    progress: LoopProgress,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(in crate::cli) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|path| match open(&path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET: the service manager cannot be told anything: {error}");
                None
            }
        });
        let watchdog =
            watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"), std::process::id());
        Self { socket, watchdog, progress: LoopProgress::default() }
    }

    /// When to look at the master again; never, without a listener.
    pub(in crate::cli) fn look_rx(&self) -> Receiver<std::time::Instant> {
        if self.socket.is_none() {
            return never();
        }
        // Half of the watchdog's time, as sd_watchdog_enabled(3) recommends.
        tick(self.watchdog.map_or(LOOK_EVERY, |watchdog| (watchdog / 2).min(LOOK_EVERY)))
    }

    /// Tells what is new.
    pub(in crate::cli) fn tell(&mut self, seen: impl FnOnce() -> SeenLoops) {
        if self.socket.is_some()
            && let Some(message) =
                self.progress.message(seen(), self.watchdog.is_some(), monotonic_us())
        {
            self.send(&message);
        }
    }

    /// A reload was asked for and refused: systemd waits for its end all the same.
    pub(in crate::cli) fn tell_refused_reload(&self) {
        self.send(&reloading(monotonic_us()));
        self.send("READY=1");
    }

    /// The master stops.
    pub(in crate::cli) fn tell_stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            log::debug!("the service manager does not take {message:?}: {error}");
        }
    }
}

/// A path, or a name in Linux's abstract namespace, which begins with an `@`.
fn open(path: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The time within which the manager wants to hear of this process.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, own_pid: u32) -> Option<Duration> {
    let is_ours =
        pid.is_none_or(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(own_pid));
    let usec: u64 = usec?.to_str()?.parse().ok()?;
    (is_ours && usec > 0).then(|| Duration::from_micros(usec))
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Since the machine's start: neither is negative.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTING: SeenLoops =
        SeenLoops { ready: 0, wanted: 2, rolls: 0, is_rolling: false, is_supervised: true };
    const READY: SeenLoops = SeenLoops { ready: 2, ..STARTING };

    fn told(progress: &mut LoopProgress, seen: SeenLoops) -> String {
        progress.message(seen, false, 7).unwrap_or_default()
    }

    #[test]
    fn ready_is_told_once_and_not_before_all_workers_are() {
        let mut progress = LoopProgress::default();
        assert_eq!(told(&mut progress, STARTING), "STATUS=0 of 2 workers ready");
        assert_eq!(
            told(&mut progress, SeenLoops { ready: 1, ..STARTING }),
            "STATUS=1 of 2 workers ready"
        );
        assert_eq!(told(&mut progress, READY), "READY=1\nSTATUS=2 of 2 workers ready");
        assert_eq!(told(&mut progress, READY), "");
        assert_eq!(
            told(&mut progress, SeenLoops { ready: 1, ..READY }),
            "STATUS=1 of 2 workers ready"
        );
        let mut none = LoopProgress::default();
        let all_failed = SeenLoops { wanted: 0, ..STARTING };
        assert_eq!(
            told(&mut none, all_failed),
            "STATUS=0 of 0 workers ready",
            "nothing that runs is ready"
        );
    }

    #[test]
    fn a_rolling_restart_is_a_reload_from_its_beginning_to_its_end() {
        let mut progress = LoopProgress::default();
        told(&mut progress, READY);
        let rolling = SeenLoops { rolls: 1, is_rolling: true, ..READY };
        assert_eq!(told(&mut progress, rolling), "RELOADING=1\nMONOTONIC_USEC=7");
        assert_eq!(told(&mut progress, rolling), "");
        assert_eq!(told(&mut progress, SeenLoops { is_rolling: false, ..rolling }), "READY=1");
        assert_eq!(
            told(&mut progress, SeenLoops { rolls: 2, ..READY }),
            "RELOADING=1\nMONOTONIC_USEC=7\nREADY=1"
        );
    }

    #[test]
    fn the_watchdog_is_fed_only_while_supervision_goes_round() {
        let mut progress = LoopProgress::default();
        progress.message(READY, true, 0);
        assert_eq!(progress.message(READY, true, 0).as_deref(), Some("WATCHDOG=1"));
        assert_eq!(progress.message(SeenLoops { is_supervised: false, ..READY }, true, 0), None);
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let usec = || Some(OsString::from("2000000"));
        assert_eq!(watchdog(usec(), None, 5), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(usec(), Some("5".into()), 5), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(usec(), Some("6".into()), 5), None);
        assert_eq!((watchdog(None, None, 5), watchdog(Some("x".into()), None, 5)), (None, None));
    }
}
