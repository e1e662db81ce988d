//! What a tenant tells another, and what becomes of it.

use super::{EncodedJson, TenantId};
use crate::base::labels::labels;

/// The event that brings a message to its receiver, without an author. Its data is an object of
/// `depth`, `from`, `topic` and `data`.
pub const TENANT_MESSAGE: &str = "TenantMessage";

/// The scope of the record that says which messages its tenant receives; scripts write it by
/// `ctx.Messages` only.
pub const MESSAGE_RULES_SCOPE: &str = "#messages";

/// The key of that record: its value is a map from tenants to lists of prefixes of topics.
pub const MESSAGE_RULES_KEY: &str = "allowed";

/// A message of a tenant to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantMessage {
    /// The tenant that sends it.
    pub from: TenantId,
    /// Its receiver.
    pub to: TenantId,
    /// What it is about, by which the receiver allows it.
    pub topic: String,
    /// What it says.
    pub data: EncodedJson,
    /// How many messages in a row led to it, itself counted: 1, unless the handler of a message
    /// sends it.
    pub depth: u64,
}

labels! {
    /// What became of a message.
    MessageOutcome {
        /// It is in its receiver's queue.
        Accepted = "accepted",
        /// The receiver does not allow it, or one of both runs nothing.
        NotAllowed = "not_allowed",
        /// There is no room for it, or its sender has sent too many.
        Busy = "busy",
        /// Its data or topic is too large.
        TooLarge = "too_large",
        /// Too many messages in a row led to it.
        TooDeep = "too_deep",
        /// No answer came: it may have been accepted.
        Unknown = "unknown",
    }
}

impl MessageOutcome {
    /// What it says to the sender.
    pub fn explanation(self) -> &'static str {
        match self {
            MessageOutcome::Accepted => "it is in the receiver's queue",
            MessageOutcome::NotAllowed => "the receiver does not allow this topic from the sender",
            MessageOutcome::Busy => "too many messages, or no room for it; try again later",
            MessageOutcome::TooLarge => "the topic or the data is too large",
            MessageOutcome::TooDeep => "too many messages in a row led to it",
            MessageOutcome::Unknown => "no answer came; it may have been accepted",
        }
    }
}
