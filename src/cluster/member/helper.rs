//! A thread with a connection of its own that asks the database, so that the coordination thread
//! never waits for a server or a network which says nothing and closes nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::thread::ClusterNote;
use crate::base::error::DbError;
use crate::base::thread::{self, OwnedThread, ThreadExit};
use crate::store::lease::{ConnectCoordination, Coordination, LeaseAsk, LeaseTold};

/// One question, and until when its answer is of use.
type Question = (LeaseAsk, Instant);

/// See the module's description. Its thread ends once it has been dropped and its question is over.
pub(super) struct Helper {
    number: u64,
    questions_tx: Sender<Question>,
    is_connecting: Arc<AtomicBool>,
    thread: OwnedThread,
}

impl Helper {
    /// Starts one, which connects when it is asked.
    pub(super) fn start(
        number: u64,
        connect: Arc<ConnectCoordination>,
        notes_tx: Sender<ClusterNote>,
    ) -> io::Result<Self> {
        let (questions_tx, questions_rx) = bounded(1);
        let is_connecting = Arc::new(AtomicBool::new(false));
        let (is_dialling, exit_tx) = (is_connecting.clone(), notes_tx.clone());
        let run = move || answer_all(number, &connect, &questions_rx, &is_dialling, &notes_tx);
        let panicked = move |exit| {
            if let ThreadExit::Panicked(text) = exit {
                let _ = exit_tx.send(ClusterNote::Answer(number, Err(DbError::Internal(text))));
            }
        };
        let thread = thread::spawn_watched(format!("coord-pg-{number}"), run, panicked)?;
        Ok(Self { number, questions_tx, is_connecting, thread })
    }

    /// Its number, by which its answers are known.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Asks; false: its thread has ended. One question at a time.
    pub(super) fn ask(&self, ask: LeaseAsk, until: Instant) -> bool {
        self.questions_tx.try_send((ask, until)).is_ok()
    }

    /// Whether it is connecting, which ends by itself.
    pub(super) fn is_connecting(&self) -> bool {
        self.is_connecting.load(Ordering::Acquire)
    }

    /// Leaves its thread to the end of its question.
    pub(super) fn leave(self) -> OwnedThread {
        self.thread
    }
}

fn answer_all(
    number: u64,
    connect: &ConnectCoordination,
    questions_rx: &Receiver<Question>,
    is_connecting: &AtomicBool,
    notes_tx: &Sender<ClusterNote>,
) {
    let mut connection = None;
    for (ask, until) in questions_rx {
        let told = answer(&mut connection, connect, &ask, until, is_connecting);
        if notes_tx.send(ClusterNote::Answer(number, told)).is_err() {
            return;
        }
    }
}

fn answer(
    connection: &mut Option<Box<dyn Coordination>>,
    connect: &ConnectCoordination,
    ask: &LeaseAsk,
    until: Instant,
    is_connecting: &AtomicBool,
) -> Result<LeaseTold, DbError> {
    let mut session = match connection.take() {
        Some(session) => session,
        None => {
            is_connecting.store(true, Ordering::Release);
            let session = connect();
            is_connecting.store(false, Ordering::Release);
            session?
        }
    };
    if Instant::now() >= until {
        *connection = Some(session);
        return Err(DbError::Unavailable("the database took too long to connect to".to_owned()));
    }
    let told = session.ask(ask)?;
    *connection = Some(session);
    Ok(told)
}
