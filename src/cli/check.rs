//! `mesophyll check`: compiles and lints templates without running them.

use super::args::{Args, OptionSpec};
use super::{CliError, Command};

pub(super) const COMMAND: Command = Command {
    name: "check",
    usage: "--templates DIR",
    about: "compile and lint templates without running them",
    options: &[&[OptionSpec::value("templates", "DIR", "the template directory, with main.luau")]],
    examples: &["mesophyll check --templates ./templates"],
    run,
};

#[cfg(feature = "luau")]
fn run(args: &Args) -> Result<(), CliError> {
    use super::output;
    if let Some(extra) = args.positional.first() {
        return Err(CliError::usage(format!("unexpected {extra:?}; the directory is given with --templates")));
    }
    let (directory, _) = args.get("templates").ok_or_else(|| CliError::usage("--templates is missing"))?;
    let findings = crate::runtime::luau::check(std::path::Path::new(directory))
        .map_err(|error| CliError::config(format!("--templates {directory}: {error}")))?;
    for finding in &findings {
        output::print(&finding.to_string())?;
    }
    match findings.len() {
        0 => output::print("nothing found"),
        1 => Err(CliError::failed("one problem found")),
        count => Err(CliError::failed(format!("{count} problems found"))),
    }
}

#[cfg(not(feature = "luau"))]
fn run(_: &Args) -> Result<(), CliError> {
    super::worker::need_luau()
}
