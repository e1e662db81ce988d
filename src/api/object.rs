//! Takes a JSON object apart into its members without looking into their values. Pure.
//!
//! Why not serde: an event's data can be megabytes that are to be streamed into MessagePack, not
//! built into a tree; so this finds where each value ends, and whoever takes a value checks it.
//! Nothing here recurses or copies values.

/// What is wrong with a text that should be an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// The members of an object: names unescaped, values as they stand.
pub(super) type Members<'t> = Vec<(String, &'t [u8])>;

/// Limit: more members than any request of ours has; an unknown one is refused anyway.
const MEMBERS_MAX: usize = 16;

/// Splits an object. A value is only known to end where it ends: its taker must parse it.
///
/// # Errors
/// The text is not an object, or has more members than any request.
pub(super) fn members(text: &[u8]) -> Result<Members<'_>, NotAnObject> {
    let mut rest = Rest { text, at: 0 };
    let mut members = Vec::new();
    rest.expect(b'{')?;
    if rest.peek() != Some(b'}') {
        loop {
            if members.len() == MEMBERS_MAX || rest.peek() != Some(b'"') {
                return Err(NotAnObject);
            }
            let name = serde_json::from_slice(rest.value()?).map_err(|_| NotAnObject)?;
            rest.expect(b':')?;
            members.push((name, rest.value()?));
            if rest.peek() != Some(b',') {
                break;
            }
            rest.at += 1;
        }
    }
    rest.expect(b'}')?;
    if rest.peek().is_some() { Err(NotAnObject) } else { Ok(members) }
}

struct Rest<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Rest<'t> {
    /// The next byte that is not blank, which stays to be read.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotAnObject> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(NotAnObject)
        }
    }

    /// The bytes of the next value: to the end of a string, to the bracket that closes the first,
    /// or to what cannot be part of a number or word.
    fn value(&mut self) -> Result<&'t [u8], NotAnObject> {
        self.peek();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
                b',' | b'}' | b']' | b':' if depth == 0 => break,
                _ => self.at += 1,
            }
            if depth == 0 && byte == b'"' {
                break;
            }
        }
        let value = self.text[start..self.at].trim_ascii_end();
        if value.is_empty() || depth > 0 { Err(NotAnObject) } else { Ok(value) }
    }

    /// Moves behind a string's closing quote.
    fn string(&mut self) -> Result<(), NotAnObject> {
        self.at += 1;
        loop {
            let byte = self.text.get(self.at).ok_or(NotAnObject)?;
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Option<Vec<(String, String)>> {
        let members = members(text.as_bytes()).ok()?;
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
        Some(members.iter().map(|(name, value)| (name.clone(), text(value))).collect())
    }

    #[test]
    fn an_object_falls_into_its_members() {
        for (text, expected) in [
            ("{}", vec![]),
            (" { } ", vec![]),
            (r#"{"a":1}"#, vec![("a", "1")]),
            (
                "\n{ \"a\" :\t[1, {\"b\": \"]}\"}] ,\"c\": \"x\\\"\\\\\" }\r\n",
                vec![("a", "[1, {\"b\": \"]}\"}]"), ("c", "\"x\\\"\\\\\"")],
            ),
            (
                r#"{"\u0061\"":null,"a":-1.5e3 ,"":{}}"#,
                vec![("a\"", "null"), ("a", "-1.5e3"), ("", "{}")],
            ),
            // Values are not looked into: whoever takes them does.
            (r#"{"a":nonsense here,"b":[}}"#, vec![("a", "nonsense here"), ("b", "[}")]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(split(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            " ",
            "null",
            "[]",
            "\"a\"",
            "{",
            "}",
            "{\"",
            "{\"a",
            "{\"a\"",
            "{\"a\"}",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1}}",
            "{\"a\":1}x",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{1:1}",
            "{\"a\":[1}",
            "{\"a\":\"\\",
            "{\"a\":\"\\\"}",
            "{\"\\x\":1}",
            "{\"a\":1:2}",
            "{\"a\":\"b\" c}",
            "{\"a\":{} {}}",
            "\u{feff}{}",
        ] {
            assert_eq!(split(text), None, "{text}");
        }
        assert!(members(b"{\"\xff\":1}").is_err());
        let many: Vec<String> = (0..17).map(|n| format!("\"{n}\":1")).collect();
        assert_eq!(split(&format!("{{{}}}", many.join(","))), None);
    }
}
