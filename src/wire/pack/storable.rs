//! The store's rules on a value (protocol.md: "KV semantics"): what both stores can keep and give
//! back unchanged.

use super::build::Builder;
use super::walk::{StringPairs, Token, Walk};
use crate::base::limits::{KV_VALUE_MAX_BYTES, VALUE_DEPTH_MAX};
use crate::wire::WireError;
use crate::wire::data::EncodedValue;

const TOO_DEEP: &str = "the value nests deeper than 32 levels";
const NUL: &str = "a text of the value has a NUL character";
const NOT_FINITE: &str = "a number of the value is not finite";

/// The value as a store keeps it, in which −0.0 is 0.0 and a `LazyStringMap` is sorted, with the
/// last of equal keys.
///
/// # Errors
/// Which rule forbids it: too large, too deep, NUL in a text, a number that is not finite.
pub fn storable(value: &EncodedValue) -> Result<EncodedValue, &'static str> {
    if value.as_bytes().len() > KV_VALUE_MAX_BYTES {
        return Err("the value is larger than 256 KiB");
    }
    if keeps_as_it_is(value)? {
        return Ok(value.clone());
    }
    rebuilt(value).map_err(broken)
}

/// Checks the rules; whether nothing in the value has to change.
fn keeps_as_it_is(value: &EncodedValue) -> Result<bool, &'static str> {
    let mut walk = Walk::new(value);
    let mut same = true;
    while let Some(token) = walk.next().map_err(broken)? {
        if walk.open_levels() > VALUE_DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        match token {
            Token::Text(text) => check_text(text)?,
            Token::Float(number) => same &= number_keeps(number)?,
            Token::Vector(numbers) => {
                for number in numbers {
                    same &= number_keeps(number.into())?;
                }
            }
            Token::LazyStringMap(pairs) => same &= string_map_keeps(pairs)?,
            _ => {}
        }
    }
    Ok(same)
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.as_bytes().contains(&0) { Err(NUL) } else { Ok(()) }
}

fn number_keeps(number: f64) -> Result<bool, &'static str> {
    if number.is_finite() {
        Ok(number != 0.0 || number.is_sign_positive())
    } else {
        Err(NOT_FINITE)
    }
}

fn string_map_keeps(pairs: StringPairs<'_>) -> Result<bool, &'static str> {
    for (key, value) in pairs.clone() {
        check_text(key)?;
        check_text(value)?;
    }
    Ok(pairs.map(|(key, _)| key).is_sorted_by(|a, b| a < b))
}

fn rebuilt(value: &EncodedValue) -> Result<EncodedValue, WireError> {
    let mut builder = Builder::new();
    let mut walk = Walk::new(value);
    while let Some(token) = walk.next()? {
        match token {
            // Adding zero makes 0.0 of -0.0 and leaves everything else.
            Token::Float(number) => builder.leaf(&Token::Float(number + 0.0))?,
            Token::Vector(numbers) => {
                builder.leaf(&Token::Vector(numbers.map(|number| number + 0.0)))?
            }
            Token::LazyStringMap(pairs) => builder.string_map(&sorted(pairs))?,
            other => builder.token(&other)?,
        }
    }
    builder.finish()
}

/// A `LazyStringMap` in the order in which a store gives it back: jsonb keeps neither order nor
/// duplicates.
pub(crate) fn sorted<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<(&'a str, &'a str)> {
    pairs.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
}

/// An [`EncodedValue`] was checked where it entered.
fn broken(_: WireError) -> &'static str {
    "the value cannot be read"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::KhronosValue::{
        self, Float, LazyStringMap, List, Map, Null, Text, Vector,
    };
    use crate::wire::pack::value::{decode, encode};

    fn nested(levels: usize) -> KhronosValue {
        (0..levels).fold(Null, |inner, level| match level % 2 {
            0 => List(vec![inner]),
            _ => Map(vec![(Null, inner)]),
        })
    }

    fn pairs(pairs: &[(&str, &str)]) -> KhronosValue {
        LazyStringMap(
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        for (value, error) in [
            (nested(33), TOO_DEEP),
            (Text("a\0".to_owned()), NUL),
            (List(vec![Map(vec![(Text("\0".to_owned()), Null)])]), NUL),
            (pairs(&[("\0", "")]), NUL),
            (pairs(&[("", "\0")]), NUL),
            (Float(f64::NAN), NOT_FINITE),
            (Float(f64::NEG_INFINITY), NOT_FINITE),
            (Vector([0.0, f32::INFINITY, 0.0]), NOT_FINITE),
            (Text("x".repeat(256 * 1024)), "the value is larger than 256 KiB"),
        ] {
            assert_eq!(storable(&encode(&value)), Err(error));
        }
    }

    #[test]
    fn what_is_within_the_rules_is_kept() {
        let largest = Text("x".repeat(256 * 1024 - 11));
        assert_eq!(encode(&largest).as_bytes().len(), 256 * 1024);
        for value in [
            Null,
            nested(32),
            largest,
            Float(0.1),
            Vector([1.0, 0.0, -2.5]),
            pairs(&[("a", ""), ("b", "")]),
        ] {
            let encoded = encode(&value);
            assert_eq!(storable(&encoded), Ok(encoded));
        }
    }

    #[test]
    fn what_jsonb_cannot_tell_apart_becomes_the_same() {
        for (value, stored) in [
            (Float(-0.0), Float(0.0)),
            (List(vec![Vector([-0.0, 1.0, -0.0])]), List(vec![Vector([0.0, 1.0, 0.0])])),
            (pairs(&[("b", "1"), ("a", "2"), ("b", "3")]), pairs(&[("a", "2"), ("b", "3")])),
        ] {
            let encoded = storable(&encode(&value)).expect("storable");
            assert_eq!(encoded, encode(&stored));
            assert_eq!(decode(&encoded), Ok(stored));
        }
    }
}
