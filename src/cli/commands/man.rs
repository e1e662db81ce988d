//! `mesophyll man`: the manual page, from the same tables as the help and the parsing.

use std::fmt::Write;

use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::parse::environment::SECRETS;
use crate::cli::{COMMANDS, CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "man",
    usage: "",
    about: "print the manual page, in roff",
    options: &[],
    examples: &[
        "mesophyll man | man -l -",
        "mesophyll man > /usr/local/share/man/man1/mesophyll.1",
    ],
    run,
};

/// What a command ends with.
pub(in crate::cli) const EXIT_CODES: [(u8, &str); 7] = [
    (0, "success, a graceful stop included"),
    (1, "some event, request or test failed, or `check` found something"),
    (2, "wrong usage, or nothing to test"),
    (
        3,
        "bad configuration, input or token file; a port in use; built without what the command needs",
    ),
    (
        4,
        "the store is unavailable, lacks its tables, is not one of ours, or was written by a newer version",
    ),
    (5, "the supervisor gave up: no worker is left that has not failed"),
    (70, "a bug"),
];

const DESCRIPTION: &str = "\
    Mesophyll runs untrusted Luau templates for many tenants. One master supervises a pool of \
    workers; every tenant (a Discord guild or user, written guild:ID or user:ID) has a sandboxed \
    Luau VM of its own on exactly one worker; the master dispatches events to tenants and gets \
    an answer to each; templates keep data in a durable store that they reach only through the \
    master.";

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    output::print(page().trim_end())
}

fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH MESOPHYLL 1 \"\" \"mesophyll {version}\" \"User Commands\"\n");
    section(&mut page, "NAME");
    // What is written to a text always fits.
    let _ = writeln!(
        page,
        "mesophyll \\- {}",
        roff("a master, its workers and the sandboxed Luau templates of tenants")
    );
    section(&mut page, "SYNOPSIS");
    page.push_str(".B mesophyll\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n");
    section(&mut page, "DESCRIPTION");
    let _ = writeln!(page, "{}", roff(DESCRIPTION));
    section(&mut page, "COMMANDS");
    COMMANDS.iter().for_each(|command| describe(&mut page, command));
    section(&mut page, "EXIT STATUS");
    EXIT_CODES.iter().for_each(|(code, meaning)| item(&mut page, &code.to_string(), meaning));
    section(&mut page, "ENVIRONMENT");
    item(
        &mut page,
        "MESOPHYLL_<OPTION>",
        "each option's value, where the command line has none: --default-events is MESOPHYLL_DEFAULT_EVENTS",
    );
    SECRETS.iter().for_each(|(variable, meaning)| item(&mut page, variable, meaning));
    section(&mut page, "EXAMPLES");
    for command in COMMANDS {
        page.push_str(".PP\n.nf\n");
        command.examples.iter().for_each(|example| page.push_str(&format!("{}\n", roff(example))));
        page.push_str(".fi\n");
    }
    page
}

fn describe(page: &mut String, command: &Command) {
    let usage = format!("mesophyll {} {}", command.name, command.usage);
    let _ = writeln!(page, ".SS {}\n{}.", quoted(usage.trim_end()), roff(command.about));
    for option in command.all_options() {
        item(page, &option.head(), &option.meaning());
    }
}

fn section(page: &mut String, name: &str) {
    let _ = writeln!(page, ".SH {name}");
}

fn item(page: &mut String, head: &str, text: &str) {
    let _ = writeln!(page, ".TP\n.B {}\n{}", quoted(head), roff(text));
}

/// A text as one argument of a macro.
fn quoted(text: &str) -> String {
    format!("\"{}\"", roff(text).replace('"', "\\(dq"))
}

/// A text that stands for itself: nothing in it is a request or an escape, and a dash can be copied
/// into a shell.
fn roff(text: &str) -> String {
    let mut roff = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' => roff.push_str("\\e"),
            '-' => roff.push_str("\\-"),
            // Else these are typographic, or begin a request.
            '\'' => roff.push_str("\\(aq"),
            '`' => roff.push_str("\\(ga"),
            '~' => roff.push_str("\\(ti"),
            '^' => roff.push_str("\\(ha"),
            '.' if roff.is_empty() => roff.push_str("\\&."),
            _ if char.is_ascii() => roff.push(char),
            _ => roff.push_str(&format!("\\[u{:04X}]", u32::from(char))),
        }
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_option_and_secret_is_in_the_page() {
        let page = page();
        for command in COMMANDS {
            assert!(
                page.contains(&format!(".SS \"mesophyll {}", roff(command.name))),
                "{}",
                command.name
            );
            for option in command.all_options() {
                assert!(
                    page.contains(&format!(".B {}\n", quoted(&option.head()))),
                    "--{}",
                    option.name
                );
            }
        }
        assert!(SECRETS.iter().all(|(variable, _)| page.contains(variable)));
        assert!(page.is_ascii());
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line[1..].split_whitespace().next().unwrap_or_default();
            assert!(["TH", "SH", "SS", "TP", "B", "PP", "nf", "fi"].contains(&request), "{line}");
        }
    }

    #[test]
    fn nothing_in_a_text_is_a_request() {
        assert_eq!(roff(".x -y 'z' \\n"), "\\&.x \\-y \\(aqz\\(aq \\en");
        assert_eq!(quoted("a \"b\" …"), "\"a \\(dqb\\(dq \\[u2026]\"");
    }
}
