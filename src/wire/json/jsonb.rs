//! The JSON form of a `KhronosValue` that PostgreSQL stores as jsonb: what serde makes of the
//! reference's type.
//!
//! An object with the variant's name around each value, as on the wire. What is read may have been
//! written by others, and has been through jsonb, which prints numbers in full and has an order of
//! its own for keys.

use super::json_text;
use super::nested::{Bracket, read_nested};
use super::reader::{JsonError, JsonReader, JsonToken};
use super::writer::JsonWriter;
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::data::{EncodedJson, EncodedValue};
use crate::wire::pack::build::Builder;
use crate::wire::pack::storable::sorted;
use crate::wire::pack::walk::{Token, Walk};

/// The JSON that is stored. NaN and infinities become null, which does not read back: see
/// [`crate::wire::pack::value::storable`].
///
/// # Errors
/// None for a value that was checked where it entered.
pub fn to_jsonb(value: &EncodedValue) -> Result<String, JsonError> {
    let mut out = JsonWriter::with_capacity(value.as_bytes().len() * 2);
    let mut walk = Walk::new(value);
    loop {
        if walk.next_is_key() {
            out.begin('[');
        }
        match walk.next()? {
            None => return Ok(out.into_text()),
            Some(Token::Map(_)) => begin(&mut out, "Map"),
            Some(Token::List(_)) => begin(&mut out, "List"),
            Some(token) => {
                write_leaf_or_end(token, &mut out);
                if walk.is_between_pairs() {
                    out.end(']');
                }
            }
        }
    }
}

/// Plain JSON as text from which jsonb gives back the same numbers: floats without an exponent and
/// with a point.
///
/// jsonb keeps numbers as decimals. It would print a float that was written as 1e16 without a
/// point, as a whole number.
///
/// # Errors
/// None for bytes that were checked where they entered.
pub fn plain_to_jsonb(json: &EncodedJson) -> Result<String, JsonError> {
    json_text(json, |number, out| {
        // Display has no exponents. A jsonb number may have more digits than the longest float.
        let text = number.to_string();
        if text.contains('.') { out.display(text) } else { out.display(format_args!("{text}.0")) }
    })
}

fn begin(out: &mut JsonWriter, variant: &str) {
    out.begin('{');
    out.key(variant);
    out.begin('[');
}

fn write_leaf_or_end(token: Token<'_>, out: &mut JsonWriter) {
    let variant = match &token {
        Token::End => {
            out.end(']');
            return out.end('}');
        }
        Token::Null => return out.text("Null"),
        leaf => variant(leaf),
    };
    out.begin('{');
    out.key(variant);
    match token {
        Token::Text(text) => out.text(text),
        Token::Integer(number) => out.display(number),
        Token::UnsignedInteger(number) => out.display(number),
        Token::Float(number) => out.float(number),
        Token::Boolean(value) => out.display(value),
        Token::Buffer(octets) => {
            out.begin('[');
            octets.to_vec().iter().for_each(|byte| out.display(byte));
            out.end(']');
        }
        Token::Vector(numbers) => {
            out.begin('[');
            numbers.iter().for_each(|number| out.float(f64::from(*number)));
            out.end(']');
        }
        Token::Timestamptz(time) => out.text(&time.to_string()),
        Token::Interval(span) => {
            out.begin('[');
            out.display(span.secs());
            out.display(span.nanos());
            out.end(']');
        }
        Token::TimeZone(name) => out.text(name),
        Token::LazyStringMap(pairs) => {
            out.begin('{');
            for (key, value) in pairs {
                out.key(key);
                out.text(value);
            }
            out.end('}');
        }
        Token::Null | Token::Map(_) | Token::List(_) | Token::End => {}
    }
    out.end('}');
}

