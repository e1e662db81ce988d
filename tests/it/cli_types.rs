//! What an author's own tools need: definitions for editors, and names of modules as Luau has them.

use std::process::Command;

use crate::support::TempDir;
use crate::support::binary::{run, run_on, write};

const DOCS: &str = include_str!("../../docs/templates.md");
const EVERY: &str = include_str!("../data/every_member.luau");
const EVERY_OF_TESTS: &str = include_str!("../data/every_member.test.luau");

#[test]
fn the_definitions_are_printed_as_they_are() {
    let printed = run(&["types"]);
    printed.expect(0, "");
    let has = |line: &str| printed.stdout.iter().any(|printed| printed == line);
    for line in [
        "declare extern type Ctx with",
        "\tKV: KV",
        "\tfunction get(self, key: string, scopes: { string }): (any, boolean)",
        "declare null: Null",
        "-- utf8: char charpattern codepoint codes len offset",
    ] {
        assert!(has(line), "{line}");
    }
    let members = printed.stdout.iter().filter_map(|line| line.strip_prefix('\t'));
    let members = members.map(|line| line.trim_start_matches("function "));
    for member in members.filter(|line| line.starts_with(|char: char| char.is_alphabetic())) {
        let name = member.split([':', '(']).next().expect("a name");
        let has_it = [EVERY, EVERY_OF_TESTS].iter().any(|every| every.contains(name));
        assert!(has_it, "every_member.luau and every_member.test.luau have no {name}");
    }
    run(&["types", "x"]).expect(2, "unexpected \"x\"");
}

/// The blocks of the documents that are in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("\n```{language}\n");
    let blocks = DOCS.split(begin.as_str()).skip(1);
    blocks.map(|rest| rest.split_once("\n```").expect("an end").0).collect()
}

#[test]
fn the_documents_name_for_selene_what_is_our_own() {
    let listed =
        blocks("yaml").into_iter().find(|block| block.starts_with("base: luau")).expect("there");
    let own = listed.lines().filter(|line| line.starts_with("  "));
    let own: Vec<&str> = own.filter_map(|line| line.trim().split(':').next()).collect();
    let mut declared: Vec<String> = run(&["types"]).stdout;
    declared.retain_mut(|line| {
        let rest = line.strip_prefix("declare ").filter(|rest| !rest.starts_with("extern "));
        let rest = rest.map(|rest| rest.trim_start_matches("function ").to_owned());
        rest.map(|rest| *line = rest.split([':', '(', '<']).next().expect("a name").to_owned())
            .is_some()
    });
    declared.sort();
    assert_eq!(own, declared);
}

/// Not in each run: there is no package of an analyser that CI could install.
#[test]
fn strict_templates_pass_an_analyser() {
    let Some(analyser) = std::env::var_os("MESOPHYLL_TEST_LUAU_LSP") else { return };
    let folder = TempDir::new();
    let definitions = run(&["types"]).stdout.join("\n");
    let definitions = write(folder.path(), "mesophyll.d.luau", definitions);
    let analyse = |file: &std::path::Path| {
        let mut command = Command::new(&analyser);
        command.arg("analyze").arg(format!("--definitions:@mesophyll={}", definitions.display()));
        command.arg(file).output().expect("the analyser runs")
    };
    let strict: Vec<_> =
        blocks("luau").into_iter().filter(|block| block.contains("--!strict")).collect();
    assert!(!strict.is_empty());
    for (number, source) in strict.into_iter().chain([EVERY, EVERY_OF_TESTS]).enumerate() {
        let found = analyse(&write(folder.path(), &format!("{number}.luau"), source));
        let said = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.success(), "{said}{}", String::from_utf8_lossy(&found.stderr));
    }
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/templates");
    for folder in std::fs::read_dir(examples).expect("the examples") {
        let files = std::fs::read_dir(folder.expect("a folder").path()).expect("readable");
        let files = files.map(|file| file.expect("a file").path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "luau")) {
            let found = analyse(&file);
            assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
        }
    }
    let wrong = "--!strict\nreturn function(ctx: Ctx) return ctx.KV:gett('k', {}) end";
    assert!(!analyse(&write(folder.path(), "wrong.luau", wrong)).status.success());
}

#[test]
fn modules_are_required_as_in_luau_by_check_and_replay() {
    let folder = TempDir::new();
    std::fs::create_dir_all(folder.path().join("duel/rules")).expect("folders");
    let templates = folder.path().to_str().expect("a plain path");
    let check = || run(&["check", "--templates", templates]);
    let replay = || {
        let event = b"{\"tenant\":\"guild:1\",\"name\":\"E\",\"data\":null}\n";
        let replayed = run_on(&["replay", "-", "--templates", templates], event.to_vec());
        replayed.json()[0].clone()
    };
    write(
        folder.path(),
        "main.luau",
        "local duel = require('@self/duel')\nreturn function() return duel end",
    );
    write(
        folder.path(),
        "duel/init.luau",
        "return { require('./words'), require('@self/rules/first'), require('duel/rules/first') }",
    );
    write(folder.path(), "duel/rules/first.luau", "return require('../../words') .. '!'");
    write(folder.path(), "words.luau", "return 'en garde'");
    check().expect(0, "");
    assert_eq!(replay()["ok"], serde_json::json!(["en garde", "en garde!", "en garde!"]));
    // Out of the directory, though there is such a file.
    let outside = format!("../{}/words", folder.path().file_name().expect("a name").display());
    write(folder.path(), "main.luau", format!("return require('{outside}')"));
    let says = format!("cannot require \"{outside}\": it leads out of the template directory");
    assert_eq!(check().stdout, [format!("main.luau:1:16: {says}")]);
    assert_eq!(replay()["error"]["message"], format!("main.luau:1: {says}"));
}
