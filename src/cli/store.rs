//! `mesophyll store`: checking and copying the file of the embedded store, while no master has it open.

use std::path::Path;

use crate::store::StoreUrl;
use crate::store::redb::{BackupError, backup, check};

use super::args::{Args, OptionSpec};
use super::{CliError, Command, logging, output};

pub(super) const COMMAND: Command = Command {
    name: "store",
    usage: "check | backup FILE",
    about: "check or copy the file of a store that no master has open",
    options: &[&[OptionSpec::value("store", "URL", "redb:PATH (default: redb:mesophyll.redb)")]],
    examples: &[
        "mesophyll store check --store redb:/var/lib/mesophyll/tenants.redb",
        "mesophyll store backup tenants-monday.redb --store redb:/var/lib/mesophyll/tenants.redb",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let words: Vec<&str> = args.positional.iter().map(String::as_str).collect();
    let url = args.get("store").map_or("redb:mesophyll.redb", |(url, _)| url);
    let url: StoreUrl = url.parse().map_err(|error| CliError::config(format!("--store: {error}")))?;
    match (&words[..], &url) {
        (["check"] | ["backup", _], StoreUrl::Postgres(_)) => {
            Err(CliError::config("--store: a PostgreSQL database has tools of its own for that, such as pg_dump"))
        }
        (["check"] | ["backup", _], StoreUrl::Memory) => Err(CliError::config("--store: memory: has no file")),
        (["check"], StoreUrl::Redb(path)) => run_check(path),
        (["backup", to], StoreUrl::Redb(path)) => run_backup(path, Path::new(to)),
        _ => Err(CliError::usage("store takes `check` or `backup FILE`")),
    }
}

fn run_check(path: &Path) -> Result<(), CliError> {
    logging::init(log::LevelFilter::Warn);
    let findings = check(path)?;
    for finding in &findings {
        output::print(finding)?;
    }
    if findings.is_empty() { output::print("nothing found") } else { Err(CliError::failed("the store is not well")) }
}

fn run_backup(path: &Path, to: &Path) -> Result<(), CliError> {
    logging::init(log::LevelFilter::Warn);
    backup(path, to).map_err(|error| match error {
        BackupError::Open(error) => error.into(),
        BackupError::Copy(error) => CliError::config(format!("{}: {error}", to.display())),
    })
}
