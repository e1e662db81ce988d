//! JSON text ↔ plain MessagePack (an event's or a tenant state's data), and the JSON forms of a
//! `KhronosValue`: the `$`-tagged one of interfaces ([`value_to_json`]) and the one that PostgreSQL
//! stores ([`to_jsonb`]).
//!
//! Text is streamed into MessagePack and back; nothing is built into a tree, and nothing recurses.
//! Pure.

#[cfg(feature = "postgres")]
mod jsonb;
mod nested;
mod reader;
mod tagged;
mod writer;

use log::Level;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use super::pack::plain::{PlainToken, PlainWalk};
use super::pack::writer::{Open, Writer};
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::data::{EncodedJson, EncodedValue, TenantId, Timestamp};
use reader::{JsonReader, JsonToken};
use writer::JsonWriter;

pub use super::pack::plain::canonical;
#[cfg(feature = "postgres")]
pub use jsonb::{from_jsonb, plain_to_jsonb, to_jsonb};
pub use reader::JsonError;
pub use tagged::{value_from_json, value_to_json};

/// Why an event has no result, as lines of JSON tell it: those of a replay, and of many events in
/// one request.
pub fn failure_to_json(kind: &str, sent: bool, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!("{{\"kind\":\"{kind}\",\"sent\":{sent},\"message\":{message}}}")
}

/// The line of a log as JSON, for those that follow it.
pub fn logged_to_json(tenant: TenantId, at: Timestamp, level: Level, text: &str) -> String {
    let (level, text) = (level.as_str().to_lowercase(), serde_json::Value::from(text));
    format!("{{\"tenant\":\"{tenant}\",\"at\":\"{at}\",\"level\":\"{level}\",\"text\":{text}}}")
}

/// JSON text as an event's data: the sender's order of keys is kept, and of equal keys both.
///
/// # Errors
/// The text is not JSON, or nests too deep.
pub fn event_data_from_json(text: &[u8]) -> Result<EncodedJson, JsonError> {
    let mut reader = JsonReader::new(text, WIRE_DEPTH_MAX - 1)?;
    // MessagePack is a little shorter than JSON text, except for floats of few digits.
    let mut writer = Writer::with_capacity(text.len());
    let mut open: Vec<OpenJson> = Vec::new();
    while let Some(token) = reader.next()? {
        if !matches!(token, JsonToken::Key(_) | JsonToken::End)
            && let Some(level) = open.last_mut()
        {
            level.len += 1;
        }
        match token {
            JsonToken::Null => writer.nil(),
            JsonToken::Boolean(value) => writer.boolean(value),
            JsonToken::Integer(number) => writer.integer(number),
            JsonToken::Unsigned(number) => writer.unsigned(number),
            JsonToken::Float(number) => writer.f64(number),
            JsonToken::Text(text) | JsonToken::Key(text) => writer.text(&text),
            JsonToken::BeginArray => {
                open.push(OpenJson { head: writer.open(), len: 0, is_object: false })
            }
            JsonToken::BeginObject => {
                open.push(OpenJson { head: writer.open(), len: 0, is_object: true })
            }
            JsonToken::End => match open.pop() {
                Some(level) if level.is_object => writer.close_map(level.head, level.len),
                Some(level) => writer.close_array(level.head, level.len),
                None => return Err(reader.error("nothing is open")),
            },
        }
    }
    Ok(EncodedJson::from_checked(writer.into_bytes()))
}

/// An array or object that is being written.
struct OpenJson {
    head: Open,
    len: usize,
    is_object: bool,
}

/// Plain MessagePack as JSON text, in the order in which it stands; NaN and infinities are null.
///
/// # Errors
/// None for bytes that were checked where they entered.
pub fn json_from_encoded(json: &EncodedJson) -> Result<String, JsonError> {
    json_text(json, |number, out| out.float(number))
}

/// As [`json_from_encoded`], with floats written as the caller likes.
pub(super) fn json_text(
    json: &EncodedJson,
    write_float: impl Fn(f64, &mut JsonWriter),
) -> Result<String, JsonError> {
    let mut out = JsonWriter::with_capacity(json.as_bytes().len() * 2);
    let mut walk = PlainWalk::new(json);
    // The bracket that ends each open container.
    let mut ends: Vec<char> = Vec::new();
    while let Some(token) = walk.next()? {
        match token {
            PlainToken::Null => out.display("null"),
            PlainToken::Boolean(value) => out.display(value),
            PlainToken::Negative(number) => out.display(number),
            PlainToken::Unsigned(number) => out.display(number),
            PlainToken::Float(number) => write_float(number, &mut out),
            PlainToken::Text(text) => out.text(text),
            PlainToken::Key(key) => out.key(key),
            PlainToken::Array(_) => {
                out.begin('[');
                ends.push(']');
            }
            PlainToken::Object(_) => {
                out.begin('{');
                ends.push('}');
            }
            PlainToken::End => ends.pop().map_or((), |bracket| out.end(bracket)),
        }
    }
    Ok(out.into_text())
}

