//! Luau's tokens, with their places.
//!
//! For sources that the compiler has accepted: it does not judge, and on any input it
//! ends. Comments are left out. Runs wherever templates are checked.

/// Where a token begins, from 1 on; a character is one column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LuauToken<'a> {
    /// A name or a keyword.
    Word(&'a str),
    Number,
    /// A string without expressions in it, as it is written.
    Text(&'a [u8]),
    /// A backtick string up to its first expression.
    InterpolationStart,
    /// What is between two expressions of one.
    InterpolationMiddle,
    /// What is behind the last one.
    InterpolationEnd,
    Sign(&'static str),
}

/// Signs, those first that begin with others.
const SIGNS: [&str; 48] = [
    "...", "..=", "//=", "..", "::", "->", "==", "~=", "<=", ">=", "//", "+=", "-=", "*=", "/=",
    "%=", "^=", "+", "-", "*", "/", "%", "^", "#", "<", ">", "=", "(", ")", "{", "}", "[", "]",
    ";", ":", ",", ".", "?", "|", "&", "@", "!", "~", "$", "\\", "'", "\"", "`",
];

/// All tokens of a source, each with its place.
pub(super) fn tokens(source: &[u8]) -> Vec<(At, LuauToken<'_>)> {
    let mut lexer =
        Lexer { rest: source, at: At { line: 1, column: 1 }, interpolations: Vec::new() };
    std::iter::from_fn(|| lexer.next()).collect()
}

struct Lexer<'a> {
    rest: &'a [u8],
    at: At,
    /// Of each open expression in a backtick string: how many braces are open in it.
    interpolations: Vec<usize>,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<(At, LuauToken<'a>)> {
        loop {
            let at = self.at;
            let token = match *self.rest.first()? {
                b'-' if self.rest.starts_with(b"--") => {
                    self.take(2);
                    if self.long().is_none() {
                        self.take_while(|byte| byte != b'\n');
                    }
                    continue;
                }
                b'[' => self.long().map_or(LuauToken::Sign("["), LuauToken::Text),
                quote @ (b'"' | b'\'') => self.quoted(quote),
                b'`' => {
                    self.take(1);
                    let (text, goes_on) = self.interpolated();
                    if goes_on { LuauToken::InterpolationStart } else { LuauToken::Text(text) }
                }
                b'}' if self.interpolations.last() == Some(&0) => {
                    self.take(1);
                    self.interpolations.pop();
                    if self.interpolated().1 {
                        LuauToken::InterpolationMiddle
                    } else {
                        LuauToken::InterpolationEnd
                    }
                }
                byte if byte.is_ascii_digit() => self.number(),
                b'.' if self.rest.get(1).is_some_and(u8::is_ascii_digit) => self.number(),
                byte if is_word(byte) => LuauToken::Word(
                    std::str::from_utf8(self.take_while(is_word)).unwrap_or_default(),
                ),
                _ => match self.sign() {
                    Some(sign) => LuauToken::Sign(sign),
                    // White space, or what no source has outside of strings.
                    None => {
                        self.take(1);
                        continue;
                    }
                },
            };
            if token == LuauToken::Sign("[") {
                self.take(1);
            }
            return Some((at, token));
        }
    }

    fn sign(&mut self) -> Option<&'static str> {
        let sign = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign.as_bytes()))?;
        self.take(sign.len());
        if let Some(braces) = self.interpolations.last_mut() {
            match sign {
                "{" => *braces += 1,
                "}" => *braces -= 1,
                _ => {}
            }
        }
        Some(sign)
    }

    fn number(&mut self) -> LuauToken<'a> {
        let is_hex = self.rest.starts_with(b"0x") || self.rest.starts_with(b"0X");
        let is_digit = |byte| is_word(byte) || byte == b'.';
        while self
            .take_while(is_digit)
            .last()
            .is_some_and(|last| !is_hex && matches!(last, b'e' | b'E'))
            && matches!(self.rest.first(), Some(b'+' | b'-'))
        {
            self.take(1);
        }
        LuauToken::Number
    }

    fn quoted(&mut self, quote: u8) -> LuauToken<'a> {
        self.take(1);
        let text = self.until(|byte| byte == quote || byte == b'\n');
        self.take(1);
        LuauToken::Text(text)
    }

    /// The text of a backtick string up to its end or to an expression in it; whether it is an
    /// expression.
    fn interpolated(&mut self) -> (&'a [u8], bool) {
        let text = self.until(|byte| byte == b'`' || byte == b'{');
        let goes_on = self.take(1) == b"{";
        if goes_on {
            self.interpolations.push(0);
        }
        (text, goes_on)
    }

    /// A long string or comment `[==[ … ]==]`, if one starts here.
    fn long(&mut self) -> Option<&'a [u8]> {
        let inside = self.rest.strip_prefix(b"[")?;
        let level = inside.iter().take_while(|byte| **byte == b'=').count();
        if inside.get(level) != Some(&b'[') {
            return None;
        }
        self.take(level + 2);
        let end = [b"]", &inside[..level], b"]"].concat();
        let len = self
            .rest
            .windows(end.len())
            .position(|window| window == end)
            .unwrap_or(self.rest.len());
        let text = self.take(len);
        self.take(end.len());
        Some(text)
    }

    /// Takes what stands before an end that is not escaped.
    fn until(&mut self, is_end: impl Fn(u8) -> bool) -> &'a [u8] {
        let mut len = 0;
        while let Some(byte) = self.rest.get(len) {
            if *byte != b'\\' {
                if is_end(*byte) {
                    break;
                }
                len += 1;
                continue;
            }
            let escaped = &self.rest[len + 1..];
            len += 1 + match escaped {
                [b'u', b'{', ..] | [b'\r', b'\n', ..] => 2,
                [b'z', white @ ..] => {
                    1 + white.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
                }
                [_, ..] => 1,
                [] => 0,
            };
        }
        self.take(len)
    }

    fn take_while(&mut self, mut goes_on: impl FnMut(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().position(|byte| !goes_on(*byte)).unwrap_or(self.rest.len());
        self.take(len)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        for byte in taken {
            if *byte == b'\n' {
                self.at = At { line: self.at.line + 1, column: 1 };
            } else {
                // A character of UTF-8 counts with its first byte.
                self.at.column += usize::from(byte & 0xC0 != 0x80);
            }
        }
        self.rest = rest;
        taken
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens, one word each.
    fn shown(source: &str) -> String {
        let show = |(_, token): (At, LuauToken<'_>)| match token {
            LuauToken::Word(word) => word.to_owned(),
            LuauToken::Number => "0".to_owned(),
            LuauToken::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            LuauToken::InterpolationStart => "`{".to_owned(),
            LuauToken::InterpolationMiddle => "}{".to_owned(),
            LuauToken::InterpolationEnd => "}`".to_owned(),
            LuauToken::Sign(sign) => sign.to_owned(),
        };
        tokens(source.as_bytes()).into_iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_numbers_and_signs_are_told_apart() {
        assert_eq!(shown("a1 = b.c..d..='x' // y //= 2"), "a1 = b . c .. d ..= 'x' // y //= 0");
        assert_eq!(shown("1 1.5 .5 1e-5 0xFFe-1 1_000 0b1 3..x"), "0 0 0 0 0 - 0 0 0 0");
        assert_eq!(shown("f :: A<B> -> C?"), "f :: A < B > -> C ?");
    }

    #[test]
    fn comments_are_left_out_and_strings_are_one_token() {
        assert_eq!(shown("a -- b\nc --[[ d\n ]] e --[==[ ]] ]==] f"), "a c e f");
        assert_eq!(
            shown(r#"'a\'b' "c\\" [[d]] [=[]]]=] t[1]"#),
            r#"'a\'b' 'c\\' 'd' ']]' t [ 0 ]"#
        );
        assert_eq!(shown("'a\\z \n b' c '\\\nd'"), "'a\\z \n b' c '\\\nd'");
    }

    #[test]
    fn code_inside_a_backtick_string_is_code() {
        assert_eq!(
            shown("`a{b}c{ {d} }` `e` `\\u{1F600}\\{x`"),
            "`{ b }{ { d } }` 'e' '\\u{1F600}\\{x'"
        );
        assert_eq!(shown("`{`{x}`}` y"), "`{ `{ x }` }` y");
    }

    #[test]
    fn lines_and_columns_are_counted() {
        let lines: Vec<_> = tokens(b"a\n'x\\\ny'\n--[[\n]] b `\n{c}\n` d")
            .into_iter()
            .map(|(at, _)| (at.line, at.column))
            .collect();
        assert_eq!(lines, [(1, 1), (2, 1), (5, 4), (5, 6), (6, 2), (6, 3), (7, 3)]);
        let columns: Vec<_> =
            tokens("\t'äö🎉' x".as_bytes()).into_iter().map(|(at, _)| at.column).collect();
        assert_eq!(columns, [2, 8]);
    }

    #[test]
    fn a_source_that_ends_in_the_middle_is_no_trouble() {
        for source in [
            "require('",
            "--[[ x",
            "[==[",
            "`{",
            "`{{",
            "`x",
            "'\\",
            "require",
            "-",
            "[",
            "'\\z",
            "}",
            "1e",
        ] {
            assert!(tokens(source.as_bytes()).len() <= 3, "{source}");
        }
        assert_eq!(shown("\u{feff}a ä"), "a");
    }
}
