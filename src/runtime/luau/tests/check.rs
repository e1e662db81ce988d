//! `check` knows what a VM has, and finds nothing in templates that are right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::docs;
use super::support::*;
use crate::runtime::luau::check;
use crate::runtime::luau::templates::known;

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
    let members = |name: &str| {
        known::library(name).map_or(String::new(), |library| library.members.to_owned())
    };
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
    let members = |name: &str| {
        known::ctx_member(name).map_or(String::new(), |known| known.members.to_owned())
    };
    let known: BTreeMap<_, _> =
        known::CTX.members().map(|name| (name.to_owned(), members(name))).collect();
    assert_eq!(known, listed);
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
    for (number, example) in docs::examples().into_iter().enumerate() {
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