/// The name of the variant that a leaf is.
fn variant(leaf: &Token<'_>) -> &'static str {
    match leaf {
        Token::Text(_) => "Text",
        Token::Integer(_) => "Integer",
        Token::UnsignedInteger(_) => "UnsignedInteger",
        Token::Float(_) => "Float",
        Token::Boolean(_) => "Boolean",
        Token::Buffer(_) => "Buffer",
        Token::Vector(_) => "Vector",
        Token::Timestamptz(_) => "Timestamptz",
        Token::Interval(_) => "Interval",
        Token::TimeZone(_) => "TimeZone",
        Token::LazyStringMap(_) => "LazyStringMap",
        Token::Null | Token::Map(_) | Token::List(_) | Token::End => "",
    }
}

/// The value that is stored.
///
/// # Errors
/// The text is not JSON, no such value, or nests too deep.
pub fn from_jsonb(text: &[u8]) -> Result<EncodedValue, JsonError> {
    // A list takes two brackets for a level; how deep the value is, is the builder's business.
    let reader = JsonReader::new(text, 2 * WIRE_DEPTH_MAX)?;
    read_nested(reader, "expected pairs", read_value)
}

/// Reads a value whole, or up to the values inside of it.
fn read_value(
    token: JsonToken<'_>,
    reader: &mut JsonReader<'_>,
    builder: &mut Builder,
) -> Result<Option<Bracket>, JsonError> {
    match token {
        JsonToken::Text(name) if name == "Null" => {
            builder.leaf(&Token::Null)?;
            return Ok(None);
        }
        JsonToken::BeginObject => {}
        _ => return Err(reader.error("expected a value with its variant")),
    }
    let JsonToken::Key(variant) = reader.token()? else {
        return Err(reader.error("expected a variant"));
    };
    match variant.as_ref() {
        "List" => {
            reader.array()?;
            builder.begin_list()?;
            return Ok(Some(Bracket::Wrapped));
        }
        "Map" => {
            reader.array()?;
            builder.begin_map()?;
            return Ok(Some(Bracket::Pairs));
        }
        "LazyStringMap" => {
            let pairs = reader.string_map()?;
            builder.string_map(&sorted(
                pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref())),
            ))?;
        }
        "Buffer" => builder.leaf(&Token::Buffer(octets(reader)?.as_slice().into()))?,
        "Text" => builder.leaf(&Token::Text(&reader.text()?))?,
        "TimeZone" => builder.leaf(&Token::TimeZone(&reader.time_zone()?))?,
        variant => builder.leaf(&read_small(variant, reader)?)?,
    }
    reader.close()?;
    Ok(None)
}

