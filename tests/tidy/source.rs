//! Rust source as the rules see it: without comments, without what is in literals, without tests.
//!
//! A small scanner, not a parser: it knows just enough of the language to tell code from text. What
//! it takes away it replaces with spaces, so that line numbers stay right.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// From the repository's root, with forward slashes.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
    /// Without comments and the contents of literals.
    pub(crate) code: String,
    /// Without items under `#[cfg(test)]` too; empty in a file that is a test module.
    pub(crate) product: String,
}

/// A path in code, such as `crate::wire::json`, and the line it is on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CodePath {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under a folder, in order of their paths.
pub(crate) fn read_all(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join(folder), &mut files);
    files.sort();
    let mut sources: Vec<Source> = files.iter().map(|file| read(file)).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        // The module itself, or what is in its folder.
        if tests.iter().any(|test| {
            source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/"))
        }) {
            source.product.clear();
        }
    }
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> Source {
    let text = fs::read_to_string(file).expect("source is UTF-8");
    let path =
        file.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
    let code = without_text(&text);
    let product = without_tests(&code);
    Source { path, text, code, product }
}

/// The paths, without `.rs`, of the modules that a file declares under `#[cfg(test)]`.
fn test_modules(source: &Source) -> Vec<String> {
    let folder =
        match source.path.strip_suffix("/mod.rs").or_else(|| source.path.strip_suffix("/lib.rs")) {
            Some(folder) => folder,
            None => source.path.trim_end_matches(".rs"),
        };
    let declared = source.code.split("#[cfg(test)]").skip(1);
    declared
        .filter_map(|rest| {
            let item = rest.trim_start().trim_start_matches("pub(crate) ");
            item.strip_prefix("mod ")?.split_once(';')
        })
        .filter(|(name, _)| !name.contains('{'))
        .map(|(name, _)| format!("{folder}/{}", name.trim()))
        .collect()
}

/// Blanks comments and the contents of string and character literals.
pub(crate) fn without_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at + bytes[at..].iter().take_while(|byte| **byte != b'\n').count()
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => end_of_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if !is_word(bytes, at.wrapping_sub(1))
                || bytes.get(at.wrapping_sub(1)) == Some(&b'b') =>
            {
                end_of_raw_string(bytes, at)
            }
            b'\'' => end_of_char(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of `r"…"` or `r#"…"#`, or `start` if it is none.
fn end_of_raw_string(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(start + 1 + hashes) != Some(&b'"') {
        return start;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let from = start + hashes + 2;
    let found = bytes[from..].windows(closing.len()).position(|window| window == closing);
    found.map_or(bytes.len(), |offset| from + offset + closing.len())
}

/// The end of a character literal, or `start` if it is a lifetime.
fn end_of_char(bytes: &[u8], start: usize) -> usize {
    let text = std::str::from_utf8(&bytes[start + 1..]).expect("a quote is a boundary");
    let mut chars = text.char_indices();
    match chars.next() {
        Some((_, '\\')) => {
            let close = bytes[start + 3..].iter().position(|byte| *byte == b'\'');
            close.map_or(bytes.len(), |offset| start + 3 + offset + 1)
        }
        Some(_) => match chars.next() {
            Some((offset, '\'')) => start + 1 + offset + 1,
            _ => start,
        },
        None => start,
    }
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let mut depth = 0_i32;
        let length = out[start + MARK.len()..]
            .bytes()
            .position(|byte| {
                depth += match byte {
                    b'{' | b'(' | b'[' => 1,
                    b'}' | b')' | b']' => -1,
                    _ => 0,
                };
                depth == 0 && matches!(byte, b';' | b'}' | b',') || depth < 0
            })
            .map_or(out.len() - start, |offset| MARK.len() + offset + 1);
        let blank: String =
            out[start..start + length].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        out.replace_range(start..start + length, &blank);
    }
    out
}

/// Every path of two segments or more in this code, and every path that a `use` names.
pub(crate) fn paths(code: &str) -> Vec<CodePath> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (word, line) = &tokens[at];
        if *word == "use" {
            at = use_tree(&tokens, at + 1, &[], &mut found);
        } else if is_name(word) {
            let mut segments = vec![(*word).to_owned()];
            while tokens.get(at + 1).is_some_and(|(next, _)| *next == "::")
                && tokens.get(at + 2).is_some_and(|(next, _)| is_name(next))
            {
                segments.push(tokens[at + 2].0.to_owned());
                at += 2;
            }
            if segments.len() > 1 {
                found.push(CodePath { segments, line: *line });
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one tree of a `use` and returns where it ended.
fn use_tree(
    tokens: &[(&str, usize)],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<CodePath>,
) -> usize {
    let mut segments = prefix.to_vec();
    while let Some((word, line)) = tokens.get(at) {
        match *word {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(word, _)| *word != "}") {
                    at = use_tree(tokens, at, &segments, found);
                    if tokens.get(at).is_some_and(|(word, _)| *word == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            // `use<'a>` of a return type is no import.
            "<" => return at,
            "as" => at += 2,
            name if is_name(name) || name == "*" => {
                segments.push(name.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|(next, _)| *next != "::") {
                    found.push(CodePath { segments: segments.clone(), line: *line });
                    segments.truncate(segments.len() - 1);
                }
            }
            _ => return at,
        }
    }
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Words, `::` and single characters, each with its line.
fn tokens(code: &str) -> Vec<(&str, usize)> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (code, 1);
    while let Some(first) = rest.chars().next() {
        let word =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match first {
            _ if word > 0 => word,
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        if first == '\n' {
            line += 1;
        } else if !first.is_whitespace() {
            tokens.push((&rest[..length], line));
        }
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str) -> Vec<String> {
        paths(code).into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn text_is_not_code() {
        let code = without_text(
            "a /* b /* c */ d */ \"e\\\"f\" 'g' '\\'' r#\"h\"i\"# b\"j\" 'k: l // m\nn",
        );
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "'k:", "l", "n"], "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn tests_are_not_the_product() {
        let code = "use a::b;\n#[cfg(test)]\nuse c::d;\n#[cfg(test)]\nmod tests {\n fn e() { f::g(); }\n}\nuse h::i;";
        assert_eq!(found(&without_tests(code)), ["a::b", "h::i"]);
        assert_eq!(without_tests(code).lines().count(), code.lines().count());
    }

    #[test]
    fn a_use_is_all_the_paths_in_it() {
        let code = "pub(crate) use crate::{a, b::{self, c as d}, e::*}; use std::fmt; f(x.y::<T>(crate::g::H::new()))";
        assert_eq!(
            found(code),
            [
                "crate::a",
                "crate::b::self",
                "crate::b::c",
                "crate::e::*",
                "std::fmt",
                "crate::g::H::new"
            ]
        );
    }
}
