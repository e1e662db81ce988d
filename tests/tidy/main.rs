//! The house rules that a compiler does not check, as tests: `docs/architecture.md` says what they
//! are for.
//!
//! Reads the sources as text; runs nothing of the product.

mod documents;
mod imports;
mod names;
mod source;

use std::collections::HashMap;
use std::fs;

use source::{Source, paths, read_all, root};

/// More lines than this in a file are more than one idea.
const LINES_MAX: usize = 700;

/// Linux cuts a thread's name after this.
const THREAD_NAME_MAX_BYTES: usize = 15;

/// Where a source breaks a rule, one line each.
fn assert_none(problems: impl IntoIterator<Item = String>) {
    let problems: Vec<String> = problems.into_iter().collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn product_and_tests() -> Vec<Source> {
    let mut all = read_all("src");
    all.extend(read_all("tests"));
    all
}

/// The lines of code in which one of the words stands.
fn lines_with(source: &Source, code: &str, banned: &[&str], rule: &str) -> Vec<String> {
    let found =
        code.lines().enumerate().filter(|(_, line)| words(line).any(|word| banned.contains(&word)));
    found
        .map(|(number, line)| format!("{}:{}: {rule}: {}", source.path, number + 1, line.trim()))
        .collect()
}

#[test]
fn every_file_opens_by_saying_what_it_is_for() {
    assert_none(product_and_tests().iter().filter(|source| !source.text.starts_with("//! ")).map(
        |source| {
            format!(
                "{}: a file opens with `//!`: what for, who owns it, which thread runs it",
                source.path
            )
        },
    ));
}

#[test]
fn no_file_holds_more_than_one_idea() {
    assert_none(product_and_tests().iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines, at most {LINES_MAX}", source.path))
    }));
}

/// The targets compile these files with the features of a package of their own: what asks for one
/// that it does not have is fuzzed by none of them.
#[test]
fn what_is_fuzzed_is_whole_in_the_package_of_its_targets() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("a manifest");
    let missing = |source: &Source| {
        let asked = source.text.split("feature = \"").skip(1).filter_map(|at| at.split('"').next());
        let is_missing = |feature: &&str| !manifest.contains(&format!("\n{feature} = ["));
        let problem = |feature| format!("{}: fuzz/ has no feature {feature}", source.path);
        asked.filter(is_missing).map(problem).collect::<Vec<_>>()
    };
    assert_none(read_all("tests/it/fuzzed").iter().flat_map(missing));
}

/// Columns that code and prose keep to.
const COLUMNS_MAX: usize = 100;

/// Lines that are too wide, but for literals, and for tables, links and blocks in comments.
fn wide_lines(source: &Source) -> Vec<String> {
    let mut in_block = false;
    let is_wide = |line: &str| line.chars().count() > COLUMNS_MAX;
    let mut found = Vec::new();
    for (number, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let comment = line.trim_start();
        in_block ^= comment.starts_with("//") && comment.contains("```");
        let prose = comment.strip_prefix("//").map(|text| text.trim_start_matches(['/', '!', ' ']));
        let is_prose = prose.is_some_and(|text| !text.starts_with(['|', '[']));
        // A literal is not broken for its width.
        let has_literal = prose.is_none() && code.trim_end() != line.trim_end();
        let is_exempt = has_literal || in_block || (prose.is_some() && !is_prose);
        if is_wide(line) && !is_exempt {
            let width = line.chars().count();
            found.push(format!("{}:{}: {width} columns", source.path, number + 1));
        }
    }
    found
}

#[test]
fn lines_are_at_most_a_hundred_columns_wide() {
    assert_none(product_and_tests().iter().flat_map(wide_lines));
}

#[test]
fn only_one_file_starts_threads() {
    let rule = "only src/base/thread.rs starts threads: what it returns is named, owned and joined";
    assert_none(
        read_all("src").iter().filter(|source| source.path != "src/base/thread.rs").flat_map(
            |source| {
                paths(&source.product)
                    .into_iter()
                    .filter(|path| {
                        path.segments.first().is_some_and(|first| first == "std")
                            && path.segments[1] == "thread"
                    })
                    // Named in full, so that `thread::spawn` always means ours.
                    .filter(|path| {
                        !matches!(
                            path.segments.get(2).map(String::as_str),
                            Some(
                                "available_parallelism"
                                    | "current"
                                    | "panicking"
                                    | "yield_now"
                                    | "ThreadId"
                            )
                        )
                    })
                    .map(|path| format!("{}:{}: {rule}", source.path, path.line))
                    .collect::<Vec<_>>()
            },
        ),
    );
}

#[test]
fn nobody_sleeps() {
    let words = ["sleep", "sleep_ms"];
    let rule = "wait for an event with a deadline, never for a time";
    assert_none(
        product_and_tests()
            .iter()
            .flat_map(|source| lines_with(source, &source.code, &words, rule)),
    );
}

#[test]
fn the_product_does_not_unwrap_and_is_safe_and_synchronous() {
    let rule = "no unwrap, no unsafe, no async, no ignored test";
    assert_none(read_all("src").iter().flat_map(|source| {
        let words = ["unwrap", "unsafe", "async", "await"];
        lines_with(source, &source.product, &words, rule)
    }));
    assert_none(
        product_and_tests()
            .iter()
            .flat_map(|source| lines_with(source, &source.code, &["ignore"], rule)),
    );
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    assert!(manifest.contains("unsafe_code = \"forbid\""), "Cargo.toml forbids unsafe code");
}

/// Where texts leave the process, each escaped there: `src/base/escape.rs` says which characters.
const WRITERS: [&str; 4] = [
    "src/main.rs",
    "src/cli/console/logging.rs",
    "src/cli/console/output.rs",
    "src/cli/commands/replay/play/results.rs",
];

