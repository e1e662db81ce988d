//! Our own ILIKE: which keys a Find returns, the same on every store and for every locale of a
//! server.
//!
//! A pattern becomes a small automaton whose states are the bits of a few machine words, so
//! matching takes a fixed number of word operations for each character of a key: there is no
//! backtracking that a pattern could drive. Deliberately without an escape character of the
//! caller's choice. Pure; any thread.

use std::fmt;

use crate::base::limits::KV_PATTERN_MAX_BYTES;

/// A word for every 64 states; a pattern of n characters has n + 1 states at most.
const WORDS_MAX: usize = KV_PATTERN_MAX_BYTES / 64 + 1;

/// A compiled pattern: `%` is any text, `_` any one character, a backslash takes the next character
/// as it is.
///
/// Case does not matter, character by character: [`fold`].
#[derive(Clone)]
pub struct Pattern {
    /// States that go on to the next one with any character: those in front of a `_`.
    any: Box<[u64]>,
    /// For each character of the pattern, in order of characters, the states that it moves on,
    /// `any` included.
    moves: Vec<(char, Box<[u64]>)>,
    /// States that stay with any character: those in front of a `%`.
    stays: Box<[u64]>,
    /// The state in which the whole pattern has been seen.
    accept: usize,
    prefix: String,
}

/// Why a text is no pattern. Its text is for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// It ends in a backslash that escapes nothing.
    TrailingBackslash,
    /// It is longer than [`KV_PATTERN_MAX_BYTES`].
    TooLong,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::TrailingBackslash => {
                f.write_str("a pattern must not end in a lone backslash")
            }
            PatternError::TooLong => {
                write!(f, "a pattern has at most {KV_PATTERN_MAX_BYTES} bytes")
            }
        }
    }
}

impl std::error::Error for PatternError {}

/// What a pattern is made of.
enum Element {
    AnyText,
    AnyChar,
    Literal(char),
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// It is too long or ends in the middle of an escape.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > KV_PATTERN_MAX_BYTES {
            return Err(PatternError::TooLong);
        }
        let elements = elements(text)?;
        let accept = elements.iter().filter(|element| !matches!(element, Element::AnyText)).count();
        let words = accept / 64 + 1;
        let mut pattern = Self {
            any: vec![0; words].into(),
            moves: Vec::new(),
            stays: vec![0; words].into(),
            accept,
            prefix: literal_prefix(&elements),
        };
        let mut state = 0;
        let mut literals = Vec::new();
        for element in elements {
            match element {
                Element::AnyText => set(&mut pattern.stays, state),
                Element::AnyChar => {
                    set(&mut pattern.any, state);
                    state += 1;
                }
                Element::Literal(char) => {
                    literals.push((char, state));
                    state += 1;
                }
            }
        }
        literals.sort_unstable();
        for (char, state) in literals {
            if pattern.moves.last().is_none_or(|(last, _)| *last != char) {
                pattern.moves.push((char, pattern.any.clone()));
            }
            if let Some((_, states)) = pattern.moves.last_mut() {
                set(states, state);
            }
        }
        Ok(pattern)
    }

    /// Whether the whole of a key matches.
    pub fn matches(&self, key: &str) -> bool {
        if self.accept == 0 && self.stays[0] == 1 {
            return true; // Nothing but `%`.
        }
        let words = self.any.len();
        let mut states = [0_u64; WORDS_MAX];
        states[0] = 1;
        for char in key.chars() {
            let moves = self.moves_of(fold(char));
            let (mut carry, mut alive) = (0, 0);
            for word in 0..words {
                let moved = states[word] & moves[word];
                states[word] = (states[word] & self.stays[word]) | (moved << 1) | carry;
                carry = moved >> 63;
                alive |= states[word];
            }
            if alive == 0 {
                return false;
            }
        }
        states[self.accept / 64] >> (self.accept % 64) & 1 == 1
    }

    /// What the [`index_fold`] of every matching key starts with: where a store starts and ends its
    /// scan.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn moves_of(&self, char: char) -> &[u64] {
        match self.moves.binary_search_by_key(&char, |(char, _)| *char) {
            Ok(at) => &self.moves[at].1,
            Err(_) => &self.any,
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pattern")
            .field("states", &(self.accept + 1))
            .field("prefix", &self.prefix)
            .finish()
    }
}

