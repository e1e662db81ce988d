//! `mesophyll dispatch`: one event through a running master.

use super::args::{Args, OptionSpec};
use super::client::{ApiClient, CLIENT};
use super::words::{self, DEADLINE, JSON};
use super::{CliError, Command, output};

pub(super) const COMMAND: Command = Command {
    name: "dispatch",
    usage: "TENANT EVENT [DATA] [OPTIONS]",
    about: "dispatch an event through a running master's internal API and print its result",
    options: &[
        &[
            OptionSpec::switch("nowait", "do not wait for the result"),
            OptionSpec::value("author", "ID", "must be the token's user: the API takes the author from the token"),
            DEADLINE,
            JSON,
        ],
        CLIENT,
    ],
    examples: &[
        r#"mesophyll dispatch guild:123 MESSAGE_CREATE '{"content":"!help"}'"#,
        "mesophyll dispatch user:456 WebGetSettings --deadline 10s",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let (tenant, event, data) = match args.positional.as_slice() {
        [tenant, event] => (tenant, event, "null"),
        [tenant, event, data] => (tenant, event, data.as_str()),
        _ => return Err(CliError::usage("dispatch takes TENANT EVENT [DATA]")),
    };
    let tenant = words::tenant(tenant)?;
    let deadline = words::deadline(args)?;
    // Untouched: the text goes on as it is, once it is known to be JSON.
    let data = words::json("DATA", data)?;
    let client = ApiClient::new(args, deadline)?;
    check_author(args, &client)?;
    let nowait = if args.is_on("nowait") { "&nowait=true" } else { "" };
    let path = format!("{}?deadline_ms={}{nowait}", words::path("dispatch-event", tenant), deadline.as_millis());
    let body = words::object(&[("name", &words::quoted(event)), ("data", data.get())]);
    let answer = client.post(&path, &body)?;
    match answer.status {
        202 => Ok(()),
        _ => output::print_json(&answer.success()?),
    }
}

/// The author of an event is the token's user; a `--author` that is somebody else's id is a mistake to be told of.
fn check_author(args: &Args, client: &ApiClient) -> Result<(), CliError> {
    match args.get("author") {
        Some((author, _)) if Some(author) != client.user() => Err(CliError::usage(format!(
            "--author {author} is not the token's user; mint a token for that user: mesophyll token --user {author}"
        ))),
        _ => Ok(()),
    }
}
