//! `mesophyll log-level`: how much a running master and its workers log.

use serde_json::Value;

use crate::master::config::parse_level;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, not_understood};
use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "log-level",
    usage: "[LEVEL]",
    about: "show how much a running master and its workers log, or change it until the master stops",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll log-level", "mesophyll log-level debug"],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let level = match args.positional.as_slice() {
        [] => None,
        [level] => Some(parse_level(level).ok_or_else(|| {
            CliError::usage(format!(
                "a level is off, error, warn, info, debug or trace, not {level:?}"
            ))
        })?),
        _ => return Err(CliError::usage(format!("log-level takes {}", COMMAND.usage))),
    };
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    if let Some(level) = level {
        let body = words::object(&[("level", &words::quoted(&level.as_str().to_lowercase()))]);
        client.put("/i/log-level", &body)?.success()?;
    }
    let text = client.get("/i/log-level")?.success()?;
    if args.is_on("json") {
        return output::print_json(&text);
    }
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let level = answer["level"].as_str().and_then(parse_level).ok_or_else(not_understood)?;
    output::print(&level.as_str().to_lowercase())
}
