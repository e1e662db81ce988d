//! Operations with the callers that wait for them: of any kind, and the two that are carried out
//! together with others of theirs in one exchange.
//!
//! Made on the caller's thread, carried out on one of `worker.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::records::{self, GetWork, SetWork};
use super::session::{PgSession, SessionFault, unknown};
use crate::base::answer::{AnswerPlace, AnswerSender};
use crate::base::error::DbError;
use crate::base::limits::{
    POSTGRES_TOGETHER_BYTES, POSTGRES_TOGETHER_LOCK_MAX, POSTGRES_TOGETHER_MAX,
};
use crate::store::permit::QueuePermit;

/// An operation and its waiter.
pub(super) trait PgJob: Send {
    /// Whether its caller still waits.
    fn is_wanted(&self) -> bool;

    /// The same, and from then on the operation counts as begun.
    fn begin(&self) -> bool;

    /// Carries it out; may be called again after a fault that left nothing behind.
    fn attempt(&mut self, session: &mut PgSession) -> Result<(), SessionFault>;

    /// Whether an attempt has found the answer.
    fn has_answer(&mut self) -> bool;

    /// Answers; an `Ok` answers what the last attempt found.
    fn finish(self: Box<Self>, result: Result<(), DbError>);

    /// What it does, if that can be done together with others of its kind.
    fn joint(&mut self) -> Option<Joint<'_>> {
        None
    }
}

/// What can be done together with others of its kind.
pub(super) enum Joint<'j> {
    Get(&'j mut GetWork),
    Set(&'j mut SetWork),
}

/// Whether the operation can be carried out together with those: of no two sets is the record the
/// same, as each has to know the row that it replaces.
pub(super) fn fits(those: &mut [Box<dyn PgJob>], next: &mut Box<dyn PgJob>) -> bool {
    let Some(next) = next.joint() else { return false };
    let mut bytes = match &next {
        Joint::Get(_) => 0,
        Joint::Set(set) => set.bytes(),
    };
    those.len() < POSTGRES_TOGETHER_MAX
        && those.iter_mut().all(|one| match (one.joint(), &next) {
            (Some(Joint::Get(_)), Joint::Get(_)) => true,
            (Some(Joint::Set(one)), Joint::Set(next)) => {
                bytes += one.bytes();
                bytes <= POSTGRES_TOGETHER_BYTES && !one.is_of_record(next)
            }
            _ => false,
        })
}

/// Carries out operations that fit together, all in one exchange or none. One that has no answer
/// afterwards was not carried out.
pub(super) fn attempt_together(
    session: &mut PgSession,
    jobs: &mut [Box<dyn PgJob>],
) -> Result<(), SessionFault> {
    let (mut gets, mut sets) = (Vec::new(), Vec::new());
    for job in jobs.iter_mut() {
        match job.joint() {
            Some(Joint::Get(get)) => gets.push(get),
            Some(Joint::Set(set)) => sets.push(set),
            None => {}
        }
    }
    if sets.is_empty() {
        return records::get_all(session, &mut gets);
    }
    records::set_all(session, &mut sets, Some(POSTGRES_TOGETHER_LOCK_MAX))
}

/// How far an operation has come, decided once, by its caller or its thread.
#[derive(Default)]
pub(super) struct CallProgress(AtomicU8);

impl CallProgress {
    const BEGUN: u8 = 1;
    const ABANDONED: u8 = 2;

    fn begin(&self) -> bool {
        self.0.compare_exchange(0, Self::BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::BEGUN
    }

    fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::ABANDONED
    }

    /// Gives it up, if it has not begun.
    pub(super) fn abandon(&self) -> bool {
        self.0.compare_exchange(0, Self::ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// What a thread carries out for a caller.
pub(super) trait Work: Send {
    type Found: Send;

    /// See [`PgJob::attempt`].
    fn attempt(&mut self, session: &mut PgSession) -> Result<(), SessionFault>;

    /// What the last attempt has found, once it has.
    fn found(&mut self) -> &mut Option<Self::Found>;

    /// See [`PgJob::joint`].
    fn joint(&mut self) -> Option<Joint<'_>> {
        None
    }
}

/// Work of any kind.
pub(super) struct AnyWork<T, F> {
    pub(super) work: F,
    pub(super) found: Option<T>,
}

impl<T: Send, F: FnMut(&mut PgSession) -> Result<T, SessionFault> + Send> Work for AnyWork<T, F> {
    type Found = T;

    fn attempt(&mut self, session: &mut PgSession) -> Result<(), SessionFault> {
        self.found = Some((self.work)(session)?);
        Ok(())
    }

    fn found(&mut self) -> &mut Option<T> {
        &mut self.found
    }
}

/// Work, and its way back to the caller.
pub(super) struct PgCall<W: Work> {
    work: W,
    answer_tx: AnswerSender<Result<W::Found, DbError>>,
    progress: Arc<CallProgress>,
    _permit: QueuePermit,
}

/// What the caller of an operation waits with.
pub(super) struct PgWaiting<T> {
    pub(super) place: Arc<AnswerPlace<Result<T, DbError>>>,
    pub(super) progress: Arc<CallProgress>,
}

impl<W: Work> PgCall<W> {
    pub(super) fn new(work: W, permit: QueuePermit) -> (Self, PgWaiting<W::Found>) {
        let (answer_tx, place) = AnswerSender::new();
        let progress = Arc::new(CallProgress::default());
        let waiting = PgWaiting { place, progress: Arc::clone(&progress) };
        (Self { work, answer_tx, progress, _permit: permit }, waiting)
    }
}

impl<W: Work> PgJob for PgCall<W> {
    fn is_wanted(&self) -> bool {
        !self.progress.is_abandoned()
    }

    fn begin(&self) -> bool {
        self.progress.begin()
    }

    fn attempt(&mut self, session: &mut PgSession) -> Result<(), SessionFault> {
        self.work.attempt(session)
    }

    fn has_answer(&mut self) -> bool {
        self.work.found().is_some()
    }

    fn finish(mut self: Box<Self>, result: Result<(), DbError>) {
        let answer = result.and_then(|()| self.work.found().take().ok_or_else(unknown));
        self.answer_tx.send(answer);
    }

    fn joint(&mut self) -> Option<Joint<'_>> {
        self.work.joint()
    }
}
