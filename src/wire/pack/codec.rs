//! Rust types of others ↔ plain MessagePack, through serde: the one home of rmp-serde.
//!
//! For callers of the library with their event data in types of their own, or in
//! `serde_json::Value`. Deliberately not for anything of the protocol: those types have encoders of
//! their own.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plain::{self, PlainToken, PlainWalk};
use crate::base::limits::SERDE_DEPTH_MAX;
use crate::wire::WireError;
use crate::wire::data::EncodedJson;

/// Why a type and plain MessagePack do not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// The type serializes into something that JSON does not have: bytes, a key that is not text,
    /// too deep.
    NotPlain(WireError),
    /// What serde or the type said.
    Serde(String),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::NotPlain(error) => error.fmt(f),
            CodecError::Serde(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for CodecError {}

/// A value of one's own as event data; structs become objects by field name.
///
/// serde recurses: a value that nests thousands of levels deep overflows the stack of the thread
/// that built it.
///
/// # Errors
/// It does not serialize, or not into what JSON can express.
pub fn from_serde<T: Serialize + ?Sized>(value: &T) -> Result<EncodedJson, CodecError> {
    let bytes =
        rmp_serde::to_vec_named(value).map_err(|error| CodecError::Serde(error.to_string()))?;
    plain::check(bytes).map_err(CodecError::NotPlain)
}

/// Event data as a value of one's own.
///
/// # Errors
/// It nests deeper than [`SERDE_DEPTH_MAX`], or the type does not take it.
pub fn to_serde<T: DeserializeOwned>(json: &EncodedJson) -> Result<T, CodecError> {
    check_depth(json).map_err(CodecError::NotPlain)?;
    rmp_serde::from_slice(json.as_bytes()).map_err(|error| CodecError::Serde(error.to_string()))
}

/// serde recurses with its input, and frames are large in debug builds: so the depth is known
/// before it starts.
fn check_depth(json: &EncodedJson) -> Result<(), WireError> {
    let mut depth = 0;
    let mut walk = PlainWalk::new(json);
    while let Some(token) = walk.next()? {
        match token {
            PlainToken::Array(_) | PlainToken::Object(_) => depth += 1,
            PlainToken::End => depth -= 1,
            _ => {}
        }
        if depth > SERDE_DEPTH_MAX {
            return Err(WireError::TooDeep);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{event_data_from_json, json_from_encoded};

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Message {
        content: String,
        author: Option<u64>,
        scores: Vec<f64>,
    }

    #[test]
    fn a_type_of_one_s_own_is_an_object_and_comes_back() {
        let message = Message { content: "hi".to_owned(), author: Some(5), scores: vec![1.0, 2.5] };
        let encoded = from_serde(&message).expect("plain");
        assert_eq!(
            json_from_encoded(&encoded).as_deref(),
            Ok(r#"{"content":"hi","author":5,"scores":[1.0,2.5]}"#)
        );
        assert_eq!(to_serde(&encoded), Ok(message));
    }

    #[test]
    fn a_json_value_comes_back() {
        let json = serde_json::json!({"a": [1, -1, 1.5, null, true, "x"], "b": {"c": {}}});
        assert_eq!(to_serde(&from_serde(&json).expect("plain")), Ok(json));
    }

    #[test]
    fn what_does_not_match_is_an_error() {
        let number = from_serde(&5).expect("plain");
        assert!(matches!(to_serde::<Message>(&number), Err(CodecError::Serde(_))));
        let numbered = std::collections::BTreeMap::from([(1, 2)]);
        assert!(matches!(from_serde(&numbered), Err(CodecError::NotPlain(_))));
    }

    #[test]
    fn depth_is_checked_before_serde_recurses() {
        let nested = |depth| {
            event_data_from_json(("[".repeat(depth) + &"]".repeat(depth)).as_bytes()).expect("JSON")
        };
        assert!(to_serde::<serde_json::Value>(&nested(SERDE_DEPTH_MAX)).is_ok());
        let deeper = to_serde::<serde_json::Value>(&nested(SERDE_DEPTH_MAX + 1));
        assert_eq!(deeper, Err(CodecError::NotPlain(WireError::TooDeep)));
    }
}
