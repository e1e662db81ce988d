//! `mesophyll test`: runs the tests of a template directory.
//!
//! Nothing leaves the process: each test has a store in memory, tenants of its own, and a clock
//! that stands still until the test moves it.

#[cfg(feature = "luau")]
mod door;
#[cfg(feature = "luau")]
mod fixtures;
#[cfg(feature = "luau")]
mod junit;
#[cfg(feature = "luau")]
mod outcome;
#[cfg(feature = "luau")]
mod report;
#[cfg(feature = "luau")]
mod run;
#[cfg(feature = "luau")]
mod suite;
#[cfg(feature = "luau")]
mod world;

use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "test",
    usage: "DIR [OPTIONS]    (or one *.test.luau or *.md of a directory)",
    about: "run the tests of a template directory, and what its comments say of answers",
    options: &[&[
        OptionSpec::switch("json", "print {passed, failed, ms, tests} as JSON"),
        OptionSpec::value("junit", "FILE", "also write the outcomes as JUnit XML"),
        OptionSpec::switch("watch", "run them again whenever a file of the directory changes"),
    ]],
    examples: &[
        "mesophyll test ./templates",
        "mesophyll test ./templates --watch",
        "mesophyll test ./templates --junit results.xml",
        "mesophyll test ./templates/strikes.test.luau --json",
    ],
    run,
};

#[cfg(feature = "luau")]
fn run(args: &Args) -> Result<(), CliError> {
    report::run(args)
}

#[cfg(not(feature = "luau"))]
fn run(_: &Args) -> Result<(), CliError> {
    super::luau::need_luau()
}
