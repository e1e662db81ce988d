//! `mesophyll dispatch`: one event through a running master.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::span;
use crate::limits::{DISPATCH_DEADLINE, DISPATCH_DEADLINE_MAX};
use crate::model::TenantId;

use super::args::{Args, OptionSpec};
use super::client::{ApiClient, CLIENT};
use super::{CliError, Command, output};

pub(super) const COMMAND: Command = Command {
    name: "dispatch",
    usage: "TENANT EVENT [DATA] [OPTIONS]",
    about: "dispatch an event through a running master's internal API and print its result",
    options: &[
        &[
            OptionSpec::switch("nowait", "do not wait for the result"),
            OptionSpec::value("author", "ID", "must be the token's user: the API takes the author from the token"),
            OptionSpec::value("deadline", "D", "how long to wait (default: 35s)"),
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
        [tenant, event] => (tenant, event, None),
        [tenant, event, data] => (tenant, event, Some(data.clone())),
        _ => return Err(CliError::usage("dispatch takes TENANT EVENT [DATA]")),
    };
    let tenant: TenantId = tenant.parse().map_err(|error| CliError::usage(format!("{tenant:?}: {error}")))?;
    let deadline = span(args, "deadline", DISPATCH_DEADLINE)?;
    if deadline > DISPATCH_DEADLINE_MAX {
        return Err(CliError::usage("--deadline is 5m at most"));
    }
    // Untouched: the text goes on as it is, once it is known to be JSON.
    let data = RawValue::from_string(data.unwrap_or_else(|| "null".to_owned()))
        .map_err(|error| CliError::usage(format!("DATA is not JSON: {error}")))?;
    let client = ApiClient::new(args, deadline)?;
    check_author(args, &client)?;
    let nowait = if args.is_on("nowait") { "&nowait=true" } else { "" };
    let path = format!(
        "/i/dispatch-event/{}/{}?deadline_ms={}{nowait}",
        tenant.kind().as_str(),
        tenant.snowflake(),
        deadline.as_millis()
    );
    let body = format!("{{\"name\":{},\"data\":{}}}", Value::from(event.as_str()), data.get());
    let answer = client.post(&path, &body)?;
    match answer.status {
        200 => output::print(answer.body.trim_end()),
        202 => Ok(()),
        status => Err(refused(status, &answer.body)),
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

/// The API's own error line, as a command's.
fn refused(status: u16, body: &str) -> CliError {
    let error: Value = serde_json::from_str(body).unwrap_or_else(|_| json!({}));
    let code = error["code"].as_str().unwrap_or("?");
    let message = error["message"].as_str().unwrap_or("no message");
    let sent = if error["sent"].as_bool() == Some(true) { " (the event may have run)" } else { "" };
    CliError::failed(format!("{code} ({status}): {message}{sent}"))
}
