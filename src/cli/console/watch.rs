//! Commands that look at a running master again and again.

use std::time::Duration;

use crossbeam_channel::after;

use super::output;
use super::signals::end_quietly;
use crate::cli::CliError;

/// How often a watch looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Fetches something each second, and shows it until `show` says that its reader has gone.
///
/// # Blocks
/// Until a signal, or the end of the reader. A master that goes away is waited for, if it was there
/// once: it may be restarted.
///
/// # Errors
/// Those of fetching, if waiting does not help, and of showing.
pub(in crate::cli) fn watch<T>(
    fetch: impl Fn() -> Result<T, CliError>,
    mut show: impl FnMut(T) -> Result<bool, CliError>,
) -> Result<(), CliError> {
    // A hang-up too: the terminal is gone, and nothing that is drawn may tell of it for a long
    // time.
    end_quietly().map_err(|error| CliError::config(error.to_string()))?;
    let (mut was_there, mut is_told) = (false, false);
    loop {
        match fetch() {
            Ok(seen) => {
                (was_there, is_told) = (true, false);
                if !show(seen)? {
                    return Ok(());
                }
            }
            Err(error) if was_there && error.may_pass => {
                if !std::mem::replace(&mut is_told, true) {
                    output::tell(&format!("{error}; looking on"));
                }
            }
            Err(error) => return Err(error),
        }
        let _ = after(PAUSE).recv();
    }
}
