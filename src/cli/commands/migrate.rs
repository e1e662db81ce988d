//! `mesophyll migrate`: creates or upgrades the tables of a PostgreSQL database.

use crate::master::config::LogFormat;
use crate::store::{self, Migrated, StoreUrl};

use crate::cli::console::{logging, output};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "migrate",
    usage: "--store postgres://USER:PASSWORD@HOST/DATABASE",
    about: "create or upgrade the tables of a PostgreSQL database",
    options: &[&[OptionSpec::value(
        "store",
        "URL",
        "the database; tables of a template-worker are used as they are",
    )]],
    examples: &[
        "mesophyll migrate --store postgres://mesophyll@127.0.0.1/mesophyll",
        "MESOPHYLL_STORE=postgres://mesophyll:PASSWORD@db.internal/mesophyll mesophyll migrate",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    if let Some(extra) = args.positional.first() {
        return Err(CliError::usage(format!(
            "unexpected {extra:?}; the database is given with --store"
        )));
    }
    let (url, _) = args.get("store").ok_or_else(|| CliError::usage("--store is missing"))?;
    let url: StoreUrl =
        url.parse().map_err(|error| CliError::config(format!("--store: {error}")))?;
    if !matches!(url, StoreUrl::Postgres(_)) {
        return Err(CliError::config("--store: only a postgres:// database has tables to migrate"));
    }
    // What the server says of an error goes to the log.
    logging::init(log::LevelFilter::Warn, LogFormat::Text, "migrate", None);
    match store::migrate(&url).map_err(|error| CliError::store(&url, &error))? {
        Migrated::Made => output::print("the tables are ready"),
        Migrated::Nothing => output::print("nothing to do: the tables are there"),
    }
}
