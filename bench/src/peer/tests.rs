//! The peer is what it says: it speaks the same bytes, and each side of it works with the other
//! side of ours.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::{
    ClientMessage, CreateEvent, EventData, Id, KeyValueOp, KhronosValue, KvRecord, ServerMessage,
    TenantState,
};

fn reencode(kind: &str, bytes: &[u8]) -> Option<Result<Vec<u8>, String>> {
    fn through<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let value: T = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
        rmp_serde::to_vec(&value).map_err(|error| error.to_string())
    }
    Some(match kind {
        "Id" => through::<Id>(bytes),
        "Option<Id>" => through::<Option<Id>>(bytes),
        "KhronosValue" => through::<KhronosValue>(bytes),
        "InnerEventData" => through::<EventData>(bytes),
        "CreateEvent" => through::<CreateEvent>(bytes),
        "TenantState" => through::<TenantState>(bytes),
        "ServerMessage" => through::<ServerMessage>(bytes),
        "ClientMessage" => through::<ClientMessage>(bytes),
        "KeyValueOp" => through::<KeyValueOp>(bytes),
        "SerdeKvRecord" => through::<KvRecord>(bytes),
        "Option<SerdeKvRecord>" => through::<Option<KvRecord>>(bytes),
        "Vec<SerdeKvRecord>" => through::<Vec<KvRecord>>(bytes),
        "Vec<String>" => through::<Vec<String>>(bytes),
        // The peer has no shop, and reads tenant states as a map of its own.
        _ => return None,
    })
}

#[test]
fn the_peers_types_read_and_write_the_golden_bytes() {
    let vectors = include_str!("../../../tests/data/wire/vectors.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).expect("JSON");
    let mut seen = 0;
    for vector in vectors {
        let field = |name: &str| vector[name].as_str().expect("a text");
        let hex = field("hex");
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
        if let Some(written) = reencode(field("type"), &bytes) {
            assert_eq!(written, Ok(bytes), "{}", field("name"));
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} vectors are of the peer's types");
}
