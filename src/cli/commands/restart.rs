//! `mesophyll restart`: starts one worker anew, or all of them one after the other, and waits until
//! that is done.

use std::time::{Duration, Instant};

use crossbeam_channel::never;
use serde_json::Value;

use super::workers::fetch;
use crate::api::WorkerAnswer;
use crate::base::limits;
use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::JSON;
use crate::cli::{CliError, Command};
use crate::pool::RollReport;

/// Between two looks at how it goes.
const PAUSE: Duration = Duration::from_millis(200);

/// Limit: for one worker to be ready again, from when it no longer drains: the master's own limits
/// come first. Draining takes as long as the master lets it, [`limits::DRAIN_TIMEOUT_MAX`] at most.
const RESTART_TIMEOUT: Duration = Duration::from_secs(120);

pub(in crate::cli) const COMMAND: Command = Command {
    name: "restart",
    usage: "ID | --all",
    about: "start a worker anew, or all of them one at a time",
    options: &[&[OptionSpec::switch("all", "all workers, one at a time"), JSON], CLIENT],
    examples: &["mesophyll restart 0", "mesophyll restart --all", "mesophyll restart --all --json"],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    match (&args.positional[..], args.is_on("all")) {
        ([], true) => all(&client, args.is_on("json")),
        ([id], false) => one(
            &client,
            args.is_on("json"),
            id.parse().map_err(|_| CliError::usage("a worker's id is a number from 0"))?,
        ),
        _ => Err(CliError::usage(format!("restart takes {}", COMMAND.usage))),
    }
}

fn one(client: &ApiClient, is_json: bool, id: usize) -> Result<(), CliError> {
    let of = |workers: Vec<WorkerAnswer>| workers.into_iter().find(|worker| worker.id == id);
    let before = of(fetch(client)?.1);
    // A worker started from outside that was stopped comes back without being restarted.
    let was_stopped = before.as_ref().is_some_and(|worker| worker.state == "stopped");
    let before = before.map_or(0, |worker| worker.restarts);
    client.post_nothing(&format!("/i/restart-worker/{id}"))?.success()?;
    let since = Instant::now();
    let mut until = since + RESTART_TIMEOUT;
    loop {
        let (text, workers) = fetch(client)?;
        let Some(worker) = of(workers) else {
            return Err(CliError::failed(format!("there is no worker {id}")));
        };
        until = ready_until(since, until, &worker.state, Instant::now());
        match worker.state.as_str() {
            "ready" if worker.restarts > before || was_stopped => {
                return if is_json {
                    output::print_json(&only(&text, id))
                } else {
                    output::print(&format!("worker {id} is ready again"))
                };
            }
            state @ ("failed" | "dead") if worker.restarts > before => {
                let exit = worker
                    .last_exit
                    .map(|exit| format!("; its last process: {exit}"))
                    .unwrap_or_default();
                return Err(CliError::failed(format!("worker {id} is {state}{exit}")));
            }
            state if Instant::now() > until => {
                return Err(CliError::failed(format!("worker {id} is still {state}")));
            }
            _ => pause(),
        }
    }
}

/// Until when a worker that is restarted since `since` may take to be ready: while it drains, that
/// moves on.
fn ready_until(since: Instant, until: Instant, state: &str, now: Instant) -> Instant {
    if state != "draining" {
        return until;
    }
    now.min(since + limits::DRAIN_TIMEOUT_MAX) + RESTART_TIMEOUT
}

/// What the API says of one of the workers.
fn only(text: &str, id: usize) -> String {
    let workers: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    workers.into_iter().find(|worker| worker["id"] == id).unwrap_or_default().to_string()
}

fn all(client: &ApiClient, is_json: bool) -> Result<(), CliError> {
    let mut text = client.post_nothing("/i/rolling-restart")?.success()?;
    let mut rolling: RollReport = understood(&text)?;
    let number = rolling.number;
    let mut told = 0;
    loop {
        for id in rolling.restarted.iter().skip(told).filter(|_| !is_json) {
            output::print(&format!("worker {id} is ready again"))?;
        }
        told = rolling.restarted.len();
        if rolling.number != number {
            return Err(CliError::failed("another rolling restart has begun meanwhile"));
        }
        if !rolling.is_running {
            break;
        }
        pause();
        text = client.get("/i/rolling-restart")?.success()?;
        rolling = understood(&text)?;
    }
    if is_json {
        output::print_json(&text)?;
    }
    for id in &rolling.skipped {
        output::tell(&format!("worker {id} was left alone: it is stopped"));
    }
    rolling.error.map_or(Ok(()), |error| {
        Err(CliError::failed(format!("the rolling restart stopped: {error}")))
    })
}

fn pause() {
    let _ = never::<()>().recv_timeout(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_its_time_to_get_ready_after_its_drain() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let until = at(120);
        assert_eq!(ready_until(since, until, "starting", at(100)), until);
        let drained = ready_until(since, until, "draining", at(200));
        assert_eq!(drained, at(320));
        assert_eq!(ready_until(since, drained, "starting", at(250)), drained);
        let longest = limits::DRAIN_TIMEOUT_MAX + RESTART_TIMEOUT;
        assert_eq!(ready_until(since, until, "draining", at(100_000)), since + longest);
    }
}
