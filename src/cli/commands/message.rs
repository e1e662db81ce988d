//! `mesophyll message`: a message of staff for a tenant, through a running master.

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, DEADLINE};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "message",
    usage: "TENANT TOPIC [DATA] [OPTIONS]",
    about: "send a tenant a message as staff: the event TenantMessage, whose handler is not waited for",
    options: &[&[DEADLINE], CLIENT],
    examples: &[r#"mesophyll message guild:123 notice '{"text":"maintenance at 10"}'"#],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let (tenant, topic, data) = match args.words()[..] {
        [tenant, topic] => (tenant, topic, "null"),
        [tenant, topic, data] => (tenant, topic, data),
        _ => return Err(CliError::usage("message takes TENANT TOPIC [DATA]")),
    };
    let tenant = words::tenant(tenant)?;
    let deadline = words::deadline(args)?;
    let data = words::json("DATA", data)?;
    let body = words::object(&[("topic", words::quoted(topic)), ("data", data.get().to_owned())]);
    let path = words::path_within("message", tenant, deadline);
    ApiClient::new(args, deadline)?.post(&path, &body)?.success().map(drop)
}
