//! Characters that a terminal obeys, or that hide or reorder what stands beside them, made visible.
//!
//! Every text from outside (an event's name, a script's words, a path, an error of a server) passes
//! here where a line is made of it: `log_line` for logs, `cli/console/output.rs` and `main.rs` for
//! what commands print. `tests/tidy` checks that no other file writes to stdout or stderr. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character acts instead of being seen: controls (C0, DEL, C1), ends of lines, marks
/// that turn the direction of writing, and what cannot be seen at all. The two joiners and the
/// selectors of U+FE00..FE0F stay: scripts and emoji are written with them.
pub fn is_obeyed(char: char) -> bool {
    if char < '\u{7f}' {
        return char < ' ';
    }
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text as one line: nothing in it ends the line or moves a cursor.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, &[], |out, char| out.extend(char.escape_default()))
}

/// A text of several lines, which stay lines, with their tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, &['\n', '\t'], |out, char| out.extend(char.escape_default()))
}

/// JSON that stays the same JSON: only inside of its strings are there such characters.
pub fn json(json: &str) -> Cow<'_, str> {
    escaped(json, &['\n', '\r', '\t'], push_json)
}

/// Writes a character as JSON escapes, two where it is outside of the first plane.
pub fn push_json(out: &mut String, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        // A `String` takes everything.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

fn escaped<'t>(text: &'t str, kept: &[char], escape: fn(&mut String, char)) -> Cow<'t, str> {
    let is_plain = |char: char| !is_obeyed(char) || kept.contains(&char);
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_plain(char) { out.push(char) } else { escape(&mut out, char) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_instead_of_being_seen_is_escaped() {
        let hostile = "a\nERROR b\u{1b}[31m\u{9b}2J\u{7f}\u{202e}\u{2066}\u{feff}\u{e0041}\u{2028}\u{3164}\u{e0101}\t";
        let one = "a\\nERROR b\\u{1b}[31m\\u{9b}2J\\u{7f}\\u{202e}\\u{2066}\\u{feff}\\u{e0041}\\u{2028}\\u{3164}\\u{e0101}\\t";
        assert_eq!(one_line(hostile), one);
        assert_eq!(one_line(one), one, "twice is as once");
        assert_eq!(lines("a\n\tb\u{1b}[2J\u{9b}c\r"), "a\n\tb\\u{1b}[2J\\u{9b}c\\r");
        for seen in ["", "é ß 日本 \\ \" ❤\u{fe0f}", "👩\u{200d}👩\u{200d}👧 می\u{200c}خواهم"]
        {
            assert!(matches!(one_line(seen), Cow::Borrowed(text) if text == seen), "{seen}");
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "[\n\"\u{9b}31m\u{7f}é\u{202e}\u{e0041}\"]";
        let shown = json(text);
        assert!(!shown.contains(|char| is_obeyed(char) && char != '\n'), "{shown}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(&shown), value(text));
    }
}
