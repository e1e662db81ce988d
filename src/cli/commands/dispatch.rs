//! `mesophyll dispatch`: one event through a running master.

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::console::output;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, DEADLINE, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "dispatch",
    usage: "TENANT EVENT [DATA] [OPTIONS]",
    about: "dispatch an event through a running master's internal API and print its result",
    options: &[
        &[
            OptionSpec::switch("nowait", "do not wait for the result"),
            OptionSpec::value(
                "author",
                "ID",
                "the event's author (default: the token's user; see token --act-as-any)",
            ),
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
    let (tenant, event, data) = match args.words()[..] {
        [tenant, event] => (tenant, event, "null"),
        [tenant, event, data] => (tenant, event, data),
        _ => return Err(CliError::usage("dispatch takes TENANT EVENT [DATA]")),
    };
    let tenant = words::tenant(tenant)?;
    let deadline = words::deadline(args)?;
    // Untouched: the text goes on as it is, once it is known to be JSON.
    let data = words::json("DATA", data)?;
    let client = ApiClient::new(args, deadline)?;
    let nowait = if args.is_on("nowait") { "&nowait=true" } else { "" };
    let path = words::path_within("dispatch-event", tenant, deadline) + nowait;
    let mut members = vec![("name", words::quoted(event)), ("data", data.get().to_owned())];
    members.extend(args.get("author").map(|(author, _)| ("author", words::quoted(author))));
    let answer = client.post(&path, &words::object(&members))?;
    if answer.is_unsubscribed {
        output::tell(&format!(
            "{tenant} is not subscribed to {event}, so nothing ran: `mesophyll tenant subscribe {tenant} {event}` \
             subscribes it, the master's --default-events all tenants without a state"
        ));
    }
    match answer.status {
        202 => Ok(()),
        _ => output::print_json(&answer.success()?),
    }
}
