//! Command lines, in plain values: flags, switches and what stands alone. Nothing here knows what
//! an option means.
//!
//! An option comes from its flag, else from its variable, which is `MESOPHYLL_<OPTION>` for most,
//! else from a line of the configuration file, else it is absent and its default applies.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::base::escape;
use crate::base::nearest::related;
use crate::master::config::{ConfigError, parse_switch};

use crate::cli::console::table::shortened;

/// So much of a word that was not understood is shown.
const SHOWN_CHARS: usize = 64;

/// An option of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionSpec {
    /// Its name after the two dashes.
    pub(crate) name: &'static str,
    /// What its value is called in the help; `None`: it takes none.
    pub(crate) value: Option<&'static str>,
    /// Whether it may be given more than once.
    pub(crate) repeatable: bool,
    /// One line for the help.
    pub(crate) help: &'static str,
    /// Where its value may come from besides the command line.
    elsewhere: Elsewhere,
}

/// Where an option's value may come from besides the command line.
#[derive(Debug, Clone, Copy)]
enum Elsewhere {
    /// The variable `MESOPHYLL_<OPTION>`, and the configuration file.
    Variable,
    /// The same, and this variable before.
    VariableBefore(&'static str),
    /// Nowhere: what has that name there is meant for another command.
    Nowhere,
}

impl OptionSpec {
    /// An option with a value.
    pub(crate) const fn value(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value: Some(value), repeatable: false, help, elsewhere: Elsewhere::Variable }
    }

    /// An option that is there or not.
    pub(crate) const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, value: None, repeatable: false, help, elsewhere: Elsewhere::Variable }
    }

    /// An option with a value that may be given more than once.
    pub(crate) const fn list(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value: Some(value), repeatable: true, help, elsewhere: Elsewhere::Variable }
    }

    /// As a command line has it.
    pub(crate) fn head(&self) -> String {
        let value = self.value.map_or_else(String::new, |value| format!(" {value}"));
        format!("--{}{value}", self.name)
    }

    /// What the help says of it.
    pub(crate) fn meaning(&self) -> String {
        let repeatable = if self.repeatable { " (repeatable)" } else { "" };
        let from = match self.elsewhere {
            Elsewhere::Variable => String::new(),
            Elsewhere::VariableBefore(first) => format!(" ({first}, else {})", variable(self.name)),
            Elsewhere::Nowhere => format!(" (not from {})", variable(self.name)),
        };
        format!("{}{repeatable}{from}", self.help)
    }

    /// The same option, taken from the command line only.
    pub(crate) const fn flag_only(self) -> Self {
        Self { elsewhere: Elsewhere::Nowhere, ..self }
    }

    /// The same option with a variable that is asked before the one of its name.
    pub(crate) const fn with_variable(self, variable: &'static str) -> Self {
        Self { elsewhere: Elsewhere::VariableBefore(variable), ..self }
    }

    /// The environment variables that stand for it, the first that is set counts.
    pub(crate) fn variables(&self) -> Vec<String> {
        let own = || variable(self.name);
        match self.elsewhere {
            Elsewhere::Variable => vec![own()],
            Elsewhere::VariableBefore(first) => vec![first.to_owned(), own()],
            Elsewhere::Nowhere => Vec::new(),
        }
    }
}

/// The environment variable of an option's name.
pub(crate) fn variable(option: &str) -> String {
    format!("MESOPHYLL_{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// Where a value came from, for messages that say what to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValueSource {
    /// The command line.
    Flag,
    /// This environment variable.
    Environment(String),
    /// A line of a configuration file.
    File {
        /// The file, as the command line or the environment has it.
        path: String,
        /// The line, from 1 on.
        line: usize,
    },
}

impl ValueSource {
    /// What an option is called there.
    pub(crate) fn named(&self, option: &str) -> String {
        match self {
            ValueSource::Flag => format!("--{option}"),
            ValueSource::Environment(variable) => variable.clone(),
            ValueSource::File { path, line } => format!("{path}:{line}: {option}"),
        }
    }
}

/// A command line that was understood.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    values: BTreeMap<&'static str, Vec<(String, ValueSource)>>,
    /// Lists that were given without an item, and where.
    empty: BTreeMap<&'static str, ValueSource>,
    /// Variables and lines that are set for another command.
    ignored: Vec<String>,
    /// What stands alone, in order.
    pub(crate) positional: Vec<String>,
    /// `--help` or `-h` was given.
    pub(crate) help: bool,
}

