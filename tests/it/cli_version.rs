//! The one line that tells one build from another.

use std::process::Command;

use mesophyll::store::redb::RedbStore;
use redb::{ReadableDatabase, TableDefinition};

use crate::support::TempDir;

/// The layout that a new store's file says it has.
fn layout_of_a_new_store() -> u64 {
    let folder = TempDir::new();
    let file = folder.path().join("new.redb");
    drop(RedbStore::open(&file).expect("a new store"));
    let database = redb::Database::open(&file).expect("a file of redb");
    let read = database.begin_read().expect("a read");
    let table = read.open_table(TableDefinition::<&str, u64>::new("mesophyll")).expect("the table");
    table.get("schema").expect("read").expect("a layout").value()
}

fn is_commit(text: &str) -> bool {
    let hash = text.strip_suffix("-dirty").unwrap_or(text);
    hash.len() == 12 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn version_names_commit_features_and_store_layout() {
    let mut binary = Command::new(env!("CARGO_BIN_EXE_mesophyll"));
    let output = binary.arg("--version").output().expect("the binary starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let line = String::from_utf8(output.stdout).expect("text");
    let inside = line
        .strip_prefix(concat!("mesophyll ", env!("CARGO_PKG_VERSION"), " ("))
        .and_then(|rest| rest.strip_suffix(")\n"))
        .unwrap_or_else(|| panic!("{line:?}"));
    let [commit, features, layout] = inside.split("; ").collect::<Vec<_>>()[..] else {
        panic!("{line:?}");
    };
    assert!(is_commit(commit) || commit == "unknown commit", "{line:?}");
    let all = [
        ("http2", cfg!(feature = "http2")),
        ("luau", cfg!(feature = "luau")),
        ("postgres", cfg!(feature = "postgres")),
        ("postgres-tls", cfg!(feature = "postgres-tls")),
        ("sandbox", cfg!(feature = "sandbox")),
        ("tls", cfg!(feature = "tls")),
    ];
    let built: Vec<&str> = all.into_iter().filter(|one| one.1).map(|one| one.0).collect();
    let built = if built.is_empty() { "no features".to_owned() } else { built.join(", ") };
    assert_eq!(features, built);
    assert_eq!(layout, format!("store layout {}", layout_of_a_new_store()));
}