/// As JSON text within an answer: for serde_json only.
impl Serialize for EncodedJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_text(json_from_encoded(self), serializer)
    }
}

/// In its JSON form within an answer: for serde_json only.
impl Serialize for EncodedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_text(value_to_json(self), serializer)
    }
}

fn serialize_text<S: Serializer>(
    text: Result<String, JsonError>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = text.map_err(S::Error::custom)?;
    RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pack::plain;

    #[test]
    fn json_text_goes_into_messagepack_and_back() {
        for text in [
            "null",
            "[]",
            "{}",
            r#"{"z":1,"a":[true,false,null,-5,18446744073709551615,1.5,1.0,"é\n"],"":{"k":[[],{}]}}"#,
            "1e300",
            "-0.0",
        ] {
            let encoded = event_data_from_json(text.as_bytes()).expect("JSON");
            assert_eq!(plain::check(encoded.as_bytes().to_vec()), Ok(encoded.clone()));
            assert_eq!(json_from_encoded(&encoded).as_deref(), Ok(text));
        }
    }

    #[test]
    fn long_arrays_and_objects_have_the_right_heads() {
        for len in [15, 16, 65_535, 65_536] {
            let array = format!("[{}]", vec!["1"; len].join(","));
            let object: Vec<_> = (0..len).map(|key| format!("\"{key}\":[]")).collect();
            let object = format!("{{{}}}", object.join(","));
            for text in [array, object] {
                let encoded = event_data_from_json(text.as_bytes()).expect("JSON");
                assert_eq!(plain::check(encoded.as_bytes().to_vec()), Ok(encoded.clone()));
                assert!(json_from_encoded(&encoded).is_ok_and(|back| back == text));
            }
        }
    }

    #[test]
    fn the_canonical_form_is_sorted_and_the_last_of_equal_keys_wins() {
        let canonical_of = |text: &str| {
            let encoded = event_data_from_json(text.as_bytes()).expect("JSON");
            json_from_encoded(&canonical(&encoded)).expect("plain")
        };
        assert_eq!(
            canonical_of(r#"{"b":1,"a":{"d":1,"c":[{"f":0,"e":0}]}}"#),
            r#"{"a":{"c":[{"e":0,"f":0}],"d":1},"b":1}"#
        );
        assert_eq!(
            canonical_of(r#"{"a":1,"b":2,"a":3,"a":{"y":1,"x":2}}"#),
            r#"{"a":{"x":2,"y":1},"b":2}"#
        );
        assert_eq!(canonical_of(r#"[{},[],{"é":1,"z":1,"":0}]"#), r#"[{},[],{"":0,"z":1,"é":1}]"#);
        let keys: Vec<_> = (0..100).rev().map(|key| format!("\"{key:03}\":1")).collect();
        let sorted: Vec<_> = keys.iter().rev().cloned().collect();
        assert_eq!(
            canonical_of(&format!("{{{}}}", keys.join(","))),
            format!("{{{}}}", sorted.join(","))
        );
    }

    #[test]
    fn what_json_has_no_number_for_becomes_null() {
        let encoded =
            plain::check(vec![0x92, 0xca, 0x7f, 0xc0, 0, 0, 0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0])
                .expect("plain");
        assert_eq!(json_from_encoded(&encoded).as_deref(), Ok("[null,null]"));
        assert_eq!(canonical(&encoded).as_bytes(), [0x92, 0xc0, 0xc0]);
    }

    #[test]
    fn what_json_cannot_express_is_refused() {
        for bytes in [
            &[0xc4, 0][..],
            &[0xd4, 0, 0],
            &[0x81, 1, 1],
            &[0x81, 0xc4, 1, b'a', 1],
            &[0xa1, 0xff],
            &[0xc1],
            &[],
        ] {
            assert!(plain::check(bytes.to_vec()).is_err(), "{bytes:x?}");
        }
        assert!(plain::check(vec![0xc0, 0xc0]).is_err());
    }

    #[test]
    fn depth_is_bounded_as_the_reference_bounds_it() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = event_data_from_json(nested(1023).as_bytes()).expect("not too deep");
        assert_eq!(plain::check(deepest.as_bytes().to_vec()), Ok(deepest.clone()));
        assert_eq!(canonical(&deepest), deepest);
        assert_eq!(json_from_encoded(&deepest), Ok(nested(1023)));
        assert_eq!(event_data_from_json(nested(1024).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(event_data_from_json("[".repeat(1_000_000).as_bytes()), Err(JsonError::TooDeep));
        assert!(plain::check(vec![0x91; 1_000_000]).is_err());
    }
}
