//! The rules of documents: their width, the README's length, and that every link and anchor in them
//! leads somewhere.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::root;
use crate::{COLUMNS_MAX, assert_none};

/// The README is what a newcomer reads: more than this belongs into docs/.
const README_LINES_MAX: usize = 150;

const FOLDERS: [&str; 7] =
    ["", "docs", "docs/decisions", "examples", "tests/data/wire", "vendor", "packaging"];

/// The Markdown files of the project, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let files = FOLDERS.iter().flat_map(|folder| {
        let entries = fs::read_dir(root().join(folder)).expect("the folder is there");
        entries.map(|entry| entry.expect("it can be read").path())
    });
    let is_document = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("it is UTF-8");
        (path, text)
    };
    files.filter(is_document).map(read).collect()
}

/// A document's lines with their numbers, without its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    })
}

/// The targets of a document's links, as they are written.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char }).collect::<String>()
    };
    let numbered = headings.map(anchor).map(|anchor| {
        let times = seen.entry(anchor.clone()).or_default();
        *times += 1;
        if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
    });
    numbered.collect()
}

/// Why a link leads nowhere, if it does.
fn broken(document: &Path, text: &str, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = document.parent().expect("a folder").join(file);
    if !file.is_empty() && !target.exists() {
        return Some(format!("{}: a link to {link}, which is not there", document.display()));
    }
    let other = match file {
        "" => text.to_owned(),
        _ if anchor.is_empty() || !file.ends_with(".md") => return None,
        _ => fs::read_to_string(target).expect("it is UTF-8"),
    };
    let is_there = anchor.is_empty() || anchors(&other).iter().any(|known| known == anchor);
    (!is_there).then(|| format!("{}: no heading for {link}", document.display()))
}

#[test]
fn links_and_anchors_lead_somewhere() {
    let found = documents();
    assert!(found.len() > 20, "this test no longer finds the documents: {}", found.len());
    let problems = found.iter().flat_map(|(path, text)| {
        links(text).into_iter().filter_map(|link| broken(path, text, link)).collect::<Vec<_>>()
    });
    assert_none(problems);
}

#[test]
fn a_link_without_its_heading_is_found() {
    let text = "# One thing\n## Two\n## Two\n```\n# no heading\n```\n";
    assert_eq!(anchors(text), ["one-thing", "two", "two-1"]);
    let here = root().join("README.md");
    assert!(broken(&here, text, "#two-1").is_none());
    assert!(broken(&here, text, "#no-heading").is_some());
    assert!(broken(&here, text, "docs/nothing.md").is_some());
}

#[test]
fn the_reading_guide_names_what_is_there() {
    let guide = fs::read_to_string(root().join("docs/reading-guide.md")).expect("it is UTF-8");
    let spans = guide.split('`').skip(1).step_by(2).filter(|span| span.starts_with("src/"));
    let places: Vec<&str> = spans.collect();
    assert!(places.len() > 20, "this test no longer finds the places: {}", places.len());
    let gone = places.iter().filter(|place| !root().join(place).exists());
    assert_none(gone.map(|place| format!("docs/reading-guide.md: {place} is not there")));
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("it is UTF-8").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, at most {README_LINES_MAX}");
}

#[test]
fn documents_are_at_most_a_hundred_columns_wide() {
    let is_generated =
        |path: &Path| ["options.md", "api.md"].iter().any(|name| path.ends_with(name));
    let documents = documents().into_iter().filter(|(path, _)| !is_generated(path));
    assert_none(documents.flat_map(|(path, text)| {
        let is_wide = |line: &str| {
            let is_exempt =
                line.starts_with("    ") || line.trim_start().starts_with(['|', '>', '[', '!']);
            // A link or a span of code is not broken.
            let widest = line.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
            let width = line.chars().count();
            width > COLUMNS_MAX && !is_exempt && widest < 40 && !line.trim_start().starts_with('`')
        };
        let wide = prose(&text).filter(|(_, line)| is_wide(line));
        wide.map(|(number, _)| format!("{}:{}: too wide", path.display(), number + 1))
            .collect::<Vec<_>>()
    }));
}
