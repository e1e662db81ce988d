//! Puts the commit into the binary, for `mesophyll --version`.
//!
//! A source archive of `make vendor` has no history and names its commit in a file; in a clone git
//! is asked. No time, user, host or path goes into the binary: equal sources give equal bytes.

// A build script talks to Cargo on stdout.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::Command;

/// The file of a source archive that names its commit.
const ARCHIVED: &str = "COMMIT";

/// What the binary is made of, besides dependencies from a registry.
const SOURCES: [&str; 6] = ["build.rs", "Cargo.toml", "Cargo.lock", "src", "templates", "vendor"];

fn main() {
    for source in SOURCES.into_iter().chain([ARCHIVED]) {
        watch(source);
    }
    let commit = archived().or_else(cloned).unwrap_or_else(|| "unknown commit".to_owned());
    println!("cargo::rustc-env=BUILT_FROM_COMMIT={commit}");
}

/// Has this script run again when a file changes. Cargo would run it for a missing one every time.
fn watch(path: &str) {
    if Path::new(path).exists() {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn archived() -> Option<String> {
    let commit = std::fs::read_to_string(ARCHIVED).ok()?;
    Some(commit.trim().to_owned())
}

/// The commit of this clone, with `-dirty` where the sources differ from it.
fn cloned() -> Option<String> {
    // Sources that were unpacked inside another project's clone have nothing to do with its commit.
    if !Path::new(".git").exists() {
        return None;
    }
    watch(&git(&["rev-parse", "--git-path", "HEAD"])?);
    // Grows with each commit, whichever branch it is on.
    watch(&git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    Some(if changes.is_empty() { commit } else { commit + "-dirty" })
}

fn git(args: &[&str]) -> Option<String> {
    // Without optional locks it gets in the way of no other git that runs in this clone.
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(text).ok()?.trim().to_owned())
}