fn set(words: &mut [u64], state: usize) {
    words[state / 64] |= 1 << (state % 64);
}

fn elements(text: &str) -> Result<Vec<Element>, PatternError> {
    let mut elements = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        elements.push(match char {
            '%' => Element::AnyText,
            '_' => Element::AnyChar,
            '\\' => Element::Literal(fold(chars.next().ok_or(PatternError::TrailingBackslash)?)),
            other => Element::Literal(fold(other)),
        });
    }
    Ok(elements)
}

/// Case folding for matching: `char::to_lowercase` where that is one character; a character with a
/// longer lower case stays as it is (protocol.md).
pub fn fold(char: char) -> char {
    let mut lower = char.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => char,
    }
}

const KELVIN_SIGN: char = '\u{212A}';

/// A key as an index orders it, so that the keys of a [`Pattern::prefix`] lie together in any
/// case of letters.
///
/// Deliberately not [`fold`]: an index outlives the Unicode tables of the compiler that we were
/// built with, so it folds the ASCII letters only, which will not change, and the one other
/// character that folds to one of them.
pub fn index_fold(key: &str) -> String {
    key.chars()
        .map(|char| if char == KELVIN_SIGN { 'k' } else { char.to_ascii_lowercase() })
        .collect()
}

/// The literals that a pattern starts with, as far as keys that match them have one index form.
fn literal_prefix(elements: &[Element]) -> String {
    let mut prefix = String::new();
    for element in elements {
        match element {
            Element::Literal(char) if has_one_index_form(*char) => prefix.push(*char),
            _ => break,
        }
    }
    prefix
}

