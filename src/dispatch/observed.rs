//! What a job was, for the observer that counts how jobs end: carried beside the answer, so that
//! every answer is told of once.
//!
//! Made where jobs enter a pool, and part of the answer, as an allocation that one thread makes and
//! another frees costs more than all of it. Deliberately without a clock: the observer
//! reads one.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::{Job, Request};
use crate::base::error::DispatchError;
use crate::base::labels::labels;
use crate::wire::data::TenantId;

/// Limit: bytes of a job's name that are kept, which all names of Discord's events fit; a longer
/// one is cut.
const NAME_BYTES: usize = 47;

/// Is told how jobs end.
pub trait Observer: Send + Sync {
    /// A job was answered, or refused. Called once for each, before its waiter learns of it, on
    /// the thread that has the answer: it must not block.
    fn ended(&self, job: &Observed, outcome: Result<(), &DispatchError>);

    /// A job was not taken, and is kept to be offered again: it counts as none so far.
    fn handed_back(&self, job: &Observed);
}

labels! {
    /// What a caller asked for, and whether it waits for the answer.
    JobKind {
        /// An event whose answer is waited for.
        Event = "event",
        /// An event whose answer is not waited for.
        EventNowait = "event_nowait",
        /// A script.
        Script = "script",
        /// The closing of a tenant's VM.
        Drop = "drop",
    }
}

impl JobKind {
    /// The kind of a request.
    pub fn of(request: &Request) -> Self {
        match &request.job {
            Job::Dispatch(_) if request.answer.is_awaited() => JobKind::Event,
            Job::Dispatch(_) => JobKind::EventNowait,
            Job::RunScript { .. } => JobKind::Script,
            Job::DropTenant => JobKind::Drop,
        }
    }
}

/// A job whose end an observer is told of.
///
/// Invariant: [`Observed::ended`] takes it, so it is told of once at most; an
/// [`Answer`](super::Answer) that carries it sees to it that it is told of.
#[derive(Clone)]
pub struct Observed {
    observer: Arc<dyn Observer>,
    /// Whose it is.
    pub tenant: TenantId,
    /// What was asked for.
    pub kind: JobKind,
    /// When it was asked for.
    pub since: Instant,
    /// Bytes of its tenant's share that it takes until it has ended, if it was admitted.
    pub holds: Option<usize>,
    name_len: u8,
    name: [u8; NAME_BYTES],
}

impl Observed {
    /// A job that began at `since`; `name` is the event's or script's.
    pub fn new(
        observer: Arc<dyn Observer>,
        tenant: TenantId,
        kind: JobKind,
        name: &str,
        since: Instant,
    ) -> Self {
        let end =
            (0..=name.len().min(NAME_BYTES)).rfind(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let name = &name[..end];
        let mut bytes = [0; NAME_BYTES];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        // At most NAME_BYTES, which fit.
        Self { observer, tenant, kind, since, holds: None, name_len: name.len() as u8, name: bytes }
    }

    /// The event's or script's name, of which the first 47 bytes are kept.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.name_len)]).unwrap_or_default()
    }

    /// Tells of its end.
    pub fn ended(self, outcome: Result<(), &DispatchError>) {
        self.observer.ended(&self, outcome);
    }

    /// Tells that it was not taken, and has not ended.
    pub fn handed_back(self) {
        self.observer.handed_back(&self);
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observed({} {:?} of {})", self.kind.as_str(), self.name(), self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn ended(&self, _: &Observed, _: Result<(), &DispatchError>) {}

        fn handed_back(&self, _: &Observed) {}
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let named = |name: &str| {
            let job = Observed::new(
                Arc::new(Nobody),
                TenantId::Guild(1),
                JobKind::Event,
                name,
                Instant::now(),
            );
            job.name().to_owned()
        };
        assert_eq!(named("MESSAGE_CREATE"), "MESSAGE_CREATE");
        assert_eq!(named(""), "");
        assert_eq!(named(&"x".repeat(64)), "x".repeat(47));
        assert_eq!(named(&"é".repeat(40)), "é".repeat(23));
    }
}
