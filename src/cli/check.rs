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

fn run(_: &Args) -> Result<(), CliError> {
    super::worker::need_luau()
}
