//! `mesophyll drain` and `undrain`: a master of a cluster hands its tenants over to the others, or
//! takes its share again.

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE};
use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::JSON;
use crate::cli::{CliError, Command};
use crate::master::config::is_master_name;

pub(in crate::cli) const COMMAND: Command = Command {
    name: "drain",
    usage: "[NAME]",
    about: "have a master, the one that is asked or NAME, hand its tenants over to the others",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll drain", "mesophyll drain host-2"],
    run: |args| set_state(args, "drain", "hands its tenants over"),
};

pub(in crate::cli) const UNDRAIN: Command = Command {
    name: "undrain",
    usage: "[NAME]",
    about: "let a master, the one that is asked or NAME, take its share of tenants again",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll undrain", "mesophyll undrain host-2"],
    run: |args| set_state(args, "undrain", "takes its share of tenants"),
};

fn set_state(args: &Args, what: &str, does: &str) -> Result<(), CliError> {
    let (path, who) = match args.words()[..] {
        [] => (format!("/i/{what}"), "the master".to_owned()),
        [name] if is_master_name(name) => (format!("/i/{what}/{name}"), name.to_owned()),
        _ => return Err(CliError::usage(format!("{what} takes a master's name, or nothing"))),
    };
    let text = ApiClient::new(args, DATA_DEADLINE)?.post_nothing(&path)?.success()?;
    output::print_as_asked(args, &text, &format!("{who} {does}; mesophyll masters shows how far"))
}