#[test]
fn only_the_places_that_escape_write_to_a_terminal() {
    let rule = "what goes to stdout or stderr is escaped: use `output` or the log";
    let calls = ["stdout()", "stderr()", "println!", "print!", "dbg!"];
    assert_none(
        read_all("src").iter().filter(|source| !WRITERS.contains(&source.path.as_str())).flat_map(
            |source| {
                let lines = source.product.lines().enumerate();
                let found = lines.filter(|(_, line)| calls.iter().any(|call| line.contains(call)));
                found
                    .map(|(number, line)| format!("{}:{}: {rule}: {line}", source.path, number + 1))
                    .collect::<Vec<_>>()
            },
        ),
    );
    assert!(WRITERS.iter().all(|path| root().join(path).exists()), "a file of the table is gone");
}

#[test]
fn every_limit_is_used() {
    let sources = read_all("src");
    let limits: Vec<_> =
        sources.iter().filter(|source| source.path.starts_with("src/base/limits")).collect();
    assert!(!limits.is_empty(), "src/base/limits.rs is there");
    let lines = limits.iter().flat_map(|source| source.product.lines());
    let names = lines.filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for word in sources.iter().flat_map(|source| words(&source.product)) {
        *uses.entry(word).or_default() += 1;
    }
    assert_none(names.map(|(name, _)| name).filter_map(|name| {
        // Once is its definition.
        let is_unused = uses.get(name).is_none_or(|uses| *uses < 2);
        is_unused.then(|| format!("src/base/limits.rs: nothing keeps to {name}"))
    }));
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// The literal pieces of the names that threads are started with, such as `super-` of
/// `format!("super-{id}")`.
fn thread_names(source: &Source) -> Vec<Vec<String>> {
    let mut names = Vec::new();
    let mut at = 0;
    // Code without literals tells where a call is, the text what its literal says: both have the
    // same offsets.
    while let Some(found) = source.product[at..].find("spawn") {
        at += found + "spawn".len();
        let call = source.product[at..].trim_start_matches("_watched");
        if !call.starts_with('(') {
            continue;
        }
        let open = source.product.len() - call.len() + 1;
        let argument = source.text[open..].trim_start();
        let literal =
            argument.strip_prefix("format!(").map_or(argument, str::trim_start).strip_prefix('"');
        if let Some((name, _)) = literal.and_then(|literal| literal.split_once('"')) {
            let pieces = name.split('{').flat_map(|piece| piece.rsplit('}').next());
            names.push(pieces.filter(|piece| !piece.is_empty()).map(str::to_owned).collect());
        }
    }
    names
}

#[test]
fn every_thread_is_in_the_table_of_threads() {
    let table =
        fs::read_to_string(root().join("docs/threads.md")).expect("docs/threads.md is there");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let listed: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert!(
        !listed.is_empty(),
        "docs/threads.md has a table whose first column is the thread's name"
    );
    for name in &listed {
        assert!(
            name.len() <= THREAD_NAME_MAX_BYTES,
            "{name}: Linux cuts names after {THREAD_NAME_MAX_BYTES} bytes"
        );
    }
    let mut count = 0;
    for source in read_all("src") {
        for pieces in thread_names(&source) {
            count += 1;
            let is_listed = |name: &&str| pieces.iter().all(|piece| name.contains(piece.as_str()));
            let found = listed.iter().any(is_listed);
            assert!(
                found,
                "{}: a thread named {} is not in docs/threads.md",
                source.path,
                pieces.join("…")
            );
        }
    }
    assert!(count > 5, "this test no longer finds the threads: it found {count}");
}

#[test]
fn each_decision_has_a_number_of_its_own() {
    let folder = root().join("docs/decisions");
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let number = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    let twice = names.windows(2).filter(|pair| number(&pair[0]) == number(&pair[1]));
    assert_none(
        twice.map(|pair| format!("docs/decisions: {} and {} have one number", pair[0], pair[1])),
    );
}

/// The lines of a package in a lock file, without its name.
fn locked(file: &str, package: &str) -> String {
    let text = fs::read_to_string(root().join(file)).expect("the lock file is there");
    let entry = text
        .split("[[package]]\n")
        .find(|entry| entry.starts_with(&format!("name = \"{package}\"\n")));
    entry.unwrap_or_else(|| panic!("{file} has no {package}")).to_owned()
}

#[test]
fn every_build_has_the_luau_that_is_vendored() {
    let version = |file| locked(file, "luau0-src").lines().nth(1).map(str::to_owned);
    for file in ["Cargo.lock", "bench/Cargo.lock"] {
        assert!(
            !locked(file, "luau0-src").contains("source ="),
            "{file} takes the registry's luau0-src"
        );
        assert_eq!(
            version(file),
            version("vendor/check/Cargo.lock"),
            "{file}: the version that is checked"
        );
    }
    assert!(
        locked("vendor/check/Cargo.lock", "luau0-src").contains("checksum ="),
        "what is checked has a checksum"
    );
}

#[test]
fn changelog_and_package_agree_on_the_newest_release() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect("it is UTF-8");
    let changelog = read("CHANGELOG.md");
    let mut headings = changelog.lines().filter_map(|line| line.strip_prefix("## ["));
    let names = |heading: &str| heading.split(']').next().unwrap_or_default().to_owned();
    assert_eq!(headings.next().map(names).as_deref(), Some("Unreleased"));
    // Before the first release there is nothing to agree on.
    if let Some(newest) = headings.next().map(names) {
        assert_eq!(newest, env!("CARGO_PKG_VERSION"), "CHANGELOG.md and Cargo.toml");
    }
}
