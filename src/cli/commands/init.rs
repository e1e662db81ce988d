//! `mesophyll init`: a template directory to begin with.

#[cfg(feature = "luau")]
use std::fs::{self, File};
#[cfg(feature = "luau")]
use std::io::{self, Write};
#[cfg(feature = "luau")]
use std::path::Path;

#[cfg(feature = "luau")]
use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "init",
    usage: "DIR",
    about: "make a template directory: a template, a test that passes, settings for editors",
    options: &[],
    examples: &["mesophyll init my-templates"],
    run,
};

/// What a directory gets besides the definitions for editors.
#[cfg(feature = "luau")]
const FILES: [(&str, &str); 5] = [
    ("main.luau", include_str!("init/main.luau")),
    ("main.test.luau", include_str!("init/main.test.luau")),
    ("fixtures/joined.json", include_str!("init/joined.json")),
    (".luaurc", "{ \"languageMode\": \"strict\" }\n"),
    (".vscode/settings.json", include_str!("init/settings.json")),
];

#[cfg(feature = "luau")]
fn run(args: &Args) -> Result<(), CliError> {
    let [folder] = args.words()[..] else { return Err(CliError::usage("init takes one DIR")) };
    let definitions = super::types::definitions();
    let files = FILES.into_iter().chain([("mesophyll.d.luau", definitions.as_str())]);
    let there = files.clone().find(|(name, _)| Path::new(folder).join(name).exists());
    if let Some((name, _)) = there {
        return Err(CliError::config(format!(
            "{folder}/{name} is there already; nothing was made"
        )));
    }
    for (name, text) in files.clone() {
        make(&Path::new(folder).join(name), text)
            .map_err(|error| CliError::config(format!("{folder}/{name}: {error}")))?;
    }
    let names: Vec<&str> = files.map(|(name, _)| name).collect();
    output::print(&format!(
        "{folder} has {}\n\nNext:\n  \
         mesophyll test {folder} --watch\n  \
         mesophyll check {folder}\n  \
         mesophyll replay EVENTS.ndjson --templates {folder}\n  \
         mesophyll master --templates {folder} --reload --default-events '*'",
        names.join(", ")
    ))
}

/// Writes a file that is not there, and makes its folder.
#[cfg(feature = "luau")]
fn make(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(not(feature = "luau"))]
fn run(_: &Args) -> Result<(), CliError> {
    super::luau::need_luau()
}
