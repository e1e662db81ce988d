//! Reads JSON text, one token at a time.
//!
//! Deliberately not serde_json: this one does not recurse, keeps the order and duplicates of keys,
//! rounds numbers correctly, and lets text become MessagePack without anything in between. Pure.

use std::borrow::Cow;
use std::fmt;

use crate::wire::WireError;
use crate::wire::data::timezone;
use crate::wire::data::{Interval, Timestamp};

/// Why a JSON text, or the value it should become, is not right. Its text is for the caller that
/// sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// The text is not JSON.
    Syntax {
        /// Where, in bytes from the start.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// It nests deeper than it may.
    TooDeep,
    /// It is JSON, but not of the expected shape.
    Shape(String),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Syntax { at, what } => write!(f, "not JSON at byte {at}: {what}"),
            JsonError::TooDeep => f.write_str("the JSON nests too deep"),
            JsonError::Shape(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for JsonError {}

impl From<WireError> for JsonError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooDeep => JsonError::TooDeep,
            other => JsonError::Shape(other.to_string()),
        }
    }
}

/// A step through a JSON text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JsonToken<'a> {
    Null,
    Boolean(bool),
    /// A whole number that fits.
    Integer(i64),
    /// A whole number above that.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    Text(Cow<'a, str>),
    /// A key of an object; its value follows.
    Key(Cow<'a, str>),
    BeginArray,
    BeginObject,
    /// The end of the innermost open array or object.
    End,
}

/// A key and a value that are texts.
pub(crate) type TextPair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads a JSON text from its start to its end.
#[derive(Debug)]
pub(crate) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    /// For each open level, whether it is an object.
    open: Vec<bool>,
    depth_max: usize,
    expects: Expects,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    KeyOrEnd,
    /// After a value in an array or object.
    CommaOrEnd,
    Nothing,
}

