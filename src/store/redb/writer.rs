//! The store's one writer: takes the writes that wait, makes them one durable commit, then answers
//! them all.
//!
//! A lone write commits at once; while a commit syncs, others gather for the next. An error of the
//! disk ends the database: redb answers nothing until it is reopened, which the writer does by
//! itself, with growing pauses; callers get `Unavailable` meanwhile. Owned and joined by
//! [`super::RedbStore`]; its wake-ups are the end of its queue and the faults that readers report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::apply::{RedbWrite, Tables, WriteDone};
use super::open::Source;
use super::{RedbFault, RedbShared};
use crate::base::answer::AnswerSender;
use crate::base::error::DbError;
use crate::base::limits::{STORE_BATCH_BYTES, STORE_BATCH_MAX, STORE_REOPEN_MAX, STORE_REOPEN_MIN};
use crate::store::Revision;
use crate::store::permit::QueuePermit;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use redb::Database;

/// What a write did.
pub(super) type WriteAnswer = Result<WriteDone, DbError>;

/// A write and its waiter.
pub(super) struct QueuedWrite {
    pub(super) op: RedbWrite,
    /// Has room for the one answer.
    pub(super) answer_tx: AnswerSender<WriteAnswer>,
    /// What it takes of the bytes that may wait, given back when the request goes.
    pub(super) permit: QueuePermit,
}

pub(super) struct RedbWriter {
    pub(super) shared: Arc<RedbShared>,
    pub(super) source: Box<dyn Source>,
    pub(super) queue_rx: Receiver<(QueuePermit, QueuedWrite)>,
    pub(super) fault_rx: Receiver<()>,
    /// How many writes were made since the store was opened.
    pub(super) revision: Revision,
}

/// Whether the writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterStep {
    Go,
    Stop,
}

impl RedbWriter {
    /// Serves until the queue's other end is gone and everything in it is answered; then closes the
    /// database.
    ///
    /// # Blocks
    /// On the queue, and on the disk.
    pub(super) fn run(mut self) {
        while self.serve_once() == WriterStep::Go {}
        if let Some(Err(error)) = self.shared.take_database().map(close) {
            log::warn!(
                "the store was not closed well, it will be made good when it opens: {error}"
            );
        }
    }

    fn serve_once(&mut self) -> WriterStep {
        let first = select! {
            recv(self.queue_rx) -> request => match request {
                Ok((_, request)) => request,
                Err(_) => return WriterStep::Stop,
            },
            recv(self.fault_rx) -> _ => return self.reopen("a read failed"),
        };
        let batch = self.gather(first);
        // A panic is a bug, redb's or ours, and has left a transaction unfinished: the same remedy
        // as for a bad disk. The waiters of the batch learn from its dropped answers that the
        // outcome is unknown.
        match catch_unwind(AssertUnwindSafe(|| self.commit(batch))) {
            Ok(Ok(())) => WriterStep::Go,
            Ok(Err(fault)) => self.reopen(&fault.to_string()),
            Err(payload) => self.reopen(&crate::base::thread::panic_message(payload.as_ref())),
        }
    }

    /// The first request and those that wait behind it, as far as a commit has room.
    fn gather(&self, first: QueuedWrite) -> Vec<QueuedWrite> {
        let mut bytes = first.permit.bytes();
        let mut batch = vec![first];
        while batch.len() < STORE_BATCH_MAX && bytes < STORE_BATCH_BYTES {
            let Ok((_, request)) = self.queue_rx.try_recv() else { break };
            bytes += request.permit.bytes();
            batch.push(request);
        }
        batch
    }

    /// Makes a batch durable and answers it.
    fn commit(&mut self, batch: Vec<QueuedWrite>) -> Result<(), RedbFault> {
        let mut waiting = Vec::with_capacity(batch.len());
        let applied = self.apply(batch, &mut waiting);
        let answer: fn(Result<WriteDone, DbError>) -> Result<WriteDone, DbError> = match &applied {
            Ok(()) => |done| done,
            // Nothing of the transaction can be on the disk.
            Err(Failed::BeforeCommit(_)) => |_| Err(unavailable()),
            Err(Failed::InCommit(_)) => |done| match done {
                Ok(WriteDone::Changed(..)) => Err(unknown()),
                // What changes nothing is not made undone by a lost commit, but it may have looked
                // at it.
                Ok(WriteDone::Nothing) | Err(_) => Err(unavailable()),
            },
        };
        for (answer_tx, done) in waiting {
            // A caller that stopped waiting was told that the outcome is unknown.
            answer_tx.send(answer(done));
        }
        applied.map_err(Failed::fault)
    }