/// Whether all characters that fold to this (folded) one have the same [`index_fold`]: ASCII, and
/// what has no case.
fn has_one_index_form(char: char) -> bool {
    char.is_ascii() || char.to_uppercase().eq([char])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        Pattern::parse(pattern).expect("a pattern").matches(key)
    }

    /// The rules as a child would write them, exponential and all.
    fn oracle(pattern: &[char], key: &[char]) -> bool {
        match pattern.split_first() {
            None => key.is_empty(),
            Some(('%', rest)) => (0..=key.len()).any(|skip| oracle(rest, &key[skip..])),
            Some(('_', rest)) => !key.is_empty() && oracle(rest, &key[1..]),
            Some(('\\', rest)) => {
                !key.is_empty() && fold(rest[0]) == fold(key[0]) && oracle(&rest[1..], &key[1..])
            }
            Some((char, rest)) => {
                !key.is_empty() && fold(*char) == fold(key[0]) && oracle(rest, &key[1..])
            }
        }
    }

    #[test]
    fn wildcards_and_escapes_mean_what_they_mean_in_sql() {
        for (pattern, key, expected) in [
            ("%", "", true),
            ("%%", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("a%c", "ac", true),
            ("a%c", "abbbbc", true),
            ("a%c", "abbbbcd", false),
            ("%b%", "abc", true),
            ("_%_", "ab", true),
            ("_%_", "a", false),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            (r"a\_b", "a_b", true),
            (r"a\_b", "axb", false),
            (r"\\", r"\", true),
            (r"\a", "A", true),
            ("é_", "É!", true),
            ("_", "😀", true),
            ("__", "😀", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn case_folds_one_character_to_one() {
        assert!(matches("GRÖSSE", "grösse"));
        assert!(matches("ΣΑΣ", "σασ"));
        assert!(!matches("ΣΑΣ", "σας"), "the final sigma is a letter of its own");
        assert!(matches("k", "\u{212A}"), "the Kelvin sign folds to k");
        assert!(matches("ẞ", "ß"));
        assert!(!matches("ß", "ss"));
        assert!(matches("İ", "İ"), "two characters in lower case: it stays");
        assert!(!matches("İ", "i"));
        assert!(matches("ДОМ", "дом"));
    }

    #[test]
    fn a_trailing_lone_backslash_and_too_long_a_pattern_are_refused() {
        for pattern in ["\\", "abc\\", r"a\\\"] {
            assert_eq!(
                Pattern::parse(pattern).err(),
                Some(PatternError::TrailingBackslash),
                "{pattern}"
            );
        }
        assert!(Pattern::parse(&"_".repeat(KV_PATTERN_MAX_BYTES)).is_ok());
        assert_eq!(
            Pattern::parse(&"_".repeat(KV_PATTERN_MAX_BYTES + 1)).err(),
            Some(PatternError::TooLong)
        );
    }

    #[test]
    fn random_patterns_agree_with_the_plain_rules() {
        let alphabet: Vec<char> = "aAb%_\\é".chars().collect();
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..20_000 {
            let pattern: Vec<char> = (0..draw(8)).map(|_| alphabet[draw(7)]).collect();
            let key: Vec<char> =
                (0..draw(8)).map(|_| ['a', 'A', 'b', '%', 'É', '\\'][draw(6)]).collect();
            let (text, key_text) = (String::from_iter(&pattern), String::from_iter(&key));
            let Ok(compiled) = Pattern::parse(&text) else { continue };
            let expected = oracle(&pattern, &key);
            assert_eq!(compiled.matches(&key_text), expected, "{text} {key_text}");
            assert!(
                !expected || index_fold(&key_text).starts_with(compiled.prefix()),
                "{text} {key_text}"
            );
        }
    }

    #[test]
    fn patterns_of_more_than_one_word_match_as_short_ones_do() {
        for len in [62, 63, 64, 65, 127, 128, 129, 512] {
            let key = "ab".repeat(len);
            assert!(matches(&"_".repeat(2 * len), &key), "{len}");
            assert!(matches(&"AB".repeat(len), &key), "{len}");
            assert!(matches(&format!("{}%", "ab".repeat(len - 1)), &key), "{len}");
            assert!(!matches(&format!("{}x%", "ab".repeat(len - 1)), &key), "{len}");
            assert!(!matches(&"_".repeat(2 * len - 1), &key), "{len}");
        }
    }

    // On any machine: a backtracking matcher needs more steps for one of these than there are
    // atoms.
    #[test]
    fn bombs_do_not_explode() {
        let key = "a".repeat(512);
        assert!(!matches("%a%a%a%a%b", &key));
        assert!(!matches(&format!("{}b", "%a".repeat(400)), &key));
        assert!(!matches(&format!("%{}b", "_%".repeat(300)), &key));
        assert!(matches(&"%a".repeat(512), &key));
    }

    #[test]
    fn a_prefix_ends_where_a_key_could_be_indexed_elsewhere() {
        for (pattern, prefix) in [
            ("%", ""),
            ("Users:42:%", "users:42:"),
            ("\u{212A}elvin_", "kelvin"),
            (r"100\%\_%", "100%_"),
            ("日本%", "日本"),
            ("caf\u{E9}%", "caf"),
            ("ß%", ""),
            ("İ%", "İ"),
        ] {
            assert_eq!(Pattern::parse(pattern).expect("a pattern").prefix(), prefix, "{pattern}");
        }
    }

    #[test]
    fn characters_that_fold_into_a_prefix_are_indexed_so() {
        for char in '\0'..=char::MAX {
            let folded = fold(char);
            if has_one_index_form(folded) {
                assert_eq!(index_fold(&char.to_string()), folded.to_string(), "{char:?}");
            }
        }
    }
}
