//! `mesophyll workers`: a table of the workers, once or over and over.

use crate::api::WorkerAnswer;
use crate::base::escape;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::console::table::table;
use crate::cli::console::watch::watch;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::JSON;
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "workers",
    usage: "[--watch]",
    about: "show the workers of a running master",
    options: &[
        &[OptionSpec::switch("watch", "show them anew each second, until Ctrl-C"), JSON],
        CLIENT,
    ],
    examples: &["mesophyll workers", "mesophyll workers --watch", "mesophyll workers --json"],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    let is_json = args.is_on("json");
    if !args.is_on("watch") {
        return show(&client, is_json);
    }
    show_on(&client, is_json)
}

/// Shows the workers over and over: a terminal shows the newest table at its top, a file or a pipe
/// gets one after the other.
fn show_on(client: &ApiClient, is_json: bool) -> Result<(), CliError> {
    let (is_terminal, mut is_drawn) = (output::is_terminal(), false);
    watch(
        || fetch(client),
        |(text, workers)| {
            let text = if is_json { escape::json(&text).into_owned() } else { shown(&workers) };
            if !is_terminal {
                return output::print_on(&text);
            }
            output::redraw(&text, !std::mem::replace(&mut is_drawn, true))
        },
    )
}

fn show(client: &ApiClient, is_json: bool) -> Result<(), CliError> {
    let (text, workers) = fetch(client)?;
    if is_json { output::print_json(&text) } else { output::print(&shown(&workers)) }
}

/// The workers, as text and understood.
///
/// # Errors
/// There is no master, or it answers something else.
pub(super) fn fetch(client: &ApiClient) -> Result<(String, Vec<WorkerAnswer>), CliError> {
    let text = client.get("/i/workers")?.success()?;
    let workers = understood(&text)?;
    Ok((text, workers))
}

fn shown(workers: &[WorkerAnswer]) -> String {
    let head = [
        "ID",
        "STATE",
        "PID",
        "VERSION",
        "HOST",
        "SANDBOX",
        "UPTIME",
        "HEARTBEAT",
        "IN FLIGHT",
        "WAITING",
        "VMS",
        "MEMORY",
        "RESTARTS",
        "LAST EXIT",
    ];
    let row = |worker: &WorkerAnswer| {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [
            worker.id.to_string(),
            state(worker),
            or_dash(worker.pid.map(|pid| pid.to_string())),
            or_dash(worker.version.clone()),
            or_dash(worker.host.clone()),
            or_dash(worker.sandbox.clone()),
            or_dash(worker.uptime_s.map(span)),
            or_dash(
                worker
                    .heartbeat_age_ms
                    .map(|ms| format!("{}.{} s ago", ms / 1000, ms % 1000 / 100)),
            ),
            worker.in_flight.to_string(),
            worker.waiting.to_string(),
            worker.vms.to_string(),
            or_dash(worker.memory_bytes.map(|bytes| format!("{} MiB", bytes / (1024 * 1024)))),
            worker.restarts.to_string(),
            or_dash(worker.last_exit.clone()),
        ]
    };
    table(head, workers.iter().map(row))
}

/// Where a worker is in its life, and what is to be done about it.
fn state(worker: &WorkerAnswer) -> String {
    let is_stale = worker.restart_needed;
    if is_stale { format!("{}, restart needed", worker.state) } else { worker.state.clone() }
}

/// A time that has passed, in its two largest units.
pub(super) fn span(seconds: u64) -> String {
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
    fn a_worker_that_passed_over_a_change_says_restart_needed() {
        let row = |more: &str| {
            let text = format!(
                r#"{{"id":0,"state":"ready","in_flight":0,"vms":0,"restarts":0,"waiting":0{more}}}"#
            );
            state(&serde_json::from_str(&text).expect("a worker"))
        };
        assert_eq!(row(r#","restart_needed":true"#), "ready, restart needed");
        assert_eq!(row(r#","restart_needed":false"#), "ready");
        // Of an older master.
        assert_eq!(row(""), "ready");
    }

    #[test]
    fn a_span_is_told_in_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h0m"), (90_000, "1d1h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
