//! `mesophyll drop-tenant`: ends what a tenant has running and closes its VM.

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, DEADLINE, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "drop-tenant",
    usage: "TENANT [OPTIONS]",
    about: "end what a tenant has running and close its VM; its data stays, its next event starts a new VM",
    options: &[&[DEADLINE, JSON], CLIENT],
    examples: &["mesophyll drop-tenant guild:123"],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let [tenant] = args.positional.as_slice() else {
        return Err(CliError::usage("drop-tenant takes TENANT"));
    };
    let tenant = words::tenant(tenant)?;
    let deadline = words::deadline(args)?;
    let path = words::path_within("drop-tenant", tenant, deadline);
    ApiClient::new(args, deadline)?.post_nothing(&path)?.success().map(drop)
}
