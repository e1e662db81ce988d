//! What commands print. A closed stdout (`| head`) ends a command quietly.
//!
//! Nothing leaves here with a character in it that a terminal obeys, but a tenant's template that
//! is written to a file or a pipe as it is.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::base::escape;
use crate::cli::CliError;
use crate::cli::parse::args::Args;

/// Prints a text and a line end.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(in crate::cli) fn print(text: &str) -> Result<(), CliError> {
    print_on(text).map(drop)
}

/// Prints a text and a line end; false if stdout is closed, which ends a command that prints over
/// and over.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(in crate::cli) fn print_on(text: &str) -> Result<bool, CliError> {
    is_written(write(&format!("{}\n", escape::lines(text))))
}

/// Draws a text on a terminal over the one before, line by line so that nothing flickers; false and
/// errors as [`print_on`].
pub(in crate::cli) fn redraw(text: &str, is_first: bool) -> Result<bool, CliError> {
    let begin = if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" };
    let text = escape::lines(text).replace('\n', "\x1b[K\n");
    is_written(write(&format!("{begin}{text}\x1b[K\x1b[J\n")))
}

/// Prints what a tenant wrote, or the API answered, as JSON.
///
/// # Errors
/// As [`print`].
pub(in crate::cli) fn print_json(json: &str) -> Result<(), CliError> {
    print(&escape::json(json.trim_end()))
}

/// Prints what a command did: as JSON where that is asked for, else as a sentence.
///
/// # Errors
/// As [`print`].
pub(in crate::cli) fn print_as_asked(args: &Args, json: &str, text: &str) -> Result<(), CliError> {
    if args.is_on("json") { print_json(json) } else { print(text) }
}

/// Prints a text of a tenant's as it is, without a line end of its own; on a terminal it is
/// escaped.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(in crate::cli) fn print_exactly(text: &str) -> Result<(), CliError> {
    let text = if is_terminal() { escape::lines(text) } else { Cow::Borrowed(text) };
    is_written(write(&text)).map(drop)
}

/// Whether stdout is a terminal.
pub(in crate::cli) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes to stdout what its caller has escaped.
///
/// # Errors
/// Those of stdout.
pub(in crate::cli) fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn is_written(written: io::Result<()>) -> Result<bool, CliError> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::failed(format!("stdout: {error}"))),
    }
}

/// Says something to the person at the terminal, at any log level.
pub(in crate::cli) fn tell(text: &str) {
    // Where stderr is closed nothing can be said.
    let _ = writeln!(io::stderr().lock(), "{}", escape::lines(text));
}
