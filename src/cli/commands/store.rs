//! `mesophyll store`: checking the file of the embedded store, and backing up a store: any running
//! master's, or a file that no master has open.

use std::path::Path;
use std::time::Duration;

use crate::base::escape;
use crate::master::config::{LogFormat, span};
use crate::store::backup::{FrameReader, StreamError};
use crate::store::redb::{BackupError, Restore, RestoreError, backup, check};
use crate::store::{OpenError, StoreUrl};

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::console::{logging, output};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "store",
    usage: "check [--store redb:PATH] | backup FILE [--store redb:PATH]",
    about: "back up a running master's store (or a file that no master has open) into a new file, or check a file",
    options: &[
        &[
            // The variable is the master's own setting: beside it, the master has that store open.
            OptionSpec::value(
                "store",
                "URL",
                "redb:PATH, not open in a master (check's default: redb:mesophyll.redb)",
            )
            .flag_only(),
            OptionSpec::value(
                "deadline",
                "D",
                "how long a backup from a master may take (default: 1h)",
            ),
        ],
        CLIENT,
    ],
    examples: &[
        "mesophyll store backup tenants-monday.redb",
        "mesophyll store check --store redb:tenants-monday.redb",
        "mesophyll store backup copy.redb --store redb:/var/lib/mesophyll/tenants.redb",
    ],
    run,
};

/// How long a backup from a master may take, unless the command line says otherwise.
const BACKUP_DEADLINE: Duration = Duration::from_secs(3600);

fn run(args: &Args) -> Result<(), CliError> {
    logging::init(log::LevelFilter::Warn, LogFormat::Text, "store", None);
    match args.words()[..] {
        ["check"] => {
            run_check(&file(args.get("store").map_or("redb:mesophyll.redb", |(url, _)| url))?)
        }
        ["backup", to] => match args.get("store") {
            Some((url, _)) => copy(&file(url)?, Path::new(to)),
            None => download(args, Path::new(to)),
        },
        _ => Err(CliError::usage("store takes `check` or `backup FILE`")),
    }
}

/// The file that a URL names.
fn file(url: &str) -> Result<std::path::PathBuf, CliError> {
    match url.parse().map_err(|error| CliError::config(format!("--store: {error}")))? {
        StoreUrl::Redb(path) => Ok(path),
        StoreUrl::Postgres(_) => Err(CliError::config(
            "--store: a PostgreSQL database has tools of its own, such as pg_dump; `store backup FILE` without --store asks \
             the running master",
        )),
        StoreUrl::Memory => Err(CliError::config("--store: memory: has no file")),
    }
}

fn run_check(path: &Path) -> Result<(), CliError> {
    let findings = check(path).map_err(|error| cannot_open(path, &error))?;
    for finding in &findings {
        output::print(&escape::one_line(finding))?;
    }
    if findings.is_empty() {
        output::print("nothing found")
    } else {
        Err(CliError::failed("the store is not well"))
    }
}

fn cannot_open(path: &Path, error: &OpenError) -> CliError {
    CliError::store(&StoreUrl::Redb(path.to_owned()), error)
}

fn copy(path: &Path, to: &Path) -> Result<(), CliError> {
    backup(path, to).map_err(|error| match error {
        BackupError::Open(error) => cannot_open(path, &error),
        BackupError::Copy(error) => CliError::config(format!("{}: {error}", to.display())),
    })
}

/// Makes a store's file from what a running master has in its store, of any kind.
fn download(args: &Args, to: &Path) -> Result<(), CliError> {
    let client = ApiClient::new(args, span(args, "deadline", BACKUP_DEADLINE)?)?;
    let unwritten = |error: RestoreError| CliError::config(format!("{}: {error}", to.display()));
    let broken =
        |error: StreamError| CliError::failed(format!("{error}; {} was not written", to.display()));
    // First, so that nothing is asked for that has no place.
    let mut restore = Restore::begin(to).map_err(unwritten)?;
    let mut frames = FrameReader::new(client.download("/i/store-backup")?);
    while let Some(one) = frames.next().map_err(broken)? {
        restore.add(one).map_err(unwritten)?;
    }
    restore.finish().map_err(unwritten)?;
    output::print(&format!("{}: {}", to.display(), frames.seen()))
}
