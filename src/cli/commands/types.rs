//! `mesophyll types`: what templates find, as definitions for editors and analysers of Luau.

use crate::cli::parse::args::Args;
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "types",
    usage: "",
    about: "print the definitions that editors and analysers of Luau read",
    options: &[],
    examples: &["mesophyll types > mesophyll.d.luau"],
    run,
};

#[cfg(feature = "luau")]
fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    crate::cli::console::output::print(definitions().trim_end())
}

/// The definitions of what templates and tests find.
#[cfg(feature = "luau")]
pub(super) fn definitions() -> String {
    let of_tests = include_str!("test/definitions.d.luau");
    format!("{}\n{of_tests}", crate::runtime::luau::definitions())
}

#[cfg(not(feature = "luau"))]
fn run(_: &Args) -> Result<(), CliError> {
    super::luau::need_luau()
}
