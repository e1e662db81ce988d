//! The protocol's types as a serde derive writes and reads them: trees, one pass over a message for
//! each side that touches it.
//!
//! Compact rmp-serde, as docs/protocol.md says: structs are arrays, variants are maps of one.
//! `tests.rs` holds them to the same golden bytes as the product.

use chrono::{DateTime, Utc};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Id {
    Guild(Snowflake),
    User(Snowflake),
}

impl Id {
    pub fn snowflake(self) -> u64 {
        match self {
            Id::Guild(Snowflake(number)) | Id::User(Snowflake(number)) => number,
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Id::Guild(_) => "guild",
            Id::User(_) => "user",
        }
    }
}

/// A decimal text on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snowflake(pub u64);

impl Serialize for Snowflake {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Snowflake {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Snowflake;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a snowflake")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Snowflake, E> {
                text.parse().map(Snowflake).map_err(|_| E::custom("not a snowflake"))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Snowflake, E> {
                Ok(Snowflake(number))
            }
        }

        deserializer.deserialize_any(Digits)
    }
}

/// A typed value. In this order on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KhronosValue {
    Text(String),
    Integer(i64),
    UnsignedInteger(u64),
    Float(f64),
    Boolean(bool),
    Buffer(Vec<u8>),
    Vector((f32, f32, f32)),
    Map(Vec<(KhronosValue, KhronosValue)>),
    List(Vec<KhronosValue>),
    Timestamptz(DateTime<Utc>),
    Interval((i64, u32)),
    TimeZone(String),
    LazyStringMap(StringMap),
    Null,
}

impl From<serde_json::Value> for KhronosValue {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(is) => Self::Boolean(is),
            serde_json::Value::Number(number) => number
                .as_i64()
                .map_or_else(|| Self::Float(number.as_f64().unwrap_or(0.0)), Self::Integer),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(values) => {
                Self::List(values.into_iter().map(Self::from).collect())
            }
            serde_json::Value::Object(members) => Self::Map(
                members.into_iter().map(|(name, value)| (Self::Text(name), value.into())).collect(),
            ),
        }
    }
}

/// A map of texts in the order of its sender.
#[derive(Debug, Clone, PartialEq)]
pub struct StringMap(pub Vec<(String, String)>);

impl Serialize for StringMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = StringMap;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(StringMap(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// An event for a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateEvent {
    pub name: String,
    pub author: Option<String>,
    pub data: EventData,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventData {
    Json(serde_json::Value),
    KhronosValue(KhronosValue),
    RawValue(RawText),
}

/// JSON text, in an array of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawText {
    pub json: String,
}

/// From the master to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ServerMessage {
    Hello { heartbeat_interval_ms: u64 },
    DispatchEvent { id: Id, event: CreateEvent, req_id: Option<u64> },
    RunScript { id: Id, name: String, code: String, event: CreateEvent, req_id: u64 },
    DropWorker { id: Id, req_id: u64 },
}

/// A dispatch that borrows its event, so that sending one does not copy it.
#[derive(Debug, Serialize)]
pub enum Dispatch<'e> {
    DispatchEvent { id: Id, event: &'e CreateEvent, req_id: Option<u64> },
}

/// From a worker to the master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClientMessage {
    DispatchResponse { req_id: u64, result: Result<KhronosValue, String> },
    Heartbeat {},
}

/// What `/db/kv` is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KeyValueOp {
    Get { scopes: Vec<String>, key: String },
    ListScopes {},
    Set { scopes: Vec<String>, key: String, value: KhronosValue },
    Delete { scopes: Vec<String>, key: String },
    Find { scopes: Vec<String>, query: String },
}

/// A record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KvRecord {
    pub id: String,
    pub key: String,
    pub value: KhronosValue,
    pub scopes: Vec<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub last_updated_at: Option<DateTime<Utc>>,
}

/// What a tenant is subscribed to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantState {
    pub events: Vec<String>,
    pub data: serde_json::Value,
}
