//! `mesophyll quarantine`: the tenants in whose events workers died, and letting them run again.

use crate::api::QuarantinedTenant;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE};
use crate::cli::console::output;
use crate::cli::console::table::print_list;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "quarantine",
    usage: "list | lift TENANT",
    about: "show the tenants that are quarantined, or lift one",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll quarantine list", "mesophyll quarantine lift guild:123"],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["list"] => list(args),
        ["lift", tenant] => lift(args, tenant),
        _ => Err(CliError::usage(format!("quarantine takes {}", COMMAND.usage))),
    }
}

fn list(args: &Args) -> Result<(), CliError> {
    let text = ApiClient::new(args, DATA_DEADLINE)?.get("/i/quarantine")?.success()?;
    let head = ["TENANT", "SINCE", "WHY"];
    print_list(args, &text, "nobody is quarantined", head, |entry: QuarantinedTenant| {
        [entry.tenant, format!("{} s", entry.since_s), entry.reason]
    })
}

fn lift(args: &Args, tenant: &str) -> Result<(), CliError> {
    let id = words::tenant(tenant)?;
    ApiClient::new(args, DATA_DEADLINE)?
        .post_nothing(&words::path("quarantine/lift", id))?
        .success()?;
    let lifted = words::object(&[("lifted", words::quoted(&id.to_string()))]);
    output::print_as_asked(args, &lifted, &format!("{tenant} runs again"))
}
