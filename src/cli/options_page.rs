//! docs/options.md: every command with its options, from the tables that parse them.

use std::fmt::Write;

use super::commands::man::EXIT_CODES;
use super::commands::replay;
use super::parse::args::{Args, OptionSpec};
use super::parse::config_values::{ConfigValue, of_host, of_pool, of_worker};
use super::parse::environment::SECRETS;
use super::{COMMANDS, Command};
use crate::base::generated_page::{assert_current, cell};
use crate::master::config::{HostConfig, PoolConfig, PoolDefaults, WorkerConfig};

const HEAD: &str = "# Commands and options

`make docs` writes this page from the tables that parse the command line; a test fails when it is
stale. `mesophyll COMMAND --help` and `mesophyll man` show the same.

- A flag wins over its variable, and the variable over a line of the `--config` file, where an
  option has its name without dashes. [operations.md](operations.md#configure) has examples.
- An option without a value is `true` or `false` (yes/no, on/off, 1/0) in a variable or a file.
- *D* is a time: `250ms`, `30s`, `15m`, `2h`, `7d`. *SIZE* takes `KiB`, `MiB` and `GiB`.
- *TENANT* is `guild:ID` or `user:ID`. `-` as a file, or as data, is stdin.
";

/// The values that a command runs with when nothing is given, for the commands that have a table
/// of them.
fn defaults(command: &Command) -> Vec<ConfigValue> {
    let required: &[&str] = match command.name {
        "worker" => &["--id", "0", "--workers", "1", "--master", "a:1"],
        "worker-host" => {
            &["--ids", "0", "--workers", "1", "--master", "a:1", "--worker-tokens", "FILE"]
        }
        _ => &[],
    };
    let line = required.iter().map(|word| (*word).to_owned());
    let args = Args::parse(line, command.options, |_| None).expect("valid");
    let pool = |defaults| of_pool(&PoolConfig::from_options(&args, defaults).expect("valid"));
    let mut values = match command.name {
        "master" => pool(PoolDefaults::MASTER),
        "replay" => [pool(PoolDefaults::REPLAY), replay::own_values(64, 1).to_vec()].concat(),
        "worker" => of_worker(&WorkerConfig::from_options(&args).expect("valid")),
        "worker-host" => of_host(&HostConfig::from_options(&args).expect("valid")),
        _ => Vec::new(),
    };
    values.retain(|(name, _)| args.get(name).is_none());
    values
}

/// An option's meaning and default: what the help says at its end, else what counts without it.
fn parts(option: &OptionSpec, defaults: &[ConfigValue]) -> (String, String) {
    let value =
        defaults.iter().find(|(name, _)| *name == option.name).map(|(_, value)| value.as_str());
    let said = option.help.strip_suffix(')').and_then(|help| help.rsplit_once(" (default: "));
    let (meaning, default) = said.unwrap_or((option.help, value.unwrap_or("–")));
    if let (true, Some(value)) = (default.starts_with(|char: char| char.is_ascii_digit()), value) {
        assert_eq!(default, value, "--{}: the default that its help says", option.name);
    }
    (
        format!("{meaning}{}", if option.repeatable { " (repeatable)" } else { "" }),
        default.to_owned(),
    )
}

fn describe(page: &mut String, command: &Command) -> std::fmt::Result {
    let Command { name, usage, about, .. } = command;
    let line = format!("mesophyll {name} {usage}");
    writeln!(page, "\n## {name}\n\n{about}\n\n```\n{}\n```", line.trim_end())?;
    if !command.options.is_empty() {
        writeln!(page, "\n| option | variable | default | meaning |\n|---|---|---|---|")?;
    }
    let defaults = defaults(command);
    for option in command.all_options() {
        let name = option
            .value
            .map_or_else(|| option.name.to_owned(), |value| format!("{} {value}", option.name));
        let variables: Vec<String> =
            option.variables().iter().map(|name| format!("`{name}`")).collect();
        let (meaning, default) = parts(option, &defaults);
        writeln!(
            page,
            "| `--{name}` | {} | {} | {} |",
            variables.join(", else "),
            cell(&default),
            cell(&meaning)
        )?;
    }
    Ok(())
}

#[test]
fn the_page_of_options_is_what_the_command_line_takes() {
    let mut page = HEAD.to_owned();
    COMMANDS.iter().try_for_each(|command| describe(&mut page, command)).expect("a text takes it");
    page.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    EXIT_CODES
        .iter()
        .for_each(|(code, meaning)| page.push_str(&format!("| {code} | {} |\n", cell(meaning))));
    page.push_str(
        "\n## Secrets\n\nOnly the environment has them.\n\n| variable | meaning |\n|---|---|\n",
    );
    SECRETS.iter().for_each(|(variable, meaning)| {
        page.push_str(&format!("| `{variable}` | {} |\n", cell(meaning)))
    });
    assert_current("docs/options.md", &page);
}
