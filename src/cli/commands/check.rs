//! `mesophyll check`: compiles and lints templates without running them.

#[cfg(feature = "luau")]
use std::path::Path;

#[cfg(feature = "luau")]
use crate::base::limits::SOURCE_MAX_BYTES;
use crate::cli::parse::args::{Args, OptionSpec};
#[cfg(feature = "luau")]
use crate::cli::parse::words;
use crate::cli::{CliError, Command};
#[cfg(feature = "luau")]
use crate::runtime::luau::{Finding, check, check_file};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "check",
    usage: "DIR | [FILE …] [--templates DIR]",
    about: "compile and lint templates without running them",
    options: &[&[
        OptionSpec::value("templates", "DIR", "the template directory, with main.luau"),
        OptionSpec::switch(
            "json",
            "print a list of {file, line, column, message}; 0 = the line or file as a whole",
        ),
    ]],
    examples: &[
        "mesophyll check ./templates",
        "mesophyll check --templates ./templates --json",
        "mesophyll check mine.luau    (a tenant's own template, or a script)",
    ],
    run,
};

#[cfg(feature = "luau")]
fn run(args: &Args) -> Result<(), CliError> {
    use crate::base::escape;
    use crate::cli::console::output;
    let findings = findings(args)?;
    if args.is_on("json") {
        output::print_json(&serde_json::to_string(&findings).expect("texts and numbers"))?;
    } else {
        findings
            .iter()
            .try_for_each(|finding| output::print(&escape::one_line(&finding.to_string())))?;
    }
    match findings.len() {
        0 if args.is_on("json") => Ok(()),
        0 => output::print("nothing found"),
        1 => Err(CliError::failed("one problem found")),
        count => Err(CliError::failed(format!("{count} problems found"))),
    }
}

/// What is wrong with the files, or with the directory if none is given.
#[cfg(feature = "luau")]
fn findings(args: &Args) -> Result<Vec<Finding>, CliError> {
    let directory = args.get("templates").map(|(directory, _)| directory);
    let unreadable =
        |error| CliError::config(format!("--templates {}: {error}", directory.unwrap_or_default()));
    match (&args.positional[..], directory) {
        ([], None) => return Err(CliError::usage("check takes a DIR, or FILEs")),
        ([], Some(directory)) => return check(Path::new(directory)).map_err(unreadable),
        ([only], _) if Path::new(only).is_dir() => {
            return check(Path::new(only))
                .map_err(|error| CliError::config(format!("{only}: {error}")));
        }
        _ => {}
    }
    let of_file = |name: &String| {
        if Path::new(name).is_dir() {
            return Err(CliError::usage(format!("{name} is a directory, which is given alone")));
        }
        let source = words::file(name, SOURCE_MAX_BYTES)?;
        let shown = if name == "-" { "stdin" } else { name };
        check_file(shown, source.as_bytes(), directory.map(Path::new)).map_err(unreadable)
    };
    let found: Vec<_> = args.positional.iter().map(of_file).collect::<Result<_, _>>()?;
    Ok(found.concat())
}

#[cfg(not(feature = "luau"))]
fn run(_: &Args) -> Result<(), CliError> {
    super::luau::need_luau()
}
