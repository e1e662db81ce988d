//! What a tenant is told: an event with its name, author and data.

use super::{EncodedJson, EncodedValue};

/// The event that a worker sends, by itself and without an author, to tenants that are subscribed
/// to it when it starts.
pub const ON_STARTUP: &str = "OnStartup";

/// An event for a tenant's template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateEvent {
    /// The event's name, such as `MESSAGE_CREATE`. Discord's, or any other.
    pub name: String,
    /// The Discord id of the user who caused it, in decimal, if there is one.
    pub author: Option<String>,
    /// What happened.
    pub data: EventData,
}

impl CreateEvent {
    /// How large it is, as far as its sender decides.
    pub fn bytes(&self) -> usize {
        let data = match &self.data {
            EventData::Json(json) => json.as_bytes().len(),
            EventData::KhronosValue(value) => value.as_bytes().len(),
            EventData::RawValue(text) => text.len(),
        };
        self.name.len() + self.author.as_ref().map_or(0, String::len) + data
    }
}

/// The data of an event, in the form its sender had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventData {
    /// Plain JSON: what Discord sends.
    Json(EncodedJson),
    /// A typed value.
    KhronosValue(EncodedValue),
    /// JSON text. The async reference can send it but not read it; we read it, and never send it.
    RawValue(String),
}
