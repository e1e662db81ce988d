//! Values in their three forms (MessagePack, JSON text, PostgreSQL's jsonb), and the patterns that
//! look for keys.

use mesophyll::store::pattern::{Pattern, fold};
use mesophyll::wire::json::{
    event_data_from_json, json_from_encoded, value_from_json, value_to_json,
};
#[cfg(feature = "postgres")]
use mesophyll::wire::json::{from_jsonb, to_jsonb};
use mesophyll::wire::pack::value;

/// serde_json gives up below this many levels; deeper texts are beyond the comparison.
const SERDE_LEVELS: usize = 100;

/// MessagePack that may be a value: every form of it reads back as the same value.
pub(super) fn value(bytes: &[u8]) {
    let Ok(checked) = value::check(bytes.to_vec()) else { return };
    let tree = value::decode(&checked).expect("what was checked can be read");
    let canonical = value::encode(&tree);
    assert_eq!(
        value::check(canonical.as_bytes().to_vec()).as_ref(),
        Ok(&canonical),
        "canonical bytes stay as they are"
    );
    let again = value::encode(&value::decode(&canonical).expect("what we write, we read"));
    assert_eq!(again, canonical);
    if let Ok(text) = value_to_json(&canonical) {
        let back = value_from_json(text.as_bytes()).expect("the JSON that we write, we read");
        assert_eq!(value_to_json(&back).expect("as before"), text);
    }
    #[cfg(feature = "postgres")]
    // NaN and infinities have no form in jsonb: the rules of the store refuse them before.
    if let Ok(stored) = value::storable(&canonical) {
        let text = to_jsonb(&stored).expect("what may be stored has a form in jsonb");
        let back = from_jsonb(text.as_bytes()).expect("the jsonb that we write, we read");
        assert_eq!(back, stored, "through jsonb and back");
    }
}

/// JSON text: taken where serde_json takes it, and the same data after a round.
pub(super) fn json_text(text: &[u8]) {
    let ours = event_data_from_json(text);
    let levels = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if levels < SERDE_LEVELS {
        let theirs = serde_json::from_slice::<serde_json::Value>(text);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "ours: {ours:?}; serde_json: {theirs:?}");
    }
    if let Ok(data) = ours {
        let written = json_from_encoded(&data).expect("what was read can be written");
        let again = event_data_from_json(written.as_bytes()).expect("what we write, we read");
        assert_eq!(json_from_encoded(&again).expect("as before"), written);
    }
    if let Ok(value) = value_from_json(text) {
        let written = value_to_json(&value).expect("what was read can be written");
        let again = value_from_json(written.as_bytes()).expect("what we write, we read");
        assert_eq!(value_to_json(&again).expect("as before"), written);
    }
    #[cfg(feature = "postgres")]
    if let Ok(value) = from_jsonb(text) {
        let written = to_jsonb(&value).expect("what was read can be written");
        let again = from_jsonb(written.as_bytes()).expect("what we write, we read");
        assert_eq!(to_jsonb(&again).expect("as before"), written);
    }
}

/// A pattern and a key, separated by a line feed, against a matcher that is too simple to be wrong.
pub(super) fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Enough for every rule, and the simple matcher is slow.
    let (pattern, key) = text.split_once('\n').unwrap_or((text, ""));
    if pattern.len() > 64 || key.len() > 128 {
        return;
    }
    let Ok(compiled) = Pattern::parse(pattern) else {
        let backslashes = pattern.bytes().rev().take_while(|byte| *byte == b'\\').count();
        assert_eq!(backslashes % 2, 1, "only a trailing lone backslash is refused");
        return;
    };
    let elements: Vec<char> = pattern.chars().collect();
    let key_chars: Vec<char> = key.chars().collect();
    assert_eq!(
        compiled.matches(key),
        simple_match(&elements, &key_chars),
        "{pattern:?} on {key:?}"
    );
}

/// Row by row over the pattern: which prefixes of the key it matches so far.
fn simple_match(pattern: &[char], key: &[char]) -> bool {
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; key.len() + 1];
        match pattern[at] {
            '%' => {
                let first =
                    reached.iter().position(|is_reached| *is_reached).unwrap_or(key.len() + 1);
                next.iter_mut().skip(first).for_each(|is_reached| *is_reached = true);
            }
            char => {
                let literal = if char == '\\' {
                    Some(pattern[at + 1])
                } else {
                    Some(char).filter(|char| *char != '_')
                };
                at += usize::from(char == '\\');
                for (place, key_char) in key.iter().enumerate() {
                    let is_equal = literal.is_none_or(|literal| fold(literal) == fold(*key_char));
                    next[place + 1] = reached[place] && is_equal;
                }
            }
        }
        reached = next;
        at += 1;
    }
    reached[key.len()]
}
