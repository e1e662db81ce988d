//! `--config`, `--check-config` and `--print-config`: the configuration as a whole. The latter two
//! look at what a command would run with, without running it.

use serde::Serialize;

use super::args::{Args, OptionSpec, ValueSource};
use super::config_values::ConfigValue;
use super::environment;
use crate::cli::console::output;
use crate::cli::console::table::table;
use crate::cli::{CliError, Command};

/// The options about all others.
pub(in crate::cli) const LOOK: &[OptionSpec] = &[
    OptionSpec::value(
        "config",
        "FILE",
        "options, one `option = value` a line; flags and variables go before it",
    ),
    OptionSpec::switch(
        "check-config",
        "check all that can be checked without starting, and end: exit code 0, 2 or 3",
    ),
    OptionSpec::switch(
        "print-config",
        "print each option with its value and where that comes from, and end",
    ),
    OptionSpec::switch("json", "with --print-config: as JSON"),
];

/// A secret that the command reads from the environment: its variable, and what becomes of it.
pub(in crate::cli) struct SecretState {
    pub(in crate::cli) variable: &'static str,
    pub(in crate::cli) if_unset: &'static str,
}

/// A line of the table.
#[derive(Serialize)]
struct ShownValue {
    /// Its name without the dashes; absent for a secret, which has a variable only.
    #[serde(skip_serializing_if = "Option::is_none")]
    option: Option<&'static str>,
    /// The variable that it comes from, or may come from; absent for what only a flag sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<String>,
    value: String,
    source: &'static str,
    /// The place in a configuration file that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

/// Whether the command line asks only to look.
pub(in crate::cli) fn is_asked(args: &Args) -> bool {
    args.is_on("check-config") || args.is_on("print-config")
}

/// Checks the configuration, and shows it if that is asked for.
///
/// # Errors
/// What is wrong with it.
pub(in crate::cli) fn report(
    args: &Args,
    command: &Command,
    values: &[ConfigValue],
    secrets: &[SecretState],
    check: impl FnOnce() -> Result<(), CliError>,
) -> Result<(), CliError> {
    // The log, which would name them, is not started.
    environment::tell_unknown();
    if args.is_on("print-config") {
        let shown: Vec<ShownValue> = shown(args, command, values, secrets);
        if args.is_on("json") {
            output::print_json(&json(&shown))?
        } else {
            output::print(&as_table(&shown))?
        }
    }
    if args.is_on("check-config") {
        check()?;
        // On stderr beside a table, which a program may read.
        let good = "the configuration is good";
        if args.is_on("print-config") { output::tell(good) } else { output::print(good)? }
    }
    Ok(())
}

fn shown(
    args: &Args,
    command: &Command,
    values: &[ConfigValue],
    secrets: &[SecretState],
) -> Vec<ShownValue> {
    let options = command.all_options().filter(|option| !is_of_the_look(option));
    let options = options.map(|option| {
        let source = args.source(option.name);
        let place = match source {
            Some(ValueSource::File { path, line }) => Some((path, line)),
            _ => None,
        };
        ShownValue {
            option: Some(option.name),
            variable: match source {
                Some(ValueSource::Environment(variable)) => Some(variable.clone()),
                _ => option.variables().pop(),
            },
            // A test sees to it that each has one.
            value: values
                .iter()
                .find(|(name, _)| *name == option.name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default(),
            source: match source {
                Some(ValueSource::Flag) => "flag",
                Some(ValueSource::Environment(_)) => "environment",
                Some(ValueSource::File { .. }) => "file",
                None => "default",
            },
            file: place.map(|(path, _)| path.clone()),
            line: place.map(|(_, line)| *line),
        }
    });
    let secrets = secrets.iter().map(|secret| {
        let is_set = std::env::var_os(secret.variable).is_some();
        ShownValue {
            option: None,
            variable: Some(secret.variable.to_owned()),
            value: if is_set { "set" } else { secret.if_unset }.to_owned(),
            source: if is_set { "environment" } else { "default" },
            file: None,
            line: None,
        }
    });
    options.chain(secrets).collect()
}

fn is_of_the_look(option: &OptionSpec) -> bool {
    LOOK.iter().any(|look| look.name == option.name)
}

fn as_table(shown: &[ShownValue]) -> String {
    let row = |one: &ShownValue| {
        let ShownValue { option, variable, value, source, file, line } = one;
        let variable = variable.as_deref().unwrap_or_default();
        let name = option.map_or_else(|| variable.to_owned(), |option| format!("--{option}"));
        let source = match *source {
            "flag" => format!("flag {name}"),
            "environment" => format!("environment {variable}"),
            "file" => {
                format!("file {}:{}", file.as_deref().unwrap_or_default(), line.unwrap_or_default())
            }
            other => other.to_owned(),
        };
        [name, value.clone(), source]
    };
    table(["OPTION", "VALUE", "SOURCE"], shown.iter().map(row))
}

fn json(shown: &[ShownValue]) -> String {
    // Texts always have a JSON form. One a line, for people who read JSON and for programs that
    // read lines.
    let lines: Vec<String> =
        shown.iter().map(|one| serde_json::to_string(one).unwrap_or_default()).collect();
    format!("[\n{}\n]", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::config_values::{of_host, of_pool, of_worker};
    use crate::master::config::{HostConfig, PoolConfig, PoolDefaults, WorkerConfig};

    fn parse(command: &Command, line: &[&str]) -> Args {
        Args::parse(line.iter().map(|word| (*word).to_owned()), command.options, |_| None)
            .expect("valid")
    }

    #[test]
    fn exactly_the_options_of_a_command_are_shown() {
        let pool = |command: &'static Command, defaults| {
            let args = parse(command, &[]);
            (command, of_pool(&PoolConfig::from_options(&args, defaults).expect("valid")))
        };
        let worker = &crate::cli::commands::worker::COMMAND;
        let args = parse(worker, &["--id", "0", "--workers", "1", "--master", "a:1"]);
        let worker = (worker, of_worker(&WorkerConfig::from_options(&args).expect("valid")));
        let host = &crate::cli::commands::worker_host::COMMAND;
        let of_workers =
            ["--ids", "0", "--workers", "1", "--master", "a:1", "--worker-tokens", "t"];
        let args = parse(host, &of_workers);
        let host = (host, of_host(&HostConfig::from_options(&args).expect("valid")));
        let mut replay = pool(&crate::cli::commands::replay::COMMAND, PoolDefaults::REPLAY);
        replay.1.extend(crate::cli::commands::replay::own_values(1, 1));
        for (command, values) in [
            pool(&crate::cli::commands::master::COMMAND, PoolDefaults::MASTER),
            replay,
            worker,
            host,
        ] {
            for option in command.all_options().filter(|option| !is_of_the_look(option)) {
                let value = values.iter().find(|(name, _)| *name == option.name);
                let value = value.unwrap_or_else(|| {
                    panic!("{}: --{} has no value to show", command.name, option.name)
                });
                assert!(!value.1.is_empty(), "{}: --{}", command.name, option.name);
            }
            let is_option = |name: &str| {
                command.has_option(name) || crate::cli::commands::master::COMMAND.has_option(name)
            };
            assert!(
                values.iter().all(|(name, _)| is_option(name)),
                "{}: a value of no option",
                command.name
            );
        }
    }
}
