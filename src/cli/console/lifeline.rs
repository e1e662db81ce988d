//! The lifeline of a worker: its stdin, whose other end the master holds, or its host on another
//! machine. It ends with that process. A master hands out connections on it and writes nothing
//! else; a host has the worker retire, and hears how it is.
//!
//! On Linux the worker also asks the system to be killed when the master dies, which reaches it
//! even while it is stopped. A thread of its own (`lifeline`) reads it, owned by [`Lifeline`],
//! which wakes and joins it when it is dropped.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use crate::base::thread::{self, OwnedThread};
use crate::net::broker::Broker;
use crate::net::lifeline::{self, RETIRE, Sign};

use super::interruptible::Interruptible;

/// A worker that lost its master has this long to end in order; then it just ends.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// One that ends for another reason has this long: longer than a master waits before it kills.
const LAST_GRACE_OF_OTHERS: Duration = Duration::from_secs(10);

/// The end of stdin, and what comes before it, as messages.
pub(in crate::cli) struct Lifeline {
    wishes_rx: Receiver<()>,
    _watch: Option<LifelineWatch>,
}

/// In this order: the thread has its wake-ups before it is joined.
struct LifelineWatch {
    _wake: UnixStream,
    _done_tx: Sender<()>,
    _thread: OwnedThread,
}

impl Lifeline {
    /// Watches stdin from now on, and takes what is handed out for the broker if there is one.
    ///
    /// # Errors
    /// There is no stdin, or no thread for it.
    pub(in crate::cli) fn watch(broker: Option<Arc<Broker>>) -> io::Result<Self> {
        die_with_parent()?;
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (wake, woken) = UnixStream::pair()?;
        let (wishes_tx, wishes_rx) = bounded::<()>(1);
        let (done_tx, done_rx) = bounded::<()>(0);
        let thread = thread::spawn("lifeline", move || {
            let mut stdin = Interruptible { file: stdin, woken: &woken };
            let mut bytes = [0; 64];
            while stdin.wait().unwrap_or_default() {
                let goes_on = match &broker {
                    Some(broker) => broker.receive().unwrap_or_default(),
                    None => stdin.read(&mut bytes).is_ok_and(|len| {
                        if bytes[..len].contains(&RETIRE) {
                            // A full channel holds the same wish already.
                            let _ = wishes_tx.try_send(());
                        }
                        len > 0
                    }),
                };
                if !goes_on {
                    break;
                }
            }
            drop(wishes_tx);
            // Even if something hangs now, no worker outlives its master: this ends the process if
            // `run` does not.
            if done_rx.recv_timeout(LAST_GRACE) == Err(RecvTimeoutError::Timeout) {
                std::process::exit(1);
            }
        })?;
        Ok(Self {
            wishes_rx,
            _watch: Some(LifelineWatch { _wake: wake, _done_tx: done_tx, _thread: thread }),
        })
    }

    /// The broker at the other end of stdin.
    ///
    /// # Errors
    /// There is no stdin.
    pub(in crate::cli) fn broker() -> io::Result<Arc<Broker>> {
        Ok(Arc::new(Broker::new(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// For a worker without one: it is never cut.
    pub(in crate::cli) fn none() -> Self {
        Self { wishes_rx: never(), _watch: None }
    }

    /// Gets a message when this worker is to retire; closed once the lifeline is cut.
    pub(in crate::cli) fn wishes_rx(&self) -> &Receiver<()> {
        &self.wishes_rx
    }

    /// Says how this worker is. A host that takes nothing is soon gone, or gets the next one.
    pub(in crate::cli) fn say(&self, sign: Sign) {
        let _ = lifeline::say(io::stdin(), sign.byte());
    }
}

/// The time that a process has to end in order, from its beginning until this is dropped; after
/// that it just ends. Its thread (`last-grace`) is woken and joined by the drop.
pub(in crate::cli) struct LastGrace {
    // In this order: the thread's wake-up before it is joined.
    _done_tx: Sender<()>,
    _thread: Option<OwnedThread>,
}

impl LastGrace {
    /// Without a thread for it a process that hangs stays, until its supervisor kills it.
    pub(in crate::cli) fn begin() -> Self {
        let (done_tx, done_rx) = bounded::<()>(0);
        let thread = thread::spawn("last-grace", move || {
            if done_rx.recv_timeout(LAST_GRACE_OF_OTHERS) == Err(RecvTimeoutError::Timeout) {
                log::error!("ending at once: something hangs");
                std::process::exit(1);
            }
        });
        Self { _done_tx: done_tx, _thread: thread.ok() }
    }
}

/// Asks for KILL when the master's thread that started this process ends, which it does with the
/// master only.
///
/// # Errors
/// The master is gone already. (One that went even before this process looked is noticed by the end
/// of stdin.)
#[cfg(target_os = "linux")]
fn die_with_parent() -> io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == parent { Ok(()) } else { Err(io::Error::other("the master is gone")) }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> io::Result<()> {
    Ok(())
}