/// A dash alone is stdin, and with a digit behind it a negative number: no option begins like that.
fn looks_like_an_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with(|char: char| char.is_ascii_digit())
    })
}

fn usage(message: String) -> ConfigError {
    ConfigError { message, is_usage: true }
}

fn unknown_option(name: &str, specs: &[&[OptionSpec]]) -> ConfigError {
    let shown = shown(name);
    if matches!(name, "-v" | "--verbose" | "-V" | "--version") {
        let has_log = specs.iter().copied().flatten().any(|spec| spec.name == "log");
        let more = if has_log { ", and --log debug logs more" } else { "" };
        return usage(format!("unknown option {shown}; mesophyll -V shows the version{more}"));
    }
    // One dash is a slip too.
    let known = specs.iter().copied().flatten().map(|spec| spec.name).chain(["help"]);
    usage(match related(name.trim_start_matches('-'), known) {
        Some(near) => format!("unknown option {shown}; did you mean --{near}?"),
        None => format!("unknown option {shown}; --help lists the options"),
    })
}

/// A word from a command line, for a message: no longer than it helps, and nothing in it that a
/// terminal would obey.
pub(in crate::cli) fn shown(word: &str) -> String {
    escape::one_line(&shortened(word, SHOWN_CHARS)).into_owned()
}

impl Args {
    /// Reads a command line, without the program and the command, against the options that the
    /// command has.
    ///
    /// # Errors
    /// What is wrong with the line, or a variable that is no text.
    pub(crate) fn parse(
        line: impl IntoIterator<Item = String>,
        specs: &[&[OptionSpec]],
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut args = Args::default();
        let mut rest = line.into_iter();
        let mut only_positional = false;
        while let Some(word) = rest.next() {
            if only_positional || !looks_like_an_option(&word) {
                args.positional.push(word);
            } else if word == "--" {
                only_positional = true;
            } else if word == "--help" || word == "-h" {
                args.help = true;
            } else {
                args.take_option(&word, &mut rest, specs)?;
            }
        }
        // Help needs no environment that is in order.
        if !args.help {
            specs
                .iter()
                .copied()
                .flatten()
                .try_for_each(|spec| args.take_variable(spec, &environment))?;
        }
        Ok(args)
    }

    /// Takes an option from its variable, if the command line has none.
    fn take_variable(
        &mut self,
        spec: &OptionSpec,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), ConfigError> {
        if self.values.contains_key(spec.name) {
            return Ok(());
        }
        if matches!(spec.elsewhere, Elsewhere::Nowhere) {
            self.ignored.extend(
                Some(variable(spec.name)).filter(|variable| environment(variable).is_some()),
            );
        }
        let set = spec
            .variables()
            .into_iter()
            .find_map(|variable| Some((environment(&variable)?, variable)));
        let Some((value, variable)) = set else { return Ok(()) };
        let no_text = |_| ConfigError {
            message: format!("{variable}: its value is not UTF-8 text"),
            is_usage: false,
        };
        let value = value.into_string().map_err(no_text)?;
        let is_usage = spec.value.is_none();
        let wrong = |rule| ConfigError { message: format!("{variable} {rule}"), is_usage };
        let values = given_as_text(spec, &value).map_err(wrong)?;
        let source = ValueSource::Environment(variable.clone());
        if values.is_empty() {
            self.empty.insert(spec.name, source.clone());
        }
        self.values
            .insert(spec.name, values.into_iter().map(|value| (value, source.clone())).collect());
        Ok(())
    }

