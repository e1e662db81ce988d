//! Writes JSON text, compact, one token at a time.

use std::fmt;
use std::fmt::Write;

/// A JSON text under construction. Commas come by themselves; that brackets match is its caller's
/// business.
#[derive(Debug)]
pub(crate) struct JsonWriter {
    out: String,
    needs_comma: bool,
}

impl JsonWriter {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), needs_comma: false }
    }

    pub(crate) fn into_text(self) -> String {
        self.out
    }

    /// Starts an array or object with its bracket.
    pub(crate) fn begin(&mut self, bracket: char) {
        self.separate();
        self.out.push(bracket);
        self.needs_comma = false;
    }

    /// Ends an array or object with its bracket.
    pub(crate) fn end(&mut self, bracket: char) {
        self.out.push(bracket);
        self.needs_comma = true;
    }

    /// A key of an object; its value follows.
    pub(crate) fn key(&mut self, key: &str) {
        self.text(key);
        self.out.push(':');
        self.needs_comma = false;
    }

    /// A text.
    pub(crate) fn text(&mut self, text: &str) {
        self.separate();
        self.out.push('"');
        let mut rest = text;
        while let Some(at) =
            rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
        {
            self.out.push_str(&rest[..at]);
            self.escape(rest.as_bytes()[at]);
            rest = &rest[at + 1..];
        }
        self.out.push_str(rest);
        self.out.push('"');
    }

    fn escape(&mut self, byte: u8) {
        match byte {
            b'"' => self.out.push_str("\\\""),
            b'\\' => self.out.push_str("\\\\"),
            b'\n' => self.out.push_str("\\n"),
            b'\r' => self.out.push_str("\\r"),
            b'\t' => self.out.push_str("\\t"),
            0x8 => self.out.push_str("\\b"),
            0xc => self.out.push_str("\\f"),
            control => self.append(format_args!("\\u{control:04x}")),
        }
    }

    /// A number, with a point or an exponent so that it reads back as a float; null for what JSON
    /// has no number for.
    pub(crate) fn float(&mut self, number: f64) {
        if number.is_finite() {
            self.display(format_args!("{number:?}"))
        } else {
            self.display("null")
        }
    }

    /// A whole number, true, false or null: anything that prints as JSON.
    pub(crate) fn display(&mut self, value: impl fmt::Display) {
        self.separate();
        self.append(format_args!("{value}"));
    }

    /// What stands between two values.
    fn separate(&mut self) {
        if self.needs_comma {
            self.out.push(',');
        }
        self.needs_comma = true;
    }

    fn append(&mut self, args: fmt::Arguments<'_>) {
        let result = self.out.write_fmt(args);
        debug_assert!(result.is_ok(), "writing into a String cannot fail");
    }
}
