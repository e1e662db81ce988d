//! Finds what a Luau source requires, without parsing it: strings and comments are told from code, and that is all.

/// The names that the source requires by a plain string, with their lines. What is computed cannot be known.
pub(super) fn requires(source: &[u8]) -> Vec<(usize, String)> {
    let mut lexer = Lexer { rest: source, line: 1, interpolations: Vec::new() };
    let mut found = Vec::new();
    let mut seen = Seen::Other;
    while let Some(token) = lexer.next() {
        seen = match (seen, token) {
            (Seen::Other, Token::Word(b"require")) => Seen::Require,
            (Seen::Require, Token::Sign(b'(')) => Seen::Require,
            (Seen::Require, Token::Text(line, text)) => {
                // An escape could spell any name; who writes one here is on their own.
                if let Ok(text) = std::str::from_utf8(text)
                    && !text.contains('\\')
                {
                    found.push((line, text.to_owned()));
                }
                Seen::Other
            }
            (Seen::Member, Token::Sign(b'.')) => Seen::Other,
            // `x.require` and `x:require` are somebody else's.
            (_, Token::Sign(b'.' | b':')) => Seen::Member,
            _ => Seen::Other,
        };
    }
    found
}

enum Seen {
    Other,
    Member,
    /// The word `require`, perhaps with a parenthesis.
    Require,
}

enum Token<'a> {
    Word(&'a [u8]),
    /// A string, as it is written, and the line where it starts.
    Text(usize, &'a [u8]),
    Sign(u8),
}

struct Lexer<'a> {
    rest: &'a [u8],
    line: usize,
    /// Of each open expression in a backtick string: how many braces are open in it.
    interpolations: Vec<usize>,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let line = self.line;
            match *self.rest.first()? {
                b'-' if self.rest.starts_with(b"--") => {
                    self.take(2);
                    if self.long().is_none() {
                        self.take_while(|byte| byte != b'\n');
                    }
                }
                b'[' => {
                    return Some(match self.long() {
                        Some(text) => Token::Text(line, text),
                        None => self.sign(),
                    });
                }
                quote @ (b'"' | b'\'') => {
                    self.take(1);
                    let text = self.until(|byte| byte == quote || byte == b'\n');
                    self.take(1);
                    return Some(Token::Text(line, text));
                }
                b'`' => {
                    self.take(1);
                    self.interpolated();
                }
                b'}' if self.interpolations.last() == Some(&0) => {
                    self.take(1);
                    self.interpolations.pop();
                    self.interpolated();
                }
                byte if is_word(byte) => return Some(Token::Word(self.take_while(is_word))),
                byte if byte.is_ascii_whitespace() => drop(self.take(1)),
                _ => return Some(self.sign()),
            }
        }
    }

    fn sign(&mut self) -> Token<'a> {
        let sign = self.take(1).first().copied().unwrap_or_default();
        if let Some(braces) = self.interpolations.last_mut() {
            match sign {
                b'{' => *braces += 1,
                b'}' => *braces -= 1,
                _ => {}
            }
        }
        Token::Sign(sign)
    }

    /// The text of a backtick string, up to its end or to an expression in it.
    fn interpolated(&mut self) {
        self.until(|byte| byte == b'`' || byte == b'{');
        if self.take(1) == b"{" {
            self.interpolations.push(0);
        }
    }

    /// A long string or comment `[==[ … ]==]`, if one starts here.
    fn long(&mut self) -> Option<&'a [u8]> {
        let inside = self.rest.strip_prefix(b"[")?;
        let level = inside.iter().take_while(|byte| **byte == b'=').count();
        if inside.get(level) != Some(&b'[') {
            return None;
        }
        self.take(level + 2);
        let mut end = vec![b'='; level + 2];
        end[0] = b']';
        end[level + 1] = b']';
        let len = self.rest.windows(end.len()).position(|window| window == end).unwrap_or(self.rest.len());
        let text = self.take(len);
        self.take(end.len());
        Some(text)
    }

    /// Takes what stands before an end that is not escaped.
    fn until(&mut self, is_end: impl Fn(u8) -> bool) -> &'a [u8] {
        let mut escaped = false;
        self.take_while(|byte| {
            let goes_on = escaped || !is_end(byte);
            escaped = !escaped && byte == b'\\';
            goes_on
        })
    }

    fn take_while(&mut self, mut goes_on: impl FnMut(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().position(|byte| !goes_on(*byte)).unwrap_or(self.rest.len());
        self.take(len)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.line += taken.iter().filter(|byte| **byte == b'\n').count();
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

    fn found(source: &str) -> Vec<(usize, String)> {
        requires(source.as_bytes())
    }

    #[test]
    fn every_way_to_write_a_require_is_found() {
        let source = "local a = require('a')\nlocal b = require \"b\"\nlocal c = require [[c]]\nrequire(\n  'd')";
        let expected = [(1, "a"), (2, "b"), (3, "c"), (5, "d")].map(|(line, name)| (line, name.to_owned()));
        assert_eq!(found(source), expected);
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        let source = r#"
            -- require('no')
            --[[ require('no')
            require('no') ]] --[==[ ]] require('no') ]==]
            local text = "require('no') \" require('no')" .. 'require("no")' .. [=[require('no')]=]
            local inter = `require('no') {text} require('no')`
            other.require('no') other:require('no') requires('no') require(name) require(`no`)
        "#;
        assert_eq!(found(source), []);
    }

    #[test]
    fn code_inside_a_backtick_string_is_code() {
        let source = "return `{ { x = `{ require('a') }` } } text` .. require('b')";
        assert_eq!(found(source), [(1, "a".to_owned()), (1, "b".to_owned())]);
    }

    #[test]
    fn a_source_that_ends_in_the_middle_is_no_trouble() {
        for source in ["require('", "--[[ x", "[==[", "`{", "`{{", "`x", "'\\", "require", "-", "["] {
            assert!(found(source).len() <= 1, "{source}");
        }
    }
}
