//! What commands print to stdout. A closed stdout (`| head`) ends a command quietly.

use std::io::{self, ErrorKind, Write};

use super::CliError;

/// Prints a text and a line end.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// Prints a text as it is, without a line end of its own.
///
/// # Errors
/// stdout is broken in another way than being closed.
pub(super) fn print_exactly(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
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
