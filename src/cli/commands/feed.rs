//! `mesophyll feed`: what templates publish, as it comes.

use std::cell::RefCell;
use std::io::{BufReader, Read};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::base::escape;
use crate::feeds::sse::{SseEvent, read_event};

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::console::output;
use crate::cli::console::watch::watch;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words;
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "feed",
    usage: "TENANT... | --all",
    about: "follow what templates publish, a line of JSON for each event, until Ctrl-C",
    options: &[
        &[
            OptionSpec::switch("all", "all tenants of the master that is asked"),
            OptionSpec::value("topics", "A,B", "events of these topics only (default: all)"),
        ],
        CLIENT,
    ],
    examples: &["mesophyll feed guild:123 guild:456 --topics score", "mesophyll feed --all"],
    run,
};

/// A connection is used for so long at most: then the next one goes on where it was, and a master
/// that went without a word is noticed.
pub(super) const CONNECTION_MAX: Duration = Duration::from_secs(5 * 60);

fn run(args: &Args) -> Result<(), CliError> {
    let tenants = args.positional.iter().map(|tenant| words::tenant(tenant));
    let tenants = tenants.collect::<Result<Vec<_>, _>>()?;
    let mut path = match (tenants.is_empty(), args.is_on("all")) {
        (false, false) => {
            let list: Vec<String> = tenants.iter().map(ToString::to_string).collect();
            format!("/i/feed?tenants={}", list.join(","))
        }
        (true, true) => "/i/feed?all=true".to_owned(),
        _ => return Err(CliError::usage(format!("feed takes {}", COMMAND.usage))),
    };
    if let Some((topics, _)) = args.get("topics") {
        for topic in topics.split(',') {
            crate::feeds::check_topic(topic)
                .map_err(|error| CliError::usage(format!("--topics: {error}")))?;
        }
        path.push_str(&format!("&topics={topics}"));
    }
    let client = ApiClient::new(args, CONNECTION_MAX)?;
    let last_id = RefCell::new(String::new());
    watch(
        || client.follow(&path, &last_id.borrow()),
        |stream| print_all(stream, &last_id, |event| escape::json(&line_of(event)).into_owned()),
    )
}

/// Prints what comes, each as a line that `line` makes, until the connection ends or a tenant has
/// moved; false once stdout is closed.
pub(super) fn print_all(
    stream: impl Read,
    last_id: &RefCell<String>,
    line: impl Fn(&SseEvent) -> String,
) -> Result<bool, CliError> {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(event)) = read_event(&mut stream) {
        if !event.id.is_empty() {
            *last_id.borrow_mut() = event.id.clone();
        }
        if event.data.is_empty() {
            continue;
        }
        if !output::print_on(&line(&event))? {
            return Ok(false);
        }
        if event.event == "moved" {
            break;
        }
    }
    Ok(true)
}

/// The data of an event with its kind.
pub(super) fn line_of(event: &SseEvent) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(&event.data).unwrap_or_default();
    members.insert("event".to_owned(), event.event.as_str().into());
    Value::Object(members).to_string()
}
