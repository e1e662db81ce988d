//! The rules of names and of language: tests, and sentences that name their subject.

use crate::source::{Source, read_all};
use crate::{assert_none, product_and_tests, words};

/// Of a test's name more than this is hard to take in.
const TEST_NAME_MAX: usize = 60;

/// Words that stand in place of a noun, and how many comments of the product may still have one.
/// The number only falls: lower it with what you rewrite.
const FREE_RELATIVES: [&str; 8] =
    ["who", "whoever", "whom", "nobody", "somebody", "whatever", "whichever", "anybody"];
const FREE_RELATIVES_MAX: usize = 21;

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
