//! `mesophyll broadcast`: an event for every tenant that is subscribed to it; how that goes, and
//! its end.

use std::time::Duration;

use crossbeam_channel::never;

use crate::api::BroadcastAnswer;
use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};
use crate::pool::BroadcastState;

/// Between two looks at how it goes.
const PAUSE: Duration = Duration::from_secs(1);

const PATH: &str = "/i/broadcast";

pub(in crate::cli) const COMMAND: Command = Command {
    name: "broadcast",
    usage: "NAME [DATA] [OPTIONS] | --show | --stop",
    about: "send an event to every tenant whose state names it, one after the other",
    options: &[
        &[
            OptionSpec::switch("only-live", "only tenants that have a VM"),
            OptionSpec::value("rate", "N", "tenants a second, for each worker (default: 200)"),
            OptionSpec::switch("wait", "until it is over, with a line of progress each second"),
            OptionSpec::switch("show", "show the one that runs, or was the last"),
            OptionSpec::switch("stop", "send nothing more of the one that runs"),
            JSON,
        ],
        CLIENT,
    ],
    examples: &[
        r#"mesophyll broadcast Maintenance '{"at":"10:00"}' --wait"#,
        "mesophyll broadcast --show",
        "mesophyll broadcast --stop",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    let (words, shows, stops) = (args.words(), args.is_on("show"), args.is_on("stop"));
    let text = match (&words[..], shows, stops) {
        ([], true, false) => client.get(PATH)?.success()?,
        ([], false, true) => client.delete(PATH)?.success()?,
        ([name], false, false) => client.post(PATH, &body(args, name, "null")?)?.success()?,
        ([name, data], false, false) => client.post(PATH, &body(args, name, data)?)?.success()?,
        _ => return Err(CliError::usage(format!("broadcast takes {}", COMMAND.usage))),
    };
    let begun: BroadcastAnswer = understood(&text)?;
    if !args.is_on("wait") {
        tell_errors(&begun);
        return output::print_as_asked(args, &text, &line(&begun));
    }
    wait(args, &client, text, begun)
}

fn body(args: &Args, name: &str, data: &str) -> Result<String, CliError> {
    let data = words::json("DATA", data)?.get().to_owned();
    let mut members = vec![
        ("name", words::quoted(name)),
        ("data", data),
        ("only_live", args.is_on("only-live").to_string()),
    ];
    if let Some((rate, _)) = args.get("rate") {
        let rate: u32 = rate.parse().map_err(|_| CliError::usage("--rate is a number"))?;
        members.push(("per_second", rate.to_string()));
    }
    Ok(words::object(&members))
}

/// Looks at a broadcast until it is over.
fn wait(
    args: &Args,
    client: &ApiClient,
    mut text: String,
    mut seen: BroadcastAnswer,
) -> Result<(), CliError> {
    let id = seen.all.id.clone();
    tell_errors(&seen);
    let had_errors = seen.masters.iter().any(|part| part.error.is_some());
    while seen.all.state >= BroadcastState::Stopping {
        if !args.is_on("json") && !output::print_on(&line(&seen))? {
            return Ok(());
        }
        let _ = never::<()>().recv_timeout(PAUSE);
        text = client.get(PATH)?.success()?;
        seen = understood(&text)?;
        if seen.all.id != id {
            return Err(CliError::failed("another broadcast has begun meanwhile"));
        }
    }
    output::print_as_asked(args, &text, &line(&seen))?;
    if seen.all.state == BroadcastState::Stopped {
        return Err(CliError::failed("the broadcast was stopped"));
    }
    if had_errors {
        return Err(CliError::failed("some masters have no part in the broadcast"));
    }
    Ok(())
}

fn tell_errors(answer: &BroadcastAnswer) {
    for part in &answer.masters {
        if let Some(error) = &part.error {
            let master = part.master.as_ref().map_or(String::new(), |name| format!("{name}: "));
            output::tell(&format!("{master}{error}"));
        }
    }
}

fn line(answer: &BroadcastAnswer) -> String {
    let all = &answer.all;
    let outcomes = all.outcomes.iter().filter(|(_, count)| **count > 0);
    let outcomes: Vec<String> =
        outcomes.map(|(outcome, count)| format!(", {count} {outcome}")).collect();
    let (event, state) = (&all.event, all.state.as_str());
    format!("{event}: {state}, {} of {} tenants{}", all.done, all.total, outcomes.concat())
}
