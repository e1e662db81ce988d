//! `mesophyll workers`: a table of the workers, once or over and over.

use std::io::IsTerminal;
use std::time::Duration;

use crossbeam_channel::select;
use serde::Deserialize;

use super::args::{Args, OptionSpec};
use super::client::{ApiClient, CLIENT, DATA_DEADLINE};
use super::signals::{Signal, Signals};
use super::table::Table;
use super::words::JSON;
use super::{CliError, Command, output};

/// How often `--watch` looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

pub(super) const COMMAND: Command = Command {
    name: "workers",
    usage: "[--watch]",
    about: "show the workers of a running master",
    options: &[&[OptionSpec::switch("watch", "show them anew each second, until Ctrl-C"), JSON], CLIENT],
    examples: &["mesophyll workers", "mesophyll workers --watch", "mesophyll workers --json"],
    run,
};

/// What the API says of a worker.
#[derive(Debug, Deserialize)]
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) state: String,
    pub(super) pid: Option<u32>,
    pub(super) uptime_s: Option<u64>,
    pub(super) heartbeat_age_ms: Option<u64>,
    pub(super) in_flight: usize,
    pub(super) vms: u64,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<String>,
    pub(super) waiting: usize,
    pub(super) memory_bytes: Option<u64>,
}

fn run(args: &Args) -> Result<(), CliError> {
    if let Some(extra) = args.positional.first() {
        return Err(CliError::usage(format!("unexpected {extra:?}")));
    }
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    let is_json = args.is_on("json");
    if !args.is_on("watch") {
        return show(&client, is_json, false);
    }
    let signals = Signals::install().map_err(|error| CliError::config(error.to_string()))?;
    loop {
        // A terminal shows the newest table at its top; a file or a pipe gets one after the other.
        show(&client, is_json, std::io::stdout().is_terminal())?;
        select! {
            recv(signals.received_rx()) -> signal => if signal != Ok(Signal::HangUp) {
                return Ok(());
            },
            default(WATCH_PAUSE) => {}
        }
    }
}

fn show(client: &ApiClient, is_json: bool, clears: bool) -> Result<(), CliError> {
    let (text, workers) = fetch(client)?;
    let text = if is_json { text } else { table(&workers) };
    output::print(&if clears { format!("\x1b[2J\x1b[H{text}") } else { text })
}

/// The workers, as text and understood.
///
/// # Errors
/// There is no master, or it answers something else.
pub(super) fn fetch(client: &ApiClient) -> Result<(String, Vec<Worker>), CliError> {
    let text = client.get("/i/workers")?.success()?;
    let workers = serde_json::from_str(&text)
        .map_err(|_| CliError::failed("the answer is not understood; is the master of another version?"))?;
    Ok((text, workers))
}

fn table(workers: &[Worker]) -> String {
    let head =
        ["ID", "STATE", "PID", "UPTIME", "HEARTBEAT", "IN FLIGHT", "WAITING", "VMS", "MEMORY", "RESTARTS", "LAST EXIT"];
    let mut table = Table::new(&head);
    for worker in workers {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.row([
            worker.id.to_string(),
            worker.state.clone(),
            or_dash(worker.pid.map(|pid| pid.to_string())),
            or_dash(worker.uptime_s.map(span)),
            or_dash(worker.heartbeat_age_ms.map(|ms| format!("{}.{} s ago", ms / 1000, ms % 1000 / 100))),
            worker.in_flight.to_string(),
            worker.waiting.to_string(),
            worker.vms.to_string(),
            or_dash(worker.memory_bytes.map(|bytes| format!("{} MiB", bytes / (1024 * 1024)))),
            worker.restarts.to_string(),
            or_dash(worker.last_exit.clone()),
        ]);
    }
    table.text()
}

/// A time that has passed, in its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h0m"), (90_000, "1d1h")] {
            assert_eq!(span(seconds), text);
        }
    }
}
