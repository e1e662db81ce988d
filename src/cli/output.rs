//! What commands print to stdout. A closed stdout (`| head`) ends a command quietly.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};

use super::CliError;
use super::table::{harmless_json, harmless_lines};

/// Prints a text and a line end.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_on(text).map(drop)
}

/// Prints a text and a line end; false if stdout is closed, which ends a command that prints over and over.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(super) fn print_on(text: &str) -> Result<bool, CliError> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::failed(format!("stdout: {error}"))),
    }
}

/// Prints what a tenant wrote, or the API answered, as JSON.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(json: &str) -> Result<(), CliError> {
    print(&harmless_json(json.trim_end()))
}

/// Prints a text of a tenant's as it is, without a line end of its own; but on a terminal nothing in it that a terminal obeys.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(super) fn print_exactly(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let text = if stdout.is_terminal() { Cow::Owned(harmless_lines(text)) } else { Cow::Borrowed(text) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// Says something to the person at the terminal, whatever the log level.
pub(super) fn tell(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