impl<'a> JsonReader<'a> {
    /// Starts with a text that may nest `depth_max` levels.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(crate) fn new(text: &'a [u8], depth_max: usize) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(text)
            .map_err(|error| JsonError::Syntax { at: error.valid_up_to(), what: "not UTF-8" })?;
        Ok(Self { text, at: 0, open: Vec::new(), depth_max, expects: Expects::Value })
    }

    /// The next token, or nothing at the end of the text.
    pub(crate) fn next(&mut self) -> Result<Option<JsonToken<'a>>, JsonError> {
        self.skip_whitespace();
        let Some(byte) = self.peek() else {
            return match self.expects {
                Expects::Nothing => Ok(None),
                _ => Err(self.error("it ends too early")),
            };
        };
        match self.expects {
            Expects::Nothing => Err(self.error("something follows the value")),
            Expects::Value => self.value(byte).map(Some),
            Expects::ValueOrEnd if byte == b']' => Ok(Some(self.end())),
            Expects::ValueOrEnd => self.value(byte).map(Some),
            Expects::KeyOrEnd if byte == b'}' => Ok(Some(self.end())),
            Expects::KeyOrEnd => self.key(byte).map(Some),
            Expects::CommaOrEnd => self.after_value(byte).map(Some),
        }
    }

    /// The next token, where one must come.
    pub(crate) fn token(&mut self) -> Result<JsonToken<'a>, JsonError> {
        self.next()?.ok_or_else(|| self.error("it ends too early"))
    }

    /// Reads the beginning of an array.
    pub(crate) fn array(&mut self) -> Result<(), JsonError> {
        match self.token()? {
            JsonToken::BeginArray => Ok(()),
            _ => Err(self.error("expected an array")),
        }
    }

    /// Reads the end of an array or object.
    pub(crate) fn close(&mut self) -> Result<(), JsonError> {
        match self.token()? {
            JsonToken::End => Ok(()),
            _ => Err(self.error("more than was expected")),
        }
    }

    /// Reads a text.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        match self.token()? {
            JsonToken::Text(text) => Ok(text),
            _ => Err(self.error("expected a text")),
        }
    }

    /// Reads a whole number.
    pub(crate) fn integer(&mut self) -> Result<i64, JsonError> {
        match self.token()? {
            JsonToken::Integer(number) => Ok(number),
            _ => Err(self.error("expected a whole number")),
        }
    }

    /// The number that a token is.
    pub(crate) fn float_of(&self, token: JsonToken<'a>) -> Result<f64, JsonError> {
        match token {
            JsonToken::Float(number) => Ok(number),
            JsonToken::Integer(number) => Ok(number as f64),
            JsonToken::Unsigned(number) => Ok(number as f64),
            _ => Err(self.error("expected a number")),
        }
    }

    /// Reads three numbers.
    pub(crate) fn vector(&mut self) -> Result<[f32; 3], JsonError> {
        self.array()?;
        let mut numbers = [0.0; 3];
        for number in &mut numbers {
            *number = match self.token()? {
                // What is not finite has the tag that it has elsewhere.
                JsonToken::BeginObject => self.tagged_float()?,
                token => self.float_of(token)?,
            } as f32;
        }
        self.close()?;
        Ok(numbers)
    }

    fn tagged_float(&mut self) -> Result<f64, JsonError> {
        match self.token()? {
            JsonToken::Key(tag) if tag == "$float" => {}
            _ => return Err(self.error("expected a number")),
        }
        let number = self.named_float()?;
        self.close()?;
        Ok(number)
    }

    /// Reads the name of a number that is not finite.
    pub(crate) fn named_float(&mut self) -> Result<f64, JsonError> {
        match self.text()?.as_ref() {
            "nan" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(self.error("expected nan, inf or -inf")),
        }
    }

    /// Reads seconds and nanoseconds.
    pub(crate) fn interval(&mut self) -> Result<Interval, JsonError> {
        self.array()?;
        let (secs, nanos) = (self.integer()?, self.integer()?);
        self.close()?;
        let span = u32::try_from(nanos).ok().and_then(|nanos| Interval::new(secs, nanos));
        span.ok_or(self.error("a span of time out of bounds"))
    }

    /// Reads a date and time.
    pub(crate) fn timestamp(&mut self) -> Result<Timestamp, JsonError> {
        self.text()?.parse().map_err(|_| self.error("not an RFC 3339 date and time"))
    }

    /// Reads the name of a time zone.
    pub(crate) fn time_zone(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let name = self.text()?;
        if timezone::is_known(&name) {
            Ok(name)
        } else {
            Err(self.error("not the name of a time zone"))
        }
    }

    /// Reads an object of texts.
    pub(crate) fn string_map(&mut self) -> Result<Vec<TextPair<'a>>, JsonError> {
        if self.token()? != JsonToken::BeginObject {
            return Err(self.error("expected an object of texts"));
        }
        let mut pairs = Vec::new();
        while let JsonToken::Key(key) = self.token()? {
            pairs.push((key, self.text()?));
        }
        Ok(pairs)
    }

    fn after_value(&mut self, byte: u8) -> Result<JsonToken<'a>, JsonError> {
        let in_object = self.open.last() == Some(&true);
        match (byte, in_object) {
            (b'}', true) | (b']', false) => return Ok(self.end()),
            (b',', _) => self.at += 1,
            (_, true) => return Err(self.error("expected , or }")),
            (_, false) => return Err(self.error("expected , or ]")),
        }
        self.skip_whitespace();
        let byte = self.peek().ok_or_else(|| self.error("it ends too early"))?;
        if in_object { self.key(byte) } else { self.value(byte) }
    }

    fn key(&mut self, byte: u8) -> Result<JsonToken<'a>, JsonError> {
        if byte != b'"' {
            return Err(self.error("expected a key"));
        }
        let key = self.string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return Err(self.error("expected :"));
        }
        self.at += 1;
        self.expects = Expects::Value;
        Ok(JsonToken::Key(key))
    }

    fn value(&mut self, byte: u8) -> Result<JsonToken<'a>, JsonError> {
        let token = match byte {
            b'[' => return self.begin(JsonToken::BeginArray, Expects::ValueOrEnd),
            b'{' => return self.begin(JsonToken::BeginObject, Expects::KeyOrEnd),
            b'"' => JsonToken::Text(self.string()?),
            b'n' => self.word("null", JsonToken::Null)?,
            b't' => self.word("true", JsonToken::Boolean(true))?,
            b'f' => self.word("false", JsonToken::Boolean(false))?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return Err(self.error("expected a value")),
        };
        self.value_is_complete();
        Ok(token)
    }

    fn begin(
        &mut self,
        token: JsonToken<'a>,
        expects: Expects,
    ) -> Result<JsonToken<'a>, JsonError> {
        if self.open.len() >= self.depth_max {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        self.open.push(token == JsonToken::BeginObject);
        self.expects = expects;
        Ok(token)
    }

    fn end(&mut self) -> JsonToken<'a> {
        self.at += 1;
        self.open.pop();
        self.value_is_complete();
        JsonToken::End
    }

    fn value_is_complete(&mut self) {
        self.expects = if self.open.is_empty() { Expects::Nothing } else { Expects::CommaOrEnd };
    }

    fn word(&mut self, word: &str, token: JsonToken<'a>) -> Result<JsonToken<'a>, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn number(&mut self) -> Result<JsonToken<'a>, JsonError> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut is_whole = true;
        if self.peek() == Some(b'.') {
            is_whole = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let number = &self.text[start..self.at];
        // A whole number has no negative zero.
        if is_whole && number != "-0" {
            if let Ok(number) = number.parse() {
                return Ok(JsonToken::Integer(number));
            }
            if let Ok(number) = number.parse() {
                return Ok(JsonToken::Unsigned(number));
            }
        }
        match number.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(JsonToken::Float(number)),
            _ => Err(JsonError::Syntax { at: start, what: "a number out of range" }),
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    /// Reads a string from its opening to its closing quote.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let plain = self.plain_run();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("a string without its end")),
            }
            text.push_str(self.plain_run());
        }
    }

    /// Characters that stand for themselves.
    fn plain_run(&mut self) -> &'a str {
        let rest = &self.text.as_bytes()[self.at..];
        let special = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
        let len = rest.iter().position(special).unwrap_or(rest.len());
        let run = &self.text[self.at..self.at + len];
        self.at += len;
        run
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.peek().ok_or_else(|| self.error("a string without its end"))?;
        let escaped = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        Ok(escaped)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let lone = JsonError::Syntax { at: self.at, what: "half of a surrogate pair" };
        let first = self.hex4()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        if first >= 0xdc00 || !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(lone);
        }
        self.at += 2;
        let second = self.hex4()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone);
        }
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(lone)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .text
            .as_bytes()
            .get(self.at..self.at + 4)
            .ok_or_else(|| self.error("it ends too early"))?;
        let mut number = 0;
        for digit in digits {
            let digit = char::from(*digit)
                .to_digit(16)
                .ok_or_else(|| self.error("expected four hex digits"))?;
            number = number * 16 + digit;
        }
        self.at += 4;
        Ok(number)
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// An error at this place.
    pub(crate) fn error(&self, what: &'static str) -> JsonError {
        JsonError::Syntax { at: self.at, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &[u8]) -> Result<Vec<String>, JsonError> {
        let mut reader = JsonReader::new(text, 10)?;
        let mut tokens = Vec::new();
        while let Some(token) = reader.next()? {
            tokens.push(format!("{token:?}"));
        }
        assert_eq!(reader.next(), Ok(None), "the end stays the end");
        Ok(tokens)
    }

    /// One text a line, right and wrong ones.
    const TEXTS: &str = r#"
null nul nulll null null true false t n f
[ ] [] [ ] [,] [1,] [1 2] [1} [[] [] ] [1,2 ]
{ } {} { } {,} {1:2} {"a"} {"a":} {"a":1,} {"a":1} {"a":1] {"a",1} {"a" 1} {a:1} {"a":1"b":2} {"a":1,"b":{}} {"a":[]} :
0 -0 - 00 01 -01 1. .5 1.5 1.5.5 1e5 1E+5 1e-5 1e 1e+ 1e5.5 +1 0x1 1_0 1e400 -1e400 1e-400 -1.0e-0 NaN Infinity 1a
9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551616
" "" "a "a" "\" "\"" "\\" "\/\b\f\n\r\t" "\x" "\u00e9" "\u00E9" "\u12" "\u12g4" "\u+123" "\u" "é" é "a"b 'a' // 1/**/
"\ud83d\ude00" "\ud83d" "\ude00" "\ud83d\u0041" "\ud83dx" "\ud83d\n" "\udbff\udfff" "\ud800\udc00" "\ud83d\ud83d"
"#;

    #[test]
    fn it_agrees_with_serde_json_on_what_is_json() {
        let controls = [
            "\"\n\"",
            "\"\u{7f}\"",
            "\"\u{1f}\"",
            "\"\0\"",
            "1\u{c}",
            "\u{feff}1",
            "\t\r\n 1\t\r\n ",
            "1\0",
            "",
        ];
        // Each line as a text too: most are several values in a row.
        let mut judged = 0;
        for text in TEXTS.split_ascii_whitespace().chain(TEXTS.lines()).chain(controls) {
            let ours = tokens(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(text);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{text:?}: {ours:?} {theirs:?}");
            judged += 1;
        }
        assert!(judged > 120, "{judged}");
        assert!(tokens(b"\"\xff\"").is_err());
    }

    #[test]
    fn each_token_is_what_stands_there() {
        let text = r#" {"k\u0065y" : [null,true,-1,18446744073709551615,-0,1.25e2,"\ud83d\ude00\n"], "":{}}"#;
        let expected = [
            "BeginObject",
            r#"Key("key")"#,
            "BeginArray",
            "Null",
            "Boolean(true)",
            "Integer(-1)",
            "Unsigned(18446744073709551615)",
            "Float(-0.0)",
            "Float(125.0)",
            r#"Text("😀\n")"#,
            "End",
            r#"Key("")"#,
            "BeginObject",
            "End",
            "End",
        ];
        assert_eq!(tokens(text.as_bytes()).expect("JSON"), expected);
    }

    #[test]
    fn numbers_are_rounded_correctly() {
        // serde_json, as it is configured here, may round to a neighbour.
        for text in [
            "0.1",
            "2.2250738585072014e-308",
            "5e-324",
            "1.7976931348623157e308",
            "123456789.12345679e-15",
        ] {
            let expected = format!("Float({:?})", text.parse::<f64>().expect("a number"));
            assert_eq!(tokens(text.as_bytes()), Ok(vec![expected]));
        }
    }

    #[test]
    fn it_nests_as_deep_as_it_may() {
        assert!(tokens("[".repeat(10).as_bytes()).is_err_and(|error| error != JsonError::TooDeep));
        assert_eq!(tokens("[".repeat(11).as_bytes()), Err(JsonError::TooDeep));
    }
}
