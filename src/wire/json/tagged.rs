//! The JSON form of a `KhronosValue` at interfaces: what JSON has is written as JSON, the rest as
//! an object with one key that starts with `$` (docs/operations.md: "The internal API").
//!
//! Reading and writing take two passes each: what a map or an object has to become depends on all
//! its keys.

use data_encoding::BASE64;

use super::nested::{Bracket, read_nested};
use super::reader::{JsonError, JsonReader, JsonToken};
use super::writer::JsonWriter;
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::data::EncodedValue;
use crate::wire::pack::build::Builder;
use crate::wire::pack::walk::{Token, Walk};

/// A value as JSON text.
///
/// An `UnsignedInteger` within the range of `Integer` is written the same, and reads back as
/// `Integer`.
///
/// # Errors
/// None for a value that was checked where it entered.
pub fn value_to_json(value: &EncodedValue) -> Result<String, JsonError> {
    let mut out = JsonWriter::with_capacity(value.as_bytes().len());
    let mut walk = Walk::new(value);
    let mut maps = maps_that_are_objects(value)?.into_iter();
    let mut open: Vec<Written> = Vec::new();
    loop {
        let is_key = walk.next_is_key();
        let within = open.last().copied();
        if is_key && within == Some(Written::Pairs) {
            out.begin('[');
        }
        let form = match walk.next()? {
            None => return Ok(out.into_text()),
            Some(Token::List(_)) => Written::List,
            Some(Token::Map(_)) if maps.next() == Some(true) => Written::Object,
            Some(Token::Map(_)) => Written::Pairs,
            Some(Token::Text(key)) if is_key && within == Some(Written::Object) => {
                out.key(key);
                continue;
            }
            Some(token) => {
                match token {
                    Token::End => open.pop().map_or((), |form| form.end(&mut out)),
                    leaf => write_leaf(leaf, &mut out),
                }
                if walk.is_between_pairs() && open.last() == Some(&Written::Pairs) {
                    out.end(']');
                }
                continue;
            }
        };
        form.begin(&mut out);
        open.push(form);
    }
}

/// How an open container is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// As an array.
    List,
    /// As an object.
    Object,
    /// As a `$map`.
    Pairs,
}

impl Written {
    fn begin(self, out: &mut JsonWriter) {
        match self {
            Written::List => out.begin('['),
            Written::Object => out.begin('{'),
            Written::Pairs => {
                begin_tag("$map", out);
                out.begin('[');
            }
        }
    }

    fn end(self, out: &mut JsonWriter) {
        match self {
            Written::List => out.end(']'),
            Written::Object => out.end('}'),
            Written::Pairs => {
                out.end(']');
                out.end('}');
            }
        }
    }
}

fn begin_tag(tag: &str, out: &mut JsonWriter) {
    out.begin('{');
    out.key(tag);
}

fn write_leaf(leaf: Token<'_>, out: &mut JsonWriter) {
    match leaf {
        Token::Null => return out.display("null"),
        Token::Boolean(value) => return out.display(value),
        Token::Integer(number) => return out.display(number),
        Token::UnsignedInteger(number) => return out.display(number),
        Token::Float(number) => return write_float(number, out),
        Token::Text(text) => return out.text(text),
        Token::Buffer(octets) => {
            begin_tag("$buffer", out);
            out.text(&BASE64.encode(&octets.to_vec()));
        }
        Token::Vector(numbers) => {
            begin_tag("$vector", out);
            out.begin('[');
            numbers.iter().for_each(|number| write_float32(*number, out));
            out.end(']');
        }
        Token::Timestamptz(time) => {
            begin_tag("$timestamp", out);
            out.text(&time.to_string());
        }
        Token::Interval(span) => {
            begin_tag("$interval", out);
            out.begin('[');
            out.display(span.secs());
            out.display(span.nanos());
            out.end(']');
        }
        Token::TimeZone(name) => {
            begin_tag("$timezone", out);
            out.text(name);
        }
        Token::LazyStringMap(pairs) => {
            begin_tag("$string_map", out);
            out.begin('{');
            for (key, value) in pairs {
                out.key(key);
                out.text(value);
            }
            out.end('}');
        }
        Token::Map(_) | Token::List(_) | Token::End => return,
    }
    out.end('}');
}

fn write_float(number: f64, out: &mut JsonWriter) {
    if number.is_finite() {
        return out.float(number);
    }
    begin_tag("$float", out);
    out.text(match number {
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => "nan",
    });
    out.end('}');
}

