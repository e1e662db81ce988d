//! The rules of names and of language: tests, and sentences that name their subject.

use std::collections::BTreeMap;

use crate::source::{Source, read_all};
use crate::{assert_none, product_and_tests, words};

/// Of a test's name more than this is hard to take in.
const TEST_NAME_MAX: usize = 60;

/// Words that stand in place of a noun, and how many comments of the product may still have one.
/// The number only falls: lower it with what you rewrite.
const FREE_RELATIVES: [&str; 8] =
    ["who", "whoever", "whom", "nobody", "somebody", "whatever", "whichever", "anybody"];
const FREE_RELATIVES_MAX: usize = 21;

/// The types that a source defines outside its tests, by name. An alias within an item, such as an
/// associated type, is named by its trait.
fn types(source: &Source) -> Vec<String> {
    let defined = source.product.lines().filter_map(|line| {
        let is_inner_alias = line.starts_with(' ') && words(line).any(|word| word == "type");
        let mut words = words(line).filter(|word| !word.is_empty());
        let is_kind = |word: &&str| ["struct", "enum", "trait", "type"].contains(word);
        words.find(is_kind).filter(|_| !is_inner_alias)?;
        words.next().filter(|name| name.starts_with(|char: char| char.is_ascii_uppercase()))
    });
    defined.map(str::to_owned).collect()
}

#[test]
fn no_two_types_have_one_name() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // What a build without TLS has in place of it goes by the same names.
    let without = ["src/net/stream/no_tls.rs", "src/store/postgres/no_tls.rs"];
    let sources =
        read_all("src").into_iter().filter(|source| !without.contains(&source.path.as_str()));
    for source in sources {
        for name in types(&source) {
            homes.entry(name).or_default().push(source.path.clone());
        }
    }
    assert!(homes.len() > 300, "this test no longer finds the types: {}", homes.len());
    let twice = homes.iter().filter(|(_, at)| at.len() > 1);
    assert_none(twice.map(|(name, at)| format!("{name}: {}", at.join(", "))));
}

#[test]
fn names_of_tests_are_short() {
    assert_none(product_and_tests().iter().flat_map(|source| {
        let tests = source.code.split("#[test]").skip(1);
        let names = tests.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next());
        let long = names.filter(|name| name.len() > TEST_NAME_MAX);
        long.map(|name| format!("{}: {name}: {} characters", source.path, name.len()))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn comments_name_their_subject() {
    let comments = |source: &Source| {
        let lines = source.text.lines().map(str::trim_start).filter(|line| line.starts_with("//"));
        lines.map(str::to_lowercase).collect::<Vec<_>>()
    };
    let all: Vec<String> = read_all("src").iter().flat_map(comments).collect();
    let has_one = |line: &String| words(line).any(|word| FREE_RELATIVES.contains(&word));
    let count = all.iter().filter(|line| has_one(line)).count();
    assert!(
        count <= FREE_RELATIVES_MAX,
        "{count} lines of comments say \"who\" or \"nobody\" where a noun should stand, at most \
         {FREE_RELATIVES_MAX}"
    );
}
