//! The environment variables with our prefix: which there are, and a warning for each that no
//! command knows.
//!
//! A value is never shown: it may be a secret under a misspelt name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::base::nearest::related;
use crate::pool::TOKEN_VARIABLE as CLIENT_TOKEN;

use super::args::{OptionSpec, shown};
use crate::cli::commands::token::SECRET_VARIABLE;
use crate::cli::console::client::TOKEN_VARIABLE as INTERNAL_TOKEN;
use crate::cli::console::output;
use crate::cli::{COMMANDS, Command};
use crate::net::broker::BROKER_VARIABLE;

const PREFIX: &str = "MESOPHYLL_";

/// What belongs to no option: secrets, which a command line would show to other users.
pub(in crate::cli) const SECRETS: [(&str, &str); 3] = [
    (SECRET_VARIABLE, "signs the internal API's tokens; 32 bytes or more (master, replay, token)"),
    (INTERNAL_TOKEN, "the token of the commands that talk to a running master"),
    (CLIENT_TOKEN, "the token of a worker"),
];

/// What the tests and benchmarks of this project read: not for a command, and no mistake either.
const OF_THE_TESTS: [&str; 4] = ["TEST_", "BENCH_", "SCALE_", "MEASURE"];

/// Limit: so many unknown variables are named, the others are counted. More is no slip of a finger,
/// and each costs a look at every known name.
const NAMED_MAX: usize = 20;

/// Says at the terminal which variables are not known; for commands that have no log.
pub(in crate::cli) fn tell_unknown() {
    for line in warnings(std::env::vars_os().map(|(name, _)| name)) {
        output::tell(&format!("mesophyll: warning: {line}"));
    }
}

/// Logs which variables are not known.
pub(in crate::cli) fn log_unknown() {
    for line in warnings(std::env::vars_os().map(|(name, _)| name)) {
        log::warn!("{line}");
    }
}

/// The variables that a value may come from, without their prefix.
fn known() -> impl Iterator<Item = String> {
    let options = COMMANDS.iter().flat_map(Command::all_options);
    let secrets = SECRETS.iter().map(|(name, _)| (*name).to_owned());
    let names = options.flat_map(OptionSpec::variables).chain(secrets);
    let names = names.chain([BROKER_VARIABLE.to_owned()]);
    names.filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
}

/// A line for each variable of ours that no command knows, in the order of their names.
fn warnings(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = known().collect();
    let mut unknown: Vec<Vec<u8>> = names
        .filter_map(|name| name.as_bytes().strip_prefix(PREFIX.as_bytes()).map(<[u8]>::to_vec))
        .filter(|name| !known.iter().any(|known| known.as_bytes() == name))
        .filter(|name| !OF_THE_TESTS.iter().any(|prefix| name.starts_with(prefix.as_bytes())))
        .collect();
    unknown.sort();
    let named = unknown.iter().take(NAMED_MAX).map(|name| warning(name, &known));
    let mut lines: Vec<String> = named.collect();
    if unknown.len() > NAMED_MAX {
        lines.push(format!(
            "{} more variables {PREFIX}… that no command knows",
            unknown.len() - NAMED_MAX
        ));
    }
    lines
}

fn warning(name: &[u8], known: &[String]) -> String {
    let text = OsStr::from_bytes(name).to_string_lossy();
    let variable = format!("{PREFIX}{}", shown(&text));
    match related(&text, known.iter().map(String::as_str)) {
        Some(near) => {
            format!("no command knows the variable {variable}; did you mean {PREFIX}{near}?")
        }
        None => format!(
            "no command knows the variable {variable}; mesophyll COMMAND --help lists what there is"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        warnings(names.iter().map(OsString::from))
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest_known_one() {
        assert_eq!(
            of(&["PATH", "MESOPHYLL_WROKERS", "MESOPHYLL_WORKERS", "MESOPHYLL", "mesophyll_x"]),
            ["no command knows the variable MESOPHYLL_WROKERS; did you mean MESOPHYLL_WORKERS?"]
        );
        assert_eq!(
            of(&["MESOPHYLL_API_SECRTE"]),
            [
                "no command knows the variable MESOPHYLL_API_SECRTE; did you mean MESOPHYLL_API_SECRET?"
            ]
        );
        assert_eq!(
            of(&["MESOPHYLL_MOONSHINE"]),
            [
                "no command knows the variable MESOPHYLL_MOONSHINE; mesophyll COMMAND --help lists what there is"
            ]
        );
    }

    #[test]
    fn every_option_every_secret_and_what_tests_read_is_known() {
        let options = COMMANDS.iter().flat_map(Command::all_options);
        let names: Vec<String> = options.flat_map(OptionSpec::variables).collect();
        assert!(names.len() > 40, "{names:?}");
        assert_eq!(warnings(names.iter().map(OsString::from)), Vec::<String>::new());
        let secrets =
            ["MESOPHYLL_INTERNAL_TOKEN", "MESOPHYLL_API_SECRET", "MESOPHYLL_CLIENT_TOKEN"];
        assert_eq!(of(&secrets), Vec::<String>::new());
        assert_eq!(of(&["MESOPHYLL_TEST_POSTGRES_URL", "MESOPHYLL_BENCH_X"]), Vec::<String>::new());
    }

    #[test]
    fn names_without_end_or_number_cost_a_few_short_lines() {
        let many: Vec<OsString> =
            (0..10_000).map(|number| format!("MESOPHYLL_X{number:05}").into()).collect();
        let lines = warnings(many.into_iter());
        assert_eq!(lines.len(), NAMED_MAX + 1);
        assert_eq!(lines[NAMED_MAX], "9980 more variables MESOPHYLL_… that no command knows");
        let long = of(&[&format!("MESOPHYLL_{}", "W".repeat(1 << 20))]);
        assert!(long[0].len() < 300, "{}", long[0].len());
        let strange =
            warnings([OsString::from_vec(b"MESOPHYLL_\xff\x1b[2J\nERROR x".to_vec())].into_iter());
        assert!(!strange[0].contains(|char: char| char.is_control()), "{strange:?}");
    }
}
