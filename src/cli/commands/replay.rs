//! `mesophyll replay`: a private master and pool, every event of an NDJSON file, one result line an
//! event, in order.

#[cfg(feature = "luau")]
mod play;

use std::fs::File;
use std::io;

use crate::master::config::{PoolConfig, PoolDefaults, number};

use super::luau::{need_luau, need_processes_to_confine};
use crate::cli::parse::api_options::{api_secret, check_pool};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::config_values::{ConfigValue, of_pool};
use crate::cli::parse::look::{self, LOOK};
use crate::cli::parse::pool_options::{POOL, PRIVATE_PLACES, SUPERVISION, WORKER_SIDE};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "replay",
    usage: "FILE [OPTIONS]    ('-' = stdin)",
    about: "start a private master, dispatch every event of an NDJSON file, print the results, stop",
    options: &[
        &[
            OptionSpec::value("in-flight", "K", "events under way at once (default: 64)"),
            OptionSpec::value("repeat", "N", "dispatch the file N times (default: 1)"),
        ],
        PRIVATE_PLACES,
        POOL,
        SUPERVISION,
        WORKER_SIDE,
        LOOK,
    ],
    examples: &[
        "mesophyll replay examples/events.ndjson --workers 2",
        "mesophyll replay - --in-flight 1 --mode thread-pool < events.ndjson",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let path = match args.positional.as_slice() {
        [path] => path,
        // Nothing is read then, but whether it could be.
        [] if look::is_asked(args) => "-",
        _ => return Err(CliError::usage("replay takes one FILE ('-' = stdin)")),
    };
    let in_flight = number(args, "in-flight", 65_536)?.unwrap_or(64);
    let repeat = number(args, "repeat", 1_000_000)?.unwrap_or(1);
    if path == "-" && repeat > 1 {
        return Err(CliError::usage("--repeat needs a FILE: stdin can be read once only"));
    }
    let config = PoolConfig::from_options(args, PoolDefaults::REPLAY)?;
    if look::is_asked(args) {
        let values = [of_pool(&config), own_values(in_flight, repeat)].concat();
        return look::report(args, &COMMAND, &values, &[api_secret(&config)], || {
            need_luau()?;
            need_processes_to_confine(&config)?;
            if path != "-" {
                File::open(path).map_err(|error| bad_input(path, &error))?;
            }
            check_pool(args, &config)
        });
    }
    need_luau()?;
    need_processes_to_confine(&config)?;
    #[cfg(feature = "luau")]
    play::play(args, config, path, repeat, in_flight)?;
    Ok(())
}

fn bad_input(path: &str, error: &io::Error) -> CliError {
    CliError::config(format!("{path}: {error}"))
}

/// The values of the options that no other command has.
pub(in crate::cli) fn own_values(in_flight: usize, repeat: usize) -> Vec<ConfigValue> {
    vec![("in-flight", in_flight.to_string()), ("repeat", repeat.to_string())]
}