    /// Takes an option from a line of a configuration file, if neither the command line nor the
    /// environment has it.
    ///
    /// # Errors
    /// What is wrong with the value, as the rest of a sentence about the option.
    pub(crate) fn take_line(
        &mut self,
        spec: &OptionSpec,
        value: &str,
        path: &str,
        line: usize,
    ) -> Result<(), String> {
        let values = given_as_text(spec, value)?;
        if matches!(spec.elsewhere, Elsewhere::Nowhere) {
            self.ignored.push(format!("{path}:{line}: {}", spec.name));
            return Ok(());
        }
        if matches!(self.empty.get(spec.name), Some(ValueSource::Environment(_))) {
            return Ok(());
        }
        let before = self.values.entry(spec.name).or_default();
        match before.first() {
            Some((_, ValueSource::File { .. })) if !spec.repeatable => {
                return Err("is given twice".to_owned());
            }
            Some((_, ValueSource::Flag | ValueSource::Environment(_))) => return Ok(()),
            _ => {}
        }
        let source = ValueSource::File { path: path.to_owned(), line };
        before.extend(values.into_iter().map(|value| (value, source.clone())));
        Ok(())
    }

    fn take_option(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = String>,
        specs: &[&[OptionSpec]],
    ) -> Result<(), ConfigError> {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let spec = specs
            .iter()
            .copied()
            .flatten()
            .find(|spec| name.strip_prefix("--") == Some(spec.name))
            .ok_or_else(|| unknown_option(name, specs))?;
        let value = match (spec.value, inline) {
            (None, None) => ON.to_owned(),
            (None, Some(_)) => return Err(usage(format!("{name} takes no value"))),
            (Some(_), Some(value)) => value,
            (Some(what), None) => {
                rest.next().ok_or_else(|| usage(format!("{name} needs a value: {name} {what}")))?
            }
        };
        let values = self.values.entry(spec.name).or_default();
        if !values.is_empty() && !spec.repeatable {
            return Err(usage(format!("{name} is given twice")));
        }
        values.push((value, ValueSource::Flag));
        Ok(())
    }

    /// All values of an option, each with where it came from.
    pub(crate) fn given(&self, name: &str) -> impl Iterator<Item = (&str, &ValueSource)> {
        self.values.get(name).into_iter().flatten().map(|(value, source)| (value.as_str(), source))
    }

    /// The value of an option and where it came from.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, &ValueSource)> {
        self.given(name).next()
    }

    /// Where an option comes from, also a list that was given empty; `None`: its default applies.
    pub(crate) fn source(&self, name: &str) -> Option<&ValueSource> {
        self.get(name).map(|(_, source)| source).or_else(|| self.empty.get(name))
    }

    /// All values of a repeatable option.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.given(name).map(|(value, _)| value).collect()
    }

    /// What was set for another command only: its variable, or its line.
    #[cfg(any(test, feature = "luau"))]
    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What stands alone, in order.
    pub(crate) fn words(&self) -> Vec<&str> {
        self.positional.iter().map(String::as_str).collect()
    }

    /// Refuses what stands alone, for a command that takes nothing of the kind.
    ///
    /// # Errors
    /// Something does.
    pub(crate) fn need_no_words(&self) -> Result<(), ConfigError> {
        let unexpected = |word: &String| Err(usage(format!("unexpected {word:?}")));
        self.positional.first().map_or(Ok(()), unexpected)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|(value, _)| value == ON)
    }
}

/// The values of a switch.
const ON: &str = "true";
const OFF: &str = "false";

