//! The golden vectors and the accept list of the async reference, byte for byte. Tests only.

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::wire::WireError;
use crate::wire::data::sharding::Shard;
use crate::wire::data::{
    CreateEvent, CreateGlobalKv, EncodedValue, EventData, GlobalKeyValueOp, GlobalKv, GlobalKvData,
    KeyValueOp, KhronosValue, KvRecord, PartialGlobalKv, PublicGlobalKeyValueOp, Scopes, TenantId,
    TenantState,
};
use crate::wire::json;
use crate::wire::message::{ClientMessage, FinishedEvents, Incoming, ScriptLine, ServerMessage};
use crate::wire::pack::plain;
use crate::wire::pack::shape::{Decode, Encode};
use crate::wire::pack::value;

const VECTORS: &str = include_str!("../../../tests/data/wire/vectors.json");
const OURS: &str = include_str!("../../../tests/data/wire/ours.json");
const ACCEPT: &str = include_str!("../../../tests/data/wire/accept.json");

struct Case {
    name: String,
    kind: String,
    bytes: Vec<u8>,
    json: Json,
}

fn cases(text: &str) -> Vec<Case> {
    let list: Vec<Json> = serde_json::from_str(text).expect("the test data is JSON");
    let field = |json: &Json, name: &str| json[name].as_str().expect("a text field").to_owned();
    list.into_iter()
        .map(|json| Case {
            name: field(&json, "name"),
            kind: field(&json, "type"),
            bytes: unhex(&field(&json, "hex")),
            json,
        })
        .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// The bytes of every case, good and bad.
pub(super) fn all_inputs() -> Vec<Vec<u8>> {
    [VECTORS, OURS, ACCEPT].into_iter().flat_map(cases).map(|case| case.bytes).collect()
}

/// Decodes bytes as the type that the test data names, and encodes the result.
fn reencode(kind: &str, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    fn through<T: Decode + Encode>(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
        T::from_bytes(bytes).map(|value| value.to_bytes())
    }
    match kind {
        "Id" => through::<TenantId>(bytes),
        "Option<Id>" => through::<Option<TenantId>>(bytes),
        "KhronosValue" => {
            let checked = through::<EncodedValue>(bytes)?;
            let tree = value::decode(&value::check(bytes.to_vec())?)?;
            assert_eq!(
                value::encode(&tree).as_bytes(),
                checked,
                "the tree and the bytes must agree"
            );
            Ok(checked)
        }
        "InnerEventData" => {
            let mut data = EventData::from_bytes(bytes)?;
            if let EventData::Json(json) = &mut data {
                // Json data keeps its sender's form; what the reference would write is its
                // canonical form.
                assert_eq!(through::<EventData>(bytes), Ok(bytes.to_vec()));
                *json = plain::canonical(json);
            }
            Ok(data.to_bytes())
        }
        "CreateEvent" => through::<CreateEvent>(bytes),
        "TenantState" => through::<TenantState>(bytes),
        "ServerMessage" => match ServerMessage::decode(bytes)? {
            Incoming::Message(message) => Ok(message.encode()),
            Incoming::Unknown(_) => Err(WireError::Invalid("unknown variant")),
        },
        "ClientMessage" => match ClientMessage::decode(bytes)? {
            Incoming::Message(message) => Ok(message.encode()),
            Incoming::Unknown(_) => Err(WireError::Invalid("unknown variant")),
        },
        "HashMap<Id,TenantState>" => through::<HashMap<TenantId, TenantState>>(bytes),
        "KeyValueOp" => through::<KeyValueOp>(bytes),
        "SerdeKvRecord" => through::<KvRecord>(bytes),
        "Option<SerdeKvRecord>" => through::<Option<KvRecord>>(bytes),
        "Vec<SerdeKvRecord>" => through::<Vec<KvRecord>>(bytes),
        "Vec<String>" => through::<Vec<String>>(bytes),
        "PublicGlobalKeyValueOp" => through::<PublicGlobalKeyValueOp>(bytes),
        "GlobalKeyValueOp" => through::<GlobalKeyValueOp>(bytes),
        "CreateGlobalKv" => through::<CreateGlobalKv>(bytes),
        "PartialGlobalKv" => through::<PartialGlobalKv>(bytes),
        "Vec<PartialGlobalKv>" => through::<Vec<PartialGlobalKv>>(bytes),
        "GlobalKvData" => through::<GlobalKvData>(bytes),
        "GlobalKv" => through::<GlobalKv>(bytes),
        "Option<GlobalKv>" => through::<Option<GlobalKv>>(bytes),
        _ => panic!("the test data has a type that this test does not know: {kind}"),
    }
}

#[test]
fn every_golden_vector_is_decoded_and_encoded_to_the_same_bytes() {
    let cases = cases(VECTORS);
    assert_eq!(cases.len(), 130);
    for case in cases {
        assert_eq!(reencode(&case.kind, &case.bytes), Ok(case.bytes), "{}", case.name);
    }
}

#[test]
fn what_only_we_say_has_the_bytes_that_are_kept() {
    let cases = cases(OURS);
    assert!(!cases.is_empty());
    for case in cases {
        assert_eq!(reencode(&case.kind, &case.bytes), Ok(case.bytes), "{}", case.name);
    }
}

#[test]
fn the_reference_and_we_accept_and_refuse_alike() {
    let cases = cases(ACCEPT);
    assert_eq!(cases.len(), 118);
    for case in cases {
        let result = reencode(&case.kind, &case.bytes);
        let accepted = case.json["accepted"].as_bool().expect("a bool");
        assert_eq!(result.is_ok(), accepted, "{} {}: {result:?}", case.kind, case.name);
        let canonical = unhex(case.json["canonical_hex"].as_str().expect("a text"));
        if accepted {
            // The deepest cases come without the reference's bytes: they are canonical as they are.
            let canonical = if canonical.is_empty() { case.bytes } else { canonical };
            assert_eq!(result, Ok(canonical), "{} {}", case.kind, case.name);
        }
    }
}

#[test]
fn the_documents_show_the_bytes_that_we_write() {
    let documentation = include_str!("../../../docs/protocol.md");
    let list = KhronosValue::List(vec![KhronosValue::Integer(-1), KhronosValue::Null]);
    for (shown, bytes) in [
        (r#"{"Guild": "0"}"#, TenantId::Guild(0).to_bytes()),
        (r#"{"List": [{"Integer": -1}, "Null"]}"#, value::encode(&list).into_bytes()),
        (r#"{"Hello": [5000]}"#, ServerMessage::Hello { heartbeat_interval_ms: 5000 }.encode()),
        (
            r#"{"Shards": [[5, 0, 0, 0, 0, 0, 0, 0]]}"#,
            ServerMessage::Shards { served: [0, 2].into_iter().filter_map(Shard::new).collect() }
                .encode(),
        ),
        (r#"{"Retire": []}"#, ServerMessage::Retire.encode()),
        (r#"{"Heartbeat": []}"#, ClientMessage::Heartbeat.encode()),
        (
            r#"{"PublishFeed": [{"Guild": "1"}, "score", {"red": 3}]}"#,
            ClientMessage::PublishFeed {
                from: TenantId::Guild(1),
                topic: "score".to_owned(),
                data: json::event_data_from_json(br#"{"red":3}"#).expect("JSON"),
            }
            .encode(),
        ),
        (
            r#"{"Finished": [[{"Guild": "1"}, 2, 1, 0]]}"#,
            ClientMessage::Finished(vec![FinishedEvents {
                tenant: TenantId::Guild(1),
                ok: 2,
                failed: 1,
                busy: 0,
            }])
            .encode(),
        ),
        (
            r#"{"ScriptLog": [[{"Guild": "1"}, "info", "hi"]]}"#,
            ClientMessage::ScriptLog(vec![ScriptLine {
                tenant: TenantId::Guild(1),
                level: "info".to_owned(),
                text: "hi".to_owned(),
            }])
            .encode(),
        ),
        (
            r#"{"Get": [["global"], "k1"]}"#,
            KeyValueOp::Get { scopes: Scopes::new(["global"]), key: "k1".to_owned() }.to_bytes(),
        ),
    ] {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = documentation
            .lines()
            .find(|line| line.trim_start().starts_with(shown))
            .expect("it is shown");
        assert_eq!(line.trim_start()[shown.len()..].trim(), hex.join(" "), "{shown}");
    }
}
