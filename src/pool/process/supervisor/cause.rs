//! Why workers are started again, in a few words that can be counted; the text beside them is for
//! people.

use std::ops::Index;

use crate::base::labels::labels;

labels! {
    /// Why a worker is started again.
    #[derive(Hash)]
    Cause {
        /// Its process ended by itself, or was ended from outside.
        Death = "death",
        /// Its process could not be started.
        NotStarted = "not_started",
        /// It was not ready in time.
        NotReady = "not_ready",
        /// It missed its heartbeats.
        Silent = "silent",
        /// An executor hung.
        Hang = "hang",
        /// It lost its link again and again.
        LinksLost = "links_lost",
        /// An operator wanted it anew.
        Operator = "operator",
        /// All workers are started anew.
        Rolling = "rolling",
        /// It reached a limit of `--recycle-…`.
        Recycled = "recycled",
    }
}

impl Cause {
    /// What people read of a restart that was asked for.
    pub fn told(self) -> &'static str {
        match self {
            Cause::Operator => "restarted by an operator",
            Cause::Rolling => "rolling restart",
            other => other.as_str(),
        }
    }
}

/// A cause with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What is counted.
    pub cause: Cause,
    /// What people read.
    pub text: String,
}

impl Why {
    /// A cause with this text.
    pub fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }
}

/// How often a worker was started again, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restarts([u64; Cause::ALL.len()]);

impl Restarts {
    /// One more.
    pub fn count(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Index<Cause> for Restarts {
    type Output = u64;

    fn index(&self, cause: Cause) -> &u64 {
        &self.0[cause as usize]
    }
}
