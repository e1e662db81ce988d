//! The commands, one file each. A command line becomes plain values (`args`), then a checked
//! configuration (`crate::master::config`), then work. Every error becomes an exit code of
//! docs/options.md here, and only `main` prints it.

#[cfg(test)]
mod options_page;

mod commands;
mod console;
mod parse;

use std::ffi::OsString;
use std::fmt;

use crate::base::escape;
use crate::base::nearest::related;
use crate::cluster::JoinError;
use crate::master::config::{ConfigError, Options};
use crate::master::{GivenUp, MasterError};
use crate::store::{OpenError, StoreUrl};
use parse::args::{Args, OptionSpec, ValueSource, shown};

/// A command of the binary.
struct Command {
    name: &'static str,
    /// What follows the name.
    usage: &'static str,
    about: &'static str,
    options: &'static [&'static [OptionSpec]],
    examples: &'static [&'static str],
    run: fn(&Args) -> Result<(), CliError>,
}

impl Command {
    fn all_options(&self) -> impl Iterator<Item = &'static OptionSpec> + Clone {
        self.options.iter().copied().flatten()
    }

    fn has_option(&self, name: &str) -> bool {
        self.all_options().any(|option| option.name == name)
    }
}

const COMMANDS: &[Command] = &[
    commands::master::COMMAND,
    commands::worker::COMMAND,
    commands::worker_host::COMMAND,
    commands::replay::COMMAND,
    commands::dispatch::COMMAND,
    commands::message::COMMAND,
    commands::broadcast::COMMAND,
    commands::run_script::COMMAND,
    commands::drop_tenant::COMMAND,
    commands::tenant::COMMAND,
    commands::template::COMMAND,
    commands::kv::COMMAND,
    commands::global_kv::COMMAND,
    commands::timers::COMMAND,
    commands::status::COMMAND,
    commands::workers::COMMAND,
    commands::errors::COMMAND,
    commands::logs::COMMAND,
    commands::feed::COMMAND,
    commands::restart::COMMAND,
    commands::quarantine::COMMAND,
    commands::host::COMMAND,
    commands::masters::COMMAND,
    commands::masters::ROUTE,
    commands::drain::COMMAND,
    commands::drain::UNDRAIN,
    commands::log_level::COMMAND,
    commands::token::COMMAND,
    commands::migrate::COMMAND,
    commands::store::COMMAND,
    commands::init::COMMAND,
    commands::check::COMMAND,
    commands::test::COMMAND,
    commands::types::COMMAND,
    commands::completions::COMMAND,
    commands::man::COMMAND,
];

/// Why a command ended without success: an exit code of docs/options.md and the line to print, if
/// there is one.
#[derive(Debug)]
pub struct CliError {
    code: u8,
    message: String,
    /// The same may succeed later: the master was away, or had no room.
    may_pass: bool,
}

impl CliError {
    /// Some event or request failed; the command has said which.
    fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), may_pass: false }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into(), may_pass: false }
    }

    /// Bad configuration, input or token file, port in use, built without what the command needs.
    fn config(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into(), may_pass: false }
    }

    fn gave_up(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into(), may_pass: false }
    }

    /// A store that cannot be used, with where it is.
    fn store(url: &StoreUrl, error: &OpenError) -> Self {
        let code = match error {
            OpenError::NotBuilt(_) | OpenError::BadUrl(_) => 3,
            OpenError::Unavailable(_)
            | OpenError::Locked
            | OpenError::Foreign(_)
            | OpenError::Newer { .. }
            | OpenError::NotMigrated(_) => 4,
        };
        Self { code, message: format!("store: {url}: {error}"), may_pass: false }
    }

    /// Something ended that must not: a bug.
    fn bug(message: impl Into<String>) -> Self {
        Self { code: 70, message: message.into(), may_pass: false }
    }

    /// The same may succeed later: the master was away, or had no room.
    fn passing(self) -> Self {
        Self { may_pass: true, ..self }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

/// With what came from outside escaped. Lines after the first one, such as a script's stack, are
/// set in, so that none of them passes for a line of the log; the overview of wrong usage is ours.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = escape::lines(&self.message);
        if self.code == 2 { f.write_str(&text) } else { f.write_str(&text.replace('\n', "\n    ")) }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        if error.is_usage { Self::usage(error.message) } else { Self::config(error.message) }
    }
}

impl From<MasterError> for CliError {
    fn from(error: MasterError) -> Self {
        match error {
            MasterError::Store(url, error) => Self::store(&url, &error),
            MasterError::Join(_, ref cause) => {
                let code = match cause {
                    JoinError::OtherCluster(_) | JoinError::NameLives(_) | JoinError::Io(_) => 3,
                    JoinError::OtherLives(_) | JoinError::Unreachable(_) => 4,
                };
                Self { code, message: error.to_string(), may_pass: false }
            }
            MasterError::Config(_) | MasterError::Listen(..) | MasterError::Io(_) => {
                Self::config(error.to_string())
            }
        }
    }
}

