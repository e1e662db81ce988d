//! Command lines, in plain values: flags, switches and what stands alone. Nothing here knows what an option means.
//!
//! An option comes from its flag, else from `MESOPHYLL_<OPTION>`, else it is absent and its default applies.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::config::ConfigError;
use crate::nearest::nearest;

use super::table::{harmless, shortened};

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
}

impl OptionSpec {
    /// An option with a value.
    pub(crate) const fn value(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value: Some(value), repeatable: false, help }
    }

    /// An option that is there or not.
    pub(crate) const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, value: None, repeatable: false, help }
    }

    /// An option with a value that may be given more than once.
    pub(crate) const fn list(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value: Some(value), repeatable: true, help }
    }

    /// The environment variable that stands for it.
    pub(crate) fn variable(&self) -> String {
        format!("MESOPHYLL_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Where a value came from, for messages that say what to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
}

/// A command line that was understood.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    values: BTreeMap<&'static str, Vec<(String, Source)>>,
    /// What stands alone, in order.
    pub(crate) positional: Vec<String>,
    /// `--help` or `-h` was given.
    pub(crate) help: bool,
}

/// A dash alone is stdin, and with a digit behind it a negative number: no option begins like that.
fn looks_like_an_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && !rest.starts_with(|char: char| char.is_ascii_digit()))
}

fn usage(message: String) -> ConfigError {
    ConfigError { message, is_usage: true }
}

fn unknown_option(name: &str, specs: &[&[OptionSpec]]) -> ConfigError {
    let shown = shown(name);
    // One dash is a slip too.
    let known = specs.iter().copied().flatten().map(|spec| spec.name).chain(["help"]);
    usage(match nearest(name.trim_start_matches('-'), known) {
        Some(near) => format!("unknown option {shown}; did you mean --{near}?"),
        None => format!("unknown option {shown}; --help lists the options"),
    })
}

/// A word that somebody gave, for a message: no longer than it helps, and nothing in it that a terminal would obey.
pub(super) fn shown(word: &str) -> String {
    harmless(&shortened(word, SHOWN_CHARS))
}

impl Args {
    /// Reads a command line, without the program and the command, against the options that the command has.
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
        for spec in specs.iter().copied().flatten() {
            if !args.values.contains_key(spec.name)
                && let Some(value) = environment(&spec.variable())
            {
                let no_text = |_| ConfigError {
                    message: format!("{}: its value is not UTF-8 text", spec.variable()),
                    is_usage: false,
                };
                let value = value.into_string().map_err(no_text)?;
                args.values.insert(spec.name, vec![(value, Source::Environment)]);
            }
        }
        Ok(args)
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
            (None, None) => "true".to_owned(),
            (None, Some(_)) => return Err(usage(format!("{name} takes no value"))),
            (Some(_), Some(value)) => value,
            (Some(what), None) => rest.next().ok_or_else(|| usage(format!("{name} needs a value: {name} {what}")))?,
        };
        let values = self.values.entry(spec.name).or_default();
        if !values.is_empty() && !spec.repeatable {
            return Err(usage(format!("{name} is given twice")));
        }
        values.push((value, Source::Flag));
        Ok(())
    }

    /// The value of an option and where it came from.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, Source)> {
        self.values.get(name).and_then(|values| values.first()).map(|(value, source)| (value.as_str(), *source))
    }

    /// All values of a repeatable option; one that comes from the environment may hold several, with commas.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let values = self.values.get(name).map(Vec::as_slice).unwrap_or_default();
        values
            .iter()
            .flat_map(|(value, source)| match source {
                Source::Flag => vec![value.as_str()],
                Source::Environment => value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect(),
            })
            .collect()
    }

    /// Whether a switch is on. In the environment `0`, `false` and the empty text turn it off.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|(value, _)| !matches!(value, "" | "0" | "false"))
    }
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
        let lookup =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Args::parse(line.iter().map(|word| (*word).to_owned()), &[SPECS], lookup)
    }

    #[test]
    fn a_flag_goes_before_the_environment() {
        let args = parse(&["--workers", "2"], &[("MESOPHYLL_WORKERS", "3")]).expect("valid");
        assert_eq!(args.get("workers"), Some(("2", Source::Flag)));
        let args = parse(&[], &[("MESOPHYLL_WORKERS", "3")]).expect("valid");
        assert_eq!(args.get("workers"), Some(("3", Source::Environment)));
    }

    #[test]
    fn values_follow_or_stand_behind_an_equals_sign() {
        let args = parse(&["a", "--workers=2", "--nowait", "-", "--", "--b"], &[]).expect("valid");
        assert_eq!(args.get("workers"), Some(("2", Source::Flag)));
        assert!(args.is_on("nowait"));
        assert_eq!(args.positional, ["a", "-", "--b"]);
        let args = parse(&["-5", "--workers", "-1", "-0.5e3"], &[]).expect("valid");
        assert_eq!(
            (args.positional.as_slice(), args.get("workers")),
            (&["-5".into(), "-0.5e3".into()][..], Some(("-1", Source::Flag)))
        );
    }

    #[test]
    fn lists_are_collected_and_others_may_not_repeat() {
        assert_eq!(parse(&["--scope", "a", "--scope", "b"], &[]).expect("valid").all("scope"), ["a", "b"]);
        assert_eq!(parse(&[], &[("MESOPHYLL_SCOPE", "a, b")]).expect("valid").all("scope"), ["a", "b"]);
        assert!(parse(&["--workers", "1", "--workers", "2"], &[]).is_err());
    }

    #[test]
    fn a_variable_that_is_no_text_is_an_error_only_where_it_counts() {
        let broken = || OsString::from_vec(vec![b'2', 0xff]);
        let parse = |line: &[&str]| {
            let lookup = |name: &str| (name == "MESOPHYLL_WORKERS").then(broken);
            Args::parse(line.iter().map(|word| (*word).to_owned()), &[SPECS], lookup)
        };
        let error = parse(&[]).expect_err("it counts");
        assert_eq!((error.message.as_str(), error.is_usage), ("MESOPHYLL_WORKERS: its value is not UTF-8 text", false));
        assert_eq!(parse(&["--workers", "2"]).expect("a flag goes first").get("workers"), Some(("2", Source::Flag)));
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
        assert_eq!(parse(&["--workers"], &[]).expect_err("no value").message, "--workers needs a value: --workers N");
        assert_eq!(parse(&["--nowait=1"], &[]).expect_err("a value").message, "--nowait takes no value");
    }
}