/// As short as a number of 4 bytes can be, and not as long as the same number of 8 bytes.
fn write_float32(number: f32, out: &mut JsonWriter) {
    if number.is_finite() {
        out.display(format_args!("{number:?}"))
    } else {
        write_float(number.into(), out)
    }
}

/// For each `Map`, in the order in which they begin, whether it is written as an object: its keys
/// are texts, none comes twice, and it could not be taken for a tag.
fn maps_that_are_objects(value: &EncodedValue) -> Result<Vec<bool>, JsonError> {
    let mut answers = Vec::new();
    // The keys of each open map and the place of its answer; nothing for a list.
    let mut open: Vec<Option<(usize, Vec<&str>)>> = Vec::new();
    let mut walk = Walk::new(value);
    loop {
        let is_key = walk.next_is_key();
        let Some(token) = walk.next()? else {
            return Ok(answers);
        };
        if is_key && let Some(Some((answer, keys))) = open.last_mut() {
            match token {
                Token::Text(key) => keys.push(key),
                _ => answers[*answer] = false,
            }
        }
        match token {
            Token::Map(_) => {
                open.push(Some((answers.len(), Vec::new())));
                answers.push(true);
            }
            Token::List(_) => open.push(None),
            Token::End => {
                if let Some(Some((answer, mut keys))) = open.pop() {
                    let looks_like_a_tag = matches!(keys[..], [key] if key.starts_with('$'));
                    keys.sort_unstable();
                    let has_twins = keys.windows(2).any(|pair| pair[0] == pair[1]);
                    answers[answer] &= !looks_like_a_tag && !has_twins;
                }
            }
            _ => {}
        }
    }
}

/// The value of a JSON text: what [`value_to_json`] writes, and any other JSON.
///
/// Whole numbers become `Integer`, above its range `UnsignedInteger`, beyond that `Float`; objects
/// become `Map`.
///
/// # Errors
/// The text is not JSON, nests too deep, or has an object whose only key is an unknown tag.
pub fn value_from_json(text: &[u8]) -> Result<EncodedValue, JsonError> {
    let tags = objects_that_are_tags(text)?;
    let reader = JsonReader::new(text, JSON_DEPTH_MAX)?;
    read_nested(reader, "expected [key, value]", |token, reader, builder| {
        let is_tag =
            token == JsonToken::BeginObject && tags.binary_search(&reader.position()).is_ok();
        if is_tag { read_tag(reader, builder) } else { read_plain(token, builder) }
    })
}

/// A `$map` takes three brackets for two levels of a value; how deep the value is, is the builder's
/// business.
const JSON_DEPTH_MAX: usize = 2 * WIRE_DEPTH_MAX;

fn read_plain(token: JsonToken<'_>, builder: &mut Builder) -> Result<Option<Bracket>, JsonError> {
    match token {
        JsonToken::Null => builder.leaf(&Token::Null)?,
        JsonToken::Boolean(value) => builder.leaf(&Token::Boolean(value))?,
        JsonToken::Integer(number) => builder.leaf(&Token::Integer(number))?,
        JsonToken::Unsigned(number) => builder.leaf(&Token::UnsignedInteger(number))?,
        JsonToken::Float(number) => builder.leaf(&Token::Float(number))?,
        JsonToken::Text(text) | JsonToken::Key(text) => builder.leaf(&Token::Text(&text))?,
        JsonToken::BeginArray => {
            builder.begin_list()?;
            return Ok(Some(Bracket::Whole));
        }
        JsonToken::BeginObject => {
            builder.begin_map()?;
            return Ok(Some(Bracket::Whole));
        }
        JsonToken::End => {}
    }
    Ok(None)
}

/// The bytes of base64 with its padding, which stands at the end only: the crate also takes
/// several texts, each with its padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let is_one = !text.trim_end_matches('=').contains('=');
    BASE64.decode(text.as_bytes()).ok().filter(|_| is_one)
}

/// Reads an object whose only key is a tag, or up to the pairs inside of it.
fn read_tag(
    reader: &mut JsonReader<'_>,
    builder: &mut Builder,
) -> Result<Option<Bracket>, JsonError> {
    let JsonToken::Key(tag) = reader.token()? else {
        return Err(reader.error("expected a tag"));
    };
    match tag.as_ref() {
        "$map" => {
            reader.array()?;
            builder.begin_map()?;
            return Ok(Some(Bracket::Pairs));
        }
        "$buffer" => {
            let bytes = from_base64(&reader.text()?).ok_or(reader.error("not base64"))?;
            builder.leaf(&Token::Buffer(bytes.as_slice().into()))?;
        }
        "$vector" => builder.leaf(&Token::Vector(reader.vector()?))?,
        "$timestamp" => builder.leaf(&Token::Timestamptz(reader.timestamp()?))?,
        "$interval" => builder.leaf(&Token::Interval(reader.interval()?))?,
        "$timezone" => builder.leaf(&Token::TimeZone(&reader.time_zone()?))?,
        "$string_map" => {
            let pairs = reader.string_map()?;
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
            builder.string_map(&pairs)?;
        }
        "$float" => builder.leaf(&Token::Float(reader.named_float()?))?,
        _ => {
            return Err(reader.error(
                "an unknown tag; write an object with such a key as {\"$map\": [[key, value]]}",
            ));
        }
    }
    reader.close()?;
    Ok(None)
}