impl From<GivenUp> for CliError {
    fn from(error: GivenUp) -> Self {
        let code = match error {
            GivenUp::NoWorker(_) => return Self::gave_up(error.to_string()),
            GivenUp::NoDatabase => 4,
        };
        Self { code, message: error.to_string(), may_pass: false }
    }
}

impl Options for Args {
    fn option(&self, name: &str) -> Option<(&str, bool)> {
        self.get(name).map(|(value, source)| (value, *source == ValueSource::Flag))
    }

    fn named(&self, name: &str) -> String {
        self.get(name).map_or_else(|| format!("--{name}"), |(_, source)| source.named(name))
    }

    fn options(&self, name: &str) -> Vec<&str> {
        self.all(name)
    }

    fn switch(&self, name: &str) -> bool {
        self.is_on(name)
    }
}

/// Runs the command that the words of a command line (without the program's name) ask for.
///
/// # Blocks
/// Until the command is done, or a signal ends it.
///
/// # Errors
/// See [`CliError`].
pub fn run(words: impl IntoIterator<Item = OsString>) -> Result<(), CliError> {
    console::signals::outlive_file_limits().map_err(|error| CliError::config(error.to_string()))?;
    // A path that is no text would be another one.
    let no_text = |word: OsString| {
        CliError::usage(format!("{} is not UTF-8 text", shown(&word.to_string_lossy())))
    };
    let words: Result<Vec<String>, OsString> =
        words.into_iter().map(OsString::into_string).collect();
    let mut words = words.map_err(no_text)?.into_iter();
    let Some(name) = words.next() else {
        return Err(CliError::usage(format!("a command is missing\n\n{}", overview())));
    };
    match name.as_str() {
        "help" | "--help" | "-h" => return console::output::print(&overview()),
        "--version" | "-V" | "-v" => return console::output::print(&commands::version::line()),
        _ => {}
    }
    let command = COMMANDS
        .iter()
        .find(|command| command.name == name)
        .ok_or_else(|| unknown_command(&name))?;
    let mut args =
        Args::parse(words, command.options, |variable: &str| std::env::var_os(variable))?;
    if args.help {
        return console::output::print(&help(command));
    }
    parse::config_file::apply(&mut args, command)?;
    if !command.has_option("log") {
        parse::environment::tell_unknown();
    }
    (command.run)(&args).map_err(|error| {
        if error.message.is_empty() || !console::logging::takes_last_error(&error.message) {
            return error;
        }
        CliError { message: String::new(), ..error }
    })
}

fn unknown_command(name: &str) -> CliError {
    let shown = shown(name);
    CliError::usage(match related(name, COMMANDS.iter().map(|command| command.name)) {
        Some(near) => format!("unknown command {shown}; did you mean {near}?"),
        None => format!("unknown command {shown}; mesophyll --help lists the commands"),
    })
}

fn overview() -> String {
    let mut text = String::from(
        "mesophyll: a master, its workers and the sandboxed Luau templates of tenants\n\nUsage: mesophyll COMMAND [OPTIONS]\n\nCommands:\n",
    );
    for command in COMMANDS {
        text.push_str(&format!("  {:<12} {}\n", command.name, command.about));
    }
    text.push_str("\nmesophyll COMMAND --help shows a command's options and examples.");
    text
}

fn help(command: &Command) -> String {
    let mut text = format!(
        "{}\n\nUsage: mesophyll {} {}\n\nOptions:\n",
        command.about, command.name, command.usage
    );
    for option in command.all_options() {
        text.push_str(&format!("  {:<26} {}\n", option.head(), option.meaning()));
    }
    text.push_str(
        "  --help                     show this\n\nAn option can also be given as MESOPHYLL_<OPTION>; one that takes no value as true or false.\n\n\
         Examples:\n",
    );
    for example in command.examples {
        text.push_str(&format!("  {example}\n"));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_words(words: &[&str]) -> Result<(), CliError> {
        run(words.iter().map(OsString::from))
    }

    #[test]
    fn unknown_commands_and_options_are_wrong_usage() {
        for words in [
            &["sing"][..],
            &[],
            &["master", "--sing"],
            &["master", "--workers", "0"],
            &["token", "a", "b"],
        ] {
            assert_eq!(run_words(words).expect_err("wrong usage").code(), 2, "{words:?}");
        }
    }

    #[test]
    fn every_command_has_help_with_an_example_that_calls_it() {
        for command in COMMANDS {
            let text = help(command);
            assert!(!command.examples.is_empty(), "{}", command.name);
            for example in command.examples {
                assert!(example.contains(&format!("mesophyll {}", command.name)), "{example}");
            }
            assert!(text.contains("--help"), "{text}");
        }
    }
}
