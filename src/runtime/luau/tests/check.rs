//! `check` knows what a VM has, and finds nothing in templates that are right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::docs;
use super::support::*;
use crate::runtime::luau::templates::known::{self, Known};
use crate::runtime::luau::{check, definitions, examples};

#[test]
fn what_it_knows_is_what_a_vm_has() {
    let world = World::new();
    let listed = world.ok("local found = {}
        for name, value in getmetatable(setmetatable({}, { __index = _G })).__index do
            local members = {}
            if type(value) == 'table' and name ~= '_G' then
                for member in value do table.insert(members, member) end
                table.sort(members)
            end
            found[name] = table.concat(members, ' ')
        end
        return found");
    let listed: BTreeMap<String, String> = serde_json::from_str(&listed).expect("texts");
    let members = |name: &str| known::library(name).map_or(String::new(), sorted_members);
    let known: BTreeMap<_, _> =
        known::globals().map(|name| (name.to_owned(), members(name))).collect();
    assert_eq!(known, listed);
    let ctx = "local ctx, found = ..., {} for name, value in ctx do
            local members = {}
            if type(value) == 'table' then for member in value do table.insert(members, member) end end
            table.sort(members)
            found[name] = table.concat(members, ' ')
        end
        return found";
    let listed: BTreeMap<String, String> = serde_json::from_str(&world.ok(ctx)).expect("texts");
    let members = |name: &str| known::ctx_member(name).map_or(String::new(), sorted_members);
    let known: BTreeMap<_, _> =
        known::CTX.members().map(|name| (name.to_owned(), members(name))).collect();
    assert_eq!(known, listed);
}

fn sorted_members(known: &Known) -> String {
    let names: BTreeSet<_> = known.members().collect();
    Vec::from_iter(names).join(" ")
}

/// What the text of the definitions has, read line by line: of each type, global and library its
/// members.
fn declared(text: &'static str) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let (own, luau) = text.split_once("-- What Luau itself has").expect("both");
    let mut lines = luau.lines().skip(1).map(|line| line.trim_start_matches("-- "));
    let globals = lines.next().expect("globals").split(' ').map(|name| (name, BTreeSet::new()));
    let mut found: BTreeMap<_, _> = globals.collect();
    found.extend(lines.map(|line| {
        let (name, members) = line.split_once(": ").expect("a library");
        (name, members.split(' ').collect())
    }));
    let word = |text: &'static str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().expect("a part")
    };
    let mut inside = "";
    for line in own.lines() {
        let starts = ["declare extern type ", "declare function ", "declare ", "export type "];
        if let Some(rest) = starts.iter().find_map(|start| line.strip_prefix(start)) {
            inside = word(rest);
            found.insert(inside, BTreeSet::new());
        } else if let Some(rest) = line.strip_prefix('\t')
            && !rest.starts_with(['\t', '-', ')', '{', '|'])
        {
            let members = found.get_mut(inside).expect("it began");
            members.insert(word(rest.trim_start_matches("function ")));
        }
    }
    found
}

#[test]
fn the_definitions_have_what_check_knows_and_no_more() {
    let declared = declared(definitions().leak());
    let of = |name: &str| {
        let members = declared.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        Vec::from_iter(members.iter().copied()).join(" ")
    };
    assert_eq!(of("Ctx"), sorted_members(&known::CTX));
    assert_eq!(of("Event"), sorted_members(&known::EVENT));
    for known in known::CTX.members().filter_map(known::ctx_member) {
        let name = match known.name.as_str() {
            "ctx.log" => "Log",
            "ctx.tenant" => "Tenant",
            name => &name["ctx.".len()..],
        };
        assert_eq!(of(name), sorted_members(known), "{name}");
    }
    for name in known::globals() {
        assert_eq!(of(name), known::library(name).map_or(String::new(), sorted_members), "{name}");
    }
    let globals: BTreeSet<_> = known::globals().collect();
    let is_type = |name: &str| name != "_G" && name.starts_with(|c: char| c.is_ascii_uppercase());
    let unknown = declared.keys().filter(|name| !globals.contains(*name) && !is_type(name));
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[track_caller]
fn assert_sound(directory: &Path) {
    let findings: Vec<_> =
        check(directory).expect("readable").iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new(), "{}", directory.display());
}

#[test]
fn nothing_is_found_in_templates_that_are_right() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_sound(&here.join("templates"));
    for (number, example) in examples(docs::DOCS).into_iter().enumerate() {
        let scratch = Scratch::new(&format!("docs-{number}"));
        let script = example.script.map(|code| ("main.luau".to_owned(), code));
        for (name, text) in example.files.into_iter().chain(script) {
            fs::write(scratch.0.join(name), text).expect("write");
        }
        if scratch.0.join("main.luau").exists() {
            assert_sound(&scratch.0);
        }
    }
    let scratch = Scratch::new("corpus");
    let corpus = here.join("src/runtime/luau/tests/corpus");
    for file in fs::read_dir(corpus).expect("the corpus").map(|file| file.expect("a file").path()) {
        fs::copy(&file, scratch.0.join(file.file_name().expect("a name"))).expect("copy");
    }
    fs::write(scratch.0.join("main.luau"), "return print").expect("write");
    assert_sound(&scratch.0);
}

/// A directory that is gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("mesophyll-sound-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("make the directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