    fn apply(
        &mut self,
        batch: Vec<QueuedWrite>,
        waiting: &mut Vec<Unanswered>,
    ) -> Result<(), Failed> {
        let mut batch = batch.into_iter();
        let result = self.apply_all(&mut batch, waiting);
        // After a fault, those whose turn did not come.
        waiting.extend(batch.map(|request| (request.answer_tx, Ok(WriteDone::Nothing))));
        result
    }

    fn apply_all(
        &mut self,
        batch: &mut impl Iterator<Item = QueuedWrite>,
        waiting: &mut Vec<Unanswered>,
    ) -> Result<(), Failed> {
        let mut transaction = self.shared.begin_write().map_err(Failed::BeforeCommit)?;
        transaction.set_quick_repair(true);
        let mut changes = false;
        let notes = {
            let mut tables = Tables::open(&transaction).map_err(Failed::BeforeCommit)?;
            for QueuedWrite { op, answer_tx, permit } in batch {
                let revision = Revision(self.revision.0 + 1);
                let applied = tables.apply(op, revision);
                drop(permit);
                let done = match applied {
                    Ok(done) => Ok(done),
                    Err(RedbFault::Answer(error)) => Err(error),
                    Err(fault) => {
                        waiting.push((answer_tx, Ok(WriteDone::Nothing)));
                        return Err(Failed::BeforeCommit(fault));
                    }
                };
                if matches!(done, Ok(WriteDone::Changed(..))) {
                    self.revision = revision;
                    changes = true;
                }
                waiting.push((answer_tx, done));
            }
            tables.take_notes()
        };
        if changes {
            let commits = &self.shared.commits;
            let began = Instant::now();
            let committed = transaction.commit();
            commits.took.observe(began.elapsed());
            commits.operations.add(waiting.len() as u64);
            if committed.is_ok() {
                self.shared.notes.add(notes);
            }
            committed.map_err(|error| {
                commits.failures.inc();
                // Any of it may have been made.
                self.shared.notes.lose();
                Failed::InCommit(error.into())
            })
        } else {
            transaction.abort().map_err(|error| Failed::BeforeCommit(error.into()))
        }
    }

    /// Closes the database and opens it again, however long that takes; answers everybody
    /// `Unavailable` meanwhile.
    fn reopen(&mut self, why: &str) -> WriterStep {
        log::error!("the store failed and is reopened: {why}");
        // It says the error again; the file is made good by the next open.
        let _ = self.shared.take_database().map(close);
        let mut pause = STORE_REOPEN_MIN;
        loop {
            match self.source.reopen() {
                Ok(database) => {
                    // What readers reported was about the database that is gone.
                    while self.fault_rx.try_recv().is_ok() {}
                    self.shared.install(database);
                    self.shared.commits.reopens.inc();
                    log::info!("the store is open again");
                    return WriterStep::Go;
                }
                Err(error) => log::warn!("the store cannot be reopened yet: {error}"),
            }
            if self.refuse_until(Instant::now() + pause) == WriterStep::Stop {
                return WriterStep::Stop;
            }
            pause = (pause * 2).min(STORE_REOPEN_MAX);
        }
    }

    fn refuse_until(&self, deadline: Instant) -> WriterStep {
        loop {
            match self.queue_rx.recv_deadline(deadline) {
                Ok((_, request)) => request.answer_tx.send(Err(unavailable())),
                Err(RecvTimeoutError::Timeout) => return WriterStep::Go,
                Err(RecvTimeoutError::Disconnected) => return WriterStep::Stop,
            }
        }
    }
}

/// Closes a database that may have been left in the middle of anything.
fn close(database: Database) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| database.close())) {
        Ok(closed) => closed.map_err(|error| error.to_string()),
        // Its locks are poisoned by an earlier panic. It is gone all the same.
        Err(payload) => Err(crate::base::thread::panic_message(payload.as_ref())),
    }
}

type Unanswered = (AnswerSender<WriteAnswer>, WriteAnswer);

enum Failed {
    BeforeCommit(RedbFault),
    InCommit(RedbFault),
}

impl Failed {
    fn fault(self) -> RedbFault {
        match self {
            Failed::BeforeCommit(fault) | Failed::InCommit(fault) => fault,
        }
    }
}

pub(super) fn unavailable() -> DbError {
    DbError::Unavailable("the store is not available".to_owned())
}

pub(super) fn unknown() -> DbError {
    DbError::OutcomeUnknown(
        "the store failed while it made the change: it may have been made or not".to_owned(),
    )
}