/// The values of an option that one text holds which is no flag: a switch's word, or a list with
/// commas.
fn given_as_text(spec: &OptionSpec, text: &str) -> Result<Vec<String>, String> {
    if spec.value.is_none() {
        let is_on = parse_switch(text).ok_or_else(|| {
            format!("is true or false (or yes or no, on or off, 1 or 0), not {:?}", shown(text))
        })?;
        return Ok(vec![if is_on { ON } else { OFF }.to_owned()]);
    }
    if !spec.repeatable {
        return Ok(vec![text.to_owned()]);
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) {
        return Err(format!("is a list with commas, and an item of {:?} is empty", shown(text)));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec::value("workers", "N", "how many"),
        OptionSpec::switch("nowait", "do not wait"),
        OptionSpec::list("scope", "S", "a scope"),
    ];

    fn parse(line: &[&str], environment: &[(&str, &str)]) -> Result<Args, ConfigError> {
        let lookup = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        Args::parse(line.iter().map(|word| (*word).to_owned()), &[SPECS], lookup)
    }

    #[test]
    fn a_flag_goes_before_the_environment() {
        let args = parse(&["--workers", "2"], &[("MESOPHYLL_WORKERS", "3")]).expect("valid");
        assert_eq!(args.get("workers"), Some(("2", &ValueSource::Flag)));
        let args = parse(&[], &[("MESOPHYLL_WORKERS", "3")]).expect("valid");
        assert_eq!(
            args.get("workers"),
            Some(("3", &ValueSource::Environment("MESOPHYLL_WORKERS".into())))
        );
    }

    #[test]
    fn values_follow_or_stand_behind_an_equals_sign() {
        let args = parse(&["a", "--workers=2", "--nowait", "-", "--", "--b"], &[]).expect("valid");
        assert_eq!(args.get("workers"), Some(("2", &ValueSource::Flag)));
        assert!(args.is_on("nowait"));
        assert_eq!(args.positional, ["a", "-", "--b"]);
        let args = parse(&["-5", "--workers", "-1", "-0.5e3"], &[]).expect("valid");
        assert_eq!(
            (args.positional.as_slice(), args.get("workers")),
            (&["-5".into(), "-0.5e3".into()][..], Some(("-1", &ValueSource::Flag)))
        );
    }

    #[test]
    fn lists_are_collected_and_others_may_not_repeat() {
        assert_eq!(
            parse(&["--scope", "a", "--scope", "b"], &[]).expect("valid").all("scope"),
            ["a", "b"]
        );
        assert_eq!(
            parse(&[], &[("MESOPHYLL_SCOPE", "a, b")]).expect("valid").all("scope"),
            ["a", "b"]
        );
        assert!(parse(&["--workers", "1", "--workers", "2"], &[]).is_err());
        assert!(
            parse(&[], &[("MESOPHYLL_SCOPE", "")]).expect("an empty list").all("scope").is_empty()
        );
        for list in ["a,,b", "a,", ","] {
            let error = parse(&[], &[("MESOPHYLL_SCOPE", list)]).expect_err(list);
            assert!(
                !error.is_usage && error.message.starts_with("MESOPHYLL_SCOPE is a list"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_empty_list_in_the_environment_goes_before_the_file() {
        let mut args = parse(&[], &[("MESOPHYLL_SCOPE", "")]).expect("an empty list");
        args.take_line(&SPECS[2], "a", "file", 1).expect("valid");
        assert!(args.all("scope").is_empty(), "{args:?}");
        assert_eq!(args.source("scope"), Some(&ValueSource::Environment("MESOPHYLL_SCOPE".into())));
        let mut args = parse(&[], &[]).expect("nothing");
        for (line, value) in [(1, ""), (2, "a"), (3, "b")] {
            args.take_line(&SPECS[2], value, "file", line).expect("valid");
        }
        assert_eq!(args.all("scope"), ["a", "b"]);
    }

    #[test]
    fn a_switch_in_the_environment_takes_words_and_no_others() {
        let nowait = |text: &str| parse(&[], &[("MESOPHYLL_NOWAIT", text)]);
        for (word, is_on) in
            [("true", true), ("yes", true), ("on", true), ("1", true), ("false", false)]
                .into_iter()
                .chain([("no", false), ("off", false), ("0", false)])
        {
            for word in [word.to_owned(), word.to_uppercase()] {
                let args = nowait(&word).unwrap_or_else(|error| panic!("{word}: {error}"));
                assert_eq!(args.is_on("nowait"), is_on, "{word}");
                assert!(args.get("nowait").is_some(), "{word}: it was given");
            }
        }
        for word in ["", "2", "y", "enabled", " true", "nö"] {
            let error = nowait(word).expect_err(word);
            assert!(
                error.is_usage && error.message.starts_with("MESOPHYLL_NOWAIT is true or false"),
                "{error}"
            );
        }
        assert!(
            parse(&["--nowait"], &[("MESOPHYLL_NOWAIT", "maybe")])
                .expect("the flag counts")
                .is_on("nowait")
        );
        assert!(
            parse(&["--help"], &[("MESOPHYLL_NOWAIT", "maybe")]).expect("help needs nothing").help
        );
    }

    #[test]
    fn an_option_says_which_variables_it_comes_from() {
        const SPECS: &[OptionSpec] = &[
            OptionSpec::value("api", "ADDR", "").with_variable("MESOPHYLL_MASTER_API"),
            OptionSpec::value("store", "URL", "").flag_only(),
        ];
        let api = |set: &[&str]| {
            let lookup = |name: &str| set.contains(&name).then(|| OsString::from(name));
            let args = Args::parse([], &[SPECS], lookup).expect("valid");
            assert_eq!(args.get("store"), None);
            args.get("api").map(|(value, _)| value.to_owned())
        };
        let (first, second) = ("MESOPHYLL_MASTER_API", "MESOPHYLL_API");
        assert_eq!(api(&[first, second, "MESOPHYLL_STORE"]).as_deref(), Some(first));
        assert_eq!(api(&[second, "MESOPHYLL_STORE"]).as_deref(), Some(second));
        assert_eq!(api(&["MESOPHYLL_STORE"]), None);
    }

    #[test]
    fn a_variable_that_is_no_text_is_an_error_only_where_it_counts() {
        let broken = || OsString::from_vec(vec![b'2', 0xff]);
        let parse = |line: &[&str]| {
            let lookup = |name: &str| (name == "MESOPHYLL_WORKERS").then(broken);
            Args::parse(line.iter().map(|word| (*word).to_owned()), &[SPECS], lookup)
        };
        let error = parse(&[]).expect_err("it counts");
        assert_eq!(
            (error.message.as_str(), error.is_usage),
            ("MESOPHYLL_WORKERS: its value is not UTF-8 text", false)
        );
        assert_eq!(
            parse(&["--workers", "2"]).expect("a flag goes first").get("workers"),
            Some(("2", &ValueSource::Flag))
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(
            parse(&["--wrokers", "1"], &[]).expect_err("unknown").message,
            "unknown option --wrokers; did you mean --workers?"
        );
        let message = |word: &str| parse(&[word], &[]).expect_err("unknown").message;
        assert_eq!(message("-workers=1"), "unknown option -workers; did you mean --workers?");
        assert_eq!(message("--hlep"), "unknown option --hlep; did you mean --help?");
        assert_eq!(message("--sing"), "unknown option --sing; --help lists the options");
        assert_eq!(message("--\u{1b}[2J"), "unknown option --\\u{1b}[2J; --help lists the options");
        assert!(message(&format!("--{}", "x".repeat(1 << 20))).len() < 200);
        assert_eq!(
            parse(&["--workers"], &[]).expect_err("no value").message,
            "--workers needs a value: --workers N"
        );
        assert_eq!(
            parse(&["--nowait=1"], &[]).expect_err("a value").message,
            "--nowait takes no value"
        );
    }
}
