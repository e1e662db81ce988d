//! Faults of the simulation's own: each breaks one thing that the product keeps, so that the check
//! which looks for it is seen to fail.

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// The last dispatch of a link that ended arrives once more over the next link.
    DispatchesTwice,
    /// A link that ends keeps what waits for an answer.
    EndedLinkKeepsItsRequests,
    /// An answer goes to the request that waits longest.
    AnswersGoToTheFirst,
    /// What waits for a worker is not looked at when its deadline has passed.
    NothingExpires,
    /// The supervisor is not told that time has passed.
    NoTicks,
    /// The end of a process is not noticed.
    NothingIsReaped,
    /// What an earlier link says is taken for the current one's.
    OldNotesCount,
    /// A master's workers outlive it.
    WorkersOutliveTheirMaster,
    /// A caller that gives up does not say so.
    CallersForgetToCancel,
    /// KILL is not sent.
    NothingIsKilled,
    /// A worker answers what it did not run.
    WorkersAnswerWithoutRunning,
    /// A link says that a request was not taken, and it left.
    LinksRefuseWhatLeft,
    /// A link takes more than it may.
    LinksHaveNoBound,
    /// The callers get each answer twice.
    AnswersComeTwice,
    /// A process is started that connects to nothing.
    ProcessIsLeftBehind,
}

impl Planted {
    /// Each, and how the text of the check begins that finds it.
    pub(super) const ALL: &[(Self, &[&str])] = &[
        (Self::DispatchesTwice, &["at most once"]),
        (Self::EndedLinkKeepsItsRequests, &["an ended link"]),
        (Self::AnswersGoToTheFirst, &["its own answer"]),
        (Self::NothingExpires, &["expired"]),
        (Self::NoTicks, &["settled"]),
        (Self::NothingIsReaped, &["settled", "a stop ends"]),
        (Self::OldNotesCount, &["settled"]),
        (Self::WorkersOutliveTheirMaster, &["one process"]),
        (Self::CallersForgetToCancel, &["one outcome"]),
        (Self::NothingIsKilled, &["settled", "a stop ends"]),
        (Self::WorkersAnswerWithoutRunning, &["ok is one run"]),
        (Self::LinksRefuseWhatLeft, &["not sent"]),
        (Self::LinksHaveNoBound, &["bounds"]),
        (Self::AnswersComeTwice, &["one outcome"]),
        (Self::ProcessIsLeftBehind, &["nothing is left"]),
    ];
}
