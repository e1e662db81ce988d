//! Why workers are started again, in a few words that can be counted; the text beside them is for
//! people.

use std::ops::Index;

/// Why a worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its process ended by itself, or somebody else ended it.
    Death,
    /// Its process could not be started.
    NotStarted,
    /// It was not ready in time.
    NotReady,
    /// It missed its heartbeats.
    Silent,
    /// An executor hung.
    Hang,
    /// It lost its link again and again.
    LinksLost,
    /// An operator wanted it anew.
    Operator,
    /// All workers are started anew.
    Rolling,
    /// It reached a limit of `--recycle-…`.
    Recycled,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 9] = [
        Cause::Death,
        Cause::NotStarted,
        Cause::NotReady,
        Cause::Silent,
        Cause::Hang,
        Cause::LinksLost,
        Cause::Operator,
        Cause::Rolling,
        Cause::Recycled,
    ];

    /// Its name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Death => "death",
            Cause::NotStarted => "not_started",
            Cause::NotReady => "not_ready",
            Cause::Silent => "silent",
            Cause::Hang => "hang",
            Cause::LinksLost => "links_lost",
            Cause::Operator => "operator",
            Cause::Rolling => "rolling",
            Cause::Recycled => "recycled",
        }
    }
}

impl Cause {
    /// What people read of a restart that somebody asked for.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_in_the_order_of_their_places() {
        assert!(Cause::ALL.iter().enumerate().all(|(place, cause)| *cause as usize == place));
    }
}