/// Where the objects begin whose only key starts with `$`: the positions behind their brackets, in
/// order.
fn objects_that_are_tags(text: &[u8]) -> Result<Vec<usize>, JsonError> {
    let mut reader = JsonReader::new(text, JSON_DEPTH_MAX)?;
    // For each open object its position and what its keys let expect; nothing for an array.
    let mut open: Vec<Option<(usize, ObjectKeys)>> = Vec::new();
    let mut tags = Vec::new();
    while let Some(token) = reader.next()? {
        match token {
            JsonToken::BeginObject => open.push(Some((reader.position(), ObjectKeys::None))),
            JsonToken::BeginArray => open.push(None),
            JsonToken::Key(key) => {
                if let Some(Some((_, keys))) = open.last_mut() {
                    *keys = if *keys == ObjectKeys::None && key.starts_with('$') {
                        ObjectKeys::OneTag
                    } else {
                        ObjectKeys::Others
                    };
                }
            }
            JsonToken::End => {
                if let Some(Some((position, ObjectKeys::OneTag))) = open.pop() {
                    tags.push(position);
                }
            }
            _ => {}
        }
    }
    tags.sort_unstable();
    Ok(tags)
}

/// The keys of an object so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectKeys {
    None,
    /// One that starts with `$`.
    OneTag,
    Others,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::KhronosValue::{self, *};
    use crate::wire::data::{Interval as Span, Timestamp};
    use crate::wire::pack::value::{decode, encode};

    #[test]
    fn base64_with_stray_bits_or_other_padding_is_refused() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_base64(&BASE64.encode(&all)), Some(all));
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        for text in
            ["A", "AA", "AAA", "AA=A", "A===", "====", "AA==AAAA", "Zh==", "Zm9=", "A-_A", "AA\n="]
        {
            assert_eq!(from_base64(text), None, "{text:?}");
        }
    }

    fn text(text: &str) -> KhronosValue {
        Text(text.to_owned())
    }

    fn read(json: &str) -> Result<KhronosValue, JsonError> {
        value_from_json(json.as_bytes())
            .map(|value| decode(&value).expect("what was read is a value"))
    }

    #[test]
    fn each_value_has_its_promised_form_and_reads_back() {
        let time: Timestamp = "2024-02-29T12:34:56.123456789Z".parse().expect("a time");
        let zone = TimeZone("Europe/London".to_owned());
        let strings = LazyStringMap(vec![
            ("b".to_owned(), "1".to_owned()),
            ("a".to_owned(), "\"".to_owned()),
        ]);
        for (value, json) in [
            (Null, "null"),
            (Boolean(true), "true"),
            (text("a\n\u{1}é😀/"), r#""a\n\u0001é😀/""#),
            (List(vec![]), "[]"),
            (List(vec![Integer(-1), List(vec![Null])]), "[-1,[null]]"),
            (Map(vec![]), "{}"),
            (Map(vec![(text("b"), Integer(1)), (text("a"), Map(vec![]))]), r#"{"b":1,"a":{}}"#),
            (Integer(i64::MIN), "-9223372036854775808"),
            (UnsignedInteger(u64::MAX), "18446744073709551615"),
            (Float(1.0), "1.0"),
            (Float(-0.0), "-0.0"),
            (Float(1e300), "1e300"),
            (Float(f64::INFINITY), r#"{"$float":"inf"}"#),
            (Float(f64::NEG_INFINITY), r#"{"$float":"-inf"}"#),
            (Buffer(vec![0, 255]), r#"{"$buffer":"AP8="}"#),
            (Vector([1.0, 0.1, -2.5]), r#"{"$vector":[1.0,0.1,-2.5]}"#),
            (Vector([f32::INFINITY, 0.0, 0.0]), r#"{"$vector":[{"$float":"inf"},0.0,0.0]}"#),
            (Map(vec![(Integer(1), Null)]), r#"{"$map":[[1,null]]}"#),
            (
                Map(vec![(text("a"), Null), (text("a"), Null)]),
                r#"{"$map":[["a",null],["a",null]]}"#,
            ),
            (Map(vec![(text("$x"), Null)]), r#"{"$map":[["$x",null]]}"#),
            (Map(vec![(text("$x"), Null), (text("y"), Null)]), r#"{"$x":null,"y":null}"#),
            (
                Map(vec![(List(vec![]), Map(vec![(Null, Null)]))]),
                r#"{"$map":[[[],{"$map":[[null,null]]}]]}"#,
            ),
            (Timestamptz(time), r#"{"$timestamp":"2024-02-29T12:34:56.123456789Z"}"#),
            (
                Interval(Span::new(-1, 500_000_000).expect("a span")),
                r#"{"$interval":[-1,500000000]}"#,
            ),
            (zone, r#"{"$timezone":"Europe/London"}"#),
            (strings, r#"{"$string_map":{"b":"1","a":"\""}}"#),
        ] {
            assert_eq!(value_to_json(&encode(&value)).as_deref(), Ok(json));
            assert_eq!(read(json), Ok(value), "{json}");
        }
        let nan = value_to_json(&encode(&Float(f64::NAN))).expect("JSON");
        assert_eq!(nan, r#"{"$float":"nan"}"#);
        assert!(matches!(read(&nan), Ok(Float(number)) if number.is_nan()));
    }

    #[test]
    fn other_json_means_what_one_expects() {
        for (json, value) in [
            (" [ 1 , 2.0e0 ] ", List(vec![Integer(1), Float(2.0)])),
            ("5", Integer(5)),
            ("18446744073709551616", Float(18_446_744_073_709_551_616.0)),
            (
                r#"{"$map":[],"x":1}"#,
                Map(vec![(text("$map"), List(vec![])), (text("x"), Integer(1))]),
            ),
            (
                r#"{"x":1,"$map":[]}"#,
                Map(vec![(text("x"), Integer(1)), (text("$map"), List(vec![]))]),
            ),
            (r#"{"\u0024float":"inf"}"#, Float(f64::INFINITY)),
            (
                r#"{"$string_map":{"$x":"y"}}"#,
                LazyStringMap(vec![("$x".to_owned(), "y".to_owned())]),
            ),
            (
                r#"[{"$vector":[{"$float":"inf"},1,2]},{"a":{"$map":[]}}]"#,
                List(vec![Vector([f32::INFINITY, 1.0, 2.0]), Map(vec![(text("a"), Map(vec![]))])]),
            ),
        ] {
            assert_eq!(read(json), Ok(value), "{json}");
        }
    }

    #[test]
    fn a_tag_with_the_wrong_content_is_refused() {
        for json in [
            r#"{"$unknown":1}"#,
            r#"{"$map":{}}"#,
            r#"{"$map":[[1]]}"#,
            r#"{"$map":[[1,2,3]]}"#,
            r#"{"$map":[[]]}"#,
            r#"{"$map":[1]}"#,
            r#"{"$map":1}"#,
            r#"{"$buffer":"A"}"#,
            r#"{"$buffer":[1]}"#,
            r#"{"$vector":[1,2]}"#,
            r#"{"$vector":[1,2,3,4]}"#,
            r#"{"$vector":[1,2,"3"]}"#,
            r#"{"$timestamp":"today"}"#,
            r#"{"$interval":[0,1000000000]}"#,
            r#"{"$interval":[0,-1]}"#,
            r#"{"$timezone":"Mars/Olympus"}"#,
            r#"{"$string_map":{"a":1}}"#,
            r#"{"$string_map":[]}"#,
            r#"{"$float":"1"}"#,
            r#"{"$float":1.5}"#,
            r#"[1,"#,
            "",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded_as_on_the_wire() {
        let nested =
            |open: &str, close: &str, depth| open.repeat(depth) + "1" + &close.repeat(depth);
        for (open, close, levels) in
            [("[", "]", 1023), (r#"{"a":"#, "}", 511), (r#"{"$map":[[0,"#, "]]}", 511)]
        {
            let json = nested(open, close, levels);
            let value = value_from_json(json.as_bytes()).expect("not too deep");
            assert_eq!(value_to_json(&value).as_deref(), Ok(json.as_str()));
            for depth in [levels + 1, 100_000] {
                assert_eq!(
                    value_from_json(nested(open, close, depth).as_bytes()),
                    Err(JsonError::TooDeep)
                );
            }
        }
    }
}