/// Reads a value that borrows nothing.
fn read_small(variant: &str, reader: &mut JsonReader<'_>) -> Result<Token<'static>, JsonError> {
    Ok(match variant {
        "Integer" => Token::Integer(reader.integer()?),
        "UnsignedInteger" => match reader.token()? {
            JsonToken::Unsigned(number) => Token::UnsignedInteger(number),
            JsonToken::Integer(number) if number >= 0 => {
                Token::UnsignedInteger(number.unsigned_abs())
            }
            _ => return Err(reader.error("expected a whole number from zero on")),
        },
        "Float" => {
            let token = reader.token()?;
            Token::Float(reader.float_of(token)?)
        }
        "Boolean" => match reader.token()? {
            JsonToken::Boolean(value) => Token::Boolean(value),
            _ => return Err(reader.error("expected true or false")),
        },
        "Vector" => Token::Vector(reader.vector()?),
        "Timestamptz" => Token::Timestamptz(reader.timestamp()?),
        "Interval" => Token::Interval(reader.interval()?),
        "Null" => match reader.token()? {
            JsonToken::Null => Token::Null,
            _ => return Err(reader.error("a value for Null")),
        },
        _ => return Err(reader.error("not a variant of a value")),
    })
}

fn octets(reader: &mut JsonReader<'_>) -> Result<Vec<u8>, JsonError> {
    let mut bytes = Vec::new();
    reader.array()?;
    loop {
        match reader.token()? {
            JsonToken::Integer(number) => {
                bytes.push(u8::try_from(number).map_err(|_| reader.error("expected a byte"))?);
            }
            JsonToken::End => return Ok(bytes),
            _ => return Err(reader.error("expected a byte")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::KhronosValue::{self, *};
    use crate::wire::data::{Interval as Span, Timestamp};
    use crate::wire::pack::value::{decode, encode};

    /// The JSON and how the reference reads it back, for each name.
    const JSONB: &str = include_str!("../../../tests/data/wire/jsonb.json");

    fn text(text: &str) -> KhronosValue {
        Text(text.to_owned())
    }

    fn value_of(name: &str) -> KhronosValue {
        let time: Timestamp = "2024-02-29T12:34:56.123456789Z".parse().expect("a time");
        match name {
            "Text" => text("x"),
            "Integer" => Integer(-5),
            "UnsignedInteger" => UnsignedInteger(u64::MAX),
            "Float" => Float(2.5),
            "Float 1.0" => Float(1.0),
            "Float NaN" => Float(f64::NAN),
            "Float inf" => Float(f64::INFINITY),
            "Boolean" => Boolean(true),
            "Buffer" => Buffer(vec![0, 255]),
            "Vector" => Vector([1.0, 0.1, -2.5]),
            "Vector NaN" => Vector([f32::NAN, 0.0, 0.0]),
            "Map" => Map(vec![(text("a"), Integer(1)), (Integer(1), Null)]),
            "List" => List(vec![Null]),
            "Timestamptz" => Timestamptz(time),
            "Interval" => Interval(Span::new(-1, 500_000_000).expect("a span")),
            "TimeZone" => TimeZone("Europe/London".to_owned()),
            "LazyStringMap" => LazyStringMap(vec![("k".to_owned(), "v".to_owned())]),
            "Null" => Null,
            other => panic!("the test data has a case that this test does not know: {other}"),
        }
    }

    #[test]
    fn the_reference_s_jsonb_is_written_and_read() {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(JSONB).expect("the test data is JSON");
        assert_eq!(cases.len(), 18);
        for case in cases {
            let field = |name: &str| case[name].as_str().expect("a text field");
            let value = value_of(field("name"));
            assert_eq!(to_jsonb(&encode(&value)).as_deref(), Ok(field("json")));
            let read = from_jsonb(field("json").as_bytes());
            if field("read_back").starts_with("error") {
                assert!(read.is_err(), "{}", field("name"));
            } else {
                assert_eq!(read.map(|read| decode(&read)), Ok(Ok(value)), "{}", field("name"));
            }
        }
    }

    #[test]
    fn what_jsonb_makes_of_it_is_read() {
        for (json, value) in [
            (r#"{"Float": 100000000000000000000}"#, Float(1e20)),
            (r#"{"Float": 3}"#, Float(3.0)),
            (r#"{"Vector": [1, 0.10000000149011612, -2.50]}"#, Vector([1.0, 0.1, -2.5])),
            (r#"{"UnsignedInteger": 5}"#, UnsignedInteger(5)),
            (r#"{"Null": null}"#, Null),
            (
                r#"{"LazyStringMap": {"b": "1", "aa": "2"}}"#,
                LazyStringMap(vec![
                    ("aa".to_owned(), "2".to_owned()),
                    ("b".to_owned(), "1".to_owned()),
                ]),
            ),
            (
                r#" { "Map" : [ [ {"List": [{"List": []}, "Null"]}, {"Map": []} ] ] } "#,
                Map(vec![(List(vec![List(vec![]), Null]), Map(vec![]))]),
            ),
        ] {
            assert_eq!(
                from_jsonb(json.as_bytes()).map(|read| decode(&read)),
                Ok(Ok(value)),
                "{json}"
            );
        }
    }

    #[test]
    fn plain_json_is_written_so_that_jsonb_keeps_floats_floats() {
        for (json, jsonb) in [
            ("1e16", "10000000000000000.0"),
            ("-1e-7", "-0.0000001"),
            ("1.5", "1.5"),
            (r#"{"a":[1,2.0,null,"x"]}"#, r#"{"a":[1,2.0,null,"x"]}"#),
        ] {
            let plain = crate::wire::json::event_data_from_json(json.as_bytes()).expect("JSON");
            assert_eq!(plain_to_jsonb(&plain).as_deref(), Ok(jsonb));
            assert_eq!(crate::wire::json::event_data_from_json(jsonb.as_bytes()), Ok(plain));
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for json in [
            "",
            "null",
            "1",
            "[]",
            "{}",
            r#""Text""#,
            r#"{"Text":1}"#,
            r#"{"Text":"x","List":[]}"#,
            r#"{"Nope":1}"#,
            r#"{"Null":1}"#,
            r#"{"Integer":1.0}"#,
            r#"{"Integer":9223372036854775808}"#,
            r#"{"UnsignedInteger":-1}"#,
            r#"{"Float":"1"}"#,
            r#"{"Boolean":null}"#,
            r#"{"Buffer":[256]}"#,
            r#"{"Buffer":"AA=="}"#,
            r#"{"Vector":[1,2]}"#,
            r#"{"Vector":[1,2,3,4]}"#,
            r#"{"Map":[["Null"]]}"#,
            r#"{"Map":[["Null","Null","Null"]]}"#,
            r#"{"Map":["Null"]}"#,
            r#"{"Map":{}}"#,
            r#"{"List":{}}"#,
            r#"{"List":[null]}"#,
            r#"{"Interval":[0,1000000000]}"#,
            r#"{"TimeZone":"Nowhere"}"#,
            r#"{"LazyStringMap":{"a":1}}"#,
            r#""Null" "Null""#,
        ] {
            assert!(from_jsonb(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded_as_on_the_wire() {
        let nested =
            |open: &str, close: &str, depth| open.repeat(depth) + "\"Null\"" + &close.repeat(depth);
        for (open, close, levels) in
            [(r#"{"List":["#, "]}", 1023), (r#"{"Map":[["Null","#, "]]}", 511)]
        {
            let json = nested(open, close, levels);
            let value = from_jsonb(json.as_bytes()).expect("not too deep");
            assert_eq!(to_jsonb(&value).as_deref(), Ok(json.as_str()));
            for depth in [levels + 1, 100_000] {
                assert_eq!(
                    from_jsonb(nested(open, close, depth).as_bytes()),
                    Err(JsonError::TooDeep)
                );
            }
        }
    }
}
