//! The configuration file (`--config FILE`): one `option = value` a line. Flags and variables count
//! before it.

use crate::base::limits::CONFIG_FILE_MAX_BYTES;
use crate::base::nearest::related;

use super::args::{Args, OptionSpec, shown, variable};
use super::environment::SECRETS;
use super::look::LOOK;
use super::words;
use crate::cli::{COMMANDS, CliError, Command};

/// Takes what the command line and the environment leave open from the file that they name, if they
/// name one.
///
/// # Blocks
/// Until the file is read.
///
/// # Errors
/// The file cannot be read, or a line of it is no `option = value` of any command that takes such a
/// file.
pub(in crate::cli) fn apply(args: &mut Args, command: &Command) -> Result<(), CliError> {
    let Some((path, _)) = args.get("config") else { return Ok(()) };
    let path = path.to_owned();
    take(args, command, &path, &words::file(&path, CONFIG_FILE_MAX_BYTES)?)
}

fn take(args: &mut Args, command: &Command, path: &str, text: &str) -> Result<(), CliError> {
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: String| CliError::config(format!("{path}:{number}: {what}"));
        let line = without_comment(line);
        if line.is_empty() {
            continue;
        }
        // The line is not shown: it may be a secret.
        let (name, value) =
            line.split_once('=').ok_or_else(|| wrong("a line is option = value".to_owned()))?;
        let (name, value) = (name.trim(), value.trim());
        if value.starts_with(['"', '\'']) {
            return Err(wrong(format!("{}: a value stands without quotes", shown(name))));
        }
        let spec = known().find(|spec| spec.name == name).ok_or_else(|| wrong(unknown(name)))?;
        // One file may serve all commands: what another one knows does not matter here.
        if let Some(own) = command.all_options().find(|own| own.name == spec.name) {
            args.take_line(own, value, path, number)
                .map_err(|error| wrong(format!("{name} {error}")))?;
        }
    }
    Ok(())
}

/// A line up to its comment, which begins at its start or behind white space.
fn without_comment(line: &str) -> &str {
    let starts = line.match_indices('#').map(|(at, _)| at);
    let is_comment = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let end = starts.into_iter().find(is_comment).unwrap_or(line.len());
    line[..end].trim()
}

/// The options that a file may have.
fn known() -> impl Iterator<Item = &'static OptionSpec> + Clone {
    let takers = COMMANDS.iter().filter(|command| command.has_option("config"));
    let options = takers.flat_map(Command::all_options);
    options.filter(|option| LOOK.iter().all(|look| look.name != option.name))
}

fn unknown(name: &str) -> String {
    // As the command line and the environment have it.
    let plain = name.trim_start_matches("--").to_ascii_lowercase().replace('_', "-");
    let plain = plain.strip_prefix("mesophyll-").unwrap_or(&plain);
    if let Some((secret, _)) = SECRETS.iter().find(|(secret, _)| *secret == variable(plain)) {
        return format!("secrets do not belong in this file: set {secret} in the environment");
    }
    if LOOK.iter().any(|look| look.name == plain) {
        return format!("--{plain} is for the command line");
    }
    match related(plain, known().map(|spec| spec.name)) {
        Some(near) => format!("unknown option {}; did you mean {near}?", shown(name)),
        None => {
            format!("unknown option {}; mesophyll master --help lists the options", shown(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::ValueSource;
    use super::*;
    use crate::master::config::Options;

    fn read(command: &Command, line: &[&str], text: &str) -> Result<Args, CliError> {
        let words = line.iter().map(|word| (*word).to_owned());
        let mut args = Args::parse(words, command.options, |_| None).expect("valid");
        take(&mut args, command, "x.conf", text).map(|()| args)
    }

    fn master(line: &[&str], text: &str) -> Result<Args, CliError> {
        read(&crate::cli::commands::master::COMMAND, line, text)
    }

    #[test]
    fn a_file_sets_what_the_command_line_leaves_open() {
        let text = "# a comment\n\n  workers = 3 # too\r\nreload=Yes\ntrusted-source = 10.0.0.0/8\n\
                    trusted-source = a,b\npurchase-url = https://a/#b\nin-flight = 5\nvm-idle = 1m";
        let args = master(&["--vm-idle", "2m"], text).expect("valid");
        let at = |line| ValueSource::File { path: "x.conf".to_owned(), line };
        assert_eq!(args.get("workers"), Some(("3", &at(3))));
        assert_eq!(args.named("workers"), "x.conf:3: workers");
        assert_eq!(args.get("purchase-url"), Some(("https://a/#b", &at(7))));
        assert_eq!(args.get("vm-idle"), Some(("2m", &ValueSource::Flag)));
        assert!(args.is_on("reload"));
        assert_eq!(args.all("trusted-source"), ["10.0.0.0/8", "a", "b"]);
        assert_eq!(args.get("in-flight"), None, "it is for another command");
        let args = master(&["--trusted-source", "c"], text).expect("valid");
        assert_eq!(args.all("trusted-source"), ["c"], "a flag counts alone");
    }

    #[test]
    fn a_line_that_says_nothing_is_named_with_its_place() {
        for (text, says) in [
            ("\nwrokers = 1", "x.conf:2: unknown option wrokers; did you mean workers?"),
            (
                "MESOPHYLL_WORKERS = 1",
                "x.conf:1: unknown option MESOPHYLL_WORKERS; did you mean workers?",
            ),
            (
                "--default_events = *",
                "x.conf:1: unknown option --default_events; did you mean default-events?",
            ),
            (
                "sing = 1",
                "x.conf:1: unknown option sing; mesophyll master --help lists the options",
            ),
            ("workers 3", "x.conf:1: a line is option = value"),
            ("workers = 1\nworkers = 2", "x.conf:2: workers is given twice"),
            (
                "reload = maybe",
                "x.conf:1: reload is true or false (or yes or no, on or off, 1 or 0), not \"maybe\"",
            ),
            ("trusted-source = a,,b", "x.conf:1: trusted-source is a list with commas"),
            ("store = \"redb:x\"", "x.conf:1: store: a value stands without quotes"),
            ("print-config = yes", "x.conf:1: --print-config is for the command line"),
            (
                "api-secret = hunter2",
                "x.conf:1: secrets do not belong in this file: set MESOPHYLL_API_SECRET",
            ),
            (
                "MESOPHYLL_CLIENT_TOKEN=hunter2",
                "x.conf:1: secrets do not belong in this file: set MESOPHYLL_CLIENT",
            ),
        ] {
            let error = master(&[], text).expect_err(text);
            assert!(error.code() == 3 && error.to_string().starts_with(says), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_replay_takes_no_place_from_a_file_and_knows_it() {
        let replay = &crate::cli::commands::replay::COMMAND;
        let args = read(replay, &[], "store = redb:live.redb\napi = 127.0.0.1:1\nworkers = 2")
            .expect("valid");
        assert_eq!((args.get("store"), args.get("api")), (None, None));
        assert_eq!(args.ignored(), ["x.conf:1: store", "x.conf:2: api"]);
        assert!(args.get("workers").is_some());
    }
}
