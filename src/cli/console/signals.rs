//! Signals as messages: the only file that knows the signal crate.
//!
//! A thread (`signals`) waits for them; it is freed and joined when [`Signals`] is dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals as Iterator};

use crate::base::thread::{self, OwnedThread};

/// Limit: signals that wait to be looked at; more of them say nothing new.
const WAITING_MAX: usize = 16;

/// The same signal again within this time is the same wish: `timeout` sends its signal to the
/// process and then to the group that the process is in, and a second signal means that a graceful
/// stop is to be cut short.
const ECHO: Duration = Duration::from_millis(50);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum ProcessSignal {
    /// TERM: end gracefully; the second time at once.
    Terminate,
    /// INT, such as from Ctrl-C in a terminal, which the whole process group gets.
    Interrupt,
    /// HUP: roll the workers.
    HangUp,
}

/// The signals of this process, from its making on.
#[derive(Debug)]
pub(in crate::cli) struct Signals {
    received_rx: Receiver<ProcessSignal>,
    handle: Handle,
    _thread: OwnedThread,
}

impl Signals {
    /// Takes over TERM, INT and HUP.
    ///
    /// # Errors
    /// The operating system refused.
    pub(in crate::cli) fn install() -> io::Result<Self> {
        let mut signals = Iterator::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let (received_tx, received_rx) = bounded(WAITING_MAX);
        let thread = thread::spawn("signals", move || {
            let mut last: Option<(i32, Instant)> = None;
            for number in signals.forever() {
                if last.is_some_and(|(same, at)| same == number && at.elapsed() < ECHO) {
                    continue;
                }
                last = Some((number, Instant::now()));
                let signal = match number {
                    SIGTERM => ProcessSignal::Terminate,
                    SIGINT => ProcessSignal::Interrupt,
                    _ => ProcessSignal::HangUp,
                };
                // A full channel holds the same message already.
                let _ = received_tx.try_send(signal);
            }
        })?;
        Ok(Self { received_rx, handle, _thread: thread })
    }

    /// The signals, as they come.
    pub(in crate::cli) fn received_rx(&self) -> &Receiver<ProcessSignal> {
        &self.received_rx
    }
}

/// Makes a limit on the size of files an error of the write that meets it (EFBIG, as of a full
/// disk), where by default the signal ends the process. A handler that does nothing, as one that is
/// inherited would reach every child.
pub(in crate::cli) fn outlive_file_limits() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Lets TERM, INT and HUP end this process at once and as a success, whatever it does then: for a
/// command whose user says with them that there is no more to see.
pub(in crate::cli) fn end_quietly() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            0,
            Arc::new(AtomicBool::new(true)),
        )?;
    }
    Ok(())
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Frees the thread, which the field's own drop then joins.
        self.handle.close();
    }
}
