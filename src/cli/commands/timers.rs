//! `mesophyll timers`: a tenant's timers, for staff.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE};
use crate::cli::console::table::{print_list, shortened};
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "timers",
    usage: "TENANT",
    about: "list a tenant's timers, in the order in which they are due",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll timers guild:123", "mesophyll timers user:456 --json"],
    run,
};

/// Data longer than this is cut off in a table.
const SHOWN_DATA_CHARS: usize = 60;

/// A timer as the API gives it.
#[derive(Deserialize)]
struct TimerRow {
    id: String,
    name: String,
    due: String,
    every: Option<String>,
    data: Box<RawValue>,
}

fn run(args: &Args) -> Result<(), CliError> {
    let [tenant] = args.words()[..] else {
        return Err(CliError::usage(format!("timers takes {}", COMMAND.usage)));
    };
    let path = words::path("timers", words::tenant(tenant)?);
    let text = ApiClient::new(args, DATA_DEADLINE)?.get(&path)?.success()?;
    let head = ["DUE", "EVERY", "NAME", "DATA", "ID"];
    print_list(args, &text, "it has no timers", head, |timer: TimerRow| {
        let data = shortened(timer.data.get(), SHOWN_DATA_CHARS);
        [timer.due, timer.every.unwrap_or_default(), timer.name, data, timer.id]
    })
}
