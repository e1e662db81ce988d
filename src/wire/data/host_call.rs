//! What a tenant asks of the owner's own programs, and what becomes of it.

use super::{EncodedJson, EncodedValue, TenantId};
use crate::base::labels::{Label as _, labels};

/// The scope of the record that says which names its tenant may call; only masters write it.
pub const HOST_RULES_SCOPE: &str = "#host";

/// The key of that record: its value is a list of names.
pub const HOST_RULES_KEY: &str = "allowed";

/// A call of a tenant to a host process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCall {
    /// The tenant that calls.
    pub from: TenantId,
    /// What is called, such as `discord.send`.
    pub name: String,
    /// What it is called with.
    pub args: EncodedJson,
}

labels! {
    /// What became of a call.
    HostOutcome {
        /// The host process answered.
        Answered = "answered",
        /// It answered with an error.
        Failed = "failed",
        /// No host process serves the name: nothing was called.
        NoHost = "no_host",
        /// The tenant may not call the name.
        NotAllowed = "not_allowed",
        /// The tenant calls too often, or the host processes have enough to do.
        Busy = "busy",
        /// The name or what it is called with is too large.
        TooLarge = "too_large",
        /// No answer came in time; it may have been carried out.
        Deadline = "deadline",
        /// The way to the host process was lost; it may have been carried out.
        Unknown = "outcome_unknown",
    }
}

/// Why a call has no result: any outcome but `answered`, and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostError {
    /// Which.
    pub outcome: HostOutcome,
    /// What it means, or what the host process said.
    pub text: String,
}

/// What a call comes to.
pub type HostResult = Result<EncodedValue, HostError>;

impl HostError {
    /// With what it says of itself.
    pub fn new(outcome: HostOutcome) -> Self {
        let text = match outcome {
            HostOutcome::Answered | HostOutcome::Failed => "the host process failed",
            HostOutcome::NoHost => "no host process serves this name at the moment",
            HostOutcome::NotAllowed => "this tenant may not call this name",
            HostOutcome::Busy => "too many calls; try again later",
            HostOutcome::TooLarge => "the name or the arguments are too large",
            HostOutcome::Deadline => "no answer came in time; it may have been carried out",
            HostOutcome::Unknown => "the host process was lost; it may have been carried out",
        };
        Self { outcome, text: text.to_owned() }
    }

    /// As it travels: the outcome first, for programs.
    pub fn to_text(&self) -> String {
        format!("{}: {}", self.outcome.as_str(), self.text)
    }

    /// From how it travels. One that this version does not know is an unknown outcome.
    pub fn of_text(text: &str) -> Self {
        let known = text.split_once(": ").and_then(|(outcome, text)| {
            let outcome = HostOutcome::of_name(outcome.as_bytes())?;
            Some(Self { outcome, text: text.to_owned() })
        });
        known.unwrap_or_else(|| Self { outcome: HostOutcome::Unknown, text: text.to_owned() })
    }
}

/// Whether a host process can serve this name.
pub fn is_host_name(name: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_travels_as_a_text() {
        for outcome in HostOutcome::ALL {
            let error = HostError { outcome, text: "a: b".to_owned() };
            assert_eq!(HostError::of_text(&error.to_text()), error);
        }
        let newer = HostError::of_text("later: what this version does not know");
        assert_eq!(newer.outcome, HostOutcome::Unknown);
    }

    #[test]
    fn names_are_words_with_dots() {
        for (name, is_one) in [
            ("discord.send", true),
            ("a", true),
            ("A_b-9.", true),
            ("", false),
            ("a,b", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(is_host_name(name, 12), is_one, "{name}");
        }
        assert!(is_host_name("12345678", 8) && !is_host_name("123456789", 8));
    }
}
